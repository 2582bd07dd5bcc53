"""Speed of candidates beside each other on this host; printed and compared, never written down."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from statistics import median
from typing import TYPE_CHECKING, Any

from edgeq.api.border import PLAIN, borders
from edgeq.api.models import ENGINE

if TYPE_CHECKING:
    import numpy as np

    from edgeq.api.stages import Candidate, Work
    from edgeq.targets import Target

    Feeds = Mapping[str, np.ndarray[Any, Any]]

ROUNDS = 5
SECONDS = 0.15
"""CPU time that a model gets in one round, one run at the least."""
LEAST_MACS = 10_000_000
"""Below this many multiply-accumulates a run is too short to be timed on a busy host."""

WHERE = "measured here, not on the target"


def is_worth_it(work: Work) -> bool:
    """Whether times of this host say something: it is like the target, and runs are long enough."""
    from edgeq.search.choice import shares

    return shares(work.prepared.graph).total >= LEAST_MACS and is_like_target(work.target)


def compared_with_float(work: Work, candidate: Candidate) -> tuple[str, ...]:
    """Time an int8 artifact beside float; a warning where it is slower.

    It is told, not packed: a bundle holds nothing of the host that made it.
    """
    if candidate.precision != "int8" or not is_worth_it(work):
        return ()
    models = {"float": work.prepared.float_bytes, "int8": candidate.shipped.measured}
    reference = f"float on {ENGINE}" if work.is_tflite else "float"
    with work.stage("Timed") as stage:
        seconds = interleaved(models, work.tap.kept[:1])
        ratio = seconds["float"] / seconds["int8"]
        stage.done(f"{ratio:.2f}x the speed of {reference}", f"one thread, {WHERE}")
    if ratio >= 1.0:
        return ()
    return (f"the int8 artifact is slower than {reference}: {ratio:.2f}x its speed ({WHERE})",)


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
    """Median CPU seconds of one run by name: one thread, each engine's own kernels, in turns.

    CPU time of this thread alone, so that other processes count for little.
    """
    from edgeq_runtime import engines

    sessions = {
        name: engines.get(engines.for_model(model)).open_session(model, threads=1)
        for name, model in models.items()
    }
    given = {name: _as_the_file_wants(model, feeds) for name, model in models.items()}
    counts = {name: _runs(session, given[name]) for name, session in sessions.items()}
    taken: dict[str, list[float]] = {name: [] for name in sessions}
    for _ in range(rounds):
        for name, session in sessions.items():
            taken[name].append(_timed(session, given[name], counts[name]) / counts[name])
    for session in sessions.values():
        session.close()
    return {name: median(seconds) for name, seconds in taken.items()}


def _as_the_file_wants(model: bytes, feeds: Sequence[Feeds]) -> list[Feeds]:
    """The float model's feeds in the types and axes of an artifact's own inputs."""
    found = borders(model)
    return [
        {name: found.get(name, PLAIN).codes(array) for name, array in feed.items()}
        for feed in feeds
    ]


def _runs(session: Any, feeds: Sequence[Feeds]) -> int:
    """How many runs fill a round; the first run warms up."""
    _timed(session, feeds, 1)
    return max(1, min(1000, round(SECONDS / max(_timed(session, feeds, 1), 1e-6))))


def _timed(session: Any, feeds: Sequence[Feeds], count: int) -> float:
    start = time.thread_time()
    for at in range(count):
        session.run(dict(feeds[at % len(feeds)]))
    return time.thread_time() - start
