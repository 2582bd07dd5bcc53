"""1 / (1 + Exp(-x)) becomes `Sigmoid`, and y / (1 + Exp(-x)) becomes y * `Sigmoid`.

So a spelled-out SiLU is x * Sigmoid(x), the form that ONNX Runtime computes in one kernel and that
has int8 kernels; opset 21 has no operator of its own for it. Equal up to a few ulp, or 1e-38 where
Exp overflows.
"""

from __future__ import annotations

import onnx_ir

from edgeq.ir import Graph
from edgeq.passes.edit import add_node, fresh_name, fresh_node_name
from edgeq.passes.match import (
    Nodes,
    atoms_below,
    expression,
    merge,
    number_beside,
    same,
    why_not_float32,
    why_not_merged,
)
from edgeq.passes.report import Log


def run(graph: Graph, log: Log) -> None:
    """Only in float32, and where nothing else reads a step between."""
    for node in graph.nodes():
        if node.domain != "" or node.op_type not in ("Div", "Reciprocal"):
            continue
        found = _denominator(node.inputs[-1])
        if found is None:
            continue
        x, inner = found
        nodes = (*inner, node)
        reason = why_not_float32(x) or why_not_merged(nodes, node)
        if reason is not None:
            log.refuse(node, reason)
            continue
        one = node.op_type == "Reciprocal" or number_beside(node.inputs[0], x) == 1.0
        fused = merge(nodes, node, "Sigmoid", [x], {}) if one else _product(graph, node, x, nodes)
        log.change(f"{len(nodes)} nodes around `Exp` became `Sigmoid` (node `{fused.name}`)")


def _denominator(value: onnx_ir.Value | None) -> tuple[onnx_ir.Value, Nodes] | None:
    """The x of a value 1 + Exp(-x), and the nodes that compute it."""
    for power in atoms_below(value):
        exp = power.producer()
        if exp is None or exp.op_type != "Exp" or exp.domain != "":
            continue
        line = expression(value, (power,))
        if line is None or not same(line.terms, {(1,): 1.0, (0,): 1.0}):
            return None
        for x in atoms_below(exp.inputs[0]):
            turned = expression(exp.inputs[0], (x,))
            if turned is not None and same(turned.terms, {(1,): -1.0}):
                return x, (*turned.nodes, exp, *line.nodes)
    return None


def _product(graph: Graph, node: onnx_ir.Node, x: onnx_ir.Value, nodes: Nodes) -> onnx_ir.Node:
    """numerator * Sigmoid(x) in the place of numerator / (1 + Exp(-x))."""
    gate = add_node(node, "Sigmoid", [x], {})
    made = gate.outputs[0]
    made.name = fresh_name(graph, f"{node.outputs[0].name}_sigmoid")
    gate.name = fresh_node_name(graph, f"{node.name}_sigmoid")
    made.type, made.shape = x.type, x.shape
    merge(nodes, node, "Mul", [node.inputs[0], made], {})
    return gate
