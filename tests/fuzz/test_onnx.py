"""Mutated ONNX files: every one is read or refused by a slug, without a crash, a hang, a traceback.

500 files in `make test`, 5,000 in the slow test, as many as wanted by `make fuzz N=`
(EDGEQ_FUZZ_FILES; EDGEQ_FUZZ_SEED for others). To repeat one file:
`python tests/fuzz/worker.py SEED INDEX`.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from edgeq.errors import SLUGS

WORKER = Path(__file__).with_name("worker.py")
SEED = int(os.environ.get("EDGEQ_FUZZ_SEED") or 1)
WANTED = int(os.environ.get("EDGEQ_FUZZ_FILES") or 0)
WORKERS = 2
CPU_LIMIT_S = 5.0
SILENCE_S = 60.0  # wall time on a busy machine; what counts is the processor time above
# The worker is a script: it imports the packages as this process does, and its own neighbours.
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join(row for row in sys.path if row)}
PEAK_BYTES = 400 * 10**6  # interpreter, onnx and onnx_ir are 100 MB of it


@dataclass
class Run:
    """What came of the files: how many, how they ended, and what must not have happened."""

    files: int = 0
    structured: int = 0
    parsed: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    slowest_s: float = 0.0
    peak_bytes: int = 0

    def add(self, row: dict[str, Any]) -> None:
        self.files += 1
        self.structured += row["kind"] == "structure"
        self.parsed += row["parses"]
        outcome = row.get("outcome", "unfinished")
        self.outcomes[outcome if outcome in SLUGS or outcome == "reads" else "failure"] += 1
        self.slowest_s = max(self.slowest_s, row.get("cpu_s", 0.0))
        self.peak_bytes = max(self.peak_bytes, row.get("peak_kb", 0) * 1024)
        if self.outcomes["failure"] > len(self.failures):
            self.failures.append(f"{SEED} {row['index']}: {outcome}")


def lines_of(process: subprocess.Popen[bytes]) -> Iterator[dict[str, Any] | None]:
    """The rows a worker writes, None when it was silent for too long; ends when it does."""
    assert process.stdout is not None
    descriptor, rest = process.stdout.fileno(), b""
    while True:
        ready, _, _ = select.select([descriptor], [], [], SILENCE_S)
        data = os.read(descriptor, 1 << 16) if ready else None
        if data is None:
            yield None
        if not data:
            return
        *whole, rest = (rest + data).split(b"\n")
        yield from (json.loads(line) for line in whole)


def watch(start: int, count: int, probes: int, run: Run) -> None:
    """Run one worker over its share; after a death or a hang go on behind the file that did it."""
    index = start
    while index < count:
        arguments = [SEED, index, WORKERS, count, probes]
        with subprocess.Popen(
            [sys.executable, str(WORKER), *map(str, arguments)],
            stdout=subprocess.PIPE,
            env=ENVIRONMENT,
        ) as process:
            begun: dict[str, Any] | None = None
            for row in lines_of(process):
                if row is None:
                    process.kill()
                    assert begun is not None
                    run.add({**begun, "outcome": f"silent for {SILENCE_S:g} s"})
                    break
                if "outcome" in row:
                    run.add(row)
                    begun, index = None, row["index"] + WORKERS
                else:
                    begun = row
            else:
                if begun is not None:
                    run.add({**begun, "outcome": f"died with status {process.wait()}"})
        if begun is not None:
            index = begun["index"] + WORKERS
        elif process.returncode != 0:
            pytest.fail(f"a worker ended with status {process.returncode} before file {index}")


def fuzz(count: int, probes: int = 0) -> Run:
    runs = [Run() for _ in range(WORKERS)]
    with ThreadPoolExecutor(WORKERS) as pool:
        done = [pool.submit(watch, i, count, probes, run) for i, run in enumerate(runs)]
        for future in done:
            future.result()
    total = Run()
    for run in runs:
        total.files += run.files
        total.structured += run.structured
        total.parsed += run.parsed
        total.outcomes += run.outcomes
        total.failures += run.failures
        total.slowest_s = max(total.slowest_s, run.slowest_s)
        total.peak_bytes = max(total.peak_bytes, run.peak_bytes)
    return total


def judge(run: Run, count: int) -> None:
    print(f"{run.files} files, {run.parsed} past the parser, {dict(run.outcomes.most_common())}")
    print(f"slowest {run.slowest_s:.2f} s, peak {run.peak_bytes / 1e6:.0f} MB")
    assert run.failures == []
    assert run.files == count
    assert run.structured >= count / 2
    assert run.parsed >= 0.4 * count
    assert run.outcomes["reads"] >= 0.1 * count
    assert run.slowest_s <= CPU_LIMIT_S
    assert run.peak_bytes <= PEAK_BYTES


def test_every_seed_reads():
    done = subprocess.run(
        [sys.executable, str(WORKER), "seeds"],
        capture_output=True,
        text=True,
        check=False,
        env=ENVIRONMENT,
    )
    rows = dict(line.split("\t") for line in done.stdout.splitlines())
    assert len(rows) >= 18, done.stderr
    assert {
        name for name, outcome in rows.items() if outcome not in ("reads", "already-quantized")
    } == set()


def test_a_file_is_the_same_in_every_process():
    """Hash seeds differ between the two; the mutants must not."""
    command = [sys.executable, str(WORKER), "digest", str(SEED), "200"]
    digests = {
        subprocess.run(
            command, capture_output=True, check=True, env={**ENVIRONMENT, "PYTHONHASHSEED": seed}
        ).stdout
        for seed in ("1", "2")
    }
    assert len(digests) == 1 and len(digests.pop()) > 32


@pytest.mark.skipif(WANTED > 0, reason="EDGEQ_FUZZ_FILES asks for another number")
def test_some_files():
    judge(fuzz(500), 500)


@pytest.mark.slow
def test_many_files():
    count = WANTED or 5000
    began = time.monotonic()
    judge(fuzz(count), count)
    if not WANTED:
        assert time.monotonic() - began < 120


@pytest.mark.slow
def test_what_reads_goes_to_the_engine():
    """As written for fp32, into the engine's child process: it may refuse and even crash there."""
    run = fuzz(600, probes=50)
    assert run.failures == []
    assert run.outcomes["reads"] >= 50
