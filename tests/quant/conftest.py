"""Graphs from text for the quantizer's tests."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np
import onnx
import onnx_ir
import pytest

from edgeq.ir import Graph, check

NONE: Mapping[str, np.ndarray] = MappingProxyType({})


def build_graph(text: str, weights: Mapping[str, np.ndarray] = NONE) -> Graph:
    """A graph from ONNX text (inputs, outputs and nodes) and named constants."""
    model = onnx.parser.parse_model(
        f'<ir_version: 10, opset_import: ["" : 21, "com.microsoft" : 1, "com.acme" : 1]> {text}'
    )
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
