"""Builds and bundles on an x86 without VNNI, whose u8 x s8 kernels saturate, against this host's.

One emulated process per model builds for every target, and verifies and runs the native bundles.
"""

import json
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

import edgeq

pytestmark = [pytest.mark.qemu, pytest.mark.slow, pytest.mark.checkout]

Emulated = Callable[..., Any]
Once = Callable[..., Any]
TARGETS = ("rpi5", "x86-avx2", "x86-vnni")
WORK = """
import json
import numpy
import onnxruntime
import edgeq
import edgeq_runtime

def run(bundle, samples):
    try:
        with edgeq_runtime.load(bundle) as runner:
            runner.run(samples[:1])
            return {'slug': None, 'warnings': runner.warnings, 'passed': runner.self_test().passed}
    except edgeq_runtime.EdgeqError as error:
        return {'slug': error.slug, 'message': error.message}

model, data, native, folder = sys.argv[1:5]
with numpy.load(data) as arrays:
    (name, samples), = arrays.items()
answer = {}
for target in sys.argv[5:]:
    out, given = f'{folder}/{target}.edgeq', f'{native}/{target}.edgeq'
    settings = edgeq.BuildSettings(packaging='dir')
    edgeq.build(model, target=target, precision='int8', data=data, out=out, settings=settings)
    answer[target] = {'verify': edgeq.verify(given).to_json(), 'run': run(given, samples)}
    session = onnxruntime.InferenceSession(f'{given}/model.onnx',
                                           providers=['CPUExecutionProvider'])
    rows = [session.run(None, {name: samples[i : i + 1]})[0] for i in range(8)]
    numpy.save(f'{folder}/{target}.npy', numpy.concatenate(rows))
print(json.dumps(answer))
"""
FACTS = """
import json
from edgeq_runtime import cpu
from edgeq_runtime.engines import onnxruntime
import subprocess
child = subprocess.run(
    [sys.executable, '-c', 'import edgeq_runtime.engines.onnxruntime as e; print(e.saturates())'],
    capture_output=True, text=True)
print(json.dumps({'saturates': onnxruntime.saturates(), 'features': sorted(cpu.host().features),
                  'child': child.stdout.strip()}))
"""


@dataclass(frozen=True)
class Pair:
    """Bundles (folders) of one model by target: from this host, and from the emulated processor."""

    native: Path
    emulated: Path
    told: Mapping[str, Any]
    data: Path

    @classmethod
    def load(cls, folder: Path, answers: Mapping[str, Any]) -> "Pair":
        return cls(folder / "native", folder / "emulated", answers["told"], Path(answers["data"]))


@pytest.fixture(scope="session")
def pairs(emulated: Emulated, repository: Path, once: Once) -> Mapping[str, Pair]:
    """Every model there is, built natively, then under emulation, side by side."""

    def make(folder: Path) -> Any:
        inputs = _inputs(repository, folder)
        with ThreadPoolExecutor() as pool:
            jobs = {
                name: pool.submit(_work, emulated, folder / name, *files)
                for name, files in inputs.items()
            }
            return {name: job.result() for name, job in jobs.items()}

    folder, told = once("emulated", make)
    return {name: Pair.load(folder / name, answers) for name, answers in told.items()}


def _inputs(repository: Path, folder: Path) -> dict[str, tuple[Path, Path]]:
    """Model and calibration data by name."""
    digits = repository / "examples" / "digits"
    found = {"digits": (digits / "digits.onnx", digits / "calib.npz")}
    mnist = repository.parent / "shared" / "data" / "mnist"
    if mnist.is_dir():
        with np.load(mnist / "data.npz") as arrays:
            samples = arrays["calib_x"][:64, None].astype(np.float32)
        np.savez(folder / "calib.npz", Input3=samples)
        found["mnist"] = (mnist / "mnist.onnx", folder / "calib.npz")
    return found


def _work(emulated: Emulated, folder: Path, model: Path, data: Path) -> dict[str, Any]:
    for side in ("native", "emulated"):
        (folder / side).mkdir(parents=True)
    for target in TARGETS:
        edgeq.build(
            model,
            target=target,
            precision="int8",
            data=str(data),
            out=folder / "native" / f"{target}.edgeq",
            settings=edgeq.BuildSettings(packaging="dir"),
        )
    done = emulated(WORK, model, data, folder / "native", folder / "emulated", *TARGETS)
    assert done.returncode == 0, done.stderr
    return {"data": str(data), "told": json.loads(done.stdout.splitlines()[-1])}


@pytest.fixture(params=["digits", pytest.param("mnist", marks=pytest.mark.shared)])
def pair(request: pytest.FixtureRequest, pairs: Mapping[str, Pair]) -> Pair:
    return pairs[request.param]


def _files(bundle: Path) -> dict[str, bytes]:
    paths = sorted(path for path in bundle.rglob("*") if path.is_file())
    return {path.relative_to(bundle).as_posix(): path.read_bytes() for path in paths}


def test_the_emulated_processor_saturates_and_its_children_too(emulated: Emulated) -> None:
    done = emulated(FACTS)
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    assert facts["saturates"] is True
    assert facts["child"] == "True"
    assert "avx2" in facts["features"]
    assert not [name for name in facts["features"] if "vnni" in name or "avx512" in name]


@pytest.mark.parametrize("target", TARGETS)
def test_bundles_are_the_same_bytes(pair: Pair, target: str) -> None:
    native = _files(pair.native / f"{target}.edgeq")
    emulated = _files(pair.emulated / f"{target}.edgeq")
    assert list(native) == list(emulated)
    assert [name for name in native if native[name] != emulated[name]] == []


@pytest.mark.parametrize("target", TARGETS)
def test_each_processor_verifies_the_bundles_of_the_other(pair: Pair, target: str) -> None:
    there = pair.told[target]["verify"]
    assert there["ok"], there
    here = edgeq.verify(pair.emulated / f"{target}.edgeq")
    assert here.ok, here


def test_verify_tells_that_the_processor_is_not_the_target(pair: Pair) -> None:
    warnings = {target: pair.told[target]["verify"]["warnings"] for target in TARGETS}
    assert "not the target" in " ".join(warnings["rpi5"])
    assert "avx_vnni" in " ".join(warnings["x86-vnni"])
    assert warnings["x86-avx2"] == []


def test_running_without_a_required_feature_is_refused_by_name(pair: Pair) -> None:
    refused = pair.told["x86-vnni"]["run"]
    assert refused["slug"] == "missing-cpu-feature"
    assert "`avx512_vnni|avx_vnni`" in refused["message"]


def test_a_bundle_for_this_processor_or_another_architecture_runs(pair: Pair) -> None:
    safe = pair.told["x86-avx2"]["run"]
    assert (safe["slug"], safe["warnings"], safe["passed"]) == (None, [], True)
    foreign = pair.told["rpi5"]["run"]
    assert (foreign["slug"], foreign["passed"]) == (None, True)
    assert "not the target" in " ".join(foreign["warnings"])


@pytest.mark.parametrize(("target", "equal"), [("x86-vnni", False), ("x86-avx2", True)])
def test_ordinary_kernels_show_the_saturation_unless_pair_safe(
    pair: Pair, target: str, equal: bool
) -> None:
    """The control: what the rules above are for, seen by running the plain file in the engine."""
    session = onnxruntime.InferenceSession(
        pair.native / f"{target}.edgeq" / "model.onnx", providers=["CPUExecutionProvider"]
    )
    with np.load(pair.data) as arrays:
        ((name, samples),) = arrays.items()
    rows = [session.run(None, {name: samples[i : i + 1]})[0] for i in range(8)]
    there = np.load(pair.emulated / f"{target}.npy")
    assert np.array_equal(np.concatenate(rows), there) is equal
