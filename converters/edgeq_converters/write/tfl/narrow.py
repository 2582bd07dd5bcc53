"""Constants in int8 and int4: their codes, and the scales that stay with them as axes move."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeq.numerics import affine, blocks
from edgeq.quant.plan import Encoding
from edgeq_converters.write.tfl.file import File

Array = NDArray[Any]


def codes(array: Array, encoding: Encoding) -> Array:
    """The integers of `array`, in its own order of axes."""
    scale = np.array(encoding.scale, np.float32)
    if encoding.dtype == "int4":
        rows = array if encoding.axis == 0 else array.T
        shape = (rows.shape[0], -1) if encoding.block else (-1,)
        found = blocks.quantize(rows, scale.reshape(shape), encoding.block)
        return found if encoding.axis == 0 else found.T
    if encoding.dtype == "int8" and encoding.symmetric:
        return affine.quantize_weights(array, scale, encoding.axis)
    points = np.array(encoding.zero_point, np.int64)
    return affine.quantize(array, scale, points, dtype=encoding.dtype, axis=encoding.axis)


def parameters(encoding: Encoding, axis: int) -> dict[str, Any]:
    """Scale, zero point and axis as `File.tensor` takes them."""
    return {"scale": encoding.scale, "zero_point": encoding.zero_point, "axis": axis}


def constant(
    file: File,
    name: str,
    array: Array,
    encoding: Encoding,
    arrange: Callable[[Array], Array],
    axis: int,
) -> int:
    """The codes of `array`, `arrange`d, as a constant of `file`.

    `axis`: where the channels lie in what `arrange` returns; of them it may pick some. Blocks are
    runs along the last axis of a matrix [rows, columns], which `arrange` makes without reordering.
    """
    arranged = np.ascontiguousarray(arrange(codes(array, encoding)))
    dtype = "int4" if encoding.dtype == "int4" else ""
    if encoding.block is not None:
        at = file.constant(name, arranged, dtype)
        scales = np.array(encoding.scale, np.float32).reshape(arranged.shape[0], -1)
        assert scales.shape[1] * encoding.block == arranged.shape[1], (scales.shape, encoding.block)
        halves = scales.astype(np.float16)  # exact: such scales hold in bfloat16, in its range
        file.blocks(at, file.constant(f"{name}_scales", halves), encoding.block)
        return at
    said = parameters(encoding, axis)
    if encoding.axis is not None and len(encoding.scale) != arranged.shape[axis]:
        picked = _channels(array, encoding.axis, arrange, axis)
        pairs = [(encoding.scale[channel], encoding.zero_point[channel]) for channel in picked]
        if len(set(pairs)) == 1:  # a gate
            pairs = pairs[:1]
        said["scale"], said["zero_point"] = zip(*pairs, strict=True)
    return file.constant(name, arranged, dtype, **said)


def _channels(
    array: Array, channels: int, arrange: Callable[[Array], Array], axis: int
) -> list[int]:
    """Which channels of `array` are those along `axis` of what `arrange` makes of it."""
    shape = [1] * array.ndim
    shape[channels] = -1
    numbers = np.arange(array.shape[channels], dtype=np.int32).reshape(shape)
    arranged = np.moveaxis(arrange(np.broadcast_to(numbers, array.shape)), axis, 0)
    return [int(number) for number in arranged.reshape(arranged.shape[0], -1)[:, 0]]
