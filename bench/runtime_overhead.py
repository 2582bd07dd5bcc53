"""What `Runner.run` costs over a bare `session.run`: the median of paired differences.

Calls are interleaved and their order alternates, so that a clock or cache drift hits both alike.
`python bench/runtime_overhead.py` prints one line and ends with 1 above the limit.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

import edgeq_runtime

LIMIT_US = 20.0
CALLS = 2000
VECTORS = Path(__file__).parents[1] / "runtimes" / "vectors" / "format-1.edgeq"


def seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def paired_differences(bundle: Path, calls: int) -> list[float]:
    """Microseconds of `Runner.run` less those of the session below it, pair by pair."""
    with edgeq_runtime.load(bundle, threads=1, isolate=False) as model:
        feeds = {
            info.name: np.zeros([n if isinstance(n, int) else 1 for n in info.shape], info.dtype)
            for info in model.inputs
        }
        names = [info.name for info in model.outputs]
        ours = lambda: model.run(feeds)  # noqa: E731
        bare = lambda: model.session.raw.run(names, feeds)  # noqa: E731
        for _ in range(200):
            ours(), bare()
        differences = []
        for index in range(calls):
            if index % 2:
                first, second = seconds(ours), seconds(bare)
            else:
                second, first = seconds(bare), seconds(ours)
            differences.append((first - second) * 1e6)
    return differences


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle", nargs="?", type=Path, default=VECTORS)
    parser.add_argument("--calls", type=int, default=CALLS)
    arguments = parser.parse_args()
    differences = sorted(paired_differences(arguments.bundle, arguments.calls))
    median = statistics.median(differences)
    p10, p90 = differences[len(differences) // 10], differences[len(differences) * 9 // 10]
    print(
        f"runtime overhead: median {median:.2f} us, p10 {p10:.2f}, p90 {p90:.2f} "
        f"({arguments.calls} pairs, limit {LIMIT_US:g} us)"
    )
    return 0 if median <= LIMIT_US else 1


if __name__ == "__main__":
    sys.exit(main())
