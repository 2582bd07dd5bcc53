"""Inputs and outputs: types, `--shape`, open batches, and what a file declares wrongly."""

import numpy as np
import onnx
import pytest

NET = "g (float[batch,3,H,W] image) => (float[batch,4,H,W] y) { y = Conv (image, w) }"
W = np.ones((4, 3, 1, 1), np.float32)


def shapes(result) -> tuple[tuple, tuple]:
    return result.graph.inputs[0].shape, result.graph.outputs[0].shape


def test_an_open_batch_stays_open(model, load):
    assert shapes(load(model(NET, w=W))) == (("batch", 3, "H", "W"), ("batch", 4, "H", "W"))


def test_shapes_are_fixed_and_it_says_so(model, load):
    result = load(model(NET, w=W), shapes={"image": (1, 3, 8, 9)})
    assert shapes(result) == ((1, 3, 8, 9), (1, 4, 8, 9))
    assert "input `image` has the shape [1, 3, 8, 9] (given)" in result.notes
    assert "dimensions fixed with it: `H=8`, `W=9`, `batch=1`" in result.notes


def test_a_symbol_is_fixed_wherever_it_stands(model, load):
    text = "g (float[b,2] p, float[b,2] q) => (float[b,2] y) { y = Add (p, q) }"
    result = load(model(text), shapes={"p": (5, 2)})
    assert [info.shape for info in result.graph.inputs] == [(5, 2), (5, 2)]


def test_an_open_dimension_without_a_name(model, load):
    made = model("g (float[b,2] x) => (float[b,2] y) { y = Relu (x) }")
    made.graph.input[0].type.tensor_type.shape.dim[0].ClearField("dim_param")
    made.graph.output[0].type.tensor_type.shape.dim[0].ClearField("dim_param")
    assert shapes(load(made)) == ((None, 2), (None, 2))


def test_minus_one_is_an_open_dimension(model, load):
    made = model("g (float[7,2] x) => (float[7,2] y) { y = Relu (x) }")
    made.graph.input[0].type.tensor_type.shape.dim[0].dim_value = -1
    made.graph.output[0].type.tensor_type.shape.dim[0].dim_value = -1
    assert shapes(load(made)) == ((None, 2), (None, 2))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ((1, 3, 8), "is [batch, 3, H, W], the shape given is [1, 3, 8]"),
        ((1, 4, 8, 8), "is [batch, 3, H, W] and cannot become [1, 4, 8, 8]"),
        ((0, 3, 8, 8), "cannot have the shape [0, 3, 8, 8]"),
        ((1, 3, -8, 8), "cannot have the shape [1, 3, -8, 8]"),
        ((1, 3, 2**40, 8), "cannot have the shape"),
    ],
)
def test_shapes_that_do_not_fit(model, refusal, given, message):
    error = refusal(model(NET, w=W), shapes={"image": given})
    assert error.slug == "bad-shape"
    assert message in error.message


def test_one_symbol_cannot_be_two_numbers(model, refusal):
    text = "g (float[b,2] p, float[b,2] q) => (float[b,2] y) { y = Add (p, q) }"
    error = refusal(model(text), shapes={"p": (5, 2), "q": (6, 2)})
    assert error.message == "m.onnx: input `q`: `b` is 5 and 6"


def test_an_input_that_is_not_there(model, refusal):
    error = refusal(model(NET, w=W), shapes={"imege": (1, 3, 8, 8)})
    assert str(error) == "m.onnx: there is no input `imege` [no-such-input]"
    assert error.hints == ("did you mean `image`?",)


def test_an_input_of_unknown_rank(model, refusal, load):
    made = model(NET, w=W)
    made.graph.input[0].type.tensor_type.ClearField("shape")
    error = refusal(made)
    assert error.slug == "bad-shape"
    assert error.message == "m.onnx: the file does not say the rank of input `image`"
    assert shapes(load(made, shapes={"image": (1, 3, 8, 8)}))[1] == (1, 4, 8, 8)


def test_a_scalar_may_be_given_its_shape(model, load):
    made = model("g (float x) => (float y) { y = Relu (x) }")
    assert shapes(load(made, shapes={"x": ()})) == ((), ())


def test_shapes_that_the_graph_contradicts(model, refusal):
    text = "g (float[N,C] x) => (float[N,3] y) { y = MatMul (x, w) }"
    error = refusal(model(text, w=np.ones((4, 3), np.float32)), shapes={"x": (1, 5)})
    assert error.slug == "invalid-model"
    assert error.message == (
        "m.onnx: its shapes contradict each other: `MatMul` (node `MatMul_0`): "
        "Incompatible dimensions for matrix multiplication"
    )


def test_a_size_declared_wrongly_is_computed_and_said(model, load):
    result = load(model("g (float[2,3] x) => (float[2,9] y) { y = Relu (x) }"))
    assert shapes(result)[1] == (2, 3)
    assert "output `y` is declared [2,9] and is [2,3]" in result.notes


def test_a_size_that_only_the_file_knows_is_believed(model, load):
    text = "g (float[2,6] x, int64[2] s) => (float[3,4] y) { y = Reshape (x, s) }"
    assert shapes(load(model(text)))[1] == (3, 4)


def kind(model, index: int, **types):
    made = model("g (float[2] x) => (float[2] y) { y = Identity (x) }")
    info = (made.graph.input, made.graph.output)[index][0]
    info.type.CopyFrom(types["proto"])
    return made


PROTOS = {
    "is a tensor of STRING": onnx.helper.make_tensor_type_proto(onnx.TensorProto.STRING, [2]),
    "is a tensor of INT4": onnx.helper.make_tensor_type_proto(onnx.TensorProto.INT4, [2]),
    "is a tensor of BFLOAT16": onnx.helper.make_tensor_type_proto(onnx.TensorProto.BFLOAT16, [2]),
    "is a tensor of COMPLEX64": onnx.helper.make_tensor_type_proto(onnx.TensorProto.COMPLEX64, [2]),
    "is a tensor of type 77": onnx.helper.make_tensor_type_proto(77, [2]),
    "is not a tensor (sequence)": onnx.helper.make_sequence_type_proto(
        onnx.helper.make_tensor_type_proto(1, [2])
    ),
    "is not a tensor (optional)": onnx.helper.make_optional_type_proto(
        onnx.helper.make_tensor_type_proto(1, [2])
    ),
    "is not a tensor (map)": onnx.helper.make_map_type_proto(
        7, onnx.helper.make_tensor_type_proto(1, [2])
    ),
    "is not a tensor (sparse tensor)": onnx.helper.make_sparse_tensor_type_proto(1, [2]),
}


@pytest.mark.parametrize("message", PROTOS)
@pytest.mark.parametrize("index", [0, 1])
def test_what_no_manifest_can_describe_is_refused(model, refusal, message, index):
    error = refusal(kind(model, index, proto=PROTOS[message]))
    assert error.slug == "unsupported-type"
    assert f"{('input `x`', 'output `y`')[index]} {message}" in error.message


def test_an_output_without_a_type(model, refusal):
    made = model()
    made.graph.output[0].ClearField("type")
    error = refusal(made)
    assert error.slug == "unsupported-type"
    assert error.message == "m.onnx: output `y` is not a tensor (nothing known)"


def test_an_input_with_a_hostile_dimension(model, refusal):
    made = model("g (float[2] x) => (float[2] y) { y = Relu (x) }")
    made.graph.input[0].type.tensor_type.shape.dim[0].dim_value = -(2**63)
    assert f"input `x` has a dimension of {-(2**63)}" in refusal(made).message


def test_an_output_may_be_an_initializer(model, load):
    result = load(
        model("g (float[2] x) => (float[2] k) { y = Relu (x) }", k=np.ones(2, np.float32))
    )
    assert result.graph.outputs[0].shape == (2,)


def test_an_output_may_be_an_input(model, load):
    assert (
        load(model("g (float[2] x) => (float[2] x) { y = Relu (x) }")).graph.outputs[0].name == "x"
    )
