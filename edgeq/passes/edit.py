"""The few edits that all passes are made of; each keeps `edgeq.ir.check` true."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir

from edgeq.ir import Graph, free_name, subgraphs


def fresh_name(graph: Graph, base: str) -> str:
    """`base`, or `base_2`, ...: a name that no tensor has, in bodies neither."""
    model = graph.model.graph
    taken: set[str | None] = set()
    for body in (model, *model.subgraphs()):
        taken |= {value.name for value in (*body.inputs, *body.initializers.values())}
        taken |= {value.name for node in body for value in node.outputs}
    return free_name(base, taken)


def fresh_node_name(graph: Graph, base: str) -> str:
    """`base`, or `base_2`, ...: a name that no other node beside it has."""
    return free_name(base, {node.name for node in graph.nodes()})


def add_initializer(graph: Graph, base: str, array: np.ndarray[Any, Any]) -> onnx_ir.Value:
    """A new constant of the graph, named after `base`."""
    name = fresh_name(graph, base)
    tensor = onnx_ir.Tensor(np.asarray(array, order="C"), name=name)
    value = onnx_ir.Value(
        name=name,
        type=onnx_ir.TensorType(tensor.dtype),
        shape=onnx_ir.Shape(array.shape),
        const_value=tensor,
    )
    graph.home.register_initializer(value)
    return value


def add_node(
    before: onnx_ir.Node,
    op_type: str,
    inputs: Sequence[onnx_ir.Value | None],
    attributes: dict[str, Any],
) -> onnx_ir.Node:
    """A one-output node in front of `before`, with its name: the caller removes `before`."""
    attrs = [
        onnx_ir.convenience.convert_attribute(name, value) for name, value in attributes.items()
    ]
    node = onnx_ir.Node("", op_type, inputs, attrs, num_outputs=1, name=before.name)
    home = before.graph
    assert home is not None
    home.insert_before(before, node)
    return node


def take_over(old: onnx_ir.Value, new: onnx_ir.Value) -> None:
    """`new`, fresh and unnamed, gets the name, type, shape and every reader of `old`."""
    new.type, new.shape = old.type, old.shape
    name = old.name
    old.replace_all_uses_with(new, replace_graph_outputs=True)
    old.name = None
    new.name = name


def why_not_bypassed(made: onnx_ir.Value, source: onnx_ir.Value) -> str | None:
    """Why readers of `made` cannot read `source` instead, or None if they can."""
    if not made.is_graph_output():
        return None
    if source.producer() is None:
        return "it joins an input or a constant to an output of the model"
    if source.is_graph_output():
        return "its input is an output of the model too"
    if source.graph is not made.graph:
        return "it hands a tensor from outside the body out of it"
    return None


def bypass(node: onnx_ir.Node, source: onnx_ir.Value) -> None:
    """Remove `node`: whoever read its first output reads `source`; an output keeps its name."""
    made = node.outputs[0]
    if made.is_graph_output():
        name, shape, kind = made.name, made.shape, made.type
        made.replace_all_uses_with(source, replace_graph_outputs=True)
        made.name = None
        source.name, source.type = name, kind
        source.shape = shape if shape is not None else source.shape
    else:
        made.replace_all_uses_with(source)
    remove(node)


def absorb(graph: Graph, node: onnx_ir.Node, made: onnx_ir.Value) -> None:
    """Remove `node`, whose work the maker of `made`, its only input, does from now on.

    `made` takes the name of what `node` made, or a fresh one: a name stands for the same numbers
    in every form of a model, so that `compare` can match tensors by it.
    """
    gone = node.outputs[0]
    name = gone.name or fresh_name(graph, f"{made.name}_affine")
    gone.replace_all_uses_with(made, replace_graph_outputs=True)
    gone.name = None
    made.name, made.type = name, gone.type or made.type
    made.shape = gone.shape if gone.shape is not None else made.shape
    remove(node)


def remove(node: onnx_ir.Node) -> None:
    """Take out a node that nothing reads any more; what its bodies read from outside is free."""
    assert node.graph is not None
    for body in subgraphs(node):
        for inner in body.all_nodes():
            for index in range(len(inner.inputs)):
                inner.replace_input_with(index, None)
    node.graph.remove(node, safe=True)
