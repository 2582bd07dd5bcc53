"""int4: scales that files can hold, codes that round to nearest, nibbles as files have them."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from edgeq.numerics import blocks

FINITE = st.floats(-1e4, 1e4, width=32)
ROWS = arrays.arrays(np.float32, st.tuples(st.integers(1, 4), st.just(64)), elements=FINITE)


@given(ROWS)
def test_scales_of_blocks_hold_in_bfloat16_and_in_float16(rows: np.ndarray) -> None:
    scales = blocks.block_scales(rows, 32)
    assert scales.shape == (rows.shape[0], 2)
    assert (scales > 0).all()
    assert not (scales.view(np.uint32) & 0xFFFF).any()  # bfloat16 is the upper half of float32
    assert (scales.astype(np.float16).astype(np.float32) == scales).all()


@given(ROWS)
def test_rounding_is_within_half_a_scale(rows: np.ndarray) -> None:
    for block, scales in ((32, blocks.block_scales(rows, 32)), (None, blocks.row_scales(rows))):
        codes = blocks.quantize(rows, scales, block)
        assert codes.dtype == np.int8 and codes.min() >= -8 and codes.max() <= 7
        error = np.abs(blocks.dequantize(codes, scales, block).astype(np.float64) - rows)
        width = scales.reshape(rows.shape[0], -1).repeat(block or 64, axis=1)
        assert (error <= 0.5 * (1 + 1e-6) * width).all()


def test_the_farther_end_takes_its_last_code() -> None:
    rows = np.array([[-8.0, 3.5], [7.0, -4.0], [0.0, 0.0]], np.float32)
    scales = blocks.row_scales(rows)
    np.testing.assert_array_equal(scales, np.ones(3, np.float32))
    np.testing.assert_array_equal(blocks.quantize(rows, scales, None), [[-8, 4], [7, -4], [0, 0]])


def test_a_block_of_zeros_has_a_scale_too() -> None:
    scales = blocks.block_scales(np.zeros((1, 32), np.float32), 32)
    assert scales.tolist() == [[blocks.SMALLEST_SCALE]]


@pytest.mark.parametrize("shape", [(3, 4), (3, 5), (1, 1), (0,)])
def test_nibbles_are_onnxs_and_come_back(shape: tuple[int, ...]) -> None:
    codes = np.random.default_rng(3).integers(-8, 8, shape).astype(np.int8)
    packed = blocks.pack(codes)
    assert packed.nbytes == (codes.size + 1) // 2
    np.testing.assert_array_equal(blocks.unpack(packed, codes.size), codes.reshape(-1))
    int4 = onnx.TensorProto.INT4
    tensor = onnx.TensorProto(data_type=int4, dims=shape, raw_data=packed.tobytes())
    read = onnx.numpy_helper.to_array(tensor).astype(np.int8)
    np.testing.assert_array_equal(read, codes)


def test_the_low_nibble_comes_first() -> None:
    assert blocks.pack(np.array([1, -2, 7], np.int8)).tolist() == [0xE1, 0x07]
