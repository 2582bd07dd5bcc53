"""Sums, extremes and choices over axes, in float and int8, in both layouts."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter

from edgeq_converters.write import tflite

RNG = np.random.default_rng(2)
Check = Callable[..., Any]

CONV = "a = Conv <pads = [1,1,1,1]> (x, w)"
AXES = [(2, 3), (1,), (2,), (3,), (0,), (1, 2, 3), (-1,), (0, 1, 2, 3), (1, 3), ()]


def weights(**others: np.ndarray) -> dict[str, np.ndarray]:
    return {"w": RNG.normal(0, 0.4, (4, 3, 3, 3)).astype(np.float32), **others}


def sizes(rank: int) -> str:
    return "[" + ",".join("ABCDEF"[:rank]) + "]" if rank else ""


@pytest.mark.parametrize("keep", [0, 1])
@pytest.mark.parametrize("axes", AXES)
@pytest.mark.parametrize("op", ["ReduceMean", "ReduceSum", "ReduceMax"])
def test_axes_in_both_layouts(
    op: str, axes: tuple[int, ...], keep: int, check_float: Check
) -> None:
    rank = 4 if keep else 4 - len(axes or range(4))
    given = {"n": np.array(axes, np.int64)} if axes else {}
    call = f"{op} <keepdims = {keep}> (a{', n' if axes else ''})"
    out = f"float{sizes(rank)}"
    check_float(f"g (float[1,3,5,6] x) => ({out} y) {{ {CONV} y = {call} }}", weights(**given))
    check_float(f"g (float[2,3,4,5] a) => ({out} y) {{ y = {call} }}", given)


OPS = [
    *("ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceL1", "ReduceL2"),
    *("ReduceLogSumExp", "ReduceSumSquare"),
]


@pytest.mark.parametrize("op", OPS)
def test_operators(op: str, check_float: Check) -> None:
    for keep in (0, 1):
        call = f"{op} <keepdims = {keep}> (a, n)"
        given = weights(n=np.array([1, 3]))
        out = f"float{sizes(4 if keep else 2)}"
        check_float(f"g (float[1,3,5,6] x) => ({out} y) {{ {CONV} y = {call} }}", given)
    call = f"{op} <noop_with_empty_axes = 1> (x)"
    check_float(f"g (float[2,5] x) => (float[2,5] y) {{ y = {call} }}")


def test_log_sum(check_float: Check) -> None:
    text = "g (float[2,5] x) => (float[2,1] y) { y = ReduceLogSum (x, n) }"
    x = RNG.uniform(0.1, 2, (2, 5)).astype(np.float32)
    check_float(text, {"n": np.array([1])}, feeds={"x": x})


def test_log_sum_exp_of_large_numbers(check_float: Check) -> None:
    text = "g (float[2,3] x) => (float[2] y) { y = ReduceLogSumExp <keepdims = 0> (x, n) }"
    x = np.array([[1000, 999, 0], [-1000, -1001, -999]], np.float32)
    check_float(text, {"n": np.array([1])}, feeds={"x": x})


@pytest.mark.parametrize("dtype", ["int64", "int32"])
@pytest.mark.parametrize("op", ["ReduceSum", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceMean"])
def test_whole_numbers(op: str, dtype: str, check_float: Check) -> None:
    if op == "ReduceMean" and dtype == "int64":
        dtype = "int32"  # not in ONNX Runtime
    text = f"g ({dtype}[2,4] x) => ({dtype}[2,1] y) {{ y = {op} (x, n) }}"
    check_float(text, {"n": np.array([1])})


def test_booleans(graph_of: Check) -> None:
    """Of which ONNX Runtime has no kernel."""
    x = np.array([[True, False], [True, True], [False, False]])
    for op, wanted in (("ReduceMax", [1, 1, 0]), ("ReduceMin", [0, 1, 0])):
        text = f"g (bool[3,2] x) => (bool[3,1] y) {{ y = {op} (x, n) }}"
        data = tflite.write(graph_of(text, {"n": np.array([1])}), None)
        runner = Interpreter(model_content=data).get_signature_runner()
        np.testing.assert_array_equal(runner(x=x)["y"][:, 0], np.array(wanted, bool))


@pytest.mark.parametrize("keep", [0, 1])
@pytest.mark.parametrize("axis", [0, 1, 2, 3])
@pytest.mark.parametrize("op", ["ArgMax", "ArgMin"])
def test_places_of_extremes(op: str, axis: int, keep: int, check_float: Check) -> None:
    out = f"int64{sizes(4 if keep else 3)}"
    call = f"{op} <axis = {axis}, keepdims = {keep}> (a)"
    check_float(f"g (float[1,3,5,6] x) => ({out} y) {{ {CONV} y = {call} }}", weights())
    check_float(f"g (float[2,3,4,5] a) => ({out} y) {{ y = {call} }}")


def test_the_last_of_equal_ones(check_float: Check) -> None:
    x = np.array([[1, 3, 3, 2], [4, 4, 4, 4]], np.float32)
    for last in (0, 1):
        call = f"ArgMax <axis = 1, select_last_index = {last}> (x)"
        text = f"g (float[2,4] x) => (int64[2,1] y) {{ y = {call} }}"
        check_float(text, feeds={"x": x})


@pytest.mark.parametrize("largest", [0, 1])
@pytest.mark.parametrize("axis", [0, 1, -1])
def test_top_k(axis: int, largest: int, check_float: Check) -> None:
    call = f"TopK <axis = {axis}, largest = {largest}> (x, k)"
    text = f"g (float[3,4,5] x) => (float[A,B,C] y, int64[A,B,C] i) {{ y, i = {call} }}"
    check_float(text, {"k": np.array([2])})
    text = f"g (int64[3,4,5] x) => (int64[A,B,C] y) {{ y, i = {call} }}"
    check_float(text, {"k": np.array([2])})


@pytest.mark.parametrize("dtype", ["float", "int64", "int32"])
@pytest.mark.parametrize("axis", [0, 1, -1])
def test_running_sums(axis: int, dtype: str, check_float: Check) -> None:
    for options in ("", " <exclusive = 1>", " <reverse = 1>", " <exclusive = 1, reverse = 1>"):
        call = f"CumSum{options} (x, n)"
        text = f"g ({dtype}[3,4,5] x) => ({dtype}[A,B,C] y) {{ y = {call} }}"
        check_float(text, {"n": np.array(axis)})


def test_running_sum_between_convolutions(check_float: Check) -> None:
    text = f"g (float[1,3,5,6] x) => (float[A,B,C,D] y) {{ {CONV} y = CumSum(a, n) }}"
    check_float(text, weights(n=np.array(1)))


@pytest.mark.parametrize("keep", [0, 1])
@pytest.mark.parametrize("axes", [(2, 3), (1,), (3,)])
@pytest.mark.parametrize("op", ["ReduceMean", "ReduceMax", "ReduceMin"])
def test_int8(op: str, axes: tuple[int, ...], keep: int, check_int8: Check) -> None:
    out = f"float{sizes(4 if keep else 4 - len(axes))}"
    text = f"""
    g (float[1,3,5,6] x) => ({out} y) {{ {CONV} y = {op} <keepdims = {keep}> (a, n) }}
    """
    made = check_int8(text, weights(n=np.array(axes)), lsb=1)
    assert made.lite.ops["QUANTIZE"] == 1  # that of the input


def test_places_are_those_of_codes(graph_of: Check, plan_of: Check, pair: Check) -> None:
    """No DEQUANTIZE of the whole map: codes have the same order."""
    text = f"""
    g (float[1,3,5,6] x) => (int64[A,B,C] y) {{ {CONV} y = ArgMax <axis = 1, keepdims = 0> (a) }}
    """
    graph = graph_of(text, weights())
    made = pair(graph, plan_of(graph))
    feeds = made.samples(1)[0]
    np.testing.assert_array_equal(made.lite.run(feeds)["y"], made.onnx.run(dict(feeds))["y"])
    assert not made.lite.ops["DEQUANTIZE"]
