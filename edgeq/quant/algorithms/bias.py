"""Empirical bias correction: what rounding does to a layer's mean output goes into its bias.

b' = b + W m - Wq mq, with m the mean of the input per channel in the float model and mq that of
what the layer gets in the quantized one (Nagel et al. 2019, arXiv 1906.04721, section 4.2;
Finkelstein et al. 2019, arXiv 1906.03193). Worth 4 dB with one scale for all weights, nearly
nothing with one per channel, and it never hurt (measured: notes quant-quality 3.2).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir
from numpy.typing import NDArray

from edgeq.ir import Graph, attribute, constant, sole_consumer, static_shape
from edgeq.numerics import affine
from edgeq.quant.algorithms.inputs import CHANNEL_AXIS
from edgeq.quant.algorithms.transform import RefusedError, Transformed, set_constant
from edgeq.quant.calibrate import calibrate_channels
from edgeq.quant.executor import Executor
from edgeq.quant.layers import bias_vector
from edgeq.quant.plan import Encoding, QuantPlan

Floats = NDArray[np.float64]

NEVER: dict[str, str] = {
    "not-measured": "the channels of `{tensor}` were not measured",
    "channels-differ": "`{tensor}` was measured with {got} channels, `{node}` reads {wanted}",
    "computed-bias": "the bias of `{node}` is not one constant value per channel",
    "no-bias": "no constant `Add` follows `{node}`",
    "scaled": "`{node}` has alpha, beta or transA",
    "stacked-weights": "the weights of `{node}` are not one matrix",
    "unknown-size": "the size of `{tensor}`, which `{node}` pads, is not known",
}
"""Why a layer's bias stays what it is."""


@dataclass(frozen=True)
class InputMeans:
    """Means [C] by tensor name: of the float model's tensors, and of the same ones rounded."""

    plain: Mapping[str, NDArray[Any]]
    rounded: Mapping[str, NDArray[Any]]


def input_means(
    executor: Executor,
    samples: Iterable[Mapping[str, NDArray[Any]]],
    plan: QuantPlan,
    tensors: Mapping[str, int],
) -> InputMeans:
    """One float run per sample; `tensors` are `layer_inputs`. Raises [non-finite-activation].

    `rounded` has the float model's tensors rounded and clipped as `plan` says, each by itself: what
    its own encoding does to a layer's mean is that layer's to correct. Means from the quantized
    model hold the layers' before it too, and correcting all layers for those at once corrects each
    error as often as there are layers behind it (measured: 10 dB lost where this gains 3).
    """
    encodings = {name: encoding for name in tensors if (encoding := plan.encoding(name))}
    both = _WithRounded(executor, encodings)
    names = {**tensors, **{_rounded_key(name): tensors[name] for name in encodings}}
    found = calibrate_channels(both, samples, names)
    return InputMeans(
        {name: found[name].mean for name in tensors},
        {name: found[_rounded_key(name) if name in encodings else name].mean for name in tensors},
    )


class _WithRounded:
    """An executor that gives each encoded tensor a second time, rounded."""

    def __init__(self, executor: Executor, encodings: Mapping[str, Encoding]) -> None:
        self._executor = executor
        self._encodings = encodings

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> Mapping[str, NDArray[Any]]:
        outputs = dict(self._executor.run(feeds))
        for name, encoding in self._encodings.items():
            array = outputs[name] if name in outputs else feeds[name]
            outputs[_rounded_key(name)] = _round(array, encoding)
        return outputs


def _rounded_key(name: str) -> str:
    return f"{name}, rounded"


def _round(array: NDArray[Any], encoding: Encoding) -> NDArray[np.float32]:
    """`array` as its codes mean it, in float32."""
    scale, zero_point = np.float32(encoding.scale[0]), encoding.zero_point[0]
    first, last = affine.LIMITS[encoding.dtype]
    steps = np.rint(array / scale)
    np.clip(steps, first - zero_point, last - zero_point, out=steps)
    return np.asarray(steps * scale, np.float32)


def correct(
    graph: Graph,
    plan: QuantPlan,
    means_float: Mapping[str, NDArray[Any]],
    means_quantized: Mapping[str, NDArray[Any]] | None = None,
) -> Transformed:
    """A clone whose Conv, Gemm and MatMul have the mean outputs of the float model again.

    Means are [C] by tensor name, of what layers read: see `input_means`; where `means_quantized`
    lacks one, the float model's stands in. Weights are as `plan` rounds them; layers that
    it leaves in float are left alone. A Conv or Gemm without a bias gets one; the bias of a MatMul
    is the constant Add after it. The plan is of the old graph: draft and quantize the new one.
    """
    graph = graph.clone()
    quantized = means_float if means_quantized is None else {**means_float, **means_quantized}
    lines: list[str] = []
    refused: list[tuple[str, str]] = []
    for node in graph.nodes():
        encoding = _weight_encoding(node, plan)
        if encoding is None:
            continue
        try:
            shift = _coarse(_shift(node, encoding, means_float, quantized))
            moved = _add(graph, node, shift)
        except RefusedError as never:
            refused.append((str(node.name), str(never)))
            continue
        if moved:
            lines.append(f"`{node.name}`: bias moved by up to {np.abs(shift).max():.3g}")
    return Transformed(graph, tuple(lines), tuple(refused), len(lines))


def _weight_encoding(node: onnx_ir.Node, plan: QuantPlan) -> Encoding | None:
    """How the weights of a layer are rounded; None where they are not, or `node` is no layer."""
    if node.domain != "" or node.op_type not in CHANNEL_AXIS or constant(node.inputs[1]) is None:
        return None
    assert node.inputs[1] is not None
    encoding = plan.encoding(str(node.inputs[1].name), str(node.name))
    return encoding if encoding is not None and encoding.dtype == "int8" else None


def _shift(
    node: onnx_ir.Node,
    encoding: Encoding,
    means: Mapping[str, NDArray[Any]],
    quantized: Mapping[str, NDArray[Any]],
) -> Floats:
    """W m - Wq mq [output channels]."""
    value, weights = node.inputs[0], constant(node.inputs[1])
    assert value is not None and weights is not None
    name = str(value.name)
    if name not in means:
        raise RefusedError(NEVER, "not-measured", tensor=name)
    scale = np.array(encoding.scale, np.float32)
    codes = affine.quantize_weights(weights, scale, encoding.axis)
    rounded = affine.dequantize(codes, scale, 0, axis=encoding.axis)
    wanted, got = _summed(node, weights), _summed(node, rounded)
    channels = wanted.shape[0] * wanted.shape[2]
    for mean in (means[name], quantized[name]):
        if mean.size != channels:
            raise RefusedError(
                NEVER, "channels-differ", node, tensor=name, got=mean.size, wanted=channels
            )
    groups = wanted.shape[0]
    float_part = wanted @ means[name].astype(np.float64).reshape(groups, -1, 1)
    int8_part = got @ quantized[name].astype(np.float64).reshape(groups, -1, 1)
    return np.asarray((float_part - int8_part).reshape(-1))


def _coarse(shift: Floats) -> Floats:
    """`shift` [C] to multiples of a power of two that is 1/64 to 1/32 of the largest.

    Means differ in their last bits between two hosts; bias codes, a few thousand steps long, must
    not. What is left uncorrected is 1/64 of the largest mean error.
    """
    _, exponent = np.frexp(np.abs(shift).max(initial=0.0))
    return np.asarray(np.ldexp(np.rint(np.ldexp(shift, 6 - exponent)), exponent - 6))


def _summed(node: onnx_ir.Node, weights: NDArray[Any]) -> Floats:
    """[groups, outputs of a group, inputs of a group]: what one unit of a channel's mean makes."""
    if node.op_type == "Conv":
        groups = int(attribute(node, "group", 1))
        taps = weights.astype(np.float64).reshape(*weights.shape[:2], -1) @ _coverage(node).ravel()
        return np.asarray(taps.reshape(groups, -1, weights.shape[1]))
    if weights.ndim != 2:
        raise RefusedError(NEVER, "stacked-weights", node)
    rows = weights if attribute(node, "transB", 0) else weights.T
    return rows.astype(np.float64)[None]


def _coverage(node: onnx_ir.Node) -> Floats:
    """The share of output positions at which each tap of a kernel lies inside of the input.

    Outside there is padding, whose mean is zero. 1 everywhere where nothing is padded.
    """
    value, kernel = node.inputs[0], static_shape(node.inputs[1])
    assert value is not None and kernel is not None
    sizes, rank = kernel[2:], len(kernel) - 2
    auto = attribute(node, "auto_pad", "NOTSET")
    pads = [int(pad) for pad in attribute(node, "pads", (0,) * (2 * rank))]
    if auto == "VALID" or (auto == "NOTSET" and not any(pads)):
        return np.ones(sizes)
    inner = [value.shape[2 + at] if value.shape is not None else None for at in range(rank)]
    outer = node.outputs[0].shape
    shares: Floats = np.ones(())
    for at, (taps, size) in enumerate(zip(sizes, inner, strict=True)):
        made = None if outer is None else outer[2 + at]
        if not isinstance(size, int) or not isinstance(made, int):
            raise RefusedError(NEVER, "unknown-size", node, tensor=value.name)
        stride, dilation = (_step(node, name, at) for name in ("strides", "dilations"))
        before = pads[at]
        if auto != "NOTSET":
            whole = max((made - 1) * stride + (taps - 1) * dilation + 1 - size, 0)
            before = whole // 2 if auto == "SAME_UPPER" else whole - whole // 2
        where = np.arange(made) * stride - before + np.arange(taps)[:, None] * dilation
        shares = np.multiply.outer(shares, np.mean((where >= 0) & (where < size), axis=1))
    return shares


def _step(node: onnx_ir.Node, name: str, at: int) -> int:
    steps = attribute(node, name, None)
    return 1 if steps is None else int(steps[at])


def _add(graph: Graph, node: onnx_ir.Node, shift: Floats) -> bool:
    """Add `shift` to the bias of `node`; False where float32 does not see it."""
    if node.op_type == "MatMul":
        return _add_behind(graph, node, shift)
    scaled = (attribute(node, name, 1.0) != 1.0 for name in ("alpha", "beta"))
    if node.op_type == "Gemm" and (any(scaled) or attribute(node, "transA", 0)):
        raise RefusedError(NEVER, "scaled", node)
    value = node.inputs[2] if len(node.inputs) > 2 else None
    old = np.zeros(shift.shape, np.float32)
    if value is not None:
        stored = constant(value)
        vector = None if stored is None else bias_vector(stored, shift.size)
        if vector is None:
            raise RefusedError(NEVER, "computed-bias", node)
        old = vector
    new = (old.astype(np.float64) + shift).astype(np.float32)
    if np.array_equal(old, new):
        return False
    set_constant(graph, node, 2, new, f"{node.name}_bias")
    return True


def _add_behind(graph: Graph, node: onnx_ir.Node, shift: Floats) -> bool:
    add = sole_consumer(node.outputs[0])
    if add is None or add.op_type != "Add" or add.domain != "":
        raise RefusedError(NEVER, "no-bias", node)
    at = 1 if add.inputs[0] is node.outputs[0] else 0
    old = constant(add.inputs[at])
    vector = None if old is None else bias_vector(old, shift.size)
    if old is None or vector is None:
        raise RefusedError(NEVER, "no-bias", node)
    new = (vector.astype(np.float64) + shift).astype(np.float32)
    if np.array_equal(vector, new):
        return False
    shape = (*old.shape[:-1], shift.size) if old.ndim else (shift.size,)
    set_constant(graph, add, at, new.reshape(shape), f"{add.name}_bias")
    return True
