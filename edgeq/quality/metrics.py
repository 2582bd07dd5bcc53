"""The metrics edgeq measures itself, one score a sample, and what a measured quality holds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeq.errors import EdgeqError
from edgeq.quality.intervals import CONFIDENCE, Interval

Score = Callable[[NDArray[Any], NDArray[Any], str], float]


@dataclass(frozen=True)
class Metric:
    """A row of METRICS. `score(output, label, place)` scores one sample, without batch axis."""

    name: str
    score: Score
    is_rate: bool
    lower_is_better: bool
    title: str


@dataclass(frozen=True)
class Quality:
    """A measured metric of an artifact, with the float model's where both were measured.

    `n` is the number of samples, None where the evaluation returned one number; then there is no
    interval either. Intervals are of 95 %; `difference_interval` is that of value - baseline,
    paired by sample. `unit` is "fraction" for a rate in 0..1, else None. `recorded` says whose a
    baseline is that was not measured beside the value; there is no `difference_interval` then.
    """

    metric: str
    value: float
    baseline: float | None = None
    n: int | None = None
    interval: Interval | None = None
    difference_interval: Interval | None = None
    lower_is_better: bool = False
    unit: str | None = None
    recorded: str | None = None

    @property
    def difference(self) -> float | None:
        """Value - baseline, in the metric's own unit."""
        return None if self.baseline is None else self.value - self.baseline

    def to_json(self) -> dict[str, Any]:
        return {
            "metric": self.metric,
            "value": self.value,
            "baseline": self.baseline,
            "difference": self.difference,
            "n": self.n,
            "confidence": CONFIDENCE,
            "interval": _pair(self.interval),
            "difference_interval": _pair(self.difference_interval),
            "lower_is_better": self.lower_is_better,
            "unit": self.unit,
        }


def _pair(interval: Interval | None) -> list[float] | None:
    return None if interval is None else list(interval)


def _top(k: int) -> Score:
    """1.0 where the label's logit is among the k largest; ties go to the lower index."""

    def score(output: NDArray[Any], label: NDArray[Any], place: str) -> float:
        logits = output.reshape(-1)
        if output.size <= k or max(output.shape, default=1) != output.size:
            raise EdgeqError(
                "bad-eval",
                f"{place}: top{k} needs one row of more than {k} scores, got {_shape(output)}",
            )
        wanted = _class(label, output.size, place)
        better = (logits > logits[wanted]).sum() + (logits[:wanted] == logits[wanted]).sum()
        return float(better < k)

    return score


def _class(label: NDArray[Any], classes: int, place: str) -> int:
    """The class that a label names: an index, or a one-hot row."""
    if label.size == classes and label.size > 1 and np.count_nonzero(label) == 1:
        return int(label.reshape(-1).argmax())
    if label.size != 1 or label.dtype.kind not in "biuf":
        raise EdgeqError("bad-eval", f"{place}: the label is {_shape(label)}, not one class")
    value = label.reshape(-1)[0]
    if value != int(value) or not 0 <= int(value) < classes:
        raise EdgeqError(
            "bad-eval", f"{place}: the label {value} is not a class of 0..{classes - 1}"
        )
    return int(value)


def _errors(output: NDArray[Any], label: NDArray[Any], place: str) -> NDArray[np.float64]:
    if output.size != label.size or label.dtype.kind not in "biuf":
        raise EdgeqError(
            "bad-eval", f"{place}: the output is {_shape(output)} and `y` is {_shape(label)}"
        )
    return output.reshape(-1).astype(np.float64) - label.reshape(-1).astype(np.float64)


def _mae(output: NDArray[Any], label: NDArray[Any], place: str) -> float:
    return float(np.abs(_errors(output, label, place)).mean())


def _mse(output: NDArray[Any], label: NDArray[Any], place: str) -> float:
    return float(np.square(_errors(output, label, place)).mean())


def _cosine(output: NDArray[Any], label: NDArray[Any], place: str) -> float:
    _errors(output, label, place)
    a, b = output.reshape(-1).astype(np.float64), label.reshape(-1).astype(np.float64)
    length = float(np.sqrt((a @ a) * (b @ b)))
    return float(a @ b) / length if length > 0 else 0.0


def _shape(array: NDArray[Any]) -> str:
    return f"{array.dtype} {list(array.shape)}"


METRICS: dict[str, Metric] = {
    "top1": Metric("top1", _top(1), True, False, "share of samples whose label has the top score"),
    "top5": Metric("top5", _top(5), True, False, "share of samples whose label is in the top five"),
    "mae": Metric("mae", _mae, False, True, "mean absolute error against `y`"),
    "mse": Metric("mse", _mse, False, True, "mean squared error against `y`"),
    "cosine": Metric("cosine", _cosine, False, False, "mean cosine of the output and `y`"),
}
