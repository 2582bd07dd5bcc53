"""What the search needs of an engine; `edgeq.api` hands it one, this layer starts none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

from numpy.typing import NDArray

from edgeq.ir import Graph
from edgeq.quant.plan import Encoding, QuantPlan

Feeds = Mapping[str, NDArray[Any]]
Group = Sequence[tuple[str, Encoding]]
"""Tensors that are quantized together, each with its encoding."""


class Runner(Protocol):
    """A loaded model."""

    def run(self, feeds: Feeds) -> Feeds:
        """Every output by name, the extra ones among them."""
        ...


class Switched(Protocol):
    """The float model in which groups of tensors can be quantized for a single run."""

    def run(self, feeds: Feeds, on: frozenset[int]) -> Feeds:
        """Outputs with the groups whose index is in `on` quantized, all the others float."""
        ...


class Laboratory(Protocol):
    """Opens models by exact kernels on one thread; what it hands out is closed behind `with`."""

    def float_model(
        self, graph: Graph, extra_outputs: Sequence[str] = ()
    ) -> AbstractContextManager[Runner]:
        """The float graph."""
        ...

    def artifact(
        self, graph: Graph, plan: QuantPlan, extra_outputs: Sequence[str] = ()
    ) -> AbstractContextManager[Runner]:
        """What the writer makes of graph and plan."""
        ...

    def switched(self, graph: Graph, groups: Sequence[Group]) -> AbstractContextManager[Switched]:
        """The float graph with a switch for each group."""
        ...
