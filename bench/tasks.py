"""The tasks the benches compare tools on: a float model, samples to calibrate on, a way to score.

Three are made here (`nets.py`, `trained.py`); the others need the folder `shared/data` beside the
repository, with its own loader and metrics (`load.py`), and are left out where it is missing.
"""

import importlib.util
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any

import hardships
import nets
import numpy as np
import onnx
from numpy.typing import NDArray
from trained import digits

Feeds = Mapping[str, NDArray[Any]]
Run = Callable[[Feeds], list[NDArray[Any]]]  # one sample -> the outputs in the model's order

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared" / "data"
WORK = ROOT / "build" / "bench"
CALIBRATION, PROBES = 80, 32  # samples at most: to calibrate on, to compare outputs on
PAIRS = 64  # sentence pairs to calibrate on
FRAME, CONTEXT, RATE = 512, 64, 16000  # of the voice detector


@dataclass(frozen=True)
class Task:
    """`score` gives the metric in points of 0..1 (None: only outputs are compared); `samples` and
    `probes` are feeds of one sample, batch axis included; `classes`: top-1 means something."""

    name: str
    model: Path
    samples: list[Feeds]
    probes: list[Feeds]
    metric: str | None = None
    score: Callable[[Run], float] | None = None
    classes: bool = False


def _one_by_one(name: str, rows: NDArray[Any]) -> list[Feeds]:
    return [{name: row[None]} for row in rows]


@lru_cache
def _loader() -> ModuleType:
    """The dev set's own loader, by path: it is no package."""
    spec = importlib.util.spec_from_file_location("load", SHARED / "load.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _write(model: onnx.ModelProto, name: str) -> Path:
    WORK.mkdir(parents=True, exist_ok=True)
    path = WORK / f"{name}.onnx"
    path.write_bytes(model.SerializeToString(deterministic=True))
    return path


def _top1(name: str, images: NDArray[Any], labels: NDArray[Any]) -> Callable[[Run], float]:
    def score(run: Run) -> float:
        right = [run({name: image[None]})[0].argmax() for image in images]
        return float((np.array(right) == labels).mean())

    return score


def depthwise(hardship: bool = False) -> Task:
    """The trained net of trained.py on its 960 images; `hardship`: its channels skewed by e^+-3."""
    model, data = WORK / "depthwise.onnx", WORK / "digits32.npz"
    if not model.exists():
        script = Path(__file__).with_name("trained.py")
        command = [sys.executable, str(script), str(model), str(data)]
        subprocess.run(command, check=True)
    if hardship:
        model = _write(hardships.skew(onnx.load(model)), "depthwise_skew")
    with np.load(data) as arrays:
        calibration, images, labels = arrays["calib_x"], arrays["x"], arrays["y"]
    return Task(
        "depthwise_skew" if hardship else "depthwise",
        model,
        _one_by_one("image", calibration[:CALIBRATION]),
        _one_by_one("image", images[:PROBES]),
        "top1",
        _top1("image", images, labels),
        classes=True,
    )


def depthwise_skew() -> Task:
    """The acceptance's skewed depthwise CNN."""
    return depthwise(hardship=True)


def _random_net(name: str) -> Task:
    model = nets.NETS[name]()
    drawn = nets.samples(model, CALIBRATION + PROBES)
    ((input_name, rows),) = drawn.items()
    return Task(
        name,
        _write(model, name),
        _one_by_one(input_name, rows[:CALIBRATION]),
        _one_by_one(input_name, rows[CALIBRATION:]),
        classes=name != "encoder",
    )


def small_se() -> Task:
    """Random weights, the digits' images as inputs (noise alone averages out): outputs only."""
    data = digits(CALIBRATION, copies=1)
    calibration, probes = (
        np.repeat(images, 3, axis=1) for images in (data.calibration, data.score[0][:PROBES])
    )
    model = _write(nets.small_se(), "small_se")
    rows = _one_by_one("image", calibration), _one_by_one("image", probes)
    return Task("small_se", model, *rows, classes=True)


def mobilenet_v2() -> Task:
    """Random weights: outputs only."""
    return _random_net("mobilenet_v2")


def encoder() -> Task:
    """Random weights: outputs only."""
    return _random_net("encoder")


def mnist() -> Task:
    """9500 images of mnist.onnx (opset 8)."""
    data = _loader().load("mnist")
    prepare = _loader().PRE["mnist"]
    images = prepare(data["x"])
    return Task(
        "mnist",
        SHARED / "mnist" / "mnist.onnx",
        _one_by_one("Input3", prepare(data["calib_x"][:CALIBRATION])),
        _one_by_one("Input3", images[:PROBES]),
        "top1",
        _top1("Input3", images, data["y"]),
        classes=True,
    )


def yolox() -> Task:
    """AP of yolox_nano.onnx (opset 11) on 48 images, calibrated on the 12 others."""
    load = _loader()
    data = load.load("det_yolox_nano")
    prepare = load.PRE["det_yolox_nano"]
    images = prepare(data["x"])

    def score(run: Run) -> float:
        rows = zip(images, data["ratio_left_top"], strict=True)
        found = [
            load.yolox_decode(run({"images": image[None]})[0][0], ratio) for image, ratio in rows
        ]
        average_precision: float = load.coco_ap(found, data["gt"], len(images))[0]
        return average_precision

    return Task(
        "yolox",
        SHARED / "det_yolox_nano" / "yolox_nano.onnx",
        _one_by_one("images", prepare(data["calib_x"])),
        _one_by_one("images", images[:8]),
        "AP",
        score,
    )


def minilm() -> Task:
    """Spearman of 1500 sentence pairs, each sentence at batch 1 without padding."""
    load = _loader()
    data = load.load("text_minilm")
    first, second = ([_tokens(row) for row in data[key]] for key in ("ids_a", "ids_b"))

    def embed(run: Run, feeds: Feeds) -> NDArray[Any]:
        pooled: NDArray[Any] = load.mean_pool(run(feeds)[0], feeds["attention_mask"])[0]
        return pooled

    def score(run: Run) -> float:
        vectors = [np.stack([embed(run, feeds) for feeds in side]) for side in (first, second)]
        correlation: float = load.spearman(load.cosine(*vectors), data["score"])
        return correlation

    calibration = [feeds for pair in zip(first, second, strict=True) for feeds in pair]
    model = SHARED / "text_minilm" / "minilm.onnx"
    probes = calibration[2 * PAIRS : 2 * PAIRS + PROBES]
    return Task("minilm", model, calibration[: 2 * PAIRS], probes, "spearman", score)


def _tokens(row: NDArray[Any]) -> Feeds:
    ids = row[row != 0][None].astype(np.int64)
    return {"input_ids": ids, "attention_mask": np.ones_like(ids)}


def magika() -> Task:
    """129 reference labels of Google's file type model; calibrated on every second of 152 others,
    which are in the order of their types."""
    load = _loader()
    data = load.load("bytes_magika")
    prepare = load.PRE["bytes_magika"]
    examples = prepare(data["ref_x"])
    return Task(
        "magika",
        SHARED / "bytes_magika" / "model.onnx",
        _one_by_one("bytes", prepare(data["x"][::2])),
        _one_by_one("bytes", examples[:PROBES]),
        "labels",
        _top1("bytes", examples, data["ref_y"]),
        classes=True,
    )


def silero() -> Task:
    """Share of 1875 frames whose voice decision is float's, the state fed back by each run."""
    data = _loader().load("vad_silero")
    frames = (data["audio_int16"].astype(np.float32) / 32768).reshape(-1, FRAME)
    contexts = np.concatenate([np.zeros((1, CONTEXT), np.float32), frames[:-1, -CONTEXT:]])
    windows = np.concatenate([contexts, frames], axis=1)
    model = SHARED / "vad_silero" / "silero_vad.onnx"

    def score(run: Run) -> float:
        chances = np.array([output.item() for _, (output, *_) in closed_loop(run, windows)])
        return float(((chances > 0.5) == (data["ref_prob"] > 0.5)).mean())

    session = open_exact(model)
    run = runner(session)
    samples = [feeds for feeds, _ in closed_loop(run, windows[: 2 * CALIBRATION])]
    return Task("silero", model, samples[:CALIBRATION], samples[-PROBES:], "agree", score)


def closed_loop(run: Run, windows: NDArray[Any]) -> Any:
    """(feeds, outputs) of each window, the state that came out fed to the next."""
    state = np.zeros((2, 1, 128), np.float32)
    for window in windows:
        feeds = {"input": window[None], "state": state, "sr": np.array(RATE, np.int64)}
        outputs = run(feeds)
        state = outputs[1]
        yield feeds, outputs


def open_exact(model: Path, threads: int = 1, exact: bool = True) -> Any:
    """An ONNX Runtime session; `exact`: its int8 kernels give the same integers on any host."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = threads
    options.log_severity_level = 3
    if exact:
        options.add_session_config_entry("session.x64quantprecision", "1")
    return onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])


def runner(session: Any) -> Run:
    """`session` as a function of one sample; inputs it does not have are left out."""
    names = {info.name for info in session.get_inputs()}

    def run(feeds: Feeds) -> list[NDArray[Any]]:
        outputs: list[NDArray[Any]] = session.run(
            None, {name: value for name, value in feeds.items() if name in names}
        )
        return outputs

    return run


MADE: dict[str, Callable[[], Task]] = {
    "depthwise_skew": depthwise_skew,
    "depthwise": depthwise,
    "small_se": small_se,
    "encoder": encoder,
    "mobilenet_v2": mobilenet_v2,
}
FROM_SHARED: dict[str, Callable[[], Task]] = {
    "mnist": mnist,
    "magika": magika,
    "silero": silero,
    "yolox": yolox,
    "minilm": minilm,
}
TASKS = MADE | (FROM_SHARED if (SHARED / "load.py").is_file() else {})
