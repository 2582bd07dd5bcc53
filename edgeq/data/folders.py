"""Folders as sources: one sample a file, .npy arrays or images. Files go by their names' order."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from edgeq.data import images
from edgeq.data.feeds import (
    Batcher,
    Feed,
    Source,
    Specs,
    Tally,
    batch_of,
    evenly_spaced,
    samples_text,
    short,
)
from edgeq.data.fitting import fit_item, fits, refuse_shape
from edgeq.data.npy import StoredRows, open_npy
from edgeq.errors import EdgeqError
from edgeq_runtime.tensors import TensorInfo

MAX_FILES = 1_000_000


def _common_names(
    columns: Mapping[str, Mapping[str, Path]], inputs: Sequence[TensorInfo], folder: Path
) -> list[str]:
    """The file names, in order, which are the same for every input."""
    names = sorted(columns[inputs[0].name])
    for info in inputs[1:]:
        odd = sorted(set(names) ^ set(columns[info.name]))
        if odd:
            raise EdgeqError(
                "data-mismatch",
                f"{folder}: `{odd[0]}` is not there for every input",
                "give each input the same file names",
            )
    return names


def open_folder(
    folder: Path, inputs: Sequence[TensorInfo], specs: Specs, limit: int | None
) -> Source:
    """A folder of images or of .npy files."""
    pictures = _image_folder(folder, inputs)
    if pictures is not None:
        return open_images(images.open_folder(pictures), inputs, specs, limit, str(folder))
    return _open_arrays(folder, inputs, specs, limit)


def _open_arrays(
    folder: Path, inputs: Sequence[TensorInfo], specs: Specs, limit: int | None
) -> Source:
    """One sample a file: `folder/*.npy` for one input, `folder/INPUT/*.npy` with equal file names
    for several. Files are taken in the order of their names.
    """
    columns = _folder_columns(folder, inputs)
    names = _common_names(columns, inputs, folder)
    chosen = [names[index] for index in evenly_spaced(len(names), limit)]
    notes = (
        []
        if len(chosen) == len(names)
        else [f"{len(chosen)} of {len(names)} files used, evenly spaced"]
    )
    files = [{info.name: open_npy(columns[info.name][name]) for info in inputs} for name in chosen]
    probe = Batcher(inputs, specs, str(folder))
    for name, item in zip(chosen, files, strict=True):
        notes += [
            note for note in _check_file(item, probe, f"{folder / name}") if note not in notes
        ]
    batch = max((batch_of(info) for info in inputs), default=1)

    def make(tally: Tally) -> Iterator[Feed]:
        batcher = Batcher(inputs, specs, str(folder))
        for name, item in zip(chosen, files, strict=True):
            arrays = {key: rows.whole() for key, rows in item.items()}
            yield from batcher.feeds(arrays, str(folder / name))
        tally.skipped = len(batcher.waiting)

    whole = all(fits(rows.shape, info.shape) for info in inputs for rows in (files[0][info.name],))
    count = len(files) if whole else len(files) // batch
    if not whole and len(files) % batch:
        notes.append(
            f"{samples_text(len(files) % batch)} of {short(folder.resolve())} dropped:"
            f" the model's batch is {batch}"
        )
    if count == 0:
        raise EdgeqError(
            "bad-data",
            f"{folder} holds {samples_text(len(files))}, and the model's batch is {batch}",
        )
    return Source(short(folder.resolve()), count, tuple(notes), make)


def _check_file(item: Mapping[str, StoredRows], probe: Batcher, place: str) -> Iterator[str]:
    """Check one file's header against the model: what does not fit is found before any work."""
    for info in probe.inputs:
        rows = item[info.name]
        fit = fit_item(info, rows.dtype, rows.shape[-3:], probe.specs.get(info.name), place)
        if fit.note:
            yield fit.note
        if fit.spec is not None and len(rows.shape) == 3:
            continue
        whole = fits(rows.shape, info.shape) and (not rows.shape or rows.shape[0] == batch_of(info))
        if not whole and not (info.shape and fits(rows.shape, info.shape[1:])):
            sample = TensorInfo(info.name, info.dtype, info.shape[1:]).describe()
            raise refuse_shape(info, rows.dtype, rows.shape, place, f"one sample a file, {sample}")


def _folder_columns(folder: Path, inputs: Sequence[TensorInfo]) -> dict[str, dict[str, Path]]:
    """The .npy files of each input by file name."""
    if len(inputs) == 1 and not _has_folder(folder, inputs[0].name):
        return {inputs[0].name: _files(folder)}
    missing = [info.name for info in inputs if not _has_folder(folder, info.name)]
    if missing:
        raise EdgeqError(
            "data-mismatch",
            f"{folder} has no folder for input {', '.join(f'`{name}`' for name in missing)}",
            f"put the samples of each input in {folder}/INPUT/*.npy, with equal file names",
        )
    return {info.name: _files(folder / info.name) for info in inputs}


def _has_folder(folder: Path, name: str) -> bool:
    """Whether `name` is a plain folder name there: the model's names come from a stranger too."""
    plain = Path(name).name == name and name != ".."
    return plain and (folder / name).is_dir()


def _files(folder: Path) -> dict[str, Path]:
    entries = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    files = {path.name: path for path in entries if path.suffix == ".npy"}
    others = [path.name for path in entries if path.suffix != ".npy"]
    if others:
        what = "neither a .npy file, nor an image, nor a folder of images"
        raise EdgeqError("bad-data", f"{folder}: `{others[0]}` is {what}")
    if not files:
        raise EdgeqError("bad-data", f"{folder} holds no .npy files and no images")
    if len(files) > MAX_FILES:
        raise EdgeqError("bad-data", f"{folder} holds {len(files)} files, more than {MAX_FILES}")
    return files


# -- images -------------------------------------------------------------------------------------


def _image_folder(folder: Path, inputs: Sequence[TensorInfo]) -> Path | None:
    """Where the images of a folder lie, if it holds any: in it, or in the one folder of the input.

    Images beside .npy files are refused.
    """
    entries = [path for path in folder.iterdir() if not path.name.startswith(".")]
    alone = len(entries) == 1 and len(inputs) == 1 and _has_folder(folder, inputs[0].name)
    place = entries[0] if alone else folder
    if not images.holds_images(place):
        return None
    arrays = sorted(path.name for path in place.iterdir() if path.suffix == ".npy")
    if arrays:
        raise EdgeqError(
            "bad-data",
            f"{place} holds images and .npy files, `{arrays[0]}` for one",
            "keep them in folders of their own",
        )
    return place


def open_images(
    folder: images.Folder, inputs: Sequence[TensorInfo], specs: Specs, limit: int | None, where: str
) -> Source:
    """A source of image files: each decoded when its turn comes, and preprocessed as `specs` say.

    Every header is looked at first, so that what is no image is told before any work.
    """
    info = _only_input(inputs, where)
    group = batch_of(info)
    spec = images.required_spec(info, specs.get(info.name), where)
    channels = images.channels_of(info.shape, spec.layout)
    picked = folder.chosen(evenly_spaced(len(folder.files), limit))
    count, left_over = divmod(len(picked.files), group)
    if count == 0:
        have = samples_text(len(picked.files))
        raise EdgeqError("bad-data", f"{where} holds {have}, and the model's batch is {group}")

    def make(tally: Tally) -> Iterator[Feed]:
        batcher = Batcher(inputs, specs, where)
        for path in picked.files:
            yield from batcher.feeds({info.name: images.decode(path, channels)}, str(path))
        tally.skipped = len(batcher.waiting)

    used = count * group
    return Source(
        description=short(Path(where).resolve()),
        count=count,
        notes=(
            *images.look(picked.files, channels),
            *_image_notes(info, folder, picked, left_over),
        ),
        make=make,
        group=group,
        names=tuple(short(path) for path in picked.files[:used]),
        classes=picked.classes,
        labels=picked.labels[:used],
        tally=Tally(skipped=left_over),
    )


def _only_input(inputs: Sequence[TensorInfo], where: str) -> TensorInfo:
    if len(inputs) == 1:
        return inputs[0]
    names = ", ".join(f"`{info.name}`" for info in inputs)
    raise EdgeqError(
        "data-mismatch",
        f"{where} holds images, and the model has {len(inputs)} inputs: {names}",
        "give arrays by name: an .npz or `file.py:function`",
    )


def _image_notes(
    info: TensorInfo, folder: images.Folder, picked: images.Folder, left_over: int
) -> Iterator[str]:
    yield f"input `{info.name}`: preprocessed as `[input.{info.name}]` says"
    if len(picked.files) < len(folder.files):
        yield f"{len(picked.files)} of {len(folder.files)} images used, evenly spaced"
    if left_over:
        yield f"{samples_text(left_over)} dropped: the model's batch is {batch_of(info)}"
