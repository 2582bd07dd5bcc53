"""A histogram of fixed size whose bins double in width as the range grows.

Bin width is a power of two and zero is a bin edge: bin i holds [i * w, (i + 1) * w), w = 2**e, for
an integer i counted from zero. Doubling adds pairs of bins, so merging is exact. e is always the
least whose bins cover [min, max], a function of min and max alone: chunks in any order, one shot
and merged parts give the same counts (formula: notes quant-quality 5.3, with the finest e).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

BINS = 2048
"""Bins a histogram holds: 16 kB of int64."""

FULL_SIZE = 1 << 14
"""Rows (of the first axis, the batch) with more elements are counted on an even stride; min and max
stay exact."""

MOST_SIZE = 1 << 18
"""However many rows there are, no more elements of an array than this are counted."""

_SMALLEST_EXPONENT = -160
"""The least exponent: the smallest float32 difference, 2**-149, over `BINS` bins."""

_POINT_BITS = 40
"""A range of one point v gets bins of about v * 2**-40: finer than any wider float32 range needs,
so that the exponent only ever rises."""

_EXACT_IN_FLOAT32 = range(-120, 1)
"""Exponents e for which v * 2**-e neither overflows nor loses bits in float32."""


@dataclass
class Histogram:
    """Counts of one float tensor. `first` is the index of `bins[0]`; `zeros` counts exact zeros.

    `minimum` and `maximum` are of everything added; `total` = bins.sum() counts what was binned.
    """

    minimum: float = math.inf
    maximum: float = -math.inf
    zeros: int = 0
    exponent: int = _SMALLEST_EXPONENT
    first: int = 0
    bins: NDArray[np.int64] = field(default_factory=lambda: np.zeros(BINS, np.int64))

    @property
    def total(self) -> int:
        return int(self.bins.sum())

    def centres(self) -> NDArray[np.float64]:
        """The middle of each bin [BINS], no further out than the tensor goes."""
        middle = np.ldexp(np.arange(BINS) + (self.first + 0.5), self.exponent)
        return np.asarray(np.clip(middle, self.minimum, self.maximum))

    def mass(self) -> NDArray[np.float64]:
        """Counts [BINS] less the exact zeros, which any encoding keeps as they are."""
        counts = self.bins.astype(np.float64)
        if self.zeros:
            counts[-self.first] -= self.zeros
        return counts

    def add(self, array: NDArray[Any]) -> bool:
        """Count a float32 array [...] of any shape; False, and nothing changed, if not finite.

        An empty array changes nothing. Of large ones a `subsample` is binned.
        """
        assert array.dtype == np.float32, array.dtype
        if array.size == 0:
            return True
        low, high = float(array.min()), float(array.max())
        if not (math.isfinite(low) and math.isfinite(high)):
            return False
        self._cover(low, high)
        values = subsample(array)
        indices = _indices(values, self.exponent) - self.first
        self.bins += np.bincount(indices, minlength=BINS)
        self.zeros += values.size - int(np.count_nonzero(values))
        return True

    def merge(self, other: Histogram) -> Histogram:
        """A new histogram of what either has seen; neither is changed."""
        merged = self.copy()
        if other.total == 0:
            return merged
        merged._cover(other.minimum, other.maximum)
        right = other.copy()
        right._raise_to(merged.exponent, merged.first)
        merged.bins += right.bins
        merged.zeros += right.zeros
        return merged

    def copy(self) -> Histogram:
        return Histogram(
            self.minimum, self.maximum, self.zeros, self.exponent, self.first, self.bins.copy()
        )

    def clamped(self, low: float, high: float) -> Histogram:
        """The same elements after Clip(low, high), low <= 0 <= high: to be read, not added to."""
        made = self.copy()
        if self.total == 0:
            return made
        ends = [min(max(end, low), high) for end in (self.minimum, self.maximum)]
        made.minimum, made.maximum = ends
        edges = [_index(end, self.exponent) - self.first for end in ends]
        at, last = [min(max(edge, 0), BINS - 1) for edge in edges]
        under, over = int(self.bins[:at].sum()), int(self.bins[last + 1 :].sum())
        made.bins[:at] = 0
        made.bins[last + 1 :] = 0
        made.bins[at] += under
        made.bins[last] += over
        if high == 0.0:
            made.zeros = int(made.bins[last])
        elif low == 0.0:
            made.zeros += under
        return made

    def percentile_range(self, percent: float) -> tuple[float, float]:
        """The range that keeps `percent` (0 < p <= 100) of the mass, within [min, max].

        Half of the rest is cut from each side of zero that has mass, all of it from the one side
        of a one-sided tensor. Linear inside a bin. (0, 0) when nothing was added.
        """
        if self.total == 0:
            return 0.0, 0.0
        cut = (100.0 - percent) / 100.0 * self.total
        both = self.minimum < 0.0 < self.maximum
        share = cut / 2 if both else cut
        low = self._from_below(share) if self.minimum < 0.0 else self.minimum
        high = -self._mirrored()._from_below(share) if self.maximum > 0.0 else self.maximum
        return self._inside(low), self._inside(high)

    def _inside(self, value: float) -> float:
        return min(max(value, self.minimum), self.maximum)

    def _from_below(self, mass: float) -> float:
        """The value under which `mass` elements lie."""
        below = np.cumsum(self.bins)
        index = int(np.searchsorted(below, mass, side="right"))
        if index >= BINS:
            return self.maximum
        inside = (mass - float(below[index] - self.bins[index])) / float(self.bins[index])
        return math.ldexp(self.first + index + inside, self.exponent)

    def _mirrored(self) -> Histogram:
        return Histogram(
            -self.maximum,
            -self.minimum,
            self.zeros,
            self.exponent,
            -(self.first + BINS),
            self.bins[::-1],
        )

    def _cover(self, low: float, high: float) -> None:
        """Widen to [low, high] and move to the exponent and first bin these ask for."""
        self.minimum, self.maximum = min(self.minimum, low), max(self.maximum, high)
        exponent = _exponent(self.minimum, self.maximum)
        self._raise_to(exponent, _index(self.minimum, exponent))

    def _raise_to(self, exponent: int, first: int) -> None:
        """Re-bin exactly: index i at e becomes i >> d at e + d, d = `exponent` - e >= 0."""
        if (exponent, first) == (self.exponent, self.first):
            return
        bins = np.zeros(BINS, np.int64)
        used = np.flatnonzero(self.bins)
        if used.size:
            shift = exponent - self.exponent
            indices = ((used + self.first) >> min(shift, 63)) - first
            np.add.at(bins, indices, self.bins[used])
        self.bins, self.exponent, self.first = bins, exponent, first


def subsample(array: NDArray[Any]) -> NDArray[Any]:
    """Flat view or copy of at most `MOST_SIZE` elements, evenly spread, `FULL_SIZE` a row.

    A row gives the same elements whatever batch it is in, up to 16 of the largest rows: so ranges
    do not depend on how samples were batched. The stride shares no factor with any dimension, so no
    row, column or channel is left out.
    """
    inner = array.shape[1:]
    rows = array.reshape(array.shape[0] if array.shape else 1, -1)
    stride = _stride(rows.shape[1], FULL_SIZE, inner)
    if rows.shape[0] * -(-rows.shape[1] // stride) <= MOST_SIZE:
        return rows[:, ::stride].reshape(-1)
    return array.reshape(-1)[:: _stride(array.size, MOST_SIZE, array.shape)]


def _stride(size: int, most: int, shape: Sequence[int]) -> int:
    """The least stride that takes at most `most` of `size` elements and is coprime to `shape`."""
    stride = -(-size // most)
    while stride > 1 and any(math.gcd(stride, extent) > 1 for extent in shape):
        stride += 1
    return stride


def _exponent(low: float, high: float) -> int:
    """The least e with floor(high / 2**e) - floor(low / 2**e) < BINS."""
    spread = high - low
    if spread == 0.0:
        return (
            max(_SMALLEST_EXPONENT, math.frexp(high)[1] - _POINT_BITS)
            if high
            else _SMALLEST_EXPONENT
        )
    exponent = max(_SMALLEST_EXPONENT, math.frexp(spread / BINS)[1] - 1)
    while _index(high, exponent) - _index(low, exponent) >= BINS:
        exponent += 1
    return exponent


def _index(value: float, exponent: int) -> int:
    return math.floor(math.ldexp(value, -exponent))


def _indices(values: NDArray[Any], exponent: int) -> NDArray[np.int64]:
    """Bin indices counted from zero, exact: floor(v * 2**-e)."""
    if exponent not in _EXACT_IN_FLOAT32:
        values = values.astype(np.float64)
    scaled = values * values.dtype.type(math.ldexp(1.0, -exponent))
    return np.asarray(np.floor(scaled, out=scaled), np.int64)
