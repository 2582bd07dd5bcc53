"""Plans that need no data: which op runs how, and the reasons."""

from __future__ import annotations

import json
from collections.abc import Callable

import numpy as np
import pytest

from edgeq.errors import EdgeqError
from edgeq.ir import Graph
from edgeq.numerics import affine
from edgeq.numerics.pair_safe import PAIR_LIMIT, pair_peak
from edgeq.quant.dynamic import dynamic_nodes, plan_dynamic, with_tables
from edgeq.quant.kernels import LITERT
from edgeq.quant.plan import Encoding, OpDecision, QuantPlan

GraphOf = Callable[..., Graph]
RNG = np.random.default_rng(5)


def normal(*shape: int) -> np.ndarray:
    return RNG.normal(size=shape).astype(np.float32)


NET = """g (int64[n,s] ids, float[n,3,8,8] image) => (y, z) {
    [embed] e = Gather(table, ids)
    [query] q = MatMul(e, wq)
    [small] k = MatMul(q, wk)
    [attend] t = Transpose <perm = [0,2,1]> (k)
    [scores] a = MatMul(k, t)
    [softmax] y = Softmax(a)
    [conv] z = Conv(image, wc)
}"""
WEIGHTS = {
    "table": normal(40, 32),
    "wq": normal(32, 32),
    "wk": normal(32, 4),
    "wc": normal(16, 3, 3, 3),
}


def decided(plan: QuantPlan) -> dict[str, tuple[str, str]]:
    return {name: (op.precision, op.reason) for name, op in plan.ops.items()}


def test_each_op_with_its_reason(graph_of: GraphOf) -> None:
    plan = plan_dynamic(graph_of(NET, WEIGHTS), acts="dynamic")
    found = decided(plan)
    assert found["query"] == ("dynamic-int8", "")
    assert found["embed"] == (
        "int8-weights",
        "the table is stored in int8, rows are brought back as they are read",
    )
    assert found["conv"] == (
        "int8-weights",
        "ONNX Runtime's `ConvInteger` takes 8 times as long as its float `Conv`: weights are stored"
        " in int8, computed in float",
    )
    assert found["small"] == ("float32", "its weights have less than 256 values")
    assert found["scores"] == ("float32", "its weights are not constant")
    assert found["softmax"][0] == "float32"
    assert "5 times slower" in found["softmax"][1]
    assert set(plan.tensors) == {"table", "wq", "wc"}
    assert {name: row.axis for name, row in plan.tensors.items()} == {"table": 0, "wq": 1, "wc": 0}


def test_in_float_nothing_runs_in_int8(graph_of: GraphOf) -> None:
    plan = plan_dynamic(graph_of(NET, WEIGHTS), acts="fp32")
    assert decided(plan)["query"] == (
        "int8-weights",
        "weights are stored in int8, computed in float",
    )
    assert not plan.computes_int8
    assert plan.notes == (
        "1 `Gather`: the table is stored in int8, rows are brought back as they are read",
        "1 `MatMul`: weights are stored in int8, computed in float",
        "1 `Conv`: weights are stored in int8, computed in float",
    )


def test_scales_are_the_largest_of_each_channel(graph_of: GraphOf) -> None:
    plan = plan_dynamic(graph_of(NET, WEIGHTS), acts="dynamic")
    for name, others in (("table", 1), ("wq", 0), ("wc", (1, 2, 3))):
        peaks = np.abs(WEIGHTS[name]).max(axis=others)
        scale = np.array(plan.tensors[name].scale)
        assert np.all(scale * 127 >= peaks)
        assert np.all(scale * 127 <= peaks * (1 + 2.0**-11))  # `round_up_scale`'s own bound


def test_a_plan_round_trips(graph_of: GraphOf) -> None:
    plan = plan_dynamic(graph_of(NET, WEIGHTS), acts="dynamic", pair_safe=True)
    assert QuantPlan.from_json(json.loads(json.dumps(plan.to_json()))) == plan


def test_what_the_user_keeps_stays_float(graph_of: GraphOf) -> None:
    graph = graph_of(NET, WEIGHTS)
    plan = plan_dynamic(graph, acts="dynamic", keep_float=["que*", "embed"])
    assert decided(plan)["query"] == ("float32", "kept in float by `--keep-float que*`")
    assert set(plan.tensors) == {"wc"}
    assert dynamic_nodes(graph, keep_float=["que*"]) == ()
    assert dynamic_nodes(graph) == ("query",)
    with pytest.raises(EdgeqError, match="no node matches `--keep-float nothing`"):
        plan_dynamic(graph, acts="dynamic", keep_float=["nothing"])


@pytest.mark.parametrize("axis", [0, 1])
def test_no_pair_along_k_can_saturate(graph_of: GraphOf, axis: int) -> None:
    """Neighbours that multiply neighbouring activations: down a column of [K, N]."""
    attribute = "<transB = 1>" if axis == 0 else ""
    w = np.abs(normal(*((24, 64) if axis == 0 else (64, 24))))
    graph = graph_of(
        f"g (float[n,64] x) => (float[n,24] y) {{ y = Gemm {attribute} (x, w) }}", {"w": w}
    )
    peaks = {}
    for safe in (False, True):
        plan = plan_dynamic(graph, acts="dynamic", pair_safe=safe)
        codes = affine.quantize_weights(w, np.array(plan.tensors["w"].scale, np.float32), axis)
        peaks[safe] = pair_peak(codes if axis == 0 else codes.T).max()
        told = [note for note in plan.notes if "saturates" in note]
        assert told == (
            [
                "24 of 24 columns of dynamic int8 weights have a coarser scale so that no pair of"
                " weights saturates x86 kernels"
            ]
            if safe
            else []
        )
    assert peaks[True] <= PAIR_LIMIT < peaks[False]


def test_weights_that_are_computed_with_in_float_need_no_safe_pairs(graph_of: GraphOf) -> None:
    graph = graph_of(NET, WEIGHTS)
    plain = plan_dynamic(graph, acts="fp32")
    assert plan_dynamic(graph, acts="fp32", pair_safe=True) == plain


REFUSED = {
    "transA": ("g (float[64,n] x) => (y) { y = Gemm <transA = 1> (x, w) }", "has transA=1"),
    "alpha": ("g (float[n,64] x) => (y) { y = Gemm <alpha = 2.0> (x, w) }", "has alpha=2"),
    "beta": (
        "g (float[n,64] x, float[24] c) => (y) { y = Gemm <beta = 0.5> (x, w, c) }",
        "beta=0.5",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_gemm_the_engine_would_not_fuse_is_stored(graph_of: GraphOf, case: str) -> None:
    text, reason = REFUSED[case]
    plan = plan_dynamic(graph_of(text, {"w": normal(64, 24)}), acts="dynamic")
    (op,) = plan.ops.values()
    assert op.precision == "int8-weights"
    assert reason in op.reason


def test_sums_that_might_not_fit_are_stored(graph_of: GraphOf) -> None:
    depth = 70_000
    text = f"g (float[n,{depth}] x) => (float[n,2] y) {{ y = MatMul(x, w) }}"
    plan = plan_dynamic(graph_of(text, {"w": normal(depth, 2)}), acts="dynamic")
    (op,) = plan.ops.values()
    assert (op.precision, op.reason.partition(":")[0]) == (
        "int8-weights",
        "sums of 70000 products might not fit int32",
    )


def test_a_gather_by_fixed_indices_or_along_another_axis_stays(graph_of: GraphOf) -> None:
    for text in (
        "g (float[40] x) => (y) { r = Gather(t, two)  y = Mul(r, x) }",
        "g (int64[n] ids) => (y) { y = Gather <axis = 1> (t, ids) }",
    ):
        graph = graph_of(text, {"t": normal(40, 40), "two": np.array(2)})
        assert plan_dynamic(graph, acts="dynamic").tensors == {}


def test_an_empty_or_tiny_model_has_nothing_to_store(graph_of: GraphOf) -> None:
    plan = plan_dynamic(graph_of("g (float[4] x) => (y) { y = Tanh(x) }"), acts="dynamic")
    assert plan.tensors == {}
    assert [op.precision for op in plan.ops.values()] == ["float32"]


def test_a_quantized_model_is_refused(graph_of: GraphOf) -> None:
    text = """g (float[n,16] x) => (uint8[n,16] y) { y, s, z = DynamicQuantizeLinear(x) }"""
    with pytest.raises(EdgeqError, match="the model is quantized already"):
        plan_dynamic(graph_of(text), acts="dynamic")


def test_a_base_keeps_what_is_int8_and_lowers_the_rest(graph_of: GraphOf) -> None:
    graph = graph_of(NET, WEIGHTS)
    ops = dict(plan_dynamic(graph, acts="dynamic", keep_float=["*"]).ops)
    ops["conv"] = OpDecision("conv", "Conv", "int8")
    ops["scores"] = OpDecision("scores", "MatMul", "float32", "quantizing it alone leaves 3 dB")
    held = {"image": Encoding("int8", (0.5,), (0,)), "wc": Encoding("int8", (0.25,), (0,))}
    plan = plan_dynamic(graph, acts="dynamic", base=QuantPlan(held, ops, ("a note",)))
    found = decided(plan)
    assert found["conv"] == ("int8", "")
    assert found["query"] == ("dynamic-int8", "")
    assert found["embed"][0] == "int8-weights"
    assert found["scores"] == ("float32", "quantizing it alone leaves 3 dB")
    assert plan.tensors["wc"] == held["wc"]
    assert plan.notes[0] == "a note"


def test_tables_alone(graph_of: GraphOf) -> None:
    graph = graph_of(NET, WEIGHTS)
    ops = plan_dynamic(graph, acts="dynamic", keep_float=["*"]).ops
    plan = with_tables(graph, QuantPlan({}, ops))
    assert plan.tensors.keys() == {"table"}
    changed = {name for name, op in plan.ops.items() if op != ops[name]}
    assert changed == {"embed"}
    assert with_tables(graph, QuantPlan({}, ops), keep_float=["embed"]).tensors == {}


def test_a_table_that_reaches_a_body_through_a_move_stays_float(graph_of: GraphOf) -> None:
    """ONNX Runtime 1.31.1 aborts where it would pull the table's DequantizeLinear into the body."""
    graph = graph_of(
        """g (int64[2,4] ids, bool c) => (y) {
            e = Gather(table, ids)
            t = Transpose <perm = [0,2,1]> (e)
            y = If (c) <
              then_branch = t1 () => (p) { p = Relu(t) }, else_branch = e1 () => (q) { q = Neg(t) }>
        }""",
        {"table": normal(40, 32)},
    )
    assert plan_dynamic(graph, acts="dynamic").tensors == {}


WIDE = """g (float[n,64] x, float[n,3,8,8] image) => (y, z) {
    [first] a = MatMul(x, w)
    [odd] b = Gemm(a, v, bias)
    [last] y = Gemm <transB = 1> (b, u)
    [conv] z = Conv(image, k)
}"""
MATRICES = {
    "w": normal(64, 50),
    "v": normal(50, 32),
    "bias": normal(32),
    "u": normal(24, 32),
    "k": normal(16, 3, 3, 3),
}


def test_int4_per_column_of_every_dynamic_matrix(graph_of: GraphOf) -> None:
    plan = plan_dynamic(graph_of(WIDE, MATRICES), acts="dynamic", weights="int4")
    found = decided(plan)
    assert {found[name] for name in ("first", "odd", "last")} == {("dynamic-int4", "")}
    assert found["conv"][0] == "int8-weights"
    axes = {name: (plan.tensors[name].axis, len(plan.tensors[name].scale)) for name in "wvu"}
    assert axes == {"w": (1, 50), "v": (1, 32), "u": (0, 24)}
    assert {plan.tensors[name].dtype for name in "wvu"} == {"int4"}
    assert plan.computes_int8


def test_blocks_want_inputs_in_multiples_of_them(graph_of: GraphOf) -> None:
    plan = plan_dynamic(graph_of(WIDE, MATRICES), acts="dynamic", weights="int4-block32")
    found = decided(plan)
    assert found["odd"] == (
        "dynamic-int8",
        "its 50 inputs are no multiple of 32: weights are int8",
    )
    assert (plan.tensors["w"].block, len(plan.tensors["w"].scale)) == (32, 50 * 2)
    assert (plan.tensors["u"].block, len(plan.tensors["u"].scale)) == (32, 24)
    assert QuantPlan.from_json(plan.to_json()) == plan


def test_a_reason_names_the_engine(graph_of: GraphOf) -> None:
    plan = plan_dynamic(graph_of(WIDE, MATRICES), acts="dynamic", kernels=LITERT)
    assert decided(plan)["conv"] == (
        "int8-weights",
        "LiteRT's hybrid `Conv` takes twice as long as its float one: weights are stored in int8, "
        "computed in float",
    )
