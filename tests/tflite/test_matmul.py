"""Gemm and MatMul against ONNX Runtime, in float and in int8."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from edgeq.errors import EdgeqError

RNG = np.random.default_rng(5)


def normal(*shape: int) -> np.ndarray:
    return RNG.normal(size=shape).astype(np.float32)


def gemm(attributes: str, left: str = "3,7", inputs: str = "x, w, b") -> str:
    tail = f" <{attributes}> " if attributes else ""
    return f"g (float[{left}] x) => (float[N,M] y) {{ y = Gemm{tail}({inputs}) }}"


@pytest.mark.parametrize(
    ("attributes", "left", "shape"),
    [
        ("", "3,7", (7, 5)),
        ("transB=1", "3,7", (5, 7)),
        ("transA=1", "7,3", (7, 5)),
        ("transA=1, transB=1, alpha=0.5, beta=2.0", "7,3", (5, 7)),
        ("alpha=0.5, beta=2.0", "3,7", (7, 5)),
    ],
)
@pytest.mark.parametrize("bias", [(5,), (1, 5), (3, 5), (3, 1), (1,)])
def test_gemm(
    attributes: str, left: str, shape: tuple[int, ...], bias: tuple[int, ...], check_float: Any
) -> None:
    check_float(gemm(attributes, left), {"w": normal(*shape), "b": normal(*bias)})


def test_gemm_without_bias_and_of_two_activations(check_float: Any) -> None:
    check_float(gemm("", inputs="x, w"), {"w": normal(7, 5)})
    check_float(
        "g (float[3,7] x, float[5,7] w, float[3,5] b) => (float[N,M] y)"
        " { y = Gemm <transB=1> (x, w, b) }"
    )


@pytest.mark.parametrize("transposed", [0, 1])
def test_gemm_int8_is_bit_exact(transposed: int, check_int8: Any) -> None:
    weights = normal(5, 7) if transposed else normal(7, 5)
    pair = check_int8(gemm(f"transB={transposed}"), {"w": weights, "b": normal(5)})
    assert pair.lite.partitions == 1
    check_int8(gemm(f"transB={transposed}", inputs="x, w"), {"w": weights})


def matmul(left: str, right: str = "") -> str:
    more = f", float[{right}] w" if right else ""
    return f"g (float[{left}] x{more}) => (y) {{ y = MatMul(x, w) }}"


@pytest.mark.parametrize("left", ["3,7", "2,3,7", "2,2,3,7"])
def test_constant_matrix(left: str, check_float: Any, check_int8: Any) -> None:
    written = check_float(matmul(left), {"w": normal(7, 5)})
    assert written.ops["FULLY_CONNECTED"] == 1
    check_int8(matmul(left), {"w": normal(7, 5)})


@pytest.mark.parametrize(
    ("left", "shape"), [("7", (7, 5)), ("3,7", (7,)), ("2,3,7", (2, 7, 5)), ("3,7", (4, 7, 5))]
)
def test_other_constants(left: str, shape: tuple[int, ...], check_float: Any) -> None:
    check_float(matmul(left), {"w": normal(*shape)})


@pytest.mark.parametrize(
    ("left", "right"),
    [("3,7", "7,5"), ("2,3,7", "2,7,5"), ("2,1,3,7", "4,7,5"), ("7", "7,5"), ("2,3,7", "7")],
)
def test_two_activations(left: str, right: str, check_float: Any, check_int8: Any) -> None:
    check_float(matmul(left, right))


def test_transposes_are_taken_in(check_float: Any) -> None:
    written = check_float(
        "g (float[2,7,3] x, float[2,5,7] w) => (y) {"
        " a = Transpose <perm=[0,2,1]> (x) b = Transpose <perm=[0,2,1]> (w) y = MatMul(a, b) }"
    )
    assert not written.ops["TRANSPOSE"]


@pytest.mark.parametrize("turn", ["", "transA=1", "transB=1, alpha=0.3"])
def test_fused_matmul(turn: str, check_float: Any) -> None:
    left = "2,7,3" if "transA" in turn else "2,3,7"
    right = "2,5,7" if "transB" in turn else "2,7,5"
    tail = f" <{turn}> " if turn else ""
    check_float(
        f"g (float[{left}] x, float[{right}] w) => (float[2,3,5] y)"
        f" {{ y = com.microsoft.FusedMatMul{tail}(x, w) }}"
    )


LINEAR = "g (float[2,6,16] x) => (float[2,6,8] y) { m = MatMul(x, w) a = Add(b, m) y = Relu(a) }"


def test_bias_and_clamp_go_into_one_operator(check_float: Any, check_int8: Any) -> None:
    constants = {"w": normal(16, 8), "b": normal(8)}
    written = check_float(LINEAR, constants)
    assert dict(written.ops) == {"FULLY_CONNECTED": 1}
    # the plan rounds the product before it adds: that rounding, half a step, is left out
    pair = check_int8(LINEAR, constants, lsb=1, reference_lsb=2)
    assert not pair.lite.ops["ADD"]
    assert pair.lite.partitions == 1


FLAT = (
    "g (float[1,3,6,6] x) => (float[1,5] y) {{"
    " c = Conv <pads=[1,1,1,1]> (x, k, kb) r = Relu(c) f = {} y = {} }}"
)


@pytest.mark.parametrize("flatten", ["Flatten(r)", "Reshape(r, shape)"])
@pytest.mark.parametrize("layer", ["Gemm <transB=1> (f, w, b)", "Gemm(f, v, b)", "MatMul(f, v)"])
def test_weights_are_reordered_behind_images(
    flatten: str, layer: str, check_float: Any, check_int8: Any
) -> None:
    """What is flattened with its channels last goes into a layer as it is."""
    rows = normal(5, 4 * 36)
    constants = {
        "k": normal(4, 3, 3, 3),
        "kb": normal(4),
        "w": rows,
        "v": np.ascontiguousarray(rows.T),
        "b": normal(5),
        "shape": np.array([0, -1]),
    }
    net = FLAT.format(flatten, layer)
    written = check_float(net, constants, layout="nhwc")
    assert not written.ops["TRANSPOSE"]
    pair = check_int8(net, constants, layout="nhwc", reference_lsb=2)
    assert not pair.lite.ops["TRANSPOSE"]
    assert pair.lite.partitions == 1


def test_bias_in_other_steps_is_refused(graph_of: Any, plan_of: Any, pair: Any) -> None:
    graph = graph_of(gemm(""), {"w": normal(7, 5), "b": normal(5)})
    plan = plan_of(graph)
    bias = plan.tensors["b"]
    other = replace(bias, scale=tuple(2.0 * scale for scale in bias.scale))
    with pytest.raises(EdgeqError, match=r"the scale of bias `b` is not that of its products"):
        pair(graph, replace(plan, tensors={**plan.tensors, "b": other}))
