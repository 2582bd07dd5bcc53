"""`Graph`, the questions one may ask of it, its rules, and shape inference."""

from __future__ import annotations

import numpy as np
import onnx_ir
import pytest

from edgeq import ir
from edgeq.ir.inference import InferenceFailure, infer
from edgeq_runtime.tensors import TensorInfo

TEXT = """<ir_version: 10, opset_import: ["": 21]>
g (float[N,4] x, bool c) => (float[N,3] y, float[N,3] z)
<float[4,3] w = {1,2,3,4,5,6,7,8,9,10,11,12}, float[3] b = {1,2,3}, float one = {1}>
{
    [m] p = MatMul (x, w)
    [a] y = Add (p, b)
    [t] q = Add (y, y)
    [if] z = If (c) <then_branch = t () => (float[N,3] u)
        <float[2] inner = {1,2}> { u = Mul (q, one) },
        else_branch = e () => (float[N,3] v) {
            k = Constant <value = float[3] {1,2,3}> ()
            v = Add (q, k) }>
}"""


@pytest.fixture
def graph() -> ir.Graph:
    made = ir.Graph(onnx_ir.from_onnx_text(TEXT))
    infer(made.model)
    return made


def value(graph: ir.Graph, name: str) -> onnx_ir.Value:
    found = graph.value(name)
    assert found is not None
    return found


def test_inputs_and_outputs(graph):
    assert graph.inputs == (
        TensorInfo(name="x", dtype="float32", shape=("N", 4)),
        TensorInfo(name="c", dtype="bool", shape=()),
    )
    assert [info.name for info in graph.outputs] == ["y", "z"]
    assert [info.shape for info in graph.outputs] == [("N", 3), ("N", 3)]


def test_nodes_are_those_of_the_top_level(graph):
    assert [node.name for node in graph.nodes()] == ["m", "a", "t", "if"]


def test_parameters_are_counted_in_bodies_too(graph):
    assert graph.parameter_count == 12 + 3 + 1 + 2


def test_values_come_once_each_and_by_name(graph):
    names = [value.name for value in graph.values()]
    assert names == ["x", "c", "w", "b", "one", "p", "y", "q", "z"]
    assert graph.value("nowhere") is None


def test_a_clone_may_be_edited(graph):
    twin = graph.clone()
    twin.nodes()[0].name = "other"
    assert graph.nodes()[0].name == "m"
    assert value(twin, "w").const_value is value(graph, "w").const_value


def test_constants(graph):
    np.testing.assert_array_equal(ir.constant(value(graph, "b")), [1, 2, 3])
    assert ir.constant(value(graph, "x")) is None
    assert ir.constant(None) is None
    body = ir.subgraphs(graph.nodes()[3])[1]
    np.testing.assert_array_equal(ir.constant(body.node(0).outputs[0]), [1, 2, 3])


def test_scalars(graph):
    assert ir.scalar(value(graph, "one")) == 1.0
    assert ir.scalar(value(graph, "b")) is None
    assert ir.scalar(value(graph, "x")) is None


def test_readers_inside_bodies_count(graph):
    q, one = value(graph, "q"), value(graph, "one")
    assert [node.op_type for node in ir.consumers(q)] == ["Mul", "Add"]
    assert ir.is_captured(q) and ir.is_captured(one)
    assert [node.op_type for node in ir.captured(one)] == ["Mul"]
    assert ir.sole_consumer(one) is None


def test_the_sole_reader(graph):
    p, y, w = (value(graph, name) for name in "pyw")
    assert ir.sole_consumer(p) is graph.nodes()[1]
    assert ir.sole_consumer(w) is graph.nodes()[0]
    assert ir.sole_consumer(y) is None  # an output, and read twice by one node
    assert not ir.is_captured(p)


def test_producers_and_outputs(graph):
    assert ir.producer(value(graph, "p")) is graph.nodes()[0]
    assert ir.producer(value(graph, "x")) is None
    assert ir.producer(None) is None
    assert ir.is_graph_output(value(graph, "y"))
    assert not ir.is_graph_output(value(graph, "p"))


def test_shapes_and_types(graph):
    assert ir.static_shape(value(graph, "w")) == (4, 3)
    assert ir.static_shape(value(graph, "p")) is None
    assert ir.static_shape(None) is None
    assert ir.dtype_of(value(graph, "c")) == "bool"


def test_attributes(graph):
    assert ir.attribute(graph.nodes()[3], "nothing", 7) == 7


def test_bodies_and_their_constants(graph):
    bodies = ir.subgraphs(graph.nodes()[3])
    assert len(bodies) == 2
    assert [item.name for item in ir.constants_inside(bodies[0])] == ["inner"]
    assert ir.subgraphs(graph.nodes()[0]) == ()


def test_a_valid_graph_passes(graph):
    ir.check(graph)


BROKEN = {
    "IR version 9": lambda model: setattr(model, "ir_version", 9),
    "opset 20": lambda model: model.graph.opset_imports.update({"": 20}),
    "a node without a name": lambda model: setattr(model.graph.node(0), "name", ""),
    "node names twice": lambda model: setattr(model.graph.node(0), "name", "a"),
    "tensor names twice": lambda model: setattr(model.graph.node(0).outputs[0], "name", "y"),
    "reads `q` too early": lambda model: model.graph.node(0).replace_input_with(
        0, model.graph.node(2).outputs[0]
    ),
    "without data": lambda model: setattr(model.graph.initializers["b"], "const_value", None),
    "is an input": lambda model: model.graph.inputs.append(model.graph.initializers["b"]),
}


@pytest.mark.parametrize("rule", BROKEN)
def test_each_rule_is_asserted(graph, rule):
    BROKEN[rule](graph.model)
    with pytest.raises(AssertionError, match=rule):
        ir.check(graph)


def test_inference_sees_what_changed(graph):
    value(graph, "x").shape = onnx_ir.Shape([5, 4])
    infer(graph.model)
    assert ir.static_shape(value(graph, "z")) == (5, 3)


def test_inference_refuses_contradictions(graph):
    value(graph, "x").shape = onnx_ir.Shape([5, 7])
    with pytest.raises(InferenceFailure, match="MatMul"):
        infer(graph.model)


def test_large_constants_never_reach_onnx(graph, monkeypatch):
    from edgeq.ir import inference

    seen = []
    real = inference.onnx_child()

    class Child:
        def ask(self, request, model):
            seen.append(len(model))
            return real.ask(request, model)

    big = np.zeros((4, 300_000), np.float32)
    value(graph, "w").const_value = onnx_ir.Tensor(big)
    monkeypatch.setattr(inference, "onnx_child", Child)
    infer(graph.model)
    assert seen[0] < 10_000
