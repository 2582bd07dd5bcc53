"""The rules of a `Graph`, asserted after every pass: a broken one is a bug in edgeq."""

from __future__ import annotations

import onnx_ir

from edgeq.ir.graph import IR_VERSION, OPSET, Graph
from edgeq.ir.query import subgraphs


def check(graph: Graph) -> None:
    """Assert what `Graph` promises; AssertionError names the rule and the node or tensor."""
    model = graph.model
    assert model.ir_version == IR_VERSION, f"IR version {model.ir_version}"
    opset = model.opset_imports.get("")
    assert opset == OPSET, f"opset {opset}"
    assert not model.functions, f"local functions {list(model.functions)}"
    _check_names(model.graph)
    _check_interface(model.graph)
    _check_scope(model.graph, frozenset())


def _check_names(graph: onnx_ir.Graph) -> None:
    names = [node.name for node in graph]
    assert all(names), "a node without a name"
    assert len(set(names)) == len(names), f"node names twice: {_twice(names)}"


def _check_interface(graph: onnx_ir.Graph) -> None:
    initializers = set(graph.initializers)
    for value in (*graph.inputs, *graph.outputs):
        assert value.type is not None, f"no type for `{value.name}`"
    for value in graph.inputs:
        assert value.name not in initializers, f"initializer `{value.name}` is an input"
    for name, value in graph.initializers.items():
        assert value.name == name, f"initializer `{name}` calls itself `{value.name}`"
        assert value.const_value is not None, f"initializer `{name}` without data"


def _check_scope(graph: onnx_ir.Graph, outer: frozenset[onnx_ir.Value]) -> None:
    """Nodes read only what was defined before them, here or outside; a name is given once."""
    seen = set(outer)
    own = {*graph.inputs, *graph.initializers.values()}
    seen |= own
    for node in graph:
        for value in node.inputs:
            assert value is None or value in seen, f"`{node.name}` reads `{value.name}` too early"
        for body in subgraphs(node):
            _check_scope(body, frozenset(seen))
        made = {value for value in node.outputs if value.name}
        seen |= made
        own |= made
    for value in graph.outputs:
        assert value in own, f"output `{value.name}` is not made in its graph"
    names = [value.name for value in seen]
    assert len(set(names)) == len(names), f"tensor names twice: {_twice(names)}"


def _twice(names: list[str | None]) -> list[str]:
    return sorted({str(name) for name in names if names.count(name) > 1})
