"""`edgeq.compare`: what it pairs, what it measures, what it refuses, and how much it holds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import edgeq
from edgeq import EdgeqError
from edgeq.api import comparing

Save = Callable[..., Path]


@pytest.fixture
def bundle(net: Path, images: np.ndarray) -> Path:
    return Path(str(edgeq.build(net, target="x86-avx2", precision="int8", data=images).bundle))


def scaled(save: Save, factor: float, name: str, **names: str) -> Path:
    """y = x * factor, with other names on request."""
    x, y = names.get("x", "x"), names.get("y", "y")
    shape = names.get("shape", "N,4")
    text = f"g (float[{shape}] {x}) => (float[{shape}] {y}) {{ {y} = Mul ({x}, k) }}"
    return save(text, name, k=np.float32(factor))


def test_a_model_and_itself_are_bit_equal(net: Path, images: np.ndarray) -> None:
    found = edgeq.compare(net, net, data=images)
    assert (found.bit_equal, found.max_lsb, found.samples) == (True, 0.0, 24)
    assert [output.a for output in found.outputs] == ["scores"]
    assert {tensor.a for tensor in found.tensors} == {"a", "c", "d", "f"}
    assert all(tensor.bit_equal for tensor in found.tensors)
    assert (found.not_compared, found.synthetic) == ((), False)


def test_a_bundle_is_measured_against_its_model(
    net: Path, bundle: Path, images: np.ndarray
) -> None:
    found = edgeq.compare(net, bundle, data=images)
    assert (found.a.precision, found.b.precision) == (None, "int8")
    (scores,) = found.outputs
    assert scores.compared_as == "values"
    assert scores.step is not None  # it is a dequantized tensor
    # calibrated on these very inputs: half a step of its own, and what comes before, but no more
    # than a few steps; a wrong scale or zero point would be tens of them
    assert 0 < scores.max_lsb < 8
    assert scores.max_lsb == pytest.approx(scores.max_abs_error / scores.step)
    assert scores.sqnr_db > 20
    assert not found.bit_equal
    decibels = [tensor.sqnr_db for tensor in found.tensors if tensor.sqnr_db is not None]
    assert decibels == sorted(decibels)
    assert {tensor.a for tensor in found.tensors} >= {"c", "d"}


def test_two_bundles_are_compared_by_codes(net: Path, images: np.ndarray, bundle: Path) -> None:
    built = edgeq.build(net, target="rpi5", precision="int8", data=images)
    found = edgeq.compare(bundle, str(built.bundle), data=images)
    (scores,) = found.outputs
    assert scores.compared_as == "codes"
    assert scores.max_lsb == int(scores.max_lsb)
    assert found.max_lsb == scores.max_lsb
    names = [tensor.a for tensor in found.tensors]
    assert len(names) == len(set(names))
    assert not [name for name in names if name.endswith(("_raw", "c_quantized", "_dequantized"))]
    assert all(tensor.compared_as == "codes" for tensor in found.tensors)


def test_without_data_inputs_are_made_up_in_the_calibrated_ranges(
    net: Path, bundle: Path, images: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[np.ndarray] = []
    monkeypatch.setattr(
        comparing.Work,
        "feeds",
        lambda work, real=comparing.Work.feeds: _watched(real(work), seen),
    )
    found = edgeq.compare(net, bundle)
    assert (found.synthetic, found.samples) == (True, 16)
    assert any("in the calibrated ranges of the bundles" in note for note in found.notes)
    assert seen[0].shape == (1, 3, 8, 8)
    lowest, highest = min(x.min() for x in seen), max(x.max() for x in seen)
    assert images.min() <= lowest < highest <= images.max()
    # 16 * 192 uniform draws come within a hundredth of the range of both ends but for odds of
    # 2 * 0.99 ** 3072 = 8e-14
    assert highest - lowest > 0.98 * (images.max() - images.min())
    assert edgeq.compare(net, bundle).to_json() == found.to_json()


def _watched(feeds, seen: list[np.ndarray]):
    for one, two in feeds:
        seen.append(one["image"])
        yield one, two


def test_two_models_without_ranges_say_so(save: Save) -> None:
    one, two = scaled(save, 1.0, "one.onnx"), scaled(save, 1.5, "two.onnx")
    found = edgeq.compare(one, two)
    assert any("`x` of no range known" in note for note in found.notes)
    (y,) = found.outputs
    # y' = 1.5 y: the noise is a quarter of the signal's power, exactly, in float32
    assert y.sqnr_db == pytest.approx(10 * np.log10(4), abs=1e-5)
    assert (y.step, y.max_lsb, found.max_lsb) == (None, None, None)


def test_other_names_are_paired_by_order_and_it_is_said(save: Save) -> None:
    one = scaled(save, 2.0, "one.onnx")
    two = scaled(save, 2.0, "two.onnx", x="pixels", y="scores", shape="1,4")
    found = edgeq.compare(one, two, data=np.ones((3, 4), np.float32))
    assert found.bit_equal
    assert (found.outputs[0].a, found.outputs[0].b) == ("y", "scores")
    told = [note for note in found.notes if "paired by order" in note]
    assert told == [
        "inputs of one.onnx and two.onnx have other names and are paired by order: "
        "`x` with `pixels`",
        "outputs of one.onnx and two.onnx have other names and are paired by order: "
        "`y` with `scores`",
    ]


def test_inputs_that_do_not_match_are_named(save: Save) -> None:
    one, two = scaled(save, 2.0, "one.onnx"), scaled(save, 2.0, "two.onnx", shape="N,5")
    with pytest.raises(
        EdgeqError,
        match=r"^the inputs do not match: one.onnx has `x` float32 \[N, 4\]; "
        r"two.onnx has `x` float32 \[N, 5\] \[not-comparable\]$",
    ):
        edgeq.compare(one, two)


def test_outputs_that_do_not_match_are_named(save: Save) -> None:
    one = scaled(save, 2.0, "one.onnx")
    two = save(
        "g (float[N,4] x) => (float[N,2] z) { z = MatMul (x, w) }",
        "two.onnx",
        w=np.ones((4, 2), np.float32),
    )
    with pytest.raises(EdgeqError, match=r"the outputs do not match: .*`z` float32 \[N, 2\]"):
        edgeq.compare(one, two)


def test_an_output_of_one_alone_and_another_type_are_told(save: Save) -> None:
    head = "g (float[N,4] x) => (float[N,4] y, "
    one = save(head + "int64[N] b) { y = Relu (x) b = ArgMax <axis=1, keepdims=0> (x) }", "a.onnx")
    two = save(
        head + "float[N] b, bool[N,4] c) { y = Relu (x) "
        "b = ReduceMax <keepdims=0> (x, axes) c = IsNaN (x) }",
        "b.onnx",
        axes=[1],
    )
    found = edgeq.compare(one, two, data=np.ones((1, 4), np.float32))
    assert [output.a for output in found.outputs] == ["y"]
    assert found.not_compared == (
        ("c", "only b.onnx has it"),
        ("b", "it is int64 in A and float32 in B"),
    )


def test_integer_outputs_are_compared_by_element(save: Save) -> None:
    text = "g (float[N,4] x) => (int64[N] y) { y = Arg%s <axis=1, keepdims=0> (x) }"
    one, two = save(text % "Max", "one.onnx"), save(text % "Min", "two.onnx")
    found = edgeq.compare(one, two, data=np.array([[1, 2, 3, 9], [5, 5, 5, 5]], np.float32))
    (y,) = found.outputs
    assert (y.compared_as, y.equal_share, y.sqnr_db) == ("elements", 0.5, None)
    assert (y.max_abs_error, y.max_lsb) == (3.0, None)


def test_what_is_not_finite_in_b_alone_is_a_warning(save: Save) -> None:
    one, two = scaled(save, 1.0, "one.onnx"), scaled(save, 3e38, "two.onnx")
    found = edgeq.compare(one, two, data=np.full((1, 4), 100, np.float32))
    assert found.warnings == ("`y` of two.onnx is not finite where that of one.onnx is",)
    assert found.to_json()["outputs"][0]["max_abs_error"] == np.inf


def test_an_error_says_which_of_the_two_it_is_about(save: Save, tmp_path: Path) -> None:
    one = scaled(save, 1.0, "one.onnx")
    with pytest.raises(EdgeqError, match=r"absent.onnx.*\[no-such-model\]"):
        edgeq.compare(one, tmp_path / "absent.onnx")
    (tmp_path / "junk.edgeq").write_bytes(b"PK\x03\x04" + b"\0" * 99)
    with pytest.raises(EdgeqError, match=r"junk.edgeq"):
        edgeq.compare(tmp_path / "junk.edgeq", one)


def test_free_axes_without_data_ask_for_samples(save: Save) -> None:
    one = scaled(save, 1.0, "one.onnx", shape="N,T")
    with pytest.raises(EdgeqError, match=r"\[needs-shape\]") as caught:
        edgeq.compare(one, one)
    assert caught.value.hints == ("give samples: `--data samples.npz`",)


def test_groups_of_inner_tensors_change_nothing(
    net: Path, bundle: Path, images: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = edgeq.compare(net, bundle, data=images, samples=2)
    groups: list[int] = []
    real = comparing._run_group
    monkeypatch.setattr(comparing, "GROUP_BYTES", 5000)
    monkeypatch.setattr(
        comparing, "_run_group", lambda w, m, group: groups.append(len(group)) or real(w, m, group)
    )
    parts = edgeq.compare(net, bundle, data=images, samples=2)
    assert len(groups) > 1
    assert sum(groups) == len(parts.tensors)
    for one, two in zip(whole.tensors, parts.tensors, strict=True):
        # what is an output keeps the engine from fusing it, so floats may round elsewhere
        assert one.a == two.a
        assert one.sqnr_db == pytest.approx(two.sqnr_db, abs=0.01)


def test_a_qdq_file_of_another_tool_is_read_by_its_own_names(save: Save, tmp_path: Path) -> None:
    """Names as ONNX Runtime's tool gives them: `h` is quantized under its own name."""
    h = helper.make_node("Relu", ["x"], ["h"])
    q = helper.make_node("QuantizeLinear", ["h", "s", "z"], ["h_QuantizeLinear_Output"])
    dq = helper.make_node(
        "DequantizeLinear", ["h_QuantizeLinear_Output", "s", "z"], ["h_DequantizeLinear_Output"]
    )
    y = helper.make_node("Identity", ["h_DequantizeLinear_Output"], ["y"])
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [h, q, dq, y],
        "g",
        [value("x", TensorProto.FLOAT, ["N", 4])],
        [value("y", TensorProto.FLOAT, ["N", 4])],
        [
            numpy_helper.from_array(np.float32(0.5), "s"),
            numpy_helper.from_array(np.uint8(0), "z"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, tmp_path / "qdq.onnx")
    plain = save("g (float[N,4] x) => (float[N,4] y) { h = Relu (x) y = Identity (h) }", "f.onnx")
    x = np.array([[0.1, 0.3, 1.0, 500]], np.float32)  # the last one is beyond 255 * 0.5
    found = edgeq.compare(plain, tmp_path / "qdq.onnx", data=x)
    (inner,) = found.tensors
    assert (inner.a, inner.step) == ("h", 0.5)
    assert inner.max_lsb == (500 - 127.5) / 0.5
    assert inner.equal_share == 0.25


def test_made_up_inputs_lie_where_both_were_calibrated() -> None:
    assert comparing._common((0.0, 1.0), (-3.5, 3.5)) == (0.0, 1.0)
    assert comparing._common((0.0, 2.0), (1.0, 3.0)) == (1.0, 2.0)
    assert comparing._common((0.0, 1.0), (5.0, 6.0)) == (0.0, 1.0)
    assert comparing._common(None, (5.0, 6.0)) == (5.0, 6.0)
    assert comparing._common(None, None) is None
