"""Bias correction: the formula tap by tap, each kind of layer, each reason, and what it gains."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeq.ir import Graph, check, constant
from edgeq.numerics import affine
from edgeq.numerics.errors import sqnr_db
from edgeq.quant.algorithms.bias import NEVER, correct, input_means
from edgeq.quant.algorithms.inputs import layer_inputs
from edgeq.quant.plan import Encoding, OpDecision, QuantPlan

GraphOf = Callable[..., Graph]
RNG = np.random.default_rng(11)
GRID = 1 / 64
"""How far a correction may be off, as a share of the layer's largest."""


def normal(*shape: int) -> np.ndarray:
    return RNG.normal(size=shape).astype(np.float32)


def plan_of(axis: int | None, scales: int, *weights: str) -> QuantPlan:
    """Coarse weights, so that every correction is far above rounding."""
    encoding = Encoding("int8", (0.5,) * scales, (0,) * scales, axis, True, "weights")
    return QuantPlan(dict.fromkeys(weights, encoding), {"one": OpDecision("one", "Conv", "int8")})


def rounded(weights: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(weights / np.float32(0.5)), -127, 127) * np.float32(0.5)


CONVS = {
    "dense": ("", (5, 4, 3, 3), 4),
    "one tap": ("", (5, 4, 1, 1), 4),
    "depthwise": ("group = 4", (4, 1, 3, 3), 4),
    "depthwise, two each": ("group = 4", (8, 1, 3, 3), 4),
    "grouped": ("group = 2", (6, 2, 3, 3), 4),
    "padded": ("pads = [1,2,0,1]", (5, 4, 3, 3), 4),
    "padded and strided": ("pads = [1,1,1,1], strides = [2,3]", (5, 4, 3, 3), 4),
    "dilated": ("pads = [2,2,2,2], dilations = [2,2]", (5, 4, 3, 3), 4),
    "same, upper": ('auto_pad = "SAME_UPPER", strides = [2,2]', (5, 4, 4, 3), 4),
    "same, lower": ('auto_pad = "SAME_LOWER", strides = [2,2]', (5, 4, 4, 3), 4),
    "valid": ('auto_pad = "VALID"', (5, 4, 3, 3), 4),
    "grouped and padded": ("group = 2, pads = [1,1,1,1]", (6, 2, 3, 3), 4),
}


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("kind", CONVS)
def test_an_input_of_constant_channels_is_corrected_exactly(
    graph_of: GraphOf, lab, kind: str, bias: bool
) -> None:
    """Where each channel is its mean everywhere, the corrected layer with rounded weights has the
    mean output of the float one, padding and all: run by the engine, both of them."""
    attributes, shape, channels = CONVS[kind]
    operands = "x, w, b" if bias else "x, w"
    text = f"g (float[1,{channels},7,6] x) => (y) {{ [one] y = Conv <{attributes}> ({operands}) }}"
    text = text.replace("<>", "")
    weights = normal(*shape)
    arrays = {"w": weights, "b": normal(shape[0])} if bias else {"w": weights}
    graph = graph_of(text, arrays)
    mean = normal(channels).astype(np.float64)
    after = correct(graph, plan_of(0, shape[0], "w"), {"x": mean})
    check(after.graph)
    assert (after.changed, after.refused) == (1, ())
    moved = graph_of(
        text if bias else text.replace("x, w", "x, w, b"),
        {"w": rounded(weights), "b": constant(after.graph.nodes()[0].inputs[2])},
    )
    feed = [
        {"x": np.broadcast_to(mean.astype(np.float32)[:, None, None], (1, channels, 7, 6)).copy()}
    ]
    wanted, got = lab.outputs(graph, feed)[0], lab.outputs(moved, feed)[0]
    # at most 36 products and a bias, rounded at 2**-24 of magnitudes below 50, over two runs
    old = arrays["b"] if bias else np.zeros(shape[0])
    moves = np.abs(constant(after.graph.nodes()[0].inputs[2]) - old).max()
    # ... and half a step of the grid, 1/64 of the largest shift, which `moves` is within 1/64 of
    atol = 2 * 40 * 50 * 2.0**-24 + moves * GRID / (1 - GRID)
    np.testing.assert_allclose(got.mean(axis=(0, 2, 3)), wanted.mean(axis=(0, 2, 3)), atol=atol)
    uncorrected = graph_of(text, {**arrays, "w": rounded(weights)})
    was = lab.outputs(uncorrected, feed)[0]
    assert np.abs((was - wanted).mean(axis=(0, 2, 3))).max() > 20 * atol


@pytest.mark.parametrize(
    ("node", "shape", "axis"),
    [
        ("y = Gemm (x, w, b)", (6, 5), 1),
        ("y = Gemm (x, w)", (6, 5), 1),
        ("y = Gemm <transB = 1> (x, w, b)", (5, 6), 0),
        ("m = MatMul (x, w) y = Add (m, b)", (6, 5), 1),
        ("m = MatMul (x, w) y = Add (b, m)", (6, 5), 1),
        ("m = MatMul (x, w) y = Add (m, one_b)", (6, 5), 1),
        ("m = MatMul (x, w) y = Add (m, flat_b)", (6, 5), 1),
        ("y = Gemm (x, w, one_b)", (6, 5), 1),
    ],
)
def test_products_are_corrected(
    graph_of: GraphOf, lab, node: str, shape: tuple[int, int], axis: int
) -> None:
    """b' - b = W m - Wq mq, seen at the output: float weights there, so y' - y is the shift."""
    w, m, mq = normal(*shape), normal(6).astype(np.float64), normal(6).astype(np.float64)
    arrays = {"w": w, "b": normal(5), "one_b": np.array(0.5, np.float32), "flat_b": normal(1, 5)}
    graph = graph_of(f"g (float[3,6] x) => (y) {{ [one] {node} }}", arrays)
    after = correct(graph, plan_of(axis, 5, "w"), {"x": m}, {"x": mq})
    check(after.graph)
    assert after.changed == 1
    rows = w.T if axis == 1 else w
    shift = rows.astype(np.float64) @ m - rounded(rows).astype(np.float64) @ mq
    feeds = lab.samples(graph, 1)
    moved = lab.outputs(after.graph, feeds) - lab.outputs(graph, feeds)
    # and four float32 roundings of numbers below 32
    atol = np.abs(shift).max() * GRID + 4 * 32 * 2.0**-24
    np.testing.assert_allclose(moved, np.broadcast_to(shift, moved.shape), rtol=0, atol=atol)
    [line] = after.lines
    assert float(line.removeprefix("`one`: bias moved by up to ")) == pytest.approx(
        np.abs(shift).max(), rel=GRID
    )


@settings(max_examples=25)
@given(seed=st.integers(0, 999))
def test_the_formula_tap_by_tap(graph_of: GraphOf, seed: int) -> None:
    """b' = b + W m - Wq mq in four plain loops, for a grouped convolution."""
    rng = np.random.default_rng(seed)
    w = rng.normal(size=(4, 3, 2, 2)).astype(np.float32)
    b = rng.normal(size=4).astype(np.float32)
    m, mq = rng.normal(size=6), rng.normal(size=6)
    graph = graph_of(
        "g (float[1,6,5,5] x) => (y) { [one] y = Conv <group = 2> (x, w, b) }", {"w": w, "b": b}
    )
    after = correct(graph, plan_of(0, 4, "w"), {"x": m}, {"x": mq})
    wanted = b.astype(np.float64)
    for out, into, row, column in itertools.product(range(4), range(3), range(2), range(2)):
        channel = out // 2 * 3 + into
        tap = w[out, into, row, column]
        wanted[out] += float(tap) * m[channel] - float(rounded(tap)) * mq[channel]
    atol = np.abs(wanted - b).max() * GRID + 2**-23
    np.testing.assert_allclose(constant(after.graph.value("b")), wanted, rtol=2**-23, atol=atol)


def test_the_last_bits_of_means_do_not_reach_the_bias(graph_of: GraphOf) -> None:
    """Another host's kernels sum in another order."""
    graph = graph_of(
        "g (float[1,6,5,5] x) => (y) { [one] y = Conv (x, w, b) }",
        {"w": normal(40, 6, 3, 3), "b": normal(40)},
    )
    mean = normal(6).astype(np.float64)
    first, second = (
        correct(graph, plan_of(0, 40, "w"), {"x": each}).graph
        for each in (mean, mean * (1 + 1e-9 * RNG.normal(size=6)))
    )
    np.testing.assert_array_equal(constant(first.value("b")), constant(second.value("b")))


def test_exact_weights_and_equal_means_change_nothing(graph_of: GraphOf) -> None:
    graph = graph_of(
        "g (float[1,4,5,5] x) => (y) { [one] y = Conv (x, w, b) }",
        {"w": rounded(normal(3, 4, 3, 3)), "b": normal(3)},
    )
    after = correct(graph, plan_of(0, 3, "w"), {"x": normal(4)})
    assert (after.changed, after.lines, after.refused) == (0, (), ())


def test_layers_in_float_are_left_alone_without_a_word(graph_of: GraphOf) -> None:
    graph = graph_of("g (float[1,4,5,5] x) => (y) { y = Conv (x, w) }", {"w": normal(3, 4, 3, 3)})
    after = correct(graph, QuantPlan({}, {}), {"x": normal(4)})
    assert (after.changed, after.refused) == (0, ())


def test_a_shared_bias_is_no_longer_shared(graph_of: GraphOf) -> None:
    b = normal(4)
    graph = graph_of(
        "g (float[1,4,5,5] x) => (y) { [one] a = Conv (x, w, b) [two] y = Conv (a, v, b) }",
        {"w": normal(4, 4, 1, 1), "v": normal(4, 4, 1, 1), "b": b},
    )
    after = correct(graph, plan_of(0, 4, "w", "v"), {"x": normal(4), "a": normal(4)})
    assert after.changed == 2
    one, two = (constant(node.inputs[2]) for node in after.graph.nodes())
    assert not np.array_equal(one, two)
    np.testing.assert_array_equal(constant(graph.value("b")), b)
    check(after.graph)


CASES = [
    ("not-measured", "[one] y = Conv (z, w, b)", {}, "the channels of `z` were not measured"),
    (
        "channels-differ",
        "[one] y = Conv (x, w, b)",
        {"x": np.ones(3)},
        "`x` was measured with 3 channels, `one` reads 4",
    ),
    (
        "computed-bias",
        "c = Relu (b) [one] y = Conv (x, w, c)",
        {},
        "the bias of `one` is not one constant value per channel",
    ),
    ("no-bias", "[one] y = MatMul (x, u)", {"x": np.ones(5)}, "no constant `Add` follows `one`"),
    (
        "no-bias",
        "[one] m = MatMul (x, u) y = Add (m, m)",
        {"x": np.ones(5)},
        "no constant `Add` follows `one`",
    ),
    (
        "no-bias",
        "[one] m = MatMul (x, u) y = Add (m, wide)",
        {"x": np.ones(5)},
        "no constant `Add` follows `one`",
    ),
    (
        "scaled",
        "f = Reshape (x, rows) [one] y = Gemm <alpha = 2.0> (f, u)",
        {"f": np.ones(5)},
        "`one` has alpha, beta or transA",
    ),
    (
        "stacked-weights",
        "[one] y = MatMul (x, stack)",
        {"x": np.ones(5)},
        "the weights of `one` are not one matrix",
    ),
]


@pytest.mark.parametrize(("key", "text", "means", "reason"), CASES)
def test_a_bias_that_stays_says_why(
    graph_of: GraphOf, key: str, text: str, means: dict[str, np.ndarray], reason: str
) -> None:
    arrays = {"w": normal(6, 4, 1, 1), "b": normal(6), "u": normal(5, 3), "wide": normal(5, 3)}
    arrays |= {"stack": normal(4, 5, 3), "rows": np.array([-1, 5], np.int64)}
    graph = graph_of(f"g (float[1,4,5,5] x) => (y) {{ z = Relu (x) {text} }}", arrays)
    tensors = {**plan_of(0, 6, "w").tensors, **plan_of(1, 3, "u").tensors}
    tensors |= plan_of(None, 1, "stack").tensors
    after = correct(graph, QuantPlan(tensors, {}), {"x": np.ones(4), **means})
    assert after.refused == (("one", reason),)
    literal = [re.escape(part) for part in re.split(r"\{[^}]*\}", NEVER[key])]
    assert re.fullmatch(".+".join(literal), reason)


def test_padding_of_an_unknown_size_is_told(graph_of: GraphOf) -> None:
    graph = graph_of(
        "g (float[1,4,H,W] x) => (y) { [one] y = Conv <pads = [1,1,1,1]> (x, w) }",
        {"w": normal(6, 4, 3, 3)},
    )
    after = correct(graph, plan_of(0, 6, "w"), {"x": normal(4)})
    assert after.refused == (("one", "the size of `x`, which `one` pads, is not known"),)


def test_every_reason_has_a_case() -> None:
    assert {key for key, *_ in CASES} | {"unknown-size"} == set(NEVER)


def test_means_are_of_the_float_model_and_of_its_rounded_tensors(graph_of: GraphOf, lab) -> None:
    graph = graph_of(
        "g (float[1,4,5,5] x) => (y) { a = Conv (x, w) r = Relu (a) y = Conv (r, v) }",
        {"w": normal(4, 4, 1, 1), "v": normal(4, 4, 1, 1)},
    )
    feeds = lab.samples(graph, 3)
    encoding = Encoding("int8", (0.25,), (-128,))
    plan = QuantPlan({"r": encoding}, {})
    executor = lab.executor(graph, layer_inputs(graph))
    means = input_means(executor, feeds, plan, layer_inputs(graph))
    r = lab.outputs(graph, feeds, "r")
    codes = affine.quantize(r, 0.25, -128)
    wanted = {
        "plain": r.astype(np.float64).mean(axis=(0, 1, 3, 4)),
        "rounded": affine.dequantize(codes, 0.25, -128).astype(np.float64).mean(axis=(0, 1, 3, 4)),
    }
    # 75 float64 additions
    np.testing.assert_allclose(means.plain["r"], wanted["plain"], rtol=1e-13)
    np.testing.assert_allclose(means.rounded["r"], wanted["rounded"], rtol=1e-13)
    np.testing.assert_array_equal(means.rounded["x"], means.plain["x"])  # it has no encoding


@pytest.mark.parametrize(("method", "seed"), [("minmax", 5), ("p99.9", 2), ("p99.9", 5)])
def test_int8_gains_and_the_quantized_nets_own_means_lose(
    lab, skewed_net, method: str, seed: int
) -> None:
    """Corrected all at once for means that hold the errors of the layers before, each error is
    corrected as often as there are layers behind it (notes quant-quality 1, point 11)."""
    graph = skewed_net(skew=0.0, seed=seed)
    feeds, samples = lab.samples(graph, 48, seed=2), lab.samples(graph, 8, seed=1)
    wanted, tensors = lab.outputs(graph, feeds), layer_inputs(graph)
    plan = lab.plan(graph, samples, method)
    means = input_means(lab.executor(graph, tensors), samples, plan, tensors)
    own = lab.int8_means(graph, plan, samples)

    def score(rounded_means: dict[str, np.ndarray]) -> float:
        made = correct(graph, plan, means.plain, rounded_means)
        assert made.changed == 8
        again = lab.plan(made.graph, samples, method)
        return sqnr_db(wanted, lab.int8_outputs(made.graph, again, feeds))

    before = sqnr_db(wanted, lab.int8_outputs(graph, plan, feeds))
    after = score(means.rounded)
    assert after > before + 1.0
    assert score(own) < before
