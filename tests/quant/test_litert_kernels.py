"""The table of LiteRT's int8 kernels against the engine: one op a file, codes within one of float.

Each file is made with the schema's own objects. What an op claims is what dequantizing its codes,
computing in float and quantizing again gives; kernels round products of scales to 31 bits and so
may be one code off.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from math import erf
from typing import Any

import numpy as np
import pytest

from edgeq.numerics import affine
from edgeq.quant.kernels import LITERT
from edgeq.quant.rules import CLAMPS

litert = pytest.importorskip("ai_edge_litert.interpreter")

Array = np.ndarray
WIDE, SHIFTED = (0.05, 3), (0.031, -40)
SQUASHED = (1.0 / 256.0, -128)


@dataclass(frozen=True)
class Probe:
    """`code` of `options`, `compute` on the float values of `inputs` (shape, scale, zero point).

    `constants` are read after them: integers as they are. `tied`: the result has the scale and zero
    point of the first input. `version` is the operator's.
    """

    code: str
    compute: Callable[..., Array]
    inputs: Sequence[tuple[tuple[int, ...], tuple[float, int]]] = (((1, 6, 5, 4), WIDE),)
    constants: Sequence[Array] = ()
    output: tuple[float, int] | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    version: int = 2
    outputs: int = 1


def gelu(x: Array) -> Array:
    return x * (1 + np.vectorize(erf)(x / np.sqrt(2))) / 2


def leaky(x: Array, slope: Any) -> Array:
    return np.where(x < 0, slope * x, x)


def windows(x: Array, pick: Callable[..., Array]) -> Array:
    """2x2 windows of an NHWC tensor of even sizes."""
    n, h, w, c = x.shape
    return pick(x.reshape(n, h // 2, 2, w // 2, 2, c), axis=(2, 4))


def bilinear(x: Array) -> Array:
    """Twice as large, half-pixel centres, as ONNX `Resize` with mode=linear."""
    for axis in (1, 2):
        size = x.shape[axis]
        at = np.clip((np.arange(2 * size) + 0.5) / 2 - 0.5, 0, size - 1)
        low = np.floor(at).astype(int)
        high = np.minimum(low + 1, size - 1)
        shape = [1] * x.ndim
        shape[axis] = -1
        share = (at - low).reshape(shape)
        x = np.take(x, low, axis) * (1 - share) + np.take(x, high, axis) * share
    return x


def softmax(x: Array) -> Array:
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def depth_to_space(x: Array) -> Array:
    n, h, w, c = x.shape
    blocks = x.reshape(n, h, w, 2, 2, c // 4).transpose(0, 1, 3, 2, 4, 5)
    return blocks.reshape(n, 2 * h, 2 * w, -1)


def space_to_depth(x: Array) -> Array:
    n, h, w, c = x.shape
    blocks = x.reshape(n, h // 2, 2, w // 2, 2, c).transpose(0, 1, 3, 2, 4, 5)
    return blocks.reshape(n, h // 2, -1, 4 * c)


def ints(*numbers: int) -> Array:
    return np.array(numbers, np.int32)


ONE = (((1, 6, 5, 4), WIDE),)
EVEN = (((1, 6, 4, 4), WIDE),)
PAIR = (((1, 6, 5, 4), WIDE), ((1, 6, 5, 4), SHIFTED))
ALIKE = (((1, 6, 5, 4), WIDE), ((1, 6, 5, 4), WIDE))
POOL = {"padding": 1, "strideH": 2, "strideW": 2, "filterHeight": 2, "filterWidth": 2}
KEPT = {"keepDims": True}
FRAME = ((0, 0), (1, 2), (0, 1), (0, 0))
PROBES: dict[str, Probe] = {
    "Add": Probe("ADD", np.add, PAIR, output=(0.07, 5)),
    "Add, broadcast": Probe("ADD", np.add, (PAIR[0], ((4,), SHIFTED)), output=(0.07, 5)),
    "Sub": Probe("SUB", np.subtract, PAIR, output=(0.07, 5)),
    "Mul": Probe("MUL", np.multiply, PAIR, output=(0.1, -7)),
    "Concat": Probe(
        "CONCATENATION", lambda a, b: np.concatenate((a, b), 3), ALIKE, options={"axis": 3}
    ),
    "Max": Probe("MAXIMUM", np.maximum, ALIKE),
    "Min": Probe("MINIMUM", np.minimum, ALIKE),
    "GlobalAveragePool": Probe(
        "MEAN", partial(np.mean, axis=(1, 2), keepdims=True), ONE, [ints(1, 2)], (0.02, 9), KEPT
    ),
    "ReduceMean": Probe("MEAN", partial(np.mean, axis=3), ONE, [ints(3)], (0.03, 9)),
    "ReduceSum": Probe("SUM", partial(np.sum, axis=3), ONE, [ints(3)], (0.2, 9)),
    "ReduceMax": Probe("REDUCE_MAX", partial(np.max, axis=3), ONE, [ints(3)]),
    "ReduceMin": Probe("REDUCE_MIN", partial(np.min, axis=3), ONE, [ints(3)]),
    "GlobalMaxPool": Probe(
        "REDUCE_MAX", partial(np.max, axis=(1, 2), keepdims=True), ONE, [ints(1, 2)], options=KEPT
    ),
    "MaxPool": Probe("MAX_POOL_2D", partial(windows, pick=np.max), EVEN, options=POOL),
    "AveragePool": Probe("AVERAGE_POOL_2D", partial(windows, pick=np.mean), EVEN, options=POOL),
    "Softmax": Probe("SOFTMAX", softmax, output=SQUASHED, options={"beta": 1.0}),
    "Sigmoid": Probe("LOGISTIC", lambda x: 1 / (1 + np.exp(-x)), output=SQUASHED),
    "Tanh": Probe("TANH", np.tanh, output=(1 / 128, 0)),
    "HardSwish": Probe(
        "HARD_SWISH", lambda x: x * np.clip(x + 3, 0, 6) / 6, output=(0.03, -113), version=1
    ),
    "LeakyRelu": Probe(
        "LEAKY_RELU", partial(leaky, slope=0.1), output=(0.03, -100), options={"alpha": 0.1}
    ),
    "PRelu": Probe("PRELU", leaky, (*ONE, ((1, 1, 4), (0.003, 7))), output=(0.03, -60), version=1),
    "Elu": Probe("ELU", lambda x: np.where(x < 0, np.expm1(x), x), output=(0.03, -95), version=1),
    "Gelu": Probe("GELU", gelu, output=(0.03, -110)),
    "Abs": Probe("ABS", np.abs, output=(0.03, -128)),
    "Relu": Probe("RELU", partial(np.maximum, 0.0), output=(0.03, -128)),
    "Clip, to 6": Probe("RELU6", partial(np.clip, min=0, max=6), output=(6 / 255, -128)),
    "Clip, by where codes end": Probe("QUANTIZE", lambda x: x, output=(4 / 255, -128)),
    "Reshape": Probe(
        "RESHAPE", partial(np.reshape, shape=(1, 30, 4)), ONE, [ints(1, 30, 4)], version=1
    ),
    "Transpose": Probe(
        "TRANSPOSE", partial(np.transpose, axes=(0, 3, 1, 2)), ONE, [ints(0, 3, 1, 2)]
    ),
    "Slice": Probe(
        "STRIDED_SLICE",
        lambda x: x[:, 1:5:2],
        ONE,
        [ints(0, 1, 0, 0), ints(1, 5, 5, 4), ints(1, 2, 1, 1)],
    ),
    "Split": Probe(
        "SPLIT", lambda x: x[:, :3], ONE, [ints(1)], options={"numSplits": 2}, outputs=2
    ),
    "Gather": Probe(
        "GATHER", partial(np.take, indices=[3, 0], axis=1), ONE, [ints(3, 0)], options={"axis": 1}
    ),
    "Resize": Probe(
        "RESIZE_NEAREST_NEIGHBOR", lambda x: x.repeat(2, 1).repeat(2, 2), ONE, [ints(12, 10)]
    ),
    "Resize, linear": Probe(
        "RESIZE_BILINEAR",
        bilinear,
        ONE,
        [ints(12, 10)],
        options={"halfPixelCenters": True},
        version=3,
    ),
    "DepthToSpace": Probe("DEPTH_TO_SPACE", depth_to_space, options={"blockSize": 2}),
    "SpaceToDepth": Probe("SPACE_TO_DEPTH", space_to_depth, EVEN, options={"blockSize": 2}),
    "Expand": Probe(
        "BROADCAST_TO",
        partial(np.broadcast_to, shape=(3, 6, 5, 4)),
        ONE,
        [ints(3, 6, 5, 4)],
        version=3,
    ),
    "Tile": Probe("TILE", partial(np.tile, reps=(1, 2, 1, 1)), ONE, [ints(1, 2, 1, 1)], version=1),
    "Pad": Probe("PAD", partial(np.pad, pad_width=FRAME), ONE, [np.array(FRAME, np.int32)]),
    "Pad, reflect": Probe(
        "MIRROR_PAD",
        partial(np.pad, pad_width=FRAME, mode="reflect"),
        ONE,
        [np.array(FRAME, np.int32)],
    ),
}
"""By the ONNX op, and the case of it. Convolutions and products have tests of their own below."""

AS_RESHAPE = {"Flatten", "Squeeze", "Unsqueeze"}

KINDS = {
    "CONV_2D": "Conv2DOptions",
    "DEPTHWISE_CONV_2D": "DepthwiseConv2DOptions",
    **dict.fromkeys(("MEAN", "SUM", "REDUCE_MAX", "REDUCE_MIN"), "ReducerOptions"),
    **dict.fromkeys(("MAX_POOL_2D", "AVERAGE_POOL_2D"), "Pool2DOptions"),
    **dict.fromkeys(("MAXIMUM", "MINIMUM"), "MaximumMinimumOptions"),
    **dict.fromkeys(("LOGISTIC", "TANH", "PRELU", "ELU", "RELU", "RELU6"), ""),
}
"""Options tables that are not called as their operator; "" for operators without one."""


class Builder:
    """A file of one operator."""

    def __init__(self) -> None:
        from ai_edge_litert import schema_py_generated

        self.schema = schema_py_generated
        self.graph, self.model = self.schema.SubGraphT(), self.schema.ModelT()
        self.graph.tensors = []
        self.model.version, self.model.subgraphs = 3, [self.graph]
        self.model.buffers = [self.schema.BufferT()]

    def tensor(
        self,
        shape: Sequence[int],
        dtype: str,
        scale: Any = (),
        zero_point: Any = 0,
        *,
        data: Array | None = None,
        axis: int = 0,
    ) -> int:
        tensor = self.schema.TensorT()
        tensor.name, tensor.shape = str(len(self.graph.tensors)), ints(*shape)
        tensor.type, tensor.buffer = getattr(self.schema.TensorType, dtype), 0
        scale = np.atleast_1d(np.array(scale, np.float32))
        if scale.size:
            quantization = tensor.quantization = self.schema.QuantizationParametersT()
            quantization.scale, quantization.quantizedDimension = scale, axis
            quantization.zeroPoint = np.full(scale.shape, zero_point, np.int64)
        if data is not None:
            buffer = self.schema.BufferT()
            buffer.data = np.frombuffer(np.ascontiguousarray(data).tobytes(), np.uint8)
            tensor.buffer = len(self.model.buffers)
            self.model.buffers.append(buffer)
        self.graph.tensors.append(tensor)
        return len(self.graph.tensors) - 1

    def file(
        self,
        code: str,
        version: int,
        reads: Sequence[int],
        makes: Sequence[int],
        inputs: Sequence[int],
        options: Mapping[str, Any],
    ) -> bytes:
        import flatbuffers

        operator, opcode = self.schema.OperatorT(), self.schema.OperatorCodeT()
        operator.inputs, operator.outputs, operator.opcodeIndex = ints(*reads), ints(*makes), 0
        opcode.builtinCode = getattr(self.schema.BuiltinOperator, code)
        opcode.deprecatedBuiltinCode, opcode.version = min(opcode.builtinCode, 127), version
        words = "".join(word.capitalize() for word in code.split("_"))
        kind = KINDS.get(code, f"{words}Options")
        if kind:
            table = getattr(self.schema, f"{kind}T")()
            for key, value in options.items():
                assert hasattr(table, key), key
                setattr(table, key, value)
            operator.builtinOptionsType = getattr(self.schema.BuiltinOptions, kind)
            operator.builtinOptions = table
        self.graph.operators, self.model.operatorCodes = [operator], [opcode]
        self.graph.inputs, self.graph.outputs = ints(*inputs), ints(*makes)
        builder = flatbuffers.Builder(1 << 12)
        builder.Finish(self.model.Pack(builder), b"TFL3")
        return bytes(builder.Output())


def file_of(probe: Probe) -> bytes:
    build = Builder()
    inputs = [build.tensor(shape, "INT8", *way) for shape, way in probe.inputs]
    fixed = [build.tensor(array.shape, "INT32", data=array) for array in probe.constants]
    samples = (np.full(shape, 0.5, np.float32) for shape, _ in probe.inputs)
    shape = probe.compute(*samples).shape
    way = probe.output or probe.inputs[0][1]
    made = [build.tensor(shape, "INT8", *way) for _ in range(probe.outputs)]
    reads = [*fixed, *inputs] if probe.code == "SPLIT" else [*inputs, *fixed]
    return build.file(probe.code, probe.version, reads, made, inputs, probe.options)


def run(data: bytes, feeds: Sequence[Array], *, delegated: bool) -> Array:
    kinds = litert.OpResolverType
    kind = kinds.AUTO if delegated else kinds.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    session = litert.Interpreter(model_content=data, experimental_op_resolver_type=kind)
    session.allocate_tensors()
    for info, feed in zip(session.get_input_details(), feeds, strict=True):
        session.set_tensor(info["index"], feed)
    session.invoke()
    return np.array(session.get_tensor(session.get_output_details()[0]["index"]))


def codes(*shape: int, seed: int = 7) -> Array:
    return np.random.default_rng(seed).integers(-128, 128, shape).astype(np.int8)


def test_every_op_of_the_table_has_a_probe() -> None:
    probed = {name.split(",")[0] for name in PROBES} | AS_RESHAPE
    assert probed == {*LITERT.joiners, *LITERT.moves, *CLAMPS}
    assert set(LITERT.heavy) == {"Conv", "ConvTranspose", "Gemm", "MatMul"}


@pytest.mark.parametrize("delegated", [True, False], ids=["xnnpack", "builtin"])
@pytest.mark.parametrize("name", PROBES)
def test_the_engine_computes_what_the_table_claims(name: str, delegated: bool) -> None:
    probe = PROBES[name]
    feeds = [codes(*shape, seed=at) for at, (shape, _) in enumerate(probe.inputs)]
    values = [
        affine.dequantize(feed, *way) for feed, (_, way) in zip(feeds, probe.inputs, strict=True)
    ]
    scale, zero_point = probe.output or probe.inputs[0][1]
    wanted = affine.quantize(np.asarray(probe.compute(*values), np.float32), scale, zero_point)
    assert np.ptp(wanted.astype(int)) > 15  # not all at one end
    assert_close(run(file_of(probe), feeds, delegated=delegated), wanted)


def test_operands_of_other_scales_are_requantized_first() -> None:
    """Concat, Max and Min want one scale: the engine refuses a Concat that has two."""
    probe = Probe("CONCATENATION", lambda a, b: np.concatenate((a, b), 3), PAIR)
    with pytest.raises(RuntimeError, match="scale"):
        run(file_of(probe), [codes(1, 6, 5, 4)] * 2, delegated=False)


@pytest.mark.parametrize("delegated", [True, False], ids=["xnnpack", "builtin"])
@pytest.mark.parametrize("code", ["CONV_2D", "DEPTHWISE_CONV_2D", "TRANSPOSE_CONV"])
@pytest.mark.parametrize("height", [1, 5])
def test_convolutions_have_a_scale_per_channel(code: str, height: int, delegated: bool) -> None:
    """Also of one dimension, which is one of height 1. No padding; stride 2 transposed."""
    rng = np.random.default_rng(3)
    kernel = 1 if height == 1 else 3
    weights = rng.integers(-127, 128, (4, kernel, 3, 4)).astype(np.int8)
    axis = 0
    if code == "DEPTHWISE_CONV_2D":
        weights, axis = weights[:1], 3
    scale = np.array([0.01, 0.002, 0.03, 0.005], np.float32)
    bias = rng.integers(-900, 900, 4).astype(np.int32)
    feed, way = codes(1, height, 6, 4), WIDE
    wanted = CONVOLUTIONS[code](
        affine.dequantize(feed, *way),
        affine.dequantize(weights, scale, 0, axis=axis),
        np.float32(way[0]) * scale * bias,
    )
    build, output = Builder(), (float(np.ptp(wanted)) / 250, -3)
    read = build.tensor(feed.shape, "INT8", *way)
    weight = build.tensor(weights.shape, "INT8", scale, data=weights, axis=axis)
    added = build.tensor((4,), "INT32", np.float32(way[0]) * scale, data=bias)
    made = build.tensor(wanted.shape, "INT8", *output)
    reads, steps = [read, weight, added], {"strideH": 1, "strideW": 1, "padding": 1}
    if code == "TRANSPOSE_CONV":
        shape = build.tensor((4,), "INT32", data=ints(*wanted.shape))
        reads, steps = [shape, weight, read, added], {"strideH": 2, "strideW": 2, "padding": 1}
    if code == "DEPTHWISE_CONV_2D":
        steps = {**steps, "depthMultiplier": 1}
    data = build.file(code, 3, reads, [made], [read], steps)
    assert_close(run(data, [feed], delegated=delegated), affine.quantize(wanted, *output))


def plain(x: Array, w: Array, b: Array) -> Array:
    """A valid convolution of stride 1: x [1, H, W, I], w [O, KH, KW, I]."""
    view = np.lib.stride_tricks.sliding_window_view(x, w.shape[1:3], axis=(1, 2))
    return np.einsum("nhwikl,okli->nhwo", view, w).astype(np.float32) + b


def depthwise(x: Array, w: Array, b: Array) -> Array:
    view = np.lib.stride_tricks.sliding_window_view(x, w.shape[1:3], axis=(1, 2))
    return np.einsum("nhwikl,okli->nhwi", view, w).astype(np.float32) + b


def transposed(x: Array, w: Array, b: Array) -> Array:
    """Stride 2, no padding."""
    _, h, width, _ = x.shape
    made = np.zeros((1, 2 * (h - 1) + w.shape[1], 2 * (width - 1) + w.shape[2], len(w)))
    for row in range(h):
        for column in range(width):
            patch = np.einsum("i,okli->klo", x[0, row, column], w)
            made[0, 2 * row :, 2 * column :][: w.shape[1], : w.shape[2]] += patch
    return (made + b).astype(np.float32)


CONVOLUTIONS = {"CONV_2D": plain, "DEPTHWISE_CONV_2D": depthwise, "TRANSPOSE_CONV": transposed}


@pytest.mark.parametrize("delegated", [True, False], ids=["xnnpack", "builtin"])
def test_products_have_a_scale_per_row_of_weights(delegated: bool) -> None:
    weights, scale = codes(5, 8).clip(-127), np.linspace(0.002, 0.02, 5).astype(np.float32)
    feed, way, output = codes(3, 8, seed=1), WIDE, (0.2, 4)
    wanted = affine.dequantize(feed, *way) @ affine.dequantize(weights, scale, 0, axis=0).T
    build = Builder()
    read = build.tensor(feed.shape, "INT8", *way)
    weight = build.tensor(weights.shape, "INT8", scale, data=weights)
    made = build.tensor(wanted.shape, "INT8", *output)
    data = build.file("FULLY_CONNECTED", 6, [read, weight, -1], [made], [read], {})
    assert_close(run(data, [feed], delegated=delegated), affine.quantize(wanted, *output))


def assert_close(got: Array, wanted: Array) -> None:
    assert got.dtype == np.int8 and got.shape == wanted.shape
    assert np.abs(got.astype(int) - wanted.astype(int)).max() <= 1
