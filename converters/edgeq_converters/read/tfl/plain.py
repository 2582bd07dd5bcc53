"""Constants that are computed, and the way between floats and codes."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_ir

from edgeq_converters.read.tfl.reading import Handler, NotPerSample, Reading, Unsupported
from edgeq_runtime.tflite import Operator


def quantize(ctx: Reading, op: Operator) -> None:
    """Floats to codes: the same tensor, which int8 readers see rounded. Codes to codes: an
    Identity between two scales."""
    source, result = op.inputs[0], op.outputs[0]
    wanted = ctx.encoding(result)
    array = ctx.array(source)
    if wanted is None:
        raise Unsupported(f"makes codes of {ctx.tensors[result].dtype}")
    if array is not None:
        ctx.put(result, ctx.emit("Identity", ctx.value(source)))
        return
    value, perm = ctx.any_form(source)
    if ctx.encoding(source) is not None or source in ctx.restored:
        made = ctx.emit("Identity", value)
        ctx.put(result, made, perm)
        return
    if value in ctx.encodings or ctx.is_output(result):
        value = ctx.emit("Identity", value)
    ctx.encodings[value] = wanted
    ctx.bind(result, value, perm)


def dequantize(ctx: Reading, op: Operator) -> None:
    """Codes to floats: the same tensor. A constant is one for good, its codes kept as weights."""
    source, result = op.inputs[0], op.outputs[0]
    array = ctx.array(source)
    if array is not None:
        ctx.put_array(result, np.asarray(array, np.float32))
        if ctx.tensors[source].quantization is not None:
            ctx.weight_only[result] = source
        return
    if ctx.encoding(source) is None:
        raise Unsupported(f"reads an activation of {ctx.tensors[source].dtype}")
    ctx.any_form(source)
    forms = dict(ctx.known(source))
    if any(ctx.is_unrounded(value) for value in forms.values()):
        value, perm = ctx.any_form(source)
        forms = {perm: ctx.like(source, ctx.emit("Identity", value))}
    ctx.restored.add(result)
    ctx.share(result, source, forms)


def shape(ctx: Reading, op: Operator) -> None:
    """Known from the file; of a free batch, what one sample has."""
    kind = np.dtype(ctx.tensors[op.outputs[0]].dtype)
    ctx.put_array(op.outputs[0], np.array(ctx.shape(op.inputs[0]), kind))


def rank(ctx: Reading, op: Operator) -> None:
    kind = np.dtype(ctx.tensors[op.outputs[0]].dtype)
    ctx.put_array(op.outputs[0], np.array(ctx.rank(op.inputs[0]), kind))


def range_(ctx: Reading, op: Operator) -> None:
    ctx.put(op.outputs[0], ctx.emit("Range", *(_number(ctx, index) for index in op.inputs)))


def fill(ctx: Reading, op: Operator) -> None:
    """One number, as often as the shape says that the file gives its result."""
    shape = ctx.const(np.array(ctx.shape(op.outputs[0]), np.int64), "shape")
    ctx.put(op.outputs[0], ctx.emit("Expand", _number(ctx, op.inputs[1]), shape))


def zeros_like(ctx: Reading, op: Operator) -> None:
    if ctx.encoding(op.outputs[0]) is not None:
        raise Unsupported("makes codes")
    kind = ctx.dtype(ctx.tensors[op.outputs[0]]).numpy()
    shape = ctx.const(np.array(ctx.shape(op.outputs[0]), np.int64), "shape")
    ctx.put(op.outputs[0], ctx.emit("Expand", ctx.const(np.zeros((), kind), "zero"), shape))


def one_hot(ctx: Reading, op: Operator) -> None:
    indices, depth, on, off = op.inputs
    axis = int(op.options["axis"])
    if axis in (0, -ctx.rank(op.outputs[0])) and indices in ctx.batched:
        raise NotPerSample("puts an axis before the batch")
    values = ctx.emit("Concat", _one(ctx, off), _one(ctx, on), axis=0)
    ctx.put(
        op.outputs[0],
        ctx.emit("OneHot", ctx.value(indices), _number(ctx, depth), values, axis=axis),
    )


def _number(ctx: Reading, index: int) -> onnx_ir.Value:
    """A tensor of one element, without axes."""
    array = ctx.array(index)
    if array is not None:
        return ctx.const(array.reshape(()), "number")
    return ctx.value(index)


def _one(ctx: Reading, index: int) -> onnx_ir.Value:
    shape = ctx.const(np.array([1], np.int64), "shape")
    return ctx.emit("Reshape", ctx.value(index), shape)


HANDLERS: Mapping[str, Handler] = {
    "QUANTIZE": quantize,
    "DEQUANTIZE": dequantize,
    "SHAPE": shape,
    "RANK": rank,
    "RANGE": range_,
    "FILL": fill,
    "ZEROS_LIKE": zeros_like,
    "ONE_HOT": one_hot,
}
