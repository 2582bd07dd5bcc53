"""Operators in a row: in a type that their kernels have, with casts around where it is another.

Which types a kernel has was measured with LiteRT 2.3.0: some end the process on others.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
import onnx_ir

from edgeq_converters.write.tfl.emitter import AS_IS, Emitter, Unwritable

FLOAT = ("float32",)
WHOLE = ("int32", "int64")

_WIDER = {
    "bool": ("int32", "float32"),
    "int8": ("int32", "int64", "float32"),
    "uint8": ("int32", "int64", "float32"),
    "int16": ("int32", "int64", "float32"),
    "uint16": ("int32", "int64", "float32"),
    "int32": ("int64",),
    "int64": ("int32",),
    "uint32": ("int64",),
    "float16": ("float32",),
    "float64": ("float32",),
}
"""Types that hold the values of a type. Two do not quite: int64 in a kernel that has no such type
is int32, as everywhere in TensorFlow Lite (indices and sizes fit), and float64 is float32."""


def kind(dtype: str, kernel: Collection[str]) -> str:
    """The type in which a kernel that has the types `kernel` computes on `dtype`."""
    for wider in (dtype, *_WIDER.get(dtype, ())):
        if wider in kernel:
            return wider
    raise Unwritable(f"TFLite has no kernel of it for {dtype}")


def cast(e: Emitter, at: int, dtype: str) -> int:
    """`at` as another type."""
    had = e.file.dtype(at)
    if had == dtype:
        return at
    if "uint64" in (had, dtype):
        raise Unwritable("TFLite has no cast from or to uint64")
    made = e.temp(e.file.shape(at), dtype=dtype)
    e.op("CAST", [at], [made], in_data_type=had, out_data_type=dtype)
    return made


def apply(
    e: Emitter,
    code: str,
    inputs: Sequence[int],
    value: onnx_ir.Value,
    layout: str = AS_IS,
    *,
    kernel: Collection[str] = FLOAT,
    **options: Any,
) -> None:
    """`value` by one operator whose operands are of one type (or codes), its result too."""
    if e.file.parameters(inputs[0]):
        e.op(code, inputs, [e.make(value, layout)], **options)
        return
    steps = Steps(e, kind(e.file.dtype(inputs[0]), kernel))
    steps.into(value, layout, code, *inputs, **options)


class Steps:
    """Operators that broadcast, all in the type `dtype`: floats or whole numbers, no codes."""

    def __init__(self, e: Emitter, dtype: str = "float32") -> None:
        self.e = e
        self.dtype = dtype

    def __call__(self, code: str, *inputs: int, dtype: str = "", **options: Any) -> int:
        """The result of an operator; `dtype` where it is of another type (comparisons)."""
        operands, shape = self._operands(inputs)
        made = self.e.temp(shape, dtype=dtype or self.dtype)
        self.e.op(code, operands, [made], **options)
        return made

    def into(
        self,
        value: onnx_ir.Value,
        layout: str,
        code: str,
        *inputs: int,
        dtype: str = "",
        **options: Any,
    ) -> None:
        """As calling it, the result being `value` (cast to its type)."""
        made = self.e.make(value, layout, codes=False)
        if self.e.file.dtype(made) == (dtype or self.dtype):
            self.e.op(code, self._operands(inputs)[0], [made], **options)
        else:
            self.e.settle(self(code, *inputs, dtype=dtype, **options), made)

    def number(self, value: float) -> int:
        """A constant."""
        return self.e.numbers(np.array(value), self.dtype)

    def _operands(self, inputs: Sequence[int]) -> tuple[list[int], tuple[int, ...]]:
        file = self.e.file
        shape = np.broadcast_shapes(*(file.shape(at) for at in inputs))
        kept = [at if file.dtype(at) == "bool" else cast(self.e, at, self.dtype) for at in inputs]
        return kept, shape
