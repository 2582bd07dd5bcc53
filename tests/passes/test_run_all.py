"""All passes together: their order, their reports, and real models that compute the same."""

from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from edgeq.ir import check
from edgeq.passes import PASSES, run_all
from edgeq_converters.read.onnx import read


def test_the_order_is_the_tuple(make):
    _, reports = run_all(make("g (float[2] x) => (float[2] y) { y = Relu (x) }"))
    assert [report.name for report in reports] == [name for name, _ in PASSES]
    assert all(report.changed == () and report.refused == () for report in reports)


def test_the_graph_given_stays_as_it_was(make, ops, noise):
    graph = make(
        "g (float[2,6] x) => (float[2,3] y) { p = MatMul (x, w) y = Add (p, b) }",
        w=noise(6, 3),
        b=noise(3),
    )
    after, _ = run_all(graph)
    assert ops(graph) == ["MatMul", "Add"]
    assert ops(after) == ["Gemm"]
    check(graph)


def test_rounds_end_when_nothing_changes(make, run, ops, noise):
    """Dropout hides the Add from the MatMul, a folded Shape the Reshape: two rounds find both."""
    text = """g (float[2,6] x) => (float[2,3] y) {
        s = Shape (x)
        r = Reshape (x, s)
        p = MatMul (r, w)
        d = Dropout (p)
        a = Add (d, b)
        c = Clip (a, zero)
        y = Identity (c) }"""
    graph = make(text, w=noise(6, 3), b=noise(3), zero=np.array(0, np.float32))
    after, reports = run_all(graph)
    assert ops(after) == ["Gemm", "Relu"]
    assert {report.name for report in reports if report.changed} == {
        "constant-folding",
        "identity",
        "clip-to-relu",
        "linear",
        "dead-nodes",
    }
    x = noise(2, 6)
    bound = 2 * 8 * 6 * 16 * float(np.finfo(np.float32).eps)  # 6 products below 16, see test_linear
    np.testing.assert_allclose(run(after, {"x": x})["y"], run(graph, {"x": x})["y"], atol=bound)


def test_refusals_of_the_last_round_are_reported(make):
    text = "g (float[2] x) => (float[2] y) { [c] y = Clip (x, low, high) }"
    graph = make(text, low=np.array(0, np.float32), high=np.array(6, np.float32))
    reports = {report.name: report for report in run_all(graph)[1]}
    assert reports["clip-to-relu"].refused == (("c", "its upper bound is 6"),)


# model, its inputs by a rule, and how exact: float32 sums in another order, relative to the peak
REAL = {
    "mnist/mnist.onnx": 1e-5,
    "det_yolox_nano/yolox_nano.onnx": 1e-5,
    "bytes_magika/model.onnx": 1e-5,
    "vad_silero/silero_vad.onnx": 1e-5,
    "vad_silero/silero_vad_16k_op15.onnx": 1e-5,
    "vad_silero/silero_vad_half.onnx": 1e-3,  # float16 inside: 2^-11 a rounding
    "text_minilm/minilm.onnx": 1e-5,
    "robust/light_shufflenet.onnx": 1e-5,
}


def feeds_of(session: onnxruntime.InferenceSession, constants: set[str]) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    fixed = {"input": (1, 576), "state": (2, 1, 128), "sr": ()}
    feeds: dict[str, np.ndarray] = {}
    for info in session.get_inputs():
        if info.name in constants:
            continue
        sizes = [size if isinstance(size, int) else 1 + 8 * k for k, size in enumerate(info.shape)]
        shape = fixed.get(info.name, tuple(sizes))
        if info.type == "tensor(float)":
            feeds[info.name] = rng.normal(size=shape).astype(np.float32)
        elif info.name == "sr":
            feeds[info.name] = np.array(16000)
        else:
            dtype = np.int32 if info.type == "tensor(int32)" else np.int64
            feeds[info.name] = np.asarray(rng.integers(1, 2, shape), dtype)
    return feeds


@pytest.mark.shared
@pytest.mark.parametrize("name", REAL)
def test_real_models_compute_the_same(shared: Path, run, name):
    path = shared / "data" / name
    graph, _ = run_all(read(path).graph)
    options = onnxruntime.SessionOptions()  # as in the fixture: the engine's fusions also round
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    original = onnxruntime.InferenceSession(str(path), options, ["CPUExecutionProvider"])
    known = {info.name for info in graph.inputs}
    feeds = feeds_of(original, {info.name for info in original.get_inputs()} - known)
    assert set(feeds) == known
    got = run(graph, feeds)
    for info, expected in zip(original.get_outputs(), original.run(None, feeds), strict=True):
        peak = float(np.abs(expected).max())
        np.testing.assert_allclose(
            got[info.name], expected, rtol=0, atol=REAL[name] * max(peak, 1.0)
        )


def test_a_name_stands_for_the_same_numbers_before_and_after(make, run, noise):
    """`compare` matches tensors by name: one that took in its reader's work takes its name too."""
    graph = make(
        """g (float[2,3,8,8] x) => (float[2,4,8,8] y) {
          c = Conv <pads = [1,1,1,1]> (x, w)  n = BatchNormalization (c, s, b, m, v)
          r = Relu (n)  d = Conv <pads = [1,1,1,1]> (r, u)  h = HardSigmoid (d)  q = Mul (h, k)
          e = Conv (q, z)  f = Mul (e, g4)  y = Add (f, n)
        }""",
        w=noise(4, 3, 3, 3),
        u=noise(4, 4, 3, 3),
        z=noise(4, 4, 1, 1),
        k=noise(4, 1, 1),
        g4=noise(4, 1, 1),
        s=noise(4),
        b=noise(4),
        m=noise(4),
        v=np.abs(noise(4)) + 0.5,
    )
    after, _ = run_all(graph)
    before = {value.name: value for node in graph.nodes() for value in node.outputs}
    shared = [v for node in after.nodes() for v in node.outputs if v.name in before]
    assert {"n", "r", "f", "y"} <= {value.name for value in shared}
    assert "c" not in {value.name for value in shared}
    feeds = {"x": noise(2, 3, 8, 8)}
    for value in shared:
        if value.name != "y":
            after.home.outputs.append(value)
            graph.home.outputs.append(before[value.name])
    wanted, got = run(graph, feeds), run(after, feeds)
    for value in shared:
        # sums of 36 products, in another order: as many ulp of the largest
        peak = float(np.abs(wanted[value.name]).max())
        np.testing.assert_allclose(got[value.name], wanted[value.name], rtol=0, atol=1e-5 * peak)
