"""HardSigmoid behind a node with weights."""

from __future__ import annotations

import numpy as np
import pytest

from edgeq.passes import hard_sigmoid, run_all

EPS = float(np.finfo(np.float32).eps)
WIDE = np.float32(3e38)


def bound(terms: int, peak: float) -> float:
    """Slope and offset round once in each weight and bias, and each of `terms` products of at most
    `peak` and their sums round: 2 (terms + 2) roundings of what they add up to."""
    return 2 * (terms + 2) * peak * EPS


@pytest.mark.parametrize("attributes", ["", "<alpha = 0.1666667, beta = 0.5>", "<alpha = -0.3>"])
def test_its_slope_goes_into_the_convolution(make, ops, apply, agree, noise, attributes):
    weights = {"w": noise(6, 4, 1, 1), "b": noise(6)}
    graph = make(
        f"""g (float[1,4,3,3] x) => (float[1,6,3,3] y) {{
          [conv] c = Conv (x, w, b)  [gate] y = HardSigmoid {attributes} (c) }}""",
        **weights,
    )
    after, refused, changed = apply(hard_sigmoid.run, graph)
    assert ops(after) == ["Conv", "Clip"]
    assert refused == {}
    assert changed == [
        "`HardSigmoid` (node `gate`) became `Clip`, its slope went into `Conv` (node `conv`)"
    ]
    assert [node.name for node in after.nodes()] == ["conv", "gate"]
    x = 4 * noise(1, 4, 3, 3)
    peak = 4 * float(np.abs(weights["w"]).max() * np.abs(x).max()) + 1
    agree(graph, after, {"x": x}, bound(4, peak))


def test_without_a_bias_and_in_a_gemm(make, ops, apply, agree, noise):
    graph = make(
        """g (float[2,4] x) => (float[2,6] z) {
          c = Gemm (x, w)  y = HardSigmoid (c)  z = Neg (y) }""",
        w=noise(4, 6),
    )
    after, _, _ = apply(hard_sigmoid.run, graph)
    assert ops(after) == ["Gemm", "Clip", "Neg"]
    x = noise(2, 4)
    agree(graph, after, {"x": x}, bound(4, 4 * float(np.abs(x).max()) * 4))


def test_a_result_that_is_an_output_keeps_its_name(make, apply, noise):
    graph = make(
        """g (float[2,4] x) => (float[2,6] y, float[2,6] n) {
          c = Gemm (x, w)  y = HardSigmoid (c)  n = Neg (y) }""",
        w=noise(4, 6),
    )
    after, _, _ = apply(hard_sigmoid.run, graph)
    assert [info.name for info in after.outputs] == ["y", "n"]


@pytest.mark.parametrize(
    ("nodes", "reason"),
    [
        ("y = HardSigmoid (x)", "its input is not computed by a node"),
        (
            "r = Relu (x) y = HardSigmoid (r)",
            "its input comes from `Relu` (node `Relu_0`), which has no weights",
        ),
        (
            "c = Gemm (x, w) h = HardSigmoid (c) y = Add (h, c)",
            "the output of `Gemm` (node `Gemm_0`) has a second reader",
        ),
        (
            "c = Gemm <alpha = 2.0> (x, w) y = HardSigmoid (c)",
            "`Gemm` (node `Gemm_0`) has alpha or beta",
        ),
        (
            "c = Gemm (x, wide) y = HardSigmoid <alpha = 4.0> (c)",
            "the folded weights would not be finite",
        ),
    ],
)
def test_where_it_must_stay(make, ops, apply, noise, nodes, reason):
    graph = make(
        f"g (float[4,4] x) => (float[4,4] y) {{ {nodes} }}",
        w=noise(4, 4),
        wide=np.full((4, 4), WIDE, np.float32),
    )
    after, refused, changed = apply(hard_sigmoid.run, graph)
    assert ops(after) == ops(graph)
    assert set(after.model.graph.initializers) <= set(graph.model.graph.initializers)
    assert list(refused.values()) == [reason]
    assert changed == []


def test_inside_a_body(branch, inside, apply, agree, noise):
    weights = {"w": noise(4, 4)}
    nodes = "k = Gemm (x, w) y = HardSigmoid (k)"
    graph = branch("2,4", nodes, **weights)
    after, _, _ = apply(hard_sigmoid.run, graph)
    assert ["Gemm", "Clip"] in inside(after).values()
    x = noise(2, 4)
    for chosen in (True, False):
        agree(
            graph, after, {"x": x, "c": np.array(chosen)}, bound(4, 4 * float(np.abs(x).max()) * 4)
        )


def test_a_gate_written_out_ends_as_a_clip(make, ops, noise):
    """Add 3, Clip 0..6, Div 6: first HardSigmoid, then this; no round undoes another's work."""
    graph = make(
        """g (float[1,4,3,3] x) => (float[1,4,3,3] y) {
          c = Conv (x, w)  a = Add (c, three)  k = Clip (a, zero, six)  y = Div (k, six) }""",
        w=noise(4, 4, 1, 1),
        three=np.float32(3),
        zero=np.float32(0),
        six=np.float32(6),
    )
    after, _ = run_all(graph)
    assert ops(after) == ["Conv", "Clip"]
