"""The tensors inside an ONNX file: which there are, and which hold integers on a known grid."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto, numpy_helper

from edgeq.errors import EdgeqError
from edgeq.quant.fidelity import Held
from edgeq_runtime.outside import ModelBytes

_CODES = frozenset({"int8", "uint8", "int16", "uint16"})


class OnnxTensors:
    """`inside` and `outputs`: name -> how the file holds what the nodes of the main graph make.

    Left out of `inside` are inputs, what is computed from constants alone, the codes of an output,
    and the tensors of `If`, `Loop` and `Scan` bodies. A tensor that a QuantizeLinear of one scale
    reads, or that a DequantizeLinear makes of one, is fetched as that integer tensor: the float
    beside it is no output of an engine that fuses both. `made_by`: node -> the tensors it makes,
    those that are read as codes under the name that they are restored to.
    """

    def __init__(self, model: bytes) -> None:
        self._model = _parse(model)
        self._weights: tuple[str, int] | None = None
        if isinstance(model, ModelBytes):
            self._weights = model.folder, model.weights_bytes
        graph = self._model.graph
        constants = dict(_constants(graph))
        on_grid, read_as = _grids(graph, constants)
        ends = [value.name for value in graph.output]
        fixed = _fixed(graph, constants)
        self.outputs: Mapping[str, Held] = {
            name: replace(on_grid.get(name, Held(name, name)), fetch=name) for name in ends
        }
        inside = (name for node in graph.node for name in node.output if name)
        held = [on_grid.get(name) or read_as.get(name) or Held(name, name) for name in inside]
        left_out = {*fixed, *ends, *(on_grid[name].fetch for name in ends if name in on_grid)}
        self.inside: Mapping[str, Held] = {
            row.name: row for row in held if row.name not in left_out and row.fetch not in left_out
        }
        restored = {held.fetch: name for name, held in on_grid.items() if held.fetch != name}
        codes = {name: held.fetch for name, held in read_as.items()}
        self.made_by: Mapping[str, tuple[str, ...]] = {
            node.name: tuple(restored.get(codes.get(name, name), name) for name in node.output)
            for node in graph.node
        }

    def showing(self, names: Sequence[str]) -> bytes:
        """The file with the fetched tensors of `names` (of `inside`) as outputs beside its own."""
        shown = ModelProto()
        shown.CopyFrom(self._model)
        present = {value.name for value in (*shown.graph.output, *shown.graph.input)}
        for fetch in dict.fromkeys(self.inside[name].fetch for name in names):
            if fetch not in present:  # its type and shape are for the engine to infer
                shown.graph.output.append(ValueInfoProto(name=fetch))
        data = bytes(shown.SerializeToString(deterministic=True))
        return data if self._weights is None else ModelBytes.beside(data, *self._weights)


def _parse(model: bytes) -> ModelProto:
    proto = ModelProto()
    try:
        proto.ParseFromString(model)
    except DecodeError:
        raise EdgeqError("damaged-model", "the artifact cannot be parsed as ONNX") from None
    return proto


def _constants(graph: GraphProto) -> Iterator[tuple[str, TensorProto]]:
    for tensor in graph.initializer:
        yield tensor.name, tensor
    for node in graph.node:
        if node.op_type == "Constant":
            for attribute in node.attribute:
                yield node.output[0], attribute.t


def _fixed(graph: GraphProto, constants: Mapping[str, TensorProto]) -> set[str]:
    """Constants and what nodes compute from them alone; what nobody feeds a node is drawn."""
    fixed = set(constants)
    for node in graph.node:
        bodies = any(attribute.HasField("g") for attribute in node.attribute)
        if node.input and not bodies and all(name in fixed for name in node.input if name):
            fixed.update(node.output)
    return fixed


def _grids(
    graph: GraphProto, constants: Mapping[str, TensorProto]
) -> tuple[dict[str, Held], dict[str, Held]]:
    """Tensors that lie on a grid (codes, and what is restored of them); what is read as codes."""
    on_grid: dict[str, Held] = {}
    read_as: dict[str, Held] = {}
    for node in graph.node:
        known = _grid(node, constants)
        if known is None:
            continue
        scale, zero_point = known
        source, made = node.input[0], node.output[0]
        if node.op_type == "QuantizeLinear":
            read_as.setdefault(source, Held(source, made, scale, zero_point))
            on_grid[made] = Held(made, made, scale, zero_point)
        elif source not in constants:
            on_grid[made] = Held(made, source, scale, zero_point)
    return on_grid, read_as


def _grid(node: NodeProto, constants: Mapping[str, TensorProto]) -> tuple[float, int] | None:
    """Scale and zero point of a Quantize- or DequantizeLinear with one of each, else None."""
    if node.op_type not in ("QuantizeLinear", "DequantizeLinear") or node.domain not in (
        "",
        "ai.onnx",
        "com.microsoft",
    ):
        return None
    scale = _scalar(constants.get(node.input[1]) if len(node.input) > 1 else None)
    if scale is None or not 0 < scale < np.inf:
        return None
    if len(node.input) < 3 or not node.input[2]:
        return scale, 0
    tensor = constants.get(node.input[2])
    point = _scalar(tensor)
    if tensor is None or point is None:
        return None
    kind = TensorProto.DataType.Name(tensor.data_type).lower()
    return (scale, int(point)) if kind in _CODES else None


def _scalar(tensor: TensorProto | None) -> float | None:
    """The one number that a constant holds; None for another count, or for what is no number."""
    if tensor is None or any(size != 1 for size in tensor.dims):
        return None
    if tensor.data_location == TensorProto.EXTERNAL:
        return None
    try:
        array = numpy_helper.to_array(tensor)
    except (ValueError, TypeError, KeyError):  # bytes that are not what its type says
        return None
    return float(array.reshape(-1)[0]) if array.size == 1 and array.dtype.kind in "fiu" else None
