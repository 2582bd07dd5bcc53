"""Models that were quantized before: their integers survive, and compute the same."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from edgeq.ir import constant
from edgeq.numerics import affine, blocks
from edgeq.quant.plan import QuantPlan

RNG = np.random.default_rng(17)
S_X, S_Y = 0.031, 0.047


def codes(*shape: int, low: int = -127) -> np.ndarray:
    return RNG.integers(low, 128, shape).astype(np.int8)


def stored(result: Any, op_type: str, at: int) -> np.ndarray:
    """The codes that a writer makes of a constant, with what the plan says."""
    node = next(node for node in result.graph.nodes() if node.op_type == op_type)
    value = node.inputs[at]
    encoding = result.plan.encoding(value.name, node.name)
    array, scale = constant(value), np.array(encoding.scale, np.float32)
    if encoding.dtype == "int32":
        return np.rint(array.astype(np.float64) / scale.astype(np.float64)).astype(np.int64)
    if encoding.symmetric:
        return affine.quantize_weights(array, scale, encoding.axis)
    return affine.quantize(array, scale, np.array(encoding.zero_point), axis=encoding.axis)


def conv(net: Any, weights: np.ndarray, scale: Any, bias: np.ndarray, *, fused: int = 0) -> int:
    channels = weights.shape[0]
    x = net.input("x", (1, 8, 8, weights.shape[3]), "int8", scale=S_X, zero=5)
    w = net.const(weights, "w", scale=scale, axis=0)
    products = np.float32(S_X) * np.broadcast_to(np.float32(scale), channels)
    b = net.const(bias, "b", scale=products, axis=0)
    return net.op(
        "CONV_2D",
        [x, w, b],
        "Conv2DOptions",
        strideH=1,
        strideW=1,
        fusedActivationFunction=fused,
        results=[{"name": "y", "dtype": "int8", "scale": S_Y, "zero": -128 if fused else -3}],
    )


SCALES = np.array([0.01, 0.003, 0.0207, 0.05], np.float32)


@pytest.mark.parametrize("fused", [0, 1, 3], ids=["none", "relu", "relu6"])
def test_a_convolution_keeps_its_integers(net, load, integers, fused) -> None:
    weights, bias = codes(4, 3, 3, 2), RNG.integers(-9000, 9000, 4).astype(np.int32)
    result = load(net_ := net.finish(conv(net, weights, SCALES, bias, fused=fused), versions=3))
    assert (stored(result, "Conv", 1) == weights.transpose(0, 3, 1, 2)).all()
    assert (stored(result, "Conv", 2) == bias).all()
    assert result.border == "int8"
    for dtype in ("uint8", "int8"):
        assert integers(net_, result, dtype).max() == 0


def test_fused_activations_are_folded_in_the_plan(net, load) -> None:
    result = load(net.finish(conv(net, codes(4, 1, 1, 2), SCALES, np.zeros(4, np.int32), fused=1)))
    relu = next(op for op in result.plan.ops.values() if op.op_type == "Relu")
    assert result.plan.ops[relu.fused_into].op_type == "Conv"
    assert QuantPlan.from_json(result.plan.to_json()) == result.plan


def test_weights_of_minus_128_and_of_one_scale_survive(net, load, integers) -> None:
    weights, bias = codes(4, 3, 3, 2), RNG.integers(-9000, 9000, 4).astype(np.int32)
    weights[1, 1, 1, 0] = -128
    result = load(net_ := net.finish(conv(net, weights, 0.01, bias)))
    assert (stored(result, "Conv", 1) == weights.transpose(0, 3, 1, 2)).all()
    node = next(node for node in result.graph.nodes() if node.op_type == "Conv")
    assert result.plan.encoding(node.inputs[1].name).axis is None
    for dtype in ("uint8", "int8"):  # LiteRT's XNNPACK refuses such weights
        assert integers(net_, result, dtype, reference=True).max() <= 1


def test_all_scales_come_back_to_the_same_codes(net, load) -> None:
    """Any float32 scale: code * scale / scale rounds to the code."""
    scales = np.exp(RNG.uniform(-12, 3, 64)).astype(np.float32)
    weights = np.broadcast_to(np.arange(-127, 128, dtype=np.int8), (64, 1, 1, 255)).copy()
    net.finish(conv(net, weights, scales, np.zeros(64, np.int32)))
    result = load(net)
    assert (stored(result, "Conv", 1) == weights.transpose(0, 3, 1, 2)).all()


def test_biases_too_large_for_float32_are_counted(net, load) -> None:
    bias = np.array([2**23 - 1, 2**28 + 5, 2**29 + 3, 5], np.int32)
    result = load(net.finish(conv(net, codes(4, 1, 1, 2), SCALES, bias)))
    assert "2 bias codes beyond 2**23 rounded to the 24 bits of a float32" in result.notes
    assert stored(result, "Conv", 2)[[0, 3]].tolist() == [2**23 - 1, 5]


def test_uint8_with_zero_points_in_its_weights(net, load, integers) -> None:
    x = net.input("x", (1, 6, 6, 3), "uint8", scale=S_X, zero=120)
    weights = RNG.integers(0, 256, (4, 3, 3, 3)).astype(np.uint8)
    w = net.const(weights, "w", scale=0.02, zero=117)
    b = net.const(np.zeros(4, np.int32), "b", scale=S_X * 0.02)
    row = {"name": "y", "dtype": "uint8", "scale": 0.1, "zero": 128}
    y = net.op("CONV_2D", [x, w, b], "Conv2DOptions", strideH=1, strideW=1, results=[row])
    result = load(net_ := net.finish(y))
    shifted = (weights.astype(int) - 128).transpose(0, 3, 1, 2)
    assert (stored(result, "Conv", 1) == shifted).all()
    assert integers(net_, result, "uint8", reference=True).max() <= 1


def test_uint8_weights_that_fit_around_zero_have_no_zero_point(net, load, integers) -> None:
    x = net.input("x", (1, 6, 6, 3), "uint8", scale=S_X, zero=120)
    weights = RNG.integers(20, 240, (4, 3, 3, 3)).astype(np.uint8)
    w = net.const(weights, "w", scale=0.02, zero=125)
    b = net.const(np.zeros(4, np.int32), "b", scale=S_X * 0.02)
    row = {"name": "y", "dtype": "uint8", "scale": 0.1, "zero": 128}
    y = net.op("CONV_2D", [x, w, b], "Conv2DOptions", strideH=1, strideW=1, results=[row])
    result = load(net_ := net.finish(y))
    assert (stored(result, "Conv", 1) == (weights.astype(int) - 125).transpose(0, 3, 1, 2)).all()
    assert result.plan.tensors["w"].symmetric and result.plan.tensors["w"].zero_point == (0,)
    assert not any("zero point" in note for note in result.notes)
    assert integers(net_, result, "uint8", reference=True).max() <= 1


def activation(name: str = "y", scale: float = S_Y, zero: int = -3) -> dict[str, Any]:
    return {"name": name, "dtype": "int8", "scale": scale, "zero": zero}


@pytest.mark.parametrize("code", ["ADD", "MUL", "SUB", "MAXIMUM"])
def test_two_activations(net, load, integers, code) -> None:
    same = code == "MAXIMUM"
    x = net.input("x", (1, 5, 5, 4), "int8", scale=S_X, zero=5)
    y = net.input("y", (1, 5, 5, 4), "int8", scale=S_X if same else 0.02, zero=5 if same else -9)
    options = "MaximumMinimumOptions" if same else f"{code.title()}Options"
    row = activation("z", S_X, 5) if same else activation("z")
    result = load(net_ := net.finish(net.op(code, [x, y], options, results=[row]), versions=2))
    assert integers(net_, result).max() <= 1


def test_fully_connected_of_more_axes(net, load, integers) -> None:
    x = net.input("x", (1, 5, 8), "int8", scale=S_X, zero=5)
    w = net.const(codes(6, 8), "w", scale=0.01)
    b = net.const(RNG.integers(-900, 900, 6).astype(np.int32), "b", scale=S_X * 0.01)
    y = net.op(
        "FULLY_CONNECTED",
        [x, w, b],
        "FullyConnectedOptions",
        keepNumDims=True,
        fusedActivationFunction=1,
        results=[activation(zero=-128)],
    )
    result = load(net_ := net.finish(y, versions=5))
    assert integers(net_, result).max() <= 1
    assert {op.precision for op in result.plan.ops.values()} == {"int8"}


def test_requantize_is_an_identity_between_two_scales(net, load, integers) -> None:
    x = net.input("x", (1, 40), "int8", scale=S_X, zero=5)
    y = net.op("QUANTIZE", [x], results=[activation()])
    result = load(net_ := net.finish(y))
    (op,) = result.plan.ops.values()
    assert (op.op_type, op.precision) == ("Identity", "int8")
    assert integers(net_, result).max() <= 1


def test_float_border(net, load) -> None:
    x = net.input("x", (1, 40))
    q = net.op("QUANTIZE", [x], results=[activation("q", S_X, 5)])
    r = net.op("RELU", [q], results=[activation("r", S_X, 5)])
    y = net.op("DEQUANTIZE", [r], results=[{"name": "y"}])
    result = load(net.finish(y))
    assert result.border == "float"
    assert [node.op_type for node in result.graph.nodes()] == ["Relu"]
    assert result.plan.encoding("x").scale == (float(np.float32(S_X)),)
    assert [info.name for info in result.graph.outputs] == ["y"]


def test_two_scales_of_one_float_are_two_tensors(net, load) -> None:
    x = net.input("x", (1, 4))
    rows = [activation("a", 0.1, 0), activation("b", 0.2, 3)]
    parts = [net.op("QUANTIZE", [x], results=[row]) for row in rows]
    result = load(net.finish(*parts))
    scales = {result.plan.encoding(info.name).scale[0] for info in result.graph.outputs}
    assert scales == {float(np.float32(0.1)), float(np.float32(0.2))}


def test_an_op_without_an_int8_form_is_rounded_after_it(net, load, integers) -> None:
    x = net.input("x", (1, 30), "int8", scale=S_X, zero=5)
    y = net.op("SQUARED_DIFFERENCE", [x, x], "SquaredDifferenceOptions", results=[activation()])
    result = load(net_ := net.finish(y))
    precisions = {op.op_type: op.precision for op in result.plan.ops.values()}
    assert precisions == {"Sub": "float32", "Mul": "float32", "Identity": "int8"}
    assert integers(net_, result).max() <= 1


def test_int8_weights_of_a_float_operator(net, load) -> None:
    x = net.input("x", (1, 8))
    w = net.const(codes(4, 8), "w", scale=0.01)
    net.finish(net.op("FULLY_CONNECTED", [x, w, -1], "FullyConnectedOptions"))
    result = load(net)
    (op,) = result.plan.ops.values()
    assert (op.op_type, op.precision) == ("Gemm", "dynamic-int8") and result.border == "float"


def test_int4_weights_of_a_float_operator(net, load) -> None:
    """As int4, not as the int8 that would hold them too: written again, they take half a byte."""
    x = net.input("x", (1, 8))
    codes = RNG.integers(-8, 8, (4, 8)).astype(np.int8)
    packed = {"dtype": "int4", "data": blocks.pack(codes).tobytes()}
    w = net.const(codes, "w", scale=SCALES, axis=0, **packed)
    net.finish(net.op("FULLY_CONNECTED", [x, w, -1], "FullyConnectedOptions"))
    result = load(net)
    (op,) = result.plan.ops.values()
    assert (op.op_type, op.precision) == ("Gemm", "dynamic-int4")
    encoding = result.plan.tensors["w"]
    assert (encoding.dtype, encoding.axis, encoding.block) == ("int4", 0, None)
    assert encoding.scale == tuple(float(scale) for scale in SCALES)
    scale = np.array(encoding.scale, np.float32)
    weights = constant(result.graph.value("w"))
    assert (blocks.quantize(weights, scale, None) == codes).all()


def test_moving_codes_to_another_scale_is_refused(net, load) -> None:
    from edgeq import EdgeqError

    x = net.input("x", (1, 8), "int8", scale=0.1, zero=0)
    y = net.op("RESHAPE", [x, net.const(np.array([8], np.int32))], results=[activation()])
    with pytest.raises(EdgeqError, match="`RESHAPE` \\(operator 0\\) moves codes from one scale"):
        load(net.finish(y))


def test_a_float_operator_leaves_the_codes_of_what_it_reads_beside_others(net, load) -> None:
    """A product's or a table's second operand is no weight where it is no constant."""
    x = net.input("x", (1, 4, 4))
    q = net.op("QUANTIZE", [x], results=[activation("q", S_X, 5)])
    y = net.op("DEQUANTIZE", [net.op("RELU", [q], results=[activation("r", S_X, 5)])])
    k = net.const(np.ones((1, 4, 4), np.float32), "k")
    z = net.op("BATCH_MATMUL", [k, x], "BatchMatMulOptions", results=[{"name": "z"}])
    result = load(net.finish(y, z))
    assert result.plan.encoding("x").scale == (float(np.float32(S_X)),)
    assert not result.notes


def test_what_a_float_operator_makes_is_rounded_where_its_codes_come_back(net, load) -> None:
    x = net.input("x", (1, 4))
    f = net.op("EXP", [x], results=[{"name": "f"}])
    y = net.op("DEQUANTIZE", [net.op("QUANTIZE", [f], results=[activation("q", S_X, 5)])])
    result = load(net.finish(y))
    precisions = {op.op_type: op.precision for op in result.plan.ops.values()}
    assert precisions == {"Exp": "float32", "Identity": "int8"}
