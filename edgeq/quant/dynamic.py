"""Plans that need no data: dynamic int8 for MatMul and Gemm, int8-stored weights for the rest.

Dynamic int8 quantizes what a layer reads while the model runs, per tensor and with a zero point, by
the range it finds; weights are int8 per column. Tables that a Gather picks rows from are int8 per
row. Other weights are stored per channel and computed with in float.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir
from numpy.typing import NDArray

from edgeq.ir import Graph, attribute, constant, dtype_of
from edgeq.numerics import affine
from edgeq.numerics.pair_safe import pair_safe_scale
from edgeq.quant import candidates
from edgeq.quant.draft import draft, kept_float
from edgeq.quant.plan import Encoding, OpDecision, QuantPlan, reader_key

ACTS = ("dynamic", "fp32")
"""What layers read: quantized at run time where the engine is fast so, or float throughout."""

LEAST_VALUES = 256
"""Smaller tensors stay float: scales, nodes and names take about the bytes that would be saved."""

_SUM_LIMIT = 2**31 - 1
_FLOAT = "it has no weights to store in int8"
_SLOW_CONV = (
    "ONNX Runtime's `ConvInteger` takes 8 times as long as its float `Conv`: weights are stored in"
    " int8, computed in float"
)
_STORED = "weights are stored in int8, computed in float"
_TABLE = "the table is stored in int8, rows are brought back as they are read"

Decided = tuple[OpDecision, tuple["Weight", ...]]


@dataclass(frozen=True)
class Weight:
    """A constant that becomes int8: one scale per index of `axis`, or one for all."""

    tensor: str
    array: NDArray[Any]
    axis: int | None


def plan_dynamic(
    graph: Graph,
    *,
    acts: str,
    keep_float: Sequence[str] = (),
    pair_safe: bool = False,
    base: QuantPlan | None = None,
) -> QuantPlan:
    """Decide for every node; `acts` is one of `ACTS`. Reads no data.

    `base`, a static plan of the same graph, keeps its int8 ops, and what it leaves in float becomes
    as here: a mixed plan. `pair_safe` keeps neighbouring weights of dynamic layers from saturating
    x86 kernels without VNNI. Raises EdgeqError: [already-quantized], or [no-such-node] for a
    pattern of `keep_float` that matches nothing.
    """
    assert acts in ACTS, acts
    return _planned(graph, keep_float, pair_safe, base, lambda node: _decide(node, acts))


def with_tables(graph: Graph, base: QuantPlan, *, keep_float: Sequence[str] = ()) -> QuantPlan:
    """`base` with its embedding tables in int8 per row, nothing else changed."""
    return _planned(graph, keep_float, False, base, lambda node: _gather(node) or "")


def dynamic_nodes(graph: Graph, *, keep_float: Sequence[str] = ()) -> tuple[str, ...]:
    """The layers that would run in dynamic int8, in order: what a mixed plan keeps from static."""
    kept = kept_float(graph, keep_float)
    found = [(str(node.name), _decide(node, "dynamic")) for node in graph.nodes()]
    return tuple(
        name
        for name, decided in found
        if name not in kept and not isinstance(decided, str) and _is_dynamic(decided)
    )


def _planned(
    graph: Graph,
    keep_float: Sequence[str],
    pair_safe: bool,
    base: QuantPlan | None,
    decide: Callable[[onnx_ir.Node], Decided | str],
) -> QuantPlan:
    if base is None:
        base = _all_float(graph, keep_float)
    kept = kept_float(graph, keep_float)
    ops, encoder = dict(base.ops), _Encoder(dict(base.tensors), pair_safe)
    for node in graph.nodes():
        name = str(node.name)
        held = ops.get(name)
        if held is None or name in kept or held.precision not in ("float32", "other"):
            continue
        decided = decide(node)
        if isinstance(decided, str):
            if decided and held.reason == _FLOAT:
                ops[name] = OpDecision(name, node.op_type, held.precision, decided)
            continue
        ops[name], weights = decided
        for weight in weights:
            encoder.put(name, weight, dynamic=_is_dynamic(decided))
    notes = (*base.notes, *encoder.notes(), *_notes(ops, base.ops))
    return QuantPlan(encoder.encodings, ops, notes)


def _is_dynamic(decided: Decided) -> bool:
    return decided[0].precision == "dynamic-int8"


def _all_float(graph: Graph, keep_float: Sequence[str]) -> QuantPlan:
    """Every op in float, each with a reason: what is not float at all is named as in any draft."""
    names = {str(node.name): _FLOAT for node in graph.nodes()}
    return QuantPlan({}, draft(graph, keep_float=keep_float, float_nodes=names).ops)


def _notes(ops: Mapping[str, OpDecision], before: Mapping[str, OpDecision]) -> list[str]:
    """One line for each reason why an op of int8 weights computes in float."""
    counts = Counter(
        (op.reason, op.op_type)
        for name, op in ops.items()
        if op.precision == "int8-weights" and op != before.get(name)
    )
    return [f"{count} `{kind}`: {reason}" for (reason, kind), count in counts.items()]


# -- single nodes: the decision with the weights it stores, or why there is none (or nothing new)


def _decide(node: onnx_ir.Node, acts: str) -> Decided | str:
    if node.domain not in ("", "ai.onnx"):
        return ""
    if node.op_type == "Gather":
        return _gather(node) or ""
    if node.op_type in ("MatMul", "Gemm"):
        return _linear(node, acts)
    if node.op_type not in _PLACES:
        return ""
    reason = _SLOW_CONV if node.op_type == "Conv" and acts == "dynamic" else _STORED
    return _stored(node, [_weight(node, *place) for place in _PLACES[node.op_type]], reason)


_PLACES: Mapping[str, tuple[tuple[int, int], ...]] = {
    "Conv": ((1, 0),),
    "ConvTranspose": ((1, 1),),
    "LSTM": ((1, 1), (2, 1)),
    "GRU": ((1, 1), (2, 1)),
    "RNN": ((1, 1), (2, 1)),
}
"""Which inputs of an op are weights, each with the axis of its output channels."""


def _linear(node: onnx_ir.Node, acts: str) -> Decided | str:
    """A MatMul or Gemm; its weights may be either operand, only the second runs in int8."""
    axis = -1
    if node.op_type == "Gemm":
        axis = 0 if attribute(node, "transB", 0) else 1
    right = _weight(node, 1, axis)
    if isinstance(right, str):
        left = _weight(node, 0, -2) if node.op_type == "MatMul" else right
        return right if isinstance(left, str) else _stored(node, [left], _STORED)
    reason = _STORED if acts == "fp32" else _why_not_dynamic(node, right)
    if reason:
        return _stored(node, [right], reason)
    return OpDecision(str(node.name), node.op_type, "dynamic-int8"), (right,)


def _why_not_dynamic(node: onnx_ir.Node, weight: Weight) -> str:
    """Why this layer cannot multiply integers, or nothing."""
    for name, wanted in (("transA", 0), ("alpha", 1.0), ("beta", 1.0)):
        value = attribute(node, name, wanted)
        if value != wanted:
            return f"`{node.op_type}` has {name}={value:g}, not fused: {_STORED}"
    if weight.array.ndim != 2:
        return f"its weights have {weight.array.ndim} dimensions, not 2: {_STORED}"
    depth = weight.array.size // weight.array.shape[weight.axis or 0]
    if depth * 255 * affine.WEIGHT_LIMIT > _SUM_LIMIT:
        return f"sums of {depth} products might not fit int32: {_STORED}"
    return ""


def _gather(node: onnx_ir.Node) -> Decided | None:
    """A Gather of rows of a table [V, ...] by indices that the model computes."""
    if node.op_type != "Gather" or attribute(node, "axis", 0) != 0:
        return None
    table = _weight(node, 0, 0)
    if isinstance(table, str) or table.array.ndim < 2 or constant(node.inputs[1]) is not None:
        return None
    if candidates.crashes_in_body(node.outputs[0], lambda _: False):
        return None
    return OpDecision(str(node.name), node.op_type, "int8-weights", _TABLE), (table,)


def _stored(node: onnx_ir.Node, weights: Sequence[Weight | str], reason: str) -> Decided | str:
    found = tuple(weight for weight in weights if isinstance(weight, Weight))
    if not found:
        return next(weight for weight in weights if isinstance(weight, str))
    return OpDecision(str(node.name), node.op_type, "int8-weights", reason), found


def _weight(node: onnx_ir.Node, at: int, axis: int) -> Weight | str:
    """Input `at` as float32 weights with a scale along `axis`, or why it stays as it is."""
    value = node.inputs[at] if at < len(node.inputs) else None
    array = constant(value)
    if value is None or array is None:
        return "its weights are not constant"
    if dtype_of(value) != "float32":
        return f"its weights are {dtype_of(value)}"
    if array.size < LEAST_VALUES:
        return f"its weights have less than {LEAST_VALUES} values"
    return Weight(str(value.name), array, axis % array.ndim if array.ndim > 1 else None)


class _Encoder:
    """Adds the encodings of weights to those of a base plan."""

    def __init__(self, encodings: dict[str, Encoding], pair_safe: bool) -> None:
        self.encodings = encodings
        self._pair_safe = pair_safe
        self._raised = self._columns = 0

    def put(self, node: str, weight: Weight, *, dynamic: bool) -> None:
        """Under the tensor's name; if another reader has it with other numbers, under this node."""
        scale = self._scale(weight, dynamic)
        numbers = tuple(float(item) for item in scale)
        zeros = (0,) * scale.size
        encoding = Encoding("int8", numbers, zeros, weight.axis, True, "weights")
        held = self.encodings.setdefault(weight.tensor, encoding)
        if held != encoding:
            self.encodings[reader_key(weight.tensor, node)] = encoding

    def notes(self) -> list[str]:
        if not self._raised:
            return []
        return [
            f"{self._raised} of {self._columns} columns of dynamic int8 weights have a coarser"
            " scale so that no pair of weights saturates x86 kernels"
        ]

    def _scale(self, weight: Weight, dynamic: bool) -> NDArray[np.float32]:
        """max |w| / 127 of each channel, raised where a pair of a row along K could saturate."""
        array, axis = weight.array, weight.axis
        others = tuple(at for at in range(array.ndim) if at != axis)
        scale = np.atleast_1d(affine.symmetric_scale(np.abs(array).max(axis=others)))
        if dynamic and self._pair_safe:
            safe = pair_safe_scale(array if axis == 0 else array.T, scale)
            self._columns += scale.size
            self._raised += int(np.count_nonzero(safe > scale))
            return safe
        return scale
