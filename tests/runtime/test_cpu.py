"""What a processor is and whether it will do; feature sets are handed in, both ways."""

from pathlib import Path

import pytest

from edgeq_runtime import EdgeqError, cpu
from edgeq_runtime.cpu import Cpu, Needs

X86 = """processor\t: 0
model\t\t: 85
model name\t: Intel(R) Xeon(R)
flags\t\t: fpu avx2 avx512_vnni

processor\t: 1
model name\t: Intel(R) Xeon(R)
flags\t\t: fpu avx2 avx512_vnni
"""
PI = """processor\t: 0
Features\t: fp asimd evtstrm aes asimddp
CPU part\t: 0xd0b

Hardware\t: BCM2835
Model\t\t: Raspberry Pi 5 Model B Rev 1.0
"""
VNNI = Needs("x86-vnni", "x86_64", ("avx2", "avx512_vnni|avx_vnni"), ("amx_int8",))


def x86(*features: str) -> Cpu:
    return Cpu("x86_64", frozenset(features))


def test_x86() -> None:
    found = cpu.parse_cpuinfo(X86, "x86_64")
    assert found == Cpu("x86_64", frozenset({"fpu", "avx2", "avx512_vnni"}), "Intel(R) Xeon(R)")
    assert found.describe() == "x86_64 (Intel(R) Xeon(R))"


def test_a_board_is_named_by_its_model() -> None:
    found = cpu.parse_cpuinfo(PI, "aarch64")
    assert found.model == "Raspberry Pi 5 Model B Rev 1.0"
    assert {"asimd", "asimddp"} <= found.features


def test_cores_that_differ_share_what_all_have() -> None:
    text = "Features : asimd asimddp\nFeatures : asimd\n"
    assert cpu.parse_cpuinfo(text, "aarch64").features == {"asimd"}


def test_the_hosts_file_shown_to_an_emulated_program_says_nothing() -> None:
    assert cpu.parse_cpuinfo(X86, "aarch64").features == frozenset()


@pytest.mark.parametrize("text", ["", "\0\0", "flags", ":::", "flags :"])
def test_a_file_that_makes_no_sense(text: str) -> None:
    assert cpu.parse_cpuinfo(text, "x86_64").features == frozenset()


def test_the_words_of_the_kernel_on_aarch64() -> None:
    assert cpu.decode_hwcap(1 << 1 | 1 << 20, 1 << 13) == {"asimd", "asimddp", "i8mm"}
    assert cpu.decode_hwcap(0, 0) == frozenset()


@pytest.mark.parametrize(
    ("machine", "name"), [("AMD64", "x86_64"), ("arm64", "aarch64"), ("aarch64", "aarch64")]
)
def test_architectures_have_one_name(machine: str, name: str) -> None:
    assert cpu.normal_architecture(machine) == name


def test_this_host_is_known() -> None:
    assert cpu.host().architecture in ("x86_64", "aarch64")
    assert cpu.host().features


def test_without_a_cpuinfo(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(cpu, "CPUINFO", tmp_path / "none")
    monkeypatch.setattr(cpu.platform, "machine", lambda: "riscv64")
    assert cpu.host() == Cpu("riscv64", frozenset(), "")


@pytest.mark.parametrize("features", [("avx2", "avx512_vnni"), ("avx2", "avx_vnni")])
def test_a_cpu_with_what_is_required(features: tuple[str, ...]) -> None:
    on_target, warnings = cpu.check(VNNI, x86(*features, "amx_int8"), exact=False)
    assert on_target
    assert warnings == ()


def test_a_missing_required_feature_is_refused_by_name() -> None:
    with pytest.raises(
        EdgeqError,
        match=r"^bundle for `x86-vnni` requires the cpu feature `avx512_vnni\|avx_vnni`, which "
        r"this cpu lacks \[missing-cpu-feature\]$",
    ) as caught:
        cpu.check(VNNI, x86("avx2"), exact=False)
    assert caught.value.exit_code == 2


def test_all_missing_required_features_are_named_at_once() -> None:
    with pytest.raises(EdgeqError, match=r"features `avx2`, `avx512_vnni\|avx_vnni`"):
        cpu.check(VNNI, x86("sse2"), exact=False)


def test_a_missing_required_feature_with_exact_kernels_is_only_said() -> None:
    on_target, warnings = cpu.check(VNNI, x86("avx2", "amx_int8"), exact=True)
    assert not on_target
    assert warnings == (
        "this cpu lacks `avx512_vnni|avx_vnni` and so is not the target `x86-vnni`: results are "
        "exact, speed is not the target's",
    )


def test_a_missing_fast_feature_is_named() -> None:
    on_target, warnings = cpu.check(VNNI, x86("avx2", "avx_vnni"), exact=False)
    assert on_target
    assert warnings == ("this cpu lacks `amx_int8`: the bundle runs, slower than on `x86-vnni`",)


def test_another_architecture_is_not_the_target() -> None:
    on_target, warnings = cpu.check(VNNI, Cpu("aarch64", frozenset({"asimd"})), exact=False)
    assert not on_target
    assert warnings == (
        "this cpu is aarch64, not the target `x86-vnni` (x86_64): results are exact, speed is not "
        "the target's",
    )


def test_unknown_features_are_not_called_missing() -> None:
    on_target, warnings = cpu.check(VNNI, x86(), exact=False)
    assert on_target
    assert warnings == ("the features of this cpu are unknown and were not checked",)
