"""What the written file holds: names, types, order, and nothing of the host."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir
import pytest

from edgeq.errors import EdgeqError
from edgeq.ir import Graph
from edgeq.quant.plan import Encoding, OpDecision, QuantPlan
from edgeq_converters.write.onnx import write
from edgeq_runtime.engines import onnxruntime as engine

RNG = np.random.default_rng(21)


def normal(*shape: int) -> np.ndarray:
    return RNG.normal(size=shape).astype(np.float32)


SMALL = """g (float[n,3,8,8] x) => (float[n,5] y, float[n,4,6,6] skip) {
  [one] a = Conv(x, w, b)
  [relu] r = Relu(a)
  [two] t = Conv <pads = [1,1,1,1]> (r, v)
  [sum] s = Add(t, r)
  [soft] skip = Softmax(s)
  [pool] p = GlobalAveragePool(s)
  [flat] f = Flatten(p)
  [fc] y = Gemm <transB = 1> (f, wf, bf)
}"""


def small_weights() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(5)
    shapes = {"w": (4, 3, 3, 3), "b": (4,), "v": (4, 4, 3, 3), "wf": (5, 4), "bf": (5,)}
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


@pytest.fixture
def small(graph_of: Callable[..., Graph]) -> Graph:
    return graph_of(SMALL, small_weights())


def parsed(data: bytes) -> onnx.ModelProto:
    model = onnx.load_model_from_string(data)
    onnx.checker.check_model(model, full_check=True)
    return model


def run(data: bytes, feeds: Any) -> dict[str, np.ndarray]:
    return engine.open_session(data, threads=1, exact=True).run(dict(feeds))


def test_the_float_file_computes_what_the_graph_does(small: Graph, samples_of: Any) -> None:
    original = onnx_ir.to_proto(small.model).SerializeToString()
    feeds = samples_of(small, 1)[0]
    wanted, got = run(original, feeds), run(write(small, None), feeds)
    assert list(got) == ["y", "skip"]
    for name, array in wanted.items():
        np.testing.assert_array_equal(got[name], array)


def test_files_are_opset_21_and_hold_nothing_of_the_host(small: Graph) -> None:
    small.model.doc_string = "made by C:/Users/me"
    small.model.producer_version = "7"
    small.model.metadata_props["path"] = "/home/me"
    small.model.graph.doc_string = "secret"
    small.nodes()[0].doc_string = "secret"
    small.nodes()[0].metadata_props["pkg.torch"] = "/home/me/model.py:3"
    data = write(small, None)
    assert b"secret" not in data
    assert b"me/" not in data
    model = parsed(data)
    assert (model.ir_version, model.producer_name, model.producer_version) == (10, "edgeq", "")
    assert [(item.domain, item.version) for item in model.opset_import] == [
        ("", 21),
        ("com.microsoft", 1),
    ]
    assert not model.graph.value_info
    assert not model.metadata_props


def test_every_initializer_is_raw_and_little_endian(graph_of: Any) -> None:
    graph = graph_of("g (float[2] x) => (float[2] y) { y = Add(x, k) }", {"k": normal(2)})
    tensor = onnx.helper.make_tensor("k", onnx.TensorProto.FLOAT, [2], [1.0, 2.0])
    assert tensor.float_data  # the other way to store it
    graph.model.graph.initializers["k"].const_value = onnx_ir.from_proto(tensor)
    kept = parsed(write(graph, None)).graph.initializer[0]
    assert kept.raw_data == np.array([1, 2], "<f4").tobytes()
    assert not kept.float_data


@pytest.mark.parametrize("dtype", [np.int64, np.bool_, np.float16, np.float64, np.uint8, np.str_])
def test_constants_of_any_type_survive(graph_of: Any, dtype: Any) -> None:
    array = np.array(["a", "bc"]) if dtype is np.str_ else np.array([0, 1], dtype)
    array = array.astype(object) if dtype is np.str_ else array
    kind = onnx.helper.np_dtype_to_tensor_dtype(array.dtype)
    name = onnx.TensorProto.DataType.Name(kind).lower()
    graph = graph_of(f"g (float[2] x) => ({name}[2] y) {{ y = Identity(k) }}", {"k": array})
    made = parsed(write(graph, None)).graph.initializer[0]
    np.testing.assert_array_equal(onnx.numpy_helper.to_array(made), array)


def test_constants_that_nothing_reads_are_left_out(graph_of: Any) -> None:
    graph = graph_of("g (float[2] x) => (float[2] y) { y = Relu(x) }", {"unused": normal(9)})
    assert not parsed(write(graph, None)).graph.initializer


def test_an_output_that_is_a_constant_or_an_input_is_kept(graph_of: Any) -> None:
    graph = graph_of(
        "g (float[2] x) => (float[2] x, float[2] k, float[2] y) { y = Relu(x) }", {"k": normal(2)}
    )
    model = onnx.load_model_from_string(write(graph, None))
    assert [value.name for value in model.graph.output] == ["x", "k", "y"]
    assert [tensor.name for tensor in model.graph.initializer] == ["k"]


def test_bodies_keep_what_they_read_from_outside(graph_of: Any, quantized: Any) -> None:
    graph = graph_of(
        """g (float[1,3,8,8] x, bool c) => (float[1,4,6,6] y) {
          e = Exp(x)
          a = Conv(e, w)
          y = If (c) <
            then_branch = t () => (float[1,4,6,6] p) { q = ReduceMax(e)  p = Mul(a, q) },
            else_branch = f () => (float[1,4,6,6] o) { o = Mul(a, k) }>
        }""",
        {"w": normal(4, 3, 3, 3), "k": normal(1)},
    )
    feeds = {"x": normal(1, 3, 8, 8), "c": np.array(True)}
    made = quantized(graph, samples=[feeds])
    float_result, got = run(write(graph, None), feeds)["y"], run(made.artifact(), feeds)["y"]
    model = parsed(made.artifact())
    assert {"k", "w_quantized"} <= {tensor.name for tensor in model.graph.initializer}
    assert "w" not in {tensor.name for tensor in model.graph.initializer}
    # `e` is float and read in a body: the body sees it unrounded, under its own name
    assert [node.output[0] for node in model.graph.node if node.op_type == "Exp"] == ["e"]
    assert np.isfinite(got).all()
    assert np.abs(got - float_result).max() < 0.05 * np.abs(float_result).max()


def test_a_quantized_tensors_value_keeps_its_name(small: Graph, quantized: Any) -> None:
    model = parsed(quantized(small).artifact())
    makers = {name: node for node in model.graph.node for name in node.output}
    for name in ("r", "t", "s", "p", "f", "y"):
        restore = makers[name]
        assert restore.op_type == "DequantizeLinear"
        assert restore.input[0] == f"{name}_quantized"
        assert makers[f"{name}_quantized"].op_type == "QuantizeLinear"
    assert "a" not in makers  # the clamp is folded, so the tensor before it is gone
    assert makers["x_dequantized"].op_type == "DequantizeLinear"
    assert "Relu" not in {node.op_type for node in model.graph.node}


@pytest.mark.parametrize(("dtype", "kind"), [("uint8", np.uint8), ("int8", np.int8)])
def test_activations_are_shifted_and_weights_are_not(
    small: Graph, quantized: Any, dtype: str, kind: Any
) -> None:
    made = quantized(small, activation_dtype=dtype)
    written = parsed(made.artifact()).graph
    arrays = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in written.initializer}
    zero_of = {
        node.input[1]: node.input[2] for node in written.node if node.op_type == "DequantizeLinear"
    }
    assert len(set(zero_of.values())) < len(zero_of)  # equal ones are stored once
    for name in ("x", "r", "t", "s", "p", "f", "y"):
        point = arrays[zero_of[f"{name}_scale"]]
        assert (point.dtype, point.shape) == (kind, ())
        shift = 128 if dtype == "uint8" else 0
        assert int(point) == made.plan.tensors[name].zero_point[0] + shift
        assert arrays[f"{name}_scale"] == np.float32(made.plan.tensors[name].scale[0])
    for name in ("w", "v", "wf"):
        assert arrays[f"{name}_quantized"].dtype == np.int8
        assert arrays[f"{name}_scale"].shape == (arrays[f"{name}_quantized"].shape[0],)
        assert not arrays[zero_of[f"{name}_scale"]].any()
    for name in ("b", "bf"):
        assert arrays[f"{name}_quantized"].dtype == np.int32


def test_graph_inputs_and_outputs_keep_name_shape_and_type(small: Graph, quantized: Any) -> None:
    model, original = parsed(quantized(small).artifact()), onnx_ir.to_proto(small.model)
    assert [(v.name, v.type) for v in model.graph.input] == [
        (v.name, v.type) for v in original.graph.input
    ]
    assert [(v.name, v.type) for v in model.graph.output] == [
        (v.name, v.type) for v in original.graph.output
    ]


def test_float_readers_see_float_values_where_there_are_any(graph_of: Any, quantized: Any) -> None:
    graph = graph_of(
        """g (float[2,8] x) => (float[2,8] e, float[2,4] y, float[2,8] t) {
          e = Exp(x)  s = Sqrt(e)  y = MatMul(e, w)  z = MatMul(s, w)  c = Concat <axis = 1> (y, z)
          t = Add(c, x)
        }""",
        {"w": normal(8, 4)},
    )
    feeds = {"x": normal(2, 8)}
    made = quantized(graph, samples=[feeds])
    got, wanted = run(made.artifact("s"), feeds), run(write(graph, None), feeds)
    np.testing.assert_array_equal(got["e"], wanted["e"])  # an output that an int8 op reads too
    model = parsed(made.artifact())
    readers = {node.name: list(node.input) for node in model.graph.node}
    assert readers["sqrt1"] == ["e"]
    assert readers["matmul2"][0] == "e_dequantized"
    assert readers["matmul3"][0] == "s"  # restored: its raw value is `s_raw`
    assert next(node for node in model.graph.node if node.name == "sqrt1").output[0] == "s_raw"


def test_extra_outputs_do_not_change_the_numbers(
    small: Graph, quantized: Any, samples_of: Any
) -> None:
    made, feeds = quantized(small), samples_of(small, 1, seed=3)[0]
    plain, watched = run(made.artifact(), feeds), run(made.artifact("r", "s", "x", "y"), feeds)
    assert list(watched) == ["y", "skip", "r", "s"]
    for name, array in plain.items():
        np.testing.assert_array_equal(watched[name], array)


def test_an_unknown_extra_output_is_refused(small: Graph) -> None:
    with pytest.raises(EdgeqError, match="no tensor `nine`") as caught:
        write(small, None, extra_outputs=["nine"])
    assert caught.value.slug == "no-such-tensor"


def test_names_that_are_taken_are_avoided(graph_of: Any, quantized: Any) -> None:
    graph = graph_of(
        """g (float[2,8] x) => (float[2,8] x_dequantized, float[2,4] y_raw) {
          [x_quantize] x_dequantized = Relu(x)
          y = MatMul(x, w)
          y_raw = Sqrt(y)
        }""",
        {"w": normal(8, 4)},
    )
    feeds = {"x": np.abs(normal(2, 8))}
    model = parsed(quantized(graph, samples=[feeds]).artifact())
    names = [name for node in model.graph.node for name in node.output]
    assert len(set(names)) == len(names)
    nodes = [node.name for node in model.graph.node if node.name]
    assert len(set(nodes)) == len(nodes)
    run(model.SerializeToString(), feeds)


def test_a_shared_bias_and_twofold_weights_are_stored_once_per_encoding(
    graph_of: Any, quantized: Any
) -> None:
    graph = graph_of(
        """g (float[4,4] x) => (float[4,4] y) {
          [one] a = Gemm(x, w, b)  [two] c = Gemm(a, w, b)  [three] d = Gemm <transB = 1> (c, w, b)
          [four] y = Add(d, w)
        }""",
        {"w": normal(4, 4), "b": normal(4)},
    )
    feeds = {"x": normal(4, 4)}
    made = quantized(graph, samples=[feeds])
    arrays = {t.name: t for t in parsed(made.artifact()).graph.initializer}
    assert {name for name in arrays if name.endswith("_quantized")} == {
        "w_quantized",
        "w@three_quantized",
        "b_quantized",
        "b@two_quantized",
        "b@three_quantized",
    }
    wanted, got = run(write(graph, None), feeds)["y"], run(made.artifact(), feeds)["y"]
    assert np.abs(got - wanted).max() < 0.05 * np.abs(wanted).max()


def explicit(plan: QuantPlan, tensor: str, low: float, high: float) -> QuantPlan:
    """`plan` with another range for `tensor`."""
    scale = float(np.float32((high - low) / 255))
    zero_point = int(np.rint(-128 - low / scale))
    return QuantPlan({**plan.tensors, tensor: Encoding("int8", (scale,), (zero_point,))}, plan.ops)


def test_a_clamp_is_dropped_only_where_the_range_ends_at_it(
    small: Graph, quantized: Any, samples_of: Any
) -> None:
    made = quantized(small)
    kinds = [node.op_type for node in parsed(made.artifact()).graph.node]
    assert "Relu" not in kinds
    wide = explicit(made.plan, "r", -1.0, 5.0)
    model = parsed(write(small, wide))
    relu = next(node for node in model.graph.node if node.op_type == "Relu")
    assert (list(relu.input), list(relu.output)) == (["a"], ["r_raw"])
    values = run(write(small, wide, extra_outputs=["r"]), samples_of(small, 1)[0])["r"]
    assert values.min() >= 0.0


def test_a_clip_is_kept_where_its_top_is_inside_the_range(graph_of: Any, quantized: Any) -> None:
    graph = graph_of(
        """g (float[1,3,8,8] x) => (float[1,4,6,6] y) {
          a = Conv(x, w)  [six] y = Clip(a, zero, six)
        }""",
        {"w": normal(4, 3, 3, 3) * 9, "zero": np.float32(0), "six": np.float32(6)},
    )
    made = quantized(graph)
    assert "Clip" not in {node.op_type for node in parsed(made.artifact()).graph.node}
    feeds = {"x": normal(1, 3, 8, 8) * 5}
    # the scale is rounded up by at most 2**-11, and so is the largest value
    assert run(made.artifact(), feeds)["y"].max() <= 6 * (1 + 2.0**-11)
    wide = explicit(made.plan, "y", 0.0, 7.0)
    assert "Clip" in {node.op_type for node in parsed(write(graph, wide)).graph.node}
    assert run(write(graph, wide), feeds)["y"].max() <= 6 + 7 / 255 / 2


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (lambda t, o: t.pop("r"), "`relu` is no clamp that could be folded away"),
        (lambda t, o: t.pop("s"), "tensor `s` has no encoding"),
        (lambda t, o: t.pop("w"), "tensor `w` has no encoding"),
        (lambda t, o: t.pop("x"), "tensor `x` has no encoding"),
        (
            lambda t, o: t.update(w=Encoding("int8", (1.0,) * 3, (0,) * 3, 0, True)),
            "`w` .* has 3 scales",
        ),
        (
            lambda t, o: t.update(b=Encoding("int32", (1.0,) * 3, (0,) * 3, 0, True)),
            "the bias of node `one` has 4",
        ),
        (lambda t, o: o.update(zz=OpDecision("zz", "Conv", "int8")), "no such node"),
        (
            lambda t, o: o.update(sum=OpDecision("sum", "Add", "int8", "", "one")),
            "`sum` is no clamp",
        ),
    ],
)
def test_a_plan_of_another_graph_is_refused(
    small: Graph, quantized: Any, break_it: Any, message: str
) -> None:
    plan = quantized(small).plan
    tensors, ops = dict(plan.tensors), dict(plan.ops)
    break_it(tensors, ops)
    with pytest.raises(EdgeqError, match=message) as caught:
        write(small, QuantPlan(tensors, ops))
    assert caught.value.slug == "plan-mismatch"


def test_a_plan_that_came_through_json_writes_the_same_bytes(small: Graph, quantized: Any) -> None:
    made = quantized(small)
    assert write(small, QuantPlan.from_json(made.plan.to_json())) == made.artifact()


def test_writing_leaves_the_graph_as_it_was(small: Graph, quantized: Any) -> None:
    before = onnx_ir.to_proto(small.model).SerializeToString(deterministic=True)
    first = quantized(small).artifact()
    assert quantized(small).artifact() == first
    assert onnx_ir.to_proto(small.model).SerializeToString(deterministic=True) == before


SCRIPT = """
import hashlib, importlib.util, sys
def load(path):
    spec = importlib.util.spec_from_file_location("part" + str(len(path)), path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module
tests, here = load(sys.argv[1]), load(sys.argv[2])
graph = tests.build_graph(here.SMALL, here.small_weights())
print(hashlib.sha256(tests.make_quantized(graph).artifact()).hexdigest())
"""


def test_bytes_do_not_depend_on_the_hash_seed_or_the_process(repository: Path) -> None:
    here = Path(__file__)
    digests = set()
    for seed in ("0", "1", "4242"):
        paths = [str(repository / part) for part in (".", "converters", "runtimes/python")]
        environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(paths)}
        command = [sys.executable, "-c", SCRIPT, str(here.with_name("conftest.py")), str(here)]
        digests.add(
            subprocess.run(
                command, env=environment, capture_output=True, text=True, check=True
            ).stdout
        )
    assert len(digests) == 1


def test_a_file_past_two_gigabytes_is_refused(
    graph_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph = graph_of("g (float[2] x) => (float[2] y) { y = Add(x, k) }", {"k": normal(2)})
    monkeypatch.setattr("edgeq_converters.write.onnx.LARGEST_FILE_BYTES", 2**24 + 7)
    with pytest.raises(EdgeqError, match="an ONNX file holds 2") as caught:
        write(graph, None)
    assert caught.value.slug == "too-large"
