"""BatchNormalization into the weights beside it."""

import numpy as np
import pytest

from edgeq.passes import batch_norm


def statistics(channels: int, seed: int = 3) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {
        "scale": rng.uniform(0.5, 2, channels).astype(np.float32),
        "shift": rng.normal(size=channels).astype(np.float32),
        "mean": rng.normal(size=channels).astype(np.float32),
        "var": rng.uniform(0.1, 3, channels).astype(np.float32),
    }


BN = "BatchNormalization (c, scale, shift, mean, var)"


def tolerance(weights: np.ndarray, factor: float, inputs: np.ndarray) -> float:
    """Rounding once: each of K products may be off by 2 ulp of the largest, sums of K add K ulp."""
    terms = weights[0].size + 2
    peak = float(np.abs(weights).max() * factor * np.abs(inputs).max())
    return 4 * terms * peak * float(np.finfo(np.float32).eps)


@pytest.mark.parametrize(
    ("node", "shape", "channels"),
    [
        ("Conv (x, w)", (6, 4, 3, 3), 6),
        ("Conv <group = 4> (x, w)", (4, 1, 3, 3), 4),
        ("Conv <group = 2, pads = [1,1,1,1]> (x, w)", (6, 2, 3, 3), 6),
        ("Conv (x, w, b)", (6, 4, 1, 1), 6),
        ("ConvTranspose (x, w)", (4, 6, 3, 3), 6),
        ("ConvTranspose <group = 2, strides = [2,2]> (x, w, b)", (4, 3, 2, 2), 6),
    ],
)
def test_folds_into_the_convolution_before(make, run, ops, apply, noise, node, shape, channels):
    arrays = {"w": noise(*shape), **statistics(channels)}
    if "b)" in node:
        arrays["b"] = noise(channels)
    graph = make(f"g (float[1,4,8,8] x) => (float[N,C,H,W] y) {{ c = {node} y = {BN} }}", **arrays)
    after, refused, changed = apply(batch_norm.run, graph)
    assert ops(after) == [node.split()[0]]
    assert refused == {}
    assert changed == [
        f"`BatchNormalization` (node `BatchNormalization_1`) folded into `{node.split()[0]}` "
        f"(node `{node.split()[0]}_0`)"
    ]
    x = noise(1, 4, 8, 8)
    bound = tolerance(arrays["w"], 2 / np.sqrt(0.1), x) * 4  # ConvTranspose sums up to 4 windows
    np.testing.assert_allclose(
        run(after, {"x": x})["y"], run(graph, {"x": x})["y"], atol=bound, rtol=0
    )


@pytest.mark.parametrize("attributes", ["", "<transB = 1>"])
def test_folds_into_gemm(make, run, ops, apply, noise, attributes):
    w = noise(5, 4) if attributes else noise(4, 5)
    text = f"g (float[3,4] x) => (float[3,5] y) {{ c = Gemm {attributes} (x, w, b) y = {BN} }}"
    graph = make(text, w=w, b=noise(5), **statistics(5))
    after, _, _ = apply(batch_norm.run, graph)
    assert ops(after) == ["Gemm"]
    x = noise(3, 4)
    bound = tolerance(w.reshape(1, -1), 2 / np.sqrt(0.1), x)
    np.testing.assert_allclose(
        run(after, {"x": x})["y"], run(graph, {"x": x})["y"], atol=bound, rtol=0
    )


@pytest.mark.parametrize("reader", ["Conv <group = 2> (n, w)", "Conv (n, w, b)", "Gemm (f, w)"])
def test_folds_forwards_where_nothing_precedes(make, run, ops, apply, noise, reader):
    """BatchNormalization first, as after a Concat: into the Conv without padding behind it."""
    bn = "BatchNormalization (x, scale, shift, mean, var)"
    shapes = {"Conv <group = 2> (n, w)": (6, 2, 3, 3), "Conv (n, w, b)": (6, 4, 1, 1)}
    arrays = {"w": noise(*shapes.get(reader, (4, 6))), **statistics(4)}
    if "b)" in reader:
        arrays["b"] = noise(6)
    is_gemm = reader.startswith("Gemm")
    size = "3,4" if is_gemm else "1,4,8,8"
    output = "N,C" if is_gemm else "N,C,H,W"
    reader = reader.replace("f,", "n,")
    graph = make(
        f"g (float[{size}] x) => (float[{output}] y) {{ n = {bn} y = {reader} }}", **arrays
    )
    after, _, changed = apply(batch_norm.run, graph)
    assert ops(after) == [reader.split()[0]]
    assert "folded forwards into" in changed[0]
    x = noise(*(int(part) for part in size.split(",")))
    bound = tolerance(arrays["w"], 2 / np.sqrt(0.1), x) * 3
    np.testing.assert_allclose(
        run(after, {"x": x})["y"], run(graph, {"x": x})["y"], atol=bound, rtol=0
    )


def refusal(make, apply, ops, text, **arrays):
    graph = make(text, **arrays)
    after, refused, changed = apply(batch_norm.run, graph)
    assert ops(after) == ops(graph)
    assert changed == []
    return refused["bn"]


def test_not_with_a_second_reader(make, apply, ops, noise):
    text = f"""g (float[1,4,5,5] x) => (float[1,6,5,5] y, float[1,6,5,5] z) {{
        [conv] c = Conv (x, w) [bn] y = {BN} z = Relu (c) }}"""
    reason = refusal(make, apply, ops, text, w=noise(6, 4, 1, 1), **statistics(6))
    assert reason == "the output of `Conv` (node `conv`) has a second reader"


def test_not_when_the_product_is_an_output(make, apply, ops, noise):
    text = f"""g (float[1,4,5,5] x) => (float[1,6,5,5] y, float[1,6,5,5] c) {{
        [conv] c = Conv (x, w) [bn] y = {BN} }}"""
    reason = refusal(make, apply, ops, text, w=noise(6, 4, 1, 1), **statistics(6))
    assert reason == "the output of `Conv` (node `conv`) has a second reader"


def test_not_after_another_operator(make, apply, ops):
    text = f"g (float[1,6,5,5] x) => (float[1,6,5,5] y) {{ [add] c = Add (x, x) [bn] y = {BN} }}"
    reason = refusal(make, apply, ops, text, **statistics(6))
    assert reason == "its input comes from `Add` (node `add`), which has no weights"


def test_not_forwards_into_a_padded_convolution(make, apply, ops, noise):
    """The border is zero before normalisation and would be `shift` after: not the same map."""
    text = """g (float[1,4,5,5] x) => (float[1,6,5,5] y) {
        [bn] n = BatchNormalization (x, scale, shift, mean, var)
        y = Conv <pads = [1,1,1,1]> (n, w) }"""
    reason = refusal(make, apply, ops, text, w=noise(6, 4, 3, 3), **statistics(4))
    assert reason == "its input is not computed by a node"


def test_not_in_training_mode(make, apply, ops, noise):
    text = f"""g (float[1,4,5,5] x) => (float[1,6,5,5] y, float[6] m) {{
        c = Conv (x, w)
        [bn] y, m, v = {BN.replace("(c", "<training_mode = 1> (c")} }}"""
    reason = refusal(make, apply, ops, text, w=noise(6, 4, 1, 1), **statistics(6))
    assert reason == "it is in training mode"


def test_not_with_weights_from_outside(make, apply, ops):
    text = f"""g (float[1,4,5,5] x, float[6,4,1,1] w) => (float[1,6,5,5] y) {{
        [conv] c = Conv (x, w) [bn] y = {BN} }}"""
    reason = refusal(make, apply, ops, text, **statistics(6))
    assert reason == "the weights of `Conv` (node `conv`) are not a constant"


def test_not_where_the_variance_gives_no_number(make, apply, ops, noise):
    arrays = statistics(6)
    arrays["var"][2] = -1
    text = f"g (float[1,4,5,5] x) => (float[1,6,5,5] y) {{ c = Conv (x, w) [bn] y = {BN} }}"
    reason = refusal(make, apply, ops, text, w=noise(6, 4, 1, 1), **arrays)
    assert reason == "its statistics are not constants, or not finite"


def test_not_where_the_result_would_overflow(make, apply, ops, noise):
    arrays = statistics(6)
    arrays["scale"][:] = 3e38
    text = f"g (float[1,4,5,5] x) => (float[1,6,5,5] y) {{ c = Conv (x, w) [bn] y = {BN} }}"
    reason = refusal(make, apply, ops, text, w=noise(6, 4, 1, 1) * 100, **arrays)
    assert reason == "the folded weights would not be finite"


def test_a_tensor_that_a_body_reads_is_a_second_reader(make, apply, ops, noise):
    text = f"""g (float[1,4,5,5] x, bool q) => (float[1,6,5,5] y, float[1,6,5,5] z) {{
        [conv] c = Conv (x, w)
        [bn] y = {BN}
        z = If (q) <then_branch = t () => (float[1,6,5,5] a) {{ a = Relu (c) }},
                    else_branch = e () => (float[1,6,5,5] b) {{ b = Neg (c) }}> }}"""
    reason = refusal(make, apply, ops, text, w=noise(6, 4, 1, 1), **statistics(6))
    assert reason == "the output of `Conv` (node `conv`) has a second reader"


def test_inside_a_body(make, run, inside, apply, noise):
    """The weights of the outer graph are read by reference; the folded ones lie in the body."""
    text = f"""g (float[1,4,5,5] x, bool q) => (float[1,6,5,5] z) {{
        z = If (q) <then_branch = t () => (float[1,6,5,5] a) {{ c = Conv (x, w) a = {BN} }},
                    else_branch = e () => (float[1,6,5,5] b) {{ b = Conv (x, w) }}> }}"""
    graph = make(text, w=noise(6, 4, 1, 1), **statistics(6))
    after, refused, changed = apply(batch_norm.run, graph)
    assert (refused, len(changed)) == ({}, 1)
    assert inside(after) == {"If_0/then_branch": ["Conv"], "If_0/else_branch": ["Conv"]}
    x = noise(1, 4, 5, 5)
    feeds = {"x": x, "q": np.array(True)}
    bound = tolerance(noise(6, 4, 1, 1), 2 / np.sqrt(0.1), x)
    expected = run(graph, feeds)["z"]
    np.testing.assert_allclose(run(after, feeds)["z"], expected, rtol=0, atol=bound)
    feeds["q"] = np.array(False)
    np.testing.assert_array_equal(run(after, feeds)["z"], run(graph, feeds)["z"])


def test_shared_weights_are_folded_for_one_reader_only(make, run, ops, apply, noise):
    text = f"""g (float[1,4,5,5] x) => (float[1,6,5,5] y, float[1,6,5,5] z) {{
        c = Conv (x, w)
        y = {BN}
        z = Conv (x, w) }}"""
    graph = make(text, w=noise(6, 4, 1, 1), **statistics(6))
    after, _, _ = apply(batch_norm.run, graph)
    assert ops(after) == ["Conv", "Conv"]
    x = noise(1, 4, 5, 5)
    np.testing.assert_array_equal(run(after, {"x": x})["z"], run(graph, {"x": x})["z"])
