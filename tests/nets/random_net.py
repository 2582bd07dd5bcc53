"""Random small nets as ONNX models: convolutions, products, joins, patterns and oddities.

The same seed is the same net. `random_net` of tests/conftest.py loads this file.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import onnx

Shape = tuple[int, ...]
"""Sizes after the batch."""

IMAGE, TOKENS = (8, 8, 8), (6, 16)

Grow = Callable[["Net"], None]
"""Adds a step to a net."""


@dataclass
class Net:
    """A net while it grows: `tensors` are (name, shape) in the order they were made."""

    rng: np.random.Generator
    batch: str
    tensors: list[tuple[str, Shape]] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    weights: dict[str, np.ndarray] = field(default_factory=dict)
    outputs: list[str] = field(default_factory=list)
    skew: float = 0.0
    """Standard deviation of the logarithm of what each row of a constant is multiplied with."""
    bodies: bool = True
    """Whether an op may hold graphs of its own."""

    def constant(self, *shape: int, gain: float = 1.0) -> str:
        """Normal numbers; now and then those of an earlier constant of this shape."""
        same = [k for k, v in self.weights.items() if v.shape == shape and v.dtype == np.float32]
        if same and self.rng.random() < 0.15:
            return same[int(self.rng.integers(len(same)))]
        rows = np.exp(self.rng.normal(size=shape[:1] + (1,) * (len(shape) - 1)) * self.skew)
        return self.held((self.rng.normal(size=shape) * gain * rows).astype(np.float32))

    def held(self, array: np.ndarray) -> str:
        name = f"k{len(self.weights)}"
        self.weights[name] = array
        return name

    def add(self, expression: str, shape: Shape) -> str:
        name = f"t{len(self.lines)}"
        self.lines.append(f"{name} = {expression}")
        self.tensors.append((name, shape))
        return name

    def part(self, expression: str) -> str:
        """A step of a pattern: nothing else reads it."""
        name = f"p{len(self.lines)}"
        self.lines.append(f"{name} = {expression}")
        return name

    def pick(self, rank: int) -> tuple[str, Shape]:
        """One of the last tensors of `rank` sizes after the batch."""
        able = [row for row in self.tensors if len(row[1]) == rank][-4:]
        return able[int(self.rng.integers(len(able)))]

    def other(self, shape: Shape, name: str) -> str:
        able = [row for row, sizes in self.tensors if sizes == shape]
        return able[int(self.rng.integers(len(able)))] if able else name


def conv(net: Net) -> None:
    x, (channels, height, width) = net.pick(3)
    kind = net.rng.choice(["plain", "plain", "depthwise", "grouped"])
    group = {"plain": 1, "depthwise": channels, "grouped": 2 if channels % 2 == 0 else 1}[kind]
    made = channels if kind == "depthwise" else int(net.rng.choice([4, 8, 12]))
    kernel, stride = int(net.rng.choice([1, 3])), int(net.rng.choice([1, 1, 1, 2]))
    stride = 1 if min(height, width) < 4 else stride
    fan = channels // group * kernel * kernel
    w = net.constant(made, channels // group, kernel, kernel, gain=fan**-0.5)
    b = f", {net.constant(made, gain=0.1)}" if net.rng.random() < 0.7 else ""
    pad = kernel // 2
    y = net.add(
        f"Conv <group = {group}, strides = [{stride}, {stride}], pads = [{pad}, {pad}, {pad}, "
        f"{pad}]> ({x}, {w}{b})",
        (made, -(-height // stride), -(-width // stride)),
    )
    if net.rng.random() < 0.3:
        terms = [net.held(net.rng.uniform(0.5, 1.5, made).astype(np.float32)) for _ in "sv"]
        shifts = [net.constant(made, gain=0.1) for _ in "bm"]
        net.add(
            f"BatchNormalization ({y}, {terms[0]}, {', '.join(shifts)}, {terms[1]})",
            net.tensors[-1][1],
        )


def elementwise(net: Net, x: str, shape: Shape) -> None:
    """Activations as ops and as the patterns that exporters write."""
    three, six, sixth = (net.held(np.float32(v)) for v in (3, 6, 1 / 6))
    zero, one, half, root = (net.held(np.float32(v)) for v in (0, 1, 0.5, 2**0.5))
    kind = str(net.rng.choice(list(_ACTIVATIONS)))
    if kind == "silu":
        net.add(f"Mul ({x}, {net.part(f'Sigmoid ({x})')})", shape)
    elif kind == "hard-swish":
        gate = net.part(f"Clip ({net.part(f'Add ({x}, {three})')}, {zero}, {six})")
        net.add(f"Mul ({net.part(f'Mul ({x}, {gate})')}, {sixth})", shape)
    elif kind == "hard-sigmoid":
        gate = net.part(f"Clip ({net.part(f'Add ({x}, {three})')}, {zero}, {six})")
        net.add(f"Div ({gate}, {six})", shape)
    elif kind == "gelu":
        erf = net.part(f"Erf ({net.part(f'Div ({x}, {root})')})")
        gate = net.part(f"Mul ({x}, {net.part(f'Add ({erf}, {one})')})")
        net.add(f"Mul ({gate}, {half})", shape)
    elif kind == "clip":
        ends = [(0, 6), (-1, 1), (-1, 0), (0, 0), (0, 1e30), (0.5, 2)]
        low, high = (net.held(np.float32(v)) for v in ends[int(net.rng.integers(len(ends)))])
        net.add(f"Clip ({x}, {low}, {high})", shape)
    else:
        net.add(f"{_ACTIVATIONS[kind]} ({x})", shape)


_ACTIVATIONS = {
    "relu": "Relu",
    "clip": "",
    "sigmoid": "Sigmoid",
    "leaky": "LeakyRelu <alpha = 0.2>",
    "tanh": "Tanh",
    "silu": "",
    "hard-swish": "",
    "hard-sigmoid": "",
    "gelu": "",
    "neg": "Neg",
}


def joined(net: Net, x: str, shape: Shape) -> None:
    y = net.other(shape, x)
    kind = str(net.rng.choice(["Add", "Mul", "Sub", "Concat", "constant", "Max"]))
    if kind == "Concat":
        axis = int(net.rng.integers(len(shape)))
        sizes = tuple(size * (1 + (at == axis)) for at, size in enumerate(shape))
        net.add(f"Concat <axis = {axis + 1}> ({x}, {y})", sizes)
    elif kind == "constant":
        op = str(net.rng.choice(["Add", "Mul", "Div", "Sub"]))
        sizes = () if net.rng.random() < 0.3 else (1,) * len(shape) + shape[-1:]
        huge = 1e6 if net.rng.random() < 0.1 else 1.0
        k = net.held((net.rng.uniform(0.5, 2.0, sizes) * huge).astype(np.float32))
        net.add(f"{op} ({x}, {k})" if net.rng.random() < 0.8 else f"{op} ({x}, {x})", shape)
    else:
        net.add(f"{kind} ({x}, {y})", shape)


def moved(net: Net, x: str, shape: Shape) -> None:
    last = len(shape)
    kind = str(net.rng.choice(["split", "slice", "transpose", "gather", "reshape", "line"]))
    if kind == "split" and shape[-1] % 2 == 0:
        left, right = f"s{len(net.lines)}", f"r{len(net.lines)}"
        net.lines.append(f"{left}, {right} = Split <axis = {last}, num_outputs = 2> ({x})")
        half = (*shape[:-1], shape[-1] // 2)
        net.tensors += [(left, half)] + ([(right, half)] if net.rng.random() < 0.7 else [])
    elif kind == "slice" and shape[0] > 2:
        at = [net.held(np.array([v], np.int64)) for v in (1, shape[0], 1)]
        net.add(f"Slice ({x}, {', '.join(at)})", (shape[0] - 1, *shape[1:]))
    elif kind == "line" and last == 2 and shape[1] > 2:
        line(net, x, shape)
    elif kind == "gather" and last > 1 and shape[0] > 1:
        net.add(f"Gather <axis = 1> ({x}, {net.held(np.array([0, 1], np.int64))})", (2, *shape[1:]))
    elif kind == "reshape":
        k = net.held(np.array([0, -1, shape[-1]], np.int64))
        net.add(f"Reshape ({x}, {k})", (int(np.prod(shape[:-1])), shape[-1]))
    elif last > 1:
        order = [*range(last - 1), last, last - 1]
        perm = ", ".join(str(at) for at in order)
        net.add(f"Transpose <perm = [{perm}]> ({x})", (*shape[:-2], shape[-1], shape[-2]))


def line(net: Net, x: str, shape: Shape) -> None:
    """A convolution of one dimension, or of three on an axis made up."""
    channels, size = shape
    if net.rng.random() < 0.5:
        w = net.constant(4, channels, 3, gain=(3 * channels) ** -0.5)
        net.add(f"Conv <pads = [1, 1]> ({x}, {w})", (4, size))
        return
    axes = net.held(np.array([2, 3], np.int64))
    w = net.constant(4, channels, 1, 1, 3, gain=(3 * channels) ** -0.5)
    solid = net.part(f"Conv ({net.part(f'Unsqueeze ({x}, {axes})')}, {w})")
    net.add(f"Squeeze ({solid}, {axes})", (4, size - 2))


def spatial(net: Net) -> None:
    x, (channels, height, width) = net.pick(3)
    kind = str(net.rng.choice(["max", "average", "global", "mean", "resize", "se"]))
    if kind in ("max", "average"):
        op = {"max": "MaxPool", "average": "AveragePool"}[kind]
        net.add(
            f"{op} <kernel_shape = [3, 3], pads = [1, 1, 1, 1]> ({x})", (channels, height, width)
        )
    elif kind == "global":
        net.add(f"Flatten ({net.part(f'GlobalAveragePool ({x})')})", (channels,))
    elif kind == "mean":
        axes = net.held(np.array([2, 3], np.int64))
        keep = int(net.rng.integers(2))
        shape = (channels, 1, 1) if keep else (channels,)
        net.add(f"ReduceMean <keepdims = {keep}> ({x}, {axes})", shape)
    elif kind == "resize" and height <= 8:
        k = net.held(np.array([1, 1, 2, 2], np.float32))
        net.add(
            f'Resize <mode = "nearest", coordinate_transformation_mode = "asymmetric", '
            f'nearest_mode = "floor"> ({x}, , {k})',
            (channels, 2 * height, 2 * width),
        )
    else:
        w = net.constant(channels, channels, 1, 1, gain=channels**-0.5)
        gate = net.part(f"Conv ({net.part(f'GlobalAveragePool ({x})')}, {w})")
        net.add(f"Mul ({x}, {net.part(f'HardSigmoid ({gate})')})", (channels, height, width))


def product(net: Net, x: str, shape: Shape) -> None:
    depth, made = shape[-1], int(net.rng.choice([4, 10, 16]))
    kind = str(net.rng.choice(["matmul", "linear", "gemm", "attention", "left", "vector"]))
    if kind == "gemm" and len(shape) == 1:
        flags = str(net.rng.choice(["transB = 0", "transB = 1", "alpha = 0.5", "beta = 2.0"]))
        size = (made, depth) if flags == "transB = 1" else (depth, made)
        w, b = net.constant(*size, gain=depth**-0.5), net.constant(made, gain=0.1)
        net.add(f"Gemm <{flags}> ({x}, {w}, {b})", (made,))
    elif kind == "attention" and len(shape) == 2:
        turned = net.part(f"Transpose <perm = [0, 2, 1]> ({x})")
        scaled = net.part(f"Mul ({net.part(f'MatMul ({q}, {k})')}, {half})")
    scores = net.part(f"Softmax ({scaled})")
    mixed = net.part(f"Transpose <perm = [0, 2, 1, 3]> ({net.part(f'MatMul ({scores}, {v})')})")
    net.add(f"Reshape ({mixed}, {back})", (rows, 8))


_ON_IMAGES: tuple[Callable[[Net, str, Shape], None], ...] = (
    transposed_conv,
    strange_conv,
    strange_conv,
    pooled,
    resized,
    shuffled,
    channels_last,
    as_tokens,
    sloped,
    normed_image,
)
_ON_ANY: tuple[Callable[[Net, str, Shape], None], ...] = (turned, padded, reduced, heads)
