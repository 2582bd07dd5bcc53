"""Golden vectors: inputs made from a seed, stored outputs, the comparison. FORMAT.md 8, 9."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from edgeq_runtime.errors import EdgeqError

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

GENERATOR = "splitmix64"
RULES = ("codes", "equal", "tolerance")
_GAMMA = 0x9E3779B97F4A7C15
_STEPS = 24  # bits drawn for one element: what a float32 holds
INTEGERS = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
FLOATS = ("float16", "float32", "float64")


@dataclass(frozen=True)
class GoldenInput:
    """One input of one vector. low <= high, finite; both ends are drawn for integers."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    low: float
    high: float
    seed: int

    def array(self) -> Array:
        """The elements, the same bits on every machine."""
        import numpy as np

        count = 1
        for size in self.shape:
            count *= size
        draws = splitmix64(self.seed, count) >> np.uint64(64 - _STEPS)  # 0 .. 2**24 - 1
        flat: Array
        if self.dtype == "bool":
            flat = draws >= np.uint64(1 << (_STEPS - 1))
        elif self.dtype in INTEGERS:
            span = int(self.high) - int(self.low) + 1
            steps = (draws.astype(np.int64) * span) >> _STEPS
            flat = (steps + int(self.low)).astype(self.dtype)
        else:
            unit = draws.astype(np.float64) * 2.0**-_STEPS
            wide = self.low + (self.high - self.low) * unit
            flat = wide if self.dtype == "float64" else wide.astype(np.float32)
        return flat.astype(self.dtype).reshape(self.shape)


@dataclass(frozen=True)
class GoldenOutput:
    """One output of one vector: every `stride`-th element of the flat array, stored as `dtype`."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    stride: int
    offset: int
    size: int


@dataclass(frozen=True)
class Vector:
    """One run of the model."""

    inputs: tuple[GoldenInput, ...]
    outputs: tuple[GoldenOutput, ...]


@dataclass(frozen=True)
class Rule:
    """How an output is compared.

    codes: stored as integers, equal to (code - zero_point) * scale in float32, bit for bit.
    equal: stored as it is, equal. tolerance: |got - want| <= absolute.
    """

    rule: str
    dtype: str | None = None
    scale: float | None = None
    zero_point: int | None = None
    absolute: float | None = None

    def expected(self, stored: Array) -> Array:
        """What the model should give for the stored elements."""
        import numpy as np

        if self.rule != "codes":
            return stored
        assert self.zero_point is not None
        shifted = (stored.astype(np.int64) - self.zero_point).astype(np.float32)
        return np.asarray(shifted * np.float32(self.scale), np.float32)


@dataclass(frozen=True)
class Golden:
    """All vectors of a bundle and the rule of each compared output."""

    generator: str = GENERATOR
    file: str | None = None
    vectors: tuple[Vector, ...] = ()
    rules: Mapping[str, Rule] = field(default_factory=dict)


@dataclass(frozen=True)
class OutputCheck:
    """One output over all vectors. `max_lsb` only for rule "codes": steps of its scale.

    A wrong shape or type, NaN and infinity are a `max_error` of infinity (null in JSON).
    """

    name: str
    rule: str
    compared: int
    mismatches: int
    max_error: float
    tolerance: float | None
    max_lsb: int | None

    @property
    def passed(self) -> bool:
        return self.mismatches == 0

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "rule": self.rule,
            "compared": self.compared,
            "mismatches": self.mismatches,
            "max_error": self.max_error if math.isfinite(self.max_error) else None,
            "tolerance": self.tolerance,
            "max_lsb": self.max_lsb,
        }


@dataclass(frozen=True)
class Verification:
    """What running the golden vectors showed. `on_target` says whether this host is what the
    bundle was built for; `mode` how the engine computed (see `Session.mode`)."""

    passed: bool
    vectors: int
    outputs: tuple[OutputCheck, ...]
    target: str
    on_target: bool
    host: str
    engine: str
    engine_version: str
    mode: str
    digest: str
    warnings: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        return {
            "passed": self.passed,
            "vectors": self.vectors,
            "outputs": [check.to_json() for check in self.outputs],
            "target": self.target,
            "on_target": self.on_target,
            "host": self.host,
            "engine": self.engine,
            "engine_version": self.engine_version,
            "mode": self.mode,
            "digest": self.digest,
            "warnings": list(self.warnings),
        }


def splitmix64(seed: int, count: int) -> Array:
    """uint64 [count]: element i is mix(seed + (i + 1) * gamma), all modulo 2**64.

    Steele, Lea, Flood: Fast splittable pseudorandom number generators, OOPSLA 2014.
    """
    import numpy as np

    z = np.arange(1, count + 1, dtype=np.uint64) * np.uint64(_GAMMA) + np.uint64(seed)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def stored_elements(output: GoldenOutput, data: bytes) -> Array:
    """The stored elements of one output, little-endian in `data`, in native order."""
    import numpy as np

    little = np.dtype(output.dtype).newbyteorder("<")
    part = np.frombuffer(data, little, output.size // little.itemsize, output.offset)
    return part.astype(output.dtype)


class Comparison:
    """Adds up one output over the vectors."""

    def __init__(self, name: str, rule: Rule) -> None:
        self.name = name
        self.rule = rule
        self.compared = 0
        self.mismatches = 0
        self.max_error = 0.0

    def add(self, got: Array, output: GoldenOutput, data: bytes) -> None:
        """Compare one vector's output; a wrong shape or dtype counts as every element wrong."""
        import numpy as np

        want = self.rule.expected(stored_elements(output, data))
        self.compared += want.size
        if tuple(got.shape) != output.shape or got.dtype != want.dtype:
            self.mismatches += max(want.size, 1)
            self.max_error = float("inf")
            return
        picked = got.reshape(-1)[:: output.stride]
        with np.errstate(invalid="ignore", over="ignore"):
            error = np.abs(picked.astype(np.float64) - want.astype(np.float64))
            limit = self.rule.absolute  # `not <=`: NaN is wrong
            wrong = picked != want if limit is None else ~(error <= limit)
        self.mismatches += int(np.count_nonzero(wrong))
        if want.size:
            worst = float(np.where(np.isnan(error), np.inf, error).max())
            self.max_error = max(self.max_error, worst)

    def result(self) -> OutputCheck:
        lsb = None
        if self.rule.scale is not None and self.max_error < float("inf"):
            lsb = round(self.max_error / self.rule.scale)
        return OutputCheck(
            self.name,
            self.rule.rule,
            self.compared,
            self.mismatches,
            self.max_error,
            self.rule.absolute,
            lsb,
        )


def compare(session: Any, golden: Golden, data: bytes) -> tuple[OutputCheck, ...]:
    """Run every vector on `session` and compare; `data` is the golden file."""
    names = [output.name for vector in golden.vectors[:1] for output in vector.outputs]
    sums = {name: Comparison(name, golden.rules[name]) for name in names}
    for vector in golden.vectors:
        got = session.run({row.name: row.array() for row in vector.inputs})
        for output in vector.outputs:
            sums[output.name].add(got[output.name], output, data)
    return tuple(row.result() for row in sums.values())


def require_vectors(golden: Golden) -> None:
    """A bundle without golden vectors can run, not be verified."""
    if not golden.vectors:
        raise EdgeqError(
            "no-golden-vectors", "the bundle holds no golden vectors, so nothing can be compared"
        )
