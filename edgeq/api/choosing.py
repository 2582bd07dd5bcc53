"""One artifact of several: an artifact for each engine, built and measured, and which is kept.

Quality decides where it differs by more than samples tell (the metric where one was measured, else
the signal-to-noise ratio, up to where the search stops too), then speed by its margin, then bytes;
what is left is the target's own order. All that was measured is told; a bundle holds only what was
kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgeq.api import timing
from edgeq.api.stages import attempt as build_one
from edgeq.errors import EdgeqError
from edgeq.search.choice import MARGIN_DB, MARGIN_SPEED, shares
from edgeq.search.static import ENOUGH_DB
from edgeq_runtime.outside import file_bytes

if TYPE_CHECKING:
    from edgeq.api.forms import Form
    from edgeq.api.stages import Candidate, Evaluated, Work

UNWRITABLE = ("unwritable-op", "needs-shape", "too-large", "engine-refused", "engine-crashed")
"""What speaks against one engine only: the other's artifact is built."""
SIZE_MARGIN = 1.05
METRIC_MARGIN = 0.005
"""Half a point of a metric in 0..1: closer candidates are equally good."""


@dataclass(frozen=True)
class Chosen:
    """The candidate that was kept, the work that made it, and what it was chosen from."""

    work: Work
    candidate: Candidate
    table: tuple[dict[str, Any], ...] = ()


@dataclass
class Measured:
    """One candidate with what it is judged by. `speed` is relative to float; None: not known."""

    work: Work
    candidate: Candidate
    sqnr_db: float | None
    speed: float | None = None
    ms: float | None = None

    @property
    def engine(self) -> str:
        return self.work.form.engine

    @property
    def size_bytes(self) -> int:
        return file_bytes(self.candidate.artifact)

    @property
    def partitions(self) -> int | None:
        counted = self.candidate.coverage
        return None if counted is None else counted.get("partitions")


def attempt(
    work: Work, forms: Sequence[Form], precision: str, evaluation: Evaluated | None
) -> Chosen:
    """Build `precision` in each of `forms` and keep the best; of one form, that one.

    Raises EdgeqError: what building raises; of several forms, the last one's where none was built.
    """
    if len(forms) == 1:
        return Chosen(work, build_one(work, precision, evaluation))
    built, refused = _built(work, forms, precision, evaluation)
    with work.stage("Compared") as stage:
        source = _time(built)
        kept, reason = choose(built, source)
        stage.done(f"{kept.engine} is kept", reason)
    if len(built) > 1:  # without the reason: that is this host's, and a bundle is not
        kept.work.notes.append(f"{kept.engine} was kept of {len(built)} engines, by measuring")
    told = [_row(each, kept, reason) for each in built]
    return Chosen(kept.work, kept.candidate, (*told, *refused))


def _built(
    work: Work, forms: Sequence[Form], precision: str, evaluation: Evaluated | None
) -> tuple[list[Measured], list[dict[str, Any]]]:
    """The candidates that could be built, and rows for those that could not."""
    built: list[Measured] = []
    refused: list[dict[str, Any]] = []
    for form in forms:
        own = work.in_form(form)
        with own.stage("Engine") as stage:
            stage.done(form.engine, form.format)
        try:
            candidate = build_one(own, precision, evaluation)
        except EdgeqError as error:
            last = form is forms[-1] and not built
            if error.slug not in UNWRITABLE or last:
                raise
            work.notes.append(f"no artifact for {form.engine}: {error.message} [{error.slug}]")
            refused.append(_refused(form, error))
            for each in built:
                each.work.notes.append(work.notes[-1])
            continue
        built.append(Measured(own, candidate, _sqnr(candidate)))
    return built, refused


def _sqnr(candidate: Candidate) -> float | None:
    """The noisiest output; None where all are equal to float's."""
    noisy = [e.sqnr_db for e in candidate.fidelity.outputs if e.sqnr_db is not None]
    return min(noisy, default=None)


def _time(built: Sequence[Measured]) -> str:
    """Note the speed of each: measured where this host is like the target, else by its policy."""
    work = built[0].work
    if len(built) > 1 and timing.is_worth_it(work):
        models = {each.engine: each.candidate.shipped.measured for each in built}
        for each in built:
            each.ms = 0.0
        seconds = timing.interleaved(models, work.tap.kept[:1])
        for each in built:
            each.ms = seconds[each.engine] * 1e3
            each.speed = 1 / each.ms
        return timing.WHERE
    for each in built:
        each.speed = policy_speed(each)
    if any(each.speed is None for each in built):  # half a table compares nothing
        for each in built:
            each.speed = None
    return "by the target's policy"


def policy_speed(each: Measured) -> float | None:
    """What the policy of the candidate's engine says of whole nets of this kind."""
    work = each.work
    if each.candidate.precision != "int8" or "dynamic-int4" in each.candidate.ops:
        return None  # no policy speaks of int4
    done = shares(work.prepared.graph)
    conv = done.conv >= done.linear
    dynamic = acts(each.candidate) == "dynamic"
    net = "CNN" if conv else "Transformer"
    encodings = ("int8 dynamic",) if dynamic else ("int8 static", "uint8 static")
    rows = (row for row in work.engine.policy if row.operation == net)
    return next((row.ratio for row in rows if row.encoding.startswith(encodings)), None)


def choose(built: Sequence[Measured], source: str) -> tuple[Measured, str]:
    """The best, the first of equals, and why, in one phrase."""
    if len(built) == 1:
        return built[0], "no other could be built"
    left = [each for each in built if each.candidate.outcome == "built"]
    if len(left) == 1:
        return left[0], "the other does not pass its gate"
    left = left or list(built)
    timed = all(each.speed is not None for each in left)
    unknown = "speed is not known"
    for rule, reason in (
        (_best, "better by its metric"),
        (_closest, f"closer to the float model by {MARGIN_DB:g} dB or more"),
        (_fastest, f"as good, and faster, {source}"),
        (
            _smallest,
            "as good and as fast, and smaller" if timed else f"as good and smaller; {unknown}",
        ),
    ):
        better = rule(left)
        if len(better) == 1 < len(left):
            return better[0], reason
        left = better
    equal = "as good, as fast and as small" if timed else f"as good and as small, {unknown}"
    return left[0], f"{equal}: the target's first"


def _best(rows: Sequence[Measured]) -> list[Measured]:
    """By the first metric, where it is a share: the scale of others is the user's own."""
    if not _have_shares(rows):
        return list(rows)
    found = [row.candidate.metrics[0] for row in rows]
    values = [-metric.value if metric.lower_is_better else metric.value for metric in found]
    return [
        row for row, value in zip(rows, values, strict=True) if value >= max(values) - METRIC_MARGIN
    ]


def _have_shares(rows: Sequence[Measured]) -> bool:
    metrics = [row.candidate.metrics[:1] for row in rows]
    return all(found and found[0].unit == "fraction" for found in metrics)


def _closest(rows: Sequence[Measured]) -> list[Measured]:
    """Without such a metric. Beyond `ENOUGH_DB`, answers agree whatever the figure."""
    if _have_shares(rows):
        return list(rows)
    figures = [float("inf") if row.sqnr_db is None else row.sqnr_db for row in rows]
    most = min(max(figures), ENOUGH_DB)
    return [row for row, figure in zip(rows, figures, strict=True) if figure >= most - MARGIN_DB]


def _fastest(rows: Sequence[Measured]) -> list[Measured]:
    speeds = [row.speed for row in rows]
    if any(speed is None for speed in speeds):
        return list(rows)
    best = max(speed or 0.0 for speed in speeds)
    return [row for row in rows if (row.speed or 0.0) * MARGIN_SPEED >= best]


def _smallest(rows: Sequence[Measured]) -> list[Measured]:
    least = min(row.size_bytes for row in rows)
    return [row for row in rows if row.size_bytes <= least * SIZE_MARGIN]


def _row(each: Measured, kept: Measured, reason: str) -> dict[str, Any]:
    """A row of the result's table, with the reason from this candidate's side."""
    is_kept = each is kept
    candidate = each.candidate
    return {
        "engine": each.engine,
        "format": each.work.form.format,
        "precision": candidate.precision,
        "acts": acts(candidate),
        "size_bytes": each.size_bytes,
        "sqnr_db": None if each.sqnr_db is None else round(each.sqnr_db, 1),
        "quality": candidate.metrics[0].value if candidate.metrics else None,
        "ms": None if each.ms is None else round(each.ms, 4),
        "policy": each.speed if each.ms is None else None,
        "partitions": each.partitions,
        "kept": is_kept,
        "reason": reason if is_kept else f"{kept.engine} is kept: {reason}",
    }


def acts(candidate: Candidate) -> str | None:
    """What its layers read: static, dynamic or mixed int8; None where they are float."""
    from edgeq.quant.plan import DYNAMIC

    has = {name for name, counts in candidate.ops.items() if counts}
    dynamic = not has.isdisjoint(DYNAMIC)
    if "int8" in has:
        return "mixed" if dynamic else "static"
    return "dynamic" if dynamic else None


def _refused(form: Form, error: EdgeqError) -> dict[str, Any]:
    """A candidate that could not be built, with the engine's or the writer's words."""
    words = ("precision", "acts", "size_bytes", "sqnr_db", "quality", "ms", "policy", "partitions")
    return {
        "engine": form.engine,
        "format": form.format,
        **dict.fromkeys(words),
        "kept": False,
        "reason": f"{error.message} [{error.slug}]",
    }
