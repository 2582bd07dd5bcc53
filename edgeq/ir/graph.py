"""`Graph`: one onnx-ir model, float, shapes inferred, at the one opset the passes know."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import onnx_ir

from edgeq.ir.query import dtype_of, named_subgraphs
from edgeq_runtime.tensors import TensorInfo

OPSET = 21
"""Opset of the default domain in every `Graph`: the first with int4 and blocked QDQ."""
IR_VERSION = 10
"""ONNX IR version in every `Graph`: the one released with opset 21."""


@dataclass(frozen=True)
class Graph:
    """A float model. Readers make it so, passes keep it so, and `edgeq.ir.check` asserts it:

    default domain at opset `OPSET`, IR version `IR_VERSION`, nodes in topological order, every
    node with a name of its own, every tensor name given once, no initializer that is also an
    input, no local functions. Readers keep the bodies of If, Loop and Scan as they were; a pass is
    given each of them as a `Graph` of its own, whose nodes, inputs and outputs are the body's.
    The model inside may be edited only by whoever made this clone.
    """

    model: onnx_ir.Model
    body: onnx_ir.Graph | None = None

    @property
    def home(self) -> onnx_ir.Graph:
        """Where the nodes and constants of this graph lie: the body, else the top of the model."""
        return self.model.graph if self.body is None else self.body

    @property
    def inputs(self) -> tuple[TensorInfo, ...]:
        return tuple(_info(value) for value in self.home.inputs)

    @property
    def outputs(self) -> tuple[TensorInfo, ...]:
        return tuple(_info(value) for value in self.home.outputs)

    @property
    def parameter_count(self) -> int:
        """Elements of all initializers, of the bodies too."""
        graphs = (self.model.graph, *self.model.graph.subgraphs())
        return sum(
            math.prod(value.const_value.shape.numpy())
            for graph in graphs
            for value in graph.initializers.values()
            if value.const_value is not None
        )

    def nodes(self) -> tuple[onnx_ir.Node, ...]:
        """The nodes of `home` in topological order; those inside bodies are not among them."""
        return tuple(self.home)

    def bodies(self) -> Iterator[tuple[str, Graph]]:
        """Every body of If, Loop and Scan inside `home`, outer before inner, and where it lies.

        A place is `If_0/then_branch`, and for a body inside a body `If_0/then_branch/Loop_2/body`.
        """
        for node in self.home:
            for place, body in named_subgraphs(node):
                inner = Graph(self.model, body)
                yield place, inner
                yield from ((f"{place}/{deeper}", graph) for deeper, graph in inner.bodies())

    def values(self) -> Iterator[onnx_ir.Value]:
        """Every named tensor of `home` once: inputs, initializers, then node outputs in order."""
        yield from self.home.inputs
        yield from self.home.initializers.values()
        for node in self.home:
            yield from (value for value in node.outputs if value.name)

    def value(self, name: str) -> onnx_ir.Value | None:
        """The tensor of this name in `home`."""
        return next((value for value in self.values() if value.name == name), None)

    def clone(self) -> Graph:
        """A copy whose structure may be edited; the arrays of constants are shared."""
        assert self.body is None
        return Graph(self.model.clone())


def _info(value: onnx_ir.Value) -> TensorInfo:
    """`value` as the runtime describes tensors; an unknown rank is `()`, as ONNX Runtime has it."""
    shape = () if value.shape is None else tuple(_dimension(size) for size in value.shape)
    return TensorInfo(name=value.name or "", dtype=dtype_of(value), shape=shape)


def _dimension(size: int | onnx_ir.SymbolicDimProtocol) -> int | str | None:
    return size if isinstance(size, int) else size.value
