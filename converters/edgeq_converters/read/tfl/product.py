"""Products of matrices, and tables of rows."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import onnx_ir

from edgeq_converters.read.tfl.reading import Handler, NotPerSample, Reading, Unsupported
from edgeq_runtime.tflite import Operator


def fully_connected(ctx: Reading, op: Operator) -> None:
    """Weights [O, I]; the tensor is rows of I, whatever its axes.

    A Gemm for rows. A tensor of more axes that are kept is a MatMul and an Add in float, and rows
    between two Reshapes where it is codes: there the bias must stay inside.
    """
    if op.options["weights_format"] != "DEFAULT":
        raise Unsupported(f"has weights in the order {op.options['weights_format']}")
    source, result = op.inputs[0], op.outputs[0]
    wide = ctx.rank(source) == ctx.rank(result) and ctx.rank(source) > 2
    if wide and ctx.array(op.inputs[1]) is not None and ctx.encoding(source) is None:
        _product(ctx, op)
    else:
        _rows(ctx, op)


def _product(ctx: Reading, op: Operator) -> None:
    source, weight = op.inputs[:2]
    made = ctx.emit("MatMul", ctx.value(source), ctx.weight(weight, (1, 0)))
    ctx.weighted(made, source, weight, "dynamic-int8")
    bias = ctx.bias(ctx.given(op, 2), source, None)
    if bias is not None:
        made = ctx.emit("Add", made, bias)
    ctx.put(op.outputs[0], ctx.activated(made, op))


def _rows(ctx: Reading, op: Operator) -> None:
    source, weight, result = op.inputs[0], op.inputs[1], op.outputs[0]
    outputs, depth = ctx.shape(weight)
    rows = ctx.value(source) if ctx.rank(source) == 2 else _as_rows(ctx, source, depth)
    bias = ctx.bias(ctx.given(op, 2), source, ctx.stored_codes(weight, (0, 1)))
    made = ctx.emit("Gemm", rows, ctx.weight(weight, (0, 1)), bias, transB=1)
    ctx.weighted(made, source, weight, "dynamic-int8")
    made = ctx.activated(made, op)
    if ctx.rank(result) != 2:
        made = ctx.on_scale_of(result, made)
        made = ctx.like(result, ctx.emit("Reshape", made, ctx.target(result, source)))
    elif ctx.shape(result) != (math.prod(ctx.shape(source)) // max(depth, 1), outputs):
        raise Unsupported(f"makes a tensor of {list(ctx.shape(result))}")
    ctx.put(result, made)


def _as_rows(ctx: Reading, source: int, depth: int) -> onnx_ir.Value:
    count = math.prod(ctx.shape(source)) // max(depth, 1)
    if source in ctx.batched:
        if count != 1:
            raise NotPerSample("makes rows of all samples one matrix")
        count = 0
    shape = ctx.const(np.array([count, depth], np.int64), "shape")
    return ctx.like(source, ctx.emit("Reshape", ctx.flat(source), shape))


def batch_matmul(ctx: Reading, op: Operator) -> None:
    operands = []
    for index, adjoint in zip(op.inputs, (op.options["adj_x"], op.options["adj_y"]), strict=True):
        order = list(range(ctx.rank(index)))
        if len(order) < 2:
            raise Unsupported("reads a vector")
        if adjoint:
            order[-2:] = order[-1], order[-2]
        if ctx.array(index) is not None:
            operands.append(ctx.weight(index, tuple(order)))
        else:
            operands.append(ctx.value(index, tuple(order)))
    ranks = {ctx.rank(index) for index in op.inputs if index in ctx.batched}
    if ranks and (ctx.rank(op.outputs[0]) < 3 or ranks != {ctx.rank(op.outputs[0])}):
        raise NotPerSample("multiplies rows of several samples")
    made = ctx.emit("MatMul", *operands)
    ctx.weighted(made, op.inputs[0], op.inputs[1], "dynamic-int8")
    ctx.put(op.outputs[0], made)


def embedding_lookup(ctx: Reading, op: Operator) -> None:
    """Rows of a table; first the row numbers, then the table."""
    rows, table = op.inputs
    order = tuple(range(ctx.rank(table)))
    made = ctx.emit("Gather", ctx.weight(table, order), ctx.value(rows), axis=0)
    if ctx.encoding(op.outputs[0]) is None:
        ctx.weighted(made, -1, table, "int8-weights")
    ctx.put(op.outputs[0], made)


HANDLERS: Mapping[str, Handler] = {
    "FULLY_CONNECTED": fully_connected,
    "BATCH_MATMUL": batch_matmul,
    "EMBEDDING_LOOKUP": embedding_lookup,
}
