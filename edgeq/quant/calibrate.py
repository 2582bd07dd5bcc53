"""One streaming pass over samples; of an activation nothing stays but its histogram."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeq.errors import EdgeqError
from edgeq.quant.executor import Executor
from edgeq.quant.observers.channels import ChannelStatistics
from edgeq.quant.observers.histogram import Histogram


@dataclass(frozen=True)
class Statistics:
    """What was seen of each observed tensor over `n_samples` samples. 16 kB a tensor, always."""

    tensors: Mapping[str, Histogram]
    n_samples: int

    def merge(self, other: Statistics) -> Statistics:
        """Of both runs together, as if the samples had been seen in one."""
        names = (*self.tensors, *(name for name in other.tensors if name not in self.tensors))
        empty = Histogram()
        merged = {
            name: self.tensors.get(name, empty).merge(other.tensors.get(name, empty))
            for name in names
        }
        return Statistics(merged, self.n_samples + other.n_samples)


def calibrate(
    executor: Executor, samples: Iterable[Mapping[str, NDArray[Any]]], observe: Sequence[str]
) -> Statistics:
    """Run every sample once and count each tensor of `observe` (float32, graph inputs too).

    Raises EdgeqError: [no-samples], or [non-finite-activation] naming tensor and sample (from 0).
    """
    histograms = {name: Histogram() for name in observe}
    count = 0
    for index, feeds in enumerate(samples):
        outputs = executor.run(feeds)
        for name, histogram in histograms.items():
            array = outputs[name] if name in outputs else feeds[name]
            if not histogram.add(array):
                raise _non_finite(name, index, array)
        count = index + 1
        del outputs, feeds  # free them before the next sample's take their place
    if count == 0:
        raise EdgeqError(
            "no-samples",
            "calibration got no sample at all",
            "give a source that is not empty: `--data calib.npz`",
        )
    return Statistics(histograms, count)


def calibrate_channels(
    executor: Executor,
    samples: Iterable[Mapping[str, NDArray[Any]]],
    tensors: Mapping[str, int],
) -> dict[str, ChannelStatistics]:
    """Run every sample once and sum each tensor of `tensors` (name -> channel axis) by channel.

    `edgeq.quant.algorithms.inputs.layer_inputs` names the tensors that the algorithms want. Raises
    EdgeqError [non-finite-activation] naming tensor and sample (from 0).
    """
    statistics = {name: ChannelStatistics(axis) for name, axis in tensors.items()}
    for index, feeds in enumerate(samples):
        outputs = executor.run(feeds)
        for name, channels in statistics.items():
            array = outputs[name] if name in outputs else feeds[name]
            if not channels.add(array):
                raise _non_finite(name, index, array)
        del outputs, feeds  # free them before the next sample's take their place
    return statistics


def _non_finite(name: str, index: int, array: NDArray[Any]) -> EdgeqError:
    bad = array.size - int(np.count_nonzero(np.isfinite(array)))
    return EdgeqError(
        "non-finite-activation",
        f"tensor `{name}` has {bad} values that are NaN or infinite in sample {index}",
        "check the sample and its preprocessing: `edgeq run MODEL -d SRC` shows the outputs",
        "or build without quantizing: `--fp32`",
    )
