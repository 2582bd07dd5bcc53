"""Reading .npy and .npz as if they came from a stranger: headers first, then rows, never pickles.

A file is refused before anything of its size is allocated: object arrays, structured types,
headers that promise more or less than the file holds, duplicate members, compression bombs and
directories too large to list. Rows are streamed, so memory does not grow with the file.
"""

from __future__ import annotations

import re
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import IO, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from edgeq.errors import EdgeqError

MAX_MEMBERS = 1024
MAX_DIRECTORY_BYTES = 1 << 20
MAX_HEADER_BYTES = 1 << 14
MAX_RANK = 32
MAX_SAMPLE_BYTES = 1 << 30
MAX_TOTAL_BYTES = 1 << 36
# Deflate reaches 1032:1. Above this size, what shrank so much is called a bomb, not data.
BOMB_RATIO = 250
BOMB_BYTES = 1 << 30

_ITEM = re.compile(r"'(descr|fortran_order|shape)'\s*:\s*('[^']{1,40}'|True|False|\([0-9,\s]*\))")
_DAMAGE = (
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    OSError,
    RuntimeError,
    ValueError,
    struct.error,
)


class Rows(Protocol):
    """An array that can be read a few rows at a time, front to back."""

    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def dtype(self) -> np.dtype[Any]: ...
    def blocks(self, starts: Sequence[int], length: int) -> Iterator[NDArray[Any]]: ...


@dataclass(frozen=True)
class MemoryRows:
    """An array that is already in memory."""

    array: NDArray[Any]

    @property
    def shape(self) -> tuple[int, ...]:
        return self.array.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.array.dtype

    def blocks(self, starts: Sequence[int], length: int) -> Iterator[NDArray[Any]]:
        """`array[start : start + length]` for each of the ascending starts."""
        return (self.array[start : start + length] for start in starts)


@dataclass(frozen=True)
class Header:
    """What the header of a .npy says; `size_bytes` is that of the data behind it."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    fortran_order: bool

    @property
    def size_bytes(self) -> int:
        return prod(self.shape) * self.dtype.itemsize


@dataclass(frozen=True)
class StoredRows:
    """An array inside a file: `open` gives a stream that begins with its header."""

    where: str
    header: Header
    open: Callable[[], IO[bytes]]

    @property
    def shape(self) -> tuple[int, ...]:
        return self.header.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.header.dtype

    def whole(self) -> NDArray[Any]:
        """All of it, at most MAX_SAMPLE_BYTES."""
        if self.header.size_bytes > MAX_SAMPLE_BYTES:
            raise _bad(self.where, f"holds {self.header.size_bytes} bytes in one piece")
        order: Any = "F" if self.header.fortran_order else "C"
        with self._data() as stream:
            data = self._exactly(stream, self.header.size_bytes)
        return np.frombuffer(data, self.dtype).reshape(self.shape, order=order)

    def blocks(self, starts: Sequence[int], length: int) -> Iterator[NDArray[Any]]:
        """`array[start : start + length]` for each of the ascending starts, without the rest."""
        if self.header.fortran_order and len(self.shape) > 1:
            yield from MemoryRows(self.whole()).blocks(starts, length)
            return
        row_bytes = prod(self.shape[1:]) * self.dtype.itemsize
        if row_bytes * length > MAX_SAMPLE_BYTES:
            raise _bad(self.where, f"has samples of {row_bytes * length} bytes")
        with self._data() as stream:
            place = 0
            for start in starts:
                self._skip(stream, (start - place) * row_bytes)
                data = self._exactly(stream, length * row_bytes)
                place = start + length
                yield np.frombuffer(data, self.dtype).reshape(length, *self.shape[1:])

    @contextmanager
    def _data(self) -> Iterator[IO[bytes]]:
        try:
            stream = self.open()
        except _DAMAGE as failure:
            raise _bad(self.where, f"cannot be read: {failure}") from None
        with stream:
            read_header(stream, self.where)
            yield stream

    def _exactly(self, stream: IO[bytes], size: int) -> bytes:
        try:
            data = stream.read(size)
        except _DAMAGE as failure:
            raise _bad(self.where, f"is damaged: {failure}") from None
        if len(data) != size:
            raise _bad(self.where, f"is cut off: {size - len(data)} bytes are missing")
        return data

    def _skip(self, stream: IO[bytes], size: int) -> None:
        while size > 0:
            size -= len(self._exactly(stream, min(size, 1 << 20)))


def open_npy(path: Path) -> StoredRows:
    """The array of a .npy file, its header checked against the file's size."""
    where = str(path)
    try:
        size = path.stat().st_size
        with path.open("rb") as stream:
            header = read_header(stream, where)
            _check_size(header, size - stream.tell(), where)
    except OSError as failure:
        raise _bad(where, f"cannot be read: {failure.strerror}") from None
    return StoredRows(where, header, lambda: path.open("rb"))


def open_npz(path: Path) -> dict[str, StoredRows]:
    """The arrays of a .npz by name, in file order, every header checked and nothing loaded."""
    where = str(path)
    try:
        _check_directory(path)
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            _check_members(members, where)
            arrays = {info.filename.removesuffix(".npy"): info for info in members}
            return {name: _member(archive, path, info) for name, info in arrays.items()}
    except OSError as failure:
        raise _bad(where, f"cannot be read: {failure.strerror or failure}") from None
    except (zipfile.BadZipFile, RuntimeError, ValueError, struct.error) as failure:
        raise _bad(where, f"is not a sound .npz: {failure}") from None


def read_header(stream: IO[bytes], where: str) -> Header:
    """Read a .npy header (version 1 or 2) without evaluating it; anything odd is `[bad-data]`."""
    try:
        start = stream.read(8)
        if start[:6] != b"\x93NUMPY" or start[6:] not in (b"\x01\x00", b"\x02\x00"):
            raise _bad(where, "is not a .npy array of version 1 or 2")
        width = 2 if start[6] == 1 else 4
        length = int.from_bytes(stream.read(width), "little")
        if length > MAX_HEADER_BYTES:
            raise _bad(where, f"has a header of {length} bytes")
        text = stream.read(length).decode("latin-1")
    except (zipfile.BadZipFile, zlib.error, EOFError) as failure:
        raise _bad(where, f"is damaged: {failure}") from None
    items = dict(_ITEM.findall(text))
    rest = re.sub(r"[{},\s]", "", _ITEM.sub("", text))
    if rest or len(items) != 3 or len(_ITEM.findall(text)) != 3:
        raise _bad(where, "has a header that is not a plain array's")
    return _header(items["descr"].strip("'"), items["fortran_order"], items["shape"], where)


def _header(descr: str, fortran: str, shape: str, where: str) -> Header:
    dims = re.findall(r"[0-9]+", shape)
    if fortran not in ("True", "False") or len(dims) > MAX_RANK or any(len(d) > 15 for d in dims):
        raise _bad(where, "has a header that is not a plain array's")
    try:
        dtype = np.dtype(descr)
    except (TypeError, ValueError):
        raise _bad(where, f"has the type `{descr}`, which numpy does not know") from None
    if dtype.hasobject:
        raise _bad(where, "holds Python objects, which would run code when read")
    if dtype.kind not in "biufU":
        raise _bad(where, f"has the type `{dtype}`, which no model takes")
    return Header(dtype, tuple(int(d) for d in dims), fortran == "True")


def _check_size(header: Header, available: int, where: str) -> None:
    if header.size_bytes != available:
        raise _bad(
            where,
            f"says {header.dtype} {list(header.shape)}, {header.size_bytes} bytes,"
            f" and holds {available}",
        )


def _check_directory(path: Path) -> None:
    """Refuse a zip whose directory is too large, before zipfile builds an object for each entry."""
    size = path.stat().st_size
    with path.open("rb") as stream:
        start = max(0, size - 65_557)
        stream.seek(start)
        tail = stream.read(65_557)
        place = tail.rfind(b"PK\x05\x06")
        if place < 0 or len(tail) < place + 22:
            raise _bad(str(path), "is not a .npz (a zip of arrays)")
        (directory,) = struct.unpack_from("<I", tail, place + 12)
        locator = place - 20
        if locator >= 0 and tail[locator : locator + 4] == b"PK\x06\x07":
            (offset,) = struct.unpack_from("<Q", tail, locator + 8)
            stream.seek(min(offset, size))
            record = stream.read(56)
            if len(record) == 56:
                directory = struct.unpack_from("<Q", record, 40)[0]
    if directory > MAX_DIRECTORY_BYTES:
        raise _bad(str(path), f"lists {directory} bytes of member names")


def _check_members(members: Sequence[zipfile.ZipInfo], where: str) -> None:
    if len(members) > MAX_MEMBERS:
        raise _bad(where, f"has {len(members)} members, more than {MAX_MEMBERS}")
    total, seen = 0, set()
    for info in members:
        name = info.filename
        if name in seen:
            raise _bad(where, f"has two members called `{name}`")
        seen.add(name)
        if not name.endswith(".npy"):
            raise _bad(where, f"has a member `{name}` that is not a .npy array")
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise _bad(where, f"has a member `{name}` in a compression numpy does not write")
        if info.file_size > BOMB_BYTES and info.file_size > BOMB_RATIO * max(1, info.compress_size):
            raise _bad(
                where, f"unpacks `{name}` from {info.compress_size} to {info.file_size} bytes"
            )
        total += info.file_size
    if total > MAX_TOTAL_BYTES:
        raise _bad(where, f"unpacks to {total} bytes, more than {MAX_TOTAL_BYTES}")


def _member(archive: zipfile.ZipFile, path: Path, info: zipfile.ZipInfo) -> StoredRows:
    place = f"{path}: array `{info.filename.removesuffix('.npy')}`"
    with archive.open(info) as stream:
        header = read_header(stream, place)
        _check_size(header, info.file_size - stream.tell(), place)
    return StoredRows(place, header, lambda: _open_member(path, info.filename))


def _open_member(path: Path, name: str) -> IO[bytes]:
    # The archive's handle lives as long as the member's stream: zipfile counts its users.
    with zipfile.ZipFile(path) as archive:
        return archive.open(name)


def _bad(where: str, problem: str) -> EdgeqError:
    separator = " " if where.endswith("`") else ": "
    return EdgeqError("bad-data", f"{where}{separator}{problem}")
