"""Affine quantization, value = (code - zero_point) * scale, and how scales are made from ranges.

Rounding is half to even and codes saturate, as ONNX `QuantizeLinear` and every kernel we target.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

SCALE_BITS = 12
"""Significant bits of every scale we make. Two of them multiply exactly in float32 (12 + 12 = 24),
so a bias scale s_x * s_w has no rounding of its own, and a range that differs in its last bits
between two hosts' float kernels still gives the same scale (but for ranges on a boundary)."""

SMALLEST_SCALE = 2.0**-60
"""No scale is smaller: the product of two stays a normal float32 number (>= 2**-126)."""

LIMITS = {"int8": (-128, 127), "uint8": (0, 255), "int32": (-(2**31), 2**31 - 1)}
"""Codes of each integer type, both ends included."""

WEIGHT_LIMIT = 127
"""Symmetric weights use -127..127: -128 would have no opposite (TFLite int8 specification)."""


def quantize(
    values: NDArray[np.floating[Any]],
    scale: NDArray[np.float32] | np.float32 | float,
    zero_point: NDArray[np.int64] | int = 0,
    *,
    dtype: str = "int8",
    axis: int | None = None,
) -> NDArray[np.integer[Any]]:
    """Codes of `values` [...], finite -> same shape, `dtype`: saturate(rint(v / s) + z).

    The quotient is taken in the precision of `values`, as `QuantizeLinear` takes it in float32.
    `scale` and `zero_point` are scalars, or [C] along `axis`.
    """
    low, high = LIMITS[dtype]
    s, z = _along(scale, values.ndim, axis), _along(zero_point, values.ndim, axis)
    with np.errstate(over="ignore"):  # a quotient beyond float range saturates like any other
        steps = np.rint(values / s.astype(values.dtype))
    wide = np.clip(steps.astype(np.float64) + z, low, high)
    return np.asarray(wide, dtype)


def dequantize(
    codes: NDArray[np.integer[Any]],
    scale: NDArray[np.float32] | np.float32 | float,
    zero_point: NDArray[np.int64] | int = 0,
    *,
    axis: int | None = None,
) -> NDArray[np.float32]:
    """Values of `codes` [...], any integer type -> float32 of the same shape: (q - z) * s."""
    s, z = _along(scale, codes.ndim, axis), _along(zero_point, codes.ndim, axis)
    difference = (codes.astype(np.int64) - z).astype(np.float32)
    return np.asarray(difference * s.astype(np.float32), np.float32)


def round_up_scale(value: NDArray[np.floating[Any]] | float) -> NDArray[np.float32]:
    """The least float32 >= `value` (any shape, finite, >= 0) with `SCALE_BITS` significant bits.

    At most 2**-11 (0.05 %) above `value`; never below `SMALLEST_SCALE`; inf beyond float32.
    """
    wanted = np.maximum(np.asarray(value, np.float64), SMALLEST_SCALE)
    mantissa, exponent = np.frexp(wanted)
    steps = np.ceil(mantissa * 2.0**SCALE_BITS)
    with np.errstate(over="ignore"):
        return np.asarray(np.ldexp(steps, exponent - SCALE_BITS), np.float32)


def from_range(low: float, high: float, dtype: str = "int8") -> tuple[float, int]:
    """Scale and zero point so that `dtype` covers [low, high] and holds 0.0 exactly.

    The range is widened to include 0; each end is met within half a step. A range that is one
    point at 0 gets scale 1. Low and high are finite; low <= high.
    """
    low, high = min(float(low), 0.0), max(float(high), 0.0)
    first, last = LIMITS[dtype]
    if low == high:
        return 1.0, first
    scale = float(round_up_scale((high - low) / (last - first)))
    zero_point = int(np.clip(np.rint(first - low / scale), first, last))
    return scale, zero_point


def tighter(low: float, scale: float) -> tuple[float, int]:
    """The next smaller scale of `SCALE_BITS` bits, and the int8 zero point that keeps `low` <= 0.

    What `from_range` rounds up costs up to an eighth of a step at each end; a tensor that must
    reach its ends (it does the work of a Clip) takes the scale below.
    """
    mantissa, exponent = np.frexp(np.nextafter(scale, 0.0))
    steps = np.floor(mantissa * 2.0**SCALE_BITS)
    smaller = float(np.float32(np.ldexp(steps, int(exponent) - SCALE_BITS)))
    first, last = LIMITS["int8"]
    return smaller, int(np.clip(np.rint(first - low / smaller), first, last))


def symmetric_scale(peak: NDArray[np.floating[Any]] | float) -> NDArray[np.float32]:
    """Scales > 0 that put |value| <= `peak` (any shape) into -127..127; 1 where `peak` is 0."""
    peaks = np.asarray(peak, np.float64)
    return np.where(peaks == 0.0, np.float32(1.0), round_up_scale(peaks / WEIGHT_LIMIT))


def quantize_weights(
    weights: NDArray[np.floating[Any]], scale: NDArray[np.float32], axis: int | None
) -> NDArray[np.int8]:
    """Symmetric codes -127..127 of `weights` [...]; `scale` is [C] along `axis`, or one number."""
    steps = np.rint(np.asarray(weights, np.float32) / _along(scale, weights.ndim, axis))
    return np.asarray(np.clip(steps, -WEIGHT_LIMIT, WEIGHT_LIMIT), np.int8)


def ends_at(bound: float, scale: float, zero_point: int, *, upper: bool) -> bool:
    """Whether an int8 tensor can hold nothing beyond `bound` by half a step or more.

    Where it holds, saturation at the end code does what a clamp at `bound` would have done.
    """
    first, last = LIMITS["int8"]
    code = np.rint(np.float64(bound) / scale) + zero_point
    return bool(code >= last) if upper else bool(code <= first)


def _along(value: Any, rank: int, axis: int | None) -> NDArray[Any]:
    """`value` shaped to broadcast along `axis` of a tensor of `rank` dimensions."""
    array = np.asarray(value)
    if axis is None:
        return array.reshape(())
    shape = [1] * rank
    shape[axis] = array.size
    return array.reshape(shape)
