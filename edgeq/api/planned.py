"""What a bundle's plan says of each operator: precision, range, measured error, reason."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from edgeq import registry
from edgeq_runtime import canonical

if TYPE_CHECKING:
    from edgeq.quant.plan import Encoding, QuantPlan
    from edgeq_runtime.reader import Bundle

SQNR = "sqnr_db"
"""The key of a manifest's `calibration` under which a build puts tensor -> whole dB."""
MAKES = "makes"
"""... and node -> the tensors it makes, where the artifact does not tell."""


def recorded_errors(errors: Sequence[tuple[str, float | None]]) -> dict[str, int | None]:
    """SQNR by tensor as a manifest holds it; None where the tensor is equal to float's.

    In whole dB: the digits after the point are the host's float kernels', and the same build writes
    the same bytes on every host. A zero signal that met noise has no SQNR and is left out.
    """
    return {
        name: None if sqnr_db is None else round(sqnr_db)
        for name, sqnr_db in errors
        if sqnr_db is None or math.isfinite(sqnr_db)
    }


def plan_document(bundle: Bundle) -> dict[str, Any]:
    """`ops` in graph order and `counts` by precision; both empty where there is no plan.

    A number or a reason that the bundle does not hold is None. Raises EdgeqError [bad-plan] and
    [damaged-bundle].
    """
    file = bundle.manifest.plan
    if file is None:
        return {"counts": {}, "ops": []}
    from edgeq.quant.plan import QuantPlan

    plan = QuantPlan.from_json(canonical.loads(bundle.files[file], file))
    made_by = _made_by(bundle)
    errors = _errors(bundle.manifest.raw["calibration"])
    ops = []
    for op in plan.ops.values():
        tensor = _main_tensor(made_by.get(op.node, ()), plan)
        ops.append(
            {
                **op.to_json(),
                "reason": op.reason or None,
                "tensor": tensor,
                **_range(plan.tensors.get(tensor) if tensor is not None else None),
                "measured": tensor in errors,
                SQNR: errors.get(tensor) if tensor is not None else None,
            }
        )
    counts: dict[str, int] = {}
    for op in plan.ops.values():
        counts[op.precision] = counts.get(op.precision, 0) + 1
    return {"counts": counts, "ops": ops}


def _made_by(bundle: Bundle) -> Mapping[str, Sequence[str]]:
    """The tensors that each node of the artifact makes; nothing where no viewer shows them."""
    told = bundle.manifest.raw["calibration"]
    table = told.get(MAKES) if isinstance(told, dict) else None
    if isinstance(table, dict):
        return {str(node): tuple(map(str, names)) for node, names in table.items()}
    if bundle.manifest.artifact_format not in registry.names("viewers"):
        return {}
    viewer = registry.resolve("viewers", bundle.manifest.artifact_format)(bundle.artifact)
    made: Mapping[str, Sequence[str]] = viewer.made_by
    return made


def _main_tensor(names: Sequence[str], plan: QuantPlan) -> str | None:
    """The tensor that stands for what a node makes: the first with an encoding, else the first."""
    encoded = (name for name in names if name in plan.tensors)
    return next(encoded, next(iter(names), None))


def _range(encoding: Encoding | None) -> dict[str, Any]:
    """Scale, zero point and the ends of the range of a tensor's integers."""
    empty = dict.fromkeys(("dtype", "scale", "zero_point", "minimum", "maximum", "range_from"))
    if encoding is None or encoding.dtype != "int8" or len(encoding.scale) != 1:
        return empty
    low, high = -128, 127
    scale, zero_point = encoding.scale[0], encoding.zero_point[0]
    return {
        "dtype": encoding.dtype,
        "scale": scale,
        "zero_point": zero_point,
        "minimum": (low - zero_point) * scale,
        "maximum": (high - zero_point) * scale,
        "range_from": encoding.origin or None,
    }


def _errors(calibration: object) -> dict[str, float | None]:
    """What the build measured; the manifest's field is free, so anything else is left out."""
    table = calibration.get(SQNR) if isinstance(calibration, dict) else None
    if not isinstance(table, dict):
        return {}
    return {
        str(name): value
        for name, value in table.items()
        if value is None or (type(value) in (int, float) and math.isfinite(value))
    }
