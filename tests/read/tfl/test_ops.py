"""One operator at a time: LiteRT's reference kernel against the ONNX form in ONNX Runtime."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest

RNG = np.random.default_rng(11)
SAME, VALID = 0, 1
ACTIVATIONS = {"none": 0, "relu": 1, "relu_n1_to_1": 2, "relu6": 3, "tanh": 4}


def normal(*shape: int) -> np.ndarray:
    return RNG.normal(0, 1, shape).astype(np.float32)


def whole(*items: int) -> np.ndarray:
    return np.array(items, np.int32)


def kinds(result: Any) -> Counter[str]:
    return Counter(node.op_type for node in result.graph.nodes())


# -- convolutions and pools -----------------------------------------------------------------------


@pytest.mark.parametrize("padding", [SAME, VALID])
@pytest.mark.parametrize(("stride", "dilation"), [(1, 1), (2, 1), (1, 2), (3, 1)])
def test_conv_2d(net, same, padding, stride, dilation) -> None:
    x = net.input("x", (1, 11, 8, 3))
    parts = [x, net.const(normal(5, 3, 2, 3)), net.const(normal(5))]
    y = net.op(
        "CONV_2D",
        parts,
        "Conv2DOptions",
        padding=padding,
        strideH=stride,
        strideW=stride,
        dilationHFactor=dilation,
        dilationWFactor=dilation,
    )
    result = same(net.finish(y))
    assert kinds(result) == {"Conv": 1, "Transpose": 2}


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_fused_activations(net, same, activation) -> None:
    x = net.input("x", (1, 6, 6, 2))
    options = {"fusedActivationFunction": ACTIVATIONS[activation]}
    parts = [x, net.const(normal(3, 1, 1, 2)), net.const(normal(3))]
    if activation == "tanh":
        y = net.op("ADD", [x, x], "AddOptions")
    else:
        y = net.op("CONV_2D", parts, "Conv2DOptions", strideH=1, strideW=1, **options)
    same(net.finish(y))


@pytest.mark.parametrize("shape", [(1, 1, 1), (1,), ()])
def test_one_number_has_the_axes_that_it_gives(net, same, shape) -> None:
    x = net.input("x", (3,))
    same(net.finish(net.op("ADD", [x, net.const(normal(*shape))], "AddOptions")))


def test_conv_2d_in_groups(net, same) -> None:
    x = net.input("x", (1, 6, 6, 6))
    parts = [x, net.const(normal(4, 3, 3, 3)), net.const(normal(4))]
    y = net.op("CONV_2D", parts, "Conv2DOptions", padding=SAME, strideH=1, strideW=1)
    result = same(net.finish(y))
    conv = next(node for node in result.graph.nodes() if node.op_type == "Conv")
    assert conv.attributes["group"].value == 2


@pytest.mark.parametrize("multiplier", [1, 3])
@pytest.mark.parametrize("padding", [SAME, VALID])
def test_depthwise(net, same, multiplier, padding) -> None:
    x = net.input("x", (1, 9, 7, 4))
    parts = [x, net.const(normal(1, 3, 3, 4 * multiplier)), net.const(normal(4 * multiplier))]
    y = net.op(
        "DEPTHWISE_CONV_2D",
        parts,
        "DepthwiseConv2DOptions",
        padding=padding,
        strideH=2,
        strideW=2,
        depthMultiplier=multiplier,
    )
    same(net.finish(y))


@pytest.mark.parametrize("padding", [SAME, VALID])
@pytest.mark.parametrize(("size", "stride"), [(8, 2), (7, 2), (4, 1), (12, 3)])
@pytest.mark.parametrize("bias", [True, False])
def test_transpose_conv(net, same, padding, size, stride, bias) -> None:
    if padding == VALID:
        size = 3 + (4 - 1) * stride
    x = net.input("x", (1, 4, 4, 3))
    shape = net.const(whole(1, size, size, 2))
    parts = [shape, net.const(normal(2, 3, 3, 3)), x]
    if bias:
        parts.append(net.const(normal(2)))
    y = net.op(
        "TRANSPOSE_CONV",
        parts,
        "TransposeConvOptions",
        padding=padding,
        strideH=stride,
        strideW=stride,
    )
    same(net.finish(y, versions=3))


@pytest.mark.parametrize("padding", [SAME, VALID])
def test_conv_3d(net, same, padding) -> None:
    x = net.input("x", (1, 5, 6, 7, 2))
    parts = [x, net.const(normal(3, 2, 3, 2, 4)), net.const(normal(4))]
    y = net.op("CONV_3D", parts, "Conv3DOptions", padding=padding, strideD=1, strideH=2, strideW=1)
    same(net.finish(y))


@pytest.mark.parametrize("code", ["AVERAGE_POOL_2D", "MAX_POOL_2D", "L2_POOL_2D"])
@pytest.mark.parametrize("padding", [SAME, VALID])
def test_pools(net, same, code, padding) -> None:
    x = net.input("x", (1, 7, 8, 3))
    y = net.op(
        code,
        [x],
        "Pool2DOptions",
        padding=VALID if code == "L2_POOL_2D" else padding,
        strideH=2,
        strideW=2,
        filterHeight=3,
        filterWidth=2,
    )
    same(net.finish(y))


@pytest.mark.parametrize("code", ["RESIZE_BILINEAR", "RESIZE_NEAREST_NEIGHBOR"])
@pytest.mark.parametrize(("corners", "centres"), [(False, False), (True, False), (False, True)])
@pytest.mark.parametrize("size", [(12, 10), (7, 11), (3, 3)])
@pytest.mark.parametrize("free", [False, True])
def test_resize(net, same, code, corners, centres, size, free) -> None:
    x = net.input("x", (1, 6, 5, 2))
    if free:
        net.graph.tensors[x].shapeSignature = [-1, 6, 5, 2]
    options = "ResizeBilinearOptions" if "BI" in code else "ResizeNearestNeighborOptions"
    y = net.op(
        code,
        [x, net.const(whole(*size))],
        options,
        alignCorners=corners,
        halfPixelCenters=centres,
    )
    result = same(net.finish(y, versions=3))
    assert (result.graph.outputs[0].shape[0] == "batch") is (free and size == (12, 10))


@pytest.mark.parametrize("code", ["SPACE_TO_DEPTH", "DEPTH_TO_SPACE"])
def test_blocks(net, same, code) -> None:
    x = net.input("x", (1, 4, 6, 8))
    options = "SpaceToDepthOptions" if code.startswith("S") else "DepthToSpaceOptions"
    same(net.finish(net.op(code, [x], options, blockSize=2)))


def test_local_response_normalization(net, same) -> None:
    x = net.input("x", (1, 3, 3, 9))
    y = net.op(
        "LOCAL_RESPONSE_NORMALIZATION",
        [x],
        "LocalResponseNormalizationOptions",
        radius=2,
        bias=1.5,
        alpha=0.3,
        beta=0.7,
    )
    # the reference kernel leaves out the last channel of the window, unlike TensorFlow
    same(net.finish(y), reference=False)


def test_pad_before_a_convolution_is_its_padding(net, same) -> None:
    x = net.input("x", (1, 8, 8, 3))
    around = net.op("PAD", [x, net.const(whole(0, 0, 1, 2, 0, 1, 0, 0).reshape(4, 2))])
    parts = [around, net.const(normal(4, 3, 3, 3)), net.const(normal(4))]
    y = net.op("CONV_2D", parts, "Conv2DOptions", padding=VALID, strideH=2, strideW=2)
    result = same(net.finish(y))
    assert kinds(result) == {"Conv": 1, "Transpose": 2}


def test_pad_that_something_else_reads_too_stays(net, same) -> None:
    x = net.input("x", (1, 8, 8, 3))
    around = net.op("PAD", [x, net.const(whole(0, 0, 1, 2, 0, 1, 0, 0).reshape(4, 2))])
    parts = [around, net.const(normal(4, 3, 3, 3)), net.const(normal(4))]
    y = net.op("CONV_2D", parts, "Conv2DOptions", padding=VALID, strideH=2, strideW=2)
    assert kinds(same(net.finish(y, around)))["Pad"] == 1


def dilated(net, crops: tuple[int, ...]) -> int:
    x = net.input("x", (1, 9, 9, 2))
    block = net.const(whole(2, 2))
    apart = net.op("SPACE_TO_BATCH_ND", [x, block, net.const(whole(2, 3, 2, 3).reshape(2, 2))])
    parts = [apart, net.const(normal(3, 3, 3, 2)), net.const(normal(3))]
    made = net.op("CONV_2D", parts, "Conv2DOptions", padding=VALID, strideH=1, strideW=1)
    together = net.const(np.array(crops, np.int32).reshape(2, 2))
    return net.op("BATCH_TO_SPACE_ND", [made, block, together])


def test_a_convolution_in_blocks_is_dilated(net, same) -> None:
    result = same(net.finish(dilated(net, (0, 1, 0, 1))))
    assert kinds(result) == {"Conv": 1, "Transpose": 2}


def test_blocks_that_are_cut_by_more_than_was_added_stay(net, same) -> None:
    result = same(net.finish(dilated(net, (3, 0, 3, 0))))
    assert kinds(result)["Reshape"] == 4


# -- products -------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(3, 8), (1, 4, 8), (2, 3, 4, 8)])
@pytest.mark.parametrize("keep", [False, True])
@pytest.mark.parametrize("bias", [False, True])
def test_fully_connected(net, same, shape, keep, bias) -> None:
    x = net.input("x", shape)
    parts = [x, net.const(normal(5, 8)), net.const(normal(5)) if bias else -1]
    y = net.op(
        "FULLY_CONNECTED",
        parts,
        "FullyConnectedOptions",
        keepNumDims=keep,
        fusedActivationFunction=1,
    )
    same(net.finish(y, versions=6))


@pytest.mark.parametrize(("left", "right"), [(False, False), (True, False), (False, True)])
@pytest.mark.parametrize("lead", [(), (2,), (2, 3)])
def test_batch_matmul(net, same, left, right, lead) -> None:
    x = net.input("x", (*lead, 5, 4) if left else (*lead, 4, 5))
    w = net.input("w", (*lead, 6, 5) if right else (*lead, 5, 6))
    y = net.op("BATCH_MATMUL", [x, w], "BatchMatMulOptions", adjX=left, adjY=right)
    same(net.finish(y))


def test_embedding_lookup(net, same) -> None:
    ids = net.input("ids", (4,), "int32")
    same(net.finish(net.op("EMBEDDING_LOOKUP", [ids, net.const(normal(5, 3))])))


# -- elementwise ----------------------------------------------------------------------------------

BINARY = {
    "ADD": "AddOptions",
    "SUB": "SubOptions",
    "MUL": "MulOptions",
    "DIV": "DivOptions",
    "MAXIMUM": "MaximumMinimumOptions",
    "MINIMUM": "MaximumMinimumOptions",
    "SQUARED_DIFFERENCE": "SquaredDifferenceOptions",
    "EQUAL": "EqualOptions",
    "NOT_EQUAL": "NotEqualOptions",
    "GREATER": "GreaterOptions",
    "GREATER_EQUAL": "GreaterEqualOptions",
    "LESS": "LessOptions",
    "LESS_EQUAL": "LessEqualOptions",
    "FLOOR_DIV": "FloorDivOptions",
    "FLOOR_MOD": "FloorModOptions",
    "POW": "PowOptions",
}


@pytest.mark.parametrize("code", BINARY)
@pytest.mark.parametrize("other", [(1, 3, 4, 2), (2,), (), (3, 1, 1)])
def test_binary(net, same, code, other) -> None:
    x = net.input("x", (1, 3, 4, 2))
    compares = code.startswith(("EQUAL", "NOT", "GREATER", "LESS"))
    kind = {"dtype": "bool"} if compares else {}
    parts = [x, net.const(np.asarray(np.abs(normal(*other)) + 0.5, np.float32))]
    y = net.op(code, parts, BINARY[code], results=[kind])
    feeds = [np.abs(normal(1, 3, 4, 2)) + 0.1] if code == "POW" else None
    same(net.finish(y), feeds)


@pytest.mark.parametrize("code", ["FLOOR_DIV", "FLOOR_MOD", "ADD", "MUL", "MAXIMUM"])
def test_binary_of_integers(net, same, code) -> None:
    x, y = net.input("x", (12,), "int32"), net.input("y", (12,), "int32")
    z = net.op(code, [x, y], BINARY[code], results=[{"dtype": "int32"}])
    left = np.array([7, -7, 7, -7, 0, 5, -6, 6, 1, -1, 9, -9], np.int32)
    right = np.array([3, 3, -3, -3, 4, 5, 3, -3, 2, 2, -2, -2], np.int32)
    same(net.finish(z), [left, right])


@pytest.mark.parametrize("code", ["LOGICAL_AND", "LOGICAL_OR"])
def test_logic(net, same, code) -> None:
    x, y = net.input("x", (9,), "bool"), net.input("y", (9,), "bool")
    same(net.finish(net.op(code, [x, y], results=[{"dtype": "bool"}])))


UNARY = ["ABS", "CEIL", "COS", "EXP", "FLOOR", "NEG", "SIN", "ELU", "HARD_SWISH", "LOGISTIC"]
UNARY += ["RELU", "RELU6", "RELU_N1_TO_1", "RELU_0_TO_1", "TANH", "SQUARE", "SIGN", "ROUND"]


@pytest.mark.parametrize("code", UNARY)
def test_unary(net, same, code) -> None:
    x = net.input("x", (1, 3, 4, 2))
    same(net.finish(net.op(code, [x])), [3 * normal(1, 3, 4, 2)])


@pytest.mark.parametrize("code", ["SQRT", "RSQRT", "LOG"])
def test_unary_of_positive_numbers(net, same, code) -> None:
    x = net.input("x", (2, 5))
    same(net.finish(net.op(code, [x])), [np.abs(normal(2, 5)) + 0.1])


def test_logical_not(net, same) -> None:
    x = net.input("x", (7,), "bool")
    same(net.finish(net.op("LOGICAL_NOT", [x], results=[{"dtype": "bool"}])))


@pytest.mark.parametrize("approximate", [False, True])
def test_gelu(net, same, approximate) -> None:
    x = net.input("x", (2, 9))
    same(net.finish(net.op("GELU", [x], "GeluOptions", approximate=approximate)))


def test_leaky_relu_and_prelu(net, same) -> None:
    x = net.input("x", (1, 3, 3, 4))
    leaky = net.op("LEAKY_RELU", [x], "LeakyReluOptions", alpha=0.125)
    same(net.finish(net.op("PRELU", [leaky, net.const(normal(1, 1, 4))])))


@pytest.mark.parametrize(("source", "target"), [("int32", "float32"), ("float32", "int32")])
def test_cast(net, same, source, target) -> None:
    x = net.input("x", (6,), source)
    y = net.op("CAST", [x], "CastOptions", results=[{"dtype": target}])
    same(net.finish(y))


def test_add_n(net, same) -> None:
    parts = [net.input(name, (1, 2, 2, 3)) for name in "abc"]
    same(net.finish(net.op("ADD_N", parts, "AddNOptions")))


def test_select(net, same) -> None:
    rows = net.input("rows", (3,), "bool")
    x, y = net.input("x", (3, 4)), net.input("y", (3, 4))
    same(net.finish(net.op("SELECT", [rows, x, y], "SelectOptions")))


def test_select_v2(net, same) -> None:
    where = net.input("where", (1, 3, 1), "bool")
    x, y = net.input("x", (2, 3, 4)), net.input("y", (4,))
    same(net.finish(net.op("SELECT_V2", [where, x, y], "SelectV2Options")))


# -- reductions -----------------------------------------------------------------------------------


@pytest.mark.parametrize("code", ["MEAN", "SUM", "REDUCE_MAX", "REDUCE_MIN", "REDUCE_PROD"])
@pytest.mark.parametrize("axes", [(1, 2), (-1,), (0, 3)])
@pytest.mark.parametrize("keep", [False, True])
@pytest.mark.parametrize("first", [False, True], ids=["as stored", "channels first"])
def test_reductions(net, same, code, axes, keep, first) -> None:
    x = net.input("x", (1, 4, 5, 3))
    made = x
    if first:
        made = net.op(
            "MAX_POOL_2D",
            [x],
            "Pool2DOptions",
            strideH=1,
            strideW=1,
            filterHeight=2,
            filterWidth=2,
        )
    y = net.op(code, [made, net.const(whole(*axes))], "ReducerOptions", keepDims=keep)
    same(net.finish(y))


@pytest.mark.parametrize("code", ["REDUCE_ANY", "REDUCE_ALL"])
def test_reductions_of_bools(net, same, code) -> None:
    x = net.input("x", (3, 4), "bool")
    axes = net.const(whole(1))
    same(net.finish(net.op(code, [x, axes], "ReducerOptions", results=[{"dtype": "bool"}])))


@pytest.mark.parametrize("beta", [1.0, 0.5])
def test_softmax(net, same, beta) -> None:
    x = net.input("x", (1, 3, 3, 5))
    same(net.finish(net.op("SOFTMAX", [x], "SoftmaxOptions", beta=beta)))


def test_log_softmax(net, same) -> None:
    x = net.input("x", (2, 7))
    same(net.finish(net.op("LOG_SOFTMAX", [x], "LogSoftmaxOptions")))


def test_l2_normalization(net, same) -> None:
    x = net.input("x", (3, 6))
    y = net.op("L2_NORMALIZATION", [x], "L2NormOptions")
    rows = normal(3, 6)
    rows[1] = 1e-8
    rows[2] = 0
    same(net.finish(y), [rows])


@pytest.mark.parametrize("code", ["ARG_MAX", "ARG_MIN"])
@pytest.mark.parametrize("dtype", ["int32", "int64"])
def test_arg(net, same, code, dtype) -> None:
    x = net.input("x", (1, 4, 3, 5))
    options = "ArgMaxOptions" if "MAX" in code else "ArgMinOptions"
    kind = 2 if dtype == "int32" else 4
    y = net.op(
        code, [x, net.const(whole(-1))], options, outputType=kind, results=[{"dtype": dtype}]
    )
    same(net.finish(y))


def test_top_k(net, same) -> None:
    x = net.input("x", (2, 9))
    values, indices = net.op(
        "TOPK_V2", [x, net.const(np.int32(3))], "TopKV2Options", results=[{}, {"dtype": "int32"}]
    )
    same(net.finish(values, indices))


@pytest.mark.parametrize("exclusive", [False, True])
@pytest.mark.parametrize("reverse", [False, True])
def test_cumsum(net, same, exclusive, reverse) -> None:
    x = net.input("x", (2, 5, 3))
    parts = [x, net.const(whole(1).reshape(()))]
    same(net.finish(net.op("CUMSUM", parts, "CumsumOptions", exclusive=exclusive, reverse=reverse)))


# -- moves ----------------------------------------------------------------------------------------


def pooled(net, shape: tuple[int, ...] = (1, 5, 6, 4)) -> int:
    """A tensor that the reader has channels first."""
    window = {"strideH": 1, "strideW": 1, "filterHeight": 2, "filterWidth": 2}
    return net.op("MAX_POOL_2D", [net.input("x", shape)], "Pool2DOptions", **window)


@pytest.mark.parametrize("shape", [(1, 120), (4, 30), (1, 5, 2, 3, 4)])
def test_reshape(net, same, shape) -> None:
    x = pooled(net)
    target = net.const(whole(*shape))
    same(net.finish(net.op("RESHAPE", [x, target], "ReshapeOptions", newShape=list(shape))))


def test_squeeze_and_expand(net, same) -> None:
    x = net.input("x", (1, 1, 6, 4))
    y = net.op("SQUEEZE", [x], "SqueezeOptions", squeezeDims=[1])
    z = net.op("EXPAND_DIMS", [y, net.const(whole(2).reshape(()))])
    same(net.finish(z, net.op("SQUEEZE", [x], "SqueezeOptions", squeezeDims=[])))


@pytest.mark.parametrize("axis", [0, 2, -1])
def test_expand_dims_of_channels_first(net, same, axis) -> None:
    same(net.finish(net.op("EXPAND_DIMS", [pooled(net), net.const(np.int32(axis))])))


@pytest.mark.parametrize("order", [(0, 3, 1, 2), (0, 2, 3, 1), (3, 2, 1, 0), (0, 1, 2, 3)])
def test_transpose(net, same, order) -> None:
    same(net.finish(net.op("TRANSPOSE", [pooled(net), net.const(whole(*order))])))


def test_transposes_there_and_back_are_gone(net, same) -> None:
    x = net.input("x", (1, 3, 8, 8))
    last = net.op("TRANSPOSE", [x, net.const(whole(0, 2, 3, 1))])
    parts = [last, net.const(normal(4, 1, 1, 3)), net.const(normal(4))]
    conv = net.op("CONV_2D", parts, "Conv2DOptions", strideH=1, strideW=1)
    y = net.op("TRANSPOSE", [conv, net.const(whole(0, 3, 1, 2))])
    assert kinds(same(net.finish(y))) == {"Conv": 1}


@pytest.mark.parametrize("axis", [1, 3, -1])
def test_concatenation(net, same, axis) -> None:
    x = pooled(net, (1, 5, 6, 4))
    parts = [x, net.input("y", (1, 5, 6, 4)), net.const(normal(1, 5, 6, 4))]
    y = net.op("CONCATENATION", parts, "ConcatenationOptions", axis=axis)
    same(net.finish(y))


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_pack_and_unpack(net, same, axis) -> None:
    parts = [net.input(name, (3, 4)) for name in "ab"]
    both = net.op("PACK", parts, "PackOptions", axis=axis, valuesCount=2)
    pair = net.op("UNPACK", [both], "UnpackOptions", axis=axis, num=2, results=[{}, {}])
    same(net.finish(both, *pair))


def test_split(net, same) -> None:
    x = pooled(net)
    axis = net.const(np.int32(3))
    y, z = net.op("SPLIT", [axis, x], "SplitOptions", numSplits=2, results=[{}, {}])
    same(net.finish(y, z))


def test_split_v(net, same) -> None:
    parts = [pooled(net), net.const(whole(1, 3)), net.const(np.int32(-1))]
    y, z = net.op("SPLIT_V", parts, "SplitVOptions", numSplits=2, results=[{}, {}])
    same(net.finish(y, z))


def test_slice(net, same) -> None:
    parts = [pooled(net), net.const(whole(0, 1, 0, 2)), net.const(whole(1, 2, -1, 1))]
    same(net.finish(net.op("SLICE", parts, "SliceOptions")))


STRIDED = {
    "plain": ((0, 1, 0, 1), (1, 4, 5, 3), (1, 2, 1, 1), {}),
    "masks": ((0, 1, 9, 1), (1, 4, 0, -1), (1, 1, 2, 1), {"beginMask": 4, "endMask": 4}),
    "backwards": ((0, -1, 4, 0), (1, -5, 1, 4), (1, -1, -2, 1), {}),
    "shrink": ((0, 2, 0, -1), (1, 3, 5, 0), (1, 1, 1, 1), {"shrinkAxisMask": 10}),
    "new axis": ((0, 0, 0), (1, 0, 2), (1, 1, 1), {"newAxisMask": 2}),
    "ellipsis": ((0, 0, 1), (0, 0, 3), (1, 1, 1), {"ellipsisMask": 2, "endMask": 1}),
    "to the end": ((0, 0, 0, 1), (1, 99, 99, 99), (1, 1, 1, 2), {}),
}


@pytest.mark.parametrize("case", STRIDED)
def test_strided_slice(net, same, case) -> None:
    *bounds, masks = STRIDED[case]
    parts = [pooled(net), *(net.const(whole(*row)) for row in bounds)]
    same(net.finish(net.op("STRIDED_SLICE", parts, "StridedSliceOptions", **masks)))


@pytest.mark.parametrize("value", [None, 0.0, 2.5])
def test_pad(net, same, value) -> None:
    parts = [pooled(net), net.const(whole(0, 0, 1, 2, 0, 3, 1, 0).reshape(4, 2))]
    if value is not None:
        parts.append(net.const(np.float32(value)))
    same(net.finish(net.op("PAD" if value is None else "PADV2", parts)))


@pytest.mark.parametrize("mode", [0, 1], ids=["reflect", "symmetric"])
def test_mirror_pad(net, same, mode) -> None:
    parts = [pooled(net), net.const(whole(0, 0, 1, 2, 0, 3, 1, 0).reshape(4, 2))]
    same(net.finish(net.op("MIRROR_PAD", parts, "MirrorPadOptions", mode=mode)))


def test_tile(net, same) -> None:
    same(net.finish(net.op("TILE", [pooled(net), net.const(whole(1, 2, 1, 3))])))


def test_broadcast_to(net, same) -> None:
    x = net.input("x", (3, 1))
    y = net.op("BROADCAST_TO", [x, net.const(whole(2, 3, 4))])
    same(net.finish(y, versions=2))


@pytest.mark.parametrize("axis", [1, 3])
@pytest.mark.parametrize("indices", [whole(1, 0, 2), np.int32(2)], ids=["some", "one"])
def test_gather(net, same, axis, indices) -> None:
    parts = [pooled(net), net.const(indices)]
    same(net.finish(net.op("GATHER", parts, "GatherOptions", axis=axis)))


def test_gather_with_shared_axes(net, same) -> None:
    x, rows = net.input("x", (2, 5, 3)), net.input("rows", (2, 4), "int32")
    y = net.op("GATHER", [x, rows], "GatherOptions", axis=1, batchDims=1)
    same(net.finish(y))


def test_gather_nd(net, same) -> None:
    x = net.input("x", (4, 5, 3))
    at = net.const(np.array([[0, 1], [3, 4]], np.int32))
    same(net.finish(net.op("GATHER_ND", [x, at], "GatherNdOptions")))


@pytest.mark.parametrize("axis", [1, 3])
def test_reverse(net, same, axis) -> None:
    same(net.finish(net.op("REVERSE_V2", [pooled(net), net.const(whole(axis))])))


# -- constants ------------------------------------------------------------------------------------


def test_shape_and_what_is_computed_of_it_are_constants(net, same) -> None:
    x = net.input("x", (1, 4, 6))
    sizes = net.op("SHAPE", [x], "ShapeOptions", outType=2, results=[{"dtype": "int32"}])
    bounds = [net.const(whole(item)) for item in (0, 1, 1)]
    first = net.op(
        "STRIDED_SLICE",
        [sizes, *bounds],
        "StridedSliceOptions",
        shrinkAxisMask=1,
        results=[{"dtype": "int32"}],
    )
    parts = [first, net.const(np.int32(24))]
    target = net.op(
        "PACK", parts, "PackOptions", valuesCount=2, results=[{"dtype": "int32", "shape": (2,)}]
    )
    y = net.op("RESHAPE", [x, target])
    assert kinds(same(net.finish(y, run=True))) == {"Reshape": 1}


def test_range_fill_and_zeros(net, same) -> None:
    x = net.input("x", (4,))
    counted = net.op("RANGE", [net.const(np.float32(item)) for item in (0, 8, 2)], "RangeOptions")
    filled = net.op("FILL", [net.const(whole(4)), net.const(np.float32(0.5))])
    y = net.op("ADD", [x, counted], "AddOptions")
    z = net.op("ADD", [y, filled], "AddOptions")
    same(net.finish(net.op("ADD", [z, net.op("ZEROS_LIKE", [x])], "AddOptions")))


@pytest.mark.parametrize("axis", [-1, 1])
def test_one_hot(net, same, axis) -> None:
    x = net.input("x", (2, 3), "int32")
    parts = [x, *(net.const(item) for item in (np.int32(5), np.float32(2), np.float32(-1)))]
    same(net.finish(net.op("ONE_HOT", parts, "OneHotOptions", axis=axis)))


def test_half_weights_behind_dequantize(net, same) -> None:
    x = net.input("x", (1, 6, 6, 3))
    half = net.const(normal(4, 3, 3, 3).astype(np.float16))
    weights = net.op("DEQUANTIZE", [half])
    parts = [x, weights, net.const(normal(4))]
    y = net.op("CONV_2D", parts, "Conv2DOptions", strideH=1, strideW=1)
    result = same(net.finish(y))
    assert kinds(result) == {"Conv": 1, "Transpose": 2} and result.plan is None


# -- recurrent ------------------------------------------------------------------------------------


@pytest.mark.parametrize("time_major", [False, True])
@pytest.mark.parametrize("peepholes", [False, True])
@pytest.mark.parametrize("activation", [4, 1], ids=["tanh", "relu"])
def test_lstm(net, same, time_major, peepholes, activation) -> None:
    steps, batch, size, hidden = 6, 2, 3, 4
    x = net.input("x", (steps, batch, size) if time_major else (batch, steps, size))
    parts = [x]
    parts += [net.const(0.4 * normal(hidden, size)) for _ in range(4)]
    parts += [net.const(0.4 * normal(hidden, hidden)) for _ in range(4)]
    parts += [net.const(0.4 * normal(hidden)) if peepholes else -1 for _ in range(3)]
    parts += [net.const(normal(hidden)) for _ in range(4)]
    parts += [-1, -1]
    for name in ("h", "c"):
        state = net.tensor(name, (batch, hidden))
        net.graph.tensors[state].isVariable = True
        parts.append(state)
    y = net.op(
        "UNIDIRECTIONAL_SEQUENCE_LSTM",
        parts,
        "UnidirectionalSequenceLSTMOptions",
        timeMajor=time_major,
        fusedActivationFunction=activation,
    )
    result = same(net.finish(y))
    assert "the state of an LSTM starts at zero" in " ".join(result.notes)
