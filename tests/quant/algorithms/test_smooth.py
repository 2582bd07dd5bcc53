"""SmoothQuant: the same function in real runs, the formula, each reason, and what it wins back."""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeq.ir import Graph, check, constant
from edgeq.numerics.errors import sqnr_db
from edgeq.quant.algorithms.smooth import _LIMITS, NEVER, smooth
from edgeq.quant.algorithms.transform import named_anew

GraphOf = Callable[..., Graph]
Arrays = dict[str, np.ndarray]


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng([seed, *shape]).normal(size=shape).astype(np.float32)


def with_outliers(array: np.ndarray) -> np.ndarray:
    """The array with every third of its last axis thirty times as large."""
    factor = np.where(np.arange(array.shape[-1]) % 3 == 0, 30, 1).astype(np.float32)
    return array * factor


WEIGHTS: Arrays = {
    "gain": with_outliers(1 + 0.1 * normal(12)),
    "shift": 0.1 * normal(12, seed=1),
    "wq": normal(12, 8) / 3,
    "wk": normal(12, 8, seed=1) / 3,
    "wv": normal(12, 5, seed=2) / 3,
    "w0": with_outliers(normal(12, 12, seed=3) / 3),
    "b0": 0.1 * normal(12, seed=4),
    "rows": np.array([-1, 12], np.int64),
    "two": np.array(2, np.float32),
}
HEAD = "g (float[2,6,12] x) => (float[2,6,8] y) { "
NORM = "[norm] n = LayerNormalization (x, gain, shift) "
MAKERS = {
    "LayerNormalization": NORM,
    "LayerNormalization without bias": "[norm] n = LayerNormalization (x, gain) ",
    "LayerNormalization of axis 2": "[norm] n = LayerNormalization <axis = 2> (x, gain, shift) ",
    "gain": "r = Relu (x) [norm] n = Mul (r, gain) ",
    "gain first": "r = Relu (x) [norm] n = Mul (gain, r) ",
    "gain and shift": "r = Relu (x) m = Mul (r, gain) [norm] n = Add (shift, m) ",
    "one number": "[norm] n = Mul (x, two) ",
    "MatMul": "[norm] n = MatMul (x, w0) ",
    "MatMul and Add": "m = MatMul (x, w0) [norm] n = Add (m, b0) ",
    "MatMul, Add, Relu": "m = MatMul (x, w0) a = Add (m, b0) [norm] n = Relu (a) ",
    "Gemm": "f = Reshape (x, rows) m = Gemm (f, w0, b0) n = Reshape (m, whole) ",
    "Gemm of transposed weights": "f = Reshape (x, rows) m = Gemm <transB = 1> (f, t0, b0) "
    "n = Reshape (m, whole) ",
}
READERS = {
    "one": ("[q] y = MatMul (n, wq) }", ("q",)),
    "q, k and v": (
        "[q] i = MatMul (n, wq) [k] b = MatMul (n, wk) [v] c = MatMul (n, wv) "
        "s = Add (i, b) e = ReduceSum <keepdims = 1> (c, last) y = Mul (s, e) }",
        ("q", "k", "v"),
    ),
    "a Gemm": (
        "p = Reshape (n, rows) [q] z = Gemm <transB = 1> (p, tq) y = Reshape (z, out) }",
        ("q",),
    ),
    "both": (
        "p = Reshape (n, rows) [q] z = Gemm (p, wq, b8) u = Reshape (z, out) "
        "[k] b = MatMul (n, wk) y = Add (u, b) }",
        ("q", "k"),
    ),
}
EXTRA: Arrays = {
    **WEIGHTS,
    "whole": np.array([2, 6, 12], np.int64),
    "out": np.array([2, 6, 8], np.int64),
    "last": np.array([2], np.int64),
    "t0": np.ascontiguousarray(WEIGHTS["w0"].T),
    "tq": np.ascontiguousarray(WEIGHTS["wq"].T),
    "b8": normal(8),
}


@pytest.mark.parametrize("readers", READERS)
@pytest.mark.parametrize("maker", MAKERS)
def test_the_function_stays_what_it_was(graph_of: GraphOf, lab, maker: str, readers: str) -> None:
    tail, names = READERS[readers]
    graph = graph_of(HEAD + MAKERS[maker] + tail, EXTRA)
    feeds = lab.samples(graph, 4)
    after = smooth(graph, lab.peaks(graph, feeds))
    check(after.graph)
    assert after.changed == 1
    told = ", ".join(f"`{name}`" for name in names)
    assert after.lines == (
        f"`{'n' if maker[:4] != 'Gemm' else 'm'}`: 12 channels scaled for {told}",
    )
    wanted, got = lab.outputs(graph, feeds), lab.outputs(after.graph, feeds)
    # some 40 roundings of 2**-24 (-144 dB) each, of terms up to 30 times as large as the result
    assert sqnr_db(wanted, got) > 144 - 2 * 16
    assert not np.array_equal(
        lab.outputs(graph, feeds, "n").max(axis=(0, 1, 2)),
        lab.outputs(after.graph, feeds, "n").max(axis=(0, 1, 2)),
    )
    lab.assert_names_keep_their_numbers(graph, named_anew(after), feeds)


@settings(max_examples=30)
@given(alpha=st.floats(0, 1), seed=st.integers(0, 99))
def test_the_factors_are_those_of_the_paper(graph_of: GraphOf, alpha: float, seed: int) -> None:
    """s = max|x|^alpha / max|W|^(1 - alpha), the largest over all readers; equation 4. Each
    is moved to the nearest eighth of an octave."""
    weights = {**WEIGHTS, "wq": normal(12, 8, seed=seed), "wk": normal(12, 8, seed=seed + 1)}
    text = HEAD + NORM + "[q] a = MatMul (n, wq) [k] b = MatMul (n, wk) y = Add (a, b) }"
    graph = graph_of(text, weights)
    peak = np.abs(normal(12, seed=seed + 2)).astype(np.float64) + 0.01
    after = smooth(graph, {"n": peak}, alpha=alpha).graph
    largest = np.abs(np.concatenate([weights["wq"], weights["wk"]], axis=1)).max(axis=1)
    paper = peak**alpha / largest.astype(np.float64) ** (1 - alpha)
    wanted = 2.0 ** (np.rint(8 * np.log2(paper)) / 8)
    for name in ("wq", "wk"):
        made = constant(after.value(name))
        assert made is not None
        # one rounding to float32 each
        np.testing.assert_allclose(made, weights[name] * wanted[:, None], rtol=2.0**-23)
    np.testing.assert_allclose(constant(after.value("gain")), WEIGHTS["gain"] / wanted, rtol=2**-23)
    np.testing.assert_allclose(
        constant(after.value("shift")), WEIGHTS["shift"] / wanted, rtol=2**-23
    )


def test_channels_that_say_nothing_are_left_alone_and_factors_are_bounded(
    graph_of: GraphOf,
) -> None:
    wq = WEIGHTS["wq"].copy()
    wq[1] = 0.0
    graph = graph_of(HEAD + NORM + "[q] y = MatMul (n, wq) }", {**WEIGHTS, "wq": wq})
    peak = np.ones(12)
    peak[0], peak[2], peak[3] = 0.0, 1e-30, 1e30
    after = smooth(graph, {"n": peak}).graph
    factor = WEIGHTS["gain"] / constant(after.value("gain"))
    assert factor[0] == factor[1] == 1.0
    assert factor[2] == pytest.approx(_LIMITS[0], rel=0.045)  # on the grid of factors
    assert factor[3] == pytest.approx(_LIMITS[1], rel=0.045)


def test_constants_that_others_read_are_copied(graph_of: GraphOf, lab) -> None:
    """Two norms share their gain, as exporters write ones."""
    text = HEAD + (
        "[norm] n = LayerNormalization (x, gain) o = LayerNormalization (x, gain) "
        "[q] a = MatMul (n, wq) s = ReduceSum <keepdims = 1> (o, last) y = Mul (a, s) }"
    )
    graph = graph_of(text, EXTRA)
    feeds = lab.samples(graph, 2)
    after = smooth(graph, lab.peaks(graph, feeds))
    assert after.changed == 1
    np.testing.assert_array_equal(constant(after.graph.value("gain")), EXTRA["gain"])
    assert sqnr_db(lab.outputs(graph, feeds), lab.outputs(after.graph, feeds)) > 112


CASES: list[tuple[str, str, str]] = [
    (
        "other-reader",
        NORM + "[q] a = MatMul (n, wq) [k] s = ReduceSum (n, last) y = Add (a, s) }",
        "`ReduceSum` (node `k`) reads `n` too and takes no factors",
    ),
    (
        "other-reader",
        NORM + "[q] a = MatMul (n, wq) [k] h = Transpose <perm = [0,2,1]> (n) y = MatMul (h, a) }",
        "`Transpose` (node `k`) reads `n` too and takes no factors",
    ),
    ("model-output", NORM + "[q] y = MatMul (n, wq) }", "`n` is an output of the model"),
    ("model-input", "[q] y = MatMul (x, wq) }", "`x` is an input of the model"),
    (
        "in-a-body",
        NORM + "[q] a = MatMul (n, wq) f = If (flag) <then_branch = t () => (float[2,6,12] p) "
        "{ p = Neg (n) }, else_branch = e () => (float[2,6,12] o) { o = Abs (n) }> "
        "s = ReduceSum (f, last) y = Add (a, s) }",
        "`n` is read inside a body, which stays as it is",
    ),
    (
        "shared-weights",
        NORM + "[q] a = MatMul (n, wq) b = MatMul (x, wq) y = Add (a, b) }",
        "the weights of `q` are read elsewhere too",
    ),
    (
        "stacked-weights",
        NORM + "[q] y = MatMul (n, stack) }",
        "the weights of `q` are not one matrix",
    ),
    (
        "transposed",
        "f = Reshape (x, rows) n = Mul (f, gain) [q] z = Gemm <transA = 1> (n, square) "
        "h = ReduceSum (z, first) y = Expand (h, out) }",
        "`q` reads `n` transposed",
    ),
    (
        "no-home",
        "[norm] n = Softmax (x) [q] y = MatMul (n, wq) }",
        "`Softmax` (node `norm`) makes `n` and takes no factors in",
    ),
    (
        "no-home",
        "[norm] n = Gelu (x) [q] y = MatMul (n, wq) }",
        "`Gelu` (node `norm`) makes `n` and takes no factors in",
    ),
    (
        "no-home",
        "r = Relu (x) [norm] n = Add (x, r) [q] y = MatMul (n, wq) }",
        "`Add` (node `norm`) makes `n` and takes no factors in",
    ),
    (
        "no-home",
        "[norm] n = com.acme.Mul (x, gain) [q] y = MatMul (n, wq) }",
        "`Mul` (node `norm`) makes `n` and takes no factors in",
    ),
    (
        "no-home",
        "[norm] n = MatMul (x, stack2) [q] y = MatMul (n, wq) }",
        "`MatMul` (node `norm`) makes `n` and takes no factors in",
    ),
    (
        "no-home",
        "c = Relu (shift) [norm] n = LayerNormalization (x, gain, c) [q] y = MatMul (n, wq) }",
        "`LayerNormalization` (node `norm`) makes `n` and takes no factors in",
    ),
    (
        "second-reader",
        "m = Mul (x, gain) n = Add (m, shift) [q] a = MatMul (n, wq) "
        "s = ReduceSum (m, last) y = Add (a, s) }",
        "`m`, on the way to the weights, has a second reader",
    ),
    (
        "other-axis",
        "[norm] n = LayerNormalization <axis = 1> (x, gain2) [q] y = MatMul (n, wq) }",
        "`LayerNormalization` (node `norm`) does not keep its channels on the last axis",
    ),
]


@pytest.mark.parametrize(("key", "text", "reason"), CASES)
def test_a_tensor_whose_factors_find_no_home_says_why(
    graph_of: GraphOf, key: str, text: str, reason: str
) -> None:
    head = HEAD.replace("y)", "y, float[2,6,12] n)") if key == "model-output" else HEAD
    arrays: Arrays = {
        **EXTRA,
        "stack": normal(2, 12, 8),
        "stack2": normal(2, 12, 12),
        "square": normal(12, 8),
        "gain2": normal(6, 12),
        "flag": np.array(True),
        "first": np.array([0], np.int64),
    }
    graph = graph_of(head + text, arrays)
    peaks = {name: np.ones(12) for name in "nx"}
    after = smooth(graph, peaks)
    assert after.changed == 0
    assert dict(after.refused)["q"] == reason
    literal = [re.escape(part) for part in re.split(r"\{[^}]*\}", NEVER[key])]
    assert re.fullmatch(".+".join(literal), reason)
    for value in graph.model.graph.initializers.values():
        name = str(value.name)
        np.testing.assert_array_equal(constant(after.graph.value(name)), constant(value))


def test_a_tensor_without_numbers_is_left_alone(graph_of: GraphOf) -> None:
    graph = graph_of(HEAD + NORM + "[q] y = MatMul (n, wq) }", WEIGHTS)
    after = smooth(graph, {})
    assert after.refused == (("q", "the channels of `n` were not measured"),)


def test_every_reason_has_a_case() -> None:
    assert {key for key, *_ in CASES} | {"never-measured"} == set(NEVER)


def test_outliers_are_repaired_in_static_int8(graph_of: GraphOf, lab) -> None:
    """Gains thirty times as large in a third of the channels, their weights as much smaller."""
    text = HEAD + NORM + "[q] y = MatMul (n, wq) }"
    even = {**WEIGHTS, "gain": 1 + 0.1 * normal(12)}
    factor = WEIGHTS["gain"] / even["gain"]
    skewed = {"shift": even["shift"] * factor, "wq": even["wq"] / factor[:, None]}
    graph = graph_of(text, {**WEIGHTS, **skewed})
    feeds = lab.samples(graph, 16, seed=2)
    wanted = lab.outputs(graph, feeds)
    after = smooth(graph, lab.peaks(graph, lab.samples(graph, 8, seed=1)))
    broken, repaired = (lab.int8_db(one, wanted, feeds) for one in (graph, after.graph))
    assert repaired > broken + 8.0
    assert repaired > lab.int8_db(graph_of(text, even), wanted, feeds) - 1.0
