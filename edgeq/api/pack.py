"""Pack a candidate: card, manifest and golden vectors, checked by the runtime before writing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeq.api.border import PLAIN, Border, borders
from edgeq.api.formats import FILES
from edgeq.api.models import open_exact, text_name
from edgeq.api.planned import MAKES, SQNR, recorded_errors
from edgeq.bundle import WEIGHTS_FILE
from edgeq.errors import EdgeqError
from edgeq.report.card import CardFacts, card, megabytes
from edgeq.report.examination import shape_text
from edgeq.report.results import Artifact
from edgeq_runtime import archive
from edgeq_runtime import manifest as manifests
from edgeq_runtime.outside import ModelBytes, file_bytes

if TYPE_CHECKING:
    from edgeq.api.forms import Form
    from edgeq.api.stages import Candidate, Work
    from edgeq.bundle import BundleContents
    from edgeq.ir import Graph
    from edgeq.quant.plan import QuantPlan
    from edgeq.targets import Target
    from edgeq_converters.write.outside import Gathered
    from edgeq_runtime import TensorInfo
    from edgeq_runtime.engines.onnxruntime import Session
    from edgeq_runtime.golden import OutputCheck
    from edgeq_runtime.manifest import Manifest
    from edgeq_runtime.preprocess import InputSpec
    from edgeq_runtime.reader import Bundle

MAX_LABELS_BYTES = 1 << 20

BESIDE_MINIMUM = "1.21.0"
"""The first ONNX Runtime that finds weights beside a model in memory; 1.20.1 does not, measured."""


@dataclass(frozen=True)
class Packed:
    """Where the bundle is, its digest, its model files, and what its golden vectors compare."""

    path: Path
    digest: str
    artifacts: tuple[Artifact, ...]
    golden: dict[str, Any]


def pack(work: Work, candidate: Candidate, out: Path) -> Packed:
    """Assemble the bundle, read it back and run its golden vectors, then write it at `out`."""
    from edgeq import bundle
    from edgeq_runtime import reader

    weights = _beside(work, candidate)
    with work.stage("Packed") as stage:
        session = open_exact(candidate.shipped.measured)
        contents = _contents(work, candidate, weights, session)
        files = bundle.assemble(contents, session.run)
        checks: list[OutputCheck] = []
        if weights is None:
            checks += _repeated(reader.read(files), session)
        session.close()

        def check(path: Path) -> None:
            """Of a bundle that memory cannot hold, what was written is what is tried."""
            if weights is not None:
                checks.extend(_repeated(reader.read(path)))

        bundle.write(
            files,
            out,
            packaging=work.settings.packaging,
            force=work.settings.force,
            weights=weights,
            check=check,
        )
        manifest = manifests.parse(files[archive.MANIFEST])
        size = sum(map(len, files.values())) + (0 if weights is None else weights.size_bytes)
        vectors = len(manifest.golden.vectors)
        stage.done(text_name(out), f"{megabytes(size)}, {_verified_text(vectors)}")
    compared = {"vectors": vectors, "outputs": {row.name: row.rule for row in checks}}
    return Packed(out, manifest.digest, _artifacts(manifest), compared)


def _artifacts(manifest: Manifest) -> tuple[Artifact, ...]:
    """The model's file, and its weights where they lie beside it."""
    names = (manifest.artifact, *([] if manifest.weights is None else [manifest.weights]))
    formats = (manifest.artifact_format, "weights")
    return tuple(
        Artifact(name, kind, manifest.files[name].size, manifest.files[name].sha256)
        for name, kind in zip(names, formats, strict=False)
    )


def _beside(work: Work, candidate: Candidate) -> Gathered | None:
    """The weights that the artifact's own file cannot hold; said, because it makes a folder."""
    from edgeq_converters.write.outside import gather

    if not isinstance(candidate.artifact, ModelBytes):
        return None
    weights = gather(candidate.artifact, work.prepared.graph, WEIGHTS_FILE)
    work.notes.append(
        f"the weights are {megabytes(weights.size_bytes)} and an ONNX file holds 2 GB: they lie in "
        f"`{WEIGHTS_FILE}` beside it, so the bundle is a folder (`--as dir`)"
    )
    return weights


def _repeated(read: Bundle, session: Session | None = None) -> tuple[OutputCheck, ...]:
    """The golden vectors, run by `session` or one of the bundle's own artifact."""
    from edgeq_runtime import golden

    own = session or open_exact(read.artifact)
    checks = golden.compare(own, read.manifest.golden, read.golden)
    if session is None:
        own.close()
    wrong = next((check for check in checks if not check.passed), None)
    assert wrong is None, f"the artifact does not repeat its own golden output {wrong}"
    return checks


def _verified_text(vectors: int) -> str:
    return f"verified on {vectors} golden vectors" if vectors else "no golden vectors"


def read_labels(path: Path) -> tuple[str, ...]:
    """One label a line, UTF-8, at most 1 MB; trailing empty lines do not count."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_LABELS_BYTES + 1)
        lines = data.decode("utf-8").splitlines()
    except OSError as failure:
        raise EdgeqError("bad-labels", f"labels `{path}`: {failure.strerror or failure}") from None
    except UnicodeDecodeError:
        raise EdgeqError("bad-labels", f"labels `{path}` are not UTF-8 text") from None
    while lines and not lines[-1].strip():
        lines.pop()
    if not lines or len(data) > MAX_LABELS_BYTES:
        problem = "hold no label" if not lines else f"are larger than {MAX_LABELS_BYTES} bytes"
        raise EdgeqError("bad-labels", f"labels `{path}` {problem}")
    return tuple(line.strip() for line in lines)


def _contents(
    work: Work, candidate: Candidate, weights: Gathered | None, session: Session
) -> BundleContents:
    from edgeq.api.stages import graph_of
    from edgeq.bundle import BundleContents

    quantized = candidate.quantized
    graph = graph_of(work, quantized)
    plan = None if quantized is None or quantized.left_float else quantized.plan
    return BundleContents(
        name=_name(work, candidate),
        target=work.target.name,
        precision=candidate.precision,
        artifact=candidate.artifact if weights is None else weights.model,
        weights=weights,
        inputs=_as_it_is(graph.inputs, session.inputs),
        outputs=_as_it_is(graph.outputs, session.outputs),
        exact_kernels=_kernels(work, plan),
        **_needs(work.target, work.form, beside=weights is not None),
        computes=_computes(work, plan),
        **_golden(work, candidate, graph, plan),
        card=_card(work, candidate),
        input_specs=_input_specs(work, candidate),
        labels=work.labels,
        model=work.prepared.summary(),
        ops=candidate.ops,
        left_in_float=[op.to_json() for op in candidate.left_in_float],
        quality=[quality.to_json() for quality in candidate.metrics],
        gate=None if candidate.gate is None else candidate.gate.to_json(),
        calibration=_calibration(work, candidate, graph),
        plan=None if plan is None else plan.to_json(),
        notes=(*work.notes, *work.pass_counts(), *candidate.warnings),
    )


def _input_specs(work: Work, candidate: Candidate) -> dict[str, InputSpec]:
    """How an image becomes an input, in the axes that the artifact has."""
    from edgeq.api.building import input_specs

    ends = borders(candidate.shipped.measured)
    return {
        name: replace(spec, layout="nhwc") if ends.get(name, PLAIN).channels_last else spec
        for name, spec in input_specs(work.settings).items()
    }


def _golden(
    work: Work, candidate: Candidate, graph: Graph, plan: QuantPlan | None
) -> dict[str, Any]:
    """What golden inputs are drawn from, as the artifact takes them, and how outputs compare."""
    ends = borders(candidate.shipped.measured)
    ranges = {info.name: (0.0, 1.0) for info in graph.inputs} | work.tap.ranges
    kept = work.tap.kept[0]
    return {
        "input_ranges": {n: ends.get(n, PLAIN).span(*row) for n, row in ranges.items()},
        "golden_shapes": {n: ends.get(n, PLAIN).codes(array).shape for n, array in kept.items()},
        "exact_outputs": _exact_outputs(work, candidate, plan),
        "tolerances": {} if plan is None else _mixed_tolerances(work, candidate, plan),
        "float_depths": dict.fromkeys([info.name for info in graph.outputs], float_depth(graph)),
    }


def _as_it_is(wanted: Sequence[TensorInfo], own: Sequence[TensorInfo]) -> tuple[TensorInfo, ...]:
    """The float model's inputs or outputs, but where the artifact has another type or axes."""
    by_name = {info.name: info for info in own}
    return tuple(
        info if _same(info, by_name.get(info.name, info)) else by_name[info.name] for info in wanted
    )


def _same(one: TensorInfo, two: TensorInfo) -> bool:
    if one.dtype != two.dtype or len(one.shape) != len(two.shape):
        return False
    sizes = zip(one.shape, two.shape, strict=True)
    return all(x == y or not (isinstance(x, int) and isinstance(y, int)) for x, y in sizes)


def _exact_outputs(
    work: Work, candidate: Candidate, plan: QuantPlan | None
) -> dict[str, dict[str, Any]]:
    """Of a TFLite file, what it says itself: an op may be written otherwise than it was planned."""
    from edgeq.api import tflite
    from edgeq.api.stages import graph_of

    if work.is_tflite:
        return tflite.exact_outputs(candidate.artifact)
    graph = graph_of(work, candidate.quantized)
    return exact_outputs(graph, plan, work.engine.activation_dtype)


def _calibration(work: Work, candidate: Candidate, graph: Graph) -> dict[str, Any] | None:
    """How the ranges came about, and the SQNR of each quantized tensor that the build measured. A
    TFLite file does not name its operators: what the plan's nodes make is said here."""
    quantized = candidate.quantized
    if quantized is None or quantized.calibration is None:
        return None
    errors = [(error.name, error.sqnr_db) for error in candidate.fidelity.layers]
    told = {**quantized.calibration, SQNR: recorded_errors(errors)}
    if work.is_tflite:
        made = {str(n.name): [str(v.name) for v in n.outputs if v.name] for n in graph.nodes()}
        told[MAKES] = made
    return told


def _computes(work: Work, plan: QuantPlan | None) -> tuple[tuple[tuple[str, ...], str], ...]:
    """What the cores that a fp16 artifact may meet make of it, where the engine asks them."""
    fp16 = work.engine.fp16
    if fp16 is None or plan is None or not plan.counts()["fp16-weights"]:
        return ()
    return (((fp16.feature,), "float16"), ((), "float32"))


def _kernels(work: Work, plan: QuantPlan | None) -> str:
    """Whether some host's int8 kernels could saturate on these weights ("needed"). LiteRT's add
    in 32 bits on every CPU."""
    if work.is_tflite:
        return "safe"
    saturating = plan is not None and plan.computes_int8 and not work.engine.pair_safe
    return "needed" if saturating else "safe"


def _name(work: Work, candidate: Candidate) -> str:
    """What the bundle calls itself, whatever its file is called."""
    stem = work.prepared.name.removesuffix(".onnx").removesuffix(".tflite")
    return f"{stem}-{work.target.name}-{candidate.precision}"


def _needs(target: Target, form: Form, *, beside: bool) -> dict[str, Any]:
    """What the artifact is, and what it asks of a device: engine versions and CPU features. An .ort
    file is read by the version that wrote it and by newer ones."""
    from edgeq_runtime import engines
    from edgeq_runtime.runner import parts

    support = target.engine(form.engine)
    version = engines.get(form.engine).version()
    minimum = version if form.format == "ort" else support.minimum
    if beside:
        minimum = max(minimum, BESIDE_MINIMUM, key=parts)
    return {
        "engine": form.engine,
        "artifact_file": FILES[form.format],
        "artifact_format": form.format,
        "engine_measured": version,
        "engine_minimum": minimum,
        "engine_known_bad": {bad.version: bad.effect for bad in support.known_bad},
        "architecture": target.architecture,
        "required_features": target.required_features,
        "fast_features": target.fast_features,
    }


def exact_outputs(graph: Graph, plan: QuantPlan | None, dtype: str) -> dict[str, dict[str, Any]]:
    """The outputs that hold dequantized integers on every host: int8 all the way from inputs."""
    if plan is None:
        return {}
    kinds = tensor_kinds(graph, plan)
    shift = 128 if dtype == "uint8" else 0
    found: dict[str, dict[str, Any]] = {}
    for value in graph.model.graph.outputs:
        encoding = plan.tensors.get(str(value.name))
        if kinds.get(str(value.name)) == "exact" and encoding is not None and value.producer():
            found[str(value.name)] = {
                "dtype": dtype,
                "scale": encoding.scale[0],
                "zero_point": encoding.zero_point[0] + shift,
            }
    return found


def tensor_kinds(graph: Graph, plan: QuantPlan) -> dict[str, str]:
    """What each tensor holds: `exact`, an input or integers computed from such; `tail`, floats
    computed from exact tensors alone; `mixed`, integers behind a float op, which another host may
    round the other way, and what comes of them.
    """
    from edgeq.quant.plan import DYNAMIC

    kinds = {str(value.name): "exact" for value in graph.model.graph.inputs}
    for node in graph.nodes():
        if node.op_type == "Constant":
            continue
        read = {kinds.get(str(value.name), "exact") for value in node.inputs if value is not None}
        precision = plan.ops[str(node.name)].precision
        if precision == "int8" and read <= {"exact"}:
            kind = "exact"
        elif precision == "dynamic-int8" and read <= {"exact"}:
            kind = "tail"  # exact sums, rescaled in float
        else:
            rounds = precision in ("int8", *DYNAMIC)
            kind = "mixed" if rounds or "mixed" in read else "tail"
        kinds.update({str(value.name): kind for value in node.outputs if value.name})
    return kinds


def _mixed_tolerances(work: Work, candidate: Candidate, plan: QuantPlan) -> dict[str, float]:
    """For outputs behind integers behind float ops: codes may flip between hosts, but rounding
    every code anew moves an output about as far as quantizing moved it from the float model."""
    ends = borders(candidate.shipped.measured)
    errors = {
        error.name: _in_steps(error.max_abs_error, ends.get(error.name, PLAIN))
        for error in candidate.fidelity.outputs
        if error.sqnr_db is not None  # integers of the float model are equal or wrong
    }
    return {
        name: errors[name] for name in _mixed(work, candidate, plan) if errors.get(name, 0.0) > 0
    }


def _in_steps(error: float, end: Border) -> float:
    """An error of the float model's output as its codes count it."""
    return error if end.scale is None else float(math.ceil(error / end.scale))


def _mixed(work: Work, candidate: Candidate, plan: QuantPlan) -> list[str]:
    """The outputs behind integers behind float ops."""
    from edgeq.api import tflite
    from edgeq.api.stages import graph_of

    if work.is_tflite:
        return sorted(tflite.mixed_outputs(candidate.artifact))
    kinds = tensor_kinds(graph_of(work, candidate.quantized), plan)
    return [error.name for error in candidate.fidelity.outputs if kinds.get(error.name) == "mixed"]


def float_depth(graph: Graph) -> tuple[int, int]:
    """(layers that sum products, terms of the longest such sum), for the float tolerance."""
    layers, terms = 0, 1
    for node in graph.nodes():
        weights = [value for value in node.inputs[1:2] if value is not None and value.shape]
        if node.op_type not in ("Conv", "ConvTranspose", "Gemm", "MatMul", "LSTM", "GRU", "RNN"):
            continue
        layers += 1
        for value in weights:
            sizes = [size for size in value.shape or () if isinstance(size, int)]
            terms = max(terms, math.prod(sizes) // max(1, min(sizes, default=1)))
    return max(layers, 1), terms


def _card(work: Work, candidate: Candidate) -> str:
    from edgeq import __version__
    from edgeq_runtime import engines

    graph = work.prepared.graph
    quantized = candidate.quantized
    return card(
        CardFacts(
            name=_name(work, candidate),
            model=work.prepared.summary(),
            target=work.target.name,
            target_title=work.target.title,
            precision=candidate.precision,
            edgeq_version=__version__,
            engine=f"{work.form.engine} {engines.get(work.form.engine).version()}",
            inputs=_rows(graph.inputs),
            outputs=_rows(graph.outputs),
            size_bytes=file_bytes(candidate.artifact),
            float_size_bytes=work.reference_size,
            ops=candidate.ops,
            left_in_float=candidate.left_in_float,
            calibration=None if quantized is None else quantized.calibration,
            fidelity=candidate.fidelity,
            metrics=[quality.to_json() for quality in candidate.metrics],
            gate=None if candidate.gate is None else candidate.gate.to_json(),
            warnings=candidate.warnings,
            notes=(*work.notes, *work.pass_counts()),
        )
    )


def _rows(tensors: Any) -> list[tuple[str, str, str]]:
    return [(info.name, info.dtype, f"[{shape_text(info.shape)}]") for info in tensors]
