"""What `compare`, `inspect --plan` and `init` print: tensors and operators one by one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from edgeq.cli.console import Console
from edgeq.cli.units import counted, factor, number, size, table
from edgeq.report.card import name_text
from edgeq.report.comparison import Compared, PairDifference
from edgeq.report.results import Initialized, Inspection

SHOWN = 10
"""Inner tensors that `compare` shows where it was not told how many."""


def compared(
    console: Console, result: Compared, next_line: str, *, shown: int | None
) -> Iterator[str]:
    """Both artifacts, then each output and the `shown` worst inner tensors (None: all)."""
    a, b = result.a, result.b
    yield from table(
        [
            ("", "A", "B", ""),
            ("file", a.file, b.file, ""),
            ("size", size(a.size_bytes), size(b.size_bytes), factor(a.size_bytes, b.size_bytes)),
            ("precision", a.precision or "as in the file", b.precision or "as in the file", ""),
        ]
    )
    yield ""
    yield from _differences("OUTPUT", result.outputs)
    yield ""
    if result.tensors:
        worst = result.tensors[:shown]
        yield from _differences("INNER TENSOR", worst)
        hidden = len(result.tensors) - len(worst)
        if hidden:
            yield f"and {counted(hidden, 'inner tensor')} no worse; all with --tensors"
        yield ""
    if result.not_compared:
        rows = [(name_text(name), reason) for name, reason in result.not_compared]
        rows = [("NOT COMPARED", "WHY"), *rows]
        yield from table(rows)
        yield ""
    yield from _closing(result)
    yield ""
    yield f"{console.paint('next:', 'cyan')} {next_line}"


def plan(
    console: Console, result: Inspection, next_line: str, *, only_float: bool
) -> Iterator[str]:
    """Each operator of a bundle or a TFLite file in its order, or those in float; then how many
    run how."""
    data = result.data
    found = data["plan"]
    ops = [op for op in found["ops"] if not only_float or op["precision"] == "float32"]
    if ops:
        yield from table([_PLAN_HEAD, *(_plan_row(op) for op in ops)])
        yield ""
    is_bundle = result.kind == "bundle"
    what = f"{result.file}, {data['precision']} for {data['target']}" if is_bundle else result.file
    yield from table(
        [
            (result.kind, what),
            ("operators", _plan_counts(found["counts"], str(data.get("precision", "TFLite")))),
            ("error", _plan_errors(found["ops"]) if is_bundle else "no float model is at hand"),
        ]
    )
    yield ""
    yield f"{console.paint('next:', 'cyan')} {next_line}"


_PLAN_HEAD = ("OPERATOR", "NODE", "PRECISION", "MAKES", "RANGE", "STEP", "SQNR", "WHY")


def _plan_row(op: Mapping[str, Any]) -> tuple[str, ...]:
    scaled = op["scale"] is not None
    ends = f"{number(op['minimum'])} to {number(op['maximum'])}" if scaled else "-"
    fused = f"fused into {op['fused_into']}" if op["fused_into"] else ""
    return (
        op["op_type"],
        name_text(op["node"]),
        op["precision"],
        name_text(op["tensor"] or "-"),
        ends,
        number(op["scale"]) if scaled else "-",
        _plan_sqnr(op),
        "; ".join(text for text in (fused, op["reason"]) if text),
    )


def _plan_sqnr(op: Mapping[str, Any]) -> str:
    if not op["measured"]:
        return "not measured" if op["precision"] == "int8" and op["tensor"] else "-"
    return "equal" if op["sqnr_db"] is None else f"{op['sqnr_db']:.0f} dB"


def _plan_counts(counts: Mapping[str, int], precision: str) -> str:
    if not counts:
        return f"no plan: every operator is as the {precision} file has it"
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{count} {name}" for name, count in ordered)


def _plan_errors(ops: Sequence[Mapping[str, Any]]) -> str:
    """The worst tensor that the build measured, the whole graph before it included."""
    noisy = [op for op in ops if op["sqnr_db"] is not None]
    if not noisy and all(op["tensor"] is None for op in ops):
        return "unknown: nothing shows the tensors inside the artifact" if ops else "not measured"
    if not noisy:
        measured = any(op["measured"] for op in ops)
        return "none: what was measured is equal to float" if measured else "not measured"
    worst = min(noisy, key=lambda op: op["sqnr_db"])
    against = "against float, with all that comes before it in int8"
    return f"worst is `{worst['tensor']}`, {worst['sqnr_db']:.0f} dB {against}"


def initialized(console: Console, result: Initialized, next_line: str) -> Iterator[str]:
    """What was written, and what in it is a guess."""
    rows = [
        ("settings", result.file),
        ("model", result.model),
        ("target", result.target or "left off: none describes this machine"),
        ("guessed", f"{', '.join(result.guessed)}; switched off" if result.guessed else "nothing"),
    ]
    yield from table(rows)
    yield ""
    yield f"{console.paint('next:', 'cyan')} {next_line}"


def _closing(result: Compared) -> Iterator[str]:
    """What was compared on, and the verdict in one line."""
    engines = dict.fromkeys((result.a.engine, result.b.engine))
    verdict = "outputs bit-equal" if result.bit_equal else "outputs differ"
    if result.max_lsb is not None and not result.bit_equal:
        verdict += f", by at most {_steps(result.max_lsb)} LSB"
    yield from table(
        [
            ("samples", _samples(result)),
            ("engine", f"{', '.join(engines)} on this host, exact kernels"),
            ("result", f"{verdict}; A is the reference"),
        ]
    )


def _samples(result: Compared) -> str:
    if result.synthetic:
        return f"{result.source}, no measure of real data"
    return f"{result.samples} of {result.source}"


def _differences(title: str, pairs: Sequence[PairDifference]) -> list[str]:
    rows = [(title, "SQNR", "MAX ERROR", "MAX LSB", "BIT-EQUAL", "COMPARED AS")]
    for pair in pairs:
        one, two = name_text(pair.a), name_text(pair.b)
        name = one if pair.a == pair.b else f"{one} with {two}"
        steps = "-" if pair.max_lsb is None else _steps(pair.max_lsb)
        share = _share(pair.equal_share)
        rows.append((name, _decibels(pair), number(pair.max_abs_error), steps, share, _as(pair)))
    return table(rows)


def _as(pair: PairDifference) -> str:
    if pair.step is None:
        return pair.compared_as
    return f"{pair.compared_as}, step {number(pair.step)}"


def _decibels(pair: PairDifference) -> str:
    if pair.sqnr_db is None:
        return "equal" if pair.bit_equal else "-"
    return f"{pair.sqnr_db:.1f} dB"


def _steps(steps: float) -> str:
    """Whole numbers as such; a distance in steps that is none with one digit."""
    return f"{steps:.0f}" if steps == round(steps) or steps >= 1000 else f"{steps:.1f}"


def _share(share: float) -> str:
    """A share that is not whole is never shown as whole."""
    return "100 %" if share == 1.0 else f"{min(100 * share, 99.99):.2f} %"
