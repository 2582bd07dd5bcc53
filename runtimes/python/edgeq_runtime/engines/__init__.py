"""The table of engines. A row is a module with `open_session`, `saturates` and `version`."""

from __future__ import annotations

import importlib
import importlib.metadata
import sys
from types import ModuleType
from typing import Any

from edgeq_runtime.errors import EdgeqError
from edgeq_runtime.tflite import is_tflite

ENGINES: dict[str, str] = {
    "onnxruntime": "edgeq_runtime.engines.onnxruntime",
    "litert": "edgeq_runtime.engines.litert",
    "tflite-runtime": "edgeq_runtime.engines.tflite_runtime",
}
DISTRIBUTIONS: dict[str, str] = {"litert": "ai-edge-litert"}
"""What is installed for an engine, where its name is another."""
FALLBACKS: dict[str, str] = {"litert": "tflite-runtime"}
"""What runs the files of an engine that is not installed, as far as it can."""
KNOWN_BAD: tuple[tuple[str, str, str, str, str], ...] = (
    # (engine, version, architecture, on cpus without, what happens); asked before the import.
    # onnxruntime #23957, #24112: fine on a Cortex-A76, dead on a Cortex-A72.
    ("onnxruntime", "1.21.0", "aarch64", "asimddp", "its import dies with SIGILL on this cpu"),
)
ENTRY_POINTS = "edgeq.engines"  # engines of third parties: name -> module


def get(name: str) -> ModuleType:
    """Import the engine `name`; [missing-engine] names the line that installs it."""
    path = ENGINES.get(name) or _third_party(name)
    if path is None:
        known = ", ".join(f"`{row}`" for row in ENGINES)
        raise EdgeqError(
            "unknown-engine", f"there is no engine `{name}`", f"known engines: {known}"
        )
    try:
        return importlib.import_module(path)
    except ImportError as error:
        raise _missing(name, error) from error


def for_model(data: bytes) -> str:
    """The engine that a model file in memory is for, by its first bytes."""
    return "litert" if is_tflite(data) else "onnxruntime"


def installed_version(name: str) -> str | None:
    """Version of the engine's distribution, read without importing it (an import can crash)."""
    try:
        return importlib.metadata.version(DISTRIBUTIONS.get(name, name))
    except importlib.metadata.PackageNotFoundError:
        return None


def _missing(name: str, error: ImportError) -> EdgeqError:
    if isinstance(error, ModuleNotFoundError):
        message = f"engine `{name}` is not installed"
    else:  # present, but cannot be loaded: say what the loader said
        message = f"engine `{name}` cannot be imported: {error}".splitlines()[0]
    return EdgeqError("missing-engine", message, f'install it: pip install "edgeq-runtime[{name}]"')


def _third_party(name: str) -> str | None:
    for point in _entry_points():
        if point.name == name:
            return point.value
    return None


def _entry_points() -> list[importlib.metadata.EntryPoint]:
    points: Any = importlib.metadata.entry_points()
    if sys.version_info < (3, 10):  # a dict of lists then
        return list(points.get(ENTRY_POINTS, ()))
    return list(points.select(group=ENTRY_POINTS))
