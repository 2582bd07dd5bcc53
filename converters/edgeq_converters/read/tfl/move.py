"""Operators that move elements: from one shape to another, and between several tensors."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir

from edgeq_converters.read.tfl.reading import Handler, NotPerSample, Perm, Reading, Unsupported
from edgeq_converters.read.tfl.reduce import positive, without
from edgeq_runtime.tflite import Operator


def same_scale(ctx: Reading, sources: Sequence[int], result: int) -> None:
    """Kernels copy codes: between unlike scales that would change what they stand for."""
    wanted = ctx.encoding(result)
    for source in sources:
        given = ctx.encoding(source)
        if given is None and wanted is None:
            continue
        if given is None or wanted is None or given != wanted:
            raise Unsupported("moves codes from one scale to another as they are")


def form(ctx: Reading, index: int) -> tuple[onnx_ir.Value, Perm]:
    """Any form of an activation; a constant as it is stored."""
    if ctx.array(index) is not None:
        return ctx.value(index), tuple(range(ctx.rank(index)))
    return ctx.any_form(index)


def _integers(ctx: Reading, items: Sequence[int], name: str) -> onnx_ir.Value:
    return ctx.const(np.array(items, np.int64), name)


def reshape(ctx: Reading, op: Operator) -> None:
    """To the shape that the file says its result has."""
    source, result = op.inputs[0], op.outputs[0]
    same_scale(ctx, [source], result)
    sizes = (ctx.shape(source), ctx.shape(result))
    if math.prod(sizes[0]) != math.prod(sizes[1]):
        raise Unsupported(f"makes {list(sizes[1])} of {list(sizes[0])}")
    ctx.put(result, ctx.emit("Reshape", ctx.flat(source), ctx.target(result, source)))


def squeeze(ctx: Reading, op: Operator) -> None:
    source, result = op.inputs[0], op.outputs[0]
    same_scale(ctx, [source], result)
    rank, sizes = ctx.rank(source), ctx.shape(source)
    axes = {positive(int(axis), rank) for axis in op.options["squeeze_dims"]}
    axes = axes or {axis for axis in range(rank) if sizes[axis] == 1}
    if 0 in axes and source in ctx.batched:
        raise NotPerSample("takes the batch axis away")
    value, perm = form(ctx, source)
    ctx.put(result, _squeezed(ctx, value, perm, axes), without(perm, axes))


def _squeezed(ctx: Reading, value: onnx_ir.Value, perm: Perm, axes: set[int]) -> onnx_ir.Value:
    places = sorted(perm.index(axis) for axis in axes)
    if not places:
        return ctx.emit("Identity", value)
    return ctx.emit("Squeeze", value, _integers(ctx, places, "axes"))


def expand_dims(ctx: Reading, op: Operator) -> None:
    source, result = op.inputs[0], op.outputs[0]
    same_scale(ctx, [source], result)
    (axis,) = ctx.whole(op.inputs[1], "axis")
    axis = positive(axis, ctx.rank(source) + 1)
    if axis == 0 and source in ctx.batched:
        raise NotPerSample("puts an axis before the batch")
    value, perm = form(ctx, source)
    moved = [place + (place >= axis) for place in perm]
    made = ctx.emit("Unsqueeze", value, _integers(ctx, [axis], "axes"))
    ctx.put(result, made, (*moved[:axis], axis, *moved[axis:]))


def transpose(ctx: Reading, op: Operator) -> None:
    """Nothing to do: the forms there are, seen from another side."""
    source, result = op.inputs[0], op.outputs[0]
    same_scale(ctx, [source], result)
    order = tuple(positive(axis, ctx.rank(source)) for axis in ctx.whole(op.inputs[1], "order"))
    if sorted(order) != list(range(ctx.rank(source))):
        raise Unsupported(f"has the order {list(order)}")
    if source in ctx.batched and order[:1] != (0,):
        raise NotPerSample("moves the batch axis")
    array = ctx.array(source)
    if array is not None:
        ctx.put_array(result, np.transpose(array, order))
        return
    ctx.any_form(source)
    forms = {tuple(order.index(axis) for axis in perm): value for perm, value in ctx.known(source)}
    ctx.share(result, source, forms)


def concatenation(ctx: Reading, op: Operator) -> None:
    result = op.outputs[0]
    axis = positive(int(op.options["axis"]), ctx.rank(result))
    if axis == 0 and result in ctx.batched:
        raise NotPerSample("joins samples")
    perm = ctx.common(op.inputs, ctx.rank(result))
    values = [ctx.value(index, perm) for index in op.inputs]
    made = ctx.emit("Concat", *values, axis=perm.index(axis))
    ctx.put(result, ctx.activated(made, op), perm)


def pack(ctx: Reading, op: Operator) -> None:
    result = op.outputs[0]
    same_scale(ctx, op.inputs, result)
    axis = positive(int(op.options["axis"]), ctx.rank(result))
    if axis == 0 and result in ctx.batched:
        raise NotPerSample("puts an axis before the batch")
    where = _integers(ctx, [axis], "axes")
    parts = [
        ctx.like(result, ctx.emit("Unsqueeze", ctx.value(index), where)) for index in op.inputs
    ]
    ctx.put(result, ctx.emit("Concat", *parts, axis=axis))


def unpack(ctx: Reading, op: Operator) -> None:
    source = op.inputs[0]
    axis = positive(int(op.options["axis"]), ctx.rank(source))
    if axis == 0 and source in ctx.batched:
        raise NotPerSample("takes samples apart")
    value, perm = form(ctx, source)
    for number, result in enumerate(op.outputs):
        same_scale(ctx, [source], result)
        at = ctx.const(np.array(number, np.int64), "index")
        made = ctx.emit("Gather", value, at, axis=perm.index(axis))
        ctx.put(result, made, without(perm, {axis}))


def split(ctx: Reading, op: Operator) -> None:
    """SPLIT has its axis first, SPLIT_V last, after the sizes."""
    source, axis = (op.inputs[1], op.inputs[0]) if op.code == "SPLIT" else op.inputs[::2]
    (place,) = ctx.whole(axis, "axis")
    place = positive(place, ctx.rank(source))
    if place == 0 and source in ctx.batched:
        raise NotPerSample("takes samples apart")
    value, perm = form(ctx, source)
    sizes = [ctx.shape(result)[place] for result in op.outputs]
    made = ctx.emit_many(
        "Split", len(sizes), value, _integers(ctx, sizes, "sizes"), axis=perm.index(place)
    )
    for result, part in zip(op.outputs, made, strict=True):
        same_scale(ctx, [source], result)
        ctx.put(result, part, perm)


def slice_(ctx: Reading, op: Operator) -> None:
    source, result = op.inputs[0], op.outputs[0]
    same_scale(ctx, [source], result)
    begins = ctx.whole(op.inputs[1], "begin")
    sizes = ctx.whole(op.inputs[2], "size")
    full = ctx.shape(source)
    ends = [
        begin + size if size >= 0 else whole
        for begin, size, whole in zip(begins, sizes, full, strict=True)
    ]
    value, perm = form(ctx, source)
    steps = [1] * len(full)
    ctx.put(result, _cut(ctx, source, value, perm, begins, ends, steps), perm)


def _cut(
    ctx: Reading,
    source: int,
    value: onnx_ir.Value,
    perm: Perm,
    begins: Sequence[int],
    ends: Sequence[int],
    steps: Sequence[int],
) -> onnx_ir.Value:
    """A Slice of those axes of which something is left out or turned around."""
    sizes = ctx.shape(source)
    cut = [
        axis
        for axis, size in enumerate(sizes)
        if (begins[axis], ends[axis], steps[axis]) != (0, size, 1)
    ]
    if 0 in cut and source in ctx.batched:
        raise NotPerSample("picks samples")
    if not cut:
        return ctx.emit("Identity", value)
    lowest = -(2**31)
    bounds = [
        [begins[axis] for axis in cut],
        [ends[axis] if ends[axis] >= 0 else lowest for axis in cut],
        [perm.index(axis) for axis in cut],
        [steps[axis] for axis in cut],
    ]
    names = ("starts", "ends", "axes", "steps")
    given = [_integers(ctx, row, name) for row, name in zip(bounds, names, strict=True)]
    return ctx.emit("Slice", value, *given)


def strided_slice(ctx: Reading, op: Operator) -> None:
    """Python's slicing: each mask has one bit for an entry of begin, end and strides."""
    source, result = op.inputs[0], op.outputs[0]
    same_scale(ctx, [source], result)
    plan = _plan(ctx, op)
    value, perm = form(ctx, source)
    made = _cut(ctx, source, value, perm, plan.begins, plan.ends, plan.steps)
    if plan.gone:
        if 0 in plan.gone and source in ctx.batched:
            raise NotPerSample("picks samples")
        made = _squeezed(ctx, ctx.like(result, made), perm, plan.gone)
        perm = without(perm, plan.gone)
    if plan.new:
        if perm != tuple(range(len(perm))):
            turned = ctx.emit("Transpose", ctx.like(result, made), perm=np.argsort(perm).tolist())
            made, perm = turned, tuple(range(len(perm)))
        if 0 in plan.new and source in ctx.batched:
            raise NotPerSample("puts an axis before the batch")
        axes = _integers(ctx, plan.new, "axes")
        made = ctx.emit("Unsqueeze", ctx.like(result, made), axes)
        perm = tuple(range(len(perm) + len(plan.new)))
    ctx.put(result, made, perm)


class _Plan:
    """What a strided slice does: bounds for each axis of the source (an end of -1 is before the
    first element), axes that go, and axes that the result has more."""

    def __init__(self, sizes: Sequence[int]) -> None:
        self.begins = [0] * len(sizes)
        self.ends = list(sizes)
        self.steps = [1] * len(sizes)
        self.gone: set[int] = set()
        self.new: list[int] = []


def _plan(ctx: Reading, op: Operator) -> _Plan:
    sizes, options = ctx.shape(op.inputs[0]), op.options
    bounds = list(zip(*(ctx.whole(op.inputs[at], "bounds") for at in (1, 2, 3)), strict=True))
    plan, axis, place = _Plan(sizes), 0, 0
    fresh = {at for at in range(len(bounds)) if options["new_axis_mask"] >> at & 1}
    for at in range(len(bounds)):
        if options["ellipsis_mask"] >> at & 1:
            after = sum(1 for later in range(at + 1, len(bounds)) if later not in fresh)
            skipped = len(sizes) - axis - after
            axis, place = axis + skipped, place + skipped
        elif at in fresh:
            plan.new.append(place)
            place += 1
        elif axis >= len(sizes) or bounds[at][2] == 0:
            raise Unsupported(f"slices {len(bounds) - len(fresh)} axes of {len(sizes)}")
        else:
            _bound(plan, axis, sizes[axis], bounds[at], _Masks(options, at))
            place += axis not in plan.gone
            axis += 1
    return plan


class _Masks:
    """What the masks say of one entry."""

    def __init__(self, options: Mapping[str, Any], at: int) -> None:
        self.shrinks = bool(options["shrink_axis_mask"] >> at & 1)
        self.begin_open = bool(options["begin_mask"] >> at & 1)
        self.end_open = bool(options["end_mask"] >> at & 1)
        self.end_is_offset = bool(options["offset"])


def _bound(plan: _Plan, axis: int, size: int, bounds: Sequence[int], masks: _Masks) -> None:
    begin, end, step = bounds
    if masks.shrinks:
        begin += size if begin < 0 else 0
        plan.begins[axis], plan.ends[axis] = begin, begin + 1
        plan.gone.add(axis)
        return
    end += begin if masks.end_is_offset else 0
    first, last = (None if masks.begin_open else begin), (None if masks.end_open else end)
    found = slice(first, last, step).indices(size)
    plan.begins[axis], plan.ends[axis], plan.steps[axis] = found


def gather(ctx: Reading, op: Operator) -> None:
    """Along one axis; with `batch_dims`, the leading axes of data and indices go together."""
    source, indices, result = op.inputs[0], op.inputs[1], op.outputs[0]
    same_scale(ctx, [source], result)
    axis = positive(int(op.options["axis"]), ctx.rank(source))
    shared = int(op.options["batch_dims"])
    if shared:
        _gather_together(ctx, op, axis, shared)
        return
    if axis == 0 and source in ctx.batched:
        raise NotPerSample("picks samples")
    if ctx.rank(indices) == 0 and ctx.array(source) is None:
        value, perm = form(ctx, source)
        made = ctx.emit("Gather", value, ctx.value(indices), axis=perm.index(axis))
        ctx.put(result, made, without(perm, {axis}))
        return
    if indices in ctx.batched and axis != 0:
        raise NotPerSample("has indices for each sample")
    table = ctx.weight(source, tuple(range(ctx.rank(source))))
    made = ctx.emit("Gather", table, ctx.value(indices), axis=axis)
    if ctx.encoding(result) is None:
        ctx.weighted(made, -1, source, "int8-weights")
    ctx.put(result, made)


def _gather_together(ctx: Reading, op: Operator, axis: int, shared: int) -> None:
    if axis != shared or shared < 0:
        raise Unsupported(f"has batch_dims {shared} and axis {axis}")
    last = _integers(ctx, [-1], "axes")
    rows = ctx.emit("Unsqueeze", _long(ctx, op.inputs[1]), last)
    made = ctx.emit("GatherND", ctx.value(op.inputs[0]), rows, batch_dims=shared)
    ctx.put(op.outputs[0], made)


def _long(ctx: Reading, index: int) -> onnx_ir.Value:
    """Indices as int64, which is all that some operators of ONNX read."""
    value = ctx.value(index)
    if ctx.tensors[index].dtype == "int64":
        return value
    return ctx.emit("Cast", value, to=int(onnx_ir.DataType.INT64))


def gather_nd(ctx: Reading, op: Operator) -> None:
    source, indices = op.inputs
    same_scale(ctx, [source], op.outputs[0])
    if source in ctx.batched:
        raise NotPerSample("picks samples")
    made = ctx.emit("GatherND", ctx.value(source), _long(ctx, indices))
    ctx.put(op.outputs[0], made)


def tile(ctx: Reading, op: Operator) -> None:
    source, result = op.inputs[0], op.outputs[0]
    same_scale(ctx, [source], result)
    repeats = ctx.whole(op.inputs[1], "repeats")
    if source in ctx.batched and repeats[0] != 1:
        raise NotPerSample("repeats samples")
    value, perm = form(ctx, source)
    many = _integers(ctx, [repeats[axis] for axis in perm], "repeats")
    ctx.put(result, ctx.emit("Tile", value, many), perm)


def broadcast_to(ctx: Reading, op: Operator) -> None:
    source, result = op.inputs[0], op.outputs[0]
    same_scale(ctx, [source], result)
    if source in ctx.batched and ctx.rank(source) != ctx.rank(result):
        raise NotPerSample("spreads its batch over another axis")
    shape = _integers(ctx, ctx.shape(result), "shape")
    ctx.put(result, ctx.emit("Expand", ctx.value(source), shape))


def reverse(ctx: Reading, op: Operator) -> None:
    source, result = op.inputs[0], op.outputs[0]
    same_scale(ctx, [source], result)
    sizes = ctx.shape(source)
    turned = {positive(axis, len(sizes)) for axis in ctx.whole(op.inputs[1], "axes")}
    if 0 in turned and source in ctx.batched:
        raise NotPerSample("turns the batch around")
    begins = [size - 1 if axis in turned else 0 for axis, size in enumerate(sizes)]
    ends = [-1 if axis in turned else size for axis, size in enumerate(sizes)]
    steps = [-1 if axis in turned else 1 for axis in range(len(sizes))]
    value, perm = form(ctx, source)
    ctx.put(result, _cut(ctx, source, value, perm, begins, ends, steps), perm)


HANDLERS: Mapping[str, Handler] = {
    "RESHAPE": reshape,
    "SQUEEZE": squeeze,
    "EXPAND_DIMS": expand_dims,
    "TRANSPOSE": transpose,
    "CONCATENATION": concatenation,
    "PACK": pack,
    "UNPACK": unpack,
    "SPLIT": split,
    "SPLIT_V": split,
    "SLICE": slice_,
    "STRIDED_SLICE": strided_slice,
    "GATHER": gather,
    "GATHER_ND": gather_nd,
    "TILE": tile,
    "BROADCAST_TO": broadcast_to,
    "REVERSE_V2": reverse,
}
