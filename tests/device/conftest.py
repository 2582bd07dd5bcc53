"""Emulated boards and outside judges, as `tests/device/prepare.sh` makes them under build/."""

import json
import re
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import edgeq

BOOT_SECONDS = 240
LITERT_NETS = {  # name -> folder of shared/data, float file, public int8 file, calibration rows
    "kws": ("kws_dscnn", "kws_ref_model_float32.tflite", "kws_ref_model.tflite"),
    "resnet8": ("ic_resnet8", "pretrainedResnet.tflite", "pretrainedResnet_quant.tflite"),
    "vww": ("vww_mobilenet", "vww_96_float.tflite", "vww_96_int8.tflite"),
}


@dataclass(frozen=True)
class Net:
    """A float .tflite of shared/data, the public int8 file of it, and rows as the model reads them.

    `x` are rows to score and `y` their labels, `calibration` others."""

    name: str
    float_file: Path
    int8_file: Path
    calibration: "np.ndarray[Any, Any]"
    x: "np.ndarray[Any, Any]"
    y: "np.ndarray[Any, Any]"


@pytest.fixture(scope="session")
def net(shared: Path) -> Callable[[str], Net]:
    """`net(name)`: kws, resnet8 or vww."""

    def load(name: str) -> Net:
        folder, float_name, int8_name = LITERT_NETS[name]
        scale = np.float32(255 if name == "vww" else 1)  # the others read what is stored
        with np.load(shared / "data" / folder / "data.npz") as data:
            calibration, x = (data[key].astype(np.float32) / scale for key in ("calib_x", "x"))
            labels = data["y"]
        place = shared / "data" / folder
        return Net(name, place / float_name, place / int8_name, calibration, x, labels)

    return load


@pytest.fixture(scope="session")
def build_tflite(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """`build_tflite(model, samples, precision, **settings)`: a bundle for rpi5, as a folder."""

    def build(model: Path, samples: Any, precision: str = "int8", **settings: Any) -> Path:
        out = tmp_path_factory.mktemp("built") / "model.edgeq"
        data = None if samples is None else (lambda: iter(samples))
        told = edgeq.BuildSettings(packaging="dir", format="tflite", **settings)
        edgeq.build(model, target="rpi5", precision=precision, data=data, out=out, settings=told)
        return out

    return build


@pytest.fixture(scope="session")
def counted(repository: Path) -> Callable[[str, Path], Any]:
    """`counted(cpu, job)`: what `main.py` of the folder `job` says on a virtual board, where a
    nanosecond is an instruction: the JSON of its line `ANSWER ...`."""

    def boot(cpu: str, job: Path) -> Any:
        device = repository / "build" / "device"
        script = repository / "tests" / "device" / "boot.sh"
        done = subprocess.run(
            ["sh", str(script), str(device), cpu, str(job), str(BOOT_SECONDS)],
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
        )
        answer = re.search(r"^ANSWER (.*?)\r?$", done.stdout, re.MULTILINE)
        assert answer is not None, (done.stdout + done.stderr)[-3000:]
        return json.loads(answer.group(1))

    return boot


@dataclass(frozen=True)
class Judged:
    """How many operators a file has for Vela, and those it leaves to the CPU, with the reason."""

    operators: int
    rejected: tuple[tuple[str, str], ...]

    @property
    def accepted(self) -> float:
        return 1 - len(self.rejected) / self.operators


@pytest.fixture(scope="session")
def vela(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path], Judged]:
    """Arm's compiler for Ethos-U: `vela(file)` counts the file's own operators, before Vela splits
    what its hardware has no single operation for."""

    def judge(file: Path) -> Judged:
        from edgeq_runtime import tflite

        program = repository / "build" / "device" / "vela" / "bin" / "vela"
        out = tmp_path_factory.mktemp("vela")
        done = subprocess.run(
            [str(program), "--output-dir", str(out), "--show-cpu-operations", str(file)],
            cwd=out,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        rejected = re.findall(
            r"^Warning \(supported operators\) operator: (\S+),.*\nReason: (.*)$",
            done.stdout,
            re.MULTILINE,
        )
        left = re.search(r"^CPU operators = (\d+) ", done.stdout, re.MULTILINE)
        assert left is not None, done.stdout
        assert bool(int(left.group(1))) == bool(rejected), done.stdout
        operators = sum(len(graph.operators) for graph in tflite.parse(file.read_bytes()).subgraphs)
        return Judged(operators, tuple(rejected))

    return judge
