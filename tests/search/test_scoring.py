"""Scores: parts of outputs, their noise, and the one number that the worst part dominates."""

from collections.abc import Callable

import numpy as np
import pytest

from edgeq.ir import Graph
from edgeq.search.scoring import BEST_DB, WORST_DB, Meter, Score, parts, refined

RNG = np.random.default_rng(1)
Graphs = Callable[..., Graph]

DETECTOR = """g (float[N,4,6] box, float[N,1,6] object, float[N,3,6] class,
    float[N,4,2] box2, float[N,1,2] object2, float[N,3,2] class2) => (float[N,8,8] y) {
    near = Concat <axis: int = 1> (box, object, class)
    far = Concat <axis: int = 1> (box2, object2, class2)
    both = Concat <axis: int = 2> (near, far)
    y = Transpose <perm: ints = [0, 2, 1]> (both) }"""


def score(graph: Graph, wanted: np.ndarray, got: np.ndarray, name: str = "y") -> Score:
    meter = Meter(refined(parts(graph), [{name: wanted}]))
    meter.add({name: wanted}, {name: got})
    return meter.score()


def test_scales_of_a_detector_share_their_parts(graph_of: Graphs) -> None:
    (output,) = parts(graph_of(DETECTOR))
    assert output.names == ("y[:, :, 0:4]", "y[:, :, 4:5]", "y[:, :, 5:8]")
    assert output.labels is not None
    assert output.labels.shape == (1, 8, 8)
    assert output.labels[0, 0].tolist() == [0, 0, 0, 0, 1, 2, 2, 2]
    assert (output.labels == output.labels[:, :1]).all()


@pytest.mark.parametrize(
    "text",
    [
        "g (float[N,4] x) => (float[N,4] y) { y = Relu (x) }",
        # an axis that the shapes do not have, and more parts than are worth telling apart
        "g (float[N] x) => (float[M] y) { y = Concat <axis: int = 0> (x, x) }",
        "g (float[1,1] x) => (float[1,17] y) { y = Concat <axis: int = 1> ("
        + ", ".join(["x"] * 17)
        + ") }",
    ],
)
def test_an_output_without_parts_is_one(graph_of: Graphs, text: str) -> None:
    (output,) = parts(graph_of(text))
    assert output.labels is None
    assert output.names == ("y",)


def test_constants_are_no_part(graph_of: Graphs) -> None:
    graph = graph_of(
        """g (float[N,2,3] x, float[N,1,3] z) => (float[N,4,3] y) {
            y = Concat <axis: int = 1> (token, x, z) }""",
        {"token": np.ones((1, 1, 3), np.float32)},
    )
    (output,) = parts(graph)
    assert output.names == ("y[:, 1:3, :]", "y[:, 3:4, :]")


def test_the_worst_part_dominates_and_each_is_scored_alone(graph_of: Graphs) -> None:
    graph = graph_of(
        """g (float[N,2] box, float[N,3] score) => (float[N,5] y) {
            y = Concat <axis: int = 1> (box, score) }"""
    )
    wanted = np.array([[100, 200, 0.3, 0.1, 0.2]], np.float32)
    got = wanted + np.array([[1, 1, 0.1, 0.1, 0.1]], np.float32)
    told = score(graph, wanted, got)
    box, rest = told.parts.values()
    assert box == pytest.approx(10 * np.log10(50000 / 2))
    assert rest == pytest.approx(10 * np.log10(0.14 / 0.03), abs=1e-5)  # float32 inputs
    assert told.worst == ("y[:, 2:5]", rest)
    mean = (2 / 50000 + 0.03 / 0.14) / 2
    assert told.total == pytest.approx(-10 * np.log10(mean), abs=1e-5)
    whole = 10 * np.log10(50000.14 / 2.03)
    assert told.total < whole - 30, "the SQNR of the whole hides the scores behind the boxes"


def test_objectness_weighs_its_neighbours(graph_of: Graphs) -> None:
    """Noise where there is no object does not count; the objectness itself counts everywhere."""
    (output,) = refined(parts(graph_of(DETECTOR)), [{"y": np.zeros((1, 8, 8), np.float32)}])
    assert output.gate == (2, 4)
    wanted = RNG.normal(size=(1, 8, 8)).astype(np.float32)
    wanted[:, :, 4] = 0.0
    wanted[:, 3, 4] = 0.5
    noisy = wanted.copy()
    noisy[:, :3, 5:] += 1.0
    told = score(graph_of(DETECTOR), wanted, noisy)
    assert told.total == BEST_DB
    noisy[:, 3, 5:] += 0.1
    told = score(graph_of(DETECTOR), wanted, noisy)
    signal = float(np.square(wanted[0, 3, 5:].astype(np.float64)).sum())
    assert told.parts["y[:, :, 5:8]"] == pytest.approx(10 * np.log10(signal / 0.03), abs=1e-4)


def test_a_part_that_leaves_0_to_1_is_no_objectness(graph_of: Graphs) -> None:
    (output,) = refined(parts(graph_of(DETECTOR)), [{"y": np.full((1, 8, 8), 1.5, np.float32)}])
    assert output.gate is None


def test_probabilities_are_scored_as_logarithms(graph_of: Graphs) -> None:
    graph = graph_of("g (float[N,3] x) => (float[N,3] y) { y = Softmax (x) }")
    wanted = np.array([[0.9989, 1e-3, 1e-4]], np.float32)
    got = np.array([[0.9989, 1e-4, 1e-3]], np.float32)
    told = score(graph, wanted, got)
    plain = 10 * np.log10(np.square(wanted).sum() / np.square(got - wanted).sum())
    assert plain > 55
    logs = np.log(wanted.astype(np.float64))
    logs -= logs.mean()
    lost = np.square(np.log(10.0)) * 2
    assert told.total == pytest.approx(10 * np.log10(np.square(logs).sum() / lost), abs=1e-3)


def test_integers_are_scored_by_how_many_differ(graph_of: Graphs) -> None:
    graph = graph_of("g (float[N,4] x) => (int64[N,4] y) { y = Cast <to: int = 7> (x) }")
    wanted = np.array([[1, 2, 3, 4]])
    assert score(graph, wanted, wanted).total == BEST_DB
    assert score(graph, wanted, wanted + [0, 0, 0, 9]).total == pytest.approx(10 * np.log10(4))


def test_what_is_not_finite_in_float_is_not_compared(graph_of: Graphs) -> None:
    graph = graph_of("g (float[N,3] x) => (float[N,3] y) { y = Relu (x) }")
    wanted = np.array([[np.inf, np.nan, 1.0]], np.float32)
    assert score(graph, wanted, np.array([[0, 0, 1]], np.float32)).total == BEST_DB
    broken = np.array([[0, 0, np.nan]], np.float32)
    assert score(graph, wanted, broken).total == WORST_DB


def test_a_shape_that_came_out_otherwise_is_not_compared(graph_of: Graphs) -> None:
    graph = graph_of("g (float[N] x) => (int64[1,M] y) { y = NonZero (x) }")
    told = score(graph, np.zeros((1, 2), np.int64), np.zeros((1, 3), np.int64))
    assert told.parts == {}
    assert told.worst == ("", BEST_DB)


def test_a_zero_signal_has_a_finite_score(graph_of: Graphs) -> None:
    graph = graph_of("g (float[N,2] x) => (float[N,2] y) { y = Relu (x) }")
    zero = np.zeros((1, 2), np.float32)
    assert score(graph, zero, zero).total == BEST_DB
    assert score(graph, zero, zero + 1).total == WORST_DB
