"""Range methods: each against a slow, plain form of its own formula, and real shapes of data."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from edgeq.errors import EdgeqError
from edgeq.numerics import affine
from edgeq.quant import ranges
from edgeq.quant.observers.histogram import BINS, Histogram

CODES = 256


def seen(*parts: np.ndarray) -> Histogram:
    histogram = Histogram()
    for part in parts:
        assert histogram.add(np.asarray(part, np.float32))
    return histogram


def shapes_of_data() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(3)
    normal = rng.normal(size=20_000)
    made = {
        "normal": normal,
        "relu": np.maximum(normal, 0.0),
        "minus relu": np.minimum(normal, 0.0),
        "laplace": rng.laplace(size=20_000),
        "student": rng.standard_t(2.5, size=20_000),
        "silu": 5 * normal / (1 + np.exp(-5 * normal)),
        "one spike": np.append(np.maximum(normal, 0.0), 60.0),
        "far from zero": 5.0 + rng.random(20_000),
        "two hills": np.concatenate([normal[:10_000] - 8.0, 0.2 * normal[10_000:] + 3.0]),
    }
    return {name: values.astype(np.float32) for name, values in made.items()}


DATA = shapes_of_data()
SMALL = arrays.arrays(np.float32, st.integers(2, 200), elements=st.floats(-1e3, 1e3, width=32))


def expected_error(histogram: Histogram, low: float, high: float) -> float:
    """Mean square error by formula 5.3 of the notes, bin by bin, exact zeros without error."""
    scale, zero_point = affine.from_range(low, high)
    middle = histogram.centres()
    codes = np.clip(np.rint(middle / scale) + zero_point, -128, 127)
    mass = histogram.bins.astype(np.float64)
    if histogram.zeros:
        mass[-histogram.first] -= histogram.zeros
    variance = math.ldexp(1.0, 2 * histogram.exponent) / 12
    error = ((codes - zero_point) * scale - middle) ** 2 + variance
    return float(np.sum(mass * error) / histogram.total)


def test_the_methods_in_their_order() -> None:
    assert ranges.METHODS[:6] == ("minmax", "p99.999", "p99.99", "p99.9", "mse", "kl")


def test_another_method_is_refused_by_name() -> None:
    with pytest.raises(
        EdgeqError, match="there is no range method `entropy`: `minmax`, "
    ) as caught:
        ranges.find(seen(np.ones(3)), "entropy")
    assert caught.value.slug == "unknown-algorithm"


@pytest.mark.parametrize("method", ranges.METHODS)
def test_a_tensor_never_seen_has_no_range(method: str) -> None:
    assert ranges.find(Histogram(), method) == (0.0, 0.0)
    assert ranges.find(Histogram(), method, [(0.0, 6.0)]) == (0.0, 0.0)


@pytest.mark.parametrize("method", ranges.METHODS)
@pytest.mark.parametrize("value", [0.0, 1.0, -7.25, 1e-45, 3e38, -3e38])
def test_one_value_and_zero_are_the_range_of_a_constant(method: str, value: float) -> None:
    value = float(np.float32(value))
    assert ranges.find(seen(np.full(50, value)), method) == (min(value, 0.0), max(value, 0.0))


@settings(max_examples=60)
@given(SMALL, st.sampled_from(ranges.METHODS))
def test_every_range_holds_zero_and_ends_where_the_tensor_does(
    values: np.ndarray, method: str
) -> None:
    low, high = ranges.find(seen(values), method)
    assert low <= 0.0 <= high
    least, most = min(float(values.min()), 0.0), max(float(values.max()), 0.0)
    # a window of codes ends on a multiple of its scale, and a scale that was rounded up makes the
    # window wider than the tensor: the end that was not rounded to has that on top
    scale = affine.from_range(low, high)[0]
    slack = scale / 2 + max(0.0, 255 * scale - (most - least))
    assert least - slack <= low
    assert high <= most + slack


def test_a_window_rounded_at_one_end_reaches_a_little_further_at_the_other() -> None:
    """Found by the test above: half a step, and what rounding the scale up added."""
    low, high = ranges.find(seen(np.array([-496.75, 445.0])), "mse")
    scale = affine.from_range(-496.75, 445.0)[0]
    assert low == -134 * scale
    assert high == 121 * scale


@pytest.mark.parametrize("method", ["minmax", "mse"])
def test_a_tensor_below_the_smallest_scale_keeps_its_ends(method: str) -> None:
    values = np.array([-1e-38, 0.0, 2e-38, 1e-38], np.float32)
    assert ranges.find(seen(values), method) == (float(values.min()), float(values.max()))


@settings(max_examples=40)
@given(SMALL, st.sampled_from(ranges.METHODS), st.integers(-20, 20))
def test_ranges_follow_the_unit_of_the_tensor(
    values: np.ndarray, method: str, exponent: int
) -> None:
    """A power of two scales histogram and range exactly, as long as nothing gets subnormal."""
    values = np.where(np.abs(values) < 1e-3, np.float32(0), values)
    low, high = ranges.find(seen(values), method)
    factor = 2.0**exponent
    assert ranges.find(seen(values * np.float32(factor)), method) == (low * factor, high * factor)


@settings(max_examples=40)
@given(
    arrays.arrays(np.float32, (12, 40), elements=st.floats(-1e3, 1e3, width=32)),
    st.sampled_from(ranges.METHODS),
    st.randoms(use_true_random=False),
)
def test_the_order_of_samples_and_the_batch_do_not_matter(values, method, random) -> None:
    order = list(range(12))
    random.shuffle(order)
    wanted = ranges.find(seen(values), method)
    assert ranges.find(seen(*(values[at][None] for at in order)), method) == wanted
    assert ranges.find(seen(values[order[:5]], values[order[5:]]), method) == wanted


@pytest.mark.parametrize("method", ranges.METHODS)
def test_the_batch_does_not_matter_for_large_tensors_either(method: str) -> None:
    """Rows are subsampled one by one."""
    values = np.random.default_rng(1).standard_t(3, size=(6, 24, 50, 50)).astype(np.float32)
    one_by_one = ranges.find(seen(*(row[None] for row in values)), method)
    assert ranges.find(seen(values), method) == one_by_one
    assert ranges.find(seen(values[::-1][:2], values[:4]), method) == one_by_one


@settings(max_examples=60)
@given(
    arrays.arrays(np.float32, st.integers(1, 200), elements=st.floats(-20, 20, width=32)),
    st.sampled_from([(0.0, math.inf), (0.0, 6.0), (-1.0, 1.0), (-math.inf, 4.5), (0.0, 0.0)]),
)
def test_a_clamped_histogram_is_that_of_the_clamped_tensor(
    values: np.ndarray, bounds: tuple[float, float]
) -> None:
    clamped = seen(values).clamped(*bounds)
    direct = seen(np.clip(values, *bounds).astype(np.float32))
    assert (clamped.minimum, clamped.maximum) == (direct.minimum, direct.maximum)
    assert (clamped.total, clamped.zeros) == (direct.total, direct.zeros)
    if clamped.minimum != clamped.maximum:  # a point may have no bin here, and needs none
        direct._raise_to(clamped.exponent, clamped.first)  # its range is narrower, its bins finer
        np.testing.assert_array_equal(clamped.bins, direct.bins)


@pytest.mark.parametrize("method", ranges.METHODS)
@pytest.mark.parametrize("bounds", [(0.0, math.inf), (0.0, 6.0), (-1.0, 1.0)])
def test_clamps_are_never_left(method: str, bounds: tuple[float, float]) -> None:
    for values in DATA.values():
        low, high = ranges.find(seen(values * 3), method, [bounds])
        half = affine.from_range(low, high)[0] / 2
        assert bounds[0] - half <= low
        assert high <= bounds[1] + half


def test_mass_outside_of_a_clamp_counts_at_the_bound() -> None:
    values = np.random.default_rng(0).normal(size=20_000).astype(np.float32) * 10
    clipped = seen(np.clip(values, 0, 6))
    for method in ("p99.9", "mse", "kl"):
        low, high = ranges.find(seen(values), method, [(0.0, 6.0)])
        wanted = ranges.find(clipped, method)
        assert low == wanted[0] == 0.0
        # the same tensor in bins 8 times as wide
        assert high == pytest.approx(wanted[1], rel=0.05), method


@pytest.mark.parametrize("name", DATA)
def test_the_least_square_range_beats_the_grid_of_the_notes(name: str) -> None:
    """15 x 29 candidates, the slow way. The search takes other candidates than the grid, so it may
    miss the grid's best by what lies between two scales it tried: neighbours in the last round are
    within 1.4 %, and the error of a scale s is at most quadratic in s."""
    histogram = seen(DATA[name])
    ends = min(histogram.minimum, 0.0), max(histogram.maximum, 0.0)
    grid = min(
        expected_error(histogram, ends[0] * a, ends[1] * b)
        for a in np.linspace(1.0, 0.3, 15)
        for b in np.linspace(1.0, 0.3, 29)
    )
    assert expected_error(histogram, *ranges.find(histogram, "mse")) <= grid * 1.014**2


@pytest.mark.parametrize("name", DATA)
def test_the_search_knows_the_error_that_it_minimises(name: str) -> None:
    """Its sums of moments agree with the plain formula, bin by bin."""
    histogram = seen(DATA[name])
    scale = affine.from_range(histogram.minimum * 0.7, histogram.maximum * 0.7)[0]
    [error], [start] = ranges._Moments(histogram).errors(np.array([scale]))
    unit = math.ldexp(1.0, 2 * histogram.exponent)
    plain = expected_error(histogram, start * scale, (start + 255) * scale)
    zeros = 1 - histogram.zeros / histogram.total
    # float64 sums of up to 2048 terms, and a difference of moments that cancels: 1e-9 is ample
    assert error * unit / histogram.total + zeros * unit / 12 == pytest.approx(plain, rel=1e-9)


@pytest.mark.parametrize("name", DATA)
def test_the_least_square_range_is_an_encoding(name: str) -> None:
    low, high = ranges.find(seen(DATA[name]), "mse")
    scale, zero_point = affine.from_range(low, high)
    assert (low, high) == ((-128 - zero_point) * scale, (127 - zero_point) * scale)


@pytest.mark.parametrize("name", DATA)
def test_the_least_square_range_is_the_best_on_the_data_itself(name: str) -> None:
    """Not only on the histogram: a bin is at most a quarter of a step wide, so what happens inside
    one moves the error by less than 1/16."""
    values, histogram = DATA[name], seen(DATA[name])
    errors = {}
    for method in ranges.METHODS:
        scale, zero_point = affine.from_range(*ranges.find(histogram, method))
        codes = affine.quantize(values, scale, zero_point)
        errors[method] = float(np.mean((affine.dequantize(codes, scale, zero_point) - values) ** 2))
    assert errors["mse"] <= min(errors.values()) * (1 + 1 / 16)


def slow_divergence(histogram: Histogram) -> tuple[float, float]:
    """The TensorRT recipe as published, one candidate, one level and one bin at a time."""
    mass = histogram.bins.astype(float)
    if histogram.zeros:
        mass[-histogram.first] -= histogram.zeros
    width = math.ldexp(1.0, histogram.exponent)
    low, high = min(histogram.minimum, 0.0), max(histogram.maximum, 0.0)
    best, chosen = math.inf, 1.0
    for share in np.linspace(1.0, CODES * width / (high - low), 112):
        edges = (low + (high - low) * np.linspace(0, 1, CODES + 1)) / width
        cuts = np.clip(np.ceil(share * edges - histogram.first), 0, BINS).astype(int)
        first, last = cuts[0], cuts[-1]
        p = mass[first:last].copy()
        q = np.zeros_like(p)
        if p.sum() == 0:
            continue
        outside = mass[:first].sum(), mass[last:].sum()
        edge = (p[0] == 0 and outside[0] > 0), (p[-1] == 0 and outside[1] > 0)
        p[0] += outside[0]
        p[-1] += outside[1]
        for level in range(CODES):
            own = slice(cuts[level] - first, cuts[level + 1] - first)
            inside = mass[cuts[level] : cuts[level + 1]]
            filled = inside > 0
            if level == 0 and edge[0]:
                filled[0] = True
            if level == CODES - 1 and edge[1]:
                filled[-1] = True
            if filled.any():
                q[own][filled] = max(inside.sum(), 1e-4) / filled.sum()
        p, q = p / p.sum(), q / mass[first:last].sum()
        used = p > 0
        cost = float(np.sum(p[used] * np.log(p[used] / q[used])))
        if cost < best - 1e-9:
            best, chosen = cost, float(share)
    return low * chosen, high * chosen


@pytest.mark.parametrize("name", DATA)
def test_the_divergence_is_that_of_the_published_recipe(name: str) -> None:
    histogram = seen(DATA[name])
    assert ranges.find(histogram, "kl") == pytest.approx(slow_divergence(histogram), rel=1e-12)


@pytest.mark.parametrize("name", ["laplace", "student", "one spike"])
def test_no_method_is_secretly_another(name: str) -> None:
    """ONNX Runtime's entropy ranges are its min/max, bit for bit (notes quant-quality 3.1)."""
    histogram = seen(DATA[name])
    found = {method: ranges.find(histogram, method) for method in ranges.METHODS}
    assert found["minmax"] == (min(histogram.minimum, 0.0), max(histogram.maximum, 0.0))
    assert len({found["minmax"], found["mse"], found["kl"], found["p99.99"]}) == 4
    spans = {method: high - low for method, (low, high) in found.items()}
    assert spans["p99.9"] <= spans["p99.99"] <= spans["p99.999"] <= spans["minmax"]
    assert spans["kl"] < spans["minmax"]
    assert spans["mse"] < spans["minmax"]


def test_the_divergence_cuts_what_the_squares_keep() -> None:
    """One element in 20 000 that is 15 times as large as the rest: its square outweighs the step
    errors of all others, its share of the distribution is nothing."""
    histogram = seen(DATA["one spike"])
    assert ranges.find(histogram, "mse")[1] > 30.0
    assert ranges.find(histogram, "kl")[1] < 30.0


def test_exact_zeros_pull_neither_search() -> None:
    """Every encoding holds zero, so how often it occurs says nothing about the range."""
    values = DATA["laplace"]
    padded = np.concatenate([values, np.zeros(200_000, np.float32)])
    for method in ("mse", "kl"):
        assert ranges.find(seen(padded), method) == ranges.find(seen(values), method)
