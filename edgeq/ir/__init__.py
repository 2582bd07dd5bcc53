"""The float graph every other part works on, the questions one may ask of it, and its rules."""

from edgeq.ir.graph import IR_VERSION, OPSET, Graph
from edgeq.ir.query import (
    attribute,
    captured,
    constant,
    constant_tensor,
    constants_inside,
    consumers,
    dtype_of,
    free_name,
    is_captured,
    is_graph_output,
    named_subgraphs,
    producer,
    scalar,
    sole_consumer,
    static_shape,
    subgraphs,
)
from edgeq.ir.validity import check

__all__ = [
    "IR_VERSION",
    "OPSET",
    "Graph",
    "attribute",
    "captured",
    "check",
    "constant",
    "constant_tensor",
    "constants_inside",
    "consumers",
    "dtype_of",
    "free_name",
    "is_captured",
    "is_graph_output",
    "named_subgraphs",
    "producer",
    "scalar",
    "sole_consumer",
    "static_shape",
    "subgraphs",
]
