"""Weight scales with which x86 kernels without VNNI cannot saturate.

vpmaddubsw adds a0*w0 + a1*w1 in 16 bits, activations a in 0..255, so two neighbouring weights of
the same sign must not sum past 128 in magnitude (255 * 128 = 32640 <= 32767 < 255 * 129).
Measured in ../shared notes quant-quality 7.2: exact at full speed for 0.7 dB.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeq.numerics.affine import WEIGHT_LIMIT, round_up_scale

PAIR_LIMIT = 128
"""Largest |w0 + w1| of two neighbours of the same sign."""


def pair_peak(rows: NDArray[Any]) -> NDArray[np.float64]:
    """Largest same-sign sum of neighbours (2i, 2i+1) in each row: [R, K] -> [R], >= 0.

    max over pairs of max(relu(w0) + relu(w1), relu(-w0) + relu(-w1)), which is the largest of
    |w0|, |w1| and |w0 + w1| whatever the signs; an odd last element stands alone.
    """
    sums = np.add(rows[:, 0 : rows.shape[1] - 1 : 2], rows[:, 1::2], dtype=np.float64)
    return np.maximum(_peak(rows), _peak(sums))


def _peak(rows: NDArray[Any]) -> NDArray[np.float64]:
    """max |w| of each row."""
    low, high = (reduce(axis=1, initial=0).astype(np.float64) for reduce in (rows.min, rows.max))
    return np.asarray(np.maximum(high, -low), np.float64)


def pair_safe_scale(rows: NDArray[Any], scale: NDArray[np.float32]) -> NDArray[np.float32]:
    """`scale` [R], raised where the codes of `rows` [R, K] would break `PAIR_LIMIT`.

    Starts from the bound on the real numbers and then looks at the rounded codes themselves.
    Rows that are safe keep their scale.
    """
    scales = np.array(scale, np.float32)
    unsafe = _unsafe(rows, scales)
    if unsafe.any():
        floor = round_up_scale(pair_peak(rows[unsafe]) / PAIR_LIMIT)
        scales[unsafe] = np.maximum(scales[unsafe], floor)
        unsafe = _unsafe(rows, scales)
    while unsafe.any():
        scales[unsafe] = round_up_scale(scales[unsafe].astype(np.float64) * (1 + 2.0**-11))
        unsafe = _unsafe(rows, scales)
    return scales


def _unsafe(rows: NDArray[Any], scales: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Which rows hold a pair past the limit once rounded."""
    steps = np.rint(np.asarray(rows, np.float32) / scales[:, None])
    return np.asarray(pair_peak(np.clip(steps, -WEIGHT_LIMIT, WEIGHT_LIMIT)) > PAIR_LIMIT)
