"""Affine quantization against ONNX Runtime's own operators, and the rules scales keep."""

from __future__ import annotations

import math

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from edgeq.numerics import affine
from edgeq_runtime.engines import onnxruntime as engine

FINITE = st.floats(-1e6, 1e6, width=32)
SCALES = st.floats(2.0**-20, 2.0**10, width=32)


def ort_quantize(x: np.ndarray, scale: np.float32, zero_point: int, dtype: str) -> np.ndarray:
    """What the engine's QuantizeLinear gives."""
    kind = {"int8": onnx.TensorProto.INT8, "uint8": onnx.TensorProto.UINT8}[dtype]
    node = onnx.helper.make_node("QuantizeLinear", ["x", "s", "z"], ["y"])
    graph = onnx.helper.make_graph(
        [node],
        "g",
        [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, list(x.shape))],
        [onnx.helper.make_tensor_value_info("y", kind, list(x.shape))],
        [
            onnx.numpy_helper.from_array(np.float32(scale), "s"),
            onnx.numpy_helper.from_array(np.array(zero_point, dtype), "z"),
        ],
    )
    opset = [onnx.helper.make_opsetid("", 21)]
    model = onnx.helper.make_model(graph, opset_imports=opset, ir_version=10)
    session = engine.open_session(model.SerializeToString())
    return np.asarray(session.run({"x": x})["y"])


@pytest.mark.parametrize(("dtype", "zero_point"), [("int8", -7), ("int8", -128), ("uint8", 128)])
@pytest.mark.parametrize("scale", [1.0, 0.1, 0.0123, 3.7e-5])
def test_quantize_is_the_engines_bit_for_bit(dtype: str, zero_point: int, scale: float) -> None:
    rng = np.random.default_rng(3)
    ties = (np.arange(-300, 300) + 0.5) * np.float32(scale)
    x = np.concatenate([rng.normal(0, 100 * scale, 5000), ties, [0.0, -0.0, 1e30, -1e30]])
    x = x.astype(np.float32)
    mine = affine.quantize(x, np.float32(scale), zero_point, dtype=dtype)
    np.testing.assert_array_equal(mine, ort_quantize(x, np.float32(scale), zero_point, dtype))


def test_ties_go_to_even_and_codes_saturate() -> None:
    x = np.array([0.5, 1.5, 2.5, -0.5, -1.5, 1e9, -1e9], np.float32)
    assert affine.quantize(x, 1.0, 0).tolist() == [0, 2, 2, 0, -2, 127, -128]
    assert affine.quantize(x, 1.0, 1, dtype="uint8").tolist() == [1, 3, 3, 1, 0, 255, 0]


def test_a_quotient_beyond_float32_saturates() -> None:
    x = np.array([3e38, -3e38], np.float32)
    assert affine.quantize(x, np.float32(1e-30), 0).tolist() == [127, -128]


def test_per_channel_scales_run_along_their_axis() -> None:
    x = np.array([[1.0, 10.0], [2.0, 20.0], [3.0, 30.0]], np.float32)
    by_column = affine.quantize(x, np.array([1.0, 10.0], np.float32), np.zeros(2, int), axis=1)
    assert by_column.tolist() == [[1, 1], [2, 2], [3, 3]]
    by_row = affine.quantize(x, np.array([1, 2, 3], np.float32), np.array([0, 1, 2]), axis=0)
    assert by_row.tolist() == [[1, 10], [2, 11], [3, 12]]
    back = affine.dequantize(by_row, np.array([1, 2, 3], np.float32), np.array([0, 1, 2]), axis=0)
    np.testing.assert_array_equal(back, x)


@given(arrays.arrays(np.float32, 20, elements=FINITE), SCALES, st.integers(-128, 127))
def test_round_trip_is_within_half_a_step_inside_the_range(
    x: np.ndarray, scale: float, zero_point: int
) -> None:
    low, high = (-128 - zero_point) * scale, (127 - zero_point) * scale
    x = np.clip(x, np.float32(low), np.float32(high))
    back = affine.dequantize(affine.quantize(x, scale, zero_point), scale, zero_point)
    # half a step, and one float32 rounding each of the quotient, the product and the clip
    slack = 3 * 2.0**-23 * np.maximum(np.abs(x), abs(scale))
    assert np.all(np.abs(back.astype(np.float64) - x) <= scale / 2 + slack)


@given(arrays.arrays(np.float32, 30, elements=FINITE), SCALES, st.integers(-128, 127))
def test_quantize_is_monotonic(x: np.ndarray, scale: float, zero_point: int) -> None:
    codes = affine.quantize(np.sort(x), scale, zero_point).astype(int)
    assert np.all(np.diff(codes) >= 0)


@given(FINITE, FINITE)
def test_a_range_holds_zero_exactly_and_reaches_its_ends(a: float, b: float) -> None:
    low, high = min(a, b), max(a, b)
    scale, zero_point = affine.from_range(low, high)
    assert scale > 0
    assert -128 <= zero_point <= 127
    assert (
        affine.dequantize(
            affine.quantize(np.zeros(1, np.float32), scale, zero_point), scale, zero_point
        )
        == 0
    )
    for end in (low, high):
        back = affine.dequantize(
            affine.quantize(np.array([end], np.float32), scale, zero_point), scale, zero_point
        )
        # half a step for the code, half a step that rounding the zero point may take from an end
        assert abs(float(back[0]) - end) <= scale * (1 + 1e-6) + 1e-30


@given(st.floats(0, 1e6, width=32, allow_subnormal=False), st.integers(-20, 20))
def test_scales_are_equivariant_to_powers_of_two(high: float, power: int) -> None:
    scale, zero_point = affine.from_range(-high / 3, high)
    other, same = affine.from_range(-high / 3 * 2.0**power, high * 2.0**power)
    if scale > 2.0**-30 and high > 0:  # above the least scale, where nothing is clipped
        assert (other, same) == (scale * 2.0**power, zero_point)


def test_one_sided_ranges_put_zero_at_an_end() -> None:
    assert affine.from_range(0.0, 6.0)[1] == -128
    assert affine.from_range(2.0, 6.0)[1] == -128
    assert affine.from_range(-6.0, 0.0)[1] == 127
    assert affine.from_range(-6.0, -1.0)[1] == 127


def test_degenerate_ranges() -> None:
    assert affine.from_range(0.0, 0.0) == (1.0, -128)
    scale, zero_point = affine.from_range(5.0, 5.0)  # a constant tensor
    assert affine.quantize(np.array([5.0], np.float32), scale, zero_point) == [127]
    tiny, _ = affine.from_range(0.0, 1e-40)
    assert tiny == affine.SMALLEST_SCALE
    assert np.isfinite(affine.from_range(-3e38, 3e38)[0])


@given(st.floats(1e-15, 1e30))
def test_rounded_scales_are_above_by_at_most_a_2048th(value: float) -> None:
    scale = float(affine.round_up_scale(value))
    assert value <= scale <= value * (1 + 2.0**-11)
    mantissa, _ = math.frexp(scale)
    assert mantissa * 2**affine.SCALE_BITS == int(mantissa * 2**affine.SCALE_BITS)
    assert float(affine.round_up_scale(scale)) == scale


@given(st.floats(1e-9, 1e9), st.floats(1e-9, 1e9))
def test_products_of_two_scales_are_exact_in_float32(a: float, b: float) -> None:
    left, right = affine.round_up_scale(a), affine.round_up_scale(b)
    assert float(np.float32(left) * np.float32(right)) == float(left) * float(right)


def test_the_product_of_two_least_scales_is_a_normal_number() -> None:
    assert np.finfo(np.float32).tiny <= affine.SMALLEST_SCALE**2


def test_last_bits_do_not_change_a_scale() -> None:
    high = np.float32(5.4321)
    nearby = [np.nextafter(high, np.float32(sign * 9)) for sign in (-1, 1)]
    assert len({affine.from_range(0.0, float(end)) for end in (high, *nearby)}) == 1


@given(arrays.arrays(np.float32, (4, 9), elements=st.floats(-1e3, 1e3, width=32)))
def test_weights_are_symmetric_and_within_half_a_step(w: np.ndarray) -> None:
    scale = affine.symmetric_scale(np.abs(w).max(axis=1))
    codes = affine.quantize_weights(w, scale, 0)
    assert np.abs(codes.astype(int)).max() <= 127
    np.testing.assert_array_equal(codes, -affine.quantize_weights(-w, scale, 0))
    error = np.abs(w - codes * scale[:, None].astype(np.float64))
    assert np.all(error <= scale[:, None] / 2 * (1 + 1e-6) + 1e-30)


def test_weights_of_zero_get_scale_one() -> None:
    assert affine.symmetric_scale(np.array([0.0, 127.0])).tolist() == [1.0, 1.0]


def test_bias_codes_round_once_from_float64() -> None:
    bias = np.array([16777217.0])  # float32 has no such number
    codes = affine.quantize(bias, np.float32(1.0), 0, dtype="int32")
    assert codes.tolist() == [16777217]


@pytest.mark.parametrize(
    ("bound", "upper", "ends"),
    [
        (0.0, False, True),
        (0.049, False, True),  # within half a step of the lowest value
        (0.051, False, False),
        (-9.0, False, True),
        (25.5, True, True),
        (25.46, True, True),
        (25.4, True, False),
        (99.0, True, True),
        (math.inf, True, True),
        (-math.inf, False, True),
    ],
)
def test_where_a_range_does_a_clamps_work(bound: float, upper: bool, ends: bool) -> None:
    """Scale 0.1 and zero point -128 hold 0.0 .. 25.5."""
    # A lower bound of 0.049 rounds to the code of 0.0, so clamping there changes nothing.
    assert affine.ends_at(bound, 0.1, -128, upper=upper) is ends


@given(st.floats(2.0**-50, 2.0**50), st.floats(-1e4, 0.0))
def test_the_tighter_scale_is_the_next_below(value: float, low: float) -> None:
    scale = float(affine.round_up_scale(value))
    smaller, zero_point = affine.tighter(low, scale)
    assert smaller < scale
    assert float(affine.round_up_scale(smaller)) == smaller  # of as many bits
    above = float(np.nextafter(np.float64(smaller), np.inf))
    assert float(affine.round_up_scale(above)) == scale  # and nothing between the two
    assert zero_point == np.clip(np.rint(-128 - low / smaller), -128, 127)
