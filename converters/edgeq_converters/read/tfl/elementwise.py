"""Operators on one, two or three tensors, element by element."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import onnx_ir

from edgeq_converters.read.tfl.reading import Handler, Perm, Reading, Unsupported
from edgeq_runtime.tflite import Operator

_BINARY = {
    "ADD": "Add",
    "SUB": "Sub",
    "MUL": "Mul",
    "DIV": "Div",
    "MAXIMUM": "Max",
    "MINIMUM": "Min",
    "POW": "Pow",
    "EQUAL": "Equal",
    "GREATER": "Greater",
    "GREATER_EQUAL": "GreaterOrEqual",
    "LESS": "Less",
    "LESS_EQUAL": "LessOrEqual",
    "LOGICAL_AND": "And",
    "LOGICAL_OR": "Or",
}

_UNARY = {
    "ABS": "Abs",
    "CEIL": "Ceil",
    "COS": "Cos",
    "EXP": "Exp",
    "FLOOR": "Floor",
    "LOG": "Log",
    "LOGICAL_NOT": "Not",
    "NEG": "Neg",
    "ROUND": "Round",
    "SIGN": "Sign",
    "SIN": "Sin",
    "SQRT": "Sqrt",
    "ELU": "Elu",
    "HARD_SWISH": "HardSwish",
    "LOGISTIC": "Sigmoid",
    "RELU": "Relu",
    "TANH": "Tanh",
}


def spread(ctx: Reading, op: Operator) -> tuple[list[onnx_ir.Value], Perm]:
    """All operands in one form, ready to be spread over each other."""
    rank = ctx.rank(op.outputs[0])
    perm = ctx.common(op.inputs, rank)
    given = [index for index in op.inputs if ctx.array(index) is None]
    wide = all(ctx.rank(index) < rank for index in given)
    return [ctx.spread(index, perm, wide=wide) for index in op.inputs], perm


def _binary(op_type: str) -> Handler:
    def handle(ctx: Reading, op: Operator) -> None:
        operands, perm = spread(ctx, op)
        ctx.put(op.outputs[0], ctx.activated(ctx.emit(op_type, *operands), op), perm)

    return handle


def _unary(op_type: str) -> Handler:
    return each(lambda ctx, op, value: ctx.emit(op_type, value))


def each(compute: Callable[[Reading, Operator, onnx_ir.Value], onnx_ir.Value]) -> Handler:
    """A handler that computes on whatever form its one tensor has."""

    def handle(ctx: Reading, op: Operator) -> None:
        source = op.inputs[0]
        if ctx.array(source) is not None:
            ctx.put(op.outputs[0], compute(ctx, op, ctx.value(source)))
            return
        value, perm = ctx.any_form(source)
        ctx.put(op.outputs[0], compute(ctx, op, value), perm)

    return handle


def number(ctx: Reading, value: float) -> onnx_ir.Value:
    """A float32 constant without axes."""
    return ctx.const(np.array(value, np.float32), "number")


def not_equal(ctx: Reading, op: Operator) -> None:
    operands, perm = spread(ctx, op)
    ctx.put(op.outputs[0], ctx.emit("Not", ctx.emit("Equal", *operands)), perm)


def squared_difference(ctx: Reading, op: Operator) -> None:
    operands, perm = spread(ctx, op)
    difference = ctx.emit("Sub", *operands)
    ctx.put(op.outputs[0], ctx.emit("Mul", difference, difference), perm)


def floor_div(ctx: Reading, op: Operator) -> None:
    """Rounded down; ONNX's Div of integers rounds to zero."""
    operands, perm = spread(ctx, op)
    if ctx.tensors[op.outputs[0]].dtype == "float32":
        made = ctx.emit("Floor", ctx.emit("Div", *operands))
    else:
        rest = ctx.emit("Mod", *operands)
        made = ctx.emit("Div", ctx.emit("Sub", operands[0], rest), operands[1])
    ctx.put(op.outputs[0], made, perm)


def floor_mod(ctx: Reading, op: Operator) -> None:
    """What floor_div leaves: the sign is the divisor's, as of ONNX's Mod of integers."""
    operands, perm = spread(ctx, op)
    if ctx.tensors[op.outputs[0]].dtype == "float32":
        floor = ctx.emit("Floor", ctx.emit("Div", *operands))
        made = ctx.emit("Sub", operands[0], ctx.emit("Mul", floor, operands[1]))
    else:
        made = ctx.emit("Mod", *operands)
    ctx.put(op.outputs[0], made, perm)


def add_n(ctx: Reading, op: Operator) -> None:
    operands, perm = spread(ctx, op)
    made = operands[0]
    for operand in operands[1:]:
        made = ctx.emit("Add", made, operand)
    ctx.put(op.outputs[0], made, perm)


def select(ctx: Reading, op: Operator) -> None:
    """SELECT with a vector as condition picks whole rows; all else is spread."""
    condition, result = op.inputs[0], op.outputs[0]
    if op.code == "SELECT" and ctx.rank(condition) == 1 and ctx.rank(result) > 1:
        shape = (ctx.shape(condition)[0], *[1] * (ctx.rank(result) - 1))
        target = ctx.const(np.array(shape, np.int64), "shape")
        picked = ctx.emit("Reshape", ctx.value(condition), target)
        rest = [ctx.value(index) for index in op.inputs[1:]]
        ctx.put(result, ctx.emit("Where", picked, *rest))
        return
    operands, perm = spread(ctx, op)
    ctx.put(result, ctx.emit("Where", *operands), perm)


def _rsqrt(ctx: Reading, op: Operator, value: onnx_ir.Value) -> onnx_ir.Value:
    return ctx.emit("Reciprocal", ctx.emit("Sqrt", value))


def _cast(ctx: Reading, op: Operator, value: onnx_ir.Value) -> onnx_ir.Value:
    if any(ctx.encoding(index) is not None for index in (op.inputs[0], op.outputs[0])):
        raise Unsupported("takes codes on a scale for numbers")
    kind = ctx.dtype(ctx.tensors[op.outputs[0]])
    return ctx.emit("Cast", value, to=int(kind))


def _clip(low: float, high: float) -> Handler:
    return each(lambda ctx, op, value: ctx.emit("Clip", value, number(ctx, low), number(ctx, high)))


def _leaky_relu(ctx: Reading, op: Operator, value: onnx_ir.Value) -> onnx_ir.Value:
    return ctx.emit("LeakyRelu", value, alpha=float(op.options["alpha"]))


def _gelu(ctx: Reading, op: Operator, value: onnx_ir.Value) -> onnx_ir.Value:
    return ctx.emit("Gelu", value, approximate="tanh" if op.options["approximate"] else "none")


def prelu(ctx: Reading, op: Operator) -> None:
    operands, perm = spread(ctx, op)
    ctx.put(op.outputs[0], ctx.emit("PRelu", *operands), perm)


HANDLERS: Mapping[str, Handler] = {
    **{code: _binary(op_type) for code, op_type in _BINARY.items()},
    **{code: _unary(op_type) for code, op_type in _UNARY.items()},
    "NOT_EQUAL": not_equal,
    "SQUARED_DIFFERENCE": squared_difference,
    "FLOOR_DIV": floor_div,
    "FLOOR_MOD": floor_mod,
    "ADD_N": add_n,
    "SELECT": select,
    "SELECT_V2": select,
    "RSQRT": each(_rsqrt),
    "SQUARE": each(lambda ctx, op, value: ctx.emit("Mul", value, value)),
    "CAST": each(_cast),
    "RELU6": _clip(0.0, 6.0),
    "RELU_N1_TO_1": _clip(-1.0, 1.0),
    "RELU_0_TO_1": _clip(0.0, 1.0),
    "LEAKY_RELU": each(_leaky_relu),
    "GELU": each(_gelu),
    "PRELU": prelu,
}
