"""Tiny models on disk for the api's tests; every build here runs the real engine."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


@pytest.fixture
def save(tmp_path: Path) -> Callable[..., Path]:
    """Write ONNX text with named constants as a model file."""

    def write(body: str, name: str = "net.onnx", **arrays: np.ndarray) -> Path:
        model = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["" : 17]>\n{body}')
        for key, array in arrays.items():
            model.graph.initializer.append(numpy_helper.from_array(np.asarray(array), key))
        path = tmp_path / name
        path.write_bytes(model.SerializeToString())
        return path

    return write


@pytest.fixture
def net(save: Callable[..., Path]) -> Path:
    """Conv, Relu, pool, Gemm: [N, 3, 8, 8] -> 10 scores, 16 kB of weights."""
    return save(
        """g (float[N,3,8,8] image) => (float[N,10] scores) {
            a = Conv <pads = [1,1,1,1]> (image, w, b)
            c = Relu (a)
            d = MaxPool <kernel_shape = [2,2], strides = [2,2]> (c)
            f = Flatten (d)
            scores = Gemm <transB = 1> (f, fc, fb) }""",
        w=noise(16, 3, 3, 3) * 0.2,
        b=noise(16, seed=1) * 0.1,
        fc=noise(10, 256, seed=2) * 0.1,
        fb=noise(10, seed=3) * 0.1,
    )


@pytest.fixture
def images() -> np.ndarray:
    return noise(24, 3, 8, 8, seed=9)


@pytest.fixture(autouse=True)
def in_tmp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
