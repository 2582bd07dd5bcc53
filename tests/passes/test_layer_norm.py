"""Spelled-out layer normalization becomes one node."""

import numpy as np
import pytest

from edgeq.ir import attribute, constant
from edgeq.passes import layer_norm

MEAN = "m = ReduceMean (x, axes) d = Sub (x, m) "
SQUARES = "q = Pow (d, two) v = ReduceMean (q, axes) "
ROOT = "w = Add (v, eps) [r] r = Sqrt (w) "
TAIL = "g = Mul (n, gain) y = Add (g, offset)"
TORCH = MEAN + SQUARES + ROOT + "n = Div (d, r) " + TAIL
MOMENTS = """m = ReduceMean (x, axes) xx = Mul (x, x) s = ReduceMean (xx, axes) mm = Mul (m, m)
    c = Sub (s, mm) v = Max (c, none) """
TWO_PRODUCTS = """i = Reciprocal (r) f = Mul (i, gain) b = Mul (x, f) t = Mul (m, f)
    o = Sub (offset, t) y = Add (b, o)"""
FORMS = {
    "torch": TORCH,
    "product": TORCH.replace("Pow (d, two)", "Mul (d, d)"),
    "reciprocal": TORCH.replace("n = Div (d, r)", "i = Reciprocal (r) n = Mul (d, i)"),
    "one over": TORCH.replace("n = Div (d, r)", "i = Div (one, r) n = Mul (i, d)"),
    "power": TORCH.replace("[r] r = Sqrt (w)", "[r] r = Pow (w, minus)").replace(
        "Div (d", "Mul (d"
    ),
    "gain first": MEAN + SQUARES + ROOT + "i = Reciprocal (r) f = Mul (gain, i) g = Mul (d, f) "
    "y = Add (offset, g)",
    "two deviations": TORCH.replace("n = Div (d, r)", "p = Sub (x, m) n = Div (p, r)"),
    "sums": TORCH.replace(
        "m = ReduceMean (x, axes)", "t = ReduceSum (x, axes) m = Mul (t, share)"
    ).replace("v = ReduceMean (q, axes)", "u = ReduceSum (q, axes) v = Div (u, count)"),
    "keras": MOMENTS + ROOT + TWO_PRODUCTS,
    "flax": MOMENTS + "d = Sub (x, m) " + ROOT + "i = Reciprocal (r) f = Mul (i, gain) "
    "g = Mul (d, f) y = Add (g, offset)",
    "bare": TORCH.replace(TAIL, "y = Identity (n)"),
    "gain only": TORCH.replace(TAIL, "y = Mul (gain, n)"),
}


def arrays(text: str, noise, size: int = 16) -> dict[str, np.ndarray]:
    numbers = {"two": 2, "one": 1, "none": 0, "eps": 1e-5, "minus": -0.5, "count": size}
    given = {name: np.array(number, np.float32) for name, number in numbers.items()}
    given |= {"share": np.array(1 / size, np.float32), "axes": np.array([-1])}
    given |= {"gain": noise(size), "offset": noise(size)}
    words = text.replace("(", " ").replace(")", " ").replace(",", " ").split()
    return {name: array for name, array in given.items() if name in words}


def bound(x: np.ndarray) -> float:
    """Two sums of K terms; a deviation is at most sqrt(K), times gain (below 4), plus offset.

    mean(x * x) - mean(x) ** 2 loses (mean / deviation) ** 2 ulp more, here below 4.
    """
    size = x.shape[-1]
    return 4 * (size + 8) * float(np.finfo(np.float32).eps) * (np.sqrt(size) * 4 + 4)


@pytest.mark.parametrize("form", FORMS)
def test_becomes_layer_normalization(make, agree, ops, apply, noise, form):
    text = FORMS[form]
    graph = make(f"g (float[N,5,16] x) => (float[N,5,16] y) {{ {text} }}", **arrays(text, noise))
    after, refused, changed = apply(layer_norm.run, graph)
    assert [op for op in ops(after) if op != "Identity"] == ["LayerNormalization"]
    assert (refused, len(changed)) == ({}, 1)
    node = after.nodes()[0]
    assert attribute(node, "axis", None) == -1
    assert attribute(node, "epsilon", None) == pytest.approx(1e-5, rel=1e-6)  # what float32 holds
    x = noise(3, 5, 16) + 1
    agree(graph, after, {"x": x}, bound(x))


def test_over_two_axes(make, agree, ops, apply, noise):
    given = arrays(TORCH, noise) | {"axes": np.array([1, 2]), "gain": noise(5, 16)}
    graph = make(f"g (float[2,5,16] x) => (float[2,5,16] y) {{ {TORCH} }}", **given)
    after, _, _ = apply(layer_norm.run, graph)
    assert ops(after) == ["LayerNormalization"]
    stored = [constant(value) for value in after.nodes()[0].inputs[1:]]
    assert [array.shape for array in stored if array is not None] == [(5, 16), (5, 16)]
    x = noise(2, 5, 16)
    agree(graph, after, {"x": x}, bound(x.reshape(2, 80)))


@pytest.mark.parametrize(
    ("size", "change", "given", "reason"),
    [
        (
            "16",
            ("", ""),
            {"axes": [1]},
            "it normalizes along the axes [1] of 3, not along the last",
        ),
        ("K", ("", ""), {}, "how many elements it normalizes together is not known"),
        (
            "16",
            ("n = Div (d, r)", "n = Div (x, r)"),
            {},
            "what follows is not (x - mean) divided by it, with one reader at each step",
        ),
        (
            "16",
            ("y =", "z = Neg (q) y ="),
            {},
            "the result of `Pow` (node `p`) has another reader",
        ),
    ],
)
def test_stays(make, ops, apply, noise, size, change, given, reason):
    text = TORCH.replace(*change).replace("q = Pow", "[p] q = Pow")
    more = f", float[2,16,{size}] z" if "z =" in text else ""
    constants = arrays(text, noise) | {name: np.array(array) for name, array in given.items()}
    head = f"g (float[2,16,{size}] x) => (float[2,16,{size}] y{more})"
    after, refused, changed = apply(layer_norm.run, make(f"{head} {{ {text} }}", **constants))
    assert "LayerNormalization" not in ops(after)
    assert (refused, changed) == ({"r": reason}, [])


@pytest.mark.parametrize(
    "change",
    [
        ("(x, m)", "(m, x)"),
        ("(d, two)", "(d, three)"),
        ("= Add (v, eps)", "= Sub (v, eps)"),
        ("v = ReduceMean (q, axes)", "v = ReduceMean (q, first)"),
        ("d = Sub (x, m)", "d = Sub (o, m)"),
    ],
)
def test_something_else_is_no_candidate(make, ops, apply, noise, change):
    text = TORCH.replace(*change)
    given = arrays(text, noise)
    more = {"three": np.array(3, np.float32), "first": np.array([1])}
    given |= {name: array for name, array in more.items() if name in text}
    graph = make(
        f"g (float[2,16,16] x, float[2,16,16] o) => (float[A,B,C] y) {{ {text} }}", **given
    )
    after, refused, changed = apply(layer_norm.run, graph)
    assert "LayerNormalization" not in ops(after)
    assert (refused, changed) == ({}, [])


def test_a_gain_per_row_is_left_outside(make, agree, ops, apply, noise):
    """What does not vary along the normalized axis alone is no gain of LayerNormalization."""
    given = arrays(TORCH, noise) | {"gain": noise(5, 1)}
    graph = make(f"g (float[2,5,16] x) => (float[2,5,16] y) {{ {TORCH} }}", **given)
    after, _, _ = apply(layer_norm.run, graph)
    assert ops(after) == ["LayerNormalization", "Mul", "Add"]
    x = noise(2, 5, 16)
    agree(graph, after, {"x": x}, bound(x))


def test_in_a_body(branch, agree, inside, apply, noise):
    graph = branch("3,16", TORCH, **arrays(TORCH, noise))
    after, refused, changed = apply(layer_norm.run, graph)
    assert inside(after)["If_0/then_branch"] == ["LayerNormalization"]
    assert (refused, len(changed)) == ({}, 1)
    x = noise(3, 16)
    for taken in (True, False):
        agree(graph, after, {"x": x, "c": np.array(taken)}, bound(x))
