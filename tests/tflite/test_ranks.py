"""Channels last of other ranks than four: behind convolutions over lines and volumes."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

RNG = np.random.default_rng(6)
Check = Callable[..., Any]

LINE = [
    ("y = Softmax <axis = 1> (a)", "float[A,B,C]"),
    ("y = ReduceMean <keepdims = 0> (a, n)", "float[A,B]"),
    ("y = ReduceMax <keepdims = 0> (a, m)", "float[A,B]"),
    ("y = Transpose <perm = [0,2,1]> (a)", "float[A,B,C]"),
    ("t = Transpose <perm = [2,0,1]> (a)  y = Relu(t)", "float[A,B,C]"),
    ("y = Add(a, c)", "float[A,B,C]"),
    ("y = PRelu(a, c)", "float[A,B,C]"),
    ("y = Slice(a, n, k, n)", "float[A,B,C]"),
    ("y = Concat <axis = 2> (a, a)", "float[A,B,C]"),
    ("y = Unsqueeze(a, n)", "float[A,B,C,D]"),
    ("y = ArgMax <axis = 1, keepdims = 0> (a)", "int64[A,B]"),
    ("y = Gather <axis = 1> (a, n)", "float[A,B,C]"),
]
VOLUME = [
    ("y = Softmax <axis = 1> (a)", "float[A,B,C,D,E]"),
    ("y = ReduceMean <keepdims = 0> (a, n)", "float[A,B,C,D]"),
    ("y = Add(a, c)", "float[A,B,C,D,E]"),
    ("y = Sub(c, a)", "float[A,B,C,D,E]"),
    ("y = Max(a, c)", "float[A,B,C,D,E]"),
    ("y = Slice(a, n, k, n)", "float[A,B,C,D,E]"),
    ("y = Concat <axis = 2> (a, a)", "float[A,B,C,D,E]"),
    ("q = Greater(a, c)  y = Where(q, a, c)", "float[A,B,C,D,E]"),
    ("y = Reshape(a, s)", "float[A,B,C]"),
]


def check(body: str, out: str, dimensions: int, check_float: Check) -> None:
    sizes = ",".join(["7"] * dimensions)
    text = f"g (float[1,3,{sizes}] x) => ({out} y) {{ a = Conv(x, w)  {body} }}"
    given = {
        "w": RNG.normal(0, 0.3, (4, 3, *[3] * dimensions)),
        "c": RNG.uniform(0.1, 1, (4, *[1] * dimensions)),
    }
    floats = {name: array.astype(np.float32) for name, array in given.items()}
    numbers = {
        "n": np.array([1]),
        "m": np.array([2]),
        "k": np.array([3]),
        "s": np.array([1, 4, -1]),
    }
    check_float(text, {**floats, **numbers})


@pytest.mark.parametrize(("body", "out"), LINE)
def test_lines(body: str, out: str, check_float: Check) -> None:
    check(body, out, 1, check_float)


@pytest.mark.parametrize(("body", "out"), VOLUME)
def test_volumes(body: str, out: str, check_float: Check) -> None:
    check(body, out, 3, check_float)
