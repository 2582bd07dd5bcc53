"""Normalizations, none of which TFLite has an operator for that computes the same.

All of them are float: means, squares of differences and one RSQRT, in the layout of the input.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir

from edgeq.ir import constant
from edgeq_converters.write.tfl.emitter import LAST, Array, Emitter, Unwritable, to_last
from edgeq_converters.write.tfl.layers import input_at
from edgeq_converters.write.tfl.steps import FLOAT, Steps, cast, kind

_TINY = 1e-37
"""What a norm of 0 is taken to be, so that 0 stays 0 and nothing else changes."""


def batch(e: Emitter, node: onnx_ir.Node) -> None:
    """x * factor + shift per channel."""
    if e.attribute("training_mode", 0):
        raise Unwritable("it is in training mode")
    data = node.inputs[0]
    arrays = [constant(value) for value in node.inputs[1:5]]
    layout = e.layout(data)
    rank = len(e.shape(data))
    steps, at = _start(e, data, layout)
    epsilon = float(e.attribute("epsilon", 1e-5))
    if any(array is None for array in arrays):
        _batch_computed(e, node, steps, at, layout, epsilon)
        return
    scale, bias, mean, variance = (np.asarray(array, np.float64) for array in arrays)
    factor = scale / np.sqrt(variance + epsilon)
    product = steps("MUL", at, _along(e, factor, 1, rank, layout))
    clamp, value = e.activation(node.outputs[0])
    shift = _along(e, bias - mean * factor, 1, rank, layout)
    steps.into(value, layout, "ADD", product, shift, fused_activation_function=clamp)


def _batch_computed(
    e: Emitter, node: onnx_ir.Node, steps: Steps, at: int, layout: str, epsilon: float
) -> None:
    """With parameters that other nodes compute."""
    rank = len(e.file.shape(at))
    shape = [1] * rank
    shape[e.axis(1, rank, layout)] = -1
    sizes = [e.file.shape(at)[axis] if size == -1 else 1 for axis, size in enumerate(shape)]
    scale, bias, mean, variance = (
        cast(e, e.reshaped(e.take(value), sizes), steps.dtype) for value in node.inputs[1:5]
    )
    root = steps("RSQRT", steps("ADD", variance, steps.number(epsilon)))
    product = steps("MUL", steps("SUB", at, mean), steps("MUL", root, scale))
    steps.into(node.outputs[0], layout, "ADD", product, bias)


def instance(e: Emitter, node: onnx_ir.Node) -> None:
    """Each channel of each sample by itself."""
    data = node.inputs[0]
    layout = e.layout(data)
    rank = len(e.shape(data))
    if rank < 3:
        raise Unwritable("it normalizes a tensor without spatial axes")
    axes = [e.axis(axis, rank, layout) for axis in range(2, rank)]
    steps, at = _start(e, data, layout)
    scale, bias = (_parameter(e, steps, value, 1, rank, layout) for value in node.inputs[1:3])
    normal = _normal(e, steps, at, axes, scale, float(e.attribute("epsilon", 1e-5)))
    clamp, value = e.activation(node.outputs[0])
    steps.into(value, layout, "ADD", normal, bias, fused_activation_function=clamp)


def group(e: Emitter, node: onnx_ir.Node) -> None:
    """Channels in groups: an axis of its own while the means are taken."""
    data = node.inputs[0]
    layout = e.layout(data)
    count, shape = int(e.attribute("num_groups", 1)), e.shape(data)
    steps, at = _start(e, data, layout)
    rank, channels = len(shape), shape[1]
    inner = int(np.prod(shape[2:]))
    if layout == LAST and rank > 2:
        split, axes = [shape[0], inner, count, channels // count], [1, 3]
    else:
        split, axes = [shape[0], count, channels // count * inner], [2]
    whole = e.file.shape(at)
    epsilon = float(e.attribute("epsilon", 1e-5))
    normal = e.reshaped(_normal(e, steps, e.reshaped(at, split), axes, None, epsilon), whole)
    scale, bias = (_parameter(e, steps, value, 1, rank, layout) for value in node.inputs[1:3])
    clamp, value = e.activation(node.outputs[0])
    product = steps("MUL", normal, scale)
    steps.into(value, layout, "ADD", product, bias, fused_activation_function=clamp)


def layer(e: Emitter, node: onnx_ir.Node) -> None:
    """All axes from `axis` on; mean and 1 / deviation are outputs too."""
    data, scale_value, bias_value = node.inputs[0], node.inputs[1], input_at(node, 2)
    layout = e.layout(data)
    rank = len(e.shape(data))
    first = int(e.attribute("axis", -1)) % rank
    axes = sorted(e.axis(axis, rank, layout) for axis in range(first, rank))
    steps, at = _start(e, data, layout)
    mean = _over(e, "MEAN", at, axes)
    centred = steps("SUB", at, mean)
    square = _over(e, "MEAN", steps("MUL", centred, centred), axes)
    root = _root(steps, square, float(e.attribute("epsilon", 1e-5)))
    for statistic, output in zip((mean, root), node.outputs[1:], strict=False):
        if output.name:
            e.pass_on(statistic, output, layout)
    normal = steps("MUL", centred, root)
    scale = _broadcast(e, steps, scale_value, rank, layout)
    if bias_value is None:
        steps.into(node.outputs[0], layout, "MUL", normal, scale)
        return
    product = steps("MUL", normal, scale)
    bias = _broadcast(e, steps, bias_value, rank, layout)
    steps.into(node.outputs[0], layout, "ADD", product, bias)


def rms(e: Emitter, node: onnx_ir.Node) -> None:
    """The root of the mean square, without a mean taken off."""
    _refuse_statistics(node)
    data = node.inputs[0]
    layout = e.layout(data)
    rank = len(e.shape(data))
    first = int(e.attribute("axis", -1)) % rank
    axes = sorted(e.axis(axis, rank, layout) for axis in range(first, rank))
    steps, at = _start(e, data, layout)
    mean = _over(e, "MEAN", steps("MUL", at, at), axes)
    root = _root(steps, mean, float(e.attribute("epsilon", 1e-5)))
    scale = _broadcast(e, steps, node.inputs[1], rank, layout)
    steps.into(node.outputs[0], layout, "MUL", steps("MUL", at, root), scale)


def _refuse_statistics(node: onnx_ir.Node) -> None:
    if any(value.name and (value.uses() or value.is_graph_output()) for value in node.outputs[1:]):
        raise Unwritable("its second output, a statistic for training, is used")


def lrn(e: Emitter, node: onnx_ir.Node) -> None:
    """LOCAL_RESPONSE_NORMALIZATION over the channels, its sum in place of ONNX's mean."""
    data = node.inputs[0]
    size, shape = int(e.attribute("size", 1)), e.shape(data)
    if size % 2 == 0:
        raise Unwritable("TFLite has no LRN over an even number of channels")
    if len(shape) < 2:
        raise Unwritable("it has no channels")
    source = e.take(data, LAST)
    whole = e.file.shape(source)
    made = e.make(node.outputs[0], LAST)
    images = [whole[0], 1, int(np.prod(whole[1:-1])), whole[-1]] if len(whole) != 4 else whole
    source = e.reshaped(source, images)
    target = made if len(whole) == 4 else e.temp(images)
    e.op(
        "LOCAL_RESPONSE_NORMALIZATION",
        [source],
        [target],
        radius=size // 2,
        bias=float(e.attribute("bias", 1.0)),
        alpha=float(e.attribute("alpha", 1e-4)) / size,
        beta=float(e.attribute("beta", 0.75)),
    )
    if target != made:
        e.reshape(target, made)


def lp(e: Emitter, node: onnx_ir.Node) -> None:
    """x over its norm along one axis; 0 where that is 0."""
    data = node.inputs[0]
    layout = e.layout(data)
    axes = [e.axis(int(e.attribute("axis", -1)), len(e.shape(data)), layout)]
    steps, at = _start(e, data, layout)
    tiny = steps.number(_TINY)
    if e.attribute("p", 2) == 1:
        norm = steps("MAXIMUM", _over(e, "SUM", steps("ABS", at), axes), tiny)
        steps.into(node.outputs[0], layout, "DIV", at, norm)
        return
    total = steps("MAXIMUM", _over(e, "SUM", steps("MUL", at, at), axes), tiny)
    steps.into(node.outputs[0], layout, "MUL", at, steps("RSQRT", total))


def _start(e: Emitter, data: onnx_ir.Value | None, layout: str) -> tuple[Steps, int]:
    """The input as floats."""
    at = e.take(data, layout, codes=False)
    steps = Steps(e, kind(e.file.dtype(at), FLOAT))
    return steps, cast(e, at, steps.dtype)


def _normal(
    e: Emitter, steps: Steps, at: int, axes: Sequence[int], scale: int | None, epsilon: float
) -> int:
    """(x - mean) / deviation over `axes`, times `scale` where there is one."""
    centred = steps("SUB", at, _over(e, "MEAN", at, axes))
    root = _root(steps, _over(e, "MEAN", steps("MUL", centred, centred), axes), epsilon)
    return steps("MUL", centred, root if scale is None else steps("MUL", root, scale))


def _root(steps: Steps, square: int, epsilon: float) -> int:
    return steps("RSQRT", steps("ADD", square, steps.number(epsilon)))


def _over(e: Emitter, code: str, at: int, axes: Sequence[int]) -> int:
    shape = [1 if axis in axes else size for axis, size in enumerate(e.file.shape(at))]
    made = e.temp(shape)
    e.op(code, [at, e.numbers(list(axes))], [made], keep_dims=True)
    return made


def _along(e: Emitter, vector: Array, axis: int, rank: int, layout: str) -> int:
    """One number per element of ONNX axis `axis`, to broadcast over a tensor of `layout`."""
    shape = [1] * rank
    shape[e.axis(axis, rank, layout)] = vector.size
    return e.numbers(vector.reshape(shape), "float32")


def _parameter(
    e: Emitter, steps: Steps, value: onnx_ir.Value | None, axis: int, rank: int, layout: str
) -> int:
    """A scale or bias per channel."""
    array = constant(value)
    if array is not None:
        return _along(e, array, axis, rank, layout)
    shape = [1] * rank
    shape[e.axis(axis, rank, layout)] = e.shape(value)[0]
    return cast(e, e.reshaped(e.take(value), shape), steps.dtype)


def _broadcast(
    e: Emitter, steps: Steps, value: onnx_ir.Value | None, rank: int, layout: str
) -> int:
    """A parameter that broadcasts against a tensor of `layout` as numpy has it."""
    array = constant(value)
    if array is None:
        return cast(e, e.take(value, layout, rank=rank if layout == LAST else None), steps.dtype)
    if layout == LAST and rank > 2:
        array = array.reshape((1,) * (rank - array.ndim) + array.shape).transpose(to_last(rank))
    return e.numbers(array, "float32")


HANDLERS = {
    "BatchNormalization": batch,
    "InstanceNormalization": instance,
    "GroupNormalization": group,
    "LayerNormalization": layer,
    "RMSNormalization": rms,
    "SimplifiedLayerNormalization": rms,
    "LRN": lrn,
    "LpNormalization": lp,
}
