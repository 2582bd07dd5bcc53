"""The samples of a build: streamed for calibration, a bounded few of them kept for the check."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from edgeq.report.events import Progress, StageProgress

if TYPE_CHECKING:
    import numpy as np

    from edgeq.data import Source

    Sample = Mapping[str, np.ndarray[Any, Any]]

KEPT = 16
"""Samples the check runs on."""
KEPT_BYTES = 32_000_000
"""... and the most they may hold, so that memory does not grow with the user's data."""
SYNTHETIC = 16
"""Samples drawn where the user gives none."""
SEED = 0


@dataclass
class Tap:
    """Passes a source's samples on; the first pass notes each input's range and keeps a few."""

    source: Source
    name: str
    stage: str
    progress: Progress
    kept: list[Sample] = field(default_factory=list)
    ranges: dict[str, tuple[float, float]] = field(default_factory=dict)
    seen: int = 0

    def __iter__(self) -> Iterator[Sample]:
        if self.seen:
            yield from self.source
            return
        room = KEPT_BYTES
        step = max(1, (self.source.count or 0) // KEPT)  # spread: data is often sorted by class
        for index, sample in enumerate(self.source):
            size = sum(array.nbytes for array in sample.values())
            wanted = index % step == 0 and len(self.kept) < KEPT and size <= room
            if wanted or not self.kept:
                self.kept.append({name: array.copy() for name, array in sample.items()})
                room -= size
            self._widen(sample)
            self.seen += 1
            self.progress(StageProgress(self.stage, self.seen, self.source.count))
            yield sample

    def keep(self) -> None:
        """Read no more than the check needs: for builds that do not calibrate."""
        for _ in self:
            if self.seen >= KEPT:
                return

    def told(self) -> tuple[str, ...]:
        """What the source did to the samples: casts, preprocessing, samples left out."""
        skipped = self.source.skipped
        left_out = (f"{skipped} samples did not fill a batch and were left out",) if skipped else ()
        return (*self.source.notes, *left_out)

    def _widen(self, sample: Sample) -> None:
        for name, array in sample.items():
            if array.dtype.kind not in "fiub" or not array.size:
                continue
            low, high = self.ranges.get(name, (float("inf"), float("-inf")))
            self.ranges[name] = (min(low, float(array.min())), max(high, float(array.max())))
