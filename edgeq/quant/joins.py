"""Concats whose operands are too unlike for the one scale that their result has in int8.

An engine's int8 Concat reads every operand at a scale of its own, but makes one tensor: boxes in
hundreds of pixels beside scores below 1 leave the scores two or three codes. Ratios of ranges do
not tell (an operand of zeros loses nothing): what counts is the error of each part.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import onnx_ir

from edgeq.ir import Graph
from edgeq.numerics import affine
from edgeq.quant import rules
from edgeq.quant.calibrate import Statistics
from edgeq.quant.draft import Draft, Join
from edgeq.quant.kernels import ONNXRUNTIME, Kernels
from edgeq.quant.observers.histogram import Histogram

LEAST_DB = 20.0
"""SQNR a part must keep at the scale of the whole: below it a tensor can alone cost a detector
its objects (8 to 14 dB at the output, measured: notes quant-quality 7.1)."""

LOST_DB = 12.0
"""And what it must lose to its own scale, two bits, before the Concat is to blame."""


def unlike(
    graph: Graph, draft: Draft, statistics: Statistics, kernels: Kernels = ONNXRUNTIME
) -> Mapping[str, str]:
    """Node -> reason, for the int8 Concats of `draft` with a part that the whole's scale ruins.

    Beside a Concat stand the int8 ops that read its result, through moves too: at their input the
    same scale would do the same. Give all of them to `draft` as `float_nodes`. Ranges are min/max.
    """
    histograms = _Histograms(draft, statistics)
    nodes = {str(node.name): node for node in graph.nodes()}
    found: dict[str, str] = {}
    for join in draft.joins:
        if nodes[join.node].op_type != "Concat":
            continue  # what a Max or Min drops need not be exact
        worst = histograms.worst(join)
        if worst is None:
            continue
        name, kept, own = worst
        found.setdefault(
            join.node,
            f"at one scale for all of its result, its operand `{name}` would keep {kept:.0f} dB "
            f"of {own:.0f} (SQNR on the calibration data)",
        )
        for reader in _readers(nodes[join.node], draft, kernels):
            found.setdefault(
                reader, f"it reads the result of `{join.node}`, whose operands are too unlike"
            )
    return found


class _Histograms:
    """Histograms of activations by the head of their group, after the clamps folded into it."""

    def __init__(self, draft: Draft, statistics: Statistics) -> None:
        self.head = {tensor: group[0] for group in draft.ties for tensor in group}
        self.fixed = draft.fixed
        self.seen: dict[str, Histogram] = {}
        for name in draft.observe:
            histogram = statistics.tensors[name]
            for low, high in draft.clamps.get(name, ()):
                histogram = histogram.clamped(low, high)
            self.seen[name] = histogram

    def worst(self, join: Join) -> tuple[str, float, float] | None:
        """(operand, SQNR at the result's scale, SQNR at its own) of the part that loses most."""
        whole = self.seen.get(self.head[join.output])
        if whole is None or whole.total == 0:
            return None
        scale = _scale(whole)
        losing: list[tuple[float, str, float]] = []
        for name in dict.fromkeys(join.inputs):
            head = self.head[name]
            kept, own = self._kept(head, scale), self._own(head)
            if kept < LEAST_DB and own - kept > LOST_DB:
                losing.append((kept, name, own))
        if not losing:
            return None
        kept, name, own = min(losing)
        return name, kept, own

    def _own(self, head: str) -> float:
        if head in self.fixed:
            return _uniform(self.fixed[head].scale[0])
        return sqnr_at(self.seen[head], _scale(self.seen[head]))

    def _kept(self, head: str, scale: float) -> float:
        if head in self.fixed:
            return _uniform(scale)
        return sqnr_at(self.seen[head], scale)


def sqnr_at(histogram: Histogram, scale: float) -> float:
    """SQNR in dB of a tensor rounded to multiples of `scale`; inf where nothing is lost.

    A bin counts as its centre: bins are several times narrower than any step worth asking about.
    """
    if histogram.total == 0:
        return math.inf
    centre, mass = histogram.centres(), histogram.mass()
    error = float(mass @ (centre - np.rint(centre / scale) * scale) ** 2)
    power = float(mass @ centre**2)
    return math.inf if error <= 0.0 or power <= 0.0 else 10.0 * math.log10(power / error)


def _scale(histogram: Histogram) -> float:
    low, high = min(histogram.minimum, 0.0), max(histogram.maximum, 0.0)
    return float(affine.from_range(low, high)[0])


def _uniform(scale: float) -> float:
    """SQNR of values spread evenly over 0..1, as a Sigmoid's are assumed: power 1/3, s^2/12."""
    return 10.0 * math.log10(4.0 / min(scale, 2.0) ** 2)


def _readers(node: onnx_ir.Node, draft: Draft, kernels: Kernels) -> list[str]:
    """The int8 ops that read the result of `node`, moves and folded clamps looked through."""
    found: list[str] = []
    for reader in dict.fromkeys(user for value in node.outputs for user in value.consumers()):
        decision = draft.ops.get(str(reader.name))
        if decision is None or decision.precision != "int8":
            continue
        found.append(str(reader.name))
        if reader.op_type in (*kernels.tied, *rules.CLAMPS):
            found += _readers(reader, draft, kernels)
    return found
