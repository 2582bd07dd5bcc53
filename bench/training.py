"""Train a small ONNX classifier with numpy: backpropagation over the file's own operators.

Enough for a MobileNet: Conv (dense or depthwise), BatchNormalization, Relu, Add,
GlobalAveragePool, Flatten, Gemm (transB). It is here so that the benches have a net with trained
weights and need no framework and no file.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

Array = NDArray[Any]
Backward = Callable[[Array], list[Array]]  # gradient of an output -> of each input, in order


@dataclass
class Trainer:
    """The parameters of a model, and one step forward and back over its nodes."""

    model: onnx.ModelProto
    rate: float = 4e-3
    weights: dict[str, Array] = field(default_factory=dict)
    moments: dict[str, tuple[Array, Array]] = field(default_factory=dict)
    steps: int = 0

    def __post_init__(self) -> None:
        for row in self.model.graph.initializer:
            self.weights[row.name] = numpy_helper.to_array(row).astype(np.float32)

    def forward(self, images: Array) -> tuple[dict[str, Array], list[Backward]]:
        """Every tensor by name, batch statistics in the norms; and each node's way back."""
        values = {self.model.graph.input[0].name: images}
        backs: list[Backward] = []
        for node in self.model.graph.node:
            known = {**self.weights, **values}
            inputs = [known[name] for name in node.input]
            attributes = {row.name: helper.get_attribute_value(row) for row in node.attribute}
            output, back = OPERATORS[node.op_type](inputs, attributes)
            values[node.output[0]] = output
            backs.append(back)
        return values, backs

    def settle(self, batches: list[Array]) -> None:
        """Set each BatchNormalization's mean and variance to their means over `batches`."""
        sums: dict[str, Array] = {}
        for images in batches:
            values, _ = self.forward(images)
            for node in (n for n in self.model.graph.node if n.op_type == "BatchNormalization"):
                x = values[node.input[0]]
                for name, now in zip(
                    node.input[3:], (x.mean((0, 2, 3)), x.var((0, 2, 3))), strict=True
                ):
                    sums[name] = sums.get(name, 0) + now / len(batches)
        self.weights.update(sums)

    def step(self, images: Array, labels: Array) -> float:
        """One step of Adam on a batch; returns its cross-entropy."""
        values, backs = self.forward(images)
        scores = values[self.model.graph.output[0].name]
        loss, gradient = cross_entropy(scores, labels)
        gradients = {self.model.graph.output[0].name: gradient}
        for node, back in zip(reversed(self.model.graph.node), reversed(backs), strict=True):
            for name, part in zip(node.input, back(gradients.pop(node.output[0])), strict=False):
                gradients[name] = gradients[name] + part if name in gradients else part
        self.steps += 1
        for name in [name for name in gradients if name in self.weights]:
            self._adam(name, gradients[name])
        return loss

    def _adam(self, name: str, gradient: Array) -> None:
        """Adam (arXiv 1412.6980, algorithm 1) with its defaults."""
        zero = np.zeros_like(gradient)
        first, second = self.moments.get(name, (zero, zero))
        first = 0.9 * first + 0.1 * gradient
        second = 0.999 * second + 0.001 * gradient**2
        self.moments[name] = first, second
        size = self.rate * math.sqrt(1 - 0.999**self.steps) / (1 - 0.9**self.steps)
        self.weights[name] = self.weights[name] - size * first / (np.sqrt(second) + 1e-8)

    def write(self) -> onnx.ModelProto:
        """The model with the weights as they are now."""
        trained = onnx.ModelProto()
        trained.CopyFrom(self.model)
        for row in trained.graph.initializer:
            value = self.weights[row.name].astype(np.float32)
            row.CopyFrom(numpy_helper.from_array(value, row.name))
        return trained


def cross_entropy(scores: Array, labels: Array) -> tuple[float, Array]:
    """Mean loss of scores [N, C] against labels [N], and its gradient."""
    shifted = np.exp(scores - scores.max(1, keepdims=True))
    chances = shifted / shifted.sum(1, keepdims=True)
    rows = np.arange(len(labels))
    loss = -float(np.log(chances[rows, labels] + 1e-12).mean())
    chances[rows, labels] -= 1
    return loss, chances / np.float32(len(labels))


def _conv(inputs: list[Array], attributes: Mapping[str, Any]) -> tuple[Array, Backward]:
    x, weight = inputs[0], inputs[1]
    stride, pad = attributes.get("strides", [1, 1])[0], attributes.get("pads", [0] * 4)[0]
    groups = attributes.get("group", 1)
    assert groups in (1, len(weight)), "dense or depthwise"
    padded = np.pad(x, ((0, 0), (0, 0), (pad, pad), (pad, pad))) if pad else x
    if groups == 1:
        y, back = _dense(padded, weight, stride)
    else:
        y, back = _depthwise(padded, weight, stride)

    def backward(g: Array) -> list[Array]:
        gx, gw = back(g)
        gx = gx[:, :, pad : pad + x.shape[2], pad : pad + x.shape[3]]
        return [gx, gw, g.sum((0, 2, 3))]

    return (y + inputs[2][:, None, None] if len(inputs) > 2 else y), backward


def _taps(x: Array, size: int, stride: int) -> list[tuple[int, int, tuple[slice, ...]]]:
    """(i, j, where a kernel's element i, j reads in the padded x) for each of size x size."""
    high, wide = (x.shape[2] - size) // stride + 1, (x.shape[3] - size) // stride + 1
    return [
        (
            *(i, j),
            np.s_[:, :, i : i + high * stride : stride, j : j + wide * stride : stride],
        )
        for i in range(size)
        for j in range(size)
    ]


def _dense(x: Array, weight: Array, stride: int) -> tuple[Array, Callable[[Array], Any]]:
    """Sum over the kernel's elements of a matrix product [O, I] @ [N, I, HW]."""
    taps = _taps(x, weight.shape[2], stride)
    patches = [np.ascontiguousarray(x[where]) for _, _, where in taps]
    shape = patches[0].shape
    flat = np.concatenate([p.reshape(shape[0], shape[1], -1) for p in patches], 1)
    rows = weight.transpose(0, 2, 3, 1).reshape(len(weight), -1)
    y = (rows @ flat).reshape(shape[0], len(weight), *shape[2:])

    def back(g: Array) -> tuple[Array, Array]:
        g = g.reshape(len(g), len(weight), -1)
        gw = np.einsum("nop,nip->oi", g, flat, optimize=True)
        gw = gw.reshape(len(weight), *weight.shape[2:], -1).transpose(0, 3, 1, 2)
        parts = np.split(rows.T @ g, len(taps), axis=1)
        gx = np.zeros_like(x)
        for (_, _, where), part in zip(taps, parts, strict=True):
            gx[where] += part.reshape(shape)
        return gx, gw

    return y, back


def _depthwise(x: Array, weight: Array, stride: int) -> tuple[Array, Callable[[Array], Any]]:
    taps = _taps(x, weight.shape[2], stride)
    y = sum(x[where] * weight[:, 0, i, j, None, None] for i, j, where in taps)

    def back(g: Array) -> tuple[Array, Array]:
        gx, gw = np.zeros_like(x), np.zeros_like(weight)
        for i, j, where in taps:
            gx[where] += g * weight[:, 0, i, j, None, None]
            gw[:, 0, i, j] = np.einsum("nchw,nchw->c", g, x[where])
        return gx, gw

    return np.asarray(y), back


def _norm(inputs: list[Array], attributes: Mapping[str, Any]) -> tuple[Array, Backward]:
    """BatchNormalization by the batch's own mean and variance (arXiv 1502.03167)."""
    x, gamma, beta = inputs[0], inputs[1][:, None, None], inputs[2][:, None, None]
    axes = (0, 2, 3)
    count = x.size // x.shape[1]
    centred = x - x.mean(axes, keepdims=True)
    variance = np.einsum("nchw,nchw->c", centred, centred) / count
    spread = 1 / np.sqrt(variance[:, None, None] + attributes["epsilon"])
    unit = centred * spread

    def back(g: Array) -> list[Array]:
        gbeta, ggamma = g.sum(axes), np.einsum("nchw,nchw->c", g, unit)
        means = gbeta[:, None, None] / count + unit * (ggamma[:, None, None] / count)
        return [gamma * spread * (g - means), ggamma, gbeta]

    return unit * gamma + beta, back


def _relu(inputs: list[Array], _: Mapping[str, Any]) -> tuple[Array, Backward]:
    x = inputs[0]
    return np.maximum(x, 0), lambda g: [g * (x > 0)]


def _add(inputs: list[Array], _: Mapping[str, Any]) -> tuple[Array, Backward]:
    return inputs[0] + inputs[1], lambda g: [g, g]


def _pool(inputs: list[Array], _: Mapping[str, Any]) -> tuple[Array, Backward]:
    x = inputs[0]
    area = x.shape[2] * x.shape[3]
    return x.mean((2, 3), keepdims=True), lambda g: [np.broadcast_to(g / area, x.shape)]


def _flatten(inputs: list[Array], _: Mapping[str, Any]) -> tuple[Array, Backward]:
    x = inputs[0]
    return x.reshape(len(x), -1), lambda g: [g.reshape(x.shape)]


def _gemm(inputs: list[Array], attributes: Mapping[str, Any]) -> tuple[Array, Backward]:
    assert attributes.get("transB") == 1
    x, weight, bias = inputs
    return x @ weight.T + bias, lambda g: [g @ weight, g.T @ x, g.sum(0)]


OPERATORS: dict[str, Callable[[list[Array], Mapping[str, Any]], tuple[Array, Backward]]] = {
    "Add": _add,
    "BatchNormalization": _norm,
    "Conv": _conv,
    "Flatten": _flatten,
    "Gemm": _gemm,
    "GlobalAveragePool": _pool,
    "Relu": _relu,
}
