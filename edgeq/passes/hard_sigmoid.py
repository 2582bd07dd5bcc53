"""HardSigmoid(x) = Clip(alpha x + beta, 0, 1): the affine part goes into the weights before it.

No engine has an int8 HardSigmoid, but every int8 layer ends its range where a Clip cuts, so the
gate of a squeeze-and-excitation block stays in int8. Float engines fuse a Clip as well.
"""

from __future__ import annotations

import numpy as np
import onnx_ir

from edgeq.ir import Graph, attribute, dtype_of
from edgeq.passes.affine import channels_of, fold_into, why_not_into
from edgeq.passes.edit import add_initializer, add_node, remove, take_over, why_not_bypassed
from edgeq.passes.report import Log


def run(graph: Graph, log: Log) -> None:
    """Only behind a node with weights that nothing else reads."""
    for node in graph.nodes():
        if node.op_type != "HardSigmoid" or node.domain != "" or node.inputs[0] is None:
            continue
        made = node.inputs[0]
        reason = why_not_into(made.producer(), made)
        reason = reason or why_not_bypassed(node.outputs[0], made) or _fold(graph, node, made)
        if reason is not None:
            log.refuse(node, reason)
            continue
        maker = made.producer()
        assert maker is not None
        into = f"`{maker.op_type}` (node `{maker.name}`)"
        log.change(f"`HardSigmoid` (node `{node.name}`) became `Clip`, its slope went into {into}")


def _fold(graph: Graph, node: onnx_ir.Node, made: onnx_ir.Value) -> str | None:
    """Put a Clip in the place of `node` and its slope and offset into the maker of `made`."""
    maker, dtype = made.producer(), dtype_of(made)
    assert maker is not None
    if dtype not in ("float32", "float64"):
        return f"its input is {dtype or 'of unknown type'}"
    slope, offset = attribute(node, "alpha", 0.2), attribute(node, "beta", 0.5)
    bounds = [add_initializer(graph, f"{node.name}_{end}", np.array(end, dtype)) for end in (0, 1)]
    clip = add_node(node, "Clip", [made, *bounds], {})
    take_over(node.outputs[0], clip.outputs[0])
    channels = channels_of(maker)
    reason = fold_into(graph, node, made, np.full(channels, slope), np.full(channels, offset))
    if reason is not None:
        take_over(clip.outputs[0], node.outputs[0])
        remove(clip)
        for bound in bounds:
            del graph.home.initializers[str(bound.name)]
    return reason
