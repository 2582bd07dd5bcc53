"""Models whose weights do not fit into one file of 2 GB: they lie in files beside it."""

from __future__ import annotations


class ModelBytes(bytes):
    """A model file in memory whose external data lies in files under `folder`.

    Whoever makes one has checked that the locations in it stay inside that folder; the engine opens
    the files itself, by name, and maps them.
    """

    folder: str
    weights_bytes: int

    @classmethod
    def beside(cls, data: bytes, folder: str, weights_bytes: int) -> ModelBytes:
        """`data` with `weights_bytes` of weights in `folder`, an absolute path."""
        made = cls(data)
        made.folder = folder
        made.weights_bytes = weights_bytes
        return made


def folder_of(model: object) -> str | None:
    """Where the weights of `model` lie; None for any other bytes or path."""
    return model.folder if isinstance(model, ModelBytes) else None


def file_bytes(model: bytes) -> int:
    """What the model takes on disk, its weights in other files included."""
    return len(model) + (model.weights_bytes if isinstance(model, ModelBytes) else 0)
