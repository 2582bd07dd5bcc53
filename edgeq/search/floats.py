"""What stays in float because the build measured that it must."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from edgeq.search import sensitivity
from edgeq.search.design import MARGIN_DB, Design, Designer, Floats, text
from edgeq.search.laboratory import Group
from edgeq.search.scoring import Score

SAMPLES = 4
"""Samples that one tensor at a time is judged on: it looks for losses of tenfold, not tenths."""


def without_fragile(designer: Designer, best: Design) -> Design | str:
    """`best` without the tensors that alone lose an output; where that is not enough, without the
    fewest of the next ones that bring every part up to `FLOOR_DB`.

    The reason where that leaves no op in int8.
    """
    if best.score.worst[1] >= sensitivity.SAFE_DB:
        return best
    groups = _groups(best)
    found = _sensitivity(designer, best, groups)
    fragile = {at: _reason(groups[at], score) for at, score in found.fragile.items()}
    without = _left_out(designer, best, groups, fragile)
    if isinstance(without, str):
        return without
    best = without
    if best.score.worst[1] >= sensitivity.FLOOR_DB:
        return best
    rest = sorted(found.alone.keys() - fragile.keys(), key=lambda at: _key(found.alone[at], at))
    count = 1
    while count <= len(rest):
        chosen = {at: _reason(groups[at], found.alone[at]) for at in rest[:count]}
        tried = _left_out(designer, best, groups, chosen)
        if isinstance(tried, str):
            break
        if tried.score.worst[1] >= sensitivity.FLOOR_DB:
            return tried
        count *= 2
    return best


def _left_out(
    designer: Designer, best: Design, groups: Sequence[Group], reasons: Mapping[int, str]
) -> Design | str:
    """`best` with these groups in float, where that is better; a reason where nothing is left."""
    if not reasons:
        return best
    tensors = dict(best.floats.tensors)
    for at, reason in reasons.items():
        tensors.update({tensor: reason for tensor, _ in groups[at]})
    count = len(reasons)
    after = designer.redesigned("float", best, Floats(tensors, best.floats.nodes))
    if after is None:
        return next(iter(reasons.values()))
    if after.score.total < best.score.total + MARGIN_DB:
        return best
    designer.journal.decided(
        f"{count} tensor{'s' * (count > 1)} in float, {after.method} ranges",
        f"{text(after.score)}; {next(iter(reasons.values()))}",
    )
    return after


def _reason(group: Group, score: Score) -> str:
    part, decibels = score.worst
    return f"quantizing `{group[0][0]}` alone leaves {decibels:.1f} dB at output `{part}`"


def _key(score: Score, at: int) -> tuple[float, int]:
    """To a tenth of a dB: the order may not hang on a host's last bits."""
    return round(score.worst[1], 1), at


def _groups(design: Design) -> list[Group]:
    """Tensors that share their codes, each with its encoding: what is quantized together."""
    groups = [
        [(name, design.plan.tensors[name]) for name in tie if name in design.plan.tensors]
        for tie in design.draft.ties
    ]
    return [group for group in groups if group]


def _sensitivity(
    designer: Designer, best: Design, groups: Sequence[Group]
) -> sensitivity.Sensitivity:
    trials = designer.trials
    count = min(SAMPLES, len(trials.samples))
    limit = sensitivity.trial_limit(best.graph, count)
    with designer.lab.switched(best.graph, groups) as model:
        found = sensitivity.find(
            lambda on: trials.of_switches(model, on, count), len(groups), limit
        )
    designer.journal.count(found.trials)
    if found.left:
        designer.journal.decided(
            f"sensitivity stopped after {found.trials} trials, the cap on its work: "
            f"{found.left} tensors were not measured alone"
        )
    return found
