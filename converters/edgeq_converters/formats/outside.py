"""Weights that stay in the file they came in, read when they are asked for and not kept.

Models beyond `KEEP_OUTSIDE_BYTES` hold their large weights so: reading, passes, and an artifact's
float weights then cost the memory of one tensor at a time.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import onnx_ir

from edgeq.errors import EdgeqError

KEEP_OUTSIDE_BYTES = 2**30
"""External data of a model up to this size is read at once: simpler, and faster later."""

CHUNK_BYTES = 1 << 24


class CheckedFile:
    """A file that was checked once, and is the same one whenever it is read.

    It is opened for each range and closed again, so that a model of thousands of files needs one
    descriptor. Reading, not mapping: a file that somebody cuts short while it is read is an error
    here, where a mapping would end the process by SIGBUS.
    """

    def __init__(self, opened: Callable[[], int], name: str) -> None:
        """`opened` gives a new descriptor of the file, after its own checks."""
        self.name = name
        self._opened = opened
        descriptor = opened()
        try:
            self._known = os.fstat(descriptor)
        finally:
            os.close(descriptor)

    @property
    def size_bytes(self) -> int:
        return self._known.st_size

    def pieces(self, offset: int, length: int) -> Iterator[bytes]:
        """The bytes [offset, offset + length), at most `CHUNK_BYTES` at a time.

        Raises EdgeqError [external-data] where the file ends before or is no longer the same.
        """
        end = offset + length
        with os.fdopen(self._opened(), "rb", buffering=0) as file:
            self._compare(os.fstat(file.fileno()))
            file.seek(offset)
            while offset < end:
                piece = file.read(min(end - offset, CHUNK_BYTES))
                if not piece:
                    raise self._refused("became shorter while it was read")
                offset += len(piece)
                yield piece

    def _compare(self, found: os.stat_result) -> None:
        known = self._known
        if found.st_size < known.st_size:
            raise self._refused("became shorter while it was read")
        marks = ("st_dev", "st_ino", "st_size", "st_mtime_ns")
        if any(getattr(found, mark) != getattr(known, mark) for mark in marks):
            raise self._refused("was changed while it was read")

    def _refused(self, what: str) -> EdgeqError:
        return EdgeqError("external-data", f"{self.name} {what}")


class Outside(onnx_ir.LazyTensor):
    """A tensor of at least 8 bits an element in `folder`/`location`, bytes [offset, + length)."""

    def __init__(
        self,
        file: CheckedFile,
        *,
        folder: str,
        location: str,
        offset: int,
        name: str,
        dtype: onnx_ir.DataType,
        dims: tuple[int, ...],
    ) -> None:
        super().__init__(self._load, dtype, onnx_ir.Shape(dims), name=name)
        self.folder = folder
        self.location = location
        self.offset = offset
        self.length = self.nbytes
        self._file = file

    def pieces(self) -> Iterator[bytes]:
        """The tensor's bytes in order, little-endian, a piece at a time."""
        return self._file.pieces(self.offset, self.length)

    def _load(self) -> onnx_ir.Tensor[Any]:
        buffer = bytearray(self.length)
        at = 0
        for piece in self.pieces():
            buffer[at : at + len(piece)] = piece
            at += len(piece)
        flat = np.frombuffer(buffer, self.dtype.numpy())
        array = flat.reshape(self.shape.numpy())
        array.flags.writeable = False
        return onnx_ir.Tensor(array, dtype=self.dtype, name=self.name)
