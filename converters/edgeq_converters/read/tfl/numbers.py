"""Integers of a TFLite file: as floats that come back to the same integers, and their encodings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeq.numerics import affine
from edgeq.quant.plan import Encoding
from edgeq_runtime.tflite import Quantization, Tensor

Array = NDArray[Any]

UNSIGNED_SHIFT = 128
"""uint8 code - 128 = int8 code, zero point likewise."""

_CODES = ("int8", "uint8", "int4")
INT4_BLOCKS = (16, 32, 64, 128, 256)
"""How many elements of a row share a scale, where plans have such rows."""

_FLOATS = ("float16", "bfloat16")


def activation_encoding(tensor: Tensor) -> Encoding | None:
    """How int8 holds a tensor of codes with one scale; None for plain numbers, and for floats."""
    numbers = tensor.quantization
    if tensor.dtype not in _CODES or numbers is None or len(numbers.scale) != 1:
        return None
    return Encoding("int8", numbers.scale, _points(tensor), origin="the file")


def has_scales(tensor: Tensor) -> bool:
    """Whether codes have more than one scale, as only weights can."""
    scales = () if tensor.quantization is None else tensor.quantization.scale
    return tensor.dtype in _CODES and len(scales) > 1


def weight_encoding(tensor: Tensor, perm: Sequence[int]) -> Encoding | None:
    """How int8 holds the constant `tensor`, transposed by `perm`; None where it has no such codes.

    Around a zero point of 0 where the codes then still fit int8: kernels of int8 layers take no
    other. `symmetric` only within -127..127: so writers store weights.
    """
    numbers = tensor.quantization
    if tensor.dtype not in _CODES or numbers is None or not numbers.scale:
        return None
    points = _points(tensor)
    axis = None if len(numbers.scale) == 1 else list(perm).index(numbers.axis)
    array = codes(tensor)
    if axis is None and any(points):
        around = array.astype(np.int16) - points[0]
        if int(around.min(initial=0)) >= -128 and int(around.max(initial=0)) <= 127:
            array, points = around, (0,)
    symmetric = not any(points) and int(array.min(initial=0)) >= -affine.WEIGHT_LIMIT
    return Encoding("int8", numbers.scale, points, axis, symmetric, "the file")


def int4_encoding(tensor: Tensor, tensors: Sequence[Tensor], axis: int) -> Encoding | None:
    """How int4 holds a matrix [rows, columns] whose rows lie along `axis` of what was read of it;
    None where plans have no such codes: with a zero point, or in other blocks."""
    found = tensor.quantization
    if tensor.dtype != "int4" or found is None or len(tensor.shape) != 2:
        return None
    if found.block_size:
        if found.block_size not in INT4_BLOCKS:
            return None
        held = np.asarray(tensors[found.scales_tensor].array(), np.float32).reshape(-1)
        scale = tuple(float(item) for item in held)
    elif any(found.zero_point) or found.axis != 0:
        return None
    else:
        scale = found.scale if len(found.scale) > 1 else found.scale * tensor.shape[0]
    zeros, block = (0,) * len(scale), found.block_size or None
    return Encoding("int4", scale, zeros, axis, True, "the file", block)


def bias_encoding(input_scale: float, weights: Encoding) -> Encoding:
    """int32 on the scale of the products, which is what kernels take whatever the file says."""
    products = tuple(float(np.float32(input_scale) * np.float32(scale)) for scale in weights.scale)
    axis = None if weights.axis is None else 0
    origin = "input scale * weight scale"
    return Encoding("int32", products, (0,) * len(products), axis, True, origin)


def codes(tensor: Tensor) -> Array:
    """The integers of a constant, uint8 shifted to int8."""
    array = tensor.array()
    if tensor.dtype == "uint8" and tensor.quantization is not None:
        return np.asarray(array.astype(np.int16) - UNSIGNED_SHIFT, np.int8)
    return np.asarray(array)


def is_quantized(tensor: Tensor) -> bool:
    """Whether its numbers are codes on a scale."""
    return tensor.quantization is not None


def values(tensor: Tensor, tensors: Sequence[Tensor]) -> Array:
    """The constant `tensor` as float32 where it is codes or small floats, else as it is."""
    numbers = tensor.quantization
    if numbers is None:
        array = np.asarray(tensor.array())
        return array.astype(np.float32) if tensor.dtype in _FLOATS else array
    if numbers.block_size:
        return _from_blocks(tensor, numbers, tensors[numbers.scales_tensor])
    scale = np.array(numbers.scale, np.float32)
    points = np.array(_points(tensor), np.int64)
    axis = None if len(scale) == 1 else numbers.axis
    return affine.dequantize(codes(tensor), scale, points, axis=axis)


def _from_blocks(tensor: Tensor, numbers: Quantization, scales: Tensor) -> Array:
    blocks = codes(tensor).astype(np.float32).reshape(-1, numbers.block_size)
    scale = np.asarray(scales.array(), np.float32).reshape(-1, 1)
    return np.asarray((blocks * scale).reshape(tensor.shape), np.float32)


def _points(tensor: Tensor) -> tuple[int, ...]:
    assert tensor.quantization is not None
    shift = UNSIGNED_SHIFT if tensor.dtype == "uint8" else 0
    return tuple(point - shift for point in tensor.quantization.zero_point)
