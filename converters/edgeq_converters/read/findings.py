"""Everything wrong with a model, collected first and told in one error."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from edgeq.errors import EdgeqError

_LISTED = 8
_WHERE = re.compile(r"\(op_type:(\w+)(?:, node name: ([^)]*))?\)")
_NAME_LENGTH = 60

# The error carries the slug of the first kind found, in this order: what is broken outright
# comes before what is merely not supported.
_HINTS: dict[str, tuple[str, ...]] = {
    "damaged-model": ("fetch or export the file again and compare its size",),
    "invalid-model": (),
    "unsupported-type": ("export the model with tensors of numbers as inputs and outputs",),
    "unsupported-opset": ("export the model again with opset 17 to 21",),
    "unsupported-op": ("export the model with operators of the ONNX standard only",),
    "non-finite-weights": ("repair the weights where the model is trained, then export again",),
}


@dataclass
class Findings:
    """Problems of one file: `add` them, then `raise_any` once. `hints` replaces those of ONNX."""

    file: str
    problems: list[tuple[str, str]] = field(default_factory=list)
    hints: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def add(self, slug: str, text: str) -> None:
        """One problem; the same one twice is kept once."""
        if (slug, text) not in self.problems[-_LISTED:]:
            self.problems.append((slug, text))

    def raise_any(self) -> None:
        """Raise `EdgeqError` with every problem so far, the worst kind first; none: return."""
        if not self.problems:
            return
        order = list(_HINTS)
        ranked = sorted(self.problems, key=lambda problem: order.index(problem[0]))
        slug = ranked[0][0]
        texts = [text for _, text in ranked[:_LISTED]]
        if len(ranked) > _LISTED:
            texts.append(f"and {len(ranked) - _LISTED} more")
        raise EdgeqError(
            slug, f"{self.file}: " + "; ".join(texts), *self.hints.get(slug, _HINTS[slug])
        )


def quote(name: str) -> str:
    """A name out of a file, fit for one line of a message: in backticks, printable, cut at 60."""
    clean = "".join(letter if letter.isprintable() else "?" for letter in name)
    return f"`{clean[:_NAME_LENGTH]}...`" if len(clean) > _NAME_LENGTH else f"`{clean}`"


def listed(names: Iterable[str], limit: int = 5) -> str:
    """Names in backticks with commas; beyond `limit` only their number."""
    all_names = list(names)
    text = ", ".join(quote(name) for name in all_names[:limit])
    return f"{text} and {len(all_names) - limit} more" if len(all_names) > limit else text


def counted(number: int, one: str, many: str) -> str:
    """A number and what it counts."""
    return f"{number} {one if number == 1 else many}"


def one_line(said: str, limit: int = 200) -> str:
    """What a library said, on one line, without the paths of its own sources."""
    text = " ".join(said.split())
    where = _WHERE.search(text)
    for marker in ("failed: ", "[ShapeInferenceError] ", "[TypeInferenceError] "):
        text = text.rpartition(marker)[2] if marker in text else text
    if where is not None and where[0] not in text:
        named = f" (node {quote(where[2])})" if where[2] else ""
        text = f"`{where[1]}`{named}: {text}"
    clean = "".join(letter if letter.isprintable() else "?" for letter in text)
    return clean.strip().rstrip(".")[:limit] or "no reason given"
