"""Pools over one, two or three spatial axes, and over all of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import onnx_ir

from edgeq.ir import attribute
from edgeq_converters.write.tfl.emitter import LAST, Emitter, Unwritable
from edgeq_converters.write.tfl.layers import as_codes, float_form, require_float
from edgeq_converters.write.tfl.steps import Steps
from edgeq_converters.write.tfl.windows import NO_WINDOW, Window, pad_zeros, padding, windows

_LOWEST = float(np.finfo(np.float32).min)
_LOWEST_CODE = -128

_NO_MASKS = dict.fromkeys(
    ("begin_mask", "end_mask", "ellipsis_mask", "new_axis_mask", "shrink_axis_mask"), 0
)

_POSITIVE = ("Relu", "Sigmoid", "Softmax", "HardSigmoid", "Abs", "Exp", "Softplus")
"""Operators that make nothing below 0, which a MaxPool may then be padded with."""


def max_pool(e: Emitter, node: onnx_ir.Node) -> None:
    """MAX_POOL_2D, one for each two of the spatial axes."""
    require_float(node)
    if any(value.name and (value.uses() or value.is_graph_output()) for value in node.outputs[1:]):
        raise Unwritable("its second output, the places of the maxima, is used")
    data = node.inputs[0]
    assert data is not None
    axes = _windows(e, node)
    dilated = any(axis.dilation > 1 for axis in axes)
    source = e.take(data, LAST)
    name, value = ("NONE", node.outputs[0]) if dilated else e.activation(node.outputs[0])
    made = e.make(value, LAST)
    target = e.stage(source, made)
    if not padding(axes) or (dilated and padding(axes) == "SAME"):
        source = _pad_lowest(e, data, source, axes)
        axes = [
            replace(axis, size=axis.size + axis.before + axis.after, before=0, after=0)
            for axis in axes
        ]
    if dilated:
        _combined(e, "MAXIMUM", source, target, axes)
    else:
        _pooled(e, "MAX_POOL_2D", source, target, axes, name)
    e.settle(target, made)


def _windows(e: Emitter, node: onnx_ir.Node) -> list[Window]:
    data = node.inputs[0]
    sizes = e.shape(data)[2:]
    if len(sizes) not in (1, 2, 3):
        raise Unwritable(f"TFLite has no pool over {len(sizes)} axes")
    return windows(node, sizes, [int(size) for size in attribute(node, "kernel_shape", ())])


def _pooled(
    e: Emitter, code: str, source: int, made: int, axes: Sequence[Window], name: str = "NONE"
) -> None:
    """`code` over the spatial axes of `source`, whose padding is VALID or SAME, into `made`."""
    if len(axes) == 3:
        _pooled_volume(e, code, source, made, axes, name)
        return
    target = made
    if len(axes) == 1:
        batch, size, channels = e.file.shape(source)
        axes = [NO_WINDOW, *axes]
        source = e.reshaped(source, [batch, 1, size, channels])
        target = e.temp([batch, 1, axes[1].out, channels], like=made)
    high, wide = axes
    if (high.kernel, wide.kernel) == (1, 1) and name == "NONE":
        _picked(e, source, target, axes, [0, 0])  # XNNPACK fails on a window of one element
    else:
        e.op(
            code,
            [source],
            [target],
            padding=padding(axes),
            stride_h=high.stride,
            stride_w=wide.stride,
            filter_height=high.kernel,
            filter_width=wide.kernel,
            fused_activation_function=name,
        )
    if target != made:
        e.reshape(target, made)


def _pooled_volume(
    e: Emitter, code: str, source: int, made: int, axes: Sequence[Window], name: str
) -> None:
    """A pool over three axes: over the last two, each slice an image, and then over the first."""
    batch, depth, *sizes, channels = e.file.shape(source)
    deep, *flat = axes
    outs = [axis.out for axis in axes]
    image = outs[1] * outs[2]
    part = e.temp([batch * depth, *outs[1:], channels], like=made)
    images = e.reshaped(source, [batch * depth, *sizes, channels])
    _pooled(e, code, images, part, flat)
    part = e.reshaped(part, [batch, depth, image, channels])
    target = e.temp([batch, outs[0], image, channels], like=made)
    _pooled(e, code, part, target, [deep, replace(NO_WINDOW, size=image, out=image)], name)
    e.reshape(target, made)


def _pad_lowest(e: Emitter, data: onnx_ir.Value, source: int, axes: Sequence[Window]) -> int:
    """`source` with what is below all of it around it."""
    parameters = e.file.parameters(source)
    if parameters:
        least = int(parameters["zero_point"][0]) == _LOWEST_CODE
    else:
        maker = data.producer()
        least = maker is not None and maker.op_type in _POSITIVE
    if least:
        return pad_zeros(e, source, axes)
    pads = [(0, 0), *((axis.before, axis.after) for axis in axes), (0, 0)]
    shape = [size + sum(ends) for size, ends in zip(e.file.shape(source), pads, strict=True)]
    made = e.temp(shape, like=source)
    name = f"{data.name}_lowest"
    lowest = (
        e.file.constant(name, np.array([_LOWEST_CODE], np.int8), **parameters)
        if parameters
        else e.numbers([_LOWEST], "float32", name)
    )
    e.op("PADV2", [source, e.numbers(pads), lowest], [made])
    return made


def _combined(e: Emitter, code: str, source: int, made: int, axes: Sequence[Window]) -> None:
    """`code` (MAXIMUM, ADD) over a kernel with gaps: of one slice per place in it, axis by axis."""
    for at, axis in enumerate(axes, start=1):
        shape = list(e.file.shape(source))
        shape[at] = axis.out
        found = -1
        for place in range(axis.kernel):
            begin = [0] * len(shape)
            begin[at] = place * axis.dilation
            part = _strided(e, source, begin, at, axis, shape)
            if found >= 0:
                both = e.temp(shape, like=source)
                e.op(code, [found, part], [both])
                part = both
            found = part
        source = found
    e.reshape(source, made)


def _strided(
    e: Emitter, source: int, begin: Sequence[int], at: int, axis: Window, shape: Sequence[int]
) -> int:
    end, steps = list(e.file.shape(source)), [1] * len(shape)
    end[at] = begin[at] + (axis.out - 1) * axis.stride + 1
    steps[at] = _step(axis)
    made = e.temp(shape, like=source)
    inputs = [source, *(e.numbers(list(row)) for row in (begin, end, steps))]
    e.op("STRIDED_SLICE", inputs, [made], **_NO_MASKS)
    return made


def _step(axis: Window) -> int:
    """The stride of a STRIDED_SLICE; XNNPACK (LiteRT 2.3.0) fails on a step beyond its only row."""
    return axis.stride if axis.out > 1 else 1


def average_pool(e: Emitter, node: onnx_ir.Node) -> None:
    """AVERAGE_POOL_2D; where its windows are cut short otherwise than TFLite's, corrected."""
    require_float(node)
    axes = _windows(e, node)
    dilated = any(axis.dilation > 1 for axis in axes)
    counts = _counts(node, axes)
    full = all((row == axis.kernel).all() for row, axis in zip(counts, axes, strict=True))
    outside = not attribute(node, "count_include_pad", 0) and not dilated
    shrink = _shrunk(axes) if outside else None
    codes = None
    if dilated or not (full or shrink is not None or (outside and padding(axes))):
        codes = False
    source = e.take(node.inputs[0], LAST, codes=codes)
    name, value = e.activation(node.outputs[0])
    made = e.make(value, LAST)
    target = float_form(e, made) if codes is False else e.stage(source, made)
    if codes is None and (full or padding(axes)):
        if full and any(axis.before or axis.after for axis in axes):
            source, axes = pad_zeros(e, source, axes), _after_padding(axes)
        _pooled(e, "AVERAGE_POOL_2D", source, target, axes, name)
    elif shrink is not None:
        _every_place(e, source, target, axes, shrink, name)
    else:
        if any(axis.before or axis.after for axis in axes):
            source, axes = pad_zeros(e, source, axes), _after_padding(axes)
        _corrected(e, source, target, axes, counts, name)
        as_codes(e, target, made)
        return
    e.settle(target, made)


def _after_padding(axes: Sequence[Window]) -> list[Window]:
    return [
        replace(axis, size=axis.size + axis.before + axis.after, before=0, after=0) for axis in axes
    ]


def _counts(node: onnx_ir.Node, axes: Sequence[Window]) -> list[np.ndarray[Any, Any]]:
    """Per axis and window, how many elements its mean is over."""
    padded = bool(attribute(node, "count_include_pad", 0))
    pads = [int(pad) for pad in attribute(node, "pads", None) or [0] * (2 * len(axes))]
    found = []
    for at, axis in enumerate(axes):
        before = axis.before if padded else 0
        after = axis.after if padded else 0
        if padded and attribute(node, "auto_pad", "NOTSET") == "NOTSET":
            after = min(after, pads[at + len(axes)])  # not what ceil_mode adds
        starts = np.arange(axis.out) * axis.stride - axis.before
        places = starts[:, np.newaxis] + np.arange(axis.kernel) * axis.dilation
        found.append(((places >= -before) & (places < axis.size + after)).sum(axis=1))
    return found


def _shrunk(axes: Sequence[Window]) -> list[int] | None:
    """Where the windows begin among those of stride 1 and padding SAME; None if not there."""
    begin = []
    for axis in axes:
        first = (axis.kernel - 1) // 2 - axis.before
        if first < 0 or first + (axis.out - 1) * axis.stride >= axis.size:
            return None
        begin.append(first)
    return begin


def _every_place(
    e: Emitter,
    source: int,
    made: int,
    axes: Sequence[Window],
    begin: Sequence[int],
    name: str,
) -> None:
    """The pool at every place, of which some are picked: exact in int8 too."""
    shape = [e.file.shape(source)[0], *(axis.size for axis in axes), e.file.shape(source)[-1]]
    dense = []
    for axis in axes:
        total = axis.kernel - 1
        ends = (total // 2, total - total // 2)
        dense.append(replace(axis, out=axis.size, stride=1, before=ends[0], after=ends[1]))
    part = e.temp(shape, like=made)
    _pooled(e, "AVERAGE_POOL_2D", source, part, dense, name)
    _picked(e, part, made, axes, begin)


def _picked(
    e: Emitter, source: int, made: int, axes: Sequence[Window], begin: Sequence[int]
) -> None:
    """Elements of `source`, a window's stride apart, from `begin` on."""
    shape = e.file.shape(source)
    ends = [
        first + (axis.out - 1) * axis.stride + 1 for first, axis in zip(begin, axes, strict=True)
    ]
    rows = (
        [0, *begin, 0],
        [shape[0], *ends, shape[-1]],
        [1, *map(_step, axes), 1],
    )
    e.op("STRIDED_SLICE", [source, *(e.numbers(row) for row in rows)], [made], **_NO_MASKS)


def _corrected(
    e: Emitter,
    source: int,
    made: int,
    axes: Sequence[Window],
    counts: Sequence[np.ndarray[Any, Any]],
    name: str,
) -> None:
    """Sums over windows with zeros in them, over the number of what is no padding."""
    part = e.temp(e.file.shape(made))
    kernels = _summed(e, source, part, axes)
    factor = np.ones((1,) * (len(axes) + 2))
    for at, (kernel, count) in enumerate(zip(kernels, counts, strict=True), start=1):
        shape = [1] * factor.ndim
        shape[at] = -1
        factor = factor * (kernel / count).reshape(shape)
    inputs = [part, e.numbers(factor, "float32")]
    e.op("MUL", inputs, [made], fused_activation_function=name)


def _summed(e: Emitter, source: int, made: int, axes: Sequence[Window]) -> list[int]:
    """Sums over windows without padding, each divided by the product of what comes back."""
    if any(axis.dilation > 1 for axis in axes):
        _combined(e, "ADD", source, made, axes)
        return [1] * len(axes)
    _pooled(e, "AVERAGE_POOL_2D", source, made, axes)
    return [axis.kernel for axis in axes]


def _spatial(e: Emitter, value: onnx_ir.Value | None, layout: str) -> list[int]:
    rank = len(e.shape(value))
    if rank < 3:
        raise Unwritable("it pools a tensor without spatial axes")
    return sorted(e.axis(axis, rank, layout) for axis in range(2, rank))


def global_average(e: Emitter, node: onnx_ir.Node) -> None:
    """MEAN over the spatial axes."""
    _reduced(e, node, "MEAN")


def global_max(e: Emitter, node: onnx_ir.Node) -> None:
    """REDUCE_MAX over the spatial axes."""
    _reduced(e, node, "REDUCE_MAX")


def _reduced(e: Emitter, node: onnx_ir.Node, code: str) -> None:
    require_float(node)
    data = node.inputs[0]
    layout = e.layout(data)
    axes = e.numbers(_spatial(e, data, layout))
    source, made = e.take(data, layout), e.make(node.outputs[0], layout)
    target = made if code == "MEAN" else e.stage(source, made)  # a mean has a scale of its own
    e.op(code, [source, axes], [target], keep_dims=True)
    e.settle(target, made)


def lp_pool(e: Emitter, node: onnx_ir.Node) -> None:
    """A mean of powers, times the size of the window."""
    require_float(node)
    axes = _windows(e, node)
    power = float(e.attribute("p", 2))
    steps = Steps(e)
    source = _powered(steps, e.take(node.inputs[0], LAST), power)
    if any(axis.before or axis.after for axis in axes):
        source, axes = pad_zeros(e, source, axes), _after_padding(axes)
    made = e.make(node.outputs[0], LAST)
    mean = e.temp(e.file.shape(made))
    count = steps.number(float(np.prod(_summed(e, source, mean, axes))))
    _root(steps, steps("MUL", mean, count), power, made)


def global_lp(e: Emitter, node: onnx_ir.Node) -> None:
    """SUM of powers over the spatial axes."""
    require_float(node)
    data = node.inputs[0]
    layout = e.layout(data)
    power = float(e.attribute("p", 2))
    steps = Steps(e)
    source = _powered(steps, e.take(data, layout), power)
    axes = e.numbers(_spatial(e, data, layout))
    made = e.make(node.outputs[0], layout)
    total = e.temp(e.file.shape(made))
    e.op("SUM", [source, axes], [total], keep_dims=True)
    _root(steps, total, power, made)


def _powered(steps: Steps, source: int, power: float) -> int:
    """|x| to `power`."""
    if power == 2.0:
        return steps("SQUARE", source)
    size = steps("ABS", source)
    return size if power == 1.0 else steps("POW", size, steps.number(power))


def _root(steps: Steps, total: int, power: float, made: int) -> None:
    """The root of `total` that undoes `_powered`, as `made`."""
    if power == 2.0:
        steps.e.op("SQRT", [total], [made])
    else:
        steps.e.op("POW", [total, steps.number(1.0 / power)], [made])


HANDLERS = {
    "MaxPool": max_pool,
    "AveragePool": average_pool,
    "GlobalAveragePool": global_average,
    "GlobalMaxPool": global_max,
    "LpPool": lp_pool,
    "GlobalLpPool": global_lp,
}
