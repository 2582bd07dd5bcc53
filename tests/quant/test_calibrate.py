"""One streaming pass: what it keeps, what it refuses, what it must not hold on to."""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pytest

from edgeq.errors import EdgeqError
from edgeq.quant.calibrate import calibrate
from edgeq.quant.observers.histogram import Histogram


class Doubler:
    """An executor whose one tensor is twice the input; remembers nothing but weak references."""

    def __init__(self) -> None:
        self.alive: list[weakref.ref[np.ndarray]] = []

    def run(self, feeds: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
        made = np.asarray(feeds["x"] * np.float32(2))
        self.alive.append(weakref.ref(made))
        return {"double": made}


def samples(*values: float) -> Iterator[dict[str, np.ndarray]]:
    for value in values:
        yield {"x": np.array([[value, -1.0]], np.float32)}


def test_observes_outputs_and_graph_inputs() -> None:
    statistics = calibrate(Doubler(), samples(1.0, 5.0, 3.0), ("x", "double"))
    assert statistics.n_samples == 3
    seen = {name: (h.minimum, h.maximum, h.total) for name, h in statistics.tensors.items()}
    assert seen == {"x": (-1.0, 5.0, 6), "double": (-2.0, 10.0, 6)}


def test_no_activation_outlives_its_sample() -> None:
    executor = Doubler()
    calibrate(executor, samples(*range(50)), ("double",))
    assert sum(reference() is not None for reference in executor.alive) <= 1


def test_samples_are_taken_one_at_a_time() -> None:
    executor = Doubler()
    asked: list[int] = []

    def source() -> Iterator[dict[str, Any]]:
        for at in range(4):
            asked.append(len(executor.alive))
            yield {"x": np.full((1, 2), at, np.float32)}

    calibrate(executor, source(), ("double",))
    assert asked == [0, 1, 2, 3]


def test_order_and_batching_do_not_matter() -> None:
    data = np.random.default_rng(0).normal(size=(12, 5)).astype(np.float32)
    runs = [
        [{"x": row[None]} for row in data],
        [{"x": row[None]} for row in data[::-1]],
        [{"x": data[:7]}, {"x": data[7:]}],
    ]
    results = [calibrate(Doubler(), run, ("double",)).tensors["double"] for run in runs]
    for other in results[1:]:
        np.testing.assert_array_equal(other.bins, results[0].bins)
        assert (other.exponent, other.first) == (results[0].exponent, results[0].first)


def test_statistics_merge_as_if_seen_at_once() -> None:
    whole = calibrate(Doubler(), samples(1.0, 5.0, 3.0), ("x", "double"))
    parts = calibrate(Doubler(), samples(1.0), ("x", "double")).merge(
        calibrate(Doubler(), samples(5.0, 3.0), ("x", "double"))
    )
    assert parts.n_samples == 3
    for name, histogram in whole.tensors.items():
        assert isinstance(histogram, Histogram)
        np.testing.assert_array_equal(parts.tensors[name].bins, histogram.bins)


def test_no_sample_is_an_error() -> None:
    with pytest.raises(EdgeqError, match="got no sample at all") as caught:
        calibrate(Doubler(), [], ("x",))
    assert caught.value.slug == "no-samples"


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_non_finite_activation_names_tensor_and_sample(bad: float) -> None:
    with pytest.raises(EdgeqError, match=r"tensor `double` has 1 values .* in sample 2") as caught:
        calibrate(Doubler(), samples(1.0, 2.0, bad, 3.0), ("double",))
    assert caught.value.slug == "non-finite-activation"


def test_an_overflow_inside_the_model_is_caught_where_it_appears() -> None:
    with (
        np.errstate(over="ignore"),
        pytest.raises(EdgeqError, match="tensor `double` has 1 values"),
    ):
        calibrate(Doubler(), samples(3e38), ("x", "double"))


def test_a_tensor_that_is_empty_in_every_sample_has_no_mass() -> None:
    empty = [{"x": np.zeros((0, 2), np.float32)}]
    assert calibrate(Doubler(), empty, ("double",)).tensors["double"].total == 0
