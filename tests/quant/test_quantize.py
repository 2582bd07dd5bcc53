"""Numbers of the plan: DESIGN section 4, rule by rule."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeq.errors import EdgeqError
from edgeq.ir import Graph
from edgeq.numerics import affine
from edgeq.numerics.pair_safe import PAIR_LIMIT, pair_peak
from edgeq.quant.calibrate import Statistics
from edgeq.quant.draft import draft
from edgeq.quant.observers.histogram import Histogram
from edgeq.quant.plan import Encoding, QuantPlan
from edgeq.quant.quantize import quantize
from edgeq.quant.ranges import METHODS

GraphOf = Callable[..., Graph]
RNG = np.random.default_rng(7)


def normal(*shape: int, scale: float = 1.0) -> np.ndarray:
    return (RNG.normal(size=shape) * scale).astype(np.float32)


def plan_of(
    graph: Graph,
    ranges: Mapping[str, tuple[float, float]],
    *,
    method: str = "minmax",
    pair_safe: bool = False,
) -> QuantPlan:
    """The plan under given ranges; every other observed tensor was seen from -1 to 1."""
    made = draft(graph)
    histograms = {}
    for name in made.observe:
        histograms[name] = Histogram()
        histograms[name].add(np.array(ranges.get(name, (-1.0, 1.0)), np.float32))
    return quantize(graph, made, Statistics(histograms, 1), method=method, pair_safe=pair_safe)


def value_range(encoding: Encoding) -> tuple[float, float]:
    scale, zero_point = encoding.scale[0], encoding.zero_point[0]
    return (-128 - zero_point) * scale, (127 - zero_point) * scale


CONV = "g (float[1,3,8,8] x) => (y) { [c] y = Conv(x, w, b) }"


def test_activations_are_affine_and_weights_symmetric_per_channel(graph_of: GraphOf) -> None:
    w, b = normal(5, 3, 3, 3), normal(5)
    plan = plan_of(graph_of(CONV, {"w": w, "b": b}), {"x": (-1.0, 3.0), "y": (0.5, 4.0)})
    x, y = plan.tensors["x"], plan.tensors["y"]
    assert (x.dtype, x.axis, x.symmetric, x.origin) == ("int8", None, False, "minmax")
    assert x.scale == (float(affine.round_up_scale(4 / 255)),)
    assert y.zero_point == (-128,)  # 0 is part of every range
    weights = plan.tensors["w"]
    assert (weights.axis, weights.symmetric, weights.zero_point) == (0, True, (0,) * 5)
    peaks = np.abs(w).reshape(5, -1).max(axis=1)
    np.testing.assert_array_equal(
        np.array(weights.scale, np.float32), affine.round_up_scale(peaks / 127)
    )
    bias = plan.tensors["b"]
    assert (bias.dtype, bias.axis, bias.zero_point) == ("int32", 0, (0,) * 5)
    products = tuple(float(np.float32(x.scale[0]) * np.float32(s)) for s in weights.scale)
    assert bias.scale == products
    assert all(s == x.scale[0] * t for s, t in zip(bias.scale, weights.scale, strict=True))


@pytest.mark.parametrize(
    ("node", "shape", "axis", "count"),
    [
        ("Gemm (x, w)", (8, 5), 1, 5),
        ("Gemm <transB = 1> (x, w)", (5, 8), 0, 5),
        ("MatMul (x, w)", (8, 5), 1, 5),
        ("MatMul (x, w)", (2, 8, 5), None, 1),
        ("MatMul (x, w)", (8,), None, 1),
    ],
)
def test_linear_weights_have_a_scale_per_column(
    graph_of: GraphOf, node: str, shape: tuple[int, ...], axis: int | None, count: int
) -> None:
    w = normal(*shape)
    graph = graph_of(f"g (float[6,8] x) => (y) {{ y = {node} }}", {"w": w})
    weights = plan_of(graph, {}).tensors["w"]
    assert (weights.axis, len(weights.scale)) == (axis, count)
    others = tuple(at for at in range(w.ndim) if at != axis) if axis is not None else None
    peaks = np.abs(w).max(axis=others)
    np.testing.assert_array_equal(
        np.array(weights.scale, np.float32), np.atleast_1d(affine.round_up_scale(peaks / 127))
    )


def test_fixed_outputs_keep_the_specifications_numbers(graph_of: GraphOf) -> None:
    graph = graph_of(
        """g (float[2,4,4] a) => (y) {
          p = Softmax(a)  t = Tanh(a)  m = MatMul(p, t)  s = Sigmoid(m)  y = MatMul(s, w)
        }""",
        {"w": normal(4, 4)},
    )
    tensors = plan_of(graph, {}).tensors
    assert (tensors["p"].scale, tensors["p"].zero_point) == ((1 / 256,), (-128,))
    assert (tensors["s"].scale, tensors["s"].zero_point) == ((1 / 256,), (-128,))
    assert (tensors["t"].scale, tensors["t"].zero_point) == ((1 / 128,), (0,))
    assert tensors["p"].origin == "Softmax output"


def test_tied_tensors_share_one_encoding_after_the_clamp(graph_of: GraphOf) -> None:
    graph = graph_of(
        """g (float[1,3,8,8] x) => (y) {
          a = Conv(x, w)  p = MaxPool <kernel_shape = [2,2]> (a)  r = Relu(p)
          t = Transpose <perm = [0,2,3,1]> (r)  y = MatMul(t, v)
        }""",
        {"w": normal(4, 3, 3, 3), "v": normal(4, 2)},
    )
    tensors = plan_of(graph, {"a": (-9.0, 5.1)}).tensors
    assert tensors["a"] == tensors["r"] == tensors["t"]
    assert value_range(tensors["a"]) == pytest.approx((0.0, 5.1), rel=2**-11)
    assert "p" not in tensors


CONCAT = """g (float[1,3,8,8] x) => (y) {
  a = Conv(x, w)  b = Conv(x, w)  r = Relu(b)  [join] c = Concat <axis = 1> (a, r)  y = Conv(c, v)
}"""


@pytest.mark.parametrize(
    ("a", "r", "tied"),
    [
        ((0.0, 2.0), (0.0, 3.9), True),
        ((0.0, 2.0), (0.0, 4.1), False),  # would cost `a` more than a bit
        ((-0.5, 2.0), (0.0, 2.0), False),  # would let the folded Relu's output below zero
        ((0.0, 0.0), (0.0, 2.0), True),  # a tensor that is always zero loses nothing
    ],
)
def test_concat_ties_only_like_ranges_and_never_undoes_a_clamp(
    graph_of: GraphOf, a: tuple[float, float], r: tuple[float, float], tied: bool
) -> None:
    graph = graph_of(CONCAT, {"w": normal(4, 3, 1, 1), "v": normal(4, 8, 1, 1)})
    both = (min(a[0], r[0]), max(a[1], r[1]))
    tensors = plan_of(graph, {"a": a, "r": r, "c": both}).tensors
    same = tensors["a"] == tensors["r"] == tensors["c"]
    assert same is tied
    assert ("one range for `join`" in tensors["a"].origin) is tied
    assert value_range(tensors["r"])[0] == 0.0


def test_a_chain_of_concats_never_costs_the_first_tensor_more_than_a_bit(graph_of: GraphOf) -> None:
    graph = graph_of(
        """g (float[1,3,8,8] x) => (y) {
          a = Conv(x, w)  b = Conv(x, w)  d = Conv(x, w)
          e = Concat <axis = 1> (a, b)  f = Concat <axis = 1> (e, d)  y = Conv(f, v)
        }""",
        {"w": normal(4, 3, 1, 1), "v": normal(4, 12, 1, 1)},
    )
    ranges = {"a": (0.0, 1.0), "b": (0.0, 1.9), "e": (0.0, 1.9), "d": (0.0, 3.0), "f": (0.0, 3.0)}
    tensors = plan_of(graph, ranges).tensors
    assert tensors["a"] == tensors["b"] == tensors["e"]
    assert tensors["d"] != tensors["a"]
    assert tensors["f"] != tensors["e"]


def test_a_fixed_operand_leaves_a_concat_untied(graph_of: GraphOf) -> None:
    graph = graph_of(
        """g (float[1,3,8,8] x) => (y) {
          a = Conv(x, w)  s = Sigmoid(a)  c = Concat <axis = 1> (a, s)  y = Conv(c, v)
        }""",
        {"w": normal(4, 3, 1, 1), "v": normal(4, 8, 1, 1)},
    )
    tensors = plan_of(graph, {"a": (0.0, 1.0), "c": (0.0, 1.0)}).tensors
    assert tensors["s"].scale == (1 / 256,)
    assert tensors["a"].origin == tensors["c"].origin == "minmax"


def test_percentile_methods_cut_the_tails(graph_of: GraphOf) -> None:
    graph = graph_of("g (float[6,8] x) => (y) { y = MatMul(x, w) }", {"w": normal(8, 5)})
    made = draft(graph)
    values = np.abs(RNG.normal(size=16_000)).astype(np.float32)
    values[0] = 1000.0
    histograms = {name: Histogram() for name in made.observe}
    for histogram in histograms.values():
        histogram.add(values)
    plans = {
        method: quantize(graph, made, Statistics(histograms, 1), method=method, pair_safe=False)
        for method in ("minmax", "p99.999", "p99.99")
    }
    highs = {method: value_range(plan.tensors["x"])[1] for method, plan in plans.items()}
    assert highs["minmax"] == pytest.approx(1000.0, rel=2**-11)
    assert highs["p99.99"] < 6.0
    assert highs["p99.99"] <= highs["p99.999"] <= highs["minmax"]
    assert plans["p99.99"].tensors["x"].origin == "p99.99"


def test_an_unknown_method_is_refused(graph_of: GraphOf) -> None:
    graph = graph_of("g (float[6,8] x) => (y) { y = MatMul(x, w) }", {"w": normal(8, 5)})
    with pytest.raises(EdgeqError, match=r"no range method `k`: `minmax`, `p99\.999`") as caught:
        plan_of(graph, {}, method="k")
    assert caught.value.slug == "unknown-algorithm"


def test_each_tensor_may_have_a_method_of_its_own(graph_of: GraphOf) -> None:
    graph = graph_of("g (float[6,8] x) => (y) { y = MatMul(x, w) }", {"w": normal(8, 5)})
    made = draft(graph)
    histograms = {name: Histogram() for name in made.observe}
    for histogram in histograms.values():
        histogram.add(np.append(normal(16_000), 1000.0).astype(np.float32))
    statistics = Statistics(histograms, 1)
    whole = {
        method: quantize(graph, made, statistics, method=method, pair_safe=False).tensors
        for method in ("minmax", "p99.99", "mse")
    }
    methods = {"x": "p99.99", "of no tensor": "kl"}
    mixed = quantize(graph, made, statistics, method=methods, pair_safe=False).tensors
    assert mixed["x"] == whole["p99.99"]["x"]
    assert mixed["y"] == whole["minmax"]["y"]  # what is not named
    methods = {"x": "mse", "y": "p99.99"}
    mixed = quantize(graph, made, statistics, method=methods, pair_safe=False).tensors
    assert (mixed["x"], mixed["y"]) == (whole["mse"]["x"], whole["p99.99"]["y"])
    assert [mixed[name].origin for name in "xy"] == ["mse", "p99.99"]


CLIPPED = "g (float[1,3,8,8] x) => (y) { c = Conv(x, w)  r = Clip(c, low, high)  y = Conv(r, v) }"


@given(
    low=st.floats(-8, 0, width=32),
    high=st.floats(0.125, 8, width=32),
    method=st.sampled_from(METHODS),
)
def test_a_folded_clip_is_kept_whatever_its_bounds(
    graph_of: GraphOf, low: float, high: float, method: str
) -> None:
    """Rounding the scale up may leave an end code a step short: then the scale below is taken."""
    weights = {"w": normal(4, 3, 1, 1), "v": normal(2, 4, 1, 1)}
    bounds = {"low": np.array(low, np.float32), "high": np.array(high, np.float32)}
    graph = graph_of(CLIPPED, {**weights, **bounds})
    reached = np.clip(normal(2_000, scale=9.0), low, high).astype(np.float32)
    made = draft(graph)
    histograms = {name: Histogram() for name in made.observe}
    for histogram in histograms.values():
        histogram.add(reached)
    plan = quantize(graph, made, Statistics(histograms, 1), method=method, pair_safe=False)
    encoding = plan.tensors["r"]
    first, last = value_range(encoding)
    # nothing beyond a bound by half a step or more can be told from the bound
    assert first >= low - encoding.scale[0] / 2
    assert last <= high + encoding.scale[0] / 2
    if method == "minmax":  # and the rest of the range is there
        assert first <= low + encoding.scale[0]
        assert last >= high - encoding.scale[0]


def test_a_bias_that_would_overflow_raises_its_channels_scale(graph_of: GraphOf) -> None:
    w, b = normal(4, 3, 3, 3), np.array([0.5, 0.78, -300.0, 0.0], np.float32)
    w[1] = 1e-30  # a dead channel whose bias lives, as in real MobileNets
    w[2] *= 1e-9
    plan = plan_of(graph_of(CONV, {"w": w, "b": b}), {"x": (0.0, 1.0)})
    codes = np.rint(b / np.array(plan.tensors["b"].scale))
    assert np.abs(codes).max() <= 2**30 + 2
    # what the bias means is kept to one part in 2**29, whatever the weights were
    restored = codes * np.array(plan.tensors["b"].scale)
    np.testing.assert_allclose(restored[1:3], b[1:3], rtol=2.0**-29)
    assert "2 of 4 weight channels have a coarser scale so that their bias fits int32" in plan.notes


def test_channels_of_zeros_keep_a_scale_that_their_bias_can_use(graph_of: GraphOf) -> None:
    w, b = normal(3, 3, 3, 3, scale=0.01), np.array([0.1, 0.123456, 0.2], np.float32)
    w[1] = 0.0
    plan = plan_of(graph_of(CONV, {"w": w, "b": b}), {"x": (0.0, 1.0)})
    scale = plan.tensors["b"].scale[1]
    assert abs(np.rint(b[1] / scale) * scale - b[1]) <= scale / 2 <= 1e-6
    assert plan.notes == ("1 of 3 weight channels hold only zeros",)


def test_a_layer_of_zeros_has_positive_scales(graph_of: GraphOf) -> None:
    w, b = np.zeros((3, 3, 3, 3), np.float32), np.zeros(3, np.float32)
    plan = plan_of(graph_of(CONV, {"w": w, "b": b}), {})
    assert all(scale > 0 for scale in plan.tensors["w"].scale)


def test_a_sum_that_could_overflow_int32_is_scaled_down(graph_of: GraphOf) -> None:
    w = np.ones((70_000, 2), np.float32)  # 70000 * 255 * 127 > 2**31
    graph = graph_of("g (float[1,70000] x) => (y) { y = MatMul(x, w) }", {"w": w})
    plan = plan_of(graph, {})
    codes = affine.quantize_weights(w, np.array(plan.tensors["w"].scale, np.float32), 1)
    assert 255 * np.abs(codes.astype(np.int64)).sum(axis=0).max() <= 2**31 - 1
    assert plan.notes == (
        "2 of 2 weight channels have a coarser scale so that their sum fits int32",
    )


def test_scales_beyond_float32_are_refused_by_name(graph_of: GraphOf) -> None:
    w, b = np.full((2, 3, 1, 1), 1e30, np.float32), np.zeros(2, np.float32)
    with pytest.raises(
        EdgeqError, match=r"node `c` \(Conv\): input scale .* beyond float32"
    ) as caught:
        plan_of(graph_of(CONV, {"w": w, "b": b}), {"x": (0.0, 1e30)})
    assert caught.value.slug == "range-too-wide"
    assert caught.value.hints == ("keep it in float: `--keep-float c`",)


def test_a_bias_beyond_float32_is_refused_the_same_way(graph_of: GraphOf) -> None:
    w, b = np.full((2, 3, 1, 1), 1e-30, np.float32), np.full(2, 3e38, np.float32)
    with pytest.raises(EdgeqError, match="weight scale inf is beyond float32"):
        plan_of(graph_of(CONV, {"w": w, "b": b}), {"x": (0.0, 1e-30)})


def weight_codes(plan: QuantPlan, name: str, w: np.ndarray) -> np.ndarray:
    encoding = plan.tensors[name]
    return affine.quantize_weights(w, np.array(encoding.scale, np.float32), encoding.axis)


def test_pair_safe_weights_follow_the_kernels_order(graph_of: GraphOf) -> None:
    """Pairs are neighbours of (kh, kw, cin); with 3 input channels they straddle positions."""
    w = np.abs(normal(4, 3, 3, 3))
    graph = graph_of(CONV, {"w": w, "b": normal(4)})
    codes = weight_codes(plan_of(graph, {}, pair_safe=True), "w", w)
    rows = codes.transpose(0, 2, 3, 1).reshape(4, -1)
    assert pair_peak(rows).max() <= PAIR_LIMIT
    plain = weight_codes(plan_of(graph, {}), "w", w).transpose(0, 2, 3, 1).reshape(4, -1)
    assert pair_peak(plain).max() > PAIR_LIMIT


@pytest.mark.parametrize(
    ("node", "shape"),
    [
        ("Gemm (x, w)", (9, 5)),
        ("Gemm <transB = 1> (x, w)", (5, 9)),
        ("MatMul (x, w)", (9, 5)),
        ("MatMul (x, w)", (2, 9, 5)),
        ("MatMul (x, w)", (9,)),
    ],
)
def test_pair_safe_linear_weights_pair_along_k(
    graph_of: GraphOf, node: str, shape: tuple[int, ...]
) -> None:
    w = 1.0 + np.abs(normal(*shape, scale=0.1))  # all alike, so that any pair saturates
    graph = graph_of(f"g (float[6,9] x) => (y) {{ y = {node} }}", {"w": w})
    plan = plan_of(graph, {}, pair_safe=True)
    codes = weight_codes(plan, "w", w)
    if "transB" not in node:
        codes = np.moveaxis(codes, -2, -1) if codes.ndim > 1 else codes
    rows = codes.reshape(-1, 9)
    assert pair_peak(rows).max() <= PAIR_LIMIT
    assert any("no pair of weights saturates" in note for note in plan.notes)


def test_pair_safe_leaves_depthwise_and_safe_weights_alone(graph_of: GraphOf) -> None:
    w = np.abs(normal(3, 1, 3, 3))
    text = "g (float[1,3,8,8] x) => (y) { [c] y = Conv <group = 3> (x, w) }"
    graph = graph_of(text, {"w": w})
    assert plan_of(graph, {}, pair_safe=True) == plan_of(graph, {})
    alternating = normal(4, 4, 1, 1)
    alternating[:, 0::2] = np.abs(alternating[:, 0::2])
    alternating[:, 1::2] = -np.abs(alternating[:, 1::2])
    graph = graph_of("g (float[1,4,8,8] x) => (y) { y = Conv(x, w) }", {"w": alternating})
    assert plan_of(graph, {}, pair_safe=True) == plan_of(graph, {})


def test_pair_safe_changes_nothing_but_weights_and_biases(graph_of: GraphOf) -> None:
    w, b = np.abs(normal(4, 3, 3, 3)), normal(4)
    graph = graph_of(CONV, {"w": w, "b": b})
    lines = plan_of(graph, {}).diff(plan_of(graph, {}, pair_safe=True))
    assert [line.split(":")[0] for line in lines] == ["tensor `b`", "tensor `w`"]


def test_a_shared_bias_has_a_scale_for_each_reader(graph_of: GraphOf) -> None:
    graph = graph_of(
        """g (float[1,4,8,8] x) => (y) {
          [one] a = Conv(x, w, b)  [two] y = Conv(a, w, b)
        }""",
        {"w": normal(4, 4, 1, 1), "b": normal(4)},
    )
    plan = plan_of(graph, {"x": (0.0, 1.0), "a": (0.0, 7.0)})
    assert set(plan.tensors) == {"x", "a", "y", "w", "b", "b@two"}
    one, two = plan.encoding("b", "one"), plan.encoding("b", "two")
    assert one is not None
    assert two is not None
    assert two.scale[0] / one.scale[0] == pytest.approx(7.0, rel=2**-10)
    assert plan.encoding("w", "one") == plan.encoding("w", "two")


def test_weights_read_along_two_axes_have_both_encodings(graph_of: GraphOf) -> None:
    graph = graph_of(
        """g (float[4,4] x) => (y) {
          [one] a = Gemm(x, w)  [two] b = Gemm <transB = 1> (a, w)  [three] c = Add(b, w)
          [four] y = MatMul(c, w)
        }""",
        {"w": normal(4, 4)},
    )
    plan = plan_of(graph, {})
    axes = {}
    for node in ("one", "two", "three", "four"):
        encoding = plan.encoding("w", node)
        assert encoding is not None
        axes[node] = (encoding.axis, encoding.symmetric)
    assert axes == {"one": (1, True), "two": (0, True), "three": (None, False), "four": (1, True)}


def test_constant_operands_are_encoded_like_activations(graph_of: GraphOf) -> None:
    graph = graph_of(
        """g (float[1,3,8,8] x) => (y) {
          a = Conv(x, w)  m = Mul(a, gain)  y = Conv(m, v)
        }""",
        {"w": normal(4, 3, 1, 1), "gain": np.array(2.5, np.float32), "v": normal(4, 4, 1, 1)},
    )
    gain = plan_of(graph, {}).tensors["gain"]
    assert (gain.dtype, gain.symmetric, gain.zero_point, gain.origin) == (
        "int8",
        False,
        (-128,),
        "constant",
    )
    assert value_range(gain)[1] == pytest.approx(2.5, rel=2**-11)


def test_a_tensor_never_seen_is_noted(graph_of: GraphOf) -> None:
    graph = graph_of("g (float[6,8] x) => (y) { y = MatMul(x, w) }", {"w": normal(8, 5)})
    made = draft(graph)
    statistics = Statistics({name: Histogram() for name in made.observe}, 1)
    plan = quantize(graph, made, statistics, pair_safe=False)
    assert plan.notes[0] == "tensor `x` was empty in every sample: its range is assumed to be 0"
    assert plan.tensors["x"].scale == (1.0,)


def test_a_model_without_int8_ops_gets_a_plan_that_says_so(graph_of: GraphOf) -> None:
    plan = plan_of(graph_of("g (float[2,3] x) => (y) { y = Tanh(x) }"), {})
    assert {name: kinds for name, kinds in plan.counts().items() if kinds} == {
        "float32": {"Tanh": 1}
    }
    assert plan.notes == ("no op of this model can run in int8: all of it stays float",)


def test_the_last_bits_of_ranges_do_not_change_the_plan(graph_of: GraphOf) -> None:
    graph = graph_of(CONV, {"w": normal(4, 3, 3, 3), "b": normal(4)})
    top = np.float32(5.4321)
    above = float(np.nextafter(top, np.float32(9)))
    first = plan_of(graph, {"x": (-1.2345, float(top))})
    assert first == plan_of(graph, {"x": (-1.2345, above)})


@pytest.mark.parametrize(
    ("bounds", "seen", "ends"),
    [
        # everything was above the clamp, so only 0 was left: it ends at 0 all the same
        ((-1.0, 0.0), (2.0, 3.0), (-1.0, 0.0)),
        ((-np.inf, 0.0), (2.0, 3.0), (-255.0, 0.0)),
        ((0.0, 6.0), (-3.0, -2.0), (0.0, 6.0)),
        ((-1.0, 1.0), (0.0, 0.0), (-1.0, 1.0)),
        ((0.0, np.inf), (-3.0, -2.0), (0.0, 255.0)),
    ],
)
def test_a_clamp_that_leaves_only_zero_keeps_its_ends(
    graph_of: GraphOf,
    bounds: tuple[float, float],
    seen: tuple[float, float],
    ends: tuple[float, float],
) -> None:
    graph = graph_of(
        "g (float[2,8] x) => (y) { a = MatMul(x, w)  c = Clip(a, low, high)  y = MatMul(c, w) }",
        {"w": normal(8, 8), "low": np.float32(bounds[0]), "high": np.float32(bounds[1])},
    )
    encoding = plan_of(graph, {"x": (-1.0, 1.0), "c": seen}).tensors["c"]
    # a scale is rounded up by 2**-11 at most, and each end is met within half a step
    assert value_range(encoding) == pytest.approx(ends, abs=encoding.scale[0] / 2 + 255 * 2**-11)


def test_two_clamps_that_leave_nothing_but_zero_end(graph_of: GraphOf) -> None:
    graph = graph_of(
        """g (float[2,8] x) => (y) {
          a = MatMul(x, w)  r = Relu(a)  c = Clip(r, , high)  y = MatMul(c, w) }""",
        {"w": normal(8, 8), "high": np.float32(0.0)},
    )
    encoding = plan_of(graph, {"x": (-1.0, 1.0), "c": (-1.0, 1.0)}).tensors["c"]
    assert encoding.scale == (affine.SMALLEST_SCALE,)
