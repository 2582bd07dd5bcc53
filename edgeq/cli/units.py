"""How figures are written for people: decimal bytes, factors, points of a rate, shell words."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Sequence

_SCALES = ((1e9, "GB"), (1e6, "MB"), (1e3, "kB"))


def size(size_bytes: int) -> str:
    """Decimal bytes with one digit after the point: `3.6 MB`, `812 B`."""
    for scale, unit in _SCALES:
        if size_bytes >= 0.99995 * scale:
            return f"{size_bytes / scale:.1f} {unit}"
    return f"{size_bytes} B"


def factor(before: int, after: int) -> str:
    """What became of `before` bytes: `3.9x smaller`, `1.2x larger`, `same size`."""
    if before <= 0 or after <= 0:
        return "-"
    ratio = before / after
    if before == after:
        return "same size"
    word, times = ("smaller", ratio) if ratio > 1 else ("larger", 1 / ratio)
    return f"{times:.2f}x {word}" if times < 1.095 else f"{times:.1f}x {word}"


def number(value: float) -> str:
    """Four significant digits, no needless zeros: `0.1234`, `12.5`, `3`."""
    return f"{value:.4g}"


def counted(count: int, noun: str, plural: str | None = None) -> str:
    """`1 sample`, `2 samples`."""
    return f"{count} {noun if count == 1 else plural or noun + 's'}"


def shell_word(path: str) -> str:
    """A path as one word that a shell reads back and that no command takes for an option."""
    return shell_line([f"./{path}" if path.startswith("-") else path])


def shell_line(words: Iterable[str]) -> str:
    """Words as a shell reads them back, quoted where needed."""
    return " ".join(_quoted(word) for word in words)


def _quoted(text: str) -> str:
    """One word; bytes that are not UTF-8 (surrogates in `text`) are escaped inside `$'...'`."""
    if re.search(r"[\x00-\x1f\x7f\ud800-\udfff]", text) is None:
        return shlex.quote(text)
    raw = text.encode("utf-8", "surrogateescape")
    safe = "".join(
        chr(b) if 0x20 <= b < 0x7F and chr(b) not in "'\\" else f"\\x{b:02x}" for b in raw
    )
    return f"$'{safe}'"


def table(rows: Sequence[Sequence[str]], *, indent: str = "", gap: int = 3) -> list[str]:
    """`rows` of cells in aligned columns (the last column is never padded)."""
    columns = max((len(row) for row in rows), default=0)
    widths = [max((len(row[i]) for row in rows if i < len(row)), default=0) for i in range(columns)]
    lines = []
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=False)]
        lines.append((indent + (" " * gap).join(cells)).rstrip())
    return lines
