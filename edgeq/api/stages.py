"""The stages of a build after reading: calibrate, quantize, write, check, evaluate, judge."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from edgeq import registry
from edgeq.api.models import ENGINE, EngineExecutor, Prepared, open_exact, write_model
from edgeq.api.samples import Tap
from edgeq.errors import EdgeqError
from edgeq.report.results import Fidelity, LeftInFloat, TensorError

if TYPE_CHECKING:
    from edgeq.config import BuildSettings
    from edgeq.quality import GateResult, Quality
    from edgeq.quant.fidelity import Comparison, Difference
    from edgeq.quant.plan import QuantPlan
    from edgeq.targets import EngineSupport, Target
    from edgeq_runtime.engines.onnxruntime import Session

GARBAGE_DB = 5.0
"""Below this SQNR an output no longer resembles the float model's: a built-in gate."""


@dataclass(frozen=True)
class Quantized:
    """The plan, the tensors that were observed for it, and how it came about."""

    plan: QuantPlan
    observed: tuple[str, ...]
    calibration: dict[str, Any]


@dataclass(frozen=True)
class Candidate:
    """One precision, built and measured; not yet packed."""

    precision: str
    artifact: bytes
    quantized: Quantized | None
    ops: dict[str, dict[str, int]]
    left_in_float: tuple[LeftInFloat, ...]
    coverage: dict[str, Any] | None
    fidelity: Fidelity
    metrics: tuple[Quality, ...]
    gate: GateResult | None
    garbage: bool
    warnings: tuple[str, ...]

    @property
    def notes(self) -> tuple[str, ...]:
        """What the plan raised, assumed or never saw."""
        return () if self.quantized is None else self.quantized.plan.notes

    @property
    def outcome(self) -> str:
        if self.garbage:
            return "garbage"
        return "gate-failed" if self.gate is not None and not self.gate.passed else "built"


@dataclass
class Work:
    """What the stages of one build share."""

    settings: BuildSettings
    target: Target
    prepared: Prepared
    tap: Tap
    calibrated: bool
    labels: tuple[str, ...] | None
    stage: Callable[[str], Any]
    notes: list[str] = field(default_factory=list)

    @property
    def engine(self) -> EngineSupport:
        return self.target.engine(ENGINE)

    def pass_counts(self) -> tuple[str, ...]:
        """One line a pass that changed something; which nodes is in the result's `optimized`."""
        reports = self.prepared.reports
        return tuple(
            f"{r.name}: {len(r.changed)} change{'s' * (len(r.changed) > 1)}"
            for r in reports
            if r.changed
        )


def quantize(work: Work) -> Quantized:
    """Calibrate and plan int8; raises EdgeqError where nothing of the model can be int8."""
    from edgeq.quant.calibrate import calibrate
    from edgeq.quant.draft import draft
    from edgeq.quant.quantize import quantize as make_plan

    graph = work.prepared.graph
    drafted = draft(graph, keep_float=work.settings.keep_float)
    _require_int8(work, drafted.ops)
    with work.stage("Calibrated") as stage:
        session = open_exact(write_model(graph, drafted.observe))
        try:
            statistics = calibrate(EngineExecutor(session), work.tap, drafted.observe)
        finally:
            session.close()
        count = statistics.n_samples * work.tap.source.group
        stage.done(f"{count} samples", f"int8, per-channel weights, {work.settings.algo} ranges")
    with work.stage("Quantized") as stage:
        plan = make_plan(
            graph,
            drafted,
            statistics,
            method=work.settings.algo,
            pair_safe=work.engine.pair_safe,
        )
        stage.done(*_quantized_text(plan))
    calibration = {
        "samples": count,
        "method": work.settings.algo,
        "source": work.tap.name,
        "calibrated": work.calibrated,
    }
    return Quantized(plan, tuple(drafted.observe), calibration)


def _require_int8(work: Work, ops: Mapping[str, Any]) -> None:
    if any(op.precision == "int8" for op in ops.values()):
        return
    reasons = sorted({op.reason for op in ops.values()})
    raise EdgeqError(
        "nothing-to-quantize",
        f"no operator of `{work.prepared.name}` can run in int8 on {work.target.name}: "
        + "; ".join(reasons[:3] or ["the model has no operators"]),
        "build it in float: "
        f"`edgeq build {shlex.quote(str(work.settings.model))} -t {work.target.name} --fp32`",
    )


def _quantized_text(plan: QuantPlan) -> tuple[str, str]:
    counts = plan.counts()
    whole, left = counts.get("int8", {}), counts.get("float32", {})
    kinds = ", ".join(f"{count} {op}" for op, count in sorted(whole.items()))
    return kinds, f"{sum(left.values())} left in float"


def attempt(work: Work, precision: str, evaluation: Evaluated | None) -> Candidate:
    """Build one precision, check it against the float model and measure what was asked."""
    quantized = quantize(work) if precision == "int8" else None
    if quantized is None and not work.tap.kept:
        work.tap.keep()
    plan = quantized.plan if quantized else None
    artifact = registry.resolve("writers", "onnx")(
        work.prepared.graph, plan, activation_dtype=work.engine.activation_dtype
    )
    with work.stage("Checked") as stage:
        fidelity, coverage = check(work, artifact, quantized)
        stage.done(*_checked_text(fidelity))
    metrics = evaluation.compare(artifact) if evaluation else ()
    gate = judge(work, metrics, len(artifact))
    warnings = _warnings(work, precision, len(artifact), fidelity, bool(metrics))
    return Candidate(
        precision=precision,
        artifact=artifact,
        quantized=quantized,
        ops=counts(work, quantized),
        left_in_float=left_in_float(quantized),
        coverage=coverage,
        fidelity=fidelity,
        metrics=metrics,
        gate=gate,
        garbage=not metrics and _is_garbage(fidelity),
        warnings=warnings,
    )


def counts(work: Work, quantized: Quantized | None) -> dict[str, dict[str, int]]:
    """Operators per precision, as planned: precision -> op type -> how many."""
    if quantized is not None:
        return {name: kinds for name, kinds in quantized.plan.counts().items() if kinds}
    kinds = Counter(node.op_type for node in work.prepared.graph.nodes())
    return {"float32": dict(sorted(kinds.items()))}


def left_in_float(quantized: Quantized | None) -> tuple[LeftInFloat, ...]:
    """Every operator a lower-precision plan leaves in float, with its reason."""
    if quantized is None:
        return ()
    return tuple(
        LeftInFloat(name, op.op_type, op.reason)
        for name, op in quantized.plan.ops.items()
        if op.precision == "float32"
    )


def check(
    work: Work, artifact: bytes, quantized: Quantized | None
) -> tuple[Fidelity, dict[str, Any] | None]:
    """Run the artifact beside the float model on the kept samples; count what the engine fused."""
    from edgeq.quant.fidelity import worst

    outputs, mode = _compare_outputs(work, artifact)
    layers: tuple[Difference, ...] = ()
    if quantized is not None:
        layers = _compare_layers(work, quantized)
    fidelity = Fidelity(
        outputs=tuple(_tensor_error(d) for d in outputs.differences() if d.comparable),
        incomparable=tuple(d.name for d in outputs.differences() if not d.comparable),
        worst=tuple(_tensor_error(d) for d in worst(layers)),
        samples=outputs.samples,
        source=work.tap.name,
        mode=mode,
    )
    return fidelity, _coverage(work, artifact, quantized)


def _coverage(work: Work, artifact: bytes, quantized: Quantized | None) -> dict[str, Any] | None:
    if quantized is None:
        return None
    return measure_coverage(artifact, signed=work.engine.activation_dtype == "int8")


def _tensor_error(difference: Difference) -> TensorError:
    return TensorError(
        difference.name,
        difference.sqnr_db,
        difference.max_abs_error,
        difference.equal_share,
    )


def _compare_outputs(work: Work, artifact: bytes) -> tuple[Comparison, str]:
    """The artifact against the model as it was read, before any pass touched it."""
    from edgeq.quant.fidelity import Comparison

    comparison = Comparison()
    source = open_exact(work.prepared.source_bytes)
    session = open_exact(artifact)
    _require_repeatable(source, work.tap.kept[0])
    for sample in work.tap.kept:
        wanted, got = source.run(dict(sample)), session.run(dict(sample))
        _require_finite(work, wanted)
        comparison.add(wanted, got)
    mode = session.mode
    source.close()
    session.close()
    if comparison.not_finite is not None:
        raise EdgeqError(
            "not-finite",
            f"output `{comparison.not_finite}` of the artifact is not finite where the float "
            "model's is",
        )
    return comparison, mode


def _require_repeatable(session: Session, sample: Mapping[str, Any]) -> None:
    """A model that draws random numbers can neither be compared nor verified."""
    import numpy as np

    one, two = session.run(dict(sample)), session.run(dict(sample))
    for name, array in one.items():
        other = two[name]
        if array.dtype.kind == "f" and array.shape == other.shape:
            # another summation order would be far below a thousandth of the largest value
            peak = float(np.max(np.abs(array), initial=0.0, where=np.isfinite(array)))
            same = bool(np.allclose(array, other, rtol=0.0, atol=1e-3 * peak, equal_nan=True))
        else:
            same = bool(np.array_equal(array, other))
        if not same:
            raise EdgeqError(
                "not-repeatable",
                f"output `{name}` of the float model differs between two runs of one sample",
                "take the random operators out, or export the model for inference",
            )


def _require_finite(work: Work, outputs: Mapping[str, Any]) -> None:
    """NaN in the float model's own outputs on the user's own data is the user's to know; on
    made-up samples it says nothing."""
    import numpy as np

    if not work.calibrated:
        return
    for name, array in outputs.items():
        if array.dtype.kind == "f" and bool(np.isnan(array).any()):
            raise EdgeqError(
                "not-finite",
                f"output `{name}` of the float model is NaN on {work.tap.name}",
                "give samples as the model expects them: `--data calib.npz`",
            )


def _compare_layers(work: Work, quantized: Quantized) -> tuple[Difference, ...]:
    from edgeq.quant.fidelity import Comparison

    graph, inputs = work.prepared.graph, {info.name for info in work.prepared.graph.inputs}
    names = tuple(name for name in quantized.observed if name not in inputs)
    outside = tuple(n for n in names if n not in {info.name for info in graph.outputs})
    writer = registry.resolve("writers", "onnx")
    artifact = writer(
        graph,
        quantized.plan,
        activation_dtype=work.engine.activation_dtype,
        extra_outputs=outside,
    )
    comparison = Comparison()
    wanted, got = open_exact(write_model(graph, outside)), open_exact(artifact)
    for sample in work.tap.kept:
        comparison.add(wanted.run(dict(sample), names=names), got.run(dict(sample), names=names))
    wanted.close()
    got.close()
    return comparison.differences()


def measure_coverage(artifact: bytes, *, signed: bool) -> dict[str, Any]:
    """What the engine really runs in int8, from the optimized model it saves itself.

    `signed` has this host's engine fuse int8 activations as its ARM builds do by default.
    """
    import tempfile
    from pathlib import Path

    from edgeq_converters.read.ort_optimized import coverage
    from edgeq_runtime import engines

    with tempfile.TemporaryDirectory(prefix="edgeq-") as folder:
        path = Path(folder) / "optimized.onnx"
        session = engines.get(ENGINE).open_session(
            artifact, optimized_path=str(path), signed_int8=signed
        )
        session.close()
        counted = coverage(path.read_bytes())
    return {
        "engine": ENGINE,
        "on": "this host, fusing as on ARM" if signed else "this host",
        "int8": dict(counted.int8),
        "float32": dict(counted.float),
        "quantize_linear": counted.q,
        "dequantize_linear": counted.dq,
        "lines": list(counted.lines),
    }


def _checked_text(fidelity: Fidelity) -> tuple[str, str]:
    subject = f"on {fidelity.samples} samples"
    if fidelity.worst:
        layer = fidelity.worst[0]
        return subject, f"worst layer: {layer.name} (SQNR {layer.sqnr_db:.1f} dB)"
    noisy = [e for e in fidelity.outputs if e.sqnr_db is not None]
    if not noisy:
        return subject, "outputs equal to the float model's"
    lowest = min(noisy, key=lambda e: e.sqnr_db or 0.0)
    return subject, f"output {lowest.name}: SQNR {lowest.sqnr_db:.1f} dB"


def _is_garbage(fidelity: Fidelity) -> bool:
    return any(e.sqnr_db is not None and e.sqnr_db < GARBAGE_DB for e in fidelity.outputs)


def judge(work: Work, metrics: Sequence[Quality], size_bytes: int) -> GateResult | None:
    """Apply the user's gate to what was measured; None where there is no gate."""
    from edgeq.quality import check_gate, parse_gate

    rules = parse_gate(work.settings.gate)
    if not rules:
        return None
    measured: dict[str, Any] = {quality.metric: quality for quality in metrics}
    measured["size"] = size_bytes
    return check_gate(rules, measured)


def _warnings(
    work: Work, precision: str, size_bytes: int, fidelity: Fidelity, measured: bool
) -> tuple[str, ...]:
    found: list[str] = []
    float_bytes = len(work.prepared.float_bytes)
    if precision != "fp32" and size_bytes >= float_bytes:
        found.append(
            f"the {precision} artifact is no smaller than float: {size_bytes} bytes against "
            f"{float_bytes}"
        )
    if precision != "fp32" and not work.calibrated:
        found.append("not calibrated: ranges come from synthetic data, so every figure does too")
    found.extend(
        f"output `{name}` was not compared: its shape depends on the data and differs from float"
        for name in fidelity.incomparable
    )
    if not measured and _is_garbage(fidelity):
        found.append(f"an output is below {GARBAGE_DB:g} dB SQNR: the artifact is not usable")
    return tuple(found)


@dataclass
class Evaluated:
    """The user's evaluation, scored once on the float model and once on each artifact."""

    work: Work
    evaluation: Any
    _float_scores: Any = None

    def compare(self, artifact: bytes) -> tuple[Quality, ...]:
        from edgeq.quality import compare

        with self.work.stage("Evaluated") as stage:
            if self._float_scores is None:
                self._float_scores = self._score(self.work.prepared.source_bytes)
            qualities = compare(self._float_scores, self._score(artifact))
            n = qualities[0].n if qualities else None
            stage.done(
                f"on {n} samples" if n else "by the evaluation function",
                ", ".join(q.metric for q in qualities),
            )
        return tuple(qualities)

    def _score(self, model: bytes) -> Any:
        session = open_exact(model)
        try:
            return self.evaluation.score(session.run)
        finally:
            session.close()
