"""Add, Sub, Mul or Div by a constant per channel goes into the weights of the node before it.

Exporters write convolution biases so (CNTK's Plus), and BatchNormalization taken apart.
"""

from __future__ import annotations

import numpy as np
import onnx_ir

from edgeq.ir import Graph, constant
from edgeq.passes.affine import MAKERS, Array, channels_of, fold_into, why_not_into
from edgeq.passes.edit import why_not_bypassed
from edgeq.passes.report import Log

_OPERATORS = ("Add", "Sub", "Mul", "Div")


def run(graph: Graph, log: Log) -> None:
    """Only where the constant has one value, or one per output channel of the node before."""
    for node in graph.nodes():
        if node.op_type not in _OPERATORS or node.domain != "" or len(node.inputs) != 2:
            continue
        side = 0 if constant(node.inputs[0]) is None else 1
        made, stored = node.inputs[side], constant(node.inputs[1 - side])
        maker = None if made is None else made.producer()
        if made is None or stored is None or maker is None or maker.op_type not in MAKERS:
            continue
        reason = why_not_into(maker, made) or why_not_bypassed(node.outputs[0], made)
        pair = None if reason else _affine(node, stored, maker, constant_first=side == 1)
        if pair is not None:
            reason = fold_into(graph, node, made, *pair)
        elif reason is None:
            reason = f"its constant is not one finite value per channel of `{maker.op_type}`"
        if reason is None:
            into = f"`{maker.op_type}` (node `{maker.name}`)"
            log.change(f"`{node.op_type}` (node `{node.name}`) folded into {into}")
        else:
            log.refuse(node, reason)


def _affine(
    node: onnx_ir.Node, stored: Array, maker: onnx_ir.Node, *, constant_first: bool
) -> tuple[Array, Array] | None:
    """(factor, shift) [C] float64 of the map, or None where it is not one pair per channel."""
    values = _per_channel(stored, maker)
    if values is None or (node.op_type == "Div" and constant_first):
        return None
    one, none = np.ones_like(values), np.zeros_like(values)
    with np.errstate(all="ignore"):
        factor, shift = {
            "Add": (one, values),
            "Sub": (-one, values) if constant_first else (one, -values),
            "Mul": (values, none),
            "Div": (one / values, none),
        }[node.op_type]
    return (factor, shift) if np.isfinite(factor).all() and np.isfinite(shift).all() else None


def _per_channel(stored: Array, maker: onnx_ir.Node) -> Array | None:
    """`stored` as [C] float64 if, spread over the output of `maker`, it varies by channel only.

    The output is [N, C, *spatial], or [N, C] of Gemm. A constant of higher rank, or one that
    would widen an axis, changes the output's shape and is refused.
    """
    weights = constant(maker.inputs[1])
    assert weights is not None
    rank, channels = weights.ndim, channels_of(maker)
    if stored.ndim > rank or stored.dtype.kind != "f":
        return None
    shape = (1,) * (rank - stored.ndim) + stored.shape
    if any(size != 1 for axis, size in enumerate(shape) if axis != 1):
        return None
    if shape[1] not in (1, channels):
        return None
    return np.broadcast_to(stored.reshape(-1).astype(np.float64), (channels,))
