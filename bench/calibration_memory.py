"""Peak memory of an int8 build, calibrated with few and with many samples: it must not grow.

    python bench/calibration_memory.py [--samples 80 400]

Each build is a process of its own; the figure is the largest resident set of any one process of
it, children included (`ru_maxrss` of wait4). This process stays small and makes its inputs in a
child, because a child's `ru_maxrss` starts with what its parent had at the fork.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

GROWTH_LIMIT, BYTES_LIMIT = 1.05, 400e6
NETS = Path(__file__).with_name("nets.py")
SAMPLES = """
import sys
import numpy as np

count, path = int(sys.argv[1]), sys.argv[2]
draw = np.random.default_rng(0)
image = draw.standard_normal((count, 3, 224, 224), dtype=np.float32)
np.savez(path, image=image)
"""


def peak_bytes(command: list[str], log: Path) -> int:
    """Largest resident set of any one process while `command` runs."""
    with log.open("wb") as story:
        child = subprocess.Popen(command, stdout=story, stderr=story)
        _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode not in (0, 1):  # 1: a gate failed; random weights promise no quality
        raise SystemExit(f"{' '.join(command)}\n{log.read_text()}")
    return usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def build_peak(folder: Path, model: Path, samples: int) -> int:
    data = folder / f"calib{samples}.npz"
    subprocess.run([sys.executable, "-c", SAMPLES, str(samples), str(data)], check=True)
    started = time.monotonic()
    peak = peak_bytes(
        [sys.executable, "-m", "edgeq.cli", "build", str(model), "--target", "rpi5", "--int8"]
        + ["--data", str(data), "--out", str(folder / f"{samples}.edgeq")],
        folder / "log",
    )
    print(f"{samples:4} samples   {peak / 1e6:.0f} MB   {time.monotonic() - started:.0f} s")
    data.unlink()
    return peak


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure the peak memory of calibration")
    parser.add_argument("--samples", type=int, nargs=2, default=(80, 400))
    few, many = parser.parse_args().samples
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = folder / "mobilenet_v2.onnx"
        subprocess.run([sys.executable, str(NETS), "mobilenet_v2", str(model)], check=True)
        small, large = build_peak(folder, model, few), build_peak(folder, model, many)
    growth = large / small
    print(f"growth         {growth:.3f}, at most {GROWTH_LIMIT}")
    print(f"peak           {large / 1e6:.0f} MB, at most {BYTES_LIMIT / 1e6:.0f}")
    sys.exit(growth > GROWTH_LIMIT or large > BYTES_LIMIT)


if __name__ == "__main__":
    main()
