"""Speed of candidates beside each other on this host; printed and compared, never written down."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from statistics import median
from typing import TYPE_CHECKING, Any

from edgeq.api.models import ENGINE

if TYPE_CHECKING:
    import numpy as np

    from edgeq.targets import Target

    Feeds = Mapping[str, np.ndarray[Any, Any]]

ROUNDS = 5
SECONDS = 0.15
"""CPU time that a model gets in one round, one run at the least."""
LEAST_MACS = 10_000_000
"""Below this many multiply-accumulates a run is too short to be timed on a busy host."""


def is_like_target(target: Target) -> bool:
    """Whether this host's CPU is of the class that `target` describes."""
    from edgeq import targets
    from edgeq.errors import EdgeqError
    from edgeq_runtime import cpu

    try:
        return targets.for_host(cpu.host()) == target.name
    except EdgeqError:
        return False


def interleaved(
    models: Mapping[str, bytes], feeds: Sequence[Feeds], *, rounds: int = ROUNDS
) -> dict[str, float]:
    """Median CPU seconds of one run by name: one thread, the engine's own kernels, in turns.

    CPU time of this thread alone, so that other processes count for little.
    """
    from edgeq_runtime import engines

    engine = engines.get(ENGINE)
    sessions = {name: engine.open_session(model, threads=1) for name, model in models.items()}
    counts = {name: _runs(session, feeds) for name, session in sessions.items()}
    taken: dict[str, list[float]] = {name: [] for name in sessions}
    for _ in range(rounds):
        for name, session in sessions.items():
            taken[name].append(_timed(session, feeds, counts[name]) / counts[name])
    for session in sessions.values():
        session.close()
    return {name: median(seconds) for name, seconds in taken.items()}


def _runs(session: Any, feeds: Sequence[Feeds]) -> int:
    """How many runs fill a round; the first run warms up."""
    _timed(session, feeds, 1)
    return max(1, min(1000, round(SECONDS / max(_timed(session, feeds, 1), 1e-6))))


def _timed(session: Any, feeds: Sequence[Feeds], count: int) -> float:
    start = time.thread_time()
    for at in range(count):
        session.run(dict(feeds[at % len(feeds)]))
    return time.thread_time() - start
