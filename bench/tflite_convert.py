"""What it costs to turn a MobileNetV2 of ONNX into TFLite: time and peak memory.

    python bench/tflite_convert.py

Beside it, in turn and in the same run, the `onnx` package reads and checks the same file. Each is a
process of its own, its imports included: five of each, the median counts. `read, passes, write` is
the same without the imports. A build does more: it runs and packs what it wrote.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import tasks as catalogue
from tasks import WORK

ROUNDS = 5
TIMES, PLUS_SECONDS, SIZES, PLUS_MB = 2.0, 1.0, 6.0, 250.0
CHECK = """
import json, sys, time
import onnx
started = time.monotonic()
onnx.checker.check_model(onnx.load(sys.argv[1]), full_check=True)
print(json.dumps(time.monotonic() - started))
"""
CONVERT = """
import json, sys, time
from pathlib import Path
from edgeq.passes import run_all
from edgeq_converters.read.onnx import read
from edgeq_converters.write.tflite import write
started = time.monotonic()
graph, _ = run_all(read(Path(sys.argv[1])).graph)
Path(sys.argv[2]).write_bytes(write(graph, None))
print(json.dumps(time.monotonic() - started))
"""


@dataclass(frozen=True)
class Cost:
    """One process: wall seconds, those without its imports, the largest resident set."""

    seconds: float
    work_seconds: float
    peak_mb: float


def measure(code: str, *arguments: Path) -> Cost:
    """Run `code` as a process with one thread."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    started = time.monotonic()
    child = subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    )
    assert child.stdout is not None
    said = child.stdout.read()
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode != 0:
        raise SystemExit(child.returncode)
    return Cost(time.monotonic() - started, json.loads(said), usage.ru_maxrss * 1024 / 1e6)


def middle(costs: list[Cost]) -> Cost:
    """The median of each figure; of memory the largest."""
    return Cost(
        statistics.median(cost.seconds for cost in costs),
        statistics.median(cost.work_seconds for cost in costs),
        max(cost.peak_mb for cost in costs),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure the conversion of a MobileNetV2")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="processes of each kind")
    rounds = parser.parse_args().rounds
    model, out = catalogue.mobilenet_v2().model, WORK / "mobilenet_v2-float.tflite"
    pairs = [(measure(CHECK, model), measure(CONVERT, model, out)) for _ in range(rounds)]
    theirs, ours = (middle(list(column)) for column in zip(*pairs, strict=True))
    size_mb = model.stat().st_size / 1e6
    seconds, peak = TIMES * theirs.seconds + PLUS_SECONDS, SIZES * size_mb + PLUS_MB
    for name, cost, work in (
        ("onnx, read and check", theirs, "load, check"),
        ("edgeq, convert", ours, "read, passes, write"),
    ):
        told = f"{cost.seconds:5.2f} s   {cost.peak_mb:4.0f} MB"
        print(f"{name:22} {told}   ({work}: {cost.work_seconds:.2f} s)")
    print(f"model {size_mb:.1f} MB, file {out.stat().st_size / 1e6:.1f} MB")
    print(f"time {ours.seconds:.2f} s, at most {seconds:.2f} s ({TIMES:g}x + {PLUS_SECONDS:g} s)")
    print(f"peak {ours.peak_mb:.0f} MB, at most {peak:.0f} MB ({SIZES:g}x + {PLUS_MB:g} MB)")
    sys.exit(ours.seconds > seconds or ours.peak_mb > peak)


if __name__ == "__main__":
    main()
