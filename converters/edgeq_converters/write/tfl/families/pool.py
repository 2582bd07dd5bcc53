"""Pools over one, two or three spatial axes, and over all of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import onnx_ir

from edgeq.ir import attribute
from edgeq_converters.write.tfl.emitter import LAST, Emitter, Unwritable
from edgeq_converters.write.tfl.layers import require_float
from edgeq_converters.write.tfl.windows import NO_WINDOW, Window, pad_zeros, padding, windows

_LOWEST = float(np.finfo(np.float32).min)
_LOWEST_CODE = -128

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
    source = e.take(data, LAST)
    name, value = e.activation(node.outputs[0])
    made = e.make(value, LAST)
    if not padding(axes):
        source = _pad_lowest(e, data, source, axes)
        axes = [
            replace(axis, size=axis.size + axis.before + axis.after, before=0, after=0)
            for axis in axes
        ]
    if any(axis.dilation > 1 for axis in axes):
        _slices(e, source, made, axes, name)
        return
    _pooled(e, "MAX_POOL_2D", source, made, axes, name)


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
    batch, *sizes, channels = e.file.shape(source)
    if len(axes) == 3:
        (deep, *flat), outs = axes, [axis.out for axis in axes]
        shape = [batch * sizes[0], *outs[1:], channels]
        part = e.temp(shape, like=made)
        images = e.reshaped(source, [batch * sizes[0], *sizes[1:], channels])
        _pooled(e, code, images, part, flat)
        part = e.reshaped(part, [batch, sizes[0], outs[1] * outs[2], channels])
        target = e.temp([batch, outs[0], outs[1] * outs[2], channels], like=made)
        every = replace(NO_WINDOW, size=outs[1] * outs[2], out=outs[1] * outs[2])
        _pooled(e, code, part, target, [deep, every], name)
        e.reshape(target, made)
        return
    target = made
    if len(axes) == 1:
        axes = [NO_WINDOW, *axes]
        source = e.reshaped(source, [batch, 1, *sizes, channels])
        target = e.temp([batch, 1, axes[1].out, channels], like=made)
    high, wide = axes
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


def _slices(e: Emitter, source: int, made: int, axes: Sequence[Window], name: str) -> None:
    """The maximum over a kernel with gaps: of one slice per place in it, axis after axis."""
    if name != "NONE":
        raise Unwritable("TFLite has no dilated pool with a clamp in it")
    for at, axis in enumerate(axes, start=1):
        shape = list(e.file.shape(source))
        shape[at] = axis.out
        best = -1
        for place in range(axis.kernel):
            begin = [0] * len(shape)
            begin[at] = place * axis.dilation
            part = _strided(e, source, begin, at, axis, shape)
            if best < 0:
                best = part
                continue
            last = at == len(axes) and place == axis.kernel - 1
            target = made if last else e.temp(shape, like=source)
            e.op("MAXIMUM", [best, part], [target])
            best = target
        source = best
    if source != made:
        e.reshape(source, made)


def _strided(
    e: Emitter, source: int, begin: Sequence[int], at: int, axis: Window, shape: Sequence[int]
) -> int:
    end, steps = list(e.file.shape(source)), [1] * len(shape)
    end[at] = begin[at] + (axis.out - 1) * axis.stride + 1
    steps[at] = axis.stride
    made = e.temp(shape, like=source)
    inputs = [source, *(e.numbers(list(row)) for row in (begin, end, steps))]
    options = dict.fromkeys(
        ("begin_mask", "end_mask", "ellipsis_mask", "new_axis_mask", "shrink_axis_mask"), 0
    )
    e.op("STRIDED_SLICE", inputs, [made], **options)
    return made


def average_pool(e: Emitter, node: onnx_ir.Node) -> None:
    """AVERAGE_POOL_2D; where its windows are cut short otherwise than TFLite's, corrected."""
    require_float(node)
    data = node.inputs[0]
    axes = _windows(e, node)
    if any(axis.dilation > 1 for axis in axes):
        raise Unwritable("TFLite has no dilated AveragePool")
    counts = _counts(node, axes)
    full = all((row == axis.kernel).all() for row, axis in zip(counts, axes, strict=True))
    exact = full or (not attribute(node, "count_include_pad", 0) and _excludes(node, axes))
    shrink = _shrunk(axes) if not full else None
    codes = None if exact or shrink is not None else False
    source = e.take(data, LAST, codes=codes)
    name, value = e.activation(node.outputs[0])
    made = e.make(value, LAST, codes=codes)
    if exact:
        if full and any(axis.before or axis.after for axis in axes):
            source, axes = pad_zeros(e, source, axes), _after_padding(axes)
        _pooled(e, "AVERAGE_POOL_2D", source, made, axes, name)
        return
    if shrink is not None and not attribute(node, "count_include_pad", 0):
        _every_place(e, source, made, axes, shrink, name)
        return
    _corrected(e, pad_zeros(e, source, axes), made, _after_padding(axes), counts, name)


def _after_padding(axes: Sequence[Window]) -> list[Window]:
    return [
        replace(axis, size=axis.size + axis.before + axis.after, before=0, after=0) for axis in axes
    ]


def _excludes(node: onnx_ir.Node, axes: Sequence[Window]) -> bool:
    """Whether TFLite's SAME averages over the same elements."""
    return padding(axes) != ""


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
        ends = np.minimum(starts + axis.kernel, axis.size + after)
        found.append(ends - np.maximum(starts, -before))
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
    ends_at = [
        first + (axis.out - 1) * axis.stride + 1 for first, axis in zip(begin, axes, strict=True)
    ]
    rows = (
        [0, *begin, 0],
        [shape[0], *ends_at, shape[-1]],
        [1, *(axis.stride for axis in axes), 1],
    )
    options = dict.fromkeys(
        ("begin_mask", "end_mask", "ellipsis_mask", "new_axis_mask", "shrink_axis_mask"), 0
    )
    e.op("STRIDED_SLICE", [part, *(e.numbers(row) for row in rows)], [made], **options)


def _corrected(
    e: Emitter,
    source: int,
    made: int,
    axes: Sequence[Window],
    counts: Sequence[np.ndarray[Any, Any]],
    name: str,
) -> None:
    """Means over windows with zeros in them, times what those zeros took away."""
    part = e.temp(e.file.shape(made))
    _pooled(e, "AVERAGE_POOL_2D", source, part, axes)
    factor = np.ones((1,) * (len(axes) + 2))
    for at, (axis, count) in enumerate(zip(axes, counts, strict=True), start=1):
        shape = [1] * factor.ndim
        shape[at] = -1
        factor = factor * (axis.kernel / count).reshape(shape)
    inputs = [part, e.numbers(factor, "float32")]
    e.op("MUL", inputs, [made], fused_activation_function=name)


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
    e.op(code, [e.take(data, layout), axes], [e.make(node.outputs[0], layout)], keep_dims=True)


def lp_pool(e: Emitter, node: onnx_ir.Node) -> None:
    """A mean of powers, times the size of the window."""
    require_float(node)
    if attribute(node, "p", 2) not in (1, 2):
        raise Unwritable("TFLite has LpPool with p=1 and p=2 alone")
    axes = _windows(e, node)
    if any(axis.dilation > 1 for axis in axes):
        raise Unwritable("TFLite has no dilated LpPool")
    source = _powered(e, e.take(node.inputs[0], LAST), node)
    if any(axis.before or axis.after for axis in axes):
        source, axes = pad_zeros(e, source, axes), _after_padding(axes)
    made = e.make(node.outputs[0], LAST)
    mean, total = e.temp(e.file.shape(made)), e.temp(e.file.shape(made))
    _pooled(e, "AVERAGE_POOL_2D", source, mean, axes)
    count = float(np.prod([axis.kernel for axis in axes]))
    square = attribute(node, "p", 2) == 2
    target = total if square else made
    inputs = [mean, e.numbers(count, "float32")]
    e.op("MUL", inputs, [target], fused_activation_function="NONE")
    if square:
        e.op("SQRT", [total], [made])


def global_lp(e: Emitter, node: onnx_ir.Node) -> None:
    """SUM of powers over the spatial axes."""
    require_float(node)
    data = node.inputs[0]
    layout = e.layout(data)
    source = _powered(e, e.take(data, layout), node)
    axes = e.numbers(_spatial(e, data, layout))
    made = e.make(node.outputs[0], layout)
    if attribute(node, "p", 2) == 1:
        e.op("SUM", [source, axes], [made], keep_dims=True)
        return
    part = e.temp(e.file.shape(made))
    e.op("SUM", [source, axes], [part], keep_dims=True)
    e.op("SQRT", [part], [made])


def _powered(e: Emitter, source: int, node: onnx_ir.Node) -> int:
    """|x| or x * x, as `p` says."""
    made = e.temp(e.file.shape(source))
    power = attribute(node, "p", 2)
    if power not in (1, 2):
        raise Unwritable("TFLite has it with p=1 and p=2 alone")
    e.op("ABS" if power == 1 else "SQUARE", [source], [made])
    return made


HANDLERS = {
    "MaxPool": max_pool,
    "AveragePool": average_pool,
    "GlobalAveragePool": global_average,
    "GlobalMaxPool": global_max,
    "LpPool": lp_pool,
    "GlobalLpPool": global_lp,
}
