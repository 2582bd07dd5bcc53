"""The story of a running command on stderr: a line for each stage, notes, warnings, a bar."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from types import TracebackType

from edgeq.cli.bar import Bar
from edgeq.cli.console import Console
from edgeq.report.events import (
    Event,
    Note,
    StageFinished,
    StageProgress,
    StageStarted,
    Warned,
)

_WIDTH = 86


class Story:
    """Listens to the api's events. As a context manager it leaves the terminal clean behind.

    Notes and warnings of a running stage are told after the line of that stage. `--quiet` tells
    warnings alone.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bar: Bar | None = None
        self._stage: str | None = None
        self._pending: list[tuple[str, str]] = []
        self._told: set[str] = set()

    def __enter__(self) -> Story:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._close_stage()

    def __call__(self, event: Event) -> None:
        if isinstance(event, StageStarted):
            self._open_stage(event)
        elif isinstance(event, StageProgress):
            if self._bar is not None:
                self._bar.update(event.done, event.total)
        elif isinstance(event, StageFinished):
            self._finish(event)
        elif isinstance(event, Note):
            self._tell("note", event.text)
        elif isinstance(event, Warned):
            self._tell("warning", event.text)

    def rest(self, *, notes: Iterable[str] = (), warnings: Iterable[str] = ()) -> None:
        """Tell what a result holds and no event told."""
        for word, texts in (("note", notes), ("warning", warnings)):
            for text in texts:
                if text not in self._told:
                    self._tell(word, text)

    def _open_stage(self, event: StageStarted) -> None:
        self._close_stage()
        self._stage = event.name
        console = self._console
        if console.progress and not console.quiet and console.is_terminal("stderr"):
            self._bar = Bar(event.name, event.total)

    def _finish(self, event: StageFinished) -> None:
        self._close_bar()
        if not self._console.quiet:
            self._console.story(self._stage_line(event))
        self._close_stage()

    def _tell(self, word: str, text: str) -> None:
        self._told.add(text)
        if self._stage is not None:
            self._pending.append((word, text))
        elif word == "warning" or not self._console.quiet:
            self._console.say(word, text)

    def _close_stage(self) -> None:
        self._close_bar()
        self._stage = None
        pending, self._pending = self._pending, []
        for word, text in pending:
            self._tell(word, text)

    def _close_bar(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def _stage_line(self, event: StageFinished) -> str:
        width = _WIDTH
        if self._console.is_terminal("stderr"):
            width = min(width, shutil.get_terminal_size().columns - 1)
        name = self._console.paint(f"{event.name:<10}", "bold", "stderr")
        tail = f"{event.subject:<22}  {event.detail}".rstrip()
        seconds = f"{event.seconds:.1f}s"
        room = width - 12 - len(tail) - len(seconds)
        return f"{name}  {tail}{' ' * max(2, room)}{seconds}"
