"""What each TFLite engine computes rightly, as a table that is asked before anything runs.

Measured on files of each kind, by running them beside LiteRT: an engine may load a file without a
word and compute something else.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

import numpy as np

from edgeq_runtime.errors import EdgeqError
from edgeq_runtime.flatbuffer import shown
from edgeq_runtime.tflite import LEFT_OUT, Model, Operator, Subgraph, Tensor

FLOAT, HALF, WEIGHTS, INT8, UINT8, INT16 = (
    "float32",
    "fp16 weights",
    "int8 weights",
    "static int8",
    "static uint8",
    "int8 weights with int16 activations",
)
DYNAMIC, INT4, OTHER = "dynamic int8", "int4", "other types"
BLOCKS, LOWEST = "int4 in blocks", "a dynamic layer with the int4 code -8"
KINDS = (FLOAT, HALF, WEIGHTS, INT8, UINT8, INT16, DYNAMIC, INT4, BLOCKS, LOWEST, OTHER)

_ANY = (0, 0)
_END = (9999, 0)
_OLD = ((2, 14), (2, 15))
CAPABILITIES: tuple[tuple[str, tuple[tuple[int, int], tuple[int, int]], str, str], ...] = (
    # (engine, versions [from, before), kind, what goes wrong: "" means that it computes rightly)
    *(("litert", (_ANY, _END), kind, "") for kind in KINDS),
    ("tflite-runtime", _OLD, FLOAT, ""),
    ("tflite-runtime", _OLD, HALF, ""),
    ("tflite-runtime", _OLD, WEIGHTS, ""),
    ("tflite-runtime", _OLD, INT8, ""),
    ("tflite-runtime", _OLD, UINT8, ""),
    ("tflite-runtime", _OLD, INT16, ""),
    ("tflite-runtime", _OLD, DYNAMIC, "it gives wrong values without an error"),
    ("tflite-runtime", _OLD, INT4, "it gives NaN, fails, or dies"),
)
"""No row: nobody has measured it, and it is not run."""
KERNELS: tuple[tuple[str, str, str, str], ...] = (
    # (engine, resolver, kind, what goes wrong), where XNNPACK's kernels compute rightly
    ("litert", "builtin", LOWEST, "without XNNPACK it takes -8 for another code"),
    ("litert", "reference", BLOCKS, "the reference kernels do not read the scales of blocks"),
)

_CONVERSIONS = ("DEQUANTIZE", "QUANTIZE", "CAST")
_SMALL = ("int4", "uint4", "int2")
_KNOWN = ("float32", "float16", "int8", "uint8", "int16", "int32", "int64", "bool", "string")


def check(model: Model, engine: str, version: str, resolver: str = "auto") -> None:
    """Refuse what this engine does not compute rightly. Raises EdgeqError [engine-cannot]."""
    hint = 'run it with LiteRT: pip install "edgeq-runtime[litert]"'
    if engine == "litert":
        hint = 'run it with the kernels of XNNPACK: open_session(model, resolver="auto")'
    for kind, where in kinds(model).items():
        wrong = verdict(engine, version, kind, resolver)
        if wrong:
            raise EdgeqError(
                "engine-cannot",
                f"{engine} {version} cannot run {kind} ({where}): {wrong}",
                hint,
            )


def verdict(engine: str, version: str, kind: str, resolver: str = "auto") -> str:
    """What goes wrong with a kind of model; "" where it computes rightly."""
    for *of, wrong in KERNELS:
        if of == [engine, resolver, kind]:
            return wrong
    numbers = [int(row) for row in re.findall(r"[0-9]{1,9}", version)[:2]]
    major, minor = (numbers + [0, 0])[:2]
    for name, (first, before), row, wrong in CAPABILITIES:
        if (name, row) == (engine, kind) and first <= (major, minor) < before:
            return wrong
    return "it was never measured with this version"


def kinds(model: Model) -> Mapping[str, str]:
    """What a model computes with: kind -> the first operator or tensor that shows it."""
    found: dict[str, str] = {}
    for graph in model.subgraphs:
        for kind, where in _kinds(graph):
            found.setdefault(kind, where)
    return found


def _kinds(graph: Subgraph) -> Iterator[tuple[str, str]]:
    for tensor in graph.tensors:
        if tensor.dtype in _SMALL:
            yield INT4, f"tensor `{shown(tensor.name)}`"
            if tensor.quantization is not None and tensor.quantization.block_size:
                yield BLOCKS, f"tensor `{shown(tensor.name)}`"
        elif tensor.dtype not in _KNOWN:
            yield OTHER, f"{tensor.dtype} tensor `{shown(tensor.name)}`"
    for number, operator in enumerate(graph.operators):
        where = f"{shown(operator.custom) or operator.code}, operator {number}"
        inputs = [graph.tensors[index] for index in operator.inputs if index != LEFT_OUT]
        outputs = [graph.tensors[index] for index in operator.outputs]
        yield _kind(operator, inputs, outputs), where
        first = [tensor.dtype for tensor in inputs[:1]]
        is_dynamic = operator.code == "FULLY_CONNECTED" and first == ["float32"]
        if is_dynamic and any(map(_has_lowest, inputs[1:2])):
            yield LOWEST, where


def _kind(operator: Operator, inputs: list[Tensor], outputs: list[Tensor]) -> str:
    made = {tensor.dtype for tensor in outputs}
    constants = {tensor.dtype for tensor in inputs if tensor.data is not None}
    if operator.code in _CONVERSIONS and "float32" in made:
        return HALF if "float16" in constants else WEIGHTS if "int8" in constants else FLOAT
    if "float32" in made and _quantized(inputs):
        return DYNAMIC
    used = made | {tensor.dtype for tensor in inputs if tensor.quantization is not None}
    for dtype, kind in (("int16", INT16), ("uint8", UINT8), ("int8", INT8)):
        if dtype in used:
            return kind
    return FLOAT


def _has_lowest(weights: Tensor) -> bool:
    """Whether int4 weights with a scale per row hold -8, in rows of whole bytes: others go to a
    kernel that can."""
    found = weights.quantization
    if weights.dtype != "int4" or weights.data is None or found is None or found.block_size:
        return False
    pairs = np.frombuffer(weights.data, np.uint8)
    lowest = ((pairs & 0x0F) == 0x08) | ((pairs >> 4) == 0x08)
    return weights.shape[-1:] != () and weights.shape[-1] % 2 == 0 and bool(lowest.any())


def _quantized(inputs: list[Tensor]) -> bool:
    """Whether an operator on floats reads integers with a scale."""
    return any(
        tensor.dtype in ("int8", "uint8", *_SMALL) and tensor.quantization is not None
        for tensor in inputs
    )
