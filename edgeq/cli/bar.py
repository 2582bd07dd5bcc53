"""A progress bar that appears when a stage has taken a second; rich is imported only then."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

DELAY_SECONDS = 1.0


class Bar:
    """The bar of one stage on stderr. Needs a terminal; leaves no trace once closed."""

    def __init__(self, name: str, total: int | None) -> None:
        self._name = name
        self._done = 0
        self._total = total
        self._lock = threading.Lock()
        self._shown: tuple[Progress, TaskID] | None = None
        self._closed = False
        self._timer = threading.Timer(DELAY_SECONDS, self._show)
        self._timer.daemon = True
        self._timer.start()

    def update(self, done: int, total: int | None) -> None:
        """`done` of `total` steps are finished; a total of None is unknown."""
        with self._lock:
            self._done = done
            self._total = self._total if total is None else total
            if self._shown is not None:
                progress, task = self._shown
                progress.update(task, completed=self._done, total=self._total)

    def close(self) -> None:
        """Take the bar away."""
        self._timer.cancel()
        with self._lock:
            self._closed = True
            if self._shown is not None:
                self._shown[0].stop()
                self._shown = None

    def _show(self) -> None:
        with self._lock:
            if self._closed:
                return
            progress = _make_progress()
            task = progress.add_task(self._name, completed=self._done, total=self._total)
            progress.start()
            self._shown = (progress, task)


def _make_progress() -> Progress:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn("{task.description:<10}"),
        BarColumn(bar_width=32),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    return Progress(*columns, console=Console(stderr=True), transient=True)
