"""Relu and Clip that an int8 op before them does by where its output's codes end."""

from __future__ import annotations

import onnx_ir

from edgeq.errors import EdgeqError
from edgeq.numerics import affine
from edgeq.quant import candidates, rules
from edgeq.quant.checks import clamp_bounds
from edgeq.quant.plan import QuantPlan


def codes_of(plan: QuantPlan, value: onnx_ir.Value) -> onnx_ir.Value:
    """The tensor that holds the codes of `value`: after the clamps folded into its maker."""
    reader = candidates.only_use(value)
    decision = plan.ops.get(str(reader.name)) if reader is not None else None
    if reader is not None and decision is not None and decision.fused_into is not None:
        return codes_of(plan, reader.outputs[0])
    return value


def is_dropped(plan: QuantPlan, node: onnx_ir.Node) -> bool:
    """Whether the encoding of a folded clamp's output ends where the clamp would cut.

    Raises EdgeqError [plan-mismatch] for a folded node that is no clamp of constant bounds.
    """
    decision = plan.ops.get(str(node.name))
    if decision is None or decision.fused_into is None:
        return False
    bounds = clamp_bounds(node) if node.op_type in rules.CLAMPS else None
    encoding = plan.encoding(str(codes_of(plan, node.outputs[0]).name))
    if bounds is None or encoding is None:
        raise mismatch(f"node `{node.name}` is no clamp that could be folded away")
    scale, zero_point = encoding.scale[0], encoding.zero_point[0]
    low = affine.ends_at(bounds[0], scale, zero_point, upper=False)
    return low and affine.ends_at(bounds[1], scale, zero_point, upper=True)


def mismatch(what: str) -> EdgeqError:
    """A plan that is not one of this graph."""
    return EdgeqError("plan-mismatch", f"the plan does not fit the graph: {what}")
