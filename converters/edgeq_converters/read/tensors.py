"""TensorProto: does the data fit the dims, and the array it holds. No C++ sees it before."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import onnx_ir
from onnx import AttributeProto, GraphProto, NodeProto, TensorProto, numpy_helper

from edgeq.ir.inference import SMALL_BYTES
from edgeq_converters.read.findings import Findings, quote

_MAX_DIMENSIONS = 64
_MAX_SPREAD = 2**48  # product of the dims but for zeros: numpy refuses [0, 2**62], an empty one
_TYPED_FIELDS = (
    "float_data",
    "int32_data",
    "int64_data",
    "double_data",
    "uint64_data",
    "string_data",
)
_FIELD_OF: dict[int, str] = {
    TensorProto.FLOAT: "float_data",
    TensorProto.COMPLEX64: "float_data",
    TensorProto.DOUBLE: "double_data",
    TensorProto.COMPLEX128: "double_data",
    TensorProto.INT64: "int64_data",
    TensorProto.UINT32: "uint64_data",
    TensorProto.UINT64: "uint64_data",
    TensorProto.STRING: "string_data",
}
_COMPLEX = (TensorProto.COMPLEX64, TensorProto.COMPLEX128)
_KNOWN_TYPES = frozenset(TensorProto.DataType.values()) - {TensorProto.UNDEFINED}
_LAST_TYPE = TensorProto.INT2  # the element types after it (6-bit floats) have no array form


def tensors(graph: GraphProto) -> Iterator[TensorProto]:
    """Every dense tensor in a graph: initializers, attributes of nodes, and those of bodies."""
    yield from graph.initializer
    for node in graph.node:
        yield from node_tensors(node)


def node_tensors(node: NodeProto) -> Iterator[TensorProto]:
    """Every dense tensor in the attributes of a node, bodies included."""
    for attribute in node.attribute:
        yield from attribute_tensors(attribute)
        for body in bodies(attribute):
            yield from tensors(body)


def attribute_tensors(attribute: AttributeProto) -> Iterator[TensorProto]:
    """The tensors an attribute holds itself."""
    if attribute.HasField("t"):
        yield attribute.t
    yield from attribute.tensors


def bodies(attribute: AttributeProto) -> Iterator[GraphProto]:
    """The graphs an attribute holds."""
    if attribute.HasField("g"):
        yield attribute.g
    yield from attribute.graphs


def is_sound(tensor: TensorProto) -> bool:
    """Whether `check` finds nothing."""
    found = Findings("")
    check(tensor, found)
    return not found.problems


def size_bytes(tensor: TensorProto) -> int:
    """Bytes of the data packed as raw_data; the tensor has passed `check`."""
    bits = onnx_ir.DataType(tensor.data_type).bitwidth
    count: int = math.prod(tensor.dims)
    return (count * bits + 7) // 8


def check(tensor: TensorProto, found: Findings) -> None:
    """Known element type, sane dims, exactly one storage, and as much data as the dims need."""
    label = f"tensor {quote(tensor.name)}"
    if tensor.data_type not in _KNOWN_TYPES:
        found.add("damaged-model", f"{label} has the unknown element type {tensor.data_type}")
        return
    if tensor.data_type > _LAST_TYPE:
        kind = TensorProto.DataType.Name(tensor.data_type)
        found.add("unsupported-type", f"{label} has the element type {kind}")
        return
    if len(tensor.dims) > _MAX_DIMENSIONS:
        found.add("damaged-model", f"{label} has {len(tensor.dims)} dimensions")
        return
    spread = math.prod(size for size in tensor.dims if size)
    if any(size < 0 for size in tensor.dims) or (0 in tensor.dims and spread > _MAX_SPREAD):
        found.add("damaged-model", f"{label} has the shape {_shape(tensor)}")
        return
    if tensor.HasField("segment"):
        found.add("unsupported-type", f"{label} is stored in segments")
        return
    _check_storage(tensor, label, found)


def _check_storage(tensor: TensorProto, label: str, found: Findings) -> None:
    used = [name for name in _TYPED_FIELDS if len(getattr(tensor, name))]
    if tensor.raw_data:
        used.append("raw_data")
    else:  # set and empty: other readers would take it for the data
        tensor.ClearField("raw_data")
    external = tensor.data_location == TensorProto.EXTERNAL
    if external:
        used.append("external data")
    if len(used) > 1:
        found.add("damaged-model", f"{label} stores its data twice: {', '.join(used)}")
    elif external and tensor.data_type == TensorProto.STRING:
        found.add("unsupported-type", f"{label} keeps strings in external data")
    elif not external:
        _check_length(tensor, used[0] if used else "raw_data", label, found)


def _check_length(tensor: TensorProto, field: str, label: str, found: Findings) -> None:
    count = math.prod(tensor.dims)
    own_field = _FIELD_OF.get(tensor.data_type, "int32_data")
    if field == "raw_data":
        needed, unit = (0, "strings") if _is_string(tensor) else (size_bytes(tensor), "bytes")
        if _is_string(tensor) and (count or tensor.raw_data):
            found.add("damaged-model", f"{label} has {count:,} strings and none is stored")
            return
        got = len(tensor.raw_data)
    elif field != own_field:
        kind = TensorProto.DataType.Name(tensor.data_type)
        found.add("damaged-model", f"{label} of {kind} stores its data in {field}")
        return
    else:
        needed, unit, got = _typed_count(tensor, count), "values", len(getattr(tensor, field))
    if got != needed:
        found.add(
            "damaged-model",
            f"{label} of shape {_shape(tensor)} needs {needed:,} {unit} and has {got:,}",
        )


def _typed_count(tensor: TensorProto, count: int) -> int:
    if tensor.data_type in _COMPLEX:
        return 2 * count
    bits = onnx_ir.DataType(tensor.data_type).bitwidth if not _is_string(tensor) else 8
    return (count * bits + 7) // 8 if bits < 8 else count


def _is_string(tensor: TensorProto) -> bool:
    return tensor.data_type == TensorProto.STRING


def _shape(tensor: TensorProto) -> str:
    return "[" + ", ".join(str(size) for size in tensor.dims) + "]"


def may_stay_outside(tensor: TensorProto) -> bool:
    """Whether a checked tensor is worth reading later, and its bytes are its array's."""
    packed = onnx_ir.DataType(tensor.data_type).bitwidth < 8
    return size_bytes(tensor) > SMALL_BYTES and not packed and sys.byteorder == "little"


def load_external(tensor: TensorProto, read: Callable[[TensorProto, int], bytes]) -> None:
    """Bring external data into the tensor itself; `read` checks where it lies."""
    data = read(tensor, size_bytes(tensor))
    tensor.ClearField("external_data")
    tensor.data_location = TensorProto.DEFAULT
    tensor.raw_data = data


def to_array(tensor: TensorProto) -> np.ndarray[Any, Any]:
    """The array of a checked tensor, without a copy where its data is raw (then read-only)."""
    kind = onnx_ir.DataType(tensor.data_type)
    raw = sys.byteorder == "little" and not any(
        len(getattr(tensor, name)) for name in _TYPED_FIELDS
    )
    if raw and kind != onnx_ir.DataType.STRING and kind.bitwidth >= 8:
        return np.frombuffer(tensor.raw_data, kind.numpy()).reshape(tuple(tensor.dims))
    return numpy_helper.to_array(tensor)
