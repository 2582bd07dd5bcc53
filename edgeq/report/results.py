"""The results of edgeq's verbs: frozen dataclasses, each with the JSON document it prints."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Artifact:
    """One model file inside a bundle. `file` is its name there; `sha256` is hex."""

    file: str
    format: str
    size_bytes: int
    sha256: str

    def to_json(self) -> dict[str, Any]:
        return {
            "file": self.file,
            "format": self.format,
            "size_bytes": self.size_bytes,
            "sha256": self.sha256,
        }


@dataclass(frozen=True)
class LeftInFloat:
    """An operator that a lower-precision build leaves in float32, with the reason."""

    node: str
    op_type: str
    reason: str

    def to_json(self) -> dict[str, str]:
        return {"node": self.node, "op_type": self.op_type, "reason": self.reason}


@dataclass(frozen=True)
class TensorError:
    """How one tensor of the artifact differs from the float model's tensor of that name.

    `sqnr_db` is the signal-to-quantization-noise ratio in dB (None: bit-equal, or not a float
    tensor); `equal_share` is the share of equal elements in 0..1.
    """

    name: str
    sqnr_db: float | None
    max_abs_error: float
    equal_share: float

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "sqnr_db": self.sqnr_db,
            "max_abs_error": self.max_abs_error,
            "equal_share": self.equal_share,
        }


@dataclass(frozen=True)
class Fidelity:
    """The artifact beside the float model on the same `samples` inputs (`source` says which).

    `layers` are the quantized tensors, the `worst` of them too; a manifest holds their SQNR.
    `reference` is "float", or the quantized file whose own integers the artifact holds.
    """

    outputs: tuple[TensorError, ...]
    worst: tuple[TensorError, ...]
    samples: int
    source: str
    mode: str
    incomparable: tuple[str, ...] = ()
    layers: tuple[TensorError, ...] = ()
    reference: str = "float"

    def to_json(self) -> dict[str, Any]:
        return {
            "outputs": [error.to_json() for error in self.outputs],
            "worst_layers": [error.to_json() for error in self.worst],
            "not_compared": list(self.incomparable),
            "samples": self.samples,
            "source": self.source,
            "kernels": self.mode,
            "reference": self.reference,
        }


@dataclass(frozen=True)
class Build:
    """What `build` made, or would make: everything the CLI prints and `--json` holds.

    `bundle` is the path written, None where nothing was (strict gate failure).
    `outcome` is "built", "gate-failed" or "garbage"; `ok` is True for "built" alone.
    `metrics` and `gate` are JSON documents of `edgeq.quality`; None means not measured.
    `search` is what was tried, what it measured and what was decided; None where nothing was.
    `candidates` is a row for each engine that was built for, with why one was kept (`--engine auto`
    alone).
    """

    bundle: str | None
    model: Mapping[str, Any]
    target: str
    precision: str
    outcome: str
    artifacts: tuple[Artifact, ...]
    size_bytes: int
    float_size_bytes: int
    optimized: tuple[Mapping[str, Any], ...]
    ops: Mapping[str, Mapping[str, int]]
    left_in_float: tuple[LeftInFloat, ...]
    coverage: Mapping[str, Any] | None
    calibration: Mapping[str, Any] | None
    fidelity: Fidelity
    metrics: tuple[Mapping[str, Any], ...]
    gate: Mapping[str, Any] | None
    golden: Mapping[str, Any]
    warnings: tuple[str, ...]
    notes: tuple[str, ...]
    digest: str | None
    search: Mapping[str, Any] | None = None
    candidates: tuple[Mapping[str, Any], ...] = ()

    @property
    def ok(self) -> bool:
        return self.outcome == "built"

    @property
    def exit_code(self) -> int:
        return 0 if self.ok else 1

    def to_json(self) -> dict[str, Any]:
        return {
            "schema": "edgeq.build/1",
            "ok": self.ok,
            "outcome": self.outcome,
            "bundle": self.bundle,
            "digest": self.digest,
            "model": dict(self.model),
            "target": self.target,
            "precision": self.precision,
            "artifacts": [artifact.to_json() for artifact in self.artifacts],
            "size_bytes": self.size_bytes,
            "float_size_bytes": self.float_size_bytes,
            "optimized": [dict(report) for report in self.optimized],
            "ops": {precision: dict(counts) for precision, counts in self.ops.items()},
            "left_in_float": [op.to_json() for op in self.left_in_float],
            "coverage": None if self.coverage is None else dict(self.coverage),
            "calibration": None if self.calibration is None else dict(self.calibration),
            "search": None if self.search is None else dict(self.search),
            "candidates": [dict(row) for row in self.candidates],
            "fidelity": self.fidelity.to_json(),
            "quality": dict(self.metrics[0]) if self.metrics else None,
            "metrics": [dict(metric) for metric in self.metrics],
            "latency_ms": None,
            "gate": None if self.gate is None else dict(self.gate),
            "golden": dict(self.golden),
            "warnings": list(self.warnings),
            "notes": list(self.notes),
            "error": None,
        }


@dataclass(frozen=True)
class Planned:
    """What `build --plan-only` shows: the plan as data; nothing was written."""

    model: Mapping[str, Any]
    target: str
    precision: str
    plan: Mapping[str, Any]
    ops: Mapping[str, Mapping[str, int]]
    left_in_float: tuple[LeftInFloat, ...]
    calibration: Mapping[str, Any] | None
    warnings: tuple[str, ...]
    notes: tuple[str, ...]
    search: Mapping[str, Any] | None = None

    def to_json(self) -> dict[str, Any]:
        return {
            "schema": "edgeq.plan/1",
            "ok": True,
            "model": dict(self.model),
            "target": self.target,
            "precision": self.precision,
            "ops": {precision: dict(counts) for precision, counts in self.ops.items()},
            "left_in_float": [op.to_json() for op in self.left_in_float],
            "calibration": None if self.calibration is None else dict(self.calibration),
            "search": None if self.search is None else dict(self.search),
            "plan": dict(self.plan),
            "warnings": list(self.warnings),
            "notes": list(self.notes),
            "error": None,
        }


@dataclass(frozen=True)
class Evaluation:
    """What `eval` measured: metrics (JSON of `edgeq.quality.Quality`) and the gate's verdict.

    `value`, `n`, `baseline` and `interval` (95 %) are the first metric's; None: not measured.
    """

    artifact: str
    metrics: tuple[Mapping[str, Any], ...]
    gate: Mapping[str, Any] | None
    engine: str
    kernels: str
    warnings: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def value(self) -> float | None:
        found: float | None = self._first("value")
        return found

    @property
    def n(self) -> int | None:
        found: int | None = self._first("n")
        return found

    @property
    def baseline(self) -> float | None:
        found: float | None = self._first("baseline")
        return found

    @property
    def interval(self) -> tuple[float, float] | None:
        ends = self._first("interval")
        return None if ends is None else (ends[0], ends[1])

    def _first(self, key: str) -> Any:
        return self.metrics[0][key] if self.metrics else None

    @property
    def ok(self) -> bool:
        return self.gate is None or bool(self.gate["passed"])

    @property
    def exit_code(self) -> int:
        return 0 if self.ok else 1

    def to_json(self) -> dict[str, Any]:
        return {
            "schema": "edgeq.eval/1",
            "ok": self.ok,
            "artifact": self.artifact,
            "quality": dict(self.metrics[0]) if self.metrics else None,
            "metrics": [dict(metric) for metric in self.metrics],
            "gate": None if self.gate is None else dict(self.gate),
            "engine": self.engine,
            "kernels": self.kernels,
            "warnings": list(self.warnings),
            "notes": list(self.notes),
            "error": None,
        }


@dataclass(frozen=True)
class Ran:
    """What `run` computed: each output summarised over `samples` inputs; `out` is the npz written.

    `top` holds per sample the best (index, label or None, score) of the first output, if asked;
    `names` the file of each sample, where samples are files.
    """

    artifact: str
    samples: int
    outputs: tuple[Mapping[str, Any], ...]
    top: tuple[tuple[tuple[int, str | None, float], ...], ...]
    out: str | None
    engine: str
    kernels: str
    warnings: tuple[str, ...]
    notes: tuple[str, ...]
    names: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        return {
            "schema": "edgeq.run/1",
            "ok": True,
            "artifact": self.artifact,
            "samples": self.samples,
            "names": list(self.names),
            "outputs": [dict(output) for output in self.outputs],
            "top": [
                [{"index": index, "label": label, "score": score} for index, label, score in best]
                for best in self.top
            ],
            "out": self.out,
            "engine": self.engine,
            "kernels": self.kernels,
            "warnings": list(self.warnings),
            "notes": list(self.notes),
            "error": None,
        }


@dataclass(frozen=True)
class Inspection:
    """What `inspect` shows of a model file or a bundle: sections of (label, value) rows, and data.

    `kind` is "model" or "bundle"; `sections` is what a terminal shows, `data` what JSON holds.
    """

    file: str
    kind: str
    sections: tuple[tuple[str, tuple[tuple[str, str], ...]], ...]
    data: Mapping[str, Any]
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        return {
            "schema": "edgeq.inspect/1",
            "ok": True,
            "file": self.file,
            "kind": self.kind,
            **self.data,
            "notes": list(self.notes),
            "error": None,
        }


@dataclass(frozen=True)
class Verified:
    """What `verify` proved on this host: each golden vector compared, and what was only warned."""

    bundle: str
    passed: bool
    vectors: int
    outputs: tuple[Mapping[str, Any], ...]
    engine: str
    kernels: str
    host: str
    target: str
    on_target: bool
    digest: str
    warnings: tuple[str, ...]

    @property
    def ok(self) -> bool:
        return self.passed

    @property
    def exit_code(self) -> int:
        return 0 if self.passed else 1

    def to_json(self) -> dict[str, Any]:
        return {
            "schema": "edgeq.verify/1",
            "ok": self.passed,
            "bundle": self.bundle,
            "digest": self.digest,
            "passed": self.passed,
            "vectors": self.vectors,
            "outputs": [dict(output) for output in self.outputs],
            "engine": self.engine,
            "kernels": self.kernels,
            "host": self.host,
            "target": self.target,
            "on_target": self.on_target,
            "warnings": list(self.warnings),
            "error": None,
        }


@dataclass(frozen=True)
class Initialized:
    """The settings file that `init` wrote; `target` None is left to fill in.

    `guessed` names what stands in it as a guess, switched off.
    """

    file: str
    model: str
    target: str | None
    guessed: tuple[str, ...]
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        return {
            "schema": "edgeq.init/1",
            "ok": True,
            "file": self.file,
            "model": self.model,
            "target": self.target,
            "guessed": list(self.guessed),
            "notes": list(self.notes),
            "error": None,
        }


@dataclass(frozen=True)
class Doctor:
    """What `doctor` found on this machine: rows of (check, status, detail).

    Status is "ok", "missing" (an optional thing is not there) or "problem" (edgeq cannot work so).
    """

    rows: tuple[tuple[str, str, str], ...]

    @property
    def ok(self) -> bool:
        return all(status != "problem" for _, status, _ in self.rows)

    @property
    def exit_code(self) -> int:
        return 0 if self.ok else 2

    def to_json(self) -> dict[str, Any]:
        return {
            "schema": "edgeq.doctor/1",
            "ok": self.ok,
            "checks": [
                {"check": check, "status": status, "detail": detail}
                for check, status, detail in self.rows
            ],
            "error": None,
        }
