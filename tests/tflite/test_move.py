"""What moves elements: shapes, axes, parts, joins, types; in both layouts, float and int8."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from edgeq.errors import EdgeqError
from edgeq_converters.write import tflite

RNG = np.random.default_rng(4)
Check = Callable[..., Any]

CONV = "a = Conv <pads = [1,1,1,1]> (x, w)"


def weights(**others: Any) -> dict[str, np.ndarray]:
    arrays = {name: np.asarray(array) for name, array in others.items()}
    return {"w": RNG.normal(0, 0.4, (4, 3, 3, 3)).astype(np.float32), **arrays}


def sizes(rank: int) -> str:
    return "[" + ",".join("ABCDEF"[:rank]) + "]" if rank else ""


def behind_a_convolution(body: str, rank: int, dtype: str = "float") -> str:
    return f"g (float[1,3,6,8] x) => ({dtype}{sizes(rank)} y) {{ {CONV} {body} }}"


def alone(body: str, rank: int, dtype: str = "float") -> str:
    return f"g ({dtype}[1,4,6,8] a) => ({dtype}{sizes(rank)} y) {{ {body} }}"


SHAPES = [
    (1, 4, 48),
    (4, 6, 8),
    (1, 192),
    (1, 4, 8, 6),
    (1, 2, 2, 6, 8),
    (1, 24, 8),
    (192,),
    (-1, 8),
]


@pytest.mark.parametrize("shape", SHAPES)
def test_reshape(shape: tuple[int, ...], check_float: Check) -> None:
    body = "y = Reshape(a, s)"
    check_float(behind_a_convolution(body, len(shape)), weights(s=shape))
    check_float(alone(body, len(shape)), {"s": np.array(shape)})


@pytest.mark.parametrize("axis", [0, 1, 2, 3, 4])
def test_flatten(axis: int, check_float: Check) -> None:
    body = f"y = Flatten <axis = {axis}> (a)"
    check_float(behind_a_convolution(body, 2), weights())
    check_float(alone(body, 2), {})


@pytest.mark.parametrize("axes", [(0,), (2,), (-1,), (1, 3)])
def test_unsqueeze_and_squeeze(axes: tuple[int, ...], check_float: Check) -> None:
    body = "u = Unsqueeze(a, n)  y = Squeeze(u, m)"
    given = {"n": np.array(axes), "m": np.array([axis % (4 + len(axes)) for axis in axes])}
    check_float(behind_a_convolution(body, 4), weights(**given))
    check_float(behind_a_convolution("y = Unsqueeze(a, n)", 4 + len(axes)), weights(**given))


def test_pooled_features_need_no_transpose(check_float: Check) -> None:
    for body, rank in (("y = Flatten(p)", 2), ("y = Reshape(p, s)", 2), ("y = Squeeze(p, n)", 2)):
        text = behind_a_convolution(f"p = GlobalAveragePool(a)  {body}", rank)
        lite = check_float(text, weights(s=(1, 4), n=(2, 3)))
        assert lite.ops["TRANSPOSE"] == 1  # that of the input


ORDERS = [(0, 2, 3, 1), (0, 3, 1, 2), (3, 2, 1, 0), (0, 1, 3, 2), (0, 2, 1, 3), (1, 0, 2, 3)]


@pytest.mark.parametrize("order", ORDERS)
def test_transpose(order: tuple[int, ...], check_float: Check) -> None:
    body = f"y = Transpose <perm = {list(order)}> (a)"
    check_float(behind_a_convolution(body, 4), weights())
    check_float(alone(body, 4), {})
    check_float("g (float[2,3] x) => (float[A,B] y) { y = Transpose(x) }")


def test_a_transpose_to_channels_last_is_nothing(check_float: Check) -> None:
    lite = check_float(behind_a_convolution("y = Transpose <perm = [0,2,3,1]> (a)", 4), weights())
    assert lite.ops["TRANSPOSE"] == 1  # that of the input
    text = f"""
    g (float[1,6,8,3] i) => (float[A,B,C,D] y) {{
      x = Transpose <perm = [0,3,1,2]> (i)
      {CONV}
      y = Transpose <perm = [0,2,3,1]> (a)
    }}
    """
    assert not check_float(text, weights()).ops["TRANSPOSE"]


def test_tokens_of_an_image_and_back(check_float: Check) -> None:
    body = """
      t = Reshape(a, s)  u = Transpose <perm = [0,2,1]> (t)  n = Mul(u, f)
      v = Transpose <perm = [0,2,1]> (n)  r = Reshape(v, q)  y = Conv(r, k)
    """
    given = weights(
        s=(1, 4, 48),
        q=(1, 4, 6, 8),
        f=RNG.normal(size=4).astype(np.float32),
        k=RNG.normal(size=(3, 4, 1, 1)).astype(np.float32),
    )
    lite = check_float(behind_a_convolution(body, 4), given)
    assert lite.ops["TRANSPOSE"] == 2  # those of input and output


SHUFFLE = """
  t = Reshape(a, s)  u = Transpose <perm = [0,2,1,3,4]> (t)  r = Reshape(u, q)  y = Conv(r, k)
"""
HEAD = """
  t = Reshape(a, s)  u = Transpose <perm = [0,1,3,4,2]> (t)  y = Sigmoid(u)
"""


def test_a_channel_shuffle_is_one_transpose(check_float: Check, check_int8: Check) -> None:
    kernel = RNG.normal(size=(3, 4, 1, 1)).astype(np.float32)
    given = weights(s=(1, 2, 2, 6, 8), q=(1, 4, 6, 8), k=kernel)
    text = behind_a_convolution(SHUFFLE, 4)
    lite = check_float(text, given)
    assert lite.ops["TRANSPOSE"] == 3  # with those of input and output
    assert check_int8(text, given, lsb=1).lite.ops["TRANSPOSE"] == 3


def test_the_head_of_a_detector_is_one_transpose(check_float: Check, check_int8: Check) -> None:
    text = behind_a_convolution(HEAD, 5)
    given = weights(s=(1, 2, 2, 6, 8))
    lite = check_float(text, given)
    assert lite.ops["TRANSPOSE"] == 2  # with that of the input
    made = check_int8(text, given, lsb=1, reference_lsb=2)
    assert made.lite.ops["TRANSPOSE"] == 2


def test_parts_of_channels_that_others_read_too(check_float: Check) -> None:
    text = f"""
    g (float[1,3,6,8] x) => (float[A,B,C,D,E] y, float[A,B,C,D,F] z, float[A,B,C] v) {{
      {CONV}
      t = Reshape(a, s)
      y = Relu(t)
      u = Transpose <perm = [0,2,1,4,3]> (t)
      z = Sigmoid(u)
      v = Reshape(u, q)
    }}
    """
    check_float(text, weights(s=(1, 2, 2, 6, 8), q=(1, 8, 24)))


@pytest.mark.parametrize("flat", ["Flatten(a)", "Reshape(a, s)"])
def test_features_in_another_order(flat: str, check_float: Check, check_int8: Check) -> None:
    """The weights of the layer behind are reordered instead."""
    kernel = RNG.normal(size=(192, 5)).astype(np.float32)
    given = weights(k=kernel, **({"s": (1, -1)} if "s" in flat.partition("(")[2] else {}))
    text = behind_a_convolution(f"f = {flat}  y = Gemm(f, k)", 2)
    assert check_float(text, given).ops["TRANSPOSE"] == 1  # that of the input
    assert check_int8(text, given, lsb=1).lite.ops["TRANSPOSE"] == 1


@pytest.mark.parametrize("axis", [0, 1, 2, 3, -1])
def test_concat(axis: int, check_float: Check) -> None:
    body = f"y = Concat <axis = {axis}> (a, b, a)"
    text = f"g (float[1,3,6,8] x, float[1,4,6,8] b) => (float[A,B,C,D] y) {{ {CONV} {body} }}"
    check_float(text, weights())
    constant = weights(b=RNG.normal(size=(1, 4, 6, 8)).astype(np.float32))
    check_float(behind_a_convolution(body, 4), constant)


@pytest.mark.parametrize("dtype", ["int64", "int32", "bool", "uint8", "double", "float16"])
def test_concat_of_types(dtype: str, check_float: Check) -> None:
    text = "g ({0}[2,3] a, {0}[2,3] b) => ({0}[A,B] y) {{ y = Concat <axis = 1> (a, b) }}"
    check_float(text.format(dtype))


@pytest.mark.parametrize(("axis", "parts"), [(1, (2, 2)), (1, (1, 3)), (3, (1, 3, 4)), (2, (3, 3))])
def test_split(axis: int, parts: tuple[int, ...], check_float: Check) -> None:
    names = [f"p{at}" for at in range(len(parts))]
    outs = ", ".join(f"float[A{at},B{at},C{at},D{at}] {name}" for at, name in enumerate(names))
    body = f"{', '.join(names)} = Split <axis = {axis}> (a, s)"
    given = {"s": np.array(parts)}
    check_float(f"g (float[1,3,6,8] x) => ({outs}) {{ {CONV} {body} }}", weights(**given))
    check_float(f"g (float[1,4,6,8] a) => ({outs}) {{ {body} }}", given)


SLICES = [
    ((1,), (3,), (1,), (1,)),
    ((0, 1), (6, -1), (2, 3), (2, 3)),
    ((-1,), (-9,), (3,), (-1,)),
    ((5, -2), (0, -100), (2, 3), (-2, -3)),
    ((0,), (100,), (1,), (1,)),
    ((3,), (-100,), (1,), (-1,)),
    ((2,), (3,), (3,), (1,)),
]


@pytest.mark.parametrize("given", SLICES)
def test_slice(given: tuple[tuple[int, ...], ...], check_float: Check) -> None:
    names = dict(zip("senk", (np.array(row) for row in given), strict=True))
    body = "y = Slice(a, s, e, n, k)"
    check_float(behind_a_convolution(body, 4), weights(**names))
    check_float(alone(body, 4), names)
    check_float(alone(body, 4, "int64"), names)


@pytest.mark.parametrize("shape", [(2, 4, 6, 8), (1, 4, 6, 8), (3, 1, 4, 6, 8)])
def test_expand(shape: tuple[int, ...], check_float: Check) -> None:
    body = "y = Expand(a, s)"
    check_float(behind_a_convolution(body, len(shape)), weights(s=shape))
    pooled = "p = GlobalAveragePool(a)  y = Expand(p, s)"
    check_float(behind_a_convolution(pooled, len(shape)), weights(s=shape))
    text = "g (int64[4,1] x) => (int64[A,B,C] y) { y = Expand(x, s) }"
    check_float(text, {"s": np.array([3, 1, 5])})


@pytest.mark.parametrize("repeats", [(1, 1, 1, 1), (2, 1, 1, 3), (1, 2, 3, 1)])
def test_tile(repeats: tuple[int, ...], check_float: Check) -> None:
    body = "y = Tile(a, r)"
    check_float(behind_a_convolution(body, 4), weights(r=repeats))
    check_float(alone(body, 4), {"r": np.array(repeats)})


DTYPES = ["float", "float16", "double", "int64", "int32", "int16", "int8", "uint8", "uint16"]
CODES = dict(
    zip(("float", "uint8", "int8", "uint16", "int16", "int32", "int64"), range(1, 8), strict=True),
    bool=9,
    float16=10,
    double=11,
    uint32=12,
)


@pytest.mark.parametrize("wanted", [*DTYPES, "bool", "uint32"])
@pytest.mark.parametrize("had", [*DTYPES, "bool"])
def test_cast(had: str, wanted: str, check_float: Check) -> None:
    text = f"g ({had}[2,5] x) => ({wanted}[2,5] y) {{ y = Cast <to = {CODES[wanted]}> (x) }}"
    signed = had.startswith(("float", "double", "int")) and not wanted.startswith("uint")
    values = [[-2, -1, 0, 1, 2], [3, 0, 7, 5, 6]] if signed else [[2, 1, 0, 1, 2], [3, 0, 7, 5, 6]]
    numpy_name = {"float": "float32", "double": "float64"}.get(had, had)
    check_float(text, feeds={"x": np.array(values).astype(numpy_name)})


def test_cast_behind_a_convolution(check_float: Check) -> None:
    check_float(behind_a_convolution("y = Cast <to = 6> (a)", 4, "int32"), weights())


def test_dropout(check_float: Check) -> None:
    text = "g (float[2,3] x) => (float[2,3] y, bool[2,3] m) { d, m = Dropout(x) y = Relu(d) }"
    check_float(text)


def test_reverse_sequence(check_float: Check) -> None:
    for options in ("time_axis = 0, batch_axis = 1", "time_axis = 1, batch_axis = 0"):
        call = f"ReverseSequence <{options}> (x, n)"
        text = f"g (float[4,4,3] x) => (float[A,B,C] y) {{ y = {call} }}"
        check_float(text, {"n": np.array([1, 4, 2, 3])})


INT8 = {
    "reshape": ("y = Reshape(a, s)", 3),
    "flatten": ("y = Flatten(a)", 2),
    "transpose": ("y = Transpose <perm = [0,3,1,2]> (a)", 4),
    "no transpose": ("y = Transpose <perm = [0,2,3,1]> (a)", 4),
    "slice": ("y = Slice(a, b, e, n)", 4),
    "expand": ("y = Expand(a, t)", 4),
    "tile": ("y = Tile(a, r)", 4),
    "concat": ("c = Conv(x, v)  d = Mul(c, c)  y = Concat <axis = 1> (a, d)", 4),
    "concat of a constant": ("y = Concat <axis = 1> (a, k)", 4),
    "split": ("y, z = Split <axis = 1> (a, p)  u = Add(y, z)", 4),
    "gather": ("y = Gather <axis = 2> (a, i)", 4),
}


@pytest.mark.parametrize("case", INT8)
def test_int8(case: str, check_int8: Check) -> None:
    body, rank = INT8[case]
    given = weights(
        s=(1, 4, 48),
        b=(1,),
        e=(3,),
        n=(1,),
        t=(2, 4, 6, 8),
        r=(1, 2, 1, 1),
        p=(2, 2),
        i=(5, 0, 2),
        v=RNG.normal(size=(4, 3, 1, 1)).astype(np.float32),
        k=RNG.normal(size=(1, 2, 6, 8)).astype(np.float32),
    )
    used = {
        name: array for name, array in given.items() if f" {name})" in body or f", {name}" in body
    }
    text = behind_a_convolution(body, rank)
    if case == "split":
        text = text.replace("[A,B,C,D] y", "[A,B,C,D] u")
    check_int8(text, {"w": given["w"], **used}, lsb=1)


def test_a_join_of_nothing_is_refused(graph_of: Any) -> None:
    text = "g (float[2,3] x) => (float[2,0] y) { y = Concat <axis = 1> (empty, empty) }"
    graph = graph_of(text, {"empty": np.zeros((2, 0), np.float32)})
    with pytest.raises(EdgeqError, match="all that it joins is empty") as caught:
        tflite.write(graph, None)
    assert caught.value.slug == "unwritable-op"
