"""Int8 gives one set of integers: on this machine, and on the cores of the boards.

LiteRT's kernels are chosen by core: an A76 has the dot product of four bytes, an A72 has not.
"""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import edgeq_runtime
from edgeq.devices import emulated
from edgeq_runtime.engines import litert

pytestmark = [
    pytest.mark.device,
    pytest.mark.arm64,
    pytest.mark.checkout,
    pytest.mark.usefixtures("arm64_root"),
]

CORES = ("Cortex-A72", "Cortex-A76")
ROWS = 6
VERIFY = """
import edgeq_runtime
print(edgeq_runtime.verify("/job/model.edgeq", isolate=False).passed)
"""


def _different(file: Path, samples: list[dict[str, Any]], core: str) -> list[tuple[int, str]]:
    """(sample, output) wherever the core's bytes are not this machine's."""
    there = emulated.run(file, samples, core=core)
    assert (there.engine, there.engine_version) == (litert.ENGINE, litert.version())
    here = litert.open_session(file.read_bytes(), threads=1)
    wanted = [here.run(feeds) for feeds in samples]
    assert len({row.tobytes() for outputs in wanted for row in outputs.values()}) > 1
    return [
        (at, name)
        for at, (outputs, there_outputs) in enumerate(zip(wanted, there.outputs, strict=True))
        for name, value in outputs.items()
        if not np.array_equal(value, there_outputs[name])
    ]


def _samples(file: Path, rows: Any) -> list[dict[str, Any]]:
    """Rows as the file reads them: of its own scale where it reads int8."""
    from edgeq_runtime import tflite

    graph = tflite.parse(file.read_bytes()).subgraphs[0]
    tensor = graph.tensors[graph.inputs[0]]
    (info,) = litert.open_session(file.read_bytes(), threads=1).inputs
    if tensor.dtype == "int8":
        assert tensor.quantization is not None
        codes = np.round(rows / tensor.quantization.scale[0]) + tensor.quantization.zero_point[0]
        rows = np.clip(codes, -128, 127).astype(np.int8)
    return [{info.name: row[None]} for row in rows[:ROWS]]


@pytest.mark.shared
@pytest.mark.parametrize("core", CORES)
@pytest.mark.parametrize("name", ["kws", "resnet8", "vww"])
def test_public_int8_files(net: Callable[[str], Any], name: str, core: str) -> None:
    public = net(name)
    samples = _samples(public.int8_file, public.x)
    assert _different(public.int8_file, samples, core) == []


@pytest.mark.shared
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.xdist_group(f"ours-{name}"))
        for name in ("kws", "resnet8", "vww")
    ],
)
def test_our_int8_files_of_them(
    net: Callable[[str], Any], build_tflite: Callable[..., Path], name: str
) -> None:
    public = net(name)
    bundle = build_tflite(
        public.float_file, public.calibration[:32, None], acts="static", algo="minmax"
    )
    samples = _samples(bundle / "model.tflite", public.x)
    for core in CORES:
        assert _different(bundle / "model.tflite", samples, core) == [], core


@pytest.mark.xdist_group("ours-digits")
def test_a_bundle_verifies_and_runs_alike(
    repository: Path, build_tflite: Callable[..., Path], tmp_path: Path
) -> None:
    digits = repository / "examples" / "digits"
    with np.load(digits / "calib.npz") as arrays:
        ((name, rows),) = arrays.items()
    bundle = build_tflite(digits / "digits.onnx", rows[:, None], acts="static", algo="minmax")
    samples = [{name: row[None]} for row in rows[:ROWS]]
    with edgeq_runtime.load(bundle) as runner:
        here = [runner.run(feeds) for feeds in samples]
    shutil.copytree(bundle, tmp_path / "model.edgeq")
    for core in CORES:
        there = emulated.run(bundle, samples, core=core)
        for wanted, got in zip(here, there.outputs, strict=True):
            assert all(np.array_equal(wanted[output], got[output]) for output in wanted), core
        done = emulated.execute([emulated.PYTHON, "-c", VERIFY], core=core, job=tmp_path)
        assert done.stdout == "True\n", done.stderr
