"""Where a lowering puts what it makes: nodes and initializers under names nothing else has."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import onnx
import onnx_ir
from numpy.typing import NDArray

from edgeq.ir import free_name
from edgeq_converters.write import tensors

LONGEST = 24
"""Characters of a name that only the artifact has: of longer ones the end is kept. Exporters call a
tensor by all the ops it went through, and each name is in the file several times."""


class Sink:
    """The artifact's nodes, in an order that runs, and the initializers they read."""

    def __init__(self, graph: onnx_ir.Graph) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []
        self._used = set(_names(graph))

    def fresh(self, wanted: str, *, whole: bool = False) -> str:
        """A name for a tensor or a node that neither the graph nor an earlier call has. `whole`
        keeps all of a long one: readers of the artifact go by how it begins."""
        name = free_name(wanted if whole else wanted[-LONGEST:], self._used)
        self._used.add(name)
        return name

    def store(self, name: str, array: NDArray[Any] | np.generic) -> str:
        """Add an initializer, called `name` or like it; returns what it is called."""
        name = self.fresh(name)
        self.initializers.append(tensors.from_array(name, np.asarray(array)))
        return name

    def store_nibbles(self, name: str, codes: NDArray[np.int8]) -> str:
        """Add an initializer of int4 codes -8..7, called `name` or like it."""
        name = self.fresh(name)
        self.initializers.append(tensors.from_nibbles(name, codes))
        return name

    def add(
        self,
        op_type: str,
        name: str,
        inputs: Sequence[str],
        outputs: Sequence[str],
        **attributes: Any,
    ) -> None:
        """Add a node, called `name` or like it; "" for one that only the artifact has, which goes
        without a name to save its bytes. An attribute that is None is left out."""
        node = onnx.NodeProto(op_type=op_type, name=self.fresh(name, whole=True) if name else "")
        node.input.extend(inputs)
        node.output.extend(outputs)
        for key, value in attributes.items():
            if value is not None:
                node.attribute.append(onnx.helper.make_attribute(key, value))
        self.nodes.append(node)


def _names(graph: onnx_ir.Graph) -> Iterable[str]:
    """Every name of a tensor or a node, in bodies too."""
    for body in (graph, *graph.subgraphs()):
        yield from (str(value.name) for value in (*body.inputs, *body.initializers.values()))
        for node in body:
            yield str(node.name)
            yield from (str(value.name) for value in node.outputs)
