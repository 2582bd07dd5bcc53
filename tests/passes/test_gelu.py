"""Spelled-out GELU becomes one node."""

import math

import numpy as np
import pytest

from edgeq.ir import attribute
from edgeq.passes import gelu

NUMBERS = {
    "root": math.sqrt(2),
    "inverse": math.sqrt(0.5),
    "one": 1.0,
    "half": 0.5,
    "two": 2.0,
    "three": 3.0,
    "cubic": 0.044715,
    "scale": math.sqrt(2 / math.pi),
    "both": 0.044715 * math.sqrt(2 / math.pi),
}
ERF = "u = Div (x, root) e = Erf (u) a = Add (e, one) p = Mul (x, a) y = Mul (p, half)"
TANH = """q = Pow (x, three) k = Mul (q, cubic) s = Add (x, k) u = Mul (s, scale) e = Tanh (u)
          a = Add (e, one) p = Mul (x, a) y = Mul (p, half)"""
FORMS = {
    "torch": ERF,
    "times 1 / root": ERF.replace("Div (x, root)", "Mul (inverse, x)"),
    "one first": ERF.replace("Add (e, one)", "Add (one, e)"),
    "half first": ERF.replace("Mul (x, a)", "Mul (x, half)").replace("(p, half)", "(p, a)"),
    "half of the sum": ERF.replace("Mul (x, a)", "Mul (half, a)").replace("(p, half)", "(p, x)"),
    "divided by two": ERF.replace("Mul (p, half)", "Div (p, two)"),
    "multiplied out": "u = Div (x, root) e = Erf (u) h = Mul (x, half) p = Mul (h, e) "
    "y = Add (p, h)",
    "tanh": TANH,
    "tanh, products": TANH.replace("Pow (x, three)", "Mul (x, xx)").replace(
        "q =", "xx = Mul (x, x) q ="
    ),
    "tanh, factored": """xx = Mul (x, x) k = Mul (both, xx) s = Add (scale, k) u = Mul (s, x)
        e = Tanh (u) a = Add (one, e) p = Mul (a, half) y = Mul (x, p)""",
}


def numbers(text: str, shape: tuple[int, ...] = ()) -> dict[str, np.ndarray]:
    words = text.replace("(", " ").replace(")", " ").replace(",", " ").split()
    return {k: np.full(shape, v, np.float32) for k, v in NUMBERS.items() if k in words}


def bound(x: np.ndarray) -> float:
    """Erf and Tanh are within 2 ulp of 1, five products within half an ulp each; times x."""
    return 8 * float(np.finfo(np.float32).eps) * float(np.abs(x).max())


@pytest.mark.parametrize("shape", [(), (1,), (1, 1)])
@pytest.mark.parametrize("form", FORMS)
def test_becomes_gelu(make, agree, ops, apply, noise, form, shape):
    text = FORMS[form]
    graph = make(f"g (float[4,6] x) => (float[4,6] y) {{ {text} }}", **numbers(text, shape))
    after, refused, changed = apply(gelu.run, graph)
    assert ops(after) == ["Gelu"]
    assert refused == {}
    assert len(changed) == 1 and "became `Gelu` (node `" in changed[0]
    kind = attribute(after.nodes()[0], "approximate", "none")
    assert kind == ("tanh" if "tanh" in form else "none")
    x = noise(4, 6) * 4
    agree(graph, after, {"x": x}, bound(x))


def test_of_a_sum(make, agree, ops, apply, noise):
    """Its input is an Add, as of every Linear: that one stays outside."""
    text = f"g (float[4,6] i) => (float[4,6] y) {{ x = Add (i, bias) {ERF} }}"
    graph = make(text, bias=noise(6), **numbers(ERF))
    after, _, _ = apply(gelu.run, graph)
    assert ops(after) == ["Add", "Gelu"]
    x = noise(4, 6)
    agree(graph, after, {"i": x}, bound(x + noise(6)))


FOLLOWS = "what follows is not x * (1 + it) / 2 with one reader at each step"


@pytest.mark.parametrize(
    ("change", "more", "reason"),
    [
        (("one)", "two)"), "", FOLLOWS),
        (("Mul (x, a)", "Mul (b, a)"), "", FOLLOWS),
        (("", ""), "z = Neg (e)", FOLLOWS),
        (("", ""), "z = Neg (u)", "the result of `Div` (node `d`) has another reader"),
        (("", ""), "z = Identity (x)", None),
    ],
)
def test_stays(make, ops, apply, noise, change, more, reason):
    text = ERF.replace(*change).replace("u =", "[d] u =")
    head = "g (float[4,6] x, float[4,6] b) => (float[4,6] y"
    graph = make(f"{head}{', float[4,6] z' if more else ''}) {{ {text} {more} }}", **numbers(text))
    after, refused, changed = apply(gelu.run, graph)
    assert list(refused.values()) == ([] if reason is None else [reason])
    assert len(changed) == (reason is None)
    assert ("Erf" in ops(after)) == (reason is not None)


def test_a_step_that_is_an_output(make, ops, apply):
    text = f"g (float[4,6] x) => (float[4,6] y, float[4,6] a) {{ {ERF.replace('a =', '[s] a =')} }}"
    _, refused, _ = apply(gelu.run, make(text, **numbers(ERF)))
    assert refused == {"Erf_1": "the result of `Add` (node `s`) is an output"}


@pytest.mark.parametrize("error", [0.0, 1e-7, 1e-6])
def test_how_exact_the_constants_must_be(make, ops, apply, error):
    """Rounding to float32 is 6e-8; 1e-6 is another number, and another function, and no GELU."""
    arrays = numbers(ERF) | {"root": np.array(math.sqrt(2) * (1 + error), np.float32)}
    after, refused, _ = apply(
        gelu.run, make(f"g (float[6] x) => (float[6] y) {{ {ERF} }}", **arrays)
    )
    assert (ops(after) == ["Gelu"]) == (error < 5e-7)
    assert refused == {}


def test_a_constant_that_widens_is_no_constant(make, ops, apply):
    text = f"g (float[6] x) => (float[1,6] y) {{ {ERF} }}"
    after, _, changed = apply(gelu.run, make(text, **numbers(ERF, (1, 1))))
    assert (len(ops(after)), changed) == (5, [])


def test_other_floats_stay(make, apply):
    text = f"g (double[6] x) => (double[6] y) {{ {ERF} }}"
    arrays = {name: array.astype(np.float64) for name, array in numbers(ERF).items()}
    _, refused, _ = apply(gelu.run, make(text, **arrays))
    assert refused == {"Erf_1": "its input is float64"}


def test_in_a_body(branch, agree, inside, apply, noise):
    graph = branch("4,6", ERF, **numbers(ERF))
    after, refused, changed = apply(gelu.run, graph)
    assert inside(after)["If_0/then_branch"] == ["Gelu"]
    assert (refused, len(changed)) == ({}, 1)
    x = noise(4, 6)
    for taken in (True, False):
        agree(graph, after, {"x": x, "c": np.array(taken)}, bound(x))


def test_half_in_a_body_stays(branch, make, apply):
    text = """g (float[6] x, bool c) => (float[6] z) {
        u = Div (x, root) e = Erf (u)
        z = If (c) <then_branch = t () => (float[6] y) { a = Add (e, one) p = Mul (x, a)
                                                         y = Mul (p, half) },
                    else_branch = f () => (float[6] n) { n = Neg (x) }> }"""
    _, refused, changed = apply(gelu.run, make(text, **numbers(text)))
    assert (refused, changed) == ({"Erf_1": FOLLOWS}, [])
