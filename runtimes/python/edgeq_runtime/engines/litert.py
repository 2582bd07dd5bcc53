"""LiteRT (ai-edge-litert) as an engine: TFLite models on the CPU, by XNNPACK where it can.

Its int8 kernels are exact: sums in int32 from products of int8 codes, on every processor, so
nothing saturates and `exact` changes nothing. What the files of edgeq 2.1 to 2.3 compute in int8 is
the same on x86 and aarch64, bit for bit.
"""

from __future__ import annotations

import ai_edge_litert
from ai_edge_litert import interpreter

from edgeq_runtime.engines import tflite_session
from edgeq_runtime.engines.tflite_session import FORMATS, Session

__all__ = ["ENGINE", "FORMATS", "Session", "open_session", "saturates", "version"]

ENGINE = "litert"


def version() -> str:
    """Version of the imported engine, like "2.3.0"."""
    return str(ai_edge_litert.__version__)


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
    """Open `model` (bytes or a path) on the CPU, after our own verifier has passed it.

    threads: by default as many as this process may use, four at most. exact, low_memory: change
    nothing here. resolver: "auto" (XNNPACK), "builtin" or "reference" kernels.
    Raises EdgeqError [damaged-model], [engine-cannot], [engine-refused].
    """
    return tflite_session.open_session(
        interpreter, model, engine=ENGINE, version=version(), threads=threads, resolver=resolver
    )
