"""Write TFLite (LiteRT): float, or the plan's own integers; no TensorFlow.

The axes of the graph's inputs and outputs stay as they are (`layout="keep"`), convolutions inside
run with the channels last. A free batch axis is written as 1, and metadata says that it was free:
the runtime loops over it. The same graph and plan give the same bytes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import onnx_ir

from edgeq.errors import EdgeqError
from edgeq.ir import Graph, dtype_of
from edgeq.quant.plan import QuantPlan
from edgeq_converters.read.findings import listed
from edgeq_converters.write.clamps import mismatch
from edgeq_converters.write.tfl import batch, border, families, versions
from edgeq_converters.write.tfl.emitter import LAST, Emitter
from edgeq_converters.write.tfl.file import DTYPES, File

MIN_RUNTIME = "2.14.0"
"""The oldest TensorFlow Lite that these files were run with."""

REDUCED = "reduced_precision_support"
FP16 = b"fp16accfp16"
"""The metadata entry that lets XNNPACK compute in float16 on cores that can (notes: tflite)."""

ENTRY = "edgeq"
"""The metadata entry that is ours: JSON, see runtimes/FORMAT.md."""


def write(
    graph: Graph,
    plan: QuantPlan | None,
    *,
    io: str = "float",
    layout: str = "keep",
    fp16_compute: bool = False,
    extra_outputs: Sequence[str] = (),
    metadata: Mapping[str, Any] | None = None,
) -> bytes:
    """The bytes of a TFLite file; `plan` None writes the float graph.

    io: "int8" makes inputs and outputs that have codes int8 tensors. layout: "nhwc" drops the
    transposes at the border, so that images come and go with their channels last. fp16_compute:
    let cores with float16 arithmetic use it. `extra_outputs`: tensors that become outputs too.
    `metadata`: what else the entry `edgeq` shall hold (labels, inputs).

    Raises EdgeqError: [unwritable-op] naming every node without a TFLite form, [plan-mismatch],
    [needs-shape] for a free axis beside the batch, [no-such-tensor], [too-large].
    """
    assert io in ("float", "int8"), io
    assert layout in ("keep", "nhwc"), layout
    _check_plan(graph, plan)
    fixed = batch.fixed(graph)
    file = File()
    e = Emitter(fixed.graph, plan, file)
    home = fixed.graph.model.graph
    for value in home.inputs:
        if dtype_of(value) not in DTYPES:
            raise EdgeqError(
                "unsupported-type", f"input `{value.name}`: TFLite has no {dtype_of(value)} tensor"
            )
        codes = io == "int8" and str(value.name) in e.plan.tensors
        file.inputs[str(value.name)] = e.input(value, codes=codes)
    e.run(families.handler)
    _raise_failures(e)
    _add_outputs(e, home.outputs, extra_outputs, io)
    turned = border.drop_transposes(file) if layout == "nhwc" else ()
    border.name_outputs(file)
    said = {**(metadata or {}), **_free_batch(graph, fixed, extra_outputs)}
    last = sorted({*turned, *(file.name(at) for at in e.made_in(LAST))})
    if last:
        said["channels_last"] = last
    said.update(_border_said(file, said.get("inputs", {}), last))
    if versions.is_old(file):  # else it would be a promise that nobody has tried
        file.metadata("min_runtime_version", MIN_RUNTIME.encode().ljust(16, b"\0"))
    if fp16_compute:
        file.metadata(REDUCED, FP16)
    text = json.dumps({"format": 1, **said}, sort_keys=True, separators=(",", ":"))
    file.metadata(ENTRY, text.encode())
    return file.data()


def _free_batch(graph: Graph, fixed: batch.Fixed, extra: Sequence[str]) -> dict[str, Any]:
    """What the runtime feeds and joins sample by sample, where the batch was free."""
    if not fixed.inputs:
        return {}
    outputs = [*fixed.outputs, *(name for name in extra if batch.is_batched(graph, name))]
    return {"free_batch": {"inputs": list(fixed.inputs), "outputs": list(dict.fromkeys(outputs))}}


def _border_said(
    file: File, inputs: Mapping[str, Mapping[str, Any]], last: Sequence[str]
) -> dict[str, Any]:
    """Scale and zero point of inputs and outputs that are codes; preprocessing for their axes."""
    ends = {**file.inputs, **file.outputs}
    grids = {name: found for name, at in ends.items() if (found := file.parameters(at))}
    said: dict[str, Any] = {}
    if grids:
        said["quantization"] = {
            name: {"scale": float(found["scale"][0]), "zero_point": int(found["zero_point"][0])}
            for name, found in grids.items()
        }
    if inputs:
        said["inputs"] = {
            name: {**table, "layout": "nhwc"} if name in last else dict(table)
            for name, table in inputs.items()
        }
    return said


def _check_plan(graph: Graph, plan: QuantPlan | None) -> None:
    names = {str(node.name) for node in graph.nodes()}
    for name, decision in ({} if plan is None else plan.ops).items():
        if decision.precision not in ("float32", "other") and name not in names:
            raise mismatch(f"it has an op `{name}`, and the graph has no such node")


def _raise_failures(e: Emitter) -> None:
    """One error for all that has no TFLite form, a line per operator type and reason."""
    if not e.failures:
        return
    groups: dict[tuple[str, str], list[str]] = {}
    for op_type, node, reason in e.failures:
        groups.setdefault((op_type, reason), []).append(node)
    rows = [f"`{kind}` ({listed(nodes)}): {reason}" for (kind, reason), nodes in groups.items()]
    raise EdgeqError(
        "unwritable-op",
        "the model cannot be written as TFLite: " + "; ".join(rows),
        "build it as ONNX: `--format onnx`",
    )


def _add_outputs(
    e: Emitter, outputs: Sequence[onnx_ir.Value], extra: Sequence[str], io: str
) -> None:
    file = e.file
    wanted = [(value, io == "int8" and e.has_codes(value)) for value in outputs]
    present = {*file.inputs, *(str(value.name) for value in outputs)}
    for name in dict.fromkeys(extra):
        if name in present:
            continue
        value = e.graph.value(name)
        if value is None or not e.exists(value):
            raise EdgeqError("no-such-tensor", f"the artifact holds no tensor `{name}`")
        wanted.append((value, False))
    for value, codes in wanted:
        taken = (*file.inputs.values(), *file.outputs.values())
        file.outputs[str(value.name)] = e.output(value, codes=codes, taken=taken)
