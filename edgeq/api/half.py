"""The fp16 build: weights stored in float16, and what the engine will compute with them, said."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgeq.api.models import ENGINE

if TYPE_CHECKING:
    from edgeq.api.stages import Quantized, Work
    from edgeq.targets import Target

ENCODING = "fp16 weights"
"""What rows of a target's policy call this."""


def quantize(work: Work) -> Quantized:
    """Plan float16 weights; needs no data. Raises what `edgeq.quant.half.plan_half` raises."""
    from edgeq.api.stages import Quantized
    from edgeq.quant.half import plan_half

    with work.stage("Quantized") as stage:
        plan = plan_half(work.prepared.graph, keep_float=work.settings.keep_float)
        count, kept = len(plan.tensors), len(plan.notes)
        stage.done(f"{count} tensor{'s' * (count != 1)} to float16", f"{kept} kept in float32")
    work.notes.append(computes(work.target, work.form.engine))
    return Quantized(plan, (), None)


def computes(target: Target, engine: str = ENGINE) -> str:
    """What the target's engine makes of float16 weights, by its policy."""
    rows = target.engine(engine).policy
    notes = (row.note for row in rows if row.encoding == ENCODING and row.note)
    told = next(notes, "the engine casts them back when it loads them and computes in float32")
    return f"fp16 weights on {target.name}: {told}"
