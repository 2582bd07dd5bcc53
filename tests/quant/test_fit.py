"""A plan that came from a file is refused where it is not one of the graph, naming the place."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from types import MappingProxyType

import numpy as np
import pytest

from edgeq.errors import EdgeqError
from edgeq.ir import Graph
from edgeq.quant import fit
from edgeq.quant.dynamic import plan_dynamic
from edgeq.quant.plan import Encoding, OpDecision, QuantPlan

GraphOf = Callable[..., Graph]

TEXT = """g (float[1,3,8,8] x) => (float[1,4,6,6] y) {
    [conv] a = Conv (x, w, b)  [relu] r = Relu (a)  [add] y = Add (r, k) }"""
VALUES = {
    "w": np.ones((4, 3, 3, 3), np.float32),
    "b": np.ones(4, np.float32),
    "k": np.ones((1, 4, 1, 1), np.float32),
}
CODES = Encoding("int8", (0.1,), (3,))
PLAN = QuantPlan(
    MappingProxyType(
        {
            **dict.fromkeys(("x", "r", "y"), CODES),
            "k@add": CODES,
            "w": Encoding("int8", (0.1,) * 4, (0,) * 4, 0, True),
            "b": Encoding("int32", (0.01,) * 4, (0,) * 4, 0, True),
        }
    ),
    MappingProxyType(
        {
            "conv": OpDecision("conv", "Conv", "int8"),
            "relu": OpDecision("relu", "Relu", "int8", fused_into="conv"),
            "add": OpDecision("add", "Add", "int8"),
        }
    ),
)


def test_a_plan_of_the_graph_fits(graph_of: GraphOf) -> None:
    fit.check(graph_of(TEXT, VALUES), PLAN)


def test_a_dynamic_plan_fits_its_graph(graph_of: GraphOf) -> None:
    graph = graph_of(
        "g (float[n,64] x) => (float[n,48] y) { y = MatMul(x, w) }",
        {"w": np.random.default_rng(0).normal(size=(64, 48)).astype(np.float32)},
    )
    for weights in ("int8", "int4", "int4-block32"):
        fit.check(graph, plan_dynamic(graph, acts="dynamic", weights=weights))


def with_op(name: str, **changed: object) -> QuantPlan:
    op = replace(PLAN.ops[name], **changed)  # type: ignore[arg-type]
    return replace(PLAN, ops={**PLAN.ops, name: op})


def without(tensor: str) -> QuantPlan:
    kept = {name: row for name, row in PLAN.tensors.items() if name != tensor}
    return replace(PLAN, tensors=kept)


def also(tensor: str, encoding: Encoding) -> QuantPlan:
    return replace(PLAN, tensors={**PLAN.tensors, tensor: encoding})


@pytest.mark.parametrize(
    ("plan", "words"),
    [
        (with_op("conv", op_type="Gemm"), "node `conv` is a Conv and no Gemm"),
        (with_op("relu", fused_into="gone"), "is fused into `gone`, no node here"),
        (
            replace(PLAN, ops={**PLAN.ops, "gone": OpDecision("gone", "Add", "int8")}),
            "it has an op `gone`, and the graph has no such node",
        ),
        (without("x"), "tensor `x` has no encoding, and node `conv` reads it"),
        (without("k@add"), "tensor `k` has no encoding, and node `add` reads it"),
        (without("r"), "tensor `r` has no encoding, and node `conv` makes it"),
        (without("y"), "tensor `y` has no encoding, and node `add` makes it"),
        (also("gone", CODES), "it has a tensor `gone`, and the graph has no such tensor"),
        (also("k@gone", CODES), "it has a tensor `k@gone`"),
        (
            also("w", Encoding("int8", (0.1,) * 3, (0,) * 3, 0, True)),
            "tensor `w` [4, 3, 3, 3] has 3 scales",
        ),
    ],
)
def test_what_does_not_fit_is_named(graph_of: GraphOf, plan: QuantPlan, words: str) -> None:
    with pytest.raises(EdgeqError) as refused:
        fit.check(graph_of(TEXT, VALUES), plan)
    assert refused.value.slug == "plan-mismatch"
    assert words in str(refused.value)
