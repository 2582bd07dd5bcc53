"""Windows over spatial axes (convolutions, pools): their padding, said in TFLite's words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import onnx_ir

from edgeq.ir import attribute
from edgeq_converters.write.tfl.emitter import Emitter, Unwritable


@dataclass(frozen=True)
class Window:
    """One spatial axis: `size` elements in, `out` out; `before` and `after` are padded."""

    size: int
    out: int
    kernel: int
    stride: int
    dilation: int
    before: int
    after: int

    @property
    def span(self) -> int:
        """How many elements the kernel reaches over."""
        return (self.kernel - 1) * self.dilation + 1

    @property
    def is_same(self) -> bool:
        """Whether TFLite's SAME pads this axis as it is padded here."""
        total = max((self.out - 1) * self.stride + self.span - self.size, 0)
        fits = self.out == -(-self.size // self.stride)
        return fits and (self.before, self.after) == (total // 2, total - total // 2)


NO_WINDOW = Window(1, 1, 1, 1, 1, 0, 0)
"""The axis that a net of one spatial axis lacks."""


def windows(node: onnx_ir.Node, sizes: Sequence[int], kernel: Sequence[int]) -> list[Window]:
    """The windows of a Conv or pool over spatial `sizes`.

    What is padded after an axis is what its last window reaches: less where the stride leaves
    elements over, more where `ceil_mode` lets a window hang out.
    """
    count = len(sizes)
    strides = _per_axis(node, "strides", count)
    dilations = _per_axis(node, "dilations", count)
    pads = [int(pad) for pad in attribute(node, "pads", None) or [0] * (2 * count)]
    mode = attribute(node, "auto_pad", "NOTSET")
    if min(pads, default=0) < 0:
        raise Unwritable("its padding is negative")
    found = []
    for at, size in enumerate(sizes):
        span = (kernel[at] - 1) * dilations[at] + 1
        before, after = pads[at], pads[at + count]
        if mode == "VALID":
            before, after = 0, 0
        elif mode.startswith("SAME"):
            total = max((-(-size // strides[at]) - 1) * strides[at] + span - size, 0)
            less = total // 2
            before, after = (less, total - less) if mode == "SAME_UPPER" else (total - less, less)
        room = size + before + after - span
        out = room // strides[at] + 1
        if attribute(node, "ceil_mode", 0):
            out = -(-room // strides[at]) + 1
            if (out - 1) * strides[at] >= size + before:
                out -= 1  # a window must begin inside
        if out < 1:
            raise Unwritable("its windows are larger than what they slide over")
        after = max((out - 1) * strides[at] + span - size - before, 0)
        found.append(Window(size, out, kernel[at], strides[at], dilations[at], before, after))
    return found


def padding(axes: Sequence[Window]) -> str:
    """VALID or SAME where TFLite pads so, else nothing."""
    if not any(axis.before or axis.after for axis in axes):
        return "VALID"
    return "SAME" if all(axis.is_same for axis in axes) else ""


def pad_zeros(e: Emitter, at: int, axes: Sequence[Window]) -> int:
    """The tensor `at`, N x spatial x C, with the padding of `axes` around it."""
    pads = [(0, 0), *((axis.before, axis.after) for axis in axes), (0, 0)]
    shape = [size + sum(ends) for size, ends in zip(e.file.shape(at), pads, strict=True)]
    made = e.temp(shape, like=at)
    e.op("PAD", [at, e.numbers(pads)], [made])
    return made


def _per_axis(node: onnx_ir.Node, name: str, count: int) -> list[int]:
    return [int(number) for number in attribute(node, name, None) or [1] * count]
