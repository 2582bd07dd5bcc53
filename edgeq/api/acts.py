"""What the layers of an int8 build read: static, dynamic or mixed int8, or float; as asked for, or
as measured on the calibration samples."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from edgeq import registry
from edgeq.api import asked, int8, timing
from edgeq.api.lab import Lab

if TYPE_CHECKING:
    from edgeq.api.stages import Quantized, Work
    from edgeq.quant.plan import QuantPlan
    from edgeq.search.choice import Candidate, Choice
    from edgeq.search.trials import Trials

TABLE_DB = 1.0
"""What int8 tables may cost a static plan; where they cost more they stay float."""

_LEFT = "left to dynamic int8"


def quantize(work: Work) -> Quantized:
    """The int8 plan that the settings ask for. Raises what `api.int8.quantize` raises."""
    acts = asked.acts(work.settings, has_data=work.has_data)
    if acts in asked.NO_DATA:
        return _without_data(work, acts)
    if acts == "mixed":
        return _mixed(work)
    static = int8.quantize(work)
    return _with_tables(work, static) if acts == "static" else _compared(work, static)


def _without_data(work: Work, acts: str) -> Quantized:
    from edgeq.api.stages import Quantized, quantized_text

    with work.stage("Quantized") as stage:
        plan = _dynamic_plan(work, acts)
        if not plan.stores_int8:
            int8.require_heavy(work, plan)
        stage.done(*quantized_text(plan))
    return Quantized(plan, (), None)


def _dynamic_plan(work: Work, acts: str, base: Quantized | None = None) -> QuantPlan:
    from edgeq.quant.dynamic import plan_dynamic

    return plan_dynamic(
        _graph(work, base),
        acts=acts,
        keep_float=work.settings.keep_float,
        pair_safe=work.engine.pair_safe,
        base=None if base is None else base.plan,
    )
