"""Operators along axes: sums and extremes, softmax and norms, order."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_ir

from edgeq_converters.read.tfl.elementwise import number
from edgeq_converters.read.tfl.reading import Handler, NotPerSample, Perm, Reading, Unsupported
from edgeq_runtime.tflite import Operator

_NORM_FLOOR = 1e-6
"""What LiteRT divides by at least in an L2 normalization."""


def positive(axis: int, rank: int) -> int:
    """An axis counted from the front."""
    if not -rank <= axis < max(rank, 1):
        raise Unsupported(f"has axis {axis} of {rank}")
    return axis % max(rank, 1)


def without(perm: Perm, gone: set[int]) -> Perm:
    """The form that is left of `perm` when the axes `gone` are taken out."""
    left = [axis for axis in perm if axis not in gone]
    return tuple(sorted(left).index(axis) for axis in left)


def _reduce(op_type: str) -> Handler:
    def handle(ctx: Reading, op: Operator) -> None:
        source, rank = op.inputs[0], ctx.rank(op.inputs[0])
        axes = {positive(axis, rank) for axis in ctx.whole(op.inputs[1], "axes")}
        if 0 in axes and source in ctx.batched:
            raise NotPerSample("reduces the batch")
        value, perm = _form(ctx, source)
        kept = bool(op.options["keep_dims"])
        made = _reduced(ctx, op_type, value, sorted(perm.index(axis) for axis in axes), kept)
        ctx.put(op.outputs[0], made, perm if kept else without(perm, axes))

    return handle


def _reduced(
    ctx: Reading, op_type: str, value: onnx_ir.Value, axes: list[int], kept: bool
) -> onnx_ir.Value:
    """Of nothing, when there are no axes: ONNX would reduce all of them."""
    if not axes:
        return ctx.emit("Identity", value)
    where = ctx.const(np.array(axes, np.int64), "axes")
    return ctx.emit(op_type, value, where, keepdims=int(kept))


def _form(ctx: Reading, index: int) -> tuple[onnx_ir.Value, Perm]:
    if ctx.array(index) is not None:
        return ctx.value(index), tuple(range(ctx.rank(index)))
    return ctx.any_form(index)


def _any_or_all(op_type: str) -> Handler:
    """As extremes of integers: ONNX reduces no bools."""
    inner = {"REDUCE_ANY": "ReduceMax", "REDUCE_ALL": "ReduceMin"}[op_type]

    def handle(ctx: Reading, op: Operator) -> None:
        source, rank = op.inputs[0], ctx.rank(op.inputs[0])
        axes = {positive(axis, rank) for axis in ctx.whole(op.inputs[1], "axes")}
        value, perm = _form(ctx, source)
        kept = bool(op.options["keep_dims"])
        counted = ctx.emit("Cast", value, to=int(onnx_ir.DataType.INT32))
        positions = sorted(perm.index(axis) for axis in axes)
        made = _reduced(ctx, inner, counted, positions, kept)
        made = ctx.emit("Cast", made, to=int(onnx_ir.DataType.BOOL))
        ctx.put(op.outputs[0], made, perm if kept else without(perm, axes))

    return handle


def softmax(ctx: Reading, op: Operator) -> None:
    """Along the last axis of the file; beta stretches what it reads."""
    value, at, perm = _last(ctx, op.inputs[0])
    beta = float(op.options["beta"])
    if beta != 1.0:
        value = ctx.emit("Mul", value, number(ctx, beta))
    ctx.put(op.outputs[0], ctx.emit("Softmax", value, axis=at), perm)


def log_softmax(ctx: Reading, op: Operator) -> None:
    value, at, perm = _last(ctx, op.inputs[0])
    ctx.put(op.outputs[0], ctx.emit("LogSoftmax", value, axis=at), perm)


def _last(ctx: Reading, index: int) -> tuple[onnx_ir.Value, int, Perm]:
    rank = ctx.rank(index)
    if rank < 1 or (rank == 1 and index in ctx.batched):
        raise NotPerSample("has no axis but the batch") if rank else Unsupported("reads a number")
    value, perm = _form(ctx, index)
    return value, perm.index(rank - 1), perm


def l2_normalization(ctx: Reading, op: Operator) -> None:
    """x / max(|x|, 1e-6) along the last axis; codes are never that small."""
    value, at, perm = _last(ctx, op.inputs[0])
    if ctx.encoding(op.outputs[0]) is not None:
        ctx.put(op.outputs[0], ctx.emit("LpNormalization", value, axis=at, p=2), perm)
        return
    axes = ctx.const(np.array([at], np.int64), "axes")
    norm = ctx.emit("ReduceL2", value, axes, keepdims=1)
    made = ctx.emit("Div", value, ctx.emit("Max", norm, number(ctx, _NORM_FLOOR)))
    ctx.put(op.outputs[0], ctx.activated(made, op), perm)


def _arg(op_type: str) -> Handler:
    def handle(ctx: Reading, op: Operator) -> None:
        source = op.inputs[0]
        (axis,) = ctx.whole(op.inputs[1], "axis")
        axis = positive(axis, ctx.rank(source))
        if axis == 0 and source in ctx.batched:
            raise NotPerSample("compares samples")
        value, perm = _form(ctx, source)
        made = ctx.emit(op_type, value, axis=perm.index(axis), keepdims=0)
        made = _as_declared(ctx, op.outputs[0], made)
        ctx.put(op.outputs[0], made, without(perm, {axis}))

    return handle


def _as_declared(ctx: Reading, index: int, indices: onnx_ir.Value) -> onnx_ir.Value:
    """Indices of ONNX are int64, the file's mostly int32."""
    kind = ctx.dtype(ctx.tensors[index])
    if kind == onnx_ir.DataType.INT64:
        return indices
    return ctx.emit("Cast", indices, to=int(kind))


def top_k(ctx: Reading, op: Operator) -> None:
    """The largest along the last axis, sorted."""
    (count,) = ctx.whole(op.inputs[1], "number of results")
    if ctx.rank(op.inputs[0]) == 1 and op.inputs[0] in ctx.batched:
        raise NotPerSample("compares samples")
    many = ctx.const(np.array([count], np.int64), "k")
    values, indices = ctx.emit_many(
        "TopK", 2, ctx.value(op.inputs[0]), many, axis=-1, largest=1, sorted=1
    )
    ctx.put(op.outputs[0], values)
    ctx.put(op.outputs[1], _as_declared(ctx, op.outputs[1], indices))


def cumsum(ctx: Reading, op: Operator) -> None:
    source = op.inputs[0]
    (axis,) = ctx.whole(op.inputs[1], "axis")
    axis = positive(axis, ctx.rank(source))
    if axis == 0 and source in ctx.batched:
        raise NotPerSample("sums up samples")
    value, perm = _form(ctx, source)
    where = ctx.const(np.array(perm.index(axis), np.int64), "axis")
    made = ctx.emit(
        "CumSum",
        value,
        where,
        exclusive=int(op.options["exclusive"]),
        reverse=int(op.options["reverse"]),
    )
    ctx.put(op.outputs[0], made, perm)


HANDLERS: Mapping[str, Handler] = {
    "MEAN": _reduce("ReduceMean"),
    "SUM": _reduce("ReduceSum"),
    "REDUCE_MAX": _reduce("ReduceMax"),
    "REDUCE_MIN": _reduce("ReduceMin"),
    "REDUCE_PROD": _reduce("ReduceProd"),
    "REDUCE_ANY": _any_or_all("REDUCE_ANY"),
    "REDUCE_ALL": _any_or_all("REDUCE_ALL"),
    "SOFTMAX": softmax,
    "LOG_SOFTMAX": log_softmax,
    "L2_NORMALIZATION": l2_normalization,
    "ARG_MAX": _arg("ArgMax"),
    "ARG_MIN": _arg("ArgMin"),
    "TOPK_V2": top_k,
    "CUMSUM": cumsum,
}
