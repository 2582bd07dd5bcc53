"""Resize and Upsample, and what moves pixels between depth and space.

ONNX has many ways to say where in the input an element of the output lies, TFLite three. Whatever
they are called, both come to a list of indices (nearest) or a matrix (linear, cubic) per axis.
Where those are the same, TFLite's operator is taken; else GATHER, or a product with the matrix.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir

from edgeq.ir import constant, dtype_of
from edgeq_converters.write.tfl.emitter import LAST, Array, Emitter, Unwritable
from edgeq_converters.write.tfl.layers import as_codes, input_at, require_float

_MODES = ((False, True), (False, False), (True, False))
"""(align_corners, half_pixel_centers) of TFLite's operators."""

_MOST_COPIES = 4
"""How often an element is repeated by a CONCATENATION at most; XNNPACK's takes five operands."""

_NO_CODE = 128
_CLOSE = 1e-6
"""How far two weights of an interpolation may lie apart: a few roundings of float32."""


@dataclass(frozen=True)
class Stretch:
    """One axis: `size` elements become `out`, as if by the factor `scale`; `roi` is its part."""

    axis: int
    size: int
    out: int
    scale: float
    roi: tuple[float, float]


def resize(e: Emitter, node: onnx_ir.Node) -> None:
    """RESIZE_NEAREST_NEIGHBOR or RESIZE_BILINEAR where they do the same, else axis by axis."""
    data = node.inputs[0]
    assert data is not None
    if dtype_of(data) != "float32":
        raise Unwritable(f"it resizes a tensor of {dtype_of(data)}")
    mode = e.attribute("mode", "nearest")
    stretches = _stretches(e, node)
    if not stretches:
        layout = e.layout(data)
        e.pass_on(e.take(data, layout), node.outputs[0], layout)
    elif mode == "nearest":
        _nearest(e, node, stretches)
    elif mode in ("linear", "cubic", "bilinear"):
        _interpolated(e, node, stretches, cubic=mode == "cubic")
    else:
        raise Unwritable(f"TFLite has no Resize with mode={mode}")


def _stretches(e: Emitter, node: onnx_ir.Node) -> list[Stretch]:
    """The axes whose size changes."""
    data = node.inputs[0]
    before, after = e.shape(data), e.shape(node.outputs[0])
    rank = len(before)
    upsample = node.op_type == "Upsample"
    axes = [int(axis) % rank for axis in e.attribute("axes", None) or range(rank)]
    scales = [after[axis] / before[axis] for axis in range(rank)]
    value = input_at(node, 1 if upsample else 2)
    given = None if value is None else constant(value)
    if given is None and input_at(node, 3) is None:
        raise Unwritable("its scales are computed while the model runs")
    if given is not None and given.size == len(axes) and input_at(node, 3) is None:
        for axis, scale in zip(axes, given.reshape(-1), strict=True):
            scales[axis] = float(scale)
    policy = e.attribute("keep_aspect_ratio_policy", "stretch")
    if policy != "stretch" and input_at(node, 3) is not None:
        sizes = e.numbers_of(3, "sizes") or []
        ratios = [size / before[axis] for size, axis in zip(sizes, axes, strict=True)]
        ratio = min(ratios) if policy == "not_larger" else max(ratios)
        for axis in axes:
            scales[axis] = ratio
    roi = [(0.0, 1.0)] * rank
    if e.attribute("coordinate_transformation_mode", "half_pixel") == "tf_crop_and_resize":
        part = constant(input_at(node, 1))
        if part is None or part.size != 2 * len(axes):
            raise Unwritable("its region of interest is not constant")
        for at, axis in enumerate(axes):
            roi[axis] = (float(part.reshape(-1)[at]), float(part.reshape(-1)[at + len(axes)]))
    return [
        Stretch(axis, before[axis], after[axis], scales[axis], roi[axis])
        for axis in range(rank)
        if before[axis] != after[axis] or scales[axis] != 1.0 or roi[axis] != (0.0, 1.0)
    ]


def _places(e: Emitter, stretch: Stretch) -> Array:
    """Where each element of the output lies in the input, in float32 as ONNX Runtime has it."""
    x = np.arange(stretch.out, dtype=np.float32)
    scale, size, out = np.float32(stretch.scale), stretch.size, stretch.out
    default = "asymmetric" if e.node.op_type == "Upsample" else "half_pixel"
    mode = e.attribute("coordinate_transformation_mode", default)
    half = np.float32(0.5)
    if mode == "asymmetric":
        return x / scale
    if mode == "align_corners":
        return x * np.float32(0.0 if out == 1 else (size - 1) / (out - 1))
    if mode == "tf_half_pixel_for_nn":
        return (x + half) / scale
    if mode == "tf_crop_and_resize":
        start, end = stretch.roi
        if out == 1:
            return np.array([0.5 * (start + end) * (size - 1)], np.float32)
        step = (end - start) * (size - 1) / (out - 1)
        return (start * (size - 1) + x.astype(np.float64) * step).astype(np.float32)
    if mode == "pytorch_half_pixel" and out == 1:
        return np.zeros(1, np.float32)
    if mode == "half_pixel_symmetric":
        adjustment = out / (stretch.scale * size)
        centre = size / 2
        offset = centre * (1 - adjustment)
        return np.asarray(offset + (x + half) / scale - half, np.float32)
    if mode in ("half_pixel", "pytorch_half_pixel"):
        return (x + half) / scale - half
    raise Unwritable(f"TFLite has no Resize with coordinate_transformation_mode={mode}")


def _refuse_outside(e: Emitter, stretch: Stretch, places: Array) -> None:
    """Refuse a cut beyond the input, where other modes go on with the element at the edge."""
    cut = e.attribute("coordinate_transformation_mode", "") == "tf_crop_and_resize"
    if cut and (places.min() < 0 or places.max() > stretch.size - 1):
        raise Unwritable("it makes up values outside of its input, and TFLite has no such Resize")


def _lite_places(size: int, out: int, align: bool, half: bool) -> Array:
    """Where TFLite's operators look, before they bring half pixels to whole ones."""
    x = np.arange(out, dtype=np.float32)
    scale = np.float32(size / out)
    if align and out > 1:
        scale = np.float32((size - 1) / (out - 1))
    return (x + np.float32(0.5)) * scale if half else x * scale


# -- nearest


def _indices(e: Emitter, stretch: Stretch) -> Array:
    """The element of the input that each element of the output is."""
    places = _places(e, stretch)
    default = "floor" if e.node.op_type == "Upsample" else "round_prefer_floor"
    mode = e.attribute("nearest_mode", default)
    _refuse_outside(e, stretch, places)
    if mode == "floor":
        found = np.floor(places)
    elif mode == "ceil":
        found = np.ceil(places)
    elif mode == "round_prefer_ceil":
        found = np.floor(places + np.float32(0.5))
    else:
        found = np.ceil(places - np.float32(0.5))
    return np.clip(found, 0, stretch.size - 1).astype(np.int32)


def _lite_indices(stretch: Stretch, align: bool, half: bool) -> Array:
    places = _lite_places(stretch.size, stretch.out, align, half)
    found = np.floor(places + np.float32(0.5)) if align else np.floor(places)
    return np.clip(found, 0, stretch.size - 1).astype(np.int32)


def _nearest(e: Emitter, node: onnx_ir.Node, stretches: Sequence[Stretch]) -> None:
    rows = [_indices(e, stretch) for stretch in stretches]
    plane = _plane(e, node, stretches)
    times = [stretch.out // stretch.size for stretch in stretches]
    repeats = (
        0 < count <= _MOST_COPIES
        and stretch.out == count * stretch.size
        and np.array_equal(row, np.arange(stretch.out) // count)
        for row, stretch, count in zip(rows, stretches, times, strict=True)
    )
    if plane and all(repeats):
        _repeated(e, node, stretches, times)
        return
    for align, half in _MODES if plane else ():
        same = (
            np.array_equal(row, _lite_indices(stretch, align, half))
            for row, stretch in zip(rows, stretches, strict=True)
        )
        if all(same):
            _operator(e, node, "RESIZE_NEAREST_NEIGHBOR", align, half)
            return
    data = node.inputs[0]
    layout = e.layout(data)
    at = e.take(data, layout)
    rank = len(e.shape(data))
    for stretch, row in zip(stretches, rows, strict=True):
        axis = e.axis(stretch.axis, rank, layout)
        at = gathered(e, at, axis, row)
    e.pass_on(at, node.outputs[0], layout)


def _repeated(
    e: Emitter, node: onnx_ir.Node, stretches: Sequence[Stretch], times: Sequence[int]
) -> None:
    """Every element so many times, by copies side by side: XNNPACK has no operator for nearest."""
    source = e.take(node.inputs[0], LAST)
    made = e.make(node.outputs[0], LAST)
    target = e.stage(source, made)
    shape = list(e.file.shape(source))
    for stretch, count in sorted(zip(stretches, times, strict=True), key=lambda row: -row[0].axis):
        axis = stretch.axis - 1
        inner = int(np.prod(shape[axis + 1 :]))
        flat = e.reshaped(source, [int(np.prod(shape[:axis])), shape[axis], inner])
        copies = e.temp([*e.file.shape(flat)[:2], inner * count], like=source)
        e.op("CONCATENATION", [flat] * count, [copies], axis=2)
        shape[axis] *= count
        source = copies
    e.reshape(source, target)
    e.settle(target, made)


def gathered(e: Emitter, at: int, axis: int, indices: Array) -> int:
    """The elements `indices` of `at` along `axis`."""
    shape = list(e.file.shape(at))
    shape[axis] = len(indices)
    made = e.temp(shape, like=at)
    e.op("GATHER", [at, e.numbers(indices)], [made], axis=axis, batch_dims=0)
    return made


# -- interpolated


def _plane(e: Emitter, node: onnx_ir.Node, stretches: Sequence[Stretch]) -> bool:
    """Whether only the spatial axes of images (or of lines) change."""
    rank = len(e.shape(node.inputs[0]))
    return rank in (3, 4) and all(stretch.axis >= 2 for stretch in stretches)


def _operator(e: Emitter, node: onnx_ir.Node, code: str, align: bool, half: bool) -> None:
    """`code` over images, a line being one of one row."""
    source = e.take(node.inputs[0], LAST)
    made = e.make(node.outputs[0], LAST)
    staged = target = e.stage(source, made)
    shape = e.file.shape(source)
    if len(shape) == 3:
        source = e.reshaped(source, [shape[0], 1, *shape[1:]])
        outs = e.file.shape(made)
        target = e.temp([outs[0], 1, *outs[1:]], like=staged)
    size = e.numbers(e.file.shape(target)[1:3])
    e.op(code, [source, size], [target], align_corners=align, half_pixel_centers=half)
    if target != staged:
        e.reshape(target, staged)
    e.settle(staged, made)


def _interpolated(
    e: Emitter, node: onnx_ir.Node, stretches: Sequence[Stretch], *, cubic: bool
) -> None:
    matrices = [_matrix(e, stretch, cubic) for stretch in stretches]
    plane = _plane(e, node, stretches) and not cubic
    for align, half in _MODES if plane else ():
        same = (
            np.allclose(matrix, _lite_matrix(stretch, align, half), 0.0, _CLOSE * stretch.size)
            for matrix, stretch in zip(matrices, stretches, strict=True)
        )
        if all(same):
            _operator(e, node, "RESIZE_BILINEAR", align, half)
            return
    data = node.inputs[0]
    layout = e.layout(data)
    at = e.take(data, layout, codes=False)
    rank = len(e.shape(data))
    for stretch, matrix in zip(stretches, matrices, strict=True):
        at = _multiplied(e, at, e.axis(stretch.axis, rank, layout), matrix)
    made = e.make(node.outputs[0], layout)
    if e.file.parameters(made):
        as_codes(e, at, made)
    else:
        e.reshape(at, made)


def _multiplied(e: Emitter, at: int, axis: int, matrix: Array) -> int:
    """`at` with `matrix` [out, in] applied along `axis`."""
    shape = e.file.shape(at)
    before, after = int(np.prod(shape[:axis])), int(np.prod(shape[axis + 1 :]))
    source = e.reshaped(at, [before, shape[axis], after])
    made = e.temp([before, len(matrix), after])
    left = e.numbers(np.broadcast_to(matrix, (before, *matrix.shape)), "float32")
    e.op("BATCH_MATMUL", [left, source], [made], adj_x=False, adj_y=False)
    return e.reshaped(made, [*shape[:axis], len(matrix), *shape[axis + 1 :]])


def _matrix(e: Emitter, stretch: Stretch, cubic: bool) -> Array:
    """What each element of the output [out] takes of those of the input [in]."""
    places = _places(e, stretch).astype(np.float64)
    _refuse_outside(e, stretch, places)
    shrink = min(stretch.scale, 1.0) if e.attribute("antialias", 0) else 1.0
    if not cubic and shrink == 1.0:
        places = np.clip(places, 0, stretch.size - 1)
    reach = int(np.ceil((2 if cubic else 1) / shrink))
    matrix = np.zeros((stretch.out, stretch.size))
    outside = bool(e.attribute("exclude_outside", 0))
    factor = float(e.attribute("cubic_coeff_a", -0.75))
    for row, place in enumerate(places):
        first = int(np.floor(place)) - reach + 1
        taps = np.arange(first, first + 2 * reach)
        weights = _kernel(np.abs(taps - place) * shrink, factor if cubic else None)
        if outside:
            weights = np.where((taps < 0) | (taps >= stretch.size), 0.0, weights)
        if outside or shrink < 1.0:
            weights = weights / weights.sum()
        np.add.at(matrix[row], np.clip(taps, 0, stretch.size - 1), weights)
    return matrix


def _kernel(x: Array, a: float | None) -> Array:
    """The triangle, or the cubic of Keys with the coefficient `a`, at distances `x`."""
    if a is None:
        return np.maximum(1.0 - x, 0.0)
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = ((a * x - 5 * a) * x + 8 * a) * x - 4 * a
    return np.where(x <= 1, near, np.where(x < 2, far, 0.0))


def _lite_matrix(stretch: Stretch, align: bool, half: bool) -> Array:
    places = _lite_places(stretch.size, stretch.out, align, half).astype(np.float64)
    places = np.clip(places - 0.5 if half else places, 0, stretch.size - 1)
    matrix = np.zeros((stretch.out, stretch.size))
    for row, place in enumerate(places):
        low = int(np.floor(place))
        part = place - low
        matrix[row, low] += 1.0 - part
        matrix[row, min(low + 1, stretch.size - 1)] += part
    return matrix


# -- depth and space


def depth_to_space(e: Emitter, node: onnx_ir.Node) -> None:
    """DEPTH_TO_SPACE, which takes depth first (DCR); columns first (CRD) are reordered before."""
    require_float(node)
    data = node.inputs[0]
    block = int(e.attribute("blocksize", 1))
    at = e.take(data, LAST)
    if e.attribute("mode", "DCR") == "CRD" and block > 1:
        # a TRANSPOSE of the two halves of the depth: XNNPACK and compilers for NPUs have no GATHER
        shape = e.file.shape(at)
        depth = e.reshaped(at, [int(np.prod(shape[:-1])), shape[-1] // block**2, block**2])
        at = e.reshaped(e.transposed(depth, (0, 2, 1)), shape)
    _blocks_moved(e, node, "DEPTH_TO_SPACE", at)


def space_to_depth(e: Emitter, node: onnx_ir.Node) -> None:
    """SPACE_TO_DEPTH."""
    require_float(node)
    _blocks_moved(e, node, "SPACE_TO_DEPTH", e.take(node.inputs[0], LAST))


def _blocks_moved(e: Emitter, node: onnx_ir.Node, code: str, at: int) -> None:
    made = e.make(node.outputs[0], LAST)
    target = e.stage(at, made)
    e.op(code, [at], [target], block_size=int(e.attribute("blocksize", 1)))
    e.settle(target, made)


# -- padding


def pad(e: Emitter, node: onnx_ir.Node) -> None:
    """PAD, PADV2 or MIRROR_PAD; where it repeats an edge or wraps, GATHER."""
    data = node.inputs[0]
    assert data is not None
    shape = e.shape(data)
    rank = len(shape)
    numbers = e.numbers_of(1, "pads") or [0] * (2 * rank)
    axes = [axis % rank for axis in e.numbers_of(3, "axes") or range(rank)]
    ends = [(0, 0)] * rank
    for at, axis in enumerate(axes):
        ends[axis] = (numbers[at], numbers[at + len(axes)])
    mode = e.attribute("mode", "constant")
    layout = e.layout(data)
    source = e.take(data, layout)
    source, ends = _cut(e, source, [*e.ordered(ends, layout)])
    if not any(map(any, ends)):
        e.pass_on(source, node.outputs[0], layout)
    elif mode == "constant":
        _pad_constant(e, node, source, ends, layout)
    elif mode == "reflect" and not e.int8 and _fits_mirror(e, source, ends):
        made = e.make(node.outputs[0], layout)
        e.op("MIRROR_PAD", [source, e.numbers(ends)], [made], mode="REFLECT")
    else:
        for axis, (before, after) in enumerate(ends):
            size = e.file.shape(source)[axis]
            if before or after:
                source = gathered(e, source, axis, _outside(mode, size, before, after))
        e.pass_on(source, node.outputs[0], layout)


def _fits_mirror(e: Emitter, source: int, ends: Sequence[tuple[int, int]]) -> bool:
    return all(max(row) < size for row, size in zip(ends, e.file.shape(source), strict=True))


def _outside(mode: str, size: int, before: int, after: int) -> Array:
    """The elements that an axis is continued with, and its own."""
    places = np.arange(-before, size + after)
    if mode == "edge":
        return np.clip(places, 0, size - 1)
    if mode == "wrap":
        return places % size
    if mode != "reflect":
        raise Unwritable(f"TFLite has no Pad with mode={mode}")
    if size == 1:
        return np.zeros_like(places)
    places = places % (2 * (size - 1))
    return np.where(places < size, places, 2 * (size - 1) - places)


def _cut(e: Emitter, source: int, ends: list[tuple[int, int]]) -> tuple[int, list[tuple[int, int]]]:
    """What padding below 0 leaves, and the padding that remains."""
    if all(min(row) >= 0 for row in ends):
        return source, ends
    shape = e.file.shape(source)
    begin = [max(-before, 0) for before, _ in ends]
    size = [
        count - start - max(-after, 0)
        for count, start, (_, after) in zip(shape, begin, ends, strict=True)
    ]
    made = e.temp(size, like=source)
    e.op("SLICE", [source, e.numbers(begin), e.numbers(size)], [made])
    return made, [(max(before, 0), max(after, 0)) for before, after in ends]


def _pad_constant(
    e: Emitter, node: onnx_ir.Node, source: int, ends: list[tuple[int, int]], layout: str
) -> None:
    value = input_at(node, 2)
    array = None if value is None else constant(value)
    if value is not None and array is None:
        raise Unwritable("what it pads with is computed while the model runs")
    number = 0.0 if array is None or not array.size else float(array.reshape(-1)[0])
    made = e.make(node.outputs[0], layout)
    target = e.stage(source, made)
    if number == 0.0:
        e.op("PAD", [source, e.numbers(ends)], [target])
        e.settle(target, made)
        return
    parameters = e.file.parameters(source)
    if parameters:
        codes = np.array([_code(number, parameters)], np.int8)
        filler = e.file.constant(f"{node.outputs[0].name}_filler", codes, **parameters)
    else:
        filler = e.numbers([number], e.file.dtype(source))
    e.op("PADV2", [source, e.numbers(ends), filler], [target])
    e.settle(target, made)


def _code(number: float, parameters: Mapping[str, Any]) -> int:
    """The int8 code that stands for `number`, which lies on the scale."""
    scale, point = float(parameters["scale"][0]), int(parameters["zero_point"][0])
    steps = number / scale
    code = round(steps) + point if math.isfinite(steps) else _NO_CODE
    if not -128 <= code <= 127 or abs(steps - round(steps)) > _CLOSE * abs(steps):
        raise Unwritable("its codes do not hold what it pads with")
    return code


HANDLERS = {
    "Resize": resize,
    "Upsample": resize,
    "DepthToSpace": depth_to_space,
    "SpaceToDepth": space_to_depth,
    "Pad": pad,
}
