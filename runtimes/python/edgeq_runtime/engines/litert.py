"""LiteRT (ai-edge-litert) as an engine: TFLite models on the CPU, by XNNPACK where it can.

Its int8 kernels are exact: products of int8 codes are summed in int32, on every processor, so
nothing saturates. Static int8 was the same on x86 and aarch64, bit for bit, in every file measured.
Floats may be computed in float16 where the file says so and the processor can; `exact` forbids it.
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

    threads: by default as many as this process may use, four at most. exact: floats in float32 also
    where the file lets XNNPACK take float16; int8 is exact anyway. low_memory: changes nothing.
    resolver: "auto" (XNNPACK), "builtin" or "reference" kernels.
    Raises EdgeqError [damaged-model], [engine-cannot], [engine-refused].
    """
    return tflite_session.open_session(
        interpreter,
        model,
        engine=ENGINE,
        version=version(),
        threads=threads,
        exact=exact,
        resolver=resolver,
    )
