"""x * Clip(x + 3, 0, 6) / 6 becomes HardSwish; what is a clamp alone becomes HardSigmoid."""

import numpy as np
import pytest

from edgeq.ir import attribute
from edgeq.passes import clip_to_hard_sigmoid, hard_swish, run_all

NUMBERS = {
    "none": 0.0,
    "half": 0.5,
    "one": 1.0,
    "three": 3.0,
    "four": 4.0,
    "six": 6.0,
    "sixth": 1 / 6,
}
SWISH = {
    "torch": "a = Add (x, three) g = Clip (a, none, six) p = Mul (x, g) y = Div (p, six)",
    "gate first": "a = Add (three, x) g = Clip (a, none, six) p = Div (g, six) y = Mul (p, x)",
    "times a sixth": "a = Add (x, three) g = Clip (a, none, six) p = Mul (g, sixth) y = Mul (x, p)",
    "x first": "a = Add (x, three) g = Clip (a, none, six) p = Mul (x, sixth) y = Mul (p, g)",
    "relu": "a = Add (x, three) r = Relu (a) g = Min (r, six) p = Mul (x, g) y = Div (p, six)",
    "max, min": "a = Add (x, three) r = Max (none, a) g = Min (six, r) p = Mul (x, g) "
    "y = Div (p, six)",
    "unit": "s = Mul (x, sixth) a = Add (s, half) g = Clip (a, none, one) y = Mul (x, g)",
    "gate": "g = HardSigmoid <alpha = 0.16666667, beta = 0.5> (x) y = Mul (g, x)",
}
SIGMOID = {
    "torch": "a = Add (x, three) g = Clip (a, none, six) y = Div (g, six)",
    "times a sixth": "a = Add (x, three) g = Clip (a, none, six) y = Mul (sixth, g)",
    "relu": "a = Add (x, three) r = Relu (a) g = Min (r, six) y = Div (g, six)",
    "unit": "s = Mul (x, sixth) a = Add (s, half) y = Clip (a, none, one)",
}


def numbers(text: str) -> dict[str, np.ndarray]:
    words = text.replace("(", " ").replace(")", " ").replace(",", " ").split()
    return {k: np.array(v, np.float32) for k, v in NUMBERS.items() if k in words}


def around_the_corners(noise) -> np.ndarray:
    x = noise(4, 6) * 3
    x[0] = [-3, 3, -3.0000002, 2.9999998, 0, -1e-30]
    return x


def bound(x: np.ndarray) -> float:
    """Sum, product, quotient and two constants round by half an ulp of a gate up to 1, times x."""
    return 4 * float(np.finfo(np.float32).eps) * max(1.0, float(np.abs(x).max()))


@pytest.mark.parametrize("form", SWISH)
def test_becomes_hard_swish(make, agree, ops, apply, noise, form):
    graph = make(f"g (float[4,6] x) => (float[4,6] y) {{ {SWISH[form]} }}", **numbers(SWISH[form]))
    after, refused, changed = apply(hard_swish.run, graph)
    assert ops(after) == ["HardSwish"]
    assert (refused, len(changed)) == ({}, 1)
    x = around_the_corners(noise)
    agree(graph, after, {"x": x}, bound(x))


@pytest.mark.parametrize("form", SIGMOID)
def test_becomes_hard_sigmoid(make, agree, ops, apply, noise, form):
    text = SIGMOID[form]
    graph = make(f"g (float[4,6] x) => (float[4,6] y) {{ {text} }}", **numbers(text))
    after, refused, changed = apply(clip_to_hard_sigmoid.run, graph)
    assert ops(after) == ["HardSigmoid"]
    assert (refused, len(changed)) == ({}, 1)
    node = after.nodes()[0]
    assert attribute(node, "alpha", 0) == pytest.approx(1 / 6, rel=1e-6)  # what float32 holds
    assert attribute(node, "beta", 0) == 0.5
    x = around_the_corners(noise)
    agree(graph, after, {"x": x}, bound(x))


def test_together_each_finds_its_own(make, agree, ops, noise):
    """A HardSwish is never left as x * HardSigmoid(x)."""
    text = f"{SWISH['torch'].replace('y =', 'm =')} n = Relu (m) w = Add (n, three) " + (
        "v = Clip (w, none, six) y = Div (v, six)"
    )
    graph = make(f"g (float[4,6] x) => (float[4,6] y) {{ {text} }}", **numbers(text))
    after, _ = run_all(graph)
    assert ops(after) == ["HardSwish", "Relu", "HardSigmoid"]
    x = around_the_corners(noise)
    agree(graph, after, {"x": x}, 2 * bound(x))


@pytest.mark.parametrize(
    ("text", "more", "reason"),
    [
        (SWISH["torch"].replace("(x, three)", "(x, four)"), "", None),
        (SWISH["torch"].replace("(x, g)", "(b, g)"), "", None),
        (SWISH["torch"].replace("none, six", "three, six"), "", None),
        (SWISH["torch"], "z = Neg (p)", None),
        (SWISH["torch"], "z = Neg (a)", "the result of `Add` (node `s`) has another reader"),
    ],
)
def test_stays(make, ops, apply, text, more, reason):
    head = f"g (float[4,6] x, float[4,6] b) => (float[4,6] y{', float[4,6] z' if more else ''})"
    graph = make(f"{head} {{ {text.replace('a =', '[s] a =')} {more} }}", **numbers(text))
    after, refused, changed = apply(hard_swish.run, graph)
    assert "HardSwish" not in ops(after)
    assert changed == []
    assert list(refused.values()) == ([] if reason is None else [reason])


@pytest.mark.parametrize(
    "text",
    [
        "y = Clip (x, none, six)",
        "g = Clip (x, none, six) y = Div (g, six)",
        "a = Add (x, half) y = Clip (a, none, one)",
        "a = Add (x, three) g = Clip (a, none, six) y = Div (g, four)",
    ],
)
def test_a_clamp_that_int8_layers_do_for_nothing_stays(make, ops, apply, text):
    graph = make(f"g (float[4,6] x) => (float[4,6] y) {{ {text} }}", **numbers(text))
    after, refused, changed = apply(clip_to_hard_sigmoid.run, graph)
    assert "HardSigmoid" not in ops(after)
    assert (refused, changed) == ({}, [])


def test_a_gate_with_another_reader_stays(make, apply):
    text = SIGMOID["torch"].replace("g =", "[k] g =") + " z = Neg (a)"
    graph = make(f"g (float[6] x) => (float[6] y, float[6] z) {{ {text} }}", **numbers(text))
    _, refused, changed = apply(clip_to_hard_sigmoid.run, graph)
    assert changed == []
    assert refused == {"k": "the result of `Add` (node `Add_0`) has another reader"}


@pytest.mark.parametrize(
    ("rule", "text"),
    [(hard_swish.run, SWISH["torch"]), (clip_to_hard_sigmoid.run, SIGMOID["torch"])],
)
def test_other_floats_stay(make, apply, rule, text):
    arrays = {name: array.astype(np.float64) for name, array in numbers(text).items()}
    graph = make(f"g (double[6] x) => (double[6] y) {{ {text} }}", **arrays)
    _, refused, changed = apply(rule, graph)
    assert (refused, changed) == ({"Clip_1": "its input is float64"}, [])


@pytest.mark.parametrize(
    ("rule", "text", "op"),
    [
        (hard_swish.run, SWISH["torch"], "HardSwish"),
        (clip_to_hard_sigmoid.run, SIGMOID["torch"], "HardSigmoid"),
    ],
)
def test_in_a_body(branch, agree, inside, apply, noise, rule, text, op):
    graph = branch("4,6", text, **numbers(text))
    after, refused, changed = apply(rule, graph)
    assert inside(after)["If_0/then_branch"] == [op]
    assert (refused, len(changed)) == ({}, 1)
    x = around_the_corners(noise)
    for taken in (True, False):
        agree(graph, after, {"x": x, "c": np.array(taken)}, bound(x))
