"""The graph as text promises it, and tensors whose data fit: refused by name before any C++."""

import numpy as np
import pytest
from onnx import AttributeProto, GraphProto, NodeProto, TensorProto, helper

from edgeq.ir import check
from edgeq_converters.read import structure

IF = """g (float[2] x, bool c) => (float[2] y) {
    a = Relu (x)
    y = If (c) <then_branch = t () => (float[2] p) { p = Neg (a) },
                else_branch = e () => (float[2] q) { q = Identity (x) }> }"""


def branch(model, index: int = 0) -> GraphProto:
    return model.graph.node[1].attribute[index].g


INVALID = {
    "reads `z`, never made": lambda m: m.graph.node[0].input.__setitem__(0, "z"),
    "tensor `a` is made twice": lambda m: m.graph.node.add(
        op_type="Neg", input=["x"], output=["a"]
    ),
    "input `x` is given twice": lambda m: m.graph.input.append(m.graph.input[0]),
    "output `y` is given twice": lambda m: m.graph.output.append(m.graph.output[0]),
    "output `w` is never made": lambda m: setattr(m.graph.output[0], "name", "w"),
    "input without a name": lambda m: setattr(m.graph.input[0], "name", ""),
    "a node without an operator": lambda m: setattr(m.graph.node[0], "op_type", ""),
    "attribute `k` is given twice": lambda m: m.graph.node[0].attribute.extend(
        [AttributeProto(name="k", type=2, i=1), AttributeProto(name="k", type=2, i=1)]
    ),
    "attribute `k` refers to a function's": lambda m: m.graph.node[0].attribute.append(
        AttributeProto(name="k", type=2, ref_attr_name="alpha")
    ),
    "`x` is made inside a body and outside of it": lambda m: (
        branch(m).node[0].output.__setitem__(0, "x")
    ),
    "reads `nowhere`, never made": lambda m: branch(m).node[0].input.__setitem__(0, "nowhere"),
    "output `r` is never made": lambda m: setattr(branch(m).output[0], "name", "r"),
    "reads `y`, never made": lambda m: branch(m).node[0].input.__setitem__(0, "y"),
    "the graph has no output": lambda m: m.graph.ClearField("output"),
}


@pytest.mark.parametrize("message", INVALID)
def test_is_invalid(model, refusal, message):
    broken = model(IF)
    INVALID[message](broken)
    error = refusal(broken)
    assert error.slug == "invalid-model"
    assert message in error.message


def test_a_body_that_returns_an_outer_tensor_is_invalid(model, refusal):
    """ONNX Runtime wants an Identity there; and a pass could not rename what is returned."""
    broken = model(IF)
    branch(broken).output[0].name = "a"
    assert "output `a` is never made" in refusal(broken).message


def test_all_problems_are_told_at_once(model, refusal):
    broken = model()
    for index in range(12):
        broken.graph.node.add(op_type="Neg", input=[f"lost_{index}"], output=[f"made_{index}"])
    message = refusal(broken).message
    assert message.count("never made") == 8
    assert message.endswith("and 4 more")


def test_a_cycle_names_its_nodes_and_no_others(model, refusal):
    text = """g (float[2] x) => (float[2] y) {
        [before] a = Relu (x)
        [one] b = Add (a, d)
        [two] c = Neg (b)
        [three] d = Abs (c)
        [after] y = Relu (d) }"""
    assert refusal(model(text)).message == "m.onnx: a cycle through `one`, `two`, `three`"


def test_a_cycle_through_a_body(model, refusal):
    broken = model(IF)
    broken.graph.node[0].input[0] = "y"
    branch(broken).node[0].input[0] = "a"
    assert "a cycle through `Relu`, `If`" in refusal(broken).message


def test_nodes_out_of_order_are_sorted_and_it_says_so(model, load):
    text = "g (float[2] x) => (float[2] y) { y = Neg (b)  b = Abs (a)  a = Relu (x) }"
    result = load(model(text))
    assert [node.op_type for node in result.graph.nodes()] == ["Relu", "Abs", "Neg"]
    assert "nodes were not in topological order and are sorted" in result.notes
    check(result.graph)


def test_a_body_counts_for_the_order(model, load):
    late = model(IF)
    nodes = [NodeProto.FromString(node.SerializeToString()) for node in late.graph.node]
    del late.graph.node[:]
    late.graph.node.extend(reversed(nodes))
    assert [node.op_type for node in load(late).graph.nodes()] == ["Relu", "If"]


def nested(model, depth: int):
    outer = model(IF)
    for _ in range(depth):
        inner = GraphProto.FromString(outer.graph.SerializeToString())
        inner.ClearField("input")
        for index, node in enumerate(inner.node):
            node.name = f"n{index}"
        outer = model(IF)
        branch(outer).CopyFrom(inner)
    return outer


def test_nesting_is_bounded(model, refusal):
    error = refusal(nested(model, 20))
    assert f"bodies are nested deeper than {structure.MAX_NESTING}" in error.message


def test_deeper_than_protobuf_allows_is_damaged(refusal):
    """Written byte by byte: Graph.node (1), Node.attribute (5), Attribute.g (6), and again."""

    def field(number: int, payload: bytes) -> bytes:
        size, length = len(payload), b""
        while size >= 128:
            length += bytes([size & 127 | 128])
            size >>= 7
        return bytes([number << 3 | 2]) + length + bytes([size]) + payload

    graph = b""
    for _ in range(60):
        graph = field(1, field(5, field(6, graph)))
    error = refusal(b"\x08\x0a" + field(7, graph))
    assert error.slug == "damaged-model"


def test_the_number_of_nodes_is_bounded(model, refusal, monkeypatch):
    """Those in bodies count."""
    monkeypatch.setattr(structure, "MAX_NODES", 3)
    assert "4 nodes; at most 3 are read" in refusal(model(IF)).message


def tensor(**changes) -> TensorProto:
    made = helper.make_tensor(
        "w", TensorProto.FLOAT, [4, 4], np.zeros(16, np.float32).tobytes(), True
    )
    for name, value in changes.items():
        if name == "dims":
            del made.dims[:]
            made.dims.extend(value)
        elif isinstance(value, list):
            getattr(made, name).extend(value)
        else:
            setattr(made, name, value)
    return made


DAMAGED = {
    "tensor `w` of shape [4, 4] needs 64 bytes and has 63": {"raw_data": bytes(63)},
    "tensor `w` of shape [4, 4] needs 64 bytes and has 65": {"raw_data": bytes(65)},
    "tensor `w` of shape [4, 4] needs 64 bytes and has 0": {"raw_data": b""},
    "tensor `w` has the shape [-4, -4]": {"dims": [-4, -4]},
    f"needs {2**62 * 4 * 4:,} bytes and has 64": {"dims": [2**62, 4]},
    f"needs {4 * (2**63 - 1) ** 2:,} bytes": {"dims": [2**63 - 1, 2**63 - 1]},
    "tensor `w` has 65 dimensions": {"dims": [1] * 65},
    "tensor `w` has the unknown element type 99": {"data_type": 99},
    "tensor `w` has the unknown element type 0": {"data_type": 0},
    "stores its data twice: float_data, raw_data": {"float_data": [1.0]},
    "tensor `w` of FLOAT stores its data in int64_data": {"raw_data": b"", "int64_data": [1] * 16},
    "needs 16 values and has 3": {"raw_data": b"", "float_data": [1.0] * 3},
    "needs 16 values and has 4": {"raw_data": b"", "int32_data": [1] * 4, "data_type": 3},
    "needs 32 values and has 16": {"raw_data": b"", "float_data": [1.0] * 16, "data_type": 14},
    "needs 8 bytes and has 64": {"data_type": TensorProto.INT4},
    "has 16 strings and none is stored": {"data_type": TensorProto.STRING},
    "needs 16 values and has 1": {"data_type": 8, "raw_data": b"", "string_data": [b"a"]},
}


@pytest.mark.parametrize("message", DAMAGED)
def test_is_damaged(weights, refusal, message):
    error = refusal(weights(tensor(**DAMAGED[message])))
    assert error.slug == "damaged-model"
    assert message in error.message


def test_the_same_rules_hold_for_constants_in_bodies(model, refusal):
    broken = model(IF)
    constant = helper.make_node("Constant", [], ["k"], value=tensor(raw_data=bytes(3)))
    branch(broken).node.append(constant)
    assert "needs 64 bytes and has 3" in refusal(broken).message


UNSUPPORTED = {
    "stored in segments": {"segment": None},
    "has the element type FLOAT6E2M3": {"data_type": 27},
}


@pytest.mark.parametrize("message", UNSUPPORTED)
def test_is_unsupported(weights, refusal, message):
    made = tensor()
    if message == "stored in segments":
        made.segment.begin = 0
    else:
        made.data_type = 27
    error = refusal(weights(made))
    assert error.slug == "unsupported-type"
    assert message in error.message


def test_sparse_initializers_are_named(model, refusal):
    broken = model()
    broken.graph.sparse_initializer.add().values.name = "s"
    assert refusal(broken).message == "m.onnx: sparse initializers `s`"


def test_sparse_attributes_are_named(model, refusal):
    broken = model(
        "g (float[2] x) => (float[2] y) { [k] a = Constant <value_int = 1> () y = Relu (x) }"
    )
    attribute = broken.graph.node[0].attribute[0]
    attribute.name, attribute.type = "sparse_value", AttributeProto.SPARSE_TENSOR
    attribute.sparse_tensor.dims.append(4)
    error = refusal(broken)
    assert error.slug == "unsupported-type"
    assert "attribute `sparse_value` is a sparse tensor" in error.message


@pytest.mark.parametrize("place", ["node", "input", "dimension", "metadata", "producer"])
def test_names_that_are_no_text_are_damage(model, refusal, place):
    """protobuf hands out such a field as bytes, where a string is expected."""
    made = model("g (float[ABCDEFG] x) => (float[ABCDEFG] y) { [ABCDEFG] y = Relu (x) }")
    made.metadata_props.add(key="ABCDEFG", value="v")
    made.producer_name = "ABCDEFG"
    if place != "node":
        made.graph.node[0].name = "n"
    if place != "metadata":
        made.ClearField("metadata_props")
    if place != "producer":
        made.ClearField("producer_name")
    if place == "input":
        made.graph.input[0].name = made.graph.node[0].input[0] = "ABCDEFG"
    error = refusal(made.SerializeToString().replace(b"ABCDEFG", b"\xff\xfeCDEFG"))
    assert str(error) == "m.onnx: a name in it is not text [damaged-model]"


def test_strings_in_attributes_that_are_no_text(model, refusal):
    made = model('g (float[2] x) => (float[2] y) { [k] y = Gelu <approximate = "tanh"> (x) }')
    error = refusal(made.SerializeToString().replace(b"tanh", b"ta\xffh"))
    assert "`Gelu` (node `k`): attribute `approximate` is not text" in error.message


def test_control_characters_stay_out_of_messages(model, refusal):
    broken = model()
    broken.graph.node[0].input[0] = "a\x1b[31m\nb" + "n" * 200
    message = refusal(broken).message
    assert "`a?[31m?b" in message and len(message) < 160
