"""Exp(x - ReduceMax(x)) / ReduceSum of it, along one axis, becomes `Softmax`.

Engines compute Softmax in one kernel, and its int8 output has fixed parameters. Without the maximum
it stays: there Exp overflows where Softmax does not.
"""

from __future__ import annotations

import onnx_ir

from edgeq.ir import Graph
from edgeq.passes.match import Nodes, merge, reduced, why_not_float32, why_not_merged
from edgeq.passes.report import Log


def run(graph: Graph, log: Log) -> None:
    """Only in float32, and where nothing else reads a step between."""
    for node in graph.nodes():
        if node.op_type != "Div" or node.domain != "":
            continue
        exp = _exp_over_its_sum(node)
        if exp is None:
            continue
        found = _find(node, exp)
        if isinstance(found, str):
            log.refuse(node, found)
            continue
        x, axis, nodes = found
        reason = why_not_float32(x) or why_not_merged(nodes, node)
        if reason is not None:
            log.refuse(node, reason)
            continue
        fused = merge(nodes, node, "Softmax", [x], {"axis": axis})
        log.change(f"{len(nodes)} nodes around `Exp` became `Softmax` (node `{fused.name}`)")


def _exp_over_its_sum(node: onnx_ir.Node) -> onnx_ir.Node | None:
    """The Exp that `node` divides by a ReduceSum of it."""
    top, below = (None if value is None else value.producer() for value in node.inputs)
    if top is None or below is None or top.op_type != "Exp" or below.op_type != "ReduceSum":
        return None
    mine = top.graph is below.graph is node.graph and below.inputs[0] is top.outputs[0]
    return top if mine and not top.domain and not below.domain else None


def _find(node: onnx_ir.Node, exp: onnx_ir.Node) -> tuple[onnx_ir.Value, int, Nodes] | str:
    """(x, axis, nodes) of the softmax that ends in `node`, or why it is none."""
    assert node.inputs[1] is not None
    total = node.inputs[1].producer()
    below = exp.inputs[0].producer() if exp.inputs[0] is not None else None
    if below is None or below.op_type != "Sub" or below.domain or below.graph is not node.graph:
        return "nothing is subtracted before Exp, which may overflow where Softmax does not"
    x, peak = below.inputs
    top = None if peak is None else peak.producer()
    if x is None or top is None or top.op_type != "ReduceMax" or top.domain:
        return "what is subtracted before Exp is not a ReduceMax"
    assert total is not None
    axes = [reduced(top), reduced(total)]
    if top.inputs[0] is not x or axes[0] is None or axes[0] != axes[1]:
        return "its ReduceMax and its ReduceSum are not of one tensor along the same axes"
    if len(axes[0]) != 1:
        return f"it goes along the axes {list(axes[0])}, Softmax along one"
    return x, axes[0][0], (top, below, exp, total, node)
