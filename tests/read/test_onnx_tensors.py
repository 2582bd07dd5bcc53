"""The tensors inside an ONNX file: which are found, how each is held, and bytes that lie."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper

from edgeq.errors import EdgeqError
from edgeq.quant.fidelity import Held
from edgeq_converters.read.onnx_tensors import OnnxTensors
from edgeq_runtime.engines import onnxruntime as engine
from edgeq_runtime.outside import ModelBytes, file_bytes, folder_of


def file_of(text: str, **arrays: np.ndarray) -> bytes:
    model = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["" : 17]>\n{text}')
    for name, array in arrays.items():
        model.graph.initializer.append(numpy_helper.from_array(np.asarray(array), name))
    return model.SerializeToString()


SCALE, POINT = np.float32(0.25), np.int8(-3)
QDQ = """g (float[N,4] x) => (float[N,4] y) {
    xq = QuantizeLinear (x, s, z)
    xd = DequantizeLinear (xq, s, z)
    w = DequantizeLinear (wq, s, z)
    h = Mul (xd, w)
    hq = QuantizeLinear (h, s, z)
    hd = DequantizeLinear (hq, s, z)
    k = Relu (hd)
    kq = QuantizeLinear (k, s, z)
    y = DequantizeLinear (kq, s, z) }"""


def qdq() -> OnnxTensors:
    return OnnxTensors(file_of(QDQ, s=SCALE, z=POINT, wq=np.int8([1, 2, 3, 4])))


def test_what_is_quantized_is_fetched_as_codes() -> None:
    inside = qdq().inside
    assert inside["h"] == Held("h", "hq", 0.25, -3)
    assert inside["hd"] == Held("hd", "hq", 0.25, -3)
    assert inside["hq"] == Held("hq", "hq", 0.25, -3)


def test_constants_and_the_codes_of_outputs_are_left_out() -> None:
    viewer = qdq()
    assert set(viewer.inside) == {"xq", "xd", "h", "hq", "hd"}
    assert viewer.outputs == {"y": Held("y", "y", 0.25, -3)}


def test_a_node_makes_the_tensor_that_its_codes_are_restored_to() -> None:
    model = onnx.load_from_string(file_of(QDQ, s=SCALE, z=POINT, wq=np.int8([1, 2, 3, 4])))
    for place, node in enumerate(model.graph.node):
        node.name = f"n{place}"
    made_by = OnnxTensors(model.SerializeToString()).made_by
    assert (made_by["n3"], made_by["n6"]) == (("hd",), ("y",))


def test_values_are_what_the_engine_dequantizes() -> None:
    viewer = qdq()
    x = {"x": np.float32([[-100, 0.1, 1, 100]])}
    plain = file_of(
        QDQ.replace("=> (float[N,4] y)", "=> (float[N,4] y, float[N,4] hd)"),
        s=SCALE,
        z=POINT,
        wq=np.int8([1, 2, 3, 4]),
    )
    shown = engine.open_session(viewer.showing(["h"]), exact=True).run(x)
    assert shown["hq"].dtype == np.int8
    wanted = engine.open_session(plain, exact=True).run(x)["hd"]
    np.testing.assert_array_equal(viewer.inside["h"].values(shown["hq"]), wanted)


def test_showing_adds_outputs_once_and_leaves_the_rest_alone() -> None:
    viewer = qdq()
    model = onnx.load_from_string(viewer.showing(["h", "hd", "hq", "xq"]))
    assert [value.name for value in model.graph.output] == ["y", "hq", "xq"]
    again = onnx.load_from_string(viewer.showing([]))
    assert [value.name for value in again.graph.output] == ["y"]


@pytest.mark.parametrize(
    ("scale", "point"),
    [
        (np.float32([0.5, 0.5, 1, 1]), np.int8([0, 0, 0, 0])),  # one for each channel
        (np.float32(0), np.int8(0)),
        (np.float32(-1), np.int8(0)),
        (np.float32("nan"), np.int8(0)),
        (np.float32("inf"), np.int8(0)),
        (np.float32(1), np.int32(0)),
    ],
)
def test_a_scale_that_is_no_grid_leaves_the_tensor_as_it_is(
    scale: np.ndarray, point: np.ndarray
) -> None:
    text = (
        "g (float[N,4] x) => (float[N,4] y) { q = QuantizeLinear (x, s, z) "
        "d = DequantizeLinear (q, s, z) y = Relu (d) }"
    )
    inside = OnnxTensors(file_of(text, s=scale, z=point)).inside
    assert inside == {"q": Held("q", "q"), "d": Held("d", "d")}


def test_a_scale_whose_bytes_are_missing_is_no_grid() -> None:
    model = onnx.load_from_string(file_of(QDQ, s=SCALE, z=POINT, wq=np.int8([1, 2, 3, 4])))
    scale = next(row for row in model.graph.initializer if row.name == "s")
    scale.raw_data = b""
    assert OnnxTensors(model.SerializeToString()).inside["h"] == Held("h", "h")
    scale.data_location = TensorProto.EXTERNAL
    assert OnnxTensors(model.SerializeToString()).inside["h"] == Held("h", "h")


def test_two_grids_of_one_tensor_take_the_first() -> None:
    text = """g (float[N,4] x) => (float[N,4] y) { h = Relu (x)
        a = QuantizeLinear (h, s, z) b = QuantizeLinear (h, t, z)
        c = DequantizeLinear (a, s, z) d = DequantizeLinear (b, t, z) y = Add (c, d) }"""
    viewer = OnnxTensors(file_of(text, s=SCALE, t=np.float32(1), z=POINT))
    assert viewer.inside["h"] == Held("h", "a", 0.25, -3)


def test_what_draws_numbers_is_no_constant() -> None:
    text = "g (float[2] x) => (float[2] y) { r = RandomNormal <shape = [2]> () y = Add (x, r) }"
    assert set(OnnxTensors(file_of(text)).inside) == {"r"}


def test_bytes_that_are_no_model_are_refused() -> None:
    with pytest.raises(EdgeqError, match=r"cannot be parsed as ONNX \[damaged-model\]"):
        OnnxTensors(b"\xff\xff\xff")


def test_weights_beside_the_file_stay_where_they_are() -> None:
    plain = file_of(QDQ, s=SCALE, z=POINT, wq=np.int8([1, 2, 3, 4]))
    assert folder_of(OnnxTensors(plain).showing(["h"])) is None
    beside = OnnxTensors(ModelBytes.beside(plain, "/models", 9)).showing(["h"])
    assert (folder_of(beside), file_bytes(beside) - len(beside)) == ("/models", 9)
