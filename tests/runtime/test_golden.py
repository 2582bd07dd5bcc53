"""The generator and the comparison, each against an independent computation."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeq_runtime import golden
from edgeq_runtime.golden import Comparison, GoldenInput, GoldenOutput, Rule, splitmix64

MASK = 2**64 - 1


def reference(seed: int, count: int) -> list[int]:
    """splitmix64 as published (Vigna, splitmix64.c): a state that grows by gamma."""
    state, out = seed, []
    for _ in range(count):
        state = (state + 0x9E3779B97F4A7C15) & MASK
        z = state
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
        out.append(z ^ (z >> 31))
    return out


def test_the_published_sequence() -> None:
    """The first values of seed 1234567, as in the Rosetta Code entry."""
    assert splitmix64(1234567, 5).tolist() == [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
        4593380528125082431,
        16408922859458223821,
    ]


@given(st.integers(0, 2**53), st.integers(0, 30))
def test_the_generator_is_splitmix64(seed: int, count: int) -> None:
    assert splitmix64(seed, count).tolist() == reference(seed, count)


@given(st.integers(0, 2**53), st.floats(-1e6, 1e6, width=32), st.floats(0, 1e6, width=32))
def test_float_inputs(seed: int, low: float, width: float) -> None:
    high = low + width
    array = GoldenInput("x", "float32", (3, 5), low, high, seed).array()
    want = [np.float32(low + (high - low) * ((draw >> 40) / 2**24)) for draw in reference(seed, 15)]
    assert array.dtype == np.float32
    assert array.shape == (3, 5)
    assert array.reshape(-1).tolist() == [float(value) for value in want]


@pytest.mark.parametrize("dtype", golden.INTEGERS)
def test_integer_inputs_reach_both_ends(dtype: str) -> None:
    low, high = (0, 3) if dtype[0] == "u" else (-2, 2)
    array = GoldenInput("x", dtype, (400,), low, high, 7).array()
    assert array.dtype == dtype
    assert set(array.tolist()) == set(range(low, high + 1))
    draws = [draw >> 40 for draw in reference(7, 400)]
    assert array.tolist() == [low + math.floor(d * (high - low + 1) / 2**24) for d in draws]


def test_bool_inputs_are_both() -> None:
    array = GoldenInput("x", "bool", (100,), 0, 1, 0).array()
    assert array.dtype == bool
    assert 30 < array.sum() < 70


@pytest.mark.parametrize("dtype", ["float16", "float64"])
def test_other_floats(dtype: str) -> None:
    array = GoldenInput("x", dtype, (50,), -1, 1, 3).array()
    assert array.dtype == dtype
    assert (abs(array) <= 1).all()


def test_a_scalar_and_an_empty_input() -> None:
    assert GoldenInput("x", "float32", (), 0, 1, 0).array().shape == ()
    assert GoldenInput("x", "float32", (0, 3), 0, 1, 0).array().shape == (0, 3)


def compare(rule: Rule, want: Any, got: Any, stride: int = 1) -> golden.OutputCheck:
    want, got = np.asarray(want), np.asarray(got)
    data = want.astype(want.dtype.newbyteorder("<")).tobytes()
    output = GoldenOutput("y", want.dtype.name, got.shape, stride, 0, len(data))
    comparison = Comparison("y", rule)
    comparison.add(got, output, data)
    return comparison.result()


CODES = Rule("codes", "uint8", 0.5, 128)


def test_codes_are_compared_exactly() -> None:
    codes = np.array([0, 127, 128, 255], np.uint8)
    got = ((codes.astype(np.int64) - 128) * 0.5).astype(np.float32)
    check = compare(CODES, codes, got)
    assert check.passed
    assert (check.compared, check.max_error, check.max_lsb) == (4, 0.0, 0)


def test_one_code_off_is_a_mismatch_of_one_lsb() -> None:
    codes = np.array([0, 127, 128, 255], np.uint8)
    got = ((codes.astype(np.int64) - 128) * 0.5).astype(np.float32)
    got[2] += 0.5
    check = compare(CODES, codes, got)
    assert not check.passed
    assert (check.mismatches, check.max_error, check.max_lsb) == (1, 0.5, 1)


def test_the_last_bit_of_a_float_is_a_mismatch_under_codes() -> None:
    got = np.nextafter(np.array([0.5], np.float32), np.float32(1))
    assert compare(CODES, np.array([129], np.uint8), got).mismatches == 1


@pytest.mark.parametrize(("error", "passed"), [(0.0, True), (0.125, True), (0.1251, False)])
def test_a_tolerance_is_met_up_to_its_end(error: float, passed: bool) -> None:
    want = np.array([1, 2], np.float32)
    got = np.array([1, 2 + error], np.float32)
    check = compare(Rule("tolerance", absolute=0.125), want, got)
    assert check.passed is passed
    assert check.max_lsb is None


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("rule", [Rule("tolerance", absolute=1e30), Rule("equal")])
def test_what_is_not_finite_is_a_mismatch(value: float, rule: Rule) -> None:
    check = compare(rule, np.array([1.0], np.float32), np.array([value], np.float32))
    assert check.mismatches == 1
    assert check.max_error == float("inf")


def test_integers_are_equal_or_not() -> None:
    want = np.array([2**60, 5], np.int64)
    assert compare(Rule("equal"), want, want).passed
    assert compare(Rule("equal"), want, want + np.array([1, 0])).mismatches == 1


def test_another_shape_is_all_wrong() -> None:
    data = np.zeros(4, np.float32)
    comparison = Comparison("y", Rule("tolerance", absolute=9.0))
    comparison.add(data.reshape(2, 2), GoldenOutput("y", "float32", (4,), 1, 0, 16), data.tobytes())
    assert comparison.result().mismatches == 4


def test_another_dtype_is_all_wrong() -> None:
    data = np.zeros(4, np.float32)
    comparison = Comparison("y", Rule("equal"))
    comparison.add(data.astype(float), GoldenOutput("y", "float32", (4,), 1, 0, 16), data.tobytes())
    assert comparison.result().mismatches == 4


def test_every_stride_th_element_is_compared() -> None:
    want = np.array([0, 3, 6], np.float32)
    got = np.arange(7, dtype=np.float32)
    assert compare(Rule("equal"), want, got, stride=3).passed
    got[3] = 9
    assert compare(Rule("equal"), want, got, stride=3).mismatches == 1
