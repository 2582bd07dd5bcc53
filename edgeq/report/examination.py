"""What `inspect` shows: a model file or a bundle as sections of rows, and the same as data."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from edgeq.report.card import megabytes

Rows = tuple[tuple[str, str], ...]


def tensor_rows(tensors: Sequence[Mapping[str, Any]]) -> Rows:
    """(name, "float32 [1, 3, 224, 224]") for each tensor document."""
    return tuple((t["name"], f"{t['dtype']} [{shape_text(t['shape'])}]") for t in tensors)


def shape_text(shape: Sequence[int | str | None]) -> str:
    """Dimensions with commas; `?` where one is free and has no name."""
    return ", ".join("?" if size is None else str(size) for size in shape)


def tensor_document(info: Any) -> dict[str, Any]:
    """A `TensorInfo` as JSON."""
    return {"name": info.name, "dtype": info.dtype, "shape": list(info.shape)}


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


def count_ops(names: Sequence[str]) -> dict[str, int]:
    """Operator types with their counts, the most frequent first, names break ties."""
    return dict(sorted(Counter(names).items(), key=lambda item: (-item[1], item[0])))
