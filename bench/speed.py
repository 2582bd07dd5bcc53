"""Speed of int8 files against their float model: edgeq beside ONNX Runtime's tool and NNCF.

    python bench/speed.py                                      # minutes: the nets made here
    python bench/speed.py --tasks all --tools all --json speed.json

One thread, in one process, call by call in turn; five rounds, of each the median of the thread's
CPU time, so that other work on the machine hits every file alike. A ratio above 1 is faster than
float; the table has the worst round and the median one. What is printed is this CPU's class alone.
"""

import argparse
import json
import platform
import statistics
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tasks as catalogue
from quality import TOOLS, quantize, write_samples
from tasks import WORK, Feeds, Task, open_exact

from edgeq_runtime import cpu

QUICK_TASKS, QUICK_TOOLS = ("mobilenet_v2", "small_se"), ("edgeq", "ort")
FROM_SHARED = ("minilm", "yolox")
ROUNDS, ROUND_SECONDS, MIN_CALLS = 5, 2.0, 5
TOKENS = 64  # one row of them, for a model that reads tokens of any number


@dataclass
class Row:
    """A file of one tool on one task: milliseconds of the median round, ratios to float."""

    task: str
    tool: str
    ms: float | None = None
    worst: float | None = None
    median: float | None = None
    reason: str | None = None


def feeds_of(task: Task) -> Feeds:
    """One sample; a model of sentences gets one row of 64 tokens."""
    feeds = task.probes[0]
    if "input_ids" not in feeds:
        return feeds
    ids = np.resize(feeds["input_ids"], (1, TOKENS))
    return {"input_ids": ids, "attention_mask": np.ones_like(ids)}


def thread_ms(session: Any, feeds: Feeds) -> float:
    """CPU milliseconds of this thread for one call."""
    start = time.thread_time_ns()
    session.run(None, feeds)
    return (time.thread_time_ns() - start) / 1e6


def rounds(sessions: list[Any], feeds: Feeds) -> list[list[float]]:
    """Median milliseconds of each session (column) in each round (row), calls in turn."""
    for session in sessions:
        for _ in range(3):
            session.run(None, feeds)
    once = sum(thread_ms(session, feeds) for session in sessions) / 1e3
    calls = max(MIN_CALLS, int(ROUND_SECONDS / max(once, 1e-6)))
    table = []
    for _ in range(ROUNDS):
        times = [[thread_ms(session, feeds) for session in sessions] for _ in range(calls)]
        table.append([statistics.median(column) for column in zip(*times, strict=True)])
    return table


def compare(task: Task, tools: list[str], target: str, reuse: bool) -> list[Row]:
    """One task's rows, float first."""
    samples, feeds = write_samples(task), feeds_of(task)
    rows, timed = [Row(task.name, "float")], [open_exact(task.model, exact=False)]
    for tool in tools:
        row, path = Row(task.name, tool), WORK / f"{task.name}-{tool}.onnx"
        rows.append(row)
        if not (reuse and path.exists()):
            row.reason = quantize(task, tool, target, samples).reason
        if row.reason is not None:
            continue
        try:
            session = open_exact(path, exact=False)
            session.run(None, feeds)
            timed.append(session)
        except Exception as error:  # noqa: BLE001  # whatever the engine says is the row's reason
            row.reason = f"the file does not run: {str(error).strip().splitlines()[0][:160]}"
    _fill([row for row in rows if row.reason is None], rounds(timed, feeds))
    for row in rows:
        print(line(row), flush=True)
    return rows


def _fill(rows: list[Row], table: list[list[float]]) -> None:
    for index, row in enumerate(rows):
        ratios = [times[0] / times[index] for times in table]
        row.ms = statistics.median(times[index] for times in table)
        row.worst, row.median = min(ratios), statistics.median(ratios)


def line(row: Row) -> str:
    """A row of the table, in Markdown."""
    if row.ms is None or row.worst is None or row.median is None:
        return f"| {row.task} | {row.tool} | - | - | - | {row.reason} |"
    slower = "slower than float" if row.worst < 1 and row.tool != "float" else ""
    cells = f"{row.ms:.3f} | {row.worst:.2f}x | {row.median:.2f}x | {slower}"
    return f"| {row.task} | {row.tool} | {cells} |"


def cpu_class() -> tuple[str, str, str]:
    """(target, this CPU's class, the class that is not measured here)."""
    if platform.machine() != "x86_64":
        return "rpi5", platform.machine(), "x86"
    vnni = {"avx512_vnni", "avx_vnni"} & set(cpu.host().features)
    with_it, without = "x86 with VNNI", "x86 with AVX2 and no VNNI"
    return ("x86-vnni", with_it, without) if vnni else ("x86-avx2", without, with_it)


def main() -> None:
    parser = argparse.ArgumentParser(description="Compare the speed of int8 files with float")
    parser.add_argument("--tasks", nargs="+", default=list(QUICK_TASKS), help="names, or `all`")
    parser.add_argument("--tools", nargs="+", default=list(QUICK_TOOLS), help="names, or `all`")
    parser.add_argument("--reuse", action="store_true", help="take files that are already there")
    parser.add_argument("--json", type=Path, help="write the table here as well")
    arguments = parser.parse_args()
    here = [name for name in FROM_SHARED if name in catalogue.TASKS]
    names = [*QUICK_TASKS, *here] if arguments.tasks == ["all"] else arguments.tasks
    tools = list(TOOLS) if arguments.tools == ["all"] else arguments.tools
    unknown = sorted({*names} - {*catalogue.TASKS} | {*tools} - {*TOOLS})
    if unknown:
        parser.error(f"there is no {', '.join(unknown)} here: {', '.join(catalogue.TASKS)}")
    target, measured, other = cpu_class()
    print(f"measured here: {measured}; not measured: {other}\n", file=sys.stderr)
    print("| task | tool | ms | worst | median | note |\n|---|---|---|---|---|---|")
    rows = [
        row
        for name in names
        for row in compare(catalogue.TASKS[name](), tools, target, arguments.reuse)
    ]
    if arguments.json is not None:
        told = {"class": measured, "not_measured": other, "rows": [asdict(row) for row in rows]}
        arguments.json.write_text(json.dumps(told, indent=1) + "\n")


if __name__ == "__main__":
    main()
