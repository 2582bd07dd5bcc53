"""Sources of samples: anything `--data` may be, as an iterable of feeds the model can take.

The leading axis of an array is the sample axis. Where the model's own leading axis is dynamic (or
1), a feed holds one sample; where it is fixed at b, a feed holds b samples in order, and a
remainder is dropped and counted. An array with one axis more than the input holds whole feeds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeq.data.fitting import (
    LABELS,
    ItemFit,
    fit_item,
    fits,
    match_names,
    refuse_shape,
    renamings,
)
from edgeq.data.functions import (
    calling,
    is_function_spec,
    iterate,
    name_of,
    open_function,
    place_of,
)
from edgeq.data.npy import MemoryRows, Rows, StoredRows, open_npy, open_npz
from edgeq.errors import EdgeqError
from edgeq_runtime.preprocess import InputSpec
from edgeq_runtime.tensors import Dimension, TensorInfo

Feed = dict[str, NDArray[Any]]
Specs = Mapping[str, InputSpec]
Data = str | Path | NDArray[Any] | Mapping[str, NDArray[Any]] | Callable[[], Any]

MAX_FILES = 1_000_000
IMAGE_SUFFIXES = frozenset(
    {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm"}
)


@dataclass
class Tally:
    """What the last whole pass over a source counted."""

    feeds: int = 0
    skipped: int = 0


@dataclass(frozen=True)
class Source:
    """Feeds for a model: iterate over it, as often as you like, for dicts of name -> array.

    `count` is the number of feeds, None where only a pass can tell (functions); a feed holds
    `group` samples. `description` is one phrase for a report; `notes` are casts, preprocessing
    and choices, each to be told.
    """

    description: str
    count: int | None
    notes: tuple[str, ...]
    make: Callable[[Tally], Iterator[Feed]] = field(repr=False)
    group: int = 1
    tally: Tally = field(default_factory=Tally, repr=False)

    @property
    def skipped(self) -> int:
        """Samples left out because they do not fill a batch; of a function, in its last pass."""
        return self.tally.skipped

    def __iter__(self) -> Iterator[Feed]:
        now = Tally()
        for feed in self.make(now):
            now.feeds += 1
            yield feed
        if now.feeds == 0:
            raise EdgeqError("bad-data", f"{self.description} holds no samples")
        self.tally.feeds, self.tally.skipped = now.feeds, now.skipped


def open_source(
    spec: Data,
    *,
    inputs: Sequence[TensorInfo],
    specs: Specs | None = None,
    limit: int | None = None,
    unused: Sequence[str] = (),
) -> Source:
    """Open what `--data` names and check it against the model's inputs, loading no samples.

    `spec`: a .npz, a .npy, a folder of .npy, `file.py:function`, an array, a dict of arrays, or a
    callable. `limit` samples are taken, evenly spaced over a source of known length, the first
    ones of a function. `unused` names arrays of an .npz that are not meant for the model.
    """
    specs = specs or {}
    if isinstance(spec, str | Path):
        return _open_path(str(spec), inputs, specs, limit, unused)
    if isinstance(spec, np.ndarray):
        spec = {_nameless(inputs): spec}
    if isinstance(spec, Mapping):
        arrays = {str(name): _memory(name, array) for name, array in spec.items()}
        return stacked(arrays, inputs, specs, limit, "the arrays given", unused)
    if callable(spec):
        return from_function(spec, inputs, specs, limit, name_of(spec))
    raise EdgeqError(
        "bad-data", f"data is a {type(spec).__name__}, neither a path, arrays nor a function"
    )


def _open_path(
    spec: str, inputs: Sequence[TensorInfo], specs: Specs, limit: int | None, unused: Sequence[str]
) -> Source:
    if is_function_spec(spec):
        return from_function(open_function(spec), inputs, specs, limit, spec)
    path = Path(spec)
    if path.is_dir():
        return _folder(path, inputs, specs, limit)
    if not path.exists():
        raise EdgeqError("bad-data", f"{spec}: no such file or folder")
    suffix = path.suffix.lower()
    if suffix == ".npz":
        return stacked(open_npz(path), inputs, specs, limit, spec, unused)
    if suffix == ".npy":
        name = path.stem if path.stem == LABELS else _nameless(inputs)
        return stacked({name: open_npy(path)}, inputs, specs, limit, spec, unused)
    if suffix in IMAGE_SUFFIXES:
        raise _no_decoding(spec, inputs, specs)
    raise EdgeqError(
        "bad-data",
        f"{spec} is neither an .npz, a .npy, a folder of .npy nor file.py:function",
        "numpy.savez('calib.npz', " + ", ".join(f"{info.name}=..." for info in inputs[:3]) + ")",
    )


def _nameless(inputs: Sequence[TensorInfo]) -> str:
    """What an array without a name is called: as the only input, where there is only one."""
    return inputs[0].name if len(inputs) == 1 else "array"


def _memory(name: object, array: object) -> MemoryRows:
    values = np.asarray(array)
    if values.dtype.kind not in "biufU":
        raise EdgeqError(
            "bad-data", f"array `{name}` has the type {values.dtype}, which no model takes"
        )
    return MemoryRows(values)


# -- arrays with a sample axis ------------------------------------------------------------------


@dataclass(frozen=True)
class _Column:
    """One array with a sample axis, and how its rows become an input's part of a feed.

    `group` samples make a feed; 0 says that one row of the array is a whole feed.
    """

    rows: Rows
    fit: ItemFit
    group: int

    @property
    def feeds(self) -> int:
        return self.rows.shape[0] // max(1, self.group)

    def read(self, indices: Sequence[int], where: str) -> Iterator[NDArray[Any]]:
        length = max(1, self.group)
        starts = [index * length for index in indices]
        for start, block in zip(starts, self.rows.blocks(starts, length), strict=True):
            place = f"{where}: sample {start}" if length == 1 else f"{where}: samples from {start}"
            yield self._part(block, place)

    def _part(self, block: NDArray[Any], place: str) -> NDArray[Any]:
        if self.fit.spec is not None:
            samples = np.stack([self.fit.convert(image, place) for image in block])
            if not fits(samples.shape, (None, *self.fit.info.shape[1:])):
                raise refuse_shape(self.fit.info, samples.dtype, samples.shape, place)
            return samples
        return self.fit.convert(block if self.group else block[0], place)


def stacked(
    arrays: Mapping[str, Rows],
    inputs: Sequence[TensorInfo],
    specs: Specs,
    limit: int | None,
    where: str,
    unused: Sequence[str] = (),
) -> Source:
    """A source of arrays whose leading axis counts samples (or whole feeds), read row by row."""
    names, extra = match_names(arrays, inputs, where, unused)
    columns = {
        info.name: _column(arrays[names[info.name]], info, specs.get(info.name), where)
        for info in inputs
    }
    feeds = _common_count(columns, where)
    group = max(1, *(column.group for column in columns.values())) if columns else 1
    indices = evenly_spaced(feeds, None if limit is None else max(1, limit // group))
    notes = renamings(names)
    notes += [column.fit.note for column in columns.values() if column.fit.note]
    notes += [f"array `{name}` of {short(where)} is no input and is not used" for name in extra]
    left_over = max(
        (c.rows.shape[0] - feeds * c.group for c in columns.values() if c.group), default=0
    )
    if left_over:
        notes.append(
            f"{_samples(left_over)} of {short(where)} dropped: the model's batch is {group}"
        )
    if len(indices) < feeds:
        notes.append(f"{len(indices) * group} of {feeds * group} samples used, evenly spaced")

    def make(tally: Tally) -> Iterator[Feed]:
        tally.skipped = left_over
        parts = [column.read(indices, where) for column in columns.values()]
        for arrays in zip(*parts, strict=True):
            yield dict(zip(columns, arrays, strict=True))

    return Source(short(where), len(indices), tuple(notes), make, group, Tally(skipped=left_over))


def _column(rows: Rows, info: TensorInfo, spec: InputSpec | None, where: str) -> _Column:
    shape, rank = rows.shape, len(info.shape)
    if len(shape) == 4 and rank == 4 and spec is not None:
        fit = fit_item(info, rows.dtype, shape[1:], spec, where)
        if fit.spec is not None:
            return _Column(rows, fit, _batch(info))
    if len(shape) == rank >= 1 and fits(shape[1:], info.shape[1:]):
        return _Column(rows, fit_item(info, rows.dtype, shape[1:], spec, where), _batch(info))
    if len(shape) == rank + 1 and fits(shape[1:], info.shape):
        return _Column(rows, fit_item(info, rows.dtype, shape[2:], spec, where), 0)
    wanted = TensorInfo(info.name, info.dtype, ("samples", *info.shape[1:])).describe()
    raise refuse_shape(info, rows.dtype, shape, where, wanted if rank else None)


def _batch(info: TensorInfo) -> int:
    """Samples per feed: the model's fixed leading size, or 1 where it takes any."""
    size: Dimension = info.shape[0] if info.shape else 1
    return size if isinstance(size, int) else 1


def _common_count(columns: Mapping[str, _Column], where: str) -> int:
    counts = {name: column.feeds for name, column in columns.items()}
    if len(set(counts.values())) > 1:
        text = ", ".join(f"`{name}` {columns[name].rows.shape[0]}" for name in counts)
        raise EdgeqError(
            "data-mismatch", f"{where}: the inputs have different numbers of samples: {text}"
        )
    feeds = next(iter(counts.values()), 0)
    if feeds == 0:
        smallest = max((column.group for column in columns.values()), default=1)
        need = f", and the model's batch is {smallest}" if smallest > 1 else ""
        have = next((column.rows.shape[0] for column in columns.values()), 0)
        raise EdgeqError("bad-data", f"{where} holds {_samples(have)}{need}")
    return feeds


def short(where: str) -> str:
    """A source's name for reports, without its folder: results must not depend on where it lies."""
    return Path(where).name


def _samples(count: int) -> str:
    return f"{count or 'no'} sample{'' if count == 1 else 's'}"


def evenly_spaced(count: int, limit: int | None) -> list[int]:
    """At most `limit` of range(count), the first included, at an even stride, ascending."""
    if limit is None or limit >= count:
        return list(range(count))
    return [index * count // limit for index in range(limit)]


# -- items one by one: files of a folder, what a function yields ---------------------------------


@dataclass
class _Batcher:
    """Turns items into feeds: whole feeds pass, samples are gathered to the model's batch."""

    inputs: Sequence[TensorInfo]
    specs: Specs
    where: str
    notes: dict[str, None] = field(default_factory=dict)
    waiting: list[Feed] = field(default_factory=list)

    def feeds(self, item: object, place: str) -> Iterator[Feed]:
        arrays = self._arrays(item, place)
        parts = {info.name: self._part(arrays[info.name], info, place) for info in self.inputs}
        whole = {name for name, (array, is_sample) in parts.items() if not is_sample}
        feed = {name: array for name, (array, _) in parts.items()}
        if len(whole) == len(feed):
            yield from self._split(feed)
        elif all(_batch(info) == 1 for info in self.inputs if info.name not in whole):
            yield {name: feed[name] if name in whole else feed[name][None] for name in feed}
        elif whole:
            raise EdgeqError(
                "data-mismatch", f"{place}: some inputs are whole batches, others samples"
            )
        else:
            yield from self._gather(feed)

    def _arrays(self, item: object, place: str) -> dict[str, NDArray[Any]]:
        if isinstance(item, Mapping):
            values = {str(name): np.asarray(value) for name, value in item.items()}
        else:
            values = {_nameless(self.inputs): np.asarray(item)}
        names, extra = match_names(values, self.inputs, place)
        for note in renamings(names):
            self.notes[note] = None
        for name in extra:
            self.notes[f"array `{name}` of {short(self.where)} is no input and is not used"] = None
        return {name: values[array] for name, array in names.items()}

    def _part(self, array: NDArray[Any], info: TensorInfo, place: str) -> tuple[NDArray[Any], bool]:
        """The array in the model's dtype, and whether it is a sample (it lacks the batch axis)."""
        if array.dtype.kind not in "biufU":
            raise EdgeqError("bad-data", f"{place}: array `{info.name}` has the type {array.dtype}")
        fit = fit_item(info, array.dtype, array.shape[-3:], self.specs.get(info.name), place)
        if fit.note:
            self.notes[fit.note] = None
        if fit.spec is not None and array.ndim in (3, 4):
            images = [
                fit.convert(image, place) for image in (array if array.ndim == 4 else [array])
            ]
            array = np.stack(images) if array.ndim == 4 else images[0]
        else:
            array = fit.convert(array, place)
        if fits(array.shape, info.shape):
            return array, False
        if info.shape and fits(array.shape, info.shape[1:]):
            return array, True
        raise refuse_shape(info, array.dtype, array.shape, place)

    def _split(self, feed: Feed) -> Iterator[Feed]:
        """One sample a feed where the model takes any batch; a fixed batch passes as it is."""
        free = all(info.shape and not isinstance(info.shape[0], int) for info in self.inputs)
        sizes = {array.shape[0] for array in feed.values() if array.ndim}
        if not free or len(sizes) != 1:
            yield feed
            return
        for index in range(sizes.pop()):
            yield {name: array[index : index + 1] for name, array in feed.items()}

    def _gather(self, sample: Feed) -> Iterator[Feed]:
        sizes = {_batch(info) for info in self.inputs}
        if len(sizes) != 1:
            raise EdgeqError(
                "data-mismatch",
                f"{self.where}: the model's inputs have different batches; give whole feeds",
            )
        self.waiting.append(sample)
        if len(self.waiting) == sizes.pop():
            ready, self.waiting = self.waiting, []
            yield {name: np.stack([item[name] for item in ready]) for name in sample}


def from_function(
    function: Callable[[], Any],
    inputs: Sequence[TensorInfo],
    specs: Specs,
    limit: int | None,
    where: str,
) -> Source:
    """A source of what a function returns: arrays with a sample axis, or items that it yields.

    It is called anew for every pass, and once here for its first item, so that a mistake is found
    before any work. The count is known only after a pass.
    """
    batcher = _Batcher(inputs, specs, where)
    probe = _call(function, inputs, where)
    if isinstance(probe, Mapping):
        return replace(
            stacked(probe, inputs, specs, limit, where), make=_again(function, batcher, limit)
        )
    if next(_limited(iterate(function, probe), batcher, limit, Tally()), None) is None:
        raise EdgeqError("bad-data", f"{where} gives no samples")

    def make(tally: Tally) -> Iterator[Feed]:
        items = _call(function, inputs, where)
        if items is probe and isinstance(items, Iterator):
            raise EdgeqError(
                "bad-function",
                f"{place_of(function)}: `{where}` returns the same iterator at every call",
                "write it as a generator (with yield), or return a list",
            )
        again = _Batcher(inputs, specs, where)
        yield from _limited(iterate(function, items), again, limit, tally)

    return Source(short(where), None, tuple(batcher.notes), make)


def _again(
    function: Callable[[], Any], batcher: _Batcher, limit: int | None
) -> Callable[[Tally], Iterator[Feed]]:
    """Feeds of a function that returns whole arrays, fetched anew for each pass."""

    def make(tally: Tally) -> Iterator[Feed]:
        arrays = _call(function, batcher.inputs, batcher.where)
        assert isinstance(arrays, Mapping)
        yield from stacked(arrays, batcher.inputs, batcher.specs, limit, batcher.where).make(tally)

    return make


def _call(
    function: Callable[[], Any], inputs: Sequence[TensorInfo], where: str
) -> Mapping[str, Rows] | Iterable[object]:
    """What a data function returns: its arrays as rows, or its items as an iterable."""
    with calling(function):
        result = function()
    if isinstance(result, np.ndarray):
        return {_nameless(inputs): _memory("array", result)}
    if isinstance(result, Mapping):
        return {str(name): _memory(name, array) for name, array in result.items()}
    if isinstance(result, Iterable) and not isinstance(result, str | bytes):
        return result
    raise EdgeqError(
        "bad-function",
        f"{place_of(function)}: `{where}` returned {type(result).__name__}, not arrays or samples",
    )


def _limited(
    items: Iterable[object], batcher: _Batcher, limit: int | None, tally: Tally
) -> Iterator[Feed]:
    taken = 0
    for index, item in enumerate(items):
        for feed in batcher.feeds(item, f"{batcher.where}: sample {index}"):
            yield feed
            taken += max((_batch(info) for info in batcher.inputs), default=1)
            if limit is not None and taken >= limit:
                return
    tally.skipped = len(batcher.waiting)


# -- folders ------------------------------------------------------------------------------------


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


def _folder(folder: Path, inputs: Sequence[TensorInfo], specs: Specs, limit: int | None) -> Source:
    """One sample a file: `folder/*.npy` for one input, `folder/INPUT/*.npy` with equal file names
    for several. Files are taken in the order of their names.
    """
    columns = _folder_columns(folder, inputs, specs)
    names = _common_names(columns, inputs, folder)
    chosen = [names[index] for index in evenly_spaced(len(names), limit)]
    notes = (
        []
        if len(chosen) == len(names)
        else [f"{len(chosen)} of {len(names)} files used, evenly spaced"]
    )
    files = [{info.name: open_npy(columns[info.name][name]) for info in inputs} for name in chosen]
    probe = _Batcher(inputs, specs, str(folder))
    for name, item in zip(chosen, files, strict=True):
        notes += [
            note for note in _check_file(item, probe, f"{folder / name}") if note not in notes
        ]
    batch = max((_batch(info) for info in inputs), default=1)

    def make(tally: Tally) -> Iterator[Feed]:
        batcher = _Batcher(inputs, specs, str(folder))
        for name, item in zip(chosen, files, strict=True):
            arrays = {key: rows.whole() for key, rows in item.items()}
            yield from batcher.feeds(arrays, str(folder / name))
        tally.skipped = len(batcher.waiting)

    whole = all(fits(rows.shape, info.shape) for info in inputs for rows in (files[0][info.name],))
    count = len(files) if whole else len(files) // batch
    if not whole and len(files) % batch:
        notes.append(
            f"{_samples(len(files) % batch)} of {folder.resolve().name} dropped:"
            f" the model's batch is {batch}"
        )
    if count == 0:
        raise EdgeqError(
            "bad-data", f"{folder} holds {_samples(len(files))}, and the model's batch is {batch}"
        )
    return Source(folder.resolve().name, count, tuple(notes), make)


def _check_file(item: Mapping[str, StoredRows], probe: _Batcher, place: str) -> Iterator[str]:
    """Check one file's header against the model: what does not fit is found before any work."""
    for info in probe.inputs:
        rows = item[info.name]
        fit = fit_item(info, rows.dtype, rows.shape[-3:], probe.specs.get(info.name), place)
        if fit.note:
            yield fit.note
        if fit.spec is not None and len(rows.shape) == 3:
            continue
        whole = fits(rows.shape, info.shape) and (not rows.shape or rows.shape[0] == _batch(info))
        if not whole and not (info.shape and fits(rows.shape, info.shape[1:])):
            sample = TensorInfo(info.name, info.dtype, info.shape[1:]).describe()
            raise refuse_shape(info, rows.dtype, rows.shape, place, f"one sample a file, {sample}")


def _folder_columns(
    folder: Path, inputs: Sequence[TensorInfo], specs: Specs
) -> dict[str, dict[str, Path]]:
    """The .npy files of each input by file name."""
    if len(inputs) == 1 and not _has_folder(folder, inputs[0].name):
        return {inputs[0].name: _files(folder, inputs, specs)}
    missing = [info.name for info in inputs if not _has_folder(folder, info.name)]
    if missing:
        raise EdgeqError(
            "data-mismatch",
            f"{folder} has no folder for input {', '.join(f'`{name}`' for name in missing)}",
            f"put the samples of each input in {folder}/INPUT/*.npy, with equal file names",
        )
    return {info.name: _files(folder / info.name, inputs, specs) for info in inputs}


def _has_folder(folder: Path, name: str) -> bool:
    """Whether `name` is a plain folder name there: the model's names come from a stranger too."""
    plain = Path(name).name == name and name != ".."
    return plain and (folder / name).is_dir()


def _files(folder: Path, inputs: Sequence[TensorInfo], specs: Specs) -> dict[str, Path]:
    entries = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    files = {path.name: path for path in entries if path.suffix == ".npy"}
    images = [path for path in entries if path.suffix.lower() in IMAGE_SUFFIXES]
    if images:
        raise _no_decoding(str(images[0]), inputs, specs)
    others = [path.name for path in entries if path.suffix != ".npy"]
    if others:
        raise EdgeqError("bad-data", f"{folder}: `{others[0]}` is not a .npy file")
    if not files:
        raise EdgeqError("bad-data", f"{folder} holds no .npy files")
    if len(files) > MAX_FILES:
        raise EdgeqError("bad-data", f"{folder} holds {len(files)} files, more than {MAX_FILES}")
    return files


def _no_decoding(file: str, inputs: Sequence[TensorInfo], specs: Specs) -> EdgeqError:
    name = inputs[0].name
    hint = "store decoded images as uint8 arrays [H, W, C], one .npy file each"
    if not specs:
        return EdgeqError(
            "needs-preprocess",
            f"{file} is an image, and nothing says how it becomes input `{name}`",
            hint,
            f"and describe them in edgeq.toml: [input.{name}] with resize, scale, mean, std",
        )
    return EdgeqError("bad-data", f"{file} is an image file, which edgeq does not decode", hint)
