"""What depends on constants alone is computed once."""

import re

import numpy as np
import pytest

from edgeq.ir import constant
from edgeq.passes import constant_folding


def whole(*items: int) -> np.ndarray:
    return np.array(items, np.int64)


# expression of k (float32 [2, 3], values 1..6) and other constants; ONNX Runtime checks each
K = np.arange(1, 7, dtype=np.float32).reshape(2, 3)
EXPRESSIONS = {
    "Reshape": ("Reshape (k, s)", {"s": whole(3, 2)}),
    "Transpose": ("Transpose <perm = [1,0]> (k)", {}),
    "Add": ("Add (k, row)", {"row": K[:1]}),
    "MatMul": ("MatMul (k, t)", {"t": K.T}),
    "Cast": ("Cast <to = 7> (k)", {}),
    "Concat": ("Concat <axis = 0> (k, k)", {}),
    "Gather": ("Gather <axis = 1> (k, i)", {"i": whole(2, 0)}),
    "Slice": ("Slice (k, a, b, ax)", {"a": whole(1), "b": whole(9), "ax": whole(1)}),
    "Unsqueeze": ("Unsqueeze (k, ax)", {"ax": whole(0)}),
    "Squeeze": ("Squeeze (u, ax)", {"u": K[None], "ax": whole(0)}),
    "Expand": ("Expand (k, s)", {"s": whole(4, 1, 1)}),
    "Tile": ("Tile (k, s)", {"s": whole(2, 1)}),
    "Pad": ("Pad (k, p)", {"p": whole(1, 0, 0, 2)}),
    "Where": ("Where (m, k, row)", {"m": K > 2, "row": K[:1]}),
    "ReduceSum": ("ReduceSum <keepdims = 0> (k, ax)", {"ax": whole(1)}),
    "ReduceMean": ("ReduceMean (k)", {}),
    "CumSum": ("CumSum (k, ax)", {"ax": np.array(1, np.int64)}),
    "Softmax": ("Softmax <axis = 1> (k)", {}),
    "Sqrt": ("Sqrt (k)", {}),
    "Pow": ("Pow (k, two)", {"two": np.float32(2)}),
    "Range": ("Range (a, b, c)", {"a": np.int64(2), "b": np.int64(9), "c": np.int64(3)}),
    "ConstantOfShape": ("ConstantOfShape <value = float[1] {2.5}> (s)", {"s": whole(2, 2)}),
    "OneHot": ("OneHot (i, d, v)", {"i": whole(0, 2), "d": np.int64(3), "v": np.float32([0, 1])}),
    "NonZero": ("NonZero (m)", {"m": K > 2}),
    "Trilu": ("Trilu (k)", {}),
    "Mod": ("Mod (i, j)", {"i": whole(7, -7), "j": whole(3, 3)}),
    "Clip": ("Clip (k, lo, hi)", {"lo": np.float32(2), "hi": np.float32(4)}),
}


@pytest.mark.parametrize("case", EXPRESSIONS)
def test_the_engine_computes_the_same(make, run, ops, apply, case):
    expression, arrays = EXPRESSIONS[case]
    kind = {"Cast": "int64", "Range": "int64", "NonZero": "int64", "Mod": "int64"}.get(
        case, "float"
    )
    text = f"""g (float[1] x) => (float[1] z, {kind}[...] y) {{
        z = Relu (x) [n] made = {expression} y = Identity (made) }}"""
    text = text.replace("[...]", "")
    everything = {"k": K, **{name: np.asarray(array) for name, array in arrays.items()}}
    graph = make(
        text,
        **{
            name: array
            for name, array in everything.items()
            if re.search(rf"\b{name}\b", expression)
        },
    )
    after, refused, changed = apply(constant_folding.run, graph)
    assert ops(after) == ["Relu", "Identity"]
    assert changed == [f"`{case}` (node `n`) is a constant now"]
    assert refused == {"Identity_2": "its output is an output of the model"}
    x = np.ones(1, np.float32)
    expected, got = run(graph, {"x": x})["y"], run(after, {"x": x})["y"]
    # the same correctly rounded operations; Softmax and Pow differ by their libraries' last bits
    np.testing.assert_allclose(got, expected, rtol=4 * np.finfo(np.float32).eps, atol=0)
    assert got.dtype == expected.dtype and got.shape == expected.shape


def test_weights_reshaped_in_the_graph(make, ops, apply, noise):
    """As CNTK writes its last layer: Reshape of a stored tensor before the MatMul."""
    text = "g (float[1,6] x) => (float[1,4] y) { w2 = Reshape (w, s) y = MatMul (x, w2) }"
    w = noise(2, 3, 4)
    after, _, _ = apply(constant_folding.run, make(text, w=w, s=whole(6, 4)))
    assert ops(after) == ["MatMul"]
    np.testing.assert_array_equal(constant(after.nodes()[0].inputs[1]), w.reshape(6, 4))


def test_sizes_that_are_static_though_the_batch_is_not(make, run, ops, apply, noise):
    text = """g (float[N,3,4,5] x) => (float[N,60] y) {
        s = Shape (x)
        n = Gather <axis = 0> (s, zero)
        hw = Slice (s, one, four)
        p = ReduceProd <keepdims = 1> (hw)
        nn = Unsqueeze (n, zeroes)
        t = Concat <axis = 0> (nn, p)
        y = Reshape (x, t) }"""
    graph = make(text, zero=np.array(0), one=whole(1), four=whole(4), zeroes=whole(0))
    after, _, changed = apply(constant_folding.run, graph)
    assert ops(after) == ["Shape", "Gather", "Unsqueeze", "Concat", "Reshape"]
    assert len(changed) == 2
    x = noise(2, 3, 4, 5)
    np.testing.assert_array_equal(run(after, {"x": x})["y"], run(graph, {"x": x})["y"])


def test_a_static_shape_is_a_constant(make, ops, apply):
    text = """g (float[2,3] x) => (float[2,3] y) {
        s = Shape (x) z = ConstantOfShape (s) y = Add (x, z) }"""
    after, _, _ = apply(constant_folding.run, make(text))
    assert ops(after) == ["Add"]


def test_the_shape_of_an_open_batch_is_not(make, ops, apply):
    text = "g (float[N,3] x) => (int64[2] y) { s = Shape (x) y = Neg (s) }"
    after, refused, _ = apply(constant_folding.run, make(text))
    assert ops(after) == ["Shape", "Neg"]
    assert refused == {}


REFUSALS = {
    "random": (
        "RandomNormalLike (k)",
        "`RandomNormalLike` is not in the table of operators that are evaluated",
        {"k": K},
    ),
    "quantized weights": (
        "DequantizeLinear (q, s)",
        "`DequantizeLinear` is not in the table of operators that are evaluated",
        {"q": np.ones(3, np.int8), "s": np.float32(1)},
    ),
    "too large": (
        "Expand (k, s)",
        "its result may have 6,000,000 values, too many to store",
        {"k": K, "s": whole(1000000, 1, 1)},
    ),
    "astronomic": (
        "ConstantOfShape (s)",
        f"its result may have {2**61:,} values, too many to store",
        {"s": whole(2**31, 2**30)},
    ),
    "by zero": ("Div (i, j)", "it divides integers by zero", {"i": whole(1), "j": whole(0)}),
    "not finite": ("Log (o)", "its result is not finite", {"o": np.zeros(2, np.float32)}),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_stays(make, ops, apply, case):
    expression, reason, arrays = REFUSALS[case]
    text = f"""g (float[1] x) => (float[1] z) {{
        z = Relu (x) [n] made = {expression} y = Identity (made) }}"""
    graph = make(text, **{name: np.asarray(array) for name, array in arrays.items()})
    after, refused, changed = apply(constant_folding.run, graph)
    assert ops(after) == ops(graph)
    assert (refused, changed) == ({"n": reason}, [])


def test_infinite_masks_may_be_folded(make, ops, apply):
    mask = np.array([0, -np.inf], np.float32)
    text = """g (float[2] x) => (float[2] y) {
        m = Unsqueeze (k, ax) n = Squeeze (m, ax) y = Add (x, n) }"""
    after, _, _ = apply(constant_folding.run, make(text, k=mask, ax=whole(0)))
    assert ops(after) == ["Add"]


def test_around_and_inside_a_body(make, run, ops, inside, apply, noise):
    text = """g (float[2] x, bool c) => (float[2] y) {
        [n] k2 = Add (k, k)
        [m] k3 = Mul (k, k)
        z = Add (x, k3)
        y = If (c) <then_branch = t () => (float[2] p) { [o] k4 = Neg (k) [p] p = Add (k4, k2) },
                    else_branch = e () => (float[2] q) { q = Identity (z) }> }"""
    graph = make(text, k=noise(2))
    after, refused, changed = apply(constant_folding.run, graph)
    assert ops(after) == ["Add", "If"]
    assert inside(after) == {"If_3/then_branch": ["Add"], "If_3/else_branch": ["Identity"]}
    assert refused == {"If_3/then_branch/p": "its output is an output of the model"}
    assert changed == [
        "`Add` (node `n`) is a constant now",
        "`Mul` (node `m`) is a constant now",
        "in `If_3/then_branch`: `Neg` (node `o`) is a constant now",
    ]
    feeds = {"x": noise(2), "c": np.array(True)}
    np.testing.assert_array_equal(run(after, feeds)["y"], run(graph, feeds)["y"])
