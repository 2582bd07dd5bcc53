"""Our int8 of the public float .tflite files beside the int8 files that were published with them.

    python bench/tflite_quality.py                    # needs shared/data; minutes
    python bench/tflite_quality.py --nets kws vww

Each float file becomes ONNX and is held against LiteRT's reference kernels; then int8 ONNX and int8
TFLite with default settings, each with a plan of its own. SQNR is of the outputs of 200 inputs
against float, accuracy of all labelled rows (resnet8: in a fixed random order, they lie by class).
`lsb` is how far the TFLite file's output in LiteRT is from the same plan's in ONNX Runtime, in
steps of its output scale: the largest, and the share within one.
"""

import argparse
import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from litert import PUBLIC, LiteRt, Public, in_float
from numpy.typing import NDArray
from quality import sqnr_db
from tasks import CALIBRATION, SHARED, WORK, Feeds
from tflite_speed import build

from edgeq_converters.read.tflite import read
from edgeq_converters.write.onnx import write
from edgeq_runtime import tflite
from edgeq_runtime.engines.onnxruntime import open_session

INPUTS, REFERENCE_INPUTS, ROWS = 200, 20, 3000
POINTS, LARGER, RELATIVE = 0.5, 1.05, 1e-4


@dataclass(frozen=True)
class Row:
    """One file of one net; what is None was not asked of it."""

    net: str
    file: str
    accuracy: float
    sqnr_db: float | None = None
    size: int | None = None
    relative: float | None = None  # of the float ONNX file to the reference kernels
    lsb: float | None = None
    within_one: float | None = None

    def line(self) -> str:
        cells = (
            f"{self.accuracy:.4f}",
            "" if self.sqnr_db is None else f"{self.sqnr_db:.1f}",
            "" if self.size is None else str(self.size),
            "" if self.relative is None else f"{self.relative:.1e}",
            "" if self.lsb is None else f"{self.lsb:.0f}, {self.within_one:.1%} within 1",
        )
        return f"| {self.net} | {self.file} | {' | '.join(cells)} |"


class Onnx:
    """A file in ONNX Runtime as edgeq's runtime opens it: exact integers on any host."""

    def __init__(self, path: Path) -> None:
        self._session = open_session(path.read_bytes(), threads=1, exact=True)

    def run(self, _: None, feeds: Feeds) -> list[NDArray[Any]]:
        named = {self._session.inputs[0].name: next(iter(feeds.values()))}
        return list(self._session.run(named).values())


def outputs(session: Onnx | LiteRt, rows: NDArray[Any]) -> NDArray[Any]:
    """The first output for each row, as float."""
    return np.concatenate([session.run(None, {"x": row[None]})[0] for row in rows])


def compare(net: Public) -> list[Row]:
    """The rows of one net, float first."""
    order = np.random.default_rng(0).permutation(len(net.labels))[:ROWS]
    rows, labels = net.rows("x")[order], net.labels[order]
    samples = list(net.rows("calib_x")[:CALIBRATION, None])
    floats = build(net.float_file, samples, f"{net.name}-float", "rpi5", "fp32", format="onnx")
    made = {
        form: build(net.float_file, samples, f"{net.name}-{form}", "rpi5", format=form)
        for form in ("onnx", "tflite")
    }
    wanted = outputs(Onnx(floats), rows)
    source = in_float(net.float_file, WORK / f"{net.name}-in-float.tflite")
    reference = outputs(LiteRt(source, reference=True), rows[:REFERENCE_INPUTS])
    error = np.abs(wanted[:REFERENCE_INPUTS] - reference).max() / np.abs(reference).max()
    table = [Row(net.name, "float", _top1(wanted, labels), relative=float(error))]
    files: dict[str, tuple[Path, Any]] = {
        "edgeq int8 onnx": (made["onnx"], Onnx(made["onnx"])),
        "edgeq int8 tflite": (made["tflite"], LiteRt(made["tflite"])),
    }
    if net.int8_file is not None:
        files["public int8 tflite"] = (net.int8_file, LiteRt(net.int8_file))
    got = {name: outputs(session, rows) for name, (_, session) in files.items()}
    for name, (path, _) in files.items():
        steps = _steps(got[name], path, rows) if name == "edgeq int8 tflite" else {}
        ratio = sqnr_db([wanted[:INPUTS]], [got[name][:INPUTS]])
        accuracy = _top1(got[name], labels)
        table.append(Row(net.name, name, accuracy, ratio, path.stat().st_size, **steps))
    return table


def _top1(scores: NDArray[Any], labels: NDArray[Any]) -> float:
    return float((scores.reshape(len(labels), -1).argmax(1) == labels).mean())


def _steps(ours: NDArray[Any], file: Path, rows: NDArray[Any]) -> dict[str, float]:
    """How far the file's own graph and integers, written as ONNX, are from it in ONNX Runtime.

    In steps of the file's last int8 tensor; nothing where its tail is in float.
    """
    graph = tflite.parse(file.read_bytes()).subgraphs[0]
    last = next(row for row in graph.operators if graph.outputs[0] in row.outputs)
    source = graph.tensors[last.inputs[0]]
    if last.code != "DEQUANTIZE" or source.quantization is None:
        return {}
    result = read(file)
    twin = file.with_suffix(".onnx")
    twin.write_bytes(write(result.graph, result.plan))
    distance = np.round(np.abs(ours - outputs(Onnx(twin), rows)) / source.quantization.scale)
    return {"lsb": float(distance.max()), "within_one": float((distance <= 1).mean())}


def misses(table: list[Row]) -> list[str]:
    """What a net does not reach, in words; empty when it reaches everything."""
    by_file = {row.file: row for row in table}
    floats, public = by_file["float"], by_file.get("public int8 tflite")
    found = []
    if floats.relative is None or floats.relative > RELATIVE:
        found.append(f"{floats.net}: float {floats.relative} from the reference kernels")
    for name in ("edgeq int8 onnx", "edgeq int8 tflite"):
        ours = by_file[name]
        least = min(floats.accuracy, public.accuracy if public else 1.0) - POINTS / 100
        if ours.accuracy < least:
            found.append(f"{ours.net}, {name}: accuracy {ours.accuracy:.4f} under {least:.4f}")
        if public is None:
            continue
        assert ours.sqnr_db is not None and public.sqnr_db is not None
        if ours.sqnr_db < public.sqnr_db:
            found.append(f"{ours.net}, {name}: {ours.sqnr_db:.1f} dB under {public.sqnr_db:.1f}")
        assert ours.size is not None and public.size is not None
        if name.endswith("tflite") and ours.size > LARGER * public.size:
            found.append(f"{ours.net}, {name}: {ours.size} bytes, public {public.size}")
    ours = by_file["edgeq int8 tflite"]
    share = 1.0 if ours.within_one is None else ours.within_one
    if (ours.lsb or 0) > 2 or share < 0.99:
        found.append(f"{ours.net}: {ours.lsb} LSB between engines, {share:.1%} within 1")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description="Compare int8 files of public float .tflite files")
    parser.add_argument("--nets", nargs="+", choices=PUBLIC, default=list(PUBLIC), metavar="NET")
    parser.add_argument("--json", type=Path, help="write the rows here as well")
    arguments = parser.parse_args()
    if not SHARED.is_dir():
        raise SystemExit("there is no folder shared/data beside the repository")
    WORK.mkdir(parents=True, exist_ok=True)
    print("| net | file | top-1 | SQNR dB | bytes | to reference | lsb |")
    print("|---|---|---|---|---|---|---|")
    rows, missed = [], []
    for name in arguments.nets:
        table = compare(PUBLIC[name])
        for row in table:
            print(row.line(), flush=True)
        rows += table
        missed += misses(table)
    if arguments.json:
        arguments.json.write_text(json.dumps([asdict(row) for row in rows], indent=1))
    print("\n".join(missed), file=sys.stderr)
    sys.exit(bool(missed))


if __name__ == "__main__":
    main()
