"""The bench of a search: kept samples, the float model's outputs on them, and scores of plans."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from numpy.typing import NDArray

from edgeq.ir import Graph
from edgeq.quant.plan import QuantPlan
from edgeq.search.laboratory import Feeds, Laboratory, Runner, Switched
from edgeq.search.scoring import Meter, Score, parts, refined

REFERENCE_BYTES = 64_000_000
"""The most that the float model's outputs may hold; fewer samples are scored where they are big."""


class Trials:
    """Scores candidates against `graph`, the float model, on the first of `samples` that fit."""

    def __init__(self, lab: Laboratory, graph: Graph, samples: Sequence[Feeds]) -> None:
        self.lab = lab
        self.samples: list[Feeds] = []
        self.references: list[Mapping[str, NDArray[Any]]] = []
        room = REFERENCE_BYTES
        with lab.float_model(graph) as model:
            for sample in samples:
                reference = model.run(sample)
                room -= sum(array.nbytes for array in reference.values())
                if self.samples and room < 0:
                    break
                self.samples.append(sample)
                self.references.append(reference)
        self.parts = refined(parts(graph), self.references)

    def of_plan(self, graph: Graph, plan: QuantPlan) -> Score:
        """The score of the artifact that is written of `graph` and `plan`."""
        with self.lab.artifact(graph, plan) as artifact:
            return self._score(artifact, self._least(plan))

    def of_float(self, graph: Graph) -> Score:
        """The score of another float graph: how exact a transform was."""
        with self.lab.float_model(graph) as model:
            return self._score(model)

    def of_switches(self, model: Switched, on: frozenset[int], count: int) -> Score:
        """The score of the float model with some tensors quantized, on `count` samples."""
        meter = Meter(self.parts)
        for sample, reference in zip(self.samples[:count], self.references, strict=False):
            meter.add(reference, model.run(sample, on))
        return meter.score()

    def _least(self, plan: QuantPlan) -> Mapping[str, float]:
        """Half a step of every output that is a distribution and has codes: what lies below is one
        code, which as a logarithm would outweigh all that the model lost before it."""
        found = ((part.output, plan.tensors.get(part.output)) for part in self.parts)
        return {name: encoding.scale[0] / 2.0 for name, encoding in found if encoding is not None}

    def _score(self, model: Runner, least: Mapping[str, float] = MappingProxyType({})) -> Score:
        meter = Meter(self.parts, least)
        for sample, reference in zip(self.samples, self.references, strict=True):
            meter.add(reference, model.run(sample))
        return meter.score()
