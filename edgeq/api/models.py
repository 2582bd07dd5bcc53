"""Float models as sessions: read, optimized, tried in a child process, then opened here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeq import registry

if TYPE_CHECKING:
    import numpy as np

    from edgeq.ir import Graph
    from edgeq.passes import PassReport
    from edgeq.quant.plan import QuantPlan
    from edgeq_converters.read.result import ReadResult
    from edgeq_runtime.engines.onnxruntime import Session

ENGINE = "onnxruntime"
"""What computes the float model and all that a search tries, whatever the artifact is for."""
LITERT = "litert"
"""What runs TFLite files."""
PROBE_SECONDS = 60.0
"""How long a user's model may take to load and run once on zeros in the child process."""


@dataclass(frozen=True)
class Prepared:
    """A model read, optimized and known to load: `source` is what the file said, `graph` the
    optimized one, `source_bytes` and `float_bytes` their ONNX files; `tflite_bytes` is the file
    itself where it is a quantized TFLite model."""

    name: str
    read: ReadResult
    graph: Graph
    reports: tuple[PassReport, ...]
    source_bytes: bytes
    float_bytes: bytes
    tflite_bytes: bytes | None = None

    @property
    def own_plan(self) -> QuantPlan | None:
        """The plan of a model that was quantized before. Weights alone that are stored narrow make
        it no such model: what computes with them is float."""
        plan = self.read.plan
        return plan if plan is not None and plan.computes_int8 else None

    @property
    def source(self) -> Graph:
        return self.read.graph

    def summary(self) -> dict[str, Any]:
        """What results and manifests say of the model: no path, so that builds repeat."""
        return {
            "name": self.name,
            "sha256": self.read.sha256,
            "size_bytes": self.read.size_bytes,
            "opset": self.read.source_opset,
            "parameters": self.source.parameter_count,
        }


def text_name(path: Path) -> str:
    """A file's name as text for manifest, card and screen: bytes that are not UTF-8 as escapes."""
    from edgeq.data.feeds import short

    return short(path)


def is_tflite(path: Path) -> bool:
    """Whether a file is a TFLite model by its content; what cannot be opened is none."""
    if not path.is_file():  # a named pipe would be waited for
        return False
    try:
        with path.open("rb") as file:
            return file.read(8)[4:] == b"TFL3"
    except OSError:
        return False


def read_model(path: Path, shapes: Mapping[str, Sequence[int]]) -> ReadResult:
    """Read any model file edgeq knows, by its content; raises what the reader raises, and
    [plan-mismatch] for integers of a file that do not fit its own graph."""
    from edgeq.quant import fit

    reader = registry.resolve("readers", "tflite" if is_tflite(path) else "onnx")
    result: ReadResult = reader(path, shapes={k: tuple(v) for k, v in shapes.items()})
    if result.plan is not None:
        fit.check(result.graph, result.plan)
    return result


def write_model(graph: Graph, extra_outputs: Sequence[str] = ()) -> bytes:
    """The float graph as an ONNX file, `extra_outputs` beside its own outputs."""
    writer = registry.resolve("writers", "onnx")
    written: bytes = writer(graph, None, extra_outputs=extra_outputs)
    return written


def probe(model: bytes) -> None:
    """Load and run `model` once in a child, so that an engine's crash is an error and no more."""
    from edgeq_runtime import engines, isolate

    isolate.probe(model, engine=engines.for_model(model), timeout_s=PROBE_SECONDS)


def open_exact(model: bytes, *, threads: int | None = None) -> Session:
    """A session whose integers are the same on every host, in little memory."""
    from edgeq_runtime import engines

    session: Session = engines.get(engines.for_model(model)).open_session(
        model, exact=True, low_memory=True, threads=threads
    )
    return session


def open_default(model: bytes) -> Session:
    """A session as an app has it: the engine's own kernels and threads."""
    from edgeq_runtime import engines

    session: Session = engines.get(engines.for_model(model)).open_session(model)
    return session


class EngineExecutor:
    """`edgeq.quant.executor.Executor` over a runtime session."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def run(self, feeds: Mapping[str, np.ndarray[Any, Any]]) -> Mapping[str, np.ndarray[Any, Any]]:
        return self._session.run(dict(feeds))
