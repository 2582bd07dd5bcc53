"""What a reader returns, whatever the format of the file."""

from __future__ import annotations

from dataclasses import dataclass

from edgeq.ir import Graph
from edgeq.quant.plan import QuantPlan


@dataclass(frozen=True)
class ReadResult:
    """`notes` has one line for each thing that is not as the file has it.

    `sha256` covers the model file and, after it, each range of external data in order of use;
    `size_bytes` counts the same bytes. A TFLite file has neither opset nor IR version: both are 0.
    `plan` holds the integers of a model that was quantized before: it is a plan of this very
    `graph`, not of one that passes went over. `border` is "int8" where the file's own inputs or
    outputs are integers on a scale; in `graph` they are float, and `plan` has the scales.
    """

    graph: Graph
    source_opset: int
    source_ir: int
    notes: tuple[str, ...]
    sha256: str
    size_bytes: int
    format: str = "onnx"
    plan: QuantPlan | None = None
    border: str = "float"
