"""The core of a board by QEMU's user mode: run programs, and artifacts on samples, as it would.

    reason = emulated.available("Cortex-A76")        # "" or what is missing, in one line
    ran = emulated.run(artifact, samples, core="Cortex-A76")
    ran.outputs                                      # one {output name: array} per sample, in order

`core` is a target's `cpu.core`. The programs there are those of a root file system (a folder made
once by `make_rootfs.sh` beside this file; EDGEQ_ARM64_ROOT names it): edgeq downloads nothing.
What comes out is what the core computes; how long it takes says nothing about a board.

Everything lives in private user, mount and pid namespaces with a binfmt_misc of their own (Linux
6.7): nothing is registered or mounted on the machine, and all of it ends with the command. Engines
choose kernels by what the emulated core can (HWCAP) and by /proc/cpuinfo and /sys, where they would
see the host's, which makes ONNX Runtime 1.31.1 crash at import: a *persona* of the core is mounted
over both. Emulator and persona must name one core, else the engine dies of an illegal instruction.
"""

from __future__ import annotations

import functools
import json
import os
import platform
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import edgeq_runtime
from edgeq.errors import EdgeqError

if TYPE_CHECKING:
    import numpy as np

    Feeds = Mapping[str, np.ndarray[Any, Any]]

ROOT_VARIABLE = "EDGEQ_ARM64_ROOT"
MAKE_ROOT = Path(__file__).with_name("make_rootfs.sh")
PYTHON = "/usr/bin/python3"
"""The one of the root file system."""
PROGRAMS = ("unshare", "mount", "chroot", "sh")
TIMEOUT_S = 600.0
_TRIAL_S = 60.0
_ARM = 0x41  # implementer, in /proc/cpuinfo and in the core's own register
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True)
class Core:
    """A core as QEMU (`-cpu`) and as Linux's /proc/cpuinfo name it."""

    qemu: str
    part: int
    variant: int
    revision: int
    features: str

    @property
    def midr(self) -> int:
        """The main identification register, which Linux shows under /sys."""
        return _ARM << 24 | self.variant << 20 | 0xF << 16 | self.part << 4 | self.revision


_ARMV8 = "fp asimd evtstrm crc32 cpuid"
CORES: dict[str, Core] = {
    "Cortex-A53": Core("cortex-a53", 0xD03, 0, 4, _ARMV8),
    "Cortex-A72": Core("cortex-a72", 0xD08, 0, 3, _ARMV8),
    "Cortex-A76": Core(
        "cortex-a76",
        0xD0B,
        4,
        1,
        "fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc "
        "dcpop asimddp",
    ),
}

# $1 root, $2 persona, $3 job folder, $4 the runtime's package, $5 emulator; then the command. It is
# no pid 1 of its namespace, which ignores fatal signals: an illegal instruction would be a hang.
_ENTER = r"""
set -e
root=$1 persona=$2 job=$3 runtime=$4 emulator=$5
shift 5
mount -t binfmt_misc none /proc/sys/fs/binfmt_misc
none='\x00\x00\x00\x00\x00\x00\x00\x00' all='\xff\xff\xff\xff'
magic="\\x7fELF\\x02\\x01\\x01\\x00$none\\x02\\x00\\xb7\\x00"
mask="$all\\xff\\xff\\xff\\x00$all$all\\xfe\\xff\\xff\\xff"
printf '%s' ":edgeq:M::$magic:$mask:$emulator:F" >/proc/sys/fs/binfmt_misc/register
mount -t proc proc "$root/proc"
mount --bind "$persona/cpuinfo" "$root/proc/cpuinfo"
mount --rbind "$persona/sys" "$root/sys"
mount --rbind /dev "$root/dev"
mount --bind "$runtime" "$root/opt/edgeq/edgeq_runtime"
mount --bind "$job" "$root/job"
chroot "$root" "$@"
exit $?
"""
_UNSHARE = (
    *("unshare", "--user", "--map-root-user", "--mount", "--pid", "--fork", "--kill-child"),
    *("--propagation", "private", "sh", "-c", _ENTER, "sh"),
)


@dataclass(frozen=True)
class Ran:
    """Outputs by name, one for each sample, and the engine that computed them there."""

    outputs: tuple[dict[str, np.ndarray[Any, Any]], ...]
    core: str
    engine: str
    engine_version: str


def available(core: str, root: Path | None = None) -> str:
    """What keeps this machine from emulating `core`, in one line; empty when nothing does."""
    folder = _root(root)
    if core not in CORES:
        return f"no emulation of the core `{core}`; there is one of {', '.join(sorted(CORES))}"
    if platform.system() != "Linux" or platform.machine() == "aarch64":
        return f"{platform.system()} on {platform.machine()} cannot emulate another core"
    if folder is None:
        return f"no root file system of an ARM board: {ROOT_VARIABLE} names none"
    if not (folder / "opt" / "site").is_dir():
        return f"`{folder}` is no root file system that make_rootfs.sh made"
    missing = [name for name in PROGRAMS if shutil.which(name, path=_PATH) is None]
    missing += [] if _emulator() else ["qemu-aarch64-static"]
    if missing:
        return f"missing programs: {', '.join(missing)}"
    return _trial(core, folder)


def run(
    artifact: bytes | Path,
    samples: Sequence[Feeds],
    *,
    core: str,
    root: Path | None = None,
    threads: int = 1,
    options: Mapping[str, Any] | None = None,
    timeout_s: float = TIMEOUT_S,
) -> Ran:
    """Run `artifact` (a bundle, or an .onnx or .tflite file, or its bytes) on all samples at once.

    `options` go to the engine's `open_session` (plain files only). Raises [no-emulator] when
    `available` names a reason, [emulation-failed] when the program dies there or takes too long,
    and whatever the runtime itself raises there.
    """
    reason = available(core, root)
    if reason:
        raise _no_emulator(reason)
    job = {"count": len(samples), "threads": threads, "options": dict(options or {})}
    with tempfile.TemporaryDirectory(prefix="edgeq-") as name:
        folder = Path(name)
        _pack(folder, artifact, samples, job)
        done = execute(
            [PYTHON, "/job/guest.py", "/job"],
            core=core,
            root=root,
            job=folder,
            timeout_s=timeout_s,
        )
        if done.returncode != 0:
            raise _died(core, done)
        return _answer(folder, core, len(samples))


def execute(
    command: Sequence[str],
    *,
    core: str,
    root: Path | None = None,
    job: Path,
    timeout_s: float = TIMEOUT_S,
) -> subprocess.CompletedProcess[str]:
    """Run a program of the root file system as `core`, with the folder `job` as its /job.

    Its status is the program's own (132: an illegal instruction). Python finds the wheels there
    and this `edgeq_runtime`. Raises [emulation-failed] when it takes too long.
    """
    folder, emulator = _root(root), _emulator()
    if folder is None or emulator is None or core not in CORES:
        raise _no_emulator(available(core, root))
    environment = {
        "QEMU_CPU": CORES[core].qemu,
        "PYTHONPATH": "/opt/edgeq:/opt/site",
        "PYTHONDONTWRITEBYTECODE": "1",
        "EDGEQ_EMULATED": "user",
        "HOME": "/root",
        "LANG": "C.UTF-8",
        "PATH": _PATH,
    }
    with tempfile.TemporaryDirectory(prefix="edgeq-") as persona:
        write_persona(CORES[core], Path(persona))
        runtime = Path(edgeq_runtime.__file__).resolve().parent
        places = (folder, persona, job.resolve(), runtime, emulator)
        try:
            return subprocess.run(
                [*_UNSHARE, *map(str, places), *command],
                check=False,
                capture_output=True,
                text=True,
                errors="replace",
                env=environment,
                cwd="/",
                timeout=timeout_s,
            )
        except subprocess.TimeoutExpired:
            raise _failed(f"nothing came of the emulated {core} within {timeout_s:g} s") from None


def write_persona(core: Core, folder: Path) -> None:
    """`cpuinfo` and `sys` of a machine with that core, as many as this process may use.

    More of them than there are would make the engines' threads fail to be pinned.
    """
    count = len(os.sched_getaffinity(0))
    listed = "0" if count == 1 else f"0-{count - 1}"
    rows = []
    cpus = folder / "sys" / "devices" / "system" / "cpu"
    for index in range(count):
        rows.append(
            f"processor\t: {index}\nBogoMIPS\t: 108.00\nFeatures\t: {core.features}\n"
            f"CPU implementer\t: {_ARM:#x}\nCPU architecture: 8\nCPU variant\t: {core.variant:#x}\n"
            f"CPU part\t: {core.part:#x}\nCPU revision\t: {core.revision}\n\n"
        )
        topology, registers = cpus / f"cpu{index}" / "topology", cpus / f"cpu{index}" / "regs"
        for name in ("core_siblings_list", "package_cpus_list", "cluster_cpus_list"):
            _write(topology / name, listed)
        for name, text in (("physical_package_id", "0"), ("cluster_id", "0")):
            _write(topology / name, text)
        _write(topology / "core_id", str(index))
        _write(topology / "thread_siblings_list", str(index))
        _write(registers / "identification" / "midr_el1", f"{core.midr:#018x}")
    for name in ("possible", "present", "online"):
        _write(cpus / name, listed)
    (folder / "cpuinfo").write_text("".join(rows), encoding="utf-8")


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{text}\n", encoding="utf-8")


def _root(root: Path | None) -> Path | None:
    named = str(root) if root is not None else os.environ.get(ROOT_VARIABLE, "")
    return Path(named).resolve() if named else None


def _emulator() -> str | None:
    return shutil.which("qemu-aarch64-static", path=_PATH)


@functools.cache
def _trial(core: str, root: Path) -> str:
    """Start Python there once: what is missing of the kernel shows in no other way."""
    with tempfile.TemporaryDirectory(prefix="edgeq-") as job:
        command = [PYTHON, "-c", "import numpy, edgeq_runtime"]
        try:
            done = execute(command, core=core, root=root, job=Path(job), timeout_s=_TRIAL_S)
        except EdgeqError as error:
            return error.message
    return "" if done.returncode == 0 else _last_words(done)


def _pack(
    folder: Path, artifact: bytes | Path, samples: Sequence[Feeds], job: dict[str, Any]
) -> None:
    import numpy as np

    if isinstance(artifact, bytes):
        (folder / "artifact").write_bytes(artifact)
    elif artifact.is_dir():
        shutil.copytree(artifact, folder / "artifact")
    else:
        shutil.copyfile(artifact, folder / "artifact")
    is_bundle = (folder / "artifact").is_dir() or _is_zip(folder / "artifact")
    told = job | {"artifact": "artifact", "bundle": is_bundle}
    (folder / "job.json").write_text(json.dumps(told), encoding="utf-8")
    arrays = {
        f"{at}/{name}": array for at, row in enumerate(samples) for name, array in row.items()
    }
    np.savez(folder / "samples.npz", allow_pickle=False, **arrays)
    shutil.copyfile(Path(__file__).with_name("guest.py"), folder / "guest.py")


def _is_zip(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(4) == b"PK\x03\x04"


def _answer(folder: Path, core: str, count: int) -> Ran:
    import numpy as np

    answer = json.loads((folder / "answer.json").read_text(encoding="utf-8"))
    if "slug" in answer:
        raise EdgeqError(answer["slug"], f"on the {core}: {answer['message']}", *answer["hints"])
    outputs: tuple[dict[str, Any], ...] = tuple({} for _ in range(count))
    with np.load(folder / "outputs.npz") as arrays:
        for key in arrays.files:
            index, _, name = key.partition("/")
            outputs[int(index)][name] = arrays[key]
    return Ran(outputs, core, answer["engine"], answer["version"])


def _no_emulator(reason: str) -> EdgeqError:
    return EdgeqError(
        "no-emulator",
        reason,
        "sudo apt-get install qemu-user-static mmdebstrap",
        f"sudo sh {MAKE_ROOT} arm64 ai-edge-litert onnxruntime",
        f"export {ROOT_VARIABLE}=$PWD/arm64",
    )


def _died(core: str, done: subprocess.CompletedProcess[str]) -> EdgeqError:
    status = f"ended with status {done.returncode}"
    if done.returncode > 128:
        status = f"was killed by {signal.Signals(done.returncode - 128).name}"
    return _failed(f"the program on the emulated {core} {status}: {_last_words(done)}")


def _failed(message: str) -> EdgeqError:
    return EdgeqError("emulation-failed", message, exit_code=3)


def _last_words(done: subprocess.CompletedProcess[str]) -> str:
    lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
    return lines[-1][:300] if lines else "it said nothing"
