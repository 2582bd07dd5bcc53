"""Programs and artifacts on an emulated core: what is said when it cannot be, and when it dies."""

import signal
from pathlib import Path

import numpy as np
import pytest

from edgeq.devices import emulated
from edgeq.errors import EdgeqError

CORES = ("Cortex-A72", "Cortex-A76")


@pytest.fixture
def no_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(emulated.ROOT_VARIABLE, raising=False)


@pytest.mark.usefixtures("no_root")
def test_nothing_runs_where_no_root_file_system_is_named() -> None:
    assert "EDGEQ_ARM64_ROOT names none" in emulated.available("Cortex-A76")
    with pytest.raises(EdgeqError, match="EDGEQ_ARM64_ROOT names none") as caught:
        emulated.run(b"", [], core="Cortex-A76")
    assert caught.value.slug == "no-emulator"
    assert any(str(emulated.MAKE_ROOT) in hint for hint in caught.value.hints)
    assert emulated.MAKE_ROOT.is_file()


def test_a_folder_that_is_none_and_a_core_that_is_unknown_are_named(tmp_path: Path) -> None:
    assert "no root file system" in emulated.available("Cortex-A76", tmp_path)
    assert "`Cortex-M4`; there is one of Cortex-A53, " in emulated.available("Cortex-M4", tmp_path)


@pytest.mark.parametrize(
    ("core", "register"), [("Cortex-A72", 0x410FD083), ("Cortex-A76", 0x414FD0B1)]
)
def test_a_persona_names_the_core_everywhere_alike(
    tmp_path: Path, core: str, register: int
) -> None:
    emulated.write_persona(emulated.CORES[core], tmp_path)
    cpus = tmp_path / "sys" / "devices" / "system" / "cpu"
    shown = (cpus / "cpu0" / "regs" / "identification" / "midr_el1").read_text()
    assert int(shown, 16) == register
    text = (tmp_path / "cpuinfo").read_text()
    assert f"CPU part\t: {register >> 4 & 0xFFF:#x}" in text
    assert ("asimddp" in text) == (core == "Cortex-A76")
    assert text.count("processor") == len(list(cpus.glob("cpu[0-9]*")))


@pytest.mark.device
@pytest.mark.arm64
@pytest.mark.usefixtures("arm64_root")
@pytest.mark.parametrize("core", CORES)
def test_a_program_and_its_children_see_the_core(core: str, tmp_path: Path) -> None:
    code = (
        "import subprocess, sys\n"
        "from edgeq_runtime import cpu\n"
        "if sys.argv[1:] != ['child']:\n"
        "    subprocess.run([sys.executable, '/job/see.py', 'child'], check=True)\n"
        "print(cpu.host().architecture, 'asimddp' in cpu.host().features)\n"
    )
    (tmp_path / "see.py").write_text(code)
    done = emulated.execute([emulated.PYTHON, "/job/see.py"], core=core, job=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"aarch64 {core == 'Cortex-A76'}\n" * 2


@pytest.mark.device
@pytest.mark.arm64
@pytest.mark.usefixtures("arm64_root")
def test_a_program_that_dies_and_one_that_hangs_are_told(tmp_path: Path) -> None:
    die = [emulated.PYTHON, "-c", "import os, signal; os.kill(os.getpid(), signal.SIGILL)"]
    assert emulated.execute(die, core="Cortex-A72", job=tmp_path).returncode == 128 + signal.SIGILL
    with pytest.raises(EdgeqError, match="within 2 s") as caught:
        emulated.execute(
            [emulated.PYTHON, "-c", "import time; time.sleep(60)"],
            core="Cortex-A72",
            job=tmp_path,
            timeout_s=2,
        )
    assert (caught.value.slug, caught.value.exit_code) == ("emulation-failed", 3)


@pytest.mark.device
@pytest.mark.arm64
@pytest.mark.usefixtures("arm64_root")
def test_what_the_runtime_refuses_there_is_its_own_error() -> None:
    with pytest.raises(EdgeqError, match="on the Cortex-A72: ") as caught:
        emulated.run(b"not a model", [{}], core="Cortex-A72")
    assert caught.value.slug == "engine-refused"


@pytest.mark.device
@pytest.mark.arm64
@pytest.mark.checkout
@pytest.mark.usefixtures("arm64_root")
def test_onnx_runs_there_as_here(repository: Path) -> None:
    from edgeq_runtime.engines.onnxruntime import open_session

    digits = repository / "examples" / "digits"
    with np.load(digits / "calib.npz") as arrays:
        ((name, rows),) = arrays.items()
    samples = [{name: row[None]} for row in rows[:3]]
    model = digits / "digits.onnx"
    there = emulated.run(model, samples, core="Cortex-A76")
    assert there.engine == "onnxruntime"
    here = open_session(model.read_bytes())
    for feeds, outputs in zip(samples, there.outputs, strict=True):
        for output, wanted in here.run(feeds).items():
            # three layers of float32 sums in another order
            np.testing.assert_allclose(outputs[output], wanted, rtol=1e-4, atol=1e-4)
