"""Typed progress events: what a build tells while it works. The api emits, a front end renders."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

STAGES = (
    *("Read", "Optimized", "Calibrated", "Searched", "Quantized"),
    *("Checked", "Evaluated", "Packed"),
)


@dataclass(frozen=True)
class StageStarted:
    """A stage of the work begins; `total` is the number of steps where it is known."""

    name: str
    total: int | None = None


@dataclass(frozen=True)
class StageProgress:
    """`done` steps of the running stage are finished."""

    name: str
    done: int
    total: int | None = None


@dataclass(frozen=True)
class StageFinished:
    """A stage ended: `subject` and `detail` are one short phrase each, `seconds` is wall time."""

    name: str
    subject: str
    detail: str
    seconds: float


@dataclass(frozen=True)
class Note:
    """Something edgeq changed, skipped, assumed or left in float: never repaired in silence."""

    text: str


@dataclass(frozen=True)
class Warned:
    """Something the user should act on; it is also in the result's `warnings`."""

    text: str


Event = StageStarted | StageProgress | StageFinished | Note | Warned
Progress = Callable[[Event], None]


def silent(event: Event) -> None:
    """Drop the event: what is used when nobody listens."""
