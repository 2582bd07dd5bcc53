"""What the layers of an int8 build read: static, dynamic or mixed int8, or float; as asked for, or
as measured on the calibration samples."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from edgeq.api import asked, int8, timing
from edgeq.api.lab import Lab
from edgeq.search import choice

if TYPE_CHECKING:
    from edgeq.api.stages import Quantized, Work
    from edgeq.ir import Graph
    from edgeq.quant.plan import QuantPlan
    from edgeq.search.trials import Trials

TABLE_DB = 1.0
"""What int8 tables may cost a static plan; where they cost more they stay float."""

_ENCODINGS = {
    choice.STATIC: "int8 static",
    choice.DYNAMIC: "int8 dynamic",
    choice.MIXED: "int8 dynamic",
}
"""How the encodings begin in those rows of a target's policy that speak of a candidate."""


def quantize(work: Work) -> Quantized:
    """The int8 plan that the settings ask for. Raises what `api.int8.quantize` raises."""
    acts = asked.acts(work.settings, has_data=work.has_data)
    if acts in asked.NO_DATA:
        return _steady(work, _without_data(work, acts))
    if acts == choice.MIXED:
        return _steady(work, _mixed(work))
    static = int8.quantize(work)
    return _compared(work, static) if acts == "auto" else _with_tables(work, static)


def _steady(work: Work, made: Quantized) -> Quantized:
    """`made`, or all of it in float where a state that is fed back would drift."""
    from edgeq.quant.draft import draft
    from edgeq.search.static import drift

    graph = work.prepared.graph
    if made.left_float:
        return made
    lab = Lab(work.engine.activation_dtype)
    reason = drift(lab, graph, made.graph or graph, made.plan, work.tap)
    if not reason:
        return made
    nodes = {str(node.name): reason for node in graph.nodes()}
    drafted = draft(graph, float_nodes=nodes, kernels=work.kernels)
    return int8.left_float(work, drafted.ops, reason)


def _without_data(work: Work, acts: str) -> Quantized:
    from edgeq.api.stages import Quantized, quantized_text

    graph = work.prepared.graph
    with work.stage("Quantized") as stage:
        plan = _lowered(work, acts)
        stage.done(*quantized_text(plan))
    if plan.tensors:
        return Quantized(plan, _dynamic_outputs(graph, plan), None, graph)
    int8.require_heavy(work, plan.ops)
    return int8.left_float(work, plan.ops)


def _lowered(work: Work, acts: str, base: Quantized | None = None) -> QuantPlan:
    """The plan that needs no data, or `base` with what it leaves in float lowered so."""
    from edgeq.quant.dynamic import plan_dynamic

    return plan_dynamic(
        (base and base.graph) or work.prepared.graph,
        acts=acts,
        weights=_stored_as(work, acts),
        keep_float=work.settings.keep_float,
        pair_safe=work.engine.pair_safe,
        base=None if base is None else base.plan,
        kernels=work.kernels,
    )


def _stored_as(work: Work, acts: str) -> str:
    """What the matrices of dynamic layers are stored as."""
    weights = work.settings.weights
    return weights if weights in asked.INT4 and acts == choice.DYNAMIC else "int8"


def _mixed(work: Work) -> Quantized:
    """Static int8 but for the layers on constant matrices, which become dynamic."""
    from edgeq.api.stages import LEFT_TO_DYNAMIC
    from edgeq.quant.dynamic import dynamic_nodes

    names = dynamic_nodes(work.prepared.graph, keep_float=work.settings.keep_float)
    base = int8.quantize(work, float_nodes=dict.fromkeys(names, LEFT_TO_DYNAMIC))
    plan = _lowered(work, choice.DYNAMIC, base)
    if not plan.tensors:
        return base
    if base.left_float:
        note = "mixed: no operator is left for static int8"
        plan = replace(plan, notes=(*plan.notes, note))
    observed = (*base.observed, *_dynamic_outputs(_graph(work, base), plan))
    return replace(base, plan=plan, observed=observed, left_float="")


def _dynamic_outputs(graph: Graph, plan: QuantPlan) -> tuple[str, ...]:
    """What the layers that quantize at run time make: compared with float layer by layer."""
    from edgeq.quant.plan import DYNAMIC

    return tuple(
        str(node.outputs[0].name)
        for node in graph.nodes()
        if (decision := plan.ops.get(str(node.name))) and decision.precision in DYNAMIC
    )


def _with_tables(work: Work, static: Quantized) -> Quantized:
    """`static` with its embedding tables in int8, where that costs next to nothing."""
    from edgeq.quant.dynamic import with_tables

    graph = static.graph or work.prepared.graph
    plan = with_tables(graph, static.plan, keep_float=work.settings.keep_float)
    if static.left_float or len(plan.tensors) == len(static.plan.tensors):
        return static
    trials = _trials(work)
    lost = trials.of_plan(graph, static.plan).total - trials.of_plan(graph, plan).total
    return replace(static, plan=plan) if lost <= TABLE_DB else static


def _trials(work: Work) -> Trials:
    from edgeq.search.trials import Trials

    return Trials(Lab(work.engine.activation_dtype), work.prepared.graph, work.tap.kept)


def _compared(work: Work, static: Quantized) -> Quantized:
    """The best of the static plan and those that quantize at run time, where they are worth it."""
    from edgeq.search.states import find_states

    if find_states(work.prepared.graph):  # only the static search runs a loop to see drift
        return static
    score = None if static.left_float or static.search is None else static.search["score_db"]
    names = choice.worth_building(work.prepared.graph, score)
    static = _with_tables(work, static)
    built = _built(work, static, names)
    if set(built) <= {choice.STATIC}:
        return static
    trials = _trials(work)
    with work.stage("Compared") as stage:
        candidates = [
            choice.Candidate(name, made.plan, trials.of_plan(_graph(work, made), made.plan))
            for name, made in built.items()
        ]
        seconds, source = _seconds(work, built)
        slow = _slow(work)
        chosen = choice.choose(candidates, seconds=seconds, source=source, slow=slow)
        told = _scores_text(candidates, seconds, source)
        stage.done(f"{chosen.kept.name} int8 is kept", f"{told} {chosen.also}".rstrip())
        kept = built[chosen.kept.name]
        if kept is not static:
            kept = replace(kept, warnings=_other_decisions(work, trials, kept))
    return _told(kept, static.search, candidates, chosen)


def _other_decisions(work: Work, trials: Trials, kept: Quantized) -> tuple[str, ...]:
    """Warnings where `kept` decides otherwise than the float model on too many samples."""
    from edgeq.search import decisions

    graph = work.prepared.graph
    count = decisions.sample_count(graph, len(trials.samples))
    lab = trials.lab
    with lab.float_model(graph) as float_model, lab.artifact(_graph(work, kept), kept.plan) as made:
        found = decisions.compare(float_model, made, trials.parts, work.tap, count)
    return tuple(agreement.warning for agreement in found if agreement.warning)


def _built(work: Work, static: Quantized, names: tuple[str, ...]) -> dict[str, Quantized]:
    """The candidates, the one first that is preferred where all are equal."""
    built: dict[str, Quantized] = {} if static.left_float else {choice.STATIC: static}
    if choice.MIXED in names and not static.left_float:
        built[choice.MIXED] = _mixed(work)
    if choice.DYNAMIC in names:
        dynamic = _without_data(work, choice.DYNAMIC)
        if not dynamic.left_float:
            built[choice.DYNAMIC] = dynamic
    if choice.prefers_dynamic(work.prepared.graph) and choice.STATIC in built:
        built[choice.STATIC] = built.pop(choice.STATIC)
    return built


def _graph(work: Work, made: Quantized) -> Any:
    return made.graph or work.prepared.graph


def _seconds(work: Work, built: dict[str, Quantized]) -> tuple[dict[str, float], str]:
    """Relative times of one run of each and whence they are: measured where this host is like the
    target, else by the target's policy, else nothing."""
    if not timing.is_worth_it(work):
        ratios = {name: ratio for name in built if (ratio := _policy_ratio(work, name))}
        known = {name: 1 / ratio for name, ratio in ratios.items()}
        return (known if len(known) == len(built) else {}), "by the target's policy"
    from edgeq.api.stages import made

    models = {name: made(work, quantized) for name, quantized in built.items()}
    return timing.interleaved(models, work.tap.kept[:1]), timing.WHERE


def _policy_ratio(work: Work, name: str) -> float | None:
    """Time in float over time in int8 of a layer on a constant matrix."""
    encoding = _ENCODINGS[name]
    found = (row for row in work.engine.policy if row.encoding.startswith(encoding))
    return next((row.ratio for row in found if row.operation in ("MatMul", "Gemm")), None)


def _slow(work: Work) -> dict[str, str]:
    """Candidates that the target's policy calls slower than float, each with the words."""
    return {
        name: f"slower than float on {work.target.name} by the target's policy"
        for name, encoding in _ENCODINGS.items()
        for row in work.engine.policy
        if row.encoding.startswith(encoding) and row.speed == "slow" and row.operation == "MatMul"
    }


def _scores_text(candidates: list[choice.Candidate], seconds: dict[str, float], source: str) -> str:
    """`dynamic 18.7 dB 1.75 ms, static 8.5 dB 1.99 ms, measured here, not on the target`."""
    timed = seconds if source == timing.WHERE else {}

    def text(row: choice.Candidate) -> str:
        took = f" {timed[row.name] * 1e3:.2f} ms" if row.name in timed else ""
        return f"{row.name} {row.score.total:.1f} dB{took}"

    return ", ".join((*map(text, candidates), *([source] if timed else [])))


def _told(
    kept: Quantized,
    search: dict[str, Any] | None,
    candidates: list[choice.Candidate],
    chosen: choice.Choice,
) -> Quantized:
    """`kept` with the comparison in its notes and in what the search tells."""
    told = dict(search or {"plans": 0, "tried": [], "decided": []})
    tried = [
        {"step": "acts", "choice": row.name, "score_db": round(row.score.total, 1)}
        for row in candidates
    ]
    parts = chosen.kept.score.parts
    line = f"{chosen.kept.name} int8: {chosen.reason}"
    told.update(
        score_db=round(chosen.kept.score.total, 1),
        parts=[{"name": name, "sqnr_db": round(value, 1)} for name, value in parts.items()],
        plans=told["plans"] + len(tried),
        tried=[*told["tried"], *tried],
        decided=[*told["decided"], line],
    )
    notes = (*kept.plan.notes, f"search: {line}")
    return replace(kept, plan=replace(kept.plan, notes=notes), search=told)
