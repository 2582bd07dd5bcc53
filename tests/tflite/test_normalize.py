"""Normalizations against ONNX Runtime."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

RNG = np.random.default_rng(7)
SIZES = ["4,5", "6", "2,3,4", ""]


def normal(*shape: int) -> np.ndarray:
    return RNG.normal(size=shape).astype(np.float32)


def positive(*shape: int) -> np.ndarray:
    return RNG.uniform(0.5, 2.0, shape).astype(np.float32)


def text(call: str, sizes: str) -> str:
    shape = f"1,6,{sizes}" if sizes else "1,6"
    return f"g (float[{shape}] x) => (float[{shape}] y) {{ y = {call} }}"


@pytest.mark.parametrize("sizes", SIZES)
def test_batch(sizes: str, check_float: Any) -> None:
    constants = {"s": positive(6), "b": normal(6), "m": normal(6), "v": positive(6)}
    check_float(text("BatchNormalization <epsilon=0.01> (x, s, b, m, v)", sizes), constants)


@pytest.mark.parametrize("sizes", SIZES[:3])
def test_instance(sizes: str, check_float: Any) -> None:
    check_float(text("InstanceNormalization(x, s, b)", sizes), {"s": positive(6), "b": normal(6)})


@pytest.mark.parametrize("sizes", SIZES[:3])
def test_group(sizes: str, check_float: Any) -> None:
    call = "GroupNormalization <num_groups=3> (x, s, b)"
    check_float(text(call, sizes), {"s": positive(6), "b": normal(6)})


@pytest.mark.parametrize("op", ["InstanceNormalization", "GroupNormalization <num_groups=2> "])
def test_between_convolutions_nothing_is_transposed(op: str, check_float: Any) -> None:
    written = check_float(
        "g (float[1,3,8,8] x) => (float[1,5,4,4] y) {"
        f" c = Conv(x, w, b) n = {op}(c, s, b) r = Relu(n) y = Conv(r, v) }}",
        {
            "w": normal(4, 3, 3, 3),
            "v": normal(5, 4, 3, 3),
            "s": positive(4),
            "b": normal(4),
        },
        layout="nhwc",
    )
    assert not written.ops["TRANSPOSE"]


@pytest.mark.parametrize("axis", [-1, 1, 2])
def test_layer(axis: int, check_float: Any) -> None:
    shape = (6, 4, 5)[(axis - 1) % 4 if axis > 0 else 2 :]
    call = f"LayerNormalization <axis={axis}, epsilon=0.001> (x, s, b)"
    check_float(text(call, "4,5"), {"s": positive(*shape), "b": normal(*shape)})
    check_float(text(call.replace(", b)", ")"), "4,5"), {"s": positive(*shape)})


def test_layer_tells_its_statistics(check_float: Any) -> None:
    check_float(
        "g (float[2,6,8] x) => (float[2,6,8] y, float[2,6,1] m, float[2,6,1] d)"
        " { y, m, d = LayerNormalization(x, s) }",
        {"s": positive(8)},
    )


def test_root_mean_square(check_float: Any) -> None:
    check_float(
        "g (float[2,6,8] x) => (float[2,6,8] y)"
        " { y = SimplifiedLayerNormalization <axis=-1, epsilon=0.001> (x, s) }",
        {"s": positive(8)},
    )


def test_local_response(check_float: Any) -> None:
    # the reference kernel leaves out the last channel of each window (LiteRT 2.3.0)
    net = text("LRN <size=3, alpha=0.3, beta=0.6, bias=1.5> (x)", "4,5")
    check_float(net, resolvers=("xnnpack", "builtin"))


@pytest.mark.parametrize("axis", [-1, 1])
@pytest.mark.parametrize("power", [1, 2])
def test_lp(axis: int, power: int, check_float: Any) -> None:
    net = text(f"LpNormalization <axis={axis}, p={power}> (x)", "4,5")
    check_float(net)
    check_float(net, feeds={"x": np.zeros((1, 6, 4, 5), np.float32)})
