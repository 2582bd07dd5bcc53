"""Which nodes can be int8 layers, and how their weights are laid out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir
from numpy.typing import NDArray

from edgeq.ir import attribute, constant
from edgeq.quant.kernels import Kernels


@dataclass(frozen=True)
class Layer:
    """One op with constant weights. `axis` is that of the output channels, None for one scale.

    `pairs` is False where kernels cannot saturate: depthwise, one weight per channel and position.
    """

    node: str
    op_type: str
    input: str
    weight: str
    axis: int | None
    bias: str | None
    output: str
    pairs: bool = True


def find_layer(node: onnx_ir.Node, kernels: Kernels) -> Layer | str | None:
    """The layer that `node`, one of the `heavy` ops of `kernels`, is, or why it is none.

    None for a MatMul whose second operand is computed: it has no weights, and is int8 all the same.
    """
    return _FINDERS[node.op_type](node, kernels)


def bias_vector(bias: NDArray[Any], channels: int) -> NDArray[np.float32] | None:
    """`bias` as [channels] float32, or None where it is not one value per output channel."""
    if bias.size not in (1, channels) or any(size != 1 for size in bias.shape[:-1]):
        return None
    return np.broadcast_to(bias.reshape(-1), (channels,)).astype(np.float32)


def weight_rows(layer: Layer, weight: NDArray[Any]) -> NDArray[Any]:
    """Weights as the kernel multiplies them, [R, K]: one row per output channel and batch.

    Conv and ConvTranspose: a row is (kernel positions, input channels), for 2D (kh, kw, cin).
    Otherwise along K.
    """
    if layer.op_type == "Conv":
        return np.moveaxis(weight, 1, -1).reshape(weight.shape[0], -1)
    if layer.op_type == "ConvTranspose":
        return np.moveaxis(np.moveaxis(weight, 1, 0), 1, -1).reshape(weight.shape[1], -1)
    if weight.ndim < 2:
        return weight.reshape(1, -1)
    if layer.axis == 0:
        return weight
    last = np.moveaxis(weight, -2, -1)
    return last.reshape(-1, last.shape[-1])


def _conv(node: onnx_ir.Node, kernels: Kernels) -> Layer | str:
    weight = constant(_input(node, 1))
    if weight is None:
        return "its weights are not constant"
    if weight.ndim - 2 not in kernels.conv_dimensions:
        return (
            f"{kernels.engine} has no int8 kernel for a `{node.op_type}` of {weight.ndim - 2} "
            "dimensions"
        )
    axis = 0 if node.op_type == "Conv" else 1
    bias = _bias(node, weight.shape[axis])
    if isinstance(bias, str):
        return bias
    group = int(attribute(node, "group", 1))
    depthwise = weight.shape[1] == 1 and weight.shape[0] == group
    return _layer(node, axis, bias, not depthwise)


def _gemm(node: onnx_ir.Node, kernels: Kernels) -> Layer | str:
    weight = constant(_input(node, 1))
    if weight is None:
        return "its weights are not constant"
    if constant(_input(node, 0)) is not None:
        return "its first operand is constant"
    for name, wanted in (("transA", 0), ("alpha", 1.0), ("beta", 1.0)):
        value = attribute(node, name, wanted)
        if value != wanted:
            return f"{kernels.engine} does not fuse an int8 `Gemm` with {name}={value:g}"
    axis = 0 if attribute(node, "transB", 0) else 1
    bias = _bias(node, weight.shape[axis])
    return bias if isinstance(bias, str) else _layer(node, axis, bias, True)


def _matmul(node: onnx_ir.Node, kernels: Kernels) -> Layer | str | None:
    left, weight = constant(_input(node, 0)), constant(_input(node, 1))
    if left is not None and weight is not None:
        return "both of its operands are constant"
    if weight is None:
        return None
    if kernels.matrix_weights_only and weight.ndim != 2:
        return f"{kernels.engine} has no int8 `MatMul` on weights of {weight.ndim} dimensions"
    return _layer(node, 1 if weight.ndim == 2 else None, None, True)


_FINDERS = {"Conv": _conv, "ConvTranspose": _conv, "Gemm": _gemm, "MatMul": _matmul}


def _layer(node: onnx_ir.Node, axis: int | None, bias: onnx_ir.Value | None, pairs: bool) -> Layer:
    names = [str(_named(node.inputs[at])) for at in (0, 1)]
    return Layer(
        node=str(node.name),
        op_type=node.op_type,
        input=names[0],
        weight=names[1],
        axis=axis,
        bias=None if bias is None else _named(bias),
        output=str(_named(node.outputs[0])),
        pairs=pairs,
    )


def _bias(node: onnx_ir.Node, channels: int) -> onnx_ir.Value | str | None:
    value = _input(node, 2)
    if value is None:
        return None
    array = constant(value)
    if array is None:
        return f"its bias `{value.name}` is not constant"
    if array.size == 0 or bias_vector(array, channels) is None:
        return f"its bias `{value.name}` {list(array.shape)} is not one value per channel"
    return value


def _input(node: onnx_ir.Node, at: int) -> onnx_ir.Value | None:
    return node.inputs[at] if at < len(node.inputs) else None


def _named(value: onnx_ir.Value | None) -> str | None:
    return None if value is None else value.name
