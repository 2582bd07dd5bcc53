"""Dynamic int8 and int8-stored weights: the numbers, and what the engine makes of the patterns."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

from edgeq.errors import EdgeqError
from edgeq.ir import Graph
from edgeq.numerics import affine
from edgeq.quant.calibrate import calibrate
from edgeq.quant.draft import draft
from edgeq.quant.dynamic import dynamic_nodes, plan_dynamic
from edgeq.quant.plan import Encoding, OpDecision, QuantPlan
from edgeq.quant.quantize import quantize
from edgeq_converters.write.onnx import write
from edgeq_runtime.engines import onnxruntime as engine

RNG = np.random.default_rng(77)
GraphOf = Callable[..., Graph]

ONE = "g (float[n,48] x) => (float[n,32] y) { y = MatMul(x, w) }"
LINEAR = "g (float[n,48] x) => (float[n,32] y) { y = Gemm <transB = 1> (x, w, b) }"
THREE = """g (float[n,4,48] x) => (float[n,4,32] y) {
    q = MatMul(x, wq)  k = MatMul(x, wk)  v = MatMul(x, wv)  s = Add(q, k)  y = Mul(s, v)
}"""


def normal(*shape: int) -> np.ndarray:
    return RNG.normal(size=shape).astype(np.float32)


def run(model: bytes, **feeds: np.ndarray) -> dict[str, np.ndarray]:
    return engine.open_session(model, threads=1, exact=True).run(feeds)


def optimized(model: bytes, folder: Path) -> onnx.ModelProto:
    """What the engine really runs."""
    path = folder / "optimized.onnx"
    engine.open_session(model, threads=1, optimized_path=str(path)).close()
    return onnx.load(path)


def kinds(model: onnx.ModelProto) -> dict[str, int]:
    return dict(Counter(node.op_type for node in model.graph.node))


def quantized_input(x: np.ndarray) -> tuple[np.ndarray, np.float32]:
    """What the engine's own DynamicQuantizeLinear makes of x: code - zero point, and the scale."""
    model = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["" : 17]> g (float[a,b] x)
        => (uint8[a,b] q, float s, uint8 z) { q, s, z = DynamicQuantizeLinear(x) }"""
    )
    made = run(model.SerializeToString(), x=x)
    return made["q"].astype(np.int64) - int(made["z"]), np.float32(made["s"])


def weights_of(plan: QuantPlan, name: str, array: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    encoding = plan.tensors[name]
    scale = np.array(encoding.scale, np.float32)
    return affine.quantize_weights(array, scale, encoding.axis).astype(np.int64), scale


@pytest.mark.parametrize("rows", [1, 7])
@pytest.mark.parametrize("pair_safe", [False, True])
def test_a_matmul_multiplies_integers(graph_of: GraphOf, rows: int, pair_safe: bool) -> None:
    w, x = normal(48, 32), normal(rows, 48)
    graph = graph_of(ONE, {"w": w})
    plan = plan_dynamic(graph, acts="dynamic", pair_safe=pair_safe)
    codes, scale = weights_of(plan, "w", w)
    integers, input_scale = quantized_input(x)
    wanted = (integers @ codes) * (input_scale * scale).astype(np.float64)
    got = run(write(graph, plan), x=x)["y"]
    # sums are exact; the product of the scales and its product with a sum round once each
    np.testing.assert_allclose(got, wanted, rtol=2 * 2.0**-24 * 1.01, atol=0)


def test_a_gemm_adds_its_bias_in_float(graph_of: GraphOf) -> None:
    w, b, x = normal(32, 48), normal(32), normal(5, 48)
    graph = graph_of(LINEAR, {"w": w, "b": b})
    plan = plan_dynamic(graph, acts="dynamic")
    assert plan.tensors["w"].axis == 0
    codes, scale = weights_of(plan, "w", w)
    integers, input_scale = quantized_input(x)
    product = (integers @ codes.T) * (input_scale * scale).astype(np.float64)
    got = run(write(graph, plan), x=x)["y"]
    # as above, and the sum with the bias rounds once more
    bound = (3 * np.abs(product) + np.abs(b)) * 2.0**-24 * 1.01
    assert np.all(np.abs(got - (product + b)) <= bound)


def test_the_range_is_that_of_each_run(graph_of: GraphOf) -> None:
    """A static range of the first sample would clip the second a thousandfold."""
    w, x = normal(48, 32), normal(3, 48)
    graph = graph_of(ONE, {"w": w})
    model = write(graph, plan_dynamic(graph, acts="dynamic"))
    for factor in (1.0, 1000.0, 1e-3):
        got = run(model, x=x * np.float32(factor))["y"] / np.float32(factor)
        wanted = x @ w
        assert 10 * np.log10(np.square(wanted).sum() / np.square(got - wanted).sum()) > 35


def test_the_engine_fuses_a_lone_layer(graph_of: GraphOf, tmp_path: Path) -> None:
    for text, weights in ((ONE, {"w": normal(48, 32)}), (LINEAR, LINEAR_WEIGHTS)):
        graph = graph_of(text, weights)
        model = write(graph, plan_dynamic(graph, acts="dynamic"))
        assert kinds(optimized(model, tmp_path)) == {"DynamicQuantizeMatMul": 1}


LINEAR_WEIGHTS = {"w": normal(32, 48), "b": normal(32)}


def test_layers_that_read_one_tensor_share_its_quantization(
    graph_of: GraphOf, tmp_path: Path
) -> None:
    graph = graph_of(THREE, {f"w{name}": normal(48, 32) for name in "qkv"})
    model = write(graph, plan_dynamic(graph, acts="dynamic"))
    written = kinds(onnx.load_from_string(model))
    assert written["DynamicQuantizeLinear"] == 1
    assert written["MatMulInteger"] == 3
    found = kinds(optimized(model, tmp_path))
    assert found == {
        "DynamicQuantizeLinear": 1,
        "MatMulIntegerToFloat": 3,
        "Add": 1,
        "Mul": 1,
    }


def test_one_matrix_read_twice_is_stored_once(graph_of: GraphOf) -> None:
    text = (
        "g (float[n,32] x) => (float[n,32] y) { h = MatMul(x, w)  t = Tanh(h)  y = MatMul(t, w) }"
    )
    graph = graph_of(text, {"w": normal(32, 32)})
    model = onnx.load_from_string(write(graph, plan_dynamic(graph, acts="dynamic")))
    assert [row.name for row in model.graph.initializer] == ["w_codes", "w_scale"]


def test_a_matrix_read_both_ways_is_stored_both_ways(graph_of: GraphOf) -> None:
    text = """g (float[n,32] x) => (float[n,32] y) {
        h = MatMul(x, w)  t = Tanh(h)  y = Gemm <transB = 1> (t, w)
    }"""
    w = normal(32, 32)
    graph = graph_of(text, {"w": w})
    plan = plan_dynamic(graph, acts="dynamic")
    assert {key.partition("@")[0] for key in plan.tensors} == {"w"}
    assert sorted(encoding.axis or 0 for encoding in plan.tensors.values()) == [0, 1]
    x = normal(6, 32)
    wanted = np.tanh(x @ w) @ w.T
    got = run(write(graph, plan), x=x)["y"]
    assert 10 * np.log10(np.square(wanted).sum() / np.square(got - wanted).sum()) > 30


@pytest.mark.parametrize("shape", [(0, 48), (1, 48)])
def test_zeros_and_nothing_give_zeros_and_nothing(
    graph_of: GraphOf, shape: tuple[int, int]
) -> None:
    graph = graph_of(ONE, {"w": normal(48, 32)})
    got = run(write(graph, plan_dynamic(graph, acts="dynamic")), x=np.zeros(shape, np.float32))
    np.testing.assert_array_equal(got["y"], np.zeros((shape[0], 32), np.float32))


# -- tables -------------------------------------------------------------------------------------

TABLE = "g (int64[n,s] ids) => (float[n,s,24] y) { y = Gather(t, ids) }"


def test_a_table_stays_int8_and_its_rows_come_back(graph_of: GraphOf, tmp_path: Path) -> None:
    table = normal(40, 24) * np.exp(RNG.normal(size=(40, 1))).astype(np.float32)
    graph = graph_of(TABLE, {"t": table})
    plan = plan_dynamic(graph, acts="dynamic")
    model = write(graph, plan)
    ids = RNG.integers(0, 40, (3, 5))
    codes, scale = weights_of(plan, "t", table)
    wanted = codes[ids].astype(np.float32) * scale[ids][..., None]
    np.testing.assert_array_equal(run(model, ids=ids)["y"], wanted)
    assert np.abs(wanted - table[ids]).max(axis=-1) == pytest.approx(0, abs=scale.max() / 2)
    held = {row.name: row.data_type for row in optimized(model, tmp_path).graph.initializer}
    assert held == {"t_codes": onnx.TensorProto.INT8, "t_scale": onnx.TensorProto.FLOAT}


def test_a_table_of_matrices(graph_of: GraphOf) -> None:
    text = "g (int64[n] ids) => (float[n,5,6] y) { y = Gather(t, ids) }"
    table = normal(30, 5, 6)
    graph = graph_of(text, {"t": table})
    plan = plan_dynamic(graph, acts="fp32")
    codes, scale = weights_of(plan, "t", table)
    ids = np.array([3, -1, 29])
    wanted = codes[ids].astype(np.float32) * scale[ids][:, None, None]
    np.testing.assert_array_equal(run(write(graph, plan), ids=ids)["y"], wanted)


# -- weights that are stored in int8 and computed with in float ---------------------------------

STORED = {
    "Conv": (
        "g (float[1,8,9,9] x) => (y) { y = Conv <pads = [1,1,1,1]> (x, w, b) }",
        (16, 8, 3, 3),
    ),
    "depthwise": ("g (float[1,64,9,9] x) => (y) { y = Conv <group = 64> (x, w) }", (64, 1, 3, 3)),
    "ConvTranspose": ("g (float[1,8,5,5] x) => (y) { y = ConvTranspose (x, w) }", (8, 6, 3, 3)),
    "MatMul": ("g (float[3,40] x) => (y) { y = MatMul(x, w) }", (40, 24)),
    "stack": ("g (float[2,3,40] x) => (y) { y = MatMul(x, w) }", (2, 40, 24)),
    "left": ("g (float[40,3] x) => (y) { y = MatMul(w, x) }", (24, 40)),
    "vector": ("g (float[3,300] x) => (y) { y = MatMul(x, w) }", (300,)),
    "Gemm": ("g (float[3,40] x) => (y) { y = Gemm <transB = 1, alpha = 0.5> (x, w) }", (24, 40)),
    "GRU": ("g (float[4,1,12] x) => (y) { y, h = GRU <hidden_size = 9> (x, w, r) }", (1, 27, 12)),
}


@pytest.mark.parametrize("case", STORED)
def test_stored_weights_run_at_full_speed_as_what_they_are(
    graph_of: GraphOf, tmp_path: Path, case: str
) -> None:
    """The engine folds codes and scales at load: what it runs is the float op on rounded weights,
    so the outputs are those of that float model bit for bit."""
    text, shape = STORED[case]
    arrays = {"w": normal(*shape)}
    if case == "GRU":
        arrays["r"] = normal(1, 27, 9) * np.float32(3)
    if case == "Conv":
        arrays["b"] = normal(16)
    graph = graph_of(text, arrays)
    plan = plan_dynamic(graph, acts="fp32")
    for name in arrays.keys() & {"w"}:
        codes, scale = weights_of(plan, name, arrays[name])
        axis = plan.tensors[name].axis
        arrays[name] = affine.dequantize(codes, scale, axis=axis)
        assert np.abs(arrays[name]).max() > 1
    model = write(graph, plan)
    rounded = write(graph_of(text, arrays), None)
    x = normal(*(size if isinstance(size, int) else 2 for size in graph.inputs[0].shape))
    got, wanted = run(model, x=x), run(rounded, x=x)
    found, float_model = optimized(model, tmp_path), optimized(rounded, tmp_path)
    assert kinds(found) == kinds(float_model)
    if case != "GRU":  # `r` has less than 256 values and stays; it is compared all the same
        assert len(plan.tensors) == 1
    for name, array in wanted.items():
        np.testing.assert_array_equal(got[name], array)


def test_a_file_of_stored_weights_is_a_quarter(graph_of: GraphOf) -> None:
    graph = graph_of("g (float[n,256] x) => (y) { y = MatMul(x, w) }", {"w": normal(256, 512)})
    ratio = len(write(graph, plan_dynamic(graph, acts="fp32"))) / len(write(graph, None))
    assert ratio < 0.26  # a byte for four, 512 scales, and 600 bytes of nodes and names


# -- together with static int8 ------------------------------------------------------------------

MIXED = """g (float[n,3,8,8] x) => (float[n,40] y, float[n,16] p) {
    c = Conv <pads = [1,1,1,1]> (x, w)  r = Relu(c)  d = Conv(r, v)
    f = GlobalAveragePool(d)  p = Flatten(f)  h = MatMul(p, u)  y = Add(h, b)
}"""
MIXED_WEIGHTS = {
    "w": normal(16, 3, 3, 3),
    "v": normal(16, 16, 1, 1),
    "u": normal(16, 40),
    "b": normal(40),
}


def mixed(graph_of: GraphOf) -> tuple[Graph, QuantPlan]:
    graph = graph_of(MIXED, MIXED_WEIGHTS)
    made = draft(graph, float_nodes=dict.fromkeys(dynamic_nodes(graph), "dynamic"))
    session = engine.open_session(write(graph, None, extra_outputs=made.observe), threads=1)
    statistics = calibrate(session, [{"x": normal(2, 3, 8, 8)} for _ in range(4)], made.observe)
    base = quantize(graph, made, statistics, pair_safe=False)
    return graph, plan_dynamic(graph, acts="dynamic", base=base)


@pytest.mark.parametrize("dtype", ["uint8", "int8"])
def test_a_mixed_plan_has_both_kinds_of_kernel(
    graph_of: GraphOf, tmp_path: Path, dtype: str
) -> None:
    graph, plan = mixed(graph_of)
    assert plan.counts()["int8"]["Conv"] == 2
    assert plan.counts()["dynamic-int8"] == {"MatMul": 1}
    model = write(graph, plan, activation_dtype=dtype)
    assert onnx.load_from_string(model).opset_import[0].version == {"uint8": 21, "int8": 20}[dtype]
    x = normal(2, 3, 8, 8)
    got, wanted = run(model, x=x), run(write(graph, None), x=x)
    for name in ("y", "p"):
        noise = np.square(got[name] - wanted[name]).sum()
        assert 10 * np.log10(np.square(wanted[name]).sum() / noise) > 20
    found = kinds(optimized(model, tmp_path))
    assert found["DynamicQuantizeMatMul"] == 1
    if dtype == "uint8":  # int8 Q/DQ stay float on x86 unless asked: test_fusion has them
        assert found["QLinearConv"] == 2


def test_extra_outputs_of_every_precision(graph_of: GraphOf) -> None:
    graph, plan = mixed(graph_of)
    names = ("d", "h")
    got = run(write(graph, plan, extra_outputs=names), x=normal(2, 3, 8, 8))
    assert set(names) <= set(got)
    assert got["h"].dtype == np.float32


def test_the_same_plan_gives_the_same_bytes(graph_of: GraphOf) -> None:
    arrays = {f"w{name}": normal(48, 32) for name in "qkv"}
    written = {
        write(graph, plan_dynamic(graph, acts=acts))
        for acts in ("dynamic", "fp32")
        for graph in (graph_of(THREE, arrays), graph_of(THREE, arrays))
    }
    assert len(written) == 2


def test_a_plan_of_another_graph_is_refused(graph_of: GraphOf) -> None:
    graph = graph_of(ONE, {"w": normal(48, 32)})
    plan = plan_dynamic(graph, acts="dynamic")
    scale = plan.tensors["w"].scale
    node = graph.nodes()[0].name
    wrong: list[tuple[QuantPlan, str]] = [
        (QuantPlan({}, plan.ops), "cannot run in dynamic int8"),
        (
            QuantPlan({"w": Encoding("int8", scale[:5], (0,) * 5, 1, True)}, plan.ops),
            r"tensor `w` \[48, 32\] has 5 scales",
        ),
        (
            QuantPlan({}, {"z": OpDecision("z", "MatMul", "dynamic-int8")}),
            "it has an op `z`, and the graph has no such node",
        ),
    ]
    assert node in plan.ops
    for other, message in wrong:
        with pytest.raises(EdgeqError, match=message) as caught:
            write(graph, other)
        assert caught.value.slug == "plan-mismatch"
