"""Sources of samples: anything `--data` may be, as an iterable of feeds the model can take.

The leading axis of an array is the sample axis. Where the model's own leading axis is dynamic (or
1), a feed holds one sample; where it is fixed at b, a feed holds b samples in order, and a
remainder is dropped and counted. An array with one axis more than the input holds whole feeds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeq.data import images
from edgeq.data.feeds import (
    Batcher,
    Feed,
    Source,
    Specs,
    Tally,
    batch_of,
    evenly_spaced,
    nameless,
    samples_text,
    short,
)
from edgeq.data.fitting import (
    LABELS,
    ItemFit,
    fit_item,
    fits,
    match_names,
    refuse_shape,
    renamings,
)
from edgeq.data.folders import open_folder, open_images
from edgeq.data.functions import (
    calling,
    is_function_spec,
    iterate,
    name_of,
    open_function,
    place_of,
)
from edgeq.data.npy import MemoryRows, Rows, open_npy, open_npz
from edgeq.errors import EdgeqError
from edgeq_runtime.preprocess import InputSpec
from edgeq_runtime.tensors import TensorInfo

Data = str | Path | NDArray[Any] | Mapping[str, NDArray[Any]] | Callable[[], Any]


def open_source(
    spec: Data,
    *,
    inputs: Sequence[TensorInfo],
    specs: Specs | None = None,
    limit: int | None = None,
    unused: Sequence[str] = (),
) -> Source:
    """Open what `--data` names and check it against the model's inputs, loading no samples.

    `spec`: a .npz, a .npy, a folder of .npy or of images, an image file, `file.py:function`, an
    array, a dict of arrays, or a callable. `limit` samples are taken, evenly spaced over a source
    of known length, the first ones of a function. `unused` names arrays of an .npz that are not
    meant for the model.
    """
    specs = specs or {}
    if isinstance(spec, str | Path):
        return _open_path(str(spec), inputs, specs, limit, unused)
    if isinstance(spec, np.ndarray):
        spec = {nameless(inputs): spec}
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
        return open_folder(path, inputs, specs, limit)
    if not path.exists():
        raise EdgeqError("bad-data", f"{spec}: no such file or folder")
    suffix = path.suffix.lower()
    if suffix == ".npz":
        return stacked(open_npz(path), inputs, specs, limit, spec, unused)
    if suffix == ".npy":
        name = path.stem if path.stem == LABELS else nameless(inputs)
        return stacked({name: open_npy(path)}, inputs, specs, limit, spec, unused)
    if images.is_image(path):
        return open_images(images.Folder((path,)), inputs, specs, limit, spec)
    raise EdgeqError(
        "bad-data",
        f"{spec} is neither an .npz, a .npy, an image, a folder of .npy or images, nor"
        " file.py:function",
        "numpy.savez('calib.npz', " + ", ".join(f"{info.name}=..." for info in inputs[:3]) + ")",
    )


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
            f"{samples_text(left_over)} of {short(where)} dropped: the model's batch is {group}"
        )
    if len(indices) < feeds:
        notes.append(f"{len(indices) * group} of {feeds * group} samples used, evenly spaced")

    def make(tally: Tally) -> Iterator[Feed]:
        tally.skipped = left_over
        parts = [column.read(indices, where) for column in columns.values()]
        for arrays in zip(*parts, strict=True):
            yield dict(zip(columns, arrays, strict=True))

    return Source(
        short(where), len(indices), tuple(notes), make, group, tally=Tally(skipped=left_over)
    )


def _column(rows: Rows, info: TensorInfo, spec: InputSpec | None, where: str) -> _Column:
    shape, rank = rows.shape, len(info.shape)
    if len(shape) == 4 and rank == 4 and spec is not None:
        fit = fit_item(info, rows.dtype, shape[1:], spec, where)
        if fit.spec is not None:
            return _Column(rows, fit, batch_of(info))
    if len(shape) == rank >= 1 and fits(shape[1:], info.shape[1:]):
        return _Column(rows, fit_item(info, rows.dtype, shape[1:], spec, where), batch_of(info))
    if len(shape) == rank + 1 and fits(shape[1:], info.shape):
        return _Column(rows, fit_item(info, rows.dtype, shape[2:], spec, where), 0)
    wanted = TensorInfo(info.name, info.dtype, ("samples", *info.shape[1:])).describe()
    raise refuse_shape(info, rows.dtype, shape, where, wanted if rank else None)


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
        raise EdgeqError("bad-data", f"{where} holds {samples_text(have)}{need}")
    return feeds


# -- items one by one: files of a folder, what a function yields ---------------------------------


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
    batcher = Batcher(inputs, specs, where)
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
        again = Batcher(inputs, specs, where)
        yield from _limited(iterate(function, items), again, limit, tally)

    return Source(short(where), None, tuple(batcher.notes), make)


def _again(
    function: Callable[[], Any], batcher: Batcher, limit: int | None
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
        return {nameless(inputs): _memory("array", result)}
    if isinstance(result, Mapping):
        return {str(name): _memory(name, array) for name, array in result.items()}
    if isinstance(result, Iterable) and not isinstance(result, str | bytes):
        return result
    raise EdgeqError(
        "bad-function",
        f"{place_of(function)}: `{where}` returned {type(result).__name__}, not arrays or samples",
    )


def _limited(
    items: Iterable[object], batcher: Batcher, limit: int | None, tally: Tally
) -> Iterator[Feed]:
    taken = 0
    for index, item in enumerate(items):
        for feed in batcher.feeds(item, f"{batcher.where}: sample {index}"):
            yield feed
            taken += max((batch_of(info) for info in batcher.inputs), default=1)
            if limit is not None and taken >= limit:
                return
    tally.skipped = len(batcher.waiting)
