"""Targets: one TOML file per device or CPU class, read into frozen dataclasses.

Every number in a file has a `source`: an address, `notes: DOCUMENT SECTION`, or `bench: FILE`, a
script of this repository that measures it. Where no source can be quoted there is no number, and
what needs it says "unknown". A required feature may be written `a|b`: one of them is enough.
Names of features are Linux's (/proc/cpuinfo).
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

from edgeq.errors import EdgeqError, did_you_mean
from edgeq_runtime.cpu import Cpu, missing

ARCHITECTURES = ("aarch64", "x86_64")
ACTIVATION_DTYPES = ("int8", "uint8")
SPEEDS = ("fast", "no gain", "slow")
_VERSION = re.compile(r"[0-9]+(\.[0-9]+){1,2}")
_FEATURES = re.compile(r"[a-z0-9_]+(\|[a-z0-9_]+)*")
_SOURCE = re.compile(r"https://\S+|notes: [a-z-]+[ ,].+|bench: [a-z_]+\.py")


@dataclass(frozen=True)
class Figure:
    """A number with its unit and source; both `value` and `source` are None when unknown."""

    value: float | None
    unit: str
    source: str | None
    note: str | None = None

    def __str__(self) -> str:
        """`2.4 GHz`, `17.07 GB/s`, `4 cores`, or "unknown"."""
        if self.value is None:
            return "unknown"
        for scale, prefix in ((1e9, "G"), (1e6, "M")):
            if self.value >= scale:
                return f"{self.value / scale:.4g} {prefix}{self.unit}"
        return f"{self.value:g} {self.unit}"

    def to_json(self) -> dict[str, Any]:
        return {"value": self.value, "unit": self.unit, "source": self.source, "note": self.note}


@dataclass(frozen=True)
class KnownBad:
    """A version of an engine that must not be used on the target, and what it does there."""

    version: str
    effect: str
    source: str


@dataclass(frozen=True)
class PolicyRow:
    """How an engine runs one kind of operator in one encoding: `speed` is one of SPEEDS.

    `ratio` is > 1 where the encoding beats fp32; `measure` says of what, and how it was measured.
    """

    operation: str
    encoding: str
    speed: str
    source: str
    ratio: float | None = None
    measure: str | None = None
    note: str | None = None


@dataclass(frozen=True)
class Widths:
    """Channels that an engine's packed int8 convolutions take: multiples of these, and no fewer
    than `least_input` input channels above 1x1; others run a slower, general kernel. `pointwise`:
    1x1 convolutions ask for the multiples too."""

    input: int
    output: int
    depthwise: int
    least_input: int
    pointwise: bool
    source: str
    note: str | None = None


@dataclass(frozen=True)
class Fp16:
    """An engine that computes an fp16 artifact in float16 on cores with `feature`, else in float32;
    without this table it always computes in float32."""

    feature: str
    source: str


@dataclass(frozen=True)
class EngineSupport:
    """An engine of a target: versions in [minimum, maximum) without the known-bad, and habits.

    `pair_safe`: its int8 kernels add pairs of products in 16 bits, so weights must be pair-safe.
    """

    name: str
    minimum: str
    maximum: str | None
    known_bad: tuple[KnownBad, ...]
    activation_dtype: str
    pair_safe: bool
    policy: tuple[PolicyRow, ...]
    source: str
    widths: Widths | None = None
    fp16: Fp16 | None = None

    def refusal(self, version: str) -> str | None:
        """Why this version of the engine must not be used on the target, or None."""
        bad = next((row for row in self.known_bad if _same(row.version, version)), None)
        if bad is not None:
            return f"{self.name} {version} {bad.effect}"
        if _parts(version) < _parts(self.minimum):
            return f"{self.name} {version} is older than {self.minimum}"
        if self.maximum is not None and _parts(version) >= _parts(self.maximum):
            return f"{self.name} {version} is not older than {self.maximum}"
        return None


@dataclass(frozen=True)
class Target:
    """A device or a class of CPUs; `board` is what a device's /proc/cpuinfo calls it."""

    name: str
    title: str
    architecture: str
    core: str
    board: str | None
    cores: Figure
    clock_hz: Figure
    memory_bytes: Figure
    bandwidth_bytes_per_s: Figure
    required_features: tuple[str, ...]
    fast_features: tuple[str, ...]
    features_source: str
    engines: tuple[EngineSupport, ...]

    def engine(self, name: str) -> EngineSupport:
        """The support of an engine by name; asking for one it has not is our own mistake."""
        return next(engine for engine in self.engines if engine.name == name)

    def fp16_computes(self, engine: str) -> str:
        """What an fp16 artifact is computed in by the cores of this target: float16 or float32."""
        fp16 = self.engine(engine).fp16
        has = fp16 is not None and fp16.feature in (*self.required_features, *self.fast_features)
        return "float16" if has else "float32"

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "title": self.title,
            "architecture": self.architecture,
            "core": self.core,
            "board": self.board,
            "cores": self.cores.to_json(),
            "clock_hz": self.clock_hz.to_json(),
            "memory_bytes": self.memory_bytes.to_json(),
            "bandwidth_bytes_per_s": self.bandwidth_bytes_per_s.to_json(),
            "required_features": list(self.required_features),
            "fast_features": list(self.fast_features),
            "features_source": self.features_source,
            "engines": [_engine_json(engine) for engine in self.engines],
        }


def names() -> tuple[str, ...]:
    """The names of all targets, in alphabetical order."""
    found = (item.name for item in _folder().iterdir() if item.name.endswith(".toml"))
    return tuple(sorted(name.removesuffix(".toml") for name in found))


def load(name: str) -> Target:
    """The target called `name`; raises `[unknown-target]` with the nearest name."""
    known = names()
    if name not in known:
        raise EdgeqError(
            "unknown-target", f"there is no target `{name}`", *did_you_mean(name, known)
        )
    return _load(name)


def for_host(cpu: Cpu) -> str:
    """The target that describes a CPU best: its board, else the class that demands most of it."""
    fitting = [
        target
        for target in map(load, names())
        if target.architecture == cpu.architecture
        and not missing(target.required_features, cpu)
        and (target.board is None or target.board in cpu.model)
    ]
    if not fitting:
        raise EdgeqError(
            "no-host-target",
            f"no target describes this machine ({cpu.architecture})",
            "edgeq targets",
        )
    best = max(fitting, key=lambda item: (item.board is not None, _demand(item), item.name))
    return best.name


def parse(text: str, where: str) -> Target:
    """A target from the text of its file; a broken rule is `[bad-target]` naming `where`."""
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as failure:
        raise EdgeqError("bad-target", f"target file {where}: not TOML: {failure}") from None
    reader = _Table(document, "", where)
    cpu, memory = reader.table("cpu"), reader.table("memory")
    target = Target(
        name=reader.text("name"),
        title=reader.text("title"),
        architecture=reader.one_of("architecture", ARCHITECTURES),
        core=cpu.text("core"),
        board=reader.optional_text("board"),
        cores=cpu.figure("cores", "cores"),
        clock_hz=cpu.figure("clock", "Hz"),
        memory_bytes=memory.figure("size", "B"),
        bandwidth_bytes_per_s=memory.figure("bandwidth", "B/s"),
        required_features=cpu.features("required"),
        fast_features=cpu.features("fast"),
        features_source=cpu.source(),
        engines=tuple(_engine(table) for table in reader.tables("engine")),
    )
    if not target.engines:
        raise reader.wrong("engine", "names no engine")
    for table in (reader, cpu, memory):
        table.done()
    return target


def _demand(target: Target) -> int:
    return len(target.required_features)


@cache
def _load(name: str) -> Target:
    where = f"{name}.toml"
    target = parse((_folder() / where).read_text(encoding="utf-8"), where)
    if target.name != name:
        raise EdgeqError("bad-target", f"target file {where}: `name` is `{target.name}`")
    return target


def _folder() -> Traversable:
    """The folder of TOML files: inside an installed wheel, else in the checkout."""
    packaged = resources.files("edgeq") / "_targets"
    return packaged if packaged.is_dir() else Path(__file__).resolve().parent.parent / "targets"


def _parts(version: str) -> tuple[int, ...]:
    """`1.21.0` as (1, 21, 0); what follows the numbers (rc1, +cpu) is left out."""
    numbers = [int(item) for item in re.findall(r"[0-9]+", re.split(r"[a-z+]", version)[0])[:3]]
    return tuple(numbers + [0] * (3 - len(numbers)))


def _same(left: str, right: str) -> bool:
    return _parts(left) == _parts(right)


def _engine(table: _Table) -> EngineSupport:
    support = EngineSupport(
        name=table.text("name"),
        minimum=table.version("minimum"),
        maximum=table.version("maximum") if "maximum" in table.left else None,
        known_bad=tuple(_known_bad(row) for row in table.tables("known_bad")),
        activation_dtype=table.one_of("activation_dtype", ACTIVATION_DTYPES),
        pair_safe=table.flag("pair_safe"),
        policy=tuple(_policy_row(row) for row in table.tables("policy")),
        source=table.source(),
        widths=_widths(table.table("widths")) if "widths" in table.left else None,
        fp16=_fp16(table.table("fp16")) if "fp16" in table.left else None,
    )
    table.done()
    return support


def _widths(table: _Table) -> Widths:
    row = Widths(
        input=table.whole("input"),
        output=table.whole("output"),
        depthwise=table.whole("depthwise"),
        least_input=table.whole("least_input"),
        pointwise=table.flag("pointwise"),
        source=table.source(),
        note=table.optional_text("note"),
    )
    table.done()
    return row


def _fp16(table: _Table) -> Fp16:
    row = Fp16(table.text("feature"), table.source())
    table.done()
    return row


def _known_bad(table: _Table) -> KnownBad:
    row = KnownBad(table.version("version"), table.text("effect"), table.source())
    table.done()
    return row


def _policy_row(table: _Table) -> PolicyRow:
    row = PolicyRow(
        operation=table.text("operation"),
        encoding=table.text("encoding"),
        speed=table.one_of("speed", SPEEDS),
        source=table.source(),
        ratio=table.number("ratio"),
        measure=table.optional_text("measure"),
        note=table.optional_text("note"),
    )
    if row.ratio is not None and row.measure is None:
        raise table.wrong("ratio", "is a number and `measure` does not say of what")
    table.done()
    return row


def _engine_json(engine: EngineSupport) -> dict[str, Any]:
    return {
        "name": engine.name,
        "minimum": engine.minimum,
        "maximum": engine.maximum,
        "known_bad": [vars(row).copy() for row in engine.known_bad],
        "activation_dtype": engine.activation_dtype,
        "pair_safe": engine.pair_safe,
        "policy": [vars(row).copy() for row in engine.policy],
        "source": engine.source,
        "widths": None if engine.widths is None else vars(engine.widths).copy(),
        "fp16": None if engine.fp16 is None else vars(engine.fp16).copy(),
    }


class _Table:
    """One table of a target file, read key by key; `done` refuses what was not read."""

    def __init__(self, values: Mapping[str, Any], path: str, where: str) -> None:
        self.left = dict(values)
        self.path = path
        self.where = where

    def wrong(self, key: str, problem: str) -> EdgeqError:
        place = f"{self.path}.{key}" if self.path else key
        return EdgeqError("bad-target", f"target file {self.where}: `{place}` {problem}")

    def done(self) -> None:
        if self.left:
            raise self.wrong(min(self.left), "is not a field of it")

    def take(self, key: str, kind: type | tuple[type, ...], word: str) -> Any:
        value = self.left.pop(key, None)
        if value is None:
            raise self.wrong(key, "is missing")
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise self.wrong(key, f"must be {word}")
        return value

    def text(self, key: str) -> str:
        value: str = self.take(key, str, "a string")
        if not value.strip():
            raise self.wrong(key, "is empty")
        return value

    def optional_text(self, key: str) -> str | None:
        return self.text(key) if key in self.left else None

    def flag(self, key: str) -> bool:
        return bool(self.take(key, bool, "true or false"))

    def one_of(self, key: str, choices: tuple[str, ...]) -> str:
        value = self.text(key)
        if value not in choices:
            raise self.wrong(key, f"is `{value}`, and must be one of {', '.join(choices)}")
        return value

    def version(self, key: str) -> str:
        value = self.text(key)
        if not _VERSION.fullmatch(value):
            raise self.wrong(key, f"is `{value}`, which is not a version like 1.21.0")
        return value

    def source(self) -> str:
        value = self.text("source")
        if not _SOURCE.fullmatch(value):
            raise self.wrong(
                "source", f"is `{value}`, neither an https address nor `notes: ...`, `bench: ...`"
            )
        return value

    def number(self, key: str) -> float | None:
        if key not in self.left:
            return None
        value = float(self.take(key, (int, float), "a number"))
        if not 0 < value < float("inf"):
            raise self.wrong(key, f"is {value:g}, and must be finite and above zero")
        return value

    def whole(self, key: str) -> int:
        value: int = self.take(key, int, "a whole number")
        if value < 1:
            raise self.wrong(key, f"is {value}, and must be above zero")
        return value

    def features(self, key: str) -> tuple[str, ...]:
        values = self.take(key, list, "a list of CPU features")
        for value in values:
            if not isinstance(value, str) or not _FEATURES.fullmatch(value):
                raise self.wrong(key, f"holds `{value}`, which is not a feature or `a|b`")
        return tuple(values)

    def table(self, key: str) -> _Table:
        place = f"{self.path}.{key}" if self.path else key
        return _Table(self.take(key, dict, "a table"), place, self.where)

    def tables(self, key: str) -> tuple[_Table, ...]:
        rows = self.left.pop(key, [])
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise self.wrong(key, "must be tables `[[...]]`")
        place = f"{self.path}.{key}" if self.path else key
        return tuple(_Table(row, f"{place}[{i}]", self.where) for i, row in enumerate(rows))

    def figure(self, key: str, unit: str) -> Figure:
        """A sub-table `value`, `unit`, `source`, `note`: both of value and source, or neither."""
        table = self.table(key)
        value = table.number("value")
        if table.one_of("unit", (unit,)) and value is not None and "source" not in table.left:
            raise self.wrong(key, "has a number and no source")
        if value is None and "source" in table.left:
            raise self.wrong(key, "has a source and no number")
        source = table.source() if value is not None else None
        figure = Figure(value, unit, source, table.optional_text("note"))
        table.done()
        return figure
