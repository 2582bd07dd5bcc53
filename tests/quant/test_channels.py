"""Statistics per channel: the plain numpy numbers, whatever the batches."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from edgeq.errors import EdgeqError
from edgeq.ir import Graph
from edgeq.quant.algorithms.inputs import layer_inputs
from edgeq.quant.calibrate import calibrate_channels
from edgeq.quant.observers.channels import ChannelStatistics

VALUES = st.floats(-1e4, 1e4, width=32)


def seen(axis: int, *parts: np.ndarray) -> ChannelStatistics:
    statistics = ChannelStatistics(axis)
    for part in parts:
        assert statistics.add(part)
    return statistics


@given(
    arrays.arrays(np.float32, st.tuples(*[st.integers(1, 5)] * 4), elements=VALUES),
    st.sampled_from([1, -1, 2]),
)
def test_the_numbers_are_numpys(values: np.ndarray, axis: int) -> None:
    statistics = seen(axis, values)
    others = tuple(at for at in range(4) if at != axis % 4)
    np.testing.assert_array_equal(statistics.minimum, values.min(axis=others))
    np.testing.assert_array_equal(statistics.maximum, values.max(axis=others))
    np.testing.assert_array_equal(statistics.peak, np.abs(values).max(axis=others))
    # at most 125 float64 additions of values up to 1e4
    wanted = values.astype(np.float64).mean(axis=others)
    np.testing.assert_allclose(statistics.mean, wanted, rtol=0, atol=125 * 1e4 * 2.0**-52)
    assert statistics.count == values.size // values.shape[axis]


@given(arrays.arrays(np.float32, (6, 3, 4), elements=VALUES))
def test_batches_and_order_do_not_matter(values: np.ndarray) -> None:
    whole = seen(1, values)
    for other in (seen(1, *np.split(values, 6)), seen(1, values[4:], values[:4])):
        np.testing.assert_array_equal(other.peak, whole.peak)
        np.testing.assert_array_equal(other.minimum, whole.minimum)
        assert other.count == whole.count
        # 24 float64 additions in another order
        np.testing.assert_allclose(other.mean, whole.mean, rtol=0, atol=24 * 1e4 * 2.0**-52)


def test_sums_are_float64() -> None:
    """2**24 + 1 is not a float32."""
    statistics = ChannelStatistics(-1)
    for value in (2.0**24, 1.0, 1.0):
        statistics.add(np.array([[value]], np.float32))
    assert statistics.mean[0] * 3 == 2.0**24 + 2


def test_nothing_seen_has_no_channels() -> None:
    statistics = seen(1, np.zeros((0, 3, 2), np.float32))
    assert statistics.count == 0
    assert statistics.mean.size == statistics.peak.size == 0


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_non_finite_array_is_refused_and_changes_nothing(bad: float) -> None:
    statistics = seen(1, np.ones((1, 2, 3), np.float32))
    values = np.ones((1, 2, 3), np.float32)
    values[0, 1, 2] = bad
    assert statistics.add(values) is False
    assert statistics.count == 3
    np.testing.assert_array_equal(statistics.maximum, [1.0, 1.0])


class Twice:
    """An executor whose one tensor is twice the input."""

    def run(self, feeds: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
        return {"double": feeds["x"] * np.float32(2)}


def test_outputs_and_graph_inputs_are_measured() -> None:
    feeds = [{"x": np.array([[1.0, -4.0]], np.float32)}, {"x": np.array([[3.0, 2.0]], np.float32)}]
    found = calibrate_channels(Twice(), feeds, {"x": -1, "double": -1})
    np.testing.assert_array_equal(found["x"].mean, [2.0, -1.0])
    np.testing.assert_array_equal(found["double"].peak, [6.0, 8.0])


def test_a_non_finite_tensor_names_itself_and_the_sample() -> None:
    feeds = [{"x": np.ones((1, 2), np.float32)}, {"x": np.full((1, 2), np.nan, np.float32)}]
    with pytest.raises(EdgeqError, match=r"tensor `double` has 2 values .* in sample 1") as caught:
        calibrate_channels(Twice(), feeds, {"double": -1})
    assert caught.value.slug == "non-finite-activation"


def test_what_layers_read_is_measured_along_the_axis_they_sum_over(
    graph_of: Callable[..., Graph],
) -> None:
    shapes = {"w": (4, 3, 1, 1), "w1": (4, 4, 1, 1), "v": (4, 2), "u": (2, 1)}
    shapes |= {"w2": (1, 3), "u2": (3, 1)}
    graph = graph_of(
        """g (float[1,3,8,8] x) => (y) {
          a = Conv(x, w)  r = Relu(a)  b = Conv(r, w1)  p = GlobalAveragePool(b)
          f = Flatten(p)  d = Gemm(f, v)  e = MatMul(d, u)  k = MatMul(w2, u2)
          m = MatMul(e, e)  n = Add(m, k)  y = Softmax(n)
        }""",
        {name: np.ones(shape, np.float32) for name, shape in shapes.items()},
    )
    assert layer_inputs(graph) == {"x": 1, "r": 1, "f": -1, "d": -1}
