"""Mutated TFLite files: verified or refused by a slug, read or refused, then a guarded load.

150 files in `make test`, 5,000 in the slow test (EDGEQ_FUZZ_FILES, EDGEQ_FUZZ_SEED for others).
What passes our verifier is opened and run in worker processes that do many files each; where one
dies, the file goes through the real guarded load too, which must make an error of it. To repeat
one file: `python tests/fuzz/tfl_worker.py SEED INDEX`.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from edgeq.errors import SLUGS

pytest.importorskip("ai_edge_litert")

WORKER = Path(__file__).with_name("tfl_worker.py")
SEED = int(os.environ.get("EDGEQ_FUZZ_SEED") or 1)
WANTED = int(os.environ.get("EDGEQ_FUZZ_FILES") or 0)
WORKERS = 2
CPU_LIMIT_S = 5.0
SILENCE_S = 60.0  # wall time on a busy machine; what counts is the processor time above
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join(row for row in sys.path if row)}
PEAK_BYTES = 400 * 10**6
GUARDED = 8
GUARDED_ENDS = ("engine-crashed", "engine-timeout", "engine-failed", "engine-refused", "runs")


@dataclass
class Run:
    """What came of the files, and what must not have happened."""

    environment: dict[str, str]
    files: int = 0
    structured: int = 0
    verifier: Counter[str] = field(default_factory=Counter)
    reader: Counter[str] = field(default_factory=Counter)
    engine: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    deadly: dict[int, str] = field(default_factory=dict)
    slowest_s: float = 0.0
    peak_bytes: int = 0

    def add(self, row: dict[str, Any], died: str = "") -> None:
        """`died`: how the worker ended on this file."""
        self.files += 1
        self.structured += row["kind"] == "structure"
        for stage in ("verifier", "reader", "engine"):
            outcome = row.get(stage)
            if outcome is not None:
                getattr(self, stage)[outcome] += 1
                if outcome not in (*SLUGS, "verified", "reads", "runs", "engine-too-large"):
                    self.fail(row, f"{stage}: {outcome}")
        if "exception" in row:
            self.fail(row, row["exception"])
        if died and row.get("stage") == "engine":
            self.engine[died] += 1
            self.deadly[row["index"]] = died
        elif died:
            self.fail(row, died)
        self.slowest_s = max(self.slowest_s, row.get("cpu_s", 0.0))
        self.peak_bytes = max(self.peak_bytes, row.get("peak_kb", 0) * 1024)

    def fail(self, row: dict[str, Any], what: str) -> None:
        self.failures.append(f"{SEED} {row['index']}: {what}")

    def join(self, other: Run) -> None:
        self.files += other.files
        self.structured += other.structured
        self.verifier += other.verifier
        self.reader += other.reader
        self.engine += other.engine
        self.failures += other.failures
        self.deadly |= other.deadly
        self.slowest_s = max(self.slowest_s, other.slowest_s)
        self.peak_bytes = max(self.peak_bytes, other.peak_bytes)


def lines_of(process: subprocess.Popen[bytes]) -> Iterator[dict[str, Any]]:
    """The rows a worker writes; ends when it does, or is killed for its silence."""
    assert process.stdout is not None
    descriptor, rest = process.stdout.fileno(), b""
    while True:
        ready, _, _ = select.select([descriptor], [], [], SILENCE_S)
        if not ready:
            process.kill()
        data = os.read(descriptor, 1 << 16)
        if not data:
            return
        *whole, rest = (rest + data).split(b"\n")
        yield from (json.loads(line) for line in whole)


def watch(start: int, count: int, run: Run, folder: str) -> None:
    """Run one worker over its share; after a death go on behind the file that it was busy with."""
    index = start
    while index < count:
        arguments = [SEED, index, WORKERS, count]
        with subprocess.Popen(
            [sys.executable, str(WORKER), *map(str, arguments)],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**run.environment, "TMPDIR": folder},  # a worker that dies leaves its files there
        ) as process:
            begun: dict[str, Any] | None = None
            for row in lines_of(process):
                begun = None if "done" in row else row
                if "done" in row:
                    run.add(row)
                    index = row["index"] + WORKERS
        if begun is not None:
            run.add(begun, died=ended(process.returncode))
            index = begun["index"] + WORKERS
        elif process.returncode != 0:
            pytest.fail(f"a worker ended with status {process.returncode} before file {index}")


def ended(status: int) -> str:
    return f"killed by {signal.Signals(-status).name}" if status < 0 else f"status {status}"


def fuzz(count: int, more: Sequence[Path] = ()) -> Run:
    """`more`: files to start from beside the seeds."""
    named = {"EDGEQ_FUZZ_TFLITE": os.pathsep.join(map(str, more))}
    runs = [Run({**ENVIRONMENT, **named}) for _ in range(WORKERS)]
    with ThreadPoolExecutor(WORKERS) as pool, tempfile.TemporaryDirectory() as folder:
        for future in [pool.submit(watch, i, count, run, folder) for i, run in enumerate(runs)]:
            future.result()
    total = Run({**ENVIRONMENT, **named})
    for run in runs:
        total.join(run)
    return total


def judge(run: Run, count: int) -> None:
    print(f"{run.files} files; verifier {dict(run.verifier)}; reader {dict(run.reader)}")
    print(f"engine {dict(run.engine)}; deadly: {run.deadly}")
    print(f"slowest {run.slowest_s:.2f} s, peak {run.peak_bytes / 1e6:.0f} MB")
    assert run.failures == []
    assert run.files == count
    assert run.structured >= count / 2
    assert run.verifier["verified"] >= 0.3 * count
    assert run.reader["reads"] >= 0.1 * count
    assert run.engine["runs"] >= 0.1 * count
    assert run.slowest_s <= CPU_LIMIT_S
    assert run.peak_bytes <= PEAK_BYTES
    for index in guarded(run.deadly):
        assert by_hand("guarded", str(SEED), str(index), **run.environment).strip() in GUARDED_ENDS


def guarded(deadly: dict[int, str]) -> list[int]:
    """Some of the files that killed a worker: crashes, and of those without an end the first."""
    endless = [index for index in sorted(deadly) if "SIGALRM" in deadly[index]]
    return sorted(set(deadly) - set(endless))[:GUARDED] + endless[:1]


def by_hand(*arguments: str, **environment: str) -> str:
    return subprocess.run(
        [sys.executable, str(WORKER), *arguments],
        capture_output=True,
        text=True,
        check=True,
        env={**ENVIRONMENT, **environment},
    ).stdout


def test_every_seed_is_verified_and_runs() -> None:
    rows = [line.split("\t") for line in by_hand("seeds").splitlines()]
    assert len(rows) >= 9
    assert {(verified, runs) for _, verified, runs in rows} == {("verified", "runs")}


def test_a_file_is_the_same_in_every_process() -> None:
    """Hash seeds differ between the two; the mutants must not."""
    digests = {by_hand("digest", str(SEED), "200", PYTHONHASHSEED=seed) for seed in ("1", "2")}
    assert len(digests) == 1 and len(digests.pop()) > 32


@pytest.mark.skipif(WANTED > 0, reason="EDGEQ_FUZZ_FILES asks for another number")
def test_some_files() -> None:
    judge(fuzz(150), 150)


@pytest.mark.slow
def test_many_files() -> None:
    count = WANTED or 5000
    judge(fuzz(count), count)


@pytest.mark.slow
@pytest.mark.shared
def test_files_of_others(shared: Path) -> None:
    """Real files are larger and hold more; most of their bytes are weights."""
    data = shared / "data"
    more = [
        data / "tab_gesture" / "keypoint_classifier.tflite",
        data / "mnist" / "trained_lstm_int8.tflite",
        data / "kws_dscnn" / "kws_ref_model.tflite",
        data / "robust" / "seanet_int16_conv0.tflite",
    ]
    judge(fuzz(600, more), 600)
