"""The bundle's card: one page of Markdown that says what the artifact is and what it costs.

No date, path or host name stands in it, so that the same build writes the same bytes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edgeq.report.results import Fidelity, LeftInFloat

NAME_WIDTH = 64


@dataclass(frozen=True)
class CardFacts:
    """What a card tells. Sizes in bytes; `metrics` and `gate` are the JSON of `edgeq.quality`."""

    name: str
    model: Mapping[str, Any]
    target: str
    target_title: str
    precision: str
    edgeq_version: str
    engine: str
    inputs: Sequence[tuple[str, str, str]]
    outputs: Sequence[tuple[str, str, str]]
    size_bytes: int
    float_size_bytes: int
    ops: Mapping[str, Mapping[str, int]]
    left_in_float: Sequence[LeftInFloat]
    calibration: Mapping[str, Any] | None
    fidelity: Fidelity
    metrics: Sequence[Mapping[str, Any]]
    gate: Mapping[str, Any] | None
    warnings: Sequence[str]
    notes: Sequence[str]


def card(facts: CardFacts) -> str:
    """Write the card as Markdown, ending in a newline."""
    sections = [
        _head(facts),
        _interface(facts),
        _quality(facts),
        _precision(facts),
        _listing("Warnings", facts.warnings),
        _listing("What edgeq changed or assumed", facts.notes),
        _provenance(facts),
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def megabytes(size_bytes: float) -> str:
    """Decimal units, three significant digits: `14.0 MB`, `3.6 kB`, `812 B`."""
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size_bytes >= size * 0.9995:  # what rounds up to 1000 of the smaller unit
            return f"{size_bytes / size:.3g} {unit}"
    return f"{size_bytes:g} B"


def name_text(name: str) -> str:
    """A tensor's or node's name that fits a row, cut in its middle; JSON has it whole. TensorFlow
    joins the names of all that it fused."""
    if len(name) <= NAME_WIDTH:
        return name
    half = NAME_WIDTH // 2 - 2
    return f"{name[:half]}...{name[-half:]}"


def _head(facts: CardFacts) -> str:
    share = facts.size_bytes / facts.float_size_bytes if facts.float_size_bytes else 1.0
    whose = f"{_reference(facts.fidelity)}'s"
    return (
        f"# {facts.name}\n\n"
        f"`{facts.model['name']}` in {facts.precision} for {facts.target} "
        f"({facts.target_title}), {megabytes(facts.size_bytes)}: "
        f"{share:.2f} of {whose} {megabytes(facts.float_size_bytes)}."
    )


def _interface(facts: CardFacts) -> str:
    rows = [("input", *row) for row in facts.inputs] + [("output", *row) for row in facts.outputs]
    return "## Inputs and outputs\n\n" + _table(("", "name", "type", "shape"), rows)


def _quality(facts: CardFacts) -> str:
    lines = ["## Quality"]
    reference = "float" if facts.fidelity.reference == "float" else "source"
    if facts.metrics:
        lines.append(
            _table(
                ("metric", reference, facts.precision, "samples"),
                [
                    (
                        metric["metric"],
                        _number(metric["baseline"]),
                        _number(metric["value"]),
                        _number(metric["n"]),
                    )
                    for metric in facts.metrics
                ],
            )
        )
    else:
        lines.append("Not measured: no evaluation was given.")
    if facts.gate is not None:
        lines.append(f"Gate: {'passed' if facts.gate['passed'] else 'failed'}.")
    lines.append(_fidelity(facts.fidelity))
    lines.append("Latency: not measured.")
    return "\n\n".join(lines)


def _fidelity(fidelity: Fidelity) -> str:
    rows = [
        (name_text(error.name), _decibels(error.sqnr_db), f"{error.equal_share:.4f}")
        for error in fidelity.outputs
    ]
    return (
        f"Against {_reference(fidelity)} on {fidelity.samples} samples of {fidelity.source}:\n\n"
        + _table(("output", "SQNR", "equal elements"), rows)
    )


def _reference(fidelity: Fidelity) -> str:
    return "the float model" if fidelity.reference == "float" else f"`{fidelity.reference}`"


def _precision(facts: CardFacts) -> str:
    text = "## Precision\n\n" + _table(("precision", "operators"), precision_rows(facts.ops))
    if facts.left_in_float:
        grouped = group_reasons(facts.left_in_float)
        text += "\n\nLeft in float:\n\n" + "\n".join(
            f"- {len(nodes)} {op_type}: {reason} ({_some(nodes)})"
            for (op_type, reason), nodes in grouped
        )
    return text


def precision_rows(ops: Mapping[str, Mapping[str, int]]) -> tuple[tuple[str, str], ...]:
    """("int8", "1 Add, 5 Conv") for each precision, by name."""
    return tuple(
        (precision, ", ".join(f"{count} {op}" for op, count in sorted(counts.items())))
        for precision, counts in sorted(ops.items())
    )


def group_reasons(
    left: Sequence[LeftInFloat],
) -> list[tuple[tuple[str, str], list[str]]]:
    """Nodes left in float by (operator, reason), in the order they were first met."""
    groups: dict[tuple[str, str], list[str]] = {}
    for op in left:
        groups.setdefault((op.op_type, op.reason), []).append(op.node)
    return list(groups.items())


def _some(names: Sequence[str], most: int = 3) -> str:
    shown = ", ".join(f"`{name_text(name)}`" for name in names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"


def _provenance(facts: CardFacts) -> str:
    rows = [
        ("model", f"`{facts.model['name']}`, sha256 `{facts.model['sha256']}`"),
        ("made with", f"edgeq {facts.edgeq_version}, {facts.engine}"),
    ]
    if facts.calibration is not None:
        rows.append(
            (
                "calibration",
                f"{facts.calibration['samples']} samples of {facts.calibration['source']}, "
                f"{facts.calibration['method']} ranges",
            )
        )
    return "## Made with\n\n" + _table(("", ""), rows)


def _listing(title: str, lines: Sequence[str]) -> str:
    return f"## {title}\n\n" + "\n".join(f"- {line}" for line in lines) if lines else ""


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    def line(cells: Sequence[str]) -> str:
        return (
            "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"
        )

    return "\n".join([line(head), line(["---"] * len(head)), *(line(row) for row in rows)])


def _number(value: Any) -> str:
    return "-" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)


def _decibels(value: float | None) -> str:
    return "equal" if value is None else f"{value:.1f} dB"
