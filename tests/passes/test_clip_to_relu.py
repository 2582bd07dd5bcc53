"""Clip without an upper bound becomes Relu."""

import numpy as np
import pytest

from edgeq.passes import clip_to_relu

LARGEST = np.finfo(np.float32).max


@pytest.mark.parametrize("high", [None, LARGEST, np.inf])
def test_becomes_relu(make, run, ops, apply, noise, high):
    arrays = {"low": np.array(0, np.float32)}
    if high is not None:
        arrays["high"] = np.array(high, np.float32)
    operand = ", high" if high is not None else ""
    graph = make(f"g (float[2,5] x) => (float[2,5] y) {{ y = Clip (x, low{operand}) }}", **arrays)
    after, refused, changed = apply(clip_to_relu.run, graph)
    assert ops(after) == ["Relu"]
    assert (refused, changed) == ({}, ["`Clip` (node `Clip_0`) became `Relu`"])
    x = noise(2, 5)
    x[0, :3] = [-0.0, -LARGEST, LARGEST]
    np.testing.assert_array_equal(run(after, {"x": x})["y"], run(graph, {"x": x})["y"])


def test_bounds_of_old_opsets_are_attributes(make, ops, apply):
    graph = make("g (float[2] x) => (float[2] y) { y = Clip <min = 0.0> (x) }", opset='"": 10')
    after, _, _ = apply(clip_to_relu.run, graph)
    assert ops(after) == ["Relu"]


@pytest.mark.parametrize(
    ("low", "high", "reason"),
    [
        (0, 6, "its upper bound is 6"),
        (-1, np.inf, "its lower bound is -1.0"),
    ],
)
def test_other_bounds_stay(make, ops, apply, low, high, reason):
    arrays = {"low": np.array(low, np.float32), "high": np.array(high, np.float32)}
    graph = make("g (float[2] x) => (float[2] y) { y = Clip (x, low, high) }", **arrays)
    after, refused, _ = apply(clip_to_relu.run, graph)
    assert ops(after) == ["Clip"]
    assert refused == {"Clip_0": reason}


def test_a_bound_from_outside_stays(make, ops, apply):
    graph = make("g (float[2] x, float low) => (float[2] y) { y = Clip (x, low) }")
    _, refused, _ = apply(clip_to_relu.run, graph)
    assert refused == {"Clip_0": "its lower bound is not a constant"}


def test_without_a_lower_bound_stays(make, apply):
    graph = make("g (float[2] x) => (float[2] y) { y = Clip (x) }")
    assert apply(clip_to_relu.run, graph)[1] == {"Clip_0": "it has no lower bound"}


def test_integers_stay(make, apply):
    graph = make("g (int32[2] x) => (int32[2] y) { y = Clip (x, low) }", low=np.array(0, np.int32))
    assert apply(clip_to_relu.run, graph)[1] == {"Clip_0": "its input is int32"}


def test_around_and_inside_a_body(make, run, ops, inside, apply, noise):
    """Both change, and the body still finds the tensor from outside."""
    text = """g (float[2,3] x, bool c) => (float[2,3] y) {
        r = Clip (x, low)
        y = If (c) <then_branch = t () => (float[2,3] a) { a = Clip (r, low) },
                    else_branch = e () => (float[2,3] b) { b = Neg (r) }> }"""
    graph = make(text, low=np.array(0, np.float32))
    after, _, changed = apply(clip_to_relu.run, graph)
    assert ops(after) == ["Relu", "If"]
    assert inside(after) == {"If_1/then_branch": ["Relu"], "If_1/else_branch": ["Neg"]}
    assert changed == [
        "`Clip` (node `Clip_0`) became `Relu`",
        "in `If_1/then_branch`: `Clip` (node `Clip_0`) became `Relu`",
    ]
    for branch in (True, False):
        feeds = {"x": noise(2, 3), "c": np.array(branch)}
        np.testing.assert_array_equal(run(after, feeds)["y"], run(graph, feeds)["y"])
