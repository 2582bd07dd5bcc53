"""Floats and the codes that stand for them."""

import numpy as np
import pytest

from edgeq_runtime import TensorInfo

CODES = TensorInfo("x", "int8", (1,), 0.5, 3)
PLAIN = TensorInfo("x", "float32", (1,))


def test_to_nearest_ties_to_even_and_clipped() -> None:
    values = np.array([-0.25, 0.25, 0.75, 1e9, -1e9, np.inf], np.float32)
    found = CODES.codes(values)
    assert found.dtype == np.int8
    np.testing.assert_array_equal(found, [3, 3, 5, 127, -128, 127])
    back = CODES.values(np.array([3, 5, -128], np.int8))
    assert back.dtype == np.float32
    np.testing.assert_array_equal(back, [0.0, 1.0, -65.5])


@pytest.mark.parametrize(("dtype", "low", "high"), [("uint8", 0, 255), ("int16", -32768, 32767)])
def test_every_kind_of_codes(dtype: str, low: int, high: int) -> None:
    info = TensorInfo("x", dtype, (2,), 0.5, 7)
    found = info.codes(np.array([-1e9, 1e9]))
    assert (found.dtype, *found.tolist()) == (np.dtype(dtype), low, high)


def test_what_are_codes_already_and_plain_tensors_stay() -> None:
    codes = np.array([7], np.int8)
    assert CODES.codes(codes) is codes
    floats = np.array([0.3], np.float32)
    assert PLAIN.codes(floats) is floats
    assert PLAIN.values(floats) is floats
