"""What `compare` measured: two artifacts on the same inputs, tensor by tensor, worst first."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Side:
    """One of the two artifacts. `precision` is a bundle's, None for a model file."""

    file: str
    format: str
    precision: str | None
    size_bytes: int
    engine: str
    kernels: str

    def to_json(self) -> dict[str, Any]:
        return {
            "file": self.file,
            "format": self.format,
            "precision": self.precision,
            "size_bytes": self.size_bytes,
            "engine": self.engine,
            "kernels": self.kernels,
        }


@dataclass(frozen=True)
class PairDifference:
    """How the tensor `b` of B differs from `a` of A over all samples, A being the reference.

    `compared_as`: "codes" (both are integers on one grid), "values" (floats, integers brought to
    floats), or "elements" (neither). `equal_share` is the share of bit-equal elements, 0..1;
    `sqnr_db` is None where all are equal or there are no floats. `max_lsb` is the largest error in
    steps of the quantized side's grid (the coarser of two), `step` that step; None: no grid.
    """

    a: str
    b: str
    compared_as: str
    equal_share: float
    sqnr_db: float | None
    max_abs_error: float
    max_lsb: float | None
    step: float | None

    @property
    def bit_equal(self) -> bool:
        return self.equal_share == 1.0

    def worst_first(self) -> tuple[bool, float, str]:
        """Sorts unequal tensors by SQNR, those without one among them by their equal share."""
        decibels = 100 * self.equal_share if self.sqnr_db is None else self.sqnr_db
        return self.bit_equal, decibels, self.a

    def to_json(self) -> dict[str, Any]:
        return {
            "a": self.a,
            "b": self.b,
            "compared_as": self.compared_as,
            "equal_share": self.equal_share,
            "sqnr_db": self.sqnr_db,
            "max_abs_error": self.max_abs_error,
            "max_lsb": self.max_lsb,
            "step": self.step,
        }


@dataclass(frozen=True)
class Compared:
    """Two artifacts on the same `samples` inputs (`source` says which), with exact kernels.

    `outputs` and `tensors` (same name in both) are worst first. `not_compared` names what had no
    partner or another shape, with the reason. A measurement: `exit_code` is 0 whatever it says.
    """

    a: Side
    b: Side
    outputs: tuple[PairDifference, ...]
    tensors: tuple[PairDifference, ...]
    not_compared: tuple[tuple[str, str], ...]
    samples: int
    source: str
    synthetic: bool
    warnings: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def bit_equal(self) -> bool:
        """Whether every compared output is the same to the last bit."""
        return all(output.bit_equal for output in self.outputs)

    @property
    def max_lsb(self) -> float | None:
        """The largest error of any output in quantization steps; None where one has no grid."""
        steps = [output.max_lsb for output in self.outputs]
        known = [value for value in steps if value is not None]
        return max(known, default=0.0) if len(known) == len(steps) else None

    def to_json(self) -> dict[str, Any]:
        return {
            "schema": "edgeq.compare/1",
            "ok": True,
            "a": self.a.to_json(),
            "b": self.b.to_json(),
            "bit_equal": self.bit_equal,
            "max_lsb": self.max_lsb,
            "outputs": [output.to_json() for output in self.outputs],
            "tensors": [tensor.to_json() for tensor in self.tensors],
            "not_compared": [
                {"name": name, "reason": reason} for name, reason in self.not_compared
            ],
            "samples": self.samples,
            "source": self.source,
            "synthetic": self.synthetic,
            "warnings": list(self.warnings),
            "notes": list(self.notes),
            "error": None,
        }
