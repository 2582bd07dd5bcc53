"""fp16: which constants are halved and which are not, with the reason; what the file computes."""

import re
from collections.abc import Callable

import numpy as np
import onnx
import pytest

from edgeq.errors import EdgeqError
from edgeq.ir import Graph
from edgeq.quant.half import LEAST_DB, plan_half
from edgeq.quant.plan import QuantPlan
from edgeq_converters.write.onnx import write
from edgeq_runtime.engines import onnxruntime as engine

RNG = np.random.default_rng(0)
GraphOf = Callable[..., Graph]

LINEAR = """g (float[N, 16] x) => (float[N, 32] y) { h = MatMul (x, w)  y = Relu (h) }"""


def weights(*shape: int) -> np.ndarray:
    return RNG.normal(size=shape).astype(np.float32)


def run(model: bytes, **feeds: np.ndarray) -> dict[str, np.ndarray]:
    session = engine.open_session(model, threads=1)
    try:
        return session.run(dict(feeds))
    finally:
        session.close()


def test_weights_are_rounded_and_computed_in_float32(graph_of: GraphOf) -> None:
    """Bit-equal to float32 arithmetic on the rounded weights: nothing else changed."""
    w, x = weights(16, 32), weights(3, 16)
    graph = graph_of(LINEAR, {"w": w})
    plan = plan_half(graph)
    got = run(write(graph, plan), x=x)["y"]
    rounded = w.astype(np.float16).astype(np.float32)
    assert got.dtype == np.float32
    assert np.array_equal(got, run(write(graph_of(LINEAR, {"w": rounded}), None), x=x)["y"])
    assert not np.array_equal(got, run(write(graph, None), x=x)["y"])
    counts = {name: kinds for name, kinds in plan.counts().items() if kinds}
    assert counts == {"fp16-weights": {"MatMul": 1}, "float32": {"Relu": 1}}
    assert plan.ops["relu1"].reason == ""
    assert QuantPlan.from_json(plan.to_json()) == plan


def test_the_file_is_half_and_the_engine_folds_the_cast(
    graph_of: GraphOf, tmp_path: object
) -> None:
    graph = graph_of(LINEAR.replace("16]", "256]"), {"w": weights(256, 32)})
    whole, half = write(graph, None), write(graph, plan_half(graph))
    assert len(half) < 0.52 * len(whole)
    assert half == write(graph, plan_half(graph))
    path = f"{tmp_path}/optimized.onnx"
    engine.open_session(half, optimized_path=path).close()
    assert "Cast" not in {node.op_type for node in onnx.load(path).graph.node}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({(0, 0): -1e9}, r"it holds 1e\+09, beyond float16's 65504"),
        ({(0, 0): 65520.0}, r"it holds 6\.55e\+04, beyond float16's 65504"),
    ],
)
def test_what_float16_cannot_hold_stays(
    graph_of: GraphOf, change: dict[tuple[int, int], float], reason: str
) -> None:
    w, v = weights(16, 32), weights(32, 32)
    for place, value in change.items():
        w[place] = value
    graph = graph_of(
        """g (float[N, 16] x) => (float[N, 32] y) { h = MatMul (x, w)  y = MatMul (h, v) }""",
        {"w": w, "v": v},
    )
    plan = plan_half(graph)
    assert list(plan.tensors) == ["v"]
    assert plan.ops["matmul0"].precision == "float32"
    assert re.fullmatch(reason, plan.ops["matmul0"].reason)
    assert plan.notes == (f"kept in float32: `w`: {plan.ops['matmul0'].reason}",)
    assert plan.ops["matmul1"].precision == "fp16-weights"


def test_the_largest_float16_and_infinities_are_held(graph_of: GraphOf) -> None:
    w = weights(16, 32)
    w[0, 0], w[1, 1], w[2, 2] = 65504.0, 65519.0, -np.inf  # 65519 rounds to 65504
    assert list(plan_half(graph_of(LINEAR, {"w": w})).tensors) == ["w"]


@pytest.mark.parametrize(("size", "stays"), [(1.0, False), (3e-4, False), (1e-6, True)])
def test_values_below_the_normal_numbers_stay(graph_of: GraphOf, size: float, stays: bool) -> None:
    """Noise is at most half a step of 2**-24: normal values of deviation 3e-4 keep 10 log10(9e-8 /
    (2**-48 / 12)) = 85 dB of that, 1e-6 keeps 35."""
    w = weights(16, 32) * np.float32(size)
    graph = graph_of(LINEAR, {"w": w})
    if stays:
        with pytest.raises(EdgeqError, match=r"`w`: float16 would leave 3\d dB") as caught:
            plan_half(graph)
        assert caught.value.slug == "nothing-to-quantize"
    else:
        plan_half(graph)
    noise = w - w.astype(np.float16).astype(np.float32)
    assert (10 * np.log10(np.square(w).sum() / np.square(noise).sum()) < LEAST_DB) == stays


def test_a_few_tiny_values_among_others_are_no_reason(graph_of: GraphOf) -> None:
    w = weights(16, 32)
    w[:, :4] = 1e-9  # channels that were trained away
    assert list(plan_half(graph_of(LINEAR, {"w": w})).tensors) == ["w"]


def test_small_tensors_stay_without_a_word(graph_of: GraphOf) -> None:
    text = """g (float[N, 16] x) => (float[N, 32] y) { h = MatMul (x, w)  y = Add (h, b) }"""
    plan = plan_half(graph_of(text, {"w": weights(16, 32), "b": weights(32)}))
    assert list(plan.tensors) == ["w"]
    assert plan.notes == ()


def test_keep_float(graph_of: GraphOf) -> None:
    text = """g (float[N, 16] x) => (float[N, 32] y) { h = MatMul (x, w)  y = MatMul (h, v) }"""
    graph = graph_of(text, {"w": weights(16, 32), "v": weights(32, 32)})
    plan = plan_half(graph, keep_float=["matmul1"])
    assert list(plan.tensors) == ["w"]
    assert plan.ops["matmul1"].reason == "kept in float by `--keep-float matmul1`"
    with pytest.raises(EdgeqError, match="no node matches `--keep-float nope`"):
        plan_half(graph, keep_float=["nope"])


def test_a_model_without_weights_is_refused(graph_of: GraphOf) -> None:
    with pytest.raises(EdgeqError, match="no weights can be stored in float16: none has 256"):
        plan_half(graph_of("g (float[4] x) => (float[4] y) { y = Relu (x) }"))


def test_quantized_constants_and_outputs_stay(graph_of: GraphOf) -> None:
    text = """g (float[N, 16] x) => (float[N, 32] y, float[16, 32] w) {
        q = DynamicQuantizeLinear (x)
        h = MatMul (x, w)
        d = DequantizeLinear <axis = 0> (codes, scales)
        s = ReduceSum <keepdims = 0> (d)
        i = MatMul (x, v)
        j = Add (i, s)
        y = Add (h, j) }""".replace("q = DynamicQuantizeLinear (x)\n", "")
    graph = graph_of(
        text,
        {
            "w": weights(16, 32),
            "v": weights(16, 32),
            "codes": np.ones((300, 2), np.int8),
            "scales": np.abs(weights(300)),
        },
    )
    plan = plan_half(graph)
    assert list(plan.tensors) == ["v"]
    assert sorted(plan.notes) == [
        "kept in float32: `scales`: `DequantizeLinear` (node `dequantizelinear1`) reads it: the "
        "model is quantized already",
        "kept in float32: `w`: it is an output of the model",
    ]


BODIES = """g (bool c, float[16, 16] x) => (float[16, 16] y) {{
    y = If (c) <
      then_branch = t () => (float[16, 16] p) {{
        k = Constant <value = float[16, 16] {{{0}}}> ()
        p = MatMul (x, k) }},
      else_branch = e () => (float[16, 16] q) {{ q = MatMul (x, w) }}
    > }}"""


def test_bodies_are_halved_too(graph_of: GraphOf) -> None:
    w, k, x = weights(16, 16), weights(16, 16), weights(16, 16)
    text = BODIES.format(", ".join(f"{value:.9g}" for value in k.reshape(-1)))
    graph = graph_of(text, {"w": w})
    plan = plan_half(graph)
    assert sorted(plan.tensors) == ["k", "w"]
    assert [op.precision for op in plan.ops.values()] == ["float32", "fp16-weights", "fp16-weights"]
    model = write(graph, plan)
    onnx.checker.check_model(onnx.load_from_string(model), full_check=True)
    for branch, matrix in ((True, k), (False, w)):
        got = run(model, c=np.array(branch), x=x)["y"]
        want = run(
            write(
                graph_of(
                    LINEAR.replace("N, 16", "16, 16").replace("32", "16"),
                    {"w": matrix.astype(np.float16).astype(np.float32)},
                ),
                None,
            ),
            x=x,
        )["y"]
        assert np.array_equal(np.maximum(got, 0), want)
    halves = [
        tensor
        for node in onnx.load_from_string(model).graph.node
        for attribute in node.attribute
        for tensor in attribute.g.initializer
    ]
    assert [tensor.data_type for tensor in halves] == [onnx.TensorProto.FLOAT16]


def test_a_name_that_two_bodies_have_stays(graph_of: GraphOf) -> None:
    ones = ", ".join(["0.1"] * 256)
    text = BODIES.format(ones).replace(
        "{ q = MatMul (x, w) }",
        f"{{ k = Constant <value = float[16, 16] {{{ones}}}> () q = MatMul (x, k) }}",
    )
    with pytest.raises(EdgeqError, match="`k`: bodies beside each other have one of this name"):
        plan_half(graph_of(text))


def test_names_that_are_taken_are_not_taken_again(graph_of: GraphOf) -> None:
    text = """g (float[N, 16] w_half) => (float[N, 32] y) { w_cast = MatMul (w_half, w)
        y = Relu (w_cast) }"""
    graph = graph_of(text, {"w": weights(16, 32)})
    model = onnx.load_from_string(write(graph, plan_half(graph)))
    onnx.checker.check_model(model, full_check=True)
    assert [tensor.name for tensor in model.graph.initializer] == ["w_half_2"]
