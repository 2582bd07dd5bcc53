"""Counting what the engine really runs in int8, from the model it saves after fusion."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest

from edgeq.quant.plan import Encoding, QuantPlan
from edgeq_converters.read.ort_optimized import Coverage, coverage
from edgeq_converters.write.onnx import write

RNG = np.random.default_rng(31)
Covered = Callable[[bytes], Coverage]


def normal(*shape: int) -> np.ndarray:
    return RNG.normal(size=shape).astype(np.float32)


NET = """g (float[1,16,8,8] x) => (float[1,5] y) {
  [one] a = Conv <pads = [1,1,1,1]> (x, w, b)
  [relu] r = Relu(a)
  [two] t = Conv <pads = [1,1,1,1]> (r, v)
  [sum] s = Add(t, r)
  [pool] p = MaxPool <kernel_shape = [2,2], strides = [2,2]> (s)
  [flat] f = Flatten(p)
  [fc] y = Gemm <transB = 1> (f, wf)
}"""


@pytest.fixture
def net(graph_of: Any, quantized: Any) -> Any:
    shapes = {"w": (16, 16, 3, 3), "b": (16,), "v": (16, 16, 3, 3), "wf": (5, 256)}
    return quantized(graph_of(NET, {name: normal(*shape) for name, shape in shapes.items()}))


def test_a_clean_chain_runs_whole_in_int8(net: Any, covered: Covered) -> None:
    found = covered(net.artifact())
    assert found.int8 == {"Add": 1, "Conv": 2, "Flatten": 1, "Gemm": 1, "MaxPool": 1}
    assert found.float == {}
    assert (found.q, found.dq) == (1, 1)
    assert found.lines == ()


def test_the_float_model_has_no_int8_op(net: Any, covered: Covered) -> None:
    found = covered(write(net.graph, None))
    assert found.int8 == {}
    assert found.float["Conv"] == 2
    assert found.float["Gemm"] == 1
    assert (found.q, found.dq, found.lines) == (0, 0, ())


def test_an_explicit_relu_lowers_the_count(net: Any, covered: Covered) -> None:
    """The range of `r` does not end at the Relu's 0, so the Relu must stay, and fusion breaks."""
    wide = Encoding("int8", (0.25,), (-100,))
    plan = QuantPlan({**net.plan.tensors, "r": wide}, net.plan.ops)
    found = covered(write(net.graph, plan))
    assert found.int8["Conv"] == 1
    assert found.float["Conv"] == 1
    assert found.dq > covered(net.artifact()).dq
    assert any("Conv `one` runs in float: Relu is left in it" in line for line in found.lines), (
        found
    )


def test_a_handmade_file_with_a_relu_before_the_quantizer(net: Any, covered: Covered) -> None:
    """Not our writer's: a Relu put by hand between a Conv and its QuantizeLinear."""
    model = onnx.load_model_from_string(net.artifact())
    nodes = list(model.graph.node)
    at = next(i for i, node in enumerate(nodes) if node.name == "two")
    nodes[at].output[0] = "bare"
    nodes.insert(at + 1, onnx.helper.make_node("Relu", ["bare"], ["t_raw"], name="by_hand"))
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    found = covered(model.SerializeToString())
    assert found.int8["Conv"] == 1
    assert found.float["Conv"] == 1
    assert any(line.startswith("Conv `two` runs in float") for line in found.lines)


def test_ops_kept_in_float_name_their_neighbours(
    graph_of: Any, quantized: Any, covered: Covered
) -> None:
    graph = graph_of(
        """g (float[1,3,8,8] x) => (float[1,4,6,6] y) {
          [one] a = Conv(x, w)  [soft] s = Softmax(a)  [tanh] t = Tanh(s)  [two] y = Conv(t, v)
        }""",
        {"w": normal(4, 3, 3, 3), "v": normal(4, 4, 1, 1)},
    )
    found = covered(quantized(graph).artifact())
    assert (found.int8, found.float) == ({"Conv": 2}, {"Softmax": 1, "Tanh": 1})
    first, second = found.lines
    assert first == (
        "Softmax `soft` runs in float: its result goes to Tanh `tanh` before it is quantized"
    )
    # the engine has given the tensor between them a name of its own
    assert second.startswith("Tanh `tanh` runs in float: its input `")
    assert second.endswith("` comes from Softmax `soft`")
    assert (found.q, found.dq) == (2, 2)


def test_a_lone_op_without_a_kernel_says_so(covered: Covered) -> None:
    model = onnx.parser.parse_model(
        """<ir_version: 10, opset_import: ["" : 21]>
        g (float[1,3,8,8] x) => (float[1,3,8,8] y)
        <float s = {0.1}, uint8 z = {128}> {
          q = QuantizeLinear(x, s, z)  d = DequantizeLinear(q, s, z)
          [tanh] t = Tanh(d)
          p = QuantizeLinear(t, s, z)  y = DequantizeLinear(p, s, z)
        }"""
    )
    found = covered(model.SerializeToString())
    assert found.lines == ("Tanh `tanh` runs in float: the engine has no int8 kernel that fits it",)


def test_a_result_that_is_an_output_is_named(
    graph_of: Any, quantized: Any, covered: Covered
) -> None:
    graph = graph_of(
        "g (float[1,3,8,8] x) => (y) { a = Conv(x, w)  [tanh] y = Tanh(a) }",
        {"w": normal(4, 3, 3, 3)},
    )
    found = covered(quantized(graph).artifact())
    assert found.lines == ("Tanh `tanh` runs in float: its result is the output `y`",)


def test_the_models_own_input_is_named(graph_of: Any, quantized: Any, covered: Covered) -> None:
    graph = graph_of(
        "g (float[1,3,8,8] x) => (y) { [scale] s = Mul(x, k)  y = Conv(s, w) }",
        {"w": normal(4, 3, 3, 3), "k": np.float32(0.1)},
    )
    found = covered(quantized(graph).artifact())
    assert found.lines == ("Mul `scale` runs in float: its input `x` is the model's",)


def test_a_result_that_nothing_reads_is_said(
    graph_of: Any, quantized: Any, covered: Covered
) -> None:
    graph = graph_of(
        "g (float[1,3,8,8] x) => (y) { y = Conv(x, w)  [dead] d = Tanh(y) }",
        {"w": normal(4, 3, 3, 3)},
    )
    lines = covered(quantized(graph).artifact()).lines
    assert lines in ((), ("Tanh `dead` runs in float: nothing reads its result",))


def test_shapes_and_masks_are_not_counted(graph_of: Any, covered: Covered) -> None:
    graph = graph_of(
        """g (float[n,3] x) => (float[m] y) {
          s = Shape(x)  p = ReduceProd(s)  y = Reshape(x, p)
        }"""
    )
    assert covered(write(graph, None)).float == {"Reshape": 1}


def test_dynamic_int8_counts_as_int8(covered: Covered) -> None:
    model = onnx.parser.parse_model(
        """<ir_version: 10, opset_import: ["" : 21]>
        g (float[2,4] x) => (float[2,3] y)
        <int8[4,3] w = {1,2,3,4,5,6,7,8,9,10,11,12}, float s = {0.1}> {
          q, a, z = DynamicQuantizeLinear(x)
          i = MatMulInteger(q, w, z)  f = Cast <to = 1> (i)  p = Mul(a, s)  y = Mul(f, p)
        }"""
    )
    assert covered(model.SerializeToString()).int8["MatMul"] == 1


def test_layout_changes_are_counted_apart(net: Any, covered: Covered) -> None:
    found = covered(net.artifact())
    assert "Transpose" not in found.int8
    assert found.layout > 0


def test_a_transpose_of_the_model_is_not_taken_for_the_engines(
    graph_of: Any, quantized: Any, covered: Covered
) -> None:
    graph = graph_of(
        """g (float[4,8] x) => (y) {
          a = MatMul(x, w)  [turn] t = Transpose <perm = [1,0]> (a)  y = MatMul(t, v)
        }""",
        {"w": normal(8, 4), "v": normal(4, 4)},
    )
    assert covered(quantized(graph).artifact()).int8 == {"MatMul": 2, "Transpose": 1}


def test_without_zero_point_or_known_types_nothing_is_guessed() -> None:
    model = onnx.parser.parse_model(
        """<ir_version: 10, opset_import: ["" : 21, "com.acme" : 1]>
        g (float[2] x) => (y)
        <float s = {0.1}> {
          q = QuantizeLinear(x, s)  m = com.acme.Odd()  r = Identity(m)  y = DequantizeLinear(q, s)
          e = ConstantOfShape(m)  f = Exp(e)
          k = Constant <value_floats: floats = [1.0]> ()  l = Exp(k)
        }"""
    )
    found = coverage(model.SerializeToString())
    assert (found.int8, found.float, found.q, found.dq) == ({}, {"Exp": 2}, 1, 1)


def test_what_is_left_of_the_pairs_is_grouped(
    graph_of: Any, quantized: Any, covered: Covered
) -> None:
    graph = graph_of(
        """g (float[1,3,8,8] x) => (float[1,4,6,6] y) {
          [one] a = Conv(x, w)  [erf] e = Erf(a)  [two] b = Conv(e, v)
          [tanh] t = Tanh(b)  [three] y = Conv(t, v)
        }""",
        {"w": normal(4, 3, 3, 3), "v": normal(4, 4, 1, 1)},
    )
    artifact = quantized(graph).artifact()
    assert covered(artifact).pairs == (
        "2 beside `Erf` (`erf`): ONNX Runtime has no int8 kernel for `Erf`",
        "2 beside `Tanh` (`tanh`): ONNX Runtime has no int8 kernel for `Tanh`",
        "1 at the input (`x`): the model's callers give it in float",
        "1 at the output (`y`): the model's callers read it in float",
    )


def test_the_plans_own_words_come_first(graph_of: Any, quantized: Any, tmp_path: Any) -> None:
    import onnxruntime

    graph = graph_of(
        "g (float[1,3,8,8] x) => (y) { [one] a = Conv(x, w)  [erf] y = Erf(a) }",
        {"w": normal(4, 3, 3, 3)},
    )
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "o.onnx")
    onnxruntime.InferenceSession(quantized(graph).artifact(), options, ["CPUExecutionProvider"])
    found = coverage((tmp_path / "o.onnx").read_bytes(), {"erf": "kept in float by the user"})
    assert "1 beside `Erf` (`erf`): kept in float by the user" in found.pairs


def test_groups_beyond_the_largest_are_counted_only() -> None:
    kinds = ("Abs", "Ceil", "Cos", "Erf", "Exp", "Floor", "Log", "Neg")
    body = "".join(
        f"d{k} = DequantizeLinear(q, s, z) [n{k}] y{k} = {kind}(d{k}) "
        for k, kind in enumerate(kinds)
    )
    model = onnx.parser.parse_model(
        f"""<ir_version: 10, opset_import: ["" : 21]>
        g (uint8[2] q) => (float[2] y0)
        <float s = {{0.1}}, uint8 z = {{0}}> {{ {body} }}"""
    )
    found = coverage(model.SerializeToString())
    assert len(found.pairs) == 7
    assert found.pairs[-1] == "2 more for 2 other reasons"


def test_weights_that_are_restored_at_every_run_say_so() -> None:
    model = onnx.parser.parse_model(
        """<ir_version: 10, opset_import: ["" : 21]>
        g (float[1,2] x) => (float[1,2] y)
        <int8[2,2] w = {1,2,3,4}, float s = {0.1}, int8 z = {0}> {
          d = DequantizeLinear(w, s, z)  y = MatMul(x, d)
        }"""
    )
    assert coverage(model.SerializeToString()).pairs == (
        "1 at the constant (`w`): it is stored in int8 and turned to float at every run",
    )


def test_a_plans_reason_is_found_where_fusing_took_the_name(
    graph_of: Any, quantized: Any, tmp_path: Any
) -> None:
    """The engine runs Conv and Clip as one op under the name of the Clip's result."""
    import onnxruntime

    from edgeq.quant.hints import reasons

    graph = graph_of(
        """g (float[1,3,8,8] x) => (float[1,4,6,6] y) {
          low = Constant <value_float = 0.0> () high = Constant <value_float = 6.0> ()
          [one] a = Conv(x, w)  [six] b = Clip(a, low, high)  [two] y = Conv(b, v) }""",
        {"w": normal(4, 3, 3, 3), "v": normal(4, 4, 1, 1)},
    )
    made = quantized(graph, float_nodes={"one": "the stem is slow here"})
    words = reasons(graph, made.plan)
    assert words["a"] == words["b"] == "the stem is slow here"
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "o.onnx")
    onnxruntime.InferenceSession(made.artifact(), options, ["CPUExecutionProvider"])
    found = coverage((tmp_path / "o.onnx").read_bytes(), words)
    (line,) = found.lines
    assert line.endswith("runs in float: the stem is slow here")
    assert any(pair.endswith(": the stem is slow here") for pair in found.pairs)


def test_an_op_that_the_engine_takes_into_int8_all_the_same_is_named(
    graph_of: Any, quantized: Any, tmp_path: Any
) -> None:
    import onnxruntime

    from edgeq.quant.hints import reasons

    graph = graph_of(
        """g (float[1,3,8,8] x) => (y) {
          [one] a = Conv(x, w)  [gate] s = Sigmoid(a)  [two] y = Conv(s, v) }""",
        {"w": normal(4, 3, 3, 3), "v": normal(4, 4, 1, 1)},
    )
    made = quantized(graph, float_nodes={"gate": "kept"})
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "o.onnx")
    onnxruntime.InferenceSession(made.artifact(), options, ["CPUExecutionProvider"])
    found = coverage((tmp_path / "o.onnx").read_bytes(), reasons(graph, made.plan))
    assert found.int8["Sigmoid"] == 1
    assert found.lines == (
        "Sigmoid `gate` runs in int8: the plan leaves it in float, but the engine takes ops that "
        "have an int8 kernel into int8 between DequantizeLinear and QuantizeLinear",
    )
