"""Weights in files beside the model, contained by our own check before a byte is read.

Four layers, because libraries differ (ONNX Runtime 1.31 follows a hard link that onnx refuses):
the location is relative and without `..`; resolved, it lies under the model's folder; no component
below that folder is a symbolic link (each is opened by descriptor with O_NOFOLLOW, so a link put
there in between is refused too); the file is regular and has one name only (no hard link).
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path, PurePosixPath, PureWindowsPath

import onnx_ir
from onnx import TensorProto

from edgeq.errors import EdgeqError
from edgeq_converters.formats.outside import CheckedFile, Outside
from edgeq_converters.read.files import reason, refuse_size
from edgeq_converters.read.findings import quote

_KEYS = frozenset({"location", "offset", "length", "checksum"})
_NUMBER = re.compile(r"[0-9]{1,18}\Z")
_COPY_HINT = "put a plain copy of the file beside the model"


Key = tuple[str, int, int]


@dataclass
class ExternalData:
    """Ranges (location, offset, length) of files under `folder`, in the order of their first use.

    `ranges` holds what was read into memory, each range once and shared; `deferred`, by tensor
    name, what is read when it is asked for.
    """

    folder: Path
    model: str
    ranges: dict[Key, bytes | Outside] = field(default_factory=dict)
    deferred: dict[str, Outside] = field(default_factory=dict)
    _files: dict[str, CheckedFile] = field(default_factory=dict)

    @property
    def size_bytes(self) -> int:
        """Bytes of all ranges, each once."""
        return sum(length for _, _, length in self.ranges)

    @property
    def held_bytes(self) -> int:
        """Those of them that are in memory."""
        return sum(len(data) for data in self.ranges.values() if isinstance(data, bytes))

    def pieces(self) -> Iterator[bytes]:
        """All ranges one after the other, for a digest."""
        for data in self.ranges.values():
            yield from data.pieces() if isinstance(data, Outside) else (data,)

    def read(self, tensor: TensorProto, wanted: int) -> bytes:
        """The `wanted` bytes that `tensor` keeps elsewhere; any doubt raises `[external-data]`."""
        key, label = self._place(tensor, wanted)
        refuse_size(self.model, self.held_bytes + wanted)
        held = self.ranges.get(key)
        if not isinstance(held, bytes):
            file = self._file(*key, label)
            held = b"".join(file.pieces(key[1], wanted))
            self.ranges[key] = held
        return held

    def defer(self, tensor: TensorProto, wanted: int) -> None:
        """Check where `tensor` lies and that file, but leave its data there."""
        key, label = self._place(tensor, wanted)
        made = Outside(
            self._file(*key, label),
            folder=os.path.realpath(self.folder),
            location=key[0],
            offset=key[1],
            name=tensor.name,
            dtype=onnx_ir.DataType(tensor.data_type),
            dims=tuple(tensor.dims),
        )
        self.deferred[tensor.name] = made
        self.ranges.setdefault(key, made)

    def _place(self, tensor: TensorProto, wanted: int) -> tuple[Key, str]:
        """Where the entries of `tensor` point, and its name for messages."""
        label = f"tensor {quote(tensor.name)}"
        entries = _entries(tensor, self.model, label)
        location = entries.get("location", "")
        offset = self._number(entries, "offset", 0, label)
        length = self._number(entries, "length", wanted, label)
        if length != wanted:
            self._refuse(f"{label} needs {wanted:,} bytes and its entry says {length:,}")
        return (location, offset, wanted), label

    def _number(self, entries: dict[str, str], key: str, default: int, label: str) -> int:
        text = entries.get(key)
        if text is None:
            return default
        if not _NUMBER.match(text):
            self._refuse(f"{label} has {key} {quote(text)}, which is no byte count")
        return int(text)

    def _file(self, location: str, offset: int, length: int, label: str) -> CheckedFile:
        """The file at `location`, checked when it is first used, long enough for the range."""
        if location not in self._files:
            self._files[location] = CheckedFile(
                partial(self._opened, self._parts(location, label), location, label),
                f"{self.model}: {quote(location)}",
            )
        file = self._files[location]
        if offset + length > file.size_bytes:
            self._refuse(
                f"{label} wants bytes {offset:,} to {offset + length:,} of {quote(location)}, "
                f"which has {file.size_bytes:,}"
            )
        return file

    def _opened(self, parts: tuple[str, ...], location: str, label: str) -> int:
        """A descriptor of the file at `location`, by every check that there is."""
        descriptor = self._open(parts, location, label)
        try:
            self._check_plain(os.fstat(descriptor), location, label)
        except EdgeqError:
            os.close(descriptor)
            raise
        return descriptor

    def _parts(self, location: str, label: str) -> tuple[str, ...]:
        """The components of a location that is relative and stays inside by its text alone."""
        if not location or "\0" in location:
            self._refuse(f"{label} names no file")
        windows = PureWindowsPath(location)
        if PurePosixPath(location).is_absolute() or windows.drive or windows.root:
            self._refuse(f"{label} is at {quote(location)}, an absolute path")
        if "\\" in location:
            self._refuse(f"{label} is at {quote(location)}, with a backslash")
        parts = tuple(part for part in location.split("/") if part not in ("", "."))
        if not parts or ".." in parts:
            self._refuse(f"{label} is at {quote(location)}, outside the model's folder")
        return parts

    def _open(self, parts: tuple[str, ...], location: str, label: str) -> int:
        root = Path(os.path.realpath(self.folder))
        try:
            self._refuse_links(root, parts, location, label)
            if os.open in os.supports_dir_fd and hasattr(os, "O_NOFOLLOW"):
                return _open_below(root, parts)
            return os.open(root.joinpath(*parts), os.O_RDONLY | getattr(os, "O_BINARY", 0))
        except FileNotFoundError:
            self._refuse(f"{label} is in {quote(location)}, and there is no such file")
        except (OSError, ValueError) as failure:
            self._refuse(f"{label} is in {quote(location)}, not readable: {reason(failure)}")
        raise AssertionError("unreachable")

    def _refuse_links(self, root: Path, parts: tuple[str, ...], location: str, label: str) -> None:
        """Name the link; the opening itself would only say that something is not a directory."""
        path = root
        for part in parts:
            path = path / part
            if path.is_symlink():
                self._refuse(
                    f"{label} is at {quote(location)}, and {quote(part)} is a symbolic link",
                    _COPY_HINT,
                )
        if not Path(os.path.realpath(path)).is_relative_to(root):
            self._refuse(f"{label} is at {quote(location)}, outside the model's folder")

    def _check_plain(self, status: os.stat_result, location: str, label: str) -> None:
        if not stat.S_ISREG(status.st_mode):
            self._refuse(f"{label} is at {quote(location)}, which is not a regular file")
        if status.st_nlink != 1:
            self._refuse(
                f"{label} is at {quote(location)}, which has {status.st_nlink} names (hard links)",
                _COPY_HINT,
            )

    def _refuse(self, text: str, *hints: str) -> None:
        raise EdgeqError("external-data", f"{self.model}: {text}", *hints)


def _entries(tensor: TensorProto, model: str, label: str) -> dict[str, str]:
    entries: dict[str, str] = {}
    for entry in tensor.external_data:
        if entry.key not in _KEYS or entry.key in entries:
            what = "twice" if entry.key in entries else "which is unknown"
            raise EdgeqError(
                "external-data", f"{model}: {label} has the key {quote(entry.key)}, {what}"
            )
        entries[entry.key] = entry.value
    return entries


def _open_below(root: Path, parts: tuple[str, ...]) -> int:
    """Open `parts` below `root` one by one, following no link and waiting for nothing."""
    common = os.O_RDONLY | os.O_NOFOLLOW | getattr(os, "O_CLOEXEC", 0)
    folder = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    try:
        for part in parts[:-1]:
            inner = os.open(part, common | os.O_DIRECTORY, dir_fd=folder)
            os.close(folder)
            folder = inner
        return os.open(parts[-1], common | os.O_NONBLOCK, dir_fd=folder)
    finally:
        os.close(folder)
