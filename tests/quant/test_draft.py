"""Which ops become int8, which do not, and the words why."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from edgeq.errors import EdgeqError
from edgeq.ir import Graph
from edgeq.quant.draft import Draft, draft

GraphOf = Callable[..., Graph]

W3 = np.ones((4, 3, 3, 3), np.float32)
W4 = np.ones((4, 4, 3, 3), np.float32)
B4 = np.ones(4, np.float32)
IMAGE = "g (float[1,3,8,8] x) => (float[1,4,4,4] y)"


def decisions(made: Draft) -> dict[str, str]:
    """node -> "int8", "int8 in HOST", or the reason."""
    texts: dict[str, str] = {}
    for name, op in made.ops.items():
        host = f" in {op.fused_into}" if op.fused_into else ""
        texts[name] = op.reason if op.precision != "int8" else "int8" + host
    return texts


def test_a_chain_of_convolutions_with_folded_clamps(graph_of: GraphOf) -> None:
    graph = graph_of(
        f"""{IMAGE} {{
          [one] a = Conv(x, w3, b4)
          [relu] r = Relu(a)
          low = Constant <value_float: float = 0.0> ()
          high = Constant <value_float: float = 6.0> ()
          [two] b = Conv(r, w4)
          [six] y = Clip(b, low, high)
        }}""",
        {"w3": W3, "w4": W4, "b4": B4},
    )
    made = draft(graph)
    texts = decisions(made)
    assert {name: texts[name] for name in ("one", "relu", "two", "six")} == {
        "one": "int8",
        "relu": "int8 in one",
        "two": "int8",
        "six": "int8 in two",
    }
    assert made.observe == ("x", "r", "y")
    assert made.clamps == {"r": ((0.0, np.inf),), "y": ((0.0, 6.0),)}
    assert [(layer.node, layer.axis, layer.bias, layer.output) for layer in made.layers] == [
        ("one", 0, "b4", "a"),
        ("two", 0, None, "b"),
    ]


def test_light_ops_are_int8_only_between_int8_ops(graph_of: GraphOf) -> None:
    graph = graph_of(
        """g (float[1,3,8,8] x) => (float[1,4,1,1] y, float[1,4,6,6] z) {
          [before] s = Sigmoid(x)
          [one] a = Conv(s, w3)
          [gate] g1 = Sigmoid(a)
          [swish] m = Mul(a, g1)
          [two] b = Conv(m, w1)
          [tail] t = Sigmoid(b)
          [pool] y = GlobalAveragePool(t)
          [side] z = LeakyRelu(m)
        }""",
        {"w3": W3, "w1": np.ones((4, 4, 1, 1), np.float32)},
    )
    made = draft(graph)
    texts = decisions(made)
    assert texts["gate"] == texts["swish"] == texts["one"] == texts["two"] == "int8"
    assert texts["before"] == "its inputs come from float ops"
    alone = "only float ops or outputs of the model read its result"
    assert texts["tail"] == texts["pool"] == texts["side"] == alone
    # a Sigmoid's range is known: nothing to observe, whether it runs in int8 or in float
    assert made.observe == ("a", "m", "b")
    assert {name: e.scale[0] for name, e in made.fixed.items()} == {"s": 1 / 256, "g1": 1 / 256}


def test_moves_pools_and_their_clamp_are_tied_to_what_they_read(graph_of: GraphOf) -> None:
    graph = graph_of(
        """g (float[1,8,8,3] x) => (float[1,5] y) {
          [first] n = Transpose <perm = [0,3,1,2]> (x)
          [one] a = Conv(n, w3)
          [pool] p = MaxPool <kernel_shape = [2,2], strides = [2,2]> (a)
          [relu] r = Relu(p)
          [flat] f = Flatten(r)
          [fc] y = Gemm <transB = 1> (f, wf, bf)
        }""",
        {"w3": W3, "wf": np.ones((5, 36), np.float32), "bf": np.ones(5, np.float32)},
    )
    made = draft(graph)
    assert set(decisions(made).values()) == {"int8", "int8 in pool"}
    assert made.ties == (("x", "n"), ("a", "r", "f"), ("y",))
    assert made.clamps == {"a": ((0.0, np.inf),)}
    assert made.layers[1].axis == 0


def test_a_linear_of_any_rank_quantizes_product_and_sum(graph_of: GraphOf) -> None:
    graph = graph_of(
        """g (float[2,5,8] x) => (float[2,5,4] y) {
          [product] p = MatMul(x, w)
          [sum] y = Add(p, b)
        }""",
        {"w": np.ones((8, 4), np.float32), "b": B4},
    )
    made = draft(graph)
    assert decisions(made) == {"product": "int8", "sum": "int8"}
    assert made.observe == ("x", "p", "y")
    assert made.layers[0].axis == 1
    assert [(item.node, item.tensor) for item in made.constants] == [("sum", "b")]


def test_a_residual_add_into_float_stays_float(graph_of: GraphOf) -> None:
    graph = graph_of(
        """g (float[2,5,8] x) => (float[2,5,8] y) {
          [product] p = MatMul(x, w)
          [sum] s = Add(p, b)
          [residual] r = Add(s, x)
          [norm] y = LayerNormalization(r, gain)
        }""",
        {"w": np.ones((8, 8), np.float32), "b": np.ones(8), "gain": np.ones(8, np.float32)}
        | {"b": np.ones(8, np.float32)},
    )
    texts = decisions(draft(graph))
    assert texts["sum"] == "int8"
    assert texts["residual"] == "only float ops or outputs of the model read its result"
    assert texts["norm"] == "ONNX Runtime has no int8 kernel for `LayerNormalization`"


def test_two_activations_multiply_in_int8(graph_of: GraphOf) -> None:
    graph = graph_of(
        """g (float[2,4,4] a, float[2,4,4] b) => (float[2,4,4] y) {
          [scores] s = MatMul(a, b)
          [soft] p = Softmax(s)
          [mix] y = MatMul(p, b)
        }"""
    )
    made = draft(graph)
    texts = decisions(made)
    assert texts["scores"] == texts["mix"] == "int8"
    assert "5 times slower" in texts["soft"]
    assert made.observe == ("a", "b", "s", "y")
    assert (made.fixed["p"].scale, made.fixed["p"].zero_point) == ((1 / 256,), (-128,))


@pytest.mark.parametrize(
    ("nodes", "reason"),
    [
        ("y = Conv(x, v)", "its weights are not constant"),
        ("y = Conv(x, w, c)", "its bias `c` is not constant"),
        ("h = Cast <to = 10> (x)  [n] y = Conv(h, k)", "`h` is a tensor of float16"),
        ("[n] y = Softmax(x)", "int8 `Softmax` is 5 times slower"),
        ("[n] y = ConvTranspose(x, w)", "ONNX Runtime has no int8 kernel for `ConvTranspose`"),
        ("[n] y = Tan(x)", "edgeq has no int8 rule for `Tan`"),
        ("[n] y = Relu(x)", "reads the model's input, and ONNX Runtime has no int8 `Relu`"),
        ("[n] y = Sqrt(x)", "ONNX Runtime has no int8 kernel for `Sqrt`"),
    ],
)
def test_single_ops_and_their_reasons(graph_of: GraphOf, nodes: str, reason: str) -> None:
    graph = graph_of(
        f"g (float[1,3,8,8] x, float[4,3,3,3] v, float[4] c) => (y) {{ {nodes} }}",
        {"w": W3, "k": W3.astype(np.float16)},
    )
    name = "n" if "[n]" in nodes else graph.nodes()[-1].name
    assert reason in decisions(draft(graph))[str(name)]


@pytest.mark.parametrize(
    ("node", "weights", "reason"),
    [
        (
            "Gemm <alpha = 2.0> (x, w)",
            {"w": np.ones((8, 4))},
            "does not fuse an int8 `Gemm` with alpha=2",
        ),
        ("Gemm <beta = 0.5> (x, w, b)", {"w": np.ones((8, 4)), "b": B4}, "with beta=0.5"),
        ("Gemm <transA = 1> (x, w)", {"w": np.ones((6, 4))}, "with transA=1"),
        (
            "Gemm (x, w, b)",
            {"w": np.ones((8, 4)), "b": np.ones((6, 4))},
            r"`b` [6, 4] is not one value per",
        ),
        ("Gemm (w, x)", {"w": np.ones((4, 6))}, "its weights are not constant"),
        ("Gemm (x, w)", {"w": np.ones((8, 0))}, "`w` has no elements"),
        (
            "MatMul (v, w)",
            {"v": np.ones((2, 8)), "w": np.ones((8, 4))},
            "both of its operands are constant",
        ),
        ("Relu (x)", {}, "ONNX Runtime has no int8 `Relu`"),
    ],
)
def test_linear_ops_that_stay_float(
    graph_of: GraphOf, node: str, weights: dict[str, np.ndarray], reason: str
) -> None:
    arrays = {name: np.asarray(array, np.float32) for name, array in weights.items()}
    graph = graph_of(f"g (float[6,8] x) => (y) {{ [n] y = {node} }}", arrays)
    assert reason in decisions(draft(graph))["n"]


@pytest.mark.parametrize(
    ("bias", "fits"),
    [((4,), True), ((1, 4), True), ((1,), True), ((), True), ((1, 1), True), ((6, 1), False)],
)
def test_biases_that_are_one_value_per_column(
    graph_of: GraphOf, bias: tuple[int, ...], fits: bool
) -> None:
    weights = {"w": np.ones((8, 4), np.float32), "b": np.ones(bias, np.float32)}
    graph = graph_of("g (float[6,8] x) => (y) { [n] y = Gemm(x, w, b) }", weights)
    assert (decisions(draft(graph))["n"] == "int8") is fits


@pytest.mark.parametrize(
    ("between", "reason"),
    [
        ("[n] m = Clip(a, one, six)", "its range 1..6 leaves out 0"),
        ("[n] m = Clip(a, free, six)", "its bounds are not constant"),
        ("k = Relu(a)  [n] m = Add(k, a)", ""),
        ('[n] m = Resize <mode = "linear"> (a, , scales)', "only for `Resize` with mode=nearest"),
        (
            "[n] m = AveragePool <kernel_shape = [2,2], dilations = [2,2]> (a)",
            "a dilated `AveragePool`",
        ),
        (
            "[n] m, i = MaxPool <kernel_shape = [2,2]> (a)  j = Cast <to = 1> (i)",
            "its second output is used",
        ),
        ("[n] m, o = Split <axis = 1, num_outputs = 2> (a)", "one of its outputs is not used"),
        ("[n] m = HardSwish(a)", "ONNX Runtime has no int8 kernel for `HardSwish`"),
    ],
)
def test_ops_between_convolutions(graph_of: GraphOf, between: str, reason: str) -> None:
    outputs = "(y, j)" if " j " in between else "(y)"
    graph = graph_of(
        f"""g (float[1,3,8,8] x, float free) => {outputs} {{
          a = Conv(x, w3)
          {between}
          y = Conv(m, w4)
        }}""",
        {
            "w3": W3,
            "w4": np.ones((4, 2 if "Split" in between else 4, 1, 1), np.float32),
            "one": np.float32(1),
            "six": np.float32(6),
            "scales": np.array([1, 1, 2, 2], np.float32),
        },
    )
    got = decisions(draft(graph))["n"]
    assert reason in got
    assert (got == "int8") is (reason == "")


def test_a_relu_whose_input_is_read_elsewhere_stays_and_says_so(graph_of: GraphOf) -> None:
    graph = graph_of(
        """g (float[1,3,8,8] x) => (y) {
          a = Conv(x, w3)
          [relu] r = Relu(a)
          [sum] m = Add(a, r)
          y = Conv(m, w4)
        }""",
        {"w3": W3, "w4": W4},
    )
    made = draft(graph)
    assert (
        decisions(made)["relu"] == "`a` is read elsewhere too, and ONNX Runtime has no int8 `Relu`"
    )
    assert decisions(made)["sum"] == "int8"
    assert made.observe == ("x", "a", "r", "m", "y")


@pytest.mark.parametrize(
    ("nodes", "relu"),
    [
        # the output of the convolution is an output of the model: nobody may clamp it
        ("y = Conv(x, w3)  [relu] r = Relu(y)  z = Conv(r, w4)", "`y` is read elsewhere too"),
        # pooling is tied to a tensor that somebody else reads unclamped
        (
            "a = Conv(x, w3)  p = MaxPool <kernel_shape = [1,1]> (a)  [relu] r = Relu(p)"
            "  s = Add(r, a)  y = Conv(s, w4)  z = Conv(s, w4)",
            "no int8 op makes `p`",
        ),
        # a Sigmoid's encoding is fixed
        (
            "a = Conv(x, w3)  s = Sigmoid(a)  [relu] r = Relu(s)  y = Conv(r, w4)  z = Conv(r, w4)",
            "no int8 op makes `s`",
        ),
    ],
)
def test_clamps_that_cannot_be_folded(graph_of: GraphOf, nodes: str, relu: str) -> None:
    graph = graph_of(f"g (float[1,3,8,8] x) => (y, z) {{ {nodes} }}", {"w3": W3, "w4": W4})
    assert relu in decisions(draft(graph))["relu"]


def test_clamps_fold_one_after_the_other(graph_of: GraphOf) -> None:
    graph = graph_of(
        """g (float[1,3,8,8] x) => (y) {
          a = Conv(x, w3)  [relu] r = Relu(a)  [six] y = Clip(r, , six)
        }""",
        {"w3": W3, "six": np.float32(6)},
    )
    made = draft(graph)
    assert decisions(made)["six"] == "int8 in conv0"
    assert made.observe == ("x", "y")
    assert made.clamps["y"] == ((0.0, np.inf), (-np.inf, 6.0))


def test_bodies_of_control_flow_stay_float(graph_of: GraphOf) -> None:
    graph = graph_of(
        """g (float[1,3,8,8] x, bool c) => (float[1,4,6,6] y) {
          a = Conv(x, w3)
          [branch] m = If (c) <
            then_branch = t () => (float[1,4,6,6] p) { [inner] p = Relu(a) },
            else_branch = e () => (float[1,4,6,6] q) { [inner] q = Neg(a) }>
          y = Sigmoid(m)
        }""",
        {"w3": W3},
    )
    texts = decisions(draft(graph))
    assert texts["branch/inner"] == texts["branch/inner'"] == "inside the body of an `If`"
    assert texts["branch"] == "edgeq has no int8 rule for `If`"
    assert texts["conv0"] == "int8"


def test_ops_without_float_tensors_are_neither(graph_of: GraphOf) -> None:
    graph = graph_of("g (float[2,3] x) => (int64[2] y) { [n] y = Shape(x) }")
    op = draft(graph).ops["n"]
    assert (op.precision, op.reason) == ("other", "it works on int64")


def test_ops_of_other_domains_have_no_rule(graph_of: GraphOf) -> None:
    graph = graph_of("g (float[2,3] x) => (float[2,3] y) { [n] y = com.acme.Add(x, x) }")
    assert decisions(draft(graph))["n"] == "edgeq has no int8 rule for `com.acme.Add`"


def test_keep_float_takes_patterns_and_says_which(graph_of: GraphOf) -> None:
    graph = graph_of(
        """g (float[1,3,8,8] x) => (y) {
          [body_one] a = Conv(x, w3)  [head_relu] r = Relu(a)  [head_two] y = Conv(r, w4)
        }""",
        {"w3": W3, "w4": W4},
    )
    texts = decisions(draft(graph, keep_float=["head_*", "*two"]))
    assert texts["body_one"] == "int8"
    assert texts["head_relu"] == texts["head_two"] == "kept in float by `--keep-float head_*`"


def test_a_pattern_that_matches_nothing_is_an_error(graph_of: GraphOf) -> None:
    graph = graph_of("g (float[2,3] x) => (y) { [head_1] y = Relu(x) }")
    with pytest.raises(EdgeqError, match=r"no node matches `--keep-float head/\*`") as caught:
        draft(graph, keep_float=["head/*"])
    assert caught.value.slug == "no-such-node"
    assert caught.value.hints == ("did you mean `head_1`?",)


@pytest.mark.parametrize(
    ("node", "name"),
    [
        (
            "q = QuantizeLinear(x, s)  y = DequantizeLinear(q, s)",
            "`DequantizeLinear`, `QuantizeLinear`",
        ),
        ("y = com.microsoft.QLinearAdd(x, s, z, x, s, z, s, z)", "`QLinearAdd`"),
        ("y = com.microsoft.MatMulNBits <K = 8, N = 8> (x, z, s)", "`MatMulNBits`"),
    ],
)
def test_a_quantized_model_is_refused(graph_of: GraphOf, node: str, name: str) -> None:
    graph = graph_of(
        f"g (float[2,8] x) => (float[2,8] y) {{ {node} }}", {"s": np.float32(1), "z": np.uint8(0)}
    )
    with pytest.raises(EdgeqError, match=f"it holds {name}") as caught:
        draft(graph)
    assert caught.value.slug == "already-quantized"


def test_quantized_ops_inside_a_body_count_too(graph_of: GraphOf) -> None:
    graph = graph_of(
        """g (float[2] x, bool c) => (float[2] y) {
          y = If (c) <
            then_branch = t () => (float[2] p) { p = Relu(x) },
            else_branch = e () => (float[2] q) {
              i = QuantizeLinear(x, s)  q = DequantizeLinear(i, s)
            }>
        }""",
        {"s": np.float32(1)},
    )
    with pytest.raises(EdgeqError, match="quantized already"):
        draft(graph)


def test_shared_weights_make_two_layers(graph_of: GraphOf) -> None:
    graph = graph_of(
        """g (float[1,4,8,8] x) => (y) {
          a = Conv <pads = [1,1,1,1]> (x, w, b)  y = Conv <pads = [1,1,1,1]> (a, w, b)
        }""",
        {"w": W4, "b": B4},
    )
    made = draft(graph)
    assert [(layer.weight, layer.bias) for layer in made.layers] == [("w", "b"), ("w", "b")]


@pytest.mark.parametrize(
    ("shape", "group", "pairs"),
    [((4, 3, 3, 3), 1, True), ((3, 1, 3, 3), 3, False), ((6, 1, 3, 3), 3, True)],
)
def test_only_depthwise_is_exempt_from_pairs(
    graph_of: GraphOf, shape: tuple[int, ...], group: int, pairs: bool
) -> None:
    graph = graph_of(
        f"g (float[1,3,8,8] x) => (y) {{ y = Conv <group = {group}> (x, w) }}",
        {"w": np.ones(shape, np.float32)},
    )
    assert draft(graph).layers[0].pairs is pairs


def test_a_model_without_int8_ops_gives_an_empty_draft(graph_of: GraphOf) -> None:
    made = draft(graph_of("g (float[2,3] x) => (y) { y = Tanh(x) }"))
    assert made.observe == made.ties == made.layers == ()
    assert not made.fixed


CHAIN = """g (float[1,3,8,8] x) => (float[1,4,2,2] y) {
  [one] a = Conv(x, w3) [relu] r = Relu(a)
  [pool] p = MaxPool <kernel_shape = [2,2], strides = [2,2]> (r)
  [move] q = Transpose <perm = [0,1,3,2]> (p)
  [two] b = Conv(q, w2) [three] y = Conv(b, w1)
}"""
CHAIN_WEIGHTS = {
    "w3": W3,
    "w2": np.ones((4, 4, 2, 2), np.float32),
    "w1": np.ones((4, 4, 1, 1), np.float32),
}


def test_a_node_that_measuring_left_in_float(graph_of: GraphOf) -> None:
    made = draft(graph_of(CHAIN, CHAIN_WEIGHTS), float_nodes={"two": "it loses 20 dB"})
    texts = decisions(made)
    assert texts["two"] == "it loses 20 dB"
    assert texts["three"] == texts["one"] == "int8"
    assert texts["move"] == "only float ops or outputs of the model read its result"


@pytest.mark.parametrize("tensor", ["r", "p", "q"])
def test_a_float_tensor_takes_along_what_shares_its_codes(graph_of: GraphOf, tensor: str) -> None:
    """Relu folds into `one`, pool and move keep the codes: `one` makes them, `two` reads them."""
    made = draft(graph_of(CHAIN, CHAIN_WEIGHTS), float_tensors={tensor: "3 dB alone"})
    texts = decisions(made)
    assert {texts[name] for name in ("one", "pool", "move", "two")} == {"3 dB alone"}
    assert texts["three"] == "int8"
    assert not {"r", "p", "q"} & {name for group in made.ties for name in group}


def test_a_float_tensor_before_a_clamp_leaves_what_reads_the_clamp(graph_of: GraphOf) -> None:
    made = draft(graph_of(CHAIN, CHAIN_WEIGHTS), float_tensors={"a": "3 dB alone"})
    texts = decisions(made)
    assert (texts["one"], texts["two"]) == ("3 dB alone", "int8")


def test_a_float_input_of_the_model(graph_of: GraphOf) -> None:
    made = draft(graph_of(CHAIN, CHAIN_WEIGHTS), float_tensors={"x": "3 dB alone"})
    assert decisions(made)["one"] == "3 dB alone"
    assert "x" not in made.observe


def test_an_op_keeps_its_own_reason_and_the_users(graph_of: GraphOf) -> None:
    graph = graph_of(
        "g (float[1,3,8,8] x) => (y) { [erf] e = Erf(x) [one] a = Conv(e, w3) [tanh] y = Tanh(a) }",
        {"w3": W3},
    )
    made = draft(
        graph,
        keep_float=["one"],
        float_nodes={"erf": "measured", "one": "measured"},
        float_tensors={"a": "measured"},
    )
    texts = decisions(made)
    assert texts["erf"] == "ONNX Runtime has no int8 kernel for `Erf`"
    assert texts["one"] == "kept in float by `--keep-float one`"
    assert texts["tanh"] == "ONNX Runtime has no int8 kernel for `Tanh`"


def test_a_clip_to_one_point_stays_float(graph_of: GraphOf) -> None:
    graph = graph_of(
        f"{IMAGE} {{ a = Conv(x, w3)  [zero] c = Clip(a, z, z)  y = Conv(c, w4) }}",
        {"w3": W3, "w4": W4, "z": np.float32(0)},
    )
    assert decisions(draft(graph))["zero"] == "its result is always 0"


BODY = """[branch] m = If (c) <
    then_branch = t () => (p) { p = Relu(moved) },
    else_branch = e () => (q) { q = Neg(moved) }>"""


@pytest.mark.parametrize(
    ("moves", "crashes"),
    [
        ("moved = Transpose <perm = [0,1,3,2]> (a)", True),
        ("b = Transpose <perm = [0,1,3,2]> (a)  moved = Unsqueeze(b, axes)", True),
        ("moved = Identity(a)", False),
        ("b = Neg(a)  moved = Transpose <perm = [0,1,3,2]> (b)", False),
    ],
)
def test_what_reaches_a_body_through_a_move_stays_float(
    graph_of: GraphOf, moves: str, crashes: bool
) -> None:
    """ONNX Runtime 1.31.1 aborts on such a file (tests/search/test_random_nets.py, seed 202)."""
    graph = graph_of(
        f"g (float[1,3,8,8] x, bool c) => (y) {{ a = Conv(x, w3) {moves} {BODY} y = Neg(m) }}",
        {"w3": W3, "axes": np.array([0], np.int64)},
    )
    said = decisions(draft(graph))["conv0"]
    assert said == (
        "a body reads its result behind a move in float: there ONNX Runtime crashes"
        if crashes
        else "int8"
    )


@pytest.mark.parametrize(("size", "is_int8"), [("1", False), ("2", True), ("tokens", False)])
def test_a_softmax_of_one_value_is_not_taken_into_int8(
    graph_of: GraphOf, size: str, is_int8: bool
) -> None:
    """ONNX Runtime's QLinearSoftmax makes 0 of a single value (1.31.1), where 1 is right; a free
    size may be 1 when it runs."""
    graph = graph_of(
        f"""g (float[1,{size},8] x) => (y) {{
          [one] a = MatMul(x, w)  t = Transpose <perm = [0,2,1]> (a)
          [two] s = MatMul(a, t)  p = Softmax(s)  [three] y = MatMul(p, a) }}""",
        {"w": np.ones((8, 8), np.float32)},
    )
    made = draft(graph)
    assert made.ops["two"].precision == "int8"
    assert (made.ops["three"].precision == "int8") == is_int8
    assert is_int8 or "makes 0 of a single value" in made.ops["three"].reason
