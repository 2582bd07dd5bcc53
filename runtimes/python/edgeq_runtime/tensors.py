"""What an input or output of a model is: name, dtype, shape."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Union

Dimension = Union[int, str, None]


@dataclass(frozen=True)
class TensorInfo:
    """One input or output.

    `dtype` is numpy's name ("float32", "int64", "bool"; "object" for strings). A dimension is a
    size, the name of an unknown size ("batch"), or None where it is unknown and has no name.
    """

    name: str
    dtype: str
    shape: tuple[Dimension, ...]

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


def describe(dtype: str, shape: tuple[Dimension, ...]) -> str:
    """Dtype and shape as messages print them; an unknown size without a name is `?`."""
    sizes = ", ".join("?" if size is None else str(size) for size in shape)
    return f"{'string' if dtype == 'object' else dtype} [{sizes}]"
