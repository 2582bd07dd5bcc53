"""A flatbuffer builder for the object API that says equal things once.

Zero points of a scale per channel are eight zero bytes a channel, and so are they in every layer;
shapes and the lists of an operator's tensors repeat too. A flatbuffer may refer to one vector from
many places (https://flatbuffers.dev/internals/), which makes files of small nets up to a seventh
smaller.
"""

from __future__ import annotations

from typing import Any

import flatbuffers
import numpy as np

ALIGNMENT = 16
"""The contents of buffers begin at a multiple of it (schema.fbs: force_align), which Python's
generated code leaves out; kernels for vectors may load them so."""

LARGEST_SHARED_BYTES = 1 << 16
"""Longer vectors are the contents of buffers, which differ from each other."""


class Packer(flatbuffers.Builder):  # type: ignore[misc]  # the package has no types
    """`flatbuffers.Builder` with shared vectors and strings, and aligned buffers."""

    def __init__(self, size_bytes: int) -> None:
        super().__init__(size_bytes)
        self._vectors: dict[tuple[str, bytes], int] = {}

    def CreateNumpyVector(self, x: np.ndarray[Any, Any]) -> int:  # noqa: N802
        """Write a vector, or refer to an equal one that is there."""
        if x.nbytes > LARGEST_SHARED_BYTES:
            return self._vector(x)
        key = x.dtype.str, x.tobytes()
        if key not in self._vectors:
            self._vectors[key] = self._vector(x)
        return self._vectors[key]

    def _vector(self, x: np.ndarray[Any, Any]) -> int:
        alignment = ALIGNMENT if x.dtype == np.uint8 else x.dtype.alignment
        self.StartVector(x.itemsize, x.size, alignment)
        self.head -= x.nbytes
        little = x.astype(x.dtype.newbyteorder("<"), copy=False)
        payload: Any = np.ascontiguousarray(little)
        self.Bytes[self.head : self.head + x.nbytes] = memoryview(payload).cast("B")
        self.vectorNumElems = x.size
        return int(self.EndVector())

    def CreateString(self, s: Any, encoding: str = "utf-8", errors: str = "strict") -> int:  # noqa: N802
        """Write a string, or refer to an equal one that is there."""
        key = "string", s.encode(encoding, errors) if isinstance(s, str) else bytes(s)
        if key not in self._vectors:
            self._vectors[key] = int(super().CreateString(s, encoding, errors))
        return self._vectors[key]
