"""Clip(a * x + b, 0, h) / h becomes `HardSigmoid` with slope a / h and offset b / h.

PyTorch writes it as Clip(x + 3, 0, 6) / 6. Equal up to the roundings of the spelled-out steps: a
few ulp. A clamp that is only scaled stays one: int8 layers end their range where a Clip cuts.
"""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir

from edgeq.ir import Graph
from edgeq.passes.match import (
    Clamp,
    Nodes,
    atoms_below,
    clamp,
    climb,
    expression,
    merge,
    why_not_float32,
    why_not_merged,
)
from edgeq.passes.report import Log

_LIMIT = 1e30


@dataclass(frozen=True)
class _Found:
    """clamp(slope * x + offset, 0, 1), made by `root` out of `nodes`."""

    x: onnx_ir.Value
    slope: float
    offset: float
    root: onnx_ir.Node
    nodes: Nodes


def run(graph: Graph, log: Log) -> None:
    """Only in float32, and where nothing else reads a step between."""
    for node in graph.nodes():
        limits = None if node.graph is None else clamp(node)
        found = None if limits is None else _find(node, limits)
        if found is None:
            continue
        reason = why_not_float32(found.x) or why_not_merged(found.nodes, found.root)
        if reason is not None:
            log.refuse(node, reason)
            continue
        line = {"alpha": found.slope, "beta": found.offset}
        fused = merge(found.nodes, found.root, "HardSigmoid", [found.x], line)
        log.change(
            f"{len(found.nodes)} nodes around `{node.op_type}` became `HardSigmoid`"
            f" (node `{fused.name}`)"
        )


def _find(node: onnx_ir.Node, limits: Clamp) -> _Found | None:
    """What ends in the clamp `node`, or in the division right after it."""
    if limits.low != 0.0 or limits.high <= 0.0:
        return None
    made = node.outputs[0]
    above = None if limits.high == 1.0 else climb(made, made, {(1, 0): 1.0 / limits.high}, 1)
    if above is None and limits.high != 1.0:
        return None
    root, after = above if above is not None else (node, ())
    first = None
    for x in tuple(atoms_below(limits.source))[::-1]:  # the farthest: as much as there is goes in
        line = expression(limits.source, (x,))
        if line is None or set(line.terms) - {(0,), (1,)}:
            continue
        slope, offset = (line.terms.get((power,), 0.0) / limits.high for power in (1, 0))
        if max(slope, abs(offset)) >= _LIMIT:  # attributes are float32
            continue
        if slope > 0.0 and offset != 0.0 and (slope != 1.0 or limits.high != 1.0):
            nodes = dict.fromkeys((*line.nodes, *limits.nodes, *after))
            found = _Found(x, slope, offset, root, tuple(nodes))
            if why_not_merged(found.nodes, root) is None:
                return found
            first = first or found
    return first
