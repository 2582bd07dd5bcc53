"""Per-channel Add, Sub, Mul and Div after a node with weights."""

import numpy as np
import pytest

from edgeq.passes import channel_affine


def close(run, graph, after, feeds, terms, peak):
    """One rounding of each weight and bias: (terms + 2) products of at most `peak`, 4 ulp each."""
    bound = 4 * (terms + 2) * peak * float(np.finfo(np.float32).eps)
    expected, got = run(graph, feeds)["y"], run(after, feeds)["y"]
    np.testing.assert_allclose(got, expected, atol=bound, rtol=0)


@pytest.mark.parametrize(
    "node", ["Add (c, k)", "Add (k, c)", "Sub (c, k)", "Sub (k, c)", "Mul (c, k)", "Div (c, k)"]
)
@pytest.mark.parametrize("shape", [(6, 1, 1), (1, 6, 1, 1), (1,), ()])
def test_folds_into_the_convolution(make, run, ops, apply, noise, node, shape):
    arrays = {"w": noise(6, 4, 3, 3), "b": noise(6), "k": np.abs(noise(*shape)) + 0.5}
    text = f"""g (float[1,4,6,6] x) => (float[1,6,4,4] y) {{
        [conv] c = Conv (x, w, b) [op] y = {node} }}"""
    graph = make(text, **arrays)
    after, refused, changed = apply(channel_affine.run, graph)
    assert ops(after) == ["Conv"]
    assert refused == {}
    assert changed == [f"`{node[:3]}` (node `op`) folded into `Conv` (node `conv`)"]
    x = noise(1, 4, 6, 6)
    peak = float(np.abs(arrays["w"]).max() * np.abs(x).max()) * 4
    close(run, graph, after, {"x": x}, 36, peak)


@pytest.mark.parametrize("maker", ["ConvTranspose <group = 2> (x, w)", "Gemm (x, w)"])
def test_folds_into_the_others(make, run, ops, apply, noise, maker):
    is_gemm = maker.startswith("Gemm")
    size, out = ((2, 4), "2,6") if is_gemm else ((1, 4, 5, 5), "1,6,7,7")
    arrays = {
        "w": noise(4, 6) if is_gemm else noise(4, 3, 3, 3),
        "k": noise(6) if is_gemm else noise(6, 1, 1),
    }
    text = f"""g (float[{",".join(map(str, size))}] x) => (float[{out}] y) {{
        c = {maker} y = Mul (c, k) }}"""
    graph = make(text, **arrays)
    after, _, _ = apply(channel_affine.run, graph)
    assert ops(after) == [maker.split()[0]]
    x = noise(*size)
    peak = float(np.abs(arrays["w"]).max() * np.abs(x).max() * np.abs(arrays["k"]).max())
    close(run, graph, after, {"x": x}, 36, peak)


NOT_ONE = "its constant is not one finite value per channel of `Conv`"


@pytest.mark.parametrize(
    ("node", "constant"),
    [
        ("Div (k, c)", np.ones((6, 1, 1))),
        ("Div (c, k)", np.zeros((6, 1, 1))),
        ("Add (c, k)", np.ones(4)),
        ("Add (c, k)", np.ones((6, 4, 4))),
        ("Add (c, k)", np.ones((2, 6, 1, 1))),
        ("Add (c, k)", np.ones((1, 1, 6, 1, 1))),
    ],
)
def test_other_constants_stay(make, ops, apply, noise, node, constant):
    out = {5: "1,1,6,4,4", 4: "2,6,4,4"}.get(constant.ndim, "1,6,4,4")
    text = f"g (float[1,4,6,6] x) => (float[A] y) {{ c = Conv (x, w) [op] y = {node} }}".replace(
        "float[A]", f"float[{out}]"
    )
    if constant.shape == (4,) or constant.ndim == 5:
        text = text.replace(out, ",".join("ABCDE"[: max(4, constant.ndim)]))
    if constant.ndim == 5:
        constant = constant.reshape(1, 1, 6, 1, 1)
    graph = make(text, w=noise(6, 4, 3, 3), k=constant.astype(np.float32))
    after, refused, _ = apply(channel_affine.run, graph)
    assert ops(after) == ["Conv", node[:3]]
    assert refused == {"op": NOT_ONE}


def test_one_channel_must_not_be_widened(make, ops, apply, noise):
    text = "g (float[1,4,6,6] x) => (float[1,5,4,4] y) { c = Conv (x, w) [op] y = Mul (c, k) }"
    after, refused, _ = apply(channel_affine.run, make(text, w=noise(1, 4, 3, 3), k=noise(5, 1, 1)))
    assert ops(after) == ["Conv", "Mul"]
    assert refused == {"op": NOT_ONE}


def test_a_tensor_that_a_body_reads_stays(make, run, ops, apply, noise):
    text = """g (float[1,4,6,6] x, bool q) => (float[1,6,4,4] y, float[1,6,4,4] z) {
        [conv] c = Conv (x, w)
        [op] y = Add (c, k)
        z = If (q) <then_branch = t () => (float[1,6,4,4] a) { a = Add (c, k) },
                    else_branch = e () => (float[1,6,4,4] b) { b = Relu (c) }> }"""
    graph = make(text, w=noise(6, 4, 3, 3), k=noise(6, 1, 1))
    after, refused, _ = apply(channel_affine.run, graph)
    assert ops(after) == ["Conv", "Add", "If"]
    reason = "the output of `Conv` (node `conv`) has a second reader"
    assert refused == {"op": reason, "If_2/then_branch/Add_0": reason}
    feeds = {"x": noise(1, 4, 6, 6), "q": np.array(True)}
    np.testing.assert_array_equal(run(after, feeds)["z"], run(graph, feeds)["z"])


def test_a_result_that_a_body_reads(make, run, ops, apply, noise):
    text = """g (float[1,4,6,6] x, bool q) => (float[1,6,4,4] z) {
        c = Conv (x, w)
        [op] y = Add (c, k)
        z = If (q) <then_branch = t () => (float[1,6,4,4] a) { a = Relu (y) },
                    else_branch = e () => (float[1,6,4,4] b) { b = Neg (y) }> }"""
    graph = make(text, w=noise(6, 4, 3, 3), k=noise(6, 1, 1))
    after, refused, _ = apply(channel_affine.run, graph)
    assert ops(after) == ["Conv", "If"]
    assert refused == {}
    feeds = {"x": noise(1, 4, 6, 6), "q": np.array(True)}
    np.testing.assert_array_equal(run(after, feeds)["z"], run(graph, feeds)["z"])
