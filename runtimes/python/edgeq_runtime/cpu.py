"""What processor this is, and whether it is what a bundle's target asks for.

Feature names are those of Linux's /proc/cpuinfo: avx2, avx512_vnni, avx_vnni, asimd, asimddp, i8mm.
"""

from __future__ import annotations

import ctypes
import platform
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from edgeq_runtime.errors import EdgeqError

CPUINFO = Path("/proc/cpuinfo")
_ARCHITECTURES = {"amd64": "x86_64", "x64": "x86_64", "arm64": "aarch64"}
_FEATURE_KEYS = {"x86_64": "flags", "aarch64": "features", "armv7l": "features"}
_AT_HWCAP, _AT_HWCAP2 = 16, 26
# Linux arch/arm64/include/uapi/asm/hwcap.h; only what targets may ask for.
_HWCAP = {
    0: "fp",
    1: "asimd",
    7: "crc32",
    8: "atomics",
    9: "fphp",
    10: "asimdhp",
    20: "asimddp",
    22: "sve",
}
_HWCAP2 = {1: "sve2", 13: "i8mm", 14: "bf16"}


@dataclass(frozen=True)
class Cpu:
    """A processor. No features at all means that they are unknown; `model` may be empty."""

    architecture: str
    features: frozenset[str]
    model: str = ""

    def describe(self) -> str:
        """`x86_64 (AMD EPYC)`."""
        return f"{self.architecture} ({self.model})" if self.model else self.architecture


def host() -> Cpu:
    """The processor we run on, as the operating system tells it."""
    architecture = normal_architecture(platform.machine())
    try:
        text = CPUINFO.read_text(encoding="utf-8", errors="replace")
    except OSError:
        text = ""
    cpu = parse_cpuinfo(text, architecture)
    if architecture == "aarch64" and not cpu.features:
        return Cpu(architecture, _auxiliary_features(), cpu.model)
    return cpu


def normal_architecture(machine: str) -> str:
    """Linux's name of an architecture: "AMD64" and "x86_64" are one."""
    lower = machine.lower()
    return _ARCHITECTURES.get(lower, lower)


def parse_cpuinfo(text: str, architecture: str) -> Cpu:
    """Features that all cores share. Keys of another architecture say nothing (an emulator may
    show the host's file)."""
    wanted = _FEATURE_KEYS.get(architecture, "")
    cores: list[frozenset[str]] = []
    names: dict[str, str] = {}
    for line in text.splitlines():
        key, _, value = line.partition(":")
        key = key.strip().lower()
        if key == wanted:
            cores.append(frozenset(value.split()))
        elif key in ("model", "model name", "hardware"):
            names.setdefault(key, value.strip())
    features = frozenset.intersection(*cores) if cores else frozenset()
    order = (
        ("model name", "model") if architecture == "x86_64" else ("model", "hardware", "model name")
    )
    return Cpu(architecture, features, next((names[key] for key in order if key in names), ""))


def _auxiliary_features() -> frozenset[str]:
    """What the kernel tells each program on aarch64, where /proc/cpuinfo does not."""
    try:
        getauxval = ctypes.CDLL(None).getauxval
    except (OSError, AttributeError, TypeError):
        return frozenset()
    getauxval.restype = ctypes.c_ulong
    getauxval.argtypes = [ctypes.c_ulong]
    return decode_hwcap(int(getauxval(_AT_HWCAP)), int(getauxval(_AT_HWCAP2)))


def decode_hwcap(hwcap: int, hwcap2: int) -> frozenset[str]:
    """The two words as Linux's names."""
    first = {name for bit, name in _HWCAP.items() if hwcap >> bit & 1}
    return frozenset(first | {name for bit, name in _HWCAP2.items() if hwcap2 >> bit & 1})


def missing(wanted: Iterable[str], cpu: Cpu) -> tuple[str, ...]:
    """The wanted features that `cpu` lacks; `a|b` is there when one of a and b is."""
    return tuple(row for row in wanted if not set(row.split("|")) & cpu.features)


@dataclass(frozen=True)
class Needs:
    """What a target asks of a processor: required to run there, fast to be as fast as said."""

    target: str
    architecture: str
    required: tuple[str, ...]
    fast: tuple[str, ...]


def check(needs: Needs, cpu: Cpu, *, exact: bool) -> tuple[bool, tuple[str, ...]]:
    """(whether `cpu` is what the target means, warnings).

    A missing required feature raises [missing-cpu-feature], by name; with `exact` (verify, eval:
    results are the same on any host) it only makes this host "not the target".
    """
    if cpu.architecture != needs.architecture:
        return False, (
            f"this cpu is {cpu.architecture}, not the target `{needs.target}` "
            f"({needs.architecture}): results are exact, speed is not the target's",
        )
    if not cpu.features:
        return True, ("the features of this cpu are unknown and were not checked",)
    lacking = missing(needs.required, cpu)
    if lacking and not exact:
        raise _refusal(needs, lacking)
    warnings = [
        f"this cpu lacks `{row}` and so is not the target `{needs.target}`: results are exact, "
        "speed is not the target's"
        for row in lacking
    ]
    warnings += [
        f"this cpu lacks `{row}`: the bundle runs, slower than on `{needs.target}`"
        for row in missing(needs.fast, cpu)
    ]
    return not lacking, tuple(warnings)


def _refusal(needs: Needs, lacking: tuple[str, ...]) -> EdgeqError:
    names = ", ".join(f"`{row}`" for row in lacking)
    word = "feature" if len(lacking) == 1 else "features"
    return EdgeqError(
        "missing-cpu-feature",
        f"bundle for `{needs.target}` requires the cpu {word} {names}, which this cpu lacks",
        "build for a target that this cpu meets: edgeq targets --host",
    )
