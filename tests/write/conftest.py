"""From a graph in text to a quantized artifact that runs: what the writer's tests share."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import numpy as np
import onnx
import onnx_ir
import pytest

from edgeq.ir import Graph, check
from edgeq.quant.calibrate import calibrate
from edgeq.quant.draft import draft
from edgeq.quant.kernels import ONNXRUNTIME, Kernels
from edgeq.quant.plan import QuantPlan
from edgeq.quant.quantize import quantize
from edgeq_converters.read.ort_optimized import Coverage, coverage
from edgeq_converters.write.onnx import write
from edgeq_runtime.engines import onnxruntime as engine

NONE: Mapping[str, np.ndarray] = MappingProxyType({})
Feeds = Mapping[str, np.ndarray]


def build_graph(text: str, weights: Mapping[str, np.ndarray] = NONE) -> Graph:
    """A graph from ONNX text (inputs, outputs and nodes) and named constants."""
    opsets = '["" : 21, "com.microsoft" : 1]'
    model = onnx.parser.parse_model(f"<ir_version: 10, opset_import: {opsets}> {text}")
    for name, array in weights.items():
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(array), name))
    model = onnx.shape_inference.infer_shapes(model, strict_mode=False)
    graph = Graph(onnx_ir.from_proto(model))
    for at, node in enumerate(graph.nodes()):
        node.name = node.name or f"{node.op_type.lower()}{at}"
    check(graph)
    return graph


def random_samples(graph: Graph, count: int, seed: int = 0, size: int = 2) -> list[Feeds]:
    """Normal float inputs in the graph's own shapes; unknown sizes become `size`."""
    rng = np.random.default_rng(seed)
    return [
        {
            info.name: rng.normal(
                size=[dim if isinstance(dim, int) else size for dim in info.shape]
            ).astype(np.float32)
            for info in graph.inputs
        }
        for _ in range(count)
    ]


class FloatExecutor:
    """The float graph with the tensors to observe, run by the engine."""

    def __init__(self, graph: Graph, observe: Sequence[str]) -> None:
        self.session = engine.open_session(write(graph, None, extra_outputs=observe), threads=1)

    def run(self, feeds: Feeds) -> Feeds:
        return self.session.run(dict(feeds))


@dataclass(frozen=True)
class Quantized:
    """A graph, its plan, and ways to run both."""

    graph: Graph
    plan: QuantPlan
    activation_dtype: str = "uint8"

    def artifact(self, *extra: str) -> bytes:
        return write(
            self.graph, self.plan, activation_dtype=self.activation_dtype, extra_outputs=extra
        )

    def run(self, feeds: Feeds, *names: str, exact: bool = True) -> Feeds:
        """All outputs, and the dequantized values of the tensors `names`."""
        session = engine.open_session(self.artifact(*names), threads=1, exact=exact)
        return session.run(dict(feeds))

    def run_float(self, feeds: Feeds, *names: str) -> Feeds:
        return FloatExecutor(self.graph, names).run(feeds)


def make_quantized(
    graph: Graph,
    *,
    activation_dtype: str = "uint8",
    pair_safe: bool = False,
    samples: Sequence[Feeds] | None = None,
    method: str = "minmax",
    float_nodes: Mapping[str, str] = MappingProxyType({}),
    kernels: Kernels = ONNXRUNTIME,
) -> Quantized:
    made = draft(graph, float_nodes=float_nodes, kernels=kernels)
    executor = FloatExecutor(graph, made.observe)
    statistics = calibrate(executor, samples or random_samples(graph, 4), made.observe)
    plan = quantize(graph, made, statistics, method=method, pair_safe=pair_safe)
    return Quantized(graph, plan, activation_dtype)


@pytest.fixture(scope="session")
def graph_of() -> Callable[..., Graph]:
    return build_graph


@pytest.fixture(scope="session")
def quantized() -> Callable[..., Quantized]:
    return make_quantized


@pytest.fixture(scope="session")
def samples_of() -> Callable[..., list[Feeds]]:
    return random_samples


@pytest.fixture
def covered(tmp_path: Path) -> Callable[[bytes], Coverage]:
    """What the engine runs in int8 of a model."""

    def measure(model: bytes) -> Coverage:
        path = tmp_path / "optimized.onnx"
        engine.open_session(model, threads=1, optimized_path=str(path)).close()
        return coverage(path.read_bytes())

    return measure
