"""Graphs from text, the real laboratory, and samples with a `kept` few, as a build has them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import onnx
import onnx_ir
import pytest

from edgeq.api.lab import Lab
from edgeq.ir import Graph, check
from edgeq.search import static

NONE: Mapping[str, np.ndarray] = MappingProxyType({})
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


def build_graph(text: str, weights: Mapping[str, np.ndarray] = NONE) -> Graph:
    """A graph from ONNX text (inputs, outputs and nodes) and named constants."""
    model = onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["" : 21]> {text}')
    for name, array in weights.items():
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(array), name))
    model = onnx.shape_inference.infer_shapes(model, strict_mode=False)
    graph = Graph(onnx_ir.from_proto(model))
    for at, node in enumerate(graph.nodes()):
        node.name = node.name or f"{node.op_type.lower()}{at}"
    check(graph)
    return graph


@pytest.fixture(scope="session")
def graph_of() -> Callable[..., Graph]:
    return build_graph


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
