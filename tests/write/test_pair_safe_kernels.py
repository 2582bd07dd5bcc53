"""Pair-safe weights: the engine's default and exact modes agree bit for bit, with integers too."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from edgeq.numerics import affine
from edgeq_runtime.engines import onnxruntime as engine

RNG = np.random.default_rng(51)
LAYERS = {
    "stem": ("Conv <pads = [1,1,1,1]> (x, w, b)", (2, 3, 12, 12), (16, 3, 3, 3)),
    "conv": ("Conv <pads = [1,1,1,1]> (x, w, b)", (1, 16, 9, 9), (16, 16, 3, 3)),
    "grouped": ("Conv <group = 4> (x, w, b)", (1, 16, 9, 9), (8, 4, 3, 3)),
    "depthwise": ("Conv <group = 16> (x, w, b)", (1, 16, 9, 9), (16, 1, 3, 3)),
    "gemm": ("Gemm (x, w, b)", (9, 65), (65, 16)),
    "gemm transposed": ("Gemm <transB = 1> (x, w, b)", (9, 65), (16, 65)),
}


def large(*shape: int) -> np.ndarray:
    """Weights near their peak and of one sign mostly: the worst for sums of pairs."""
    signs = np.where(RNG.random(shape) < 0.9, 1.0, -1.0)
    return (signs * RNG.uniform(0.8, 1.0, shape)).astype(np.float32)


@pytest.fixture(params=LAYERS)
def layer(request: pytest.FixtureRequest, graph_of: Any) -> tuple[str, Any, dict[str, np.ndarray]]:
    node, x, w = LAYERS[request.param]
    columns = w[1] if request.param == "gemm" else w[0]
    weights = {"w": large(*w), "b": large(columns)}
    graph = graph_of(f"g (float{list(x)} x) => (y) {{ y = {node} }}", weights)
    return request.param, graph, weights


def saturated(graph: Any) -> list[dict[str, np.ndarray]]:
    """Inputs at the top of their range: every activation code is 255."""
    shape = graph.inputs[0].shape
    top = np.full(shape, 4.0, np.float32)
    mixed = np.where(RNG.random(shape) < 0.7, top, RNG.uniform(0, 4, shape)).astype(np.float32)
    return [{"x": top}, {"x": mixed}]


def kernel_rows(name: str, codes: np.ndarray) -> np.ndarray:
    """Rows in the order in which the kernel pairs them."""
    if name.startswith("gemm"):
        return codes.T if name == "gemm" else codes
    return codes.transpose(0, 2, 3, 1).reshape(codes.shape[0], -1)


def worst_pair_sum(rows: np.ndarray) -> int:
    """Largest |a0 w0 + a1 w1| that activations of 255 or 0 can reach."""
    rows = np.pad(rows.astype(int), ((0, 0), (0, rows.shape[1] % 2)))
    first, second = rows[:, 0::2], rows[:, 1::2]
    sums = [a * first + b * second for a in (0, 255) for b in (0, 255)]
    return int(np.max(np.abs(sums)))


def test_default_and_exact_kernels_agree_and_no_sum_leaves_int16(
    layer: tuple[str, Any, dict[str, np.ndarray]], quantized: Any
) -> None:
    name, graph, weights = layer
    feeds = saturated(graph)
    made = quantized(graph, pair_safe=True, samples=feeds)
    encoding = made.plan.tensors["w"]
    codes = affine.quantize_weights(
        weights["w"], np.array(encoding.scale, np.float32), encoding.axis
    )
    if name != "depthwise":  # its kernel multiplies in 32 bits
        assert worst_pair_sum(kernel_rows(name, codes)) <= 2**15 - 1
    for sample in feeds:
        default, exact = (made.run(sample, exact=flag)["y"] for flag in (False, True))
        np.testing.assert_array_equal(default, exact)


def test_without_pair_safety_such_weights_would_leave_int16(
    layer: tuple[str, Any, dict[str, np.ndarray]], quantized: Any
) -> None:
    """The weights are bad enough for the test above to mean something."""
    name, graph, weights = layer
    made = quantized(graph, pair_safe=False, samples=saturated(graph))
    encoding = made.plan.tensors["w"]
    codes = affine.quantize_weights(
        weights["w"], np.array(encoding.scale, np.float32), encoding.axis
    )
    assert worst_pair_sum(kernel_rows(name, codes)) > 2**15 - 1


@pytest.mark.parametrize("name", ["conv", "gemm"])
def test_the_engine_computes_the_integers_that_numpy_does(
    graph_of: Any, quantized: Any, name: str
) -> None:
    """A 1x1 layer is a matrix product: acc = (q_x - z_x) q_w + q_b, requantized once."""
    w, b = large(24, 16), large(16)
    if name == "gemm":
        text, weights = "g (float[9,24] x) => (y) { y = Gemm(x, w, b) }", {"w": w, "b": b}
    else:
        text = "g (float[1,24,3,3] x) => (y) { y = Conv(x, w, b) }"
        weights = {"w": np.ascontiguousarray(w.T[:, :, None, None]), "b": b}
    graph = graph_of(text, weights)
    feeds = saturated(graph)[1]
    made = quantized(graph, pair_safe=True, samples=[feeds])
    tensors = made.plan.tensors
    s_w = np.array(tensors["w"].scale, np.float32)
    q_w = affine.quantize_weights(w, s_w, 1).astype(np.int64)
    s_x, z_x = np.float32(tensors["x"].scale[0]), tensors["x"].zero_point[0]
    rows = feeds["x"] if name == "gemm" else feeds["x"][0].reshape(24, 9).T
    q_x = affine.quantize(rows, s_x, z_x).astype(np.int64)
    q_b = affine.quantize(b.astype(np.float64), s_x * s_w, np.zeros(16, int), dtype="int32", axis=0)
    acc = (q_x - z_x) @ q_w + q_b
    s_y, z_y = np.float32(tensors["y"].scale[0]), tensors["y"].zero_point[0]
    steps = np.rint(acc.astype(np.float32) * ((s_x * s_w) / s_y)) + z_y
    wanted = affine.dequantize(np.clip(steps, -128, 127).astype(np.int64), s_y, z_y)
    got = made.run(feeds, exact=False)["y"]
    got = got if name == "gemm" else got[0].reshape(16, 9).T
    np.testing.assert_array_equal(got, wanted)


def test_a_saturating_host_shows_what_pair_safety_is_for(graph_of: Any, quantized: Any) -> None:
    """Only where this host's kernels saturate: full-range weights differ, pair-safe ones do not."""
    if not engine.saturates():
        pytest.skip("this host's int8 kernels do not saturate")
    graph = graph_of("g (float[9,64] x) => (y) { y = Gemm(x, w) }", {"w": np.abs(large(64, 16))})
    feeds = saturated(graph)[0]
    results = {
        safe: [
            quantized(graph, pair_safe=safe, samples=[feeds]).run(feeds, exact=e)["y"]
            for e in (True, False)
        ]
        for safe in (True, False)
    }
    assert not np.array_equal(*results[False])
    np.testing.assert_array_equal(*results[True])
