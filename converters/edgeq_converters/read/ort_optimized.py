"""Count what ONNX Runtime really runs in int8, from the optimized model it saves itself.

The saved model holds the ops after fusion: an int8 Conv has become `QLinearConv`; one that the
engine could not fuse is still `Conv` behind a DequantizeLinear. Which of the others move int8
data (a Reshape, a MaxPool) is told by propagating element types from inputs and constants.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import onnx

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

_TOKEN = re.compile(r"(_token_\d+|_nchwc)+$")


@dataclass(frozen=True)
class Coverage:
    """What runs how. `int8` and `float` count ops by type; `q` and `dq` count what is left of the
    pairs; `layout` counts the engine's own changes of layout. Shape arithmetic is not counted.

    `lines` names every float op that touches quantized data, with the reason.
    """

    int8: Mapping[str, int]
    float: Mapping[str, int]
    q: int
    dq: int
    layout: int
    lines: tuple[str, ...]


def coverage(model_bytes: bytes) -> Coverage:
    """Read the model that `SessionOptions.optimized_model_filepath` saved (EXTENDED or ALL).

    The bytes come from the engine itself; damaged ones raise protobuf's DecodeError.
    """
    graph = onnx.load_model_from_string(model_bytes).graph
    types = _propagate(graph)
    counted: dict[str, dict[str, int]] = {"int8": {}, "float": {}}
    layout = 0
    floats: list[onnx.NodeProto] = []
    for node in graph.node:
        if _is_layout(node):
            layout += 1
            continue
        precision = _precision(node, types)
        if precision is None:
            continue
        name = _plain_name(node.op_type)
        counted[precision][name] = counted[precision].get(name, 0) + 1
        if precision == "float":
            floats.append(node)
    kinds = [node.op_type for node in graph.node]
    return Coverage(
        int8=dict(sorted(counted["int8"].items())),
        float=dict(sorted(counted["float"].items())),
        q=kinds.count("QuantizeLinear"),
        dq=kinds.count("DequantizeLinear"),
        layout=layout,
        lines=_Neighbours(graph).lines(floats),
    )


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

    def __init__(self, graph: onnx.GraphProto) -> None:
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
        made = [self._maker(name) for name in node.input if name and name not in self.constants]
        quantized = [maker for maker in made if maker is not None and _is(maker, "Dequantize")]
        after = [reader for name in node.output for reader in self._readers(name)]
        if not quantized and not any(_is(reader, "Quantize") for reader in after):
            return ""
        return f"{_called(node)} runs in float: {self._reason(node, quantized, after)}"

    def _reason(
        self,
        node: onnx.NodeProto,
        quantized: Sequence[onnx.NodeProto],
        after: Sequence[onnx.NodeProto],
    ) -> str:
        for name in node.input:
            maker = self._maker(name)
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

    def _maker(self, name: str) -> onnx.NodeProto | None:
        maker = self.makers.get(name)
        return self._maker(maker.input[0]) if maker is not None and _is_layout(maker) else maker

    def _readers(self, name: str) -> list[onnx.NodeProto]:
        found: list[onnx.NodeProto] = []
        for reader in self.readers.get(name, []):
            found += self._readers(reader.output[0]) if _is_layout(reader) else [reader]
        return found


def _is(node: onnx.NodeProto, word: str) -> bool:
    return node.op_type == f"{word}Linear"


def _called(node: onnx.NodeProto) -> str:
    name = node.name or (node.output[0] if node.output else "")
    return f"{_plain_name(node.op_type)} `{_TOKEN.sub('', name)}`"
