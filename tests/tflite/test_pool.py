"""Pools against ONNX Runtime, in float and in int8."""

from __future__ import annotations

from typing import Any

import pytest

MAX = {
    "plain": ("8,9", "kernel_shape=[2,2], strides=[2,2]"),
    "padded": ("8,9", "kernel_shape=[3,3], strides=[2,2], pads=[1,1,1,1]"),
    "same": ("8,9", "kernel_shape=[5,5], pads=[2,2,2,2]"),
    "ceil": ("8,9", "kernel_shape=[3,3], strides=[2,2], ceil_mode=1"),
    "uneven": ("8,9", "kernel_shape=[3,2], strides=[1,2], pads=[1,0,0,1]"),
    "dilated": ("8,9", "kernel_shape=[3,2], dilations=[2,3]"),
    "dilated, padded": ("8,9", "kernel_shape=[3,3], dilations=[2,2], pads=[2,2,2,2]"),
    "single": ("8,9", "kernel_shape=[1,1], strides=[2,3]"),
    "one of all": ("2,2", "kernel_shape=[1,1], strides=[2,2], ceil_mode=1"),
    "line": ("11", "kernel_shape=[3], strides=[2], pads=[1,1]"),
    "volume": ("6,7,8", "kernel_shape=[2,3,2], strides=[2,2,1], pads=[0,1,1,0,1,0]"),
}
AVERAGE = {
    **MAX,
    "dilated, zeros counted": (
        "8,9",
        "kernel_shape=[3,3], dilations=[2,2], pads=[2,2,2,2], count_include_pad=1",
    ),
    "ceil at one end, zeros counted": (
        "8,8",
        "kernel_shape=[3,3], strides=[2,2], count_include_pad=1, ceil_mode=1",
    ),
    "padded, zeros counted": (
        "8,9",
        "kernel_shape=[3,3], strides=[2,2], pads=[1,1,1,1], count_include_pad=1",
    ),
    "ceil, zeros counted": (
        "8,8",
        "kernel_shape=[3,3], strides=[2,2], pads=[1,1,0,0], count_include_pad=1, ceil_mode=1",
    ),
    "same upper": ("8,9", 'kernel_shape=[3,3], strides=[2,2], auto_pad="SAME_UPPER"'),
    "wide pads": ("8,9", "kernel_shape=[4,4], strides=[3,3], pads=[3,3,2,2]"),
}


def text(op: str, sizes: str, attributes: str) -> str:
    ranks = ",".join("N" * (sizes.count(",") + 3))
    return f"g (float[1,4,{sizes}] x) => (float[{ranks}] y) {{ y = {op} <{attributes}> (x) }}"


@pytest.mark.parametrize("case", MAX)
def test_max(case: str, check_float: Any, check_int8: Any) -> None:
    check_float(text("MaxPool", *MAX[case]), tolerance=0.0)
    if "dilated" not in case:
        check_int8(text("MaxPool", *MAX[case]), reference_lsb=0)


@pytest.mark.parametrize("case", AVERAGE)
def test_average(case: str, check_float: Any, check_int8: Any) -> None:
    check_float(text("AveragePool", *AVERAGE[case]))
    # ONNX Runtime's int8 kernel (1.31.1) divides by the whole kernel where `ceil_mode` lets it hang
    # out, its float kernel and LiteRT do not
    if "dilated" not in case and case != "ceil at one end, zeros counted":
        check_int8(text("AveragePool", *AVERAGE[case]), lsb=1)


def test_padding_after_a_relu_is_in_one_piece(check_float: Any) -> None:
    written = check_float(
        "g (float[1,4,8,8] x) => (float[N,N,N,N] y) {"
        " r = Relu(x) y = MaxPool <kernel_shape=[3,3], strides=[2,2], pads=[1,1,1,1]> (r) }"
    )
    assert written.partitions == 1
    assert not written.ops["PADV2"]


@pytest.mark.parametrize("sizes", ["5,6", "7", "3,4,5"])
@pytest.mark.parametrize("op", ["GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool"])
def test_over_all(op: str, sizes: str, check_float: Any, check_int8: Any) -> None:
    net = text(op, sizes, "").replace(" <> ", "")
    check_float(net)
    if op != "GlobalLpPool":
        check_int8(net, lsb=1)


@pytest.mark.parametrize("power", [1, 2, 3])
def test_lp(power: int, check_float: Any) -> None:
    check_float(text("LpPool", "8,9", f"p={power}, kernel_shape=[3,2], pads=[1,0,1,1]"))
