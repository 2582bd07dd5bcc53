"""Targets: the files in the house, and a test for each rule that a file can break."""

import re
import tomllib
from collections.abc import Iterator
from dataclasses import FrozenInstanceError
from pathlib import Path
from typing import Any

import pytest

from edgeq import targets
from edgeq.errors import EdgeqError
from edgeq.targets import EngineSupport, Figure, KnownBad
from edgeq_runtime.cpu import Cpu

FOLDER = Path(__file__).resolve().parents[2] / "targets"
NAMES = ("rpi-zero2w", "rpi4", "rpi5", "x86-avx2", "x86-vnni")
NUMBERS_WITHOUT_SOURCE = {"minimum", "maximum", "version"}  # their table has the source


def tables(value: object, path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every table of a document with its dotted path."""
    if isinstance(value, dict):
        yield path, value
        for key, item in value.items():
            yield from tables(item, f"{path}.{key}")
    if isinstance(value, list):
        for index, item in enumerate(value):
            yield from tables(item, f"{path}[{index}]")


def is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def test_the_shipped_targets_are_there_and_every_file_is_listed() -> None:
    assert set(NAMES) <= set(targets.names())
    assert tuple(sorted(path.stem for path in FOLDER.glob("*.toml"))) == targets.names()


@pytest.mark.parametrize("name", targets.names())
def test_every_number_has_a_source_in_its_own_table(name: str) -> None:
    document = tomllib.loads((FOLDER / f"{name}.toml").read_text())
    for path, table in tables(document):
        numbers = [key for key, value in table.items() if is_number(value)]
        versions = sorted(NUMBERS_WITHOUT_SOURCE & set(table))
        if numbers or versions:
            assert "source" in table, f"{name}{path}: {numbers + versions} without source"


@pytest.mark.parametrize("name", targets.names())
def test_sources_are_addresses_or_sections_of_the_notes(name: str) -> None:
    target = targets.load(name)
    rows = [row for engine in target.engines for row in (*engine.policy, *engine.known_bad)]
    sources = [target.features_source, *(row.source for row in rows)]
    sources += [engine.source for engine in target.engines]
    figures = (target.cores, target.clock_hz, target.memory_bytes, target.bandwidth_bytes_per_s)
    sources += [figure.source for figure in figures if figure.source is not None]
    for source in sources:
        assert re.match(r"https://[a-z0-9.-]+/|notes: [a-z-]+[ ,]|bench: [a-z_]+\.py$", source), (
            source
        )


@pytest.mark.checkout
@pytest.mark.parametrize("name", targets.names())
def test_the_benches_that_are_quoted_exist(name: str) -> None:
    text = (FOLDER / f"{name}.toml").read_text()
    for file in re.findall(r'"bench: ([^"]+)"', text):
        assert (FOLDER.parent / "bench" / file).is_file(), file


@pytest.mark.parametrize("name", targets.names())
def test_no_row_is_said_twice(name: str) -> None:
    for engine in targets.load(name).engines:
        rows = [(row.operation, row.encoding) for row in engine.policy]
        assert len(rows) == len(set(rows))


@pytest.mark.shared
@pytest.mark.parametrize("name", targets.names())
def test_the_notes_that_are_quoted_exist(name: str, shared: Path) -> None:
    text = (FOLDER / f"{name}.toml").read_text()
    for document, section in re.findall(r'"notes: ([a-z-]+)[ ,]+([^"]+)"', text):
        note = (shared / "notes" / f"{document}.md").read_text()
        number = re.match(r"([0-9](?:\.[0-9])?), ", section)
        wanted = rf"^#+ {re.escape(number[1])}[. ]" if number else rf"^## {re.escape(section)}"
        assert re.search(wanted, note, re.MULTILINE), f"{name}: no section {section} in {document}"


@pytest.mark.parametrize("name", targets.names())
def test_a_target_is_whole_and_serialises(name: str) -> None:
    target = targets.load(name)
    assert target.name == name
    document = target.to_json()
    assert document["engines"][0]["name"] == "onnxruntime"
    assert document["cores"]["unit"] == "cores"
    assert document["required_features"] == list(target.required_features)
    with pytest.raises(FrozenInstanceError):
        target.name = "other"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("name", "dtype", "pair_safe", "required"),
    [
        ("rpi5", "int8", False, ("asimd",)),
        ("rpi4", "int8", False, ("asimd",)),
        ("rpi-zero2w", "int8", False, ("asimd",)),
        ("x86-avx2", "uint8", True, ("avx2", "fma")),
        ("x86-vnni", "uint8", False, ("avx2", "avx512_vnni|avx_vnni")),
    ],
)
def test_what_the_quantizer_and_the_writer_ask(
    name: str, dtype: str, pair_safe: bool, required: tuple[str, ...]
) -> None:
    target = targets.load(name)
    engine = target.engine("onnxruntime")
    assert (engine.activation_dtype, engine.pair_safe) == (dtype, pair_safe)
    assert target.required_features == required


@pytest.mark.parametrize("name", NAMES)
def test_every_target_has_litert_second_with_kernels_that_never_saturate(name: str) -> None:
    target = targets.load(name)
    assert [engine.name for engine in target.engines] == ["onnxruntime", "litert"]
    litert = target.engine("litert")
    assert (litert.activation_dtype, litert.pair_safe) == ("int8", False)
    assert litert.refusal("2.0.2") == "litert 2.0.2 is older than 2.1.0"


@pytest.mark.parametrize("name", NAMES)
def test_float16_is_computed_where_the_cores_can_and_the_engine_does(name: str) -> None:
    target = targets.load(name)
    assert target.fp16_computes("litert") == ("float16" if name == "rpi5" else "float32")
    assert target.fp16_computes("onnxruntime") == "float32"


def test_unknown_is_a_word_and_not_a_number() -> None:
    bandwidth = targets.load("rpi4").bandwidth_bytes_per_s
    assert (bandwidth.value, bandwidth.source, str(bandwidth)) == (None, None, "unknown")
    assert str(targets.load("x86-avx2").cores) == "unknown"


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (4, "cores", "4 cores"),
        (2.4e9, "Hz", "2.4 GHz"),
        (17.07e9, "B/s", "17.07 GB/s"),
        (536_870_912, "B", "536.9 MB"),
    ],
)
def test_figures_are_printed_with_decimal_units(value: float, unit: str, text: str) -> None:
    assert str(Figure(value, unit, "notes: a b")) == text


@pytest.mark.parametrize("version", ["1.21.0", "1.21", "1.21.0+cpu"])
def test_the_version_that_kills_a_pi4_is_refused(version: str) -> None:
    engine = targets.load("rpi4").engine("onnxruntime")
    assert "dies with SIGILL" in (engine.refusal(version) or "")


@pytest.mark.parametrize("version", ["1.18.0", "1.20.1", "1.21.1", "1.22.0", "1.31.1", "1.32.0rc1"])
def test_other_versions_are_not(version: str) -> None:
    assert targets.load("rpi4").engine("onnxruntime").refusal(version) is None
    assert targets.load("rpi5").engine("onnxruntime").refusal("1.21.0") is None


def test_versions_outside_the_range_are_named() -> None:
    bad = KnownBad("1.5.0", "eats files", "https://example.org/1")
    engine = EngineSupport("e", "1.2.0", "2.0.0", (bad,), "int8", False, (), "https://example.org/")
    assert engine.refusal("1.1.9") == "e 1.1.9 is older than 1.2.0"
    assert engine.refusal("2.0.0") == "e 2.0.0 is not older than 2.0.0"
    assert engine.refusal("1.5.0") == "e 1.5.0 eats files"
    assert engine.refusal("1.10.0") is None


@pytest.mark.parametrize(
    ("name", "hint"), [("rpi6", "rpi4"), ("x86-vni", "x86-vnni"), ("RPI5", "rpi5")]
)
def test_an_unknown_target_has_its_nearest(name: str, hint: str) -> None:
    with pytest.raises(
        EdgeqError, match=rf"^there is no target `{name}` \[unknown-target\]$"
    ) as caught:
        targets.load(name)
    assert re.fullmatch(r"did you mean `(rpi4|rpi5|x86-vnni)`\?", caught.value.hints[0])


@pytest.mark.parametrize("name", ["../rpi5", "/etc/passwd", "rpi5.toml", ""])
def test_a_name_is_no_path(name: str) -> None:
    with pytest.raises(EdgeqError, match=r"\[unknown-target\]"):
        targets.load(name)


@pytest.mark.parametrize(
    ("architecture", "features", "model", "name"),
    [
        ("x86_64", {"avx2", "fma", "avx512_vnni"}, "AMD EPYC", "x86-vnni"),
        ("x86_64", {"avx2", "fma", "avx_vnni"}, "Intel N100", "x86-vnni"),
        ("x86_64", {"avx2", "fma"}, "Celeron", "x86-avx2"),
        ("aarch64", {"asimd", "asimddp"}, "Raspberry Pi 5 Model B Rev 1.0", "rpi5"),
        ("aarch64", {"asimd"}, "Raspberry Pi 4 Model B Rev 1.4", "rpi4"),
        ("aarch64", {"asimd"}, "Raspberry Pi Zero 2 W Rev 1.0", "rpi-zero2w"),
    ],
)
def test_a_host_has_its_target(
    architecture: str, features: set[str], model: str, name: str
) -> None:
    assert targets.for_host(Cpu(architecture, frozenset(features), model)) == name


@pytest.mark.parametrize(
    ("architecture", "features"),
    [("riscv64", set()), ("x86_64", {"sse2"}), ("aarch64", {"asimd"}), ("x86_64", set())],
)
def test_a_host_without_target_is_told(architecture: str, features: set[str]) -> None:
    cpu = Cpu(architecture, frozenset(features), "some machine")
    with pytest.raises(EdgeqError, match=r"no target describes this machine .*\[no-host-target\]"):
        targets.for_host(cpu)


# -- the rules of a file -------------------------------------------------------------------------

GOOD = (FOLDER / "rpi4.toml").read_text()


def test_the_good_file_parses() -> None:
    assert targets.parse(GOOD, "rpi4.toml") == targets.load("rpi4")


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ('title = "Raspberry Pi 4"', "", "`title` is missing"),
        ('title = "Raspberry Pi 4"', "title = 4", "`title` must be a string"),
        ('title = "Raspberry Pi 4"', 'title = " "', "`title` is empty"),
        ('title = "', 'titel = "x"\ntitle = "', "`titel` is not a field of it"),
        ('"aarch64"', '"arm"', "`architecture` is `arm`, and must be one of aarch64, x86_64"),
        ("value = 4\n", 'value = "4"\n', "`cpu.cores.value` must be a number"),
        ("value = 4\n", "value = true\n", "`cpu.cores.value` must be a number"),
        ("value = 4\n", "value = 0\n", "`cpu.cores.value` is 0, and must be finite and above zero"),
        ("value = 4\n", "value = nan\n", "`cpu.cores.value` is nan, and must be finite"),
        ('unit = "cores"', 'unit = "core"', "`cpu.cores.unit` is `core`"),
        ('required = ["asimd"]', 'required = "asimd"', "`cpu.required` must be a list"),
        ('required = ["asimd"]', 'required = ["a b"]', "`cpu.required` holds `a b`"),
        ('required = ["asimd"]', 'required = ["a||b"]', "`cpu.required` holds `a||b`"),
        (
            'minimum = "1.18.0"',
            'minimum = "new"',
            "`engine[0].minimum` is `new`, which is not a version",
        ),
        (
            'version = "1.21.0"',
            "version = 1.21",
            "`engine[0].known_bad[0].version` must be a string",
        ),
        ('speed = "fast"', 'speed = "quick"', "`engine[0].policy[0].speed` is `quick`"),
        ("pair_safe = false", "pair_safe = 0", "`engine[0].pair_safe` must be true or false"),
        ('"int8"\n', '"int4"\n', "`engine[0].activation_dtype` is `int4`"),
        ('name = "onnxruntime"', 'nam = "x"', "`engine[0].name` is missing"),
        ("depthwise = 8", "", "`engine[0].widths.depthwise` is missing"),
        ("depthwise = 8", "depthwise = 0", "`engine[0].widths.depthwise` is 0, and must be above"),
        ("depthwise = 8", "depthwise = 8.0", "`engine[0].widths.depthwise` must be a whole number"),
        (
            "pointwise = false",
            "pointwise = 1",
            "`engine[0].widths.pointwise` must be true or false",
        ),
        (
            "depthwise = 8",
            "depthwise = 8\ndeep = 1",
            "`engine[0].widths.deep` is not a field of it",
        ),
    ],
)
def test_a_broken_rule_is_named(old: str, new: str, problem: str) -> None:
    assert old in GOOD
    with pytest.raises(EdgeqError, match=re.escape(f"target file t.toml: {problem}"[:200])):
        targets.parse(GOOD.replace(old, new, 1), "t.toml")


CLOCK = GOOD[GOOD.index("[cpu.clock]") : GOOD.index("[memory.size]")]


@pytest.mark.parametrize(
    ("clock", "problem"),
    [
        ('value = 1e9\nunit = "Hz"\n', "`cpu.clock` has a number and no source"),
        ('unit = "Hz"\nsource = "notes: a b"\n', "`cpu.clock` has a source and no number"),
        (
            'value = 1e9\nunit = "Hz"\nsource = "I think"\n',
            "is `I think`, neither an https address",
        ),
        (
            'value = 1e9\nunit = "Hz"\nsource = "http://a.b/"\n',
            "neither an https address nor `notes",
        ),
    ],
)
def test_a_number_and_its_source_come_together(clock: str, problem: str) -> None:
    text = GOOD.replace(CLOCK, "[cpu.clock]\n" + clock + "\n")
    with pytest.raises(EdgeqError, match=re.escape(problem)):
        targets.parse(text, "t.toml")


def test_a_ratio_says_of_what() -> None:
    text = re.sub(r"measure = .*\n", "", GOOD)
    with pytest.raises(
        EdgeqError, match=r"`engine\[0\].policy\[0\].ratio` is a number and `measure`"
    ):
        targets.parse(text, "t.toml")


def test_widths_are_only_said_where_they_are_known() -> None:
    start = GOOD.index("[engine.widths]")
    without = GOOD[:start] + GOOD[GOOD.index("\n[[engine.", start) :]
    target = targets.parse(without, "t.toml")
    assert target.engine("onnxruntime").widths is None
    assert target.to_json()["engines"][0]["widths"] is None


def test_a_target_without_engine_is_refused() -> None:
    with pytest.raises(EdgeqError, match="`engine` names no engine"):
        targets.parse(GOOD[: GOOD.index("[[engine]]")], "t.toml")


def test_text_that_is_not_toml_is_refused() -> None:
    with pytest.raises(EdgeqError, match=r"target file t.toml: not TOML: .*\[bad-target\]"):
        targets.parse("name = ", "t.toml")


def test_a_wheel_finds_its_packaged_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "_targets").mkdir()
    (tmp_path / "_targets" / "rpi9.toml").write_text(GOOD.replace('"rpi4"', '"rpi9"', 1))
    monkeypatch.setattr(targets.resources, "files", lambda package: tmp_path)
    assert targets.names() == ("rpi9",)
    assert targets.load("rpi9").title == "Raspberry Pi 4"


def test_a_file_called_otherwise_than_its_target_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "_targets").mkdir()
    (tmp_path / "_targets" / "rpi8.toml").write_text(GOOD)
    monkeypatch.setattr(targets.resources, "files", lambda package: tmp_path)
    with pytest.raises(EdgeqError, match=r"target file rpi8.toml: `name` is `rpi4`"):
        targets.load("rpi8")
