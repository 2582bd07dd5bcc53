"""The tensors inside a TFLite file: which there are, which hold codes, which have other axes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np

from edgeq.quant.fidelity import Held
from edgeq_runtime import tflite
from edgeq_runtime.engines.tflite_session import NOTES, notes

_CODES = frozenset({"int8", "uint8", "int16"})


class TfliteTensors:
    """`inside` and `outputs`: name -> how the file holds what its operators make.

    Left out of `inside` are inputs, constants and what is computed from them alone, the outputs,
    and their codes. A tensor of which the file has both codes and floats is fetched as the codes.
    Tensors whose channels are last in the file, and not in the ONNX form of the graph, say so.
    `made_by` is empty: a TFLite operator has no name. `knows_axes` is False for a file of another
    tool: which of its tensors have their channels last is not known.
    """

    made_by: Mapping[str, tuple[str, ...]] = MappingProxyType({})

    def __init__(self, model: bytes) -> None:
        self._bytes = model
        self._model = tflite.parse(model)
        self._graph = self._model.subgraphs[0]
        told = notes(self._model)
        self.knows_axes = bool(told)
        last = set(told.get("channels_last", ()))
        held = {at: _held(tensor, last) for at, tensor in enumerate(self._graph.tensors)}
        ends = {at: name for name, at in _outputs(self._model).items()}
        casts = {
            op.outputs[0]: op.inputs[0] for op in self._graph.operators if op.code == "DEQUANTIZE"
        }
        self.outputs: Mapping[str, Held] = {
            name: _renamed(held[casts.get(at, at)], name) for at, name in ends.items()
        }
        left_out = {*self._graph.outputs, *_fixed(self._graph)}
        left_out |= {casts[at] for at in ends if at in casts}
        made = [at for op in self._graph.operators for at in op.outputs if at not in left_out]
        self.inside: Mapping[str, Held] = {
            held[at].name: held[at] for at in made if held[at].name and at not in casts
        }

    def showing(self, names: Sequence[str]) -> bytes:
        """The file with the tensors of `names` (of `inside`) as outputs beside its own."""
        import flatbuffers
        from ai_edge_litert import schema_py_generated as schema

        model = schema.ModelT.InitFromPackedBuf(self._bytes, 0)
        graph = model.subgraphs[0]
        by_name = {tensor.name: at for at, tensor in enumerate(self._graph.tensors)}
        shown = [by_name[self.inside[name].fetch] for name in dict.fromkeys(names)]
        shown = [at for at in shown if at not in self._graph.outputs]
        graph.outputs = np.array([*self._graph.outputs, *shown], np.int32)
        _name_outputs(schema, model, self._model, shown)
        _join_batches(schema, model, self._model, shown)
        builder = flatbuffers.Builder(len(self._bytes) + (1 << 16))
        builder.Finish(model.Pack(builder), b"TFL3")
        return bytes(builder.Output())


def _held(tensor: tflite.Tensor, channels_last: set[str]) -> Held:
    """How a file holds a tensor: codes of one scale, or values as they are."""
    is_last = tensor.name in channels_last
    found = tensor.quantization
    if tensor.dtype not in _CODES or found is None or len(found.scale) != 1:
        return Held(tensor.name, tensor.name, channels_last=is_last)
    scale, zero_point = float(found.scale[0]), int(found.zero_point[0])
    return Held(tensor.name, tensor.name, scale, zero_point, is_last)


def _renamed(held: Held, name: str) -> Held:
    """The grid of an output's codes, under the name that an engine hands the output out by. Its
    axes are the border's affair, as an input's are."""
    return Held(name, name, held.scale, held.zero_point)


def _outputs(model: tflite.Model) -> dict[str, int]:
    """Name -> tensor, as a session calls the outputs."""
    graph = model.subgraphs[0]
    signature = _signature(model)
    if signature is not None and set(signature.inputs.values()) == set(graph.inputs):
        return dict(signature.outputs)
    return {graph.tensors[at].name: at for at in graph.outputs}


def _signature(model: tflite.Model) -> tflite.Signature | None:
    known = {row.key: row for row in model.signatures if row.subgraph == 0}
    if "serving_default" in known:
        return known["serving_default"]
    return next(iter(known.values())) if len(known) == 1 else None


def _fixed(graph: tflite.Subgraph) -> set[int]:
    """Constants and what operators compute from them alone."""
    fixed = {at for at, tensor in enumerate(graph.tensors) if tensor.data is not None}
    for op in graph.operators:
        if op.inputs and all(at in fixed for at in op.inputs if at >= 0):
            fixed.update(op.outputs)
    return fixed


def _name_outputs(schema: Any, model: Any, parsed: tflite.Model, shown: Sequence[int]) -> None:
    """Give the new outputs their tensors' names in the signature that a session reads."""
    chosen = _signature(parsed)
    if chosen is None:
        return
    for definition in model.signatureDefs:
        key = definition.signatureKey
        if (key.decode() if isinstance(key, bytes) else key) != chosen.key:
            continue
        for at in shown:
            row = schema.TensorMapT()
            row.name, row.tensorIndex = parsed.subgraphs[0].tensors[at].name, at
            definition.outputs.append(row)


def _join_batches(schema: Any, model: Any, parsed: tflite.Model, shown: Sequence[int]) -> None:
    """Of a file with a free batch, the new outputs are joined row by row as the others are."""
    told = notes(parsed)
    free = told.get("free_batch")
    if not free:
        return
    tensors = parsed.subgraphs[0].tensors
    rows = [tensors[at].name for at in shown if tensors[at].shape[:1] == (1,)]
    told["free_batch"] = {**free, "outputs": [*free.get("outputs", ()), *rows]}
    for entry in model.metadata:
        name = entry.name.decode() if isinstance(entry.name, bytes) else entry.name
        if name == NOTES:
            buffer = schema.BufferT()
            buffer.data = np.frombuffer(json.dumps(told, sort_keys=True).encode(), np.uint8)
            model.buffers.append(buffer)
            entry.buffer = len(model.buffers) - 1
