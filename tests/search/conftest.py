"""Graphs from text, the real laboratory, and samples with a `kept` few, as a build has them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pytest

from edgeq.api.lab import Lab
from edgeq.ir import Graph
from edgeq.search import static

Feeds = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Kept:
    """`edgeq.search.design.Samples` over a list; `passes` counts iterations."""

    feeds: Sequence[Feeds]
    passes: list[int]

    @property
    def kept(self) -> Sequence[Feeds]:
        return self.feeds[:16]

    def __iter__(self) -> Iterator[Feeds]:
        self.passes.append(len(self.feeds))
        return iter(self.feeds)


@pytest.fixture
def lab() -> Lab:
    return Lab("uint8")


@pytest.fixture
def samples_of() -> Callable[..., Kept]:
    """`samples_of(name=[arrays])`: one sample for each array."""

    def make(**arrays: Sequence[np.ndarray]) -> Kept:
        names = list(arrays)
        rows = zip(*arrays.values(), strict=True)
        return Kept([dict(zip(names, row, strict=True)) for row in rows], [])

    return make


@pytest.fixture
def search(lab: Lab) -> Callable[..., static.Found]:
    """`search(graph, samples, **options)`: calibrate and find."""

    def run(graph: Graph, samples: Kept, **options: object) -> static.Found:
        chosen = static.Options(**options)  # type: ignore[arg-type]
        first = static.drafted(graph, chosen)
        return static.find(lab, static.start(lab, graph, first, samples), samples, chosen)

    return run
