"""What an int8 build of MobileNetV2 costs, 80 samples, default settings: time and peak memory.

    python bench/build_cost.py                  # ONNX Runtime's Percentile takes 5 GB of memory
    python bench/build_cost.py --no-percentile

Beside it, in the same run and from the same samples, the whole of ONNX Runtime's tool with min/max
and with Percentile. Each is a process of its own; memory is the largest resident set of any one
process of it. The ratio is of wall seconds; CPU seconds are there for a machine that is not idle.
"""

import argparse
import sys

import tasks as catalogue
from quality import Made, quantize, write_samples

PERCENTILE_LIMIT, MIN_MAX_LIMIT, PEAK_LIMIT_MB = 1.5, 4.0, 500


def show(tool: str, made: Made) -> None:
    """One line of a tool's cost."""
    if made.reason is not None:
        raise SystemExit(f"{tool}: {made.reason}")
    print(
        f"{tool:16} {made.seconds:6.1f} s  {made.cpu_seconds:6.1f} s of CPU  {made.peak_mb:5.0f} MB"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure the time and memory of an int8 build")
    parser.add_argument("--no-percentile", action="store_true", help="leave out what takes 5 GB")
    parser.add_argument("--target", default="x86-vnni", help="what edgeq builds for")
    arguments = parser.parse_args()
    task = catalogue.mobilenet_v2()
    samples = write_samples(task)
    rivals = {"ort": MIN_MAX_LIMIT, "ort-percentile": PERCENTILE_LIMIT}
    if arguments.no_percentile:
        del rivals["ort-percentile"]
    ours = quantize(task, "edgeq", arguments.target, samples)
    show("edgeq", ours)
    within = arguments.no_percentile  # min/max alone is told, not judged
    for tool, limit in rivals.items():
        theirs = quantize(task, tool, arguments.target, samples)
        show(tool, theirs)
        ratio = ours.seconds / theirs.seconds
        within = within or ratio <= limit
        print(f"edgeq / {tool:14} {ratio:.2f}, at most {limit} (either is enough)")
    print(f"peak {ours.peak_mb:.0f} MB, at most {PEAK_LIMIT_MB}")
    sys.exit(not within or ours.peak_mb > PEAK_LIMIT_MB)


if __name__ == "__main__":
    main()
