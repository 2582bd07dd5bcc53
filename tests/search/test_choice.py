"""Static, dynamic or mixed: what is built, and which one is kept."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir
import pytest

from edgeq.ir import Graph
from edgeq.quant.plan import QuantPlan
from edgeq.search import choice
from edgeq.search.choice import Candidate, choose, prefers_dynamic, shares, worth_building
from edgeq.search.scoring import Score


def graph_of(text: str, **arrays: tuple[int, ...]) -> Graph:
    model = onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["" : 21]> {text}')
    for name, shape in arrays.items():
        array = np.ones(shape, np.float32)
        model.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    return Graph(onnx_ir.from_proto(onnx.shape_inference.infer_shapes(model)))


def candidate(name: str, decibels: float) -> Candidate:
    return Candidate(name, QuantPlan({}, {}), Score({"y": decibels}, decibels))


CNN = graph_of(
    """g (float[n,3,16,16] x) => (float[n,5] y) {
        c = Conv <pads = [1,1,1,1]> (x, w)  p = GlobalAveragePool(c)  f = Flatten(p)
        y = MatMul(f, u) }""",
    w=(8, 3, 3, 3),
    u=(8, 5),
)
ENCODER = graph_of(
    """g (float[n,s,32] x) => (float[n,s,32] y) {
        q = MatMul(x, w)  t = Transpose <perm = [0,2,1]> (q)  a = MatMul(q, t)
        s = Softmax(a)  v = MatMul(s, q)  y = MatMul(v, u) }""",
    w=(32, 32),
    u=(32, 32),
)
BOTH = graph_of(
    """g (float[n,3,16,16] x) => (float[n,64] y) {
        c = Conv (x, w)  f = Flatten(c)  y = Gemm <transB = 1> (f, u) }""",
    w=(2, 3, 3, 3),
    u=(64, 392),
)


def test_who_does_the_work() -> None:
    found = shares(CNN)
    assert (found.conv, found.linear, found.other) == (16 * 16 * 8 * 27, 40, 0)
    found = shares(ENCODER)
    assert found.linear == 2 * 16 * 32 * 32  # 16 tokens are assumed
    assert found.other == 2 * 16 * 16 * 32
    assert shares(BOTH).linear == 64 * 392


@pytest.mark.parametrize(
    ("graph", "static_db", "wanted"),
    [
        (CNN, 5.0, ()),
        (ENCODER, 12.0, ("dynamic",)),
        (ENCODER, None, ("dynamic",)),
        (ENCODER, 30.0, ()),
        (BOTH, 12.0, ("dynamic", "mixed")),
    ],
)
def test_what_is_worth_building(
    graph: Graph, static_db: float | None, wanted: tuple[str, ...]
) -> None:
    assert worth_building(graph, static_db) == wanted


def test_a_model_without_products_is_not_compared() -> None:
    graph = graph_of("g (float[n,3] x) => (float[n,3] y) { y = Tanh(x) }")
    assert worth_building(graph, None) == ()


def test_attention_speaks_for_dynamic() -> None:
    assert prefers_dynamic(ENCODER)
    assert not prefers_dynamic(CNN)
    assert not prefers_dynamic(BOTH)


def test_the_better_one_is_kept_whatever_it_takes() -> None:
    rows = [candidate("dynamic", 14.0), candidate("static", 16.5)]
    chosen = choose(rows, seconds={"dynamic": 1.0, "static": 4.0})
    assert chosen.kept.name == "static"
    assert chosen.reason == "closest to the float model by 2 dB or more"


@pytest.mark.parametrize(
    ("static_seconds", "kept", "also"),
    [
        (0.5, "static", "and faster, measured here"),
        (0.8, "dynamic", "and takes no range from data"),
        (1.2, "dynamic", "and takes no range from data"),
        (2.0, "dynamic", "and faster, measured here"),
        (None, "dynamic", "and takes no range from data"),
    ],
)
def test_between_equals_speed_decides_by_a_wide_margin(
    static_seconds: float | None, kept: str, also: str
) -> None:
    rows = [candidate("dynamic", 14.0), candidate("static", 15.9)]
    seconds = {} if static_seconds is None else {"dynamic": 1.0, "static": static_seconds}
    chosen = choose(rows, seconds=seconds, source="measured here")
    assert (chosen.kept.name, chosen.also) == (kept, also)
    # what goes into the bundle does not tell a host that could time from one that could not
    assert chosen.reason == "as close to the float model as the others"


def test_what_the_target_is_slow_with_is_not_taken() -> None:
    rows = [candidate("dynamic", 30.0), candidate("static", 10.0)]
    chosen = choose(rows, seconds={}, slow={"dynamic": "slower than float on rpi4"})
    assert chosen.kept.name == "static"
    assert chosen.reason == "dynamic: slower than float on rpi4"
    everything = {"dynamic": "slow", "static": "slow too"}
    assert choose(rows, seconds={}, slow=everything).kept.name == "dynamic"


def test_the_only_one_is_kept() -> None:
    chosen = choose([candidate("dynamic", 3.0)], seconds={})
    assert (chosen.kept.name, chosen.reason) == ("dynamic", "no other is possible")


def test_the_words_name_every_candidate() -> None:
    assert set(choice._PREFERRED) == {choice.STATIC, choice.DYNAMIC, choice.MIXED}
