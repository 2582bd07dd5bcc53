"""Small TFLite files that the fuzzer starts from: together most of what such files hold."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from tfl_file import TfliteFile

_F = np.float32


def _noise(*shape: int) -> Any:
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype(_F)


def _codes(*shape: int) -> Any:
    return np.random.default_rng(sum(shape)).integers(-127, 128, shape).astype(np.int8)


def dense() -> TfliteFile:
    file = TfliteFile()
    x, y = file.tensor("x", (1, 6), shapeSignature=[-1, 6]), file.tensor("y", (1, 4))
    w, b = file.tensor("w", (4, 6), data=_noise(4, 6)), file.tensor("b", (4,), data=_noise(4))
    h = file.tensor("h", (1, 4))
    file.operator("FULLY_CONNECTED", [x, w, b], [h], "FullyConnectedOptions")
    file.operator("SOFTMAX", [h], [y], "SoftmaxOptions", beta=1.0)
    file.ends([x], [y])
    file.sign({"x": x}, {"y": y}, "serving_default")
    file.note("min_runtime_version", b"1.5.0".ljust(16, b"\0"))
    note = {"format": 1, "free_batch": {"inputs": ["x"], "outputs": ["y"]}}
    file.note("edgeq", json.dumps(note).encode())
    return file


def convolutions() -> TfliteFile:
    file = TfliteFile()
    x = file.tensor("x", (1, 8, 8, 3))
    w, b = (
        file.tensor("w", (4, 3, 3, 3), data=_noise(4, 3, 3, 3)),
        file.tensor("b", (4,), data=_noise(4)),
    )
    d, e = (
        file.tensor("d", (1, 3, 3, 8), data=_noise(1, 3, 3, 8)),
        file.tensor("e", (8,), data=_noise(8)),
    )
    a, c = file.tensor("a", (1, 4, 4, 4)), file.tensor("c", (1, 2, 2, 8))
    p = file.tensor("p", (1, 1, 1, 8))
    t = file.tensor("t", (3, 2, 2, 8), data=_noise(3, 2, 2, 8))
    size = file.tensor("size", (4,), "INT32", data=np.int32([1, 2, 2, 3]))
    y = file.tensor("y", (1, 2, 2, 3))
    stride = {"strideW": 2, "strideH": 2}
    file.operator("CONV_2D", [x, w, b], [a], "Conv2DOptions", fusedActivationFunction=1, **stride)
    file.operator(
        "DEPTHWISE_CONV_2D", [a, d, e], [c], "DepthwiseConv2DOptions", depthMultiplier=2, **stride
    )
    file.operator(
        "AVERAGE_POOL_2D", [c], [p], "Pool2DOptions", filterWidth=2, filterHeight=2, **stride
    )
    file.operator("TRANSPOSE_CONV", [size, t, p], [y], "TransposeConvOptions", padding=1, **stride)
    file.ends([x], [y, c])
    return file


def static_int8() -> TfliteFile:
    file = TfliteFile()
    x = file.tensor("x", (1, 6, 6, 2), "INT8", scale=0.1, zero_point=-3)
    w = file.tensor(
        "w",
        (4, 3, 3, 2),
        "INT8",
        data=_codes(4, 3, 3, 2),
        scale=np.full(4, 0.02),
        zero_point=[0] * 4,
    )
    b = file.tensor(
        "b", (4,), "INT32", data=np.int32([1, 2, 3, 4]), scale=np.full(4, 0.002), zero_point=[0] * 4
    )
    a = file.tensor("a", (1, 6, 6, 4), "INT8", scale=0.2, zero_point=5)
    d = file.tensor(
        "d",
        (1, 3, 3, 4),
        "INT8",
        data=_codes(1, 3, 3, 4),
        scale=np.full(4, 0.03),
        zero_point=[0] * 4,
        axis=3,
    )
    e = file.tensor(
        *("e", (4,), "INT32"), data=np.int32([0] * 4), scale=np.full(4, 0.006), zero_point=[0] * 4
    )
    c = file.tensor("c", (1, 6, 6, 4), "INT8", scale=0.3, zero_point=0)
    s = file.tensor("s", (1, 6, 6, 4), "INT8", scale=0.4, zero_point=1)
    axes = file.tensor("axes", (2,), "INT32", data=np.int32([1, 2]))
    m = file.tensor("m", (1, 4), "INT8", scale=0.4, zero_point=1)
    y, z = (
        file.tensor("y", (1, 4), "INT8", scale=1 / 256, zero_point=-128),
        file.tensor("z", (1, 4)),
    )
    stride = {"strideW": 1, "strideH": 1}
    file.operator(
        "CONV_2D", [x, w, b], [a], "Conv2DOptions", 3, fusedActivationFunction=3, **stride
    )
    file.operator(
        "DEPTHWISE_CONV_2D",
        [a, d, e],
        [c],
        "DepthwiseConv2DOptions",
        3,
        depthMultiplier=1,
        **stride,
    )
    file.operator("ADD", [a, c], [s], "AddOptions", 2)
    file.operator("MEAN", [s, axes], [m], "ReducerOptions", 2)
    file.operator("SOFTMAX", [m], [y], "SoftmaxOptions", 2, beta=1.0)
    file.operator("DEQUANTIZE", [y], [z], "DequantizeOptions", 2)
    file.ends([x], [y, z])
    return file


def small_weights() -> TfliteFile:
    """fp16, dynamic int8, int4 in blocks."""
    file = TfliteFile()
    x, h = (
        file.tensor("x", (1, 64)),
        file.tensor("h", (8, 64), "FLOAT16", data=_noise(8, 64).astype(np.float16)),
    )
    f, a = file.tensor("f", (8, 64)), file.tensor("a", (1, 8))
    file.operator("DEQUANTIZE", [h], [f], "DequantizeOptions", 3)
    file.operator("FULLY_CONNECTED", [x, f, -1], [a], "FullyConnectedOptions")
    q = file.tensor(
        "q", (8, 8), "INT8", data=_codes(8, 8), scale=np.full(8, 0.01), zero_point=[0] * 8
    )
    b = file.tensor("b", (1, 8))
    file.operator("FULLY_CONNECTED", [a, q, -1], [b], "FullyConnectedOptions", 12)
    scales = file.tensor("scales", (16,), "FLOAT16", data=np.full(16, 0.5, np.float16))
    i = file.tensor("i", (8, 64), "INT4", data=bytes(range(256)), scale=1.0)
    quantization = file.graph.tensors[i].quantization
    quantization.scale = quantization.zeroPoint = None
    quantization.detailsType = file.schema.QuantizationDetails.BlockwiseQuantization
    quantization.details = file.schema.BlockwiseQuantizationT()
    quantization.details.scales, quantization.details.zeroPoints = scales, -1
    quantization.details.blockSize = 32
    c = file.tensor("c", (1, 8))
    file.operator("FULLY_CONNECTED", [x, i, -1], [c], "FullyConnectedOptions", 12)
    file.ends([x], [b, c])
    return file


def moves() -> TfliteFile:
    """Shapes, slices, joins: operators whose indices come from constants."""
    file = TfliteFile()

    def ints(name: str, *values: int) -> int:
        return file.tensor(name, (len(values),), "INT32", data=np.int32(values))

    x = file.tensor("x", (1, 4, 6))
    a, b, c = file.tensor("a", (1, 6, 4)), file.tensor("b", (6, 4)), file.tensor("c", (4, 4))
    file.operator("TRANSPOSE", [x, ints("order", 0, 2, 1)], [a], "TransposeOptions")
    file.operator("RESHAPE", [a, ints("shape", 6, 4)], [b], "ReshapeOptions", newShape=[6, 4])
    file.operator(
        "STRIDED_SLICE",
        [b, ints("from", 0, 0), ints("to", 4, 4), ints("by", 1, 1)],
        [c],
        "StridedSliceOptions",
    )
    d, e, f = file.tensor("d", (6, 8)), file.tensor("e", (2, 4)), file.tensor("f", (4, 4))
    pads = file.tensor("pads", (2, 2), "INT32", data=np.int32([[1, 1], [2, 2]]))
    file.operator("PAD", [c, pads], [d], "PadOptions")
    axis = file.tensor("axis", (), "INT32", data=np.int32(0))
    file.operator("SPLIT_V", [b, ints("sizes", 2, 4), axis], [e, f], "SplitVOptions", numSplits=2)
    g, h = file.tensor("g", (8, 4)), file.tensor("h", (2, 4))
    file.operator("CONCATENATION", [f, c], [g], "ConcatenationOptions", axis=0)
    file.operator("GATHER", [g, ints("rows", 7, 0)], [h], "GatherOptions")
    k = file.tensor("k", (), "INT32", data=np.int32(2))
    v, i, j = (
        file.tensor("v", (2, 2)),
        file.tensor("i", (2, 2), "INT32"),
        file.tensor("j", (2,), "INT64"),
    )
    file.operator("TOPK_V2", [h, k], [v, i], "TopKV2Options")
    one = file.tensor("one", (), "INT32", data=np.int32(1))
    file.operator("ARG_MAX", [h, one], [j], "ArgMaxOptions", outputType=4)
    t, n = file.tensor("t", (4, 4)), file.tensor("n", (1, 8, 12, 4))
    file.operator("BATCH_MATMUL", [f, c], [t], "BatchMatMulOptions", adjY=True)
    u = file.tensor("u", (1, 4, 6, 4))
    images = file.tensor("image", (1, 2, 3, 4))
    file.operator("RESHAPE", [b, ints("shape4", 1, 2, 3, 4)], [images], "ReshapeOptions")
    file.operator(
        "RESIZE_BILINEAR",
        [images, ints("size", 4, 6)],
        [u],
        "ResizeBilinearOptions",
        halfPixelCenters=True,
    )
    file.operator(
        "RESIZE_NEAREST_NEIGHBOR", [u, ints("size2", 8, 12)], [n], "ResizeNearestNeighborOptions"
    )
    file.ends([x], [d, e, v, i, j, t, n])
    return file


def recurrent() -> TfliteFile:
    """An LSTM with its state in variables, and an SVDF."""
    file = TfliteFile()
    x, y = file.tensor("x", (1, 5, 3)), file.tensor("y", (1, 5, 4))
    gates = [file.tensor(f"w{i}", (4, 3), data=_noise(4, 3)) for i in range(4)]
    states = [file.tensor(f"r{i}", (4, 4), data=_noise(4, 4)) for i in range(4)]
    biases = [file.tensor(f"b{i}", (4,), data=_noise(4)) for i in range(4)]
    memory = [file.tensor(name, (1, 4), isVariable=True) for name in ("output", "cell")]
    none = [-1] * 3
    inputs = [x, *gates, *states, *none, *biases, -1, -1, *memory, *[-1] * 4]
    file.operator(
        *("UNIDIRECTIONAL_SEQUENCE_LSTM", inputs, [y], "UnidirectionalSequenceLSTMOptions"),
        fusedActivationFunction=4,
    )
    z = file.tensor("z", (1, 2))
    s = file.tensor("s", (1, 3))
    feature, time = (
        file.tensor("feature", (2, 3), data=_noise(2, 3)),
        file.tensor("time", (2, 4), data=_noise(2, 4)),
    )
    state = file.tensor("state", (1, 8), isVariable=True)
    file.operator("SVDF", [s, feature, time, -1, state], [z], "SVDFOptions", rank=1)
    file.ends([x, s], [y, z])
    return file


def branches() -> TfliteFile:
    """IF and WHILE, whose bodies are subgraphs."""
    file = TfliteFile()
    x, yes = file.tensor("x", (2,)), file.tensor("yes", (), "BOOL")
    a, n, m, b = (
        file.tensor("a", (2,)),
        file.tensor("n", (), "INT32", data=np.int32(0)),
        file.tensor("m", (), "INT32"),
        file.tensor("b", (2,)),
    )
    file.operator("IF", [yes, x], [a], "IfOptions", thenSubgraphIndex=1, elseSubgraphIndex=2)
    file.operator("WHILE", [n, a], [m, b], "WhileOptions", condSubgraphIndex=3, bodySubgraphIndex=4)
    file.ends([yes, x], [b, m])
    for code, options in (("RELU", ""), ("NEG", "NegOptions")):
        file.subgraph()
        p, q = file.tensor("p", (2,)), file.tensor("q", (2,))
        file.operator(code, [p], [q], options)
        file.ends([p], [q])
    file.subgraph()
    i, p, go = file.tensor("i", (), "INT32"), file.tensor("p", (2,)), file.tensor("go", (), "BOOL")
    most = file.tensor("most", (), "INT32", data=np.int32(3))
    file.operator("LESS", [i, most], [go], "LessOptions")
    file.ends([i, p], [go])
    file.subgraph()
    i, p = file.tensor("i", (), "INT32"), file.tensor("p", (2,))
    one, j, q = (
        file.tensor("one", (), "INT32", data=np.int32(1)),
        file.tensor("j", (), "INT32"),
        file.tensor("q", (2,)),
    )
    file.operator("ADD", [i, one], [j], "AddOptions")
    file.operator("ADD", [p, p], [q], "AddOptions")
    file.ends([i, p], [j, q])
    return file


def elementwise() -> TfliteFile:
    file = TfliteFile()
    x = at = file.tensor("x", (1, 2, 2, 4))
    slopes = file.tensor("slopes", (1, 1, 4), data=_noise(1, 1, 4))
    rows: list[tuple[str, str, dict[str, Any]]] = [
        ("HARD_SWISH", "HardSwishOptions", {}), ("LOGISTIC", "", {}), ("TANH", "", {}),
        ("LEAKY_RELU", "LeakyReluOptions", {"alpha": 0.1}), ("ELU", "", {}), ("RELU6", "", {}),
        ("GELU", "GeluOptions", {"approximate": True}), ("ABS", "AbsOptions", {}),
        ("SQUARE", "SquareOptions", {}), ("SQRT", "", {}), ("EXP", "ExpOptions", {}),
        ("LOG", "", {}), ("L2_NORMALIZATION", "L2NormOptions", {}),
        (
            "LOCAL_RESPONSE_NORMALIZATION", "LocalResponseNormalizationOptions",
            {"radius": 1, "bias": 1.0, "alpha": 0.1, "beta": 0.5},
        ),
    ]  # fmt: skip
    for number, (code, options, fields) in enumerate(rows):
        made = file.tensor(f"t{number}", (1, 2, 2, 4))
        file.operator(code, [at], [made], options, **fields)
        at = made
    y, z = file.tensor("y", (1, 2, 2, 4)), file.tensor("z", (1, 4, 4, 1))
    file.operator("PRELU", [at, slopes], [y])
    file.operator("DEPTH_TO_SPACE", [y], [z], "DepthToSpaceOptions", blockSize=2)
    file.ends([x], [z])
    return file


def words() -> TfliteFile:
    """A constant of strings, an empty one, and two tensors of one name."""
    file = TfliteFile()
    text = np.int32([2, 16, 18, 21]).tobytes() + b"ab" + b"cde"
    file.tensor("words", (2,), "STRING", data=text)
    file.tensor("none", (0, 3), data=b"")
    x, y = file.tensor("x", (3,), "INT64"), file.tensor("x", (3,), "INT32")
    file.operator("CAST", [x], [y], "CastOptions", inDataType=4, outDataType=2)
    file.ends([x], [y])
    return file


SEEDS: tuple[Callable[[], TfliteFile], ...] = (
    *(dense, convolutions, static_int8, small_weights, moves),
    *(recurrent, branches, elementwise, words),
)


@cache
def serialized() -> tuple[bytes, ...]:
    """Every seed as a file, in order, and behind them the files that the environment names."""
    named = filter(None, os.environ.get("EDGEQ_FUZZ_TFLITE", "").split(os.pathsep))
    return (*(make().bytes() for make in SEEDS), *(Path(name).read_bytes() for name in named))
