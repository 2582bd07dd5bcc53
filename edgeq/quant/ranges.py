"""Where to cut a tensor's range: the methods, each a function of its histogram alone.

What a range costs is two errors that pull apart: a wide one makes every step coarse, a narrow one
clips. Which method balances them best differs from net to net by 4 to 10 dB either way, so none is
the default by rule (measured: notes quant-quality 3.1 and 7).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeq.errors import EdgeqError
from edgeq.numerics import affine
from edgeq.quant.observers.histogram import BINS, Histogram

Range = tuple[float, float]

_STEPS = 255
"""Steps of int8: the window of codes -128..127 is this many scales wide."""

_COARSE, _NARROWEST = 40, 2.0**-6
"""The MSE search first tries this many scales, from the whole range's down to that share of it:
past that a tensor's outliers lie 64 times as far out as everything that matters."""

_FINE = 9
"""Scales tried between the neighbours of the best, twice."""

_KL_LEVELS, _KL_THRESHOLDS = 256, 112
"""Codes of int8, and how many ranges the KL search compares."""

_KL_ABSENT = 1e-4
"""Mass given to a level that holds nothing but what was clipped to it (infinite KL otherwise)."""


def find(histogram: Histogram, method: str, clamps: Sequence[Range] = ()) -> Range:
    """The (low, high) that `method`, one of `METHODS`, gives the tensor; low <= 0 <= high.

    `clamps` are bounds applied to the tensor after it was observed: what lies outside of them is
    counted at the bound, and the range stays within them. (0, 0) when nothing was added.
    Raises EdgeqError [unknown-algorithm].
    """
    finder = FINDERS.get(method)
    if finder is None:
        raise EdgeqError(
            "unknown-algorithm",
            f"there is no range method `{method}`: " + ", ".join(f"`{name}`" for name in METHODS),
        )
    for low, high in clamps:
        histogram = histogram.clamped(low, high)
    if histogram.total == 0:
        return 0.0, 0.0
    low, high = finder(histogram)
    return min(low, 0.0), max(high, 0.0)


def percentile(histogram: Histogram, *, percent: float) -> Range:
    """Keep `percent` of the mass, what is cut being shared by the sides that have mass."""
    return histogram.percentile_range(percent)


def mean_square(histogram: Histogram) -> Range:
    """The range with the least mean square error of the tensor (notes quant-quality 5.3).

    Searched over real encodings: scales of `SCALE_BITS` bits, each with every zero point whose
    codes reach no further than the tensor does. A bin counts as its centre plus the variance w^2/12
    inside it, which is the same for all and drops out. Coarse to fine over the scale.
    """
    low, high = min(histogram.minimum, 0.0), max(histogram.maximum, 0.0)
    if histogram.minimum == histogram.maximum or high - low <= _STEPS * affine.SMALLEST_SCALE:
        return low, high
    moments = _Moments(histogram)
    widest = affine.from_range(low, high)[0]
    scales = _between(widest, widest * _NARROWEST, _COARSE)
    for _ in range(2):
        best = int(np.argmin(moments.errors(scales)[0]))
        ends = scales[max(best - 1, 0)], scales[min(best + 1, scales.size - 1)]
        scales = _between(*ends, _FINE)
    errors, starts = moments.errors(scales)
    best = int(np.argmin(errors))
    scale, start = float(scales[best]), int(starts[best])
    return start * scale, (start + _STEPS) * scale


def divergence(histogram: Histogram) -> Range:
    """The range whose 256 levels keep the distribution best: least KL(P || Q).

    Migacz 2017 ("8-bit inference with TensorRT"), both sides shrunk together: P is the bins inside
    with the mass outside added to the edge bins; Q is the same bins without it, merged to 256
    levels and spread back evenly over the bins that are not empty. Exact zeros, which every range
    holds, are left out. Of equals the widest range wins.
    """
    low, high = min(histogram.minimum, 0.0), max(histogram.maximum, 0.0)
    width = math.ldexp(1.0, histogram.exponent)
    if histogram.minimum == histogram.maximum or high - low <= _KL_LEVELS * width:
        return low, high
    mass = histogram.mass()
    least = _KL_LEVELS * width / (high - low)
    shares = np.linspace(1.0, least, _KL_THRESHOLDS)
    edges = low / width + (high - low) / width * np.linspace(0.0, 1.0, _KL_LEVELS + 1)
    cuts = np.ceil(shares[:, None] * edges - histogram.first).astype(np.int64)
    cost = _divergences(mass, np.clip(cuts, 0, BINS))
    share = float(shares[np.flatnonzero(cost <= cost.min() + 1e-9)[0]])
    return low * share, high * share


FINDERS: dict[str, Callable[[Histogram], Range]] = {
    "minmax": partial(percentile, percent=100.0),
    "p99.999": partial(percentile, percent=99.999),
    "p99.99": partial(percentile, percent=99.99),
    "p99.9": partial(percentile, percent=99.9),
    "mse": mean_square,
    "kl": divergence,
}
"""Each takes a histogram that holds something and gives (low, high) within its [min, max], but for
rounding to half a step and of the scale."""

METHODS = tuple(FINDERS)


def _between(first: float, last: float, count: int) -> NDArray[np.float64]:
    """`count` scales in geometric order from `first` to `last`, as encodings hold them."""
    return affine.round_up_scale(np.geomspace(first, last, count)).astype(np.float64)


class _Moments:
    """Running sums of mass, first and second moment: the error of any cut without a look at bins.

    Lengths are in bins. m[k][i] sums mass * centre^k over the bins before i.
    """

    def __init__(self, histogram: Histogram) -> None:
        self.unit = math.ldexp(1.0, histogram.exponent)
        self.first = histogram.first
        self.low = min(histogram.minimum, 0.0) / self.unit
        self.high = max(histogram.maximum, 0.0) / self.unit
        mass = histogram.mass()
        centre = histogram.centres() / self.unit
        self.sums = np.zeros((3, BINS + 1))
        np.cumsum([mass, mass * centre, mass * centre * centre], axis=1, out=self.sums[:, 1:])

    def errors(self, scales: NDArray[np.float64]) -> tuple[NDArray[Any], NDArray[Any]]:
        """Per scale [S]: the least error of any window of codes, and the level it starts at.

        Level j stands for j * scale. A window starts between level -255 and 0, so that it holds
        zero, and ends no further out than the tensor does.
        """
        step = (scales / self.unit)[:, None]
        levels = np.arange(-_STEPS, _STEPS + 2)
        cuts = np.ceil((levels - 0.5) * step - (self.first + 0.5))
        below = self.sums[:, np.clip(cuts, 0, BINS).astype(np.int64)]
        values = levels * step
        cells = _square(np.diff(below), values[:, :-1])
        inside = np.zeros_like(values)
        np.cumsum(cells, axis=1, out=inside[:, 1:])
        starts = levels[: _STEPS + 1]
        top = slice(_STEPS + 1, None)
        cost = inside[:, top] - inside[:, : _STEPS + 1]
        cost += _square(below[:, :, : _STEPS + 1], values[:, : _STEPS + 1])
        cost += _square(self.sums[:, -1, None, None] - below[:, :, top], values[:, _STEPS:-1])
        least = np.maximum(np.rint(self.low / step), -_STEPS)
        most = np.maximum(np.minimum(np.rint(self.high / step) - _STEPS, 0), least)
        cost[(starts < least) | (starts > most)] = np.inf
        best = np.argmin(cost, axis=1)
        return cost[np.arange(scales.size), best], starts[best]


def _square(sums: NDArray[Any], value: NDArray[Any]) -> NDArray[Any]:
    """Sum of mass * (centre - value)^2, from the moments [3, ...] of that mass."""
    return np.asarray(sums[2] + value * (value * sums[0] - 2.0 * sums[1]))


def _divergences(mass: NDArray[Any], cuts: NDArray[Any]) -> NDArray[Any]:
    """KL(P || Q) [T] where level j of range t holds bins cuts[t, j] .. cuts[t, j+1]."""
    entropy = mass * np.log(np.maximum(mass, 1.0))
    sums = np.zeros((3, mass.size + 1))
    np.cumsum([mass, mass > 0.0, entropy], axis=1, out=sums[:, 1:])
    at = sums[:, cuts]
    level, filled, _ = np.diff(at)
    total = sums[0, -1]
    p_log_p = at[2, :, -1] - at[2, :, 0]
    held = level.copy()
    for side, edge, outside in (
        (0, cuts[:, 0], at[0, :, 0]),
        (-1, cuts[:, -1] - 1, total - at[0, :, -1]),
    ):
        bin_mass = mass[np.clip(edge, 0, mass.size - 1)]
        both = bin_mass + outside
        p_log_p += both * np.log(np.maximum(both, 1.0))
        p_log_p -= bin_mass * np.log(np.maximum(bin_mass, 1.0))
        filled[:, side] += (bin_mass == 0.0) & (outside > 0.0)
        held[:, side] += outside
    spread = np.maximum(level, _KL_ABSENT) / np.maximum(filled, 1.0)
    p_log_q = np.sum(held * np.log(spread), axis=1)
    inside = at[0, :, -1] - at[0, :, 0]
    cost = (p_log_p - p_log_q) / total - math.log(total) + np.log(np.maximum(inside, _KL_ABSENT))
    return np.where(inside > 0.0, cost, np.inf)
