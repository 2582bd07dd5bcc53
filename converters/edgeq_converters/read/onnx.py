"""Read an ONNX file of opset 7 or later: `read` gives a `Graph` at one opset, or one error."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnx import ModelProto, TensorProto

from edgeq.errors import EdgeqError
from edgeq.ir import IR_VERSION, OPSET, check
from edgeq_converters.formats.outside import KEEP_OUTSIDE_BYTES, Outside
from edgeq_converters.read import (
    external_data,
    files,
    finite,
    functions,
    interface,
    operators,
    opset,
    sniff,
    tensors,
    text,
)
from edgeq_converters.read.findings import Findings, listed
from edgeq_converters.read.result import ReadResult
from edgeq_converters.read.structure import Structure, label
from edgeq_converters.read.to_graph import take_weights, to_graph

__all__ = ["ReadResult", "read"]

NO_SHAPES: Mapping[str, tuple[int, ...]] = MappingProxyType({})


def read(path: str | Path, *, shapes: Mapping[str, tuple[int, ...]] = NO_SHAPES) -> ReadResult:
    """The model at `path` as a `Graph`, the inputs in `shapes` fixed to those sizes.

    Raises EdgeqError: no-such-model, not-onnx, model-too-large, damaged-model, invalid-model,
    external-data, unsupported-op, unsupported-opset, unsupported-type, non-finite-weights,
    no-such-input, bad-shape. Of one stage, all problems are in one error.
    """
    path = Path(path)
    data = files.read_bounded(path)
    digest, size = hashlib.sha256(data), len(data)
    model = _parse(data, path.name)
    del data
    found = Findings(path.name)
    source_ir = model.ir_version
    notes = list(_check_structure(model, found))
    outside = _load_external(model, path)
    for part in outside.pieces():
        digest.update(part)
    size += outside.size_bytes
    outside.ranges.clear()
    known = operators.opsets(model, found)
    notes += _check_support(model, known, outside.deferred, found)
    found.raise_any()
    arrays, order = take_weights(model, outside.deferred)
    notes += interface.fix_shapes(model, shapes, path.name)
    interface.require_ranks(model, path.name)
    text.keep_foreign_value_info(model)
    try:
        newer = opset.newer(model)
        model = opset.convert(model, known, found)
        graph, more = to_graph(model, arrays, order, found)
    except EdgeqError as error:
        if error.slug != "onnx-failed":
            raise
        raise EdgeqError("onnx-failed", f"{path.name}: {error.message}", *error.hints) from error
    check(graph)
    if newer:
        notes.append(f"operators newer than opset {OPSET} are expanded: {listed(newer)}")
    notes = [*_version_notes(known.default, source_ir), *notes, *more]
    return ReadResult(graph, known.default, source_ir, tuple(notes), digest.hexdigest(), size)


def _parse(data: bytes, name: str) -> ModelProto:
    """The message, or what the file is instead."""
    other = sniff.not_onnx(data)
    if other is not None:
        meant = "a TFLite" if name.lower().endswith(".tflite") else "an ONNX"
        ending = "" if other == "empty" else f", not {meant} model"
        raise EdgeqError("not-onnx", f"{name} is {other}{ending}", *sniff.hint(other))
    model = ModelProto()
    try:
        model.ParseFromString(data)
    except DecodeError:
        raise EdgeqError(
            "damaged-model",
            f"{name} cannot be parsed as ONNX ({len(data):,} bytes): cut short, damaged, or "
            "another format",
            "fetch or export the file again and compare its size",
        ) from None
    if not model.HasField("graph") or not model.HasField("ir_version"):
        raise EdgeqError("not-onnx", f"{name} has no graph in it: it is not an ONNX model")
    return model


def _check_structure(model: ModelProto, found: Findings) -> tuple[str, ...]:
    """Names, order, tensors and attributes; raises when anything is broken."""
    try:
        notes = list(text.strip_comments(model))
        dropped = interface.drop_constant_inputs(model)
        structure = Structure(found)
        structure.model(model)
    except (text.NotText, UnicodeDecodeError):
        found.add("damaged-model", "a name in it is not text")
        found.raise_any()
    if any(slug in ("damaged-model", "invalid-model") for slug, _ in found.problems):
        found.raise_any()
    if dropped:
        notes.append(f"initializers listed as inputs are constants: {listed(dropped)}")
    if structure.reordered:
        notes.append("nodes were not in topological order and are sorted")
    return tuple(notes)


def _load_external(model: ModelProto, path: Path) -> external_data.ExternalData:
    """Every tensor that lies in another file, brought in through the containment check.

    Of a model with more than `KEEP_OUTSIDE_BYTES` there, large initializers stay outside.
    """
    outside = external_data.ExternalData(path.parent, path.name)
    weights = [tensor for tensor in model.graph.initializer if _is_external(tensor)]
    inner = [
        tensor
        for node in model.graph.node
        for tensor in tensors.node_tensors(node)
        if _is_external(tensor)
    ]
    is_big = sum(map(tensors.size_bytes, (*weights, *inner))) > KEEP_OUTSIDE_BYTES
    for tensor in weights:
        if is_big and tensors.may_stay_outside(tensor):
            outside.defer(tensor, tensors.size_bytes(tensor))
        else:
            tensors.load_external(tensor, outside.read)
    for tensor in inner:
        tensors.load_external(tensor, outside.read)
    return outside


def _is_external(tensor: TensorProto) -> bool:
    return tensor.data_location == TensorProto.EXTERNAL and tensors.is_sound(tensor)


def _check_support(
    model: ModelProto,
    known: operators.Opsets,
    deferred: Mapping[str, Outside],
    found: Findings,
) -> tuple[str, ...]:
    """Operators, opsets, functions, types, finite weights; only collects."""
    operators.check(model, known, found)
    functions.check(model, known, found)
    interface.check(model, found)
    finite.check(model.graph, deferred, found)
    notes = []
    foreign = operators.foreign(model)
    names = [f"{name} ({number})" for name, number in sorted(foreign.items())]
    if names and not model.functions:
        notes.append(f"operators outside the standard stay as they are, in float: {listed(names)}")
    notes += [
        f"{label(node)}: its bodies are optimized but never quantized"
        for node in model.graph.node
        if any(True for attribute in node.attribute for _ in tensors.bodies(attribute))
    ]
    if model.functions:
        called = [f"{function.domain}::{function.name}" for function in model.functions]
        notes.append(f"local functions are expanded: {listed(called)}")
    return tuple(notes)


def _version_notes(source_opset: int, source_ir: int) -> tuple[str, ...]:
    notes = []
    if source_opset != OPSET:
        verb = "raised" if source_opset < OPSET else "lowered"
        notes.append(f"opset {source_opset} {verb} to {OPSET}")
    if source_ir != IR_VERSION:
        verb = "raised" if source_ir < IR_VERSION else "lowered"
        notes.append(f"IR version {source_ir} {verb} to {IR_VERSION}")
    return tuple(notes)
