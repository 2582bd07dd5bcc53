"""What `inspect` shows: a model file or a bundle as sections of rows, and the same as data."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from edgeq.report.card import megabytes, precision_rows

Rows = tuple[tuple[str, str], ...]


def tensor_rows(tensors: Sequence[Mapping[str, Any]]) -> Rows:
    """(name, "float32 [1, 3, 224, 224]") for each tensor document; codes with their step."""
    return tuple((t["name"], f"{t['dtype']} [{shape_text(t['shape'])}]{_grid(t)}") for t in tensors)


def _grid(tensor: Mapping[str, Any]) -> str:
    scale = tensor.get("scale")
    return "" if scale is None else f", step {scale:.4g}, zero point {tensor['zero_point']}"


def shape_text(shape: Sequence[int | str | None]) -> str:
    """Dimensions with commas; `?` where one is free and has no name."""
    return ", ".join("?" if size is None else str(size) for size in shape)


def tensor_document(info: Any) -> dict[str, Any]:
    """A `TensorInfo` as JSON."""
    document = {"name": info.name, "dtype": info.dtype, "shape": list(info.shape)}
    if info.scale is None:
        return document
    return {**document, "scale": info.scale, "zero_point": info.zero_point}


def model_sections(data: Mapping[str, Any]) -> tuple[tuple[str, Rows], ...]:
    """The sections of a model's document (see `edgeq.api.examine`)."""
    model = data["model"]
    return (
        (
            "Model",
            (
                ("file", model["name"]),
                ("opset", str(model["opset"])),
                ("size", megabytes(model["size_bytes"])),
                ("parameters", f"{model['parameters']:,}"),
                ("sha256", model["sha256"]),
            ),
        ),
        ("Inputs", tensor_rows(data["inputs"])),
        ("Outputs", tensor_rows(data["outputs"])),
        ("Operators", tuple((op, str(n)) for op, n in data["ops"].items())),
        ("Weights", tuple((dtype, megabytes(n)) for dtype, n in data["weight_bytes"].items())),
    )


def tflite_sections(data: Mapping[str, Any]) -> tuple[tuple[str, Rows], ...]:
    """The sections of a TFLite file's document (see `edgeq.api.tflite_file`)."""
    model, file = data["model"], data["tflite"]
    tensors = {row["name"]: row for row in file["tensors"]}
    quantized = [row for row in file["tensors"] if row["quantization"] is not None]
    sections: tuple[tuple[str, Rows], ...] = (
        (
            "Model",
            (
                ("file", model["name"]),
                ("format", f"TFLite, {_made_for_text(file)}"),
                ("size", megabytes(model["size_bytes"])),
                ("parameters", f"{model['parameters']:,}"),
                ("quantized", f"{len(quantized)} of {len(tensors)} tensors"),
                ("sha256", model["sha256"]),
            ),
        ),
        ("Inputs", tensor_rows(data["inputs"])),
        ("Outputs", tensor_rows(data["outputs"])),
        ("Operators", tuple((op, str(n)) for op, n in data["ops"].items())),
        ("Weights", tuple((dtype, megabytes(n)) for dtype, n in data["weight_bytes"].items())),
        ("Signatures", tuple(_signature_row(row) for row in file["signatures"])),
        ("Metadata", tuple((name, "") for name in file["metadata"])),
    )
    return tuple((title, rows) for title, rows in sections if rows)


def _made_for_text(file: Mapping[str, Any]) -> str:
    if file["min_runtime"] is None:
        return "for any runtime, it says"
    return f"for runtime {file['min_runtime']} or newer"


def _signature_row(row: Mapping[str, Any]) -> tuple[str, str]:
    return row["key"], f"{', '.join(row['inputs'])} -> {', '.join(row['outputs'])}"


def bundle_sections(data: Mapping[str, Any]) -> tuple[tuple[str, Rows], ...]:
    """The sections of a bundle's document (see `edgeq.api.examine`)."""
    engine, cpu = data["engine"], data["cpu"]
    left = _left_rows(data["left_in_float"])
    return (
        (
            "Bundle",
            (
                ("name", data["name"]),
                ("target", data["target"]),
                ("precision", data["precision"]),
                ("made with", f"edgeq {data['made_by']}"),
                ("engine", f"{engine['name']} {engine['measured']} (>= {engine['minimum']})"),
                ("cpu", _cpu_text(cpu)),
                ("model", _artifact_text(data["artifact"])),
                ("gate", _gate_text(data["gate"])),
                ("digest", data["digest"]),
            ),
        ),
        ("Inputs", tensor_rows(data["inputs"])),
        ("Outputs", tensor_rows(data["outputs"])),
        ("Precision", precision_rows(data["ops"])),
        *((("Left in float", left),) if left else ()),
        ("Measured", _measured_rows(data["quality"])),
        (
            "Files",
            tuple(
                (name, f"{megabytes(entry['size_bytes'])}, sha256 {entry['sha256']}")
                for name, entry in data["files"].items()
            ),
        ),
    )


def _cpu_text(cpu: Mapping[str, Any]) -> str:
    required = ", ".join(cpu["required"]) or "nothing more"
    fast = f"; faster with {', '.join(cpu['fast'])}" if cpu["fast"] else ""
    return f"{cpu['architecture']}, requires {required}{fast}"


def _artifact_text(artifact: Mapping[str, Any]) -> str:
    made = f", for {artifact['platform']} alone" if artifact["format"] == "ort" else ""
    rows = artifact.get("compute", ())
    kinds = [f"{row['computes']} {_on_text(row['features'])}" for row in rows]
    computes = f", computed in {', '.join(kinds)}" if kinds else ""
    return f"{artifact['file']} ({artifact['format']}){made}{computes}"


def _on_text(features: Sequence[str]) -> str:
    return f"on cores with {' '.join(features)}" if features else "on others"


def _gate_text(gate: Mapping[str, Any] | None) -> str:
    return "none was set" if gate is None else "passed" if gate["passed"] else "failed"


def _left_rows(left: Sequence[Mapping[str, str]]) -> Rows:
    return tuple((f"{op['op_type']} {op['node']}", op["reason"]) for op in left)


def _measured_rows(quality: Sequence[Mapping[str, Any]]) -> Rows:
    if not quality:
        return (("quality", "not measured"), ("latency", "not measured"))
    rows = tuple(
        (
            str(metric["metric"]),
            f"{metric['value']:.4g}, float {_figure(metric['baseline'])}, {metric['n']} samples",
        )
        for metric in quality
    )
    return (*rows, ("latency", "not measured"))


def _figure(value: float | None) -> str:
    return "not measured" if value is None else f"{value:.4g}"


def count_ops(names: Sequence[str]) -> dict[str, int]:
    """Operator types with their counts, the most frequent first, names break ties."""
    return dict(sorted(Counter(names).items(), key=lambda item: (-item[1], item[0])))
