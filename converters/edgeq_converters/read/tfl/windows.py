"""Padding of convolutions and pools: the file's words as explicit sizes."""

from __future__ import annotations

from collections.abc import Sequence

Pads = tuple[tuple[int, int], ...]
"""(before, after) for each spatial axis."""


def pads(
    word: str,
    sizes: Sequence[int],
    kernel: Sequence[int],
    strides: Sequence[int],
    dilations: Sequence[int],
) -> Pads:
    """SAME: as many as a result of ceil(size / stride) needs, the odd one after; VALID: none."""
    if word != "SAME":
        return ((0, 0),) * len(sizes)
    found = []
    for size, width, step, spread in zip(sizes, kernel, strides, dilations, strict=True):
        results = -(-size // step)
        total = max((results - 1) * step + (width - 1) * spread + 1 - size, 0)
        found.append((total // 2, total - total // 2))
    return tuple(found)


def in_order(found: Pads) -> list[int]:
    """As ONNX has them: all before, then all after."""
    return [before for before, _ in found] + [after for _, after in found]
