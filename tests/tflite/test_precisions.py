"""Layers whose weights are stored narrower, or whose input is quantized while they run."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from edgeq.quant.dynamic import plan_dynamic
from edgeq.quant.half import plan_half
from edgeq.quant.kernels import LITERT

RNG = np.random.default_rng(13)

LAYERS = {
    "conv": ("1,8,8,8", "Conv <pads=[1,1,1,1]> (x, w, b)", (24, 8, 3, 3), 24),
    "depthwise": ("1,128,8,8", "Conv <group=128> (x, w, b)", (128, 1, 3, 3), 128),
    "grouped": ("1,16,8,8", "Conv <group=2> (x, w, b)", (32, 8, 3, 3), 32),
    "line": ("1,32,9", "Conv (x, w, b)", (32, 32, 3), 32),
    "volume": ("1,8,5,5,5", "Conv (x, w, b)", (32, 8, 2, 2, 2), 32),
    "transposed": ("1,16,5,5", "ConvTranspose <strides=[2,2]> (x, w, b)", (16, 12, 3, 3), 12),
    "gemm": ("3,64", "Gemm(x, w, b)", (64, 32), 32),
    "gemm by rows": ("3,64", "Gemm <transB=1> (x, w, b)", (32, 64), 32),
    "matmul": ("2,5,64", "MatMul(x, w)", (64, 32), 32),
}


def layer(name: str) -> tuple[str, dict[str, np.ndarray]]:
    sizes, call, shape, channels = LAYERS[name]
    ranks = ",".join("N" * len(sizes.split(",")))
    weights = (RNG.normal(size=shape) * 0.2).astype(np.float32)
    bias = RNG.normal(size=channels).astype(np.float32)
    text = f"g (float[{sizes}] x) => (float[{ranks}] y) {{ y = {call} }}"
    return text, {"w": weights, "b": bias} if "b)" in call else {"w": weights}


def compared(made: Any, tolerance: float, resolvers: tuple[str, ...]) -> None:
    feeds = made.samples(1)[0]
    (wanted,) = made.onnx.run(dict(feeds)).values()
    for resolver in resolvers:
        (found,) = made.lite.run(feeds, resolver).values()
        limit = tolerance * float(np.abs(wanted).max())
        np.testing.assert_allclose(found, wanted, 0.0, limit, err_msg=resolver)


@pytest.mark.parametrize("name", LAYERS)
def test_weights_in_float16(name: str, graph_of: Any, pair: Any) -> None:
    graph = graph_of(*layer(name))
    plan = plan_half(graph)
    assert "fp16-weights" in {row.precision for row in plan.ops.values()}
    made = pair(graph, plan)
    compared(made, 1e-5, ("xnnpack", "reference"))
    assert made.lite.ops["DEQUANTIZE"] >= 1


@pytest.mark.parametrize("name", LAYERS)
def test_weights_in_int8(name: str, graph_of: Any, pair: Any) -> None:
    graph = graph_of(*layer(name))
    plan = plan_dynamic(graph, acts="fp32", kernels=LITERT)
    assert {row.precision for row in plan.ops.values()} == {"int8-weights"}
    made = pair(graph, plan)
    compared(made, 1e-5, ("xnnpack", "reference"))
    assert made.lite.ops["DEQUANTIZE"] == 1


@pytest.mark.parametrize("name", ["gemm", "gemm by rows", "matmul"])
def test_dynamic_int8(name: str, graph_of: Any, pair: Any) -> None:
    graph = graph_of(*layer(name))
    plan = plan_dynamic(graph, acts="dynamic", kernels=LITERT)
    assert {row.precision for row in plan.ops.values()} == {"dynamic-int8"}
    made = pair(graph, plan)
    assert dict(made.lite.ops) == {"FULLY_CONNECTED": 1}
    # both quantize the input by the range they find, per tensor there and per row here
    compared(made, 2e-2, ("xnnpack",))
    assert made.lite.partitions == 1
