"""int4 weights: symmetric codes -8..7 with a scale per row, or per block of neighbours in a row.

Scales are positive, and those of blocks hold in bfloat16 and in float16, which is how files have
them: an engine that multiplies in either sees the numbers that the codes were rounded for.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeq.numerics.affine import round_up_scale

LOWEST, HIGHEST = -8, 7
"""Codes of int4, both ends included."""

_BFLOAT16_BITS = 8
"""Significant bits of a bfloat16."""

SMALLEST_SCALE = 2.0**-17
"""Below this float16 has fewer significant bits than bfloat16."""

LARGEST_SCALE = 2.0**15
"""And above this it has no numbers."""


def quantize(
    rows: NDArray[Any], scales: NDArray[np.float32], block: int | None
) -> NDArray[np.int8]:
    """Codes -8..7 of `rows` [N, K] -> [N, K] int8; `scales` is [N], or [N, K / block].

    |w - code * scale| <= scale / 2 for what lies within -8.5 to 7.5 scales.
    """
    steps = np.rint(np.asarray(rows, np.float32) / _spread(scales, rows.shape[1], block))
    return np.asarray(np.clip(steps, LOWEST, HIGHEST), np.int8)


def dequantize(
    codes: NDArray[np.int8], scales: NDArray[np.float32], block: int | None
) -> NDArray[np.float32]:
    """Values of `codes` [N, K]: code * scale in float32."""
    return codes.astype(np.float32) * _spread(scales, codes.shape[1], block)


def row_scales(rows: NDArray[Any]) -> NDArray[np.float32]:
    """Scales [N] > 0 of `rows` [N, K] that reach the farther of max / 7 and -min / 8."""
    reach = _reach(rows[:, None, :])[:, 0]
    return np.where(reach == 0.0, np.float32(1.0), round_up_scale(reach))


def block_scales(rows: NDArray[Any], block: int) -> NDArray[np.float32]:
    """Scales [N, K / block] > 0 of `rows` [N, K], K a multiple of `block`, as bfloat16 holds them.

    Rounded up, so that nothing is clipped; at most 2**-7 (0.8 %) above what reaches.
    """
    reach = _reach(rows.reshape(rows.shape[0], -1, block))
    mantissa, exponent = np.frexp(np.clip(reach, SMALLEST_SCALE, LARGEST_SCALE))
    steps = np.ceil(mantissa * 2.0**_BFLOAT16_BITS)
    return np.asarray(np.ldexp(steps, exponent - _BFLOAT16_BITS), np.float32)


def pack(codes: NDArray[np.int8]) -> NDArray[np.uint8]:
    """Two codes a byte in row-major order, the first in the low nibble; a last odd one with 0."""
    flat = codes.reshape(-1)
    even = np.append(flat, np.int8(0)) if flat.size % 2 else flat
    nibbles = even.astype(np.uint8) & 0x0F
    return np.asarray(nibbles[0::2] | (nibbles[1::2] << 4), np.uint8)


def unpack(packed: NDArray[np.uint8], count: int) -> NDArray[np.int8]:
    """The first `count` codes of what `pack` made, flat."""
    nibbles = np.empty(2 * packed.size, np.uint8)
    nibbles[0::2], nibbles[1::2] = packed & 0x0F, packed >> 4
    return ((nibbles[:count] ^ 8).astype(np.int8) - 8).astype(np.int8)


def _reach(blocks: NDArray[Any]) -> NDArray[np.float64]:
    """The scale at which the ends of [N, B, K] are just codes 7 or -8: [N, B], >= 0."""
    low, high = blocks.min(axis=2, initial=0.0), blocks.max(axis=2, initial=0.0)
    reach = np.maximum(high.astype(np.float64) / HIGHEST, low.astype(np.float64) / LOWEST)
    return np.asarray(reach, np.float64)


def _spread(scales: NDArray[np.float32], width: int, block: int | None) -> NDArray[np.float32]:
    """One scale per element of a row, [N, width] or [N, 1]."""
    if block is None:
        return scales.reshape(-1, 1)
    return np.repeat(scales.reshape(scales.shape[0], -1), block, axis=1)[:, :width]
