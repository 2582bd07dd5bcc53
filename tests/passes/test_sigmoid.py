"""1 / (1 + Exp(-x)) becomes Sigmoid, x / (1 + Exp(-x)) its product with x."""

import numpy as np
import pytest

from edgeq.passes import sigmoid

DIV = "m = Neg (x) e = Exp (m) s = Add (e, one) y = Div (one, s)"
FORMS = {
    "div": (DIV, ["Sigmoid"]),
    "one first": (DIV.replace("(e, one)", "(one, e)"), ["Sigmoid"]),
    "reciprocal": (DIV.replace("Div (one, s)", "Reciprocal (s)"), ["Sigmoid"]),
    "times minus one": (DIV.replace("Neg (x)", "Mul (x, minus)"), ["Sigmoid"]),
    "silu": (DIV.replace("(one, s)", "(x, s)"), ["Sigmoid", "Mul"]),
    "a row": (DIV.replace("(one, s)", "(row, s)"), ["Sigmoid", "Mul"]),
}


def numbers(text: str) -> dict[str, np.ndarray]:
    arrays = {"one": np.array(1), "minus": np.array(-1), "row": np.arange(1, 7)}
    return {name: array.astype(np.float32) for name, array in arrays.items() if name in text}


def bound(peak: float) -> float:
    """Exp and the kernel of Sigmoid are within 4 ulp, sum and quotient within one."""
    return 8 * float(np.finfo(np.float32).eps) * peak


@pytest.mark.parametrize("form", FORMS)
def test_becomes_sigmoid(make, agree, ops, apply, noise, form):
    text, expected = FORMS[form]
    graph = make(f"g (float[4,6] x) => (float[4,6] y) {{ {text} }}", **numbers(text))
    after, refused, changed = apply(sigmoid.run, graph)
    assert ops(after) == expected
    assert (refused, len(changed)) == ({}, 1)
    x = noise(4, 6) * 5
    x[0, :2] = [-100, 100]  # Exp overflows
    agree(graph, after, {"x": x}, bound(100.0))


def test_another_numerator_is_multiplied(make, agree, ops, apply, noise):
    text = DIV.replace("(one, s)", "(n, s)")
    graph = make(f"g (float[4,6] x, float[4,6] n) => (float[4,6] y) {{ {text} }}", **numbers(text))
    after, _, _ = apply(sigmoid.run, graph)
    assert ops(after) == ["Sigmoid", "Mul"]
    agree(graph, after, {"x": noise(4, 6), "n": noise(4, 6)}, bound(5.0))


@pytest.mark.parametrize(
    ("change", "more", "reasons"),
    [
        (("m = Neg (x)", "m = Abs (x)"), "", []),
        (("Exp", "Tanh"), "", []),
        (("(e, one)", "(e, two)"), "", []),
        (("", ""), "z = Abs (e)", ["the result of `Exp` (node `p`) has another reader"]),
        (("", ""), "z = Identity (x)", None),
    ],
)
def test_stays(make, ops, apply, change, more, reasons):
    text = DIV.replace(*change).replace("e =", "[p] e =")
    head = f"g (float[4,6] x) => (float[4,6] y{', float[4,6] z' if more else ''})"
    arrays = numbers(text) | ({"two": np.array(2, np.float32)} if "two" in text else {})
    after, refused, changed = apply(sigmoid.run, make(f"{head} {{ {text} {more} }}", **arrays))
    assert ("Sigmoid" in ops(after)) == (reasons is None) == bool(changed)
    assert list(refused.values()) == (reasons or [])


def test_other_floats_stay(make, apply):
    graph = make(f"g (double[6] x) => (double[6] y) {{ {DIV} }}", one=np.array(1.0))
    _, refused, _ = apply(sigmoid.run, graph)
    assert refused == {"Div_3": "its input is float64"}


@pytest.mark.parametrize("form", ["div", "silu"])
def test_in_a_body(branch, agree, inside, apply, noise, form):
    text, expected = FORMS[form]
    graph = branch("4,6", text, **numbers(text))
    after, refused, changed = apply(sigmoid.run, graph)
    assert inside(after)["If_0/then_branch"] == expected
    assert (refused, len(changed)) == ({}, 1)
    x = noise(4, 6)
    for taken in (True, False):
        agree(graph, after, {"x": x, "c": np.array(taken)}, bound(5.0))
