"""Shapes and types of every top-level tensor, inferred by onnx on a copy without the weights."""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx_ir

from edgeq.ir.isolated import onnx_child
from edgeq.ir.query import subgraphs

if TYPE_CHECKING:
    from onnx import GraphProto, TypeProto

SMALL_BYTES = 4096
"""Constants up to this size stay in the copy: inference needs those that are axes or shapes."""


class InferenceFailure(ValueError):
    """onnx finds the shapes or types of the model contradictory; says where."""


def infer(model: onnx_ir.Model) -> None:
    """Set shape and type of every node output; what cannot be known stays unset.

    Outputs of operators outside the default domain, graph outputs whose rank onnx cannot know, and
    outputs of bodies keep what they had. Sizes are strict: contradictions raise
    `InferenceFailure`; a crash of onnx on the model is EdgeqError `onnx-failed`.
    """
    from onnx import ModelProto

    light = onnx_ir.serde.serialize_model(_without_weights(model))
    said, data = onnx_child().ask({"step": "infer"}, light.SerializeToString())
    if said:
        raise InferenceFailure(said["message"])
    inferred = ModelProto.FromString(data)
    types = {info.name: info.type for info in inferred.graph.value_info}
    types |= {info.name: info.type for info in inferred.graph.output}
    for node in model.graph:
        for value in node.outputs:
            if value.name in types:
                _apply(value, types[value.name])
    _apply_inside(model.graph, inferred.graph)


def _apply_inside(graph: onnx_ir.Graph, inferred: GraphProto) -> None:
    """The same in bodies; `inferred` holds the nodes that have some, and nothing else."""
    nodes = [node for node in graph if subgraphs(node)]
    for node, said in zip(nodes, inferred.node, strict=True):
        graphs = [g for a in said.attribute for g in ([a.g] if a.HasField("g") else a.graphs)]
        for body, result in zip(subgraphs(node), graphs, strict=True):
            types = {info.name: info.type for info in result.value_info}
            for value in (value for inner in body for value in inner.outputs):
                if value.name in types and not value.is_graph_output():
                    _apply(value, types[value.name])
            _apply_inside(body, result)


def _without_weights(model: onnx_ir.Model) -> onnx_ir.Model:
    """A clone in which large initializers are typed inputs and nothing that follows has a shape."""
    light = model.clone()
    graph = light.graph
    for body in tuple(graph.subgraphs()):
        _bring_constants(body)
    for name, value in tuple(graph.initializers.items()):
        tensor = value.const_value
        if tensor is None or tensor.dtype == onnx_ir.DataType.STRING:
            continue
        if tensor.nbytes > SMALL_BYTES:
            del graph.initializers[name]
            value.const_value = None
            graph.inputs.append(value)
    for node in graph.all_nodes():
        if node.domain == "" and node.op_type == "GroupNormalization":
            # onnx (1.23) knows no shape of it; the same operator with one group per channel it does
            node.op_type = "InstanceNormalization"
            node.attributes.clear()
        for value in node.outputs:
            if node.domain == "":
                if value.is_graph_output():
                    value.shape = None if value.graph is graph else value.shape
                else:
                    value.shape = value.type = None
    return light


def _bring_constants(body: onnx_ir.Graph) -> None:
    """Inference looks into no constant outside a body, so it gets copies of the small ones."""
    copies: dict[onnx_ir.Value, onnx_ir.Value] = {}
    for node in body:
        for index, value in enumerate(node.inputs):
            tensor = None if value is None else value.const_value
            if value is None or tensor is None or value.graph is body:
                continue
            if tensor.dtype == onnx_ir.DataType.STRING or tensor.nbytes > SMALL_BYTES:
                continue
            if value not in copies:
                name = f"{body.name}/{value.name}/{len(copies)}"
                copy = onnx_ir.Value(
                    name=name, type=value.type, shape=value.shape, const_value=tensor
                )
                body.register_initializer(copy)
                copies[value] = copy
            node.replace_input_with(index, copies[value])


def _apply(value: onnx_ir.Value, proto: TypeProto) -> None:
    if not _has_a_form(proto):
        return
    value.type = onnx_ir.serde.deserialize_type_proto_for_type(proto)
    shape = onnx_ir.serde.deserialize_type_proto_for_shape(proto)
    if shape is not None:
        value.shape = onnx_ir.Shape([_dimension(size) for size in shape])
    elif not value.is_graph_output() and _in_standard(value):
        value.shape = None


def _has_a_form(proto: TypeProto) -> bool:
    """Whether onnx-ir can hold it: no maps, nothing whose element type is unknown."""
    kind = proto.WhichOneof("value")
    if kind in ("sequence_type", "optional_type"):
        return _has_a_form(getattr(proto, kind).elem_type)
    return kind in ("tensor_type", "sparse_tensor_type") and getattr(proto, kind).elem_type != 0


def _in_standard(value: onnx_ir.Value) -> bool:
    node = value.producer()
    return node is not None and node.domain == ""


def _dimension(size: int | onnx_ir.SymbolicDimProtocol) -> int | str | None:
    """A symbol that inference made up (`unk__0`) carries no meaning beyond its run."""
    if isinstance(size, int):
        return size
    return None if size.value is None or size.value.startswith("unk__") else size.value
