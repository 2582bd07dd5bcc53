"""Clip(x, 0, no upper bound) is Relu(x)."""

from __future__ import annotations

import numpy as np
import onnx_ir

from edgeq.ir import Graph, constant, dtype_of, scalar
from edgeq.passes.edit import add_node, remove, take_over
from edgeq.passes.report import Log


def run(graph: Graph, log: Log) -> None:
    """They agree on every finite float; a bound only known at run time is left alone."""
    for node in graph.nodes():
        if node.op_type != "Clip" or node.domain != "" or node.inputs[0] is None:
            continue
        reason = _why_not(node)
        if reason is not None:
            log.refuse(node, reason)
            continue
        relu = add_node(node, "Relu", [node.inputs[0]], {})
        take_over(node.outputs[0], relu.outputs[0])
        remove(node)
        log.change(f"`Clip` (node `{relu.name}`) became `Relu`")


def _why_not(node: onnx_ir.Node) -> str | None:
    low, high = (*node.inputs[1:], None, None)[:2]
    dtype = dtype_of(node.inputs[0]) if node.inputs[0] is not None else ""
    if dtype not in ("float16", "float32", "float64"):
        return f"its input is {dtype or 'of unknown type'}"
    if low is None:
        return "it has no lower bound"
    for name, bound in (("lower", low), ("upper", high)):
        if bound is not None and constant(bound) is None:
            return f"its {name} bound is not a constant"
    if scalar(low) != 0.0:
        return f"its lower bound is {scalar(low)}"
    upper = None if high is None else scalar(high)
    if upper is not None and not upper >= float(np.finfo(dtype).max):
        return f"its upper bound is {upper:g}"
    return None
