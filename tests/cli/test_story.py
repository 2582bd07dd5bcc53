"""The story on stderr: stages, notes after their stage, warnings, and the bar of a terminal."""

import sys
import time

import pytest

from edgeq.cli.console import Console
from edgeq.cli.story import Story
from edgeq.report.events import Note, StageFinished, StageProgress, StageStarted, Warned

EVENTS = (
    StageStarted("Read"),
    Note("opset 8 raised to 21"),
    StageFinished("Read", "mobilenet_v2.onnx", "opset 8, 3.5 M parameters", 0.2),
    StageStarted("Calibrated", 2),
    StageProgress("Calibrated", 1, 2),
    Warned("1 of 3 samples skipped"),
    StageProgress("Calibrated", 2, 2),
    StageFinished("Calibrated", "2 samples", "int8, per-channel weights", 11.42),
    Note("a note between stages"),
)


def tell(console: Console, *events: object) -> None:
    with Story(console) as story:
        for event in events:
            story(event)


def test_a_stage_is_one_line_and_its_notes_follow(capsys: pytest.CaptureFixture[str]) -> None:
    tell(Console(), *EVENTS)
    assert capsys.readouterr().err.splitlines() == [
        "Read        mobilenet_v2.onnx       opset 8, 3.5 M parameters                     0.2s",
        "note: opset 8 raised to 21",
        "Calibrated  2 samples               int8, per-channel weights                    11.4s",
        "warning: 1 of 3 samples skipped",
        "note: a note between stages",
    ]


def test_quiet_tells_warnings_alone(capsys: pytest.CaptureFixture[str]) -> None:
    console = Console()
    console.verbosity = -1
    tell(console, *EVENTS)
    assert capsys.readouterr().err == "warning: 1 of 3 samples skipped\n"


def test_what_was_pending_is_told_when_the_stage_fails(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ZeroDivisionError):
        _fail_in_a_stage()
    assert capsys.readouterr().err == "note: opset 8 raised to 21\n"


def _fail_in_a_stage() -> None:
    with Story(Console()) as story:
        story(StageStarted("Read"))
        story(Note("opset 8 raised to 21"))
        raise ZeroDivisionError


def test_the_rest_of_a_result_is_told_once(capsys: pytest.CaptureFixture[str]) -> None:
    with Story(Console()) as story:
        story(Note("told"))
    story.rest(notes=("told", "new"), warnings=("look",))
    story.rest(notes=("new",))
    assert capsys.readouterr().err == "note: told\nnote: new\nwarning: look\n"


def test_a_long_line_keeps_its_words_apart(capsys: pytest.CaptureFixture[str]) -> None:
    tell(Console(), StageFinished("Quantized", "s" * 40, "d" * 60, 1.0))
    assert capsys.readouterr().err == f"Quantized   {'s' * 40}  {'d' * 60}  1.0s\n"


def test_many_notes_of_a_kind_are_counted_and_the_first_shown(
    capsys: pytest.CaptureFixture[str],
) -> None:
    notes = [Note(f"batch-norm: bn{place} folded") for place in range(20)]
    tell(Console(), *notes[:0], StageStarted("Optimized"), *notes, Note("other: 1"))
    assert capsys.readouterr().err.splitlines() == [
        "note: batch-norm: bn0 folded",
        "note: batch-norm: bn1 folded",
        "note: batch-norm: bn2 folded",
        "note: and 17 more notes of `batch-norm`; all with -v",
        "note: other: 1",
    ]
    console = Console()
    console.verbosity = 1
    tell(console, StageStarted("Optimized"), *notes)
    assert len(capsys.readouterr().err.splitlines()) == 20


class Terminal:
    """Stands for stderr: keeps what is written, and is a terminal."""

    encoding = "utf-8"

    def __init__(self) -> None:
        self.text = ""

    def write(self, text: str) -> int:
        self.text += text
        return len(text)

    def flush(self) -> None: ...

    def isatty(self) -> bool:
        return True


def test_a_bar_appears_after_a_second_and_leaves(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    with Story(Console()) as story:
        began = time.monotonic()
        story(StageStarted("Calibrated", 128))
        story(StageProgress("Calibrated", 32, 128))
        while "32/128" not in terminal.text and time.monotonic() < began + 30:
            time.sleep(0.02)
        assert time.monotonic() - began >= 1.0
        assert "32/128" in terminal.text
        story(StageFinished("Calibrated", "128 samples", "", 1.4))
    assert terminal.text.endswith("s\n")
    assert "\x1b[2K" in terminal.text  # the bar's line was erased
    assert terminal.text.count("\x1b[?25l") == terminal.text.count("\x1b[?25h")  # cursor is back


def test_a_short_stage_has_no_bar_and_imports_no_rich(edgeq, process) -> None:
    assert "rich" not in process("targets").err


@pytest.mark.parametrize("way", ["--no-progress", "not a terminal", "quiet"])
def test_no_bar(monkeypatch: pytest.MonkeyPatch, way: str) -> None:
    terminal = Terminal()
    console = Console()
    if way == "--no-progress":
        console.progress = False
    elif way == "quiet":
        console.verbosity = -1
    else:
        monkeypatch.setattr(Terminal, "isatty", lambda self: False)
    monkeypatch.setattr(sys, "stderr", terminal)
    with Story(console) as story:
        story(StageStarted("Calibrated"))
        time.sleep(1.2)
        assert terminal.text == ""
