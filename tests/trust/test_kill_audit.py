"""A build stopped at any of its file operations leaves the old output or the whole new one.

Walked here, without strace: every opening for writing, rename, removal and folder made in the
output's folder, as the audit hook of `saboteur.py` sees them. The write stage alone is walked in
each packaging and with weights beside the model, over nothing and over an old output; the whole
build, over an old zip.
"""

import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

SABOTEUR = Path(__file__).parent / "saboteur.py"
NAME = "tiny.edgeq"
PARTIAL = f".{NAME}.edgeq-partial"
CASES = [
    pytest.param("zip", False, id="zip-fresh"),
    pytest.param("zip", True, id="zip-over-old"),
    pytest.param("dir", False, id="dir-fresh"),
    pytest.param("dir", True, id="dir-over-old"),
    pytest.param("weights", False, id="weights-fresh"),
    pytest.param("weights", True, id="weights-over-old"),
]
Row = dict[str, Any]
Walk = Callable[..., list[Row]]


@pytest.fixture
def walk(workbench: Any, import_roots: Mapping[str, str], tmp_path: Path) -> Walk:
    """`walk(packaging, over_old, mode, whole=)` stops a build at each operation, one after one."""

    def run(packaging: str, over_old: bool, mode: str, *, whole: bool = False) -> list[Row]:
        (tmp_path / "out").mkdir()
        request = {
            "model": str(workbench.models["new"]) if whole else None,
            "new": str(workbench.bundles["new", "dir" if packaging == "zip" else packaging]),
            "expected": str(workbench.bundles["new", packaging]),
            "old": str(workbench.bundles["old", packaging]) if over_old else None,
            "out": str(tmp_path / "out" / NAME),
            "packaging": packaging,
            "mode": mode,
        }
        done = subprocess.run(
            [sys.executable, str(SABOTEUR)],
            input=json.dumps(request),
            check=False,
            capture_output=True,
            text=True,
            env=dict(import_roots),
            timeout=300,
        )
        assert done.returncode == 0, done.stderr
        assert done.stderr == ""
        rows: list[Row] = json.loads(done.stdout)
        last = rows.pop()
        assert (last["ended"], last["output"], last["others"]) == ("done", "new", [])
        return rows

    return run


def _check_state(row: Row, over_old: bool) -> None:
    assert row["output"] in ({"old", "new"} if over_old else {"absent", "new"}), row
    assert set(row["others"]) <= {PARTIAL}, row
    assert row["again"] == {"ended": "done", "output": "new", "others": []}, row


@pytest.mark.parametrize(("packaging", "over_old"), CASES)
def test_a_killed_write_leaves_the_old_output_or_the_whole_new_one(
    walk: Walk, packaging: str, over_old: bool
) -> None:
    rows = walk(packaging, over_old, "KILL")
    assert len(rows) >= 2, "at least the partial file and its rename are seen"
    for row in rows:
        assert row["ended"] == "killed", row
        _check_state(row, over_old)


def test_a_killed_build_leaves_the_old_output_or_the_whole_new_one(walk: Walk) -> None:
    rows = walk("zip", True, "KILL", whole=True)
    assert len(rows) >= 2, "at least the partial file and its rename are seen"
    for row in rows:
        assert row["ended"] == "killed", row
        _check_state(row, over_old=True)


@pytest.mark.parametrize("mode", ["ENOSPC", "EACCES"])
@pytest.mark.parametrize(("packaging", "over_old"), CASES)
def test_a_failed_operation_is_an_error_that_loses_nothing(
    walk: Walk, packaging: str, over_old: bool, mode: str
) -> None:
    for row in walk(packaging, over_old, mode):
        # Once the output is in place, an operation that only tidies up or syncs may fail unsaid.
        assert row["ended"].startswith("write-failed: ") or row["ended"] == "done", row
        if row["ended"] == "done":
            assert row["output"] == "new", row
        _check_state(row, over_old)
