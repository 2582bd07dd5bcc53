"""x * Clip(x + 3, 0, 6) / 6 becomes `HardSwish`, however the clamp and the six are written.

Also x * HardSigmoid(x) with slope 1/6 and offset 1/2 (Howard et al., arXiv 1905.02244). Equal up to
the roundings of the spelled-out steps: a few ulp.
"""

from __future__ import annotations

from collections.abc import Iterator

import onnx_ir

from edgeq.ir import Graph, attribute
from edgeq.passes.match import (
    Nodes,
    atoms_below,
    clamp,
    climb,
    expression,
    is_number,
    merge,
    same,
    why_not_float32,
    why_not_merged,
)
from edgeq.passes.report import Log


def run(graph: Graph, log: Log) -> None:
    """Only in float32, and where nothing else reads a step between."""
    for node in graph.nodes():
        if node.graph is None:  # went into an earlier one
            continue
        for x, height, inner in _gates(node):
            found = climb(node.outputs[0], x, {(1, 1): 1.0 / height})
            if found is None:
                continue
            nodes = (*inner, *found[1])
            reason = why_not_float32(x) or why_not_merged(nodes, found[0])
            if reason is not None:
                log.refuse(node, reason)
                break
            fused = merge(nodes, found[0], "HardSwish", [x], {})
            log.change(
                f"{len(set(nodes))} nodes around `{node.op_type}` became `HardSwish`"
                f" (node `{fused.name}`)"
            )
            break


def _gates(node: onnx_ir.Node) -> Iterator[tuple[onnx_ir.Value, float, Nodes]]:
    """Each x for which `node` makes height * clamp(x / 6 + 1 / 2, 0, 1): x, height, the nodes."""
    if node.op_type == "HardSigmoid" and node.domain == "":
        alpha, beta = (float(attribute(node, *row)) for row in (("alpha", 0.2), ("beta", 0.5)))
        if node.inputs[0] is not None and is_number(alpha, 1 / 6) and is_number(beta, 0.5):
            yield node.inputs[0], 1.0, (node,)
        return
    found = clamp(node)
    if found is None or found.low != 0.0 or found.high <= 0.0:
        return
    for x in atoms_below(found.source):
        line = expression(found.source, (x,))
        if line and same(line.terms, {(1,): found.high / 6, (0,): found.high / 2}):
            yield x, found.high, (*line.nodes, *found.nodes)
