"""Static, dynamic or mixed int8: which are worth building for a graph, and which one is kept.

Quality decides by a wide margin, then speed by a wider one, so that the same plan comes out on
every host; the static plan is not compared at all where it is good or convolutions do the work.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import onnx_ir

from edgeq.ir import Graph, constant
from edgeq.quant.plan import QuantPlan
from edgeq.search.scoring import Score
from edgeq.search.static import ENOUGH_DB

STATIC, DYNAMIC, MIXED = "static", "dynamic", "mixed"

LINEAR_SHARE = 0.5
"""Where layers on constant matrices do less of the work, static int8 is for the convolutions."""

CONV_SHARE = 0.1
"""Where convolutions do less of the work, a mixed plan is a dynamic one."""

MARGIN_DB = 2.0
"""Candidates closer than this are equally good: kept samples tell no finer."""

MARGIN_SPEED = 1.3
"""Candidates closer than this are equally fast: timings on a busy host tell no finer."""

_TOKENS = 16
"""Assumed for a size that is not known, but for the first: a batch."""


@dataclass(frozen=True)
class Candidate:
    """One way to quantize, and how close it came to the float model."""

    name: str
    plan: QuantPlan
    score: Score


@dataclass(frozen=True)
class Choice:
    """The candidate that was kept, and why.

    `reason` is the same on every host that keeps the same one, and may go into a bundle; `also` is
    what this host added, to be told only.
    """

    kept: Candidate
    reason: str
    also: str = ""


@dataclass(frozen=True)
class Shares:
    """Multiply-accumulates of one run of one sample, by who does them; sizes partly assumed."""

    conv: int
    linear: int
    other: int

    @property
    def total(self) -> int:
        return self.conv + self.linear + self.other


def shares(graph: Graph) -> Shares:
    """Who does the work of `graph`: Conv, layers on constant matrices, other products."""
    sums = {"conv": 0, "linear": 0, "other": 0}
    for node in graph.nodes():
        if node.op_type in ("Conv", "ConvTranspose"):
            sums["conv"] += _conv_macs(node)
        elif node.op_type in ("MatMul", "Gemm") and len(node.inputs) > 1:
            fixed = constant(node.inputs[1]) is not None
            sums["linear" if fixed else "other"] += _product_macs(node)
    return Shares(**sums)


def prefers_dynamic(graph: Graph) -> bool:
    """Whether products of activations (attention) keep static int8 layers apart."""
    return shares(graph).other > 0


def worth_building(graph: Graph, static_db: float | None) -> tuple[str, ...]:
    """Which candidates to compare with the static plan, whose score is `static_db` (None: there is
    none); empty where it is kept without a comparison."""
    work = shares(graph)
    if work.total == 0 or work.linear < LINEAR_SHARE * (work.conv + work.linear):
        return ()
    if static_db is not None and static_db >= ENOUGH_DB:
        return ()
    return (DYNAMIC, MIXED) if work.conv >= CONV_SHARE * work.total else (DYNAMIC,)


def choose(
    candidates: Sequence[Candidate],
    *,
    seconds: Mapping[str, float],
    source: str = "",
    slow: Mapping[str, str] = MappingProxyType({}),
) -> Choice:
    """The best of `candidates`, the first of which is preferred where nothing speaks against it.

    `seconds` are relative times of one run by name, or empty; `source` says whence. `slow` says of
    names why the target's engine is slower with them than in float.
    """
    able = [row for row in candidates if row.name not in slow] or list(candidates)
    best = max(row.score.total for row in able)
    good = [row for row in able if row.score.total >= best - MARGIN_DB]
    if len(good) == 1:
        return Choice(good[0], _by_quality(good[0], able, slow))
    if seconds:
        fastest = min(seconds[row.name] for row in good)
        good = [row for row in good if seconds[row.name] <= fastest * MARGIN_SPEED]
        if len(good) == 1:
            return Choice(good[0], _AS_GOOD, f"and faster, {source}")
    return Choice(good[0], _AS_GOOD, f"and {_PREFERRED[good[0].name]}")


_AS_GOOD = "as close to the float model as the others"
_PREFERRED = {
    DYNAMIC: "takes no range from data",
    MIXED: "takes fewer ranges from data",
    STATIC: "quantizes nothing at run time",
}


def _by_quality(kept: Candidate, able: Sequence[Candidate], slow: Mapping[str, str]) -> str:
    if len(able) == 1:
        return "; ".join(f"{name}: {why}" for name, why in slow.items()) or "no other is possible"
    return f"closest to the float model by {MARGIN_DB:g} dB or more"


def _conv_macs(node: onnx_ir.Node) -> int:
    weight = constant(node.inputs[1]) if len(node.inputs) > 1 else None
    if weight is None:
        return 0
    made = node.outputs[0] if node.op_type == "Conv" else node.inputs[0]
    return _elements(made) * math.prod(map(int, weight.shape[1:]))


def _product_macs(node: onnx_ir.Node) -> int:
    """A matrix of known size is read once per row of the other; else by the result's size."""
    matrix = constant(node.inputs[1])
    if matrix is not None and matrix.ndim == 2 and node.op_type == "MatMul":
        read = _sizes(node.inputs[0])
        return math.prod(read[:-1]) * int(matrix.size)
    read = _sizes(node.inputs[0])
    return _elements(node.outputs[0]) * (read[-1] if read else 1)


def _elements(value: onnx_ir.Value | None) -> int:
    return math.prod(_sizes(value))


def _sizes(value: onnx_ir.Value | None) -> list[int]:
    if value is None or value.shape is None:
        return []
    return [
        size if isinstance(size, int) else (_TOKENS if at else 1)
        for at, size in enumerate(value.shape)
    ]
