"""Random small nets of convolutions, products, joins, patterns and oddities, the whole way.

Passes, search and the plans without data: every artifact loads, keeps names, types and shapes, is
finite, and is as close to float as the build was told.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
import pytest

from edgeq.api.lab import Lab
from edgeq.api.models import open_exact, read_model, write_model
from edgeq.errors import EdgeqError
from edgeq.ir import Graph
from edgeq.numerics.errors import sqnr_db
from edgeq.passes import run_all
from edgeq.quant.dynamic import dynamic_nodes, plan_dynamic
from edgeq.quant.half import plan_half
from edgeq.quant.plan import QuantPlan
from edgeq.search import static
from edgeq_converters.write.onnx import write

Shape = tuple[int, ...]
"""Sizes after the batch."""

IMAGE, TOKENS = (8, 8, 8), (6, 16)


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


def random_net(seed: int) -> Drawn:
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
        _grow(net)
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


def _grow(net: Net) -> None:
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
    elif draw < 0.96:
        normalized(net, x, shape)
    else:
        branched(net, x, shape)


# What is kept at the least, in dB. Passes only reorder float32 sums: 24 bits less some roundings.
PASSES_DB = 80.0
# float16 rounds a weight to 73 dB, int8 to 40 dB or more; a softmax of large numbers, or a
# difference of like ones, magnifies what is lost: half of either is asked. Where channels have
# unlike ranges, a plan that measures nothing may lose all: then it only has to run.
HALF_DB = 36.0
LOWERED_DB = 15.0

Feeds = dict[str, np.ndarray]
Outputs = Sequence[dict[str, np.ndarray]]


@dataclass(frozen=True)
class Case:
    """A random net with samples and what the float model makes of them."""

    seed: int
    is_skewed: bool
    source: Graph
    feeds: list[Feeds]
    wanted: Outputs

    @property
    def kept(self) -> list[Feeds]:
        return self.feeds[:8]

    def __iter__(self) -> Any:
        return iter(self.feeds)

    @property
    def pair_safe(self) -> bool:
        return self.seed % 2 == 1

    @property
    def dtype(self) -> str:
        return "uint8" if self.seed % 3 else "int8"


def run(model: bytes, feeds: Sequence[Feeds]) -> Outputs:
    session = open_exact(model, threads=1)
    try:
        return [session.run(dict(sample)) for sample in feeds]
    finally:
        session.close()


def made_case(folder: Path, seed: int) -> Case:
    net = random_net(seed)
    model = onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["" : 21]> {net.text}')
    for name, array in net.weights.items():
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(array), name))
    path = folder / f"net{seed}.onnx"
    path.write_bytes(model.SerializeToString())
    source = read_model(path, {}).graph
    rng = np.random.default_rng(seed + 10**6)
    feeds = [
        {k: rng.normal(size=(net.batch, *s)).astype(np.float32) for k, s in net.inputs.items()}
        for _ in range(1 if seed % 11 == 0 else 10)
    ]
    return Case(seed, net.is_skewed, source, feeds, run(write_model(source), feeds))


def check_outputs(case: Case, model: bytes, least_db: float, what: str) -> None:
    got = run(model, case.feeds)
    for wanted, made in zip(case.wanted, got, strict=True):
        assert list(wanted) == list(made), (case.seed, what)
        for name, array in wanted.items():
            other = made[name]
            assert (array.dtype, array.shape) == (other.dtype, other.shape), (case.seed, what, name)
            assert array.dtype.kind != "f" or np.isfinite(other).all(), (case.seed, what, name)
    for name, array in case.wanted[0].items():
        if array.dtype.kind == "f":
            left = sqnr_db(*(np.stack([row[name] for row in rows]) for rows in (case.wanted, got)))
            assert left >= least_db, (case.seed, what, name)


def check_static(case: Case, graph: Graph, lab: Lab, **options: Any) -> None:
    """The static plan, then the mixed one where layers are left to dynamic int8."""
    chosen = static.Options(pair_safe=case.pair_safe, **options)
    first = static.drafted(graph, chosen)
    if not static.has_int8(first):
        return
    found = static.find(lab, static.start(lab, graph, first, case), case, chosen)
    assert QuantPlan.from_json(found.plan.to_json()) == found.plan
    # the score is of the kept samples, and of parts; others may hold what none of these did
    least = min(8.0, found.score.worst[1] - 4.0)
    made = write(found.graph, found.plan, activation_dtype=case.dtype)
    check_outputs(case, made, least, f"static: {found.summary}")
    if chosen.float_nodes:
        mixed = plan_dynamic(found.graph, acts="dynamic", pair_safe=case.pair_safe, base=found.plan)
        made = write(found.graph, mixed, activation_dtype=case.dtype)
        check_outputs(case, made, least, f"mixed: {found.summary}")


def check_without_data(case: Case, graph: Graph) -> None:
    lowered, half = (-np.inf, -np.inf) if case.is_skewed else (LOWERED_DB, HALF_DB)
    for acts in ("dynamic", "fp32"):
        plan = plan_dynamic(graph, acts=acts, pair_safe=case.pair_safe)
        check_outputs(case, write(graph, plan), lowered, acts)
    with suppress(EdgeqError):  # [nothing-to-quantize]: no tensor is large enough
        check_outputs(case, write(graph, plan_half(graph)), half, "fp16")


def check_net(folder: Path, seed: int) -> None:
    case = made_case(folder, seed)
    graph, _ = run_all(case.source)
    check_outputs(case, write_model(graph), PASSES_DB, "passes")
    assert write_model(run_all(graph)[0]) == write_model(graph), f"{seed}: a second run changes it"
    check_without_data(case, graph)
    lab = Lab(case.dtype)
    check_static(case, graph, lab, method="p99.99" if seed % 5 == 0 else "auto")
    names = dynamic_nodes(graph)
    if names and seed % 2:
        check_static(case, graph, lab, float_nodes=dict.fromkeys(names, "dynamic"))


@pytest.mark.parametrize("start", range(0, 40, 8))
def test_random_nets_survive_the_whole_way(tmp_path: Path, start: int) -> None:
    for seed in range(start, start + 8):
        check_net(tmp_path, seed)


@pytest.mark.slow
@pytest.mark.parametrize("start", range(100, 400, 50))
def test_many_random_nets_survive_the_whole_way(tmp_path: Path, start: int) -> None:
    for seed in range(start, start + 50):
        check_net(tmp_path, seed)
