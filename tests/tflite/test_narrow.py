"""Weights of 4, 8 and 16 bits: what the file holds, and what LiteRT computes with it."""

from typing import Any

import numpy as np
import pytest

from edgeq.quant.dynamic import plan_dynamic
from edgeq.quant.half import plan_half
from edgeq_runtime.tflite import Model, Tensor, parse

RNG = np.random.default_rng(11)
ROWS, DEPTH, BATCH = 24, 64, 3

OLD_FULLY_CONNECTED = 11
"""The newest that tflite-runtime 2.14 has; what it would compute wrongly is above it."""


def normal(*shape: int) -> np.ndarray:
    return RNG.normal(size=shape).astype(np.float32)


def gemm_text(turned: int, depth: int = DEPTH, rows: int = ROWS) -> str:
    return (
        f"agraph (float[{BATCH}, {depth}] x) => (float[{BATCH}, {rows}] y) "
        f"{{ y = Gemm <transB = {turned}> (x, w, b) }}"
    )


def operators(model: Model) -> list[tuple[str, int]]:
    return [(row.code, row.version) for row in model.subgraphs[0].operators]


def weights_in(model: Model) -> Tensor:
    graph = model.subgraphs[0]
    (layer,) = (row for row in graph.operators if row.code == "FULLY_CONNECTED")
    return graph.tensors[layer.inputs[1]]


def row_codes(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Each row of `x` in int8 with a zero point, by the range it has, 0 in it."""
    low = np.minimum(x.min(axis=1, keepdims=True), 0.0).astype(np.float64)
    high = np.maximum(x.max(axis=1, keepdims=True), 0.0).astype(np.float64)
    scale = (high - low) / 255.0
    point = np.rint(-128.0 - low / scale)
    codes = np.clip(np.rint(x / scale) + point, -128, 127)
    return codes - point, scale


@pytest.mark.parametrize("turned", [0, 1])
@pytest.mark.parametrize("weights", ["int8", "int4", "int4-block32"])
def test_dynamic_layer(weights: str, turned: int, graph_of: Any, pair: Any) -> None:
    """The product of codes, by numpy: an input on the edge between two codes may take the other."""
    w, b = normal(ROWS, DEPTH), normal(ROWS)
    graph = graph_of(gemm_text(turned), {"w": w if turned else w.T.copy(), "b": b})
    plan = plan_dynamic(graph, acts="dynamic", weights=weights)
    encoding = plan.tensors["w"]
    made = pair(graph, plan)
    model = parse(made.lite.data)
    version = 12 if weights == "int8" else 13
    assert operators(model) == [("FULLY_CONNECTED", version)]
    assert version > OLD_FULLY_CONNECTED

    tensor = weights_in(model)
    assert tensor.shape == (ROWS, DEPTH)
    assert tensor.dtype == weights.split("-", maxsplit=1)[0]
    array = tensor.array()
    scales = np.array(encoding.scale, np.float32).reshape(ROWS, -1)
    quantization = tensor.quantization
    assert quantization is not None
    if weights == "int4-block32":
        assert quantization.block_size == 32
        held = model.subgraphs[0].tensors[quantization.scales_tensor]
        assert (held.dtype, held.shape) == ("float16", (ROWS, DEPTH // 32))
        np.testing.assert_array_equal(held.array().astype(np.float32), scales)
        scales = np.repeat(scales, 32, axis=1)
    else:
        assert quantization.scale == encoding.scale
        assert set(quantization.zero_point) == {0}
        assert quantization.axis == 0
    restored = array.astype(np.float32) * scales
    # half a step; what lies beyond the last code of int4 is at most half a step further
    assert (np.abs(restored - w) <= scales * 1.001 / 2).all()

    feeds = made.samples(1)[0]
    codes, scale = row_codes(feeds["x"])
    wanted = (codes * scale) @ restored.T.astype(np.float64) + b
    one_step = scale * np.abs(restored).max(axis=1)
    found = made.lite.run(feeds)["y"]
    assert (np.abs(found - wanted) <= 2.0 * one_step).all()
    # and that is nearer than the float layer is, by far
    plain = feeds["x"] @ w.T + b
    assert np.abs(found - wanted).mean() < 0.2 * np.abs(plain - wanted).mean()


def test_blocks_behind_a_flattened_image(graph_of: Any, pair: Any) -> None:
    """Blocks are runs of features in their ONNX order, so the image is brought back to it."""
    text = """agraph (float[1, 4, 8, 8] x) => (float[1, 10] y) {
        a = Conv <pads = [1, 1, 1, 1]> (x, k, c)
        f = Flatten (a)
        y = Gemm <transB = 1> (f, w, b)
    }"""
    constants = {"k": normal(4, 4, 3, 3), "c": normal(4), "w": normal(10, 256), "b": normal(10)}
    graph = graph_of(text, constants)
    made = pair(graph, plan_dynamic(graph, acts="dynamic", weights="int4-block32"))
    feeds = made.samples(1)[0]
    wanted, found = made.onnx.run(dict(feeds))["y"], made.lite.run(feeds)["y"]
    # both quantize 256 inputs to 8 bits, by another rule: noise of 0.3 % of the largest output
    np.testing.assert_allclose(found, wanted, 0.0, 0.02 * np.abs(wanted).max())


def test_an_odd_depth_in_int4(graph_of: Any, pair: Any) -> None:
    """Rows share bytes; XNNPACK leaves such a layer to LiteRT's own kernel."""
    graph = graph_of(gemm_text(1, 33, 31), {"w": normal(31, 33), "b": normal(31)})
    made = pair(graph, plan_dynamic(graph, acts="dynamic", weights="int4"))
    feeds = made.samples(1)[0]
    restored = weights_in(parse(made.lite.data))
    scales = np.array(restored.quantization.scale)[:, None]  # type: ignore[union-attr]
    codes, scale = row_codes(feeds["x"])
    bias = made.graph.value("b").const_value.numpy()
    wanted = (codes * scale) @ (restored.array() * scales).T + bias
    found = made.lite.run(feeds)["y"]
    limit = 2.0 * scale * np.abs(restored.array() * scales).max(axis=1)
    assert (np.abs(found - wanted) <= limit).all()


def test_weights_of_a_batched_product(graph_of: Any, pair: Any) -> None:
    text = "agraph (float[1, 5, 64] x) => (float[1, 5, 24] y) { y = MatMul (x, w) }"
    graph = graph_of(text, {"w": normal(DEPTH, ROWS)})
    made = pair(graph, plan_dynamic(graph, acts="dynamic", weights="int8"))
    assert operators(parse(made.lite.data)) == [("FULLY_CONNECTED", 12)]
    feeds = made.samples(1)[0]
    wanted, found = made.onnx.run(dict(feeds))["y"], made.lite.run(feeds)["y"]
    np.testing.assert_allclose(found, wanted, 0.0, 0.02 * np.abs(wanted).max())


LAYERS = {
    "Gemm": (gemm_text(1), {"w": (ROWS, DEPTH), "b": (ROWS,)}),
    "Conv": (
        "agraph (float[1, 8, 9, 9] x) => (float[1, 16, 7, 7] y) { y = Conv (x, w, b) }",
        {"w": (16, 8, 3, 3), "b": (16,)},
    ),
    "depthwise": (
        "agraph (float[1, 32, 5, 5] x) => (float[1, 32, 3, 3] y)"
        " { y = Conv <group = 32> (x, w, b) }",
        {"w": (32, 1, 3, 3), "b": (32,)},
    ),
    "grouped": (
        "agraph (float[1, 16, 5, 5] x) => (float[1, 12, 3, 3] y)"
        " { y = Conv <group = 4> (x, w, b) }",
        {"w": (12, 4, 3, 3), "b": (12,)},
    ),
    "ConvTranspose": (
        "agraph (float[1, 32, 5, 5] x) => (float[1, 16, 11, 11] y)"
        " { y = ConvTranspose <strides = [2, 2]> (x, w, b) }",
        {"w": (32, 16, 3, 3), "b": (16,)},
    ),
}
"""A layer of each kind, its weights over the 256 values that plans store narrower."""


@pytest.mark.parametrize("stored", ["int8", "float16"])
@pytest.mark.parametrize("kind", LAYERS)
def test_stored_narrower_computed_in_float(
    kind: str, stored: str, graph_of: Any, pair: Any
) -> None:
    """Both engines restore the same numbers; what is left is the order of float sums."""
    text, shapes = LAYERS[kind]
    graph = graph_of(text, {name: normal(*shape) for name, shape in shapes.items()})
    plan = plan_half(graph) if stored == "float16" else plan_dynamic(graph, acts="fp32")
    made = pair(graph, plan)
    model = parse(made.lite.data)
    types = {row.dtype for row in model.subgraphs[0].tensors if row.data is not None}
    assert stored in types
    wanted_version = 3 if stored == "float16" else 5
    assert ("DEQUANTIZE", wanted_version) in operators(model)
    feeds = made.samples(1)[0]
    wanted = made.onnx.run(dict(feeds))["y"]
    for resolver in ("xnnpack", "reference"):
        found = made.lite.run(feeds, resolver)["y"]
        np.testing.assert_allclose(found, wanted, 0.0, 2e-6 * np.abs(wanted).max())
    plain = pair(graph)
    assert np.abs(plain.lite.run(feeds)["y"] - wanted).max() > 2e-5 * np.abs(wanted).max()


@pytest.mark.parametrize(("stored", "bytes_each"), [("int8", 1), ("float16", 2)])
def test_embedding_table(stored: str, bytes_each: int, graph_of: Any, pair: Any) -> None:
    text = "agraph (int64[1, 6] i) => (float[1, 6, 16] y) { y = Gather (t, i) }"
    graph = graph_of(text, {"t": normal(200, 16)})
    half = stored == "float16"
    plan = plan_half(graph) if half else plan_dynamic(graph, acts="dynamic")
    made = pair(graph, plan)
    table_bytes = 200 * 16 * bytes_each + (0 if half else 200 * 12)  # scales and zero points
    assert table_bytes < len(made.lite.data) < table_bytes + 2_000
    feeds = {"i": np.array([[0, 1, 2, 199, 7, 3]], np.int64)}
    wanted = made.onnx.run(dict(feeds))["y"]
    for resolver in ("xnnpack", "reference"):
        np.testing.assert_array_equal(made.lite.run(feeds, resolver)["y"], wanted)


def test_versions_that_the_old_engine_lacks_are_stamped(graph_of: Any, pair: Any) -> None:
    """tflite-runtime 2.14 goes by the number alone: it gave 0.01 for 0.24 where it was too small
    (notes: tflite 6). What it has: FULLY_CONNECTED to 11, EMBEDDING_LOOKUP to 3."""
    text = """agraph (int64[1, 3] i) => (float[1, 3, 24] y) { e = Gather (t, i)
        y = MatMul (e, w) }"""
    graph = graph_of(text, {"t": normal(200, 64), "w": normal(64, 24)})
    made = pair(graph, plan_dynamic(graph, acts="dynamic"))
    stamped = dict(operators(parse(made.lite.data)))
    assert stamped["EMBEDDING_LOOKUP"] == 4
    assert stamped["FULLY_CONNECTED"] == 12
