"""From a checked message at the right opset to the normal form that `Graph` promises."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import onnx_ir
from onnx import ModelProto, TensorProto, ValueInfoProto

from edgeq.ir import Graph, constant_tensor, free_name
from edgeq.ir.inference import SMALL_BYTES, InferenceFailure, infer
from edgeq_converters.formats.outside import Outside
from edgeq_converters.read import tensors
from edgeq_converters.read.findings import Findings, counted, one_line, quote

Weights = dict[str, onnx_ir.TensorProtocol]


def take_weights(
    model: ModelProto, deferred: Mapping[str, Outside]
) -> tuple[Weights, tuple[str, ...]]:
    """Move large initializers and constants out of the message, each replaced by a typed input.

    What onnx's C++ converts and checks is then small, whatever the weights. Returns the weights,
    `deferred` ones among them, and the names of all initializers in the file's order.
    """
    graph = model.graph
    arrays: Weights = {}
    order = tuple(tensor.name for tensor in graph.initializer)
    kept: list[bytes] = []
    for tensor in graph.initializer:
        if _is_large(tensor):
            arrays[tensor.name] = deferred.get(tensor.name) or _held(tensor)
            graph.input.append(_typed(tensor.name, tensor))
        else:
            kept.append(tensor.SerializeToString())
    del graph.initializer[:]
    for data in kept:
        graph.initializer.add().ParseFromString(data)
    _take_constant_nodes(model, arrays)
    return arrays, order


def _take_constant_nodes(model: ModelProto, arrays: Weights) -> None:
    graph = model.graph
    taken: list[int] = []
    for index, node in enumerate(graph.node):
        if node.op_type != "Constant" or node.domain or len(node.output) != 1:
            continue
        if len(node.attribute) == 1 and _is_large(node.attribute[0].t):
            arrays[node.output[0]] = _held(node.attribute[0].t)
            graph.input.append(_typed(node.output[0], node.attribute[0].t))
            taken.append(index)
    for index in reversed(taken):
        del graph.node[index]


def _held(tensor: TensorProto) -> onnx_ir.Tensor[Any]:
    kind = onnx_ir.DataType(tensor.data_type)
    return onnx_ir.Tensor(tensors.to_array(tensor), dtype=kind, name=tensor.name)


def _is_large(tensor: TensorProto) -> bool:
    return (
        tensor.data_type not in (TensorProto.UNDEFINED, TensorProto.STRING)
        and tensors.size_bytes(tensor) > SMALL_BYTES
    )


def _typed(name: str, tensor: TensorProto) -> ValueInfoProto:
    info = ValueInfoProto(name=name)
    info.type.tensor_type.elem_type = tensor.data_type
    info.type.tensor_type.shape.SetInParent()
    for size in tensor.dims:
        info.type.tensor_type.shape.dim.add(dim_value=size)
    return info


def to_graph(
    model: ModelProto, arrays: Weights, order: Iterable[str], found: Findings
) -> tuple[Graph, tuple[str, ...]]:
    """The `Graph` of `model` with the arrays put back as initializers, and notes."""
    inner = _represent(model, found)
    _put_back(inner.graph, arrays)
    lifted = _lift_constants(inner.graph)
    _restore_order(inner.graph, order)
    notes = list(_name_nodes(inner.graph))
    if lifted:
        notes.append(f"{counted(lifted, 'Constant node', 'Constant nodes')} stored as initializers")
    declared = {value.name: value.shape for value in inner.graph.outputs}
    _infer(inner, found)
    notes += _settle_outputs(inner.graph, declared)
    return Graph(inner), tuple(notes)


def _represent(model: ModelProto, found: Findings) -> onnx_ir.Model:
    """As onnx-ir has it; it knows no maps, which a body may declare."""
    try:
        return onnx_ir.serde.deserialize_model(model)
    except (onnx_ir.serde.SerdeError, ValueError, TypeError, KeyError, AttributeError) as failure:
        cause: BaseException = failure
        while cause.__cause__ is not None:
            cause = cause.__cause__
        is_missing = isinstance(cause, NotImplementedError)
        slug = "unsupported-type" if is_missing else "invalid-model"
        found.add(slug, f"cannot be represented: {one_line(str(cause))}")
        found.raise_any()
        raise AssertionError("unreachable") from failure


def _put_back(graph: onnx_ir.Graph, arrays: Weights) -> None:
    for value in tuple(graph.inputs):
        if value.name in arrays:
            graph.inputs.remove(value)
            value.const_value = arrays.pop(value.name)
            value.const_value.name = value.name
            graph.register_initializer(value)


def _lift_constants(graph: onnx_ir.Graph) -> int:
    """Top-level Constant nodes become initializers of the same name; sparse ones were refused."""
    count = 0
    for node in tuple(graph):
        if node.op_type != "Constant" or node.domain != "":
            continue
        made = node.outputs[0]
        name, is_output = made.name, made.is_graph_output()
        tensor = None if is_output else constant_tensor(made)
        if tensor is None:
            continue
        made.name = None
        value = onnx_ir.Value(
            name=name,
            type=onnx_ir.TensorType(tensor.dtype),
            shape=onnx_ir.Shape(tensor.shape.numpy()),
            const_value=tensor,
        )
        made.replace_all_uses_with(value)
        graph.remove(node, safe=True)
        graph.register_initializer(value)
        count += 1
    return count


def _restore_order(graph: onnx_ir.Graph, order: Iterable[str]) -> None:
    """Initializers in the file's order, then the lifted ones in node order."""
    values = dict(graph.initializers)
    graph.initializers.clear()
    names = [name for name in order if name in values]
    for name in (*names, *(name for name in values if name not in set(names))):
        graph.register_initializer(values[name])


def _name_nodes(graph: onnx_ir.Graph) -> tuple[str, ...]:
    """Give every top-level node a name of its own: `Conv_3` for none, `name_2` for a second one."""
    taken = {node.name for node in graph if node.name}
    seen: set[str] = set()
    unnamed = renamed = 0
    for index, node in enumerate(graph):
        if node.name and node.name not in seen:
            seen.add(node.name)
            continue
        unnamed, renamed = (unnamed, renamed + 1) if node.name else (unnamed + 1, renamed)
        name = free_name(node.name or f"{node.op_type}_{index}", taken)
        node.name = name
        taken.add(name)
        seen.add(name)
    notes = []
    if unnamed:
        notes.append(f"{counted(unnamed, 'node', 'nodes')} had no name and got one")
    if renamed:
        notes.append(f"{counted(renamed, 'node', 'nodes')} got another name: theirs was taken")
    return tuple(notes)


def _infer(model: onnx_ir.Model, found: Findings) -> None:
    try:
        infer(model)
    except InferenceFailure as failure:
        found.add("invalid-model", f"its shapes contradict each other: {one_line(str(failure))}")
        found.raise_any()


def _settle_outputs(
    graph: onnx_ir.Graph, declared: Mapping[str | None, onnx_ir.Shape | None]
) -> tuple[str, ...]:
    """Outputs as computed; a declared size is believed where inference knows none, and said not."""
    notes: list[str] = []
    for value in graph.outputs:
        said, known = declared[value.name], value.shape
        if said is None or known is None:
            continue
        if len(said) != len(known) or any(map(_contradict, said, known)):
            text = f"output {quote(value.name or '')} is declared {said} and is {known}"
            notes.append(text)
            continue
        pairs = zip(said, known, strict=True)
        value.shape = onnx_ir.Shape([k if isinstance(k, int) or k.value else s for s, k in pairs])
    return tuple(notes)


def _contradict(said: object, known: object) -> bool:
    return isinstance(said, int) and isinstance(known, int) and said != known
