"""Default and exact kernels give the same bits on a processor without VNNI, for files of x86-avx2.

That nothing saturates is counted from the weights in tests/e2e/test_saturation.py; here the plain
engine on an emulated Haswell is the witness. A hundred inputs a model: MobileNetV2's are 64x64, the
sentences are short. Only yolox_nano takes fewer: an image is seconds there, and its convolutions
see 10,000 windows of each.
"""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import edgeq

pytestmark = [pytest.mark.qemu, pytest.mark.slow, pytest.mark.checkout]

Emulated = Callable[..., Any]
Feeds = dict[str, np.ndarray[Any, Any]]
RUN = """
import json
import numpy
import onnxruntime

file, data = sys.argv[1:3]
feeds = {}
with numpy.load(data) as arrays:
    for key in arrays.files:
        index, _, name = key.partition('/')
        feeds.setdefault(int(index), {})[name] = arrays[key]
sessions = []
for exact in ('0', '1'):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.add_session_config_entry('session.x64quantprecision', exact)
    sessions.append(onnxruntime.InferenceSession(file, options,
                                                 providers=['CPUExecutionProvider']))
same = 0
for sample in feeds.values():
    default, exact = (session.run(None, sample) for session in sessions)
    same += all(numpy.array_equal(a, b) for a, b in zip(default, exact))
print(json.dumps([same, len(feeds)]))
"""


def _net(repository: Path, folder: Path, name: str, count: int) -> tuple[Path, list[Feeds]]:
    """A net of bench/nets.py, with random samples; images of 224x224 become 64x64."""
    model, data = folder / f"{name}.onnx", folder / "samples.npz"
    script = str(repository / "bench" / "nets.py")
    command = [sys.executable, script, name, str(model), "--samples", str(count), str(data)]
    subprocess.run(command, check=True)
    with np.load(data) as arrays:
        ((key, rows),) = arrays.items()
    if rows.shape[-1] == 224:
        rows = np.ascontiguousarray(rows[:, :, :64, :64])
        loaded = onnx.load(model)
        for dimension in loaded.graph.input[0].type.tensor_type.shape.dim[2:]:
            dimension.dim_value = 64
        onnx.save(loaded, model)
    return model, [{key: row[None]} for row in rows]


def _build(model: Path, samples: list[Feeds], folder: Path, target: str) -> Path:
    out = folder / f"{target}.edgeq"
    built = edgeq.build(
        model,
        target=target,
        precision="int8",
        data=lambda: iter(samples),
        out=out,
        settings=edgeq.BuildSettings(packaging="dir"),
    )
    (artifact,) = built.artifacts
    return out / artifact.file


def _equal(emulated: Emulated, file: Path, inputs: list[Feeds], folder: Path) -> tuple[int, int]:
    """(inputs with equal bits, inputs) of the two kernels on the emulated processor."""
    arrays = {
        f"{i}/{name}": array for i, feeds in enumerate(inputs) for name, array in feeds.items()
    }
    np.savez(folder / "inputs.npz", allow_pickle=False, **arrays)
    done = emulated(RUN, file, folder / "inputs.npz")
    assert done.returncode == 0, done.stderr
    same, count = json.loads(done.stdout.splitlines()[-1])
    return same, count


@pytest.mark.parametrize("name", ["small_se", "encoder", "mobilenet_v2"])
def test_a_hundred_inputs(emulated: Emulated, repository: Path, tmp_path: Path, name: str) -> None:
    model, samples = _net(repository, tmp_path, name, 100)
    file = _build(model, samples[:16], tmp_path, "x86-avx2")
    assert _equal(emulated, file, samples, tmp_path) == (100, 100)


def test_the_control_differs(emulated: Emulated, repository: Path, tmp_path: Path) -> None:
    """Full-range weights do saturate there: the comparison can fail."""
    model, samples = _net(repository, tmp_path, "small_se", 20)
    file = _build(model, samples[:16], tmp_path, "x86-vnni")
    same, count = _equal(emulated, file, samples, tmp_path)
    assert same < count


@pytest.mark.shared
def test_minilm(emulated: Emulated, shared: Path, tmp_path: Path) -> None:
    folder = shared / "data" / "text_minilm"
    with np.load(folder / "data.npz") as data:
        rows = [row[row != 0][None].astype(np.int64) for row in data["ids_a"]]
    shortest = sorted(rows, key=lambda row: row.shape[1])[:100]
    inputs = [{"input_ids": row, "attention_mask": np.ones_like(row)} for row in shortest]
    file = _build(folder / "minilm.onnx", inputs[:16], tmp_path, "x86-avx2")
    assert _equal(emulated, file, inputs, tmp_path) == (100, 100)


@pytest.mark.shared
def test_yolox(emulated: Emulated, shared: Path, tmp_path: Path) -> None:
    folder = shared / "data" / "det_yolox_nano"
    with np.load(folder / "data.npz") as data:
        images = data["calib_x"][..., ::-1].transpose(0, 3, 1, 2).astype(np.float32)
    inputs = [{"images": image[None]} for image in images]
    file = _build(folder / "yolox_nano.onnx", inputs, tmp_path, "x86-avx2")
    assert _equal(emulated, file, inputs[:2], tmp_path) == (2, 2)
