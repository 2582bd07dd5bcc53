"""Which tensors lose an output all by themselves: quantized one at a time, in one session.

Errors add, so a group of tensors that together leave more than `SAFE_DB` holds none that alone
leaves less than `FLOOR_DB`: halving the bad groups finds the bad tensors in a few dozen runs where
one by one would take hundreds (notes quant-quality 5.9 and 7.1).
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import onnx_ir

from edgeq.ir import Graph, static_shape
from edgeq.search.scoring import Score

FLOOR_DB = 8.0
"""A tensor that alone leaves less than this in any part of any output stays float. On yolox_nano
the one that costs 0.1 AP leaves 3 dB, the next 10 dB, nearly all others over 19 dB."""

SAFE_DB = 11.0
"""A group that leaves this much is left alone: twice the noise of FLOOR_DB, should errors of two
tensors cancel in part."""

MOST_MACS = 300e9
"""Work the search for sensitive tensors may spend, in multiply-accumulates: about half a minute of
one core."""

LEAST_TRIALS = 40
MOST_TRIALS = 600

Measure = Callable[[frozenset[int]], Score]


@dataclass(frozen=True)
class Sensitivity:
    """`alone` holds, by index, the score of every tensor that was measured by itself.

    `left` counts those in bad groups that were not, because `trials` had reached its limit.
    """

    alone: dict[int, Score]
    trials: int
    left: int

    @property
    def fragile(self) -> dict[int, Score]:
        """Those below `FLOOR_DB` in their worst part, in order of their index."""
        found = {at: score for at, score in self.alone.items() if score.worst[1] < FLOOR_DB}
        return dict(sorted(found.items()))


def find(measure: Measure, count: int, limit: int) -> Sensitivity:
    """Measure groups of 0..`count`-1, worst first, halving those below `SAFE_DB`."""
    alone: dict[int, Score] = {}
    waiting: list[tuple[float, tuple[int, ...]]] = [(-math.inf, tuple(range(count)))]
    trials = 0
    while waiting and trials < limit:
        _, group = heapq.heappop(waiting)
        for half in _halves(group) if trials else [group]:
            if not half:
                continue
            score = measure(frozenset(half))
            trials += 1
            lost = score.worst[1]
            if len(half) == 1:
                alone[half[0]] = score
            elif lost < SAFE_DB:
                # to a tenth of a dB: the order may not hang on a host's last bits
                heapq.heappush(waiting, (round(lost, 1), half))
    return Sensitivity(alone, trials, sum(len(group) for _, group in waiting))


def worst(measure: Measure, count: int, wanted: int, limit: int) -> dict[int, Score]:
    """The `wanted` of 0..`count`-1 that alone lose most, by halving what loses most first."""
    alone: dict[int, Score] = {}
    waiting: list[tuple[float, tuple[int, ...], Score | None]] = [
        (-math.inf, tuple(range(count)), None)
    ]
    trials = 0
    while waiting and len(alone) < wanted and trials < limit:
        _, group, score = heapq.heappop(waiting)
        if len(group) == 1 and score is not None:
            alone[group[0]] = score
            continue
        for half in _halves(group) if score is not None else [group]:
            found = measure(frozenset(half))
            trials += 1
            heapq.heappush(waiting, (round(found.worst[1], 1), half, found))
    return alone


def _halves(group: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    middle = len(group) // 2
    return group[:middle], group[middle:]


def trial_limit(graph: Graph, samples: int) -> int:
    """How many trials of `samples` runs each the cap on work allows."""
    return int(min(MOST_TRIALS, max(LEAST_TRIALS, MOST_MACS // max(1, macs(graph) * samples))))


def macs(graph: Graph) -> int:
    """Multiply-accumulates of one run, of Conv, Gemm and MatMul; sizes that are not known are 1."""
    return sum(_node_macs(node) for node in graph.nodes())


def _node_macs(node: onnx_ir.Node) -> int:
    if node.op_type not in ("Conv", "Gemm", "MatMul", "ConvTranspose") or len(node.inputs) < 2:
        return 0
    if node.op_type == "ConvTranspose":
        return _size(node.inputs[0]) * math.prod(_known(node.inputs[1])[1:])
    weight = _known(node.inputs[1])
    if node.op_type == "Conv":
        return _size(node.outputs[0]) * math.prod(weight[1:])
    read = _known(node.inputs[0])
    return _size(node.outputs[0]) * (read[-1] if read else 1)


def _size(value: onnx_ir.Value | None) -> int:
    return math.prod(_known(value))


def _known(value: onnx_ir.Value | None) -> Sequence[int]:
    shape = static_shape(value)
    if shape is not None or value is None or value.shape is None:
        return shape or ()
    return [size if isinstance(size, int) else 1 for size in value.shape]
