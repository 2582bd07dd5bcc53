"""Quality of edgeq's int8 beside ONNX Runtime's tool and NNCF: same samples, same run, one table.

    python bench/quality.py                                    # minutes: the nets made here
    python bench/quality.py --tasks all                        # and those of shared/data
    python bench/quality.py --tasks yolox minilm --tools edgeq ort nncf --json quality.json

Every file is scored with exact int8 kernels, so the figures are the algorithm's, not this CPU's.
`change` is against the float model; SQNR is the worst output's over the probes; `agree` is the
share of probes with float's top-1. A tool that fails is a row with its reason. NNCF gets a venv of
its own under build/, made on first use; nothing here is a dependency of edgeq.
"""

import argparse
import json
import math
import os
import subprocess
import sys
import time
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import tasks as catalogue
from tasks import ROOT, WORK, Task, open_exact, runner

QUICK_TASKS = ("depthwise_skew", "depthwise", "small_se")
QUICK_TOOLS = ("edgeq", "ort", "ort-percentile")
TOOLS = (*QUICK_TOOLS, "ort-defaults", "ort-dynamic", "nncf")
FORCED = ("edgeq-static", "edgeq-mixed")  # by name only
VENV = ROOT / "build" / "opponents"
NNCF = ("nncf>=3.0,<4", "onnx", "onnxruntime")
LIMIT_SECONDS = 1200  # of one tool on one model
INT8_KERNELS = ("QLinearConv", "QGemm", "QLinearMatMul", "MatMulIntegerToFloat", "ConvInteger")
DYNAMIC_KERNELS = ("DynamicQuantizeMatMul", "MatMulInteger", "DynamicQuantizeLSTM")


@dataclass
class Row:
    """One tool on one task; `reason` is set where it made nothing that runs."""

    task: str
    tool: str
    metric: str | None = None
    value: float | None = None
    change: float | None = None
    sqnr_db: float | None = None
    agree: float | None = None
    size: float | None = None  # of the float file's
    int8_ops: int | None = None  # kernels in the engine's optimized model
    seconds: float | None = None
    peak_mb: float | None = None
    reason: str | None = None
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Made:
    """A file that a tool made, or the reason why not."""

    path: Path
    reason: str | None
    seconds: float
    cpu_seconds: float  # its children's included
    peak_mb: float
    notes: tuple[str, ...] = ()


def opponents() -> Path:
    """The Python of the venv that has NNCF, made on first use."""
    python = VENV / "bin" / "python"
    if not (VENV / "ready").exists():
        print(f"making {VENV.relative_to(ROOT)} with {' '.join(NNCF)}", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(VENV)], check=True)
        pip = [str(python), "-m", "pip", "install", "--quiet", *NNCF]
        subprocess.run(pip, check=True)
        (VENV / "ready").touch()
    return python


def write_samples(task: Task) -> Path:
    """The calibration samples as quantize_once.py reads them."""
    path = WORK / f"{task.name}-calib.npz"
    WORK.mkdir(parents=True, exist_ok=True)
    arrays = {f"{i}/{name}": x for i, feeds in enumerate(task.samples) for name, x in feeds.items()}
    np.savez(path, allow_pickle=False, **arrays)
    return path


def quantize(task: Task, tool: str, target: str, samples: Path) -> Made:
    """Run `tool` in a child with one thread; its wall seconds and peak memory are the child's."""
    out, log = WORK / f"{task.name}-{tool}.onnx", WORK / f"{task.name}-{tool}.log"
    out.unlink(missing_ok=True)
    python = opponents() if tool == "nncf" else Path(sys.executable)
    script = Path(__file__).with_name("quantize_once.py")
    command = [str(python), str(script), tool, str(task.model), str(samples), str(out), target]
    quiet = os.environ | {"NNCF_TELEMETRY": "0", "ONNX_TELEMETRY": "0", "DO_NOT_TRACK": "1"}
    started = time.monotonic()
    with log.open("wb") as story:
        child = subprocess.Popen(
            ["timeout", str(LIMIT_SECONDS), *command], stdout=story, stderr=story, env=quiet
        )
        _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    cost = (usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024 / 1e6)
    lines = log.read_text(errors="replace").strip().splitlines() or ["no output"]
    if child.returncode != 0 or not out.exists():
        limit = f"over {LIMIT_SECONDS} s" if child.returncode == 124 else lines[-1]
        return Made(out, limit[:160], time.monotonic() - started, *cost)
    told = json.loads(lines[-1])
    return Made(out, None, told["seconds"], *cost, tuple(told["notes"]))


def sqnr_db(wanted: Any, got: Any) -> float:
    """10 log10(|wanted|^2 / |wanted - got|^2) over lists of arrays; inf where they are equal."""
    signal = sum(float((a.astype(np.float64) ** 2).sum()) for a in wanted)
    noise = sum(
        float(((a.astype(np.float64) - b) ** 2).sum()) for a, b in zip(wanted, got, strict=True)
    )
    return math.inf if noise == 0 else 10 * math.log10(max(signal, 1e-30) / noise)


def int8_kernels(path: Path) -> Counter[str]:
    """Kernels of the model the engine makes of the file, by operator type (its ordinary mode)."""
    import onnx
    import onnxruntime

    optimized = path.with_suffix(".optimized.onnx")
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(optimized)
    options.log_severity_level = 3
    onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    counts = Counter(node.op_type for node in onnx.load(optimized).graph.node)
    optimized.unlink()
    return counts


def measure(task: Task, tool: str, made: Made, baseline: Row, floats: list[Any]) -> Row:
    """Score a file that a tool made."""
    row = Row(task.name, tool, task.metric, seconds=made.seconds, notes=list(made.notes))
    row.peak_mb = round(made.peak_mb)
    if made.reason is not None:
        row.reason = made.reason
        return row
    try:
        run = runner(open_exact(made.path))
        outputs = [run(feeds) for feeds in task.probes]
        counts = int8_kernels(made.path)
    except Exception as error:  # noqa: BLE001  # whatever the engine says is the row's reason
        row.reason = f"the file does not run: {str(error).strip().splitlines()[0][:160]}"
        return row
    row.int8_ops = sum(counts[name] for name in (*INT8_KERNELS, *DYNAMIC_KERNELS))
    row.sqnr_db = round(
        min(
            sqnr_db([f[i] for f in floats], [o[i] for o in outputs]) for i in range(len(floats[0]))
        ),
        2,
    )
    if task.classes:
        same = [f[0].argmax() == o[0].argmax() for f, o in zip(floats, outputs, strict=True)]
        row.agree = float(np.mean(same))
    row.size = round(made.path.stat().st_size / task.model.stat().st_size, 3)
    if task.score is not None and baseline.value is not None:
        row.value = task.score(run)
        row.change = row.value - baseline.value
    return row


def compare(task: Task, tools: list[str], target: str) -> list[Row]:
    """One task's rows, float first."""
    run = runner(open_exact(task.model))
    floats = [run(feeds) for feeds in task.probes]
    baseline = Row(task.name, "float", task.metric, size=1.0)
    if task.score is not None:
        baseline.value, baseline.change = task.score(run), 0.0
    rows, samples = [baseline], write_samples(task)
    print(line(baseline), flush=True)
    for tool in tools:
        made = quantize(task, tool, target, samples)
        rows.append(measure(task, tool, made, baseline, floats))
        print(line(rows[-1]), flush=True)
    return rows


HEAD = (
    "| task | tool | metric | value | change | SQNR dB | agree | size | int8 ops | s | MB | note |"
)


def line(row: Row) -> str:
    """A row of the table, in Markdown."""
    cells = (
        (row.task, row.tool, row.metric or "-"),
        (_text(row.value, ".4f"), _text(row.change, "+.4f"), _text(row.sqnr_db, ".1f")),
        (_text(row.agree, ".1%"), _text(row.size, ".3f"), _text(row.int8_ops, "d")),
        (_text(row.seconds, ".1f"), _text(row.peak_mb, ".0f"), _note(row)),
    )
    return "| " + " | ".join(cell for part in cells for cell in part) + " |"


def _text(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def _note(row: Row) -> str:
    text = row.reason if row.reason is not None else "; ".join(row.notes)
    return text.replace("|", "/")[:200]


def main() -> None:
    parser = argparse.ArgumentParser(description="Compare the quality of int8 tools")
    parser.add_argument("--tasks", nargs="+", default=list(QUICK_TASKS), help="names, or `all`")
    parser.add_argument("--tools", nargs="+", default=list(QUICK_TOOLS), help="names, or `all`")
    parser.add_argument("--target", default="x86-vnni", help="what edgeq builds for")
    parser.add_argument("--json", type=Path, help="write the table here as well")
    arguments = parser.parse_args()
    names = list(catalogue.TASKS) if arguments.tasks == ["all"] else arguments.tasks
    tools = list(TOOLS) if arguments.tools == ["all"] else arguments.tools
    unknown = sorted({*names} - {*catalogue.TASKS} | {*tools} - {*TOOLS, *FORCED})
    if unknown:
        parser.error(f"there is no {', '.join(unknown)} here: {', '.join(catalogue.TASKS)}")
    print(HEAD, "|---" * HEAD.count(" | ") + "|---|", sep="\n")
    rows = [
        row for name in names for row in compare(catalogue.TASKS[name](), tools, arguments.target)
    ]
    if arguments.json is not None:
        arguments.json.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n")


if __name__ == "__main__":
    main()
