"""A free batch is run sample by sample: only of nets whose samples are apart."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from edgeq.errors import EdgeqError
from edgeq.ir import Graph
from edgeq_converters.write import tflite
from edgeq_runtime.engines import litert, onnxruntime

FIRST = np.array([0])
WHOLE = {
    "two batches": ("float[N,3] x, float[M,3] z", "float[N,M] y", "t=Transpose(z) y=MatMul(x,t)"),
    "a mean": ("float[N,3] x", "float[N,3] y", "m=ReduceMean(x,first) y=Sub(x,m)"),
    "softmax": ("float[N,3] x", "float[N,3] y", "y=Softmax<axis=0>(x)"),
    "attention": ("float[N,3] x", "float[N,3] y", "t=Transpose(x) m=MatMul(x,t) y=MatMul(m,x)"),
    "running sum": ("float[N,3] x", "float[N,3] y", "i=Squeeze(first) y=CumSum(x,i)"),
    "another axis": ("float[N,3,2] x", "float[3,N,2] y", "y=Transpose<perm=[1,0,2]>(x)"),
    "more rows": ("float[N,4,3] x", "float[K,3] y", "y=Flatten<axis=2>(x)"),
}


def text(inputs: str, outputs: str, body: str) -> str:
    return f"g ({inputs}) => ({outputs}) {{ {body} }}"


@pytest.mark.parametrize("case", WHOLE)
def test_a_net_that_mixes_samples_needs_a_shape(graph_of: Callable[..., Graph], case: str) -> None:
    graph = graph_of(text(*WHOLE[case]), {"first": FIRST})
    with pytest.raises(EdgeqError) as caught:
        tflite.write(graph, None)
    assert caught.value.slug == "needs-shape"
    assert "--shape x=1x" in str(caught.value.hints)


@pytest.mark.parametrize(
    "body",
    [
        "y=MatMul(x,w)",
        "f=Constant<value_ints=[-1,3]>() t=Reshape(x,f) u=MatMul(t,w) s=Shape(x) y=Reshape(u,s)",
        "p=Transpose<perm=[1,0,2]>(x) q=CumSum(p,zero) y=Transpose<perm=[1,0,2]>(q)",
    ],
)
def test_samples_that_are_apart(graph_of: Callable[..., Graph], body: str) -> None:
    rng = np.random.default_rng(0)
    weights = {"w": rng.normal(size=(3, 3)).astype(np.float32), "zero": np.int64(0)}
    graph = graph_of(text("float[N,4,3] x", "float[N,4,3] y", body), weights)
    feeds = {"x": rng.normal(size=(5, 4, 3)).astype(np.float32)}
    np.testing.assert_allclose(*(rows["y"] for rows in _both(graph, feeds)), atol=1e-5)


def test_a_constant_output_of_a_free_size_stays_as_it_is(graph_of: Callable[..., Graph]) -> None:
    net = text("float[N,3] x", "float[N,3] y, float[K,4] c", "y=Relu(x) c=Identity(table)")
    graph = graph_of(net, {"table": np.ones((2, 4), np.float32)})
    found, wanted = _both(graph, {"x": np.ones((3, 3), np.float32)})
    assert {name: array.shape for name, array in found.items()} == {"y": (3, 3), "c": (2, 4)}
    for name, array in wanted.items():
        np.testing.assert_array_equal(found[name], array)


def _both(graph: Graph, feeds: dict[str, Any]) -> tuple[Any, Any]:
    from edgeq_converters.write import onnx

    found = litert.open_session(tflite.write(graph, None), threads=1).run(dict(feeds))
    return found, onnxruntime.open_session(onnx.write(graph, None), threads=1).run(dict(feeds))
