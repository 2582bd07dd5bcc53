"""Store constants in float16 behind a Cast, in the graph and in the bodies of If, Loop and Scan.

The Cast's output keeps the tensor's name, so that no reader changes. ONNX Runtime (seen in 1.31.1)
folds such a Cast when it loads the model and computes in float32 with the kernels of float32.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, MutableSequence

import numpy as np
import onnx
from onnx import numpy_helper

from edgeq.ir import free_name
from edgeq.quant.plan import QuantPlan
from edgeq_converters.write import tensors


def halve(
    plan: QuantPlan | None,
    nodes: MutableSequence[onnx.NodeProto],
    initializers: list[onnx.TensorProto],
) -> tuple[list[onnx.NodeProto], list[onnx.TensorProto]]:
    """`nodes` and `initializers` again, each constant that the plan has as float16 so stored.

    Nodes may be edited (their bodies). Constants are those of initializers and Constant nodes.
    """
    wanted = {
        name
        for name, encoding in (plan.tensors if plan is not None else {}).items()
        if encoding.dtype == "float16"
    }
    if not wanted:
        return list(nodes), initializers
    used = {*_names(nodes), *(tensor.name for tensor in initializers)}
    return _Halving(wanted, used).body(nodes, initializers)


class _Halving:
    """One walk; `used` are the names of tensors and nodes that are taken."""

    def __init__(self, wanted: set[str], used: set[str]) -> None:
        self.wanted = wanted
        self.used = used

    def body(
        self, nodes: Iterable[onnx.NodeProto], initializers: Iterable[onnx.TensorProto]
    ) -> tuple[list[onnx.NodeProto], list[onnx.TensorProto]]:
        casts: list[onnx.NodeProto] = []
        stored: list[onnx.TensorProto] = []
        for tensor in initializers:
            if tensor.name in self.wanted:
                casts.append(self._cast(tensor, tensor.name, stored))
            else:
                stored.append(tensor)
        made: list[onnx.NodeProto] = []
        for node in nodes:
            if node.op_type == "Constant" and node.output[0] in self.wanted:
                tensor = onnx.helper.get_node_attr_value(node, "value")
                made.append(self._cast(tensor, node.output[0], stored))
                continue
            for graph in tensors.bodies_of(node):
                inner, kept = self.body(graph.node, graph.initializer)
                del graph.node[:], graph.initializer[:]
                graph.node.extend(inner)
                graph.initializer.extend(kept)
            made.append(node)
        return [*casts, *made], stored

    def _cast(
        self, tensor: onnx.TensorProto, name: str, stored: list[onnx.TensorProto]
    ) -> onnx.NodeProto:
        array = numpy_helper.to_array(tensor)
        half = self._fresh(f"{name}_half")
        stored.append(tensors.from_array(half, array.astype(np.float16)))
        node = onnx.NodeProto(op_type="Cast", name=self._fresh(f"{name}_cast"))
        node.input.append(half)
        node.output.append(name)
        node.attribute.append(onnx.helper.make_attribute("to", int(onnx.TensorProto.FLOAT)))
        return node

    def _fresh(self, wanted: str) -> str:
        name = free_name(wanted, self.used)
        self.used.add(name)
        return name


def _names(nodes: Iterable[onnx.NodeProto]) -> Iterator[str]:
    """Every name of a node or a tensor, in bodies too."""
    for node in nodes:
        yield node.name
        yield from node.input
        yield from node.output
        for graph in tensors.bodies_of(node):
            yield from (row.name for row in (*graph.input, *graph.initializer, *graph.output))
            yield from _names(graph.node)
