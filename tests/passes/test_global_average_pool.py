"""ReduceMean over height and width becomes GlobalAveragePool."""

import numpy as np
import pytest

from edgeq.passes import global_average_pool


def bound(x: np.ndarray) -> float:
    """Two orders of a sum of H * W terms, divided by their number."""
    return 2 * (x.shape[2] * x.shape[3] + 1) * float(np.finfo(np.float32).eps) * np.abs(x).max()


@pytest.mark.parametrize("axes", [(2, 3), (-1, -2)])
@pytest.mark.parametrize("keepdims", [0, 1])
def test_becomes_a_pool(make, agree, ops, apply, noise, axes, keepdims):
    shape = "N,4,1,1" if keepdims else "N,4"
    text = f"g (float[N,4,7,5] x) => (float[{shape}] y) {{ "
    text += f"[r] y = ReduceMean <keepdims = {keepdims}> (x, axes) }}"
    graph = make(text, axes=np.array(axes))
    after, refused, changed = apply(global_average_pool.run, graph)
    assert (
        ops(after) == ["GlobalAveragePool"] + [] if keepdims else ["GlobalAveragePool", "Flatten"]
    )
    assert refused == {}
    assert changed == ["`ReduceMean` (node `r`) became `GlobalAveragePool`"]
    x = noise(3, 4, 7, 5)
    agree(graph, after, {"x": x}, bound(x))


@pytest.mark.parametrize(
    ("axes", "reason"),
    [
        ([3], "its axes are [3], GlobalAveragePool takes [2, 3]"),
        ([1, 2], "its axes are [1, 2], GlobalAveragePool takes [2, 3]"),
        (None, "its axes are [0, 1, 2, 3], GlobalAveragePool takes [2, 3]"),
        ("input", "its axes are not known, GlobalAveragePool takes [2, 3]"),
        ("double", "its input is float64"),
    ],
)
def test_stays(make, ops, apply, axes, reason):
    kind = "double" if axes == "double" else "float"
    axes = [2, 3] if axes == "double" else axes
    operand = "" if axes is None else ", given" if axes == "input" else ", axes"
    arrays = {"axes": np.array(axes)} if operand == ", axes" else {}
    text = f"g ({kind}[2,4,7,5] x, int64[2] given) => ({kind}[A,B,C,D] y) {{ "
    after, refused, _ = apply(
        global_average_pool.run, make(f"{text} [r] y = ReduceMean (x{operand}) }}", **arrays)
    )
    assert ops(after) == ["ReduceMean"]
    assert refused == {"r": reason}


def test_of_anything_but_images_is_no_candidate(make, ops, apply):
    text = "g (float[2,4,7] x) => (float[2,4,1] y) { y = ReduceMean (x, axes) }"
    after, refused, changed = apply(global_average_pool.run, make(text, axes=np.array([2])))
    assert (ops(after), refused, changed) == (["ReduceMean"], {}, [])


def test_in_a_body(branch, agree, inside, apply, noise):
    text = "m = ReduceMean (x, axes) y = Mul (x, m)"
    graph = branch("1,4,7,5", text, axes=np.array([2, 3]))
    after, refused, changed = apply(global_average_pool.run, graph)
    assert inside(after)["If_0/then_branch"] == ["GlobalAveragePool", "Mul"]
    assert (refused, len(changed)) == ({}, 1)
    x = noise(1, 4, 7, 5)
    for taken in (True, False):
        agree(graph, after, {"x": x, "c": np.array(taken)}, bound(x) * np.abs(x).max())


@pytest.mark.parametrize("attributes", ["", ", strides = [2, 2]", ', auto_pad = "VALID"'])
def test_a_window_over_everything_becomes_a_pool(make, agree, ops, apply, noise, attributes):
    text = "g (float[N,4,7,5] x) => (float[N,4,1,1] y) { "
    text += f"[r] y = AveragePool <kernel_shape = [7, 5]{attributes}> (x) }}"
    graph = make(text)
    after, refused, changed = apply(global_average_pool.run, graph)
    assert (ops(after), refused) == (["GlobalAveragePool"], {})
    assert changed == ["`AveragePool` (node `r`) became `GlobalAveragePool`"]
    x = noise(3, 4, 7, 5)
    agree(graph, after, {"x": x}, bound(x))


@pytest.mark.parametrize(
    ("attributes", "height"),
    [("kernel_shape = [7, 4]", 1), ("kernel_shape = [7, 5], pads = [1, 0, 0, 0]", 2)],
)
def test_other_windows_stay(make, ops, apply, attributes, height):
    width = 1 if "pads" in attributes else 2
    text = f"g (float[1,4,7,5] x) => (float[1,4,{height},{width}] y) {{ "
    after, _, changed = apply(
        global_average_pool.run, make(f"{text} y = AveragePool <{attributes}> (x) }}")
    )
    assert (ops(after), changed) == (["AveragePool"], [])
