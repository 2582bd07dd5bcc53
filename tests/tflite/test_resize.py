"""Resize, depth to space and padding against ONNX Runtime."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from edgeq.errors import EdgeqError


def resize(attributes: str, sizes: str = "5,6", rank: int = 4) -> str:
    ranks = ",".join("N" * rank)
    return (
        f"g (float[1,3,{sizes}] x) => (float[{ranks}] y)"
        f" {{ y = Resize <{attributes}> (x, , scales) }}"
    )


def scales(*numbers: float) -> dict[str, np.ndarray]:
    return {"scales": np.array([1, 1, *numbers], np.float32)}


NEAREST = [
    ("asymmetric", "floor", (2, 2)),
    ("asymmetric", "round_prefer_floor", (2, 3)),
    ("asymmetric", "ceil", (2, 2)),
    ("half_pixel", "round_prefer_floor", (2, 2)),
    ("half_pixel", "round_prefer_ceil", (2, 2)),
    ("half_pixel", "floor", (0.5, 1.7)),
    ("align_corners", "round_prefer_ceil", (2, 2)),
    ("align_corners", "round_prefer_floor", (2, 1.5)),
    ("pytorch_half_pixel", "round_prefer_floor", (0.2, 2)),
]


@pytest.mark.parametrize("row", NEAREST, ids=lambda row: " ".join(map(str, row)))
def test_nearest(row: Any, check_float: Any, check_int8: Any) -> None:
    mode, rounding, factors = row
    net = resize(
        f'mode="nearest", coordinate_transformation_mode="{mode}", nearest_mode="{rounding}"'
    )
    check_float(net, scales(*factors), tolerance=0.0)
    check_int8(net, scales(*factors), reference_lsb=0)


@pytest.mark.parametrize(
    "mode", ["half_pixel", "pytorch_half_pixel", "asymmetric", "align_corners"]
)
@pytest.mark.parametrize("factors", [(2, 2), (1.5, 3), (0.5, 0.7)])
def test_linear(mode: str, factors: tuple[float, ...], check_float: Any, check_int8: Any) -> None:
    net = resize(f'mode="linear", coordinate_transformation_mode="{mode}"')
    check_float(net, scales(*factors))
    check_int8(net, scales(*factors), lsb=1)


def test_linear_by_two_is_one_operator(check_float: Any) -> None:
    written = check_float(resize('mode="linear"'), scales(2, 2))
    assert written.ops["RESIZE_BILINEAR"] == 1
    assert written.partitions == 1


@pytest.mark.parametrize("mode", ["half_pixel", "align_corners", "asymmetric"])
@pytest.mark.parametrize("factors", [(2, 2), (0.5, 1.3)])
def test_cubic(mode: str, factors: tuple[float, ...], check_float: Any) -> None:
    check_float(resize(f'mode="cubic", coordinate_transformation_mode="{mode}"'), scales(*factors))


@pytest.mark.parametrize("mode", ["linear", "cubic"])
def test_antialias(mode: str, check_float: Any) -> None:
    check_float(resize(f'mode="{mode}", antialias=1', "9,12"), scales(0.5, 0.4))


def test_scales_must_be_known(graph_of: Any, pair: Any) -> None:
    net = "g (float[1,3,4,4] x, float[4] s) => (float[1,3,6,6] y) { y = Resize(x, , s) }"
    with pytest.raises(EdgeqError, match=r"`Resize` .* its scales are computed while the model"):
        pair(graph_of(net))


@pytest.mark.parametrize("mode", ["nearest", "linear"])
def test_lines_and_volumes(mode: str, check_float: Any) -> None:
    check_float(resize(f'mode="{mode}"', "7", 3), scales(2))
    check_float(resize(f'mode="{mode}"', "3,4,5", 5), scales(2, 2, 1.5))


@pytest.mark.parametrize("mode", ["DCR", "CRD"])
def test_depth_to_space(mode: str, check_float: Any, check_int8: Any) -> None:
    net = (
        "g (float[1,12,3,4] x) => (float[N,M,H,W] y)"
        f' {{ y = DepthToSpace <blocksize=2, mode="{mode}"> (x) }}'
    )
    check_float(net, tolerance=0.0)
    pair = check_int8(net, reference_lsb=0)
    assert pair.lite.partitions == 1


def test_space_to_depth(check_float: Any, check_int8: Any) -> None:
    net = "g (float[1,3,4,6] x) => (float[N,M,H,W] y) { y = SpaceToDepth <blocksize=2> (x) }"
    check_float(net, tolerance=0.0)
    check_int8(net, reference_lsb=0)


PAD = "g (float[1,3,4,5] x) => (float[N,M,H,W] y) {{ y = Pad {} (x, pads{}) }}"


@pytest.mark.parametrize("mode", ["constant", "reflect", "edge", "wrap"])
@pytest.mark.parametrize("pads", [[0, 0, 1, 2, 0, 0, 2, 0], [0, 0, -1, 2, 0, 0, 2, -1]])
def test_pad(mode: str, pads: list[int], check_float: Any) -> None:
    constants = {"pads": np.array(pads)}
    check_float(PAD.format(f'<mode="{mode}">', ""), constants, tolerance=0.0)


def test_pad_int8_and_with_a_number(check_float: Any, check_int8: Any) -> None:
    constants = {"pads": np.array([0, 1, 1, 2, 0, 0, 2, 0]), "value": np.float32(2.5)}
    check_float(PAD.format("", ", value"), constants, tolerance=0.0)
    check_int8(PAD.format("", ""), constants, reference_lsb=0)
    constants["pads"] = np.array([0, 0, 1, 2, 0, 0, 2, 0])
    check_int8(PAD.format('<mode="reflect">', ""), constants, reference_lsb=0)
