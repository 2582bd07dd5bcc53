"""MatMul + Add to Gemm, and Gemm in its plainest form."""

import numpy as np
import pytest

from edgeq.ir import attribute, constant
from edgeq.passes import linear


def ulps(weights: np.ndarray, x: np.ndarray, factor: float = 1.0) -> float:
    """Another order of a sum of K products and one more rounding of each: K + 2 ulp of the sum."""
    inner = x.shape[-1]
    peak = inner * float(np.abs(weights).max() * np.abs(x).max()) * max(1.0, factor)
    return 2 * (inner + 2) * peak * float(np.finfo(np.float32).eps)


@pytest.mark.parametrize("order", ["p, bias", "bias, p"])
@pytest.mark.parametrize("shape", [(3,), (1, 3), (1,), ()])
def test_becomes_gemm(make, run, ops, apply, noise, order, shape):
    text = f"g (float[N,6] x) => (float[N,3] y) {{ [m] p = MatMul (x, w) [a] y = Add ({order}) }}"
    graph = make(text, w=noise(6, 3), bias=noise(*shape))
    after, refused, changed = apply(linear.run, graph)
    assert ops(after) == ["Gemm"]
    assert refused == {}
    assert changed == ["`MatMul` (node `m`) and `Add` (node `a`) became `Gemm`"]
    bias = constant(after.nodes()[0].inputs[2])
    assert bias is not None and bias.shape == (3,)
    x = noise(5, 6)
    bound = ulps(noise(6, 3) * 3, x)
    np.testing.assert_allclose(
        run(after, {"x": x})["y"], run(graph, {"x": x})["y"], atol=bound, rtol=0
    )


def test_gemm_takes_alpha_and_beta_into_its_constants(make, run, ops, apply, noise):
    text = """g (float[4,6] x) => (float[4,3] y) {
        y = Gemm <alpha = 0.5, beta = 3.0, transB = 1> (x, w, b) }"""
    graph = make(text, w=noise(3, 6), b=noise(1, 3))
    after, refused, changed = apply(linear.run, graph)
    node = after.nodes()[0]
    assert set(node.attributes) == {"transB"}
    assert refused == {}
    assert changed == [
        "`Gemm` (node `Gemm_0`): alpha 0.5 is in its constant now",
        "`Gemm` (node `Gemm_0`): beta 3 is in its constant now",
        "`Gemm` (node `Gemm_0`): its bias has the shape [3] now",
    ]
    x = noise(4, 6)
    bound = ulps(noise(3, 6) * 3, x, 3.0)
    np.testing.assert_allclose(
        run(after, {"x": x})["y"], run(graph, {"x": x})["y"], atol=bound, rtol=0
    )


def test_a_plain_gemm_stays_as_it_is(make, apply, noise):
    text = "g (float[4,6] x) => (float[4,3] y) { y = Gemm <alpha = 1.0> (x, w, b) }"
    after, refused, changed = apply(linear.run, make(text, w=noise(6, 3), b=noise(3)))
    assert (refused, changed) == ({}, [])
    assert attribute(after.nodes()[0], "alpha", None) is None


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("g (float[2,4,6] x) => (float[2,4,3] y)", "its input has rank 3, Gemm takes rank 2"),
        (
            "g (float[N,6] x, float[3] bias) => (float[N,3] y)",
            "the bias is not a constant with one value per column",
        ),
    ],
)
def test_stays_matmul(make, ops, apply, noise, text, reason):
    arrays = {"w": noise(6, 3)} if "bias" in text else {"w": noise(6, 3), "bias": noise(3)}
    graph = make(f"{text} {{ [m] p = MatMul (x, w) y = Add (p, bias) }}", **arrays)
    after, refused, _ = apply(linear.run, graph)
    assert ops(after) == ["MatMul", "Add"]
    assert refused == {"m": reason}


@pytest.mark.parametrize("shape", [(5, 1), (5, 3), (2, 5, 3)])
def test_a_bias_that_differs_by_row_stays(make, ops, apply, noise, shape):
    text = "g (float[5,6] x) => (float[A,B] y) { [m] p = MatMul (x, w) y = Add (p, bias) }"
    text = text.replace("A,B", "2,A,B") if len(shape) == 3 else text
    after, refused, _ = apply(linear.run, make(text, w=noise(6, 3), bias=noise(*shape)))
    assert ops(after) == ["MatMul", "Add"]
    assert refused == {"m": "the bias is not a constant with one value per column"}


def test_integers_stay(make, ops, apply):
    text = "g (int32[2,6] x) => (int32[2,3] y) { [m] p = MatMul (x, w) y = Add (p, b) }"
    whole = np.ones((6, 3), np.int32)
    after, refused, _ = apply(linear.run, make(text, w=whole, b=whole[0]))
    assert ops(after) == ["MatMul", "Add"]
    assert refused == {"m": "its input is int32"}


def test_a_second_reader_keeps_the_product(make, ops, apply, noise):
    text = """g (float[N,6] x) => (float[N,3] y, float[N,3] z) {
        [m] p = MatMul (x, w) y = Add (p, b) z = Relu (p) }"""
    after, refused, _ = apply(linear.run, make(text, w=noise(6, 3), b=noise(3)))
    assert ops(after) == ["MatMul", "Add", "Relu"]
    assert refused == {"m": "its product has a second reader, so the sum cannot take it in"}


def test_scaled_values_that_are_not_constant_stay(make, apply, noise):
    text = "g (float[2,6] x, float[3] b) => (float[2,3] y) { y = Gemm <beta = 2.0> (x, w, b) }"
    _, refused, _ = apply(linear.run, make(text, w=noise(6, 3)))
    assert refused == {"Gemm_0": "beta is 2 and what it scales is not a constant"}


def test_a_turned_input_is_said(make, apply, noise):
    text = "g (float[6,2] x) => (float[2,3] y) { y = Gemm <transA = 1> (x, w) }"
    _, refused, _ = apply(linear.run, make(text, w=noise(6, 3)))
    assert refused == {"Gemm_0": "transA is set, and its left operand is not a constant"}


def test_a_product_that_a_body_reads_stays(make, run, ops, inside, apply, noise):
    text = """g (float[2,6] x, bool c) => (float[2,3] y, float[2,3] z) {
        [m] p = MatMul (x, w)
        y = Add (p, bias)
        z = If (c) <then_branch = t () => (float[2,3] a) { q = MatMul (x, w) a = Add (q, bias) },
                    else_branch = e () => (float[2,3] b) { b = Relu (p) }> }"""
    graph = make(text, w=noise(6, 3), bias=noise(3))
    after, refused, changed = apply(linear.run, graph)
    assert ops(after) == ["MatMul", "Add", "If"]
    assert refused == {"m": "its product has a second reader, so the sum cannot take it in"}
    assert inside(after)["If_2/then_branch"] == ["Gemm"]  # of the body alone
    assert len(changed) == 1
    feeds = {"x": noise(2, 6), "c": np.array(True)}
    bound = ulps(noise(6, 3) * 3, feeds["x"])
    np.testing.assert_allclose(run(after, feeds)["z"], run(graph, feeds)["z"], atol=bound, rtol=0)
