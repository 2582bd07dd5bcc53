"""Designs: complete candidates with their score, and how one is made of a graph and a draft."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from numpy.typing import NDArray

from edgeq import registry
from edgeq.config import AUTO
from edgeq.ir import Graph
from edgeq.quant.calibrate import Statistics, calibrate
from edgeq.quant.draft import Draft, draft
from edgeq.quant.kernels import ONNXRUNTIME, Kernels
from edgeq.quant.plan import QuantPlan
from edgeq.quant.policy import ANY, Policy
from edgeq.search.journal import Journal
from edgeq.search.laboratory import Feeds, Laboratory
from edgeq.search.scoring import Score
from edgeq.search.trials import Trials

CHOICES = ("minmax", "p99.999", "p99.99", "mse")
"""Range methods that are tried, the simpler first; each is best on some real net and 4-10 dB
behind on another (notes quant-quality 3.1, 7). `p99.9` and `kl` are only taken when asked for:
`p99.9` won nowhere by score, and `kl` clips the tails that carry a detector's objects."""

MARGIN_DB = 0.25
"""What a less simple choice must gain: less is noise of the samples, and two hosts whose float
kernels differ in the last bits must choose alike."""


class Samples(Protocol):
    """Calibration samples: iterate for all of them, as often as needed; `kept` after the first."""

    @property
    def kept(self) -> Sequence[Feeds]: ...

    def __iter__(self) -> Iterator[Mapping[str, NDArray[Any]]]: ...


@dataclass(frozen=True)
class Options:
    """What the user and the target ask for. `method` is `AUTO` or a registered algorithm.

    `float_nodes` (node -> reason) are those that another precision than static int8 is for;
    `kernels` are those of the engine that the plan is for.
    """

    method: str = AUTO
    pair_safe: bool = False
    keep_float: tuple[str, ...] = ()
    policy: Policy = ANY
    float_nodes: Mapping[str, str] = field(default_factory=dict)
    kernels: Kernels = ONNXRUNTIME


@dataclass(frozen=True)
class Floats:
    """What measuring leaves in float: tensors and nodes, each with the reason."""

    tensors: Mapping[str, str] = field(default_factory=dict)
    nodes: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Design:
    """A complete candidate: a graph (transforms change weights), its plan, and its score."""

    graph: Graph
    statistics: Statistics
    draft: Draft
    floats: Floats
    method: str
    plan: QuantPlan
    score: Score


class Designer:
    """Makes and measures designs. Everything tried goes into `journal`."""

    def __init__(
        self,
        lab: Laboratory,
        trials: Trials,
        samples: Samples,
        options: Options,
        journal: Journal,
    ) -> None:
        self.lab = lab
        self.trials = trials
        self.samples = samples
        self.options = options
        self.journal = journal

    def drafted(self, graph: Graph, floats: Floats) -> Draft:
        """The draft of `graph` with what measuring left in float."""
        return draft(
            graph,
            keep_float=self.options.keep_float,
            policy=self.options.policy,
            float_tensors=floats.tensors,
            float_nodes={**self.options.float_nodes, **floats.nodes},
            kernels=self.options.kernels,
        )

    def designed(
        self,
        step: str,
        graph: Graph,
        statistics: Statistics,
        drafted: Draft,
        floats: Floats,
        methods: Sequence[str] | None = None,
    ) -> Design:
        """The best of the range methods: the simplest, unless another gains `MARGIN_DB`."""
        if self.options.method != AUTO:
            methods = (self.options.method,)
        elif not drafted.observe:
            methods = CHOICES[:1]
        best: Design | None = None
        for method in methods or CHOICES:
            safe = self.options.pair_safe
            plan = self._plan(graph, drafted, statistics, method, pair_safe=safe)
            score = self.trials.of_plan(graph, plan)
            self.journal.tried(step, method, score)
            if best is None or score.total >= best.score.total + MARGIN_DB:
                best = Design(graph, statistics, drafted, floats, method, plan, score)
        assert best is not None
        return best

    def redesigned(self, step: str, best: Design, floats: Floats) -> Design | None:
        """`best` with more left in float; None where no op would be int8 any more."""
        drafted = self.drafted(best.graph, floats)
        if not has_int8(drafted):
            return None
        statistics = self.seen(best.graph, best.statistics, drafted)
        return self.designed(step, best.graph, statistics, drafted, floats)

    def pair_safe_cost(self, best: Design) -> float | None:
        """What weights that cannot saturate cost `best`, in dB: measured against its plan with
        plain scales, on exact kernels. None where the target's kernels do not saturate."""
        if not self.options.pair_safe:
            return None
        plain = self._plan(best.graph, best.draft, best.statistics, best.method, pair_safe=False)
        return self.trials.of_plan(best.graph, plain).total - best.score.total

    def seen(self, graph: Graph, statistics: Statistics, drafted: Draft) -> Statistics:
        """`statistics` with the tensors that only `drafted` observes, over all samples."""
        missing = [name for name in drafted.observe if name not in statistics.tensors]
        if not missing:
            return statistics
        more = self.calibrated(graph, missing, self.samples)
        return replace(statistics, tensors={**statistics.tensors, **more.tensors})

    def calibrated(
        self, graph: Graph, observe: Sequence[str], samples: Iterable[Feeds]
    ) -> Statistics:
        """One streaming pass of `samples` over the float `graph`."""
        with self.lab.float_model(graph, observe) as model:
            return calibrate(model, samples, observe)

    def _plan(
        self,
        graph: Graph,
        drafted: Draft,
        statistics: Statistics,
        method: str,
        *,
        pair_safe: bool,
    ) -> QuantPlan:
        make = registry.resolve("algorithms", method)
        plan: QuantPlan = make(graph, drafted, statistics, method=method, pair_safe=pair_safe)
        return plan


def has_int8(drafted: Draft) -> bool:
    """Whether any op of the draft runs in int8, or has its weights in it."""
    return any(op.precision in ("int8", "int8-weights") for op in drafted.ops.values())


def text(score: Score) -> str:
    """The score, and the part that lost most where there are several."""
    part, decibels = score.worst
    if not score.parts:
        return "not measured, the shape of every output depends on the data"
    if len(score.parts) == 1:
        return f"{decibels:.1f} dB"
    return f"{score.total:.1f} dB (`{part}` {decibels:.1f} dB)"
