"""Whole nets: no transposes but the border's, one piece in XNNPACK, the same numbers."""

from __future__ import annotations

import importlib.util
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from edgeq.ir import Graph
from edgeq.passes import run_all
from edgeq_converters.read.onnx import read

pytestmark = pytest.mark.checkout


@pytest.fixture(scope="module")
def nets(repository: Path) -> ModuleType:
    """`bench/nets.py`."""
    spec = importlib.util.spec_from_file_location("bench_nets", repository / "bench" / "nets.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def graph_at(path: Path, shapes: Mapping[str, tuple[int, ...]]) -> Graph:
    return run_all(read(path, shapes=shapes).graph)[0]


def made_of(model: Any, folder: Path, shape: Sequence[int]) -> Graph:
    path = folder / "net.onnx"
    path.write_bytes(model.SerializeToString())
    return graph_at(path, {model.graph.input[0].name: tuple(shape)})


def compared(made: Any, tolerance: float) -> None:
    feeds = made.samples(1)[0]
    wanted, found = made.onnx.run(dict(feeds)), made.lite.run(feeds)
    for name, value in wanted.items():
        limit = tolerance * float(np.abs(value).max())
        np.testing.assert_allclose(found[name], value, 0.0, limit)


@pytest.mark.parametrize("layout", ["nhwc", "keep"])
@pytest.mark.parametrize("name", ["depthwise", "mobilenet_v2", "small_se"])
def test_convolutional(
    name: str, layout: str, nets: ModuleType, tmp_path: Path, pair: Any, plan_of: Any
) -> None:
    size = 32 if name != "mobilenet_v2" else 64
    channels = 1 if name == "depthwise" else 3
    model = getattr(nets, name)(size)
    graph = made_of(model, tmp_path, (1, channels, size, size))
    made = pair(graph, layout=layout)
    compared(made, 1e-5)
    turns = 0 if layout == "nhwc" or channels == 1 else 1  # with one channel a RESHAPE is enough
    assert made.lite.ops["TRANSPOSE"] == turns
    assert made.lite.partitions == 1
    quantized = pair(graph, plan_of(graph), layout=layout)
    assert quantized.lite.ops["TRANSPOSE"] == turns
    assert quantized.lite.partitions == 1
    assert quantized.lite.ops["QUANTIZE"] == 1


def test_encoder(nets: ModuleType, tmp_path: Path, pair: Any) -> None:
    graph = made_of(nets.encoder(), tmp_path, (1, 64))
    made = pair(graph)
    compared(made, 1e-5)
    # what splits heads and joins them, in the model itself: four for each of four layers
    assert made.lite.ops["TRANSPOSE"] == 16
    assert made.lite.ops["FULLY_CONNECTED"] == 24
    assert made.lite.ops["BATCH_MATMUL"] == 8


def steps_of(made: Any, samples: Sequence[Mapping[str, np.ndarray]]) -> Counter[int]:
    """How many codes are how far from ONNX Runtime's."""
    counted: Counter[int] = Counter()
    for feeds in samples:
        feeds = made.on_grid(feeds)
        wanted, found = made.onnx.run(dict(feeds)), made.lite.run(feeds)
        for name, value in wanted.items():
            counted.update(int(step) for step in made.steps(name, found[name], value).flat)
    return counted


@pytest.mark.shared
def test_trained_digits_in_int8(shared: Path, pair: Any, plan_of: Any) -> None:
    folder = shared / "data" / "mnist"
    graph = graph_at(folder / "mnist.onnx", {})
    (info,) = graph.inputs
    images = np.load(folder / "data.npz")["x"].astype(np.float32)
    images = images.reshape(-1, *[int(size) for size in info.shape])
    feeds = [{info.name: image} for image in images]
    made = pair(graph, plan_of(graph, samples=feeds[:16]))
    counted = steps_of(made, feeds[16:80])
    assert max(counted) <= 2
    assert counted[0] + counted[1] >= 0.99 * counted.total()


@pytest.mark.shared
def test_detector_in_float(shared: Path, pair: Any) -> None:
    folder = shared / "data" / "det_yolox_nano"
    graph = graph_at(folder / "yolox_nano.onnx", {})
    image = np.load(folder / "data.npz")["x"][0].astype(np.float32)
    feeds = {graph.inputs[0].name: image.transpose(2, 0, 1)[np.newaxis]}
    made = pair(graph, layout="nhwc")
    wanted, found = made.onnx.run(dict(feeds)), made.lite.run(feeds)
    for name, value in wanted.items():
        np.testing.assert_allclose(found[name], value, 0.0, 1e-3)
    assert made.lite.partitions == 1
