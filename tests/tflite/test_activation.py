"""Functions of one value, in float and int8, as they are and between convolutions."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

RNG = np.random.default_rng(1)
Check = Callable[..., Any]

PLAIN = "g (float[2,7] x) => (float[2,7] y) {{ y = {op}(x) }}"
CONVS = """
g (float[1,3,5,6] x) => (float[A,B,C,D] y) {{
  a = Conv <pads = [1,1,1,1]> (x, w)
  b = {op}(a{more})
  y = Conv(b, v)
}}
"""


def weights(**others: np.ndarray) -> dict[str, np.ndarray]:
    return {
        "w": RNG.normal(0, 0.4, (4, 3, 3, 3)).astype(np.float32),
        "v": RNG.normal(0, 0.4, (2, 4, 1, 1)).astype(np.float32),
        **others,
    }


EVERYWHERE = [
    *("Relu", "Sigmoid", "Tanh", "HardSwish", "Abs", "Exp", "Neg", "Sign", "Floor", "Ceil"),
    *("Round", "Sin", "Cos", "Softplus", "Softsign", "Mish", "Erf", "Gelu", "Elu", "Selu", "Celu"),
    *("LeakyRelu", "HardSigmoid", "ThresholdedRelu", "Identity", "Sinh", "Cosh", "Atan", "Asinh"),
    *("Tan", "com.microsoft.QuickGelu", "com.microsoft.Gelu", "com.microsoft.FastGelu"),
    'Gelu <approximate = "tanh">',
    "Elu <alpha = 0.3>",
    "Celu <alpha = 0.4>",
    "Selu <alpha = 1.5, gamma = 0.7>",
    "LeakyRelu <alpha = 0.2>",
    "HardSigmoid <alpha = 0.166666667>",
    "ThresholdedRelu <alpha = 0.4>",
    "Shrink <lambd = 0.4, bias = 0.1>",
    "IsNaN",
]
SPREAD = np.array(
    [[-30.0, -4.2, -1.0, -0.1, -1e-4, 0.0, 2.5], [1e-4, 0.1, 0.5, 1.5, 3.3, 12.0, 30.0]], np.float32
)


@pytest.mark.parametrize("op", EVERYWHERE)
def test_over_the_range(op: str, check_float: Check) -> None:
    text = PLAIN.format(op=op)
    if op == "IsNaN":
        text = text.replace("(float[2,7] y)", "(bool[2,7] y)")
    x = np.minimum(SPREAD, 3.0) if op in ("Exp", "Sinh", "Cosh") else SPREAD
    check_float(text, feeds={"x": x}, resolvers=("xnnpack", "builtin"))


@pytest.mark.parametrize("op", [op for op in EVERYWHERE if "soft." not in op][:-1])
def test_between_convolutions(op: str, check_float: Check) -> None:
    tolerance = 1e-3 if op == "Tan" else 1e-5  # its poles
    text = CONVS.format(op=op, more="")
    check_float(text, weights(), tolerance=tolerance, resolvers=("xnnpack", "builtin"))


@pytest.mark.parametrize("op", ["Log", "Sqrt", "Reciprocal", "Acosh"])
def test_of_positive_numbers(op: str, check_float: Check) -> None:
    x = np.array([[1.0, 1.01, 1.5, 2, 3, 17, 1e4]] * 2, np.float32)
    check_float(PLAIN.format(op=op), feeds={"x": x}, tolerance=2e-6)


@pytest.mark.parametrize("op", ["Asin", "Acos", "Atanh"])
def test_of_small_numbers(op: str, check_float: Check) -> None:
    x = np.array([[-0.999, -0.5, -0.01, 0.0, 0.02, 0.7, 0.99]] * 2, np.float32)
    check_float(PLAIN.format(op=op), feeds={"x": x}, tolerance=2e-6)


def test_is_infinite(check_float: Check) -> None:
    x = np.array([[np.inf, -np.inf, 0, 1, 2, 3, 4]] * 2, np.float32)
    text = PLAIN.replace("(float[2,7] y)", "(bool[2,7] y)")
    for attributes in ("", " <detect_negative = 0>", " <detect_positive = 0>"):
        check_float(text.format(op=f"IsInf{attributes}"), feeds={"x": x})


def test_the_reciprocal_of_a_root_is_one_operator(check_float: Check) -> None:
    text = "g (float[3] x) => (float[3] y) { s = Sqrt(x) y = Reciprocal(s) }"
    lite = check_float(text, feeds={"x": np.array([0.25, 3, 100], np.float32)})
    assert dict(lite.ops) == {"RSQRT": 1}


def test_a_spelled_out_mish(check_float: Check) -> None:
    body = "s = Softplus(x) t = Tanh(s) y = Mul(x, t)"
    text = f"g (float[2,7] x) => (float[2,7] y) {{ {body} }}"
    assert not check_float(text, feeds={"x": SPREAD}).ops["TANH"]


BOUNDS = [(0.0, 6.0), (-1.0, 1.0), (0.0, 1.0), (-0.3, 0.7), (0.1, 0.5), (None, 0.4), (-0.2, None)]


@pytest.mark.parametrize("bounds", BOUNDS)
@pytest.mark.parametrize("graph", [PLAIN, CONVS])
def test_clip(graph: str, bounds: tuple[Any, Any], check_float: Check) -> None:
    names = [name if bound is not None else "" for name, bound in zip("lh", bounds, strict=True)]
    more = ", " + ", ".join(names) if names[1] else ", " + names[0]
    given = {
        name: np.float32(bound)
        for name, bound in zip("lh", bounds, strict=True)
        if bound is not None
    }
    if graph is PLAIN:
        text = graph.format(op="Clip").replace("(x)", f"(x{more})")
        check_float(text, given, feeds={"x": SPREAD})
    else:
        text = graph.format(op="Mul", more=", a")
        text = text.replace("y = Conv(b, v)", f"c = Clip(b{more})  y = Conv(c, v)")
        check_float(text, weights(**given))


def test_clip_of_computed_bounds_and_whole_numbers(check_float: Check) -> None:
    text = "g (float[2,7] x, float l, float h) => (float[2,7] y) { y = Clip(x, l, h) }"
    feeds = {"x": SPREAD, "l": np.array(-0.5, np.float32), "h": np.array(1.5, np.float32)}
    check_float(text, feeds=feeds)
    text = "g (int64[5] x) => (int64[5] y) { y = Clip(x, l, h) }"
    given = {"l": np.array(0), "h": np.array(2)}
    check_float(text, given, feeds={"x": np.array([-3, 0, 1, 2, 9])})


@pytest.mark.parametrize("shape", [(4, 1, 1), (1,), (4, 5, 6), (6,)])
def test_prelu(shape: tuple[int, ...], check_float: Check) -> None:
    slope = RNG.uniform(0, 1, shape).astype(np.float32)
    check_float(CONVS.format(op="PRelu", more=", s"), weights(s=slope))
    text = "g (float[1,4,5,6] x) => (float[A,B,C,D] y) { y = PRelu(x, s) }"
    check_float(text, {"s": slope})


@pytest.mark.parametrize("dtype", ["int64", "int32"])
@pytest.mark.parametrize("op", ["Abs", "Neg", "Sign", "Relu"])
def test_whole_numbers(op: str, dtype: str, check_float: Check) -> None:
    op = "Abs" if (op, dtype) == ("Relu", "int64") else op  # not in ONNX Runtime
    text = f"g ({dtype}[5] x) => ({dtype}[5] y) {{ y = {op}(x) }}"
    check_float(text, feeds={"x": np.array([-3, 0, 1, 2, 9], dtype)})


@pytest.mark.parametrize("op", ["Softmax", "LogSoftmax", "Hardmax"])
@pytest.mark.parametrize("axis", [0, 1, 2, -1])
def test_over_any_axis(op: str, axis: int, check_float: Check) -> None:
    check_float(f"g (float[2,3,4,5] x) => (float[A,B,C,D] y) {{ y = {op} <axis = {axis}> (x) }}")
    check_float(CONVS.format(op=f"{op} <axis = {axis}>", more=""), weights())


def test_over_the_channels_needs_no_transpose(check_float: Check) -> None:
    lite = check_float(CONVS.format(op="Softmax <axis = 1>", more=""), weights())
    assert lite.ops["TRANSPOSE"] + lite.ops["RESHAPE"] == 2  # those of input and output


@pytest.mark.parametrize("rank", [1, 2, 5])
def test_softmax_of_other_ranks(rank: int, check_float: Check) -> None:
    shape = ",".join(map(str, [2, 3, 2, 3, 4][-rank:]))
    check_float(f"g (float[{shape}] x) => (float[{shape}] y) {{ y = Softmax(x) }}")


INT8 = [
    *("Sigmoid", "Tanh", "HardSwish", "LeakyRelu", "Elu", "Gelu", "Abs", "Relu", "PRelu"),
    *("Softmax <axis = 1>", "Softmax <axis = 3>", "Softmax <axis = 2>"),
]


@pytest.mark.parametrize("op", INT8)
def test_int8(op: str, check_int8: Check) -> None:
    given = {"s": RNG.uniform(0.1, 0.4, (4, 1, 1)).astype(np.float32)} if op == "PRelu" else {}
    text = CONVS.format(op=op, more=", s" if given else "")
    other = "builtin" if op == "Elu" else "reference"  # which has none
    check_int8(text, weights(**given), lsb=1, reference_lsb=2, other=other)


@pytest.mark.parametrize("op", ["Relu", "Clip"])
def test_int8_clamps_of_their_own(op: str, check_int8: Check) -> None:
    """What the convolution makes is read elsewhere too, so it cannot end where the clamp does."""
    given = {"l": np.float32(-0.5), "h": np.float32(1.0)} if op == "Clip" else {}
    text = f"""
    g (float[1,3,5,6] x) => (float[A,B,C,D] y) {{
      a = Conv <pads = [1,1,1,1]> (x, w)
      b = {op}(a{", l, h" if given else ""})
      c = Add(a, b)
      y = Conv(c, v)
    }}
    """
    check_int8(text, weights(**given), lsb=1, reference_lsb=2)
