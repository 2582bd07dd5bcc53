"""Arithmetic, comparisons and choices between operands that broadcast."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir

from edgeq.ir import dtype_of
from edgeq_converters.write.tfl.emitter import Emitter, Unwritable
from edgeq_converters.write.tfl.steps import FLOAT, WHOLE, Steps, apply, cast, kind

_ARITHMETIC = {
    "Add": ("ADD", (*FLOAT, *WHOLE)),
    "Sub": ("SUB", (*FLOAT, *WHOLE)),
    "Mul": ("MUL", (*FLOAT, *WHOLE)),
    "Div": ("DIV", (*FLOAT, "int32")),
}
_EXTREMES = {"Max": "MAXIMUM", "Min": "MINIMUM"}
_COMPARISONS = {
    "Equal": "EQUAL",
    "Greater": "GREATER",
    "GreaterOrEqual": "GREATER_EQUAL",
    "Less": "LESS",
    "LessOrEqual": "LESS_EQUAL",
}
_LOGICAL = {"And": "LOGICAL_AND", "Or": "LOGICAL_OR", "Xor": "NOT_EQUAL"}
_BITS = ("int8", "uint8", "int16", "uint16", "int32", "uint32")


def arithmetic(e: Emitter, node: onnx_ir.Node) -> None:
    """With the clamp after it, where it has one."""
    code, kernel = _ARITHMETIC[node.op_type]
    codes = None if node.op_type != "Div" else False
    layout, inputs = e.aligned(node.inputs, codes=codes)
    clamp, value = e.activation(node.outputs[0])
    apply(e, code, inputs, value, layout, kernel=kernel, fused_activation_function=clamp)


def extreme(e: Emitter, node: onnx_ir.Node) -> None:
    """Max and Min of any number of operands; codes are brought to those of the result first."""
    code = _EXTREMES[node.op_type]
    layout, inputs = e.aligned(node.inputs)
    value = node.outputs[0]
    if e.int8:
        made = e.make(value, layout)
        inputs = [e.requantized(at, made) for at in inputs]
        _fold_codes(e, code, inputs, made)
        return
    kernel = (*FLOAT, *WHOLE, "int16", "uint8")
    if len(inputs) == 1:
        e.pass_on(inputs[0], value, layout)
        return
    steps = Steps(e, kind(e.file.dtype(inputs[0]), kernel))
    for at in inputs[1:-1]:
        inputs[0] = steps(code, inputs[0], at)
    steps.into(value, layout, code, inputs[0], inputs[-1])


def _fold_codes(e: Emitter, code: str, inputs: list[int], made: int) -> None:
    found = inputs[0]
    for at in inputs[1:-1]:
        shape = np.broadcast_shapes(e.file.shape(found), e.file.shape(at))
        part = e.temp(shape, like=made)
        e.op(code, [found, at], [part])
        found = part
    e.op(code, [found, inputs[-1]], [made])


def total(e: Emitter, node: onnx_ir.Node) -> None:
    """Sum and Mean of any number of operands."""
    layout, inputs = e.aligned(node.inputs, codes=False)
    value = node.outputs[0]
    if len(inputs) == 1:
        e.pass_on(inputs[0], value, layout)
        return
    steps = Steps(e, kind(e.file.dtype(inputs[0]), (*FLOAT, *WHOLE)))
    found = inputs[0]
    for at in inputs[1:-1]:
        found = steps("ADD", found, at)
    if node.op_type == "Sum":
        clamp, value = ("NONE", value) if e.int8 else e.activation(value)
        options = {"fused_activation_function": clamp}
        steps.into(value, layout, "ADD", found, inputs[-1], **options)
    else:
        found = steps("ADD", found, inputs[-1])
        steps.into(value, layout, "MUL", found, steps.number(1.0 / len(inputs)))


def power(e: Emitter, node: onnx_ir.Node) -> None:
    """A constant exponent by something cheaper than POW where there is one."""
    base, exponent = node.inputs
    assert base is not None
    assert exponent is not None
    value = node.outputs[0]
    layout, inputs = e.aligned([base, exponent], codes=False)
    array = e.constant(exponent)
    steps = Steps(e, kind(dtype_of(base), (*FLOAT, "int32")))
    if array is not None and array.size == 1 and array.ndim <= len(e.shape(base)):
        simple = _SIMPLE_POWERS.get(float(array.reshape(())))
        if simple is not None and steps.dtype == "float32":
            simple(steps, inputs[0], value, layout)
            return
    whole = array is not None and bool(np.all(array == np.trunc(array)))
    if steps.dtype == "int32" and not (whole or dtype_of(exponent).startswith(("int", "uint"))):
        raise Unwritable("its base is whole and its exponent is not")
    steps.into(value, layout, "POW", *inputs)


def _cube(steps: Steps, at: int, value: onnx_ir.Value, layout: str) -> None:
    steps.into(value, layout, "MUL", steps("SQUARE", at), at)


_SIMPLE_POWERS: dict[float, Callable[[Steps, int, onnx_ir.Value, str], None]] = {
    0.5: lambda steps, at, value, layout: steps.into(value, layout, "SQRT", at),
    -0.5: lambda steps, at, value, layout: steps.into(value, layout, "RSQRT", at),
    -1.0: lambda steps, at, value, layout: steps.into(value, layout, "DIV", steps.number(1.0), at),
    2.0: lambda steps, at, value, layout: steps.into(value, layout, "SQUARE", at),
    3.0: _cube,
}


def remainder(e: Emitter, node: onnx_ir.Node) -> None:
    """Mod: the sign of the divisor; with fmod=1 that of the dividend."""
    layout, inputs = e.aligned(node.inputs, codes=False)
    value = node.outputs[0]
    dtype = e.file.dtype(inputs[0])
    if not e.attribute("fmod", 0):
        apply(e, "FLOOR_MOD", inputs, value, layout, kernel=(*FLOAT, *WHOLE))
        return
    steps = Steps(e, kind(dtype, (*FLOAT, "int32")))
    left, right = inputs
    size = steps("FLOOR_MOD", steps("ABS", left), steps("ABS", right))
    steps.into(value, layout, "MUL", size, steps("SIGN", left))


def comparison(e: Emitter, node: onnx_ir.Node) -> None:
    layout, inputs = e.aligned(node.inputs, codes=False)
    kernel = [*FLOAT, *WHOLE, "int16"]
    if node.op_type == "Equal":
        kernel.append("bool")
    steps = Steps(e, kind(e.file.dtype(inputs[0]), kernel))
    steps.into(node.outputs[0], layout, _COMPARISONS[node.op_type], *inputs, dtype="bool")


def logical(e: Emitter, node: onnx_ir.Node) -> None:
    layout, inputs = e.aligned(node.inputs)
    Steps(e, "bool").into(node.outputs[0], layout, _LOGICAL[node.op_type], *inputs)


def negation(e: Emitter, node: onnx_ir.Node) -> None:
    layout, inputs = e.aligned(node.inputs)
    Steps(e, "bool").into(node.outputs[0], layout, "LOGICAL_NOT", *inputs)


def where(e: Emitter, node: onnx_ir.Node) -> None:
    """A choice between two tensors of one type."""
    layout, (condition, *inputs) = e.aligned(node.inputs, codes=False)
    kernel = (*FLOAT, *WHOLE, "int8", "int16", "uint8", "bool")
    steps = Steps(e, kind(e.file.dtype(inputs[0]), kernel))
    steps.into(node.outputs[0], layout, "SELECT_V2", condition, *inputs)


def exclusive_or(e: Emitter, node: onnx_ir.Node) -> None:
    """BitwiseXor and BitwiseNot, which is that with a tensor of ones; of 32 bits at most."""
    layout, inputs = e.aligned(node.inputs)
    dtype = e.file.dtype(inputs[0])
    if dtype not in _BITS:
        raise Unwritable(f"TFLite has no kernel of it for {dtype}")
    if node.op_type == "BitwiseNot":
        ones = np.array(-1 if dtype.startswith("int") else np.iinfo(dtype).max)
        inputs.append(e.numbers(ones, dtype))
    Steps(e, dtype).into(node.outputs[0], layout, "BITWISE_XOR", *inputs)


def shift(e: Emitter, node: onnx_ir.Node) -> None:
    """Right by RIGHT_SHIFT; left by a power of two, which must fit into 32 bits."""
    layout, inputs = e.aligned(node.inputs)
    dtype = e.file.dtype(inputs[0])
    value = node.outputs[0]
    if e.attribute("direction", "") == "RIGHT":
        if dtype not in _BITS:
            raise Unwritable(f"TFLite has no kernel of it for {dtype}")
        Steps(e, dtype).into(value, layout, "RIGHT_SHIFT", *inputs)
        return
    if dtype not in ("uint8", "uint16"):
        raise Unwritable(f"TFLite has no shift to the left, and {dtype} is too wide for a product")
    steps = Steps(e, "int32")
    factor = steps("POW", steps.number(2), cast(e, inputs[1], "int32"))
    steps.into(value, layout, "MUL", inputs[0], factor)


HANDLERS = {
    **dict.fromkeys(_ARITHMETIC, arithmetic),
    **dict.fromkeys(_EXTREMES, extreme),
    **dict.fromkeys(("Sum", "Mean"), total),
    **dict.fromkeys(_COMPARISONS, comparison),
    **dict.fromkeys(_LOGICAL, logical),
    "Not": negation,
    "Pow": power,
    "Mod": remainder,
    "Where": where,
    "BitwiseXor": exclusive_or,
    "BitwiseNot": exclusive_or,
    "BitShift": shift,
}
