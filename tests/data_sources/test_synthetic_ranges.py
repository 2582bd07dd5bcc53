"""Made-up inputs in given ranges: what `compare` runs on where it is given no data."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeq.data import synthetic
from edgeq_runtime import TensorInfo


def drawn(dtype: str, low: float, high: float, size: int = 4096) -> np.ndarray:
    info = TensorInfo("x", dtype, (size,))
    (feed,) = synthetic([info], 1, 0, {"x": (low, high)})
    return feed["x"]


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
def test_floats_fill_their_range(dtype: str) -> None:
    x = drawn(dtype, -2, 6)
    assert (x.dtype.name, x.shape) == (dtype, (4096,))
    # 4096 uniform draws come within a hundredth of both ends but for odds of 2 * 0.99 ** 4096
    assert -2 <= x.min() < -1.9 < 5.9 < x.max() <= 6
    # the mean's deviation is 8 / sqrt(12 * 4096) = 0.036; five of them
    assert abs(float(x.mean()) - 2) < 0.18


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int64"])
def test_integers_take_both_ends(dtype: str) -> None:
    assert set(drawn(dtype, 3, 7)) == {3, 4, 5, 6, 7}
    assert set(drawn(dtype, 5, 5)) == {5}


def test_a_range_as_wide_as_its_type_stays_inside() -> None:
    largest = float(np.finfo(np.float64).max)
    assert np.isfinite(drawn("float64", -largest, largest)).all()


def test_what_has_no_range_or_is_no_number_is_drawn_as_ever() -> None:
    inputs = [TensorInfo("a", "float32", (9,)), TensorInfo("b", "bool", (9,))]
    (plain,) = synthetic(inputs, 1)
    (ranged,) = synthetic(inputs, 1, ranges={"b": (0, 1), "other": (5, 6)})
    for name, array in plain.items():
        np.testing.assert_array_equal(array, ranged[name])


@given(st.integers(-(2**40), 2**40), st.integers(0, 2**38))
def test_whole_numbers_never_leave_their_range(low: int, span: int) -> None:
    x = drawn("int64", low, low + span, 64)
    assert low <= x.min() <= x.max() <= low + span
