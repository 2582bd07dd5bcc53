"""Builds for LiteRT: settings, both engines, the border, models that are TFLite already."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import edgeq
from edgeq.api import border, choosing, models
from edgeq.api.forms import Form, forms
from edgeq.api.tflite import exact_outputs, tensor_kinds
from edgeq.config import BuildSettings
from edgeq.errors import EdgeqError
from edgeq.targets import load
from edgeq_runtime import reader, tflite

RPI5 = load("rpi5")
TFLITE = BuildSettings(format="tflite")


def built(net: Path, images: Any = None, **settings: Any) -> Any:
    asked: dict[str, Any] = {"format": "tflite", **settings}
    return edgeq.build(net, target="rpi5", data=images, settings=BuildSettings(**asked))


def artifact_of(result: Any) -> bytes:
    return reader.read(result.bundle).artifact


# -- which engine, which format -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "found"),
    [
        ({}, [("onnxruntime", "onnx")]),
        ({"engine": "default", "format": "ort"}, [("onnxruntime", "ort")]),
        ({"engine": "ort"}, [("onnxruntime", "onnx")]),
        ({"engine": "litert"}, [("litert", "tflite")]),
        ({"format": "tflite"}, [("litert", "tflite")]),
        ({"format": "tflite", "engine": "auto"}, [("litert", "tflite")]),
        ({"engine": "auto"}, [("onnxruntime", "onnx"), ("litert", "tflite")]),
        ({"engine": "auto", "io": "int8"}, [("onnxruntime", "onnx"), ("litert", "tflite")]),
    ],
)
def test_settings_name_the_forms(settings: dict[str, str], found: list[tuple[str, str]]) -> None:
    assert forms(BuildSettings(**settings), RPI5) == tuple(Form(*row) for row in found)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"format": "onnx", "engine": "litert"}, "`--format onnx` contradicts `--engine litert`"),
        ({"format": "tflite", "engine": "ort"}, "`--format tflite` contradicts `--engine ort`"),
        ({"io": "int8"}, "`--io int8` is for TFLite models"),
        ({"layout": "nhwc"}, "`--layout nhwc` is for TFLite models"),
        ({"io": "int8", "precision": "fp32"}, "`--io int8` contradicts `--fp32`"),
        ({"io": "int8", "precision": "fp16"}, "`--io int8` contradicts `--fp16`"),
        ({"io": "int8", "acts": "dynamic"}, "`--acts dynamic` has none"),
    ],
)
def test_contradictions_are_usage(settings: dict[str, str], message: str) -> None:
    with pytest.raises(EdgeqError, match=message) as caught:
        forms(BuildSettings(**settings), RPI5)
    assert caught.value.slug == "usage"


# -- a bundle with a TFLite file -------------------------------------------------------------------


def test_a_float_build_is_opened_verified_and_close_to_float(net: Path) -> None:
    result = built(net, precision="fp32")
    assert [(row.file, row.format) for row in result.artifacts] == [("model.tflite", "tflite")]
    manifest = reader.read(result.bundle).manifest
    assert (manifest.engine.name, manifest.exact_kernels) == ("litert", "safe")
    assert result.fidelity.outputs[0].sqnr_db > 100  # float32 sums in another order
    assert edgeq.verify(result.bundle).passed


def test_int8_runs_in_one_piece_and_its_golden_outputs_are_exact(
    net: Path, images: np.ndarray
) -> None:
    result = built(net, images, precision="int8")
    assert result.coverage is not None
    assert result.coverage["partitions"] == 1
    assert result.coverage["int8"]["CONV_2D"] == 1
    assert result.golden["outputs"] == {"scores": "codes"}
    assert edgeq.verify(result.bundle).passed
    planned = edgeq.inspect(result.bundle, plan=True).data["plan"]["ops"]
    assert any(op["scale"] is not None and op["measured"] for op in planned)


def test_the_batch_stays_free(net: Path, images: np.ndarray) -> None:
    result = built(net, images, precision="int8")
    with edgeq.load(result.bundle) as runner:
        together = runner.run({"image": images[:5]})["scores"]
        alone = [runner.run({"image": images[at : at + 1]})["scores"] for at in range(5)]
    np.testing.assert_array_equal(together, np.concatenate(alone))


def test_two_builds_are_the_same_bytes(net: Path, images: np.ndarray, tmp_path: Path) -> None:
    one = built(net, images, precision="int8", out=str(tmp_path / "one.edgeq"))
    two = built(net, images, precision="int8", out=str(tmp_path / "two.edgeq"))
    assert Path(one.bundle).read_bytes() == Path(two.bundle).read_bytes()


def test_what_the_file_says_of_itself(net: Path, images: np.ndarray, tmp_path: Path) -> None:
    (tmp_path / "labels.txt").write_text("\n".join(f"class {i}" for i in range(10)))
    result = built(net, images, precision="int8", labels=str(tmp_path / "labels.txt"))
    told = json.loads(bytes(tflite.parse(artifact_of(result)).metadata["edgeq"]))
    assert told["labels"][3] == "class 3"
    assert told["free_batch"] == {"inputs": ["image"], "outputs": ["scores"]}


# -- the border -----------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", ["keep", "nhwc"])
@pytest.mark.parametrize("io", ["float", "int8"])
def test_one_evaluation_fits_every_border(
    net: Path, images: np.ndarray, io: str, layout: str
) -> None:
    """The user's function speaks of the float model; what it sees is the same integers."""
    seen: list[np.ndarray] = []

    def score(run: Any) -> float:
        rows = [run({"image": image[None]})["scores"] for image in images]
        seen.append(np.concatenate(rows))
        return 0.0

    plain = built(net, images, precision="int8", out="plain.edgeq")
    edgeq.evaluate(plain.bundle, evaluate=score)
    result = built(net, images, precision="int8", io=io, layout=layout, out="other.edgeq")
    edgeq.evaluate(result.bundle, evaluate=score)
    np.testing.assert_array_equal(seen[0], seen[1])
    assert edgeq.verify(result.bundle).passed
    (info,) = reader.read(result.bundle).manifest.inputs
    assert info.dtype == ("int8" if io == "int8" else "float32")
    assert info.shape[1:] == ((8, 8, 3) if layout == "nhwc" else (3, 8, 8))


def test_an_app_sees_the_border_as_it_is(net: Path, images: np.ndarray) -> None:
    result = built(net, images, precision="int8", io="int8")
    with edgeq.load(result.bundle) as runner:
        codes = runner.run({"image": np.zeros((1, 3, 8, 8), np.int8)})["scores"]
    assert codes.dtype == np.int8


def test_an_app_need_not_compute_scales(net: Path, images: np.ndarray) -> None:
    """Manifest, file and session say the same; a runner's own infos turn floats into codes."""
    result = built(net, images, precision="int8", io="int8")
    bundle = reader.read(result.bundle)
    told = json.loads(bytes(tflite.parse(bundle.artifact).metadata["edgeq"]))["quantization"]
    manifest = bundle.manifest
    ends = (*manifest.inputs, *manifest.outputs)
    assert told == {i.name: {"scale": i.scale, "zero_point": i.zero_point} for i in ends}
    plain = built(net, images, precision="int8", out="plain.edgeq")
    with edgeq.load(result.bundle) as runner, edgeq.load(plain.bundle) as floats:
        codes = runner.run(runner.inputs[0].codes(images[:1]))["scores"]
        wanted = floats.run({"image": images[:1]})["scores"]
        np.testing.assert_array_equal(runner.outputs[0].values(codes), wanted)
        assert floats.inputs[0].scale is None
    assert "quantization" not in json.loads(
        bytes(tflite.parse(artifact_of(plain)).metadata["edgeq"])
    )


@pytest.mark.parametrize("layout", ["keep", "nhwc"])
@pytest.mark.parametrize("io", ["float", "int8"])
def test_a_picture_fits_every_border(net: Path, images: np.ndarray, io: str, layout: str) -> None:
    """One `[input.NAME]` table for the float model; the bundle has it for its own axes."""
    table = {"image": {"scale": 1 / 64, "mean": 2.0}}
    plain = built(net, images, precision="int8", input=table, out="plain.edgeq")
    other = built(net, images, precision="int8", input=table, out="o.edgeq", io=io, layout=layout)
    picture = np.random.default_rng(1).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    with edgeq.load(plain.bundle) as floats, edgeq.load(other.bundle) as runner:
        wanted = floats.run_image(picture)["scores"]
        np.testing.assert_array_equal(
            runner.outputs[0].values(runner.run_image(picture)["scores"]), wanted
        )
    told = json.loads(bytes(tflite.parse(artifact_of(other)).metadata["edgeq"]))
    assert told["inputs"]["image"]["layout"] == ("nhwc" if layout == "nhwc" else "nchw")


def test_codes_round_to_even_and_clip() -> None:
    end = border.Border("int8", 0.5, 3)
    values = np.array([[-0.25, 0.25, 0.75, 1e9, -1e9]], np.float32)
    np.testing.assert_array_equal(end.codes(values), [[3, 3, 5, 127, -128]])
    np.testing.assert_array_equal(end.values(np.array([2, 4], np.int8)), [-0.5, 0.5])
    assert end.span(-1.0, 1.0) == (1.0, 5.0)


def test_channels_go_last_and_come_back() -> None:
    end = border.Border("float32", channels_last=True)
    assert border.PLAIN.codes(np.array(2.5, np.float32)).shape == ()  # a scalar stays one
    array = np.arange(24, dtype=np.float32).reshape(1, 2, 3, 4)
    assert end.codes(array).shape == (1, 3, 4, 2)
    np.testing.assert_array_equal(end.values(end.codes(array)), array)


def test_an_onnx_file_has_no_border(net: Path) -> None:
    assert border.borders(net.read_bytes()) == {}


# -- what cannot be written -----------------------------------------------------------------------


def test_every_operator_is_named_at_once(save: Callable[..., Path]) -> None:
    model = save(
        """g (float[1,4,4] x) => (float[1] y, float[1] z) {
            y = Det (x)
            a = Abs (x)
            z = Det (a) }"""
    )
    with pytest.raises(EdgeqError, match=r"`Det` \(.*\[unwritable-op\]") as caught:
        built(model, precision="fp32")
    assert "`--format onnx`" in caught.value.hints[0]


def test_with_both_engines_it_is_a_note_and_onnx_is_built(save: Callable[..., Path]) -> None:
    model = save("g (float[1,4,4] x) => (float[1] y) { y = Det (x) }")
    result = built(model, precision="fp32", format="auto", engine="auto")
    assert result.artifacts[0].format == "onnx"
    assert any(note.startswith("no artifact for litert: ") for note in result.notes)
    (kept, refused) = result.candidates
    assert (kept["engine"], kept["kept"], kept["reason"]) == (
        "onnxruntime",
        True,
        "no other could be built",
    )
    assert (refused["engine"], refused["size_bytes"]) == ("litert", None)
    assert "unwritable-op" in refused["reason"]


def test_a_free_axis_beside_the_batch_needs_a_shape(save: Callable[..., Path]) -> None:
    model = save(
        "g (float[N,3,H,8] x) => (float[N,4,H,8] y) { y = Conv <pads=[1,1,1,1]> (x, w) }",
        w=np.ones((4, 3, 3, 3), np.float32),
    )
    with pytest.raises(EdgeqError, match=r"\[needs-shape\]"):
        built(model, precision="fp32")
    fixed = built(model, precision="fp32", shape={"x": (1, 3, 8, 8)})
    assert fixed.artifacts[0].format == "tflite"


# -- int4 weights ---------------------------------------------------------------------------------


@pytest.mark.parametrize("weights", ["int4", "int4-block32"])
def test_int4_weights_are_built_for_both_engines_and_read_again(
    net: Path, weights: str, tmp_path: Path
) -> None:
    result = built(net, weights=weights, out="lite.edgeq")
    assert result.ops["dynamic-int4"] == {"Gemm": 1}
    assert result.ops["int8-weights"] == {"Conv": 1}
    assert f"assumed --acts dynamic: `--weights {weights}`" in " ".join(result.notes)
    assert "ONNX Runtime" not in " ".join(result.notes)
    assert edgeq.verify(result.bundle).passed
    counts = edgeq.inspect(result.bundle, plan=True).data["plan"]["counts"]
    assert counts["dynamic-int4"] == 1

    other = built(net, weights=weights, acts="dynamic", format="onnx", out="onnx.edgeq")
    assert other.ops == result.ops
    assert any("turns int4 weights back to floats" in note for note in other.notes)
    assert edgeq.verify(other.bundle).passed
    ours = [built.fidelity.outputs[0].sqnr_db for built in (result, other)]
    assert abs(ours[0] - ours[1]) < 1  # the same weights; 8 bits of input are far less noise

    path = tmp_path / "int4.tflite"
    path.write_bytes(artifact_of(result))
    kept = edgeq.build(path, target="rpi5", settings=TFLITE)
    assert kept.ops["dynamic-int4"] == {"Gemm": 1}
    assert kept.fidelity.outputs[0].sqnr_db is None, "bit-equal to the file they are of"


@pytest.mark.parametrize("acts", ["static", "mixed", "fp32"])
def test_int4_weights_are_for_layers_that_quantize_at_run_time(net: Path, acts: str) -> None:
    with pytest.raises(EdgeqError, match="`--weights int4` is for layers that") as caught:
        built(net, weights="int4", acts=acts)
    assert caught.value.slug == "usage"
    assert f"or 8 bits: `--weights int8 --acts {acts}`" in caught.value.hints


# -- TFLite models as sources ---------------------------------------------------------------------


@pytest.fixture
def quantized(net: Path, images: np.ndarray, tmp_path: Path) -> Path:
    """An int8 .tflite file with int8 inputs and outputs, as other tools make them."""
    result = built(net, images, precision="int8", io="int8", out=str(tmp_path / "q.edgeq"))
    path = tmp_path / "quantized.tflite"
    path.write_bytes(artifact_of(result))
    return path


def test_its_own_integers_are_kept_without_data(quantized: Path) -> None:
    result = edgeq.build(quantized, target="rpi5", settings=TFLITE)
    assert result.precision == "int8"
    assert any("its own integers are kept" in note for note in result.notes)
    assert any("stay int8" in note for note in result.notes)
    assert result.fidelity.reference == "quantized.tflite"
    assert result.fidelity.outputs[0].sqnr_db is None, "bit-equal to the file they are of"
    assert result.float_size_bytes == quantized.stat().st_size, "what it is measured against"


def test_its_own_integers_are_evaluated_beside_the_file_itself(
    quantized: Path, images: np.ndarray
) -> None:
    def largest(run: Any) -> float:
        return float(run({"image": images})["scores"].max())

    result = edgeq.build(quantized, target="rpi5", evaluate=largest, settings=TFLITE)
    assert result.metrics[0]["baseline"] == result.metrics[0]["value"]


def test_the_same_integers_as_onnx_are_within_one_step(quantized: Path, images: np.ndarray) -> None:
    result = edgeq.build(quantized, target="rpi5")
    assert result.artifacts[0].format == "onnx"
    compared = edgeq.compare(quantized, result.bundle, data={"image": images})
    assert compared.max_lsb is not None
    assert compared.max_lsb <= 1


def test_it_can_be_made_float_with_a_warning(
    net: Path, quantized: Path, images: np.ndarray
) -> None:
    result = edgeq.build(quantized, target="rpi5", precision="fp32")
    assert result.precision == "fp32"
    assert result.ops["float32"]["Relu"] == 1, "though codes that end at zero need none"
    assert any("rounded" in warning for warning in result.warnings)
    found = edgeq.compare(net, result.bundle, data={"image": images}).outputs[0]
    assert found.sqnr_db is not None
    assert found.sqnr_db > 20


@pytest.mark.parametrize(
    ("settings", "flag"),
    [
        ({"precision": "fp16"}, "--fp16"),
        ({"weights": "int8"}, "--weights"),
        ({"algo": "mse"}, "--algo"),
        ({"keep_float": ("x",)}, "--keep-float"),
    ],
)
def test_what_is_for_float_models_is_refused(
    quantized: Path, settings: dict[str, Any], flag: str
) -> None:
    with pytest.raises(EdgeqError, match=f"`{flag}` is for float models") as caught:
        edgeq.build(quantized, target="rpi5", settings=BuildSettings(**settings))
    assert caught.value.slug == "usage"


def test_the_file_itself_is_run_evaluated_inspected(quantized: Path, images: np.ndarray) -> None:
    ran = edgeq.api.run(quantized, data={"image": images[:3].astype(np.int8)})
    assert ran.engine.startswith("litert ")
    assert ran.outputs[0]["dtype"] == "int8"
    given = edgeq.api.run(quantized, data={"image": images[:3]})
    assert given.outputs[0]["dtype"] == "float32"
    assert any("quantized and restored at the border" in note for note in given.notes)
    with pytest.raises(EdgeqError, match=r"wants int8 .*\[data-mismatch\]"):
        edgeq.api.run(quantized, data={"image": images[:3, :2]})
    told = edgeq.evaluate(
        quantized, evaluate=lambda run: float(run({"image": images})["scores"].max())
    )
    assert told.baseline is None, "an int8 file is not its own float model"
    seen = edgeq.inspect(quantized, plan=True)
    assert seen.kind == "model"
    assert seen.data["inputs"][0]["dtype"] == "int8"
    assert seen.data["plan"]["counts"]["int8"] >= 3
    assert seen.data["tflite"]["signatures"][0]["key"] == "serving_default"


def test_a_damaged_file_is_refused_before_an_engine_sees_it(tmp_path: Path) -> None:
    path = tmp_path / "x.tflite"
    path.write_bytes(b"\xff\xff\xff\x7fTFL3" + bytes(64))
    for act in (
        lambda: edgeq.api.run(path, data={"x": np.zeros(1)}),
        lambda: edgeq.inspect(path),
        lambda: edgeq.build(path, target="rpi5"),
    ):
        with pytest.raises(EdgeqError, match=r"\[damaged-model\]"):
            act()


# -- compare across formats ------------------------------------------------------------------------


def test_inner_tensors_of_float_files_are_the_same_whatever_their_axes(
    net: Path, images: np.ndarray
) -> None:
    result = built(net, precision="fp32")
    compared = edgeq.compare(net, result.bundle, data={"image": images[:4]})
    found = {pair.a: pair for pair in compared.tensors}
    assert "d" in found, "what the pool makes: [1, 16, 4, 4], channels last in the file"
    for name in ("d",):
        noise = found[name].sqnr_db
        assert noise is None or noise > 100  # float32 sums in another order


def test_inner_codes_of_both_formats_are_on_one_grid(quantized: Path, images: np.ndarray) -> None:
    result = edgeq.build(quantized, target="x86-vnni")  # uint8 activations: shifted by 128
    compared = edgeq.compare(quantized, result.bundle, data={"image": images[:4]})
    assert compared.tensors
    assert {pair.compared_as for pair in compared.tensors} == {"codes"}
    assert all(pair.max_lsb is not None and pair.max_lsb <= 1 for pair in compared.tensors)


# -- fp16 ------------------------------------------------------------------------------------------


def test_fp16_says_what_each_core_computes(net: Path) -> None:
    result = built(net, precision="fp16")
    model = tflite.parse(artifact_of(result))
    assert bytes(model.metadata["reduced_precision_support"]).startswith(b"fp16accfp16")
    artifact = reader.read(result.bundle).manifest.raw["artifact"]
    assert artifact["compute"] == [
        {"features": ["fphp"], "computes": "float16"},
        {"features": [], "computes": "float32"},
    ]
    assert any("measured in float32 here; rpi5 computes in float16" in n for n in result.notes)
    assert any("fp16 weights on rpi5: computed in float16" in note for note in result.notes)


def test_fp16_is_measured_on_the_emulated_core_where_there_is_one(
    net: Path, images: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    from types import SimpleNamespace

    from edgeq.devices import emulated

    def run(artifact: bytes, samples: Any, *, core: str) -> Any:
        assert core == "Cortex-A76"
        session = models.open_exact(artifact)
        rows = tuple(
            {name: a * np.float32(1.001) for name, a in session.run(dict(row)).items()}
            for row in samples
        )
        return SimpleNamespace(outputs=rows)

    monkeypatch.setattr(emulated, "available", lambda core: "")
    monkeypatch.setattr(emulated, "run", run)
    labels = np.arange(24) % 10

    def score(run: Any) -> np.ndarray:
        return np.array([run({"image": i[None]})["scores"].max() for i in images]) + 0.0 * labels

    result = edgeq.build(
        net, target="rpi5", precision="fp16", data=images, evaluate=score, settings=TFLITE
    )
    assert result.fidelity.mode == "emulated Cortex-A76"
    # 1/1000 off everywhere: -20 log10(0.001) = 60 dB, and fp16 weights add to it
    assert result.fidelity.outputs[0].sqnr_db == pytest.approx(60.0, abs=2.0)
    (metric,) = result.metrics
    assert metric["value"] == pytest.approx(1.001 * metric["baseline"], rel=1e-3)
    assert any("on an emulated Cortex-A76" in note for note in result.notes)


# -- both engines ----------------------------------------------------------------------------------


def test_both_are_built_and_one_is_kept_with_its_reason(net: Path, images: np.ndarray) -> None:
    result = built(net, images, precision="int8", format="auto", engine="auto")
    assert [row["engine"] for row in result.candidates] == ["onnxruntime", "litert"]
    (kept,) = [row for row in result.candidates if row["kept"]]
    assert kept["size_bytes"] == result.size_bytes
    assert kept["acts"] == "static"
    assert all(row["reason"] for row in result.candidates)
    litert = result.candidates[1]
    assert litert["partitions"] == 1
    assert f"{kept['engine']} was kept of 2 engines, by measuring" in result.notes
    assert not any(" ms" in note for note in reader.read(result.bundle).manifest.notes)


def measured(engine: str, **figures: Any) -> Any:
    from types import SimpleNamespace

    facts: dict[str, Any] = {"sqnr_db": 25.0, "speed": None, "size_bytes": 1000, "metrics": ()}
    facts |= {"outcome": "built", **figures}
    candidate = SimpleNamespace(metrics=facts.pop("metrics"), outcome=facts.pop("outcome"))
    return SimpleNamespace(engine=engine, candidate=candidate, **facts)


def share(value: float) -> Any:
    from edgeq.quality import Quality

    return (Quality("top1", value, unit="fraction"),)


@pytest.mark.parametrize(
    ("one", "two", "kept", "reason"),
    [
        ({}, {}, "one", "the target's first"),
        ({"outcome": "gate-failed"}, {}, "two", "does not pass its gate"),
        ({"sqnr_db": 20.0}, {}, "two", "closer to the float model by 2 dB"),
        ({"sqnr_db": 24.0}, {"size_bytes": 900}, "two", "smaller"),
        ({"sqnr_db": 60.0}, {"sqnr_db": 30.0, "speed": 2.0}, "one", "the target's first"),
        ({"speed": 1.0}, {"speed": 1.2}, "one", "the target's first"),
        ({"speed": 1.0}, {"speed": 1.5, "size_bytes": 2000}, "two", "faster, here"),
        ({"metrics": share(0.9), "sqnr_db": 9.0}, {"metrics": share(0.903)}, "one", "first"),
        ({"metrics": share(0.9), "sqnr_db": 40.0}, {"metrics": share(0.91)}, "two", "metric"),
    ],
)
def test_quality_then_speed_then_size_then_the_targets_order(
    one: dict[str, Any], two: dict[str, Any], kept: str, reason: str
) -> None:
    best, why = choosing.choose([measured("one", **one), measured("two", **two)], "here")
    assert best.engine == kept
    assert reason in why


# -- exactness by what the file says ---------------------------------------------------------------


def test_an_output_is_exact_only_behind_integers(net: Path, images: np.ndarray) -> None:
    static = artifact_of(built(net, images, precision="int8"))
    assert set(exact_outputs(static)) == {"scores"}
    floats = artifact_of(built(net, precision="fp32", out="f.edgeq"))
    assert exact_outputs(floats) == {}
    model = tflite.parse(floats)
    assert {tensor_kinds(model)[at] for at in model.subgraphs[0].outputs} == {"tail"}


def test_integers_found_at_run_time_are_no_promise(net: Path) -> None:
    model = tflite.parse(artifact_of(built(net, weights="int8", acts="dynamic")))
    assert {tensor_kinds(model)[at] for at in model.subgraphs[0].outputs} == {"mixed"}
