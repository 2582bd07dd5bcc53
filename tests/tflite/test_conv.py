"""Convolutions against ONNX Runtime: float closely, int8 bit for bit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

RNG = np.random.default_rng(3)

CASES = {
    "plain": ((3, 9, 8), (5, 3, 3, 3), ""),
    "same": ((3, 9, 8), (5, 3, 3, 3), "pads=[1,1,1,1]"),
    "stride2 pad1": ((3, 8, 9), (6, 3, 3, 3), "pads=[1,1,1,1], strides=[2,2]"),
    "uneven pads": ((3, 8, 9), (6, 3, 2, 3), "pads=[0,2,1,0]"),
    "dilated": ((4, 9, 9), (5, 4, 3, 3), "dilations=[2,2], pads=[2,2,2,2]"),
    "pointwise": ((8, 5, 5), (7, 8, 1, 1), ""),
    "strided pointwise": ((8, 5, 5), (7, 8, 1, 1), "strides=[2,2]"),
    "depthwise": ((6, 8, 8), (6, 1, 3, 3), "group=6, pads=[1,1,1,1]"),
    "depthwise stride 2": ((6, 8, 8), (6, 1, 5, 5), "group=6, pads=[2,2,2,2], strides=[2,2]"),
    "depthwise dilated": ((6, 8, 8), (6, 1, 3, 3), "group=6, dilations=[2,2]"),
    "multiplier": ((4, 7, 7), (12, 1, 3, 3), "group=4"),
    "grouped": ((8, 7, 7), (12, 2, 3, 3), "group=4, pads=[1,1,1,1]"),
    "same upper": ((3, 8, 7), (5, 3, 4, 3), 'auto_pad="SAME_UPPER", strides=[2,3]'),
    "same lower": ((3, 8, 7), (5, 3, 4, 3), 'auto_pad="SAME_LOWER", strides=[2,1]'),
    "valid": ((3, 8, 7), (5, 3, 4, 3), 'auto_pad="VALID"'),
    "line": ((3, 12), (5, 3, 3), "pads=[1,1]"),
    "line depthwise": ((6, 12), (6, 1, 3), "group=6, pads=[2,0], strides=[2]"),
    "line causal": ((4, 12), (5, 4, 3), "pads=[4,0], dilations=[2]"),
}
"""Shape of the input, of the weights, and attributes."""

TRANSPOSED = {
    "plain": ((4, 5, 5), (4, 3, 3, 3), ""),
    "stride 2": ((4, 5, 6), (4, 3, 2, 2), "strides=[2,2]"),
    "k4 s2 p1": ((4, 5, 6), (4, 3, 4, 4), "strides=[2,2], pads=[1,1,1,1]"),
    "k3 s2 p1 op1": (
        (4, 5, 6),
        (4, 3, 3, 3),
        "strides=[2,2], pads=[1,1,1,1], output_padding=[1,1]",
    ),
    "output padding": ((4, 5, 6), (4, 3, 2, 2), "strides=[3,3], output_padding=[1,2]"),
    "k3 s1 p1": ((4, 5, 6), (4, 3, 3, 3), "pads=[1,1,1,1]"),
    "dilated": ((4, 5, 6), (4, 3, 3, 3), "dilations=[2,2], strides=[2,2]"),
    "uneven": ((4, 5, 6), (4, 3, 3, 3), "pads=[0,1,2,0], strides=[2,1]"),
    "output shape": ((4, 5, 6), (4, 3, 3, 3), "output_shape=[10,12], strides=[2,2]"),
    "same upper": ((4, 5, 6), (4, 3, 3, 3), 'auto_pad="SAME_UPPER", strides=[2,2]'),
    "same lower": ((4, 5, 6), (4, 3, 3, 3), 'auto_pad="SAME_LOWER", strides=[2,2]'),
    "line": ((4, 9), (4, 3, 4), "strides=[2], pads=[1,1]"),
}


def text(op: str, sizes: tuple[int, ...], attributes: str, inputs: str = "x, w, b") -> str:
    shape = ",".join(map(str, (1, *sizes)))
    ranks = ",".join(["N"] * (len(sizes) + 1))
    tail = f" <{attributes}> " if attributes else ""
    return f"g (float[{shape}] x) => (float[{ranks}] y) {{ y = {op}{tail}({inputs}) }}"


def weights(shape: tuple[int, ...], channels: int, *, bias: bool = True) -> dict[str, np.ndarray]:
    made = {"w": (RNG.normal(size=shape) / np.sqrt(np.prod(shape[1:]))).astype(np.float32)}
    if bias:
        made["b"] = RNG.normal(size=channels).astype(np.float32) * np.float32(0.3)
    return made


@pytest.mark.parametrize("case", CASES)
def test_float(case: str, check_float: Any) -> None:
    sizes, shape, attributes = CASES[case]
    written = check_float(text("Conv", sizes, attributes), weights(shape, shape[0]))
    assert written.ops["TRANSPOSE"] <= 2
    assert written.partitions == 1


@pytest.mark.parametrize("case", CASES)
def test_int8_is_bit_exact(case: str, check_int8: Any) -> None:
    sizes, shape, attributes = CASES[case]
    pair = check_int8(text("Conv", sizes, attributes), weights(shape, shape[0]))
    assert pair.lite.partitions == 1


def test_no_bias(check_float: Any, check_int8: Any) -> None:
    net = text("Conv", (3, 7, 7), "", "x, w")
    check_float(net, weights((4, 3, 3, 3), 4, bias=False))
    check_int8(net, weights((4, 3, 3, 3), 4, bias=False))


def test_three_dimensions(check_float: Any) -> None:
    net = text("Conv", (4, 5, 6, 7), "pads=[1,0,1,0,0,1], strides=[1,2,1]")
    check_float(net, weights((6, 4, 3, 3, 2), 6))
    net = text("Conv", (4, 5, 6, 7), "group=2, pads=[1,1,1,1,1,1]")
    check_float(net, weights((6, 2, 3, 3, 3), 6))


@pytest.mark.parametrize("case", TRANSPOSED)
def test_transposed_float(case: str, check_float: Any) -> None:
    sizes, shape, attributes = TRANSPOSED[case]
    check_float(text("ConvTranspose", sizes, attributes), weights(shape, shape[1]))


@pytest.mark.parametrize("case", TRANSPOSED)
def test_transposed_int8(case: str, check_int8: Any) -> None:
    sizes, shape, attributes = TRANSPOSED[case]
    check_int8(text("ConvTranspose", sizes, attributes), weights(shape, shape[1]))


DEPTHWISE = ["strides=[2,2]", "strides=[2,2], pads=[1,1,1,1], output_padding=[1,1]", ""]


@pytest.mark.parametrize("attributes", DEPTHWISE)
def test_transposed_in_groups(attributes: str, check_float: Any) -> None:
    more = f"group=2, {attributes}" if attributes else "group=2"
    check_float(text("ConvTranspose", (4, 5, 5), more), weights((4, 3, 3, 3), 6))


@pytest.mark.parametrize("attributes", DEPTHWISE)
@pytest.mark.parametrize("size", [2, 3, 4])
def test_transposed_depthwise(size: int, attributes: str, check_float: Any) -> None:
    more = f"group=4, {attributes}" if attributes else "group=4"
    net = text("ConvTranspose", (4, 5, 6), more)
    written = check_float(net, weights((4, 2, size, size), 8))
    assert written.partitions == 1
    assert not written.ops["SPLIT"]


def test_transposed_depthwise_line(check_float: Any) -> None:
    net = text("ConvTranspose", (4, 9), "group=4, strides=[2], pads=[1,1]")
    check_float(net, weights((4, 1, 4), 4))


@pytest.mark.parametrize("group", [1, 2])
def test_transposed_volume(group: int, check_float: Any) -> None:
    attributes = f"group={group}, strides=[2,1,2], pads=[1,0,1,1,1,0]"
    check_float(
        text("ConvTranspose", (4, 3, 4, 5), attributes), weights((4, 3, 3, 3, 2), 3 * group)
    )


@pytest.mark.parametrize("clamp", ["Relu(c)", "Clip(c, zero, six)"])
def test_clamp_is_fused(clamp: str, check_float: Any, check_int8: Any) -> None:
    net = f"g (float[1,3,8,8] x) => (float[1,5,6,6] y) {{ c = Conv(x, w, b)  y = {clamp} }}"
    constants = weights((5, 3, 3, 3), 5)
    constants |= {"zero": np.float32(0), "six": np.float32(6)}
    written = check_float(net, constants)
    assert not written.ops["RELU"] + written.ops["RELU6"]
    pair = check_int8(net, constants)
    assert not pair.lite.ops["RELU"] + pair.lite.ops["RELU6"]
