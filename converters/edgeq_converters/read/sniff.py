"""What a file is by its first bytes, whatever its name says."""

from __future__ import annotations

_LFS = b"version https://git-lfs.github.com/spec/"
_ZIP = b"PK\x03\x04"
_PICKLE_PROTOCOLS = range(2, 6)

# (offset, magic bytes, what it is)
_MAGIC: tuple[tuple[int, bytes, str], ...] = (
    (0, _LFS, "a git-LFS pointer, not the file itself"),
    (4, b"TFL3", "a TensorFlow Lite model"),
    (4, b"ORTM", "an ONNX Runtime .ort model"),
    (0, b"GGUF", "a GGUF model"),
    (0, b"\x89HDF\r\n\x1a\n", "an HDF5 file (Keras .h5)"),
    (0, b"\x93NUMPY", "a NumPy array"),
    (0, b"\x1f\x8b", "a gzip archive"),
    (0, b"BZh", "a bzip2 archive"),
    (0, b"\xfd7zXZ\x00", "an xz archive"),
    (0, b"(\xb5/\xfd", "a zstandard archive"),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7z archive"),
    (257, b"ustar", "a tar archive"),
    (0, b"\x7fELF", "a program or shared library"),
    (0, b"\x89PNG", "a PNG image"),
    (0, b"\xff\xd8\xff", "a JPEG image"),
    (0, b"%PDF", "a PDF document"),
)

_HINTS = {
    _MAGIC[0][2]: "git lfs pull",
    "an HTML page": "fetch the file again: the server answered with a page",
}


def not_onnx(data: bytes) -> str | None:
    """What `data` (the whole file) is if it is certainly something other than ONNX, else None."""
    if not data:
        return "empty"
    for offset, magic, name in _MAGIC:
        if data.startswith(magic, offset):
            return name
    return _text(data) or _zip(data) or _safetensors(data) or _pickle(data)


def hint(found: str) -> tuple[str, ...]:
    """What to do about it, where there is one thing to do."""
    return (_HINTS[found],) if found in _HINTS else ()


def _text(data: bytes) -> str | None:
    head = data[:512].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if head.startswith((b"<!doctype html", b"<html", b"<head", b"<body")):
        return "an HTML page"
    if head.startswith(b"<?xml"):
        return "an XML document"
    if head.startswith((b'{"', b"{\n", b"{\r\n", b"{ ")):
        return "a JSON document"
    return None


def _zip(data: bytes) -> str | None:
    if not data.startswith(_ZIP):
        return None
    head = data[:4096]
    if b"/data.pkl" in head or b"constants.pkl" in head:
        return "a PyTorch file (zip with a pickle)"
    if b"model.weights.h5" in data[-4096:] or b"config.json" in head:
        return "a Keras model (zip)"
    if b".npy" in data[:256]:
        return "a NumPy .npz archive"
    return "a zip archive"


def _safetensors(data: bytes) -> str | None:
    length = int.from_bytes(data[:8], "little")
    looks_so = data[8:9] == b"{" and 2 <= length <= len(data) - 8
    return "a safetensors file" if looks_so else None


def _pickle(data: bytes) -> str | None:
    looks_so = data[0] == 0x80 and len(data) > 2 and data[1] in _PICKLE_PROTOCOLS
    return "a Python pickle (PyTorch .pt or .pth)" if looks_so else None
