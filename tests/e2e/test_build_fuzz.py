"""Mutated models that the reader lets through, built whole: no crash, no traceback, no hang."""

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from edgeq.errors import SLUGS

WORKER = Path(__file__).parent / "build_worker.py"
CPU_LIMIT_S = 5.0
HANG_S = 60.0  # wall: ample for 5 s of CPU, however busy the machine
WORKERS = 2
OUTCOMES = {"built", "garbage"}


def _work(repository: Path, folder: Path, start: int, count: int) -> list[dict[str, Any]]:
    roots = [str(repository / "tests" / "fuzz"), *filter(None, sys.path)]
    done = subprocess.run(
        [sys.executable, str(WORKER), str(folder), str(start), str(WORKERS), str(count)],
        check=False,
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(roots)},
        timeout=600,
    )
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 0, (lines[-1:], done.returncode, done.stderr)
    assert "Traceback" not in done.stderr, done.stderr
    return [begun | ended for begun, ended in zip(lines[::2], lines[1::2], strict=True)]


@pytest.mark.checkout
@pytest.mark.parametrize(
    ("start", "count"), [(0, 10), pytest.param(10_000, 60, marks=pytest.mark.slow)]
)
def test_mutated_models_build_or_are_refused(
    repository: Path, tmp_path: Path, start: int, count: int
) -> None:
    folders = [tmp_path / str(number) for number in range(WORKERS)]
    for folder in folders:
        folder.mkdir()
    with ThreadPoolExecutor(WORKERS) as pool:
        share = count // WORKERS
        jobs = [
            pool.submit(_work, repository, folder, start + number, share)
            for number, folder in enumerate(folders)
        ]
        rows = [row for job in jobs for row in job.result()]
    assert len(rows) == 2 * count
    assert [row for row in rows if row["ended"] not in OUTCOMES | SLUGS.keys()] == []
    assert [row for row in rows if row["ended"] == "bug"] == []
    assert [row for row in rows if row["cpu_s"] > CPU_LIMIT_S or row["wall_s"] > HANG_S] == []
    assert [row for row in rows if row["ended"] in OUTCOMES], "some builds succeed"
