"""Operators on tensors of a TFLite file, whatever graph they are of: reshaped, moved, requantized.

Which tensors a value of the graph has is the emitter's business.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from edgeq_converters.write.tfl.file import File


class Builder:
    """Adds operators to a file; `label` begins the names of the tensors between them."""

    def __init__(self, file: File) -> None:
        self.file = file
        self.label = "constant"
        self._numbers: dict[tuple[str, tuple[int, ...], bytes], int] = {}

    def temp(self, shape: Sequence[int], *, like: int | None = None, dtype: str = "float32") -> int:
        """A tensor between two operators of one node: of the type and codes of `like`, or plain."""
        name = f"{self.label}_part"
        if like is None:
            return self.file.tensor(name, shape, dtype)
        return self.file.tensor(name, shape, self.file.dtype(like), **self.file.parameters(like))

    def numbers(self, values: Any, dtype: str = "int32", name: str = "") -> int:
        """A plain constant, int32 unless said otherwise; equal ones are one tensor."""
        array = np.asarray(values, dtype)
        key = dtype, array.shape, array.tobytes()
        if key not in self._numbers:
            label = name or f"{self.label}_numbers"
            self._numbers[key] = self.file.constant(label, array)
        return self._numbers[key]

    def op(self, code: str, inputs: Sequence[int], outputs: Sequence[int], **options: Any) -> None:
        """Add an operator; see `File.op`."""
        self.file.op(code, inputs, outputs, **options)

    def reshaped(self, at: int, shape: Sequence[int]) -> int:
        """`at` in another shape of as many elements; itself where it has that shape."""
        if self.file.shape(at) == tuple(shape):
            return at
        made = self.temp(shape, like=at)
        self.reshape(at, made)
        return made

    def reshape(self, source: int, made: int) -> None:
        """The elements of `source` in the shape of `made`."""
        shape = list(self.file.shape(made))
        self.op("RESHAPE", [source, self.numbers(shape)], [made], new_shape=shape)

    def transposed(self, at: int, order: Sequence[int]) -> int:
        """`at` with its axes in `order`: a RESHAPE where only axes of size 1 move."""
        shape = self.file.shape(at)
        if list(order) == sorted(order):
            return at
        made = self.temp([shape[axis] for axis in order], like=at)
        kept = [axis for axis in order if shape[axis] != 1]
        if kept == sorted(kept):
            self.reshape(at, made)
        else:
            self.op("TRANSPOSE", [at, self.numbers(list(order))], [made])
        return made

    def stage(self, at: int, made: int) -> int:
        """Where an operator that keeps type and codes of `at` writes what is to be `made`: there,
        or in a tensor that `settle` brings there."""
        if self.file.dtype(at) == self.file.dtype(made) and self._one_code(at, made):
            return made
        return self.temp(self.file.shape(made), like=at)

    def settle(self, at: int, made: int) -> None:
        """Let the tensor `made` hold what `at` does: cast, requantized, or in its own shape."""
        had, wanted = self.file.dtype(at), self.file.dtype(made)
        if at == made:
            return
        if had != wanted:
            self.op("CAST", [at], [made], in_data_type=had, out_data_type=wanted)
        elif self._one_code(at, made):
            self.reshape(at, made)
        else:
            self.op("QUANTIZE", [at], [made])

    def requantized(self, at: int, made: int) -> int:
        """The codes of `at` at the scale and zero point of `made`."""
        if self._one_code(at, made):
            return at
        part = self.temp(self.file.shape(at), like=made)
        self.op("QUANTIZE", [at], [part])
        return part

    def _one_code(self, one: int, other: int) -> bool:
        """Whether two tensors have the same scale and zero point, or none."""
        had, wanted = self.file.parameters(one), self.file.parameters(other)
        return had.keys() == wanted.keys() and all(
            np.array_equal(had[key], wanted[key]) for key in had if key != "axis"
        )
