"""Elements picked, or written, by indices."""

from __future__ import annotations

import numpy as np
import onnx_ir

from edgeq.ir import dtype_of
from edgeq_converters.write.tfl.emitter import AS_IS, Array, Emitter, Unwritable
from edgeq_converters.write.tfl.families.move import MOST, emit, keep
from edgeq_converters.write.tfl.families.reduce import kept_layout
from edgeq_converters.write.tfl.steps import FLOAT, WHOLE, Steps, cast, kind

_PICKED = (*MOST, "bool")
_SCATTERED = (*FLOAT, "int8", "uint8", *WHOLE, "bool")
_NEVER_NEGATIVE = ("ArgMax", "ArgMin", "TopK")


def gather(e: Emitter, node: onnx_ir.Node) -> None:
    """Parts along an axis: a SLICE where the indices are constant and evenly spaced."""
    data, indices = node.inputs
    result = node.outputs[0]
    assert data is not None
    assert indices is not None
    shape = e.shape(data)
    axis = int(e.attribute("axis", 0)) % len(shape)
    fixed = e.constant(indices)
    if e.constant(data) is not None:
        _from_table(e, node, axis)
        return
    if fixed is not None:
        fixed = np.where(fixed < 0, fixed + shape[axis], fixed)
        if fixed.ndim < 2 and (even := _evenly(fixed.reshape(-1))) is not None:
            _sliced(e, data, result, axis, even, drop=fixed.ndim == 0)
            return
    layout = after = AS_IS
    if len(e.shape(indices)) == 1:
        layout = after = e.layout(data)
    at = e.take(data, layout)
    place = e.axis(axis, len(shape), layout)
    sizes = np.array(shape[axis])
    picks = _counted(e, indices, sizes) if fixed is None else e.numbers(fixed)
    emit(e, at, result, after, "GATHER", picks, kernel=_PICKED, axis=place)


def _evenly(indices: Array) -> range | None:
    """Constant indices as a range, where they are one."""
    if indices.size == 1:
        return range(int(indices[0]), int(indices[0]) + 1)
    steps = np.unique(np.diff(indices))
    if steps.size != 1 or steps[0] == 0:
        return None
    return range(int(indices[0]), int(indices[-1] + steps[0]), int(steps[0]))


def _sliced(
    e: Emitter,
    data: onnx_ir.Value,
    result: onnx_ir.Value,
    axis: int,
    picked: range,
    *,
    drop: bool,
) -> None:
    shape = e.shape(data)
    kept = [picked if at == axis else range(size) for at, size in enumerate(shape)]
    if not drop:
        layout = e.layout(data)
        keep(e, e.take(data, layout), result, layout, e.ordered(kept, layout))
        return
    layout, after = kept_layout(e, data, [axis], False)
    at = e.take(data, layout)
    kept = e.ordered(kept, layout)
    if shape[axis] != 1:
        part = e.temp([len(row) for row in kept], like=at)
        begin, sizes = [row.start for row in kept], [len(row) for row in kept]
        e.op("SLICE", [at, e.numbers(begin), e.numbers(sizes)], [part])
        at = part
    made = e.make(result, after)
    part = e.stage(at, made)
    e.reshape(at, part)
    e.settle(part, made)


def _from_table(e: Emitter, node: onnx_ir.Node, axis: int) -> None:
    """Rows of a constant table. Its indices count from the front: nobody's tokens are negative.

    A table of int8 has one scale per row, or one, and EMBEDDING_LOOKUP restores what it picks; one
    of float16 is picked from before it is restored.
    """
    table, indices = node.inputs
    result = node.outputs[0]
    assert table is not None
    assert indices is not None
    array = e.constant(table)
    encoding = e.encoding(table)
    assert array is not None
    fixed = e.constant(indices)
    if fixed is not None:
        fixed = np.where(fixed < 0, fixed + array.shape[axis], fixed)
    picks = e.take(indices) if fixed is None else e.numbers(fixed)
    if encoding is None or dtype_of(table) != "float32" or axis != 0:
        at = e.take(table)
        emit(e, at, result, AS_IS, "GATHER", picks, kernel=_PICKED, axis=axis)
    elif encoding.dtype == "float16":
        half = e.file.constant(str(table.name), array.astype(np.float16))
        part = e.temp(e.shape(result), dtype="float16")
        e.op("GATHER", [half, picks], [part], axis=axis)
        e.op("DEQUANTIZE", [part], [e.make(result)])
    else:
        flat = e.reshaped(cast(e, picks, "int32"), [int(np.prod(e.shape(indices)))])
        rows = e.table(table)
        made = e.make(result)
        part = e.temp([e.file.shape(flat)[0], *array.shape[1:]])
        e.op("EMBEDDING_LOOKUP", [flat, rows], [part])
        e.reshape(part, made)


def _counted(e: Emitter, indices: onnx_ir.Value, sizes: Array) -> int:
    """Indices that are computed, counted from the front; `sizes` are those of the axes."""
    at = e.take(indices)
    maker = indices.producer()
    if e.file.is_constant(at):
        array = e.constant(indices)
        assert array is not None
        return e.numbers(np.where(array < 0, array + sizes, array), e.file.dtype(at))
    if maker is not None and maker.op_type in _NEVER_NEGATIVE:
        return at
    had = e.file.dtype(at)
    dtype = "int32" if had in FLOAT else kind(had, WHOLE)
    steps = Steps(e, dtype)
    at = cast(e, at, dtype)
    below = steps("LESS", at, steps.number(0), dtype="bool")
    return steps("SELECT_V2", below, steps("ADD", at, e.numbers(sizes, dtype)), at)


def _coordinates(e: Emitter, indices: onnx_ir.Value, axis: int, size: int) -> int:
    """For each element of `indices`, which are along `axis`, where it points to on every axis."""
    shape = e.shape(indices)
    at = _counted(e, indices, np.array(size))
    dtype = e.file.dtype(at)
    grid = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1)
    parts = [e.reshaped(at, [*shape, 1])]
    if axis:
        parts.insert(0, e.numbers(grid[..., :axis], dtype))
    if axis + 1 < len(shape):
        parts.append(e.numbers(grid[..., axis + 1 :], dtype))
    if len(parts) == 1:
        return parts[0]
    made = e.temp(grid.shape, dtype=dtype)
    e.op("CONCATENATION", parts, [made], axis=len(shape))
    return made


def gather_elements(e: Emitter, node: onnx_ir.Node) -> None:
    data, indices = node.inputs
    assert data is not None
    assert indices is not None
    shape = e.shape(data)
    axis = int(e.attribute("axis", 0)) % len(shape)
    places = _coordinates(e, indices, axis, shape[axis])
    emit(e, e.take(data), node.outputs[0], AS_IS, "GATHER_ND", places, kernel=_PICKED)


def gather_nd(e: Emitter, node: onnx_ir.Node) -> None:
    data, indices = node.inputs
    assert data is not None
    assert indices is not None
    batches = int(e.attribute("batch_dims", 0))
    shape = e.shape(indices)
    places = _counted(e, indices, np.array(e.shape(data)[batches : batches + shape[-1]]))
    if batches:  # which TFLite has not: coordinates of their own, in front
        dtype = e.file.dtype(places)
        grid = np.stack(np.meshgrid(*map(np.arange, shape[:-1]), indexing="ij"), axis=-1)
        own = e.numbers(grid[..., :batches], dtype)
        made = e.temp([*shape[:-1], batches + shape[-1]], dtype=dtype)
        e.op("CONCATENATION", [own, places], [made], axis=len(shape) - 1)
        places = made
    emit(e, e.take(data), node.outputs[0], AS_IS, "GATHER_ND", places, kernel=_PICKED)


def scatter_nd(e: Emitter, node: onnx_ir.Node) -> None:
    data, indices, updates = node.inputs
    assert data is not None
    assert indices is not None
    sizes = np.array(e.shape(data)[: e.shape(indices)[-1]])
    _scatter(e, node, data, _counted(e, indices, sizes), e.take(updates, codes=False))


def scatter_elements(e: Emitter, node: onnx_ir.Node) -> None:
    data, indices, updates = node.inputs
    assert data is not None
    assert indices is not None
    shape = e.shape(data)
    axis = int(e.attribute("axis", 0)) % len(shape)
    places = _coordinates(e, indices, axis, shape[axis])
    _scatter(e, node, data, places, e.take(updates, codes=False))


def _scatter(
    e: Emitter, node: onnx_ir.Node, data: onnx_ir.Value, places: int, updates: int
) -> None:
    """SCATTER_ND adds to zeros: what it leaves out comes from `data`, by a mask made likewise."""
    reduction = e.attribute("reduction", "none")
    shape = e.shape(data)
    steps = Steps(e, kind(dtype_of(data), _SCATTERED if reduction == "none" else (*FLOAT, *WHOLE)))
    updates = cast(e, updates, steps.dtype)
    places = cast(e, places, "int32")
    sizes = e.numbers(list(shape))
    written = e.temp(shape, dtype=steps.dtype)
    e.op("SCATTER_ND", [places, updates, sizes], [written])
    if reduction == "add":
        steps.into(node.outputs[0], AS_IS, "ADD", e.take(data, codes=False), written)
        return
    if reduction != "none":
        raise Unwritable(f"TFLite has no SCATTER_ND that takes the {reduction} of two values")
    ones = e.numbers(np.ones(e.file.shape(updates)), "int32")
    counts = e.temp(shape, dtype="int32")
    e.op("SCATTER_ND", [places, ones, sizes], [counts])
    mask = Steps(e, "int32")("GREATER", counts, e.numbers(0), dtype="bool")
    steps.into(node.outputs[0], AS_IS, "SELECT_V2", mask, written, e.take(data, codes=False))


def one_hot(e: Emitter, node: onnx_ir.Node) -> None:
    indices, _, values = node.inputs
    result = node.outputs[0]
    assert indices is not None
    assert values is not None
    depth = e.numbers_of(1, "depth")
    assert depth is not None
    rank = len(e.shape(result))
    axis = int(e.attribute("axis", -1)) % rank
    dtype = kind(dtype_of(values), (*FLOAT, "int8", "uint8", *WHOLE, "bool"))
    off, on = _both(e, values, dtype)
    at = _counted(e, indices, np.array(depth[0]))
    made = e.make(result, codes=False)
    part = made if e.file.dtype(made) == dtype else e.temp(e.shape(result), dtype=dtype)
    place = -1 if axis == rank - 1 else axis
    e.op("ONE_HOT", [at, e.numbers(depth[0]), on, off], [part], axis=place)
    e.settle(part, made)


def _both(e: Emitter, values: onnx_ir.Value, dtype: str) -> list[int]:
    """The two elements of a tensor."""
    array = e.constant(values)
    if array is not None:
        return [e.numbers(number, dtype) for number in array]
    at = cast(e, e.take(values, codes=False), dtype)
    found = []
    for begin in (0, 1):
        part = e.temp([1], like=at)
        e.op("SLICE", [at, e.numbers([begin]), e.numbers([1])], [part])
        found.append(e.reshaped(part, []))
    return found


def triangle(e: Emitter, node: onnx_ir.Node) -> None:
    """Trilu by a constant mask."""
    value = node.inputs[0]
    assert value is not None
    diagonal = (e.numbers_of(1, "diagonal") or [0])[0]
    *_, rows, columns = e.shape(value)
    ones = np.ones((rows, columns), bool)
    mask = np.triu(ones, diagonal) if e.attribute("upper", 1) else np.tril(ones, diagonal)
    at = e.take(value, codes=False)
    kernel = (*FLOAT, *WHOLE, "int8", "int16", "uint8", "bool")
    steps = Steps(e, kind(e.file.dtype(at), kernel))
    chosen = e.numbers(mask, "bool")
    steps.into(node.outputs[0], AS_IS, "SELECT_V2", chosen, at, steps.number(0))


HANDLERS = {
    "Gather": gather,
    "GatherElements": gather_elements,
    "GatherND": gather_nd,
    "ScatterND": scatter_nd,
    "ScatterElements": scatter_elements,
    "OneHot": one_hot,
    "Trilu": triangle,
}
