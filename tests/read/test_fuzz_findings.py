"""Files that the fuzzer found, by what they did before: each is built here and stays refused."""

import numpy as np
import pytest
from onnx import AttributeProto, TensorProto, helper

from edgeq.passes import run_all


def test_more_outputs_than_a_split_has_parts(model, refusal):
    """SIGABRT in onnx 1.23.2: shape inference indexes a vector past its end (seed 2, file 5637)."""
    text = """g (float[4,3] x) => (float[4,3] y) {
        a, b, c = Split <axis = 0, num_outputs = 2> (x)
        y = Concat <axis = 0> (a, b) }"""
    error = refusal(model(text, '"": 18', 8))
    assert error.slug == "onnx-failed"
    assert error.message.startswith("m.onnx: onnx was killed by SIG")


def test_an_empty_raw_data_beside_the_values(model, load):
    """numpy read the empty one: "cannot reshape array of size 0" (seed 1, file 2086)."""
    made = model("g (float[4] x) => (float[4] y) { y = Add (x, k) }")
    made.graph.initializer.append(helper.make_tensor("k", 1, [4], [1.0, 2, 3, 4]))
    made.graph.initializer[0].raw_data = b""
    assert load(made).graph.parameter_count == 4


def test_a_constant_without_a_value(model, refusal):
    """ValueError in onnx_ir: "must have exactly one attribute" (seed 1, file 3442)."""
    made = model(
        "g (float[4] x) => (float[4] y) { [k] c = Constant <value_int = 1> () y = Relu (x) }"
    )
    made.graph.node[0].ClearField("attribute")
    assert refusal(made).slug == "invalid-model"


def test_a_segment_beside_an_unknown_operator(model, refusal):
    """ValueError in onnx, for the data were read before the refusal (seed 1, file 3799)."""
    made = model("g (float[4] x) => (float[4] y) { y = Add (x, k) }")
    made.graph.initializer.append(helper.make_tensor("k", 1, [4], [1.0, 2, 3, 4]))
    made.graph.initializer[0].segment.begin = 3
    assert refusal(made).slug == "unsupported-type"


def test_strings_as_a_stored_tensor(model, load):
    """TypeError in onnx_ir: strings have no width (seed 3, file 2248)."""
    made = model("g (float[2] x) => (float[2] y) { k = Identity (s) y = Relu (x) }")
    made.graph.initializer.append(helper.make_tensor("s", TensorProto.STRING, [2], [b"a", b"b"]))
    graph, _ = run_all(load(made).graph)
    assert [node.op_type for node in graph.nodes()] == ["Relu"]


def test_an_input_that_the_converter_wants_and_is_not_there(model, refusal):
    """InferenceError, which is no RuntimeError, out of the converter (seed 1, file 91)."""
    made = model("g (float[4] x) => (float[4] y) { y = Dropout (x) }", '"": 9', 4)
    del made.graph.node[0].input[:]
    assert refusal(made).slug in ("unsupported-opset", "invalid-model")


def test_an_attribute_that_the_converter_cannot_hold(model, refusal):
    """ConvertError, which is no RuntimeError either (seed 1, file 336)."""
    made = model("g (float[4] x) => (float[4] y) { y = Relu (x) }", '"": 9', 4)
    tensor = helper.make_tensor("t", TensorProto.FLOAT8E4M3FN, [1], b"\x01", raw=True)
    made.graph.node[0].attribute.append(
        AttributeProto(name="k", type=AttributeProto.TENSOR, t=tensor)
    )
    assert refusal(made).slug in ("unsupported-opset", "invalid-model")


SIZES = "g (float[1] x) => (float[1] y) { c = ConstantOfShape (s) d = Expand (x, s) y = Relu (x) }"


@pytest.mark.parametrize("sizes", [(2**31, 2**31), (2**40,), (0,)])
def test_sizes_out_of_constants_take_no_memory(model, load, sizes):
    """Nothing is allocated for what a constant claims."""
    graph, _ = run_all(load(model(SIZES, s=np.array(sizes, np.int64))).graph)
    assert [node.op_type for node in graph.nodes()] == ["Relu"]


def test_a_negative_size_out_of_a_constant(model, refusal):
    error = refusal(model(SIZES, s=np.array([-1], np.int64)))
    assert error.slug == "invalid-model"
    assert "`ConstantOfShape` (node `ConstantOfShape_0`)" in error.message


def test_a_map_declared_in_a_body(model, refusal):
    """SerdeError in onnx_ir: maps are not supported (seed 7, file 15137)."""
    made = model(
        """g (int64 n, bool c, float[3] x) => (float[3] y) {
            y = Loop (n, c, x) <body = b (int64 i, bool d, float[3] s) => (bool e, float[3] t) {
                e = Identity (d)  t = Add (s, s) }> }"""
    )
    body = made.graph.node[0].attribute[0].g
    body.output[1].type.map_type.key_type = 7
    error = refusal(made)
    assert error.slug == "unsupported-type"
    assert "cannot be represented: Map types are not supported yet" in error.message


def test_strings_in_external_data(model, refusal):
    """TypeError in onnx_ir: read before the refusal (seed 7, file 23229)."""
    made = model("g (float[2] x) => (float[2] y) { k = Identity (s) y = Relu (x) }")
    tensor = TensorProto(name="s", data_type=TensorProto.STRING, dims=[2])
    tensor.data_location = TensorProto.EXTERNAL
    made.graph.initializer.append(tensor)
    error = refusal(made)
    assert error.slug == "unsupported-type"
    assert error.message == "m.onnx: tensor `s` keeps strings in external data"


def test_a_map_in_the_middle(model, load):
    """scikit-learn's exports end in ZipMap; where only the scores are taken it stays unread."""
    text = """g (float[N,2] x) => (float[N,2] y) {
        m = ai.onnx.ml.ZipMap <classlabels_int64s = [0,1]> (x)
        y = Relu (x) }"""
    graph, _ = run_all(load(model(text, '"": 17, "ai.onnx.ml": 3')).graph)
    assert [node.op_type for node in graph.nodes()] == ["Relu"]


def test_no_elements_in_a_shape_beyond_the_address_space(model, refusal):
    """ValueError in numpy: "array is too big" (seed 3, file 51206)."""
    made = model("g (float[4] x) => (float[4] y) { y = Add (x, k) }")
    made.graph.initializer.append(TensorProto(name="k", data_type=1, dims=[0, 2**62, 2**62]))
    assert refusal(made).slug == "damaged-model"
