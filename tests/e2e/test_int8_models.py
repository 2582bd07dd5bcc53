"""Real models in int8 by default settings: a detector, a byte classifier, a voice detector.

Scored with exact kernels from outputs, by the metrics of the shared data's own `load.py`.
"""

import importlib.util
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import edgeq

pytestmark = pytest.mark.shared

Run = Callable[[Mapping[str, np.ndarray]], Mapping[str, np.ndarray]]


@pytest.fixture
def load(shared: Path) -> ModuleType:
    """`shared/data/load.py`: the loader and the metrics that the published figures were made by."""
    spec = importlib.util.spec_from_file_location("shared_load", shared / "data" / "load.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def built_as(model: Path, out: Path, data: Any, **given: Any) -> Any:
    wanted = {"target": "x86-vnni", "precision": "int8"} | given
    return edgeq.build(model, data=data, out=out, **wanted)


@pytest.mark.slow
@pytest.mark.parametrize("target", ["x86-vnni", "x86-avx2", "rpi5"])
def test_yolox_nano_keeps_its_objects(load: ModuleType, tmp_path: Path, target: str) -> None:
    """Float 0.3175; ONNX Runtime's tool 0.00, a public int8 file 0.03; 90 % of Conv in int8."""
    data = load.load("det_yolox_nano")
    prepare = load.PRE["det_yolox_nano"]
    out = tmp_path / "yolox.edgeq"
    built = built_as(
        Path(data["dir"]) / "yolox_nano.onnx",
        out,
        {"images": prepare(data["calib_x"])},
        target=target,
    )
    images = prepare(data["x"])

    def average_precision(run: Run) -> float:
        found = [
            load.yolox_decode(run({"images": image[None]})["output"][0], placed)
            for image, placed in zip(images, data["ratio_left_top"], strict=True)
        ]
        return float(load.coco_ap(found, data["gt"], len(images))[0])

    told = edgeq.evaluate(out, evaluate=average_precision)
    assert told.value is not None and told.value >= 0.30
    assert built.coverage is not None
    conv = {kind: built.coverage[kind].get("Conv", 0) for kind in ("int8", "float32")}
    assert sum(conv.values()) == 113
    assert conv["int8"] >= 0.9 * 113, conv
    assert built.search is not None
    names = [part["name"] for part in built.search["parts"]]
    assert names == ["output[:, :, 0:4]", "output[:, :, 4:5]", "output[:, :, 5:85]"]
    reasons = [op.reason for op in built.left_in_float if op.op_type == "Conv"]
    assert any(reason.startswith("quantizing `") and "alone leaves" in reason for reason in reasons)


def test_magika_says_what_int8_costs(load: ModuleType, tmp_path: Path) -> None:
    """Its reference examples lie on the edge between two labels (the closest by 0.01 of a
    probability): int8 weights alone change some. Both MatMul and the Conv are int8, and the report
    says what loses most: the Conv's output, of which only each channel's maximum is used."""
    data = load.load("bytes_magika")
    out = tmp_path / "magika.edgeq"
    calibration = {"bytes": data["x"].astype(np.int32)}
    built = built_as(Path(data["dir"]) / "model.onnx", out, calibration)
    layers = [built.ops.get(precision, {}) for precision in ("int8", "dynamic-int8")]
    count = sum(kinds.get(kind, 0) for kinds in layers for kind in ("Conv", "Gemm", "MatMul"))
    assert count == 3, built.ops

    def agreement(run: Run) -> float:
        rows = data["ref_x"].astype(np.int32)
        scores = [run({"bytes": row[None]})["target_label"][0] for row in rows]
        return float((np.argmax(scores, axis=1) == data["ref_y"]).mean())

    told = edgeq.evaluate(out, evaluate=agreement)
    assert told.value is not None
    if told.value < 128 / 129:
        assert told.value >= 0.9
        (reason,) = [line for line in built.search["decided"] if line.startswith("most is lost")]
        assert "Conv_0/Conv2D:0`" in reason


FRAMES = 1875


def frames(data: Mapping[str, np.ndarray], run: Run, given: tuple[str, ...]) -> Any:
    """Every frame with the state fed back: the probabilities, and each frame's feeds."""
    audio = data["audio_int16"].astype(np.float32) / 32768
    state = np.zeros((2, 1, 128), np.float32)
    context = np.zeros(64, np.float32)
    heard, feeds = [], []
    for at in range(FRAMES):
        samples = audio[at * 512 : (at + 1) * 512]
        whole = np.concatenate([context, samples])[None]
        feed = {"input": whole, "state": state, "sr": np.array(16000, np.int64)}
        feeds.append({name: feed[name] for name in given})
        made = run(feeds[-1])
        state, context = made["stateN"], samples[-64:]
        heard.append(float(made["output"].reshape(-1)[0]))
    return np.array(heard), feeds


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["int8", "auto"])
@pytest.mark.parametrize("file", ["silero_vad", "silero_vad_16k_op15", "silero_vad_half"])
def test_silero_agrees_with_float_over_every_frame_or_is_float(
    load: ModuleType, tmp_path: Path, file: str, precision: str
) -> None:
    data = load.load("vad_silero")
    model = Path(data["dir"]) / f"{file}.onnx"
    given = ("input", "state") if file.endswith("half") else ("input", "state", "sr")
    heard: dict[str, np.ndarray] = {}

    def listen(name: str) -> Callable[[Run], float]:
        def score(run: Run) -> float:
            heard[name], feeds[name] = frames(data, run, given)
            return 1.0

        return score

    feeds: dict[str, Any] = {}
    edgeq.evaluate(model, evaluate=listen("float"))
    out = tmp_path / "silero.edgeq"
    built = built_as(model, out, lambda: iter(feeds["float"]), precision=precision)
    edgeq.evaluate(out, evaluate=listen("built"))
    agree = float(np.mean((heard["built"] > 0.5) == (heard["float"] > 0.5)))
    assert built.exit_code == 0
    if built.precision == "fp32":
        assert np.array_equal(heard["built"], heard["float"])
        assert any("the artifact is float" in warning for warning in built.warnings)
    else:
        assert agree >= 0.99
