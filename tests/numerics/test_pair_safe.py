"""Pair-safe weights: the bound as written, and what it means for 16-bit sums."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from edgeq.numerics import affine
from edgeq.numerics.pair_safe import PAIR_LIMIT, pair_peak, pair_safe_scale

ROWS = arrays.arrays(
    np.float32,
    arrays.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=11),
    elements=st.floats(-100, 100, width=32),
)


def worst_int16(codes: np.ndarray) -> tuple[int, int]:
    """Smallest and largest a0*w0 + a1*w1 over activations 0..255 and neighbours, by trying all."""
    rows = np.zeros((codes.shape[0], codes.shape[1] + codes.shape[1] % 2), int)
    rows[:, : codes.shape[1]] = codes
    first, second = rows[:, 0::2], rows[:, 1::2]
    sums = [a * first + b * second for a in (0, 255) for b in (0, 255)]
    return int(np.min(sums)), int(np.max(sums))


def scales_of(rows: np.ndarray) -> np.ndarray:
    return affine.symmetric_scale(np.abs(rows).max(axis=1))


@pytest.mark.parametrize(
    ("row", "peak"),
    [
        ([3, 4], 7),
        ([3, -4], 4),
        ([-3, -4], 7),
        ([0, 5, 6, 0], 6),  # neighbours are (0, 5) and (6, 0), not (5, 6)
        ([1, 1, 9], 9),
        ([], 0),
    ],
)
def test_the_peak_of_pairs(row: list[int], peak: int) -> None:
    assert pair_peak(np.array([row], np.float32)).tolist() == [peak]


@given(ROWS)
def test_no_pair_of_codes_passes_the_limit_or_int16(rows: np.ndarray) -> None:
    scale = pair_safe_scale(rows, scales_of(rows))
    codes = affine.quantize_weights(rows, scale, 0)
    assert pair_peak(codes).max(initial=0) <= PAIR_LIMIT
    low, high = worst_int16(codes)
    assert low >= -(2**15)
    assert high <= 2**15 - 1


@given(ROWS)
def test_scales_rise_by_what_is_needed_and_no_more(rows: np.ndarray) -> None:
    plain = scales_of(rows)
    safe = pair_safe_scale(rows, plain)
    assert np.all(safe >= plain)
    # Codes of one sign sum to at most 127 + 127; to bring that to 128 takes a factor 254 / 127.
    # Rounding both codes up costs one more of 128, the search a step or two of 2**-11.
    assert np.all(safe <= plain * 2.0 * (1 + 1 / 127) * (1 + 3 * 2.0**-11))
    unsafe = pair_peak(affine.quantize_weights(rows, plain, 0)) > PAIR_LIMIT
    np.testing.assert_array_equal(safe[~unsafe], plain[~unsafe])


def test_the_formula_of_the_notes_is_the_upper_bound() -> None:
    """s = max(max|w| / 127, 1.004 m / 128) of notes 7.2; less where the codes are safe without."""
    rows = np.random.default_rng(0).normal(size=(500, 64)).astype(np.float32)
    safe = pair_safe_scale(rows, scales_of(rows))
    peaks = np.abs(rows).max(axis=1)
    assert np.all(safe >= peaks / 127)
    wanted = np.maximum(peaks / 127, 1.004 * pair_peak(rows) / 128)
    # rounding up to 12 bits, then one step of 2**-11 past what was needed
    assert np.all(safe <= wanted * (1 + 2 * 2.0**-11))


def test_a_safe_row_keeps_its_scale_and_the_input_is_not_changed() -> None:
    rows = np.array([[127, -127], [127, 127]], np.float32)
    plain = np.ones(2, np.float32)
    safe = pair_safe_scale(rows, plain)
    assert safe[0] == 1.0
    assert safe[1] > 1.9
    assert plain.tolist() == [1.0, 1.0]


@given(ROWS, st.sampled_from([np.float32, np.float64, np.int8]))
def test_the_peak_is_the_largest_sum_of_one_sign(rows: np.ndarray, dtype: type) -> None:
    """As it is defined: positive parts of neighbours together, negative parts together."""
    rows = rows.astype(dtype)
    wide = np.zeros((rows.shape[0], rows.shape[1] + rows.shape[1] % 2))
    wide[:, : rows.shape[1]] = rows
    even, odd = wide[:, 0::2], wide[:, 1::2]
    positive = np.maximum(even, 0) + np.maximum(odd, 0)
    negative = np.maximum(-even, 0) + np.maximum(-odd, 0)
    np.testing.assert_array_equal(pair_peak(rows), np.maximum(positive, negative).max(axis=1))
