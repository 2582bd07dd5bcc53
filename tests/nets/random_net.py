"""Random small nets as ONNX models: convolutions, products, joins, patterns and oddities.

The same seed is the same net. The fixture `random_nets` of tests/conftest.py loads this file.
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
        scores = net.part(f"Softmax ({net.part(f'MatMul ({x}, {turned})')})")
        net.add(f"MatMul ({scores}, {x})", shape)
    elif kind == "vector" and len(shape) == 2:
        net.add(f"MatMul ({x}, {net.constant(depth, gain=depth**-0.5)})", shape[:-1])
    elif kind == "left" and len(shape) == 2:
        w = net.constant(made, shape[0], gain=shape[0] ** -0.5)
        net.add(f"MatMul ({w}, {x})", (made, depth))
    else:
        w = net.constant(depth, made, gain=depth**-0.5)
        y = f"MatMul ({x}, {w})"
        if kind == "matmul":
            net.add(y, (*shape[:-1], made))
        else:
            net.add(f"Add ({net.part(y)}, {net.constant(made, gain=0.1)})", (*shape[:-1], made))


def normalized(net: Net, x: str, shape: Shape) -> None:
    depth = shape[-1]
    g, b = net.held(net.rng.uniform(0.5, 1.5, depth).astype(np.float32)), net.constant(depth)
    kind = str(net.rng.choice(["op", "pattern", "softmax", "l2"]))
    if kind == "op":
        net.add(f"LayerNormalization <axis = -1> ({x}, {g}, {b})", shape)
    elif kind == "softmax":
        net.add(f"Softmax <axis = -1> ({x})", shape)
    elif kind == "pattern":
        axes, two, eps = (
            net.held(np.array([-1], np.int64)),
            net.held(np.float32(2)),
            net.held(np.float32(1e-5)),
        )
        centred = net.part(f"Sub ({x}, {net.part(f'ReduceMean ({x}, {axes})')})")
        power = net.part(f"ReduceMean ({net.part(f'Pow ({centred}, {two})')}, {axes})")
        spread = net.part(f"Sqrt ({net.part(f'Add ({power}, {eps})')})")
        unit = net.part(f"Div ({centred}, {spread})")
        net.add(f"Add ({net.part(f'Mul ({unit}, {g})')}, {b})", shape)
    else:
        net.add(f"Tanh ({x})", shape)


def branched(net: Net, x: str, shape: Shape) -> None:
    """An If whose bodies read a tensor from outside."""
    limit = net.held(np.float32(net.rng.normal()))
    test = net.part(f"Greater ({net.part(f'ReduceMax <keepdims = 0> ({x})')}, {limit})")
    at = len(net.lines)
    k = net.constant(shape[-1])
    net.add(
        f"If ({test}) <then_branch: graph = a{at} () => (u{at}) {{ u{at} = Mul ({x}, {k}) }}, "
        f"else_branch: graph = e{at} () => (v{at}) {{ v{at} = Sigmoid ({x}) }}>",
        shape,
    )


def odd_output(net: Net) -> None:
    """Outputs that are no new float tensor: integers, a condition, a shape, a weight, an input."""
    x, shape = net.tensors[int(net.rng.integers(len(net.tensors)))]
    kind = str(net.rng.choice(["argmax", "bool", "weight", "shape", "empty", "copy"]))
    name = f"o{len(net.lines)}"
    rank = ", ".join("?" for _ in shape)
    if kind == "argmax":
        net.lines.append(f"{name} = ArgMax <axis = -1, keepdims = 1> ({x})")
        net.outputs.append(f"int64[{net.batch}, {rank}] {name}")
    elif kind == "bool":
        net.lines.append(f"{name} = Less ({x}, {net.held(np.float32(0.1))})")
        net.outputs.append(f"bool[{net.batch}, {rank}] {name}")
    elif kind == "shape":
        net.lines.append(f"{name} = Shape ({x})")
        net.outputs.append(f"int64[{len(shape) + 1}] {name}")
    elif kind == "empty":
        at = [net.held(np.array([v], np.int64)) for v in (0, 0, 1)]
        net.lines.append(f"{name} = Slice ({x}, {', '.join(at)})")
        net.outputs.append(f"float[{net.batch}, {rank}] {name}")
    elif kind == "copy":
        net.lines.append(f"{name} = Identity ({x})")
        net.outputs.append(f"float[{net.batch}, {rank}] {name}")
    elif kind == "weight":
        able = [k for k, v in net.weights.items() if v.dtype == np.float32 and v.ndim > 1]
        if able:
            sizes = ", ".join(str(size) for size in net.weights[able[0]].shape)
            net.outputs.append(f"float[{sizes}] {able[0]}")


class Drawn(NamedTuple):
    """`inputs` have their sizes after the batch."""

    text: str
    weights: dict[str, np.ndarray]
    inputs: dict[str, Shape]
    batch: int
    is_skewed: bool

    def model(self) -> onnx.ModelProto:
        model = onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["" : 21]> {self.text}')
        for name, array in self.weights.items():
            model.graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(array), name))
        return model

    def samples(self, seed: int, count: int) -> list[dict[str, np.ndarray]]:
        """Normal inputs."""
        rng = np.random.default_rng(seed + 10**6)
        shapes = {name: (self.batch, *shape) for name, shape in self.inputs.items()}
        return [
            {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
            for _ in range(count)
        ]


def random_net(seed: int, grow: Grow | None = None) -> Drawn:
    """The net of `seed`; `grow` adds a step to it, by default one that any ONNX engine can run."""
    grow = grow or grow_any
    rng = np.random.default_rng(seed)
    batch = str(rng.choice(["1", "N", "2"]))
    net = Net(rng, batch, skew=float(rng.choice([0.0, 0.0, 1.0, 2.0])))
    inputs: dict[str, Shape] = {}
    if rng.random() < 0.7:
        inputs["x"] = IMAGE
    if not inputs or rng.random() < 0.3:
        inputs["z"] = TOKENS if rng.random() < 0.6 else (16,)
    net.tensors += inputs.items()
    for _ in range(int(rng.integers(4, 18))):
        grow(net)
    ends = {net.tensors[-1], net.tensors[int(rng.integers(len(net.tensors)))]}
    sizes = sorted((name, shape) for name, shape in ends)
    for name, shape in sizes:
        text = ", ".join(str(size) for size in (batch, *shape))
        net.outputs.append(f"float[{text}] {name}")
    if rng.random() < 0.3:
        odd_output(net)
    given = [f"float[{', '.join(map(str, (batch, *s)))}] {name}" for name, s in inputs.items()]
    outputs = list(dict.fromkeys(net.outputs))
    text = f"g ({', '.join(given)}) => ({', '.join(outputs)}) {{\n" + "\n".join(net.lines) + "\n}"
    return Drawn(text, net.weights, inputs, 1 if batch == "1" else 2, net.skew > 0.0)


def grow_any(net: Net) -> None:
    rng = net.rng
    x, shape = (
        net.tensors[-1] if rng.random() < 0.6 else net.tensors[rng.integers(len(net.tensors))]
    )
    images = any(len(sizes) == 3 for _, sizes in net.tensors)
    draw = rng.random()
    if images and draw < 0.3:
        conv(net)
    elif images and draw < 0.38:
        spatial(net)
    elif draw < 0.55 and shape[-1] > 1:
        product(net, x, shape)
    elif draw < 0.7:
        elementwise(net, x, shape)
    elif draw < 0.82:
        joined(net, x, shape)
    elif draw < 0.9:
        moved(net, x, shape)
    elif draw < 0.96 or not net.bodies:
        normalized(net, x, shape)
    else:
        branched(net, x, shape)


def grow_edge(net: Net) -> None:
    """A step that nets for the edge take, in any format: more that has or moves axes, no bodies."""
    rng = net.rng
    net.bodies = False
    if rng.random() < 0.6:
        grow_any(net)
        return
    images = [row for row in net.tensors if len(row[1]) == 3 and max(row[1][1:]) <= 16]
    able = [row for row in net.tensors if len(row[1]) > 1]
    if images and rng.random() < 0.7:
        _ON_IMAGES[int(rng.integers(len(_ON_IMAGES)))](net, *images[-1])
    elif able:
        _ON_ANY[int(rng.integers(len(_ON_ANY)))](net, *able[-1])
    else:
        elementwise(net, *net.tensors[-1])


def transposed_conv(net: Net, x: str, shape: Shape) -> None:
    channels, height, width = shape
    made, kernel = int(net.rng.choice([4, 8])), int(net.rng.choice([2, 3]))
    w = net.constant(channels, made, kernel, kernel, gain=channels**-0.5)
    net.add(
        f"ConvTranspose <strides = [2, 2]> ({x}, {w}, {net.constant(made, gain=0.1)})",
        (made, 2 * (height - 1) + kernel, 2 * (width - 1) + kernel),
    )


def strange_conv(net: Net, x: str, shape: Shape) -> None:
    """Dilated, padded unevenly, grouped, or of a kernel that is no square."""
    channels, height, width = shape
    tall, wide = int(net.rng.choice([1, 3])), int(net.rng.choice([1, 3]))
    step, group = int(net.rng.choice([1, 2])), int(net.rng.choice([1, channels]))
    tall_pad, wide_pad = step * (tall - 1), step * (wide - 1)
    pads = [tall_pad, wide_pad // 2, 0, wide_pad - wide_pad // 2]
    made = group * int(net.rng.choice([1, 2])) if group > 1 else 8
    w = net.constant(made, channels // group, tall, wide, gain=(channels // group * 3) ** -0.5)
    net.add(
        f"Conv <group = {group}, dilations = [{step}, {step}], pads = {pads}> ({x}, {w})",
        (made, height, width),
    )


def pooled(net: Net, x: str, shape: Shape) -> None:
    channels, height, width = shape
    if min(height, width) < 2:
        elementwise(net, x, shape)
        return
    kind = str(net.rng.choice(["MaxPool", "AveragePool", "AveragePool <count_include_pad = 1>"]))
    op, _, more = kind.partition(" <")
    more = f", {more[:-1]}" if more else ""
    pad = int(net.rng.integers(2))
    sizes = [(size + pad - 2) // 2 + 1 for size in (height, width)]
    net.add(
        f"{op} <kernel_shape = [2, 2], strides = [2, 2], pads = [{pad}, {pad}, 0, 0]{more}> ({x})",
        (channels, *sizes),
    )


def resized(net: Net, x: str, shape: Shape) -> None:
    channels, height, width = shape
    how = str(net.rng.choice(["half_pixel", "align_corners", "asymmetric", "pytorch_half_pixel"]))
    mode = str(net.rng.choice(["linear", "nearest"])) if how == "half_pixel" else "linear"
    sizes = (2 * height, 2 * width) if net.rng.random() < 0.6 else (height + height // 2, width)
    k = net.held(np.array([1.0, 1.0, sizes[0] / height, sizes[1] / width], np.float32))
    more = ', nearest_mode = "round_prefer_floor"' if mode == "nearest" else ""
    net.add(
        f'Resize <mode = "{mode}", coordinate_transformation_mode = "{how}"{more}> ({x}, , {k})',
        (channels, *sizes),
    )


def shuffled(net: Net, x: str, shape: Shape) -> None:
    """Channels into space, space into channels, or the channels dealt out anew (ShuffleNet)."""
    channels, height, width = shape
    if net.rng.random() < 0.4 and channels % 4 == 0:
        mode = str(net.rng.choice(["DCR", "CRD"]))
        net.add(
            f'DepthToSpace <blocksize = 2, mode = "{mode}"> ({x})',
            (channels // 4, 2 * height, 2 * width),
        )
    elif net.rng.random() < 0.5 and height % 2 == 0 and width % 2 == 0:
        net.add(f"SpaceToDepth <blocksize = 2> ({x})", (4 * channels, height // 2, width // 2))
    elif channels % 2 == 0:
        apart = net.held(np.array([0, 2, channels // 2, height, width], np.int64))
        back = net.held(np.array([0, channels, height, width], np.int64))
        dealt = net.part(
            f"Transpose <perm = [0, 2, 1, 3, 4]> ({net.part(f'Reshape ({x}, {apart})')})"
        )
        net.add(f"Reshape ({dealt}, {back})", shape)


def channels_last(net: Net, x: str, shape: Shape) -> None:
    """What ConvNeXt does: a norm and products with the channels last, and a way back."""
    channels, height, width = shape
    last = net.part(f"Transpose <perm = [0, 2, 3, 1]> ({x})")
    g, b = net.held(net.rng.uniform(0.5, 1.5, channels).astype(np.float32)), net.constant(channels)
    if net.rng.random() < 0.5 and channels > 1:
        last = net.part(f"LayerNormalization <axis = -1> ({last}, {g}, {b})")
    made = net.part(f"MatMul ({last}, {net.constant(channels, 8, gain=channels**-0.5)})")
    if net.rng.random() < 0.8:
        net.add(f"Transpose <perm = [0, 3, 1, 2]> ({made})", (8, height, width))
    else:
        net.add(f"Relu ({made})", (height, width, 8))


def as_tokens(net: Net, x: str, shape: Shape) -> None:
    """An image's places as the rows of a matrix (ViT), or all of it as one line."""
    channels, height, width = shape
    size = channels * height * width
    if net.rng.random() < 0.6:
        k = net.held(np.array([0, channels, height * width], np.int64))
        rows = net.part(f"Reshape ({x}, {k})")
        net.add(f"Transpose <perm = [0, 2, 1]> ({rows})", (height * width, channels))
    else:
        w = net.constant(size, 8, gain=size**-0.5)
        net.add(f"MatMul ({net.part(f'Flatten ({x})')}, {w})", (8,))


def sloped(net: Net, x: str, shape: Shape) -> None:
    slope = net.held(net.rng.uniform(-0.2, 0.5, (shape[0], 1, 1)).astype(np.float32))
    net.add(f"PRelu ({x}, {slope})", shape)


def normed_image(net: Net, x: str, shape: Shape) -> None:
    g, b = (net.held(net.rng.uniform(0.5, 1.5, shape[0]).astype(np.float32)) for _ in "gb")
    if shape[1] * shape[2] > 1:
        net.add(f"InstanceNormalization ({x}, {g}, {b})", shape)


def turned(net: Net, x: str, shape: Shape) -> None:
    order = [int(at) for at in net.rng.permutation(len(shape))]
    perm = [0, *(at + 1 for at in order)]
    net.add(f"Transpose <perm = {perm}> ({x})", tuple(shape[at] for at in order))


def padded(net: Net, x: str, shape: Shape) -> None:
    before = [int(net.rng.integers(2)) for _ in shape]
    k = net.held(np.array([0, *before, 0, *([1] * len(shape))], np.int64))
    mode = str(net.rng.choice(["constant", "constant", "edge"]))
    sizes = tuple(size + at + 1 for size, at in zip(shape, before, strict=True))
    net.add(f'Pad <mode = "{mode}"> ({x}, {k})', sizes)


def reduced(net: Net, x: str, shape: Shape) -> None:
    op = str(net.rng.choice(["ReduceMean", "ReduceMax", "ReduceSum", "ReduceMin"]))
    axis, keep = int(net.rng.integers(len(shape))), int(net.rng.integers(2))
    axes = net.held(np.array([axis + 1], np.int64))
    sizes = [1 if at == axis else size for at, size in enumerate(shape)]
    if not keep:
        sizes.pop(axis)
    net.add(f"{op} <keepdims = {keep}> ({x}, {axes})", tuple(sizes))


def heads(net: Net, x: str, shape: Shape) -> None:
    """Attention of two heads over the last two axes."""
    rows, depth = (int(np.prod(shape[:-1])), shape[-1])
    w = [net.constant(depth, 8, gain=depth**-0.5) for _ in "qkv"]
    flat, four, back = (
        net.held(np.array(sizes, np.int64))
        for sizes in ([0, rows, depth], [0, rows, 2, 4], [0, rows, 8])
    )
    base = net.part(f"Reshape ({x}, {flat})")
    turns = ("[0, 2, 1, 3]", "[0, 2, 3, 1]", "[0, 2, 1, 3]")
    q, k, v = (_head(net, base, one, four, turn) for one, turn in zip(w, turns, strict=True))
    half = net.held(np.float32(0.5))
    scaled = net.part(f"Mul ({net.part(f'MatMul ({q}, {k})')}, {half})")
    mixed = net.part(f"MatMul ({net.part(f'Softmax ({scaled})')}, {v})")
    joined = net.part(f"Transpose <perm = [0, 2, 1, 3]> ({mixed})")
    net.add(f"Reshape ({joined}, {back})", (rows, 8))


def _head(net: Net, x: str, weight: str, sizes: str, turn: str) -> str:
    apart = net.part(f"Reshape ({net.part(f'MatMul ({x}, {weight})')}, {sizes})")
    return net.part(f"Transpose <perm = {turn}> ({apart})")


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
