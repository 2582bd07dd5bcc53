"""The one spelling of an ORT-format file: what the engine writes, its tables in a fixed order.

ONNX Runtime (seen in 1.31.1) writes the table of kernel types in the order of a hash map, so that
the same model gives other bytes every time; everything else is the same. Here that table is sorted.
The file is a FlatBuffer (ort.fbs): tables point forward to what they hold, and a writer begins at
the end, so the kernel types, written last, stand in front of everything else.
https://flatbuffers.dev/internals; onnxruntime/core/flatbuffers/schema/ort.fbs
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass

IDENTIFIER = b"ORTM"
ALIGNMENT = 64
"""At least that of any vector in the file. A writer aligns by the distance to the end, so a whole
file of a multiple of it is right, however long the engine's own front was (it varies)."""

_VERSION, _MODEL, _KERNELS = 0, 1, 3  # fields of InferenceSession that are in use

Args = tuple[tuple[int, int], ...]
"""(kind of argument, index) of each argument that has one type parameter."""


@dataclass(frozen=True)
class _Kernels:
    """op -> type parameter -> arguments, in the order of the file."""

    ops: tuple[tuple[bytes, tuple[tuple[bytes, Args], ...]], ...]

    def sorted(self) -> _Kernels:
        return _Kernels(tuple(sorted((op, tuple(sorted(rows))) for op, rows in self.ops)))


def is_ort(data: bytes) -> bool:
    """Whether the bytes begin as an ORT-format file."""
    return data[4:8] == IDENTIFIER


def canonical(data: bytes) -> bytes:
    """The same model with its kernel types in order; equal models give equal bytes."""
    assert is_ort(data), "the engine wrote something else"
    reader = _Reader(data)
    root = reader.offset(0)
    version, model, kernels = (
        reader.pointer(root, field) for field in (_VERSION, _MODEL, _KERNELS)
    )
    assert model and kernels, "an ORT-format file without a model"
    cut = min(model, reader.vtable(model), version or model)
    read = reader.kernels(kernels)
    front = _Front(read.sorted(), has_version=bool(version))
    size = len(front.data) + -(len(front.data) + len(data) - cut) % ALIGNMENT
    return front.finished(size, model - cut, version - cut) + data[cut:]


class _Reader:
    """Looks things up in a FlatBuffer that the engine itself has just written."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    def number(self, place: int) -> int:
        return int(struct.unpack_from("<I", self.data, place)[0])

    def offset(self, place: int) -> int:
        return place + self.number(place)

    def vtable(self, table: int) -> int:
        return table - int(struct.unpack_from("<i", self.data, table)[0])

    def field(self, table: int, number: int) -> int:
        """Where a field lies, 0 where the table has none."""
        vtable = self.vtable(table)
        size = struct.unpack_from("<H", self.data, vtable)[0]
        at = 4 + 2 * number
        inside = struct.unpack_from("<H", self.data, vtable + at)[0] if at < size else 0
        return table + int(inside) if inside else 0

    def pointer(self, table: int, number: int) -> int:
        place = self.field(table, number)
        return self.offset(place) if place else 0

    def text(self, table: int, number: int) -> bytes:
        place = self.pointer(table, number)
        return self.data[place + 4 : place + 4 + self.number(place)]

    def tables(self, table: int, number: int) -> list[int]:
        place = self.pointer(table, number)
        count = self.number(place) if place else 0
        return [self.offset(place + 4 + 4 * index) for index in range(count)]

    def kernels(self, table: int) -> _Kernels:
        return _Kernels(
            tuple(
                (self.text(op, 0), tuple((self.text(row, 0), self.args(row)) for row in rows))
                for op in self.tables(table, 0)
                for rows in [self.tables(op, 1)]
            )
        )

    def args(self, row: int) -> Args:
        found = []
        for arg in self.tables(row, 1):
            kind, index = self.field(arg, 0), self.field(arg, 1)
            found.append((self.data[kind] if kind else 0, self.number(index) if index else 0))
        return tuple(found)


class _Front:
    """Writes the root and the kernel types from front to back: a pointer is filled in when what it
    points to has a place."""

    _TABLES = ((4, 8, 0, 12), (4,), (4, 8), (8, 4))  # where fields lie: root, resolver, pair, arg
    _SIZES = (16, 8, 12, 12)
    _ROOT, _RESOLVER, _PAIR, _ARG = range(4)

    def __init__(self, kernels: _Kernels, *, has_version: bool) -> None:
        self.data = bytearray(b"\0\0\0\0" + IDENTIFIER)
        self.vtables: list[int] = []
        for fields, size in zip(self._TABLES, self._SIZES, strict=True):
            self.vtables.append(len(self.data))
            self.data += struct.pack("<HH", 4 + 2 * len(fields), size)
            self.data += b"".join(struct.pack("<H", field) for field in fields)
        if not has_version:
            struct.pack_into("<H", self.data, self.vtables[self._ROOT] + 4, 0)
        self._align()
        self.root = self._table(self._ROOT)
        self._point(0, self.root)
        resolver = self._table(self._RESOLVER)
        self._point(self.root + 12, resolver)
        self._vector(resolver + 4, [self._op(op, rows) for op, rows in kernels.ops])

    def finished(self, size: int, model: int, version: int) -> bytes:
        """The front, padded to `size`; model and version lie so far behind its end."""
        self.data += bytes(size - len(self.data))
        self._point(self.root + 8, size + model)
        if version >= 0:
            self._point(self.root + 4, size + version)
        return bytes(self.data)

    def _op(self, op: bytes, rows: tuple[tuple[bytes, Args], ...]) -> Callable[[], int]:
        return lambda: self._pair(op, [self._row(name, args) for name, args in rows])

    def _row(self, name: bytes, args: Args) -> Callable[[], int]:
        return lambda: self._pair(name, [self._arg(kind, index) for kind, index in args])

    def _arg(self, kind: int, index: int) -> Callable[[], int]:
        def write() -> int:
            place = self._table(self._ARG)
            struct.pack_into("<IB", self.data, place + 4, index, kind)
            return place

        return write

    def _pair(self, name: bytes, rows: list[Callable[[], int]]) -> int:
        """A table of a name and a vector."""
        place = self._table(self._PAIR)
        self._point(place + 4, len(self.data))
        self.data += struct.pack("<I", len(name)) + name + b"\0"
        self._align()
        self._vector(place + 8, rows)
        return place

    def _vector(self, pointer: int, rows: list[Callable[[], int]]) -> None:
        place = len(self.data)
        self._point(pointer, place)
        self.data += struct.pack("<I", len(rows)) + bytes(4 * len(rows))
        for index, write in enumerate(rows):
            self._point(place + 4 + 4 * index, write())

    def _table(self, kind: int) -> int:
        place = len(self.data)
        self.data += struct.pack("<i", place - self.vtables[kind]) + bytes(self._SIZES[kind] - 4)
        return place

    def _point(self, pointer: int, place: int) -> None:
        struct.pack_into("<I", self.data, pointer, place - pointer)

    def _align(self) -> None:
        self.data += bytes(-len(self.data) % 4)
