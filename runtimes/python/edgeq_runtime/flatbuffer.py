"""Flatbuffers, read without trust: each offset is checked before it is followed.

Format: https://flatbuffers.dev/internals/. A table becomes a dict with a value for each field of
its row in the schema; vectors of bytes are views of the file, other vectors tuples. The schema
given here holds no table inside itself, so the depth is that of the schema; how many tables and
elements are read is bounded too, since offsets may lead to one table from many places.
"""

from __future__ import annotations

import functools
import struct
from typing import Any, NamedTuple

import numpy as np

from edgeq_runtime import tflite_schema as schema
from edgeq_runtime.errors import EdgeqError

MAX_TABLES = 2**17
"""About a second's work; the largest public models have some 20,000."""
MAX_ELEMENTS = 2**23
"""Of vectors and strings, those of bytes aside; up to 40 bytes of memory each."""
MAX_SHOWN = 100
"""Characters of a name in a message."""

_FORMATS = {
    "bool": "<B",
    "i8": "<b",
    "u8": "<B",
    "u16": "<H",
    "i32": "<i",
    "u32": "<I",
    "i64": "<q",
    "u64": "<Q",
    "f32": "<f",
    **dict.fromkeys(("dtype", *schema.ENUMS), "<b"),
    "ReduceWindow": "<i",
}
_DTYPES = {"bool": "u1", "i32": "<i4", "u32": "<u4", "i64": "<i8", "f32": "<f4"}
_U16 = struct.Struct("<H")
_U32 = struct.Struct("<I")
_I32 = struct.Struct("<i")


class _Step(NamedTuple):
    """How one field is read: `packed` for a scalar, else `kind`, an offset."""

    slot: int
    name: str
    kind: str
    packed: struct.Struct | None
    size: int
    default: Any


@functools.cache
def _steps(table: str) -> tuple[_Step, ...]:
    return tuple(_step(row) for row in schema.fields(table).values())


def _step(row: schema.Field) -> _Step:
    form = _FORMATS.get(row.kind)
    if form is None:
        return _Step(row.slot, row.name, row.kind, None, 4, () if row.kind[0] == "[" else None)
    packed = struct.Struct(form)
    default: Any = row.default
    if row.kind == "bool":
        default = bool(default)
    elif row.kind == "f32":
        default = float(default)
    elif row.kind == "dtype" or row.kind in schema.ENUMS:
        default = _words(row.kind)[default]
    return _Step(row.slot, row.name, row.kind, packed, packed.size, default)


def _words(kind: str) -> tuple[str, ...]:
    return schema.DTYPES if kind == "dtype" else schema.ENUMS[kind]


def damaged(message: str) -> EdgeqError:
    """The error of bytes that contradict themselves."""
    return EdgeqError("damaged-model", message, "get the file again, or export it again")


def shown(name: str) -> str:
    """A name out of a file as messages print it: short, on one line, without control characters."""
    short = name[:MAX_SHOWN]
    if short.isprintable():
        return short
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in short)


def read(data: memoryview, root: str) -> dict[str, Any]:
    """The table `root` of a file, and all below it. Raises EdgeqError [damaged-model], or
    [model-too-large] beyond the limits."""
    file = _File(data)
    return file.table(file.offset(0, root), root)


class _File:
    def __init__(self, data: memoryview) -> None:
        self.data = data
        self.size = len(data)
        self._tables = MAX_TABLES
        self._elements = MAX_ELEMENTS
        self._vtables: dict[int, tuple[int, ...]] = {}

    def offset(self, at: int, what: str) -> int:
        """Where the offset at `at` leads to; the place itself is not looked at."""
        if at + 4 > self.size:
            raise damaged(f"not a sound flatbuffer: {what} is cut off at byte {at}")
        target = at + int(_U32.unpack_from(self.data, at)[0])
        if target % 4 or target == at or target + 4 > self.size:
            raise damaged(f"not a sound flatbuffer: {what} is said to be at byte {target}")
        return target

    def table(self, at: int, name: str) -> dict[str, Any]:
        self._tables -= 1
        if self._tables < 0:
            raise EdgeqError("model-too-large", f"more than {MAX_TABLES} tables in one file")
        start = at - int(_I32.unpack_from(self.data, at)[0])
        slots = self._vtables.get(start)
        if slots is None:
            slots = self._vtables[start] = self._vtable(start, name)
        end = at + slots[1]
        if slots[1] < 4 or end > self.size:
            raise damaged(f"not a sound flatbuffer: {name} at byte {at} of {slots[1]} bytes")
        known = len(slots) - 2
        values: dict[str, Any] = {}
        for step in _steps(name):
            offset = slots[step.slot + 2] if step.slot < known else 0
            if offset == 0:
                values[step.name] = step.default
                continue
            place = at + offset
            if offset < 4 or place + step.size > end or place % step.size:
                raise damaged(f"not a sound flatbuffer: {name} at byte {at}, `{step.name}`")
            if step.packed is not None:
                values[step.name] = _scalar(step, step.packed.unpack_from(self.data, place)[0])
            else:
                what = f"{name}.{step.name}"
                values[step.name] = self._value(step.kind, place, what, values)
        return values

    def _vtable(self, start: int, name: str) -> tuple[int, ...]:
        """Its size, the table's size, and the offset of each field."""
        if start < 0 or start % 2 or start + 4 > self.size:
            raise damaged(f"not a sound flatbuffer: {name} has its layout at byte {start}")
        size = int(_U16.unpack_from(self.data, start)[0])
        if size < 4 or size % 2 or start + size > self.size:
            raise damaged(f"not a sound flatbuffer: {name} has a layout of {size} bytes")
        return struct.unpack_from(f"<{size // 2}H", self.data, start)

    def _value(self, kind: str, place: int, what: str, values: dict[str, Any]) -> Any:
        """What the offset at `place` leads to."""
        if kind == "union":
            return self._union(place, what, values)
        at = self.offset(place, what)
        if kind == "str":
            return self._string(at, what)
        if kind[0] != "[":
            return self.table(at, kind)
        return self._vector(kind[1:-1], at, what)

    def _union(self, place: int, what: str, values: dict[str, Any]) -> Any:
        """(table, its fields), or None where the field before says that there is none."""
        field = what.rpartition(".")[2]
        number = values[f"{field}_type"]
        tables = schema.UNIONS[field]
        if number >= len(tables):
            raise EdgeqError("unsupported-type", f"{what} of a type that is not known, {number}")
        if number == 0:
            return None
        return tables[number], self.table(self.offset(place, what), tables[number])

    def _extent(self, at: int, size: int, what: str) -> tuple[int, int]:
        """Count and first byte of a vector of elements of `size` bytes."""
        count = int(_U32.unpack_from(self.data, at)[0])
        if at + 4 + count * size > self.size:
            raise damaged(f"not a sound flatbuffer: {what} runs past the end with {count} elements")
        return count, at + 4

    def _count(self, count: int) -> None:
        self._elements -= count
        if self._elements < 0:
            raise EdgeqError("model-too-large", f"more than {MAX_ELEMENTS} elements in vectors")

    def _string(self, at: int, what: str) -> str:
        count, start = self._extent(at, 1, what)
        self._count(count)
        if start + count >= self.size or self.data[start + count]:
            raise damaged(f"not a sound flatbuffer: {what} does not end with a zero")
        try:
            return str(self.data[start : start + count], "utf-8")
        except UnicodeDecodeError:
            raise damaged(f"{what} is not UTF-8") from None

    def _vector(self, kind: str, at: int, what: str) -> Any:
        if kind == "u8":
            count, start = self._extent(at, 1, what)
            return self.data[start : start + count]
        dtype = _DTYPES.get(kind)
        count, start = self._extent(at, np.dtype(dtype).itemsize if dtype else 4, what)
        self._count(count)
        if dtype is None:
            places = range(start, start + 4 * count, 4)
            return tuple(self.table(self.offset(place, what), kind) for place in places)
        numbers = np.frombuffer(self.data, dtype, count, start)
        return tuple((numbers != 0).tolist() if kind == "bool" else numbers.tolist())


def _scalar(step: _Step, value: Any) -> Any:
    if step.kind == "bool":
        return bool(value)
    if step.kind != "dtype" and step.kind not in schema.ENUMS:
        return value
    words = _words(step.kind)
    if not 0 <= value < len(words):
        raise EdgeqError("unsupported-type", f"`{step.name}` is {value}, which is not known")
    return words[value]


def defaults(table: str) -> dict[str, Any]:
    """The fields of a table that is left out."""
    return {step.name: step.default for step in _steps(table)}
