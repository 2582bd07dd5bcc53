"""What a draft for LiteRT has in int8 that one for ONNX Runtime has not, and the words for it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np
import pytest

from edgeq.ir import Graph
from edgeq.quant.draft import Draft, draft
from edgeq.quant.kernels import BY_ENGINE, LITERT, ONNXRUNTIME
from edgeq.quant.plan import QuantPlan
from edgeq.quant.policy import Policy

GraphOf = Callable[..., Graph]

W3 = np.ones((4, 3, 3, 3), np.float32)
W1 = np.ones((4, 4, 1, 1), np.float32)
IMAGE = "g (float[1,3,8,8] x) => (float[1,4,6,6] y)"


def decisions(made: Draft) -> dict[str, str]:
    """node -> "int8", "int8 in HOST", or the reason."""
    texts: dict[str, str] = {}
    for name, op in made.ops.items():
        host = f" in {op.fused_into}" if op.fused_into else ""
        texts[name] = op.reason if op.precision != "int8" else "int8" + host
    return texts


def test_the_tables_are_found_by_the_engines_names() -> None:
    assert BY_ENGINE == {"onnxruntime": ONNXRUNTIME, "litert": LITERT}


def test_a_whole_classifier_is_int8_from_the_input_to_the_softmax(graph_of: GraphOf) -> None:
    graph = graph_of(
        """g (float[1,8,8,3] x) => (float[1,2] y) {
          [turn] t = Transpose <perm = [0,3,1,2]> (x)
          [frame] p = Pad (t, pads)
          [conv] c = Conv <strides = [2,2]> (p, w3)
          [relu] r = Relu (c)
          [mean] m = GlobalAveragePool (r)
          [flat] f = Flatten (m)
          [gemm] g1 = Gemm (f, k)
          [soft] y = Softmax (g1)
        }""",
        {"w3": W3, "k": np.ones((4, 2), np.float32), "pads": np.array([0, 0, 1, 1, 0, 0, 1, 1])},
    )
    made = draft(graph, kernels=LITERT)
    texts = decisions(made)
    assert {text for name, text in texts.items() if name != "relu"} == {"int8"}
    assert texts["relu"] == "int8 in conv"
    assert made.observe == ("x", "r", "m", "g1")
    assert made.fixed["y"].scale == (1 / 256,) and made.fixed["y"].zero_point == (-128,)
    assert ("x", "t", "p") in made.ties
    before = decisions(draft(graph))
    assert before["soft"] == "ONNX Runtime's int8 `Softmax` is 5 times slower than its float one"
    assert before["frame"] == "ONNX Runtime has no int8 kernel for `Pad`"


def test_what_leads_to_no_layer_stays_in_float(graph_of: GraphOf) -> None:
    graph = graph_of(
        """g (float[1,3,8,8] x) => (float[1,3,8,8] y, float[1,4,6,6] z) {
          [scale] s = Mul (x, half)
          [norm] y = LpNormalization (s)
          [shift] a = Add (x, half)
          [conv] z = Conv (a, w3)
        }""",
        {"w3": W3, "half": np.float32(0.5)},
    )
    texts = decisions(draft(graph, kernels=LITERT))
    assert texts["scale"] == "no int8 layer is before or behind it"
    assert texts["shift"] == texts["conv"] == "int8"


def test_what_float_ops_make_is_not_quantized_for_a_light_op(graph_of: GraphOf) -> None:
    graph = graph_of(
        f"{IMAGE} {{ [conv] a = Conv (x, w3) [erf] e = Erf (a) [tail] t = Tanh (e) "
        "[next] y = Conv (t, w1) }",
        {"w3": W3, "w1": W1},
    )
    texts = decisions(draft(graph, kernels=LITERT))
    assert texts["erf"] == "LiteRT has no int8 kernel for `Erf`"
    assert texts["tail"] == "its inputs come from float ops"
    assert texts["next"] == "int8"


def test_a_clamp_that_folds_nowhere_is_an_op_of_its_own(graph_of: GraphOf) -> None:
    graph = graph_of(
        """g (float[1,3,8,8] x) => (float[1,4,6,6] y, float[1,4,6,6] z) {
          [conv] a = Conv (x, w3)
          [six] y = Clip (a, zero, six)
          [next] z = Conv (a, w1)
        }""",
        {"w3": W3, "w1": W1, "zero": np.float32(0), "six": np.float32(6)},
    )
    made = draft(graph, kernels=LITERT)
    assert decisions(made)["six"] == "int8"
    assert made.clamps == {"y": ((0.0, 6.0),)}
    assert made.observe == ("x", "a", "y", "z")
    assert "is read elsewhere too" in decisions(draft(graph))["six"]


def test_no_clamp_folds_into_an_op_whose_output_is_fixed(graph_of: GraphOf) -> None:
    graph = graph_of(
        f"{IMAGE} {{ [conv] a = Conv (x, w3) [tanh] t = Tanh (a) [relu] y = Relu (t) }}",
        {"w3": W3},
    )
    made = draft(graph, kernels=LITERT)
    assert decisions(made) == {"conv": "int8", "tanh": "int8", "relu": "int8"}
    assert set(made.fixed) == {"t"}


def test_products_of_activations_wait_for_the_targets_word(graph_of: GraphOf) -> None:
    graph = graph_of(
        "g (float[4,4] x) => (float[4,4] y) "
        "{ [query] q = MatMul (x, w) [key] k = MatMul (x, v) [score] y = MatMul (q, k) }",
        {"w": np.ones((4, 4), np.float32), "v": np.ones((4, 4), np.float32)},
    )
    reason = decisions(draft(graph, kernels=LITERT))["score"]
    assert reason == LITERT.held["ActivationMatMul"]
    asked = Policy({"ActivationMatMul": 1.5})
    assert decisions(draft(graph, kernels=LITERT, policy=asked))["score"] == "int8"
    assert decisions(draft(graph))["score"] == "int8"


@pytest.mark.parametrize(
    ("node", "reason"),
    [
        ("Resize <mode = 'cubic'> (a, , scales)", "only for `Resize` with mode=nearest or linear"),
        ("Pad <mode = 'edge'> (a, pads)", "no int8 kernel for `Pad` with mode=edge"),
        ("Pad (a, pads, two)", "pads with another value than 0"),
        ("Softmax <axis = 0> (a)", "may be over a single value"),
        ("MaxPool <kernel_shape = [2,2], dilations = [2,2]> (a)", "a dilated `MaxPool`"),
        ("ReduceMean (a, axes)", "`axes` is not constant"),
        ("ConvTranspose <group = 2> (a, grouped)", "a grouped `ConvTranspose`"),
        ("MatMul (a, stack)", "no int8 `MatMul` on weights of 3 dimensions"),
        ("Conv (b, deep)", "no int8 kernel for a `Conv` of 3 dimensions"),
    ],
)
def test_what_a_kernel_does_not_take_is_said(graph_of: GraphOf, node: str, reason: str) -> None:
    text = node.replace("'", '"')
    graph = graph_of(
        f"""g (float[1,3,8,8] x, int64[1] axes) => (y) {{
          [conv] a = Conv (x, w3)  [deeper] b = Unsqueeze (a, zero)  [asked] y = {text} }}""",
        {
            "w3": W3,
            "scales": np.array([1, 1, 2, 2], np.float32),
            "pads": np.array([0, 0, 1, 1, 0, 0, 1, 1]),
            "two": np.float32(2),
            "zero": np.array([0]),
            "grouped": np.ones((4, 2, 3, 3), np.float32),
            "stack": np.ones((4, 6, 5), np.float32),
            "deep": np.ones((2, 1, 1, 3, 3), np.float32),
        },
    )
    assert reason in decisions(draft(graph, kernels=LITERT))["asked"]


def test_a_transposed_convolution_is_a_layer(graph_of: GraphOf) -> None:
    graph = graph_of(
        "g (float[1,4,8,8] x) => (float[1,2,10,10] y) { [up] y = ConvTranspose (x, w, b) }",
        {"w": np.ones((4, 2, 3, 3), np.float32), "b": np.ones(2, np.float32)},
    )
    (layer,) = draft(graph, kernels=LITERT).layers
    assert (layer.op_type, layer.axis, layer.bias) == ("ConvTranspose", 1, "b")


def test_unlike_operands_of_a_max_do_not_take_it_out_of_int8(graph_of: GraphOf) -> None:
    from edgeq.quant.calibrate import Statistics
    from edgeq.quant.joins import unlike
    from edgeq.quant.observers.histogram import Histogram

    texts = "{ [a] a = Conv (x, w3) [b] b = Conv (x, w3) [join] y = %s (a, b) }"
    found: dict[str, Mapping[str, str]] = {}
    for op in ("Max", "Concat <axis = 1>"):
        graph = graph_of(f"g (float[1,3,8,8] x) => (y) {texts % op}", {"w3": W3})
        made = draft(graph, kernels=LITERT)
        seen = {}
        for name in made.observe:
            seen[name] = Histogram()
            size = 1.0 if name == "a" else 400.0
            seen[name].add(size * np.random.default_rng(1).normal(size=999).astype(np.float32))
        found[op.split()[0]] = unlike(graph, made, Statistics(seen, 1), LITERT)
    assert found["Max"] == MappingProxyType({})
    assert set(found["Concat"]) == {"join"}


def test_a_draft_for_litert_is_a_plan_document(graph_of: GraphOf) -> None:
    graph = graph_of(f"{IMAGE} {{ a = Conv (x, w3) y = Elu (a) }}", {"w3": W3})
    plan = QuantPlan({}, draft(graph, kernels=LITERT).ops)
    assert QuantPlan.from_json(plan.to_json()) == plan


def test_an_infinity_has_no_code(graph_of: GraphOf) -> None:
    """As a maximum over nothing begins with it (the magika model)."""
    graph = graph_of(
        f"{IMAGE} {{ [conv] a = Conv (x, w3) [top] y = Max (a, low) }}",
        {"w3": W3, "low": np.float32(-np.inf)},
    )
    texts = decisions(draft(graph, kernels=LITERT))
    assert texts["top"] == "`low` holds an infinity, which no int8 code stands for"
    assert texts["conv"] == "int8"
