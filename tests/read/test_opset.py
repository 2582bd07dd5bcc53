"""Every opset from 7 on is raised to 21, newer ones are lowered where that changes nothing."""

import numpy as np
import onnx
import onnx_ir
import onnxruntime
import pytest
from onnx.reference import ReferenceEvaluator

from edgeq import ir
from edgeq_converters.read import contrib


def outputs(data: bytes, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(data, options, ["CPUExecutionProvider"])
    wanted = {info.name for info in session.get_inputs()}
    return session.run(None, {name: array for name, array in feeds.items() if name in wanted})


CLIP = """g (float[1,3,6,6] x) => (float[1,3,6,6] y) {
    a = Clip <min = -0.5, max = 0.5> (x)
    y = Dropout <ratio = 0.5> (a) }"""
SQUEEZE = """g (float[1,3,6,6] x) => (float[3,36] y) {
    a = Squeeze <axes = [0]> (x)
    b = Unsqueeze <axes = [0]> (a)
    c = Pad <pads = [0,0,0,0,0,0,0,0]> (b)
    d = Slice <starts = [0], ends = [9], axes = [1]> (c)
    e = Flatten <axis = 2> (d)
    f = ReduceSum <axes = [1], keepdims = 1> (e)
    y = Mul (e, f) }"""
UPSAMPLE = """g (float[1,3,6,6] x) => (float[1,3,12,12] y) {
    y = Upsample <mode = "nearest", scales = [1.0,1.0,2.0,2.0]> (x) }"""
UPSAMPLE_9 = """g (float[1,3,6,6] x) => (float[1,3,12,12] y) {
    y = Upsample <mode = "nearest"> (x, scales) }"""
SOFTMAX = """g (float[1,3,6,6] x) => (float[1,3,6,6] y) { y = Softmax (x) }"""
NORM = """g (float[1,3,6,6] x) => (float[1,3,6,6] y) {
    a = BatchNormalization (x, s, s, s, s)
    b = Relu (a)
    y = MaxPool <kernel_shape = [3,3], pads = [1,1,1,1]> (b) }"""
TOPK = "g (float[1,3,6,6] x) => (float[1,3,6,2] y, int64[1,3,6,2] i) { y, i = TopK <k = 2> (x) }"
BODY = """g (float[1,3,6,6] x, bool c) => (float[3,6,6] y) {
    y = If (c) <then_branch = t () => (float[3,6,6] p) { p = Squeeze <axes = [0]> (x) },
                else_branch = e () => (float[3,6,6] q) {
                    n = Neg (x) q = Squeeze <axes = [0]> (n) }> }"""
SCALES = {"scales": np.array([1, 1, 2, 2], np.float32)}
ONES = {"s": np.array([0.5, 1, 2], np.float32)}
GELU = "g (float[1,3,6,6] x) => (float[1,3,6,6] y) { a = HardSwish (x) y = Selu (a) }"

CASES = {
    **{f"clip {opset}": (CLIP, opset, {}) for opset in (7, 8, 9, 10)},
    **{f"squeeze {opset}": (SQUEEZE, opset, {}) for opset in (7, 8, 9)},
    "upsample 7": (UPSAMPLE, 7, {}),
    "upsample 8": (UPSAMPLE, 8, {}),
    "upsample 9": (UPSAMPLE_9, 9, SCALES),
    **{f"softmax {opset}": (SOFTMAX, opset, {}) for opset in (7, 8, 11, 12, 13, 17)},
    **{f"norm {opset}": (NORM, opset, ONES) for opset in (7, 8, 9, 13, 14, 15, 19, 20, 21)},
    "top 9": (TOPK, 9, {}),
    **{f"body {opset}": (BODY, opset, {}) for opset in (9, 11, 12)},
    **{f"newer {opset}": (GELU, opset, {}) for opset in (22, 23, 24, 25, 26)},
}


@pytest.mark.parametrize("case", CASES)
def test_computes_the_same_at_21(model, load, case):
    text, opset, arrays = CASES[case]
    made = model(text, f'"": {opset}', 7, **arrays)
    result = load(made)
    assert result.source_opset == opset
    assert result.graph.model.opset_imports[""] == ir.OPSET
    assert result.graph.model.ir_version == ir.IR_VERSION
    verb = "raised" if opset < 21 else "lowered"
    told = f"opset {opset} {verb} to 21" in result.notes
    assert told == (opset != 21)
    rng = np.random.default_rng(0)
    feeds = {"x": rng.normal(size=(1, 3, 6, 6)).astype(np.float32), "c": np.array(False)}
    raised = onnx_ir.serde.serialize_model(result.graph.model).SerializeToString()
    expected = outputs(made.SerializeToString(), feeds)
    for got, wanted in zip(outputs(raised, feeds), expected, strict=True):
        # the same kernels in the same order: at most the last bit of a mean or an exponential
        np.testing.assert_allclose(got, wanted, rtol=2 * np.finfo(np.float32).eps, atol=1e-7)


def test_initializers_listed_as_inputs_are_constants_and_it_says_so(model, load):
    made = model(
        """g (float[N,4] x, float[4] b, float[4] c) => (float[N,4] y) {
            a = Add (x, b)
            y = Mul (a, c) }""",
        '"": 8',
        3,
        b=np.ones(4, np.float32),
        c=np.ones(4, np.float32),
    )
    result = load(made)
    assert [info.name for info in result.graph.inputs] == ["x"]
    assert "initializers listed as inputs are constants: `b`, `c`" in result.notes
    assert "IR version 3 raised to 10" in result.notes


def test_large_weights_do_not_go_through_the_converter(model, load):
    """And they come back, in order, as they were."""
    w = np.random.default_rng(1).normal(size=(64, 64)).astype(np.float32)
    text = "g (float[N,64] x) => (float[N,64] y) { a = MatMul (x, w) b = Add (a, v) y = Relu (b) }"
    result = load(model(text, '"": 9', 4, v=w[0], w=w))
    assert list(result.graph.model.graph.initializers) == ["v", "w"]
    np.testing.assert_array_equal(ir.constant(result.graph.value("w")), w)


@pytest.mark.parametrize("opset", [1, 6, 29, 999, -1])
def test_other_opsets_are_refused_by_number(model, refusal, opset):
    made = model()
    made.opset_import[0].version = opset
    error = refusal(made)
    assert error.slug == "unsupported-opset"
    newest = onnx.defs.onnx_opset_version()
    assert error.message == f"m.onnx: opset {opset}; opsets 7 to {newest} are read"


def test_what_has_no_equal_at_21_is_named(model, refusal):
    text = "g (float[2,4] q) => (int32[2,4] y) { y = BitCast <to = 6> (q) }"
    error = refusal(model(text, '"": 26', 11))
    assert error.slug == "unsupported-opset"
    assert error.message.startswith("m.onnx: opset 26 cannot be lowered to 21 because of `BitCast`")


NEWER = {
    "RMSNormalization": (23, "y = RMSNormalization <axis = -1> (x, s)"),
    "Swish": (24, "y = Swish <alpha = 1.5> (x)"),
    "SwiGLU": (28, "y = SwiGLU (x, x)"),  # its function has a Swish in it
    "Attention": (23, "y = Attention (x, x, x)"),
}


@pytest.mark.parametrize("name", NEWER)
def test_what_is_newer_than_21_is_expanded_and_it_says_so(model, load, name):
    opset, node = NEWER[name]
    text = f"g (float[1,2,4,8] x) => (float[1,2,4,8] y) {{ {node} }}"
    arrays = {"s": np.linspace(0.5, 2, 8, dtype=np.float32)} if "(x, s)" in node else {}
    made = model(text, f'"": {opset}', 11, **arrays)
    result = load(made)
    assert f"operators newer than opset 21 are expanded: `{name}`" in result.notes
    assert name not in {node.op_type for node in result.graph.nodes()}
    feeds = {"x": np.random.default_rng(0).normal(size=(1, 2, 4, 8)).astype(np.float32)}
    (wanted,) = ReferenceEvaluator(made).run(None, feeds)
    lowered = onnx_ir.serde.serialize_model(result.graph.model).SerializeToString()
    (got,) = outputs(lowered, feeds)
    # sums of 8 products, and an exponential: numpy's order against the engine's
    np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-6)


def test_what_cannot_be_raised_is_named(model, refusal):
    text = """g (float[1,3,6,6] x) => (float[1,3,6,6] y) {
        a = Relu (x)
        y = BatchNormalization <spatial = 0> (a, s, s, s, s) }"""
    error = refusal(model(text, '"": 7', 8, s=np.ones(3, np.float32)))
    assert error.slug == "unsupported-opset"
    assert error.message == (
        "m.onnx: opset 7 cannot be raised to 21 because of `BatchNormalization`: "
        "Attribute spatial must have value 1"
    )


def test_a_missing_import_is_said(model, refusal):
    made = model()
    made.opset_import[0].domain = "ai.onnx.ml"
    made.opset_import[0].version = 3
    error = refusal(made)
    assert error.slug == "unsupported-opset"
    assert "`Relu` is of a domain without an opset import (node `y`)" in error.message


def test_a_model_of_other_domains_only_needs_no_import(model, load):
    text = """g (float[N,3] x) => (float[N,3] y) {
        y = ai.onnx.ml.Scaler <offset = [1.0], scale = [2.0]> (x) }"""
    made = model(text, '"ai.onnx.ml": 3')
    assert load(made).source_opset == 21


def test_two_versions_of_one_domain(model, refusal):
    made = model()
    made.opset_import.add(domain="ai.onnx", version=17)
    assert "domain `ai.onnx` is imported at two versions" in refusal(made).message


def test_the_long_name_of_the_default_domain(model, load):
    made = model()
    made.graph.node[0].domain = made.opset_import[0].domain = "ai.onnx"
    assert load(made).graph.nodes()[0].domain == ""


def test_a_newer_ai_onnx_ml(model, refusal):
    assert (
        "opset 9 of ai.onnx.ml; 1 to 5 are read"
        in refusal(model(opset='"": 21, "ai.onnx.ml": 9')).message
    )


UNKNOWN = {
    "[a] p = own.Act (x) [b] q = own.Act (p) y = Relu (q)": (
        "`own::Act` is of the unknown domain `own` (node `a`, `b`)"
    ),
    "y = com.microsoft.Nothing (x)": (
        "`com.microsoft::Nothing` is not an operator of ONNX Runtime on a CPU (node `y`)"
    ),
    "y = Relux (x)": "`Relux` is no operator of ONNX (node `y`)",
    "y = Gelu (x)": "`Gelu` does not exist in opset 17 (node `y`)",
    "y = Upsample (x, x)": "`Upsample` was withdrawn before opset 17 (node `y`)",
}


@pytest.mark.parametrize("nodes", UNKNOWN)
def test_unknown_operators_are_named(model, refusal, nodes):
    text = f"g (float[N,4] x) => (float[N,4] y) {{ {nodes} }}"
    error = refusal(model(text, '"": 17, "own": 1, "com.microsoft": 1'))
    assert error.slug == "unsupported-op"
    assert error.message == f"m.onnx: {UNKNOWN[nodes]}"


def test_all_unknown_operators_come_in_one_error(model, refusal):
    text = """g (float[N,4] x) => (float[N,4] y) {
        a = own.One (x) b = own.Two (a) c = Relux (b) y = other.X (c) }"""
    message = refusal(model(text, '"": 21, "own": 1')).message
    assert all(name in message for name in ("own::One", "own::Two", "Relux", "other::X"))


def test_unknown_operators_in_bodies_are_named(model, refusal):
    text = """g (float[2] x, bool c) => (float[2] y) {
        y = If (c) <then_branch = t () => (float[2] p) { p = own.Act (x) },
                    else_branch = e () => (float[2] q) { q = Identity (x) }> }"""
    assert "`own::Act`" in refusal(model(text, '"": 21, "own": 1')).message


def test_operators_of_the_engine_pass_and_are_said(model, load):
    text = "g (float[N,4] x) => (float[N,4] y) { a = com.microsoft.Gelu (x) y = Relu (a) }"
    notes = load(model(text, '"": 17, "com.microsoft": 1')).notes
    assert (
        "operators outside the standard stay as they are, in float: `com.microsoft::Gelu (1)`"
        in notes
    )


def test_the_table_of_the_engines_own_operators(model):
    """The installed engine's kernels; a newer engine may have more, and the table then grows."""
    from onnxruntime.capi import onnxruntime_pybind11_state as engine

    kernels = {
        kernel.op_name
        for kernel in engine.get_all_opkernel_def()
        if kernel.domain == "com.microsoft" and kernel.provider == "CPUExecutionProvider"
    }
    if onnxruntime.__version__ == "1.31.1":
        assert kernels == contrib.CPU_OPERATORS
    assert len(kernels & contrib.CPU_OPERATORS) > 50


def test_bodies_pass_through_and_it_says_so(model, load):
    result = load(model(BODY, '"": 11', 6))
    assert "`If` (makes `y`): its bodies are optimized but never quantized" in result.notes
    bodies = ir.subgraphs(result.graph.nodes()[0])
    assert [[node.op_type for node in body] for body in bodies] == [
        ["Constant", "Squeeze"],
        ["Neg", "Constant", "Squeeze"],
    ]
