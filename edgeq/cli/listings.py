"""How targets and slugs are listed on a terminal."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from edgeq.cli.units import table
from edgeq.errors import Slug

if TYPE_CHECKING:
    from edgeq.targets import EngineSupport, Figure, Target

_WIDTH = 96


def targets(shown: Sequence[Target]) -> Iterator[str]:
    """One line a target, then what to type for one of them."""
    rows = [("NAME", "CPU", "INT8 PATH", "ENGINES", "MEASURED")]
    for item in shown:
        engines = ", ".join(_engine(engine) for engine in item.engines)
        rows.append((item.name, _cpu(item), _int8_path(item), engines, "no"))
    yield from table(rows)
    yield ""
    yield f"next: edgeq targets {shown[0].name}"


def target(item: Target) -> Iterator[str]:
    """Everything known of one target, each figure with the number of its source."""
    sources = _Sources()
    yield f"{item.name}: {item.title}"
    yield ""
    rows = [
        ("cpu", f"{item.core} ({item.architecture})"),
        ("required", _features(item.required_features), sources.mark(item.features_source)),
        ("fast with", _features(item.fast_features), sources.mark(item.features_source)),
    ]
    for name, figure in (
        ("cores", item.cores),
        ("clock", item.clock_hz),
        ("memory", item.memory_bytes),
        ("bandwidth", item.bandwidth_bytes_per_s),
    ):
        rows.append((name, _noted(_figure(figure), figure.note), sources.mark(figure.source)))
    yield from table(rows)
    for engine in item.engines:
        yield ""
        yield from _engine_block(engine, sources)
    yield ""
    yield from table([("measured", "no: nothing was timed on this device")])
    yield ""
    yield from ("sources", *sources.lines())
    yield ""
    yield f"next: edgeq build model.onnx --target {item.name}"


class _Sources:
    """Footnotes: each source has a number and is written once."""

    def __init__(self) -> None:
        self._known: list[str] = []

    def mark(self, source: str | None) -> str:
        if source is None:
            return ""
        if source not in self._known:
            self._known.append(source)
        return f"[{self._known.index(source) + 1}]"

    def lines(self) -> list[str]:
        return [f"[{number}] {source}" for number, source in enumerate(self._known, 1)]


def _engine_block(engine: EngineSupport, sources: _Sources) -> Iterator[str]:
    weights = "pair-safe" if engine.pair_safe else "full range"
    writes = f"{engine.activation_dtype} activations, {weights} weights"
    yield f"{_engine(engine)}: {writes} {sources.mark(engine.source)}"
    for bad in engine.known_bad:
        yield f"  never {bad.version}: {bad.effect} {sources.mark(bad.source)}"
    if engine.widths is not None:
        widths = engine.widths
        multiples = f"{widths.input}, {widths.output}, {widths.depthwise}"
        yield from _wrapped(
            "packed int8 convolutions take multiples of these channels (input, output, depthwise): "
            f"{multiples} {sources.mark(widths.source)}",
            "  ",
        )
    if engine.fp16 is not None:
        yield from _wrapped(
            f"fp16 artifacts: computed in float16 on cores with {engine.fp16.feature}, in float32 "
            f"on others {sources.mark(engine.fp16.source)}",
            "  ",
        )
    rows = [("OPERATION", "ENCODING", "SPEED", "AGAINST FP32", "")]
    remarks = []
    for row in engine.policy:
        gain = "unknown" if row.ratio is None else f"{row.ratio:g}x"
        rows.append((row.operation, row.encoding, row.speed, gain, sources.mark(row.source)))
        if row.measure:
            remarks.append(f"{gain} {row.operation}: {row.measure}")
        if row.note:
            remarks.append(f"{row.operation}: {row.note}")
    if engine.policy:
        yield from table(rows, indent="  ")
    for remark in remarks:
        yield from _wrapped(remark, "  ")


def slugs(rows: Mapping[str, Slug]) -> Iterator[str]:
    """One line a slug: name, exit code, cause."""
    width = max(len(name) for name in rows)
    yield f"{'SLUG'.ljust(width)}   EXIT   CAUSE"
    for name, row in rows.items():
        first, *rest = textwrap.wrap(row.cause, _WIDTH - width - 10, break_long_words=False)
        yield f"{name.ljust(width)}   {row.exit_code:>4}   {first}"
        yield from (f"{'':{width + 10}}{line}" for line in rest)
    yield ""
    yield f"next: edgeq explain {next(iter(rows))}"


def slug(rows: Mapping[str, Slug]) -> Iterator[str]:
    """Cause, example and fix of one slug."""
    for name, row in rows.items():
        yield f"[{name}]  exit code {row.exit_code}"
        yield ""
        yield from _labelled("cause", row.cause)
        yield from _labelled("example", f"error: {row.example}")
        yield from _labelled("fix", row.fix)


def _labelled(label: str, text: str) -> list[str]:
    lines = textwrap.wrap(text, _WIDTH - 9, break_long_words=False, break_on_hyphens=False)
    return [f"{label if i == 0 else '':<9}{line}" for i, line in enumerate(lines or [""])]


def _wrapped(text: str, indent: str) -> list[str]:
    return textwrap.wrap(
        text,
        _WIDTH,
        initial_indent=indent,
        subsequent_indent=indent + "  ",
        break_long_words=False,
        break_on_hyphens=False,
    )


def _engine(engine: EngineSupport) -> str:
    upper = f", < {engine.maximum}" if engine.maximum else ""
    return f"{engine.name} >= {engine.minimum}{upper}"


def _cpu(item: Target) -> str:
    cores = "" if item.cores.value is None else f"{item.cores.value:g}x "
    clock = "" if item.clock_hz.value is None else f", {_figure(item.clock_hz)}"
    return f"{cores}{item.core}{clock}"


def _int8_path(item: Target) -> str:
    """How int8 suits the kernels of the target's first engine, and the features it is fast with."""
    fast = f", fast with {_features(item.fast_features)}" if item.fast_features else ""
    return _activations(item.engines[0]) + fast


def _activations(engine: EngineSupport) -> str:
    """The writer's choices for the engine's kernels: `uint8, pair-safe weights`."""
    return engine.activation_dtype + (", pair-safe weights" if engine.pair_safe else "")


def _features(names: Sequence[str]) -> str:
    return " ".join(names) or "-"


def _noted(text: str, note: str | None) -> str:
    return f"{text} ({note})" if note else text


def _figure(figure: Figure) -> str:
    """A figure in the unit people read: GHz, GB, GB/s, decimal."""
    if figure.value is None:
        return "unknown"
    scaled = {"Hz": (1e9, "GHz"), "B": (1e9, "GB"), "B/s": (1e9, "GB/s")}
    scale, unit = scaled.get(figure.unit, (1.0, ""))
    return f"{figure.value / scale:.4g} {unit}".rstrip()
