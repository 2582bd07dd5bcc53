"""The ONNX backend node tests: none gets worse, and the lists say what does not pass.

`python tests/conformance/run.py --record` writes the lists anew.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import onnx
import pytest

HERE = Path(__file__).parent
LEAST = 0.85
"""The share of the covered cases that must pass both writers."""

ALLOWED_SKIPS = ("dtype: ", "rank ", "dynamic shape")

pytestmark = [pytest.mark.slow, pytest.mark.checkout, pytest.mark.xdist_group("conformance")]


@pytest.fixture(scope="module")
def outcomes() -> list[dict[str, Any]]:
    command = [sys.executable, str(HERE / "run.py"), "--json"]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    rows = json.loads(done.stdout.splitlines()[-1])
    assert len(rows) > 400, len(rows)
    return rows


def recorded(name: str) -> tuple[str, set[tuple[str, ...]]]:
    """The version of onnx that a list is of, and its rows without what is said of each."""
    lines = (HERE / f"{name}.tsv").read_text("utf-8").splitlines()
    version = lines[0].split(":")[0].removeprefix("# onnx ")
    columns = len(lines[1].split("\t")) - 1
    return version, {tuple(line.split("\t")[:columns]) for line in lines[2:]}


def of_this_version(name: str) -> set[tuple[str, ...]]:
    version, rows = recorded(name)
    if not onnx.__version__.startswith(f"{version}."):
        pytest.skip(f"the lists are of onnx {version}, and this is {onnx.__version__}")
    return rows


def test_most_cases_pass_both_writers(outcomes: list[dict[str, Any]]) -> None:
    counted = [row for row in outcomes if not row["skip"]]
    passed = [row for row in counted if row["onnx"] == row["tflite"] == "pass"]
    assert len(passed) >= LEAST * len(counted), f"{len(passed)} of {len(counted)}"


def test_reasons_to_skip(outcomes: list[dict[str, Any]]) -> None:
    odd = [row for row in outcomes if row["skip"] and not row["skip"].startswith(ALLOWED_SKIPS)]
    assert not odd
    _, rows = recorded("skips")
    assert rows


def test_failures_are_those_that_are_listed(outcomes: list[dict[str, Any]]) -> None:
    """A regression fails here, and so does what passes now and is listed still."""
    failed = {
        (row["name"], writer)
        for row in outcomes
        for writer in ("onnx", "tflite")
        if not row["skip"] and row[writer] != "pass"
    }
    listed = of_this_version("failures")
    assert not failed - listed, "not listed: a regression"
    assert not listed - failed, "these pass now: run.py --record"


def test_skips_are_those_that_are_listed(outcomes: list[dict[str, Any]]) -> None:
    skipped = {(row["name"],) for row in outcomes if row["skip"]}
    assert skipped == of_this_version("skips")


def test_nothing_ends_an_engine_or_edgeq(outcomes: list[dict[str, Any]]) -> None:
    """What cannot be written is refused by name: no crash, no traceback, no wrong number."""
    broken = {
        f"{row['name']} {writer}: {row[writer]}"
        for row in outcomes
        for writer in ("onnx", "tflite")
        if not row["skip"] and row[writer].startswith(("crash", "error"))
    }
    assert not broken
