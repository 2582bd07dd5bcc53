"""What moves elements, or picks some of them: shapes, axes, parts, joins, types.

Codes move as they are; where the plan has others for the result, a QUANTIZE makes them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir

from edgeq.ir import dtype_of
from edgeq_converters.write.tfl.emitter import AS_IS, LAST, Emitter, Unwritable, to_last
from edgeq_converters.write.tfl.families.matmul import wants_flat
from edgeq_converters.write.tfl.steps import cast, kind

MOST = ("float32", "float16", "int8", "uint8", "int16", "int32", "int64")
"""Types of nearly all kernels that move elements."""

ALL = (*MOST, "float64", "bool", "uint32")


def same(e: Emitter, node: onnx_ir.Node) -> None:
    """Identity and Dropout."""
    value = node.inputs[0]
    assert value is not None
    training, ratio = e.numbers_of(2, "training mode"), _ratio(e, node)
    if training not in (None, [0]) and ratio != 0.0:
        raise Unwritable("it is in training mode")
    layout = e.layout(value)
    e.pass_on(e.take(value, layout), node.outputs[0], layout)
    for mask in node.outputs[1:]:
        if mask.name:
            e.alias(mask, e.numbers(np.ones(e.shape(mask)), "bool"))


def _ratio(e: Emitter, node: onnx_ir.Node) -> float:
    """What share of the elements a Dropout that trains sets to 0."""
    array = e.constant(node.inputs[1]) if len(node.inputs) > 1 else None
    return 0.5 if array is None else float(array.reshape(()))


def reshape(e: Emitter, node: onnx_ir.Node) -> None:
    """Reshape, Flatten, Squeeze and Unsqueeze, without a transposition where one can be saved."""
    value, result = node.inputs[0], node.outputs[0]
    assert value is not None
    shape, wanted = e.shape(value), e.shape(result)
    layout = e.layout(value)
    if _parts_of_channels(e, value, result):
        return
    if layout != LAST:
        _reshaped(e, e.take(value), result, AS_IS)
    elif min(len(shape), len(wanted)) > 2 and shape[:2] == wanted[:2]:
        _reshaped(e, e.take(value, LAST), result, LAST)
    elif _is_ordered(shape):
        _reshaped(e, e.take(value, LAST), result, AS_IS)
    elif shape[:1] == wanted[:1] and wants_flat(result) and e.same_codes(value, result):
        at = e.take(value, LAST)
        e.reshape(at, e.make_flat(result, shape[1:]))
    else:
        _reshaped(e, e.take(value), result, AS_IS)


def _parts_of_channels(e: Emitter, value: onnx_ir.Value, result: onnx_ir.Value) -> bool:
    """Channels taken apart, or put together again after their parts were moved (as to shuffle
    them): with the channels last they stay last, and their parts behind one another."""
    shape, wanted = e.shape(value), e.shape(result)
    if result.is_graph_output() or not e.same_codes(value, result) or shape[:1] != wanted[:1]:
        return False
    moved = e.permuted(value)
    if moved is not None:
        return _put_together(e, moved, shape, result)
    parts = _leading(wanted[1:], shape[1]) if len(shape) > 2 else 0
    if e.layout(value) != LAST or parts < 2 or len(wanted) - 1 == parts:
        return False
    behind = list(wanted[1 + parts :])
    at = e.reshaped(e.take(value, LAST), [wanted[0], *behind, *wanted[1 : 1 + parts]])
    first = 1 + len(behind)
    e.permute(result, at, [0, *range(first, first + parts), *range(1, first)])
    return True


def _put_together(
    e: Emitter, moved: tuple[int, tuple[int, ...]], shape: Sequence[int], result: onnx_ir.Value
) -> bool:
    wanted = e.shape(result)
    parts = _leading(shape[1:], wanted[1]) if len(wanted) > 2 else 0
    if not parts:
        return False
    at, order = moved
    at = e.transposed(at, [order[0], *order[1 + parts :], *order[1 : 1 + parts]])
    _reshaped(e, at, result, LAST)
    return True


def _leading(sizes: Sequence[int], product: int) -> int:
    """How many of the first `sizes` make `product`; 0 where none do."""
    for count in range(1, len(sizes) + 1):
        if int(np.prod(sizes[:count])) == product:
            return count
    return 0


def _is_ordered(shape: Sequence[int]) -> bool:
    """Whether a tensor has its elements in one order, with the channels last or not."""
    moved = [axis for axis in to_last(len(shape)) if shape[axis] != 1]
    return moved == sorted(moved)


def _reshaped(e: Emitter, at: int, result: onnx_ir.Value, layout: str) -> None:
    if e.file.shape(at) == tuple(e.ordered(e.shape(result), layout)):
        e.pass_on(at, result, layout)
        return
    made = e.make(result, layout)
    part = e.stage(at, made)
    e.reshape(at, part)
    e.settle(part, made)


def transpose(e: Emitter, node: onnx_ir.Node) -> None:
    """Often the same tensor, its layout called by another name."""
    value, result = node.inputs[0], node.outputs[0]
    assert value is not None
    rank = len(e.shape(value))
    order = [int(axis) for axis in e.attribute("perm", range(rank)[::-1])]
    moved = e.permuted(value)
    if moved is not None and e.same_codes(value, result) and not result.is_graph_output():
        at, had = moved
        e.permute(result, at, [had[axis] for axis in order])
        return
    layout = e.layout(value)
    at = e.take(value, layout)
    had = to_last(rank) if layout == LAST and rank > 2 else tuple(range(rank))
    holds = [order.index(axis) for axis in had]  # by axis of the tensor: which of the result
    if holds == sorted(holds):
        e.pass_on(at, result, AS_IS)
    elif rank > 2 and tuple(holds) == to_last(rank):
        e.pass_on(at, result, LAST)
    else:
        moves = [holds.index(axis) for axis in range(rank)]
        emit(e, at, result, AS_IS, "TRANSPOSE", e.numbers(moves), kernel=ALL)


def emit(
    e: Emitter,
    at: int,
    result: onnx_ir.Value,
    layout: str,
    code: str,
    *others: int,
    kernel: Sequence[str] = MOST,
    **options: Any,
) -> None:
    """An operator that moves elements of `at`, by the plain tensors `others`."""
    dtype = e.file.dtype(at)
    working = dtype if e.file.parameters(at) else kind(dtype, kernel)
    made = e.make(result, layout)
    at = cast(e, at, working)
    part = e.stage(at, made)
    e.op(code, [at, *others], [part], **options)
    e.settle(part, made)


def join(e: Emitter, node: onnx_ir.Node) -> None:
    """Concat; codes are brought to those of the result first."""
    values = [value for value in node.inputs if value is not None and 0 not in e.shape(value)]
    if not values:
        raise Unwritable("all that it joins is empty")
    result = node.outputs[0]
    layout, inputs = e.aligned(values)
    if len(inputs) == 1:
        e.pass_on(inputs[0], result, layout)
        return
    axis = e.axis(int(e.attribute("axis", 0)), len(e.shape(result)), layout)
    made = e.make(result, layout)
    if e.file.parameters(made):
        inputs = [e.requantized(at, made) for at in inputs]
        e.op("CONCATENATION", inputs, [made], axis=axis)
        return
    working = kind(e.file.dtype(made), (*MOST, "bool", "uint32"))
    inputs = [cast(e, at, working) for at in inputs]
    part = e.stage(inputs[0], made)
    e.op("CONCATENATION", inputs, [part], axis=axis)
    e.settle(part, made)


def split(e: Emitter, node: onnx_ir.Node) -> None:
    """SPLIT into equal parts, else SPLIT_V."""
    value = node.inputs[0]
    assert value is not None
    layout = e.layout(value)
    rank = len(e.shape(value))
    axis = int(e.attribute("axis", 0)) % rank
    place = e.axis(axis, rank, layout)
    at = e.take(value, layout)
    at = cast(e, at, kind(e.file.dtype(at), MOST[:1] + MOST[2:]))
    sizes = [e.shape(part)[axis] for part in node.outputs]
    made = [e.make(part, layout) for part in node.outputs]
    parts = [e.stage(at, part) for part in made]
    if len(parts) == 1:
        e.settle(at, made[0])
        return
    if len(set(sizes)) == 1:
        e.op("SPLIT", [e.numbers(place), at], parts, num_splits=len(parts))
    else:
        e.op("SPLIT_V", [at, e.numbers(sizes), e.numbers(place)], parts, num_splits=len(parts))
    for part, wanted in zip(parts, made, strict=True):
        e.settle(part, wanted)


def part_of(e: Emitter, node: onnx_ir.Node) -> None:
    """Slice: SLICE for steps of 1, else STRIDED_SLICE."""
    value, result = node.inputs[0], node.outputs[0]
    assert value is not None
    shape = e.shape(value)
    starts, ends = e.numbers_of(1, "starts"), e.numbers_of(2, "ends")
    assert starts is not None
    assert ends is not None
    axes = e.numbers_of(3, "axes") or list(range(len(starts)))
    steps = e.numbers_of(4, "steps") or [1] * len(starts)
    picked = [range(size) for size in shape]
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        picked[axis % len(shape)] = range(shape[axis])[slice(start, end, step)]
    layout = e.layout(value)
    keep(e, e.take(value, layout), result, layout, e.ordered(picked, layout))


def keep(e: Emitter, at: int, result: onnx_ir.Value, layout: str, picked: Sequence[range]) -> None:
    """Per axis of the tensor `at` the indices that are kept."""
    if all(kept == range(size) for kept, size in zip(picked, e.file.shape(at), strict=True)):
        e.pass_on(at, result, layout)
        return
    begin = e.numbers([kept.start for kept in picked])
    if all(kept.step == 1 or len(kept) == 1 for kept in picked):
        sizes = e.numbers([len(kept) for kept in picked])
        emit(e, at, result, layout, "SLICE", begin, sizes, kernel=ALL)
        return
    end = e.numbers([max(kept.stop, 0) for kept in picked])
    mask = sum(1 << axis for axis, kept in enumerate(picked) if kept.stop < 0)
    steps = e.numbers([kept.step for kept in picked])
    options = {"end_mask": mask}
    emit(e, at, result, layout, "STRIDED_SLICE", begin, end, steps, kernel=ALL, **options)


def expand(e: Emitter, node: onnx_ir.Node) -> None:
    value, result = node.inputs[0], node.outputs[0]
    assert value is not None
    wanted = e.shape(result)
    layout = e.layout(value) if len(wanted) == len(e.shape(value)) else AS_IS
    at = e.take(value, layout, rank=len(wanted))
    sizes = e.ordered(wanted, layout)
    if e.file.shape(at) == tuple(sizes):
        e.pass_on(at, result, layout)
        return
    emit(e, at, result, layout, "BROADCAST_TO", e.numbers(sizes), kernel=ALL)


def tile(e: Emitter, node: onnx_ir.Node) -> None:
    value, result = node.inputs[0], node.outputs[0]
    assert value is not None
    repeats = e.numbers_of(1, "repeats")
    assert repeats is not None
    layout = e.layout(value)
    at = e.take(value, layout)
    if set(repeats) <= {1}:
        e.pass_on(at, result, layout)
        return
    emit(e, at, result, layout, "TILE", e.numbers(e.ordered(repeats, layout)), kernel=ALL)


def convert(e: Emitter, node: onnx_ir.Node) -> None:
    """Cast and CastLike."""
    value, result = node.inputs[0], node.outputs[0]
    assert value is not None
    layout = e.layout(value)
    if dtype_of(value) == dtype_of(result):
        e.pass_on(e.take(value, layout), result, layout)
        return
    for dtype in (dtype_of(value), dtype_of(result)):
        if dtype not in (*ALL, "uint16"):
            raise Unwritable(f"TFLite has no cast from or to {dtype or 'an unknown type'}")
    at = e.take(value, layout, codes=False)
    e.settle(at, e.make(result, layout, codes=False))


def reverse_sequence(e: Emitter, node: onnx_ir.Node) -> None:
    value, lengths = node.inputs
    options = {
        "seq_dim": int(e.attribute("time_axis", 0)),
        "batch_dim": int(e.attribute("batch_axis", 1)),
    }
    kernel = ("float32", "uint8", "int16", "int32", "int64")
    at = e.take(value, codes=False)
    _emit_floats(e, at, node.outputs[0], "REVERSE_SEQUENCE", e.take(lengths), kernel, options)


def _emit_floats(
    e: Emitter,
    at: int,
    result: onnx_ir.Value,
    code: str,
    other: int,
    kernel: Sequence[str],
    options: dict[str, Any],
) -> None:
    made = e.make(result, codes=False)
    at = cast(e, at, kind(e.file.dtype(at), kernel))
    part = e.stage(at, made)
    e.op(code, [at, other], [part], **options)
    e.settle(part, made)


HANDLERS = {
    **dict.fromkeys(("Identity", "Dropout"), same),
    **dict.fromkeys(("Reshape", "Flatten", "Squeeze", "Unsqueeze"), reshape),
    **dict.fromkeys(("Cast", "CastLike"), convert),
    "Transpose": transpose,
    "Concat": join,
    "Split": split,
    "Slice": part_of,
    "Expand": expand,
    "Tile": tile,
    "ReverseSequence": reverse_sequence,
}
