"""Passes inside If, Loop and Scan, at any depth."""

from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from edgeq import ir
from edgeq.passes import run_all
from edgeq_converters.read.onnx import read
from edgeq_converters.write.onnx import write
from edgeq_runtime.engines.onnxruntime import open_session

NESTED = """g (float[2,3] x, bool c, bool d) => (float[2,3] y) {
    y = If (c) <
        then_branch = outer () => (float[2,3] a) {
            k = Add (one, one)
            r = Clip (x, zero)
            a = If (d) <
                then_branch = inner () => (float[2,3] p) { s = Identity (r) t = Clip (s, zero)
                                                           p = Mul (t, k) },
                else_branch = other () => (float[2,3] q) { q = Neg (r) }
            >
        },
        else_branch = last () => (float[2,3] b) { b = Abs (x) }
    >
}"""
LOOP = """g (float[3] x, int64 n) => (float[3] y, float[N,3] all) {
    y, all = Loop (n, , x) <
        body = step (int64 i, bool go, float[3] s) => (bool on, float[3] next, float[3] seen) {
            on = Identity (go)
            two = Add (one, one)
            h = Mul (s, two)
            j = Identity (h)
            next = Clip (j, zero)
            seen = Identity (next)
        }
    >
}"""
SCAN = """g (float[3] x, float[5,3] xs) => (float[3] y, float[5,3] ys) {
    y, ys = Scan <
        num_scan_inputs = 1,
        body = step (float[3] s, float[3] e) => (float[3] next, float[3] row) {
            t = Dropout (e)
            next = Add (s, t)
            row = Clip (next, zero)
        }
    > (x, xs)
}"""


@pytest.fixture
def numbers() -> dict[str, np.ndarray]:
    return {"one": np.array(1, np.float32), "zero": np.array(0, np.float32)}


def test_at_any_depth(make, inside, agree, noise, numbers):
    graph = make(NESTED, **numbers)
    after, reports = run_all(graph)
    assert inside(after) == {
        "If_0/then_branch": ["Relu", "If"],
        "If_0/then_branch/If_2/then_branch": ["Relu", "Mul"],
        "If_0/then_branch/If_2/else_branch": ["Neg"],
        "If_0/else_branch": ["Abs"],
    }
    lines = {report.name: report.changed for report in reports}
    assert lines["constant-folding"] == (
        "in `If_0/then_branch`: `Add` (node `Add_0`) is a constant now",
    )
    assert lines["identity"] == (
        "in `If_0/then_branch/If_2/then_branch`: `Identity` (node `Identity_0`) did nothing",
    )
    for c, d in ((True, True), (True, False), (False, True)):
        agree(graph, after, {"x": noise(2, 3), "c": np.array(c), "d": np.array(d)}, 0.0)


def test_constants_lie_where_they_are_read(make, numbers):
    """A folded one in the body that folded it; what nobody reads any more is gone everywhere."""
    after, _ = run_all(make(NESTED, **numbers))
    places = {
        place: [value.name for value in body.home.initializers.values()]
        for place, body in after.bodies()
    }
    assert places["If_0/then_branch"] == ["k"]
    assert list(after.home.initializers) == []  # the Clips are Relus now


@pytest.mark.parametrize("text", [LOOP, SCAN])
def test_loops(make, inside, agree, noise, numbers, text):
    used = {name: array for name, array in numbers.items() if f"{name})" in text}
    graph = make(text, **used)
    after, _ = run_all(graph)
    [operators] = inside(after).values()
    assert operators == (
        ["Identity", "Mul", "Relu", "Identity"] if text is LOOP else ["Add", "Relu"]
    )
    feeds = {"x": noise(3)} | ({"n": np.array(4)} if text is LOOP else {"xs": noise(5, 3)})
    agree(graph, after, feeds, 0.0)


def test_what_a_body_hands_on_keeps_its_node(make, numbers):
    """Loop's condition goes through an Identity: an output of a body is made in the body."""
    _, reports = run_all(make(LOOP, **numbers))
    refused = dict(next(report for report in reports if report.name == "identity").refused)
    assert refused["Loop_0/body/Identity_0"] == (
        "it joins an input or a constant to an output of the model"
    )


def test_a_dead_body_reads_nothing(make, ops, noise, numbers):
    """Then what only it read is dead too."""
    text = """g (float[2] x, bool c) => (float[2] y) {
        a = Neg (x)
        z = If (c) <then_branch = t () => (float[2] p) { p = Relu (a) },
                    else_branch = e () => (float[2] q) { q = Abs (a) }>
        y = Relu (x) }"""
    after, _ = run_all(make(text))
    assert ops(after) == ["Relu"]


def test_shapes_inside_are_known(make, inside, agree, noise):
    """A Reshape to the shape that there is: inference looks into bodies, and sees constants."""
    text = """g (float[2,3] x, bool c) => (float[2,3] y) {
        y = If (c) <then_branch = t () => (float[2,3] p) { n = Neg (x) r = Reshape (n, sizes)
                                                           p = Relu (r) },
                    else_branch = e () => (float[2,3] q) { q = Abs (x) }> }"""
    graph = make(text, sizes=np.array([2, 3]))
    after, _ = run_all(graph)
    assert inside(after)["If_0/then_branch"] == ["Neg", "Relu"]
    agree(graph, after, {"x": noise(2, 3), "c": np.array(True)}, 0.0)


def test_names_of_two_branches_may_coincide(make, agree, noise):
    """A new constant gets a name that no body has."""
    text = """g (float[2,4] x, bool c) => (float[2,3] y) {
        y = If (c) <then_branch = t () => (float[2,3] p) { m = MatMul (x, w) p = Add (m, b) },
                    else_branch = e () => (float[2,3] p) { m = MatMul (x, w) p = Add (b, m) }> }"""
    graph = make(text, w=noise(4, 3), b=noise(3))
    after, _ = run_all(graph)
    ir.check(after)
    bound = 2 * 6 * 4 * 16 * float(np.finfo(np.float32).eps)  # 4 products below 16, see test_linear
    for taken in (True, False):
        agree(graph, after, {"x": noise(2, 4), "c": np.array(taken)}, bound)


@pytest.mark.shared
@pytest.mark.parametrize("name", ["silero_vad", "silero_vad_16k_op15", "silero_vad_half"])
def test_a_recurrent_model_is_bit_equal(shared: Path, name):
    """No rounding changes: only constants are folded and no-ops taken out. State is fed back."""
    path = shared / "data" / "vad_silero" / f"{name}.onnx"
    source = read(path).graph
    after, _ = run_all(source)
    count = sum(len(body.nodes()) for _, body in after.bodies())
    assert count < 0.6 * sum(len(body.nodes()) for _, body in source.bodies())
    audio = np.load(shared / "data" / "vad_silero" / "data.npz")["audio_int16"][: 40 * 512]
    original = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    ours = open_session(write(after, None))
    states = [np.zeros((2, 1, 128), np.float32)] * 2
    for frame in np.pad(audio / np.float32(32768), (64, 0))[: 40 * 512].reshape(40, 512):
        x = np.pad(frame, (64, 0))[None].astype(np.float32)
        feeds = [{"input": x, "state": state} for state in states]
        if any(info.name == "sr" for info in original.get_inputs()):
            feeds[0]["sr"] = np.array(16000)
        if any(info.name == "sr" for info in after.inputs):
            feeds[1]["sr"] = np.array(16000)
        expected, got = original.run(None, feeds[0]), list(ours.run(feeds[1]).values())
        for one, other in zip(expected, got, strict=True):
            np.testing.assert_array_equal(one, other)
        states = [expected[1], got[1]]
    ours.close()
