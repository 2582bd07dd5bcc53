"""What int8 and TFLite must reach, figure by figure, on this machine: default settings.

    python bench/acceptance.py                     # everything: about an hour
    python bench/acceptance.py skew magika speed   # some of it
    python bench/acceptance.py public vela half    # of TFLite: after `make test-devices`

Ends with 1 where a figure is not reached. What needs the folder shared/data is left out, and said,
where that is missing; speed is that of this CPU's class alone.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import litert
import numpy as np
import onnx
import speed
import tasks as catalogue
import tflite_quality
import tflite_speed
from quality import Made, int8_kernels, quantize, write_samples
from tasks import ROOT, Task, open_exact, runner

SATURATION = ("tests/e2e/test_saturation.py", "tests/emulated/test_equal_kernels.py")
# figure of each net on each class: with VNNI, with AVX2 only
SPEEDS = {"mobilenet_v2": (1.9, 1.4), "small_se": (1.3, 1.0), "minilm": (1.8, 1.6)}


@dataclass(frozen=True)
class Figure:
    """One line of the list: what is wanted, what was got."""

    name: str
    wanted: str
    got: str
    passed: bool


def _built(
    task: Task, tool: str = "edgeq", target: str = "x86-vnni"
) -> tuple[Made, dict[str, Any]]:
    """A file and the result of its build."""
    made = quantize(task, tool, target, write_samples(task))
    if made.reason is not None:
        raise SystemExit(f"{task.name}, {tool}: {made.reason}")
    return made, json.loads(made.path.with_suffix(".json").read_text())


def _score(task: Task, path: Path) -> float:
    assert task.score is not None
    return task.score(runner(open_exact(path)))


def yolox() -> Iterator[Figure]:
    """AP, and how many convolutions the engine runs in int8."""
    task = catalogue.yolox()
    made, _ = _built(task)
    value = _score(task, made.path)
    yield Figure("yolox_nano AP", ">= 0.30, aim 0.32", f"{value:.4f}", value >= 0.30)
    convs = sum(node.op_type == "Conv" for node in onnx.load(task.model).graph.node)
    share = int8_kernels(made.path)["QLinearConv"] / convs
    yield Figure("yolox_nano convs in int8", ">= 90 %", f"{share:.1%} of {convs}", share >= 0.9)


def minilm() -> Iterator[Figure]:
    """Spearman and size of the default choice; the better of forced static and mixed."""
    task = catalogue.minilm()
    made, _ = _built(task)
    value, size = _score(task, made.path), made.path.stat().st_size / task.model.stat().st_size
    yield Figure("minilm Spearman", ">= 0.865", f"{value:.4f}", value >= 0.865)
    yield Figure("minilm size", "<= 0.27", f"{size:.3f}", size <= 0.27)
    forced = {
        kind: _score(task, _built(task, f"edgeq-{kind}")[0].path) for kind in ("static", "mixed")
    }
    told = ", ".join(f"{kind} {value:.4f}" for kind, value in forced.items())
    yield Figure("minilm forced", ">= 0.860, either", told, max(forced.values()) >= 0.860)


def magika() -> Iterator[Figure]:
    """Reference labels with the Conv and both MatMul in int8, or the reason in the report."""
    task = catalogue.magika()
    made, told = _built(task)
    right = round(_score(task, made.path) * 129)
    yield Figure("magika labels", ">= 128 of 129", str(right), right >= 128)
    counts = told["ops"]
    heavy = sum(counts.get("int8", {}).get(kind, 0) for kind in ("Conv", "MatMul", "Gemm"))
    heavy += sum(counts.get("dynamic-int8", {}).values())
    left = [op for op in told["left_in_float"] if op["op_type"] in ("Conv", "MatMul", "Gemm")]
    reasons = "; ".join(f"{op['op_type']}: {op['reason']}" for op in left)
    yield Figure("magika int8", "3, or reasons", f"{heavy} {reasons}", heavy + len(left) >= 3)


def silero() -> Iterator[Figure]:
    """Decisions over all frames with the state fed back; or float, said, and bit-equal."""
    task = catalogue.silero()
    made, told = _built(task)
    share = _score(task, made.path)
    if told["precision"] == "int8":
        yield Figure("silero frames", ">= 99 %", f"{share:.2%}", share >= 0.99)
        return
    ours, floats = runner(open_exact(made.path)), runner(open_exact(task.model))
    same = all(
        np.array_equal(a, b)
        for feeds in task.samples
        for a, b in zip(ours(feeds), floats(feeds), strict=True)
    )
    said = next((line for line in told["warnings"] if "float" in line), "")
    passed = same and bool(said) and share == 1.0
    yield Figure("silero in float", "said, bit-equal", f"equal: {same}; {said}", passed)


def skew() -> Iterator[Figure]:
    """Points lost by the depthwise CNN with channels skewed by e^+-3."""
    task = catalogue.depthwise_skew()
    made, _ = _built(task)
    lost = 100 * (_score(task, task.model) - _score(task, made.path))
    yield Figure("skewed CNN", "<= 0.5 points lost", f"{lost:.2f}", lost <= 0.5)


def _tested(name: str, *paths: str, wanted: str = "all pass") -> Figure:
    """Tests that hold the figure themselves; one that was skipped holds nothing."""
    command = [sys.executable, "-m", "pytest", "-q", *paths]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    last = (done.stdout.strip().splitlines() or [done.stderr])[-1]
    return Figure(name, wanted, last, done.returncode == 0 and "skipped" not in last)


def saturation() -> Iterator[Figure]:
    """The tests that count pairs and compare kernels."""
    yield _tested("no saturation", *SATURATION)


def speeds() -> Iterator[Figure]:
    """Worst of five rounds against float; slower than float only with a line that says so."""
    target, name, other = speed.cpu_class()
    column = ("x86-vnni", "x86-avx2").index(target)
    print(f"speed: {name}; not measured: {other}", file=sys.stderr)
    names = [net for net in (*SPEEDS, "yolox") if net in catalogue.TASKS]
    for net in names:
        row = speed.compare(catalogue.TASKS[net](), ["edgeq"], target, False)[1]
        told = json.loads((catalogue.WORK / f"{net}-edgeq.json").read_text())
        worst = row.worst or 0.0
        if net in SPEEDS:
            least = SPEEDS[net][column]
            yield Figure(f"{net} speed", f">= {least}x", f"{worst:.2f}x", worst >= least)
        said = any("slower than float" in line for line in told["warnings"])
        got = f"{worst:.2f}x, {'said' if said else 'not said'}"
        yield Figure(f"{net} is said to be slower", "if it is", got, said or worst >= 1.0)


def cost() -> Iterator[Figure]:
    """Build time and memory of MobileNetV2 (build_cost.py)."""
    script = str(Path(__file__).with_name("build_cost.py"))
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=False)
    lines = [line for line in done.stdout.splitlines() if "at most" in line]
    got = "; ".join(" ".join(line.split()) for line in lines) or done.stderr.strip()[-200:]
    yield Figure("build of MobileNetV2", "time and memory", got, done.returncode == 0)


def public() -> Iterator[Figure]:
    """The float .tflite files of shared/data beside the int8 files published with them."""
    for net in litert.PUBLIC.values():
        table = tflite_quality.compare(net)
        missed = tflite_quality.misses(table)
        got = "; ".join(missed) or "; ".join(f"{row.file} {row.accuracy:.4f}" for row in table)
        wanted = "float -0.5 points, dB and bytes of public"
        yield Figure(f"{net.name} as TFLite and ONNX", wanted, got, not missed)


def yolox_tflite() -> Iterator[Figure]:
    """AP of the int8 TFLite file in LiteRT."""
    task = catalogue.yolox()
    path = tflite_speed.build(task.model, task.samples, "yolox-tflite", "rpi5", format="tflite")
    session = litert.LiteRt(path)
    assert task.score is not None
    value = task.score(lambda feeds: session.run(None, feeds))
    yield Figure("yolox_nano TFLite AP", ">= 0.30", f"{value:.4f}", value >= 0.30)


def tflite_speeds() -> Iterator[Figure]:
    """The median of five rounds against the public int8 files, on this CPU's class."""
    target, name, _ = speed.cpu_class()
    for row in tflite_speed.public(target, list(tflite_speed.SPEED_NETS)):
        if row.file == "edgeq int8":
            got = f"{row.median:.2f}x on {name}, {row.partitions} partition(s)"
            yield Figure(f"{row.net} beside the public file", ">= 0.95x", got, row.median >= 0.95)


def convert() -> Iterator[Figure]:
    """Conversion of MobileNetV2 (tflite_convert.py)."""
    script = str(Path(__file__).with_name("tflite_convert.py"))
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=False)
    lines = [line for line in done.stdout.splitlines() if "at most" in line]
    got = "; ".join(lines) or done.stderr.strip()[-200:]
    yield Figure("MobileNetV2 to TFLite", "time and memory", got, done.returncode == 0)


def cores() -> Iterator[Figure]:
    """Int8 on emulated cores; needs what `make test-devices` makes, as the next two do."""
    yield _tested("int8 on A72 and A76", "tests/device/test_cores.py", wanted="as on x86")


def half() -> Iterator[Figure]:
    """`--fp16` of vww on the virtual Pi 5."""
    wanted = ">= 1.5x fewer instructions, 99.5 %"
    yield _tested("vww in fp16", "tests/device/test_fp16.py", wanted=wanted)


def vela() -> Iterator[Figure]:
    """What Arm's compiler accepts."""
    wanted = "100 %, yolox 85 %"
    yield _tested("accepted by Vela", "tests/device/test_vela.py", wanted=wanted)


def conformance() -> Iterator[Figure]:
    """ONNX's own tests of nodes, through read, passes and both writers."""
    yield _tested("conformance", "tests/conformance", wanted=">= 85 % of covered ops")


def fuzz() -> Iterator[Figure]:
    """Mutated TFLite files through reader, verifier and guarded load."""
    yield _tested("fuzzed TFLite", "tests/fuzz", wanted="5,000 files, no crash")


FIGURES: dict[str, Callable[[], Iterator[Figure]]] = {
    "skew": skew,
    "magika": magika,
    "silero": silero,
    "yolox": yolox,
    "minilm": minilm,
    "speed": speeds,
    "cost": cost,
    "saturation": saturation,
    "public": public,
    "yolox-tflite": yolox_tflite,
    "tflite-speed": tflite_speeds,
    "convert": convert,
    "cores": cores,
    "half": half,
    "vela": vela,
    "conformance": conformance,
    "fuzz": fuzz,
}
NEEDS_SHARED = (
    *("magika", "silero", "yolox", "minilm"),
    *("public", "yolox-tflite", "tflite-speed", "cores", "half", "vela"),
)


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure what int8 must reach")
    parser.add_argument("figures", nargs="*", help=f"default: all of {', '.join(FIGURES)}")
    names = parser.parse_args().figures or list(FIGURES)
    if unknown := sorted({*names} - {*FIGURES}):
        parser.error(f"there is no {', '.join(unknown)}: {', '.join(FIGURES)}")
    failed = 0
    for name in names:
        if name in NEEDS_SHARED and "yolox" not in catalogue.TASKS:
            print(f"left out     {name}: there is no folder shared/data beside the repository")
            continue
        for figure in FIGURES[name]():
            failed += not figure.passed
            word = "passed" if figure.passed else "FAILED"
            print(f"{word:6} {figure.name:28} {figure.wanted:20} {figure.got}", flush=True)
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
