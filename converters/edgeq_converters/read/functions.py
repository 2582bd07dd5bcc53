"""Local functions may be expanded into the graph where that stays small; else refused by name."""

from __future__ import annotations

from collections.abc import Mapping

from onnx import FunctionProto, ModelProto

from edgeq_converters.read import operators
from edgeq_converters.read.findings import Findings, quote
from edgeq_converters.read.structure import MAX_NODES

MAX_DEPTH = 64
Key = tuple[str, str]


def check(model: ModelProto, known: operators.Opsets, found: Findings) -> None:
    """Refuse functions given twice, that call themselves, grow too large, or need another opset."""
    functions: dict[Key, FunctionProto] = {}
    for function in model.functions:
        key = (function.domain, function.name)
        if key in functions:
            found.add("invalid-model", f"function {_called(key)} is defined twice")
        functions[key] = function
        _check_opsets(function, known, found)
    sizes: dict[Key, int] = {}
    for key in functions:
        if _size(key, functions, sizes, ()) is None:
            found.add("invalid-model", f"function {_called(key)} calls itself")
            return
    total = sum(
        sizes.get((node.domain, node.op_type), 1) for node in operators.nodes_in(model.graph)
    )
    if total > MAX_NODES:
        found.add(
            "invalid-model", f"its functions expand to {total:,} nodes; at most {MAX_NODES:,}"
        )


def _check_opsets(function: FunctionProto, known: operators.Opsets, found: Findings) -> None:
    for entry in function.opset_import:
        domain = "" if entry.domain == "ai.onnx" else entry.domain
        wanted = known.versions.get(domain)
        if wanted is not None and wanted != entry.version:
            called = _called((function.domain, function.name))
            text = f"function {called} wants opset {entry.version}, the model {wanted}"
            found.add("unsupported-opset", text)


def _size(
    key: Key, functions: Mapping[Key, FunctionProto], sizes: dict[Key, int], path: tuple[Key, ...]
) -> int | None:
    """Nodes after expansion (a Python int: it may be astronomic); None if `key` reaches itself."""
    if key in path or len(path) > MAX_DEPTH:
        return None
    if key in sizes:
        return sizes[key]
    total = 0
    for node in operators.nodes_in(functions[key]):
        inner = (node.domain, node.op_type)
        size = _size(inner, functions, sizes, (*path, key)) if inner in functions else 1
        if size is None:
            return None
        total += size
    sizes[key] = total
    return total


def _called(key: Key) -> str:
    return quote(f"{key[0]}::{key[1]}" if key[0] else key[1])


def fill_defaults(model: ModelProto) -> None:
    """Write a function's default attributes into each call that leaves them out.

    onnx 1.23.2 forgets them when it expands the call, and the operator's own default is used.
    """
    defaults = {(item.domain, item.name): item.attribute_proto for item in model.functions}
    for node in operators.every_node(model):
        given = {attribute.name for attribute in node.attribute}
        for default in defaults.get((node.domain, node.op_type), ()):
            if default.name not in given:
                node.attribute.add().CopyFrom(default)
