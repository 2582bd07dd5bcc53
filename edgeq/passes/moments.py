"""Mean and variance along axes, as exporters spell them out."""

from __future__ import annotations

import math
from dataclasses import dataclass

import onnx_ir

from edgeq.passes.match import Nodes, is_number, number_beside, reduced


@dataclass(frozen=True)
class Mean:
    """`value` is the mean of `source` along `axes`, which it keeps with size 1."""

    value: onnx_ir.Value
    source: onnx_ir.Value
    axes: tuple[int, ...]
    nodes: Nodes


def maker(value: onnx_ir.Value | None, *op_types: str) -> onnx_ir.Node | None:
    """The standard node of one of these types that makes `value`."""
    node = None if value is None else value.producer()
    return node if node is not None and node.domain == "" and node.op_type in op_types else None


def mean_of(value: onnx_ir.Value | None) -> Mean | None:
    """ReduceMean; or ReduceSum times 1 / count, or divided by the count."""
    node = maker(value, "ReduceMean", "Mul", "Div")
    if node is None or value is None:
        return None
    if node.op_type == "ReduceMean":
        axes, source = reduced(node), node.inputs[0]
        return Mean(value, source, axes, (node,)) if axes and source is not None else None
    for at in (0, 1) if node.op_type == "Mul" else (0,):
        total, number = (
            maker(node.inputs[at], "ReduceSum"),
            number_beside(node.inputs[1 - at], value),
        )
        axes = None if total is None else reduced(total)
        if total is None or not axes or number is None or total.inputs[0] is None:
            continue
        count = _count(total.inputs[0], axes)
        if count and is_number(number, count if node.op_type == "Div" else 1.0 / count):
            return Mean(value, total.inputs[0], axes, (total, node))
    return None


def variance_of(value: onnx_ir.Value | None) -> tuple[Mean, Nodes] | None:
    """The mean of what `value` is the variance of, and all nodes that compute the two."""
    second = mean_of(value)
    if second is not None:
        squared = _squared(second.source)
        below = None if squared is None else deviation(squared[0])
        if squared is None or below is None or below[0].axes != second.axes:
            return None
        return below[0], (*below[1], squared[1], *second.nodes)
    return _from_second_moment(value)


def deviation(value: onnx_ir.Value | None) -> tuple[Mean, Nodes] | None:
    """The mean that `value` is the deviation from: Sub(x, mean of x)."""
    node = maker(value, "Sub")
    mean = None if node is None else mean_of(node.inputs[1])
    if node is None or mean is None or node.inputs[0] is not mean.source:
        return None
    return mean, (*mean.nodes, node)


def _from_second_moment(value: onnx_ir.Value | None) -> tuple[Mean, Nodes] | None:
    """mean(x * x) - mean(x) ** 2, or the larger of that and 0."""
    guard = maker(value, "Max", "Relu")
    if guard is not None and guard.op_type == "Max":
        if len(guard.inputs) != 2 or value is None:
            return None
        zeros = [number_beside(given, value) == 0.0 for given in guard.inputs]
        value = guard.inputs[1 if zeros[0] else 0] if any(zeros) else None
    elif guard is not None:
        value = guard.inputs[0]
    node = maker(value, "Sub")
    moment = None if node is None else mean_of(node.inputs[0])
    squared = None if moment is None else _squared(moment.source)
    product = None if node is None else _squared(node.inputs[1])
    mean = None if product is None else mean_of(product[0])
    if node is None or moment is None or squared is None or product is None or mean is None:
        return None
    if mean.source is not squared[0] or mean.axes != moment.axes:
        return None
    inside = (*mean.nodes, squared[1], *moment.nodes, product[1], node)
    return mean, inside if guard is None else (*inside, guard)


def _squared(value: onnx_ir.Value | None) -> tuple[onnx_ir.Value, onnx_ir.Node] | None:
    """(what is squared, by which node) of x * x and Pow(x, 2)."""
    node = maker(value, "Mul", "Pow")
    if node is None or value is None or node.inputs[0] is None:
        return None
    if node.op_type == "Mul":
        square = node.inputs[0] is node.inputs[1]
    else:
        square = number_beside(node.inputs[1], value) == 2.0
    return (node.inputs[0], node) if square else None


def _count(source: onnx_ir.Value, axes: tuple[int, ...]) -> int | None:
    """How many elements are reduced to one, if their sizes are static."""
    sizes = [(source.shape or ())[axis] for axis in axes]
    known = [size for size in sizes if isinstance(size, int)]
    return math.prod(known) if len(known) == len(sizes) else None
