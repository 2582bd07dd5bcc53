"""One table of strings per kind of thing that edgeq reaches by name, plus entry points.

A row is `name: "module:attribute"` and is imported when it is asked for, so that the core reaches
converters, engines and algorithms without importing them. A package adds its own by an entry
point in the group `edgeq.<kind>`; it cannot replace a name that a table here holds.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from edgeq.errors import EdgeqError, did_you_mean

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

READERS: dict[str, str] = {
    "onnx": "edgeq_converters.read.onnx:read",
    "tflite": "edgeq_converters.read.tflite:read",
}

WRITERS: dict[str, str] = {
    "onnx": "edgeq_converters.write.onnx:write",
    "tflite": "edgeq_converters.write.tflite:write",
}

ENGINES: dict[str, str] = {
    "onnxruntime": "edgeq_runtime.engines.onnxruntime:open_session",
    "litert": "edgeq_runtime.engines.litert:open_session",
    "tflite-runtime": "edgeq_runtime.engines.tflite_runtime:open_session",
}

# Called as (graph, draft, statistics, *, method=NAME, pair_safe) -> QuantPlan.
ALGORITHMS: dict[str, str] = {
    "minmax": "edgeq.quant.quantize:quantize",
    "p99.999": "edgeq.quant.quantize:quantize",
    "p99.99": "edgeq.quant.quantize:quantize",
    "p99.9": "edgeq.quant.quantize:quantize",
    "mse": "edgeq.quant.quantize:quantize",
    "kl": "edgeq.quant.quantize:quantize",
}

# Called as (artifact bytes) -> what shows the tensors inside a file of the format, for `compare`:
# `.outputs` and `.inside` (name -> edgeq.quant.fidelity.Held), `.showing(names) -> bytes`.
VIEWERS: dict[str, str] = {
    "onnx": "edgeq_converters.read.onnx_tensors:OnnxTensors",
    "tflite": "edgeq_converters.read.tflite_tensors:TfliteTensors",
}

TABLES: dict[str, dict[str, str]] = {
    "readers": READERS,
    "writers": WRITERS,
    "viewers": VIEWERS,
    "engines": ENGINES,
    "algorithms": ALGORITHMS,
}


def names(kind: str) -> tuple[str, ...]:
    """Every name of a kind ("readers", ...): the tables', then installed packages'."""
    table = TABLES[kind]
    return (*table, *sorted(point.name for point in _entry_points(kind) if point.name not in table))


def resolve(kind: str, name: str) -> Any:
    """The object behind a name of a kind; unknown names raise `[not-registered]`."""
    row = TABLES[kind].get(name)
    if row is not None:
        return _load(row)
    for point in _entry_points(kind):
        if point.name == name:
            return _load_plugin(kind, point)
    raise EdgeqError(
        "not-registered", f"there is no {kind[:-1]} `{name}`", *did_you_mean(name, names(kind))
    )


def _load(row: str) -> Any:
    module, _, attribute = row.partition(":")
    return getattr(import_module(module), attribute)


def _load_plugin(kind: str, point: EntryPoint) -> Any:
    try:
        return point.load()
    except (ImportError, AttributeError) as failure:
        raise EdgeqError(
            "broken-plugin",
            f"entry point `{point.name}` of edgeq.{kind} (`{point.value}`) fails to import:"
            f" {failure}",
        ) from failure


def _entry_points(kind: str) -> tuple[EntryPoint, ...]:
    from importlib.metadata import entry_points

    return tuple(entry_points(group=f"edgeq.{kind}"))
