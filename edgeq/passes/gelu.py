"""x * (1 + erf(x / sqrt 2)) / 2, and its form with tanh, become `Gelu`.

Spelled out, GELU is five to nine nodes of which int8 has few; fused it is one (Hendrycks & Gimpel,
arXiv 1606.08415). Factors and operands may stand in any order. Equal up to the roundings of the
spelled-out steps: a few ulp.
"""

from __future__ import annotations

import math

import onnx_ir

from edgeq.ir import Graph
from edgeq.passes.match import (
    Nodes,
    Terms,
    atoms_below,
    climb,
    expression,
    merge,
    same,
    why_not_float32,
    why_not_merged,
)
from edgeq.passes.report import Log

_SCALE = math.sqrt(2.0 / math.pi)
# What the argument of the inner function must be, as a polynomial of x.
_ARGUMENTS: dict[str, Terms] = {
    "Erf": {(1,): math.sqrt(0.5)},
    "Tanh": {(1,): _SCALE, (3,): _SCALE * 0.044715},
}
_OUTER: Terms = {(1, 0): 0.5, (1, 1): 0.5}
_APPROXIMATE = {"Erf": "none", "Tanh": "tanh"}


def run(graph: Graph, log: Log) -> None:
    """Only in float32, and where nothing else reads a step between."""
    for node in graph.nodes():
        if node.domain != "" or node.op_type not in _ARGUMENTS:
            continue
        source = _source(node)
        if source is None:
            continue
        x, inner = source
        found = climb(node.outputs[0], x, _OUTER)
        nodes = () if found is None else (*inner, node, *found[1])
        reason = "what follows is not x * (1 + it) / 2 with one reader at each step"
        if found is not None:
            reason = why_not_float32(x) or why_not_merged(nodes, found[0]) or ""
        if reason or found is None:
            log.refuse(node, reason)
            continue
        fused = merge(nodes, found[0], "Gelu", [x], {"approximate": _APPROXIMATE[node.op_type]})
        log.change(
            f"{len(set(nodes))} nodes around `{node.op_type}` became `Gelu` (node `{fused.name}`)"
        )


def _source(node: onnx_ir.Node) -> tuple[onnx_ir.Value, Nodes] | None:
    """The x whose GELU argument `node` reads, and the nodes that compute the argument."""
    for x in atoms_below(node.inputs[0]):
        found = expression(node.inputs[0], (x,))
        if found is not None and same(found.terms, _ARGUMENTS[node.op_type]):
            return x, found.nodes
    return None
