"""The streaming histogram: exact whatever the order, bounded whatever the amount."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from edgeq.quant.observers.histogram import BINS, FULL_SIZE, MOST_SIZE, Histogram, subsample

VALUES = st.one_of(
    st.floats(width=32, allow_nan=False, allow_infinity=False),
    st.floats(-1, 1, width=32),
    st.sampled_from([0.0, -0.0, 1.0, 5.0, 4.9999995, 1e-45, -1e-45, 3e38, 2.0**-100]),
)
CHUNKS = st.lists(
    arrays.arrays(np.float32, st.integers(1, 40), elements=VALUES), min_size=1, max_size=6
)


def seen(*parts: np.ndarray) -> Histogram:
    histogram = Histogram()
    for part in parts:
        assert histogram.add(part)
    return histogram


def same(left: Histogram, right: Histogram) -> bool:
    """Equal in every field, the counts bin by bin."""
    fields = ("minimum", "maximum", "zeros", "exponent", "first", "total")
    return all(getattr(left, name) == getattr(right, name) for name in fields) and bool(
        np.array_equal(left.bins, right.bins)
    )


@given(CHUNKS)
def test_chunks_one_shot_and_reverse_order_are_equal(parts: list[np.ndarray]) -> None:
    whole = seen(np.concatenate(parts))
    assert same(seen(*parts), whole)
    assert same(seen(*reversed(parts)), whole)


@given(CHUNKS, CHUNKS, CHUNKS)
def test_merging_is_associative_commutative_and_equals_adding(
    a: list[np.ndarray], b: list[np.ndarray], c: list[np.ndarray]
) -> None:
    x, y, z = seen(*a), seen(*b), seen(*c)
    left, right = x.merge(y).merge(z), x.merge(y.merge(z))
    assert same(left, right)
    assert same(left, z.merge(y).merge(x))
    assert same(left, seen(*a, *b, *c))
    assert same(x, seen(*a))  # merging changed neither


@given(CHUNKS)
def test_an_empty_histogram_is_the_neutral_element(parts: list[np.ndarray]) -> None:
    histogram = seen(*parts)
    assert same(histogram.merge(Histogram()), histogram)
    assert same(Histogram().merge(histogram), histogram)


@given(CHUNKS)
def test_every_value_lies_in_its_bin(parts: list[np.ndarray]) -> None:
    values = np.concatenate(parts)
    histogram = seen(*parts)
    assert histogram.total == values.size
    assert histogram.bins.shape == (BINS,)
    counted = np.zeros(BINS, int)
    for value in values:
        index = math.floor(math.ldexp(float(value), -histogram.exponent)) - histogram.first
        assert 0 <= index < BINS
        counted[index] += 1
    np.testing.assert_array_equal(histogram.bins, counted)


@given(CHUNKS)
def test_bins_are_as_fine_as_the_range_allows(parts: list[np.ndarray]) -> None:
    histogram = seen(*parts)
    spread = histogram.maximum - histogram.minimum
    if spread > 0 and histogram.exponent > -150:
        # one exponent less, and the range would not fit
        width = 2.0 ** (histogram.exponent - 1)
        bins = math.floor(histogram.maximum / width) - math.floor(histogram.minimum / width) + 1
        assert bins > BINS


@given(CHUNKS)
def test_centres_lie_in_their_bins_and_in_the_tensor(parts: list[np.ndarray]) -> None:
    histogram = seen(*parts)
    centres = histogram.centres()
    assert centres.shape == (BINS,)
    assert histogram.minimum <= centres.min()
    assert centres.max() <= histogram.maximum
    edges = np.ldexp(np.arange(BINS + 1.0) + histogram.first, histogram.exponent)
    filled = histogram.bins > 0
    # a bin of subnormal width has no middle of its own in float64
    assert np.all((edges[:-1] <= centres)[filled])
    assert np.all((centres <= edges[1:])[filled])


def test_zero_is_always_an_edge() -> None:
    histogram = seen(np.array([-1e-6, -0.3, 0.0, 1e-6, 0.7], np.float32))
    below = histogram.bins[: -histogram.first].sum()
    assert below == 2
    assert histogram.zeros == 1


def test_minus_zero_counts_as_zero() -> None:
    assert seen(np.array([-0.0, 0.0, 1.0], np.float32)).zeros == 2


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_non_finite_array_is_refused_and_changes_nothing(bad: float) -> None:
    histogram = seen(np.arange(5, dtype=np.float32))
    before = histogram.copy()
    assert histogram.add(np.array([1.0, bad, 99.0], np.float32)) is False
    assert same(histogram, before)


def test_an_empty_array_changes_nothing() -> None:
    histogram = Histogram()
    assert histogram.add(np.zeros((0, 3), np.float32))
    assert histogram.total == 0
    assert histogram.percentile_range(99.9) == (0.0, 0.0)


@pytest.mark.parametrize("value", [0.0, 1.0, -7.25, 1e-45, 3e38, -3e38])
def test_a_constant_tensor_has_its_value_as_range(value: float) -> None:
    histogram = seen(np.full(100, value, np.float32))
    low, high = histogram.percentile_range(99.99)
    assert low == high == float(np.float32(value))


def test_memory_does_not_grow() -> None:
    histogram = Histogram()
    rng = np.random.default_rng(0)
    for scale in range(1, 60):
        histogram.add((rng.normal(size=1000) * 2.0**scale).astype(np.float32))
    assert histogram.bins.nbytes == 16384


@given(arrays.arrays(np.float32, st.integers(1, 300), elements=st.floats(-1e3, 1e3, width=32)))
def test_the_whole_range_is_min_and_max(values: np.ndarray) -> None:
    assert seen(values).percentile_range(100.0) == (float(values.min()), float(values.max()))


@given(arrays.arrays(np.float32, st.integers(50, 300), elements=st.floats(-1e3, 1e3, width=32)))
def test_ranges_grow_with_the_percentage(values: np.ndarray) -> None:
    histogram = seen(values)
    ranges = [histogram.percentile_range(p) for p in (90.0, 99.0, 99.9, 99.99, 100.0)]
    lows, highs = [low for low, _ in ranges], [high for _, high in ranges]
    assert lows == sorted(lows, reverse=True)
    assert highs == sorted(highs)


@settings(max_examples=30)
@given(st.integers(0, 2**32 - 1), st.sampled_from([99.0, 99.9, 99.99]))
def test_percentiles_match_the_sorted_values_within_a_bin(seed: int, percent: float) -> None:
    values = np.random.default_rng(seed).normal(size=FULL_SIZE).astype(np.float32)
    histogram = seen(values)
    low, high = histogram.percentile_range(percent)
    cut = (100 - percent) / 200
    wanted = np.quantile(values, [cut, 1 - cut], method="inverted_cdf")
    # the value is interpolated inside one bin, whose mass may start up to a bin earlier
    width = 2.0**histogram.exponent
    near = np.sort(np.abs(np.sort(values)[:, None] - wanted).min(axis=1))[:4].max()
    assert abs(low - wanted[0]) <= 2 * width + near + _gap(values, wanted[0])
    assert abs(high - wanted[1]) <= 2 * width + near + _gap(values, wanted[1])


def _gap(values: np.ndarray, at: float) -> float:
    """Distance between the neighbours of `at`: what one element of mass is worth there."""
    ordered = np.sort(values)
    index = int(np.searchsorted(ordered, at))
    return float(ordered[min(index + 1, values.size - 1)] - ordered[max(index - 1, 0)])


def test_one_sided_tensors_are_cut_on_top_only() -> None:
    values = np.abs(np.random.default_rng(0).normal(size=10_000)).astype(np.float32)
    values[:3000] = 0.0
    low, high = seen(values).percentile_range(99.0)
    assert low == 0.0
    assert np.mean(values > high) == pytest.approx(0.01, abs=0.001)  # all of the cut, on top
    low, high = seen(-values).percentile_range(99.0)
    assert high == 0.0
    assert np.mean(values > -low) == pytest.approx(0.01, abs=0.001)


def test_two_sided_tensors_are_cut_on_both_sides() -> None:
    values = np.random.default_rng(0).normal(size=10_000).astype(np.float32)
    low, high = seen(values).percentile_range(99.0)
    assert np.mean(values < low) == pytest.approx(0.005, abs=0.0005)
    assert np.mean(values > high) == pytest.approx(0.005, abs=0.0005)


def test_exact_zeros_count_as_mass() -> None:
    values = np.zeros(10_000, np.float32)
    values[:50] = 1.0
    assert seen(values).percentile_range(99.0)[1] < 0.01  # half a percent of ones is cut off
    assert seen(values).percentile_range(99.9)[1] > 0.99


def test_large_arrays_keep_exact_ends_and_sample_the_rest() -> None:
    values = np.random.default_rng(0).normal(size=(3, 400, 300)).astype(np.float32)
    values[1, 7, 11], values[2, 3, 5] = 90.0, -80.0
    histogram = seen(values)
    assert (histogram.minimum, histogram.maximum) == (-80.0, 90.0)
    assert 3 * FULL_SIZE // 2 < histogram.total <= 3 * FULL_SIZE  # of each row


@pytest.mark.parametrize("shape", [(16, 7, 60, 50), (2, 3, 20_011), (5, 40_000), (9, 3), (70_000,)])
def test_a_row_gives_the_same_elements_in_any_batch(shape: tuple[int, ...]) -> None:
    values = np.arange(math.prod(shape)).reshape(shape)
    rows = [subsample(values[at : at + 1]) for at in range(min(shape[0], 16))]
    np.testing.assert_array_equal(subsample(values)[: sum(map(len, rows))], np.concatenate(rows))


@pytest.mark.parametrize("shape", [(1_000_000,), (4096, 1536), (40, 3, 160, 160)])
def test_many_rows_are_thinned_out_too(shape: tuple[int, ...]) -> None:
    taken = subsample(np.broadcast_to(np.float32(1), shape))
    assert MOST_SIZE // 2 < taken.size <= MOST_SIZE


@pytest.mark.parametrize(
    "shape", [(1, 32, 112, 112), (1, 112, 112, 32), (4, 96, 56, 56), (70_000,), (2, 3, 20_011)]
)
def test_sampling_reaches_every_row_column_and_channel(shape: tuple[int, ...]) -> None:
    for axis, size in enumerate(shape):
        index = np.arange(size, dtype=np.float32).reshape(
            [-1 if a == axis else 1 for a in range(len(shape))]
        )
        taken = subsample(np.ascontiguousarray(np.broadcast_to(index, shape)))
        assert taken.size <= MOST_SIZE
        if size * 20 < taken.size:
            counts = np.bincount(taken.astype(int), minlength=size)
            expected = taken.size / size
            # a stride coprime with the sizes visits positions evenly up to one period
            assert counts.min() > expected / 2
            assert counts.max() < expected * 2
