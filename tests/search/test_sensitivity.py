"""One tensor at a time: the search by halves, and the session in which each has a switch."""

import math
from collections.abc import Callable

import numpy as np
import pytest

from edgeq.api.lab import Lab
from edgeq.ir import Graph
from edgeq.numerics import affine
from edgeq.quant.plan import Encoding
from edgeq.search import sensitivity
from edgeq.search.scoring import Score

RNG = np.random.default_rng(2)
Graphs = Callable[..., Graph]


def measure_of(noise: dict[int, float]) -> Callable[[frozenset[int]], Score]:
    """Errors add, as they do; what is not in `noise` costs nothing."""

    def measure(on: frozenset[int]) -> Score:
        total = sum(noise.get(at, 1e-9) for at in on)
        decibels = -10 * math.log10(total)
        return Score({"y": decibels}, decibels)

    return measure


def test_finds_the_tensors_that_alone_lose_the_output() -> None:
    noise = {17: 0.5, 90: 10 ** (-0.79), 200: 10 ** (-0.81), 300: 0.01}
    found = sensitivity.find(measure_of(noise), 370, 600)
    assert list(found.fragile) == [17, 90]
    assert found.fragile[17].worst == ("y", pytest.approx(3.0103))
    assert found.left == 0
    assert found.trials < 60, "by halves, not 370 one by one"
    assert 200 in found.alone, "measured, and good enough"
    assert 300 not in found.alone, "never worth a look"


def test_a_good_model_costs_one_trial() -> None:
    found = sensitivity.find(measure_of({}), 1000, 600)
    assert (found.trials, found.alone, found.left) == (1, {}, 0)


def test_a_cap_on_work_leaves_the_rest_and_says_how_many() -> None:
    noise = dict.fromkeys(range(64), 0.5)
    found = sensitivity.find(measure_of(noise), 64, 20)
    assert 20 <= found.trials <= 21
    assert found.left + len(found.alone) == 64
    assert found.left > 0


def test_the_worst_are_found_in_order() -> None:
    noise = {17: 0.05, 90: 0.01, 200: 0.02, 300: 0.001}
    found = sensitivity.worst(measure_of(noise), 370, 3, 600)
    assert list(found) == [17, 200, 90]
    assert sensitivity.worst(measure_of(noise), 370, 3, 5) == {}
    assert list(sensitivity.worst(measure_of(noise), 1, 3, 600)) == [0]


@pytest.mark.parametrize("count", [1, 2, 3])
def test_few_tensors_are_all_measured(count: int) -> None:
    found = sensitivity.find(measure_of(dict.fromkeys(range(count), 0.5)), count, 600)
    assert sorted(found.alone) == list(range(count))


def test_work_is_counted_in_products(graph_of: Graphs) -> None:
    graph = graph_of(
        """g (float[N,3,8,8] x) => (float[N,5] z) {
            a = Conv <pads: ints = [1, 1, 1, 1]> (x, w)
            b = Flatten (a)
            z = Gemm (b, w2) }""",
        {
            "w": np.ones((4, 3, 3, 3), np.float32),
            "w2": np.ones((256, 5), np.float32),
        },
    )
    assert sensitivity.macs(graph) == 4 * 64 * 27 + 256 * 5
    assert sensitivity.trial_limit(graph, 4) == sensitivity.MOST_TRIALS


def test_each_group_has_a_switch_of_its_own(graph_of: Graphs, lab: Lab) -> None:
    """An input, an inner tensor that is an output too, and weights with a scale per channel."""
    graph = graph_of(
        """g (float[N,4] x) => (float[N,3] h, float[N,3] y) {
            h = MatMul (x, w)
            y = Relu (h) }""",
        {"w": RNG.normal(size=(4, 3)).astype(np.float32)},
    )
    w = np.asarray(graph.value("w").const_value.numpy())  # type: ignore[union-attr]
    scales = tuple(float(s) for s in affine.symmetric_scale(np.abs(w).max(axis=0)))
    groups = [
        [("x", Encoding("int8", (0.05,), (3,)))],
        [("h", Encoding("int8", (0.1,), (-7,)))],
        [("w", Encoding("int8", scales, (0,) * 3, 1, True))],
    ]
    x = RNG.normal(size=(2, 4)).astype(np.float32)

    def rounded(value: np.ndarray, at: int) -> np.ndarray:
        encoding = groups[at][0][1]
        scale, point = np.array(encoding.scale, np.float32), np.array(encoding.zero_point)
        scale, point = (scale, point) if encoding.axis is not None else (scale[0], point[0])
        codes = affine.quantize(value, scale, point, axis=encoding.axis)
        return affine.dequantize(codes, scale, point, axis=encoding.axis)

    with lab.switched(graph, groups) as model:
        for on in (set(), {0}, {1}, {2}, {0, 1, 2}):
            got = model.run({"x": x}, frozenset(on))
            left = rounded(x, 0) if 0 in on else x
            right = rounded(w, 2) if 2 in on else w
            h = left @ right
            h = rounded(h, 1) if 1 in on else h
            # sums of 4 products: a few float32 roundings of values of about 3
            np.testing.assert_allclose(got["h"], h, rtol=0, atol=2e-6)
            np.testing.assert_allclose(got["y"], np.maximum(h, 0), rtol=0, atol=2e-6)
