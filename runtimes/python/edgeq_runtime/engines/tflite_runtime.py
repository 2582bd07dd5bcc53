"""tflite-runtime 2.14 as an engine: TFLite models on 32-bit ARM and old boards.

It computes some kinds of models wrongly, without an error: `capabilities` says which, and nothing
of that is run. Its wheels are compiled for numpy 1; with numpy 2 it dies at the first model, so
numpy is looked at before it is imported.
"""

from __future__ import annotations

import importlib
import importlib.util
from types import ModuleType

import numpy as np

from edgeq_runtime.engines import tflite_session
from edgeq_runtime.engines.tflite_session import FORMATS, Session
from edgeq_runtime.errors import EdgeqError

__all__ = ["ENGINE", "FORMATS", "Session", "open_session", "saturates", "version"]

ENGINE = "tflite-runtime"


def check_numpy(numpy_version: str) -> None:
    """Raises EdgeqError [engine-needs-numpy1]."""
    if int(numpy_version.split(".", maxsplit=1)[0]) > 1:
        raise EdgeqError(
            "engine-needs-numpy1",
            f"{ENGINE} is made for numpy 1, and this is numpy {numpy_version}",
            'pip install "numpy<2"',
        )


def _library() -> ModuleType:
    if importlib.util.find_spec("tflite_runtime") is not None:
        check_numpy(np.__version__)
    return importlib.import_module("tflite_runtime.interpreter")


_LIBRARY = _library()


def version() -> str:
    """Version of the imported engine, like "2.14.0"."""
    return str(importlib.import_module("tflite_runtime").__version__)


def saturates() -> bool:
    """False: no int8 kernel does."""
    return False


def open_session(
    model: bytes | str,
    *,
    threads: int | None = None,
    exact: bool = False,
    low_memory: bool = False,
    resolver: str = "auto",
) -> Session:
    """As engine `litert` does; what 2.14 computes wrongly is refused: [engine-cannot]."""
    return tflite_session.open_session(
        _LIBRARY,
        model,
        engine=ENGINE,
        version=version(),
        threads=threads,
        exact=exact,
        resolver=resolver,
    )
