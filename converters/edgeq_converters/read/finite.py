"""NaN and infinity in weights: refused by name, but for the infinities that models hold on purpose.

The rule. NaN is always refused. An infinity passes where it cannot reach a sum of products:
 1. every use of the tensor, also through operators that only move data, is one that takes an
    infinity as "no bound" or "nothing here" (`_ABSORBING`: Where, Clip, Max, Pad, comparisons);
 2. or every value is 0 or an infinity of one sign (a mask) and the uses may also be Add and Sub:
    an attention mask.
Everything else would spread, and a weight with an infinity has no scale, so it is refused.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from onnx import GraphProto, NodeProto, TensorProto

from edgeq_converters.formats.outside import Outside
from edgeq_converters.read import tensors
from edgeq_converters.read.findings import Findings, quote

_ABSORBING = frozenset(
    {"Where", "Clip", "Max", "Min", "Pad", "Less", "LessOrEqual", "Greater", "GreaterOrEqual"}
    | {"Equal", "IsInf", "IsNaN", "ConstantOfShape"}
)
_MASKING = frozenset({"Add", "Sub"})
_MOVING = frozenset(
    {"Cast", "CastLike", "Concat", "Expand", "Flatten", "Gather", "GatherElements", "GatherND"}
    | {"Identity", "Reshape", "Shape", "Size", "Slice", "Split", "Squeeze", "Tile", "Transpose"}
    | {"Trilu", "Unsqueeze"}
)
_FLOATS = frozenset(
    {TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE, TensorProto.BFLOAT16}
)
_CHUNK = 1 << 22

Readers = Mapping[str, list[NodeProto]]


def check(graph: GraphProto, deferred: Mapping[str, Outside], found: Findings) -> None:
    """Every stored tensor of `graph` and its bodies that can be read at all; only collects.

    `deferred` are the initializers of `graph` whose data is still elsewhere.
    """
    readers: dict[str, list[NodeProto]] = {}
    _collect_readers(graph, readers)
    for name, tensor in _stored(graph):
        if tensor.data_type in _FLOATS and tensors.is_sound(tensor):
            outside = tensor.data_location == TensorProto.EXTERNAL
            array = deferred[name].numpy() if outside else tensors.to_array(tensor)
            _check(name, array, readers, found)


def _collect_readers(graph: GraphProto, readers: dict[str, list[NodeProto]]) -> None:
    """Who reads a name, in any body; names of sibling bodies may coincide, then both count."""
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
        for attribute in node.attribute:
            for body in tensors.bodies(attribute):
                _collect_readers(body, readers)


def _stored(graph: GraphProto) -> Iterator[tuple[str, TensorProto]]:
    """Initializers and Constant nodes with the name of the tensor they make."""
    for tensor in graph.initializer:
        yield tensor.name, tensor
    for node in graph.node:
        for attribute in node.attribute:
            if node.op_type == "Constant" and attribute.HasField("t") and len(node.output) == 1:
                yield node.output[0], attribute.t
            for body in tensors.bodies(attribute):
                yield from _stored(body)


def _check(name: str, array: np.ndarray[Any, Any], readers: Readers, found: Findings) -> None:
    nan, infinite = count(array)
    if nan == 0 and (infinite == 0 or _is_harmless(name, array, readers)):
        return
    parts = [f"{number:,} {what}" for number, what in ((nan, "NaN"), (infinite, "Inf")) if number]
    size = f"of {array.size:,} values" if array.size > 1 else "as its one value"
    found.add("non-finite-weights", f"tensor {quote(name)} has {' and '.join(parts)} {size}")


def count(array: np.ndarray[Any, Any]) -> tuple[int, int]:
    """How many NaN and how many infinities; other dtypes than floats have none. Bounded memory."""
    if array.dtype.kind != "f" and array.dtype.name != "bfloat16":
        return 0, 0
    nan = infinite = 0
    flat = array.reshape(-1)
    for start in range(0, flat.size, _CHUNK):
        part = flat[start : start + _CHUNK]
        if part.dtype.kind != "f":
            part = part.astype(np.float32)
        if not np.isfinite(part).all():
            nan += int(np.isnan(part).sum())
            infinite += int(np.isinf(part).sum())
    return nan, infinite


def _is_harmless(name: str, array: np.ndarray[Any, Any], readers: Readers) -> bool:
    values = np.unique(array.astype(np.float32))
    is_mask = (
        len(values) <= 2
        and np.isinf(values).sum() == 1
        and (values[np.isfinite(values)] == 0).all()
    )
    allowed = _ABSORBING | _MASKING if is_mask and array.size > 1 else _ABSORBING
    waiting, seen = [name], {name}
    while waiting:
        for node in readers.get(waiting.pop(), []):
            if node.op_type in _MOVING:
                fresh = [output for output in node.output if output and output not in seen]
                waiting.extend(fresh)
                seen.update(fresh)
            elif node.op_type not in allowed:
                return False
    return True
