"""Functions of one value: Relu, Sigmoid, Softmax and the like.

What TFLite has no operator for is composed in float, in forms that stay exact where their terms
cancel or overflow.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import onnx_ir

from edgeq.ir import dtype_of
from edgeq.numerics import affine
from edgeq.quant import candidates, checks
from edgeq_converters.write.tfl.emitter import Emitter, Unwritable
from edgeq_converters.write.tfl.steps import FLOAT, WHOLE, Steps, apply, kind

_PLAIN = {
    "Sigmoid": ("LOGISTIC", FLOAT),
    "Tanh": ("TANH", FLOAT),
    "HardSwish": ("HARD_SWISH", FLOAT),
    "Abs": ("ABS", (*FLOAT, "int16", "int32")),
}
"""Operators with an int8 kernel, and the other types that they have."""

_FLOAT_ONLY = {
    "Exp": ("EXP", FLOAT),
    "Log": ("LOG", FLOAT),
    "Neg": ("NEG", (*FLOAT, *WHOLE)),
    "Sign": ("SIGN", (*FLOAT, "int32")),
    "Floor": ("FLOOR", FLOAT),
    "Ceil": ("CEIL", FLOAT),
    "Round": ("ROUND", FLOAT),
    "Sin": ("SIN", FLOAT),
    "Cos": ("COS", FLOAT),
}
_CLAMPS = {(0.0, math.inf): "RELU", (0.0, 6.0): "RELU6", (-1.0, 1.0): "RELU_N1_TO_1"}
_EXTREMES = (*FLOAT, *WHOLE, "int16", "uint8")

Formula = Callable[[Steps, int], tuple[str, list[int]]]
"""From the input to the last operator and its operands."""


def unary(e: Emitter, node: onnx_ir.Node) -> None:
    """One operator of one input, in whatever layout the input has."""
    value = node.inputs[0]
    assert value is not None
    layout = e.layout(value)
    if node.op_type in _PLAIN:
        code, kernel = _PLAIN[node.op_type]
        at = e.take(value, layout)
    else:
        code, kernel = _FLOAT_ONLY[node.op_type]
        at = e.take(value, layout, codes=False)
    apply(e, code, [at], node.outputs[0], layout, kernel=kernel)


def square_root(e: Emitter, node: onnx_ir.Node) -> None:
    """Sqrt, with the Reciprocal after it."""
    value, made = node.inputs[0], node.outputs[0]
    assert value is not None
    layout = e.layout(value)
    at = e.take(value, layout, codes=False)
    reader = candidates.only_use(made)
    code = "SQRT"
    if reader is not None and reader.op_type == "Reciprocal" and not reader.domain:
        e.mark_done(reader)
        code, made = "RSQRT", reader.outputs[0]
    apply(e, code, [at], made, layout)


def clamp(e: Emitter, node: onnx_ir.Node) -> None:
    """Relu and Clip that no operator before them does."""
    value = node.inputs[0]
    assert value is not None
    layout = e.layout(value)
    bounds = checks.clamp_bounds(node)
    if bounds is None:
        _computed_clamp(e, node, layout)
    elif e.int8:
        _clamp_codes(e, node, layout, bounds)
    else:
        _clamp_values(e, node, layout, bounds)


def _computed_clamp(e: Emitter, node: onnx_ir.Node, layout: str) -> None:
    at = e.take(node.inputs[0], layout, codes=False)
    steps = Steps(e, kind(e.file.dtype(at), _EXTREMES))
    bounds = zip(("MAXIMUM", "MINIMUM"), (*node.inputs[1:], None), strict=False)
    ops = [(code, e.take(bound)) for code, bound in bounds if bound is not None]
    for code, bound in ops[:-1]:
        at = steps(code, at, bound)
    steps.into(node.outputs[0], layout, ops[-1][0], at, ops[-1][1])


def _clamp_values(e: Emitter, node: onnx_ir.Node, layout: str, bounds: tuple[float, float]) -> None:
    at = e.take(node.inputs[0], layout)
    steps = Steps(e, kind(e.file.dtype(at), _EXTREMES))
    low, high = bounds
    name = _CLAMPS.get(bounds) if steps.dtype == "float32" else None
    if name is not None:
        steps.into(node.outputs[0], layout, name, at)
        return
    ops = [
        (code, steps.number(bound if steps.dtype == "float32" else int(bound)))
        for code, bound in (("MAXIMUM", low), ("MINIMUM", high))
        if math.isfinite(bound)
    ]
    if not ops:
        e.pass_on(at, node.outputs[0], layout)
        return
    for code, bound in ops[:-1]:
        at = steps(code, at, bound)
    steps.into(node.outputs[0], layout, ops[-1][0], at, ops[-1][1])


def _clamp_codes(e: Emitter, node: onnx_ir.Node, layout: str, bounds: tuple[float, float]) -> None:
    """Codes at the scale of the result end where the clamp does, or are cut there."""
    at, value = e.take(node.inputs[0], layout), node.outputs[0]
    encoding = e.encoding(e.past_dropped(value))
    made = e.make(value, layout)
    if encoding is None:
        e.op("DEQUANTIZE", [at], [made])
        return
    scale, zero_point = encoding.scale[0], encoding.zero_point[0]
    cuts = []
    for code, bound, upper in (("MAXIMUM", bounds[0], False), ("MINIMUM", bounds[1], True)):
        if not affine.ends_at(bound, scale, zero_point, upper=upper):
            cut = affine.quantize(
                np.array(bound, np.float32), np.float32(scale), zero_point, dtype="int8"
            )
            parameters = e.file.parameters(made)
            cuts.append(
                (code, e.file.constant(f"{value.name}_bound", np.asarray(cut), **parameters))
            )
    found = e.requantized(at, made) if cuts else at
    for code, bound in cuts[:-1]:
        part = e.temp(e.file.shape(made), like=made)
        e.op(code, [found, bound], [part])
        found = part
    if cuts:
        e.op(cuts[-1][0], [found, cuts[-1][1]], [made])
    else:
        e.op("QUANTIZE", [found], [made])


def leaky(e: Emitter, node: onnx_ir.Node) -> None:
    value = node.inputs[0]
    assert value is not None
    layout = e.layout(value)
    alpha = float(e.attribute("alpha", 0.01))
    apply(e, "LEAKY_RELU", [e.take(value, layout)], node.outputs[0], layout, alpha=alpha)


def parametric(e: Emitter, node: onnx_ir.Node) -> None:
    """PRelu: a slope that broadcasts to the input."""
    layout, inputs = e.aligned(node.inputs)
    apply(e, "PRELU", inputs, node.outputs[0], layout)


def gelu(e: Emitter, node: onnx_ir.Node) -> None:
    value = node.inputs[0]
    assert value is not None
    layout = e.layout(value)
    tanh = e.attribute("approximate", "none") == "tanh"
    apply(e, "GELU", [e.take(value, layout)], node.outputs[0], layout, approximate=tanh)


def fast_gelu(e: Emitter, node: onnx_ir.Node) -> None:
    """com.microsoft FastGelu and BiasGelu: by tanh or exact, of the sum with a bias."""
    values = [value for value in node.inputs if value is not None]
    layout, inputs = e.aligned(values, codes=False)
    steps = Steps(e)
    at = steps("ADD", *inputs) if len(inputs) == 2 else inputs[0]
    tanh = node.op_type == "FastGelu"
    steps.into(node.outputs[0], layout, "GELU", at, approximate=tanh)


def elu(e: Emitter, node: onnx_ir.Node) -> None:
    value = node.inputs[0]
    assert value is not None
    layout = e.layout(value)
    alpha = float(e.attribute("alpha", 1.0))
    if alpha == 1.0:
        apply(e, "ELU", [e.take(value, layout)], node.outputs[0], layout)
    else:
        _composed(e, node, lambda steps, x: _two_sided(steps, x, 1.0, alpha, 1.0))


def selu(e: Emitter, node: onnx_ir.Node) -> None:
    alpha = float(e.attribute("alpha", 1.6732632423543772))
    gamma = float(e.attribute("gamma", 1.0507009873554805))
    _composed(e, node, lambda steps, x: _two_sided(steps, x, gamma, gamma * alpha, 1.0))


def celu(e: Emitter, node: onnx_ir.Node) -> None:
    alpha = float(e.attribute("alpha", 1.0))
    _composed(e, node, lambda steps, x: _two_sided(steps, x, 1.0, alpha, 1.0 / alpha))


def _two_sided(
    steps: Steps, x: int, above: float, below: float, within: float
) -> tuple[str, list[int]]:
    """above * max(x, 0) + below * (exp(within * min(x, 0)) - 1)."""
    negative = _times(steps, steps("MINIMUM", x, steps.number(0.0)), within)
    bent = _times(steps, steps("ELU", negative), below)
    return "ADD", [_times(steps, steps("RELU", x), above), bent]


def _times(steps: Steps, at: int, factor: float) -> int:
    return at if factor == 1.0 else steps("MUL", at, steps.number(factor))


def hard_sigmoid(e: Emitter, node: onnx_ir.Node) -> None:
    alpha, beta = float(e.attribute("alpha", 0.2)), float(e.attribute("beta", 0.5))

    def formula(steps: Steps, x: int) -> tuple[str, list[int]]:
        """By Relu6 of six times the line: an addition does that clamp itself."""
        slope = 1.0 if abs(6.0 * alpha - 1.0) < 1e-6 else 6.0 * alpha
        line = _times(steps, x, slope)
        six = steps("ADD", line, steps.number(6.0 * beta), fused_activation_function="RELU6")
        return "MUL", [six, steps.number(1.0 / 6.0)]

    _composed(e, node, formula)


def threshold(e: Emitter, node: onnx_ir.Node) -> None:
    alpha = float(e.attribute("alpha", 1.0))

    def formula(steps: Steps, x: int) -> tuple[str, list[int]]:
        above = steps("GREATER", x, steps.number(alpha), dtype="bool")
        return "SELECT_V2", [above, x, steps.number(0.0)]

    _composed(e, node, formula)


def shrink(e: Emitter, node: onnx_ir.Node) -> None:
    bias, limit = float(e.attribute("bias", 0.0)), float(e.attribute("lambd", 0.5))

    def formula(steps: Steps, x: int) -> tuple[str, list[int]]:
        below = steps("LESS", x, steps.number(-limit), dtype="bool")
        above = steps("GREATER", x, steps.number(limit), dtype="bool")
        rest = steps("SELECT_V2", above, steps("SUB", x, steps.number(bias)), steps.number(0.0))
        return "SELECT_V2", [below, steps("ADD", x, steps.number(bias)), rest]

    _composed(e, node, formula)


def swish(e: Emitter, node: onnx_ir.Node) -> None:
    """x * sigmoid(alpha * x); com.microsoft QuickGelu has another alpha."""
    alpha = float(e.attribute("alpha", 1.702 if node.op_type == "QuickGelu" else 1.0))
    _composed(e, node, lambda steps, x: ("MUL", [x, steps("LOGISTIC", _times(steps, x, alpha))]))


def is_nan(e: Emitter, node: onnx_ir.Node) -> None:
    layout, (at,) = e.aligned(node.inputs[:1], codes=False)
    steps = Steps(e, kind(e.file.dtype(at), FLOAT))
    steps.into(node.outputs[0], layout, "NOT_EQUAL", at, at, dtype="bool")


def is_infinite(e: Emitter, node: onnx_ir.Node) -> None:
    layout, (at,) = e.aligned(node.inputs[:1], codes=False)
    steps = Steps(e, kind(e.file.dtype(at), FLOAT))
    positive, negative = e.attribute("detect_positive", 1), e.attribute("detect_negative", 1)
    if positive and negative:
        at = steps("ABS", at)
    limit = steps.number(math.inf if positive else -math.inf)
    if not (positive or negative):
        limit = steps.number(math.nan)
    steps.into(node.outputs[0], layout, "EQUAL", at, limit, dtype="bool")


def softplus(e: Emitter, node: onnx_ir.Node) -> None:
    """With the Tanh and the product behind it, where they make it a Mish."""
    value, last = node.inputs[0], _end_of_mish(e, node)
    if last is None:
        _composed(e, node, _softplus)
        return
    layout = e.layout(value)
    code, inputs = _mish(Steps(e), e.take(value, layout, codes=False))
    Steps(e).into(last.outputs[0], layout, code, *inputs)


def _end_of_mish(e: Emitter, node: onnx_ir.Node) -> onnx_ir.Node | None:
    """The Mul of x * tanh(softplus(x)), if all of it is in float; the steps are done then."""
    value = node.inputs[0]
    tanh = candidates.only_use(node.outputs[0])
    if value is None or dtype_of(value) != "float32" or tanh is None or tanh.op_type != "Tanh":
        return None
    product = candidates.only_use(tanh.outputs[0])
    if product is None or product.op_type != "Mul" or value not in product.inputs:
        return None
    if any(e.decision(step).precision == "int8" for step in (node, tanh, product)):
        return None
    e.mark_done(tanh)
    e.mark_done(product)
    return product


def _composed(e: Emitter, node: onnx_ir.Node, formula: Formula) -> None:
    """A formula in float, whatever the plan says: there is no kernel for its codes."""
    value = node.inputs[0]
    assert value is not None
    layout = e.layout(value)
    at = e.take(value, layout, codes=False)
    steps = Steps(e, kind(e.file.dtype(at), FLOAT))
    code, inputs = formula(steps, at)
    steps.into(node.outputs[0], layout, code, *inputs)


# -- formulas without attributes


def _reciprocal(s: Steps, x: int) -> tuple[str, list[int]]:
    return "DIV", [s.number(1.0), x]


def _softplus(s: Steps, x: int) -> tuple[str, list[int]]:
    tail = s("EXP", s("NEG", s("ABS", x)))
    return "ADD", [s("RELU", x), s("LOG", s("ADD", tail, s.number(1.0)))]


def _softsign(s: Steps, x: int) -> tuple[str, list[int]]:
    return "DIV", [x, s("ADD", s("ABS", x), s.number(1.0))]


def _mish(s: Steps, x: int) -> tuple[str, list[int]]:
    """tanh(log(1 + e)) is n / (n + 2) with n = e * (e + 2); it is 1 long before e overflows."""
    power = s("EXP", s("MINIMUM", x, s.number(20.0)))
    whole = s("MUL", power, s("ADD", power, s.number(2.0)))
    return "MUL", [x, s("DIV", whole, s("ADD", whole, s.number(2.0)))]


def _erf(s: Steps, x: int) -> tuple[str, list[int]]:
    """gelu(y) + gelu(-y) is y * erf(y / sqrt 2): divided by y as y * that / (y * y + tiny), which
    is 0 at 0. Exact to 2e-7."""
    y = s("MUL", x, s.number(math.sqrt(2.0)))
    y = s("MAXIMUM", s("MINIMUM", y, s.number(8.0)), s.number(-8.0))
    even = s("ADD", s("GELU", y, approximate=False), s("GELU", s("NEG", y), approximate=False))
    square = s("ADD", s("SQUARE", y), s.number(1e-30))
    return "DIV", [s("MUL", y, even), square]


def _tan(s: Steps, x: int) -> tuple[str, list[int]]:
    return "DIV", [s("SIN", x), s("COS", x)]


def _away_from_one(s: Steps, x: int) -> int:
    """sqrt(1 - x * x), which does not cancel."""
    product = s("MUL", s("SUB", s.number(1.0), x), s("ADD", x, s.number(1.0)))
    return s("SQRT", product)


def _asin(s: Steps, x: int) -> tuple[str, list[int]]:
    return "ATAN2", [x, _away_from_one(s, x)]


def _acos(s: Steps, x: int) -> tuple[str, list[int]]:
    return "ATAN2", [_away_from_one(s, x), x]


def _atan(s: Steps, x: int) -> tuple[str, list[int]]:
    ones = s("ADD", s("MUL", x, s.number(0.0)), s.number(1.0))  # ATAN2 does not broadcast
    return "ATAN2", [x, ones]


def _sinh(s: Steps, x: int) -> tuple[str, list[int]]:
    """By exp(-|x|) - 1, which ELU has exactly near 0."""
    negative = s("NEG", s("ABS", x))
    small = s("ELU", negative)
    above = s("MUL", small, s("ADD", small, s.number(2.0)))
    below = s("MUL", s("EXP", negative), s.number(-2.0))
    return "MUL", [s("SIGN", x), s("DIV", above, below)]


def _cosh(s: Steps, x: int) -> tuple[str, list[int]]:
    both = s("ADD", s("EXP", x), s("EXP", s("NEG", x)))
    return "MUL", [both, s.number(0.5)]


def _asinh(s: Steps, x: int) -> tuple[str, list[int]]:
    size = s("ABS", x)
    root = s("SQRT", s("ADD", s("SQUARE", x), s.number(1.0)))
    return "MUL", [s("SIGN", x), s("LOG", s("ADD", size, root))]


def _acosh(s: Steps, x: int) -> tuple[str, list[int]]:
    root = s("SQRT", s("MUL", s("SUB", x, s.number(1.0)), s("ADD", x, s.number(1.0))))
    return "LOG", [s("ADD", x, root)]


def _atanh(s: Steps, x: int) -> tuple[str, list[int]]:
    ratio = s("DIV", s("ADD", x, s.number(1.0)), s("SUB", s.number(1.0), x))
    return "MUL", [s("LOG", ratio), s.number(0.5)]


_FORMULAS: dict[str, Formula] = {
    "Reciprocal": _reciprocal,
    "Softsign": _softsign,
    "Mish": _mish,
    "Erf": _erf,
    "Tan": _tan,
    "Asin": _asin,
    "Acos": _acos,
    "Atan": _atan,
    "Sinh": _sinh,
    "Cosh": _cosh,
    "Asinh": _asinh,
    "Acosh": _acosh,
    "Atanh": _atanh,
}


def composed(e: Emitter, node: onnx_ir.Node) -> None:
    _composed(e, node, _FORMULAS[node.op_type])


# -- over an axis


def softmax(e: Emitter, node: onnx_ir.Node) -> None:
    """Softmax and LogSoftmax over any axis: TFLite's are over the last."""
    options = {"beta": 1.0} if node.op_type == "Softmax" else {}
    code = "SOFTMAX" if options else "LOG_SOFTMAX"
    value = node.inputs[0]
    assert value is not None
    codes = None if options else False
    over_axis(
        e,
        node,
        lambda at, made: e.op(code, [at], [made], **options),
        codes=codes,
        axis=int(e.attribute("axis", -1)),
    )


def over_axis(
    e: Emitter,
    node: onnx_ir.Node,
    emit: Callable[[int, int], None],
    *,
    codes: bool | None,
    axis: int,
) -> None:
    """What `emit` (from, to) does over the last axis, over ONNX axis `axis` of the first input."""
    value, result = node.inputs[0], node.outputs[0]
    assert value is not None
    if dtype_of(value) != "float32":
        raise Unwritable(f"TFLite has no kernel of it for {dtype_of(value)}")
    rank = len(e.shape(value))
    layout = e.layout(value)
    at = e.take(value, layout, codes=codes)
    made = e.make(result, layout, codes=codes)
    place = e.axis(axis, rank, layout)
    if place == rank - 1:
        emit(at, made)
        return
    order = [*(other for other in range(rank) if other != place), place]
    at = e.transposed(at, order)
    part = e.temp(e.file.shape(at), like=made)
    emit(at, part)
    back = [order.index(other) for other in range(rank)]
    e.op("TRANSPOSE", [part, e.numbers(back)], [made])


HANDLERS = {
    **dict.fromkeys((*_PLAIN, *_FLOAT_ONLY), unary),
    **dict.fromkeys(_FORMULAS, composed),
    **dict.fromkeys(("Relu", "Clip"), clamp),
    **dict.fromkeys(("Softmax", "LogSoftmax"), softmax),
    **dict.fromkeys(("Gelu", "com.microsoft:Gelu"), gelu),
    **dict.fromkeys(("com.microsoft:FastGelu", "com.microsoft:BiasGelu"), fast_gelu),
    **dict.fromkeys(("Swish", "com.microsoft:QuickGelu"), swish),
    "Sqrt": square_root,
    "Softplus": softplus,
    "LeakyRelu": leaky,
    "PRelu": parametric,
    "Elu": elu,
    "Selu": selu,
    "Celu": celu,
    "HardSigmoid": hard_sigmoid,
    "ThresholdedRelu": threshold,
    "Shrink": shrink,
    "IsNaN": is_nan,
    "IsInf": is_infinite,
}
