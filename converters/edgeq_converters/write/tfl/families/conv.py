"""Convolutions of one, two and three dimensions, depthwise, grouped and transposed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir

from edgeq.ir import constant
from edgeq_converters.write.tfl.emitter import LAST, Array, Emitter, Unwritable
from edgeq_converters.write.tfl.layers import bias_or_zeros, input_at, require_float, transposer
from edgeq_converters.write.tfl.windows import NO_WINDOW, Window, pad_zeros, padding, windows


def conv(e: Emitter, node: onnx_ir.Node) -> None:
    """CONV_2D, DEPTHWISE_CONV_2D or CONV_3D over the channels-last form of its input."""
    require_float(node)
    data, weights = node.inputs[0], node.inputs[1]
    assert data is not None and weights is not None
    sizes, shape = e.shape(data)[2:], e.shape(weights)
    if len(sizes) not in (1, 2, 3):
        raise Unwritable(f"TFLite has no convolution of {len(sizes)} dimensions")
    group = int(e.attribute("group", 1))
    axes = windows(node, sizes, shape[2:])
    if len(sizes) == 3:
        _conv_3d(e, node, axes, group)
        return
    if len(axes) == 1:
        axes = [NO_WINDOW, *axes]
    source = _wide(e, e.take(data, LAST))
    pad = padding(axes)
    if not pad:
        source, pad = pad_zeros(e, source, axes), "VALID"
    options = {"padding": pad, **_options_2d(axes)}
    code = "CONV_2D"
    if group == shape[1] * group == e.shape(data)[1] and group > 1:
        code = "DEPTHWISE_CONV_2D"
        options["depth_multiplier"] = shape[0] // group
        filters = _weights(e, weights, (1, 2, 3, 0), 3)
    else:
        filters = _weights(e, weights, (0, 2, 3, 1), 0)
    inputs = [source, filters, bias_or_zeros(e, data, weights, input_at(node, 2), shape[0])]
    _into_result(e, node, code, inputs, options)


def _options_2d(axes: Sequence[Window]) -> dict[str, Any]:
    height, width = axes
    return {
        "stride_h": height.stride,
        "stride_w": width.stride,
        "dilation_h_factor": height.dilation,
        "dilation_w_factor": width.dilation,
    }


def _into_result(
    e: Emitter, node: onnx_ir.Node, code: str, inputs: Sequence[int], options: dict[str, Any]
) -> None:
    """`code`, an operator on images, makes the result of `node`, clamped as that is."""
    clamp, value = e.activation(node.outputs[0])
    made = e.make(value, LAST)
    target = _target(e, made)
    e.op(code, inputs, [target], fused_activation_function=clamp, **options)
    _narrow(e, target, made)


def _wide(e: Emitter, at: int) -> int:
    """A tensor N x L x C as one of images of one row."""
    shape = e.file.shape(at)
    return e.reshaped(at, [shape[0], 1, *shape[1:]]) if len(shape) == 3 else at


def _target(e: Emitter, made: int) -> int:
    """What an operator on images makes for `made`: itself, or its form with one row."""
    shape = e.file.shape(made)
    return e.temp([shape[0], 1, *shape[1:]], like=made) if len(shape) == 3 else made


def _narrow(e: Emitter, target: int, made: int) -> None:
    if target != made:
        e.reshape(target, made)


def _weights(e: Emitter, value: onnx_ir.Value, order: Sequence[int], axis: int) -> int:
    """Weights as TFLite orders them; those of one dimension get a first row."""

    def arrange(array: Array) -> Array:
        array = array[:, :, np.newaxis] if array.ndim == 3 else array
        return array.transpose(order)

    if constant(value) is not None:
        return e.parameter(value, arrange, axis)
    shape = e.shape(value)
    rows = [1] if len(shape) == 3 else []
    return e.transposed(e.reshaped(e.take(value), [*shape[:2], *rows, *shape[2:]]), order)


def _conv_3d(e: Emitter, node: onnx_ir.Node, axes: Sequence[Window], group: int) -> None:
    data, weights = node.inputs[0], node.inputs[1]
    assert data is not None and weights is not None
    source, pad = e.take(data, LAST), padding(axes)
    if not pad:
        source, pad = pad_zeros(e, source, axes), "VALID"
    name, value = e.activation(node.outputs[0])
    made = e.make(value, LAST)
    options = {"padding": pad, "fused_activation_function": name, **_options_3d(axes)}
    if group > 1:
        _grouped_3d(e, node, source, made, group, options)
        return
    filters = e.parameter(weights, transposer((2, 3, 4, 1, 0)), 4)
    bias = bias_or_zeros(e, data, weights, input_at(node, 2), e.shape(weights)[0])
    e.op("CONV_3D", [source, filters, bias], [made], **options)


def _grouped_3d(
    e: Emitter, node: onnx_ir.Node, source: int, made: int, group: int, options: dict[str, Any]
) -> None:
    """One operator for each group."""
    array, vector = constant(input_at(node, 1)), constant(input_at(node, 2))
    if array is None:
        raise Unwritable("its weights are computed while the model runs, in groups")
    shape, part = e.file.shape(made), array.shape[0] // group
    parts = []
    for at, piece in enumerate(_pieces(e, source, group, array.shape[1])):
        rows = slice(at * part, (at + 1) * part)
        filters = e.numbers(array[rows].transpose(2, 3, 4, 1, 0), "float32")
        bias = e.numbers(np.zeros(part) if vector is None else vector[rows], "float32")
        parts.append(e.temp([*shape[:-1], part], like=made))
        e.op("CONV_3D", [piece, filters, bias], [parts[-1]], **options)
    e.op("CONCATENATION", parts, [made], axis=len(shape) - 1)


def _options_3d(axes: Sequence[Window]) -> dict[str, int]:
    deep, high, wide = axes
    return {
        "stride_d": deep.stride,
        "stride_h": high.stride,
        "stride_w": wide.stride,
        "dilation_d_factor": deep.dilation,
        "dilation_h_factor": high.dilation,
        "dilation_w_factor": wide.dilation,
    }


def _pieces(e: Emitter, source: int, group: int, step: int) -> list[int]:
    """The channels of `source`, its last axis, in `group` tensors of `step`."""
    shape = e.file.shape(source)
    parts = [e.temp([*shape[:-1], step], like=source) for _ in range(group)]
    e.op("SPLIT", [e.numbers(len(shape) - 1), source], parts, num_splits=group)
    return parts


@dataclass(frozen=True)
class Transposed:
    """A ConvTranspose: its windows (`after` may be below 0), weights I x O x kernel in float with
    their dilation filled up by zeros, and the options that all of its operators have."""

    axes: Sequence[Window]
    array: Array
    spread: Callable[[Array], Array]
    group: int

    @property
    def is_volume(self) -> bool:
        return len(self.axes) == 3

    @property
    def code(self) -> str:
        return "CONV_3D_TRANSPOSE" if self.is_volume else "TRANSPOSE_CONV"

    @property
    def order(self) -> tuple[int, ...]:
        """The axes of weights as the operator has them."""
        return (2, 3, 4, 1, 0) if self.is_volume else (1, 2, 3, 0)

    @property
    def strides(self) -> dict[str, int]:
        names = ("stride_d", "stride_h", "stride_w")[-len(self.axes) :]
        return {name: axis.stride for name, axis in zip(names, self.axes, strict=True)}


def conv_transpose(e: Emitter, node: onnx_ir.Node) -> None:
    """TRANSPOSE_CONV of the whole result, from which the padding is cut where it is not SAME."""
    require_float(node)
    data, weights = node.inputs[0], node.inputs[1]
    assert data is not None and weights is not None
    array, sizes = constant(weights), e.shape(data)[2:]
    if array is None:
        raise Unwritable("its weights are computed while the model runs")
    if len(sizes) not in (1, 2, 3):
        raise Unwritable(f"TFLite has no transposed convolution of {len(sizes)} dimensions")
    axes = _transposed(e, node, sizes, array.shape[2:])
    spread = _spreader(e, node, array.ndim)
    layer = Transposed(axes, spread(array), spread, int(e.attribute("group", 1)))
    source = _wide(e, e.take(data, LAST))
    if _stuffable(e, layer):
        _stuffed(e, node, source, layer)
        return
    clamp, value = e.activation(node.outputs[0])
    made = e.make(value, LAST)
    target = _target(e, made)
    padding_name, whole = _fitted(axes)
    full = target
    if whole != [axis.out for axis in axes]:
        batch, *_, channels = e.file.shape(target)
        full = e.temp([batch, *whole, channels], like=target)
    options = {"padding": padding_name, "fused_activation_function": clamp, **layer.strides}
    _turned_back(e, node, source, full, layer, options)
    if full != target:
        begin = [0, *(axis.before for axis in axes), 0]
        e.op("SLICE", [full, e.numbers(begin), e.numbers(e.file.shape(target))], [target])
    _narrow(e, target, made)


def _turned_back(
    e: Emitter,
    node: onnx_ir.Node,
    source: int,
    full: int,
    layer: Transposed,
    options: dict[str, Any],
) -> None:
    """The operator that makes `full`, or one for each group."""
    data, weights, bias_value = node.inputs[0], node.inputs[1], input_at(node, 2)
    assert data is not None and weights is not None
    if layer.group > 1:
        _grouped_transpose(e, source, full, layer, constant(bias_value), options)
        return
    filters = e.parameter(
        weights, lambda array: layer.spread(array).transpose(layer.order), layer.order.index(1)
    )
    bias = bias_or_zeros(e, data, weights, bias_value, e.file.shape(full)[-1])
    size = e.numbers(e.file.shape(full))
    e.op(layer.code, [size, filters, source, bias], [full], **options)


def _grouped_transpose(
    e: Emitter,
    source: int,
    full: int,
    layer: Transposed,
    bias: Array | None,
    options: dict[str, Any],
) -> None:
    """One operator for each group; float alone, as `Kernels` has it."""
    if e.int8:
        raise Unwritable("LiteRT has no grouped transposed convolution in int8")
    step, part = layer.array.shape[0] // layer.group, layer.array.shape[1]
    shape = [*e.file.shape(full)[:-1], part]
    vector = np.zeros(part * layer.group) if bias is None else bias.reshape(-1)
    parts = []
    for at, piece in enumerate(_pieces(e, source, layer.group, step)):
        filters = layer.array[at * step : (at + 1) * step].transpose(layer.order)
        inputs = [e.numbers(shape), e.numbers(filters, "float32"), piece]
        inputs.append(e.numbers(vector[at * part : (at + 1) * part], "float32"))
        parts.append(e.temp(shape, like=full))
        e.op(layer.code, inputs, [parts[-1]], **options)
    e.op("CONCATENATION", parts, [full], axis=len(shape) - 1)


def _stuffable(e: Emitter, layer: Transposed) -> bool:
    """Whether it is a depthwise convolution over its input with zeros in between."""
    fits = all(
        axis.before < axis.kernel and axis.after + axis.stride <= axis.kernel for axis in layer.axes
    )
    depthwise = layer.group == layer.array.shape[0] > 1
    return depthwise and fits and not layer.is_volume and not e.int8


def _stuffed(e: Emitter, node: onnx_ir.Node, source: int, layer: Transposed) -> None:
    """DEPTHWISE_CONV_2D over the stuffed input: one operator in place of one per channel."""
    high, wide = layer.axes
    depth = e.file.shape(source)[-1]
    source = _spaced(e, source, high.stride, wide.stride)
    edges = [
        Window(0, 0, 1, 1, 1, axis.kernel - 1 - axis.before, axis.kernel - axis.after - axis.stride)
        for axis in layer.axes
    ]
    if any(axis.before or axis.after for axis in edges):
        source = pad_zeros(e, source, edges)
    flipped = layer.array[:, :, ::-1, ::-1].transpose(2, 3, 0, 1)
    kernel = [1, high.kernel, wide.kernel, -1]
    multiplier = layer.array.shape[1]
    bias = constant(input_at(node, 2))
    vector = np.zeros(multiplier * depth) if bias is None else bias.reshape(-1)
    inputs = [source, e.numbers(flipped.reshape(kernel), "float32"), e.numbers(vector, "float32")]
    options = _options_2d([NO_WINDOW, NO_WINDOW])
    options |= {"padding": "VALID", "depth_multiplier": multiplier}
    _into_result(e, node, "DEPTHWISE_CONV_2D", inputs, options)


def _spaced(e: Emitter, source: int, high: int, wide: int) -> int:
    """Images with `high` - 1 rows and `wide` - 1 columns of zeros after each of theirs."""
    if (high, wide) == (1, 1):
        return source
    batch, height, width, depth = e.file.shape(source)
    rows = e.reshaped(source, [batch, height, 1, width, depth])
    pads = [(0, 0), (0, 0), (0, high - 1), (0, 0), (0, (wide - 1) * depth)]
    spaced = e.temp([batch, height, high, width, wide * depth])
    e.op("PAD", [rows, e.numbers(pads)], [spaced])
    return e.reshaped(spaced, [batch, height * high, width * wide, depth])


def _transposed(
    e: Emitter, node: onnx_ir.Node, sizes: Sequence[int], kernel: Sequence[int]
) -> list[Window]:
    """Its windows, a kernel with dilation as a larger one; `after` may be below 0."""
    count = len(sizes)
    strides = e.attribute("strides", None) or [1] * count
    dilations = e.attribute("dilations", None) or [1] * count
    pads = list(e.attribute("pads", None) or [0] * (2 * count))
    extra = e.attribute("output_padding", None) or [0] * count
    outs = e.shape(node.outputs[0])[2:]
    mode = e.attribute("auto_pad", "NOTSET")
    by_size = e.attribute("output_shape", None) is not None or mode.startswith("SAME")
    axes = []
    for at, size in enumerate(sizes):
        span = (kernel[at] - 1) * dilations[at] + 1
        whole = (size - 1) * strides[at] + span
        before = 0 if mode == "VALID" else pads[at]
        if by_size:
            total = max(whole + extra[at] - outs[at], 0)
            before = total // 2 if mode == "SAME_UPPER" else total - total // 2
        after = whole - outs[at] - before
        axes.append(Window(size, outs[at], span, strides[at], 1, before, after))
    return [NO_WINDOW, *axes] if count == 1 else axes


def _fitted(axes: Sequence[Window]) -> tuple[str, list[int]]:
    """The padding, and the sizes that TRANSPOSE_CONV is to make: the result's, or all there is."""
    whole = [(axis.size - 1) * axis.stride + axis.kernel for axis in axes]
    outs = [axis.out for axis in axes]
    cut = [max(size - out, 0) for size, out in zip(whole, outs, strict=True)]
    halves = all(total // 2 == axis.before for total, axis in zip(cut, axes, strict=True))
    if halves and all(axis.size == -(-axis.out // axis.stride) for axis in axes):
        return "SAME", outs
    if not any(cut) and not any(axis.before for axis in axes):
        return "VALID", outs
    return "VALID", [
        max(size, axis.before + axis.out) for size, axis in zip(whole, axes, strict=True)
    ]


def _spreader(e: Emitter, node: onnx_ir.Node, rank: int) -> Callable[[Array], Array]:
    """Makes weights I x O x kernel those of a kernel without dilation, of two axes at least."""
    dilations = [int(step) for step in e.attribute("dilations", None) or [1] * (rank - 2)]

    def spread(array: Array) -> Array:
        kernel = [(k - 1) * step + 1 for k, step in zip(array.shape[2:], dilations, strict=True)]
        wide = np.zeros((*array.shape[:2], *kernel), array.dtype)
        places: tuple[Any, ...] = (..., *(slice(None, None, step) for step in dilations))
        wide[places] = array
        return wide[:, :, np.newaxis] if wide.ndim == 3 else wide

    return spread


HANDLERS = {"Conv": conv, "ConvTranspose": conv_transpose}
