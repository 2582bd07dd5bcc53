"""How an artifact's tensors differ from the float model's, summed while samples stream past.

Nothing is kept but a few sums a tensor, so a check costs no memory that grows with samples.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Difference:
    """One tensor over all samples: `sqnr_db` is 10 log10(sum y^2 / sum (y - y')^2).

    `sqnr_db` is None where the two are bit-equal or the tensor is not a float one; -inf where a
    zero signal met noise. `equal_share` is the share of equal elements, 0..1. Not `comparable` is
    a tensor whose shape depends on the data and came out otherwise: nothing else is said of it.
    """

    name: str
    sqnr_db: float | None
    max_abs_error: float
    equal_share: float
    comparable: bool = True

    def max_lsb(self, step: float | None, *, same_grid: bool) -> float | None:
        """The largest error in quantization steps of size `step`; None where there is no step.

        `same_grid`: both sides are codes times this `step`, so their distance is a whole number
        of steps and what is not is rounding (float32 products are exact to 2**-24, codes to 2**8).
        """
        if step is None:
            return 0.0 if self.equal_share == 1.0 and self.comparable else None
        steps = self.max_abs_error / step
        return float(round(steps)) if same_grid and math.isfinite(steps) else steps


@dataclass(frozen=True)
class Held:
    """How a file holds the tensor `name`: an engine hands it out as `fetch`.

    With a `scale` (> 0, one for the whole tensor) the tensor's values are codes on a grid:
    value = (code - zero_point) * scale. `fetch` is then an integer tensor, or those values.
    `channels_last`: the file has the channels as the last axis, and the float graph as the second.
    """

    name: str
    fetch: str
    scale: float | None = None
    zero_point: int = 0
    channels_last: bool = False

    def values(self, array: NDArray[Any]) -> NDArray[Any]:
        """`array` as fetched, integers of known scale as float32: what DequantizeLinear makes."""
        if self.channels_last:
            array = np.moveaxis(array, -1, 1)
        if self.scale is None or array.dtype.kind not in "iu":
            return array
        return (array.astype(np.int32) - self.zero_point).astype(np.float32) * np.float32(
            self.scale
        )


class Sums:
    """The running sums of one tensor: reference against candidate, shapes equal, any dtype."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.signal = 0.0
        self.noise = 0.0
        self.max_abs_error = 0.0
        self.equal = 0
        self.total = 0
        self.is_float = True
        self.comparable = True

    def add(self, reference: NDArray[np.generic], candidate: NDArray[np.generic]) -> None:
        if reference.shape != candidate.shape:
            self.comparable = False
            return
        same = np.asarray(reference == candidate)
        self.is_float = self.is_float and np.issubdtype(reference.dtype, np.floating)
        if self.is_float:
            same |= np.isnan(reference.astype(np.float64)) & np.isnan(candidate.astype(np.float64))
        self.equal += int(np.count_nonzero(same))
        self.total += reference.size
        if reference.dtype.kind not in "fiu" or not reference.size:
            return
        wanted = reference.astype(np.float64)
        with np.errstate(invalid="ignore"):  # inf - inf, where both hold the same infinity
            error = np.where(same, 0.0, candidate.astype(np.float64) - wanted)
        self.signal += float(np.sum(np.square(wanted), where=np.isfinite(wanted)))
        self.noise += float(np.sum(np.square(error)))
        self.max_abs_error = max(self.max_abs_error, float(np.max(np.abs(error))))

    def result(self) -> Difference:
        if not self.comparable:
            return Difference(self.name, None, 0.0, 0.0, comparable=False)
        share = self.equal / self.total if self.total else 1.0
        sqnr: float | None = None
        if self.is_float and self.noise > 0:
            ratio = self.signal / self.noise
            sqnr = 10 * math.log10(ratio) if ratio > 0 else -math.inf
        return Difference(self.name, sqnr, self.max_abs_error, share)


class Comparison:
    """Tensors of two runs, paired by name; the first non-finite value of the candidate is kept.

    A value that is not finite in the float model either is the model's own (a mask, an overflow)
    and counts as equal when the artifact has the same.
    """

    def __init__(self) -> None:
        self._sums: dict[str, Sums] = {}
        self.samples = 0
        self.not_finite: str | None = None

    def add(
        self,
        reference: Mapping[str, NDArray[np.generic]],
        candidate: Mapping[str, NDArray[np.generic]],
    ) -> None:
        for name, wanted in reference.items():
            got = candidate[name]
            self._sums.setdefault(name, Sums(name)).add(wanted, got)
            if self.not_finite is None and _newly_not_finite(wanted, got):
                self.not_finite = name
        self.samples += 1

    def differences(self) -> tuple[Difference, ...]:
        return tuple(sums.result() for sums in self._sums.values())


def _newly_not_finite(wanted: NDArray[np.generic], got: NDArray[np.generic]) -> bool:
    if not np.issubdtype(got.dtype, np.floating):
        return False
    bad = ~np.isfinite(got)
    return bool(np.any(bad & np.isfinite(wanted))) if wanted.shape == got.shape else bool(bad.any())


def worst(differences: tuple[Difference, ...], count: int = 5) -> tuple[Difference, ...]:
    """Return the `count` float tensors with the lowest SQNR, worst first, names break ties."""
    noisy = [d for d in differences if d.sqnr_db is not None]
    return tuple(sorted(noisy, key=lambda d: (d.sqnr_db or 0.0, d.name))[:count])
