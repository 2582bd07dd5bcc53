"""Whether a candidate decides as the float model does: the largest value of each row of scores.

A far finer meter than labels, and it needs none (notes quant-quality: "agree").
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np

from edgeq.ir import Graph
from edgeq.search.laboratory import Feeds, Runner
from edgeq.search.scoring import Parts
from edgeq.search.sensitivity import macs

SAMPLES = 64
"""Samples that decisions are compared on, fewer where one run is long."""

MOST_MACS = 20e9
"""Work of the float model that this may cost: a second or two."""

AGREE = 0.97
"""Share of float's decisions below which the user is warned: two of 64 rows may be near ties."""


@dataclass(frozen=True)
class Agreement:
    """Rows of `output` whose largest value is float's, of all `rows` that were compared."""

    output: str
    equal: int
    rows: int

    @property
    def warning(self) -> str:
        """What to tell where too many decisions are others, else nothing."""
        if self.equal >= AGREE * self.rows:
            return ""
        return (
            f"the largest value of `{self.output}` is float's in {self.equal} of {self.rows} rows "
            "of the calibration data"
        )


def sample_count(graph: Graph, least: int) -> int:
    """How many samples to compare on: `SAMPLES`, or as few as `least` where they are costly."""
    return max(min(SAMPLES, int(MOST_MACS // max(1, macs(graph)))), min(least, SAMPLES))


def compare(
    reference: Runner,
    candidate: Runner,
    outputs: Sequence[Parts],
    samples: Iterable[Feeds],
    count: int,
) -> tuple[Agreement, ...]:
    """One for each output [rows, scores] of floats that is one part, over `count` samples."""
    equal: dict[str, int] = {}
    rows: dict[str, int] = {}
    names = [output.output for output in outputs if output.labels is None]
    for feeds in islice(samples, count):
        wanted, got = reference.run(feeds), candidate.run(feeds)
        for name in names:
            array, other = wanted[name], got[name]
            if array.dtype.kind != "f" or array.ndim != 2 or array.shape[1] < 2:
                continue
            if array.shape != other.shape:
                continue
            same = array.argmax(axis=1) == other.argmax(axis=1)
            equal[name] = equal.get(name, 0) + int(np.count_nonzero(same))
            rows[name] = rows.get(name, 0) + int(same.size)
    return tuple(Agreement(name, equal[name], rows[name]) for name in rows)
