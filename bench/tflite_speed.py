"""Speed of edgeq's int8 TFLite files beside the public ones, and beside its own ONNX files.

    python bench/tflite_speed.py                     # both tables
    python bench/tflite_speed.py --only public       # needs shared/data
    python bench/tflite_speed.py --only engines

Public: kws, resnet8 and vww of shared/data, our file of the float model with int8 at its border as
theirs have it. Engines: one model by edgeq as int8 ONNX for ONNX Runtime and as int8 TFLite for
LiteRT. Measured as speed.py does: one thread, call by call in turn, five rounds, the worst and the
median one. What is printed is this CPU's class alone.
"""

import argparse
import json
import statistics
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import tasks as catalogue
from litert import PUBLIC, LiteRt
from numpy.typing import NDArray
from speed import cpu_class, feeds_of, rounds
from tasks import SHARED, WORK, Feeds, open_exact

SPEED_NETS = ("kws", "resnet8", "vww")
NETS = ("mobilenet_v2", "small_se", "depthwise", "encoder")
LEAST = 0.95  # of the public file's speed


@dataclass(frozen=True)
class Row:
    """`ms` of the median round; ratios above 1: faster than what it stands beside."""

    net: str
    file: str
    ms: float
    worst: float
    median: float
    partitions: int | None = None  # of XNNPACK; None: another engine

    def line(self) -> str:
        parts = "" if self.partitions is None else f"{self.partitions} XNNPACK"
        cells = f"{self.ms:.4f} | {self.worst:.2f}x | {self.median:.2f}x | {parts}"
        return f"| {self.net} | {self.file} | {cells} |"


class Again:
    """A LiteRT file with its input set once, so that invoking it is all that is timed."""

    def __init__(self, path: Path, row: NDArray[Any]) -> None:
        self._file = LiteRt(path)
        self._file.set({"x": row})
        self.partitions = self._file.partitions

    def run(self, _: None, feeds: Feeds) -> None:
        del feeds
        self._file.run_again()


def build(
    model: Path,
    samples: list[Any],
    name: str,
    target: str,
    precision: str = "int8",
    **settings: Any,
) -> Path:
    """edgeq's file of `model`, under build/bench, with its build's result beside it."""
    import edgeq

    bundle = WORK / f"{name}.edgeq"
    built = edgeq.build(
        model,
        target=target,
        precision=precision,
        data=(lambda: iter(samples)) if precision == "int8" else None,
        out=bundle,
        settings=edgeq.BuildSettings(packaging="dir", force=True, **settings),
    )
    (artifact,) = built.artifacts
    (WORK / f"{name}.json").write_text(json.dumps(built.to_json(), indent=1))
    return bundle / artifact.file


def _rows(net: str, files: list[str], sessions: list[Any], feeds: Feeds) -> list[Row]:
    """The first session is what the others stand beside."""
    table = rounds(sessions, feeds)
    made = []
    for at, (file, session) in enumerate(zip(files, sessions, strict=True)):
        ratios = [times[0] / times[at] for times in table]
        ms = statistics.median(times[at] for times in table)
        parts = session.partitions if isinstance(session, Again | LiteRt) else None
        made.append(Row(net, file, ms, min(ratios), statistics.median(ratios), parts))
        print(made[-1].line(), flush=True)
    return made


def public(target: str, names: list[str]) -> list[Row]:
    """Ours beside the public int8 file; float is told as well."""
    made = []
    for name in names:
        net = PUBLIC[name]
        rows = net.rows("calib_x")[: catalogue.CALIBRATION, None]
        ours = build(
            net.float_file, list(rows), f"public-{name}", target, format="tflite", io="int8"
        )
        assert net.int8_file is not None
        paths = {"public int8": net.int8_file, "edgeq int8": ours, "float": net.float_file}
        sessions = [Again(path, rows[0]) for path in paths.values()]
        made += _rows(name, list(paths), sessions, {})
    return made


def engines(target: str, names: list[str]) -> list[Row]:
    """LiteRT's int8 beside ONNX Runtime's, of the same float model and samples."""
    made = []
    for net in names:
        task = catalogue.TASKS[net]()
        feeds = feeds_of(task)
        ort, lite = (
            build(task.model, task.samples, f"{net}-{form}", target, format=form)
            for form in ("onnx", "tflite")
        )
        floats = open_exact(task.model, exact=False)
        sessions = [open_exact(ort, exact=False), LiteRt(lite), floats]
        files = ["onnx int8, ort", "tflite int8, litert", "onnx float, ort"]
        made += _rows(net, files, sessions, feeds)
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description="Compare the speed of int8 TFLite files")
    parser.add_argument("--only", choices=("public", "engines"), help="one of the two tables")
    parser.add_argument("--nets", nargs="+", help="default: all of a table")
    parser.add_argument("--json", type=Path, help="write the rows here as well")
    arguments = parser.parse_args()
    target, name, other = cpu_class()
    print(f"{name}, target {target}; not measured: {other}\n")
    print("| net | file | ms | worst | median | delegated |\n|---|---|---|---|---|---|")
    made: list[Row] = []
    if arguments.only != "engines" and SHARED.is_dir():
        made += public(target, [net for net in SPEED_NETS if net in (arguments.nets or SPEED_NETS)])
    slow = [row.net for row in made if row.file == "edgeq int8" and row.median < LEAST]
    if arguments.only != "public":
        made += engines(target, [net for net in NETS if net in (arguments.nets or NETS)])
    if arguments.json:
        arguments.json.write_text(json.dumps([asdict(row) for row in made], indent=1))
    if slow:
        print(f"\nunder {LEAST}x of the public file: {', '.join(slow)}", file=sys.stderr)
    sys.exit(bool(slow))


if __name__ == "__main__":
    main()
