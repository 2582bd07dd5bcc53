"""Padding, and blocks of space to the batch and back."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence

import numpy as np
import onnx_ir

from edgeq_converters.read.tfl.elementwise import number
from edgeq_converters.read.tfl.move import form, same_scale
from edgeq_converters.read.tfl.reading import Apart, Handler, NotPerSample, Reading, Unsupported
from edgeq_runtime.tflite import Operator

_CONVOLUTIONS = ("CONV_2D", "DEPTHWISE_CONV_2D")


def pad(ctx: Reading, op: Operator) -> None:
    """PAD with zeros, PADV2 with a number. Made only where it is read as such: a convolution
    without padding of its own takes zeros around its tensor for padding."""
    source, result = op.inputs[0], op.outputs[0]
    same_scale(ctx, [source], result)
    amounts = _amounts(ctx, op.inputs[1], ctx.rank(source))
    if amounts[:1] != [(0, 0)] and source in ctx.batched:
        raise NotPerSample("adds samples")
    filler = _filler(ctx, op)
    if filler == 0.0 and amounts[0] == amounts[-1] == (0, 0) and ctx.array(source) is None:
        ctx.padded[result] = (source, tuple(amounts[1:-1]))
    if ctx.array(source) is None:
        ctx.known(source)  # so that one padding waits at a time
    ctx.later(op, functools.partial(_pad, ctx, op, amounts, filler))


def _pad(
    ctx: Reading, op: Operator, amounts: Sequence[tuple[int, int]], filler: float | None
) -> None:
    value, perm = form(ctx, op.inputs[0])
    pads = [amounts[axis][0] for axis in perm] + [amounts[axis][1] for axis in perm]
    where = ctx.const(np.array(pads, np.int64), "pads")
    if filler is None:
        with_what: onnx_ir.Value | None = _scalar(ctx, op.inputs[2])
    elif ctx.dtype(ctx.tensors[op.outputs[0]]) == onnx_ir.DataType.FLOAT:
        with_what = number(ctx, filler) if filler else None
    else:
        kind = np.dtype(ctx.tensors[op.outputs[0]].dtype)
        with_what = ctx.const(np.array(filler, kind), "number") if filler else None
    ctx.put(op.outputs[0], ctx.emit("Pad", value, where, with_what), perm)


def _scalar(ctx: Reading, index: int) -> onnx_ir.Value:
    shape = ctx.const(np.array([], np.int64), "shape")
    return ctx.emit("Reshape", ctx.value(index), shape)


def _filler(ctx: Reading, op: Operator) -> float | None:
    """The constant that is put around; None for one that is computed."""
    index = ctx.given(op, 2)
    if index < 0:
        return 0.0
    array = ctx.array(index)
    return None if array is None else float(array.reshape(-1)[0])


def _amounts(ctx: Reading, index: int, rank: int) -> list[tuple[int, int]]:
    """(before, after) for each axis."""
    flat = ctx.whole(index, "padding")
    if len(flat) != 2 * rank or any(count < 0 for count in flat):
        raise Unsupported(f"has {len(flat)} amounts of padding for {rank} axes")
    return list(zip(flat[::2], flat[1::2], strict=True))


def mirror_pad(ctx: Reading, op: Operator) -> None:
    """REFLECT leaves out the edge and is a Pad; SYMMETRIC repeats it, by picking elements."""
    source, result = op.inputs[0], op.outputs[0]
    same_scale(ctx, [source], result)
    amounts = _amounts(ctx, op.inputs[1], ctx.rank(source))
    if amounts[:1] != [(0, 0)] and source in ctx.batched:
        raise NotPerSample("adds samples")
    value, perm = form(ctx, source)
    if op.options["mode"] == "REFLECT":
        pads = [amounts[axis][0] for axis in perm] + [amounts[axis][1] for axis in perm]
        where = ctx.const(np.array(pads, np.int64), "pads")
        ctx.put(result, ctx.emit("Pad", value, where, mode="reflect"), perm)
        return
    for axis, counts in enumerate(amounts):
        size = ctx.shape(source)[axis]
        if max(counts) > size:
            raise Unsupported(f"mirrors {max(counts)} of {size} elements")
        if any(counts):
            picked = np.pad(np.arange(size), counts, mode="symmetric")
            where = ctx.const(picked.astype(np.int64), "indices")
            value = ctx.like(result, ctx.emit("Gather", value, where, axis=perm.index(axis)))
    ctx.put(result, value if any(map(any, amounts)) else ctx.emit("Identity", value), perm)


def space_to_batch(ctx: Reading, op: Operator) -> None:
    """Around a convolution it means dilations; else blocks are taken apart, after padding."""
    source, result = op.inputs[0], op.outputs[0]
    same_scale(ctx, [source], result)
    block = ctx.whole(op.inputs[1], "block")
    amounts = _amounts(ctx, op.inputs[2], len(block))
    apart = _dilated(ctx, op, block, amounts)
    if apart is not None:
        ctx.dilated[apart[0]] = apart[1]
        return
    if source in ctx.batched:
        raise NotPerSample("makes space part of the batch")
    whole = [(0, 0), *amounts, *[(0, 0)] * (ctx.rank(source) - 1 - len(block))]
    value = ctx.value(source)
    if any(map(any, amounts)):
        pads = [before for before, _ in whole] + [after for _, after in whole]
        where = ctx.const(np.array(pads, np.int64), "pads")
        value = ctx.like(result, ctx.emit("Pad", value, where))
    sizes = [size + sum(pair) for size, pair in zip(ctx.shape(source), whole, strict=True)]
    count, split = len(block), [sizes[0]]
    for size, width in zip(sizes[1:], block, strict=False):
        split += [size // width, width]
    split += sizes[1 + count :]
    order = [2 * at + 2 for at in range(count)] + [0] + [2 * at + 1 for at in range(count)]
    order += range(2 * count + 1, len(split))
    ctx.put(result, _rearranged(ctx, result, value, split, order))


def batch_to_space(ctx: Reading, op: Operator) -> None:
    source, result = op.inputs[0], op.outputs[0]
    if result in ctx.forms:
        return
    same_scale(ctx, [source], result)
    if source in ctx.batched:
        raise NotPerSample("makes the batch part of space")
    block = ctx.whole(op.inputs[1], "block")
    crops = _amounts(ctx, op.inputs[2], len(block))
    sizes, count = ctx.shape(source), len(block)
    split = [*block, sizes[0] // int(np.prod(block)), *sizes[1:]]
    order = [count]
    for at in range(count):
        order += [count + 1 + at, at]
    order += range(2 * count + 1, len(split))
    wide = [split[count], *(size * width for size, width in zip(sizes[1:], block, strict=False))]
    wide += sizes[1 + count :]
    value = _rearranged(ctx, result, ctx.value(source), split, order, wide)
    if any(map(any, crops)):
        value = ctx.like(result, value)
        rows = [
            [before for before, _ in crops],
            [size - after for (_, after), size in zip(crops, wide[1:], strict=False)],
            list(range(1, count + 1)),
        ]
        names = ("starts", "ends", "axes")
        given = [
            ctx.const(np.array(row, np.int64), name) for row, name in zip(rows, names, strict=True)
        ]
        value = ctx.emit("Slice", value, *given)
    ctx.put(result, value)


def _rearranged(
    ctx: Reading,
    result: int,
    value: onnx_ir.Value,
    split: Sequence[int],
    order: Sequence[int],
    sizes: Sequence[int] | None = None,
) -> onnx_ir.Value:
    """Reshaped to `split`, its axes in `order`, and reshaped to the shape of the result."""
    first = ctx.const(np.array(split, np.int64), "shape")
    last = ctx.const(np.array(sizes or ctx.shape(result), np.int64), "shape")
    value = ctx.like(result, ctx.emit("Reshape", value, first))
    value = ctx.like(result, ctx.emit("Transpose", value, perm=list(order)))
    return ctx.emit("Reshape", value, last)


def _dilated(
    ctx: Reading, op: Operator, block: Sequence[int], amounts: Sequence[tuple[int, int]]
) -> tuple[int, Apart] | None:
    """(result of the convolution, what it is) where nothing else reads what lies between."""
    middle = ctx.sole_reader(op.outputs[0])
    if middle is None or middle.code not in _CONVOLUTIONS or len(block) != 2:
        return None
    after = ctx.sole_reader(middle.outputs[0])
    if after is None or after.code != "BATCH_TO_SPACE_ND" or middle.inputs[0] != op.outputs[0]:
        return None
    options = middle.options
    plain = all(options[f"{word}_{axis}"] == 1 for word in ("stride",) for axis in "hw")
    plain = plain and options["dilation_h_factor"] == options["dilation_w_factor"] == 1
    if not plain or options["padding"] != "VALID" or ctx.whole(after.inputs[1], "block") != block:
        return None
    crops = _amounts(ctx, after.inputs[2], len(block))
    pads = tuple(
        (before - first, behind - last)
        for (before, behind), (first, last) in zip(amounts, crops, strict=True)
    )
    scales = (ctx.encoding(middle.outputs[0]), ctx.encoding(after.outputs[0]))
    if any(count < 0 for pair in pads for count in pair) or scales[0] != scales[1]:
        return None
    return middle.outputs[0], Apart(op.inputs[0], after.outputs[0], tuple(block), pads)


HANDLERS: Mapping[str, Handler] = {
    "PAD": pad,
    "PADV2": pad,
    "MIRROR_PAD": mirror_pad,
    "SPACE_TO_BATCH_ND": space_to_batch,
    "BATCH_TO_SPACE_ND": batch_to_space,
}
