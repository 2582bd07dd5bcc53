"""Whole nets: a small CNN made here, and the real MNIST model of the shared data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeq.numerics.errors import sqnr_db
from edgeq.passes import run_all
from edgeq_converters.read.onnx import read
from edgeq_converters.write.onnx import write
from edgeq_runtime.engines import onnxruntime as engine

CNN = """g (float[n,3,16,16] x) => (float[n,10] y) {
  [stem] a = Conv <pads = [1,1,1,1], strides = [2,2]> (x, w0, b0)
  [relu] r = Relu(a)
  [expand] e = Conv(r, w1, b1)
  [six] f = Clip(e, zero, six)
  [depthwise] d = Conv <pads = [1,1,1,1], group = 32> (f, w2, b2)
  [six_too] g = Clip(d, zero, six)
  [project] p = Conv(g, w3, b3)
  [residual] s = Add(p, r)
  [gate] t = Sigmoid(s)
  [swish] u = Mul(s, t)
  [join] c = Concat <axis = 1> (u, r)
  [pool] m = MaxPool <kernel_shape = [2,2], strides = [2,2]> (c)
  [mean] v = GlobalAveragePool(m)
  [flat] h = Flatten(v)
  [fc] y = Gemm <transB = 1> (h, w4, b4)
}"""
SHAPES = {
    "w0": (16, 3, 3, 3),
    "w1": (32, 16, 1, 1),
    "w2": (32, 1, 3, 3),
    "w3": (16, 32, 1, 1),
    "w4": (10, 32),
}


@pytest.fixture(scope="module")
def cnn(graph_of: Any) -> Any:
    rng = np.random.default_rng(61)
    weights = {"zero": np.float32(0), "six": np.float32(6)}
    for name, shape in SHAPES.items():
        fan_in = int(np.prod(shape[1:]))
        weights[name] = (rng.normal(size=shape) * np.sqrt(2 / fan_in)).astype(np.float32)
        weights[f"b{name[1]}"] = (rng.normal(size=shape[0]) * 0.1).astype(np.float32)
    return graph_of(CNN, weights)


@pytest.mark.parametrize("dtype", ["uint8", "int8"])
@pytest.mark.parametrize("pair_safe", [False, True])
def test_a_small_cnn_is_int8_throughout_and_close_to_float(
    cnn: Any, quantized: Any, samples_of: Any, dtype: str, pair_safe: bool
) -> None:
    made = quantized(
        cnn, activation_dtype=dtype, pair_safe=pair_safe, samples=samples_of(cnn, 16, size=4)
    )
    assert made.plan.counts()["float32"] == {}
    feeds = samples_of(cnn, 1, seed=99, size=32)[0]
    # Ten layers of 8 bits: each leaves noise of s^2/12 on a range of some 8 deviations, 41 dB
    # below its signal; ten of them in a row 31 dB, and weights as much again.
    assert sqnr_db(made.run_float(feeds)["y"], made.run(feeds)["y"]) > 25


def test_activation_types_and_modes_agree(cnn: Any, quantized: Any, samples_of: Any) -> None:
    feeds = samples_of(cnn, 1, seed=98, size=8)[0]
    values = [
        quantized(cnn, activation_dtype=dtype, pair_safe=True).run(feeds, exact=exact)["y"]
        for dtype in ("uint8", "int8")
        for exact in (True, False)
    ]
    scale = quantized(cnn, pair_safe=True).plan.tensors["y"].scale[0]
    np.testing.assert_array_equal(values[0], values[1])
    np.testing.assert_array_equal(values[2], values[3])
    assert np.abs(values[0] - values[2]).max() <= scale * 1.001  # DESIGN 4: 1 LSB between types


def test_the_engine_runs_the_cnn_in_int8(cnn: Any, quantized: Any, covered: Any) -> None:
    found = covered(quantized(cnn).artifact())
    assert found.int8["Conv"] == 4
    assert found.float == {}
    assert (found.q, found.dq) == (1, 1)


def test_one_bad_sample_is_named(cnn: Any, quantized: Any, samples_of: Any) -> None:
    from edgeq.errors import EdgeqError

    samples = samples_of(cnn, 3)
    samples[1]["x"][0, 0, 0, 0] = np.inf
    with pytest.raises(EdgeqError, match=r"tensor `x` has 1 values .* in sample 1"):
        quantized(cnn, samples=samples)


@pytest.fixture(scope="module")
def mnist(shared: Path) -> tuple[Any, np.ndarray, np.ndarray]:
    """The optimized graph, images [9500, 1, 1, 28, 28] float32 0..255, labels."""
    graph, _ = run_all(read(shared / "data/mnist/mnist.onnx").graph)
    with np.load(shared / "data/mnist/data.npz", allow_pickle=False) as data:
        images = data["x"].astype(np.float32)[:, None, None]
        return graph, images, data["y"]


def accuracy(model: bytes, images: np.ndarray, labels: np.ndarray) -> float:
    session = engine.open_session(model, threads=1, exact=True)
    outputs = [session.run({session.inputs[0].name: x}) for x in images]
    scores = np.concatenate([next(iter(values.values())) for values in outputs])
    return float(np.mean(scores.argmax(1) == labels))


@pytest.mark.shared
@pytest.mark.parametrize(
    ("method", "dtype", "pair_safe"),
    [("minmax", "uint8", False), ("minmax", "uint8", True), ("p99.99", "int8", False)],
)
def test_mnist_loses_at_most_a_fifth_of_a_point(
    mnist: Any, quantized: Any, method: str, dtype: str, pair_safe: bool
) -> None:
    """All 9500 images scored; every 95th calibrates, 100 in all. Float is right on 98.93 %."""
    graph, images, labels = mnist
    name = graph.inputs[0].name
    made = quantized(
        graph,
        activation_dtype=dtype,
        pair_safe=pair_safe,
        method=method,
        samples=[{name: x} for x in images[::95]],
    )
    assert made.plan.counts()["float32"] == {}
    float_accuracy = accuracy(write(graph, None), images, labels)
    assert float_accuracy == pytest.approx(0.98926, abs=1e-4)
    assert accuracy(made.artifact(), images, labels) >= float_accuracy - 0.002
