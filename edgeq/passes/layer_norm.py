"""(x - mean) / sqrt(variance + epsilon) * gain + offset over the last axes: `LayerNormalization`.

The variance may be the mean of squared deviations or mean(x * x) - mean * mean, with Max(.., 0) or
without; the root Sqrt and Div, Reciprocal, or Pow(-0.5); the gain may come before the deviation;
gain and offset may be missing (Ba et al., arXiv 1607.06450, equation 4). Spelled out, it has
tensors whose ranges int8 cannot hold; fused it is one node, in float. Equal up to the roundings of
the two sums, which mean(x * x) - mean * mean magnifies where the mean is large: there the fused
node is the more exact one.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx_ir

from edgeq.ir import Graph, constant, sole_consumer
from edgeq.passes.edit import add_initializer
from edgeq.passes.match import Nodes, merge, number_beside, why_not_float32, why_not_merged
from edgeq.passes.moments import Mean, deviation, maker, variance_of
from edgeq.passes.report import Log

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class _Part:
    """What was found so far: `root` makes it out of `nodes`; constants as they are stored."""

    root: onnx_ir.Node
    nodes: Nodes
    gain: Array | None = None
    offset: Array | None = None


def run(graph: Graph, log: Log) -> None:
    """Only in float32, and where nothing else reads a step between."""
    for node in graph.nodes():
        found = None if node.graph is None else _root(node)
        if found is None:
            continue
        mean, epsilon, below = found
        part = _whole(mean, node, below)
        reason = _why_not(mean, part)
        if part is None or reason is not None:
            log.refuse(node, reason or "")
            continue
        sizes = _sizes(mean)
        gain = np.ones(1, np.float32) if part.gain is None else part.gain
        inputs = [mean.source, _store(graph, part, "gain", gain, sizes)]
        if part.offset is not None:
            inputs.append(_store(graph, part, "offset", part.offset, sizes))
        settings = {"axis": mean.axes[0] - len(mean.source.shape or ()), "epsilon": epsilon}
        fused = merge(part.nodes, part.root, "LayerNormalization", inputs, settings)
        count = len(set(part.nodes))
        log.change(f"{count} nodes became `LayerNormalization` (node `{fused.name}`)")


def _why_not(mean: Mean, part: _Part | None) -> str | None:
    rank, sizes = len(mean.source.shape or ()), _sizes(mean)
    if mean.axes != tuple(range(rank - len(mean.axes), rank)):
        return f"it normalizes along the axes {list(mean.axes)} of {rank}, not along the last"
    if len(sizes) != len(mean.axes):
        return "how many elements it normalizes together is not known"
    if part is None:
        return "what follows is not (x - mean) divided by it, with one reader at each step"
    for array in (part.gain, part.offset):
        if array is not None and not _fits(array, sizes, rank):
            return f"its gain or offset has the shape {list(array.shape)}"
    return why_not_float32(mean.source) or why_not_merged(part.nodes, part.root)


def _sizes(mean: Mean) -> tuple[int, ...]:
    """The known sizes among the last axes, as many as are normalized."""
    shape = mean.source.shape or ()
    return tuple(size for size in shape[mean.axes[0] :] if isinstance(size, int))


def _fits(array: Array, sizes: tuple[int, ...], rank: int) -> bool:
    """Whether `array` varies along the normalized axes only, and widens none."""
    if array.ndim > rank:
        return False
    shape = (1,) * (rank - array.ndim) + array.shape
    rows, own = shape[: rank - len(sizes)], shape[rank - len(sizes) :]
    return set(rows) <= {1} and all(a in (1, b) for a, b in zip(own, sizes, strict=True))


def _store(
    graph: Graph, part: _Part, name: str, array: Array, sizes: tuple[int, ...]
) -> onnx_ir.Value:
    rows = array.reshape(array.shape[max(0, array.ndim - len(sizes)) :])
    whole = np.ascontiguousarray(np.broadcast_to(rows, sizes))
    return add_initializer(graph, f"{part.root.outputs[0].name}_{name}", whole)


def _root(node: onnx_ir.Node) -> tuple[Mean, float, Nodes] | None:
    """(mean, epsilon, nodes) where `node` makes (variance + epsilon) ** 0.5 or ** -0.5."""
    if node.domain != "" or node.op_type not in ("Sqrt", "Pow"):
        return None
    if node.op_type == "Pow" and number_beside(node.inputs[1], node.outputs[0]) != -0.5:
        return None
    add = maker(node.inputs[0], "Add")
    for at in () if add is None else (0, 1):
        assert add is not None
        epsilon = number_beside(add.inputs[1 - at], add.outputs[0])
        found = None if epsilon is None else variance_of(add.inputs[at])
        if found is not None and epsilon is not None and epsilon >= 0.0:
            return found[0], epsilon, (*found[1], add, node)
    return None


def _whole(mean: Mean, node: onnx_ir.Node, below: Nodes) -> _Part | None:
    """All that is computed with the root: deviation, gain and offset, in any of their orders."""
    inverse, nodes = node, below
    reader = sole_consumer(node.outputs[0])
    if node.op_type == "Sqrt":
        if reader is None or reader.domain != "" or reader.op_type not in ("Div", "Reciprocal"):
            return None
        away = deviation(reader.inputs[0])
        if reader.op_type == "Div" and away is not None and _is_of(away[0], mean):
            return _after(_Part(reader, (*nodes, *away[1], reader)), mean)
        if reader.op_type == "Div" and number_beside(reader.inputs[0], node.outputs[0]) != 1.0:
            return None
        inverse, nodes = reader, (*nodes, reader)
    return _multiplied(mean, inverse, nodes, None)


def _multiplied(
    mean: Mean, inverse: onnx_ir.Node, nodes: Nodes, gain: Array | None
) -> _Part | None:
    """What is computed with 1 / root, or with gain / root."""
    factor = inverse.outputs[0]
    readers = factor.consumers()
    if len(readers) == 2:
        return _two_products(mean, factor, nodes, gain)
    if len(readers) != 1 or readers[0].op_type != "Mul" or readers[0].domain != "":
        return None
    [product] = readers
    other = product.inputs[1 if product.inputs[0] is factor else 0]
    away = deviation(other)
    if away is not None and _is_of(away[0], mean):
        return _after(_Part(product, (*nodes, *away[1], product), gain), mean)
    stored = constant(other)
    if gain is not None or stored is None:
        return None
    return _multiplied(mean, product, (*nodes, product), stored)


def _two_products(
    mean: Mean, factor: onnx_ir.Value, nodes: Nodes, gain: Array | None
) -> _Part | None:
    """x * factor + (offset - mean * factor), and x * factor - mean * factor."""
    products = {}
    for reader in factor.consumers():
        if reader.op_type != "Mul" or reader.domain != "":
            return None
        products[reader.inputs[1 if reader.inputs[0] is factor else 0]] = reader
    big, small = products.get(mean.source), products.get(mean.value)
    joined = None if big is None else sole_consumer(big.outputs[0])
    minus = None if small is None else sole_consumer(small.outputs[0])
    if big is None or small is None or joined is None or minus is None or minus.op_type != "Sub":
        return None
    inside = (*nodes, big, small, minus)
    if minus.inputs[1] is not small.outputs[0]:
        return None
    if minus is joined:
        return _after(_Part(minus, inside, gain), mean)
    offset = constant(minus.inputs[0])
    if offset is None or joined.op_type != "Add" or minus.outputs[0] not in joined.inputs:
        return None
    return _Part(joined, (*inside, joined), gain, offset)


def _is_of(found: Mean, mean: Mean) -> bool:
    return found.source is mean.source and found.axes == mean.axes


def _after(part: _Part, mean: Mean) -> _Part:
    """`part` and the constant gain and offset that follow it, as far as they fit."""
    rank, sizes = len(mean.source.shape or ()), _sizes(mean)
    for op_type in ("Mul", "Add"):
        node = sole_consumer(part.root.outputs[0])
        if node is None or node.op_type != op_type or node.domain != "":
            continue
        made = part.root.outputs[0]
        stored = constant(node.inputs[1 if node.inputs[0] is made else 0])
        if stored is None or len(sizes) != len(mean.axes) or not _fits(stored, sizes, rank):
            continue
        if op_type == "Mul" and part.gain is None:
            part = replace(part, root=node, nodes=(*part.nodes, node), gain=stored)
        elif op_type == "Add":
            part = replace(part, root=node, nodes=(*part.nodes, node), offset=stored)
    return part
