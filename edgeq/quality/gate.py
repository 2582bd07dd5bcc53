"""The one gate grammar: a comma list of `name op value unit`, parsed, checked and told.

`top1>=-0.5pt`: a signed value is relative to the float model, an unsigned one is absolute. `pt` is
0.01 of a metric in 0..1. `%` is a hundredth: of 1 when absolute, of the float model's value when
signed. `quality` names the only metric. The point estimate decides; where the 95 % interval does
not decide with it, the line says so.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any

from edgeq.errors import EdgeqError, did_you_mean
from edgeq.quality.metrics import METRICS, Quality

SIZE_UNITS = {"B": 1.0, "kB": 1e3, "MB": 1e6, "GB": 1e9}
TIME_UNITS = {"us": 1e-3, "ms": 1.0, "s": 1e3}
METRIC_UNITS = {"": 1.0, "%": 0.01, "pt": 0.01}
QUANTITIES = {
    "size": SIZE_UNITS,
    "rss": SIZE_UNITS,
    "p50": TIME_UNITS,
    "p90": TIME_UNITS,
    "p99": TIME_UNITS,
}
MEASURED_HERE = ("size",)
ONLY_METRIC = "quality"
MAX_RULES = 64
# Scores are ratios of small integers in float64: a gate on the exact boundary must not fall to
# their last bits. 1e-9 is far below one sample of any evaluation and far above rounding.
_SLACK = 1e-9
_DECLARE = ("or give your function `lower_is_better = True`",)

_RULE = re.compile(
    r"\s*(?P<name>[A-Za-z_][\w.\-/]*?)\s*(?P<op>>=|<=|>|<)\s*"
    r"(?P<value>[+-]?[0-9]+(?:\.[0-9]*)?(?:[eE][+-]?[0-9]{1,3})?)\s*(?P<unit>[A-Za-z%]*)\s*"
)
_STEPS = (
    (re.compile(r"\s*[A-Za-z_][\w.\-/]*?(?=\s*[<>=!]|\s*$|[^\w.\-/])"), "a name"),
    (re.compile(r"\s*(?:>=|<=|>|<)"), "one of >=, <=, >, <"),
    (re.compile(r"\s*[+-]?[0-9]+(?:\.[0-9]*)?(?:[eE][+-]?[0-9]{1,3})?"), "a number"),
    (re.compile(r"\s*[A-Za-z%]*\s*$"), "a unit"),
)


@dataclass(frozen=True)
class Rule:
    """One rule: `value` is in the quantity's own unit (bytes, ms, the metric's), `text` as written.

    `relative`: to the float model. `per_cent`: `value` times the float model's value.
    """

    text: str
    name: str
    op: str
    value: float
    unit: str
    relative: bool

    @property
    def per_cent(self) -> bool:
        """Whether the value is a share of the float model's."""
        return self.relative and self.unit == "%"


@dataclass(frozen=True)
class GateLine:
    """How one rule went. `certain` is None where there is no interval to tell."""

    rule: str
    passed: bool
    certain: bool | None
    text: str

    def to_json(self) -> dict[str, Any]:
        return {
            "rule": self.rule,
            "passed": self.passed,
            "certain": self.certain,
            "text": self.text,
        }


@dataclass(frozen=True)
class GateResult:
    """A gate passes when each of its rules does."""

    passed: bool
    lines: tuple[GateLine, ...]

    def to_json(self) -> dict[str, Any]:
        return {"passed": self.passed, "rules": [line.to_json() for line in self.lines]}


def parse_gate(gate: str | Sequence[str] | None) -> tuple[Rule, ...]:
    """The rules of a comma string or a list; `[bad-gate]` names the rule and the position in it."""
    parts = [gate] if isinstance(gate, str) else list(gate or ())
    texts = [text for part in parts for text in part.split(",")]
    if len(texts) > MAX_RULES:
        raise EdgeqError("bad-gate", f"a gate of {len(texts)} rules, more than {MAX_RULES}")
    return tuple(_rule(text.strip()) for text in texts)


def check_names(
    rules: Sequence[Rule],
    metrics: Sequence[str] | None,
    *,
    measured: Sequence[str] = MEASURED_HERE,
    baselines: Collection[str] | None = None,
) -> None:
    """Refuse, before any work, rules on what will not be measured, and relative ones that look the
    wrong way.

    `metrics` are those of the evaluation: () without one, None where its function alone knows.
    `baselines` are the metrics whose float figure is known, None where float is measured as well.
    """
    _check_known(rules, metrics, measured)
    for rule in rules:
        if rule.name in measured or not rule.relative:
            continue
        name = rule.name if metrics is None else _metric_name(rule, metrics, measured)
        if metrics is not None and name in METRICS:
            _check_direction(rule, name, METRICS[name].lower_is_better)
        # `quality` of a function's metrics may be any of them: the figures decide, once there.
        known = bool(baselines) if name == ONLY_METRIC else name in (baselines or ())
        if baselines is not None and not known:
            raise _no_baseline(rule)


def _check_known(
    rules: Sequence[Rule], metrics: Sequence[str] | None, measured: Sequence[str]
) -> None:
    for rule in rules:
        if rule.name in measured:
            continue
        if rule.name in QUANTITIES:
            known = [*measured, *(metrics if metrics is not None else ("what --eval returns",))]
            raise EdgeqError(
                "gate-not-measurable",
                f"gate `{rule.text}`: `{rule.name}` is not measured here",
                "measured here: " + ", ".join(known),
            )
        if metrics is not None:
            _metric_name(rule, metrics, measured)


def check_gate(rules: Sequence[Rule], measured: Mapping[str, float | Quality]) -> GateResult:
    """Hold the rules against what was measured: numbers in bytes or ms, and `Quality` by metric."""
    quantities = [name for name, value in measured.items() if not isinstance(value, Quality)]
    metrics = [name for name, value in measured.items() if isinstance(value, Quality)]
    _check_known(rules, metrics, quantities)
    lines: list[GateLine] = []
    for rule in rules:
        value = measured[rule.name if rule.name in measured else _metric_name(rule, metrics, ())]
        lines.append(
            _check_quality(rule, value) if isinstance(value, Quality) else _check(rule, value)
        )
    return GateResult(all(line.passed for line in lines), tuple(lines))


# -- parsing ------------------------------------------------------------------------------------


def _rule(text: str) -> Rule:
    match = _RULE.fullmatch(text)
    if match is None:
        place, wanted = _first_wrong(text)
        raise EdgeqError(
            "bad-gate",
            f"gate `{text}`: {wanted} is expected at position {place}",
            "write it like top1>=-0.5pt or size<5MB",
        )
    name, unit = match["name"], match["unit"]
    units = QUANTITIES.get(name, METRIC_UNITS)
    relative = match["value"][0] in "+-"
    if unit not in units:
        _refuse_unit(text, name, unit, match.start("unit") + 1, tuple(units))
    if relative and name in QUANTITIES:
        raise EdgeqError(
            "bad-gate",
            f"gate `{text}`: `{name}` is absolute, and the sign at position"
            f" {match.start('value') + 1} makes it relative",
        )
    value = float(match["value"]) * units[unit]
    if not isfinite(value):
        place = match.start("value") + 1
        raise EdgeqError("bad-gate", f"gate `{text}`: the number at position {place} is not finite")
    return Rule(text, name, match["op"], value, unit, relative)


def _first_wrong(text: str) -> tuple[int, str]:
    """Where a rule stops being one (from 1), and what belongs there."""
    place, expected = 0, "nothing more"
    for pattern, wanted in _STEPS:
        match = pattern.match(text, place)
        if match is None:
            expected = wanted
            break
        place = match.end()
    while place < len(text) and text[place].isspace():
        place += 1
    return place + 1, expected


def _refuse_unit(text: str, name: str, unit: str, place: int, units: tuple[str, ...]) -> None:
    known = ", ".join(f"`{item}`" for item in units if item)
    close = next((item for item in units if item and item.lower() == unit.lower()), None)
    hints = (f"did you mean `{close}`?",) if close else did_you_mean(unit, filter(None, units))
    problem = f"unknown unit `{unit}`" if unit else "no unit"
    raise EdgeqError(
        "bad-gate", f"gate `{text}`: {problem} at position {place}; `{name}` takes {known}", *hints
    )


def _metric_name(rule: Rule, metrics: Sequence[str], measured: Sequence[str]) -> str:
    """The metric that a rule names, `quality` being the only one there is."""
    if rule.name in metrics:
        return rule.name
    if rule.name == ONLY_METRIC and len(metrics) == 1:
        return metrics[0]
    if not metrics and (rule.name == ONLY_METRIC or rule.name in METRICS):
        raise EdgeqError(
            "gate-not-measurable",
            f"gate `{rule.text}`: no quality is measured without `--eval`",
            "--eval eval.npz --metric top1",
        )
    if rule.name in METRICS:
        raise EdgeqError(
            "gate-not-measurable",
            f"gate `{rule.text}`: `{rule.name}` is not measured here",
            "measured here: " + ", ".join([*measured, *metrics]),
        )
    if rule.name == ONLY_METRIC:
        raise EdgeqError(
            "bad-gate",
            f"gate `{rule.text}`: `quality` names the only metric, and there are {len(metrics)}",
            *did_you_mean(rule.name, metrics),
        )
    raise EdgeqError(
        "bad-gate",
        f"gate `{rule.text}`: unknown metric `{rule.name}` at position 1",
        *did_you_mean(rule.name, [*metrics, *measured]),
    )


def _check_direction(rule: Rule, metric: str, lower_is_better: bool, *hints: str) -> None:
    """A relative rule bounds the loss: from above where lower is better, from below otherwise."""
    if not rule.relative or (rule.op[0] == "<") == lower_is_better:
        return
    op, sign, better = ("<", "+", "lower") if lower_is_better else (">", "-", "higher")
    match = _RULE.fullmatch(rule.text)
    assert match is not None
    right = f"{rule.name}{op}{rule.op[1:]}{sign}{match['value'][1:]}{match['unit']}"
    raise EdgeqError(
        "bad-gate",
        f"gate `{rule.text}`: {better} is better of `{metric}`, and `{rule.op}` bounds the gain,"
        " not the loss",
        f"write `{right}`",
        *hints,
    )


def _no_baseline(rule: Rule) -> EdgeqError:
    return EdgeqError(
        "gate-not-measurable",
        f"gate `{rule.text}`: it is relative to the float model, which was not measured",
        "build with the same `--eval`, so that the bundle records the float figure",
        f"or give `{rule.name}` an absolute bound",
    )


# -- checking -----------------------------------------------------------------------------------


def _holds(value: float, op: str, bound: float) -> bool:
    slack = _SLACK * max(1.0, abs(bound))
    if op == ">=":
        return value >= bound - slack
    if op == "<=":
        return value <= bound + slack
    return value > bound + slack if op == ">" else value < bound - slack


def _check(rule: Rule, value: float) -> GateLine:
    passed = _holds(value, rule.op, rule.value)
    units = QUANTITIES[rule.name]
    number = value / units[rule.unit]
    shown = f"{number:.4g} {rule.unit}" if number < 1000 else f"{number:.0f} {rule.unit}"
    return GateLine(rule.text, passed, True, f"gate {rule.text} {_word(passed)}: {shown}")


def _check_quality(rule: Rule, quality: Quality) -> GateLine:
    value, interval, bound = quality.value, quality.interval, rule.value
    if rule.relative:
        if quality.baseline is None or quality.difference is None:
            raise _no_baseline(rule)
        own = () if quality.lower_is_better or quality.metric in METRICS else _DECLARE
        _check_direction(rule, quality.metric, quality.lower_is_better, *own)
        value, interval = quality.difference, quality.difference_interval
        bound = rule.value * abs(quality.baseline) if rule.per_cent else rule.value
    passed = _holds(value, rule.op, bound)
    shown = _figure(value, quality, rule.relative)
    if rule.relative and quality.recorded is not None and quality.baseline is not None:
        shown += f" against {_figure(quality.baseline, quality, False)}, {quality.recorded}"
    if interval is None:
        return GateLine(
            rule.text, passed, None, f"gate {rule.text} {_word(passed)}: {shown}, no interval"
        )
    certain = all(_holds(end, rule.op, bound) == passed for end in interval)
    ends = " to ".join(_figure(end, quality, rule.relative) for end in interval)
    doubt = "" if certain else ", which does not decide it"
    text = f"gate {rule.text} {_word(passed)}: {shown}, 95 % interval {ends}{doubt}"
    return GateLine(rule.text, passed, certain, text)


def _figure(value: float, quality: Quality, relative: bool) -> str:
    """A number of a quality: points and per cent for a rate, the plain number otherwise."""
    if quality.unit != "fraction":
        return f"{value:+.4g}" if relative else f"{value:.4g}"
    return f"{100 * value:+.2f} pt" if relative else f"{100 * value:.2f} %"


def _word(passed: bool) -> str:
    return "passed" if passed else "failed"
