"""CPU time of `edgeq --help` against a bare click program with as many commands.

    python bench/cli_start.py [--pairs 25]

The two run in turn, so that a busy machine slows both; the figure is the ratio of the medians.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

LIMIT = 1.3
BARE = '''
import click

@click.group()
@click.version_option("0.0.0")
def main():
    """A program with eight commands."""

for name in ("build", "run", "eval", "inspect", "verify", "targets", "doctor", "explain"):
    main.command(name, help=f"Do what {name} says")(lambda: None)

main()
'''


def cpu_seconds(command: list[str]) -> float:
    """User and system time of one run of `command`, its children included."""
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode != 0:
        raise SystemExit(f"{' '.join(command)} exited with {child.returncode}")
    return usage.ru_utime + usage.ru_stime


def measure(pairs: int) -> tuple[float, float]:
    """Median CPU seconds of (edgeq, bare click): `pairs` runs of each in turn, after a warm-up."""
    edgeq = [str(Path(sys.executable).parent / "edgeq"), "--help"]
    with tempfile.TemporaryDirectory() as folder:
        bare = Path(folder) / "bare.py"
        bare.write_text(BARE)
        commands = (edgeq, [sys.executable, str(bare), "--help"])
        times = [[cpu_seconds(command) for command in commands] for _ in range(pairs + 1)][1:]
    ours, theirs = zip(*times, strict=True)
    return statistics.median(ours), statistics.median(theirs)


def main() -> None:
    parser = argparse.ArgumentParser(description="Compare the start of edgeq with bare click")
    parser.add_argument("--pairs", type=int, default=25)
    ours, theirs = measure(parser.parse_args().pairs)
    ratio = ours / theirs
    print(f"edgeq --help   {ours * 1e3:.0f} ms of CPU")
    print(f"bare click     {theirs * 1e3:.0f} ms of CPU")
    print(f"ratio          {ratio:.2f}, at most {LIMIT}")
    sys.exit(ratio > LIMIT)


if __name__ == "__main__":
    main()
