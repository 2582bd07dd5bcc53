"""Bring a model to the one opset of `Graph`, with onnx's own converter, in its child process."""

from __future__ import annotations

from onnx import ModelProto, defs

from edgeq.ir import IR_VERSION, OPSET
from edgeq.ir.isolated import onnx_child
from edgeq_converters.read import functions, operators
from edgeq_converters.read.findings import Findings, listed, one_line


def convert(model: ModelProto, known: operators.Opsets, found: Findings) -> ModelProto:
    """`model` at `OPSET` and `IR_VERSION`, local functions expanded, checked by onnx.

    What has no equal at `OPSET` is named in the error. `model` is not usable afterwards.
    """
    functions.fill_defaults(model)
    model.ir_version = IR_VERSION
    del model.opset_import[:]
    versions = {**known.versions, "": known.default}
    for domain, version in sorted(versions.items()):
        model.opset_import.add(domain=domain, version=version)
    request = {"step": "prepare", "opset": OPSET}
    said, data = onnx_child().ask(request, model.SerializeToString())
    if said:
        found.add(*_problem(said, known.default))
        found.raise_any()
    converted: ModelProto = ModelProto.FromString(data)
    converted.ir_version = IR_VERSION
    return converted


def newer(model: ModelProto) -> list[str]:
    """Operators in `model` that came after `OPSET`: they are expanded, where their schema can."""
    used = {node.op_type for node in model.graph.node if not node.domain}
    return sorted(name for name in used if defs.has(name) and not defs.has(name, OPSET, ""))


def _problem(said: dict[str, str], source: int) -> tuple[str, str]:
    """(slug, text) of the step that failed."""
    reason = one_line(said["message"])
    if said["failed"] == "functions":
        return "invalid-model", f"its local functions cannot be expanded: {reason}"
    if said["failed"] == "check":
        return "invalid-model", reason
    verb = "raised" if source < OPSET else "lowered"
    blamed = f" because of {listed(said['operators'])}" if said.get("operators") else ""
    return "unsupported-opset", f"opset {source} cannot be {verb} to {OPSET}{blamed}: {reason}"
