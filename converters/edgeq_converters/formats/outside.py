"""Weights that stay in the file they came in, read when they are asked for and not kept.

Models beyond `KEEP_OUTSIDE_BYTES` hold their large weights so: reading, passes, and an artifact's
float weights then cost the memory of one tensor at a time.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx_ir

from edgeq.errors import EdgeqError

KEEP_OUTSIDE_BYTES = 2**30
"""External data of a model up to this size is read at once: simpler, and faster later."""

CHUNK_BYTES = 1 << 24


class OpenFile:
    """A file that was checked and opened once, closed when nothing reads from it any more.

    Reading by descriptor, not by mapping: a file that somebody cuts short while it is read is an
    error here, where a mapping would end the process by SIGBUS.
    """

    def __init__(self, descriptor: int, name: str) -> None:
        self.name = name
        self._descriptor = descriptor
        weakref.finalize(self, os.close, descriptor)

    def pieces(self, offset: int, length: int) -> Iterator[bytes]:
        """The bytes [offset, offset + length), at most `CHUNK_BYTES` at a time.

        Raises EdgeqError [external-data] where the file ends before.
        """
        end = offset + length
        while offset < end:
            piece = self._read(min(end - offset, CHUNK_BYTES), offset)
            if not piece:
                raise EdgeqError("external-data", f"{self.name} became shorter while it was read")
            offset += len(piece)
            yield piece

    def _read(self, length: int, offset: int) -> bytes:
        if hasattr(os, "pread"):
            return os.pread(self._descriptor, length, offset)
        os.lseek(self._descriptor, offset, os.SEEK_SET)
        return os.read(self._descriptor, length)


class Outside(onnx_ir.LazyTensor):
    """A tensor of at least 8 bits an element in `folder`/`location`, bytes [offset, + length)."""

    def __init__(
        self,
        file: OpenFile,
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
