"""Which tensors the algorithms want to be measured channel by channel: what the layers read."""

from __future__ import annotations

from edgeq.ir import Graph, constant, dtype_of

CHANNEL_AXIS = {"Conv": 1, "Gemm": -1, "MatMul": -1}
"""Axis of a layer's input that its weights sum over."""


def layer_inputs(graph: Graph) -> dict[str, int]:
    """Tensor name -> channel axis, for what each Conv, Gemm and MatMul with constant weights reads.

    In topological order. A tensor that layers of both kinds read is given by the first.
    """
    found: dict[str, int] = {}
    for node in graph.nodes():
        if node.domain != "" or node.op_type not in CHANNEL_AXIS:
            continue
        value, weights = node.inputs[0], constant(node.inputs[1])
        if value is None or weights is None or constant(value) is not None:
            continue
        if value.name and dtype_of(value) == "float32":
            found.setdefault(value.name, CHANNEL_AXIS[node.op_type])
    return found
