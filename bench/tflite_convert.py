"""What it costs to turn a MobileNetV2 of ONNX into TFLite: time and peak memory.

    python bench/tflite_convert.py

Beside it, in turn and in the same run, the `onnx` package reads and checks the same file. Each is a
process of its own: five of each, the median counts. Judged are the work's CPU seconds (one thread);
the whole process with its imports is told as well. This one stays small: a child's `ru_maxrss`
starts with what its parent had. A build does more: it runs and packs what it wrote.
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

ROUNDS = 5
NETS = Path(__file__).with_name("nets.py")
WORK = Path(__file__).resolve().parents[1] / "build" / "bench"
TIMES, PLUS_SECONDS, SIZES, PLUS_MB = 2.0, 1.0, 6.0, 250.0
CHECK = """
import json, sys, time
import onnx
started = time.process_time()
onnx.checker.check_model(onnx.load(sys.argv[1]), full_check=True)
print(json.dumps(time.process_time() - started))
"""
CONVERT = """
import json, sys, time
from pathlib import Path
from edgeq.passes import run_all
from edgeq_converters.read.onnx import read
from edgeq_converters.write.tflite import write
started = time.process_time()
graph, _ = run_all(read(Path(sys.argv[1])).graph)
Path(sys.argv[2]).write_bytes(write(graph, None))
print(json.dumps(time.process_time() - started))
"""


@dataclass(frozen=True)
class Cost:
    """One process: wall seconds, CPU seconds without its imports, the largest resident set."""

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
    WORK.mkdir(parents=True, exist_ok=True)
    model, out = WORK / "mobilenet_v2.onnx", WORK / "mobilenet_v2-float.tflite"
    subprocess.run([sys.executable, str(NETS), "mobilenet_v2", str(model)], check=True)
    pairs = [(measure(CHECK, model), measure(CONVERT, model, out)) for _ in range(rounds)]
    theirs, ours = (middle(list(column)) for column in zip(*pairs, strict=True))
    size_mb = model.stat().st_size / 1e6
    seconds, peak = TIMES * theirs.work_seconds + PLUS_SECONDS, SIZES * size_mb + PLUS_MB
    for name, cost, work in (
        ("onnx, read and check", theirs, "load, check"),
        ("edgeq, convert", ours, "read, passes, write"),
    ):
        told = f"{cost.work_seconds:5.2f} s   {cost.peak_mb:4.0f} MB   ({work})"
        print(f"{name:22} {told}, {cost.seconds:.2f} s with imports")
    print(f"model {size_mb:.1f} MB, file {out.stat().st_size / 1e6:.1f} MB")
    limits = f"{TIMES:g}x + {PLUS_SECONDS:g} s", f"{SIZES:g}x + {PLUS_MB:g} MB"
    print(f"time {ours.work_seconds:.2f} s, at most {seconds:.2f} s ({limits[0]})")
    print(f"peak {ours.peak_mb:.0f} MB, at most {peak:.0f} MB ({limits[1]})")
    sys.exit(ours.work_seconds > seconds or ours.peak_mb > peak)


if __name__ == "__main__":
    main()
