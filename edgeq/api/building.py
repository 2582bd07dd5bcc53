"""`build` and `plan`: from a model file to a checked, packed artifact for one target."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeq import registry
from edgeq.api import asked, models
from edgeq.api.forms import Form, forms
from edgeq.api.progress import Stage
from edgeq.api.samples import SEED, SYNTHETIC, Tap
from edgeq.config import AUTO
from edgeq.errors import EdgeqError
from edgeq.report.events import Note, Progress, Warned, silent
from edgeq.report.results import Artifact, Build, Planned

if TYPE_CHECKING:
    from edgeq.api.choosing import Chosen
    from edgeq.api.formats import Shipped
    from edgeq.api.stages import Evaluated, Work
    from edgeq.config import BuildSettings
    from edgeq.quality import Rule
    from edgeq.targets import Target


@dataclass(frozen=True)
class Request:
    """What is to be built: the settings, and data and evaluation as given (a path or an object)."""

    settings: BuildSettings
    data: Any
    evaluate: Any

    @property
    def has_data(self) -> bool:
        return self.data is not None or self.settings.synthetic_data


def build(request: Request, progress: Progress = silent) -> Build:
    """Carry out `request`; the story goes to `progress`, the result is returned."""
    from edgeq.api import choosing

    settings = request.settings
    target = _target(settings)
    wanted = forms(settings, target)
    source = _read_integers(settings, progress)
    rungs = asked.rungs(request, has_plan=_has_plan(source))
    for precision in rungs:
        _require_writable(_out_path(settings, precision), settings)
    work, evaluation = _prepare(request, target, wanted, source, rungs, progress)
    _tell_assumptions(settings, rungs, work)
    chosen = choosing.attempt(work, wanted, rungs[0], evaluation)
    for precision in rungs[1:]:
        if chosen.candidate.outcome == "built":
            break
        failed = chosen.candidate.precision
        work.notes.append(f"{failed} did not pass its gate, so {precision} was built")
        chosen = choosing.attempt(work, wanted, precision, evaluation)
    if chosen.candidate.precision not in rungs:
        _require_writable(_out_path(settings, chosen.candidate.precision), settings)
    return _finish(chosen, progress)


def plan(request: Request, progress: Progress = silent) -> Planned:
    """Make the plan `build` would carry out, with its numbers, and write nothing."""
    from edgeq.api.stages import counts, left_in_float, quantized_as

    target = _target(request.settings)
    wanted = forms(request.settings, target)
    source = _read_integers(request.settings, progress)
    rungs = asked.rungs(request, has_plan=_has_plan(source))
    precision = rungs[0]
    ungated = dataclasses.replace(request.settings, gate=())  # nothing is measured: no gate either
    request = dataclasses.replace(request, settings=ungated, evaluate=None)
    work, _ = _prepare(request, target, wanted, source, rungs, progress)
    _tell_assumptions(request.settings, (precision,), work)
    if len(wanted) > 1:
        work.notes.append(f"the plan is that for {wanted[0].engine}: nothing is measured here")
    quantized = quantized_as(work, precision)
    work.notes.extend((*(quantized.plan.notes if quantized else ()), *work.tap.told()))
    warnings = (quantized.left_float,) if quantized and quantized.left_float else ()
    _tell(work, warnings, progress)
    return Planned(
        model=work.prepared.summary(),
        target=target.name,
        precision=precision,
        plan={} if quantized is None else quantized.plan.to_json(),
        ops=counts(work, quantized),
        left_in_float=left_in_float(quantized),
        calibration=None if quantized is None else quantized.calibration,
        warnings=warnings,
        notes=tuple(work.notes),
        search=None if quantized is None else quantized.search,
    )


def _target(settings: BuildSettings) -> Target:
    from edgeq import targets

    if settings.target is None:
        raise EdgeqError(
            "usage",
            "no target was given",
            "name one: `--target rpi5`",
            "list them: `edgeq targets`",
        )
    return targets.load(settings.target)


def _model_path(settings: BuildSettings) -> Path:
    if settings.model is None:
        raise EdgeqError(
            "usage", "no model was given", "name one: `edgeq build model.onnx --target rpi5`"
        )
    return Path(settings.model)


def _out_path(settings: BuildSettings, precision: str) -> Path:
    if settings.out is not None:
        return Path(settings.out)
    stem = _model_path(settings).stem
    return Path(f"{stem}-{settings.target}-{precision}.edgeq")


def _require_writable(out: Path, settings: BuildSettings) -> None:
    """Tell before the work what would fail after it."""
    from edgeq.bundle import require_replaceable

    if not out.parent.is_dir():
        raise EdgeqError("no-such-folder", f"there is no folder `{out.parent}` to write into")
    require_replaceable(out, force=settings.force)


def _prepare(
    request: Request,
    target: Target,
    wanted: Sequence[Form],
    source: models.Prepared | None,
    rungs: Sequence[str],
    progress: Progress,
) -> tuple[Work, Evaluated | None]:
    """Read, optimize and open everything; `source` is a TFLite model that was read already. One
    whose own integers are kept is not optimized: they belong to its graph as it is."""
    from edgeq.api.pack import read_labels
    from edgeq.api.stages import Work
    from edgeq.quality import check_names, parse_gate

    settings = request.settings
    if settings.algo != AUTO:
        registry.resolve("algorithms", settings.algo)
    labels = None if settings.labels is None else read_labels(Path(settings.labels))
    for form in wanted:
        _require_engine(target, form.engine)
    rules = parse_gate(settings.gate)
    check_names(rules, () if request.evaluate is None else None)
    stage = partial(_stage, progress)
    prepared = source or _read(settings, stage)
    if not (_has_plan(source) and rungs[0] == "int8"):
        prepared = _optimized(prepared, stage)
    tap = _open_data(request, prepared, progress)
    work = Work(
        settings=settings,
        target=target,
        prepared=prepared,
        tap=tap,
        calibrated=request.data is not None,
        has_data=request.has_data,
        labels=labels,
        stage=stage,
        form=wanted[0],
        io=_border(settings, prepared, rungs),
        notes=list(prepared.read.notes),
    )
    return work, None if request.evaluate is None else _evaluated(request.evaluate, work, rules)


def _evaluated(given: Any, work: Work, rules: Sequence[Rule]) -> Evaluated:
    from edgeq.api.stages import Evaluated
    from edgeq.quality import check_names, open_evaluation

    evaluation = open_evaluation(
        given,
        metric=work.settings.metric,
        inputs=work.prepared.graph.inputs,
        specs=input_specs(work.settings),
        labels=work.labels,
    )
    check_names(rules, evaluation.metrics)
    work.notes.extend(evaluation.notes)
    return Evaluated(work, evaluation)


def _require_engine(target: Target, name: str) -> None:
    """The engine here is the one the artifact is measured with, so the target must be able to
    run that very version."""
    from edgeq_runtime import engines

    refusal = target.engine(name).refusal(engines.get(name).version())
    if refusal is not None:
        package = {models.LITERT: "ai-edge-litert"}.get(name, name)
        raise EdgeqError(
            "engine-version",
            f"target {target.name}: {refusal}",
            f'pip install --upgrade "{package}"',
        )


def _border(settings: BuildSettings, source: models.Prepared, rungs: Sequence[str]) -> str:
    """The type of inputs and outputs: as asked for, else as the source has it."""
    if settings.io != AUTO:
        return settings.io
    return source.read.border if rungs[0] == "int8" else "float"


def _stage(progress: Progress, name: str) -> Stage:
    return Stage(name, progress)


def input_specs(settings: BuildSettings) -> dict[str, Any]:
    """The `[input.NAME]` tables as the runtime's preprocessing."""
    from edgeq_runtime.preprocess import InputSpec

    return {name: InputSpec.from_table(name, table) for name, table in settings.input.items()}


def _read_integers(settings: BuildSettings, progress: Progress) -> models.Prepared | None:
    """A TFLite model, read before anything is asked of data: its own integers need none."""
    if settings.model is None or not models.is_tflite(Path(settings.model)):
        return None
    source = _read(settings, partial(_stage, progress))
    if source.own_plan is None:
        return source
    return dataclasses.replace(source, tflite_bytes=_file(Path(settings.model)))


def _file(path: Path) -> bytes:
    """The bytes of a model that an engine is to run, after a trial in a child."""
    from edgeq_converters.read.files import read_bounded

    data = read_bounded(path)
    models.probe(data)
    return data


def _has_plan(source: models.Prepared | None) -> bool:
    return source is not None and source.own_plan is not None


def _read(settings: BuildSettings, stage: Any) -> models.Prepared:
    """The model as its file has it."""
    path = _model_path(settings)
    with stage("Read") as reading:
        read = models.read_model(path, settings.shape)
        source_bytes = models.write_model(read.graph)
        models.probe(source_bytes)
        parameters = f"{_count_text(read.graph.parameter_count)} parameters"
        kind = "TFLite" if models.is_tflite(path) else f"opset {read.source_opset}"
        reading.done(models.text_name(path), f"{kind}, {parameters}")
    return models.Prepared(
        name=models.text_name(path),
        read=read,
        graph=read.graph,
        reports=(),
        source_bytes=source_bytes,
        float_bytes=source_bytes,
    )


def _optimized(source: models.Prepared, stage: Any) -> models.Prepared:
    """After the passes."""
    from edgeq.passes import run_all

    with stage("Optimized") as optimizing:
        graph, reports = run_all(source.graph)
        before, after = len(source.graph.nodes()), len(graph.nodes())
        changes = ", ".join(f"{len(r.changed)} {r.name}" for r in reports if r.changed)
        optimizing.done(f"{before} -> {after} nodes", changes or "nothing to change")
    return dataclasses.replace(
        source, graph=graph, reports=reports, float_bytes=models.write_model(graph)
    )


def _count_text(count: int) -> str:
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return str(count)


def _open_data(request: Request, prepared: models.Prepared, progress: Progress) -> Tap:
    from edgeq.data import open_source, synthetic

    settings, inputs = request.settings, prepared.graph.inputs
    if request.data is not None:
        source = open_source(
            request.data, inputs=inputs, specs=input_specs(settings), limit=settings.samples
        )
        name = _data_name(request.data, source.description)
    else:
        source = synthetic(inputs, settings.samples or SYNTHETIC, SEED, _ranges(prepared))
        name = source.description
    return Tap(source, name, "Calibrated", progress)


def _ranges(prepared: models.Prepared) -> dict[str, tuple[float, float]]:
    """What the integers of a quantized source can say of its inputs."""
    plan = prepared.own_plan
    encodings = {} if plan is None else plan.tensors
    return {
        info.name: (
            (-128 - encoding.zero_point[0]) * encoding.scale[0],
            (127 - encoding.zero_point[0]) * encoding.scale[0],
        )
        for info in prepared.graph.inputs
        if (encoding := encodings.get(info.name)) is not None and len(encoding.scale) == 1
    }


def _data_name(data: Any, description: str) -> str:
    """What results call the data: a file's own name, never its folder, so that builds repeat."""
    return models.text_name(Path(data)) if isinstance(data, str | Path) else description


def _tell_assumptions(settings: BuildSettings, rungs: Sequence[str], work: Work) -> None:
    work.notes.extend(_integers_kept(settings, rungs, work))
    if settings.precision == "auto":
        work.notes.append(f"assumed precision {rungs[0]}: {_assumption(settings, rungs, work)}")
    if work.keeps_integers:
        return
    acts = asked.acts(settings, has_data=work.has_data)
    if acts != settings.acts:
        work.notes.append(f"assumed --acts {acts}: {asked.why_dynamic(settings)}")
    if rungs[0] == "int8" and not work.calibrated and acts not in asked.NO_DATA:
        work.notes.append("calibration data is synthetic: every figure is not calibrated")


def _integers_kept(settings: BuildSettings, rungs: Sequence[str], work: Work) -> Iterator[str]:
    """What becomes of a model that was quantized before it came here."""
    plan, own = work.prepared.read.plan, work.prepared.own_plan
    if plan is not None and own is None:
        stored = sum(encoding.dtype == "int8" for encoding in plan.tensors.values())
        if stored:
            yield f"the file stores {stored} weights in int8; they are what they stand for, floats"
    if own is None or rungs[0] != "int8":
        return
    yield f"{work.prepared.name} is int8: its own integers are kept, nothing is calibrated"
    if settings.io == AUTO and work.prepared.read.border == "int8":
        kept = "stay int8, as the source has them; `--io float` changes that"
        changed = "are float: an ONNX file of it quantizes them itself"
        yield f"inputs and outputs {kept if work.is_tflite else changed}"


def _assumption(settings: BuildSettings, rungs: Sequence[str], work: Work) -> str:
    if work.keeps_integers:
        return "the model is int8"
    if asked.names_int8(settings):
        return f"`{asked.reason(settings)}` was given"
    if rungs[0] != "int8":
        return "no calibration data was given"
    given = "calibration data was given" if work.calibrated else "synthetic data was asked for"
    return f"{given}; fp32 if its gate fails"


def _tell(work: Work, warnings: Sequence[str], progress: Progress) -> None:
    for note in work.notes:
        progress(Note(note))
    for warning in warnings:
        progress(Warned(warning))


def _finish(chosen: Chosen, progress: Progress) -> Build:
    from edgeq.api.pack import pack
    from edgeq.api.timing import compared_with_float

    work, candidate = chosen.work, chosen.candidate
    work.notes.extend((*candidate.notes, *work.tap.told()))
    warnings = (*candidate.warnings, *compared_with_float(work, candidate))
    keep = candidate.outcome == "built" or not work.settings.strict
    written = pack(work, candidate, _out_path(work.settings, candidate.precision)) if keep else None
    _tell(work, warnings, progress)
    quantized = candidate.quantized
    artifacts = (_artifact(candidate.shipped),) if written is None else written.artifacts
    return Build(
        bundle=None if written is None else str(written.path),
        model=work.prepared.summary(),
        target=work.target.name,
        precision=candidate.precision,
        outcome=candidate.outcome,
        artifacts=artifacts,
        size_bytes=sum(artifact.size_bytes for artifact in artifacts),
        float_size_bytes=work.reference_size,
        optimized=_passes(work),
        ops=candidate.ops,
        left_in_float=candidate.left_in_float,
        coverage=candidate.coverage,
        calibration=None if quantized is None else quantized.calibration,
        fidelity=candidate.fidelity,
        metrics=tuple(quality.to_json() for quality in candidate.metrics),
        gate=None if candidate.gate is None else candidate.gate.to_json(),
        golden={} if written is None else written.golden,
        warnings=warnings,
        notes=tuple(work.notes),
        digest=None if written is None else written.digest,
        search=None if quantized is None else quantized.search,
        candidates=chosen.table,
    )


def _passes(work: Work) -> tuple[dict[str, Any], ...]:
    """What each pass changed, and what it would not and why."""
    return tuple(
        {"pass": r.name, "changed": list(r.changed), "refused": [list(x) for x in r.refused]}
        for r in work.prepared.reports
    )


def _artifact(shipped: Shipped) -> Artifact:
    from edgeq.api.formats import FILES

    model = shipped.artifact
    digest = hashlib.sha256(model).hexdigest()
    return Artifact(FILES[shipped.format], shipped.format, len(model), digest)
