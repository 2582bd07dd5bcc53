"""`edgeq.build`: what is written, what is said, and what is refused, with the real engine."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

import edgeq
from edgeq import BuildSettings, EdgeqError
from edgeq.report.events import Event, Note, StageFinished, Warned
from edgeq_runtime import reader


def labels_of(model: Path, images: np.ndarray) -> np.ndarray:
    """The float model's own answers, so that its accuracy is 1."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    return session.run(None, {"image": images})[0].argmax(1)


def test_int8_build_is_verified_and_smaller(net: Path, images: np.ndarray) -> None:
    built = edgeq.build(net, target="rpi5", precision="int8", data=images)
    assert built.ok
    assert built.exit_code == 0
    assert built.bundle == "net-rpi5-int8.edgeq"
    assert built.ops == {"int8": {"Conv": 1, "Flatten": 1, "Gemm": 1, "MaxPool": 1, "Relu": 1}}
    assert built.size_bytes < built.float_size_bytes
    assert built.coverage is not None
    assert built.coverage["int8"]["Conv"] == 1
    assert built.golden == {"vectors": 4, "outputs": {"scores": "codes"}}
    verified = edgeq.verify(built.bundle)
    assert verified.passed
    assert verified.digest == built.digest


def test_the_artifact_computes_what_the_result_says(net: Path, images: np.ndarray) -> None:
    built = edgeq.build(net, target="x86-avx2", precision="int8", data=images)
    with edgeq.load(built.bundle, exact=True) as runner:
        assert [info.name for info in runner.inputs] == ["image"]
        scores = runner.run(images[:4])["scores"]
    import onnxruntime

    session = onnxruntime.InferenceSession(str(net), providers=["CPUExecutionProvider"])
    wanted = session.run(None, {"image": images[:4]})[0]
    # 8-bit weights and activations through two layers: 20 dB would be noise at a tenth.
    error = np.square(scores - wanted).sum()
    assert 10 * np.log10(np.square(wanted).sum() / error) > 25
    sqnr = built.fidelity.outputs[0].sqnr_db
    assert sqnr is not None
    assert sqnr > 25


def test_activations_are_uint8_on_x86_and_int8_on_arm(net: Path, images: np.ndarray) -> None:
    dtypes = {}
    for target in ("rpi5", "x86-vnni"):
        built = edgeq.build(net, target=target, precision="int8", data=images)
        model = onnx.load_from_string(reader.read(built.bundle).artifact)
        points = {i.name: i.data_type for i in model.graph.initializer}
        quantize = next(n for n in model.graph.node if n.op_type == "QuantizeLinear")
        dtypes[target] = points[quantize.input[2]]
    assert dtypes == {"rpi5": onnx.TensorProto.INT8, "x86-vnni": onnx.TensorProto.UINT8}


def test_fp32_build_equals_the_float_model(net: Path) -> None:
    built = edgeq.build(net, target="rpi5", precision="fp32")
    assert built.ok
    assert built.precision == "fp32"
    assert built.coverage is None
    assert built.fidelity.outputs[0].sqnr_db is None or built.fidelity.outputs[0].sqnr_db > 100
    assert edgeq.verify(built.bundle).passed


def test_auto_without_data_is_fp32_and_says_so(net: Path) -> None:
    events: list[Event] = []
    built = edgeq.build(net, target="rpi5", progress=events.append)
    assert built.precision == "fp32"
    assert "assumed precision fp32: no calibration data was given" in built.notes
    assert Note("assumed precision fp32: no calibration data was given") in events
    stages = [event.name for event in events if isinstance(event, StageFinished)]
    assert stages == ["Read", "Optimized", "Checked", "Packed"]


def test_auto_with_data_is_int8(net: Path, images: np.ndarray) -> None:
    assert edgeq.build(net, target="rpi5", data=images).precision == "int8"


def test_auto_falls_back_to_fp32_when_the_gate_fails(net: Path, images: np.ndarray) -> None:
    built = edgeq.build(
        net,
        target="rpi5",
        data=images,
        evaluate={"image": images, "y": labels_of(net, images)},
        gate="size>8kB",
        settings=BuildSettings(metric="top1"),
    )
    assert built.precision == "fp32"
    assert built.ok
    assert "int8 did not pass its gate, so fp32 was built" in built.notes


def test_metric_gate_and_interval(net: Path, images: np.ndarray) -> None:
    built = edgeq.build(
        net,
        target="rpi5",
        precision="int8",
        data=images,
        evaluate={"image": images, "y": labels_of(net, images)},
        gate=["top1>=-20pt", "size<1MB"],
        settings=BuildSettings(metric="top1"),
    )
    assert built.gate is not None
    assert built.gate["passed"]
    metric = built.to_json()["quality"]
    assert metric["metric"] == "top1"
    assert metric["baseline"] == 1.0
    assert metric["n"] == 24
    assert metric["interval"] is not None
    manifest = reader.read(built.bundle).manifest
    assert manifest.raw["quality"] == [metric]
    assert manifest.raw["gate"]["passed"] is True


def test_evaluation_function_sees_the_artifact_as_the_float_model(
    net: Path, images: np.ndarray
) -> None:
    shapes = []

    def score(run: Callable[..., dict[str, np.ndarray]]) -> np.ndarray:
        outputs = run({"image": images})
        shapes.append({name: (array.dtype.name, array.shape) for name, array in outputs.items()})
        return outputs["scores"].max(1)

    built = edgeq.build(net, target="rpi5", precision="int8", data=images, evaluate=score)
    assert shapes == [{"scores": ("float32", (24, 10))}] * 2
    assert built.metrics[0]["n"] == 24


def test_failed_gate_writes_the_bundle_and_says_so_in_it(net: Path, images: np.ndarray) -> None:
    built = edgeq.build(net, target="rpi5", precision="int8", data=images, gate="size<1kB")
    assert not built.ok
    assert built.exit_code == 1
    assert built.outcome == "gate-failed"
    assert reader.read(built.bundle).manifest.raw["gate"]["passed"] is False


def test_failed_gate_with_strict_writes_nothing(
    net: Path, images: np.ndarray, tmp_path: Path
) -> None:
    before = sorted(tmp_path.iterdir())
    built = edgeq.build(
        net,
        target="rpi5",
        precision="int8",
        data=images,
        gate="size<1kB",
        settings=BuildSettings(strict=True),
    )
    assert built.bundle is None
    assert built.exit_code == 1
    assert sorted(tmp_path.iterdir()) == before


def test_garbage_without_a_metric_fails_a_gate_of_its_own(save: Callable[..., Path]) -> None:
    # One weight, for a channel that is always zero, sets the scale: nothing is left of the others.
    # Where data is given the search would leave such a layer in float.
    w = np.full((16, 16, 1, 1), 0.01, np.float32)
    w[:, 0] = 1e4
    zero = np.ones((1, 16, 1, 1), np.float32)
    zero[:, 0] = 0
    model = save(
        """g (float[N,16,8,8] image) => (float[N,16,8,8] y) {
            rest = Mul (image, zero)
            y = Conv (rest, w) }""",
        w=w,
        zero=zero,
    )
    settings = BuildSettings(weights="int8", acts="fp32")
    built = edgeq.build(model, target="rpi5", precision="int8", settings=settings)
    assert built.outcome == "garbage"
    assert built.exit_code == 1
    assert any("below 5 dB" in warning for warning in built.warnings)


def test_what_would_be_garbage_alone_stays_float(
    save: Callable[..., Path], images: np.ndarray
) -> None:
    # The output is a small difference of two large numbers: 8 bits hold nothing of it.
    model = save(
        """g (float[N,3,8,8] image) => (float[N,3,8,8] y) {
            a = Conv (image, w, big)
            b = Conv (a, w2)
            y = Add (b, minus) }""",
        w=np.eye(3, dtype=np.float32).reshape(3, 3, 1, 1),
        big=np.full(3, 1e4, np.float32),
        w2=np.eye(3, dtype=np.float32).reshape(3, 3, 1, 1),
        minus=np.full((1, 3, 1, 1), -1e4, np.float32),
    )
    built = edgeq.build(model, target="rpi5", precision="int8", data=images)
    assert (built.outcome, built.precision, built.exit_code) == ("built", "fp32", 0)
    (warning,) = built.warnings
    assert "the artifact is float, because int8 was not possible" in warning
    assert "quantizing `a` alone leaves" in warning
    assert all(output.sqnr_db is None for output in built.fidelity.outputs)


def test_no_smaller_than_float_is_a_warning_and_exit_0(
    save: Callable[..., Path],
) -> None:
    model = save(
        """g (float[N,4] x) => (float[N,2] y) { y = Gemm (x, w, b) }""",
        w=np.ones((4, 2), np.float32),
        b=np.ones(2, np.float32),
    )
    events: list[Event] = []
    data = np.linspace(-1, 1, 32, dtype=np.float32).reshape(8, 4)
    built = edgeq.build(model, target="rpi5", precision="int8", data=data, progress=events.append)
    assert built.exit_code == 0
    assert any("no smaller than float" in warning for warning in built.warnings)
    assert any(isinstance(e, Warned) and "no smaller than float" in e.text for e in events)
    assert built.to_json()["warnings"] == list(built.warnings)


def test_synthetic_data_marks_everything_not_calibrated(net: Path) -> None:
    built = edgeq.build(
        net, target="rpi5", precision="int8", settings=BuildSettings(synthetic_data=True)
    )
    assert built.calibration is not None
    assert built.calibration["calibrated"] is False
    assert any("not calibrated" in warning for warning in built.warnings)
    assert any("not calibrated" in note for note in reader.read(built.bundle).manifest.notes)


def test_keep_float_is_named_with_its_reason(net: Path, images: np.ndarray) -> None:
    name = edgeq.inspect(net)  # nodes have no names in the file: edgeq gives them
    assert name.kind == "model"
    built = edgeq.build(
        net,
        target="rpi5",
        precision="int8",
        data=images,
        settings=BuildSettings(keep_float=("Gemm*",)),
    )
    left = {op.op_type: op.reason for op in built.left_in_float}
    assert "Gemm" in left
    assert "--keep-float" in left["Gemm"]
    assert built.golden["outputs"] == {"scores": "tolerance"}
    assert edgeq.verify(built.bundle).passed


def test_plan_writes_nothing_and_holds_the_numbers(
    net: Path, images: np.ndarray, tmp_path: Path
) -> None:
    from edgeq.api import plan
    from edgeq.quant.plan import QuantPlan

    before = sorted(tmp_path.iterdir())
    planned = plan(net, target="rpi5", precision="int8", data=images)
    assert sorted(tmp_path.iterdir()) == before
    document = json.loads(json.dumps(planned.to_json()["plan"]))
    counts = QuantPlan.from_json(document).counts()
    assert {name: kinds for name, kinds in counts.items() if kinds} == planned.ops


def test_the_plan_in_the_bundle_is_the_plan(net: Path, images: np.ndarray) -> None:
    from edgeq.api import plan

    built = edgeq.build(net, target="rpi5", precision="int8", data=images)
    files = reader.read(built.bundle).files
    planned = plan(net, target="rpi5", precision="int8", data=images)
    assert json.loads(files["plan.json"]) == json.loads(json.dumps(planned.plan))


def test_folder_bundle_holds_a_plain_model(net: Path, images: np.ndarray) -> None:
    import onnxruntime

    built = edgeq.build(
        net,
        target="x86-vnni",
        precision="int8",
        data=images,
        settings=BuildSettings(packaging="dir"),
    )
    folder = Path(str(built.bundle))
    session = onnxruntime.InferenceSession(
        str(folder / "model.onnx"), providers=["CPUExecutionProvider"]
    )
    assert session.run(None, {"image": images[:1]})[0].shape == (1, 10)
    with pytest.raises(EdgeqError, match=r"exists \[output-exists\]"):
        edgeq.build(
            net,
            target="x86-vnni",
            precision="int8",
            data=images,
            settings=BuildSettings(packaging="dir"),
        )
    again = edgeq.build(
        net,
        target="x86-vnni",
        precision="int8",
        data=images,
        settings=BuildSettings(packaging="dir", force=True),
    )
    assert again.digest == built.digest


def test_labels_reach_the_bundle_and_run(net: Path, images: np.ndarray, tmp_path: Path) -> None:
    from edgeq.api import run

    (tmp_path / "labels.txt").write_text("".join(f"class {i}\n" for i in range(10)))
    built = edgeq.build(
        net,
        target="x86-vnni",
        precision="int8",
        data=images,
        settings=BuildSettings(labels="labels.txt"),
    )
    ran = run(built.bundle, data=images, topk=2, out="out.npz")
    assert len(ran.top) == 24
    assert ran.top[0][0][1] == f"class {ran.top[0][0][0]}"
    with np.load("out.npz") as saved:
        assert saved["scores"].shape == (24, 10)
        assert int(saved["scores"][0].argmax()) == ran.top[0][0][0]


@pytest.mark.parametrize(
    ("settings", "slug", "words"),
    [
        ({}, "needs-data", "static int8 needs calibration data"),
        ({"data": "none.npz"}, "bad-data", "none.npz"),
        ({"synthetic_data": True, "gate": "p90<30ms"}, "gate-not-measurable", "p90"),
        ({"synthetic_data": True, "gate": "top1>=-1pt"}, "", "top1"),
        ({"synthetic_data": True, "gate": "size<<1"}, "bad-gate", "size<<1"),
        ({"synthetic_data": True, "out": "nowhere/x.edgeq"}, "no-such-folder", "nowhere"),
        ({"synthetic_data": True, "labels": "none.txt"}, "bad-labels", "none.txt"),
        ({"synthetic_data": True, "shape": {"imag": (1, 3, 8, 8)}}, "no-such-input", "imag"),
        ({"synthetic_data": True, "target": "rpi6"}, "unknown-target", "rpi6"),
    ],
)
def test_refusals_write_nothing(
    net: Path, tmp_path: Path, settings: dict[str, object], slug: str, words: str
) -> None:
    before = sorted(tmp_path.iterdir())
    given = {"target": "rpi5", "precision": "int8", **settings}
    with pytest.raises(EdgeqError, match=words) as caught:
        edgeq.build(net, settings=BuildSettings(**given))  # type: ignore[arg-type]
    assert caught.value.slug == slug or not slug
    assert caught.value.exit_code == 2
    assert sorted(tmp_path.iterdir()) == before


def test_nothing_to_quantize_is_told_with_the_reasons(save: Callable[..., Path]) -> None:
    model = save("g (float[N,4] x) => (float[N,4] y) { y = Softmax (x) }")
    with pytest.raises(EdgeqError, match=r"Softmax.*\[nothing-to-quantize\]"):
        edgeq.build(
            model,
            target="rpi5",
            precision="int8",
            settings=BuildSettings(synthetic_data=True),
        )


def test_nan_in_the_float_outputs_on_the_users_data_is_refused(
    save: Callable[..., Path], tmp_path: Path
) -> None:
    model = save("g (float[N,4] x) => (float[N,4] y) { y = Log (x) }")
    data = -np.ones((4, 4), np.float32)
    with pytest.raises(EdgeqError, match=r"output `y` of the float model is NaN.*\[not-finite\]"):
        edgeq.build(model, target="rpi5", precision="fp32", data=data)
    assert [path.name for path in tmp_path.iterdir()] == ["net.onnx"]


def test_a_model_that_draws_random_numbers_is_refused(
    save: Callable[..., Path], images: np.ndarray
) -> None:
    model = save(
        """g (float[N,3,8,8] image) => (float[N,3,8,8] y) {
            n = RandomNormalLike (image)
            y = Add (image, n) }"""
    )
    with pytest.raises(EdgeqError, match=r"`y`.*between two runs.*\[not-repeatable\]"):
        edgeq.build(model, target="rpi5", precision="fp32", data=images)


def test_nan_on_made_up_samples_alone_does_not_stop_a_float_build(
    save: Callable[..., Path],
) -> None:
    model = save("g (float[N,4] x) => (float[N,4] y) { y = Log (x) }")
    assert edgeq.build(model, target="rpi5", precision="fp32").ok


def test_an_output_whose_shape_depends_on_the_data_is_named_and_not_compared(
    save: Callable[..., Path], images: np.ndarray
) -> None:
    model = save(
        """g (float[N,3,8,8] image) => (int64[4,M] y, float[N,16,6,6] a) {
            a = Conv (image, w)
            r = Relu (a)
            y = NonZero (r) }""",
        w=np.random.default_rng(0).standard_normal((16, 3, 3, 3)).astype(np.float32),
    )
    built = edgeq.build(model, target="rpi5", precision="int8", data=images)
    assert built.bundle is not None
    assert built.fidelity.incomparable == ("y",)
    assert any("output `y` was not compared" in warning for warning in built.warnings)
    assert edgeq.verify(built.bundle).passed


def test_a_float_tail_behind_integers_has_the_tolerance_of_the_tail_alone(
    save: Callable[..., Path], images: np.ndarray
) -> None:
    model = save(
        """g (float[N,3,8,8] image) => (float[N,10] y) {
            f = Flatten (image)
            a = Gemm (f, w)
            y = Softmax (a) }""",
        w=np.random.default_rng(0).standard_normal((192, 10)).astype(np.float32) * 0.1,
    )
    built = edgeq.build(model, target="rpi5", precision="int8", data=images)
    rule = reader.read(built.bundle).manifest.golden.rules["y"]
    assert rule.rule == "tolerance"
    assert rule.absolute is not None
    # one softmax of values in 0..1: far below the 0.5/255 of a step of int8 logits
    assert rule.absolute < 1e-4


@pytest.mark.parametrize("tail", ["Flatten", "Transpose <perm = [0,2,3,1]>"])
@pytest.mark.parametrize("head", ["Exp", "Identity"])
def test_moves_at_the_border_of_integers_open_in_the_plain_engine(
    save: Callable[..., Path], images: np.ndarray, head: str, tail: str
) -> None:
    import onnxruntime

    shape = "float[N,1024]" if tail == "Flatten" else "float[N,8,8,16]"
    model = save(
        f"""g (float[N,3,8,8] image) => ({shape} y) {{
            e = {head} (image)
            t = Transpose <perm = [0,1,3,2]> (e)
            a = Conv <pads = [1,1,1,1]> (t, w)
            y = {tail} (a) }}""",
        w=np.random.default_rng(0).standard_normal((16, 3, 3, 3)).astype(np.float32),
    )
    for target in ("rpi5", "x86-vnni"):
        built = edgeq.build(
            model,
            target=target,
            precision="int8",
            data=images,
            settings=BuildSettings(packaging="dir"),
        )
        file = Path(str(built.bundle)) / "model.onnx"
        session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
        assert session.run(None, {"image": images[:1]})[0].size == 1024


def test_a_model_that_no_engine_loads_is_refused(save: Callable[..., Path], tmp_path: Path) -> None:
    model = save("g (float[2,3] x) => (float[2,4] y) { y = Reshape (x, s) }", s=np.array([2, 4]))
    with pytest.raises(EdgeqError) as caught:
        edgeq.build(model, target="rpi5", precision="fp32")
    assert caught.value.exit_code == 2
    assert [path.name for path in tmp_path.iterdir()] == ["net.onnx"]


def test_two_builds_have_the_same_bytes(net: Path, images: np.ndarray, tmp_path: Path) -> None:
    for name in ("one.edgeq", "two.edgeq"):
        edgeq.build(net, target="x86-avx2", precision="int8", data=images, out=tmp_path / name)
    one, two = (reader.read(tmp_path / name) for name in ("one.edgeq", "two.edgeq"))
    assert one.files["model.onnx"] == two.files["model.onnx"]
    assert one.files["golden.bin"] == two.files["golden.bin"]
