"""LSTM, GRU and RNN as TFLite, beside ONNX Runtime: one kernel where it fits, else unrolled."""

import numpy as np
import pytest

from edgeq.errors import EdgeqError
from edgeq.quant.dynamic import plan_dynamic
from edgeq.quant.half import plan_half
from edgeq_converters.write import tflite

STEPS, BATCH, INPUTS, HIDDEN = 5, 2, 3, 8
GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
KERNEL = "UNIDIRECTIONAL_SEQUENCE_LSTM"
RNG = np.random.default_rng(5)

# Sums of up to 8 products in float32, five steps deep; measured 6e-7 at most.
TOLERANCE = 5e-6


def weights_of(kind: str, directions: int = 1, hidden: int = HIDDEN) -> dict[str, np.ndarray]:
    rows = GATES[kind] * hidden

    def draw(*shape: int) -> np.ndarray:
        return RNG.normal(0.0, 0.5, shape).astype(np.float32)

    return {
        "w": draw(directions, rows, INPUTS),
        "r": draw(directions, rows, hidden),
        "b": draw(directions, 2 * rows),
    }


def text_of(
    kind: str,
    attributes: str = "",
    *,
    inputs: str = "x, w, r, b",
    outputs: str = "y, h",
    directions: int = 1,
    more: str = "",
) -> str:
    states = f"float[{directions}, {BATCH}, {HIDDEN}]"
    shapes = {"y": f"float[{STEPS}, {directions}, {BATCH}, {HIDDEN}]", "h": states, "c": states}
    listed = ", ".join(f"{shapes[name]} {name}" for name in outputs.split(", ") if name)
    names = [name or '""' for name in outputs.split(", ")]
    extra = f", {more}" if more else ""
    said = f"hidden_size = {HIDDEN}{', ' if attributes else ''}{attributes}"
    return (
        f"agraph (float[{STEPS}, {BATCH}, {INPUTS}] x{extra}) => ({listed}) "
        f"{{ {', '.join(names)} = {kind} <{said}> ({inputs}) }}"
    )


@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
def test_lstm_is_one_kernel_per_direction(check_float, direction):
    directions = 2 if direction == "bidirectional" else 1
    text = text_of("LSTM", f'direction = "{direction}"', directions=directions)
    written = check_float(text, weights_of("LSTM", directions), tolerance=TOLERANCE)
    assert written.ops[KERNEL] == directions
    assert written.ops["FULLY_CONNECTED"] == 0
    assert written.ops["REVERSE_V2"] == (0 if direction == "forward" else 2)


@pytest.mark.parametrize("outputs", ["y", "", ", h"])
def test_lstm_of_fewer_outputs(check_float, outputs):
    if not outputs:
        outputs = "y, "
    text = text_of("LSTM", outputs=outputs).replace(", )", ")")
    written = check_float(text, weights_of("LSTM"), tolerance=TOLERANCE)
    assert written.ops[KERNEL] == 1


def test_lstm_with_peepholes_is_the_kernel(check_float):
    constants = weights_of("LSTM")
    constants["p"] = RNG.normal(0.0, 0.5, (1, 3 * HIDDEN)).astype(np.float32)
    text = text_of("LSTM", inputs='x, w, r, b, "", "", "", p')
    assert check_float(text, constants, tolerance=TOLERANCE).ops[KERNEL] == 1


def test_lstm_with_relu_and_states_of_zeros_is_the_kernel(check_float):
    constants = weights_of("LSTM") | {"z": np.zeros((1, BATCH, HIDDEN), np.float32)}
    said = 'activations = ["Sigmoid", "Relu", "Relu"]'
    text = text_of("LSTM", said, inputs='x, w, r, b, "", z, z')
    assert check_float(text, constants, tolerance=TOLERANCE).ops[KERNEL] == 1


def test_second_run_begins_with_zeros_too(graph_of, pair):
    """LiteRT keeps the kernel's state until it is told to forget it: the runtime does."""
    from edgeq_runtime.engines import litert

    made = pair(graph_of(text_of("LSTM"), weights_of("LSTM")))
    session = litert.open_session(made.lite.data, threads=1)
    feeds, other = made.samples(2)
    first = session.run(feeds)["y"]
    session.run(other)
    np.testing.assert_array_equal(session.run(feeds)["y"], first)


@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize("peepholes", [False, True])
def test_lstm_with_its_last_cell_is_unrolled(check_float, direction, peepholes):
    directions = 2 if direction == "bidirectional" else 1
    constants = weights_of("LSTM", directions)
    inputs = "x, w, r, b"
    if peepholes:
        constants["p"] = RNG.normal(0.0, 0.5, (directions, 3 * HIDDEN)).astype(np.float32)
        inputs += ', "", "", "", p'
    text = text_of(
        "LSTM",
        f'direction = "{direction}"',
        inputs=inputs,
        outputs="y, h, c",
        directions=directions,
    )
    written = check_float(text, constants, tolerance=TOLERANCE)
    assert written.ops[KERNEL] == 0
    # one of all inputs, one of the state per step but the first, whose state is zero
    assert written.ops["FULLY_CONNECTED"] == directions * STEPS


def test_steps_share_their_weights(graph_of, pair):
    constants = weights_of("LSTM")
    size_bytes = sum(array.nbytes for array in constants.values())
    made = pair(graph_of(text_of("LSTM", outputs="y, h, c"), constants))
    # five steps of 12 operators of about 150 bytes; five copies of the weights would be 7 kB more
    assert len(made.lite.data) < size_bytes + 14_000
    (matrix,) = {
        row["inputs"][1]
        for row in made.lite.interpreter("builtin")._get_ops_details()
        if row["op_name"] == "FULLY_CONNECTED" and row["inputs"][2] == -1
    }
    assert matrix > 0


@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
def test_given_states(check_float, kind):
    states = f"float[1, {BATCH}, {HIDDEN}] h0"
    inputs, outputs = 'x, w, r, b, "", h0', "y, h"
    if kind == "LSTM":
        states += f", float[1, {BATCH}, {HIDDEN}] c0"
        inputs, outputs = inputs + ", c0", "y, h, c"
    text = text_of(kind, inputs=inputs, outputs=outputs, more=states)
    check_float(text, weights_of(kind), tolerance=TOLERANCE)


def test_given_states_of_both_directions(check_float):
    text = text_of(
        "GRU",
        'direction = "bidirectional"',
        inputs='x, w, r, b, "", h0',
        directions=2,
        more=f"float[2, {BATCH}, {HIDDEN}] h0",
    )
    check_float(text, weights_of("GRU", 2), tolerance=TOLERANCE)


@pytest.mark.parametrize("linear", [0, 1])
@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize("inputs", ["x, w, r, b", "x, w, r"])
def test_gru(check_float, linear, direction, inputs):
    directions = 2 if direction == "bidirectional" else 1
    text = text_of(
        "GRU",
        f'direction = "{direction}", linear_before_reset = {linear}',
        inputs=inputs,
        directions=directions,
    )
    constants = weights_of("GRU", directions)
    if inputs == "x, w, r":
        del constants["b"]
    check_float(text, constants, tolerance=TOLERANCE)


@pytest.mark.parametrize("direction", ["forward", "bidirectional"])
@pytest.mark.parametrize("name", ["Tanh", "Relu", "Sigmoid", "Affine", "HardSigmoid", "LeakyRelu"])
def test_rnn_activations(check_float, direction, name):
    directions = 2 if direction == "bidirectional" else 1
    names = ", ".join([f'"{name}"'] * directions)
    said = f'direction = "{direction}", activations = [{names}]'
    if name in ("Affine", "HardSigmoid", "LeakyRelu"):
        said += f", activation_alpha = [{', '.join(['0.3'] * directions)}]"
    if name in ("Affine", "HardSigmoid"):
        said += f", activation_beta = [{', '.join(['0.4'] * directions)}]"
    text = text_of("RNN", said, directions=directions)
    check_float(text, weights_of("RNN", directions), tolerance=TOLERANCE)


@pytest.mark.parametrize("attributes", ["clip = 0.25", "input_forget = 1"])
def test_lstm_of_other_arithmetic_is_unrolled(check_float, attributes):
    written = check_float(text_of("LSTM", attributes), weights_of("LSTM"), tolerance=TOLERANCE)
    assert written.ops[KERNEL] == 0


@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
@pytest.mark.parametrize("outputs", ["y, h", "y, h, c"])
def test_batch_in_front(graph_of, pair, kind, outputs):
    """layout = 1, which ONNX Runtime has not: held against layout = 0, its axes moved."""
    if kind != "LSTM" and "c" in outputs:
        outputs = "y, h"
    constants = weights_of(kind, 2)
    said = 'direction = "bidirectional"'
    plain = pair(graph_of(text_of(kind, said, outputs=outputs, directions=2), constants))
    feeds = plain.samples(1)[0]
    wanted = plain.onnx.run(dict(feeds))
    text = text_of(kind, f"{said}, layout = 1", outputs=outputs, directions=2)
    text = text.replace(f"[{STEPS}, {BATCH}, {INPUTS}]", f"[{BATCH}, {STEPS}, {INPUTS}]")
    text = text.replace(f"[{STEPS}, 2, {BATCH},", f"[{BATCH}, {STEPS}, 2,")
    text = text.replace(f"[2, {BATCH}, {HIDDEN}]", f"[{BATCH}, 2, {HIDDEN}]")
    data = tflite.write(graph_of(text, constants), None)
    found = type(plain.lite)(data).run({"x": feeds["x"].transpose(1, 0, 2)})
    np.testing.assert_allclose(found["y"], wanted["y"].transpose(2, 0, 1, 3), 0.0, TOLERANCE)
    for name in outputs.split(", ")[1:]:
        np.testing.assert_allclose(found[name], wanted[name].transpose(1, 0, 2), 0.0, TOLERANCE)


@pytest.mark.parametrize("outputs", ["y, h", "y, h, c"])
@pytest.mark.parametrize("kind", ["LSTM", "GRU"])
def test_weights_in_int8_are_computed_with_in_float(graph_of, pair, kind, outputs):
    """Both files restore the same integers: 768 to 1,024 values of R, one scale per row."""
    hidden = 16
    if kind == "GRU" and "c" in outputs:
        outputs = "y, h"
    text = text_of(kind, outputs=outputs).replace(f" {HIDDEN}]", f" {hidden}]")
    text = text.replace(f"hidden_size = {HIDDEN}", f"hidden_size = {hidden}")
    graph = graph_of(text, weights_of(kind, hidden=hidden))
    plan = plan_dynamic(graph, acts="fp32")
    assert plan.tensors["r"].axis == 1
    made = pair(graph, plan)
    feeds = made.samples(1)[0]
    wanted, found = made.onnx.run(dict(feeds)), made.lite.run(feeds)
    for name, array in wanted.items():
        np.testing.assert_allclose(found[name], array, 0.0, TOLERANCE)
    rounding = np.abs(pair(graph).lite.run(feeds)["y"] - found["y"]).max()
    assert rounding > 1e-4  # so that the float weights would not do


def test_weights_in_float16(graph_of, pair):
    hidden = 16
    text = text_of("LSTM").replace(f" {HIDDEN}]", f" {hidden}]")
    text = text.replace(f"hidden_size = {HIDDEN}", f"hidden_size = {hidden}")
    graph = graph_of(text, weights_of("LSTM", hidden=hidden))
    plan = plan_half(graph)
    assert "r" in plan.tensors
    made = pair(graph, plan)
    feeds = made.samples(1)[0]
    wanted, found = made.onnx.run(dict(feeds)), made.lite.run(feeds)
    np.testing.assert_allclose(found["y"], wanted["y"], 0.0, TOLERANCE)
    assert np.abs(pair(graph).lite.run(feeds)["y"] - found["y"]).max() > 1e-6


def test_lengths_are_refused_unless_they_say_nothing(graph_of, check_float):
    text = text_of("GRU", inputs="x, w, r, b, n")
    constants = weights_of("GRU")
    check_float(text, constants | {"n": np.full(BATCH, STEPS, np.int32)}, tolerance=TOLERANCE)
    graph = graph_of(text, constants | {"n": np.array([2, STEPS], np.int32)})
    with pytest.raises(EdgeqError, match=r"`GRU`.*its sequences have lengths of their own"):
        tflite.write(graph, None)


def test_too_many_steps(graph_of):
    text = text_of("GRU").replace(f"[{STEPS}, ", "[300, ")
    with pytest.raises(EdgeqError, match="it has 300 steps, and edgeq writes 256 one by one"):
        tflite.write(graph_of(text, weights_of("GRU")), None)


def test_unknown_activation(graph_of):
    text = text_of("RNN", 'activations = ["Softsign"]')
    with pytest.raises(EdgeqError, match="no TFLite form of its activation `softsign`"):
        tflite.write(graph_of(text, weights_of("RNN")), None)
