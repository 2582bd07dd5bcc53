"""Exp(x - ReduceMax) / ReduceSum becomes Softmax."""

import numpy as np
import pytest

from edgeq.ir import attribute
from edgeq.passes import softmax

NODES = """[m] m = ReduceMax (x, axes) d = Sub (x, m) [e] e = Exp (d)
           s = ReduceSum (e, axes) [y] y = Div (e, s)"""


def bound(count: int) -> float:
    """Sums of `count` terms below 1, Exp within 4 ulp on both sides, one quotient."""
    return (count + 8) * float(np.finfo(np.float32).eps)


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_becomes_softmax(make, agree, ops, apply, noise, axis):
    graph = make(f"g (float[4,6,5] x) => (float[4,6,5] y) {{ {NODES} }}", axes=np.array([axis]))
    after, refused, changed = apply(softmax.run, graph)
    assert ops(after) == ["Softmax"]
    assert attribute(after.nodes()[0], "axis", None) == axis % 3
    assert (refused, changed) == ({}, ["5 nodes around `Exp` became `Softmax` (node `y`)"])
    x = noise(4, 6, 5) * 30
    agree(graph, after, {"x": x}, bound(6))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (
            ("Exp (d)", "Exp (x)"),
            "nothing is subtracted before Exp, which may overflow where Softmax does not",
        ),
        (("(x, m) [e]", "(x, o) [e]"), "what is subtracted before Exp is not a ReduceMax"),
        (
            ("(e, axes)", "(e, other)"),
            "its ReduceMax and its ReduceSum are not of one tensor along the same axes",
        ),
        (
            ("(x, axes)", "(o, axes)"),
            "its ReduceMax and its ReduceSum are not of one tensor along the same axes",
        ),
        (("axes)", "both)"), "it goes along the axes [1, 2], Softmax along one"),
        (("= Div", "= Div (e, s) z = Div"), "the result of `Exp` (node `e`) has another reader"),
    ],
)
def test_stays(make, ops, apply, change, reason):
    text = NODES.replace(*change)
    head = "g (float[4,6,5] x, float[4,6,5] o) => (float[4,6,5] y"
    arrays = {"axes": np.array([1]), "other": np.array([2]), "both": np.array([1, 2])}
    used = {name: array for name, array in arrays.items() if f"{name})" in text}
    graph = make(f"{head}{', float[4,6,5] z' if 'z =' in text else ''}) {{ {text} }}", **used)
    after, refused, changed = apply(softmax.run, graph)
    assert "Softmax" not in ops(after)
    assert changed == []
    assert reason in refused.values()


def test_in_a_body(branch, agree, inside, apply, noise):
    graph = branch("4,6", NODES, axes=np.array([1]))
    after, refused, changed = apply(softmax.run, graph)
    assert inside(after)["If_0/then_branch"] == ["Softmax"]
    assert (refused, len(changed)) == ({}, 1)
    for taken in (True, False):
        agree(graph, after, {"x": noise(4, 6), "c": np.array(taken)}, bound(6))
