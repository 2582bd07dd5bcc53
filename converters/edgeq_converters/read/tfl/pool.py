"""Pools, resizing, and blocks of space to channels and back: all channels first."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from edgeq_converters.read.tfl import windows
from edgeq_converters.read.tfl.move import same_scale
from edgeq_converters.read.tfl.reading import (
    Handler,
    NotPerSample,
    Reading,
    Unsupported,
    channels_first,
)
from edgeq_runtime.tflite import Operator

_FIRST = channels_first(4)


def average_pool(ctx: Reading, op: Operator) -> None:
    """What lies outside of the tensor is not counted."""
    _pool(ctx, op, "AveragePool", count_include_pad=0)


def max_pool(ctx: Reading, op: Operator) -> None:
    _pool(ctx, op, "MaxPool")


def l2_pool(ctx: Reading, op: Operator) -> None:
    """The root of the mean square."""
    _rank_4(ctx, op)
    source = ctx.value(op.inputs[0], _FIRST)
    mean = ctx.emit("AveragePool", ctx.emit("Mul", source, source), **_where(ctx, op))
    ctx.put(op.outputs[0], ctx.activated(ctx.emit("Sqrt", mean), op), _FIRST)


def _pool(ctx: Reading, op: Operator, op_type: str, **attributes: Any) -> None:
    _rank_4(ctx, op)
    if op_type == "MaxPool":
        same_scale(ctx, op.inputs[:1], op.outputs[0])
    source = ctx.value(op.inputs[0], _FIRST)
    made = ctx.emit(op_type, source, **_where(ctx, op), **attributes)
    ctx.put(op.outputs[0], ctx.activated(made, op), _FIRST)


def _where(ctx: Reading, op: Operator) -> dict[str, Any]:
    options = op.options
    kernel = [int(options["filter_height"]), int(options["filter_width"])]
    strides = [int(options["stride_h"]), int(options["stride_w"])]
    sizes = ctx.shape(op.inputs[0])[1:-1]
    pads = windows.pads(options["padding"], sizes, kernel, strides, (1, 1))
    return {"kernel_shape": kernel, "strides": strides, "pads": windows.in_order(pads)}


def _rank_4(ctx: Reading, op: Operator) -> None:
    if ctx.rank(op.inputs[0]) != 4:
        raise Unsupported(f"reads a tensor of {ctx.rank(op.inputs[0])} axes")


def resize_bilinear(ctx: Reading, op: Operator) -> None:
    _resize(ctx, op, "linear", {})


def resize_nearest(ctx: Reading, op: Operator) -> None:
    """The pixel below, except where corners or centres are aligned: there halves go up."""
    aligned = op.options["align_corners"] or op.options["half_pixel_centers"]
    _resize(ctx, op, "nearest", {"nearest_mode": "round_prefer_ceil" if aligned else "floor"})


def _resize(ctx: Reading, op: Operator, mode: str, more: Mapping[str, str]) -> None:
    _rank_4(ctx, op)
    same_scale(ctx, op.inputs[:1], op.outputs[0])
    kind = "asymmetric"
    if op.options["align_corners"]:
        kind = "align_corners"
    elif op.options["half_pixel_centers"]:
        kind = "half_pixel"
    before, after = ctx.shape(op.inputs[0])[1:-1], ctx.shape(op.outputs[0])[1:-1]
    if 0 in (*before, *after):
        raise Unsupported("reads or makes nothing")
    scales = [np.float32(new) / np.float32(old) for old, new in zip(before, after, strict=True)]
    attributes: dict[str, Any] = {**more, "mode": mode, "coordinate_transformation_mode": kind}
    source = ctx.value(op.inputs[0], _FIRST)
    ctx.hides_batch |= op.inputs[0] in ctx.batched
    if all(
        float(scale) * old == new for scale, old, new in zip(scales, before, after, strict=True)
    ):
        factors = ctx.const(np.array([1, 1, *scales], np.float32), "scales")
        made = ctx.emit("Resize", source, None, factors, **attributes)
    elif op.inputs[0] in ctx.batched:
        # ONNX Runtime (1.31.1) refuses sizes of some axes alone, and sizes of all fix the batch
        raise NotPerSample(f"{after} of {before} is no factor that float32 holds")
    else:
        shape = ctx.shape(op.outputs[0])
        sizes = ctx.const(np.array([shape[axis] for axis in _FIRST], np.int64), "sizes")
        made = ctx.emit("Resize", source, None, None, sizes, **attributes)
    ctx.put(op.outputs[0], made, _FIRST)


def depth_to_space(ctx: Reading, op: Operator) -> None:
    """Channels are [row in the block, column in the block, channel]: ONNX calls it DCR."""
    _rank_4(ctx, op)
    same_scale(ctx, op.inputs, op.outputs[0])
    size = int(op.options["block_size"])
    made = ctx.emit("DepthToSpace", ctx.value(op.inputs[0], _FIRST), blocksize=size, mode="DCR")
    ctx.put(op.outputs[0], made, _FIRST)


def space_to_depth(ctx: Reading, op: Operator) -> None:
    _rank_4(ctx, op)
    same_scale(ctx, op.inputs, op.outputs[0])
    size = int(op.options["block_size"])
    made = ctx.emit("SpaceToDepth", ctx.value(op.inputs[0], _FIRST), blocksize=size)
    ctx.put(op.outputs[0], made, _FIRST)


def local_response_normalization(ctx: Reading, op: Operator) -> None:
    """ONNX divides alpha by the number of channels in the window."""
    _rank_4(ctx, op)
    options = op.options
    size = 2 * int(options["radius"]) + 1
    made = ctx.emit(
        "LRN",
        ctx.value(op.inputs[0], _FIRST),
        size=size,
        alpha=float(options["alpha"]) * size,
        beta=float(options["beta"]),
        bias=float(options["bias"]),
    )
    ctx.put(op.outputs[0], made, _FIRST)


HANDLERS: Mapping[str, Handler] = {
    "AVERAGE_POOL_2D": average_pool,
    "MAX_POOL_2D": max_pool,
    "L2_POOL_2D": l2_pool,
    "RESIZE_BILINEAR": resize_bilinear,
    "RESIZE_NEAREST_NEIGHBOR": resize_nearest,
    "DEPTH_TO_SPACE": depth_to_space,
    "SPACE_TO_DEPTH": space_to_depth,
    "LOCAL_RESPONSE_NORMALIZATION": local_response_normalization,
}
