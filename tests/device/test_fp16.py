"""`--fp16` for a Raspberry Pi 5: LiteRT computes in fp16 there, which this machine cannot.

So its quality is judged on the emulated core, and its cost is counted in instructions.
"""

import json
import shutil
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeq import cli
from edgeq.devices import emulated
from edgeq_runtime.engines import litert

pytestmark = [
    pytest.mark.device,
    pytest.mark.shared,
    pytest.mark.checkout,
    pytest.mark.xdist_group("fp16"),
]

MAIN = """
import json, sys, time
sys.stderr = sys.stdout
import numpy
from ai_edge_litert.interpreter import Interpreter
counts = {}
for name in ("float", "half"):
    interpreter = Interpreter(model_path=f"/job/{name}.tflite", num_threads=1)
    interpreter.allocate_tensors()
    (info,) = interpreter.get_input_details()
    interpreter.set_tensor(info["index"], numpy.load("/job/x.npy").reshape(info["shape"]))
    counts[name] = []
    for _ in range(12):
        start = time.perf_counter_ns()
        interpreter.invoke()
        counts[name].append(time.perf_counter_ns() - start)
print("ANSWER " + json.dumps(counts))
"""


@pytest.fixture(scope="module")
def vww(net: Callable[[str], Any]) -> Any:
    return net("vww")


@pytest.fixture(scope="module")
def half(vww: Any, build_tflite: Callable[..., Path]) -> Path:
    """The artifact of `--fp16`."""
    file: Path = build_tflite(vww.float_file, None, "fp16") / "model.tflite"
    return file


@pytest.mark.arm64
@pytest.mark.usefixtures("arm64_root")
def test_the_answers_are_those_of_float(vww: Any, half: Path) -> None:
    floats = litert.open_session(vww.float_file.read_bytes(), threads=1)
    (info,) = floats.inputs
    samples = [{info.name: row[None]} for row in vww.x]
    there = emulated.run(half, samples, core="Cortex-A76")
    wanted = np.array([next(iter(floats.run(feeds).values()))[0] for feeds in samples])
    got = np.array([next(iter(outputs.values()))[0] for outputs in there.outputs])
    error = np.abs(got - wanted).max()
    # it did compute in fp16 (float32 kernels of two machines are within 1e-6 of each other), and
    # to its 11 bits: the sums of 27 layers of it end within 20 half steps of a probability
    assert 1e-5 < error < 20 * 2**-11, error
    assert (got.argmax(1) == wanted.argmax(1)).mean() >= 0.995


@pytest.mark.vpi
def test_it_takes_fewer_instructions_than_float(
    vww: Any, half: Path, counted: Callable[[str, Path], Any], tmp_path: Path
) -> None:
    shutil.copyfile(vww.float_file, tmp_path / "float.tflite")
    shutil.copyfile(half, tmp_path / "half.tflite")
    np.save(tmp_path / "x.npy", vww.x[0])
    (tmp_path / "main.py").write_text(MAIN)
    counts = counted("cortex-a76", tmp_path)
    medians = {name: statistics.median(rows) for name, rows in counts.items()}
    assert medians["float"] / medians["half"] >= 1.5, json.dumps(counts)


@pytest.mark.arm64
@pytest.mark.usefixtures("arm64_root")
def test_a_build_judges_it_on_the_emulated_core(
    repository: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By the command line; with another order of axes, so that values are turned there and back."""
    digits = repository / "examples" / "digits"
    with np.load(digits / "eval.npz") as arrays:
        np.savez(tmp_path / "eval.npz", **{name: array[:64] for name, array in arrays.items()})
    out = tmp_path / "digits.edgeq"
    command = ["build", str(digits / "digits.onnx"), "--target", "rpi5", "--fp16", "--layout"]
    command += ["nhwc", "--format", "tflite", "--eval", str(tmp_path / "eval.npz"), "--metric"]
    assert cli.main([*command, "top1", "--json", "--out", str(out)]) == 0
    told = json.loads(capsys.readouterr().out)
    notes = " ".join(told["notes"])
    assert "quality was measured on an emulated Cortex-A76, which computes in float16" in notes
    assert told["quality"]["n"] == 64
    (output,) = told["fidelity"]["outputs"]
    assert 45 < output["sqnr_db"] < 66  # 58 there; 73 here, where the sums are of float32
