"""Running sums of a comparison: floats, codes, integers, and steps of a grid."""

import math

import numpy as np
import pytest

from edgeq.quant.fidelity import Difference, Held, Sums


def test_integers_have_an_error_and_no_sqnr() -> None:
    sums = Sums("n")
    sums.add(np.int64([1, 2, 3, 4]), np.int64([1, 2, 3, -6]))
    assert sums.result() == Difference("n", None, 10.0, 0.75)


def test_booleans_and_text_have_a_share_alone() -> None:
    for one, two in (([True, False], [True, True]), (["a", "b"], ["a", "c"])):
        sums = Sums("n")
        sums.add(np.asarray(one, object if one == ["a", "b"] else bool), np.asarray(two))
        assert sums.result() == Difference("n", None, 0.0, 0.5)


@pytest.mark.parametrize("scale", [1e-30, 0.003921569, 0.1, 7.5, 1e30])
@pytest.mark.parametrize("zero_point", [-128, 0, 127])
def test_codes_on_one_grid_are_whole_steps_apart(scale: float, zero_point: int) -> None:
    held = Held("t", "t_q", float(np.float32(scale)), zero_point)
    one, two = np.int8([-128, -5, 3]), np.int8([127, -5, 4])
    sums = Sums("t")
    sums.add(held.values(one), held.values(two))
    assert sums.result().max_lsb(held.scale, same_grid=True) == 255.0


def test_off_the_grid_a_step_is_a_ratio() -> None:
    found = Difference("t", 20.0, 0.375, 0.5)
    assert found.max_lsb(0.25, same_grid=False) == 1.5
    assert found.max_lsb(None, same_grid=False) is None
    assert Difference("t", None, 0.0, 1.0).max_lsb(None, same_grid=False) == 0.0
    assert Difference("t", None, math.inf, 0.0).max_lsb(0.5, same_grid=True) == math.inf


def test_values_of_unsigned_codes_are_those_of_dequantize_linear() -> None:
    held = Held("t", "q", 0.5, 128)
    np.testing.assert_array_equal(held.values(np.uint8([0, 128, 255])), np.float32([-64, 0, 63.5]))
    floats = np.float32([1.25])
    assert held.values(floats) is floats
    codes = np.uint8([7])
    assert Held("t", "q").values(codes) is codes
