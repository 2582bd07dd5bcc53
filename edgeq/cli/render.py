"""The one renderer of results: what each command prints on stdout, line by line."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol, TypeVar

from edgeq.cli.console import Console
from edgeq.cli.units import counted, factor, number, size, table
from edgeq.report.card import name_text
from edgeq.report.results import (
    Build,
    Doctor,
    Evaluation,
    Fidelity,
    Inspection,
    LeftInFloat,
    Planned,
    Ran,
    TensorError,
    Verified,
)

SHOWN_GROUPS = 8
SHOWN_LAYERS = 3
SHOWN_DECISIONS = 6


class Result(Protocol):
    """What every verb returns."""

    def to_json(self) -> dict[str, Any]: ...


AnyResult = TypeVar("AnyResult", bound=Result)
Text = Callable[[Console, AnyResult, str], Iterable[str]]


def show(console: Console, result: AnyResult, text: Text[AnyResult], next_line: str) -> int:
    """Print `result` as its JSON document, or as `text` ending in the command worth typing next.

    Returns the exit code that the result stands for.
    """
    if console.json:
        console.document(result.to_json())
    else:
        console.result(text(console, result, next_line))
    return int(getattr(result, "exit_code", 0))


def build(console: Console, result: Build, next_line: str) -> Iterator[str]:
    """The figures beside float's, what runs how, how close it is, and where it was written."""
    figures = [*_size_rows(result), *_metric_rows(result.metrics, result.precision)]
    yield from table(figures)
    if not result.metrics:
        yield _row("quality", "not measured: no --eval was given")
    yield _row("latency", f"not measured on {result.target}")
    yield from _gate_lines(console, result.gate)
    if result.outcome == "garbage":
        yield _garbage_line(console, result.fidelity)
    yield ""
    yield from _operator_lines(console, result.ops, result.left_in_float)
    yield from _coverage_lines(console, result.coverage)
    yield from _search_lines(console, result.search)
    yield from _candidate_lines(result)
    yield from _fidelity_lines(console, result.fidelity)
    yield ""
    yield _row("bundle", result.bundle or "not written: the gate failed, and --strict was given")
    yield ""
    yield _next(console, next_line)


def plan(console: Console, result: Planned, next_line: str) -> Iterator[str]:
    """What would run in which precision and why; with -v every operator and tensor."""
    yield _row("model", f"{result.model['name']}, {result.precision} for {result.target}")
    if result.calibration is not None:
        yield _row("ranges", _calibration(result.calibration))
    yield from _operator_lines(console, result.ops, result.left_in_float)
    tensors: Mapping[str, Any] = result.plan.get("tensors", {})
    if tensors:
        kinds = _count(encoding["dtype"] for encoding in tensors.values())
        yield _row("tensors", ", ".join(f"{count} {dtype}" for dtype, count in kinds.items()))
    yield from _search_lines(console, result.search)
    yield _row("bundle", "not written: --plan-only")
    yield ""
    if console.verbose:
        yield from _plan_details(result.plan)
    yield _next(console, next_line)


def evaluation(console: Console, result: Evaluation, next_line: str) -> Iterator[str]:
    """Each metric with its samples and interval, the gate, and what computed them."""
    yield from table(_metric_rows(result.metrics, "measured"))
    yield from _gate_lines(console, result.gate)
    yield _row("engine", f"{result.engine} on this host, {_kernels(result.kernels)}")
    yield ""
    yield _next(console, next_line)


def run(console: Console, result: Ran, next_line: str) -> Iterator[str]:
    """A summary of each output, the best classes where asked, and the file written."""
    rows = [("OUTPUT", "TYPE", "MINIMUM", "MEAN", "MAXIMUM")]
    for output in result.outputs:
        figures = (output["minimum"], output["mean"], output["maximum"])
        kind = f"{output['dtype']} {_shape(output['shape'])}"
        rows.append((output["name"], kind, *("-" if f is None else number(f) for f in figures)))
    yield from table(rows)
    if result.top:
        yield ""
        yield from table([("SAMPLE", "BEST"), *_top_rows(result)])
    yield ""
    yield _row("samples", str(result.samples))
    yield _row("engine", f"{result.engine} on this host, {_kernels(result.kernels)}")
    if result.out is not None:
        yield _row("saved", result.out)
    yield ""
    yield _next(console, next_line)


def inspection(console: Console, result: Inspection, next_line: str) -> Iterator[str]:
    """The sections of a file, each a title and its rows."""
    for title, rows in result.sections:
        yield console.paint(title, "bold")
        yield from table([(label, value) for label, value in rows], indent="  ", gap=2)
        yield ""
    yield _next(console, next_line)


def verified(console: Console, result: Verified, next_line: str) -> Iterator[str]:
    """Whether the bundle is whole and computes here what it computed when it was built."""
    word = console.paint("passed", "green") if result.passed else console.paint("failed", "red")
    yield _row("verified", f"{result.bundle}: {word}")
    yield _row("bytes", f"every digest holds, bundle {result.digest}")
    yield _row("vectors", f"{result.vectors} golden, computed here")
    for place, line in enumerate(table([_compared(output) for output in result.outputs], gap=2)):
        yield _row("" if place else "outputs", line)
    host = result.host if result.on_target else f"{result.host}, not the target {result.target}"
    yield _row("host", host)
    yield _row("engine", f"{result.engine}, {_kernels(result.kernels)}")
    yield ""
    yield _next(console, next_line)


def doctor(console: Console, result: Doctor, next_line: str) -> Iterator[str]:
    """One line a check; the status in its colour."""
    colours = {"ok": "green", "missing": "yellow", "problem": "red"}
    width = max(len(status) for status in colours)
    rows = [(check, detail) for check, _, detail in result.rows]
    for line, (_, status, _) in zip(table(rows, gap=2), result.rows, strict=True):
        yield f"{console.paint(status.ljust(width), colours[status])}  {line}"
    yield ""
    yield _next(console, next_line)


def config(document: Mapping[str, Any]) -> list[str]:
    """Every setting with its value, as edgeq.toml would write it, and its origin."""
    rows = [("SETTING", "VALUE", "FROM")]
    rows += [(row["name"], _toml(row["value"]), row["origin"]) for row in document["settings"]]
    return table(rows)


# -- the parts ------------------------------------------------------------------------------------

_LABEL = 13


def _row(label: str, text: str) -> str:
    return f"{label:<{_LABEL}}{text}".rstrip()


def _next(console: Console, line: str) -> str:
    return f"{console.paint('next:', 'cyan')} {line}"


def _size_rows(result: Build) -> list[tuple[str, ...]]:
    label = "size".ljust(_LABEL - 3)
    before, after = result.float_size_bytes, result.size_bytes
    if result.precision == "fp32":
        return [("", "fp32"), (label, size(after))]
    reference = "fp32" if result.fidelity.reference == "float" else "source"
    head = ("", reference, result.precision, "change")
    return [head, (label, size(before), size(after), factor(before, after))]


def _metric_rows(metrics: Sequence[Mapping[str, Any]], precision: str) -> list[tuple[str, ...]]:
    """Value beside the float model's where both were measured and the precision is another."""
    rows: list[tuple[str, ...]] = []
    for metric in metrics:
        label = metric["metric"].ljust(_LABEL - 3)
        value, baseline = metric["value"], metric["baseline"]
        recorded = metric["interval"] is not None and metric["difference_interval"] is None
        if baseline is None or precision == "fp32" or recorded:
            rows.append((label, _figure(metric, value), _spread(metric, "interval")))
            continue
        change = _change(metric, metric["difference"])
        figures = (_figure(metric, baseline), _figure(metric, value), change)
        rows.append((label, *figures, _spread(metric, "difference_interval")))
    return rows


def _figure(metric: Mapping[str, Any], value: float) -> str:
    return f"{100 * value:.2f} %" if metric["unit"] == "fraction" else number(value)


def _change(metric: Mapping[str, Any], value: float) -> str:
    return f"{100 * value:+.2f} pt" if metric["unit"] == "fraction" else f"{value:+.4g}"


def _spread(metric: Mapping[str, Any], which: str) -> str:
    """The 95 % interval and the samples behind it, or that there is none."""
    if metric["n"] is None:
        return "one number, no interval"
    samples = counted(metric["n"], "sample")
    if metric[which] is None:
        return f"{samples}, no interval"
    write = _figure if which == "interval" else _change
    low, high = (write(metric, end) for end in metric[which])
    return f"{100 * metric['confidence']:.0f} % interval {low} to {high}, {samples}"


def _gate_lines(console: Console, gate: Mapping[str, Any] | None) -> Iterator[str]:
    """Each rule, whether it held, and by what measure."""
    if gate is None:
        return
    for place, rule in enumerate(gate["rules"]):
        word = "passed" if rule["passed"] else "failed"
        measured = rule["text"].removeprefix(f"gate {rule['rule']} {word}: ")
        told = console.paint(word, "green" if rule["passed"] else "red")
        yield _row("" if place else "gate", f"{rule['rule']}  {told}: {measured}")


def _operator_lines(
    console: Console, ops: Mapping[str, Mapping[str, int]], left: Sequence[LeftInFloat]
) -> Iterator[str]:
    """Operators per precision; those left in float grouped by reason, or each of them with -v."""
    for precision, counts in ops.items():
        if counts and not (precision == "float32" and left and len(left) >= sum(counts.values())):
            yield _row(precision, _counts(counts))
    if not left:
        return
    yield _row("float32", f"{counted(len(left), 'operator')} left in float:")
    rows: list[tuple[str, ...]]
    if console.verbose:
        rows = [(op.op_type, name_text(op.node), op.reason) for op in left]
    else:
        rows = [(f"{n} {op_type}", reason) for (op_type, reason), n in _group(left).items()]
    hidden = len(rows) - SHOWN_GROUPS
    if hidden > 0 and not console.verbose:
        rows = [*rows[:SHOWN_GROUPS], (f"and {counted(hidden, 'more kind')}", "all with -v")]
    yield from table(rows, indent=" " * _LABEL, gap=2)


def _group(left: Sequence[LeftInFloat]) -> dict[tuple[str, str], int]:
    groups: dict[tuple[str, str], int] = {}
    for op in left:
        key = (op.op_type, op.reason)
        groups[key] = groups.get(key, 0) + 1
    return groups


def _coverage_lines(console: Console, coverage: Mapping[str, Any] | None) -> Iterator[str]:
    """What the engine made of it: counted in the optimized model that it saves itself."""
    if coverage is None:
        return
    parts = [f"{_counts(coverage[p])} in {p}" for p in ("int8", "float32") if coverage[p]]
    where = f"{coverage['engine']} on {coverage['on']}"
    if "partitions" in coverage:
        where += f", {counted(coverage['partitions'], 'XNNPACK partition')}"
    yield _row("runs", f"{'; '.join(parts) or 'nothing'} ({where})")
    if console.verbose:
        pairs = (f"Q and DQ left: {line}" for line in coverage.get("pairs", ()))
        hints = (f"hint: {line}" for line in coverage.get("hints", ()))
        yield from (_row("", line) for line in (*pairs, *coverage["lines"], *hints))


def _search_lines(console: Console, search: Mapping[str, Any] | None) -> Iterator[str]:
    """What the search decided and measured; the first few, all with -v."""
    lines = [] if search is None else list(search["decided"])
    shown = lines if console.verbose else lines[:SHOWN_DECISIONS]
    for place, line in enumerate(shown):
        yield _row("" if place else "search", line)
    if len(shown) < len(lines):
        yield _row("", f"and {len(lines) - len(shown)} more: -v shows them")


def _candidate_lines(result: Build) -> Iterator[str]:
    """The artifacts of `--engine auto` beside each other, and why one was kept."""
    if not result.candidates:
        return
    metric = result.metrics[0] if result.metrics else None
    quality = [] if metric is None else [metric["metric"].upper()]
    rows = [("ENGINE", "READS", "SIZE", *quality, "SQNR", "ONE RUN", "PARTITIONS", "")]
    rows += [_candidate_row(row, metric) for row in result.candidates]
    for place, line in enumerate(table(rows, gap=2)):
        yield _row("" if place else "engines", line)


def _candidate_row(row: Mapping[str, Any], metric: Mapping[str, Any] | None) -> tuple[str, ...]:
    measured = [] if metric is None else [""]
    if row["size_bytes"] is None:
        return (row["engine"], "", "", *measured, "", "", "", f"not built: {row['reason']}")
    if metric is not None:
        measured = ["-" if row["quality"] is None else _figure(metric, row["quality"])]
    noise = "equal" if row["sqnr_db"] is None else f"{row['sqnr_db']:.1f} dB"
    parts = "-" if row["partitions"] is None else str(row["partitions"])
    kept = f"<- kept: {row['reason']}" if row["kept"] else ""
    figures = (size(row["size_bytes"]), *measured, noise, _speed(row), parts)
    return (row["engine"], row["acts"] or row["precision"], *figures, kept)


def _speed(row: Mapping[str, Any]) -> str:
    """Measured, or what the target's policy says; never one for the other."""
    if row["ms"] is not None:
        return f"{row['ms']:.3g} ms here"
    return "not timed" if row["policy"] is None else f"{row['policy']:g}x float by policy"


def _fidelity_lines(console: Console, fidelity: Fidelity) -> Iterator[str]:
    """How far each output and the worst layers are from float; signal to noise, in dB."""
    samples = _samples(fidelity.samples, fidelity.source)
    yield _row("fidelity", f"against {fidelity.reference} on {samples}:")
    outputs = {error.name for error in fidelity.outputs}
    inside = [error for error in fidelity.worst if error.name not in outputs]
    worst = inside if console.verbose else inside[:SHOWN_LAYERS]
    rows = [("output", name_text(error.name), _noise(error)) for error in fidelity.outputs]
    rows += [("worst", name_text(error.name), _noise(error)) for error in worst]
    yield from table(rows, indent=" " * _LABEL, gap=2)


def _noise(error: TensorError) -> str:
    return "equal" if error.sqnr_db is None else f"SQNR {error.sqnr_db:.1f} dB"


def _garbage_line(console: Console, fidelity: Fidelity) -> str:
    """The built-in gate: without a metric, an output far from float's stops the build."""
    noisy = [error for error in fidelity.outputs if error.sqnr_db is not None]
    lowest = min(noisy, key=lambda error: error.sqnr_db or 0.0)
    told = f"output `{lowest.name}` is at {_noise(lowest)} from float's, and no metric says better"
    return _row("gate", f"built in  {console.paint('failed', 'red')}: {told}")


def _calibration(calibration: Mapping[str, Any]) -> str:
    origin = "" if calibration["calibrated"] else ", not calibrated"
    samples = _samples(calibration["samples"], calibration["source"])
    return f"{calibration['method']} over {samples}{origin}"


def _samples(count: int, source: str) -> str:
    """`16 samples of calib.npz`; a source that counts itself is not counted again."""
    samples = counted(count, "sample")
    return source if source.startswith(f"{count} ") else f"{samples} of {source}"


def _plan_details(document: Mapping[str, Any]) -> Iterator[str]:
    ops = [(op["op_type"], op["node"], op["precision"], _why(op)) for op in document.get("ops", ())]
    if ops:
        yield from table([("OPERATOR", "NODE", "PRECISION", "WHY"), *ops])
        yield ""
    tensors = [
        (name, encoding["dtype"], _scales(encoding), encoding["origin"])
        for name, encoding in document.get("tensors", {}).items()
    ]
    if tensors:
        yield from table([("TENSOR", "TYPE", "SCALE", "RANGE FROM"), *tensors])
        yield ""


def _why(op: Mapping[str, Any]) -> str:
    fused = f"fused into {op['fused_into']}" if op["fused_into"] else ""
    return "; ".join(text for text in (fused, op["reason"]) if text)


def _scales(encoding: Mapping[str, Any]) -> str:
    scales = encoding["scale"]
    if len(scales) == 1:
        return f"{number(scales[0])}, zero point {encoding['zero_point']}"
    low, high = number(min(scales)), number(max(scales))
    return f"{low} to {high}, {len(scales)} on axis {encoding['axis']}"


def _top_rows(result: Ran) -> list[tuple[str, str]]:
    rows = []
    for sample, best in enumerate(result.top):
        texts = [f"{label or index} ({number(score)})" for index, label, score in best]
        name = result.names[sample] if result.names else str(sample)
        rows.append((name, ", ".join(texts)))
    return rows


def _compared(output: Mapping[str, Any]) -> tuple[str, str]:
    """How one output's golden elements compare: to the last bit, or within a tolerance."""
    elements, wrong = counted(output["compared"], "element"), output["mismatches"]
    tolerance, error = output["tolerance"], number(output["max_error"])
    if wrong:
        steps = "" if output["max_lsb"] is None else f", {counted(output['max_lsb'], 'step')}"
        return output["name"], f"{wrong} of {elements} differ, by up to {error}{steps}"
    if tolerance is None:
        return output["name"], f"{elements} equal to the last bit"
    return output["name"], f"{elements} within {number(tolerance)}, largest error {error}"


def _count(words: Iterable[str]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for word in words:
        counts[word] = counts.get(word, 0) + 1
    return counts


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {kind}" for kind, count in counts.items())


def _shape(shape: Sequence[int]) -> str:
    return f"[{', '.join(str(each) for each in shape)}]"


def _kernels(mode: str) -> str:
    """What a session's mode means for the numbers it computes."""
    return {
        "default": "its usual kernels",
        "exact": "exact kernels",
        "exact-unoptimized": "exact kernels, unoptimized",
    }.get(mode, mode)


def _toml(value: Any) -> str:
    """A setting's value as edgeq.toml writes it; `-` where there is none."""
    if value is None or value in ({}, []):
        return "-"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return f'"{value}"'
    if isinstance(value, list):
        return f"[{', '.join(_toml(item) for item in value)}]"
    if isinstance(value, dict):
        return f"{{ {', '.join(f'{key} = {_toml(item)}' for key, item in value.items())} }}"
    return str(value)
