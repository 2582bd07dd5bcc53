"""Weights that one ONNX file cannot hold: left where they lie, or gathered into one file beside it.

While edgeq works, an artifact beyond 2 GB names the files its weights came in (`settle`), so no
copy is made. A bundle gets one file of its own beside the model (`gather`).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

import onnx

from edgeq.ir import Graph
from edgeq_converters.formats.outside import Outside
from edgeq_runtime.outside import ModelBytes

ALIGNMENT = 4096
"""Each tensor of a gathered file begins at a multiple of it: a page, so that engines can map it."""


@dataclass(frozen=True)
class Gathered:
    """`model` names one file of `size_bytes`, which `pieces` of tensors and padding make up."""

    model: bytes
    size_bytes: int
    tensors: tuple[Outside, ...]

    def pieces(self) -> Iterator[bytes]:
        """The bytes of the file in order; reads them again each time."""
        at = 0
        for tensor in self.tensors:
            yield bytes(-at % ALIGNMENT)
            at += -at % ALIGNMENT + tensor.length
            yield from tensor.pieces()


def reference(name: str, tensor: Outside) -> onnx.TensorProto:
    """An initializer whose data stays where it lies."""
    made = onnx.TensorProto(
        name=name,
        data_type=int(tensor.dtype),
        dims=[int(size) for size in tensor.shape.numpy()],
        data_location=onnx.TensorProto.EXTERNAL,
    )
    _point(made, tensor.location, tensor.offset, tensor.length)
    return made


def settle(
    graph: Graph, initializers: Sequence[onnx.TensorProto], room_bytes: int
) -> tuple[Outside, ...]:
    """Bring references into the file if all fit in `room_bytes`; else what stays outside."""
    there = [(tensor, _outside(graph, tensor.name)) for tensor in initializers if _is_there(tensor)]
    held = sum(len(tensor.raw_data) for tensor in initializers)
    if held + sum(outside.length for _, outside in there) > room_bytes:
        return tuple(outside for _, outside in there)
    for tensor, outside in there:
        _fill(tensor, outside)
    return ()


def bring(graph: Graph, initializers: Sequence[onnx.TensorProto], names: Collection[str]) -> None:
    """Replace the references of the tensors in `names`, which will be stored otherwise, by data."""
    for tensor in initializers:
        if tensor.name in names and _is_there(tensor):
            _fill(tensor, _outside(graph, tensor.name))


def stored(data: bytes, weights: Sequence[Outside]) -> bytes:
    """A written file that says where the `weights` lie that it does not hold."""
    if not weights:
        return data
    return ModelBytes.beside(data, weights[0].folder, sum(tensor.length for tensor in weights))


def gather(model: ModelBytes, graph: Graph, file_name: str) -> Gathered:
    """`model`, which `write` made of `graph`, with all outside weights in one file beside it."""
    proto = onnx.ModelProto.FromString(model)
    found, end = [], 0
    for tensor in proto.graph.initializer:
        if not _is_there(tensor):
            continue
        outside = _outside(graph, tensor.name)
        start = end + -end % ALIGNMENT
        _point(tensor, file_name, start, outside.length)
        found.append(outside)
        end = start + outside.length
    return Gathered(bytes(proto.SerializeToString(deterministic=True)), end, tuple(found))


def _is_there(tensor: onnx.TensorProto) -> bool:
    return bool(tensor.data_location == onnx.TensorProto.EXTERNAL)


def _outside(graph: Graph, name: str) -> Outside:
    tensor = graph.model.graph.initializers[name].const_value
    assert isinstance(tensor, Outside), name
    return tensor


def _fill(tensor: onnx.TensorProto, outside: Outside) -> None:
    tensor.ClearField("external_data")
    tensor.ClearField("data_location")
    tensor.raw_data = b"".join(outside.pieces())


def _point(tensor: onnx.TensorProto, location: str, offset: int, length: int) -> None:
    del tensor.external_data[:]
    for key, value in (("location", location), ("offset", offset), ("length", length)):
        tensor.external_data.add(key=key, value=str(value))
