"""Int8 operators whose result has another scale than what they read: no kernel may be handed codes
of one as those of the other."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from edgeq.ir import Graph
from edgeq.quant.plan import Encoding, OpDecision, QuantPlan

NETS = {
    "max": ("[1,4,4,4]", "MaxPool<kernel_shape=[2,2],strides=[2,2]>(x)"),
    "padded max": ("[1,4,4,4]", "MaxPool<kernel_shape=[3,3],strides=[2,2],pads=[1,1,1,1]>(x)"),
    "average": ("[1,4,4,4]", "AveragePool<kernel_shape=[2,2],strides=[2,2]>(x)"),
    "padded average": (
        "[1,4,4,4]",
        "AveragePool<kernel_shape=[3,3],strides=[2,2],pads=[1,1,1,1]>(x)",
    ),
    "global average": ("[1,4,1,1]", "GlobalAveragePool(x)"),
    "global max": ("[1,4,1,1]", "GlobalMaxPool(x)"),
    "linear": ("[1,4,16,16]", 'Resize<mode="linear">(x,,twice)'),
    "nearest": ("[1,4,12,12]", 'Resize<mode="nearest">(x,,half)'),
    "copies": (
        "[1,4,16,16]",
        'Resize<coordinate_transformation_mode="asymmetric",nearest_mode="floor">(x,,twice)',
    ),
    "depth": ("[1,1,16,16]", "DepthToSpace<blocksize=2>(x)"),
    "space": ("[1,16,4,4]", "SpaceToDepth<blocksize=2>(x)"),
    "pad": ("[1,4,10,9]", "Pad(x,pads)"),
}
WEIGHTS = {
    "twice": np.array([1, 1, 2, 2], np.float32),
    "half": np.array([1, 1, 1.5, 1.5], np.float32),
    "pads": np.array([0, 0, 1, 0, 0, 0, 1, 1]),
}


@pytest.mark.parametrize("resolver", ["xnnpack", "reference"])
@pytest.mark.parametrize("case", NETS)
def test_codes_are_brought_to_the_scale_of_the_result(
    graph_of: Callable[..., Graph], pair: Callable[..., Any], case: str, resolver: str
) -> None:
    shape, body = NETS[case]
    graph = graph_of(f"g (float[1,4,8,8] x) => (float{shape} y) {{ y={body} }}", WEIGHTS)
    (node,) = graph.nodes()
    name = str(node.name)
    encodings = {"x": Encoding("int8", (0.05,), (3,)), "y": Encoding("int8", (0.11,), (-20,))}
    plan = QuantPlan(encodings, {name: OpDecision(name, node.op_type, "int8")})
    made = pair(graph, plan)
    for feeds in made.samples(3):
        wanted = made.onnx.run(dict(feeds))["y"]
        assert made.steps("y", made.lite.run(feeds, resolver)["y"], wanted).max() <= 1
