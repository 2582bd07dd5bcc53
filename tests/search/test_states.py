"""Models with state: which inputs are fed from which outputs, and who drifts in closed loop."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from edgeq.api.lab import Lab
from edgeq.ir import Graph
from edgeq.search import states, static
from edgeq.search.states import State

RNG = np.random.default_rng(4)
Graphs = Callable[..., Graph]


@pytest.mark.parametrize(
    ("given", "made"),
    [
        ("state", "stateN"),
        ("state", "state_out"),
        ("h0", "hn"),
        ("h_0", "h_n"),
        ("h", "h_out"),
        ("hidden_in", "hidden_out"),
        ("past_k", "present_k"),
        ("prev_cell", "new_cell"),
    ],
)
def test_a_state_is_known_by_its_name(graph_of: Graphs, given: str, made: str) -> None:
    graph = graph_of(
        f"""g (float[1,4] input, float[1,4] {given}) => (float[1,4] output, float[1,4] {made}) {{
            output = Add (input, {given})
            {made} = Mul (input, {given}) }}"""
    )
    assert states.find_states(graph) == (State(given, made),)


@pytest.mark.parametrize(
    "text",
    [
        # the input and the output of any model are no state
        "g (float[1,4] input) => (float[1,4] output) { output = Relu (input) }",
        # other shapes, other types, other names, and two that could be meant
        """g (float[1,4] x, float[1,4] h) => (float[1,2] hn) {
            s = Add (x, h) hn = MatMul (s, w) }""",
        """g (float[1,4] x, float[1,4] h) => (int64[1,4] hn) {
            s = Add (x, h) hn = Cast <to: int = 7> (s) }""",
        "g (float[1,4] x, float[1,4] h) => (float[1,4] y) { y = Add (x, h) }",
        """g (float[1,4] h) => (float[1,4] hn, float[1,4] h_out) {
            hn = Relu (h) h_out = Neg (h) }""",
    ],
)
def test_what_is_no_state(graph_of: Graphs, text: str) -> None:
    graph = graph_of(text, {"w": np.ones((4, 2), np.float32)})
    assert states.find_states(graph) == ()


CELL = """g (float[1,16] x, float[1,16] h) => (float[1,1] y, float[1,16] hn) {
    a = MatMul (x, w)
    b = MatMul (h, u)
    hn = Add (a, b)
    y = MatMul (hn, v) }"""


def cell(graph_of: Graphs, gain: float) -> Graph:
    """h' = W x + gain R h, with R a rotation: errors stay for good as `gain` nears 1."""
    rotation, _ = np.linalg.qr(RNG.normal(size=(16, 16)))
    values = {
        "w": RNG.normal(size=(16, 16)) * 0.3,
        "u": rotation * gain,
        "v": RNG.normal(size=(16, 1)),
    }
    return graph_of(CELL, {name: value.astype(np.float32) for name, value in values.items()})


def frames(samples_of: Callable[..., Any], scale: float) -> Any:
    """States as single samples have them: small, as after a few runs."""
    return samples_of(
        x=[RNG.normal(size=(1, 16)).astype(np.float32) for _ in range(600)],
        h=[(RNG.normal(size=(1, 16)) * scale).astype(np.float32) for _ in range(600)],
    )


def test_a_loop_feeds_each_model_its_own_states(graph_of: Graphs, lab: Lab) -> None:
    graph = graph_of(
        """g (float[1] x, float[1] h) => (float[1] y, float[1] hn) {
            hn = Add (x, h) y = Mul (hn, one) }""",
        {"one": np.ones(1, np.float32)},
    )
    other = graph_of(
        """g (float[1] x, float[1] h) => (float[1] y, float[1] hn) {
            s = Add (x, h) hn = Add (s, error) y = Mul (hn, one) }""",
        {"one": np.ones(1, np.float32), "error": np.full(1, 0.125, np.float32)},
    )
    one = np.ones(1, np.float32)
    samples = [{"x": one, "h": one * 9 if at else one} for at in range(4)]
    with lab.float_model(graph) as reference, lab.float_model(other) as candidate:
        loop = states.run_loop(reference, candidate, states.find_states(graph), samples)
    # float: 2, 3, 4, 5; the other has lost another eighth each time
    signal, noise = 4 + 9 + 16 + 25, 0.125**2 * (1 + 4 + 9 + 16)
    assert loop.frames == 4
    assert loop.sqnr_db == pytest.approx(10 * np.log10(signal / noise))
    assert loop.agreement == 1.0


def test_a_plan_that_drifts_is_left_float(
    graph_of: Graphs, search: Callable[..., static.Found], samples_of: Callable[..., Any]
) -> None:
    """The calibrated range of the state is left behind after a few runs, and nothing forgets."""
    found = search(cell(graph_of, 0.999), frames(samples_of, 0.1))
    assert found.score.total > 25, "on single samples nothing shows"
    assert found.left_float.startswith("with `hn` fed back as `h` over 512 samples, ")
    assert not static.has_int8(found.draft)


def test_a_plan_that_forgets_its_errors_is_kept(
    graph_of: Graphs, search: Callable[..., static.Found], samples_of: Callable[..., Any]
) -> None:
    found = search(cell(graph_of, 0.1), frames(samples_of, 1.0))
    assert found.left_float == ""
    assert static.has_int8(found.draft)


def test_few_frames_show_nothing(
    graph_of: Graphs, search: Callable[..., static.Found], samples_of: Callable[..., Any]
) -> None:
    samples = frames(samples_of, 1.0)
    few = samples_of(**{name: [feeds[name] for feeds in samples.feeds[:299]] for name in "xh"})
    found = search(cell(graph_of, 0.1), few)
    assert found.left_float == (
        "`hn` is fed back as `h`, and 299 samples in a row cannot show that nothing drifts: 300 can"
    )


@pytest.mark.parametrize(
    "text",
    [
        # an image and what became of it: nothing else is read, so nothing is a stream
        "g (float[1,4] image) => (float[1,4] image_out) { image_out = Relu (image) }",
        # an input that is handed on, as it is and behind an Identity
        "g (float[1,4] x, float[1,4] z) => (float[1,4] y, float[1,4] z) { y = Add (x, z) }",
        """g (float[1,4] x, float[1,4] z) => (float[1,4] y, float[1,4] z_out) {
            y = Add (x, z) z_out = Identity (z) }""",
    ],
)
def test_what_only_looks_like_a_state(graph_of: Graphs, text: str) -> None:
    assert states.find_states(graph_of(text)) == ()


BARE = """g (float[1,2] x, float[1,2] h) => (float[1,2] hn) {
    s = Add (x, h) hn = Mul (s, gain) }"""


def test_states_are_compared_where_nothing_else_is_made(graph_of: Graphs, lab: Lab) -> None:
    """A bare cell: with no other output its drift is seen on the state itself."""
    graph, other = (graph_of(BARE, {"gain": np.float32(gain)}) for gain in (0.5, 0.25))
    one = np.ones((1, 2), np.float32)
    with lab.float_model(graph) as reference, lab.float_model(other) as candidate:
        loop = states.run_loop(
            reference, candidate, states.find_states(graph), [{"x": one, "h": one}]
        )
    assert loop.sqnr_db == pytest.approx(10 * np.log10(1.0**2 / 0.5**2))
    assert loop.agreement == 1.0, "no decision is made of a state"


def test_another_shape_is_as_far_off_as_can_be(graph_of: Graphs, lab: Lab) -> None:
    """An output whose size depends on its values, and came out otherwise."""
    text = """g (float[4] x, float[4] h) => (float[K] y, float[4] hn) {
        hn = Mul (x, gain) c = Greater (hn, half) y = Compress <axis = 0> (x, c) }"""
    graph, other = (
        graph_of(text, {"gain": np.float32(gain), "half": np.float32(0.5)}) for gain in (1.0, 0.1)
    )
    one = np.ones(4, np.float32)
    with lab.float_model(graph) as reference, lab.float_model(other) as candidate:
        loop = states.run_loop(
            reference, candidate, states.find_states(graph), [{"x": one, "h": one}]
        )
    assert loop.sqnr_db == -np.inf
    assert not loop.is_steady
