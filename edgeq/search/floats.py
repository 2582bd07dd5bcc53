"""What stays in float because the build measured that it must: tensors, and layers' weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from edgeq.quant.plan import reader_key
from edgeq.search import sensitivity
from edgeq.search.design import MARGIN_DB, Design, Designer, Floats, text
from edgeq.search.laboratory import Group, Switched
from edgeq.search.scoring import Score

SAMPLES = 4
"""Samples that one tensor at a time is judged on: it looks for losses of tenfold, not tenths."""

SAID = 3
"""How many of those that lose most are told of."""


@dataclass(frozen=True)
class Suspect:
    """What is quantized alone: tensors that share their codes, or the weights of `layers`."""

    group: Group
    layers: tuple[str, ...] = ()

    @property
    def what(self) -> str:
        """In words."""
        if not self.layers:
            return f"`{self.group[0][0]}`"
        return "the weights of " + " and ".join(f"`{layer}`" for layer in self.layers)

    def reason(self, score: Score) -> str:
        """Why it stays float, after `score` was measured with nothing but it quantized."""
        part, decibels = score.worst
        return f"quantizing {self.what} alone leaves {decibels:.1f} dB at output `{part}`"


def without_fragile(designer: Designer, best: Design) -> Design | str:
    """`best` without what alone loses an output; where that is not enough, without the fewest of
    the next ones that bring every part up to `FLOOR_DB`.

    The reason where that leaves no op in int8.
    """
    if best.score.worst[1] >= sensitivity.SAFE_DB:
        return best
    suspects = _suspects(best)
    found = _sensitivity(designer, best, suspects)
    fragile = {at: suspects[at].reason(score) for at, score in found.fragile.items()}
    if fragile:
        after = _left_out(designer, best, suspects, fragile)
        if after is None:
            return next(iter(fragile.values()))
        if after.score.total >= best.score.total + MARGIN_DB:
            best = _kept(designer, after, fragile)
    if best.score.worst[1] >= sensitivity.FLOOR_DB:
        return best
    rest = sorted(found.alone.keys() - fragile.keys(), key=lambda at: _key(found.alone[at], at))
    count = 1
    while count <= len(rest):
        more = {at: suspects[at].reason(found.alone[at]) for at in rest[:count]}
        after = _left_out(designer, best, suspects, more)
        if after is None:
            break
        if after.score.worst[1] >= sensitivity.FLOOR_DB:
            return _kept(designer, after, more)
        count *= 2
    return best


def say_worst(designer: Designer, best: Design) -> None:
    """Tell which tensors and weights of `best` lose most alone: why its score is no higher."""
    suspects = _suspects(best)
    if not suspects:
        return
    trials, count = designer.trials, min(SAMPLES, len(designer.trials.samples))
    with designer.lab.switched(best.graph, [suspect.group for suspect in suspects]) as model:
        found = sensitivity.worst(
            lambda on: trials.of_switches(model, on, count),
            len(suspects),
            SAID,
            sensitivity.trial_limit(best.graph, count),
        )
    losses = [f"{suspects[at].what} {score.worst[1]:.1f} dB" for at, score in found.items()]
    if losses:
        designer.journal.decided(f"most is lost by quantizing, each alone: {', '.join(losses)}")


def _left_out(
    designer: Designer, best: Design, suspects: Sequence[Suspect], reasons: Mapping[int, str]
) -> Design | None:
    """`best` with these in float; None where no op would be int8 any more."""
    tensors, nodes = dict(best.floats.tensors), dict(best.floats.nodes)
    for at, reason in reasons.items():
        if suspects[at].layers:
            nodes.update(dict.fromkeys(suspects[at].layers, reason))
        else:
            tensors.update({tensor: reason for tensor, _ in suspects[at].group})
    return designer.redesigned("float", best, Floats(tensors, nodes))


def _kept(designer: Designer, after: Design, reasons: Mapping[int, str]) -> Design:
    count = len(reasons)
    designer.journal.decided(
        f"{count} tensor{'s' * (count > 1)} in float, {after.method} ranges",
        f"{text(after.score)}; {next(iter(reasons.values()))}",
    )
    designer.journal.floats += count
    return after


def _key(score: Score, at: int) -> tuple[float, int]:
    """To a tenth of a dB: the order may not hang on a host's last bits."""
    return round(score.worst[1], 1), at


def _suspects(design: Design) -> list[Suspect]:
    """Tensors in topological order, then weights (those that layers read differently left out)."""
    encodings = design.plan.tensors
    groups = [
        [(name, encodings[name]) for name in tie if name in encodings] for tie in design.draft.ties
    ]
    readers: dict[str, list[str]] = {}
    for layer in design.draft.layers:
        readers.setdefault(layer.weight, []).append(layer.node)
    return [Suspect(group) for group in groups if group] + [
        Suspect([(weight, encodings[weight])], tuple(layers))
        for weight, layers in readers.items()
        if weight in encodings
        and not any(reader_key(weight, layer) in encodings for layer in layers)
    ]


def _sensitivity(
    designer: Designer, best: Design, suspects: Sequence[Suspect]
) -> sensitivity.Sensitivity:
    """On `SAMPLES` samples; where these lose nothing and all of them too much, on all."""
    trials = designer.trials
    everything = len(trials.samples)
    with designer.lab.switched(best.graph, [suspect.group for suspect in suspects]) as model:
        found = _found_on(designer, best, model, len(suspects), min(SAMPLES, everything))
        lost = best.score.worst[1] < sensitivity.FLOOR_DB
        if lost and not found.alone and everything > SAMPLES:
            found = _found_on(designer, best, model, len(suspects), everything)
    if found.left:
        designer.journal.decided(
            f"sensitivity stopped after {found.trials} trials, the cap on its work: "
            f"{found.left} tensors were not measured alone"
        )
    return found


def _found_on(
    designer: Designer, best: Design, model: Switched, suspects: int, count: int
) -> sensitivity.Sensitivity:
    found = sensitivity.find(
        lambda on: designer.trials.of_switches(model, on, count),
        suspects,
        sensitivity.trial_limit(best.graph, count),
    )
    designer.journal.count(found.trials)
    return found
