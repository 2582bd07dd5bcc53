"""int4 weights in ONNX: a DequantizeLinear in front of a float product, in opset 21."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest

from edgeq.errors import EdgeqError
from edgeq.ir import Graph
from edgeq.numerics import blocks
from edgeq.numerics.errors import sqnr_db
from edgeq.quant.dynamic import plan_dynamic
from edgeq.quant.plan import Encoding, OpDecision, QuantPlan
from edgeq_converters.write.onnx import write
from edgeq_runtime.engines import onnxruntime as engine

RNG = np.random.default_rng(12)
GraphOf = Callable[..., Graph]

TWO = """g (float[n,64] x) => (float[n,48] y, float[n,40] z) {
    [one] y = MatMul(x, w)  [two] z = Gemm <transB = 1> (x, v, b) }"""


def normal(*shape: int) -> np.ndarray:
    return RNG.normal(size=shape).astype(np.float32)


VALUES = {"w": normal(64, 48), "v": normal(40, 64), "b": normal(40)}


def run(model: bytes, x: np.ndarray) -> dict[str, np.ndarray]:
    return engine.open_session(model, threads=1, exact=True).run({"x": x})


@pytest.mark.parametrize("dtype", ["uint8", "int8"])
@pytest.mark.parametrize("weights", ["int4", "int4-block32"])
def test_the_engine_multiplies_by_what_the_codes_stand_for(
    graph_of: GraphOf, weights: str, dtype: str
) -> None:
    graph = graph_of(TWO, VALUES)
    plan = plan_dynamic(graph, acts="dynamic", weights=weights)
    model = write(graph, plan, activation_dtype=dtype)
    onnx.checker.check_model(onnx.load_from_string(model), full_check=True)
    x = normal(5, 64)
    got = run(model, x)
    block = 32 if weights == "int4-block32" else None
    restored = {}
    for name, rows in (("w", VALUES["w"].T), ("v", VALUES["v"])):
        scale = np.array(plan.tensors[name].scale, np.float32).reshape(len(rows), -1)
        scale = scale if block else scale[:, 0]
        restored[name] = blocks.dequantize(blocks.quantize(rows, scale, block), scale, block)
    # with blocks the engine may quantize x to int8 by rows while it runs: 40 dB, as dynamic int8
    assert sqnr_db(x @ restored["w"].T, got["y"]) > 35
    assert sqnr_db(x @ restored["v"].T + VALUES["b"], got["z"]) > 35
    exact = run(write(graph, None), x)
    assert sqnr_db(exact["y"], got["y"]) > 17  # 4 bits of a normal weight: 19 dB and better


def test_the_file_holds_half_a_byte_a_weight(graph_of: GraphOf) -> None:
    graph = graph_of(TWO, VALUES)
    plan = plan_dynamic(graph, acts="dynamic", weights="int4-block32")
    model = onnx.load_from_string(write(graph, plan))
    held = {tensor.name: tensor for tensor in model.graph.initializer}
    assert held["w_codes"].data_type == onnx.TensorProto.INT4
    assert list(held["w_codes"].dims) == [64, 48] and len(held["w_codes"].raw_data) == 64 * 24
    assert list(held["w_scale"].dims) == [2, 48]
    assert list(held["v_scale"].dims) == [40, 2]
    found = {
        (node.op_type, *sorted((at.name, at.i) for at in node.attribute))
        for node in model.graph.node
        if node.op_type == "DequantizeLinear"
    }
    assert found == {
        ("DequantizeLinear", ("axis", 0), ("block_size", 32)),
        ("DequantizeLinear", ("axis", 1), ("block_size", 32)),
    }


def test_a_matrix_that_two_layers_read_is_stored_once(graph_of: GraphOf) -> None:
    graph = graph_of(
        "g (float[n,64] x) => (float[n,48] y, float[n,48] z) "
        "{ y = MatMul(x, w)  a = Neg(x)  z = MatMul(a, w) }",
        {"w": VALUES["w"]},
    )
    plan = plan_dynamic(graph, acts="dynamic", weights="int4")
    model = onnx.load_from_string(write(graph, plan))
    assert [tensor.name for tensor in model.graph.initializer] == ["w_codes", "w_scale"]


@pytest.mark.parametrize(
    ("encoding", "words"),
    [
        (Encoding("int8", (0.1,) * 48, (0,) * 48, 1, True), "has no int4 matrix"),
        (Encoding("int4", (0.1,) * 48, (0,) * 48, 1, True, block=32), "has 48 blocks"),
        (Encoding("int4", (0.1,) * 40, (0,) * 40, 1, True), "has 40 scales"),
    ],
)
def test_a_plan_that_does_not_fit_is_refused(
    graph_of: GraphOf, encoding: Encoding, words: str
) -> None:
    graph = graph_of(TWO, VALUES)
    plan = QuantPlan({"w": encoding}, {"one": OpDecision("one", "MatMul", "dynamic-int4")})
    with pytest.raises(EdgeqError, match=words) as refused:
        write(graph, plan)
    assert refused.value.slug == "plan-mismatch"
