"""Feeds and where they come from: `Source`, and how single samples are gathered into feeds."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeq.data.fitting import fit_item, fits, match_names, refuse_shape, renamings
from edgeq.errors import EdgeqError
from edgeq_runtime.preprocess import InputSpec
from edgeq_runtime.tensors import Dimension, TensorInfo

Feed = dict[str, NDArray[Any]]
Specs = Mapping[str, InputSpec]


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
    and choices, each to be told. `names` are the files of image samples, by sample; `classes` and
    `labels` are there where they lie in class folders: the folders' names, and a class per sample.
    """

    description: str
    count: int | None
    notes: tuple[str, ...]
    make: Callable[[Tally], Iterator[Feed]] = field(repr=False)
    group: int = 1
    names: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()
    labels: tuple[int, ...] = ()
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


def nameless(inputs: Sequence[TensorInfo]) -> str:
    """What an array without a name is called: as the only input, where there is only one."""
    return inputs[0].name if len(inputs) == 1 else "array"


def batch_of(info: TensorInfo) -> int:
    """Samples per feed: the model's fixed leading size, or 1 where it takes any."""
    size: Dimension = info.shape[0] if info.shape else 1
    return size if isinstance(size, int) else 1


def short(where: str | Path) -> str:
    """A file's or folder's name for reports, bytes that are not UTF-8 as escapes. Without its own
    folder: results must not depend on where it lies."""
    return os.fsencode(Path(where).name).decode("utf-8", "backslashreplace")


def samples_text(count: int) -> str:
    return f"{count or 'no'} sample{'' if count == 1 else 's'}"


def evenly_spaced(count: int, limit: int | None) -> list[int]:
    """At most `limit` of range(count), the first included, at an even stride, ascending."""
    if limit is None or limit >= count:
        return list(range(count))
    return [index * count // limit for index in range(limit)]


@dataclass
class Batcher:
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
        elif all(batch_of(info) == 1 for info in self.inputs if info.name not in whole):
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
            values = {nameless(self.inputs): np.asarray(item)}
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
        sizes = {batch_of(info) for info in self.inputs}
        if len(sizes) != 1:
            raise EdgeqError(
                "data-mismatch",
                f"{self.where}: the model's inputs have different batches; give whole feeds",
            )
        self.waiting.append(sample)
        if len(self.waiting) == sizes.pop():
            ready, self.waiting = self.waiting, []
            yield {name: np.stack([item[name] for item in ready]) for name in sample}
