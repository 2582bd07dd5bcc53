"""`inspect` and `doctor`: looking at a file, looking at this machine."""

from __future__ import annotations

import platform
import shlex
from collections.abc import Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeq.errors import EdgeqError
from edgeq.report.examination import (
    bundle_sections,
    count_ops,
    model_sections,
    tensor_document,
)
from edgeq.report.results import Doctor, Inspection

if TYPE_CHECKING:
    from edgeq.ir import Graph


def inspect(
    file: str | Path, *, shape: Mapping[str, Sequence[int]], plan: bool = False
) -> Inspection:
    """Describe a model or a bundle; reads and checks, runs nothing. `plan`: a bundle's operators
    one by one as well, or a TFLite file's; an ONNX model has no plan before it is built, and is
    refused [needs-bundle]."""
    from edgeq.api.models import is_tflite
    from edgeq.api.use import is_bundle

    path = Path(file)
    if is_bundle(path):
        return _inspect_bundle(path, plan)
    if is_tflite(path):
        from edgeq.api import tflite_file

        return tflite_file.inspect(path, plan=plan)
    result = _inspect_model(path, shape)
    if plan:
        word = shlex.quote(str(file))
        raise EdgeqError(
            "needs-bundle",
            f"`{path.name}` is a model: its plan is made from calibration data when it is built",
            f"edgeq build {word} --target rpi5 --data calib.npz --plan-only -v",
        )
    return result


def _inspect_model(path: Path, shapes: Mapping[str, Sequence[int]]) -> Inspection:
    from edgeq.api.models import read_model

    read = read_model(path, shapes)
    graph = read.graph
    data: dict[str, Any] = {
        "model": {
            "name": path.name,
            "opset": read.source_opset,
            "size_bytes": read.size_bytes,
            "parameters": graph.parameter_count,
            "sha256": read.sha256,
        },
        "inputs": [tensor_document(info) for info in graph.inputs],
        "outputs": [tensor_document(info) for info in graph.outputs],
        "ops": count_ops([node.op_type for node in graph.nodes()]),
        "weight_bytes": _weight_bytes(graph),
    }
    return Inspection(path.name, "model", model_sections(data), data, read.notes)


def _inspect_bundle(path: Path, plan: bool) -> Inspection:
    """What the manifest says, once every byte of the bundle is checked; no engine is started."""
    from edgeq.api.planned import plan_document
    from edgeq_runtime import reader

    bundle = reader.read(path)
    manifest, raw = bundle.manifest, bundle.manifest.to_json()
    data: dict[str, Any] = {
        "model": raw["model"],
        "name": manifest.name,
        "format": raw["format"],
        "digest": manifest.digest,
        "target": manifest.target,
        "precision": manifest.precision,
        "made_by": manifest.made_by,
        "engine": raw["engine"],
        "exact_kernels": manifest.exact_kernels,
        "cpu": raw["cpu"],
        "artifact": raw["artifact"],
        "inputs": [tensor_document(info) for info in manifest.inputs],
        "outputs": [tensor_document(info) for info in manifest.outputs],
        "input_specs": raw["input_specs"],
        "labels": raw["labels"],
        "ops": raw["ops"],
        "left_in_float": raw["left_in_float"],
        "calibration": raw["calibration"],
        "quality": raw["quality"],
        "gate": raw["gate"],
        "golden_vectors": len(manifest.golden.vectors),
        "files": {
            name: {"size_bytes": entry.size, "sha256": entry.sha256}
            for name, entry in manifest.files.items()
        },
    }
    planned = {"plan": plan_document(bundle)} if plan else {}
    sections = bundle_sections(data)
    return Inspection(path.name, "bundle", sections, {**data, **planned}, manifest.notes)


def _weight_bytes(graph: Graph) -> dict[str, int]:
    sizes: dict[str, int] = {}
    for value in graph.model.graph.initializers.values():
        tensor = value.const_value
        if tensor is not None:
            dtype = tensor.dtype.name.lower()
            sizes[dtype] = sizes.get(dtype, 0) + tensor.nbytes
    return dict(sorted(sizes.items(), key=lambda item: (-item[1], item[0])))


def doctor() -> Doctor:
    """Check what edgeq needs here and what it can use."""
    return Doctor((*_python_rows(), *_package_rows(), *_engine_rows(), *_host_rows()))


def _python_rows() -> Iterator[tuple[str, str, str]]:
    from edgeq import __version__

    yield "edgeq", "ok", __version__
    yield "python", "ok", f"{platform.python_version()} on {platform.system()}"


FALLBACK = "tflite-runtime"
PACKAGES = ("numpy", "onnx", "onnx-ir", "onnxruntime", "ai-edge-litert", "click", "rich")


def _package_rows() -> Iterator[tuple[str, str, str]]:
    for name in PACKAGES:
        try:
            yield name, "ok", metadata.version(name)
        except metadata.PackageNotFoundError:
            yield name, "problem", f"not installed: pip install {name}"
    yield from _fallback_row()


def _fallback_row() -> Iterator[tuple[str, str, str]]:
    """The old TFLite engine, where it is installed: nothing asks for it here."""
    from edgeq_runtime import engines

    version = engines.installed_version(FALLBACK)
    if version is None:
        return
    try:
        engines.get(FALLBACK).version()
        yield FALLBACK, "ok", f"{version}; used only where ai-edge-litert is not installed"
    except EdgeqError as error:
        yield FALLBACK, "problem", error.message


def _engine_rows() -> Iterator[tuple[str, str, str]]:
    from edgeq_runtime import engines

    try:
        engine = engines.get("onnxruntime")
        saturates = engine.saturates()
    except EdgeqError as error:
        yield "int8 kernels", "problem", error.message
        return
    if saturates:
        yield (
            "int8 kernels",
            "ok",
            "u8 x s8 products saturate on this CPU: edgeq checks with exact, slower kernels",
        )
    else:
        yield "int8 kernels", "ok", "exact on this CPU"


def _host_rows() -> Iterator[tuple[str, str, str]]:
    from edgeq import targets
    from edgeq_runtime import cpu

    host = cpu.host()
    yield "cpu", "ok", f"{host.model or 'unknown model'} ({host.architecture})"
    try:
        yield "target of this host", "ok", targets.for_host(host)
    except EdgeqError as error:
        yield "target of this host", "missing", error.message
