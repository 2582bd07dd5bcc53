"""What a search tried, what each trial measured and what was decided, for the story and JSON."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from edgeq.search.scoring import Score

MOST_ENTRIES = 60
"""Trials that a document holds; it stays small however long the search was."""


@dataclass
class Journal:
    """Filled in order. `kept` names the transforms that were kept, in a word or two each; `floats`
    counts tensors left in float. `lines` tell it all with its numbers; they are for people and not
    for the bundle, because a score's last digit may hang on a host's float kernels.
    """

    entries: list[dict[str, Any]] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    trials: int = 0
    floats: int = 0

    def tried(self, step: str, choice: str, score: Score) -> None:
        """One plan that was measured."""
        self.trials += 1
        self.entries.append({"step": step, "choice": choice, "score_db": _tenth(score.total)})

    def count(self, trials: int) -> None:
        """Trials that are not worth a line each."""
        self.trials += trials

    def decided(self, line: str, measured: str = "") -> None:
        """A decision, or what was learnt, in one sentence; and what it was measured to give."""
        self.lines.append(f"{line}: {measured}" if measured else line)

    def to_json(self, score: Score | None) -> dict[str, Any]:
        """`score` is that of the plan that was kept, None where none was."""
        parts = {} if score is None else score.parts
        return {
            "score_db": None if score is None or not score.parts else _tenth(score.total),
            "parts": [{"name": name, "sqnr_db": _tenth(db)} for name, db in parts.items()],
            "plans": self.trials,
            "tried": self.entries[:MOST_ENTRIES],
            "decided": list(self.lines),
        }


def _tenth(decibels: float) -> float:
    return round(decibels, 1) + 0.0  # + 0.0: no negative zero
