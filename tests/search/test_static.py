"""The static search on nets made to need each of its steps, and on some that need none."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import onnx_ir
import pytest

from edgeq.api.lab import Lab
from edgeq.ir import Graph
from edgeq.search import design, static, transforms
from edgeq.search.scoring import Score

RNG = np.random.default_rng(3)
Graphs = Callable[..., Graph]
Search = Callable[..., static.Found]

CNN = """g (float[N,8,8,8] x) => (float[N,8,8,8] y) {
    a = Conv <pads: ints = [1, 1, 1, 1]> (x, w1, b1)
    r = Relu (a)
    d = Conv <pads: ints = [1, 1, 1, 1], group: int = 8> (r, w2, b2)
    s = Relu (d)
    y = Conv (s, w3, b3) }"""


def weights() -> dict[str, np.ndarray]:
    def normal(*shape: int, gain: float) -> np.ndarray:
        return (RNG.normal(size=shape) * gain).astype(np.float32)

    return {
        "w1": normal(8, 8, 3, 3, gain=0.15),
        "b1": normal(8, gain=0.1),
        "w2": normal(8, 1, 3, 3, gain=0.5),
        "b2": normal(8, gain=0.1),
        "w3": normal(8, 8, 1, 1, gain=0.5),
        "b3": normal(8, gain=0.1),
    }


def skewed(values: dict[str, np.ndarray], factor: float) -> dict[str, np.ndarray]:
    """The same function with channel ranges e^-factor .. e^+factor between the layers."""
    spread = np.exp(np.linspace(-factor, factor, 8)).astype(np.float32)
    first, second = RNG.permutation(spread), RNG.permutation(spread)
    return values | {
        "w1": values["w1"] * first[:, None, None, None],
        "b1": values["b1"] * first,
        "w2": values["w2"] * (second / first)[:, None, None, None],
        "b2": values["b2"] * second,
        "w3": values["w3"] / second[None, :, None, None],
    }


@pytest.fixture
def images(samples_of: Callable[..., Any]) -> Any:
    return samples_of(x=[RNG.normal(size=(1, 8, 8, 8)).astype(np.float32) for _ in range(24)])


def test_a_good_plan_is_not_searched_further(graph_of: Graphs, search: Search, images: Any) -> None:
    found = search(graph_of(CNN, weights()), images)
    assert found.score.total >= static.ENOUGH_DB
    assert {entry["step"] for entry in found.journal.entries} == {"ranges"}
    assert found.journal.trials == len(design.CHOICES)
    assert found.left_float == ""
    assert images.passes[0] == 24, "calibrated once over everything"


def test_skewed_channels_are_equalized_on_all_samples(
    graph_of: Graphs, search: Search, images: Any
) -> None:
    values = weights()
    plain = search(graph_of(CNN, values), images)
    graph = graph_of(CNN, skewed(values, 4.0))
    images.passes.clear()
    found = search(graph, images)
    first = found.journal.entries[0]["score_db"]
    assert first < static.ENOUGH_DB - 10
    assert any(name.startswith("equalized") for name in found.journal.kept)
    assert found.score.total > plain.score.total - 3.0, "as good as the net that was not spoilt"
    assert found.graph is not graph
    assert len(images.passes) >= 2, "ranges of the transformed graph come from all samples"


def test_a_transform_that_gains_nothing_is_not_kept(
    graph_of: Graphs, search: Search, images: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that is exact, and whose result is no better, does not replace the graph."""
    from edgeq.quant.algorithms.transform import Transformed

    monkeypatch.setattr(static, "ENOUGH_DB", 99.0)

    def nothing(graph: Graph, *_: Any, **__: Any) -> Transformed:
        return Transformed(graph.clone(), ("moved nothing",), (), 1)

    monkeypatch.setattr(transforms, "equalize", nothing)
    monkeypatch.setattr(transforms, "correct", nothing)
    graph = graph_of(CNN, weights())
    found = search(graph, images)
    tried = {entry["step"] for entry in found.journal.entries}
    assert {"equalized", "equalized by activations", "bias corrected"} <= tried
    assert found.journal.kept == []
    assert found.graph is graph
    assert any(line.startswith("not equalized, which gains ") for line in found.journal.lines)


def test_a_transform_that_is_not_exact_is_refused(
    graph_of: Graphs, search: Search, images: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = transforms.equalize

    def wrong(graph: Graph, **options: Any) -> Any:
        made = real(graph, **options)
        bias = next(v for v in made.graph.values() if v.name == "b3")
        bias.const_value = onnx_ir.tensor(np.full(8, 9.0, np.float32), name="b3")
        return made

    monkeypatch.setattr(transforms, "equalize", wrong)
    found = search(graph_of(CNN, skewed(weights(), 4.0)), images)
    assert not any(name.startswith("equalized") for name in found.journal.kept)
    assert any("which is not exact here" in line for line in found.journal.lines)


FRAGILE = """g (float[N,4,8,8] x) => (float[N,4,8,8] y) {
    a = Conv (x, w1)
    b = Conv (a, w2, big)
    c = Conv (b, w3, less)
    d = Conv (c, w4)
    y = Conv (d, w5) }"""


def fragile_weights() -> dict[str, np.ndarray]:
    """`b` carries an offset of 3000 that the next layer takes away: 8 bits of it hold nothing."""
    square = {
        name: (RNG.normal(size=(4, 4, 1, 1)) * 0.6).astype(np.float32)
        for name in ("w1", "w2", "w4", "w5")
    }
    exact = np.float32(127 / 128)  # a weight scale of 2**-7, so that w3 itself loses nothing
    w3 = np.eye(4, dtype=np.float32).reshape(4, 4, 1, 1) * exact
    offset = np.full(4, 3000, np.float32)
    return square | {"w3": w3, "big": offset, "less": -offset * exact}


def small(samples_of: Callable[..., Any]) -> Any:
    return samples_of(x=[RNG.normal(size=(1, 4, 8, 8)).astype(np.float32) for _ in range(16)])


def test_one_tensor_that_is_the_whole_loss_stays_float(
    graph_of: Graphs, search: Search, samples_of: Callable[..., Any]
) -> None:
    found = search(graph_of(FRAGILE, fragile_weights()), small(samples_of))
    ops = found.draft.ops
    left = {op.node: op.reason for op in ops.values() if op.precision == "float32"}
    assert set(left) == {"conv1", "conv2"}, "its maker and its reader, no more"
    for reason in left.values():
        assert reason.startswith("quantizing `b` alone leaves ")
        assert reason.endswith(" dB at output `y`")
    assert found.score.total > 20
    assert found.journal.entries[0]["score_db"] < 8
    assert "1 tensor in float" in found.summary
    assert found.decided.endswith(" ranges, 1 tensor in float"), "for the bundle: no figure"


def test_weights_that_are_the_whole_loss_leave_their_layer_in_float(
    graph_of: Graphs, search: Search, samples_of: Callable[..., Any]
) -> None:
    """One weight, for a channel that is always zero, sets the scale of its row."""
    values = {name: np.eye(4, dtype=np.float32) for name in ("w1", "w2", "w3")}
    values["w2"] = values["w2"] + np.array([[1e5], [0], [0], [0]], np.float32)
    values["w1"] = values["w1"] * np.array([0, 1, 1, 1], np.float32)
    graph = graph_of(
        """g (float[N,4] x) => (float[N,4] y) {
            a = MatMul (x, w1)
            b = MatMul (a, w2)
            y = MatMul (b, w3) }""",
        values,
    )
    samples = samples_of(x=[RNG.normal(size=(64, 4)).astype(np.float32) for _ in range(8)])
    found = search(graph, samples)
    left = {op.node: op.reason for op in found.draft.ops.values() if op.precision == "float32"}
    assert list(left) == ["matmul1"]
    assert left["matmul1"].startswith("quantizing the weights of `matmul1` alone leaves ")
    assert found.score.total > 20


def test_where_nothing_is_left_all_of_it_is_float(
    graph_of: Graphs, search: Search, samples_of: Callable[..., Any]
) -> None:
    graph = graph_of(
        """g (float[N,4,8,8] x) => (float[N,4,8,8] y) {
            b = Conv (x, w2, big)
            y = Conv (b, w3, less) }""",
        {k: v for k, v in fragile_weights().items() if k in ("w2", "w3", "big", "less")},
    )
    found = search(graph, small(samples_of))
    assert found.left_float.startswith("quantizing `b` alone leaves ")
    assert not static.has_int8(found.draft)
    assert {op.reason for op in found.draft.ops.values()} == {found.left_float}
    assert found.plan.tensors == {}


def test_a_method_that_was_asked_for_is_the_only_one(
    graph_of: Graphs, search: Search, images: Any
) -> None:
    found = search(graph_of(CNN, weights()), images, method="kl")
    assert found.method == "kl"
    assert {entry["choice"] for entry in found.journal.entries} == {"kl"}
    assert found.plan.tensors["x"].origin == "kl"


def test_the_simpler_method_is_kept_unless_another_gains_the_margin(
    graph_of: Graphs, lab: Lab, images: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph = graph_of(CNN, weights())
    options = static.Options()
    begun = static.start(lab, graph, static.drafted(graph, options), images)
    for gains, wanted in (
        ((0.0, 0.24, 0.24, 0.24), "minmax"),
        ((0.0, 0.2, 0.26, 0.4), "p99.99"),
        ((0.0, 0.3, 0.5, 0.6), "mse"),
        ((0.0, -1.0, -1.0, 0.25), "mse"),
    ):
        told = iter(gains)

        def fake(*_: Any, told: Any = told) -> Score:
            decibels = 40.0 + next(told)
            return Score({"y": decibels}, decibels)

        monkeypatch.setattr(design.Designer, "_plan", lambda *_, **__: None)
        monkeypatch.setattr("edgeq.search.trials.Trials.of_plan", fake)
        monkeypatch.setattr(static, "_other_decisions", lambda *_: ())
        assert static.find(lab, begun, images, options).method == wanted, gains


def test_two_searches_agree_to_the_last_digit(
    graph_of: Graphs, search: Search, images: Any
) -> None:
    graph = graph_of(CNN, skewed(weights(), 3.0))
    one, two = search(graph, images), search(graph, images)
    assert one.plan == two.plan
    assert one.journal == two.journal


def test_other_decisions_are_told(
    graph_of: Graphs, search: Search, samples_of: Callable[..., Any], lab: Lab
) -> None:
    """Scores that are nearly equal: int8 cannot keep their order."""
    graph = graph_of(
        "g (float[N,16] x) => (float[N,16] y) { y = MatMul (x, w) }",
        {"w": (np.ones((16, 16)) + RNG.normal(size=(16, 16)) * 2e-2).astype(np.float32)},
    )
    samples = samples_of(x=[RNG.uniform(size=(4, 16)).astype(np.float32) for _ in range(20)])
    (warning,) = search(graph, samples).warnings
    assert warning.startswith("the largest value of `y` is float's in ")
    assert warning.endswith(" of 80 rows of the calibration data")


def test_the_document_is_small_and_rounded(graph_of: Graphs, search: Search, images: Any) -> None:
    found = search(graph_of(CNN, skewed(weights(), 4.0)), images)
    told = found.journal.to_json(found.score)
    assert told["score_db"] == round(found.score.total, 1)
    assert told["parts"] == [{"name": "y", "sqnr_db": told["score_db"]}]
    assert told["plans"] == found.journal.trials
    assert len(told["tried"]) <= 60
    found.journal.entries.extend(replace_entries := [dict(told["tried"][0])] * 100)
    assert len(found.journal.to_json(found.score)["tried"]) == 60, len(replace_entries)
    assert found.journal.to_json(None)["score_db"] is None


def test_without_int8_there_is_nothing_to_start_from(graph_of: Graphs) -> None:
    graph = graph_of("g (float[N,4] x) => (float[N,4] y) { y = Relu (x) }")
    first = static.drafted(graph, static.Options())
    assert not static.has_int8(first)
    kept = static.drafted(graph, replace(static.Options(), float_nodes={"relu0": "because"}))
    assert kept.ops["relu0"].reason == "because"


def test_what_weights_that_cannot_saturate_cost_is_said(
    graph_of: Graphs, lab: Lab, images: Any
) -> None:
    graph = graph_of(CNN, weights())
    for pair_safe in (False, True):
        options = static.Options(pair_safe=pair_safe)
        begun = static.start(lab, graph, static.drafted(graph, options), images)
        found = static.find(lab, begun, images, options)
        said = [line for line in found.journal.lines if "weights that cannot saturate" in line]
        assert len(said) == pair_safe
        assert ("weights that cannot saturate cost " in found.summary) == pair_safe
        assert "saturate" not in found.decided, "for the bundle: no figure"


def test_weights_that_two_layers_share_are_found_too(
    graph_of: Graphs, search: Search, samples_of: Callable[..., Any]
) -> None:
    values = {name: np.eye(4, dtype=np.float32) for name in ("w1", "w2")}
    values["w2"] = values["w2"] + np.array([[1e5], [0], [0], [0]], np.float32)
    values["w1"] = values["w1"] * np.array([0, 1, 1, 1], np.float32)
    graph = graph_of(
        """g (float[N,4] x) => (float[N,4] y, float[N,4] z) {
            a = MatMul (x, w1)
            y = MatMul (a, w2)
            z = MatMul (a, w2) }""",
        values,
    )
    samples = samples_of(x=[RNG.normal(size=(64, 4)).astype(np.float32) for _ in range(8)])
    found = search(graph, samples)
    left = {op.node: op.reason for op in found.draft.ops.values() if op.precision == "float32"}
    assert list(left) == ["matmul1", "matmul2"]
    for reason in left.values():
        assert reason.startswith("quantizing the weights of `matmul1` and `matmul2` alone leaves ")


def test_a_loss_that_the_first_samples_do_not_show_is_found(
    graph_of: Graphs, search: Search, samples_of: Callable[..., Any]
) -> None:
    """One value that p99.9 cuts off, in a late sample: then all samples are looked at, and each
    tensor on the way of that value leaves nothing of it."""
    arrays = [RNG.normal(size=(1, 8, 8, 8)).astype(np.float32) for _ in range(16)]
    arrays[10][0, 0, 4, 4] = 1e4
    found = search(graph_of(CNN, weights()), samples_of(x=arrays), method="p99.9")
    assert found.journal.entries[0]["score_db"] < 3
    assert " alone leaves " in found.left_float
