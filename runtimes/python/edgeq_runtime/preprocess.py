"""From pixels to a model's input: resize, centre crop, x = (pixel * scale - mean) / std, layout.

The resize kernel is Pillow's bilinear filter for 8-bit images (Resample.c: triangle filter with
support scaled when shrinking, 22-bit fixed-point weights, rows first, rounded to 8 bits between
the passes), so a model evaluated with Pillow or torchvision sees the same pixels: bit-equal to
Pillow 8.4 to 12.0; 13.0 runs the passes in either order and differs by at most 1. FORMAT.md 7.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn, Union

from edgeq_runtime.errors import EdgeqError

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

Size = Union[int, tuple[int, int], None]
CHANNELS = ("rgb", "bgr")
LAYOUTS = ("nchw", "nhwc")
MAX_SIDE = 2**16
PRECISION_BITS = 22  # Resample.c: 32 - 8 - 2


@dataclass(frozen=True)
class InputSpec:
    """How a uint8 image [H, W, C] in RGB order becomes one input, without its batch axis.

    resize: the shorter side, or (height, width); crop: a centred square or (height, width).
    mean, std: one number, or one per channel, in the order that `channels` gives. None: no step.
    """

    resize: Size = None
    crop: Size = None
    scale: float = 1 / 255
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    channels: str = "rgb"
    layout: str = "nchw"

    @classmethod
    def from_table(cls, name: str, table: Mapping[str, Any]) -> InputSpec:
        """Read `[input.NAME]`; anything unknown or out of range is [bad-input-spec]."""
        for key in table:
            if key not in _FIELDS:
                near = difflib.get_close_matches(str(key), _FIELDS, n=1)
                hints = (
                    (f"did you mean `{near[0]}`?",) if near else (f"keys: {', '.join(_FIELDS)}",)
                )
                raise EdgeqError("bad-input-spec", f"input `{name}`: unknown key `{key}`", *hints)
        spec = cls(**{key: _FIELDS[key](name, key, value) for key, value in table.items()})
        if {len(spec.mean), len(spec.std)} not in ({1}, {3}, {1, 3}):
            _wrong(name, "mean", list(spec.mean), "as many numbers as `std`, 1 or 3")
        return spec

    def to_json(self) -> dict[str, Any]:
        """The table again; `from_table` gives an equal spec."""
        return {
            "resize": _size_json(self.resize),
            "crop": _size_json(self.crop),
            "scale": self.scale,
            "mean": list(self.mean),
            "std": list(self.std),
            "channels": self.channels,
            "layout": self.layout,
        }

    def apply(self, image: Array) -> Array:
        """uint8 [H, W, C], C of 1 or 3 -> float32 [C, h, w] ("nchw") or [h, w, C] ("nhwc")."""
        import numpy as np

        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] not in (1, 3):
            got = f"{image.dtype.name} {list(image.shape)}"
            raise EdgeqError("bad-input", f"image: got {got}, wanted uint8 [height, width, 1 or 3]")
        if 0 in image.shape:
            raise EdgeqError("bad-input", f"image: empty, {list(image.shape)}")
        pixels = self._crop(self._resize(image))
        if self.channels == "bgr":
            pixels = pixels[:, :, ::-1]
        out = self._normalize(pixels)
        return np.ascontiguousarray(out.transpose(2, 0, 1) if self.layout == "nchw" else out)

    def _resize(self, image: Array) -> Array:
        height, width = image.shape[:2]
        if self.resize is None:
            return image
        if isinstance(self.resize, int):  # the shorter side; the longer one is rounded down
            short = min(height, width)
            wanted = (self.resize * height // short, self.resize * width // short)
        else:
            wanted = self.resize
        if max(wanted) > MAX_SIDE:
            raise EdgeqError("bad-input", f"image: {height} x {width} is too long to resize")
        return resize(image, wanted[0], wanted[1])

    def _crop(self, image: Array) -> Array:
        if self.crop is None:
            return image
        height, width = (self.crop, self.crop) if isinstance(self.crop, int) else self.crop
        if height > image.shape[0] or width > image.shape[1]:
            have = f"{image.shape[0]} x {image.shape[1]}"
            raise EdgeqError(
                "bad-input", f"image: {have} after resizing, smaller than crop {height} x {width}"
            )
        top, left = _half(image.shape[0] - height), _half(image.shape[1] - width)
        return image[top : top + height, left : left + width]

    def _normalize(self, pixels: Array) -> Array:
        """One table of 256 float32 per channel, computed in float64 and rounded once."""
        import numpy as np

        count = pixels.shape[2]
        if max(len(self.mean), len(self.std)) > count:
            raise EdgeqError(
                "bad-input", f"image: {count} channel, mean and std are for {len(self.mean)}"
            )
        mean = np.broadcast_to(np.array(self.mean, np.float64), (count,))
        std = np.broadcast_to(np.array(self.std, np.float64), (count,))
        levels = np.arange(256, dtype=np.float64)[:, None]
        table = ((levels * self.scale - mean) / std).astype(np.float32)
        return np.stack([table[:, c][pixels[:, :, c]] for c in range(count)], axis=2)


def resize(image: Array, height: int, width: int) -> Array:
    """uint8 [H, W, C] -> uint8 [height, width, C], columns of each row first, then rows."""
    across = _pass(image.transpose(1, 0, 2), width).transpose(1, 0, 2)
    return _pass(across, height)


def _pass(image: Array, size: int) -> Array:
    """Resample axis 0 of uint8 [N, M, C] to `size`; each value is rounded to 8 bits."""
    import numpy as np

    if image.shape[0] == size:
        return image
    out = np.empty((size, *image.shape[1:]), np.uint8)
    for row, (first, weights) in enumerate(kernel(image.shape[0], size)):
        part = image[first : first + len(weights)].astype(np.int64)
        total = np.tensordot(np.array(weights, np.int64), part, axes=1)
        out[row] = np.clip((total + (1 << (PRECISION_BITS - 1))) >> PRECISION_BITS, 0, 255)
    return out


def kernel(old: int, new: int) -> tuple[tuple[int, tuple[int, ...]], ...]:
    """For each of `new` outputs its first input of `old` and the integer weights from there on."""
    ratio = old / new
    support = max(ratio, 1.0)
    rows = []
    for index in range(new):
        centre = (index + 0.5) * ratio
        first = max(int(centre - support + 0.5), 0)
        last = min(int(centre + support + 0.5), old)
        weights = [
            max(0.0, 1.0 - abs((x - centre + 0.5) * (1.0 / support))) for x in range(first, last)
        ]
        total = sum(weights)
        rows.append((first, tuple(_fixed(weight / total) for weight in weights)))
    return tuple(rows)


def _fixed(weight: float) -> int:
    return int(0.5 + weight * (1 << PRECISION_BITS))


def _half(gap: int) -> int:
    """gap / 2, half to even, as torchvision's center_crop rounds."""
    return round(gap / 2)


def _size_json(size: Size) -> Any:
    return list(size) if isinstance(size, tuple) else size


# -- reading a table ------------------------------------------------------------------------------


def _wrong(name: str, key: str, value: Any, wanted: str) -> NoReturn:
    raise EdgeqError("bad-input-spec", f"input `{name}`: `{key}` is {value!r:.60}, wanted {wanted}")


def _size(name: str, key: str, value: Any) -> Size:
    if value is None or _is_side(value):
        side: int | None = value
        return side
    if isinstance(value, (list, tuple)) and len(value) == 2 and all(map(_is_side, value)):
        return (value[0], value[1])
    return _wrong(name, key, value, f"pixels in 1..{MAX_SIDE}, or [height, width]")


def _is_side(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= MAX_SIDE


def _is_number(value: Any) -> bool:
    plain = isinstance(value, (int, float)) and not isinstance(value, bool)
    return plain and abs(value) < 1e30 and math.isfinite(value)


def _scale(name: str, key: str, value: Any) -> float:
    if not _is_number(value) or value <= 0:
        _wrong(name, key, value, "a number above 0")
    return float(value)


def _numbers(name: str, key: str, value: Any) -> tuple[float, ...]:
    row = list(value) if isinstance(value, (list, tuple)) else [value]
    if len(row) not in (1, 3) or not all(map(_is_number, row)):
        _wrong(name, key, value, "1 or 3 numbers")
    return tuple(float(item) for item in row)


def _positive(name: str, key: str, value: Any) -> tuple[float, ...]:
    row = _numbers(name, key, value)
    if min(row) < 1e-30:
        _wrong(name, key, value, "numbers above 0")
    return row


def _channels(name: str, key: str, value: Any) -> str:
    return _word(name, key, value, CHANNELS)


def _layout(name: str, key: str, value: Any) -> str:
    return _word(name, key, value, LAYOUTS)


def _word(name: str, key: str, value: Any, words: tuple[str, ...]) -> str:
    if not isinstance(value, str) or value not in words:
        _wrong(name, key, value, " or ".join(f'"{word}"' for word in words))
    return value


_FIELDS: dict[str, Any] = {
    "resize": _size,
    "crop": _size,
    "scale": _scale,
    "mean": _numbers,
    "std": _positive,
    "channels": _channels,
    "layout": _layout,
}
