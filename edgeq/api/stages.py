"""The stages of a build after reading: calibrate, quantize, write, check, evaluate, judge."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from edgeq import registry
from edgeq.api import emulation
from edgeq.api.border import open_as_float
from edgeq.api.formats import Shipped, ship
from edgeq.api.forms import Form
from edgeq.api.models import ENGINE, LITERT, Prepared, open_exact, write_model
from edgeq.api.progress import on_samples
from edgeq.api.samples import Tap
from edgeq.errors import EdgeqError
from edgeq.report.card import name_text
from edgeq.report.results import Fidelity, LeftInFloat, TensorError
from edgeq_runtime.outside import ModelBytes, file_bytes

if TYPE_CHECKING:
    from edgeq.config import BuildSettings
    from edgeq.ir import Graph
    from edgeq.quality import GateResult, Quality
    from edgeq.quant.fidelity import Comparison, Difference
    from edgeq.quant.kernels import Kernels
    from edgeq.quant.plan import QuantPlan
    from edgeq.targets import EngineSupport, Target
    from edgeq_runtime.engines.onnxruntime import Session

GARBAGE_DB = 5.0
"""Below this SQNR an output no longer resembles the float model's: a built-in gate."""


@dataclass(frozen=True)
class Quantized:
    """The plan, the tensors that were observed for it, and how it came about.

    `graph` is the float graph that the plan belongs to, None for the optimized one as it was.
    `search` is what was tried, measured and kept. `left_float` says why no op became int8.
    """

    plan: QuantPlan
    observed: tuple[str, ...]
    calibration: dict[str, Any] | None
    graph: Graph | None = None
    search: dict[str, Any] | None = None
    left_float: str = ""
    warnings: tuple[str, ...] = ()


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
    shipped: Shipped

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
    has_data: bool
    labels: tuple[str, ...] | None
    stage: Callable[[str], Any]
    form: Form
    io: str = "float"
    notes: list[str] = field(default_factory=list)

    @property
    def engine(self) -> EngineSupport:
        """What the target says of the engine that the artifact is for."""
        return self.target.engine(self.form.engine)

    @property
    def is_tflite(self) -> bool:
        return self.form.engine == LITERT

    @property
    def keeps_integers(self) -> bool:
        """Whether the plan is the source's own: its graph then is as it was read."""
        own = self.prepared.own_plan is not None
        return own and self.prepared.graph is self.prepared.source

    @property
    def reference(self) -> bytes:
        """What the artifact is held against: the model as it was read, before any pass touched it;
        where its own integers are kept, the file that they are of."""
        file = self.prepared.tflite_bytes if self.keeps_integers else None
        return file or self.prepared.source_bytes

    @property
    def reference_size(self) -> int:
        """Bytes of the optimized float model, or of the file whose own integers are kept."""
        kept = self.keeps_integers and self.prepared.tflite_bytes is not None
        return self.prepared.read.size_bytes if kept else file_bytes(self.prepared.float_bytes)

    @property
    def kernels(self) -> Kernels:
        """What the engine that the artifact is for runs in int8."""
        from edgeq.quant.kernels import BY_ENGINE

        return BY_ENGINE[self.form.engine]

    def in_form(self, form: Form) -> Work:
        """The same work for another engine, with notes of its own."""
        return replace(self, form=form, notes=list(self.notes))

    def pass_counts(self) -> tuple[str, ...]:
        """One line a pass that changed something; which nodes is in the result's `optimized`."""
        reports = self.prepared.reports
        return tuple(
            f"{r.name}: {len(r.changed)} change{'s' * (len(r.changed) > 1)}"
            for r in reports
            if r.changed
        )


def quantized_as(work: Work, precision: str) -> Quantized | None:
    """The plan of a precision; None for fp32, which has none."""
    from edgeq.api import acts, half

    if precision == "fp16":
        return half.quantize(work)
    if precision == "int8" and work.keeps_integers:
        return own_integers(work)
    return acts.quantize(work) if precision == "int8" else None


def own_integers(work: Work) -> Quantized:
    """The plan that the source came with."""
    plan = work.prepared.own_plan
    assert plan is not None
    with work.stage("Quantized") as stage:
        subject, left = quantized_text(plan)
        stage.done(subject, f"{left}, the source's own integers")
    return Quantized(plan, (), None)


LEFT_TO_DYNAMIC = "left to dynamic int8"
"""Why the static half of a mixed plan leaves a layer alone."""


def quantized_text(plan: QuantPlan) -> tuple[str, str]:
    """What the stage's line says: operators in int8 per type, and how many are left in float."""
    counts = plan.counts()
    words = {
        "int8": "",
        "dynamic-int8": " dynamic",
        "dynamic-int4": " dynamic on int4 weights",
        "int8-weights": " by weights alone",
    }
    kinds = (
        f"{count} {op}{word}" for name, word in words.items() for op, count in counts[name].items()
    )
    later = sum(op.reason == LEFT_TO_DYNAMIC for op in plan.ops.values())
    left = f"{sum(counts['float32'].values()) - later} left in float"
    return ", ".join(kinds), f"{left}, {later} to dynamic int8" if later else left


def attempt(work: Work, precision: str, evaluation: Evaluated | None) -> Candidate:
    """Build one precision, check it against the float model and measure what was asked."""
    quantized = quantized_as(work, precision)
    if not work.tap.kept:
        work.tap.keep()
    model = written(work, quantized)
    if quantized is not None and quantized.left_float:
        precision = "fp32"
    shipped = ship(work, model, quantized)
    artifact = shipped.artifact
    work.notes.extend(emulation.note(work, precision))
    core = emulation.core(work, precision)
    with work.stage("Checked") as stage:
        fidelity, coverage = check(work, model, quantized, measured=shipped.measured, core=core)
        stage.done(*_checked_text(fidelity))
    metrics = evaluation.compare(shipped.measured, core=core) if evaluation else ()
    gate = judge(work, metrics, file_bytes(artifact))
    warnings = _warnings(work, precision, file_bytes(artifact), fidelity, bool(metrics), quantized)
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
        shipped=shipped,
    )


def graph_of(work: Work, quantized: Quantized | None) -> Graph:
    """The float graph that an artifact is written of: transformed, or the optimized one."""
    own = None if quantized is None else quantized.graph
    return own or work.prepared.graph


def written(work: Work, quantized: Quantized | None) -> bytes:
    """The artifact's bytes. Where everything stayed float an ONNX artifact is the model as it was
    read: its outputs are float's bit for bit, which those of an optimized graph need not be."""
    if work.is_tflite:
        from edgeq.api import tflite

        return tflite.write(work, quantized)
    if quantized is not None and quantized.left_float:
        return work.prepared.source_bytes
    return made(work, quantized)


def made(work: Work, quantized: Quantized | None) -> bytes:
    """The file of a graph and its plan, for the engine of `work`; nothing is told or tried."""
    if work.is_tflite:
        from edgeq.api import tflite

        return tflite.made(work, quantized)
    writer = registry.resolve("writers", "onnx")
    artifact: bytes = writer(
        graph_of(work, quantized),
        quantized.plan if quantized else None,
        activation_dtype=work.engine.activation_dtype,
    )
    return artifact


def counts(work: Work, quantized: Quantized | None) -> dict[str, dict[str, int]]:
    """Operators per precision, as planned: precision -> op type -> how many."""
    if quantized is not None:
        return {name: kinds for name, kinds in quantized.plan.counts().items() if kinds}
    kinds = Counter(node.op_type for node in work.prepared.graph.nodes())
    return {"float32": dict(sorted(kinds.items()))}


def left_in_float(quantized: Quantized | None) -> tuple[LeftInFloat, ...]:
    """Every operator a lower-precision plan leaves in float for a reason, with it."""
    if quantized is None:
        return ()
    return tuple(
        LeftInFloat(name, op.op_type, op.reason)
        for name, op in quantized.plan.ops.items()
        if op.precision == "float32" and op.reason
    )


def check(
    work: Work,
    artifact: bytes,
    quantized: Quantized | None,
    *,
    measured: bytes | None = None,
    core: str = "",
) -> tuple[Fidelity, dict[str, Any] | None]:
    """Run the artifact beside the float model on the kept samples; count what the engine fused.

    `measured` is what is run of it, where it is another form of the same graph; `core` is the one
    to emulate, where that is not this host's.
    """
    from edgeq.quant.fidelity import worst

    outputs, mode = _compare_outputs(work, measured or artifact, core)
    layers: tuple[Difference, ...] = ()
    if quantized is not None and quantized.observed:
        layers = _compare_layers(work, quantized)
    fidelity = Fidelity(
        outputs=tuple(_tensor_error(d) for d in outputs.differences() if d.comparable),
        incomparable=tuple(d.name for d in outputs.differences() if not d.comparable),
        worst=tuple(_tensor_error(d) for d in worst(layers)),
        layers=tuple(_tensor_error(d) for d in layers if d.comparable),
        samples=outputs.samples,
        source=work.tap.name,
        mode=mode,
        reference=work.prepared.name if work.keeps_integers else "float",
    )
    return fidelity, _coverage(work, artifact, quantized)


def _coverage(work: Work, artifact: bytes, quantized: Quantized | None) -> dict[str, Any] | None:
    if quantized is None or not quantized.plan.computes_int8:
        return None
    if work.is_tflite:
        from edgeq.api import tflite

        return tflite.coverage(work, artifact, quantized)
    from edgeq.quant.hints import hints, reasons

    graph, plan = quantized.graph or work.prepared.graph, quantized.plan
    signed = work.engine.activation_dtype == "int8"
    counted = measure_coverage(artifact, signed=signed, reasons=reasons(graph, plan))
    counted["hints"] = list(hints(graph, plan, work.engine.widths))
    return counted


def _tensor_error(difference: Difference) -> TensorError:
    return TensorError(
        difference.name,
        difference.sqnr_db,
        difference.max_abs_error,
        difference.equal_share,
    )


def _compare_outputs(work: Work, artifact: bytes, core: str = "") -> tuple[Comparison, str]:
    """The artifact against the reference, on the kept samples."""
    from edgeq.quant.fidelity import Comparison

    comparison = Comparison()
    source = open_as_float(work.reference)
    _require_repeatable(source, work.tap.kept[0])
    wanted: Iterator[dict[str, Any]] = (source.run(dict(sample)) for sample in work.tap.kept)
    if isinstance(artifact, ModelBytes):  # one such model at a time is all that memory need hold
        wanted = iter(list(wanted))
        source.close()
    session = open_as_float(artifact)
    run = session.run
    if core:
        run = emulation.Replay(emulation.outputs(artifact, list(work.tap.kept), core)).run
    for sample, expected in zip(work.tap.kept, wanted, strict=True):
        _require_finite(work, expected)
        comparison.add(expected, run(dict(sample)))
    mode = f"emulated {core}" if core else session.mode
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

    graph = graph_of(work, quantized)
    inputs = {info.name for info in graph.inputs}
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


def measure_coverage(
    artifact: bytes, *, signed: bool, reasons: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """What the engine really runs in int8, from the optimized model it saves itself.

    `signed` has this host's engine fuse int8 activations as its ARM builds do by default;
    `reasons` (node -> words) are the plan's, for ops it leaves in float.
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
        counted = coverage(path.read_bytes(), reasons or {})
    return {
        "engine": ENGINE,
        "on": "this host, fusing as on ARM" if signed else "this host",
        "int8": dict(counted.int8),
        "float32": dict(counted.float),
        "quantize_linear": counted.q,
        "dequantize_linear": counted.dq,
        "lines": list(counted.lines),
        "pairs": list(counted.pairs),
    }


def _checked_text(fidelity: Fidelity) -> tuple[str, str]:
    subject = on_samples(fidelity.samples)
    if fidelity.worst:
        layer = fidelity.worst[0]
        return subject, f"worst layer: {name_text(layer.name)} (SQNR {layer.sqnr_db:.1f} dB)"
    if not fidelity.outputs:
        return subject, "no output can be compared"
    noisy = [e for e in fidelity.outputs if e.sqnr_db is not None]
    if not noisy:
        whose = "the float model" if fidelity.reference == "float" else fidelity.reference
        return subject, f"outputs equal to {whose}'s"
    lowest = min(noisy, key=lambda e: e.sqnr_db or 0.0)
    return subject, f"output {name_text(lowest.name)}: SQNR {lowest.sqnr_db:.1f} dB"


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
    work: Work,
    precision: str,
    size_bytes: int,
    fidelity: Fidelity,
    measured: bool,
    quantized: Quantized | None,
) -> tuple[str, ...]:
    found = [] if quantized is None else [quantized.left_float, *quantized.warnings]
    found = [text for text in found if text]
    if precision == "fp32" and work.prepared.own_plan is not None:
        found.append(
            f"{work.prepared.name} is int8: as floats it is no closer to the model that it was "
            "made of, for what was rounded away is not in it"
        )
    float_bytes = file_bytes(work.prepared.float_bytes)
    if precision != "fp32" and size_bytes >= float_bytes:
        found.append(
            f"the {precision} artifact is no smaller than float: {size_bytes} bytes against "
            f"{float_bytes}"
        )
    if quantized is not None and quantized.calibration is not None and not work.calibrated:
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
    """The user's evaluation, scored once on the reference and once on each artifact."""

    work: Work
    evaluation: Any
    _reference_scores: Any = None

    def compare(self, artifact: bytes, *, core: str = "") -> tuple[Quality, ...]:
        """Metrics of `artifact` beside the reference's; on an emulated `core` if one is named."""
        from edgeq.quality import compare

        with self.work.stage("Evaluated") as stage:
            if self._reference_scores is None:
                self._reference_scores = self._score(self.work.reference)
            if core:
                scores = emulation.score(self.evaluation, artifact, core)
            else:
                scores = self._score(artifact)
            qualities = compare(self._reference_scores, scores)
            n = qualities[0].n if qualities else None
            stage.done(
                on_samples(n) if n else "by the evaluation function",
                ", ".join(q.metric for q in qualities),
            )
        return tuple(qualities)

    def _score(self, model: bytes) -> Any:
        session = open_as_float(model)
        try:
            return self.evaluation.score(session.run)
        finally:
            session.close()
