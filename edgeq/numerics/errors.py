"""How far two arrays are apart."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray


def sqnr_db(reference: NDArray[Any], value: NDArray[Any]) -> float:
    """Signal to quantization noise, 10 log10(sum r^2 / sum (r - v)^2) in dB; shapes are equal.

    +inf where the two are equal (two empty arrays too), -inf where a zero reference is missed.
    """
    wanted = np.asarray(reference, np.float64)
    noise = float(np.sum(np.square(wanted - np.asarray(value, np.float64))))
    signal = float(np.sum(np.square(wanted)))
    if noise == 0.0:
        return math.inf
    return 10.0 * math.log10(signal / noise) if signal > 0.0 else -math.inf
