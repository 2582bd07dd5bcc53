"""BatchNormalization at inference is an affine map per channel: it goes into the weights beside it.

Into the Conv, ConvTranspose or Gemm before it; else, where its only reader is a Conv without
padding or a Gemm, into that. What is left stays as it is: in float one kernel, which two
elementwise nodes would not beat.
"""

from __future__ import annotations

import numpy as np
import onnx_ir

from edgeq.ir import Graph, attribute, constant, sole_consumer
from edgeq.passes.affine import Array, channels_of, fold_into, why_not_into
from edgeq.passes.edit import add_initializer, bypass, why_not_bypassed
from edgeq.passes.report import Log


def run(graph: Graph, log: Log) -> None:
    """Fold each BatchNormalization, backwards where that is possible, else forwards."""
    for node in graph.nodes():
        if node.op_type != "BatchNormalization" or node.domain != "":
            continue
        reason = _fold(graph, node, log)
        if reason is not None:
            log.refuse(node, reason)


def _fold(graph: Graph, node: onnx_ir.Node, log: Log) -> str | None:
    """The reason it stays, or None when it is gone."""
    source = node.inputs[0]
    if attribute(node, "training_mode", 0) or any(value.uses() for value in node.outputs[1:]):
        return "it is in training mode"
    pair = _affine(node)
    if pair is None:
        return "its statistics are not constants, or not finite"
    if source is None:
        return "it has no input"
    maker = source.producer()
    reason = why_not_into(maker, source) or why_not_bypassed(node.outputs[0], source)
    if reason is None and maker is not None:
        if channels_of(maker) != len(pair[0]):
            return f"`{maker.op_type}` (node `{maker.name}`) has {channels_of(maker)} channels"
        reason = fold_into(graph, node, source, *pair)
        if reason is None:
            into = f"`{maker.op_type}` (node `{maker.name}`)"
            log.change(f"`BatchNormalization` (node `{node.name}`) folded into {into}")
        return reason
    return _fold_forwards(graph, node, pair, reason or "", log)


def _affine(node: onnx_ir.Node) -> tuple[Array, Array] | None:
    """(factor, shift) [C] float64 of y = (x - mean) / sqrt(var + epsilon) * scale + bias."""
    arrays = [constant(value) for value in node.inputs[1:5]]
    if len(arrays) != 4 or any(array is None or array.ndim != 1 for array in arrays):
        return None
    scale, bias, mean, variance = (np.asarray(array, np.float64) for array in arrays)
    if len({len(scale), len(bias), len(mean), len(variance)}) != 1:
        return None
    epsilon = float(attribute(node, "epsilon", 1e-5))
    with np.errstate(all="ignore"):
        factor = scale / np.sqrt(variance + epsilon)
        shift = bias - mean * factor
    return (factor, shift) if np.isfinite(factor).all() and np.isfinite(shift).all() else None


def _fold_forwards(
    graph: Graph, node: onnx_ir.Node, pair: tuple[Array, Array], reason: str, log: Log
) -> str | None:
    """Into the one reader: W' = W * factor per input channel, b' = b + sum(W * shift)."""
    reader = sole_consumer(node.outputs[0])
    if reader is None or not _takes_inputs(reader, node.outputs[0], len(pair[0])):
        return reason
    weight_value = reader.inputs[1]
    weights = constant(weight_value)
    assert weights is not None and weight_value is not None and node.inputs[0] is not None
    old_bias = reader.inputs[2] if len(reader.inputs) > 2 else None
    start = constant(old_bias)
    new_weights, added = _scale_inputs(weights, reader, *pair)
    new_bias = added if start is None else added + start.astype(np.float64)
    stored = [array.astype(weights.dtype) for array in (new_weights, new_bias)]
    if not all(np.isfinite(array).all() for array in stored):
        return "the folded weights would not be finite"
    if len(reader.inputs) < 3:
        reader.resize_inputs(3)
    stem = f"{reader.outputs[0].name}_bias" if old_bias is None else f"{old_bias.name}_folded"
    reader.replace_input_with(1, add_initializer(graph, f"{weight_value.name}_folded", stored[0]))
    reader.replace_input_with(2, add_initializer(graph, stem, stored[1]))
    bypass(node, node.inputs[0])
    into = f"`{reader.op_type}` (node `{reader.name}`)"
    log.change(f"`BatchNormalization` (node `{node.name}`) folded forwards into {into}")
    return None


def _takes_inputs(reader: onnx_ir.Node, value: onnx_ir.Value, channels: int) -> bool:
    """Whether an affine map of the input channels of `reader` can go into its constants."""
    if reader.domain != "" or reader.op_type not in ("Conv", "Gemm"):
        return False
    weights, bias = constant(reader.inputs[1]), (*reader.inputs, None)[2]
    if reader.inputs[0] is not value or weights is None or weights.dtype != np.float32:
        return False
    if bias is not None and (constant(bias) is None or len(bias.shape or ()) != 1):
        return False
    if reader.op_type == "Gemm":
        plain = all(attribute(reader, name, 1.0) == 1.0 for name in ("alpha", "beta"))
        axis = 1 if attribute(reader, "transB", 0) else 0
        return plain and not attribute(reader, "transA", 0) and weights.shape[axis] == channels
    padded = attribute(reader, "auto_pad", "NOTSET") not in ("NOTSET", "VALID")
    padded = padded or any(attribute(reader, "pads", ()))
    return not padded and weights.shape[1] * attribute(reader, "group", 1) == channels


def _scale_inputs(
    weights: Array, reader: onnx_ir.Node, factor: Array, shift: Array
) -> tuple[Array, Array]:
    """float64 (weights * factor per input channel, sum of weights * shift per output channel)."""
    wide = weights.astype(np.float64)
    if reader.op_type == "Gemm":
        if attribute(reader, "transB", 0):
            return wide * factor, wide @ shift
        return wide * factor[:, None], shift @ wide
    groups = attribute(reader, "group", 1)
    split = wide.reshape(groups, -1, *wide.shape[1:])
    tail = (1,) * (wide.ndim - 2)
    per_group = (groups, 1, wide.shape[1], *tail)
    scaled = (split * factor.reshape(per_group)).reshape(wide.shape)
    added = (split * shift.reshape(per_group)).reshape(wide.shape[0], -1).sum(axis=1)
    return scaled, added
