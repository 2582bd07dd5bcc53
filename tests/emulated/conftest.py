"""An x86 processor without VNNI: QEMU's user mode, and a /proc/cpuinfo that agrees with it."""

import fcntl
import json
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

# What QEMU cannot emulate of a Haswell is left out, so that it has nothing to warn of.
MODEL = "Haswell-noTSX,-tsc-deadline,-invpcid,-pcid,-x2apic"
FLAGS = (
    "fpu de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat pse36 clflush mmx fxsr sse sse2 "
    "syscall nx rdtscp lm pni pclmulqdq ssse3 fma cx16 sse4_1 sse4_2 movbe popcnt aes xsave avx "
    "f16c rdrand lahf_lm abm fsgsbase bmi1 avx2 smep bmi2 erms"
)
# Private mount namespace, fake cpuinfo, then the program: all of it ends with the command.
UNSHARE = (
    *("unshare", "--user", "--map-root-user", "--mount", "sh", "-c"),
    'mount --bind "$1" /proc/cpuinfo && shift && exec "$@"',
    "sh",
)
# QEMU's user mode starts a child natively; a wrapper as `sys.executable` emulates it as well.
BOOTSTRAP = "import sys; sys.executable = sys.argv.pop(1); {code}"

Emulated = Callable[..., subprocess.CompletedProcess[str]]
Once = Callable[[str, Callable[[Path], Any]], tuple[Path, Any]]


def _cpuinfo() -> str:
    host = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    text = re.sub(r"(?m)^flags\t*: .*$", f"flags\t\t: {FLAGS}", host)
    return re.sub(r"(?m)^model name\t*: .*$", "model name\t: emulated Haswell", text)


@pytest.fixture(scope="session")
def once(tmp_path_factory: pytest.TempPathFactory) -> Once:
    """`once(name, make)` is (folder, make(folder)), made by one of the run's processes for all."""

    def run(name: str, make: Callable[[Path], Any]) -> tuple[Path, Any]:
        root = tmp_path_factory.getbasetemp()
        if "PYTEST_XDIST_WORKER" in os.environ:
            root = root.parent
        folder, answer = root / name, root / f"{name}.json"
        with (root / f"{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not answer.exists():
                shutil.rmtree(folder, ignore_errors=True)
                folder.mkdir()
                answer.write_text(json.dumps(make(folder)), encoding="utf-8")
        return folder, json.loads(answer.read_text(encoding="utf-8"))

    return run


@pytest.fixture(scope="session")
def emulated(tmp_path_factory: pytest.TempPathFactory) -> Emulated:
    """`emulated(code, *arguments)` runs Python code as an x86 without AVX-512 and VNNI."""
    if platform.machine() != "x86_64":
        pytest.skip("this Python is no x86-64 program")
    folder = tmp_path_factory.mktemp("cpu")
    fake, wrapper = folder / "cpuinfo", folder / "python"
    fake.write_text(_cpuinfo(), encoding="utf-8")
    program = shutil.which("qemu-x86_64-static") or shutil.which("qemu-x86_64") or ""
    qemu = (program, "-cpu", MODEL, sys.executable)
    wrapper.write_text(f'#!/bin/sh\nexec {" ".join(qemu)} "$@"\n', encoding="utf-8")
    wrapper.chmod(0o755)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(row for row in sys.path if row)}

    def run(code: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        python = (*qemu, "-c", BOOTSTRAP.format(code=code), str(wrapper))
        return subprocess.run(
            [*UNSHARE, str(fake), *python, *map(str, arguments)],
            check=False,
            capture_output=True,
            text=True,
            env=environment,
            timeout=300,
        )

    trial = run("print(open('/proc/cpuinfo').read().count('vnni'))")
    if trial.stdout != "0\n":
        reason = f"no private mount namespace with an emulated cpu here: {trial.stderr.strip()}"
        if "qemu" in os.environ.get("EDGEQ_REQUIRE", "").split():
            pytest.fail(f"EDGEQ_REQUIRE has `qemu`, and there is {reason}", pytrace=False)
        pytest.skip(reason)
    return run
