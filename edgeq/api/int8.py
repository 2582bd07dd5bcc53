"""The int8 build: calibrate, search by measuring, and a plan; or float, with the reason."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING

from edgeq.api.lab import Lab
from edgeq.errors import EdgeqError

if TYPE_CHECKING:
    from edgeq.api.stages import Quantized, Work
    from edgeq.quant.plan import OpDecision
    from edgeq.search.static import Found, Options


def quantize(work: Work, *, float_nodes: Mapping[str, str] = MappingProxyType({})) -> Quantized:
    """Calibrate and search the static int8 plan; one without int8 ops where all must stay float.

    `float_nodes` (node -> reason) are left to another precision. Raises EdgeqError
    [nothing-to-quantize] where the model holds no operator that int8 is for.
    """
    from edgeq.search import static

    graph, options = work.prepared.graph, _options(work, float_nodes)
    drafted = static.drafted(graph, options)
    require_heavy(work, drafted.ops)
    if not static.has_int8(drafted):
        return left_float(work, drafted.ops)
    lab = Lab(work.engine.activation_dtype)
    with work.stage("Calibrated") as stage:
        begun = static.start(lab, graph, drafted, work.tap)
        count = begun.statistics.n_samples * work.tap.source.group
        stage.done(f"{count} samples", f"{len(drafted.observe)} tensors")
    with work.stage("Searched") as stage:
        found = static.find(lab, begun, work.tap, options)
        stage.done(*_searched_text(found))
    if not static.has_int8(found.draft):
        return left_float(work, found.draft.ops, found.left_float, found)
    return _quantized(work, found, count)


def _options(work: Work, float_nodes: Mapping[str, str]) -> Options:
    from edgeq.quant import policy
    from edgeq.search.static import Options

    return Options(
        method=work.settings.algo,
        pair_safe=work.engine.pair_safe,
        keep_float=tuple(work.settings.keep_float),
        policy=policy.of(work.engine),
        float_nodes=float_nodes,
        kernels=work.kernels,
    )


def _quantized(work: Work, found: Found, count: int) -> Quantized:
    from edgeq.api.stages import Quantized, quantized_text

    with work.stage("Quantized") as stage:
        stage.done(*quantized_text(found.plan))
    calibration = {
        "samples": count,
        "method": found.method,
        "source": work.tap.name,
        "calibrated": work.calibrated,
    }
    return Quantized(
        plan=replace(found.plan, notes=(f"search: {found.decided}", *found.plan.notes)),
        observed=tuple(found.draft.observe),
        calibration=calibration,
        graph=found.graph,
        search=found.journal.to_json(found.score),
        warnings=found.warnings,
    )


def left_float(
    work: Work, ops: Mapping[str, OpDecision], reason: str = "", found: Found | None = None
) -> Quantized:
    """A plan in which every op is float: the float artifact, and why it is no other."""
    from edgeq.api.stages import Quantized
    from edgeq.quant.plan import QuantPlan

    why = reason or _reasons(_heavy(ops))
    return Quantized(
        plan=QuantPlan({}, ops),
        observed=(),
        calibration=None,
        search=None if found is None else found.journal.to_json(None),
        left_float=f"the artifact is float, because int8 was not possible: {why}",
    )


def _heavy(ops: Mapping[str, OpDecision]) -> list[OpDecision]:
    from edgeq.quant import rules

    return [op for op in ops.values() if op.op_type in rules.WEIGHTED]


def _reasons(ops: Iterable[OpDecision]) -> str:
    """The reasons of `ops`, each once, at most three."""
    return "; ".join(sorted({op.reason for op in ops})[:3])


def require_heavy(work: Work, ops: Mapping[str, OpDecision]) -> None:
    if _heavy(ops):
        return
    reasons = _reasons(ops.values()) or "the model has no operators"
    raise EdgeqError(
        "nothing-to-quantize",
        f"no operator of `{work.prepared.name}` can run in int8 on {work.target.name}: {reasons}",
        "build it in float: "
        f"`edgeq build {shlex.quote(str(work.settings.model))} -t {work.target.name} --fp32`",
    )


def _searched_text(found: Found) -> tuple[str, str]:
    return f"{found.journal.trials} plans", found.summary
