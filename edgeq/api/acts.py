"""What the layers of an int8 build read: static, dynamic or mixed int8, or float; as asked for or
as measured on the calibration samples."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from edgeq.api import asked, int8, timing
from edgeq.api.lab import Lab
from edgeq.search.choice import DYNAMIC, MIXED, STATIC

if TYPE_CHECKING:
    from edgeq.api.stages import Quantized, Work
    from edgeq.ir import Graph
    from edgeq.quant.plan import QuantPlan
    from edgeq.search.choice import Candidate, Choice
    from edgeq.search.trials import Trials

ENCODINGS = {STATIC: "int8 static", DYNAMIC: "int8 dynamic", MIXED: "int8 dynamic"}
"""How the rows of a target's policy begin that speak of a candidate."""

LEFT_TO_DYNAMIC = "runs in dynamic int8"


def quantize(work: Work) -> Quantized:
    """The int8 plan that the settings ask for. Raises what `api.int8.quantize` raises."""
    acts = asked.acts(work.settings, has_data=work.has_data)
    if acts in asked.NO_DATA:
        return _without_data(work, acts)
    if acts == MIXED:
        return _mixed(work)
    static = int8.quantize(work)
    return static if acts == STATIC else _compared(work, static)


def _without_data(work: Work, acts: str) -> Quantized:
    from edgeq.api.stages import Quantized, quantized_text

    int8.require_heavy(work, static_draft(work))
    with work.stage("Quantized") as stage:
        plan = _data_free(work, work.prepared.graph, acts)
        stage.done(*quantized_text(plan))
    return Quantized(plan, (), None)
