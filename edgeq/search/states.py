"""Models that carry state: outputs fed back as inputs, where an error may grow from run to run.

A recurrent model that is exact on single samples can still drift: each run starts from what the
last one left. So a candidate is run in closed loop, as it will be used, beside the float model.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import onnx_ir
from numpy.typing import NDArray

from edgeq.ir import Graph
from edgeq.search.laboratory import Feeds, Runner
from edgeq_runtime.tensors import TensorInfo

FRAMES = 512
"""Samples that a closed loop runs over, in their order."""

AGREE = 0.995
"""Share of decisions (the largest class, a probability's side of 0.5) that must be float's: 99 % is
to hold over any length, and what a candidate shows on `FRAMES` frames is a little better."""

STEADY_DB = 30.0
"""... and the least SQNR of any output in the loop, as samples may hold few hard decisions: a voice
detector that loses 2 % of them over a minute shows 20 to 25 dB, and 29 dB on its first ten seconds.
"""

LEAST_FRAMES = 300
"""Fewer frames show nothing: with so many alike, 99 % are (rule of three, at 95 % confidence)."""

_WORDS = frozenset(
    ("in", "input", "out", "output", "next", "new", "prev", "previous", "last", "past", "present")
    + ("initial", "init", "n", "o", "i", "0", "t")
)
"""Words that tell the two ends of one state apart."""


@dataclass(frozen=True)
class State:
    """An output that is fed back as an input."""

    input: str
    output: str


@dataclass(frozen=True)
class Loop:
    """What a closed loop showed: over `frames` runs, the worst output's SQNR and agreement."""

    frames: int
    sqnr_db: float
    agreement: float

    @property
    def is_steady(self) -> bool:
        """Whether the candidate stays with the float model."""
        enough = self.frames >= LEAST_FRAMES
        return enough and self.agreement >= AGREE and self.sqnr_db >= STEADY_DB


def find_states(graph: Graph) -> tuple[State, ...]:
    """Inputs and outputs of one type and shape whose names differ only in which end they are:
    `state` and `stateN`, `h0` and `hn`, `past_k` and `present_k`, `x_in` and `x_out`.

    None in a model that reads nothing else (`image` to `image_out`), and no input that the model
    hands out as it is."""
    outputs: dict[str, list[TensorInfo]] = {}
    for info, value in zip(graph.outputs, graph.home.outputs, strict=True):
        if not _is_handed_on(value):
            outputs.setdefault(_stem(info.name), []).append(info)
    states = []
    for info in graph.inputs:
        found = outputs.get(_stem(info.name), [])
        if _stem(info.name) and len(found) == 1 and _alike(info, found[0]):
            states.append(State(info.name, found[0].name))
    return tuple(states) if len(states) < len(graph.inputs) else ()


def run_loop(
    reference: Runner, candidate: Runner, states: Sequence[State], samples: Iterable[Feeds]
) -> Loop:
    """Run both over `samples` in order, each fed with its own states from the second one on.

    The states themselves are compared, but for decisions, where no other output is a float one."""
    names = {state.output: state.input for state in states}
    sums: dict[str, _Sums] = {}
    frames = 0
    wanted: Feeds = {}
    got: Feeds = {}
    for feeds in islice(samples, FRAMES):
        wanted = reference.run({**feeds, **_fed_back(wanted, names)})
        got = candidate.run({**feeds, **_fed_back(got, names)})
        frames += 1
        for name, array in wanted.items():
            if array.dtype.kind == "f" and array.size:
                sums.setdefault(name, _Sums()).add(array, got[name])
    told = {name: row for name, row in sums.items() if name not in names}
    compared = (told or sums).values()
    worst = max((_ratio(row.noise, row.signal) for row in compared), default=0.0)
    decided = [row for row in told.values() if row.decides]
    total = sum(row.decisions for row in decided)
    agreement = sum(row.equal for row in decided) / total if total else 1.0
    return Loop(frames, 120.0 if worst == 0.0 else -10.0 * math.log10(worst), agreement)


@dataclass
class _Sums:
    """What one output of both models has summed up to so far."""

    noise: float = 0.0
    signal: float = 0.0
    equal: int = 0
    decisions: int = 0
    low: float = math.inf
    high: float = -math.inf
    lone: bool = True

    @property
    def decides(self) -> bool:
        """Rows of scores do, by the largest; lone values only where they are probabilities."""
        return not self.lone or (self.low >= 0.0 and self.high <= 1.0)

    def add(self, wanted: NDArray[Any], got: NDArray[Any]) -> None:
        if wanted.shape != got.shape:
            self.noise = math.inf
            return
        exact, other = wanted.astype(np.float64), got.astype(np.float64)
        self.noise += float(np.square(other - exact).sum())
        self.signal += float(np.square(exact).sum())
        self.low, self.high = min(self.low, float(exact.min())), max(self.high, float(exact.max()))
        self.lone = wanted.ndim == 0 or wanted.shape[-1] == 1
        if self.lone:
            same = (exact > 0.5) == (other > 0.5)
        else:
            same = exact.argmax(axis=-1) == other.argmax(axis=-1)
        self.equal += int(np.count_nonzero(same))
        self.decisions += int(np.size(same))


def _is_handed_on(value: onnx_ir.Value) -> bool:
    """Whether an output is an input of the model, perhaps behind an Identity."""
    node = value.producer()
    if node is not None and node.op_type == "Identity" and node.inputs[0] is not None:
        value = node.inputs[0]
    return value.is_graph_input()


def _fed_back(outputs: Feeds, names: Mapping[str, str]) -> dict[str, NDArray[Any]]:
    return {names[name]: array for name, array in outputs.items() if name in names}


def _ratio(noise: float, signal: float) -> float:
    return 0.0 if noise == 0.0 else noise / max(signal, 1e-30)


def _stem(name: str) -> str:
    """The words of a name that are not about which end it is: "state" of "stateN"."""
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z0-9])", "_", name)
    spaced = re.sub(r"(?<![A-Za-z])([A-Za-z])n(?![A-Za-z])", r"\1_n", spaced)
    words = [word for word in re.split(r"[^A-Za-z0-9]+", spaced.lower()) if word]
    return "_".join(word for word in words if word not in _WORDS)


def _alike(one: TensorInfo, two: TensorInfo) -> bool:
    """Same type, and no dimension that is known on both sides and differs."""
    if one.dtype != two.dtype:
        return False
    if not one.shape or not two.shape:
        return True
    return len(one.shape) == len(two.shape) and all(
        not isinstance(left, int) or not isinstance(right, int) or left == right
        for left, right in zip(one.shape, two.shape, strict=True)
    )
