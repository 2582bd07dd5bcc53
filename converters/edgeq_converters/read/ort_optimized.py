"""Count what ONNX Runtime really runs in int8, from the optimized model it saves itself.

The saved model holds the ops after fusion: an int8 Conv has become `QLinearConv`; one that the
engine could not fuse is still `Conv` behind a DequantizeLinear. Which of the others move int8
data (a Reshape, a MaxPool) is told by propagating element types from inputs and constants.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import onnx

from edgeq.quant.kernels import ONNXRUNTIME

_INT8 = frozenset({onnx.TensorProto.INT8, onnx.TensorProto.UINT8})
_FLOATS = frozenset(
    {
        onnx.TensorProto.FLOAT,
        onnx.TensorProto.FLOAT16,
        onnx.TensorProto.DOUBLE,
        onnx.TensorProto.BFLOAT16,
    }
)

_FUSED_NAMES = {
    "QGemm": "Gemm",
    "MatMulInteger": "MatMul",
    "MatMulIntegerToFloat": "MatMul",
    "DynamicQuantizeMatMul": "MatMul",
    "ConvInteger": "Conv",
    "NhwcMaxPool": "MaxPool",
    "FusedConv": "Conv",
    "FusedGemm": "Gemm",
    "FusedMatMul": "MatMul",
}
"""The engine's names for ops, and the names a reader of the model knows. `QLinearX` is X."""

_INT8_OPS = frozenset(
    {
        "QGemm",
        "MatMulInteger",
        "MatMulIntegerToFloat",
        "DynamicQuantizeMatMul",
        "ConvInteger",
        "QAttention",
    }
)
"""Ops that multiply int8 whatever the type of their result; besides these every `QLinear...`."""

_TO_FLOAT = frozenset({"MatMulIntegerToFloat", "DynamicQuantizeMatMul", "DequantizeLinear"})
_TO_INT32 = frozenset({"MatMulInteger", "ConvInteger"})
_TO_INT64 = frozenset({"Shape", "Size", "ArgMax", "ArgMin", "NonZero", "NonMaxSuppression"})
_TO_BOOL = frozenset(
    {
        "Equal",
        "Greater",
        "Less",
        "GreaterOrEqual",
        "LessOrEqual",
        "Not",
        "And",
        "Or",
        "Xor",
        "IsNaN",
        "IsInf",
    }
)
_TYPE_AT = {"Where": 1, "QLinearConcat": 2, "QLinearWhere": 1}
"""Where the input is whose type the result has; the first one otherwise."""

_LAYOUT_OPS = frozenset({"ReorderInput", "ReorderOutput"})
_LAYOUT_NAME = re.compile(r"Transpose(_token_\d+)?")
"""What the engine calls the Transposes it adds around regions that run channels last."""

_TOKEN = re.compile(r"(_token_\d+|_nchwc|/\w+Fusion/?)+$")
"""What the engine adds to names of ops that it moves or fuses."""

_RAW = re.compile(r"_raw(_\d+)?$")
"""What our writer adds to the name of a tensor before it is quantized."""


@dataclass(frozen=True)
class Coverage:
    """What runs how. `int8` and `float` count ops by type; `q` and `dq` count what is left of the
    pairs; `layout` counts the engine's own changes of layout. Shape arithmetic is not counted.

    `lines` names every float op that touches quantized data, with the reason, and every op that
    the plan leaves in float and the engine runs in int8 all the same; `pairs` says in a few
    words what each group of Q and DQ that is left stands for, most of them first.
    """

    int8: Mapping[str, int]
    float: Mapping[str, int]
    q: int
    dq: int
    layout: int
    lines: tuple[str, ...]
    pairs: tuple[str, ...] = ()


PAIR_LINES = 6
"""Groups of left Q and DQ that are spelled out; the rest is counted."""

_TAKEN = (
    "the plan leaves it in float, but the engine takes ops that have an int8 kernel into int8 "
    "between DequantizeLinear and QuantizeLinear"
)

_EXAMPLES = 3
"""Names a line quotes."""


def coverage(model_bytes: bytes, reasons: Mapping[str, str] = MappingProxyType({})) -> Coverage:
    """Read the model that `SessionOptions.optimized_model_filepath` saved (EXTENDED or ALL).

    `reasons` (node or tensor -> words) are the plan's for ops in float; without one the engine's
    neighbours and the op type speak.
    The bytes come from the engine itself; damaged ones raise protobuf's DecodeError.
    """
    graph = onnx.load_model_from_string(model_bytes).graph
    types = _propagate(graph)
    counted: dict[str, list[onnx.NodeProto]] = {"int8": [], "float": []}
    for node in graph.node:
        precision = None if _is_layout(node) else _precision(node, types)
        if precision is not None:
            counted[precision].append(node)
    kinds = [node.op_type for node in graph.node]
    neighbours = _Neighbours(graph, reasons)
    taken = (node for node in counted["int8"] if _own_name(node) in reasons)
    return Coverage(
        int8=_by_type(counted["int8"]),
        float=_by_type(counted["float"]),
        q=kinds.count("QuantizeLinear"),
        dq=kinds.count("DequantizeLinear"),
        layout=sum(map(_is_layout, graph.node)),
        lines=(
            *neighbours.lines(counted["float"]),
            *(f"{_called(node)} runs in int8: {_TAKEN}" for node in taken),
        ),
        pairs=_Pairs(graph, neighbours).lines(),
    )


def _by_type(nodes: Sequence[onnx.NodeProto]) -> dict[str, int]:
    return dict(sorted(Counter(_plain_name(node.op_type) for node in nodes).items()))


def _propagate(graph: onnx.GraphProto) -> dict[str, int]:
    """Element type per tensor name, 0 where it is not known."""
    types = {tensor.name: tensor.data_type for tensor in graph.initializer}
    for value in graph.input:
        types[value.name] = value.type.tensor_type.elem_type
    for node in graph.node:
        for name in node.output:
            types[name] = _result_type(node, types)
        if node.op_type in ("TopK", "MaxPool") and len(node.output) > 1:
            types[node.output[1]] = onnx.TensorProto.INT64
    return types


def _result_type(node: onnx.NodeProto, types: Mapping[str, int]) -> int:
    kind = node.op_type
    if kind in _TO_FLOAT:
        return onnx.TensorProto.FLOAT
    if kind in _TO_INT32:
        return onnx.TensorProto.INT32
    if kind in _TO_INT64:
        return onnx.TensorProto.INT64
    if kind in _TO_BOOL:
        return onnx.TensorProto.BOOL
    if kind == "QGemm" and len(node.input) < 9:
        return onnx.TensorProto.FLOAT
    if kind == "QuantizeLinear":
        return types.get(node.input[2], 0) if len(node.input) > 2 else onnx.TensorProto.UINT8
    if kind in ("Cast", "Constant", "ConstantOfShape", "RandomNormal", "EyeLike"):
        return _attribute_type(node)
    at = _TYPE_AT.get(kind, 0)
    return types.get(node.input[at], 0) if at < len(node.input) else 0


def _attribute_type(node: onnx.NodeProto) -> int:
    for attribute in node.attribute:
        if attribute.name in ("to", "dtype"):
            return int(attribute.i)
        if attribute.name == "value":
            return int(attribute.t.data_type)
        if attribute.name.startswith("value_float"):
            return onnx.TensorProto.FLOAT
    return onnx.TensorProto.FLOAT if node.op_type == "ConstantOfShape" else 0


def _is_layout(node: onnx.NodeProto) -> bool:
    if node.op_type in _LAYOUT_OPS:
        return True
    return node.op_type == "Transpose" and bool(_LAYOUT_NAME.fullmatch(node.name))


def _precision(node: onnx.NodeProto, types: Mapping[str, int]) -> str | None:
    """Return "int8" or "float"; None for Q and DQ themselves, constants and shape arithmetic."""
    kind = node.op_type
    if kind in ("QuantizeLinear", "DequantizeLinear", "Constant", "ConstantOfShape"):
        return None
    if kind.startswith("QLinear") or kind in _INT8_OPS:
        return "int8"
    made = types.get(node.output[0], 0) if node.output else 0
    if made in _INT8:
        return "int8"
    return "float" if made in _FLOATS else None


def _plain_name(op_type: str) -> str:
    if op_type.startswith("QLinear"):
        return op_type.removeprefix("QLinear")
    return _FUSED_NAMES.get(op_type, op_type)


class _Neighbours:
    """Who makes and who reads a tensor, layout changes looked through."""

    def __init__(self, graph: onnx.GraphProto, reasons: Mapping[str, str]) -> None:
        self.reasons = reasons
        self.constants = {tensor.name for tensor in graph.initializer}
        self.inputs = {value.name for value in graph.input}
        self.outputs = {value.name for value in graph.output}
        self.makers = {name: node for node in graph.node for name in node.output}
        self.readers: dict[str, list[onnx.NodeProto]] = {}
        for node in graph.node:
            for name in node.input:
                self.readers.setdefault(name, []).append(node)

    def lines(self, nodes: Sequence[onnx.NodeProto]) -> tuple[str, ...]:
        return tuple(line for node in nodes if (line := self._line(node)))

    def _line(self, node: onnx.NodeProto) -> str:
        """Why a float op that touches quantized data is one; nothing for the others."""
        made = [self.maker(name) for name in node.input if name and name not in self.constants]
        quantized = [maker for maker in made if maker is not None and _is(maker, "Dequantize")]
        after = [reader for name in node.output for reader in self.readers_of(name)]
        if not quantized and not any(_is(reader, "Quantize") for reader in after):
            return ""
        words = self.planned(node) or self._reason(node, quantized, after)
        return f"{_called(node)} runs in float: {words}"

    def planned(self, node: onnx.NodeProto) -> str | None:
        """Why the plan leaves a node in float: by its name or, where fusing took that, by what it
        makes, as the writer called it before it is quantized."""
        names = [_TOKEN.sub("", name) for name in (node.name, *node.output)]
        names += [_RAW.sub("", name) for name in names]
        return next((self.reasons[name] for name in names if name in self.reasons), None)

    def _reason(
        self,
        node: onnx.NodeProto,
        quantized: Sequence[onnx.NodeProto],
        after: Sequence[onnx.NodeProto],
    ) -> str:
        for name in node.input:
            maker = self.maker(name)
            if maker is not None and maker not in quantized:
                return f"its input `{name}` comes from {_called(maker)}"
            if name in self.inputs:
                return f"its input `{name}` is the model's"
        for reader in after:
            if not _is(reader, "Quantize"):
                return f"its result goes to {_called(reader)} before it is quantized"
        for attribute in node.attribute:
            if attribute.name == "activation":
                return f"{attribute.s.decode()} is left in it, and its int8 kernel has none"
        for name in node.output:
            if name in self.outputs:
                return f"its result is the output `{name}`"
        if not after:
            return "nothing reads its result"
        return "the engine has no int8 kernel that fits it"

    def maker(self, name: str) -> onnx.NodeProto | None:
        maker = self.makers.get(name)
        return self.maker(maker.input[0]) if maker is not None and _is_layout(maker) else maker

    def readers_of(self, name: str) -> list[onnx.NodeProto]:
        found: list[onnx.NodeProto] = []
        for reader in self.readers.get(name, []):
            found += self.readers_of(reader.output[0]) if _is_layout(reader) else [reader]
        return found


class _Pairs:
    """What is left of Q and DQ, grouped by what keeps it: (words, sort of thing) -> names."""

    def __init__(self, graph: onnx.GraphProto, neighbours: _Neighbours) -> None:
        self.around = neighbours
        self.groups: dict[str, list[str]] = {}
        self.words: dict[str, str] = {}
        for node in graph.node:
            if _is(node, "Quantize"):
                self._quantize(node)
            elif _is(node, "Dequantize"):
                self._dequantize(node)

    def lines(self) -> tuple[str, ...]:
        """The largest groups, then the count of the others."""
        ordered = sorted(self.groups, key=lambda key: (-len(self.groups[key]), key))
        lines = [self._line(key) for key in ordered[:PAIR_LINES]]
        rest = sum(len(self.groups[key]) for key in ordered[PAIR_LINES:])
        if rest:
            lines.append(f"{rest} more for {len(ordered) - PAIR_LINES} other reasons")
        return tuple(lines)

    def _line(self, key: str) -> str:
        names = list(dict.fromkeys(self.groups[key]))
        quoted = ", ".join(f"`{name}`" for name in names[:_EXAMPLES])
        more = f" and {len(names) - _EXAMPLES} more" if len(names) > _EXAMPLES else ""
        return f"{len(self.groups[key])} {key} ({quoted}{more}): {self.words[key]}"

    def _quantize(self, node: onnx.NodeProto) -> None:
        name = node.input[0]
        maker = self.around.maker(name)
        if maker is not None:
            self._beside(maker)
        elif name in self.around.inputs:
            self._add("at the input", name, "the model's callers give it in float")
        else:
            self._add("at the constant", name, "it is quantized at every run")

    def _dequantize(self, node: onnx.NodeProto) -> None:
        name, made = node.input[0], node.output[0]
        readers = self.around.readers_of(made)
        if name in self.around.constants:
            words = "it is stored in int8 and turned to float at every run"
            self._add("at the constant", name, words)
        elif readers:
            self._beside(readers[0])
        else:
            self._add("at the output", made, "the model's callers read it in float")

    def _beside(self, node: onnx.NodeProto) -> None:
        kind, name = _plain_name(node.op_type), _own_name(node)
        words = self.around.planned(node) or ONNXRUNTIME.kept_float.get(kind)
        self._add(f"beside `{kind}`", name, words or "it runs in float")

    def _add(self, place: str, name: str, words: str) -> None:
        self.groups.setdefault(place, []).append(name)
        self.words.setdefault(place, words)


def _is(node: onnx.NodeProto, word: str) -> bool:
    return node.op_type == f"{word}Linear"


def _called(node: onnx.NodeProto) -> str:
    return f"{_plain_name(node.op_type)} `{_own_name(node)}`"


def _own_name(node: onnx.NodeProto) -> str:
    """The name of the node, or of its result, as the model had it before the engine's marks."""
    return _TOKEN.sub("", node.name or (node.output[0] if node.output else ""))
