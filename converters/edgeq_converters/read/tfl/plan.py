"""What a model that was quantized before says of its integers, as a `QuantPlan`."""

from __future__ import annotations

import onnx_ir

from edgeq.quant import candidates
from edgeq.quant.plan import OpDecision, QuantPlan
from edgeq_converters.read.tfl.reading import Reading

_FLOAT = "the file computes it in float, or edgeq has no single operator for its codes"


def plan_of(ctx: Reading, nodes: tuple[onnx_ir.Node, ...]) -> QuantPlan | None:
    """The plan of the graph of `nodes`, all names settled; None for a model of floats alone."""
    if not ctx.encodings:
        return None
    ops = {str(node.name): _decision(ctx, node) for node in nodes}
    tensors = {str(value.name): encoding for value, encoding in ctx.encodings.items()}
    return QuantPlan(tensors, ops)


def _decision(ctx: Reading, node: onnx_ir.Node) -> OpDecision:
    name, precision = str(node.name), ctx.precisions.get(node)
    dtype = candidates.works_on(node)
    if dtype != "float32":
        return OpDecision(name, node.op_type, "other", f"it works on {dtype}")
    if precision is None:
        return OpDecision(name, node.op_type, "float32", _FLOAT)
    if precision != "int8":
        stored = "int4" if precision == "dynamic-int4" else "int8"
        reason = f"the file has only its weights in {stored}"
        return OpDecision(name, node.op_type, precision, reason)
    host = ctx.hosts.get(node)
    if host is not None and ctx.precisions.get(host) == "int8":
        return OpDecision(name, node.op_type, "int8", fused_into=str(host.name))
    return OpDecision(name, node.op_type, "int8")
