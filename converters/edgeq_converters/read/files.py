"""Open the model file: regular, bounded, read once."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from edgeq.errors import EdgeqError

MAX_BYTES = 2**31 - 1
"""A model file, and the external data that is read with it: protobuf's own limit. Of a model with
more (`formats.outside`), large weights stay where they are."""


def read_bounded(path: Path) -> bytes:
    """The bytes of a regular file of at most `MAX_BYTES`; a FIFO or device is never waited for."""
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    except (FileNotFoundError, NotADirectoryError):
        raise EdgeqError("no-such-model", f"there is no file `{path}`") from None
    except (OSError, ValueError) as failure:
        raise EdgeqError("no-such-model", f"{path}: cannot be opened: {reason(failure)}") from None
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        os.close(descriptor)
        raise EdgeqError("not-onnx", f"{path.name} is {_kind(status.st_mode)}, not an ONNX file")
    with os.fdopen(descriptor, "rb") as file:
        refuse_size(path.name, status.st_size)
        data = file.read(status.st_size + 1)  # one more, to notice a file that grows
    refuse_size(path.name, len(data))
    return data


def refuse_size(name: str, size: int) -> None:
    """Raise `[model-too-large]` above `MAX_BYTES`."""
    if size > MAX_BYTES:
        raise EdgeqError(
            "model-too-large",
            f"{name}: {size:,} bytes in one file or small tensors; at most {MAX_BYTES:,} are read",
        )


def reason(failure: OSError | ValueError) -> str:
    """Why the operating system said no, without the path."""
    return str(getattr(failure, "strerror", None) or failure).lower()


def _kind(mode: int) -> str:
    kinds = {stat.S_IFDIR: "a folder", stat.S_IFIFO: "a named pipe", stat.S_IFSOCK: "a socket"}
    return kinds.get(stat.S_IFMT(mode), "a device")
