"""The streams: readers that go away, full disks, names no terminal should see, colour."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from edgeq.cli.console import Console, make_printable
from edgeq.errors import EdgeqError

ENVIRONMENT = {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}


def shell(line: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a line of bash in which `edgeq` is the command line of this checkout."""
    function = f'edgeq() {{ "{sys.executable}" -m edgeq.cli "$@"; }}; set -o pipefail\n'
    return subprocess.run(
        ["bash", "-c", function + line],
        capture_output=True,
        text=True,
        env={**os.environ, **ENVIRONMENT, **environment},
        check=False,
    )


@pytest.mark.parametrize("line", ["targets", "explain", "--help", "explain --json", "build --help"])
def test_a_reader_that_goes_away_is_no_error(line: str) -> None:
    done = shell(f"edgeq {line} | true")
    assert (done.returncode, done.stderr) == (0, "")


def test_an_error_s_exit_code_outlives_its_reader() -> None:
    assert shell("edgeq targets rpi6 2>&1 | true").returncode == 2
    assert shell("edgeq targets rpi6 --json | true").returncode == 2


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_full_disk_is_told() -> None:
    done = shell("edgeq targets > /dev/full")
    assert done.returncode == 2
    assert done.stderr.startswith("error: stdout takes no more output: no space left on device")
    assert done.stderr.endswith("[cannot-print]\n")


def test_a_closed_stdout_is_no_crash() -> None:
    assert shell("edgeq targets >&-").returncode == 0
    assert shell("edgeq targets rpi6 2>&-").returncode == 2


def test_control_characters_of_names_are_shown_not_obeyed(capsys) -> None:
    Console().result(["a\x1b]0;title\x07b", "two\nlines", "c\x9bd\ttab"])
    assert capsys.readouterr().out == "a\\x1b]0;title\\x07b\ntwo\\nlines\nc\\x9bd\ttab\n"


def test_an_error_may_have_several_lines(capsys) -> None:
    Console().fail(EdgeqError("usage", "first\nsecond\x1b[2J", "do this"))
    assert capsys.readouterr().err == "error: first\nsecond\\x1b[2J [usage]\nhint: do this\n"


def test_what_the_encoding_lacks_is_escaped() -> None:
    code = (
        "import sys; from edgeq.cli.console import Console, make_printable;"
        "make_printable(sys.stdout, sys.stderr);"
        "Console().result(['caf\\u00e9 \\udce9'])"
    )
    environment = {**os.environ, **ENVIRONMENT, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, env=environment, check=True
    )
    assert done.stdout == b"caf\\xe9 \\udce9\n"
    make_printable(None)


def test_colour_only_on_a_terminal(edgeq, monkeypatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    coloured, plain = edgeq("targets", "rpi6", terminal=True), edgeq("targets", "rpi6")
    assert "\x1b[31merror:\x1b[0m" in coloured.err
    assert "\x1b" not in plain.err


@pytest.mark.parametrize(("name", "value"), [("NO_COLOR", "1"), ("TERM", "dumb")])
def test_no_colour(edgeq, monkeypatch, name: str, value: str) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv(name, value)
    coloured, plain = edgeq("targets", "rpi6", terminal=True), edgeq("targets", "rpi6")
    assert coloured == plain


def test_colour_carries_no_meaning(edgeq, monkeypatch) -> None:
    import re

    monkeypatch.setenv("TERM", "xterm")
    coloured, plain = edgeq("targets", "rpi6", terminal=True), edgeq("targets", "rpi6")
    assert re.sub(r"\x1b\[\d+m", "", coloured.err) == plain.err


def test_a_document_is_ascii_and_has_no_nan(capsys) -> None:
    Console().document({"a": float("nan"), "b": ["caf\u00e9", (1.5, float("inf"))]})
    text = capsys.readouterr().out
    assert text.isascii()
    import json

    assert json.loads(text) == {"a": None, "b": ["caf\u00e9", [1.5, None]]}
