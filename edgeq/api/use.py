"""`run`, `evaluate` and `verify`: what is done with a bundle or a float model that exists."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeq.api import models
from edgeq.api.border import PLAIN, Border, as_float, borders
from edgeq.api.progress import Stage, on_samples
from edgeq.errors import EdgeqError
from edgeq.report.events import Note, Progress, StageProgress, Warned, silent
from edgeq.report.results import Evaluation, Ran, Verified

if TYPE_CHECKING:
    import numpy as np

    from edgeq.quality import Quality, Rule
    from edgeq_runtime import Runner, TensorInfo
    from edgeq_runtime.golden import GoldenInput
    from edgeq_runtime.manifest import Manifest
    from edgeq_runtime.preprocess import InputSpec
    from edgeq_runtime.tflite import Model

    Arrays = dict[str, np.ndarray[Any, Any]]


@dataclass(frozen=True)
class Opened:
    """A bundle or a model, ready to run on this host.

    `recorded` are the metrics with a float figure in a bundle's manifest, None for a model.
    `format` is that of `artifact()`, the file that the session runs; `ends` is how its inputs and
    outputs lie in it, where the session makes floats of them. A bundle has a `precision`,
    and `ranges` and `shapes` that its inputs were calibrated with, where there are golden vectors.
    """

    name: str
    size_bytes: int
    inputs: Sequence[TensorInfo]
    outputs: Sequence[TensorInfo]
    specs: Mapping[str, Any]
    labels: Sequence[str] | None
    session: Any
    warnings: tuple[str, ...]
    notes: tuple[str, ...]
    recorded: tuple[Mapping[str, Any], ...] | None
    precision: str | None
    format: str
    artifact: Callable[[], bytes]
    ranges: Mapping[str, tuple[float, float]]
    shapes: Mapping[str, tuple[int, ...]]
    ends: Mapping[str, Border] = field(default_factory=dict)

    @property
    def engine(self) -> str:
        return f"{self.session.engine} {self.session.version}"


@contextmanager
def opened(
    artifact: str | Path, tables: Mapping[str, Any] | None = None, *, exact: bool
) -> Iterator[Opened]:
    """Open a bundle, or any model edgeq reads; closed on leaving.

    `tables` are `[input.NAME]` for a model; a bundle brings its own. `exact` asks for the same
    integers on every host, and for floats in and out where the file holds codes or other axes;
    without it a bundle or a TFLite file runs as an app would run it.
    """
    path = Path(artifact)
    if is_bundle(path):
        value = _open_bundle(path, exact)
    elif models.is_tflite(path):
        value = _open_tflite(path, tables or {}, exact)
    else:
        value = _open_model(path, tables or {})
    try:
        yield value
    finally:
        value.session.close()


def is_bundle(path: Path) -> bool:
    """Whether `path` is meant as a bundle: a folder, or a file that begins as a zip does."""
    if path.is_dir():
        return True
    if not path.is_file():  # a named pipe would be waited for
        return path.suffix == ".edgeq"
    try:
        with path.open("rb") as file:
            return file.read(4) == b"PK\x03\x04"
    except OSError:
        return path.suffix == ".edgeq"


def _open_bundle(path: Path, exact: bool) -> Opened:
    import edgeq_runtime
    from edgeq_runtime import reader

    runner = edgeq_runtime.load(path, exact=exact)
    drawn = [row for vector in runner.manifest.golden.vectors[:1] for row in vector.inputs]
    ends = borders(reader.read(path).artifact) if exact and _is_changed(runner) else {}
    session = as_float(runner.session, ends)
    changed = session is not runner.session
    return Opened(
        name=path.name,
        size_bytes=_model_bytes(runner.manifest),
        inputs=session.inputs if changed else runner.inputs,
        outputs=session.outputs if changed else runner.outputs,
        specs=_as_source(runner.manifest.input_specs, ends),
        labels=runner.manifest.labels,
        session=session,
        warnings=runner.warnings,
        notes=_border_notes(ends),
        recorded=_recorded(runner.manifest.raw["quality"]),
        precision=runner.manifest.precision,
        format=runner.manifest.artifact_format,
        artifact=lambda: reader.read(path).artifact,
        ranges={row.name: _values(ends, row) for row in drawn},
        shapes={row.name: _axes(ends, row) for row in drawn},
        ends=ends,
    )


def _as_source(specs: Mapping[str, InputSpec], ends: Mapping[str, Border]) -> dict[str, InputSpec]:
    """`specs` for the axes of the float model, where the session turns them."""
    return {
        name: replace(spec, layout="nchw") if ends.get(name, PLAIN).channels_last else spec
        for name, spec in specs.items()
    }


def _is_changed(runner: Runner) -> bool:
    """Whether an artifact may hold codes or other axes at its border."""
    return runner.manifest.artifact_format == "tflite"


def _values(ends: Mapping[str, Border], drawn: GoldenInput) -> tuple[float, float]:
    """The range of golden inputs as the float model counts it."""
    import numpy as np

    border = ends.get(drawn.name, PLAIN)
    if border.scale is None:
        return drawn.low, drawn.high
    low, high = replace(border, channels_last=False).values(np.array([drawn.low, drawn.high]))
    return float(low), float(high)


def _axes(ends: Mapping[str, Border], drawn: GoldenInput) -> tuple[int, ...]:
    shape = drawn.shape
    if ends.get(drawn.name, PLAIN).channels_last:
        return (shape[0], shape[-1], *shape[1:-1])
    return shape


def _border_notes(ends: Mapping[str, Border]) -> tuple[str, ...]:
    """What is turned into floats, or about, for the float model's data and functions."""
    codes = [f"`{name}` ({each.dtype})" for name, each in ends.items() if each.scale is not None]
    turned = [f"`{name}`" for name, each in ends.items() if each.channels_last]
    notes = []
    if codes:
        notes.append(f"floats are quantized and restored at the border: {', '.join(codes)}")
    if turned:
        notes.append(f"channels are moved last and back at the border: {', '.join(turned)}")
    return tuple(notes)


def _open_tflite(path: Path, tables: Mapping[str, Any], exact: bool) -> Opened:
    """The file itself, run by LiteRT after our own check of its bytes and a trial in a child."""
    from edgeq_converters.read.files import read_bounded
    from edgeq_converters.read.tflite import parse
    from edgeq_runtime.preprocess import InputSpec

    model = bytes(read_bounded(path))
    parsed = parse(model, path.name)
    models.probe(model)
    session: Any = models.open_exact(model) if exact else models.open_default(model)
    ends = borders(model) if exact else {}
    session = as_float(session, ends)
    return Opened(
        name=path.name,
        size_bytes=len(model),
        inputs=session.inputs,
        outputs=session.outputs,
        specs={name: InputSpec.from_table(name, table) for name, table in tables.items()},
        labels=None,
        session=session,
        warnings=(),
        notes=_border_notes(ends),
        recorded=() if is_quantized(parsed) else None,
        precision=None,
        format="tflite",
        artifact=lambda: model,
        ranges={},
        shapes={},
        ends=ends,
    )


def is_quantized(model: Model) -> bool:
    """Whether any operator computes with integers on a grid: the file is no float model."""
    return any(
        tensor.dtype in ("int8", "uint8", "int16", "int4") and tensor.quantization is not None
        for graph in model.subgraphs
        for tensor in graph.tensors
    )


def _model_bytes(manifest: Manifest) -> int:
    """The artifact and, where they lie beside it, its weights."""
    names = {manifest.artifact, manifest.weights or manifest.artifact}
    return sum(manifest.files[name].size for name in names)


def _open_model(path: Path, tables: Mapping[str, Any]) -> Opened:
    from edgeq_runtime.preprocess import InputSpec

    read = models.read_model(path, {})
    model = models.write_model(read.graph)
    models.probe(model)
    return Opened(
        name=path.name,
        size_bytes=read.size_bytes,
        inputs=read.graph.inputs,
        outputs=read.graph.outputs,
        specs={name: InputSpec.from_table(name, table) for name, table in tables.items()},
        labels=None,
        session=models.open_exact(model),
        warnings=(),
        notes=read.notes,
        recorded=None,
        precision=None,
        format="onnx",
        artifact=lambda: model,
        ranges={},
        shapes={},
    )


def _recorded(quality: object) -> tuple[Mapping[str, Any], ...]:
    """What a manifest says was measured, where a float figure is with it; the field is free."""
    found = (
        [item for item in quality if isinstance(item, dict)] if isinstance(quality, list) else []
    )
    return tuple(
        item
        for item in found
        if isinstance(item.get("metric"), str)
        and type(item.get("baseline")) in (int, float)
        and isfinite(item["baseline"])
    )


def run(
    artifact: str | Path,
    *,
    data: Any,
    out: str | Path | None = None,
    topk: int | None = None,
    samples: int | None = None,
    input: Mapping[str, Any] | None = None,
    progress: Progress = silent,
) -> Ran:
    """Run every sample of `data`; save outputs to `out` (npz), summarise them, pick the best."""
    saved = None if out is None else _npz_path(Path(out))
    with opened(artifact, input, exact=False) as model:
        source, session, changed = _fed(model, data, samples)
        collected: dict[str, list[np.ndarray[Any, Any]]] = {o.name: [] for o in model.outputs}
        with Stage("Ran", progress) as stage:
            count = 0
            for sample in source:
                for name, array in session.run(dict(sample)).items():
                    collected[name].append(array)
                count += 1
                progress(StageProgress("Ran", count, source.count))
            count *= source.group
            stage.done(f"{count} samples", model.name)
        notes = (*model.notes, *changed, *source.notes)
        _tell(progress, notes, model.warnings)
        stacked = _stack(collected)
        return Ran(
            artifact=model.name,
            samples=count,
            outputs=tuple(_summary(name, array) for name, array in stacked.items()),
            top=_best(stacked, topk, model.labels),
            out=None if saved is None else _save(saved, stacked),
            engine=model.engine,
            kernels=model.session.mode,
            warnings=model.warnings,
            notes=notes,
            names=source.names,
        )


def _fed(model: Opened, data: Any, limit: int | None) -> tuple[Any, Any, tuple[str, ...]]:
    """Samples for a model as it is, its session and notes; where they do not fit but would fit the
    float model that it is of (floats for codes, channels first), both as that model has them."""
    from edgeq.data import open_source

    try:
        source = open_source(data, inputs=model.inputs, specs=model.specs, limit=limit)
    except EdgeqError as error:
        is_border = error.slug == "data-mismatch" and model.format == "tflite"
        ends = borders(model.artifact()) if is_border else {}
        session = as_float(model.session, ends)
        if session is model.session:
            raise
        specs = _as_source(model.specs, ends)
        try:
            source = open_source(data, inputs=session.inputs, specs=specs, limit=limit)
        except EdgeqError:
            raise error from None
        return source, session, _border_notes(ends)
    return source, model.session, ()


def _labels(file: str | Path | None) -> Sequence[str] | None:
    from edgeq.api.pack import read_labels

    return None if file is None else read_labels(Path(file))


def _stack(collected: Mapping[str, list[np.ndarray[Any, Any]]]) -> Arrays:
    """One array a name: joined on the first axis; `name.0`, `name.1` ... where shapes differ."""
    import numpy as np

    stacked: Arrays = {}
    for name, arrays in collected.items():
        if not arrays:
            continue
        if len({array.shape[1:] for array in arrays}) == 1 and arrays[0].ndim:
            stacked[name] = np.concatenate(arrays)
        elif len({array.shape for array in arrays}) == 1:
            stacked[name] = np.stack(arrays)
        else:
            stacked.update({f"{name}.{index}": array for index, array in enumerate(arrays)})
    return stacked


def _summary(name: str, array: np.ndarray[Any, Any]) -> dict[str, Any]:
    summary: dict[str, Any] = {
        "name": name,
        "dtype": array.dtype.name,
        "shape": list(array.shape),
        "minimum": None,
        "maximum": None,
        "mean": None,
    }
    if array.size and array.dtype.kind in "fiu":
        summary["minimum"] = float(array.min())
        summary["maximum"] = float(array.max())
        summary["mean"] = float(array.mean(dtype="float64"))
    return summary


def _best(
    stacked: Arrays, topk: int | None, labels: Sequence[str] | None
) -> tuple[tuple[tuple[int, str | None, float], ...], ...]:
    """The `topk` largest scores of the first output, per sample; () where none were asked."""
    import numpy as np

    if topk is None or not stacked:
        return ()
    name, scores = next(iter(stacked.items()))
    if scores.ndim < 2 or scores.dtype.kind not in "fiu":
        raise EdgeqError(
            "data-mismatch",
            f"--topk needs scores [samples, classes], output `{name}` is {list(scores.shape)}",
        )
    rows = scores.reshape(len(scores), -1)
    order = np.argsort(-rows.astype(np.float64), axis=1, kind="stable")[:, :topk]
    return tuple(
        tuple(
            (int(i), labels[i] if labels and i < len(labels) else None, float(row[i])) for i in best
        )
        for row, best in zip(rows, order, strict=True)
    )


def _npz_path(out: Path) -> Path:
    """Where the outputs go, refused before any work where no file can be."""
    path = out if out.suffix == ".npz" else out.with_name(out.name + ".npz")
    if out.is_dir() or (path.exists() and not path.is_file()) or not path.parent.is_dir():
        raise EdgeqError("no-such-folder", f"`{path}` is not a file that can be written")
    return path


def _save(path: Path, arrays: Arrays) -> str:
    """Write an npz beside its final name and rename it, so that no half file is left."""
    import numpy as np

    plain = {
        name: array.astype(np.str_) if array.dtype == object else array
        for name, array in arrays.items()
    }
    partial = path.with_name(f".{path.name}.edgeq-partial")
    partial.unlink(missing_ok=True)
    try:
        with partial.open("xb") as file:
            np.savez(file, allow_pickle=False, **plain)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    return str(path)


def evaluate(
    artifact: str | Path,
    *,
    evaluate: Any,
    metric: str | None = None,
    gate: str | Sequence[str] | None = None,
    standing_gate: bool = False,
    input: Mapping[str, Any] | None = None,
    labels: str | Path | None = None,
    progress: Progress = silent,
) -> Evaluation:
    """Measure a bundle's (or a float model's) quality with exact kernels, and apply the gate.

    `labels`: a file of class names for a model; a bundle brings its own, if it has any.

    `standing_gate`: the gate was not written for this call (but for every one, in edgeq.toml); a
    rule of it that cannot be measured here is left out, and a note says so.
    """
    from edgeq.quality import check_gate, compare, open_evaluation, parse_gate

    gated = Gated(parse_gate(gate or ()), standing_gate)
    with opened(artifact, input, exact=True) as model:
        evaluation = open_evaluation(
            evaluate,
            metric=metric,
            inputs=model.inputs,
            specs=model.specs,
            labels=_labels(labels) or model.labels,
        )
        gated = gated.before(evaluation.metrics, evaluation.samples, model.recorded)
        with Stage("Evaluated", progress) as stage:
            scored = compare(None, evaluation.score(model.session.run))
            n = scored[0].n if scored else None
            stage.done(on_samples(n) if n else "by the function", model.name)
        qualities = tuple(_with_baseline(quality, model.recorded) for quality in scored)
        gated = gated.after(qualities)
        measured: dict[str, Any] = {quality.metric: quality for quality in qualities}
        measured["size"] = model.size_bytes
        verdict = check_gate(gated.rules, measured) if gated.rules else None
        notes = (*model.notes, *evaluation.notes, *gated.notes)
        _tell(progress, notes, model.warnings)
        return Evaluation(
            artifact=model.name,
            metrics=tuple(quality.to_json() for quality in qualities),
            gate=None if verdict is None else verdict.to_json(),
            engine=model.engine,
            kernels=model.session.mode,
            warnings=model.warnings,
            notes=notes,
        )


@dataclass(frozen=True)
class Gated:
    """The rules to hold; a standing gate loses those that cannot be measured, to `notes`."""

    rules: tuple[Rule, ...]
    standing: bool
    notes: tuple[str, ...] = ()

    def before(
        self,
        metrics: Sequence[str] | None,
        samples: int | None,
        recorded: Sequence[Mapping[str, Any]] | None,
    ) -> Gated:
        """Refuse what will not be measured; of a function's metrics only the records are known."""
        baselines = None
        if recorded is not None:
            baselines = [
                item["metric"] for item in recorded if metrics is None or item.get("n") == samples
            ]
        return self._checked(metrics, baselines)

    def after(self, qualities: Sequence[Quality]) -> Gated:
        """Refuse what was not measured: a function's metrics and samples are known now."""
        known = [quality.metric for quality in qualities if quality.baseline is not None]
        return self._checked([quality.metric for quality in qualities], known)

    def _checked(self, metrics: Sequence[str] | None, baselines: Sequence[str] | None) -> Gated:
        from edgeq.quality import check_names

        kept: list[Rule] = []
        notes = list(self.notes)
        for rule in self.rules:
            try:
                check_names((rule,), metrics, baselines=baselines)
                kept.append(rule)
            except EdgeqError as error:
                if not self.standing or error.slug != "gate-not-measurable":
                    raise
                notes.append(f"{error.message}; left out")
        return replace(self, rules=tuple(kept), notes=tuple(notes))


def _with_baseline(quality: Quality, recorded: Sequence[Mapping[str, Any]] | None) -> Quality:
    """The float figure beside a value: a float model's is its own, a bundle's the recorded one of
    the same metric over as many samples."""
    if recorded is None:
        return replace(quality, baseline=quality.value, recorded="its own as the float model")
    for item in recorded:
        if (item["metric"], item.get("n")) == (quality.metric, quality.n):
            return replace(
                quality,
                baseline=float(item["baseline"]),
                recorded="the float figure that the bundle records",
            )
    return quality


def verify(bundle: str | Path, *, progress: Progress = silent) -> Verified:
    """Check every byte of a bundle and run its golden vectors with exact kernels."""
    import edgeq_runtime

    path = Path(bundle)
    with Stage("Verified", progress) as stage:
        found = edgeq_runtime.verify(path)
        stage.done(path.name, f"{found.vectors} golden vectors")
    _tell(progress, (), found.warnings)
    return Verified(
        bundle=path.name,
        passed=found.passed,
        vectors=found.vectors,
        outputs=tuple(check.to_json() for check in found.outputs),
        engine=f"{found.engine} {found.engine_version}",
        kernels=found.mode,
        host=found.host,
        target=found.target,
        on_target=found.on_target,
        digest=found.digest,
        warnings=found.warnings,
    )


def _tell(progress: Progress, notes: Sequence[str], warnings: Sequence[str]) -> None:
    for note in notes:
        progress(Note(note))
    for warning in warnings:
        progress(Warned(warning))
