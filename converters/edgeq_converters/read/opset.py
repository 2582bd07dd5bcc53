"""Raise (or lower) a model to the one opset of `Graph`, with onnx's own converter."""

from __future__ import annotations

import onnx
from onnx import ModelProto

from edgeq.ir import IR_VERSION, OPSET
from edgeq_converters.read import operators
from edgeq_converters.read.findings import Findings, listed, one_line

# What the converter's C++ throws, as it arrives in Python.
_FAILURES = (RuntimeError, ValueError, IndexError, TypeError, MemoryError)


def convert(model: ModelProto, known: operators.Opsets, found: Findings) -> ModelProto:
    """`model` at `OPSET` and `IR_VERSION`; what has no equal there is named in the error."""
    model.ir_version = IR_VERSION
    del model.opset_import[:]
    versions = {**known.versions, "": known.default}
    for domain, version in sorted(versions.items()):
        model.opset_import.add(domain=domain, version=version)
    if known.default == OPSET:
        return model
    try:
        converted = onnx.version_converter.convert_version(model, OPSET)
    except _FAILURES as failure:
        found.add("unsupported-opset", _blame(model, known.default, failure))
        found.raise_any()
        raise AssertionError("unreachable") from failure
    converted.ir_version = IR_VERSION
    return converted


def _blame(model: ModelProto, source: int, failure: BaseException) -> str:
    """Which operator has no form at `OPSET`: the one step that fails leaves only its own changes."""
    verb = "raised" if source < OPSET else "lowered"
    text = f"opset {source} cannot be {verb} to {OPSET}"
    step = 1 if source < OPSET else -1
    current = model
    for version in range(source + step, OPSET + step, step):
        try:
            current = onnx.version_converter.convert_version(current, version)
        except _FAILURES as cause:
            changed = max(version, version - step)
            names = sorted(_changed_in(current, changed))
            if names:
                text += f" because of {listed(names)}"
            return f"{text}: {one_line(cause)}"
    return f"{text}: {one_line(failure)}"


def _changed_in(model: ModelProto, version: int) -> set[str]:
    """The operators in use whose definition changed with opset `version`."""
    used = {node.op_type for node in operators.every_node(model) if not node.domain}
    return {
        name
        for name in used
        if onnx.defs.has(name, version, "")
        and onnx.defs.get_schema(name, version, "").since_version == version
    }
