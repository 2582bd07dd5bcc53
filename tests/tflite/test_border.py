"""The ends of a TFLite file: `--layout nhwc`, `--io int8`, names, a free batch, refusals."""

import json

import numpy as np
import pytest

from edgeq.errors import EdgeqError
from edgeq.quant.plan import Encoding, OpDecision, QuantPlan
from edgeq_converters.write import tflite
from edgeq_converters.write.tfl.file import schema
from edgeq_runtime.engines.tflite_session import notes
from edgeq_runtime.tflite import parse

CONV = """
g (float[{batch},3,8,8] x) => (float[{batch},4,8,8] y) {{
  y = Conv <pads = [1,1,1,1]> (x, w)
}}
"""


def weights() -> dict[str, np.ndarray]:
    return {"w": np.random.default_rng(0).normal(size=(4, 3, 3, 3)).astype(np.float32)}


def conv_plan() -> QuantPlan:
    return QuantPlan(
        {
            "x": Encoding("int8", (0.02,), (3,)),
            "w": Encoding("int8", (0.03,) * 4, (0,) * 4, axis=0, symmetric=True),
            "y": Encoding("int8", (0.1,), (-5,)),
        },
        {},
    )


def planned(graph) -> QuantPlan:
    (node,) = (node for node in graph.nodes() if node.op_type == "Conv")
    name = str(node.name)
    return QuantPlan(conv_plan().tensors, {name: OpDecision(name, "Conv", "int8")})


def opened(data: bytes):
    from ai_edge_litert.interpreter import Interpreter

    made = Interpreter(model_content=data)
    made.allocate_tensors()
    return made


def codes(data: bytes) -> list[str]:
    model = schema().ModelT.InitFromPackedBuf(data, 0)
    names = {v: k for k, v in vars(schema().BuiltinOperator).items() if isinstance(v, int)}
    return [
        names[model.operatorCodes[op.opcodeIndex].builtinCode]
        for op in model.subgraphs[0].operators
    ]


def entry(data: bytes) -> dict:
    model = schema().ModelT.InitFromPackedBuf(data, 0)
    found = {bytes(row.name): row.buffer for row in model.metadata}
    return json.loads(bytes(model.buffers[found[b"edgeq"]].data))


@pytest.mark.parametrize("layout", ["keep", "nhwc"])
@pytest.mark.parametrize("io", ["float", "int8"])
def test_border(graph_of, layout: str, io: str) -> None:
    graph = graph_of(CONV.format(batch=1), weights())
    data = tflite.write(graph, planned(graph), io=io, layout=layout)
    found = codes(data)
    assert found.count("TRANSPOSE") == (2 if layout == "keep" else 0)
    assert ("QUANTIZE" in found) == (io == "float") == ("DEQUANTIZE" in found)
    model = opened(data)
    (given,), (made,) = model.get_input_details(), model.get_output_details()
    assert list(given["shape"]) == ([1, 3, 8, 8] if layout == "keep" else [1, 8, 8, 3])
    assert list(made["shape"]) == ([1, 4, 8, 8] if layout == "keep" else [1, 8, 8, 4])
    assert given["dtype"] == made["dtype"] == (np.float32 if io == "float" else np.int8)
    assert (given["name"], made["name"]) == ("x", "y")
    assert model.get_signature_list()["serving_default"] == {"inputs": ["x"], "outputs": ["y"]}


def test_layouts_compute_the_same(graph_of) -> None:
    graph = graph_of(CONV.format(batch=1), weights())
    x = np.random.default_rng(1).normal(size=(1, 3, 8, 8)).astype(np.float32)
    results = {}
    for layout in ("keep", "nhwc"):
        model = opened(tflite.write(graph, planned(graph), layout=layout))
        fed = x if layout == "keep" else x.transpose(0, 2, 3, 1)
        model.set_tensor(model.get_input_details()[0]["index"], fed)
        model.invoke()
        results[layout] = model.get_tensor(model.get_output_details()[0]["index"])
    np.testing.assert_array_equal(results["keep"], results["nhwc"].transpose(0, 3, 1, 2))
    assert np.ptp(results["keep"]) > 0


def test_a_free_batch_is_one_and_said(graph_of) -> None:
    graph = graph_of(CONV.format(batch="N"), weights())
    data = tflite.write(graph, None)
    assert list(opened(data).get_input_details()[0]["shape"]) == [1, 3, 8, 8]
    assert entry(data)["free_batch"] == {"inputs": ["x"], "outputs": ["y"]}
    assert "free_batch" not in entry(tflite.write(graph_of(CONV.format(batch=1), weights()), None))


def test_another_free_axis_needs_a_shape(graph_of) -> None:
    graph = graph_of(
        "g (float[N,T,8] x) => (float[N,T,8] y) { y = Relu(x) }",
        {},
    )
    with pytest.raises(EdgeqError) as caught:
        tflite.write(graph, None)
    assert caught.value.slug == "needs-shape"
    assert caught.value.hints == ("--shape x=1x1x8",)


def test_every_op_without_a_form_is_named_at_once(graph_of) -> None:
    graph = graph_of(
        "g (float[1,4] x) => (float[1,4] y) { a = MyOp(x) b = MyOp(a) c = Wat(b) y = Relu(c) }",
        {},
    )
    with pytest.raises(EdgeqError) as caught:
        tflite.write(graph, None)
    assert caught.value.slug == "unwritable-op"
    assert "MyOp" in caught.value.message
    assert "Wat" in caught.value.message
    assert caught.value.hints == ("build it as ONNX: `--format onnx`",)


def test_an_output_that_is_an_input_or_twice_the_same(graph_of) -> None:
    graph = graph_of(
        "g (float[1,4] x) => (float[1,4] y, float[1,4] z) { y = Relu(x)\n z = Identity(x) }",
        {},
    )
    model = opened(tflite.write(graph, None))
    x = np.array([[-1, 2, -3, 4]], np.float32)
    model.set_tensor(model.get_input_details()[0]["index"], x)
    model.invoke()
    y, z = (model.get_tensor(row["index"]) for row in model.get_output_details())
    np.testing.assert_array_equal(y, np.maximum(x, 0))
    np.testing.assert_array_equal(z, x)


def test_extra_outputs_come_as_floats_in_their_own_order(graph_of) -> None:
    text = """
        g (float[1,3,8,8] x) => (float[1,4,8,8] y) {
      c = Conv <pads = [1,1,1,1]> (x, w)
      y = Sigmoid(c)
    }
    """
    graph = graph_of(text, weights())
    model = opened(tflite.write(graph, None, extra_outputs=("c",)))
    rows = model.get_output_details()
    assert rows[0]["name"] == "y"
    assert list(rows[1]["shape"]) == [1, 4, 8, 8]
    with pytest.raises(EdgeqError) as caught:
        tflite.write(graph, None, extra_outputs=("nothing",))
    assert caught.value.slug == "no-such-tensor"


def test_an_output_that_was_there_before_from_another_side_has_its_own_name(graph_of) -> None:
    """Detectors end so: what is entered as channels last is what the inner tensor is called."""
    text = """
        g (float[1,3,8,8] x) => (float[1,64,4] y) {
      c = Conv <pads = [1,1,1,1]> (x, w)
      s = Constant <value_ints = [1, 4, 64]> ()
      r = Reshape (c, s)
      y = Transpose <perm = [0, 2, 1]> (r)
    }
    """
    data = tflite.write(graph_of(text, weights()), None)
    assert [row["name"] for row in opened(data).get_output_details()] == ["y"]
    assert "y" not in notes(parse(data))["channels_last"]
    assert "r" not in notes(parse(data))["channels_last"]


def test_extra_outputs_have_the_free_batch_too(graph_of) -> None:
    graph = graph_of("g (float[N,4] x) => (float[N,4] y) { c = Sigmoid(x)\n y = Relu(c) }", {})
    data = tflite.write(graph, None, extra_outputs=("c",))
    assert notes(parse(data))["free_batch"]["outputs"] == ["y", "c"]


def test_an_output_of_a_whole_batch_is_refused(graph_of) -> None:
    """The runtime runs a free batch sample by sample."""
    text = """
        g (float[N,4] x, float[N,3] z) => (int64[2] y, float[N,4] v) {
      y = Shape(x)
      v = Relu(x)
    }
    """
    with pytest.raises(EdgeqError) as caught:
        tflite.write(graph_of(text, {}), None)
    assert caught.value.slug == "needs-shape"
    assert "output `y` is of a whole batch" in caught.value.message
    assert caught.value.hints == ("--shape x=1x4 --shape z=1x3",)


@pytest.mark.parametrize(("scale", "refused"), [(0.0006 / 255, False), (0.0006 / 257, True)])
def test_steps_that_xnnpack_refuses_are_refused_before_it(graph_of, scale, refused) -> None:
    graph = graph_of(CONV.format(batch=1), weights())
    plan = planned(graph)
    fine = QuantPlan({**plan.tensors, "y": Encoding("int8", (scale,), (0,))}, plan.ops)
    if not refused:
        opened(tflite.write(graph, fine))
        return
    with pytest.raises(EdgeqError, match="which XNNPACK refuses; keep it in float") as caught:
        tflite.write(graph, fine)
    assert caught.value.slug == "unwritable-op"


@pytest.mark.parametrize("code", [-128, 40, 127])
def test_codes_padded_with_a_number_on_their_scale(graph_of, code) -> None:
    text = """
        g (float[1,3,8,8] x) => (float[1,4,8,8] y) {
      p = Pad (x, n, k)
      y = Conv (p, w)
    }
    """
    arrays = {
        **weights(),
        "n": np.array([0, 0, 1, 1, 0, 0, 1, 1]),
        "k": np.float32((code - 3) * np.float32(0.02)),
    }
    graph = graph_of(text, arrays)
    ops = {str(n.name): OpDecision(str(n.name), n.op_type, "int8") for n in graph.nodes()}
    tensors = {**conv_plan().tensors, "p": Encoding("int8", (0.02,), (3,))}
    data = tflite.write(graph, QuantPlan(tensors, ops))
    (op,) = (op for op in parse(data).subgraphs[0].operators if op.code == "PADV2")
    assert parse(data).subgraphs[0].tensors[op.inputs[2]].array().tolist() == [code]
    arrays["k"] = np.float32((code - 2.5) * np.float32(0.02))
    with pytest.raises(EdgeqError, match="its codes do not hold what it pads with"):
        tflite.write(graph_of(text, arrays), QuantPlan(tensors, ops))


def test_weights_with_a_zero_point_are_refused_by_node_and_once(graph_of) -> None:
    """uint8 models have them. LiteRT's int8 kernels would take any zero point for 0; what follows
    such a node, behind a clamp that is folded into it too, is not said to be unwritable."""
    graph = graph_of(
        """g (float[1,3,8,8] x) => (float[1,4,8,8] y) {
            [one] a = Conv <pads = [1,1,1,1]> (x, w)
            [clamp] b = Relu (a)
            [two] y = MaxPool <kernel_shape = [1,1]> (b) }""",
        weights(),
    )
    encoding = Encoding("int8", (0.1,), (-128,))
    plan = QuantPlan(
        {
            "x": Encoding("int8", (0.02,), (3,)),
            "w": Encoding("int8", (0.03,), (9,)),
            "b": encoding,
            "y": encoding,
        },
        {
            "one": OpDecision("one", "Conv", "int8"),
            "clamp": OpDecision("clamp", "Relu", "int8", fused_into="one"),
            "two": OpDecision("two", "MaxPool", "int8"),
        },
    )
    with pytest.raises(EdgeqError, match=r"`Conv` \(`one`\): its weights have a zero point") as no:
        tflite.write(graph, plan)
    assert no.value.slug == "unwritable-op"
    assert "which nothing makes" not in no.value.message and "MaxPool" not in no.value.message


def test_an_input_that_is_an_output_with_its_channels_last_keeps_its_order(graph_of) -> None:
    text = """
        g (float[1,3,8,8] x) => (float[1,4,8,8] y, float[1,8,8,3] z) {
      y = Conv <pads = [1,1,1,1]> (x, w)
      z = Transpose <perm = [0,2,3,1]> (x)
    }
    """
    data = tflite.write(graph_of(text, weights()), None, layout="nhwc")
    assert notes(parse(data))["channels_last"] == ["y"]
    model = opened(data)
    x = np.random.default_rng(1).normal(size=(1, 3, 8, 8)).astype(np.float32)
    found = model.get_signature_runner()(x=x)
    np.testing.assert_array_equal(found["z"], np.moveaxis(x, 1, -1))
