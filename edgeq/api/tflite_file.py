"""A TFLite file looked at: what it holds, tensor by tensor and operator by operator; not run."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeq.api import border
from edgeq.api.tflite import operator_name, precision
from edgeq.report.examination import count_ops, tflite_sections
from edgeq.report.results import Inspection

if TYPE_CHECKING:
    from edgeq_runtime.tflite import Model, Quantization, Subgraph, Tensor


def inspect(path: Path, *, plan: bool) -> Inspection:
    """Describe the file; `plan` adds each operator with what it makes, and on which grid.

    Raises what our own reading of its bytes raises: [damaged-model], [unsupported-type].
    """
    from edgeq_converters.read.files import read_bounded
    from edgeq_converters.read.tflite import parse

    data = read_bounded(path)
    model = parse(data, path.name)
    graph = model.subgraphs[0]
    constants = [tensor for tensor in graph.tensors if tensor.data is not None]
    ends = border.ends(model)
    names = {at: name for name, at in ends.items()}
    document: dict[str, Any] = {
        "model": {
            "name": path.name,
            "opset": 0,
            "size_bytes": len(data),
            "parameters": sum(_size(tensor) for tensor in constants),
            "sha256": hashlib.sha256(data).hexdigest(),
        },
        "inputs": [_end(graph.tensors[at], names.get(at)) for at in graph.inputs],
        "outputs": [_end(graph.tensors[at], names.get(at)) for at in graph.outputs],
        "ops": count_ops([operator_name(op) for op in graph.operators]),
        "weight_bytes": _weight_bytes(constants),
        "tflite": _tflite(model, graph),
    }
    planned = {"plan": _plan(graph)} if plan else {}
    return Inspection(path.name, "model", tflite_sections(document), document | planned, ())


def _tflite(model: Model, graph: Subgraph) -> dict[str, Any]:
    """What only files of this format have."""
    runtime = bytes(model.metadata.get("min_runtime_version", b"")).rstrip(b"\0")
    return {
        "description": model.description,
        "min_runtime": runtime.decode("utf-8", "backslashreplace") or None,
        "subgraphs": len(model.subgraphs),
        "signatures": [
            {"key": row.key, "inputs": list(row.inputs), "outputs": list(row.outputs)}
            for row in model.signatures
        ],
        "metadata": sorted(model.metadata),
        "tensors": [_tensor(tensor) for tensor in graph.tensors],
    }


def _tensor(tensor: Tensor) -> dict[str, Any]:
    return {
        "name": tensor.name,
        "dtype": tensor.dtype,
        "shape": list(tensor.shape),
        "constant": tensor.data is not None,
        "quantization": _quantization(tensor.quantization),
    }


def _quantization(found: Quantization | None) -> dict[str, Any] | None:
    if found is None or not (found.scale or found.block_size):
        return None
    return {
        "scales": len(found.scale),
        "scale": float(found.scale[0]) if len(found.scale) == 1 else None,
        "zero_point": int(found.zero_point[0]) if len(set(found.zero_point)) == 1 else None,
        "axis": None if len(found.scale) == 1 else found.axis,
        "block_size": found.block_size or None,
    }


def _end(tensor: Tensor, name: str | None) -> dict[str, Any]:
    shape = [None if size < 0 else size for size in tensor.shape_signature or tensor.shape]
    end: dict[str, Any] = {"name": name or tensor.name, "dtype": tensor.dtype, "shape": shape}
    grid = _grid(tensor)
    if grid["scale"] is None:
        return end
    return {**end, "scale": grid["scale"], "zero_point": grid["zero_point"]}


def _size(tensor: Tensor) -> int:
    count = 1
    for size in tensor.shape:
        count *= size
    return count


def _weight_bytes(constants: list[Tensor]) -> dict[str, int]:
    sizes: dict[str, int] = {}
    for tensor in constants:
        sizes[tensor.dtype] = sizes.get(tensor.dtype, 0) + len(tensor.data or b"")
    return dict(sorted(sizes.items(), key=lambda item: (-item[1], item[0])))


def _plan(graph: Subgraph) -> dict[str, Any]:
    """The operators as the plan of a bundle has them; a TFLite operator is called as what it
    makes."""
    ops = []
    for op in graph.operators:
        made = graph.tensors[op.outputs[0]] if op.outputs else None
        name = "" if made is None else made.name
        row: dict[str, Any] = {"node": name, "op_type": operator_name(op)}
        row["precision"] = precision(graph, op)
        row |= {"reason": None, "fused_into": None, "tensor": name}
        ops.append({**row, **_grid(made), "measured": False, "sqnr_db": None})
    counts: dict[str, int] = {}
    for row in ops:
        counts[str(row["precision"])] = counts.get(str(row["precision"]), 0) + 1
    return {"counts": counts, "ops": ops}


def _grid(tensor: Tensor | None) -> Mapping[str, Any]:
    """Scale, zero point and the ends of what the codes of a tensor can hold."""
    found = None if tensor is None else tensor.quantization
    ends = {"int8": (-128, 127), "uint8": (0, 255), "int16": (-32768, 32767)}
    if tensor is None or found is None or len(found.scale) != 1 or tensor.dtype not in ends:
        keys = ("dtype", "scale", "zero_point", "minimum", "maximum", "range_from")
        return dict.fromkeys(keys)
    scale, zero_point = float(found.scale[0]), int(found.zero_point[0])
    low, high = ((end - zero_point) * scale for end in ends[tensor.dtype])
    return {
        "dtype": tensor.dtype,
        "scale": scale,
        "zero_point": zero_point,
        "minimum": low,
        "maximum": high,
        "range_from": None,
    }
