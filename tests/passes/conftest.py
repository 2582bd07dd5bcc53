"""Models as text, read by the real reader, and both forms run in ONNX Runtime."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import onnx_ir
import onnxruntime
import pytest
from onnx import numpy_helper, parser

from edgeq.ir import Graph
from edgeq_converters.read.onnx import read

Make = Callable[..., Graph]
Outputs = dict[str, np.ndarray]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """make(body, **arrays): a Graph of opset 21 from ONNX's text form and its initializers."""

    def build(body: str, opset: str = '"": 21', **arrays: np.ndarray) -> Graph:
        model = parser.parse_model(f"<ir_version: 10, opset_import: [{opset}]>\n{body}")
        for name, array in arrays.items():
            model.graph.initializer.append(numpy_helper.from_array(array, name))
        path = tmp_path / "model.onnx"
        path.write_bytes(model.SerializeToString())
        return read(path).graph

    return build


@pytest.fixture
def run() -> Callable[[Graph, Mapping[str, np.ndarray]], Outputs]:
    """run(graph, feeds): its outputs in ONNX Runtime, by name, without the engine's own passes."""

    def outputs(graph: Graph, feeds: Mapping[str, np.ndarray]) -> Outputs:
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        data = onnx_ir.serde.serialize_model(graph.model).SerializeToString()
        session = onnxruntime.InferenceSession(data, options, ["CPUExecutionProvider"])
        names = [output.name for output in session.get_outputs()]
        assert names == [info.name for info in graph.outputs]
        return dict(zip(names, session.run(None, dict(feeds)), strict=True))

    return outputs


@pytest.fixture
def ops() -> Callable[[Graph], list[str]]:
    """The top-level operators in order."""
    return lambda graph: [node.op_type for node in graph.nodes()]


@pytest.fixture
def inside() -> Callable[[Graph], dict[str, list[str]]]:
    """The operators in each body, by where it lies."""
    return lambda graph: {
        place: [node.op_type for node in body.nodes()] for place, body in graph.bodies()
    }


@pytest.fixture
def apply() -> Callable[..., tuple[Graph, dict[str, str], list[str]]]:
    """apply(pass, graph): the graph after that one pass, what it refused, what it changed."""
    from edgeq.ir import check
    from edgeq.passes import prepare_bodies, run_everywhere
    from edgeq.passes.report import Log

    def once(rule: Callable[[Graph, Log], None], graph: Graph) -> tuple[Graph, dict, list]:
        after = graph.clone()
        prepare_bodies(after)
        log = run_everywhere(after, rule)
        check(after)
        return after, log.refused, log.changed

    return once


@pytest.fixture
def noise() -> Callable[..., np.ndarray]:
    """noise(*shape): float32, standard normal, the same every time."""
    rng = np.random.default_rng(7)
    return lambda *shape: rng.standard_normal(shape).astype(np.float32)


@pytest.fixture
def agree(run: Callable[..., Outputs]) -> Callable[..., None]:
    """agree(before, after, feeds, bound): both compute the same, each number within `bound`."""

    def compare(before: Graph, after: Graph, feeds: Mapping[str, np.ndarray], bound: float) -> None:
        got, expected = run(after, feeds), run(before, feeds)
        for name, array in expected.items():
            np.testing.assert_allclose(got[name], array, rtol=0, atol=bound)

    return compare


@pytest.fixture
def branch(make: Make) -> Callable[..., Graph]:
    """branch(shape, nodes): `nodes` make y from x in one branch of an If; the other negates x."""

    def build(shape: str, nodes: str, **arrays: np.ndarray) -> Graph:
        kind = f"float[{shape}]"
        text = f"""g ({kind} x, bool c) => ({kind} z) {{
            z = If (c) <then_branch = t () => ({kind} y) {{ {nodes} }},
                        else_branch = e () => ({kind} n) {{ n = Neg (x) }}> }}"""
        return make(text, **arrays)

    return build
