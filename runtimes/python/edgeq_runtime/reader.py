"""Open a bundle (zip, folder or files in memory) and check every byte of it before it is used."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Union

from edgeq_runtime import archive
from edgeq_runtime import artifact as artifacts
from edgeq_runtime import manifest as manifests
from edgeq_runtime.canonical import damaged
from edgeq_runtime.errors import EdgeqError
from edgeq_runtime.manifest import FileEntry, Manifest
from edgeq_runtime.outside import ModelBytes

Source = Union[str, "os.PathLike[str]", Mapping[str, bytes]]


@dataclass(frozen=True)
class Bundle:
    """A bundle whose every file has the size and digest that its manifest names.

    `files` holds their contents, but for weights beside the artifact: those stay in `folder`,
    where the engine opens them by name after they were checked.
    """

    manifest: Manifest
    files: Mapping[str, bytes]
    folder: str | None = None

    @property
    def artifact(self) -> bytes:
        model, weights = self.files[self.manifest.artifact], self.manifest.weights
        if self.folder is None or weights is None:
            return model
        return ModelBytes.beside(model, self.folder, self.manifest.files[weights].size)

    @property
    def golden(self) -> bytes:
        file = self.manifest.golden.file
        return b"" if file is None else self.files[file]


def read(source: Source) -> Bundle:
    """Read a zip, a folder, or name -> contents. Raises EdgeqError and nothing else, whatever the
    bytes: [not-a-bundle], [damaged-bundle], [bundle-version], [bundle-unreadable]."""
    if isinstance(source, Mapping):
        return _checked(dict(source))
    path = Path(source)
    try:
        return _read_path(path)
    except OSError as error:
        raise EdgeqError(
            "bundle-unreadable", f"cannot read `{path}`: {error.strerror or error}"
        ) from error
    except ValueError as error:  # a NUL in the path
        raise EdgeqError("bundle-unreadable", f"cannot read {str(path)!r}: {error}") from error


def _read_path(path: Path) -> Bundle:
    found: list[Manifest] = []

    def on_manifest(data: bytes) -> None:
        found.append(manifests.parse(data))

    def sizes() -> dict[str, int]:
        return {name: entry.size for name, entry in found[0].files.items()}

    mode = path.stat().st_mode
    try:
        if stat.S_ISDIR(mode):
            files = archive.read_folder(path, on_manifest, sizes, lambda: found[0].weights)
        elif stat.S_ISREG(mode):
            with path.open("rb") as stream:
                files = archive.unpack(stream, on_manifest)
        else:
            raise EdgeqError("not-a-bundle", "not an edgeq bundle: neither a file nor a folder")
    except EdgeqError as error:
        raise EdgeqError(error.slug, f"`{path.name}`: {error.message}", *error.hints) from None
    return _check_digests(found[0], files, path if stat.S_ISDIR(mode) else None)


def _checked(files: dict[str, bytes]) -> Bundle:
    archive.check_names(files)
    return _check_digests(manifests.parse(files[archive.MANIFEST]), files, None)


def _check_digests(manifest: Manifest, files: dict[str, bytes], folder: Path | None) -> Bundle:
    """Exactly the files of the manifest, each with its size and digest."""
    if manifest.weights is not None and folder is None:
        raise damaged(f"`{manifest.weights}` lies beside the model, which only a folder can hold")
    for name in files:
        if name != archive.MANIFEST and name not in manifest.files:
            raise damaged(f"`{name}` is not in the manifest")
    for name, entry in manifest.files.items():
        if folder is not None and name == manifest.weights:
            _check_digest(name, archive.digest_plain(folder / name, entry.size), entry)
            continue
        if name not in files:
            raise damaged(f"`{name}` is missing")
        if len(files[name]) != entry.size:
            raise damaged(f"`{name}` has {len(files[name])} bytes, the manifest says {entry.size}")
        _check_digest(name, hashlib.sha256(files[name]).hexdigest(), entry)
    _check_artifact(manifest, files[manifest.artifact], folder)
    beside = None if manifest.weights is None else os.path.realpath(str(folder))
    return Bundle(manifest, files, beside)


def _check_artifact(manifest: Manifest, data: bytes, folder: Path | None) -> None:
    """It is what the manifest calls it, and refers to nothing but its own weights."""
    weights = manifest.weights
    size = 0 if weights is None else manifest.files[weights].size
    gaps = artifacts.check(data, manifest.artifact, manifest.artifact_format, weights, size)
    if folder is not None and weights is not None:
        archive.check_zeros(folder / weights, gaps)


def _check_digest(name: str, found: str, entry: FileEntry) -> None:
    if found != entry.sha256:
        raise damaged(
            f"`{name}`: sha256 is {found[:12]}..., the manifest says {entry.sha256[:12]}..."
        )
