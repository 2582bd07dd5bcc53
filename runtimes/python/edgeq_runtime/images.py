"""Image files as uint8 pixels: bounded, upright, in RGB or grey. Needs Pillow. FORMAT.md 7.

A header is looked at before a pixel is decoded, and only formats that are pictures are tried.
Pillow's errors on damaged files are of many types; all of them become [bad-image].
"""

from __future__ import annotations

import os
import stat
import struct
import warnings
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO

from edgeq_runtime.errors import EdgeqError

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

MAX_PIXELS = 2**26
"""Width times height: 200 MB as RGB. Pillow's own limit only begins to warn at 89 million."""
MAX_SIDE = 2**16
MAX_FILE_BYTES = 2**28
FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF", "PPM")
"""What is tried, in Pillow's names: nothing that runs a program (EPS), no containers."""
SUFFIXES = frozenset(
    (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".pbm")
)

GREY, PALETTE, ALPHA, CMYK, COLOUR = "greyscale", "palette", "alpha", "CMYK", ""
KINDS = {
    "1": GREY,
    "L": GREY,
    "LA": ALPHA,
    "P": PALETTE,
    "PA": PALETTE,
    "RGB": COLOUR,
    "RGBA": ALPHA,
    "RGBX": COLOUR,
    "CMYK": CMYK,
    "YCbCr": COLOUR,
}
"""Pillow's modes that become RGB. Others (16 bits a pixel, float, LAB) have no one rule, and are
refused."""
_ORIENTATION = 0x0112  # the EXIF tag; 1 is upright, 2 to 8 are the other seven ways
_LUMA = (19595, 38470, 7471)  # ITU-R BT.601 in 16 bits: 0.299, 0.587, 0.114


@dataclass(frozen=True)
class Header:
    """What a file says before it is decoded. `kind` is one of KINDS' values, COLOUR for plain RGB.

    `orientation` is EXIF's, 1 where it is upright or says nothing; `is_one` is False where there
    are more pictures, of which the first is taken.
    """

    format: str
    width: int
    height: int
    kind: str
    orientation: int
    is_one: bool


def header(path: str | os.PathLike[str]) -> Header:
    """Look at a file without decoding it; raises as `read` does."""
    with _opened(path) as (_, found):
        return found


def read(path: str | os.PathLike[str], channels: int = 3) -> Array:
    """The picture as uint8 [height, width, channels]: 3 is RGB, 1 is grey.

    Turned as EXIF says. Greys are repeated, palettes looked up, alpha left out (not blended), CMYK
    taken as Pillow does; grey is (19595 R + 38470 G + 7471 B + 32768) >> 16. Raises [bad-image] for
    what is no picture, damaged, larger than MAX_PIXELS or of no known rule, [missing-extra] without
    Pillow.
    """
    import numpy as np

    with _opened(path) as (image, found):
        image.load()
        if found.kind == PALETTE or "transparency" in image.info:
            image = image.convert("RGBA")
        array = np.array(_upright(image.convert("RGB"), found.orientation), np.uint8)
    assert array.ndim == 3
    return luma(array) if channels == 1 else array


def channels_of(shape: Sequence[Any], layout: str) -> int:
    """What a picture is made into for an input of this shape: 1 (grey) where it has one channel,
    else 3 (RGB)."""
    axis = 3 if layout == "nhwc" else 1
    return 1 if len(shape) == 4 and shape[axis] == 1 else 3


def luma(image: Array) -> Array:
    """uint8 [H, W, 3] -> uint8 [H, W, 1]."""
    import numpy as np

    total = sum(image[:, :, c].astype(np.int64) * weight for c, weight in enumerate(_LUMA))
    return np.asarray((total + (1 << 15)) >> 16, np.uint8)[:, :, None]


def pillow_version() -> str:
    """Version of Pillow, whose decoders decide the pixels of a JPEG; [missing-extra] without it."""
    return str(_pillow().__version__)


def _pillow() -> Any:
    try:
        import PIL.Image
    except ImportError:
        raise EdgeqError(
            "missing-extra",
            "reading image files needs `pillow`",
            'pip install "edgeq-runtime[images]"',
        ) from None
    return PIL


@contextmanager
def _opened(path: str | os.PathLike[str]) -> Iterator[tuple[Any, Header]]:
    """The image, opened and not decoded, with its header; what goes wrong inside is told by name.

    Whatever Pillow warns of is either refused here by our own limits or does not change a pixel.
    """
    pil = _pillow()
    name = os.fspath(path)
    with open_plain(name) as file, _blaming(name, pil), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pil.Image.open(file, formats=FORMATS) as image:
            yield image, _header(name, image, file)


def open_plain(name: str) -> BinaryIO:
    """A regular file of bounded size, opened; pipes and devices are not waited for, nor one that
    takes the file's place in between."""
    flags = os.O_RDONLY
    for word in ("O_NONBLOCK", "O_CLOEXEC", "O_BINARY"):
        flags |= getattr(os, word, 0)
    try:
        _check_plain(name, os.stat(name))
        file = os.fdopen(os.open(name, flags), "rb")
        try:
            _check_plain(name, os.fstat(file.fileno()))
        except EdgeqError:
            file.close()
            raise
        return file
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise EdgeqError("bad-image", f"`{name}` cannot be read: {reason or error}") from None


def _check_plain(name: str, status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise EdgeqError("bad-image", f"`{name}` is not a file")
    if status.st_size > MAX_FILE_BYTES:
        raise EdgeqError(
            "bad-image",
            f"`{name}` has {status.st_size} bytes, at most {MAX_FILE_BYTES} are read",
        )


@contextmanager
def _blaming(name: str, pil: Any) -> Iterator[None]:
    """Every error that Pillow has for a file that is not what it seems."""
    try:
        yield
    except pil.UnidentifiedImageError:
        raise EdgeqError(
            "bad-image", f"`{name}` is no image of the formats {', '.join(FORMATS)}"
        ) from None
    except pil.Image.DecompressionBombError as error:
        raise EdgeqError(
            "bad-image", f"`{name}` has too many pixels, at most {MAX_PIXELS} are read"
        ) from error
    except _DAMAGE as error:
        lines = str(error).splitlines() or [type(error).__name__]
        raise EdgeqError("bad-image", f"`{name}` is damaged: {lines[0][:200]}") from error


_DAMAGE = (
    OSError,  # truncated, broken data stream; UnidentifiedImageError is one, and comes before
    SyntaxError,  # a broken PNG, or EXIF
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    ArithmeticError,
    EOFError,
    MemoryError,
    RuntimeError,
    AssertionError,
    struct.error,
    zlib.error,
)


def _header(name: str, image: Any, file: BinaryIO) -> Header:
    width, height = image.size
    if width < 1 or height < 1 or max(width, height) > MAX_SIDE or width * height > MAX_PIXELS:
        raise EdgeqError(
            "bad-image",
            f"`{name}` is {width} x {height}: at most {MAX_PIXELS} pixels are read, and {MAX_SIDE}"
            " a side",
        )
    kind = KINDS.get(image.mode)
    if kind is None:
        raise EdgeqError(
            "bad-image",
            f"`{name}` has pixels of mode {image.mode}, and no one rule makes 8-bit RGB of them",
            "convert it to 8-bit RGB first, as was done for training",
        )
    if kind != PALETTE and "transparency" in image.info:
        kind = ALPHA
    is_one = not getattr(image, "is_animated", False)  # counting the frames is up to the file
    return Header(str(image.format), width, height, kind, _orientation(image, file), is_one)


def _orientation(image: Any, file: BinaryIO) -> int:
    """EXIF's orientation, 1 to 8; anything else is upright. Decodes nothing."""
    if image.format == "PNG" and "exif" not in image.info:
        late = _late_exif(file)
        if late is None:
            return 1  # asking Pillow would decode the whole file to look for it
        image.info["exif"] = late
    value = image.getexif().get(_ORIENTATION, 1)
    return value if type(value) is int and 1 <= value <= 8 else 1


def _late_exif(file: BinaryIO) -> bytes | None:
    """The eXIf chunk of a PNG, wherever it stands; the file's position is left as it was."""
    place = file.tell()
    try:
        file.seek(8)
        while True:
            head = file.read(8)
            if len(head) < 8 or head[4:] == b"IEND":
                return None
            length = int.from_bytes(head[:4], "big")
            if head[4:] == b"eXIf":
                return b"Exif\0\0" + file.read(length)
            file.seek(length + 4, os.SEEK_CUR)
    finally:
        file.seek(place)


def _upright(image: Any, orientation: int) -> Any:
    """Undo what the camera's orientation says: EXIF 2.32, tag 274."""
    from PIL.Image import Transpose

    turn = {
        2: Transpose.FLIP_LEFT_RIGHT,
        3: Transpose.ROTATE_180,
        4: Transpose.FLIP_TOP_BOTTOM,
        5: Transpose.TRANSPOSE,
        6: Transpose.ROTATE_270,
        7: Transpose.TRANSVERSE,
        8: Transpose.ROTATE_90,
    }.get(orientation)
    return image if turn is None else image.transpose(turn)
