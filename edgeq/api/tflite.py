"""What a TFLite artifact is to a build: written, counted, and which of its outputs are integers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from edgeq import registry
from edgeq.api import border, models
from edgeq.api.formats import FILES
from edgeq.errors import EdgeqError
from edgeq_runtime.outside import ModelBytes

if TYPE_CHECKING:
    from edgeq.api.stages import Quantized, Work
    from edgeq_runtime.tflite import Model, Operator, Subgraph

_CASTS = ("QUANTIZE", "DEQUANTIZE")
_CODES = ("int8", "uint8", "int16")


def write(work: Work, quantized: Quantized | None) -> bytes:
    """The artifact, tried in a child before this process loads it.

    Raises EdgeqError: [unwritable-op] with every operator that LiteRT lacks, [needs-shape],
    [too-large], and what trying it raises.
    """
    if isinstance(work.prepared.float_bytes, ModelBytes):
        raise EdgeqError(
            "too-large",
            "the weights are over 2 GB, which a .tflite file cannot hold",
            "ship it as ONNX: `--format onnx`",
        )
    with work.stage("Converted") as stage:
        artifact = made(work, quantized)
        models.probe(artifact)
        stage.done(FILES["tflite"], _operators_text(artifact))
    return artifact


def made(work: Work, quantized: Quantized | None) -> bytes:
    """The bytes of the artifact; a plan that leaves everything in float is none."""
    from edgeq.api.stages import graph_of

    plan = None if quantized is None or quantized.left_float else quantized.plan
    writer = registry.resolve("writers", "tflite")
    artifact: bytes = writer(
        graph_of(work, quantized),
        plan,
        io=work.io if plan is not None else "float",
        layout=work.settings.layout,
        fp16_compute=plan is not None and bool(plan.counts()["fp16-weights"]),
        metadata=_metadata(work),
    )
    return artifact


def _metadata(work: Work) -> dict[str, Any]:
    """What an app needs to know beside the model: preprocessing and class names."""
    from edgeq.api.building import input_specs

    specs = {name: spec.to_json() for name, spec in input_specs(work.settings).items()}
    named = {} if work.labels is None else {"labels": list(work.labels)}
    return ({"inputs": specs} if specs else {}) | named


def _operators_text(artifact: bytes) -> str:
    from edgeq_runtime import tflite

    count = len(tflite.parse(artifact).subgraphs[0].operators)
    return f"{count} operator{'s' * (count != 1)}"


def coverage(work: Work, artifact: bytes, quantized: Quantized) -> dict[str, Any]:
    """Operators in int8 and in float as written, and how LiteRT cuts them up on this host."""
    from edgeq.quant.plan import DYNAMIC
    from edgeq_runtime import tflite

    graph = tflite.parse(artifact).subgraphs[0]
    kinds = [(op, precision(graph, op)) for op in graph.operators]
    session: Any = models.open_exact(artifact)
    partitions = int(session.partitions)
    session.close()
    return {
        "engine": models.LITERT,
        "on": "this host",
        "int8": _count(op for op, kind in kinds if kind in ("int8", *DYNAMIC)),
        "float32": _count(op for op, kind in kinds if kind == "float32"),
        "quantize_linear": sum(op.code == "QUANTIZE" for op, _ in kinds),
        "dequantize_linear": sum(op.code == "DEQUANTIZE" for op, _ in kinds),
        "lines": [],
        "pairs": [],
        "hints": _hints(work, quantized),
        "partitions": partitions,
    }


def _hints(work: Work, quantized: Quantized) -> list[str]:
    from edgeq.quant.hints import hints

    graph = quantized.graph or work.prepared.graph
    return list(hints(graph, quantized.plan, work.engine.widths))


def _count(operators: Any) -> dict[str, int]:
    counted: dict[str, int] = {}
    for op in operators:
        name = operator_name(op)
        counted[name] = counted.get(name, 0) + 1
    return dict(sorted(counted.items()))


def operator_name(op: Operator) -> str:
    return op.custom if op.code == "CUSTOM" else op.code


def precision(graph: Subgraph, op: Operator) -> str:
    """How an operator runs, in the words of a plan (`edgeq.quant.plan.PRECISIONS`)."""
    if op.code in _CASTS:
        return "other"
    if _is_hybrid(graph, op) and any(_is_float(graph, at) for at in op.outputs):
        narrow = any(at >= 0 and graph.tensors[at].dtype == "int4" for at in op.inputs)
        return "dynamic-int4" if narrow else "dynamic-int8"
    dtypes = {graph.tensors[at].dtype for at in (*op.inputs, *op.outputs) if at >= 0}
    if dtypes & set(_CODES):
        return "int8"
    return "float32" if dtypes & {"float32", "float16"} else "other"


def exact_outputs(artifact: bytes) -> dict[str, dict[str, Any]]:
    """Float outputs that hold dequantized integers on every host: int8 all the way from inputs."""
    from edgeq_runtime import tflite

    model = tflite.parse(artifact)
    graph = model.subgraphs[0]
    kinds, made_by = tensor_kinds(model), _producers(graph)
    found: dict[str, dict[str, Any]] = {}
    for name, at in border.ends(model).items():
        op = made_by.get(at)
        if op is None or op.code != "DEQUANTIZE" or kinds.get(op.inputs[0]) != "exact":
            continue
        codes = graph.tensors[op.inputs[0]]
        if codes.dtype == "int8" and codes.quantization is not None:
            scale, zero_point = codes.quantization.scale[0], codes.quantization.zero_point[0]
            found[name] = {"dtype": "int8", "scale": float(scale), "zero_point": int(zero_point)}
    return found


def mixed_outputs(artifact: bytes) -> set[str]:
    """Outputs behind integers that were rounded from floats: hosts may round one another way."""
    from edgeq_runtime import tflite

    model = tflite.parse(artifact)
    kinds = tensor_kinds(model)
    return {name for name, at in border.ends(model).items() if kinds.get(at) == "mixed"}


def tensor_kinds(model: Model) -> dict[int, str]:
    """Tensor -> `exact`, `tail` or `mixed`, as in `edgeq.api.pack`, of the main graph as written.

    A layer of int8 weights that reads floats quantizes them at run time, with a rounding that is
    the host's own: mixed.
    """
    graph = model.subgraphs[0]
    kinds = dict.fromkeys(graph.inputs, "exact")
    for op in graph.operators:
        read = {kinds.get(at, "exact") for at in op.inputs if at >= 0}
        floats = any(_is_float(graph, at) for at in (*op.inputs, *op.outputs))
        if op.code in _CASTS:
            kind = _cast_kind(read)
        elif not floats:
            kind = "exact" if read <= {"exact"} else "mixed"
        else:
            kind = "mixed" if "mixed" in read or _is_hybrid(graph, op) else "tail"
        kinds.update(dict.fromkeys(op.outputs, kind))
    return kinds


def _cast_kind(read: set[str]) -> str:
    return "exact" if read <= {"exact"} else "mixed"


def _is_float(graph: Subgraph, at: int) -> bool:
    return at >= 0 and graph.tensors[at].dtype in ("float32", "float16")


def _is_hybrid(graph: Subgraph, op: Operator) -> bool:
    return any(
        graph.tensors[at].data is not None and graph.tensors[at].dtype in ("int8", "int4")
        for at in op.inputs
        if at >= 0
    )


def _producers(graph: Subgraph) -> Mapping[int, Operator]:
    return {at: op for op in graph.operators for at in op.outputs}
