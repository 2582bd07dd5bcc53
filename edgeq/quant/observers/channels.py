"""Mean, min and max of each channel of a tensor, summed while samples stream past."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


class ChannelStatistics:
    """One float tensor, its channels on `axis` (1 for what a Conv reads, -1 for a product).

    Before anything was added there are no channels: `count` is 0 and the arrays are empty.
    """

    def __init__(self, axis: int) -> None:
        self.axis = axis
        self.count = 0
        self._sums: Floats = np.zeros(0)
        self._low: Floats = np.zeros(0)
        self._high: Floats = np.zeros(0)

    @property
    def mean(self) -> Floats:
        """[C] float64."""
        return self._sums / max(self.count, 1)

    @property
    def minimum(self) -> Floats:
        """[C] float64."""
        return self._low

    @property
    def maximum(self) -> Floats:
        """[C] float64."""
        return self._high

    @property
    def peak(self) -> Floats:
        """max |x| [C] float64."""
        return np.maximum(np.abs(self._low), np.abs(self._high))

    def add(self, array: NDArray[Any]) -> bool:
        """Count a float array [..., C, ...], every element; False, and nothing changed, where one
        is not finite. The number of channels is the same each time; an empty array changes nothing.
        """
        if array.size == 0:
            return True
        channels, summed = _per_channel(array, self.axis)
        low, high, sums = (
            reduce(channels, summed).astype(np.float64) for reduce in (_least, _most, _sum)
        )
        if not (np.isfinite(low).all() and np.isfinite(high).all()):
            return False
        if self.count == 0:
            self._sums, self._low, self._high = sums, low, high
        else:
            assert sums.shape == self._sums.shape, (sums.shape, self._sums.shape)
            self._sums += sums
            self._low, self._high = np.minimum(self._low, low), np.maximum(self._high, high)
        self.count += array.size // sums.size
        return True


def _per_channel(array: NDArray[Any], axis: int) -> tuple[NDArray[Any], tuple[int, ...]]:
    """`array` as [before, C, after] without a copy, and the axes to sum over."""
    at = axis % array.ndim
    shape = array.shape
    flat = array.reshape(math.prod(shape[:at]), shape[at], math.prod(shape[at + 1 :]))
    return flat, (0, 2)


def _least(array: NDArray[Any], axes: tuple[int, ...]) -> NDArray[Any]:
    return np.asarray(array.min(axis=axes))


def _most(array: NDArray[Any], axes: tuple[int, ...]) -> NDArray[Any]:
    return np.asarray(array.max(axis=axes))


def _sum(array: NDArray[Any], axes: tuple[int, ...]) -> NDArray[Any]:
    with np.errstate(over="ignore", invalid="ignore"):  # looked at by min and max
        return np.asarray(array.sum(axis=axes, dtype=np.float64))
