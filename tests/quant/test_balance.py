"""What a kernel table leaves in float, and what it must not."""

from __future__ import annotations

from collections.abc import Callable
from types import MappingProxyType

import numpy as np
import pytest

from edgeq import targets
from edgeq.ir import Graph
from edgeq.quant import cost, kinds, policy
from edgeq.quant.draft import Draft, draft
from edgeq.quant.policy import ANY, Policy

GraphOf = Callable[..., Graph]
VNNI = policy.of(targets.load("x86-vnni").engine("onnxruntime"))
SLOW_STEM = (
    "the engine runs an int8 `Conv` of 1 to 3 input channels at 0.31 of float's speed on this "
    "target, and its int8 neighbours do not make up for it (estimated)"
)


def ones(*shape: int) -> np.ndarray:
    return np.ones(shape, np.float32)


def floats(made: Draft) -> dict[str, str]:
    return {name: op.reason for name, op in made.ops.items() if op.precision == "float32"}


def net(graph_of: GraphOf, layers: int, first: str) -> Graph:
    """`first` makes `a0` [1, 32, 64, 64] from `x` [1, 3, 128, 128], then 1x1 layers."""
    body = "".join(f"[c{i}] a{i} = Conv(a{i - 1}, w{i})" for i in range(1, layers))
    weights = {f"w{i}": ones(32, 32, 1, 1) for i in range(1, layers)}
    weights |= {"stem": ones(32, 3, 3, 3), "d": ones(32, 1, 3, 3)}
    text = f"g (float[1,3,128,128] x) => (float[1,32,64,64] a{layers - 1}) {{ {first} {body} }}"
    return graph_of(text, {k: v for k, v in weights.items() if f"{k})" in text})


STEM = "[stem] s = Conv <strides = [2,2], pads = [1,1,1,1]> (x, stem)"
DEPTHWISE = "[dw] a0 = Conv <group = 32, pads = [1,1,1,1]> (s, d)"


def test_a_slow_stem_is_left_in_float_where_the_region_begins(graph_of: GraphOf) -> None:
    graph = net(graph_of, 12, STEM.replace(" s =", " a0 ="))
    assert floats(draft(graph, policy=VNNI)) == {"stem": SLOW_STEM}
    assert floats(draft(graph)) == {}


def test_what_follows_it_goes_too_if_it_is_slow(graph_of: GraphOf) -> None:
    graph = net(graph_of, 39, STEM + DEPTHWISE)
    assert list(floats(draft(graph, policy=VNNI))) == ["stem", "dw"]


def test_a_slow_op_between_int8_ops_stays(graph_of: GraphOf) -> None:
    """At 64x64 two changes of 32 channels cost more than the depthwise kernel loses."""
    body = "[one] s = Conv <strides = [2,2]> (x, u) " + DEPTHWISE
    graph = graph_of(
        f"""g (float[1,32,128,128] x) => (float[1,32,64,64] y) {{
          {body} [two] b = Conv(a0, w) [three] y = Conv(b, w) }}""",
        {"u": ones(32, 32, 1, 1), "d": ones(32, 1, 3, 3), "w": ones(32, 32, 1, 1)},
    )
    table = Policy(MappingProxyType({"Conv": 3.0, "DepthwiseConv": 0.88}))
    assert floats(draft(graph, policy=table)) == {}


def test_nineteen_of_twenty_layers_stay_in_int8(graph_of: GraphOf) -> None:
    """One of the first ten may go, two of forty."""
    few = net(graph_of, 9, STEM.replace(" s =", " a0 ="))
    assert floats(draft(few, policy=VNNI)) == {}
    many = net(graph_of, 10, STEM.replace(" s =", " a0 ="))
    assert list(floats(draft(many, policy=VNNI))) == ["stem"]
    one_too_many = net(graph_of, 38, STEM + DEPTHWISE)
    assert floats(draft(one_too_many, policy=VNNI)) == {}


@pytest.mark.parametrize("tensor", ["x", "a0", "a3", "a10"])
def test_what_is_measured_later_moves_no_earlier_choice(graph_of: GraphOf, tensor: str) -> None:
    """A draft with more in float never has an int8 op that the first one had not."""
    graph = net(graph_of, 12, STEM.replace(" s =", " a0 ="))
    first = draft(graph, policy=VNNI)
    later = draft(graph, policy=VNNI, float_tensors={tensor: "8 dB alone"})
    assert later.ops["stem"].reason in (SLOW_STEM, "8 dB alone")
    assert set(later.observe) <= set(first.observe)
    assert set(floats(first)) <= set(floats(later))


def test_a_region_that_measuring_cut_small_goes_too(graph_of: GraphOf) -> None:
    graph = graph_of(
        """g (float[1,64,32,32] x) => (float[1,8,32,32] y) {
          [a] a = Conv <pads = [1,1,1,1]> (x, w3) [b] b = Conv <pads = [1,1,1,1]> (a, v3)
          [c] c = Conv <pads = [1,1,1,1]> (b, w3) [thin] y = Conv(c, thin)
        }""",
        {"w3": ones(64, 64, 3, 3), "v3": ones(64, 64, 3, 3), "thin": ones(8, 64, 1, 1)},
    )
    assert floats(draft(graph, policy=VNNI)) == {}
    made = draft(graph, policy=VNNI, float_nodes={"c": "it loses 20 dB"})
    assert set(floats(made)) == {"c", "thin"}
    assert floats(made)["thin"].startswith("its int8 region would gain less")


def lone(graph_of: GraphOf) -> Graph:
    """A large region, and behind float ops a Conv that multiplies little for what it reads."""
    return graph_of(
        """g (float[1,64,32,32] x) => (float[1,8,32,32] y) {
          [a] a = Conv <pads = [1,1,1,1]> (x, w3) [b] b = Conv <pads = [1,1,1,1]> (a, v3)
          [erf] e = Erf(b)
          [thin] t = Conv(e, thin) [soft] y = Softmax(t)
        }""",
        {"w3": ones(64, 64, 3, 3), "v3": ones(64, 64, 3, 3), "thin": ones(8, 64, 1, 1)},
    )


def test_a_lone_op_that_gains_less_than_its_changes_cost_stays_float(graph_of: GraphOf) -> None:
    assert floats(draft(lone(graph_of), policy=VNNI))["thin"] == (
        "its int8 region would gain less than the changes to int8 and back cost (estimated)"
    )
    assert "thin" not in floats(draft(lone(graph_of)))


def test_a_net_of_one_such_op_is_int8_for_its_size(graph_of: GraphOf) -> None:
    """What the user asked for is not undone by an estimate of its speed."""
    graph = graph_of(
        "g (float[1,3,8,8] x) => (float[1,4,8,8] y) { [only] y = Conv(x, w) }",
        {"w": ones(4, 3, 1, 1)},
    )
    assert floats(draft(graph, policy=VNNI)) == {}


@pytest.mark.parametrize("readers", ["[two] y = Conv(p, w)", "[erf] y = Erf(p)"])
def test_a_slow_light_op_is_float_only_beside_another(graph_of: GraphOf, readers: str) -> None:
    """Between int8 ops the engine would run it in int8 whatever the plan said."""
    graph = graph_of(
        f"""g (float[1,64,56,56] x) => (float[1,64,28,28] y) {{
          [one] a = Conv(x, w)
          [pool] p = AveragePool <kernel_shape = [2,2], strides = [2,2]> (a)
          {readers}
        }}""",
        {"w": ones(64, 64, 1, 1)},
    )
    wanted = {"two": set(), "erf": {"pool", "erf"}}["two" if "two" in readers else "erf"]
    assert set(floats(draft(graph, policy=VNNI))) == wanted


def test_weights_are_worth_their_bytes(graph_of: GraphOf) -> None:
    """Half of the file is not given up for a region that is a little too small."""
    graph = graph_of(
        """g (float[1,64,32,32] x) => (float[1,10] y) {
          [a] a = Conv(x, w) [erf] e = Erf(a) [pool] p = ReduceMean <keepdims = 0> (e, axes)
          [fc] y = Gemm(p, f)
        }""",
        {"w": ones(64, 64, 1, 1), "f": ones(64, 10), "axes": np.array([2, 3])},
    )
    table = Policy(MappingProxyType({"Conv": 3.0, "Gemm": 0.5}))
    assert "fc" not in floats(draft(graph, policy=table))


def test_an_unknown_size_costs_nothing_and_breaks_nothing(graph_of: GraphOf) -> None:
    graph = graph_of(
        "g (float[N,3,H,W] x) => (float[N,4,P,Q] y) { [one] y = Conv(x, w) }",
        {"w": ones(4, 3, 3, 3)},
    )
    assert floats(draft(graph, policy=VNNI)) == {}
    (node,) = graph.nodes()
    assert cost.elements(node.inputs[0]) == 3 * 64 * 64
    assert cost.elements(None) == 0


@pytest.mark.parametrize(
    ("op", "kind"),
    [
        ("Conv <group = 4> (x, dw)", "NarrowDepthwiseConv"),
        ("Conv <group = 2> (x, grouped)", "GroupedConv"),
        ("Conv (x, dense)", "Conv"),
        ("Conv (x, x)", "Conv"),
        ("MatMul (x, square)", "MatMul"),
        ("MatMul (x, x)", "ActivationMatMul"),
        ("Add (x, x)", "Add"),
        ("Mul (x, x)", "Mul"),
    ],
)
def test_kinds(graph_of: GraphOf, op: str, kind: str) -> None:
    weights = {
        "dw": ones(4, 1, 3, 3),
        "grouped": ones(4, 2, 3, 3),
        "dense": ones(4, 4, 3, 3),
        "square": ones(8, 8),
    }
    text = f"g (float[1,4,8,8] x) => (float[a,b,c,d] y) {{ y = {op} }}"
    graph = graph_of(text, {name: array for name, array in weights.items() if f"{name})" in text})
    assert kinds.kind(graph.nodes()[-1]) == kind


def test_both_halves_of_a_silu_are_one_kind(graph_of: GraphOf) -> None:
    graph = graph_of(
        """g (float[1,8] x) => (float[1,8] y, float[1,8] z) {
          s = Sigmoid(x) y = Mul(s, x) t = Sigmoid(y) z = Mul(t, x) }"""
    )
    assert [kinds.kind(node) for node in graph.nodes()] == ["SiLU", "SiLU", "Sigmoid", "Mul"]


def test_rows_become_ratios_and_kinds_fall_back() -> None:
    assert VNNI.ratio("StemConv") == 0.31
    assert VNNI.ratio("MatMul") == 2.3  # the static row, not the dynamic one
    assert VNNI.ratio("Conv") == 3.44  # nor that of int8 weights
    assert VNNI.ratio("Erf") == 1.0
    avx2 = policy.of(targets.load("x86-avx2").engine("onnxruntime"))
    assert avx2.ratio("NarrowDepthwiseConv") == avx2.ratio("DepthwiseConv") == 0.66
    rpi5 = policy.of(targets.load("rpi5").engine("onnxruntime"))
    assert rpi5.ratio("DepthwiseConv") == 1.2  # "fast", not timed: assumed
    assert rpi5.ratio("StemConv") == 1.0
    assert ANY.ratio("Conv") == 1.0


@pytest.mark.parametrize("name", targets.names())
def test_every_row_of_a_target_is_about_a_kind_there_is(name: str) -> None:
    from edgeq.quant.kernels import BY_ENGINE

    for engine in targets.load(name).engines:
        kernels = BY_ENGINE[engine.name]
        known = {*kernels.heavy, *kernels.joiners, *kernels.moves, *kernels.kept_float}
        for row in engine.policy:
            assert row.operation in {*known, *kinds.WORDS, *kinds.NETS, "any"}, row.operation
