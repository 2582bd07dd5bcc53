"""Questions about nodes and tensors that passes, quant and writers share.

A tensor that a body of If, Loop or Scan captures has the node inside the body among its consumers.
"""

from __future__ import annotations

from collections.abc import Container, Iterator
from typing import Any

import numpy as np
import onnx_ir


def constant(value: onnx_ir.Value | None) -> np.ndarray[Any, Any] | None:
    """The array of an initializer or of a Constant node's output, else None. Never write to it."""
    tensor = None if value is None else constant_tensor(value)
    return None if tensor is None else np.asarray(tensor.numpy())


def constant_tensor(value: onnx_ir.Value) -> onnx_ir.TensorProtocol | None:
    """As `constant`, but the tensor itself: nothing is decoded, strings and 4-bit types stay."""
    if value.const_value is not None:
        return value.const_value
    node = value.producer()
    if node is None or node.op_type != "Constant" or node.domain != "":
        return None
    if len(node.attributes) != 1 or "sparse_value" in node.attributes:
        return None
    return onnx_ir.convenience.get_const_tensor(value)


def scalar(value: onnx_ir.Value | None) -> float | None:
    """The number a constant of exactly one element holds, else None."""
    array = constant(value)
    if array is None or array.size != 1 or array.dtype.kind not in "fiub":
        return None
    return float(array.reshape(()))


def free_name(wanted: str, taken: Container[str | None]) -> str:
    """`wanted`, or `wanted_2`, `wanted_3`, ...: the first that is not in `taken`."""
    name, number = wanted, 2
    while name in taken:
        name, number = f"{wanted}_{number}", number + 1
    return name


def producer(value: onnx_ir.Value | None) -> onnx_ir.Node | None:
    """The node that computes `value`; None for inputs and initializers."""
    return None if value is None else value.producer()


def consumers(value: onnx_ir.Value) -> tuple[onnx_ir.Node, ...]:
    """Every node that reads `value`, each once, those inside bodies included."""
    return tuple(value.consumers())


def sole_consumer(value: onnx_ir.Value) -> onnx_ir.Node | None:
    """The one node that reads `value`, if nothing else does: no output, no body, no second use."""
    if value.is_graph_output() or len(value.uses()) != 1 or is_captured(value):
        return None
    return value.consumers()[0]


def is_graph_output(value: onnx_ir.Value) -> bool:
    """Whether a caller of the model (or of the body `value` lives in) sees this tensor."""
    return value.is_graph_output()


def is_captured(value: onnx_ir.Value) -> bool:
    """Whether a node inside a body reads `value`, which lives outside that body."""
    home = value.graph
    return any(node.graph is not home for node in value.consumers())


def captured(value: onnx_ir.Value) -> tuple[onnx_ir.Node, ...]:
    """The nodes inside bodies that read `value` from outside."""
    return tuple(node for node in value.consumers() if node.graph is not value.graph)


def subgraphs(node: onnx_ir.Node) -> tuple[onnx_ir.Graph, ...]:
    """The bodies of `node` itself, not those nested in them."""
    return tuple(graph for _, graph in named_subgraphs(node))


def named_subgraphs(node: onnx_ir.Node) -> Iterator[tuple[str, onnx_ir.Graph]]:
    """As `subgraphs`, each with the node's and the attribute's name: `If_0/then_branch`."""
    for name, attr in node.attributes.items():
        place = f"{node.name or node.op_type}/{name}"
        if attr.type == onnx_ir.AttributeType.GRAPH:
            yield place, attr.as_graph()
        elif attr.type == onnx_ir.AttributeType.GRAPHS:
            yield from ((f"{place}_{at}", body) for at, body in enumerate(attr.as_graphs()))


def constants_inside(graph: onnx_ir.Graph) -> tuple[onnx_ir.Value, ...]:
    """The initializers of a body and of those nested in it."""
    inside = (graph, *graph.subgraphs())
    return tuple(value for body in inside for value in body.initializers.values())


def attribute(node: onnx_ir.Node, name: str, default: Any) -> Any:
    """The Python value of an attribute, or `default` where the node does not give it."""
    attr = node.attributes.get(name)
    return default if attr is None else attr.value


def static_shape(value: onnx_ir.Value | None) -> tuple[int, ...] | None:
    """The shape as integers, or None as soon as one of them is not known."""
    if value is None or value.shape is None:
        return None
    sizes = [size for size in value.shape if isinstance(size, int)]
    return tuple(sizes) if len(sizes) == len(value.shape) else None


def dtype_of(value: onnx_ir.Value) -> str:
    """numpy's name of the element type; "object" for strings, "" where it is not known."""
    if value.dtype is None or value.dtype == onnx_ir.DataType.UNDEFINED:
        return ""
    if value.dtype == onnx_ir.DataType.STRING:
        return "object"
    return str(value.dtype.numpy())
