"""Real TFLite models: float in, int8 TFLite and int8 ONNX out, against the public int8 files."""

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import edgeq
from edgeq.api.border import open_as_float
from edgeq_runtime import reader

pytestmark = [pytest.mark.shared, pytest.mark.slow]

HALF_A_POINT = 0.005
PROBES = 200
LARGER = 1.05  # of the public file, as the issue asks


@dataclass(frozen=True)
class Task:
    """A float file, the public int8 one of it, and what turns stored samples into inputs."""

    folder: str
    model: str
    public: str
    prepare: Callable[[np.ndarray], np.ndarray]


def _floats(array: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(array, np.float32)


def _shares(array: np.ndarray) -> np.ndarray:
    return _floats(array) / np.float32(255.0)


TASKS = {
    "kws": Task("kws_dscnn", "kws_ref_model_float32.tflite", "kws_ref_model.tflite", _floats),
    "resnet8": Task(
        "ic_resnet8", "pretrainedResnet.tflite", "pretrainedResnet_quant.tflite", _floats
    ),
    "vww": Task("vww_mobilenet", "vww_96_float.tflite", "vww_96_int8.tflite", _shares),
}


def scores(model: bytes, samples: np.ndarray) -> np.ndarray:
    """[n, classes] in floats, one sample at a time, whatever the border of the file is."""
    session = open_as_float(model)
    name, output = session.inputs[0].name, session.outputs[0].name
    rows = [session.run({name: sample[None]}, names=[output])[output] for sample in samples]
    session.close()
    return np.concatenate(rows).reshape(len(samples), -1)


def accuracy(found: np.ndarray, labels: np.ndarray) -> float:
    return float((found.argmax(axis=1) == labels).mean())


def sqnr(reference: np.ndarray, found: np.ndarray) -> float:
    noise = float(np.square(reference - found, dtype=np.float64).sum())
    return 10 * np.log10(float(np.square(reference, dtype=np.float64).sum()) / max(noise, 1e-30))


@pytest.mark.parametrize("form", ["tflite", "onnx"])
@pytest.mark.parametrize("name", TASKS)
def test_int8_is_as_good_as_the_public_file(
    shared: Path, tmp_path: Path, name: str, form: str
) -> None:
    task = TASKS[name]
    folder = shared / "data" / task.folder
    with np.load(folder / "data.npz") as data:
        calibration, samples, labels = (data[key] for key in ("calib_x", "x", "y"))
    samples = task.prepare(samples)
    result = edgeq.build(
        folder / task.model,
        target="x86-vnni",
        precision="int8",
        data=task.prepare(calibration),
        out=tmp_path / "m.edgeq",
        settings=edgeq.BuildSettings(format=form),
    )
    ours = reader.read(result.bundle).artifact
    public = (folder / task.public).read_bytes()
    wanted, theirs, made = (
        scores(model, samples) for model in ((folder / task.model).read_bytes(), public, ours)
    )
    floor = min(accuracy(wanted, labels), accuracy(theirs, labels)) - HALF_A_POINT
    assert accuracy(made, labels) >= floor
    at = np.linspace(0, len(samples) - 1, PROBES).astype(int)
    assert sqnr(wanted[at], made[at]) >= sqnr(wanted[at], theirs[at])
    if form == "tflite":
        assert len(ours) <= LARGER * len(public)


@pytest.mark.parametrize("name", TASKS)
def test_the_public_integers_survive(shared: Path, tmp_path: Path, name: str) -> None:
    """int8 TFLite in, int8 TFLite out: bit for bit; as ONNX the same answers."""
    task = TASKS[name]
    folder = shared / "data" / task.folder
    with np.load(folder / "data.npz") as data:
        samples = task.prepare(data["x"][:50])
    public = (folder / task.public).read_bytes()
    wanted = scores(public, samples)
    for form in ("tflite", "onnx"):
        result = edgeq.build(
            folder / task.public,
            target="x86-vnni",
            out=tmp_path / f"{form}.edgeq",
            settings=edgeq.BuildSettings(format=form),
        )
        found = scores(reader.read(result.bundle).artifact, samples)
        steps = np.abs(found - wanted) * 256  # softmax codes are 1/256 apart
        # Sums of two tensors round otherwise in ONNX Runtime, by one code (notes: tflite 7). A code
        # of the logits moves a softmax by up to scale / 4, far over a step of its own: so most are
        # within one (96 % of resnet8, all of the others), and the answers are the same.
        assert float((steps <= 1).mean()) >= (1.0 if form == "tflite" else 0.95), form
        assert float(steps.max()) == 0 or form == "onnx"
        np.testing.assert_array_equal(found.argmax(axis=1), wanted.argmax(axis=1))


def _loader(shared: Path) -> ModuleType:
    """The dev set's own metrics, by path: it is no package."""
    spec = importlib.util.spec_from_file_location("load", shared / "data" / "load.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_yolox_keeps_its_boxes(shared: Path, tmp_path: Path) -> None:
    """The public int8 TFLite file of it has an AP of 0.026."""
    load: Any = _loader(shared)
    folder = shared / "data" / "det_yolox_nano"
    with np.load(folder / "data.npz") as data:
        calibration, images = data["calib_x"], data["x"]
        ratios, truth = data["ratio_left_top"], data["gt"]
    prepare = load.PRE["det_yolox_nano"]
    result = edgeq.build(
        folder / "yolox_nano.onnx",
        target="x86-vnni",
        precision="int8",
        data=prepare(calibration),
        out=tmp_path / "yolox.edgeq",
        settings=edgeq.BuildSettings(format="tflite"),
    )
    session = open_as_float(reader.read(result.bundle).artifact)
    name, output = session.inputs[0].name, session.outputs[0].name
    boxes = []
    for image, ratio in zip(images, ratios, strict=True):
        raw = session.run({name: prepare(image[None])})[output][0]
        boxes.append(load.yolox_decode(raw, ratio))
    session.close()
    assert load.coco_ap(boxes, truth, len(images))[0] >= 0.30
