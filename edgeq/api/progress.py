"""Stages as context managers: each tells when it begins and, in one line, how it ended."""

from __future__ import annotations

import time
from types import TracebackType

from edgeq.report.events import Progress, StageFinished, StageStarted


def on_samples(count: int) -> str:
    """`on 1 sample`, `on 16 samples`: what a stage worked on."""
    return f"on {count} sample{'' if count == 1 else 's'}"


class Stage:
    """`with Stage("Read", progress) as stage: ...; stage.done(subject, detail)`."""

    def __init__(self, name: str, progress: Progress) -> None:
        self._name = name
        self._progress = progress
        self._subject = ""
        self._detail = ""

    def done(self, subject: str, detail: str) -> None:
        """Say what the finished line will say."""
        self._subject, self._detail = subject, detail

    def __enter__(self) -> Stage:
        self._began = time.perf_counter()
        self._progress(StageStarted(self._name))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None:
            seconds = time.perf_counter() - self._began
            self._progress(StageFinished(self._name, self._subject, self._detail, seconds))
