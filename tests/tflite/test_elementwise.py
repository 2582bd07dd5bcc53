"""Arithmetic, comparisons and choices, as they are and between convolutions."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

RNG = np.random.default_rng(0)
Check = Callable[..., Any]

CONVS = """
g (float[1,3,6,6] x, float[1,3,6,6] z) => ({kind}[A,B,C,D] y) {{
  a = Conv <pads = [1,1,1,1]> (x, w)
  b = Conv <pads = [1,1,1,1]> (z, w)
  {body}
}}
"""


def weights(**others: np.ndarray) -> dict[str, np.ndarray]:
    return {"w": RNG.normal(0, 0.3, (4, 3, 3, 3)).astype(np.float32), **others}


def floats(*shape: int) -> np.ndarray:
    return RNG.normal(0, 1, shape).astype(np.float32)


@pytest.mark.parametrize("op", ["Add", "Sub", "Mul", "Div", "Max", "Min", "Mean", "Sum"])
@pytest.mark.parametrize("shape", [(), (1,), (4, 1, 1), (6,), (1, 4, 6, 6), (6, 1), (2, 1, 1, 1)])
def test_broadcasts(op: str, shape: tuple[int, ...], check_float: Check) -> None:
    c = np.abs(floats(*shape)) + np.float32(0.5)
    check_float(CONVS.format(kind="float", body=f"y = {op}(a, c)"), weights(c=c))


@pytest.mark.parametrize("op", ["Add", "Mul", "Max", "Sum", "Mean"])
def test_a_tensor_as_it_is_beside_one_with_the_channels_last(op: str, check_float: Check) -> None:
    text = f"""
    g (float[1,3,6,6] x, float[1,4,6,6] c, float[6] d) => (float[A,B,C,D] y, float[A,B,C,D] z) {{
      a = Conv <pads = [1,1,1,1]> (x, w)
      y = {op}(c, a)
      z = {op}(a, d)
    }}
    """
    check_float(text, weights())


@pytest.mark.parametrize("op", ["Add", "Sub", "Mul"])
def test_lower_ranks_as_they_are(op: str, check_float: Check) -> None:
    check_float(f"g (float[2,3,4] x, float[4] c) => (float[A,B,C] y) {{ y = {op}(x, c) }}")


@pytest.mark.parametrize("clamp", ["Relu(s)", "Clip(s, low, high)", "Clip(s, minus, one)"])
@pytest.mark.parametrize("op", ["Add", "Sub", "Mul", "Div", "Sum"])
def test_does_the_clamp_behind_it(op: str, clamp: str, check_float: Check) -> None:
    numbers = {"low": 0.0, "high": 6.0, "minus": -1.0, "one": 1.0}
    constants = {name: np.float32(number) for name, number in numbers.items()}
    body = f"s = {op}(a, c)  y = {clamp}"
    lite = check_float(
        CONVS.format(kind="float", body=body), weights(c=np.float32(0.3), **constants)
    )
    assert not set(lite.ops) & {"RELU", "RELU6", "RELU_N1_TO_1", "MAXIMUM", "MINIMUM"}


def test_three_operands(check_float: Check) -> None:
    for op in ("Max", "Min", "Sum", "Mean"):
        check_float(f"g (float[2,3] x, float[3] c) => (float[A,B] y) {{ y = {op}(x, c, x) }}")
        check_float(f"g (float[2,3] x) => (float[A,B] y) {{ y = {op}(x) }}")


@pytest.mark.parametrize("exponent", [0.5, 1.0, 2.0, 3.0, -0.5, -1.0, 2.5, 0.0])
def test_powers(exponent: float, check_float: Check) -> None:
    body = "p = Abs(a)  q = Add(p, c)  y = Pow(q, e)"
    values = weights(c=np.float32(0.5), e=np.float32(exponent))
    check_float(CONVS.format(kind="float", body=body), values)


def test_powers_of_other_types(check_float: Check) -> None:
    check_float("g (int32[3] x, int32[3] e) => (int32[3] y) { y = Pow(x, e) }")
    feeds = {"x": np.array([1.5, 2, 3], np.float32), "e": np.array([2, 3, 1], np.int64)}
    check_float("g (float[3] x, int64[3] e) => (float[3] y) { y = Pow(x, e) }", feeds=feeds)


WHOLE = {
    **dict.fromkeys(("Add", "Sub", "Mul"), ("int64", "int32", "uint32")),
    "Div": ("int64", "int32"),
    **dict.fromkeys(("Max", "Min"), ("int64", "int32", "uint32")),
    "Mod": ("int64", "int32", "int16", "int8", "uint8", "uint16", "uint32"),
}
"""Types of which ONNX Runtime has kernels, and TFLite some way."""


@pytest.mark.parametrize(("op", "dtype"), [(op, dtype) for op in WHOLE for dtype in WHOLE[op]])
def test_whole_numbers(op: str, dtype: str, check_float: Check) -> None:
    x = RNG.integers(-9, 10, (2, 5)) if dtype.startswith("int") else RNG.integers(9, 19, (2, 5))
    feeds = {"x": x.astype(dtype), "z": np.array([3, 1, 2, 4, 7], dtype)}
    text = f"g ({dtype}[2,5] x, {dtype}[5] z) => ({dtype}[2,5] y) {{ y = {op}(x, z) }}"
    check_float(text, feeds=feeds)


def test_remainders_of_floats(check_float: Check) -> None:
    x = np.array([-7.5, -1.0, 0.0, 2.25, 9.0], np.float32)
    z = np.array([2.0, -3.0, 1.5, -0.5, 4.0], np.float32)
    text = "g (float[5] x, float[5] z) => (float[5] y) { y = Mod <fmod = 1> (x, z) }"
    check_float(text, feeds={"x": x, "z": z})
    text = "g (int64[5] x, int64[5] z) => (int64[5] y) { y = Mod <fmod = 1> (x, z) }"
    z = np.array([2, -3, 5, -4, 4])
    check_float(text, feeds={"x": x.astype(np.int64), "z": z})


@pytest.mark.parametrize("op", ["Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual"])
def test_comparisons(op: str, check_float: Check) -> None:
    check_float(CONVS.format(kind="bool", body=f"y = {op}(a, c)"), weights(c=floats(4, 1, 1)))
    for dtype in ("int64", "int32", "uint8" if op == "Equal" else "int64"):
        check_float(f"g ({dtype}[2,5] x, {dtype}[5] z) => (bool[A,B] y) {{ y = {op}(x, z) }}")


def test_equal_booleans(check_float: Check) -> None:
    check_float("g (bool[2,5] x, bool[5] z) => (bool[A,B] y) { y = Equal(x, z) }")


@pytest.mark.parametrize("op", ["And", "Or", "Xor"])
def test_logic(op: str, check_float: Check) -> None:
    check_float(f"g (bool[2,5] x, bool[5] z) => (bool[A,B] y) {{ n = Not(x) y = {op}(n, z) }}")


@pytest.mark.parametrize("shape", [(), (4, 1, 1), (1, 4, 6, 6)])
def test_where_between_convolutions(shape: tuple[int, ...], check_float: Check) -> None:
    body = "m = Greater(a, c)  y = Where(m, a, d)"
    check_float(CONVS.format(kind="float", body=body), weights(c=floats(6), d=floats(*shape)))


@pytest.mark.parametrize("dtype", ["float", "int64", "int32", "uint8"])
def test_where(dtype: str, check_float: Check) -> None:
    inputs = f"bool[3,1] m, {dtype}[2,1,4] x, {dtype}[4] z"
    check_float(f"g ({inputs}) => ({dtype}[A,B,C] y) {{ y = Where(m, x, z) }}")


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "uint16", "int32", "uint32"])
def test_bits(dtype: str, check_float: Check) -> None:
    check_float(f"g ({dtype}[4] x, {dtype}[4] z) => ({dtype}[4] y) {{ y = BitwiseXor(x, z) }}")
    check_float(f"g ({dtype}[4] x) => ({dtype}[4] y) {{ y = BitwiseNot(x) }}")


@pytest.mark.parametrize("dtype", ["uint8", "uint32"])
def test_shifts(dtype: str, check_float: Check) -> None:
    feeds = {"x": np.array([255, 7, 1, 128], dtype), "z": np.array([0, 1, 7, 3], dtype)}
    text = 'g ({0}[4] x, {0}[4] z) => ({0}[4] y) {{ y = BitShift <direction = "{1}"> (x, z) }}'
    check_float(text.format(dtype, "RIGHT"), feeds=feeds)
    if dtype == "uint8":
        check_float(text.format(dtype, "LEFT"), feeds=feeds)


@pytest.mark.parametrize("op", ["Add", "Sub", "Mul", "Max", "Min"])
@pytest.mark.parametrize("other", ["b", "c"])
def test_int8(op: str, other: str, check_int8: Check) -> None:
    body = f"s = {op}(a, {other})  y = Conv(s, v)"
    values = weights(c=floats(4, 1, 1), v=floats(4, 4, 1, 1))
    text = CONVS.format(kind="float", body=body)
    check_int8(text, values, lsb=1, reference_lsb=2)


@pytest.mark.parametrize("clamp", ["Relu(s)", "Clip(s, low, high)"])
def test_int8_with_the_clamp_behind_it(clamp: str, check_int8: Check) -> None:
    constants = {"low": np.float32(0.0), "high": np.float32(1.0)}
    text = CONVS.format(kind="float", body=f"s = Add(a, b)  r = {clamp}  y = Conv(r, v)")
    made = check_int8(text, weights(v=floats(4, 4, 1, 1), **constants), lsb=1, reference_lsb=2)
    assert not set(made.lite.ops) & {"RELU", "MAXIMUM", "MINIMUM"}
