"""Which layers must not trade factors, each reason by name."""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np
import pytest

from edgeq.ir import Graph
from edgeq.quant.algorithms.pairs import NEVER, find_pairs

GraphOf = Callable[..., Graph]
Arrays = dict[str, np.ndarray]


def ones(*shape: int) -> np.ndarray:
    return np.ones(shape, np.float32)


def ints(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


WEIGHTS = {"w": ones(4, 3, 1, 1), "b": ones(4), "v": ones(2, 4, 1, 1), "k": ones(4, 4)}
HEAD = "g (float[1,3,8,8] x) => (float[1,2,8,8] y) { [one] a = Conv (x, w, b) "
TAIL = " [two] y = Conv (z, v) }"
SIX = {"zero": np.array(0, np.float32), "six": np.array(6, np.float32)}

CASES: list[tuple[str, str, Arrays, str]] = [
    (
        "second-reader",
        HEAD + "z = Relu (a) n = Neg (z)" + TAIL,
        {},
        "`z` has a second reader, which would have to take the same factors",
    ),
    ("second-reader", HEAD + "s = Sigmoid (a) z = Mul (a, s)" + TAIL, {}, "`a` has a second"),
    (
        "model-output",
        "g (float[1,3,8,8] x) => (z, y) { [one] a = Conv (x, w, b) z = Relu (a)" + TAIL,
        {},
        "`z` is an output of the model",
    ),
    (
        "in-a-body",
        HEAD
        + "z = Relu (a) f = If (flag) <then_branch = t () => (float[1,4,8,8] p) { p = Neg (a) },"
        " else_branch = e () => (float[1,4,8,8] q) { q = Abs (a) }>" + TAIL,
        {"flag": np.array(True)},
        "`a` is read inside a body, which stays as it is",
    ),
    (
        "no-reader",
        "g (float[1,3,8,8] x) => (y) { [one] a = Conv (x, w, b) y = Relu (x) }",
        {},
        "`a` has no reader",
    ),
    ("not-homogeneous", HEAD + "z = Sigmoid (a)" + TAIL, {}, "`Sigmoid` (node `f`) does not scale"),
    ("not-homogeneous", HEAD + "z = HardSwish (a)" + TAIL, {}, "`HardSwish` (node `f`) does not"),
    ("not-homogeneous", HEAD + "z = Gelu (a)" + TAIL, {}, "`Gelu` (node `f`) does not scale"),
    ("not-homogeneous", HEAD + "z = Tanh (a)" + TAIL, {}, "`Tanh` (node `f`) does not scale"),
    ("not-homogeneous", HEAD + "z = Softmax (a)" + TAIL, {}, "`Softmax` (node `f`) does not"),
    (
        "not-homogeneous",
        HEAD + "z = InstanceNormalization (a, b, b)" + TAIL,
        {},
        "`InstanceNormalization` (node `f`) does not scale with its input",
    ),
    (
        "finite-top",
        HEAD + "z = Clip (a, zero, six)" + TAIL,
        SIX,
        "`Clip` (node `f`) ends at 6, which is not exact for scaled channels",
    ),
    (
        "finite-bottom",
        HEAD + "z = Clip (a, below)" + TAIL,
        {"below": np.array(-2, np.float32)},
        "`Clip` (node `f`) ends at -2 below zero",
    ),
    (
        "computed-bounds",
        HEAD + "m = ReduceMax <keepdims = 0> (x) z = Clip (a, m)" + TAIL,
        {},
        "the bounds of `Clip` (node `f`) are not constant",
    ),
    ("joins", HEAD + "z = Add (a, t)" + TAIL, {"t": ones(4, 1, 1)}, "`Add` (node `f`) joins"),
    ("joins", HEAD + "z = PRelu (t, a)" + TAIL, {"t": ones(1, 4, 8, 8)}, "`PRelu` (node `f`)"),
    ("moves-channels", HEAD + "z = Concat <axis = 1> (a)" + TAIL, {}, "`Concat` (node `f`) mixes"),
    (
        "moves-channels",
        "g (float[1,3,8,8] x) => (y) { [one] a = Conv (x, w, b) "
        "z = DepthToSpace <blocksize = 2> (a) [two] y = Conv (z, u) }",
        {"u": ones(2, 1, 1, 1)},
        "`DepthToSpace` (node `f`) mixes or moves channels",
    ),
    (
        "moves-channels",
        HEAD + "z = Transpose <perm = [0,1,3,2]> (a)" + TAIL,
        {},
        "`Transpose` (node `f`) mixes",
    ),
    (
        "splits-channels",
        "g (float[1,3,8,8] x) => (y) { [one] a = Conv (x, w, b) z = Reshape (a, shape) "
        "[two] y = Conv (z, u) }",
        {"shape": ints(1, 2, 16, 8), "u": ones(2, 2, 1, 1)},
        "`Reshape` (node `f`) splits or merges channels",
    ),
    (
        "splits-channels",
        "g (float[1,3,1,1] x) => (y) { [one] a = Conv (x, w, b) z = Squeeze (a, axes) "
        "[two] y = Gemm (z, k) }",
        {"axes": ints(0, 3), "w": ones(1, 3, 1, 1), "b": ones(1), "k": ones(1, 2)},
        "`Squeeze` (node `f`) splits",
    ),
    (
        "touches-channels",
        "g (float[1,3,8,8] x) => (y) { [one] a = Conv (x, w, b) z = Pad (a, pads) "
        "[two] y = Conv (z, u) }",
        {"pads": ints(0, 1, 0, 0, 0, 0, 0, 0), "u": ones(2, 5, 1, 1)},
        "`Pad` (node `f`) works along the channels",
    ),
    (
        "touches-channels",
        "g (float[1,3,8,8] x) => (y) { [one] a = Conv (x, w, b) z = Slice (a, from, to, axes) "
        "[two] y = Conv (z, u) }",
        {"from": ints(1), "to": ints(3), "axes": ints(-3), "u": ones(2, 2, 1, 1)},
        "`Slice` (node `f`) works along the channels",
    ),
    (
        "touches-channels",
        "g (float[1,3,8,8] x) => (y) { [one] a = Conv (x, w, b) z = Resize (a, , scales) "
        "[two] y = Conv (z, u) }",
        {"scales": np.array([1, 2, 1, 1], np.float32), "u": ones(2, 8, 1, 1)},
        "`Resize` (node `f`) works along the channels",
    ),
    (
        "padding",
        HEAD + "z = Pad (a, pads, seven)" + TAIL,
        {"pads": ints(0, 0, 1, 1, 0, 0, 1, 1), "seven": np.array(7, np.float32)},
        "`Pad` (node `f`) adds values other than zero",
    ),
    (
        "padding",
        HEAD + 'z = Resize <coordinate_transformation_mode = "tf_crop_and_resize",'
        " extrapolation_value = 3.0> (a, roi, scales)" + TAIL,
        {
            "roi": np.array([0, 0, 0, 0, 1, 1, 2, 2], np.float32),
            "scales": np.array([1, 1, 1, 1], np.float32),
        },
        "`Resize` (node `f`) adds values other than zero",
    ),
    (
        "second-output",
        "g (float[1,3,8,8] x) => (y, at) { [one] a = Conv (x, w, b) "
        "z, at = MaxPool <kernel_shape = [1,1]> (a)" + TAIL,
        {},
        "the second output of `MaxPool` (node `f`) is used",
    ),
    ("unknown-op", HEAD + "z = Sign (a)" + TAIL, {}, "nothing is known of `Sign` (node `f`)"),
    ("unknown-op", HEAD + "z = com.acme.Relu (a)" + TAIL, {}, "nothing is known of `Relu`"),
    (
        "no-layer",
        "g (float[1,3,8,8] x) => (y) { [one] a = Conv (x, w, b) y = ConvTranspose (a, u) }",
        {"u": ones(4, 2, 1, 1)},
        "the weights of `ConvTranspose` (node `f`) take no factors",
    ),
    (
        "no-layer",
        "g (float[1,3,8,8] x) => (y) { [one] a = Conv (x, w, b) y = MatMul (a, u) }",
        {"u": ones(8, 2)},
        "the weights of `MatMul` (node `f`) take no factors",
    ),
    (
        "no-layer",
        "g (float[1,3,1,1] x) => (y) { [one] a = Conv (x, w, b) [f] y = Conv (u, a) }",
        {"u": ones(1, 3, 4, 4), "w": ones(3, 3, 1, 1), "b": ones(3)},
        "the weights of `Conv` (node `f`) take no factors",
    ),
    (
        "shared-weights",
        "g (float[1,4,8,8] x) => (y) { [one] a = Conv (x, u) [two] y = Conv (a, u) }",
        {"u": ones(4, 4, 1, 1)},
        "the weights of `one` are read elsewhere too",
    ),
    (
        "shared-weights",
        HEAD + "[two] y = Conv (a, v) n = Neg (v) }",
        {},
        "the weights of `two` are read elsewhere too",
    ),
    (
        "computed-weights",
        HEAD + "u = Relu (v2) [two] y = Conv (a, u) }",
        {"v2": ones(2, 4, 1, 1)},
        "the weights of `two` are not constant",
    ),
    (
        "quantized-weights",
        HEAD + "u = DequantizeLinear (codes, step) [two] y = Conv (a, u) }",
        {"codes": np.ones((2, 4, 1, 1), np.int8), "step": np.array(0.1, np.float32)},
        "the weights of `two` are quantized already",
    ),
    (
        "not-float",
        "g (float16[1,3,8,8] x) => (y) { [one] a = Conv (x, u) [two] y = Conv (a, t) }",
        {"u": np.ones((4, 3, 1, 1), np.float16), "t": np.ones((2, 4, 1, 1), np.float16)},
        "the weights of `one` are float16",
    ),
    (
        "computed-bias",
        "g (float[1,3,8,8] x, float[4] c) => (y) { [one] z = Conv (x, w, c)" + TAIL,
        {},
        "the bias of `one` is not one constant value per channel",
    ),
    (
        "computed-bias",
        "g (float[5,4] x) => (y) { [one] a = Gemm (x, k, c) [two] y = Gemm (a, k2) }",
        {"c": ones(5, 1), "k2": ones(4, 2)},
        "the bias of `one` is not one constant value per channel",
    ),
    (
        "transposed",
        "g (float[5,4] x) => (y) { [one] a = Gemm (x, k) [two] y = Gemm <transA = 1> (a, k2) }",
        {"k2": ones(5, 2)},
        "`two` reads its input transposed",
    ),
    (
        "channels-differ",
        "g (float[2,3,4] x) => (float[2,2] y) { [one] a = Conv (x, u) z = Squeeze (a, axes) "
        "[two] y = Gemm (z, t) }",
        {"u": ones(4, 3, 4), "axes": ints(2), "t": ones(5, 2)},
        "`two` reads 5 channels where 4 are made",
    ),
]


def refusal(graph: Graph, **options: object) -> str:
    found = find_pairs(graph, **options)
    assert not found.legal
    return dict(found.refused)["one"]


@pytest.mark.parametrize(("key", "text", "weights", "reason"), CASES)
def test_a_pair_that_must_not_be_equalized_says_why(
    graph_of: GraphOf, key: str, text: str, weights: Arrays, reason: str
) -> None:
    graph = graph_of(text, {**WEIGHTS, **weights})
    middle = [node for node in graph.nodes() if str(node.name) not in ("one", "two")]
    for node in middle:
        if any(value.name in ("z", "y", "a") for value in node.outputs):
            node.name = "f"
    assert reason in refusal(graph)
    literal = [re.escape(part) for part in re.split(r"\{[^}]*\}", NEVER[key])]
    assert re.fullmatch(".+".join(literal), refusal(graph))  # the case is of the row it says


def test_a_tensor_whose_encoding_is_given_is_left_alone(graph_of: GraphOf) -> None:
    graph = graph_of(HEAD + "z = Relu (a)" + TAIL, WEIGHTS)
    assert refusal(graph, fixed=("z",)) == "the encoding of `z` is given"
    assert len(find_pairs(graph, fixed=("x",)).legal) == 1


def test_every_reason_has_a_case() -> None:
    assert {key for key, *_ in CASES} | {"fixed-encoding"} == set(NEVER)


def test_a_clip_is_let_through_when_asked_for(graph_of: GraphOf) -> None:
    graph = graph_of(HEAD + "z = Clip (a, zero, six)" + TAIL, {**WEIGHTS, **SIX})
    [pair] = find_pairs(graph, clips=True).legal
    assert (pair.first, pair.second, pair.top) == ("one", "two", 6.0)


def test_a_clip_that_leaves_nothing_is_never_let_through(graph_of: GraphOf) -> None:
    bounds = {"zero": np.array(0, np.float32), "none": np.array(0, np.float32)}
    graph = graph_of(HEAD + "z = Clip (a, zero, none)" + TAIL, {**WEIGHTS, **bounds})
    assert "ends at 0" in refusal(graph, clips=True)


def test_every_layer_is_either_first_of_a_pair_or_told_of(graph_of: GraphOf) -> None:
    text = """g (float[1,3,8,8] x) => (y) {
        [one] a = Conv (x, w, b)  r = Relu (a)  [two] c = Conv (r, u)  s = Relu (c)
        [three] d = Conv (s, t)  p = GlobalAveragePool (d)  f = Flatten (p)  [four] y = Gemm (f, k)
    }"""
    graph = graph_of(text, {**WEIGHTS, "u": ones(4, 4, 3, 3), "t": ones(4, 4, 3, 3)})
    found = find_pairs(graph)
    assert [(pair.first, pair.second) for pair in found.legal] == [
        ("one", "two"),
        ("two", "three"),
        ("three", "four"),
    ]
    assert found.refused == (("four", "`y` is an output of the model"),)
