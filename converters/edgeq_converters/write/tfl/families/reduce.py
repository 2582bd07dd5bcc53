"""Sums, extremes and choices over axes."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir

from edgeq_converters.write.tfl.emitter import AS_IS, LAST, Emitter, to_last
from edgeq_converters.write.tfl.families.activation import over_axis
from edgeq_converters.write.tfl.steps import FLOAT, WHOLE, Steps, cast, kind

_PLAIN = {
    "ReduceMean": "MEAN",
    "ReduceSum": "SUM",
    "ReduceMax": "REDUCE_MAX",
    "ReduceMin": "REDUCE_MIN",
    "ReduceProd": "REDUCE_PROD",
}
_CODES = ("ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin")
"""Those that run on codes."""

_BEFORE = {"ReduceL1": "ABS", "ReduceL2": "SQUARE", "ReduceSumSquare": "SQUARE"}
_AFTER = {"ReduceL2": "SQRT", "ReduceLogSum": "LOG"}
_LOGICAL = {"ReduceMax": "REDUCE_ANY", "ReduceMin": "REDUCE_ALL"}


def reduce(e: Emitter, node: onnx_ir.Node) -> None:
    """One operator over the axes, and what is done to its terms or its result."""
    value, result = node.inputs[0], node.outputs[0]
    assert value is not None
    axes = _axes(e, value)
    codes = None if node.op_type in _CODES else False
    if not axes:
        _over_nothing(e, node, value, result)
        return
    keep = bool(e.attribute("keepdims", 1))
    layout, after = kept_layout(e, value, axes, keep)
    at = e.take(value, layout, codes=codes)
    places = sorted(e.axis(axis, len(e.shape(value)), layout) for axis in axes)
    if e.file.parameters(at):
        _reduce_codes(e, node.op_type, at, result, after, places, keep)
    elif e.file.dtype(at) == "bool" and node.op_type in _LOGICAL:
        made = e.make(result, after)
        e.op(_LOGICAL[node.op_type], [at, e.numbers(places)], [made], keep_dims=keep)
    else:
        _reduce_values(e, node.op_type, at, result, after, places, keep)


def _axes(e: Emitter, value: onnx_ir.Value) -> list[int]:
    """ONNX axes to reduce over; none where the node does nothing."""
    rank = len(e.shape(value))
    axes = e.numbers_of(1, "axes")
    if axes is None:
        axes = [int(axis) for axis in e.attribute("axes", ())]
    if not axes and not e.attribute("noop_with_empty_axes", 0):
        axes = list(range(rank))
    return sorted(axis % rank for axis in axes)


def kept_layout(
    e: Emitter, value: onnx_ir.Value, axes: Sequence[int], keep: bool
) -> tuple[str, str]:
    """In which layout to read a value whose `axes` go, and in which its rest is then."""
    if e.layout(value) != LAST:
        return AS_IS, AS_IS
    if keep:
        return LAST, LAST
    left = [axis for axis in to_last(len(e.shape(value))) if axis not in axes]
    if left == sorted(left):
        return LAST, AS_IS
    if left[0] == 0:
        return LAST, LAST
    return AS_IS, AS_IS


def _over_nothing(
    e: Emitter, node: onnx_ir.Node, value: onnx_ir.Value, result: onnx_ir.Value
) -> None:
    layout = e.layout(value)
    at = e.take(value, layout)
    steps = Steps(e, kind(e.file.dtype(at), (*FLOAT, *WHOLE)))
    code = {"ReduceL2": "ABS", "ReduceLogSum": "LOG"}.get(node.op_type, _BEFORE.get(node.op_type))
    if code is None:
        e.pass_on(at, result, layout)
    else:
        steps.into(result, layout, code, at)


def _reduce_codes(
    e: Emitter,
    op_type: str,
    at: int,
    result: onnx_ir.Value,
    layout: str,
    places: Sequence[int],
    keep: bool,
) -> None:
    """MEAN and SUM have a scale of their own for the result; extremes are codes of their input."""
    made = e.make(result, layout)
    code, numbers = _PLAIN[op_type], e.numbers(places)
    if op_type in ("ReduceMean", "ReduceSum"):
        e.op(code, [at, numbers], [made], keep_dims=keep)
        return
    part = e.stage(at, made)
    e.op(code, [at, numbers], [part], keep_dims=keep)
    e.settle(part, made)


def _reduce_values(
    e: Emitter,
    op_type: str,
    at: int,
    result: onnx_ir.Value,
    layout: str,
    places: Sequence[int],
    keep: bool,
) -> None:
    steps = Steps(e, kind(e.file.dtype(at), (*FLOAT, *WHOLE)))
    at = cast(e, at, steps.dtype)
    made = e.make(result, layout, codes=False)
    if op_type == "ReduceLogSumExp":
        e.settle(_log_sum_exp(e, steps, at, places, keep), made)
        return
    at = _before(steps, _BEFORE.get(op_type), at)
    code, after = _PLAIN.get(op_type, "SUM"), _AFTER.get(op_type)
    if after is None:
        found = e.stage(at, made)
        e.op(code, [at, e.numbers(places)], [found], keep_dims=keep)
    else:
        found = Steps(e)(after, _over(e, code, at, places, keep))
    e.settle(found, made)


def _before(steps: Steps, code: str | None, at: int) -> int:
    """Each element as it is summed: what `code` makes of it, for which whole numbers have less."""
    if code is None:
        return at
    if code == "SQUARE" and steps.dtype != "float32":
        return steps("MUL", at, at)
    if code == "ABS" and steps.dtype == "int64":
        return steps("MAXIMUM", at, steps("NEG", at))
    return steps(code, at)


def _over(e: Emitter, code: str, at: int, places: Sequence[int], keep: bool) -> int:
    """`code` over the axes `places` of `at`."""
    part = e.temp(reduced(e.file.shape(at), places, keep), dtype=e.file.dtype(at))
    e.op(code, [at, e.numbers(places)], [part], keep_dims=keep)
    return part


def _log_sum_exp(e: Emitter, steps: Steps, at: int, places: Sequence[int], keep: bool) -> int:
    """The largest element is taken off first: what is left is at most 1 as a power."""
    largest = steps("MAXIMUM", _over(e, "REDUCE_MAX", at, places, True), steps.number(-3e38))
    found = _over(e, "SUM", steps("EXP", steps("SUB", at, largest)), places, keep)
    return steps("ADD", steps("LOG", found), e.reshaped(largest, e.file.shape(found)))


def reduced(shape: Sequence[int], places: Sequence[int], keep: bool) -> list[int]:
    """The sizes that are left of `shape`."""
    if keep:
        return [1 if at in places else size for at, size in enumerate(shape)]
    return [size for at, size in enumerate(shape) if at not in places]


def argument(e: Emitter, node: onnx_ir.Node) -> None:
    """ArgMax and ArgMin, on codes where nothing finer is there."""
    value, result = node.inputs[0], node.outputs[0]
    assert value is not None
    rank = len(e.shape(value))
    axis = int(e.attribute("axis", 0)) % rank
    keep = bool(e.attribute("keepdims", 1))
    layout, after = kept_layout(e, value, [axis], keep)
    codes = e.made_as_codes(value)
    at = e.take(value, layout, codes=codes)
    if not codes:
        at = cast(e, at, kind(e.file.dtype(at), (*FLOAT, "int32", "uint8")))
    place = e.axis(axis, rank, layout)
    shape = e.file.shape(at)
    code = "ARG_MAX" if node.op_type == "ArgMax" else "ARG_MIN"
    made = e.make(result, after)
    found = e.temp(reduced(shape, [place], False), dtype="int64")
    if e.attribute("select_last_index", 0):
        turned = e.temp(shape, like=at)
        e.op("REVERSE_V2", [at, e.numbers([place])], [turned])
        e.op(code, [turned, e.numbers(place)], [found], output_type="int64")
        found = Steps(e, "int64")("SUB", e.numbers(shape[place] - 1, "int64"), found)
        e.reshape(found, made)
    elif keep:
        e.op(code, [at, e.numbers(place)], [found], output_type="int64")
        e.reshape(found, made)
    else:
        e.op(code, [at, e.numbers(place)], [made], output_type="int64")


def largest(e: Emitter, node: onnx_ir.Node) -> None:
    """TopK over the last axis, others brought there; the smallest by their negatives."""
    value = node.inputs[0]
    assert value is not None
    count = e.numbers_of(1, "number of elements")
    assert count is not None
    rank = len(e.shape(value))
    axis = int(e.attribute("axis", -1)) % rank
    at = e.take(value, codes=False)
    kernel = (*FLOAT, *WHOLE, "int16", "uint8")
    steps = Steps(e, kind(e.file.dtype(at), kernel))
    at = cast(e, at, steps.dtype)
    order = [*(other for other in range(rank) if other != axis), axis]
    back = [order.index(other) for other in range(rank)]
    at = e.transposed(at, order)
    smallest = not e.attribute("largest", 1)
    if smallest:
        at = _negative(steps, at)
    shape = [*e.file.shape(at)[:-1], count[0]]
    values = e.temp(shape, dtype=e.file.dtype(at))
    places = e.temp(shape, dtype="int32")
    e.op("TOPK_V2", [at, e.numbers(count[0])], [values, places])
    if smallest:
        values = _negative(steps, values)
    for part, made in zip((values, places), node.outputs, strict=False):
        if made.name and (made.uses() or made.is_graph_output()):
            e.settle(e.transposed(part, back), e.make(made, codes=False))


def _negative(steps: Steps, at: int) -> int:
    if steps.dtype in ("int16", "uint8"):
        steps = Steps(steps.e, "int32")
    return steps("NEG", at)


def running_sum(e: Emitter, node: onnx_ir.Node) -> None:
    axis = e.numbers_of(1, "axis")
    value = node.inputs[0]
    assert axis is not None
    assert value is not None
    layout = e.layout(value)
    at = e.take(value, layout, codes=False)
    steps = Steps(e, kind(e.file.dtype(at), (*FLOAT, *WHOLE)))
    place = e.axis(axis[0], len(e.shape(value)), layout)
    at = cast(e, at, steps.dtype)
    made = e.make(node.outputs[0], layout, codes=False)
    found = e.stage(at, made)
    options = {key: bool(e.attribute(key, 0)) for key in ("exclusive", "reverse")}
    e.op("CUMSUM", [at, e.numbers(place)], [found], **options)
    e.settle(found, made)


def hardmax(e: Emitter, node: onnx_ir.Node) -> None:
    """A one where the first of the largest is."""

    def emit(at: int, made: int) -> None:
        shape = e.file.shape(at)
        first = e.temp(shape[:-1], dtype="int32")
        e.op("ARG_MAX", [at, e.numbers(len(shape) - 1)], [first], output_type="int32")
        one, zero = e.numbers(1.0, "float32"), e.numbers(0.0, "float32")
        e.op("ONE_HOT", [first, e.numbers(shape[-1]), one, zero], [made], axis=-1)

    over_axis(e, node, emit, codes=False, axis=int(e.attribute("axis", -1)))


HANDLERS = {
    **dict.fromkeys((*_PLAIN, *_BEFORE, *_AFTER, "ReduceLogSumExp"), reduce),
    **dict.fromkeys(("ArgMax", "ArgMin"), argument),
    "TopK": largest,
    "CumSum": running_sum,
    "Hardmax": hardmax,
}
