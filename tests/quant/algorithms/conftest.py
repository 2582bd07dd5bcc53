"""Real runs of float graphs and of their int8 forms, and the nets that hurt int8."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pytest

from edgeq.ir import Graph
from edgeq.numerics.errors import sqnr_db
from edgeq.quant.algorithms.inputs import layer_inputs
from edgeq.quant.calibrate import calibrate, calibrate_channels
from edgeq.quant.draft import draft
from edgeq.quant.observers.channels import ChannelStatistics
from edgeq.quant.plan import QuantPlan
from edgeq.quant.quantize import quantize
from edgeq_converters.write.onnx import write
from edgeq_runtime.engines import onnxruntime as engine

Feeds = Mapping[str, np.ndarray]


class FloatRun:
    """An executor: the float graph with some of its tensors as outputs."""

    def __init__(self, graph: Graph, names: Sequence[str] = ()) -> None:
        outside = {info.name for info in (*graph.inputs, *graph.outputs)}
        extra = [name for name in names if name not in outside]
        self.session = engine.open_session(write(graph, None, extra_outputs=extra), threads=1)

    def run(self, feeds: Feeds) -> Feeds:
        return self.session.run(dict(feeds))


class Lab:
    """What tests do with a graph: run it, measure its channels, quantize it, compare outputs."""

    def samples(self, graph: Graph, count: int, seed: int = 0) -> list[Feeds]:
        rng = np.random.default_rng(seed)
        return [
            {info.name: rng.normal(size=info.shape).astype(np.float32) for info in graph.inputs}
            for _ in range(count)
        ]

    def outputs(self, graph: Graph, feeds: Sequence[Feeds], name: str = "y") -> np.ndarray:
        session = FloatRun(graph, [name])
        return np.stack([session.run(sample)[name] for sample in feeds])

    def assert_names_keep_their_numbers(
        self, graph: Graph, after: Graph, feeds: Sequence[Feeds]
    ) -> None:
        """A tensor of a name that both have is the same, but for rounding: terms cancel, so some
        80 dB stay of float32's 144; one that is scaled would be at 0 to 10 dB."""
        made = {value.name for node in after.nodes() for value in node.outputs}
        shared = [v.name for node in graph.nodes() for v in node.outputs if v.name in made]
        assert shared
        for name in shared:
            one, two = (self.outputs(each, feeds, name) for each in (graph, after))
            assert sqnr_db(one, two) > 80, name

    def executor(self, graph: Graph, names: Sequence[str]) -> FloatRun:
        return FloatRun(graph, list(names))

    def int8_means(
        self, graph: Graph, plan: QuantPlan, feeds: Sequence[Feeds]
    ) -> dict[str, np.ndarray]:
        """Of what layers get in the quantized net itself."""
        tensors = layer_inputs(graph)
        inside = [name for name in tensors if name not in {info.name for info in graph.inputs}]
        model = write(graph, plan, extra_outputs=inside)
        session = engine.open_session(model, threads=1, exact=True)
        found = calibrate_channels(session, feeds, tensors)
        return {name: statistics.mean for name, statistics in found.items()}

    def channels(self, graph: Graph, feeds: Sequence[Feeds]) -> dict[str, ChannelStatistics]:
        tensors = layer_inputs(graph)
        return calibrate_channels(FloatRun(graph, list(tensors)), feeds, tensors)

    def peaks(self, graph: Graph, feeds: Sequence[Feeds]) -> dict[str, np.ndarray]:
        return {name: found.peak for name, found in self.channels(graph, feeds).items()}

    def plan(self, graph: Graph, feeds: Sequence[Feeds], method: str = "minmax") -> QuantPlan:
        made = draft(graph)
        statistics = calibrate(FloatRun(graph, made.observe), feeds, made.observe)
        return quantize(graph, made, statistics, method=method, pair_safe=False)

    def int8_outputs(self, graph: Graph, plan: QuantPlan, feeds: Sequence[Feeds]) -> np.ndarray:
        session = engine.open_session(write(graph, plan), threads=1, exact=True)
        return np.stack([session.run(dict(sample))["y"] for sample in feeds])

    def int8_db(self, graph: Graph, reference: np.ndarray, feeds: Sequence[Feeds]) -> float:
        """SQNR of `graph` in int8, calibrated on eight samples of its own."""
        plan = self.plan(graph, self.samples(graph, 8, seed=1))
        return sqnr_db(reference, self.int8_outputs(graph, plan, feeds))


@pytest.fixture(scope="session")
def lab() -> Lab:
    return Lab()


@pytest.fixture(scope="session")
def skewed_net(graph_of: Callable[..., Graph]) -> Callable[..., Graph]:
    """Two inverted residual blocks whose expanded channels differ by e^+-`skew`; the function is
    the same for every skew. With a clip all are made smaller, so that it does not act; `binding`
    makes half of them larger, so that it does."""

    def make(
        activation: str = "Relu", skew: float = 3.0, seed: int = 0, *, binding: bool = False
    ) -> Graph:
        rng = np.random.default_rng(seed)
        weights: dict[str, np.ndarray] = {}

        def layer(name: str, outputs: int, inputs: int, size: int) -> None:
            gain = np.sqrt(2 / (inputs * size * size))
            weights[f"w_{name}"] = rng.normal(size=(outputs, inputs, size, size)) * gain
            weights[f"b_{name}"] = rng.normal(size=outputs) * 0.1

        layer("stem", 12, 3, 3)
        text = "h0 = Conv <pads = [1,1,1,1], strides = [2,2]> (x, w_stem, b_stem)\n"
        for n in range(2):
            layer(f"e{n}", 36, 12, 1)
            layer(f"d{n}", 36, 1, 3)
            layer(f"p{n}", 12, 36, 1)
            for first, second in ((f"e{n}", f"d{n}"), (f"d{n}", f"p{n}")):
                below = skew if activation == "Clip" and not binding else 0.0
                factor = np.exp(rng.uniform(-skew, skew, 36) - below)
                weights[f"w_{first}"] *= factor[:, None, None, None]
                weights[f"b_{first}"] *= factor
                along = (-1, 1, 1, 1) if second.startswith("d") else (1, -1, 1, 1)
                weights[f"w_{second}"] /= factor.reshape(along)
            act = "Relu ({})" if activation == "Relu" else "Clip ({}, zero, six)"
            text += f"""
              [expand{n}] e{n} = Conv (h{n}, w_e{n}, b_e{n})  f{n} = {act.format(f"e{n}")}
              [depthwise{n}] d{n} = Conv <pads = [1,1,1,1], group = 36> (f{n}, w_d{n}, b_d{n})
              g{n} = {act.format(f"d{n}")}
              [project{n}] p{n} = Conv (g{n}, w_p{n}, b_p{n})  h{n + 1} = Add (h{n}, p{n})"""
        weights["w_last"] = rng.normal(size=(12, 10)) * 0.3
        text += "q = GlobalAveragePool (h2)  s = Flatten (q)  y = Gemm (s, w_last)"
        if activation == "Clip":
            weights |= {"zero": np.array(0.0), "six": np.array(6.0)}
        arrays = {name: array.astype(np.float32) for name, array in weights.items()}
        return graph_of(f"g (float[1,3,24,24] x) => (y) {{ {text} }}", arrays)

    return make
