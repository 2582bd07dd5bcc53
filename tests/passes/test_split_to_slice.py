"""Split becomes Slices on the way to weights."""

import numpy as np
import pytest

from edgeq.passes import split_to_slice

HEAD = "g (float[1,7,5,5] x) => (float[1,N,H,W] y) "
TAIL = "r = Relu (b) v = Conv (r, w) y = Concat <axis = 1> (a, v)"


@pytest.mark.parametrize(
    ("split", "sizes", "width"),
    [
        ("a, b = Split <axis = 1> (x, sizes)", [3, 4], 4),
        ("a, b = Split <axis = -3> (x, sizes)", [3, 4], 4),
        ("a, b = Split <axis = 1, num_outputs = 2> (x)", None, 3),  # the last one is the smaller
    ],
)
def test_becomes_slices(make, agree, ops, apply, noise, split, sizes, width):
    arrays = {"w": noise(2, width, 1, 1)} | ({} if sizes is None else {"sizes": np.array(sizes)})
    graph = make(f"{HEAD} {{ [s] {split} {TAIL} }}", **arrays)
    after, refused, changed = apply(split_to_slice.run, graph)
    assert ops(after) == ["Slice", "Slice", "Relu", "Conv", "Concat"]
    assert (refused, changed) == ({}, ["`Split` (node `s`) became 2 `Slice`"])
    agree(graph, after, {"x": noise(1, 7, 5, 5)}, 0.0)


def test_a_part_that_nobody_reads_is_not_cut(make, agree, ops, apply, noise):
    text = "a, b, q = Split <axis = 1> (x, sizes) v = Conv (b, w) y = Concat <axis = 1> (v, q)"
    graph = make(f"{HEAD} {{ {text} }}", w=noise(2, 2, 1, 1), sizes=np.array([3, 2, 2]))
    after, _, _ = apply(split_to_slice.run, graph)
    assert ops(after) == ["Slice", "Slice", "Conv", "Concat"]
    agree(graph, after, {"x": noise(1, 7, 5, 5)}, 0.0)


NO_WEIGHTS = "none of its parts goes on to weights in operators with int8 kernels"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (
            "a, b = Split <axis = 1> (x, sizes) p = Relu (b) y = Concat <axis = 1> (a, p)",
            NO_WEIGHTS,
        ),
        ("a, b = Split <axis = 1> (x, sizes) p = Tanh (b) y = Conv (p, w)", NO_WEIGHTS),
        ("a, b = Split <axis = 1> (x, where) y = Conv (b, w)", "its sizes are not constant"),
        (
            "a, b = Split <axis = 1, num_outputs = 2> (u) y = Conv (b, w)",
            "the size of what it splits is not known",
        ),
        ("a, b = Split <axis = 1> (e, sizes) y = Conv (b, w)", "its input is float64"),
    ],
)
def test_stays(make, ops, apply, noise, text, reason):
    weights = noise(2, 4, 1, 1).astype(np.float64 if "(e, " in text else np.float32)
    arrays = {"w": weights, "sizes": np.array([3, 4])}
    used = {name: array for name, array in arrays.items() if f"{name})" in text}
    inputs = "float[1,7,5,5] x, float[1,C,5,5] u, int64[2] where, double[1,7,5,5] e"
    kind = "double" if "(e, " in text else "float"
    graph = make(f"g ({inputs}) => ({kind}[1,N,H,W] y) {{ [s] {text} }}", **used)
    after, refused, changed = apply(split_to_slice.run, graph)
    assert "Split" in ops(after)
    assert (refused, changed) == ({"s": reason}, [])


def test_attention_stays(make, ops, apply, noise):
    """q, k and v of one MatMul meet each other, not weights."""
    text = """g (float[1,5,12] x) => (float[1,5,5] y) {
        p = MatMul (x, w) [s] q, k, v = Split <axis = 2, num_outputs = 3> (p)
        t = Transpose <perm = [0,2,1]> (k) y = MatMul (q, t) }"""
    _, refused, _ = apply(split_to_slice.run, make(text, w=noise(12, 12)))
    assert refused == {"s": NO_WEIGHTS}


def test_in_a_body(branch, agree, inside, apply, noise):
    text = "a, b = Split <axis = 1> (x, sizes) v = Conv (b, w) y = Concat <axis = 1> (a, v)"
    graph = branch("1,7,5,5", text, w=noise(4, 4, 1, 1), sizes=np.array([3, 4]))
    after, refused, changed = apply(split_to_slice.run, graph)
    assert inside(after)["If_0/then_branch"] == ["Slice", "Slice", "Conv", "Concat"]
    assert (refused, len(changed)) == ({}, 1)
    for taken in (True, False):
        agree(graph, after, {"x": noise(1, 7, 5, 5), "c": np.array(taken)}, 0.0)
