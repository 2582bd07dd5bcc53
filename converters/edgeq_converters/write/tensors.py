"""Arrays and nodes as ONNX protobufs, stripped of everything but what runs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx
import onnx_ir
from numpy.typing import NDArray

from edgeq.numerics import blocks
from edgeq_converters.formats.outside import Outside
from edgeq_converters.write import outside


def from_array(name: str, array: NDArray[Any]) -> onnx.TensorProto:
    """An initializer of a plain numpy type, raw and little-endian."""
    little = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
    return onnx.TensorProto(
        name=name,
        data_type=onnx.helper.np_dtype_to_tensor_dtype(array.dtype),
        dims=array.shape,
        raw_data=little.tobytes(),
    )


def from_nibbles(name: str, codes: NDArray[np.int8]) -> onnx.TensorProto:
    """An initializer of int4: codes -8..7, two to a byte."""
    packed = blocks.pack(codes).tobytes()
    int4 = onnx.TensorProto.INT4
    return onnx.TensorProto(name=name, data_type=int4, dims=codes.shape, raw_data=packed)


def from_ir(name: str, tensor: onnx_ir.TensorProtocol) -> onnx.TensorProto:
    """An initializer of any type; only strings are not raw. Data outside is referred to."""
    if isinstance(tensor, Outside):
        return outside.reference(name, tensor)
    made = onnx.TensorProto(
        name=name, data_type=int(tensor.dtype), dims=[int(size) for size in tensor.shape.numpy()]
    )
    if tensor.dtype == onnx_ir.DataType.STRING:
        items = np.asarray(tensor.numpy(), object).reshape(-1)
        texts = [item if isinstance(item, bytes) else str(item).encode() for item in items]
        made.string_data.extend(texts)
    else:
        made.raw_data = tensor.tobytes()
    return made


def from_node(node: onnx_ir.Node) -> onnx.NodeProto:
    """The node with its bodies, without doc strings and metadata at any depth."""
    made = onnx_ir.to_proto(node)
    assert isinstance(made, onnx.NodeProto)
    _strip_node(made)
    return made


def _strip_node(node: onnx.NodeProto) -> None:
    node.ClearField("doc_string")
    node.ClearField("metadata_props")
    for attribute in node.attribute:
        attribute.ClearField("doc_string")
        for graph in _bodies(attribute):
            _strip_graph(graph)


def bodies_of(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    """The bodies of `node` itself, not those nested in them."""
    for attribute in node.attribute:
        yield from _bodies(attribute)


def _bodies(attribute: onnx.AttributeProto) -> Iterator[onnx.GraphProto]:
    if attribute.HasField("g"):
        yield attribute.g
    yield from attribute.graphs


def _strip_graph(graph: onnx.GraphProto) -> None:
    for field in ("doc_string", "metadata_props", "value_info", "quantization_annotation"):
        graph.ClearField(field)
    for value in (*graph.input, *graph.output):
        value.ClearField("doc_string")
        value.ClearField("metadata_props")
    for tensor in graph.initializer:
        tensor.ClearField("doc_string")
        tensor.ClearField("metadata_props")
    for node in graph.node:
        _strip_node(node)
