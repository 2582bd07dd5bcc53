"""Which two layers may trade a factor per channel without changing what the model computes.

For f with f(s * y) = s * f(y), s > 0, between them, W2 f(W1 x + b1) = (W2 * s) f((W1 x + b1) / s):
Nagel et al. 2019, arXiv 1906.04721. Everything that breaks it is a row of `NEVER`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import onnx_ir

from edgeq.ir import Graph, attribute, constant, is_captured, scalar
from edgeq.quant.algorithms.transform import RefusedError, only_reader

NEVER: dict[str, str] = {
    "second-reader": "`{tensor}` has a second reader, which would have to take the same factors",
    "model-output": "`{tensor}` is an output of the model",
    "in-a-body": "`{tensor}` is read inside a body, which stays as it is",
    "no-reader": "`{tensor}` has no reader",
    "not-homogeneous": "`{op}` (node `{node}`) does not scale with its input",
    "finite-top": "`{op}` (node `{node}`) ends at {top:g}, which is not exact for scaled channels",
    "finite-bottom": "`{op}` (node `{node}`) ends at {bottom:g} below zero",
    "computed-bounds": "the bounds of `{op}` (node `{node}`) are not constant",
    "joins": "`{op}` (node `{node}`) joins channels with those of another tensor",
    "moves-channels": "`{op}` (node `{node}`) mixes or moves channels",
    "splits-channels": "`{op}` (node `{node}`) splits or merges channels",
    "touches-channels": "`{op}` (node `{node}`) works along the channels",
    "padding": "`{op}` (node `{node}`) adds values other than zero",
    "second-output": "the second output of `{op}` (node `{node}`) is used",
    "unknown-op": "nothing is known of `{op}` (node `{node}`)",
    "no-layer": "the weights of `{op}` (node `{node}`) take no factors",
    "shared-weights": "the weights of `{node}` are read elsewhere too",
    "computed-weights": "the weights of `{node}` are not constant",
    "quantized-weights": "the weights of `{node}` are quantized already",
    "not-float": "the weights of `{node}` are {dtype}",
    "computed-bias": "the bias of `{node}` is not one constant value per channel",
    "transposed": "`{node}` reads its input transposed",
    "channels-differ": "`{node}` reads {wanted} channels where {made} are made",
    "fixed-encoding": "the encoding of `{tensor}` is given",
}
"""Why two layers must not be equalized."""

_LAYERS = ("Conv", "Gemm", "MatMul")

_KEEPS = (
    *("Relu", "LeakyRelu", "PRelu", "Identity", "Dropout"),
    *("MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool"),
)
"""f(s * y) = s * f(y) for s > 0, channel by channel, whatever the attributes."""

_BENDS = (
    *("Sigmoid", "HardSigmoid", "HardSwish", "Gelu", "FastGelu", "QuickGelu", "BiasGelu", "Swish"),
    *("Mish", "Elu", "Selu", "Celu", "Softplus", "Softsign", "Tanh", "Erf", "Exp", "Log"),
    *("Softmax", "LogSoftmax", "Hardmax", "LayerNormalization", "GroupNormalization"),
    *("InstanceNormalization", "BatchNormalization", "LRN", "ThresholdedRelu", "Shrink"),
    *("Reciprocal", "Sqrt", "Pow"),
)
_JOINS = ("Add", "Sub", "Mul", "Div", "Max", "Min", "Sum", "Mean", "Where")
_MOVES = ("Concat", "DepthToSpace", "SpaceToDepth", "Transpose", "Gather", "Split", "Einsum")

_KINDS = {
    **dict.fromkeys(_BENDS, "not-homogeneous"),
    **dict.fromkeys(_JOINS, "joins"),
    **dict.fromkeys(_MOVES, "moves-channels"),
    **dict.fromkeys(("ConvTranspose", "LSTM", "GRU", "RNN"), "no-layer"),
}


@dataclass(frozen=True)
class Pair:
    """`first` and `second` are layers; `tensor` is what `second` reads, `between` the way there.

    `channels` are traded. Each stands for `repeat` neighbouring inputs of `second` (a Flatten
    between). `top` is the least finite bound on the way: with it only factors >= 1 keep the values
    below it exact, and they loosen it for the others.
    """

    first: str
    second: str
    tensor: str
    channels: int
    repeat: int = 1
    between: tuple[str, ...] = ()
    top: float = math.inf


@dataclass(frozen=True)
class Pairs:
    """`legal` in topological order; `refused` has (first layer, reason) for each other layer."""

    legal: tuple[Pair, ...]
    refused: tuple[tuple[str, str], ...]


_never = partial(RefusedError, NEVER)


def find_pairs(graph: Graph, *, clips: bool = False, fixed: Collection[str] = ()) -> Pairs:
    """Every Conv, Gemm and MatMul of matrices whose output only another one reads.

    `clips` lets pairs with a finite bound between them (ReLU6) through, with their `top` set.
    `fixed` names tensors whose encoding somebody has given.
    """
    legal: list[Pair] = []
    refused: list[tuple[str, str]] = []
    for node in graph.nodes():
        if node.op_type not in _LAYERS or node.domain != "":
            continue
        if node.op_type == "MatMul" and not _of_matrices(node):
            continue
        try:
            legal.append(_pair(node, clips, fixed))
        except RefusedError as never:
            refused.append((str(node.name), str(never)))
    return Pairs(tuple(legal), tuple(refused))


def input_channels(node: onnx_ir.Node) -> int:
    """Channels that the layer `node` reads."""
    weights = constant(node.inputs[1])
    assert weights is not None
    if node.op_type == "Conv":
        return int(weights.shape[1]) * int(attribute(node, "group", 1))
    return int(weights.shape[1 if attribute(node, "transB", 0) else 0])


def output_channels(node: onnx_ir.Node) -> int:
    """Channels that the layer `node` makes."""
    weights = constant(node.inputs[1])
    assert weights is not None
    transposed = node.op_type == "Conv" or attribute(node, "transB", 0)
    return int(weights.shape[0 if transposed else 1])


def _pair(first: onnx_ir.Node, clips: bool, fixed: Collection[str]) -> Pair:
    _check_weights(first)
    _check_bias(first)
    channels = output_channels(first)
    walk = _Walk(first.outputs[0], channels, clips)
    while True:
        value, node = walk.value, _next(walk.value)
        if node.op_type in _LAYERS and node.domain == "":
            break
        walk.through(node)
    if node.inputs[0] is not value or (node.op_type == "MatMul" and not _of_matrices(node)):
        raise _never("no-layer", node)
    _check_weights(node)
    if node.op_type == "Gemm" and attribute(node, "transA", 0):
        raise _never("transposed", node)
    wanted, made = input_channels(node), channels * walk.repeat
    if wanted != made:
        raise _never("channels-differ", node, wanted=wanted, made=made)
    given = [name for name in walk.names if name in fixed]
    if given:
        raise _never("fixed-encoding", tensor=given[0])
    between, tensor = tuple(walk.nodes), str(value.name)
    return Pair(str(first.name), str(node.name), tensor, channels, walk.repeat, between, walk.top)


def _next(value: onnx_ir.Value) -> onnx_ir.Node:
    """The one node that reads `value`."""
    if value.is_graph_output():
        raise _never("model-output", tensor=value.name)
    if is_captured(value):
        raise _never("in-a-body", tensor=value.name)
    if not value.uses():
        raise _never("no-reader", tensor=value.name)
    if len(value.uses()) > 1:
        raise _never("second-reader", tensor=value.name)
    return value.consumers()[0]


def _of_matrices(node: onnx_ir.Node) -> bool:
    """Whether a MatMul is what a Gemm without bias is."""
    weights, value = constant(node.inputs[1]), node.inputs[0]
    two = value is not None and value.shape is not None and len(value.shape) == 2
    return two and weights is not None and weights.ndim == 2


def _check_weights(node: onnx_ir.Node) -> None:
    value = node.inputs[1]
    weights = constant(value)
    if value is None or weights is None:
        maker = None if value is None else value.producer()
        quantized = maker is not None and maker.op_type == "DequantizeLinear"
        raise _never("quantized-weights" if quantized else "computed-weights", node)
    if not only_reader(value):
        raise _never("shared-weights", node)
    if weights.dtype not in (np.float32, np.float64):
        raise _never("not-float", node, dtype=weights.dtype)


def _check_bias(node: onnx_ir.Node) -> None:
    value = node.inputs[2] if len(node.inputs) > 2 else None
    bias = constant(value)
    if value is None:
        return
    shapes = ((output_channels(node),), (1, output_channels(node)))
    if bias is None or bias.shape not in shapes[: 1 if node.op_type == "Conv" else 2]:
        raise _never("computed-bias", node)


class _Walk:
    """Follows one tensor from its layer to the next, as long as every channel stays its own."""

    def __init__(self, value: onnx_ir.Value, channels: int, clips: bool) -> None:
        self.value = value
        self.channels = channels
        self.clips = clips
        self.repeat = 1
        self.top = math.inf
        self.nodes: list[str] = []
        self.names = [str(value.name)]

    @property
    def rank(self) -> int:
        """0 where it is not known."""
        return 0 if self.value.shape is None else len(self.value.shape)

    def through(self, node: onnx_ir.Node) -> None:
        """Go on behind `node`, or raise the reason why not."""
        check = _CHECKS.get(node.op_type)
        if node.domain != "" or (check is None and node.op_type not in _KEEPS):
            raise _never(_KINDS.get(node.op_type, "unknown-op"), node)
        if node.inputs[0] is not self.value:
            raise _never("joins", node)
        if any(value.uses() or value.is_graph_output() for value in node.outputs[1:]):
            raise _never("second-output", node)
        if check is not None:
            check(self, node)
        self.value = node.outputs[0]
        self.nodes.append(str(node.name))
        self.names.append(str(self.value.name))


def _clip(walk: _Walk, node: onnx_ir.Node) -> None:
    bounds = [-math.inf, math.inf]
    for at, value in enumerate(node.inputs[1:3]):
        number = scalar(value)
        if value is not None and number is None:
            raise _never("computed-bounds", node)
        bounds[at] = bounds[at] if number is None else number
    bottom, top = bounds
    if bottom not in (0.0, -math.inf):
        raise _never("finite-bottom", node, bottom=bottom)
    if top != math.inf and not (walk.clips and top > 0.0):
        raise _never("finite-top", node, top=top)
    walk.top = min(walk.top, top)


def _pad(walk: _Walk, node: onnx_ir.Node) -> None:
    mode = attribute(node, "mode", "constant")
    filler = node.inputs[2] if len(node.inputs) > 2 else None
    if mode == "constant" and filler is not None and scalar(filler) != 0.0:
        raise _never("padding", node)
    pads, axes = constant(node.inputs[1]), _axes(node, 3)
    if pads is None or axes is None or not walk.rank:
        raise _never("touches-channels", node)
    pairs = zip(axes or range(walk.rank), pads.reshape(2, -1).T, strict=True)
    if any(axis % walk.rank == 1 and pair.any() for axis, pair in pairs):
        raise _never("touches-channels", node)


def _slice(walk: _Walk, node: onnx_ir.Node) -> None:
    axes = _axes(node, 3)
    if not axes or not walk.rank or any(axis % walk.rank == 1 for axis in axes):
        raise _never("touches-channels", node)


def _resize(walk: _Walk, node: onnx_ir.Node) -> None:
    if attribute(node, "coordinate_transformation_mode", "half_pixel") == "tf_crop_and_resize":
        raise _never("padding", node)
    shape = node.outputs[0].shape
    if walk.rank < 3 or shape is None or shape[1] != walk.channels:
        raise _never("touches-channels", node)


def _reshape(walk: _Walk, node: onnx_ir.Node) -> None:
    """Channels stay on axis 1, or are laid out one behind the other in a matrix (Flatten)."""
    before, after = walk.value.shape, node.outputs[0].shape
    if before is None or after is None or len(before) < 2 or len(after) < 2 or walk.repeat != 1:
        raise _never("splits-channels", node)
    inner = _size(before[1:])
    rows_stay = isinstance(before[0], int) and before[0] == after[0]
    if before[1] == walk.channels and (rows_stay or (inner and inner == _size(after[1:]))):
        if after[1] == walk.channels:
            return
        if inner and len(after) == 2 and after[1] == inner:
            walk.repeat = inner // walk.channels
            return
    raise _never("splits-channels", node)


def _size(sizes: Sequence[int | onnx_ir.SymbolicDim]) -> int:
    """The product of `sizes`, 0 where one is not known."""
    return math.prod(size if isinstance(size, int) else 0 for size in sizes)


def _squeeze(walk: _Walk, node: onnx_ir.Node) -> None:
    """Axes behind the channels may come and go."""
    axes = _axes(node, 1)
    rank = walk.rank + len(axes or ()) * (node.op_type == "Unsqueeze")
    if not walk.rank or not axes or any(axis % rank < 2 for axis in axes):
        raise _never("splits-channels", node)


def _axes(node: onnx_ir.Node, at: int) -> list[int] | None:
    """Constant axes given as input `at`; [] where the input is left out, None where computed."""
    value = node.inputs[at] if len(node.inputs) > at else None
    if value is None:
        return []
    array = constant(value)
    return None if array is None else [int(axis) for axis in array.reshape(-1)]


_CHECKS: dict[str, Callable[[_Walk, onnx_ir.Node], None]] = {
    "Clip": _clip,
    "Pad": _pad,
    "Slice": _slice,
    "Resize": _resize,
    "Flatten": _reshape,
    "Reshape": _reshape,
    "Squeeze": _squeeze,
    "Unsqueeze": _squeeze,
}
"""Ops that keep channels apart depending on how they are used."""
