"""The story of a running command on stderr: a line for each stage, notes, warnings, a bar."""

from __future__ import annotations

import logging
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
SHOWN, MANY = 3, 5
"""Of more than MANY notes that begin alike, SHOWN are told and the others counted."""


class Story:
    """Listens to the api's events. As a context manager it leaves the terminal clean behind.

    Notes and warnings are told after the line of the stage that they belong to. `--quiet` tells
    warnings alone.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bar: Bar | None = None
        self._pending: list[tuple[str, str]] = []
        self._told: set[str] = set()
        self._log = _Log(self)

    def __enter__(self) -> Story:
        logging.getLogger("edgeq_runtime").addHandler(self._log)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        logging.getLogger("edgeq_runtime").removeHandler(self._log)
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
                self._tell(word, text)
        self._close_stage()

    def _open_stage(self, event: StageStarted) -> None:
        self._close_stage()
        console = self._console
        if console.progress and not console.quiet and console.is_terminal("stderr"):
            self._bar = Bar(event.name, event.total)

    def _finish(self, event: StageFinished) -> None:
        self._close_bar()
        if not self._console.quiet:
            self._console.story(self._stage_line(event))
        self._close_stage()

    def _tell(self, word: str, text: str) -> None:
        if text in self._told:
            return
        self._told.add(text)
        if word == "warning" or not self._console.quiet:
            self._pending.append((word, text))

    def _close_stage(self) -> None:
        self._close_bar()
        pending, self._pending = self._pending, []
        for word, text in pending if self._console.verbose else _summed_up(pending):
            self._console.say(word, text)

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


class _Log(logging.Handler):
    """What the runtime logs is part of the story: a warning, told once."""

    def __init__(self, story: Story) -> None:
        super().__init__(logging.WARNING)
        self._story = story

    def emit(self, record: logging.LogRecord) -> None:
        self._story(Warned(record.getMessage()))


def _summed_up(told: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Notes that begin alike ("PASS: ...") are counted after the first few; warnings never."""
    heads = [text.split(":", 1)[0] if word == "note" and ":" in text else "" for word, text in told]
    lines: list[tuple[str, str]] = []
    for place, line in enumerate(told):
        total = heads.count(heads[place])
        before = heads[:place].count(heads[place])
        if not heads[place] or total <= MANY or before < SHOWN:
            lines.append(line)
        elif before == SHOWN:
            more = f"and {total - SHOWN} more notes of `{heads[place]}`; all with -v"
            lines.append(("note", more))
    return lines
