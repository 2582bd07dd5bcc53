"""The static search for LiteRT: a Softmax at the end is joined last, recurrent weights are int8."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from edgeq.api.lab import Lab
from edgeq.ir import Graph
from edgeq.numerics.errors import sqnr_db
from edgeq.quant.kernels import LITERT, ONNXRUNTIME
from edgeq.search import heads, static

RNG = np.random.default_rng(8)
Graphs = Callable[..., Graph]
Search = Callable[..., static.Found]

CLASSIFIER = """g (float[1,8,8,8] x) => (float[1,{n}] y) {{
    [conv] a = Conv <pads: ints = [1, 1, 1, 1]> (x, w1)  [relu] r = Relu (a)
    [mean] m = GlobalAveragePool (r)  [flat] f = Flatten (m)
    [gemm] g1 = Gemm (f, k)  [soft] s = Softmax (g1)  [shape] y = Reshape (s, shape) }}"""


def normal(*shape: int, gain: float = 1.0) -> np.ndarray:
    return (RNG.normal(size=shape) * gain).astype(np.float32)


def classifier(graph_of: Graphs, classes: int, gain: float) -> Graph:
    values = {
        "w1": normal(8, 8, 3, 3, gain=0.2),
        "k": normal(8, classes, gain=gain),
        "shape": np.array([1, classes]),
    }
    return graph_of(CLASSIFIER.format(n=classes), values)


@pytest.fixture
def images(samples_of: Callable[..., Any]) -> Any:
    return samples_of(x=[normal(1, 8, 8, 8) for _ in range(24)])


def test_a_softmax_at_the_end_is_int8_and_does_not_hide_the_rest(
    graph_of: Graphs, search: Search, images: Any, lab: Lab
) -> None:
    graph = classifier(graph_of, 10, 3.0)
    found = search(graph, images, kernels=LITERT)
    assert {op.precision for op in found.plan.ops.values()} == {"int8"}
    assert found.plan.tensors["y"].scale == (1 / 256,)
    other = search(graph, images, kernels=ONNXRUNTIME)
    assert other.plan.ops["soft"].precision == "float32"
    assert found.score.total == pytest.approx(other.score.total, abs=1.0)
    with lab.float_model(graph) as exact, lab.artifact(graph, found.plan) as made:
        feeds = images.feeds[0]
        assert sqnr_db(exact.run(feeds)["y"], made.run(feeds)["y"]) > 25


def test_many_even_classes_keep_their_softmax_in_float(
    graph_of: Graphs, search: Search, images: Any
) -> None:
    found = search(classifier(graph_of, 600, 0.1), images, kernels=LITERT)
    for name in ("soft", "shape"):
        assert found.plan.ops[name].precision == "float32"
        assert found.plan.ops[name].reason.startswith("codes 1/256 apart would leave")
    assert found.plan.ops["gemm"].precision == "int8"


def test_a_softmax_inside_the_model_is_none_of_its_heads(graph_of: Graphs) -> None:
    graph = graph_of(
        "g (float[4,8] x) => (float[4,6] y) "
        "{ a = Gemm (x, w) [soft] s = Softmax (a) [last] y = Gemm (s, v) }",
        {"w": normal(8, 5), "v": normal(5, 6)},
    )
    options = static.Options(kernels=LITERT)
    assert heads.found(graph, static.drafted(graph, options)) == {}


LSTM = """g (float[6,1,8] x) => (float[1,4] y) {
    [lstm] s, h = LSTM <hidden_size = 12> (x, w, r, b)
    [flat] f = Squeeze (h, first)  [head] y = Gemm (f, k) }"""


def recurrent(graph_of: Graphs) -> Graph:
    values = {
        "w": normal(1, 48, 8, gain=0.3),
        "r": normal(1, 48, 12, gain=0.3),
        "b": normal(1, 96, gain=0.1),
        "k": normal(12, 4),
        "first": np.array([0]),
    }
    return graph_of(LSTM, values)


@pytest.mark.parametrize("kernels", [ONNXRUNTIME, LITERT], ids=lambda kernels: kernels.engine)
def test_recurrent_weights_are_stored_in_int8(
    graph_of: Graphs, search: Search, samples_of: Any, kernels: Any
) -> None:
    rows = samples_of(x=[normal(6, 1, 8) for _ in range(24)])
    found = search(recurrent(graph_of), rows, kernels=kernels)
    assert found.plan.ops["lstm"].precision == "int8-weights"
    assert found.plan.ops["lstm"].reason == "weights are stored in int8, computed in float"
    assert found.plan.ops["head"].precision == "int8"
    shapes = {
        name: (found.plan.tensors[name].axis, len(found.plan.tensors[name].scale)) for name in "wr"
    }
    assert shapes == {"w": (1, 48), "r": (1, 48)}
    assert found.score.total > 30


def test_a_model_of_recurrent_weights_alone_is_worth_storing(
    graph_of: Graphs, search: Search, samples_of: Any
) -> None:
    graph = graph_of(
        "g (float[6,1,8] x) => (float[6,1,1,12] y) { [gru] y = GRU <hidden_size = 12> (x, w, r) }",
        {"w": normal(1, 36, 8, gain=0.3), "r": normal(1, 36, 12, gain=0.3)},
    )
    found = search(graph, samples_of(x=[normal(6, 1, 8) for _ in range(8)]))
    assert found.plan.counts()["int8-weights"] == {"GRU": 1}
    assert found.left_float == ""
    assert found.journal.trials == 1, "without a range there is one plan"


def test_recurrent_ops_that_are_kept_float_are(graph_of: Graphs) -> None:
    options = static.Options(keep_float=("lstm",))
    made = static.drafted(recurrent(graph_of), options)
    assert made.ops["lstm"].precision == "float32"
    assert made.ops["lstm"].reason == "kept in float by `--keep-float lstm`"


def test_weights_that_make_a_state_drift_go_back_to_float(
    graph_of: Graphs, search: Search, samples_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The convolutions stay in int8: only the ops that hold the state are to blame first."""
    told: list[str] = []

    def drift(lab: Any, graph: Any, transformed: Any, plan: Any, samples: Any) -> str:
        stored = plan.ops["lstm"].precision == "int8-weights"
        told.append("it drifts" if stored else "")
        return told[-1]

    monkeypatch.setattr(static, "drift", drift)
    rows = samples_of(x=[normal(6, 1, 8) for _ in range(24)])
    found = search(recurrent(graph_of), rows)
    assert told == ["it drifts", ""]
    assert (found.plan.ops["lstm"].precision, found.plan.ops["lstm"].reason) == (
        "float32",
        "it drifts",
    )
    assert found.plan.ops["head"].precision == "int8"


@pytest.mark.shared
def test_the_shared_lstm_is_smaller_than_the_public_int8_file(
    shared: Any, search: Search, samples_of: Any
) -> None:
    """As an int8 ONNX file, at most 5 % larger than the int8 TFLite file it is published as."""
    from edgeq import passes
    from edgeq_converters.read.tflite import read
    from edgeq_converters.write.onnx import write

    folder = shared / "data" / "mnist"
    graph = passes.run_all(read(folder / "trained_lstm.tflite").graph)[0]
    with np.load(folder / "data.npz") as data:
        pixels = data["calib_x"][:32].astype(np.float32) / 255.0
    found = search(graph, samples_of(**{graph.inputs[0].name: list(pixels[:, None])}))
    assert found.plan.counts()["int8-weights"] == {"LSTM": 1}
    public = (folder / "trained_lstm_int8.tflite").stat().st_size
    assert len(write(found.graph, found.plan)) <= 1.05 * public
