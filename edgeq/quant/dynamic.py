"""Plans that need no data: dynamic int8 for MatMul and Gemm, int8-stored weights for the rest.

Dynamic int8 quantizes what a layer reads while the model runs, per tensor and with a zero point, by
the range it finds; weights are int8 per column. Tables that a Gather picks rows from are int8 per
row. Other weights are stored per channel and computed with in float.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial

import onnx_ir

from edgeq.ir import Graph, attribute, constant
from edgeq.numerics import affine
from edgeq.quant import candidates
from edgeq.quant.draft import draft, kept_float
from edgeq.quant.kernels import ONNXRUNTIME, Kernels
from edgeq.quant.plan import DYNAMIC, OpDecision, QuantPlan
from edgeq.quant.stored import PLACES, STORED, Decided, Encoder, Weight, in_place, stored, weight

ACTS = ("dynamic", "fp32")
"""What layers read: quantized at run time where the engine is fast so, or float throughout."""

WEIGHTS = ("int8", "int4", "int4-block32")
"""What the matrices of dynamic layers are: int8 or int4 per column, or int4 in blocks of 32."""

BLOCK = 32
"""Elements of a block: engines' kernels take multiples of 32."""

_SUM_LIMIT = 2**31 - 1
_FLOAT = "it has no weights to store in int8"
_TABLE = "the table is stored in int8, rows are brought back as they are read"


def plan_dynamic(
    graph: Graph,
    *,
    acts: str,
    keep_float: Sequence[str] = (),
    weights: str = "int8",
    pair_safe: bool = False,
    base: QuantPlan | None = None,
    kernels: Kernels = ONNXRUNTIME,
) -> QuantPlan:
    """Decide for every node; `acts` is one of `ACTS`, `weights` one of `WEIGHTS` (int4 wants
    dynamic `acts`: what is stored for float stays int8). Reads no data.

    `base`, a static plan of the same graph, keeps its int8 ops, and what it leaves in float becomes
    as here: a mixed plan. `pair_safe` keeps neighbouring weights of dynamic layers from saturating
    x86 kernels without VNNI. Raises EdgeqError: [already-quantized], or [no-such-node] for a
    pattern of `keep_float` that matches nothing.
    """
    assert acts in ACTS and weights in WEIGHTS, (acts, weights)
    assert acts == "dynamic" or weights == "int8", (acts, weights)
    decide = partial(_decide, acts=acts, weights=weights, kernels=kernels)
    return _planned(graph, keep_float, pair_safe, base, decide, kernels)


def with_tables(graph: Graph, base: QuantPlan, *, keep_float: Sequence[str] = ()) -> QuantPlan:
    """`base` with its embedding tables in int8 per row, nothing else changed."""
    return _planned(graph, keep_float, False, base, lambda node: _gather(node) or "")


def dynamic_nodes(graph: Graph, *, keep_float: Sequence[str] = ()) -> tuple[str, ...]:
    """The layers that would run in dynamic int8, in order: what a mixed plan keeps from static."""
    kept = kept_float(graph, keep_float)
    decide = partial(_decide, acts="dynamic", weights="int8", kernels=ONNXRUNTIME)
    found = [(str(node.name), decide(node)) for node in graph.nodes()]
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
    kernels: Kernels = ONNXRUNTIME,
) -> QuantPlan:
    if base is None:
        base = _all_float(graph, keep_float, kernels)
    kept = kept_float(graph, keep_float)
    ops, encoder = dict(base.ops), Encoder(dict(base.tensors), pair_safe=pair_safe)
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
        ops[name], constants = decided
        for row in constants:
            encoder.put(name, row, dynamic=_is_dynamic(decided))
    notes = (*base.notes, *encoder.notes(), *_notes(ops, base.ops), *_int4_notes(ops, kernels))
    return QuantPlan(encoder.encodings, ops, notes)


def _is_dynamic(decided: Decided) -> bool:
    return decided[0].precision in DYNAMIC


def _all_float(graph: Graph, keep_float: Sequence[str], kernels: Kernels) -> QuantPlan:
    """Every op in float, each with a reason: what is not float at all is named as in any draft."""
    names = {str(node.name): _FLOAT for node in graph.nodes()}
    return QuantPlan(
        {}, draft(graph, keep_float=keep_float, float_nodes=names, kernels=kernels).ops
    )


def _notes(ops: Mapping[str, OpDecision], before: Mapping[str, OpDecision]) -> list[str]:
    """One line for each reason why an op of int8 weights computes in float."""
    counts = Counter(
        (op.reason, op.op_type)
        for name, op in ops.items()
        if op.precision == "int8-weights" and op != before.get(name)
    )
    return [f"{count} `{kind}`: {reason}" for (reason, kind), count in counts.items()]


def _int4_notes(ops: Mapping[str, OpDecision], kernels: Kernels) -> list[str]:
    """What int4 weights mean to this engine, and how many layers had to take int8 instead."""
    count = sum(op.precision == "dynamic-int4" for op in ops.values())
    wider = Counter(
        (op.reason, op.op_type)
        for op in ops.values()
        if op.precision == "dynamic-int8" and op.reason
    )
    said = [f"{number} `{kind}`: {reason}" for (reason, kind), number in wider.items()]
    if count and kernels.dynamic_int4:
        said.append(f"{count} layer{'s' * (count > 1)} on int4 weights: {kernels.dynamic_int4}")
    return said


# -- single nodes: the decision with the weights it stores, or why there is none (or nothing new)


def _decide(node: onnx_ir.Node, acts: str, weights: str, kernels: Kernels) -> Decided | str:
    if node.domain not in ("", "ai.onnx"):
        return ""
    if node.op_type == "Gather":
        return _gather(node) or ""
    if node.op_type in ("MatMul", "Gemm"):
        return _linear(node, acts, weights)
    if node.op_type not in PLACES:
        return ""
    slow = node.op_type == "Conv" and acts == "dynamic"
    return in_place(node, f"{kernels.dynamic_conv}: {STORED}" if slow else STORED)


def _linear(node: onnx_ir.Node, acts: str, weights: str) -> Decided | str:
    """A MatMul or Gemm; its weights may be either operand, only the second runs in int8."""
    axis = -1
    if node.op_type == "Gemm":
        axis = 0 if attribute(node, "transB", 0) else 1
    right = weight(node, 1, axis)
    if isinstance(right, str):
        left = weight(node, 0, -2) if node.op_type == "MatMul" else right
        return right if isinstance(left, str) else stored(node, [left], STORED)
    reason = STORED if acts == "fp32" else _why_not_dynamic(node, right)
    if reason:
        return stored(node, [right], reason)
    name, op_type = str(node.name), node.op_type
    if weights == "int8":
        return OpDecision(name, op_type, "dynamic-int8"), (right,)
    depth = right.array.shape[1 - (right.axis or 0)]
    if weights == "int4":
        return OpDecision(name, op_type, "dynamic-int4"), (replace(right, dtype="int4"),)
    if depth % BLOCK:
        reason = f"its {depth} inputs are no multiple of {BLOCK}: weights are int8"
        return OpDecision(name, op_type, "dynamic-int8", reason), (right,)
    blocked = replace(right, dtype="int4", block=BLOCK)
    return OpDecision(name, op_type, "dynamic-int4"), (blocked,)


def _why_not_dynamic(node: onnx_ir.Node, right: Weight) -> str:
    """Why this layer cannot multiply integers, or nothing."""
    for name, wanted in (("transA", 0), ("alpha", 1.0), ("beta", 1.0)):
        value = attribute(node, name, wanted)
        if value != wanted:
            return f"`{node.op_type}` has {name}={value:g}, not fused: {STORED}"
    if right.array.ndim != 2:
        return f"its weights have {right.array.ndim} dimensions, not 2: {STORED}"
    depth = right.array.size // right.array.shape[right.axis or 0]
    if depth * 255 * affine.WEIGHT_LIMIT > _SUM_LIMIT:
        return f"sums of {depth} products might not fit int32: {STORED}"
    return ""


def _gather(node: onnx_ir.Node) -> Decided | None:
    """A Gather of rows of a table [V, ...] by indices that the model computes."""
    if node.op_type != "Gather" or attribute(node, "axis", 0) != 0:
        return None
    table = weight(node, 0, 0)
    if isinstance(table, str) or table.array.ndim < 2 or constant(node.inputs[1]) is not None:
        return None
    if candidates.crashes_in_body(node.outputs[0], lambda _: False):
        return None
    return OpDecision(str(node.name), node.op_type, "int8-weights", _TABLE), (table,)
