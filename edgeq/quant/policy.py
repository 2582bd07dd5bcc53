"""What the target's engine gains from int8, per kind of op: the kernel table as numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from edgeq.quant.kinds import FALLBACK
from edgeq.targets import EngineSupport

_STATIC = ("int8 static", "uint8 static")
"""How the encodings begin whose rows speak of ops between Q and DQ."""

_ASSUMED = {"fast": 1.2, "no gain": 1.0, "slow": 0.8}
"""Ratios for rows without one: the nearest to 1 that a row of that speed has anywhere."""


@dataclass(frozen=True)
class Policy:
    """`ratios`: op kind -> time in float / time in int8. Empty: nothing is known, all is gain."""

    ratios: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))

    def ratio(self, kind: str) -> float:
        """The ratio of a kind, or of the kind it falls back on; 1 where the table has neither."""
        while kind not in self.ratios and kind in FALLBACK:
            kind = FALLBACK[kind]
        return self.ratios.get(kind, 1.0)


ANY = Policy()
"""The policy of no target: int8 wherever the engine can."""


def of(engine: EngineSupport) -> Policy:
    """The policy of a target's engine: the rows of its static encodings."""
    rows = [row for row in engine.policy if row.encoding.startswith(_STATIC)]
    ratios = {row.operation: row.ratio or _ASSUMED[row.speed] for row in rows}
    return Policy(MappingProxyType(ratios))
