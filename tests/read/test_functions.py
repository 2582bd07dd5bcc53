"""Local functions are expanded where that stays small, else refused by name."""

import numpy as np
import onnx_ir
import onnxruntime
import pytest
from onnx import parser

from edgeq_converters.read import functions

HEAD = '<ir_version: 8, opset_import: ["": 18, "own": 1]>'
OWN = '<domain: "own", opset_import: ["": 18, "own": 1]>'
MAIN = "g (float[N,4] x) => (float[N,4] y) { a = own.twice <alpha = 0.5> (x) y = own.twice (a) }"
TWICE = """<domain: "own", opset_import: ["": 18, "own": 1]>
    twice <alpha: float = 0.1> (p) => (r) {
    q = LeakyRelu <alpha: float = @alpha> (p) r = own.inner (q) }"""
INNER = """<domain: "own", opset_import: ["": 18]> inner (p) => (q) { q = Add (p, p) }"""


def made(*parts: str):
    return parser.parse_model("\n".join((HEAD, *parts)))


def test_are_expanded_with_their_attributes(load):
    source = made(MAIN, TWICE, INNER)
    result = load(source)
    assert [node.op_type for node in result.graph.nodes()] == ["LeakyRelu", "Add"] * 2
    assert "local functions are expanded: `own::twice`, `own::inner`" in result.notes
    x = np.linspace(-2, 2, 8, dtype=np.float32).reshape(2, 4)
    files = source, onnx_ir.serde.serialize_model(result.graph.model)
    before, after = (
        onnxruntime.InferenceSession(file.SerializeToString()).run(None, {"x": x})[0]
        for file in files
    )
    np.testing.assert_array_equal(after, before)


def test_unused_ones_disappear(load):
    assert (
        len(
            load(
                made(
                    MAIN.replace("own.twice <alpha = 0.5>", "Relu").replace("own.twice", "Neg"),
                    INNER,
                )
            ).graph.nodes()
        )
        == 2
    )


@pytest.mark.parametrize("target", ["inner", "twice"])
def test_one_that_calls_itself_is_refused(refusal, target):
    loop = f"{OWN} inner (p) => (q) {{ q = own.{target} (p) }}"
    error = refusal(made(MAIN, TWICE, loop))
    assert error.slug == "invalid-model"
    assert "calls itself" in error.message


def test_one_that_grows_beyond_reason_is_refused(refusal):
    """Each calls the next twice: 2^40 nodes from a file of 4 kB."""
    parts = ["g (float[N,4] x) => (float[N,4] y) { y = own.f0 (x) }"]
    for index in range(40):
        inner = f"own.f{index + 1}" if index < 39 else "Relu"
        parts.append(
            f'<domain: "own", opset_import: ["": 18, "own": 1]> '
            f"f{index} (p) => (r) {{ q = {inner} (p) r = {inner} (q) }}"
        )
    assert f"its functions expand to {2**40:,} nodes" in refusal(made(*parts)).message


def test_one_given_twice_is_refused(refusal):
    assert (
        "function `own::inner` is defined twice" in refusal(made(MAIN, TWICE, INNER, INNER)).message
    )


def test_one_of_another_opset_is_refused(refusal):
    other = INNER.replace("18", "13")
    error = refusal(made(MAIN, TWICE, other))
    assert error.slug == "unsupported-opset"
    assert "function `own::inner` wants opset 13, the model 18" in error.message


def test_unknown_operators_in_one_are_named(refusal):
    other = INNER.replace("Add (p, p)", "Relux (p)")
    assert "`Relux` is no operator of ONNX" in refusal(made(MAIN, TWICE, other)).message


def test_undefined_names_in_one_are_named(refusal):
    other = INNER.replace("Add (p, p)", "Add (p, w)")
    assert "`Add` (makes `q`) reads `w`, never made" in refusal(made(MAIN, TWICE, other)).message


def test_chains_are_followed_to_a_depth(monkeypatch, refusal):
    parts = ["g (float[N,4] x) => (float[N,4] y) { y = own.f0 (x) }"]
    for index in range(100):
        inner = f"own.f{index + 1}" if index < 99 else "Relu"
        parts.append(f"{OWN} f{index} (p) => (q) {{ q = {inner} (p) }}")
    error = refusal(made(*parts))
    assert error.slug == "invalid-model"
    assert functions.MAX_DEPTH == 64
