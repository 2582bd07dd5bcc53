"""Fold y = x * factor + shift, one pair per channel, into the weights beside it.

Computed in float64 and rounded once to the weights' dtype.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir

from edgeq.ir import Graph, attribute, constant, sole_consumer
from edgeq.passes.edit import absorb, add_initializer

Array = np.ndarray[Any, Any]

MAKERS = ("Conv", "ConvTranspose", "Gemm")
"""Operators with weights that can take in an affine map of their output channels."""


def why_not_into(maker: onnx_ir.Node | None, made: onnx_ir.Value) -> str | None:
    """Why an affine map of `made` cannot go into the node that makes it, or None if it can."""
    if maker is None:
        return "its input is not computed by a node"
    if maker.domain != "" or maker.op_type not in MAKERS:
        return f"its input comes from `{maker.op_type}` (node `{maker.name}`), which has no weights"
    if sole_consumer(made) is None:
        return f"the output of `{maker.op_type}` (node `{maker.name}`) has a second reader"
    weights = constant(maker.inputs[1])
    if weights is None:
        return f"the weights of `{maker.op_type}` (node `{maker.name}`) are not a constant"
    if weights.dtype not in (np.float32, np.float64):
        return f"the weights of `{maker.op_type}` (node `{maker.name}`) are {weights.dtype}"
    groups = attribute(maker, "group", 1)
    if weights.size == 0 or weights.ndim < 2 or groups < 1 or weights.shape[0] % groups:
        return f"the weights of `{maker.op_type}` (node `{maker.name}`) fit no group"
    bias = maker.inputs[2] if len(maker.inputs) > 2 else None
    stored = constant(bias)
    if bias is not None and (stored is None or stored.shape != (channels_of(maker),)):
        return f"the bias of `{maker.op_type}` (node `{maker.name}`) is not a constant per channel"
    if attribute(maker, "alpha", 1.0) != 1.0 or attribute(maker, "beta", 1.0) != 1.0:
        return f"`Gemm` (node `{maker.name}`) has alpha or beta"
    return None


def channels_of(maker: onnx_ir.Node) -> int:
    """How many output channels `maker` has."""
    weights = constant(maker.inputs[1])
    assert weights is not None
    if maker.op_type == "ConvTranspose":
        return int(weights.shape[1] * attribute(maker, "group", 1))
    if maker.op_type == "Gemm":
        return int(weights.shape[0 if attribute(maker, "transB", 0) else 1])
    return int(weights.shape[0])


def scale_outputs(weights: Array, maker: onnx_ir.Node, factor: Array) -> Array:
    """float64 weights whose output channel c is multiplied by factor[c].

    Conv [C, in/group, ...], ConvTranspose [in, C/group, ...] by group, Gemm [in, C] or [C, in].
    """
    wide = weights.astype(np.float64)
    if maker.op_type == "ConvTranspose":
        groups = attribute(maker, "group", 1)
        split = wide.reshape(groups, -1, *wide.shape[1:])
        spread = factor.reshape(groups, 1, -1, *(1,) * (wide.ndim - 2))
        return np.asarray((split * spread).reshape(wide.shape))
    if maker.op_type == "Gemm" and not attribute(maker, "transB", 0):
        return np.asarray(wide * factor)
    return np.asarray(wide * factor.reshape(-1, *(1,) * (wide.ndim - 1)))


def fold_into(
    graph: Graph, node: onnx_ir.Node, made: onnx_ir.Value, factor: Array, shift: Array
) -> str | None:
    """Fold `node`, the map of `made`, into its maker and take `node` out; or why not.

    factor, shift: [C] float64, finite. The result must be finite in the weights' dtype.
    """
    maker = made.producer()
    assert maker is not None and maker.inputs[1] is not None
    weights = constant(maker.inputs[1])
    assert weights is not None
    old_bias = maker.inputs[2] if len(maker.inputs) > 2 else None
    bias = constant(old_bias)
    start = np.zeros(1) if bias is None else bias.astype(np.float64)
    with np.errstate(over="ignore", invalid="ignore"):
        new_weights = scale_outputs(weights, maker, factor).astype(weights.dtype)
        new_bias = (start * factor + shift).astype(weights.dtype)
    if not np.isfinite(new_weights).all() or not np.isfinite(new_bias).all():
        return "the folded weights would not be finite"
    if not np.all(factor == 1.0):
        stored = add_initializer(graph, f"{maker.inputs[1].name}_folded", new_weights)
        maker.replace_input_with(1, stored)
    stem = f"{maker.outputs[0].name}_bias" if old_bias is None else f"{old_bias.name}_folded"
    if len(maker.inputs) < 3:
        maker.resize_inputs(3)
    maker.replace_input_with(2, add_initializer(graph, stem, new_bias))
    absorb(graph, node, made)
    return None
