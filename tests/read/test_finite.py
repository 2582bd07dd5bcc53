"""NaN and infinity in weights: which pass, and which are refused with name and count."""

import numpy as np
import pytest
from onnx import TensorProto, helper

from edgeq_converters.read import finite

INF = np.float32(np.inf)
LINEAR = "g (float[N,4] x) => (float[N,4] y) { y = MatMul (x, w) }"


def plain(*changes: tuple[int, float]) -> np.ndarray:
    array = np.ones((4, 4), np.float32)
    for index, value in changes:
        array.reshape(-1)[index] = value
    return array


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (plain((3, np.nan)), "tensor `w` has 1 NaN of 16 values"),
        (plain((0, INF), (1, -INF)), "tensor `w` has 2 Inf of 16 values"),
        (plain((0, INF), (1, np.nan)), "tensor `w` has 1 NaN and 1 Inf of 16 values"),
    ],
)
def test_is_refused(model, refusal, array, message):
    error = refusal(model(LINEAR, w=array))
    assert error.slug == "non-finite-weights"
    assert error.message == f"m.onnx: {message}"


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_other_widths(model, refusal, dtype):
    text = LINEAR.replace("float[", {"float16": "float16[", "float64": "double["}[dtype.__name__])
    assert "1 NaN" in refusal(model(text, w=plain((5, np.nan)).astype(dtype))).message


def test_bfloat16(model, refusal):
    tensor = helper.make_tensor("w", TensorProto.BFLOAT16, [2], b"\xc0\x7f\x80\x3f", raw=True)
    made = model("g (float[2] x) => (float[2] y) { a = Cast <to = 1> (w) y = Add (x, a) }")
    made.graph.initializer.append(tensor)
    assert "1 NaN of 2 values" in refusal(made).message


def test_values_stored_one_by_one(model, refusal):
    made = model(LINEAR)
    made.graph.initializer.append(helper.make_tensor("w", 1, [4, 4], [np.nan] * 16))
    assert "16 NaN of 16 values" in refusal(made).message


def test_several_tensors_in_one_error(model, refusal):
    text = "g (float[N,4] x) => (float[N,4] y) { a = MatMul (x, w) y = Add (a, b) }"
    message = refusal(model(text, w=plain((0, np.nan)), b=np.full(4, np.nan, np.float32))).message
    assert "tensor `w` has 1 NaN" in message and "tensor `b` has 4 NaN" in message


def test_together_with_what_is_unsupported(model, refusal):
    text = "g (float[N,4] x) => (float[N,4] y) { a = MatMul (x, w) y = own.Act (a) }"
    error = refusal(model(text, '"": 21, "own": 1', w=plain((0, np.nan))))
    assert error.slug == "unsupported-op"
    assert "own::Act" in error.message and "1 NaN" in error.message


# an infinite constant that is only a bound, a filling or a mask
HARMLESS = {
    "Where": ("y = Where (m, x, k)", -INF),
    "Clip": ("y = Clip (x, k)", -INF),
    "Max": ("y = Max (x, k)", -INF),
    "Min": ("y = Min (x, k)", INF),
    "Less": ("a = Less (x, k) y = Where (a, x, x)", INF),
    "Pad": ("p = Pad (x, pads, k) y = Slice (p, from, upto, axes)", -INF),
    "moved": ("e = Expand (k, shape) y = Where (m, x, e)", -INF),
    "mask by Add": ("y = Add (x, k)", np.array([0, -INF, 0, -INF], np.float32)),
    "mask sliced": (
        "e = Slice (k, from, upto) y = Add (x, e)",
        np.array([0, -INF, 0, 0, 0], np.float32),
    ),
}
OTHERS = {
    "m": np.ones((2, 4), bool),
    "pads": np.array([0, 0, 0, 1]),
    "from": np.array([0]),
    "upto": np.array([4]),
    "axes": np.array([1]),
    "shape": np.array([2, 4]),
}


@pytest.mark.parametrize("case", HARMLESS)
def test_passes(model, load, case):
    nodes, constant = HARMLESS[case]
    used = {name: array for name, array in OTHERS.items() if name in nodes}
    load(model(f"g (float[2,4] x) => (float[2,4] y) {{ {nodes} }}", k=np.asarray(constant), **used))


SPREADING = {
    "scalar by Add": ("y = Add (x, k)", -INF),
    "by Mul": ("y = Mul (x, k)", np.array([0, -INF, 0, -INF], np.float32)),
    "two signs": ("y = Add (x, k)", np.array([0, -INF, INF, 0], np.float32)),
    "weights with one": ("y = Add (x, k)", np.array([0, -INF, 1, 0], np.float32)),
    "two readers": ("a = Where (m, x, k) y = Mul (a, k)", -INF),
    "moved, then Mul": ("e = Expand (k, shape) y = Mul (x, e)", -INF),
}


@pytest.mark.parametrize("case", SPREADING)
def test_spreads(model, refusal, case):
    nodes, constant = SPREADING[case]
    used = {name: array for name, array in OTHERS.items() if name in nodes}
    made = model(
        f"g (float[2,4] x) => (float[2,4] y) {{ {nodes} }}", k=np.asarray(constant), **used
    )
    assert refusal(made).slug == "non-finite-weights"


def test_one_value_is_said_so(model, refusal):
    message = refusal(model("g (float[2] x) => (float[2] y) { y = Add (x, k) }", k=INF)).message
    assert message == "m.onnx: tensor `k` has 1 Inf as its one value"


def test_what_a_body_reads_counts(model, refusal):
    text = """g (float[2] x, bool c) => (float[2] y) {
        y = If (c) <then_branch = t () => (float[2] p) { p = Mul (x, k) },
                    else_branch = e () => (float[2] q) { q = Identity (x) }> }"""
    assert "tensor `k`" in refusal(model(text, k=INF)).message


def test_constants_inside_a_body_count(model, refusal):
    text = """g (float[2] x, bool c) => (float[2] y) {
        y = If (c) <then_branch = t () => (float[2] p) {
            k = Constant <value = float {1}> ()
            p = Mul (x, k) },
                    else_branch = e () => (float[2] q) { q = Identity (x) }> }"""
    made = model(text)
    constant = made.graph.node[0].attribute[0].g.node[0].attribute[0].t
    constant.ClearField("float_data")
    constant.raw_data = np.float32(np.nan).tobytes()
    assert "tensor `k` has 1 NaN" in refusal(made).message


def test_constant_nodes_count(model, refusal):
    made = model(
        "g (float[1] x) => (float[1] y) { k = Constant <value = float[1] {1}> () y = Mul (x, k) }"
    )
    made.graph.node[0].attribute[0].t.float_data[0] = np.nan
    assert "tensor `k` has 1 NaN" in refusal(made).message


def test_counting_is_exact_over_chunks(monkeypatch):
    monkeypatch.setattr(finite, "_CHUNK", 7)
    array = np.ones(100, np.float32)
    array[[0, 6, 7, 99]] = np.nan
    array[[1, 98]] = -np.inf
    assert finite.count(array) == (4, 2)
    assert finite.count(np.ones(3, np.int64)) == (0, 0)
