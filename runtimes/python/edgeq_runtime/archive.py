"""The two forms of a bundle on disk: one canonical zip, or a folder. Rules: FORMAT.md 2 to 4.

The zip reader trusts no header: it reads a name and a size, derives every byte of every header
from the names, sizes and contents, and compares.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
import struct
import zlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import BinaryIO, Callable

from edgeq_runtime.canonical import damaged
from edgeq_runtime.errors import EdgeqError
from edgeq_runtime.limits import (
    MAX_BUNDLE_BYTES,
    MAX_FILES,
    MAX_MANIFEST_BYTES,
    MAX_NAME,
)

MANIFEST = "manifest.json"
CARD = "CARD.md"

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]*")
_DEVICES = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?")  # names Windows keeps
_LOCAL = struct.Struct("<4s5H3I2H")
_CENTRAL = struct.Struct("<4s6H3I5H2I")
_END = struct.Struct("<4s4H2IH")
_LOCAL_MARK, _CENTRAL_MARK, _END_MARK = b"PK\x03\x04", b"PK\x01\x02", b"PK\x05\x06"
_NEEDS_VERSION = 10  # 1.0: stored entries, no zip64
_MADE_BY = 3 << 8 | 20  # unix, 2.0
_DATE = 1 << 5 | 1  # 1980-01-01, time 0
_ATTRIBUTES = 0o100644 << 16  # a regular file

_PIECE = 1 << 22

OnManifest = Callable[[bytes], None]


def check_name(name: str) -> None:
    """FORMAT.md 2: plain lower-case ASCII, no folder, nothing a file system reads otherwise."""
    if name == CARD:
        return
    plain = _NAME.fullmatch(name) and ".." not in name and not name.endswith(".")
    if not plain or len(name) > MAX_NAME or name == CARD.lower() or _DEVICES.fullmatch(name):
        raise damaged(f"file name {name[: MAX_NAME + 1]!a} is not allowed")


def check_names(names: Iterable[str]) -> list[str]:
    """All names in the order of the format: the manifest first, the rest by their bytes."""
    ordered = sorted(names, key=lambda name: (name != MANIFEST, name))
    if len(ordered) > MAX_FILES:
        raise damaged(f"more than {MAX_FILES} files")
    if not ordered or ordered[0] != MANIFEST:
        raise _no_bundle(f"it has no {MANIFEST}")
    for name in ordered:
        check_name(name)
    return ordered


def _no_bundle(why: str) -> EdgeqError:
    return EdgeqError("not-a-bundle", f"not an edgeq bundle: {why}")


# -- zip ------------------------------------------------------------------------------------------


def pack(files: Mapping[str, bytes]) -> bytes:
    """The one zip file of `files` (name -> contents)."""
    return b"".join(zip_parts(files))


def zip_parts(files: Mapping[str, bytes]) -> Iterator[bytes]:
    """The pieces of that zip file, in order, without a copy of the contents."""
    central, offset = [], 0
    for name in check_names(files):
        data = files[name]
        entry = (name.encode("ascii"), zlib.crc32(data), len(data))
        head = _local_header(*entry)
        central.append(_central_header(*entry, offset))
        offset += len(head) + len(data)
        yield head
        yield data
    yield _directory(central, offset)


def zip_size(files: Mapping[str, bytes]) -> int:
    """Bytes of that zip file, made of nothing but the names and lengths."""
    fixed = _LOCAL.size + _CENTRAL.size
    return _END.size + sum(fixed + 2 * len(name) + len(data) for name, data in files.items())


def _local_header(name: bytes, crc: int, size: int) -> bytes:
    fields = (_LOCAL_MARK, _NEEDS_VERSION, 0, 0, 0, _DATE, crc, size, size, len(name), 0)
    return _LOCAL.pack(*fields) + name


def _central_header(name: bytes, crc: int, size: int, offset: int) -> bytes:
    head = (_CENTRAL_MARK, _MADE_BY, _NEEDS_VERSION, 0, 0, 0, _DATE, crc, size, size)
    tail = (len(name), 0, 0, 0, 0, _ATTRIBUTES, offset)
    return _CENTRAL.pack(*head, *tail) + name


def _directory(central: list[bytes], offset: int) -> bytes:
    body = b"".join(central)
    count = len(central)
    return body + _END.pack(_END_MARK, 0, 0, count, count, len(body), offset, 0)


def unpack(stream: BinaryIO, on_manifest: OnManifest) -> dict[str, bytes]:
    """All files of a canonical zip. `on_manifest` gets the manifest before anything else is read,
    so that a newer format is told as such, whatever else changed in it."""
    total = stream.seek(0, os.SEEK_END)
    if total > MAX_BUNDLE_BYTES:
        raise damaged(f"{total} bytes, more than {MAX_BUNDLE_BYTES}")
    stream.seek(0)
    files: dict[str, bytes] = {}
    central: list[bytes] = []
    offset = 0
    while True:
        head = stream.read(_LOCAL.size)
        if head[:4] != _LOCAL_MARK:
            break
        name, data = _read_entry(stream, head, offset, total)
        _check_order(name, files)
        if not files:
            on_manifest(data)
        files[name] = data
        entry = (name.encode("ascii"), zlib.crc32(data), len(data))
        central.append(_central_header(*entry, offset))
        offset += len(_local_header(*entry)) + len(data)
    if not files:
        raise _no_bundle("it does not begin as a zip file")
    _check_rest(head + stream.read(_rest_limit(central) - len(head)), central, offset)
    return files


def _read_entry(stream: BinaryIO, head: bytes, offset: int, total: int) -> tuple[str, bytes]:
    """One entry, its header compared with the one derived from its name and contents."""
    if len(head) < _LOCAL.size:
        raise damaged(f"zip: cut off in the header at byte {offset}")
    size, name_size = _LOCAL.unpack(head)[8:10]
    if name_size > MAX_NAME:
        raise damaged(f"zip: a name of {name_size} bytes at byte {offset}")
    raw = stream.read(name_size)
    try:
        name = raw.decode("ascii")
    except UnicodeDecodeError:
        raise damaged(f"zip: file name {raw!a} is not allowed") from None
    check_name(name)
    _check_header(head, name)
    if size > total - offset:
        raise damaged(f"zip: `{name}` claims {size} bytes of a file of {total}")
    if name == MANIFEST and size > MAX_MANIFEST_BYTES:
        raise damaged(f"{MANIFEST} has {size} bytes, more than {MAX_MANIFEST_BYTES}")
    data = stream.read(size)
    if head + raw != _local_header(raw, zlib.crc32(data), len(data)):
        raise damaged(f"zip: the crc or size of `{name}` does not match its contents")
    return name, data


def _check_header(head: bytes, name: str) -> None:
    """Say which rule a header breaks; the comparison after reading the contents is the check."""
    _, version, flags, method, time, date, _, packed, size, _, extra = _LOCAL.unpack(head)
    rules = (
        (method == 0, "is compressed"),
        (flags & 8 == 0, "has a data descriptor"),
        (flags & 1 == 0, "is encrypted"),
        (flags == 0, "has flags set"),
        (extra == 0, "has extra fields"),
        (packed == size, "has two sizes"),
        ((version, time, date) == (_NEEDS_VERSION, 0, _DATE), "has another version or date"),
    )
    for kept, what in rules:
        if not kept:
            raise damaged(f"zip: `{name}` {what}; the format allows stored entries only")


def _check_order(name: str, before: Mapping[str, bytes]) -> None:
    if not before:
        if name != MANIFEST:
            raise _no_bundle(f"its first file is `{name}`, not {MANIFEST}")
        return
    if name in before:
        raise damaged(f"zip: `{name}` is there twice")
    last = next(reversed(list(before)))
    if last != MANIFEST and name < last:
        raise damaged(f"zip: `{name}` stands after `{last}`")
    if len(before) >= MAX_FILES:
        raise damaged(f"zip: more than {MAX_FILES} files")


def _rest_limit(central: list[bytes]) -> int:
    """One byte more than may follow the entries."""
    return len(_directory(central, 0)) + 1


def _check_rest(rest: bytes, central: list[bytes], offset: int) -> None:
    want = _directory(central, offset)
    if rest == want:
        return
    if rest[: len(want)] == want:
        raise damaged("zip: bytes follow the end of the archive")
    if len(rest) < len(want):
        raise damaged("zip: cut off in the directory")
    if rest[:4] != _CENTRAL_MARK:
        raise damaged(f"zip: bytes that belong to no file at byte {offset}")
    raise damaged("zip: the directory is not the one of these files")


# -- folder ---------------------------------------------------------------------------------------


def read_folder(
    folder: Path,
    on_manifest: OnManifest,
    sizes: Callable[[], Mapping[str, int]],
    beside: Callable[[], str | None] = lambda: None,
) -> dict[str, bytes]:
    """All files of a bundle folder: plain files only, exactly those the manifest names.

    Both are asked after `on_manifest`. `sizes`: name -> bytes of every file but the manifest.
    `beside`: the one of them that may be too large for memory; it is left to `digest_plain`.
    """
    names = check_names(_list_folder(folder))
    files = {MANIFEST: read_plain(folder / MANIFEST, MAX_MANIFEST_BYTES, exact=False)}
    on_manifest(files[MANIFEST])
    wanted = sizes()
    for name in names[1:]:
        if name not in wanted:
            raise damaged(f"`{name}` is not in the manifest")
    for name, size in sorted(wanted.items()):
        if name not in names:
            raise damaged(f"`{name}` is missing")
        if name != beside():
            files[name] = read_plain(folder / name, size, exact=True)
    return files


def _list_folder(folder: Path) -> list[str]:
    names = []
    with os.scandir(folder) as entries:
        for entry in entries:
            names.append(entry.name)
            if len(names) > MAX_FILES:
                break
    return names


def read_plain(path: Path, size: int, *, exact: bool) -> bytes:
    """Contents of a regular file with one name: no link, device, pipe or socket is opened.

    size: its bytes (exact), or the most it may have.
    """
    with _open_plain(path) as file:
        data = file.read(size + 1)
    if len(data) > size or (exact and len(data) != size):
        raise _wrong_size(path, size, exact)
    return data


def digest_plain(path: Path, size: int) -> str:
    """SHA-256, in hex, of such a file of exactly `size` bytes, a piece at a time."""
    digest, left = hashlib.sha256(), size
    with _open_plain(path) as file:
        while left and (piece := file.read(min(left, _PIECE))):
            digest.update(piece)
            left -= len(piece)
        if left or file.read(1):
            raise _wrong_size(path, size, True)
    return digest.hexdigest()


def check_zeros(path: Path, pieces: Iterable[tuple[int, int]]) -> None:
    """Refuse such a file that holds anything but zeros in one of the pieces [start, stop)."""
    with _open_plain(path) as file:
        for start, stop in pieces:
            file.seek(start)
            if any(file.read(stop - start)):
                raise damaged(f"`{path.name}` holds bytes of no tensor after byte {start}")


def _open_plain(path: Path) -> BinaryIO:
    _check_plain(path.lstat(), path.name)
    flags = os.O_RDONLY
    for word in ("O_NOFOLLOW", "O_NONBLOCK", "O_CLOEXEC", "O_BINARY"):
        flags |= getattr(os, word, 0)
    file = os.fdopen(os.open(path, flags), "rb")
    try:
        _check_plain(os.fstat(file.fileno()), path.name)
    except EdgeqError:
        file.close()
        raise
    return file


def _wrong_size(path: Path, size: int, exact: bool) -> EdgeqError:
    found = os.path.getsize(path)
    return damaged(f"`{path.name}` has {found} bytes, not {'' if exact else 'at most '}{size}")


def _check_plain(status: os.stat_result, name: str) -> None:
    if stat.S_ISLNK(status.st_mode):
        raise damaged(f"`{name}` is a symbolic link")
    if not stat.S_ISREG(status.st_mode):
        raise damaged(f"`{name}` is not a regular file")
    if status.st_nlink > 1:
        raise damaged(f"`{name}` is a hard link ({status.st_nlink} names for one file)")
