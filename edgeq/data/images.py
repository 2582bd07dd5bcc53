"""Folders of image files: which files in which order, their classes, and a look at each header.

FOLDER/*.jpg is a flat folder; FOLDER/CLASS/*.jpg has a folder for each class, no deeper. The files
of a class stand together, classes in the order of their names. Decoding is the runtime's.
"""

from __future__ import annotations

import json
import re
import shlex
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from edgeq.data.feeds import short
from edgeq.errors import EdgeqError, MissingExtra
from edgeq_runtime import images
from edgeq_runtime.preprocess import InputSpec
from edgeq_runtime.tensors import TensorInfo

MAX_FILES = 1_000_000
SUFFIXES = images.SUFFIXES


@dataclass(frozen=True)
class Folder:
    """Image files in order; `classes` are the names of class folders, `labels` a class per file.

    Both are empty for a flat folder.
    """

    files: tuple[Path, ...]
    classes: tuple[str, ...] = ()
    labels: tuple[int, ...] = ()

    def chosen(self, indices: Sequence[int]) -> Folder:
        """The files of these indices alone; classes stay as they are."""
        labels = tuple(self.labels[index] for index in indices) if self.labels else ()
        return Folder(tuple(self.files[index] for index in indices), self.classes, labels)


def is_image(path: Path) -> bool:
    """Whether a file is called like an image."""
    return path.suffix.lower() in SUFFIXES


def holds_images(folder: Path) -> bool:
    """Whether a folder holds files called like images, itself or in folders of its own."""
    entries = _entries(folder)
    inner = (entry for sub in entries if sub.is_dir() for entry in _entries(sub))
    return any(is_image(entry) and not entry.is_dir() for entry in chain(entries, inner))


def open_folder(folder: Path) -> Folder:
    """List a folder of images; anything else in it is [bad-data], by name."""
    entries = _entries(folder)
    classes = [entry for entry in entries if entry.is_dir()]
    files = [entry for entry in entries if not entry.is_dir()]
    if classes and files:
        raise EdgeqError(
            "bad-data",
            f"{folder} holds the file `{files[0].name}` beside the class folder"
            f" `{classes[0].name}`",
            "put every image into a class folder, or none",
        )
    if not classes:
        return Folder(_images(folder, files))
    found = [_images(sub, _entries(sub)) for sub in classes]
    labels = [label for label, part in enumerate(found) for _ in part]
    everything = tuple(path for part in found for path in part)
    if len(everything) > MAX_FILES:
        raise EdgeqError("bad-data", f"{folder} holds {len(everything)} files, over {MAX_FILES}")
    return Folder(everything, tuple(short(sub) for sub in classes), tuple(labels))


def _entries(folder: Path) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    except OSError as failure:
        raise EdgeqError("bad-data", f"{folder}: {failure.strerror or failure}") from None


def _images(folder: Path, entries: Sequence[Path]) -> tuple[Path, ...]:
    """The image files of one folder; there is one at least, and nothing else."""
    for entry in entries:
        if entry.is_dir():
            raise EdgeqError(
                "bad-data", f"{folder} is a class folder and holds the folder `{entry.name}`"
            )
        if not is_image(entry):
            raise EdgeqError(
                "bad-data",
                f"{folder}: `{entry.name}` is not an image, by its name",
                "keep other files elsewhere; images are called " + ", ".join(sorted(SUFFIXES)),
            )
    if not entries:
        raise EdgeqError("bad-data", f"{folder} holds no images")
    if len(entries) > MAX_FILES:
        raise EdgeqError("bad-data", f"{folder} holds {len(entries)} files, over {MAX_FILES}")
    return tuple(entries)


def look(files: Sequence[Path], channels: int) -> list[str]:
    """Check every header before any work; returns what decoding will do to how many of them.

    `channels` is 3 for RGB, 1 for grey.

    Raises [bad-image] naming the first file that is not one, [missing-extra] without Pillow.
    """
    kinds: Counter[str] = Counter()
    turned = moving = 0
    version = _pillow_version()
    for path in files:
        header = images.header(path)
        kinds[header.kind] += 1
        turned += header.orientation != 1
        moving += not header.is_one
    notes = [f"images: {_count(len(files), len(files))} decoded by Pillow {version}"]
    colour = len(files) - kinds[images.GREY]
    told = {
        "turned upright as EXIF says": turned,
        "with more frames, of which the first is used": moving,
        "greyscale, repeated to RGB": kinds[images.GREY] if channels == 3 else 0,
        "in colour, turned to grey": colour if channels == 1 else 0,
        **{what: kinds[kind] for kind, what in _KINDS.items()},
    }
    notes += [f"images: {_count(n, len(files))} {what}" for what, n in told.items() if n]
    return notes


_KINDS = {
    images.PALETTE: "of a palette, looked up",
    images.ALPHA: "with alpha, which is left out",
    images.CMYK: "in CMYK, turned to RGB",
}


def _count(count: int, total: int) -> str:
    if count == total:
        return f"{total} image{'' if total == 1 else 's'}"
    return f"{count} of {total} images"


def _pillow_version() -> str:
    try:
        return images.pillow_version()
    except EdgeqError:
        raise MissingExtra("reading image files", "pillow", "images") from None


channels_of = images.channels_of


def decode(path: Path, channels: int) -> NDArray[Any]:
    """uint8 [H, W, channels]; see `edgeq_runtime.images.read`."""
    return images.read(path, channels)


def required_spec(info: TensorInfo, spec: InputSpec | None, where: str) -> InputSpec:
    """The preprocessing of an input that images are given for; it is never guessed."""
    if info.dtype != "float32":
        raise EdgeqError(
            "data-mismatch",
            f"{where} holds images, and input `{info.name}` wants {info.describe()}: images become"
            " float32",
            "give arrays: a folder of .npy, an .npz or `file.py:function`",
        )
    if spec is not None:
        return spec
    raise EdgeqError(
        "needs-preprocess",
        f"{where} holds images, and nothing says how they become input `{info.name}`,"
        f" {info.describe()}",
        f"say it, with the numbers of your training: {_example(info)}",
        "or give arrays that are preprocessed already",
    )


def _example(info: TensorInfo) -> str:
    """A shell line that appends `[input.NAME]` to edgeq.toml, sized as the input is."""
    layout = "nhwc" if len(info.shape) == 4 and info.shape[3] in (1, 3) else "nchw"
    spatial = info.shape[1:3] if layout == "nhwc" else info.shape[2:4]
    sizes = [size if isinstance(size, int) else 224 for size in spatial] or [224, 224]
    colour = images.channels_of(info.shape, layout) == 3
    plain = re.fullmatch(r"[A-Za-z0-9_-]+", info.name)
    rows = (
        f"[input.{info.name if plain else json.dumps(info.name)}]",
        f"resize = {sizes}",
        f"mean = {[0.485, 0.456, 0.406] if colour else 0.5}",
        f"std = {[0.229, 0.224, 0.225] if colour else 0.5}",
        f'layout = "{layout}"',
    )
    return f"printf '%s\\n' {shlex.join(rows)} >> edgeq.toml"
