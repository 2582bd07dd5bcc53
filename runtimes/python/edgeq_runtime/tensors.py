"""What an input or output of a model is: name, dtype, shape, and what its integers stand for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Union

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

Dimension = Union[int, str, None]


@dataclass(frozen=True)
class TensorInfo:
    """One input or output.

    `dtype` is numpy's name ("float32", "int64", "bool"; "object" for strings). A dimension is a
    size, the name of an unknown size ("batch"), or None where it is unknown and has no name. With a
    `scale` its integers are codes: value = (code - zero_point) * scale.
    """

    name: str
    dtype: str
    shape: tuple[Dimension, ...]
    scale: float | None = None
    zero_point: int = 0

    @property
    def is_static(self) -> bool:
        """True when every dimension is a number."""
        return all(isinstance(size, int) for size in self.shape)

    def describe(self) -> str:
        """Dtype and shape as messages print them: "float32 [batch, 3, 224, 224]"."""
        return describe(self.dtype, self.shape)

    def accepts(self, dtype: str, shape: tuple[int, ...]) -> bool:
        """True when an array of this dtype and shape can be fed; unknown sizes take any size."""
        if dtype != self.dtype or len(shape) != len(self.shape):
            return False
        return all(not isinstance(want, int) or want == got for want, got in zip(self.shape, shape))

    def codes(self, values: Array) -> Array:
        """Floats as the codes to feed: to nearest, ties to even, clipped; as they are where this is
        no tensor of codes."""
        import numpy as np

        if self.scale is None or values.dtype.kind in "iu":
            return values
        ends = np.iinfo(self.dtype)
        steps = np.rint(values.astype(np.float64) / self.scale) + self.zero_point
        return np.asarray(np.clip(steps, ends.min, ends.max).astype(self.dtype))

    def values(self, codes: Array) -> Array:
        """The floats that codes stand for; `codes` as they are where this is no tensor of codes."""
        import numpy as np

        if self.scale is None:
            return codes
        shifted = codes.astype(np.int32) - self.zero_point
        return np.asarray(shifted.astype(np.float32) * np.float32(self.scale))


def describe(dtype: str, shape: tuple[Dimension, ...]) -> str:
    """Dtype and shape as messages print them; an unknown size without a name is `?`."""
    sizes = ", ".join("?" if size is None else str(size) for size in shape)
    return f"{'string' if dtype == 'object' else dtype} [{sizes}]"
