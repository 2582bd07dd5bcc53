"""The static int8 plan of a graph, found by measuring on calibration samples, without labels.

The order is that of notes quant-quality 4: range method, exact transforms, tensors that stay float,
bias correction last; each step is kept only where the score rises by `design.MARGIN_DB`.
"""

from __future__ import annotations

from dataclasses import dataclass

from edgeq.ir import Graph
from edgeq.quant.calibrate import Statistics, calibrate
from edgeq.quant.draft import Draft, draft
from edgeq.quant.joins import unlike
from edgeq.quant.plan import QuantPlan
from edgeq.quant.rules import WEIGHTED
from edgeq.search import decisions, floats, heads, states, transforms
from edgeq.search.design import Design, Designer, Floats, Options, Samples, has_int8, text
from edgeq.search.journal import Journal
from edgeq.search.laboratory import Laboratory
from edgeq.search.scoring import Score
from edgeq.search.trials import Trials

ENOUGH_DB = 30.0
"""At this score nothing more is tried: on the real nets of the notes the answers then agree with
float's on 98 of 100 samples and more, and the labels' metric does not move."""

__all__ = ["Found", "Options", "Start", "drafted", "find", "has_int8", "start"]


@dataclass(frozen=True)
class Start:
    """A graph, its first draft, and what was seen of every tensor over all samples."""

    graph: Graph
    draft: Draft
    statistics: Statistics


@dataclass(frozen=True)
class Found:
    """The plan that was kept, the graph it belongs to (transforms change weights), its score.

    `decided` is what was kept, in a phrase without figures; `summary`, for the story, has the score
    too. `left_float` says why the draft has no int8 op any more, where measuring took all of them.
    """

    graph: Graph
    draft: Draft
    plan: QuantPlan
    method: str
    score: Score
    journal: Journal
    decided: str
    summary: str
    left_float: str = ""
    warnings: tuple[str, ...] = ()


def drafted(graph: Graph, options: Options) -> Draft:
    """What could run in int8, before anything was measured."""
    return draft(
        graph,
        keep_float=options.keep_float,
        policy=options.policy,
        float_nodes=options.float_nodes,
        kernels=options.kernels,
    )


def start(lab: Laboratory, graph: Graph, first: Draft, samples: Samples) -> Start:
    """Calibrate once for the draft `first`, streaming over all samples."""
    with lab.float_model(graph, first.observe) as model:
        return Start(graph, first, calibrate(model, samples, first.observe))


def find(lab: Laboratory, begun: Start, samples: Samples, options: Options) -> Found:
    """Search from `begun`, whose draft has int8 ops, for what comes closest to the float model."""
    journal = Journal()
    trials = Trials(lab, begun.graph, samples.kept)
    designer = Designer(lab, trials, samples, options, journal)
    best = _first(designer, begun)
    if best.score.total < ENOUGH_DB:
        best = transforms.improved(designer, best, ENOUGH_DB)
        rest = floats.without_fragile(designer, best)
        if isinstance(rest, str):
            return _left_float(designer, begun, best, rest)
        best = rest
    if best.score.total < ENOUGH_DB:
        best = transforms.corrected(designer, best)
    if best.score.total < ENOUGH_DB:
        floats.say_worst(designer, best)
    best = heads.joined(designer, best)
    drifted = drift(lab, begun.graph, best.graph, best.plan, samples)
    if drifted:
        steady = _without_recurrent(designer, best, drifted)
        if steady is None or drift(lab, begun.graph, steady.graph, steady.plan, samples):
            return _left_float(designer, begun, best, drifted)
        best = steady
    return Found(
        graph=best.graph,
        draft=best.draft,
        plan=best.plan,
        method=best.method,
        score=best.score,
        journal=journal,
        decided=_decided(best, journal),
        summary=_summary(designer, best),
        warnings=_other_decisions(designer, begun.graph, best),
    )


def _other_decisions(designer: Designer, graph: Graph, best: Design) -> tuple[str, ...]:
    """Warnings where `best` decides otherwise than the float model on too many samples."""
    lab, trials = designer.lab, designer.trials
    count = decisions.sample_count(graph, len(trials.samples))
    with lab.float_model(graph) as reference, lab.artifact(best.graph, best.plan) as candidate:
        found = decisions.compare(reference, candidate, trials.parts, designer.samples, count)
    return tuple(agreement.warning for agreement in found if agreement.warning)


def _first(designer: Designer, begun: Start) -> Design:
    """The best range method, with Concats of unlike operands in float: no method suits those."""
    kernels = designer.options.kernels
    joins = unlike(begun.graph, begun.draft, begun.statistics, kernels)
    ends = heads.found(begun.graph, begun.draft)
    apart = Floats(nodes={**ends, **joins})
    drafted = designer.drafted(begun.graph, apart) if apart.nodes else begun.draft
    if not has_int8(drafted):
        joins, apart = {}, Floats(nodes=ends)
        drafted = designer.drafted(begun.graph, apart)
    statistics = designer.seen(begun.graph, begun.statistics, drafted)
    best = designer.designed("ranges", begun.graph, statistics, drafted, apart)
    if joins:
        designer.journal.decided(f"{len(joins)} nodes in float for Concats of unlike ranges")
    designer.journal.decided(f"{best.method} ranges", text(best.score))
    return best


def drift(
    lab: Laboratory, graph: Graph, transformed: Graph, plan: QuantPlan, samples: Samples
) -> str:
    """Why a plan must not be used with the model's state fed back; "" where it may, or there is
    no state. `graph` is the float model, `transformed` the graph of the plan."""
    found = states.find_states(graph)
    if not found:
        return ""
    with lab.float_model(graph) as reference, lab.artifact(transformed, plan) as candidate:
        loop = states.run_loop(reference, candidate, found, samples)
    if loop.is_steady:
        return ""
    if loop.frames < states.LEAST_FRAMES:
        return (
            f"`{found[0].output}` is fed back as `{found[0].input}`, and {loop.frames} samples in "
            f"a row cannot show that nothing drifts: {states.LEAST_FRAMES} can"
        )
    return (
        f"with `{found[0].output}` fed back as `{found[0].input}` over {loop.frames} samples, "
        f"{loop.agreement:.1%} of decisions are float's, {loop.sqnr_db:.1f} dB"
    )


def _without_recurrent(designer: Designer, best: Design, reason: str) -> Design | None:
    """`best` with the weights of recurrent ops in float; None where there are none in int8."""
    stored = {name: reason for name, op in best.draft.ops.items() if op.precision == "int8-weights"}
    if not stored:
        return None
    nodes = {**best.floats.nodes, **stored}
    after = designer.redesigned("states", best, Floats(best.floats.tensors, nodes))
    if after is not None:
        designer.journal.decided(f"weights of {len(stored)} recurrent ops in float", reason)
    return after


def _left_float(designer: Designer, begun: Start, best: Design, reason: str) -> Found:
    """Nothing in int8: the draft of the graph as it was, with the reason at every layer."""
    nodes = {str(node.name): reason for node in begun.graph.nodes() if node.op_type in WEIGHTED}
    left = designer.drafted(begun.graph, Floats(nodes=nodes))
    designer.journal.decided("all of it stays in float", reason)
    return Found(
        graph=begun.graph,
        draft=left,
        plan=QuantPlan({}, left.ops),
        method=best.method,
        score=best.score,
        journal=designer.journal,
        decided="all of it stays in float",
        summary="all of it stays in float",
        left_float=reason,
    )


def _pair_safe(designer: Designer, best: Design) -> str:
    """What weights that cannot saturate cost; "" where the target's kernels do not."""
    cost = designer.pair_safe_cost(best)
    if cost is None:
        return ""
    price = f"{cost:.1f} dB" if cost >= 0.05 else "nothing"
    line = f"weights that cannot saturate cost {price}"
    designer.journal.decided(f"{line}, against plain scales on exact kernels")
    return f", {line}"


def _decided(best: Design, journal: Journal) -> str:
    """`p99.99 ranges, 1 tensor in float, bias corrected`."""
    words = [f"{best.method} ranges"]
    if journal.floats:
        words.append(f"{journal.floats} tensor{'s' * (journal.floats > 1)} in float")
    return ", ".join((*words, *journal.kept))


def _summary(designer: Designer, best: Design) -> str:
    """The same with its score: `...: 13.2 dB`."""
    kept = _decided(best, designer.journal)
    return f"{kept}: {best.score.total:.1f} dB{_pair_safe(designer, best)}"
