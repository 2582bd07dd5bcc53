"""Transforms of the float graph, each kept only where the measured score rises.

They are exact in float, which is measured too: published as exact, cross-layer equalization takes a
real MobileNet from 87.5 to 48.4 % (notes quant-quality 3.2).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeq.ir import Graph
from edgeq.quant.algorithms.bias import correct, input_means
from edgeq.quant.algorithms.equalize import equalize
from edgeq.quant.algorithms.inputs import layer_inputs
from edgeq.quant.algorithms.smooth import smooth
from edgeq.quant.algorithms.transform import Transformed, named_anew
from edgeq.quant.calibrate import calibrate_channels
from edgeq.search.design import MARGIN_DB, Design, Designer, text

EXACT_DB = 40.0
"""What a transform must leave in float: a tenth of the noise of the best score worth improving."""

POOR_DB = 15.0
"""Below this score equalization may scale channels by more than its guard allows: nets that hard
need factors to 10,000 (notes quant-quality 5.1), and there is little left to lose."""

WIDE = 1e4

BIAS_MARGIN_DB = 1.0
"""What bias correction must gain: more than other steps, as it is fitted to the very samples that
score it, a number per channel. (On a detector gains below 1 dB moved its AP either way.)"""

SKEWED = 10.0
"""SmoothQuant is tried where the largest channel of a layer's input is this many times the median
(assumed threshold: notes quant-quality 4)."""

Peaks = Mapping[str, NDArray[Any]]
Make = Callable[[Graph], Transformed]


def improved(designer: Designer, best: Design, enough_db: float) -> Design:
    """`best` with the transforms that raise its score, recalibrated on all samples; the gentler are
    tried first, and none any more once the score is `enough_db`."""
    peaks = _peaks(designer, best.graph)
    for name, make in VARIANTS.items():
        if best.score.total >= enough_db:
            break
        transform = make(best, peaks)
        after = best if transform is None else _tried(designer, best, name, transform)
        if after is not best:
            best, peaks = after, _peaks(designer, after.graph)
    return best


def _by_weights(best: Design, peaks: Peaks) -> Make:
    return equalize


def _by_activations(best: Design, peaks: Peaks) -> Make:
    return partial(equalize, channel_maxima=peaks)


def _past_clips(best: Design, peaks: Peaks) -> Make | None:
    clips = any(node.op_type == "Clip" for node in best.graph.nodes())
    return partial(equalize, channel_maxima=peaks, clips=True) if clips else None


def _widely(best: Design, peaks: Peaks) -> Make | None:
    return partial(equalize, clamp=WIDE) if best.score.total < POOR_DB else None


def _smoothed(best: Design, peaks: Peaks) -> Make | None:
    skewed = any(_skew(peak) > SKEWED for peak in peaks.values())
    return partial(smooth, channel_maxima=peaks) if skewed else None


VARIANTS: Mapping[str, Callable[[Design, Peaks], Make | None]] = {
    "equalized": _by_weights,
    "equalized by activations": _by_activations,
    "equalized past bounds": _past_clips,
    "equalized widely": _widely,
    "smoothed": _smoothed,
}
"""What is tried, the gentler first: how the transform is made of a design and its channels' peaks,
None where it is not worth a try. Past bounds means pairs with a ReLU6 between them: by activations
their factors are as good as exact, which is measured."""


def _tried(designer: Designer, best: Design, name: str, make: Make) -> Design:
    """The design on the transformed graph where that is better, else `best`.

    Tried with the range method of `best`, calibrated on the kept samples; only what gains there is
    worth a pass over all of them, and must gain again.
    """
    made = make(best.graph)
    if not made.changed:
        return best
    trials, graph = designer.trials, named_anew(made)
    exact = trials.of_float(graph).total
    if exact < EXACT_DB:
        designer.journal.decided(f"not {name}, which is not exact here", f"{exact:.1f} dB in float")
        return best
    kept = trials.samples
    drafted = designer.drafted(graph, best.floats)
    few = designer.calibrated(graph, drafted.observe, kept)
    first = designer.designed(name, graph, few, drafted, best.floats, (best.method,))
    if first.score.total < best.score.total + MARGIN_DB:
        designer.journal.decided(f"not {name}, which gains nothing", text(first.score))
        return best
    everything = designer.calibrated(graph, drafted.observe, designer.samples)
    better = designer.designed(name, graph, everything, drafted, best.floats)
    if better.score.total < best.score.total + MARGIN_DB:
        designer.journal.decided(f"not {name}, which gains nothing", text(better.score))
        return best
    designer.journal.decided(
        f"{name} in {made.changed} places, {better.method} ranges", text(better.score)
    )
    designer.journal.kept.append(name)
    return better


def corrected(designer: Designer, best: Design) -> Design:
    """`best` with biases that undo the mean error of each layer's output, where that is better."""
    graph = best.graph
    tensors = layer_inputs(graph)
    with designer.lab.float_model(graph, tuple(tensors)) as model:
        means = input_means(model, designer.trials.samples, best.plan, tensors)
    made = correct(graph, best.plan, means.plain, means.rounded)
    if not made.changed:
        return best
    drafted = designer.drafted(made.graph, best.floats)
    statistics = designer.seen(made.graph, best.statistics, drafted)
    after = designer.designed(
        "bias corrected", made.graph, statistics, drafted, best.floats, (best.method,)
    )
    if after.score.total < best.score.total + BIAS_MARGIN_DB:
        designer.journal.decided("not bias corrected, which gains too little", text(after.score))
        return best
    designer.journal.decided(f"bias corrected in {made.changed} layers", text(after.score))
    designer.journal.kept.append("bias corrected")
    return after


def _peaks(designer: Designer, graph: Graph) -> Peaks:
    """max |x| per channel of what the layers of the float `graph` read, over the kept samples."""
    tensors = layer_inputs(graph)
    with designer.lab.float_model(graph, tuple(tensors)) as model:
        found = calibrate_channels(model, designer.trials.samples, tensors)
    return {name: channels.peak for name, channels in found.items()}


def _skew(peak: NDArray[Any]) -> float:
    """Largest channel over the median one; 1 where there is nothing to compare."""
    middle = float(np.median(peak)) if peak.size else 0.0
    return float(peak.max()) / middle if middle > 0.0 else 1.0
