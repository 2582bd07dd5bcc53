"""The two streams of a command: stdout carries the result, stderr the story; colour only adds.

This module and its neighbours `entry` and `lazy` are what `edgeq --help` loads: keep them light.
"""

from __future__ import annotations

import io
import math
import os
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from edgeq.errors import EdgeqError

ERROR_SCHEMA = "edgeq.error/1"
_COLOURS = {"red": 31, "green": 32, "yellow": 33, "cyan": 36, "bold": 1, "dim": 2}
_CONTROL = re.compile(r"\x1b\[\d+m|[\x00-\x08\x0a-\x1f\x7f-\x9f]")
_WORDS = {"error": "red", "hint": "cyan", "warning": "yellow", "note": "dim", "next": "cyan"}


class Console:
    """Where a command writes. A reader that goes away (`| head`) silences its stream, nothing else.

    `json`: stdout gets one document instead of text. `verbosity`: -1 quiet, 0, 1 verbose.
    `progress`: a bar may be shown where stderr is a terminal. `arguments`: what was typed.
    """

    def __init__(self, *, json: bool = False, arguments: Sequence[str] = ()) -> None:
        self.json = json
        self.arguments = tuple(arguments)
        self.verbosity = 0
        self.progress = True
        self._gone: set[str] = set()

    @property
    def verbose(self) -> bool:
        return self.verbosity > 0

    @property
    def quiet(self) -> bool:
        return self.verbosity < 0

    def result(self, lines: Iterable[str]) -> None:
        """Write lines of the result to stdout."""
        for line in lines:
            self._write("stdout", line)

    def document(self, document: Mapping[str, Any]) -> None:
        """Write the one JSON document to stdout: ASCII, so that any terminal and locale takes it.

        NaN and infinity, which JSON does not know, become null.
        """
        import json

        for line in json.dumps(_finite(document), indent=2, allow_nan=False).split("\n"):
            self._write("stdout", line)

    def story(self, text: str) -> None:
        """Write one line to stderr."""
        self._write("stderr", text)

    def say(self, word: str, text: str) -> None:
        """Write `word: text` to stderr, the word in its colour ("error", "hint", "warning"...)."""
        self.story(f"{self.paint(f'{word}:', _WORDS[word], 'stderr')} {text}")

    def fail(self, error: EdgeqError) -> int:
        """Tell `error` on stderr and, with `--json`, as the document; returns the exit code."""
        if self.json:
            self.document(error_document(error))
        self.flush()
        first, *rest = f"{error.message} [{error.slug}]".split("\n")
        self.say("error", first)
        for line in rest:
            self.story(line)
        for hint in error.hints:
            self.say("hint", hint)
        return error.exit_code

    def paint(self, text: str, colour: str, stream: str = "stdout") -> str:
        """`text` in `colour` where the stream is a terminal and nobody asked for none."""
        return f"\x1b[{_COLOURS[colour]}m{text}\x1b[0m" if self._coloured(stream) else text

    def is_terminal(self, stream: str) -> bool:
        target = getattr(sys, stream)
        return bool(target is not None and target.isatty())

    def flush(self) -> None:
        """Send out what was written; a reader that went away is no error, a full disk is one."""
        for name in ("stdout", "stderr"):
            stream: TextIO | None = getattr(sys, name)
            if stream is None or name in self._gone:
                continue
            try:
                stream.flush()
            except BrokenPipeError:
                self._lose(name)
            except OSError as error:
                self._lose(name)
                raise _cannot_print(name, error) from error

    def _coloured(self, stream: str) -> bool:
        if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
            return False
        return self.is_terminal(stream)

    def _write(self, name: str, line: str) -> None:
        stream: TextIO | None = getattr(sys, name)
        if stream is None or name in self._gone:
            return
        try:
            stream.write(_CONTROL.sub(self._visible, line) + "\n")
        except BrokenPipeError:
            self._lose(name)
        except OSError as error:
            self._lose(name)
            raise _cannot_print(name, error) from error

    def _visible(self, match: re.Match[str]) -> str:
        """Our own colours as they are, any other control character of a file's names as text."""
        text = match.group()
        return text if len(text) > 1 else ascii(text)[1:-1]

    def _lose(self, name: str) -> None:
        """Point the lost stream to nowhere, so that the interpreter's own last flush is quiet."""
        self._gone.add(name)
        with suppress(OSError, ValueError, AttributeError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, getattr(sys, name).fileno())
            os.close(nowhere)


def make_printable(*streams: TextIO | None) -> None:
    """Escape what a stream's encoding cannot write, instead of failing on a file's name."""
    for stream in streams:
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def error_document(error: EdgeqError) -> dict[str, Any]:
    """The JSON document of a command that failed."""
    return {
        "schema": ERROR_SCHEMA,
        "ok": False,
        "error": {"slug": error.slug, "message": error.message, "hints": list(error.hints)},
    }


def _finite(value: Any) -> Any:
    """A document with null for each number that is not finite."""
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _cannot_print(name: str, error: OSError) -> EdgeqError:
    from edgeq.errors import EdgeqError

    return EdgeqError(
        "cannot-print", f"{name} takes no more output: {error.strerror or error}".lower()
    )
