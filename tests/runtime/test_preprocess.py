"""Preprocessing against an independent computation, and its table against mistakes."""

import hashlib
import json
import math
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from edgeq_runtime import EdgeqError, InputSpec
from edgeq_runtime.preprocess import PRECISION_BITS, kernel, resize

IMAGES = arrays.arrays(
    np.uint8, st.tuples(st.integers(1, 12), st.integers(1, 12), st.sampled_from([1, 3]))
)
SIDE = st.integers(1, 14)

# Pillow 11.3.0: Image.fromarray(PILLOW_IN).resize((4, 3), Image.BILINEAR)
PILLOW_IN = (np.arange(7 * 5 * 3).reshape(7, 5, 3) * 37 % 256).astype(np.uint8)
PILLOW_OUT = [
    65,
    102,
    125,
    126,
    125,
    130,
    106,
    105,
    142,
    156,
    110,
    79,
    138,
    149,
    159,
    136,
    111,
    113,
    151,
    153,
    128,
    105,
    115,
    126,
    117,
    154,
    108,
    122,
    121,
    158,
    134,
    101,
    138,
    139,
    162,
    131,
]


def triangle(old: int, new: int) -> np.ndarray:
    """The filter in exact fractions, [new, old]: what the 22-bit weights approximate."""
    ratio = Fraction(old, new)
    support = max(ratio, Fraction(1))
    rows = np.zeros((new, old))
    for i in range(new):
        centre = (i + Fraction(1, 2)) * ratio
        weights = [max(0, 1 - abs((x + Fraction(1, 2) - centre) / support)) for x in range(old)]
        rows[i] = [float(weight / sum(weights)) for weight in weights]
    return rows


def test_resize_is_pillows() -> None:
    assert resize(PILLOW_IN, 3, 4).reshape(-1).tolist() == PILLOW_OUT


@given(IMAGES, SIDE, SIDE)
def test_resize_against_fractions(image: np.ndarray, height: int, width: int) -> None:
    """Each pass rounds to 8 bits (1/2) and its weights are off by 2**-23 each: at most
    12 * 255 * 2**-23 < 0.001 a pass; the second pass averages the first one's error."""
    got = resize(image, height, width).astype(float)
    down, across = triangle(image.shape[0], height), triangle(image.shape[1], width)
    want = np.einsum("ih,hwc,jw->ijc", down, image.astype(float), across)
    assert got.shape == want.shape
    assert np.abs(got - want).max() <= 0.5 + 0.5 + 0.002


@given(IMAGES)
def test_resize_to_the_same_size_changes_nothing(image: np.ndarray) -> None:
    assert np.array_equal(resize(image, *image.shape[:2]), image)


@given(st.integers(0, 255), SIDE, SIDE, SIDE, SIDE)
def test_a_flat_image_stays_flat(level: int, h: int, w: int, height: int, width: int) -> None:
    image = np.full((h, w, 3), level, np.uint8)
    assert (resize(image, height, width) == level).all()


@given(st.integers(1, 500), st.integers(1, 500))
def test_weights_lie_inside_and_sum_to_one(old: int, new: int) -> None:
    rows = kernel(old, new)
    assert len(rows) == new
    for first, weights in rows:
        assert first >= 0
        assert first + len(weights) <= old
        # each weight is rounded by at most half
        assert abs(sum(weights) - 2**PRECISION_BITS) <= len(weights) / 2


@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
@pytest.mark.parametrize("channels", ["rgb", "bgr"])
def test_the_formula(layout: str, channels: str) -> None:
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (4, 5, 3), dtype=np.uint8)
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    spec = InputSpec(mean=mean, std=std, layout=layout, channels=channels)
    got = spec.apply(image)
    assert got.dtype == np.float32
    assert got.flags.c_contiguous
    for y in range(4):
        for x in range(5):
            for c in range(3):
                pixel = int(image[y, x, c if channels == "rgb" else 2 - c])
                want = np.float32((pixel * (1 / 255) - mean[c]) / std[c])
                assert got[(c, y, x) if layout == "nchw" else (y, x, c)] == want


def test_one_number_serves_all_channels() -> None:
    image = np.full((2, 2, 3), 10, np.uint8)
    got = InputSpec(scale=1.0, mean=(2.0,), std=(4.0,)).apply(image)
    assert (got == 2).all()


def test_grey_images() -> None:
    assert InputSpec(scale=1.0).apply(np.full((2, 3, 1), 7, np.uint8)).shape == (1, 2, 3)


@pytest.mark.parametrize(
    ("size", "resized"),
    [((100, 50), (64, 32)), ((50, 100), (32, 64)), ((101, 50), (64, 32)), ((33, 100), (32, 96))],
)
def test_one_number_is_the_shorter_side(size: tuple[int, int], resized: tuple[int, int]) -> None:
    image = np.zeros((*size, 3), np.uint8)
    assert InputSpec(resize=32, layout="nhwc").apply(image).shape == (*resized, 3)


def test_a_pair_is_height_and_width() -> None:
    spec = InputSpec(resize=(6, 4), layout="nhwc")
    assert spec.apply(np.zeros((9, 9, 3), np.uint8)).shape == (6, 4, 3)


@pytest.mark.parametrize(("size", "first"), [(6, 1), (7, 2), (9, 2), (4, 0), (5, 0)])
def test_the_crop_is_centred_half_to_even(size: int, first: int) -> None:
    """(size - 4) / 2 is 1, 1.5, 2.5, 0, 0.5."""
    image = np.arange(size, dtype=np.uint8)[:, None, None].repeat(4, axis=1)
    spec = InputSpec(crop=4, scale=1.0, layout="nhwc")
    assert spec.apply(image)[:, 0, 0].tolist() == [first + i for i in range(4)]


@pytest.mark.parametrize(
    ("image", "match"),
    [
        (np.zeros((4, 4, 3), np.float32), r"image: got float32 \[4, 4, 3\], wanted uint8"),
        (np.zeros((4, 4), np.uint8), r"image: got uint8 \[4, 4\]"),
        (np.zeros((4, 4, 4), np.uint8), r"image: got uint8 \[4, 4, 4\]"),
        (np.zeros((0, 4, 3), np.uint8), r"image: empty, \[0, 4, 3\]"),
        (np.zeros((4, 4, 3), np.uint8), "4 x 4 after resizing, smaller than crop 5 x 5"),
    ],
)
def test_an_image_that_does_not_fit(image: np.ndarray, match: str) -> None:
    with pytest.raises(EdgeqError, match=match) as caught:
        InputSpec(crop=5).apply(image)
    assert caught.value.slug == "bad-input"


def test_three_means_for_a_grey_image() -> None:
    with pytest.raises(EdgeqError, match="1 channel, mean and std are for 3"):
        InputSpec(mean=(0.1, 0.2, 0.3)).apply(np.zeros((2, 2, 1), np.uint8))


def test_a_strip_that_would_grow_without_end() -> None:
    with pytest.raises(EdgeqError, match="too long to resize"):
        InputSpec(resize=256).apply(np.zeros((1, 1000, 3), np.uint8))


def test_a_table_is_read_and_written_again() -> None:
    table = {"resize": [256, 320], "crop": 224, "mean": [0.5], "std": [1, 2, 3], "channels": "bgr"}
    spec = InputSpec.from_table("image", table)
    assert spec == InputSpec(
        resize=(256, 320), crop=224, mean=(0.5,), std=(1.0, 2.0, 3.0), channels="bgr"
    )
    assert InputSpec.from_table("image", spec.to_json()) == spec


def test_an_empty_table_is_the_defaults() -> None:
    assert InputSpec.from_table("image", {}) == InputSpec()
    assert math.isclose(InputSpec().scale, 1 / 255)


def test_an_unknown_key_names_the_nearest() -> None:
    with pytest.raises(
        EdgeqError, match=r"^input `image`: unknown key `men` \[bad-input-spec\]$"
    ) as e:
        InputSpec.from_table("image", {"men": 0})
    assert e.value.hints == ("did you mean `mean`?",)


@pytest.mark.parametrize(
    ("key", "value", "wanted"),
    [
        ("resize", 0, "pixels in 1..65536"),
        ("resize", True, "pixels"),
        ("resize", 2**20, "pixels"),
        ("resize", [1, 2, 3], "pixels"),
        ("crop", 1.5, "pixels"),
        ("scale", 0, "a number above 0"),
        ("scale", "1/255", "a number above 0"),
        ("scale", float("nan"), "a number above 0"),
        ("mean", [1, 2], "1 or 3 numbers"),
        ("mean", ["a"], "1 or 3 numbers"),
        ("mean", float("inf"), "1 or 3 numbers"),
        ("std", [1, 0, 1], "numbers above 0"),
        ("std", -1, "numbers above 0"),
        ("channels", "rgba", '"rgb" or "bgr"'),
        ("layout", 5, '"nchw" or "nhwc"'),
    ],
)
def test_a_value_out_of_range(key: str, value: object, wanted: str) -> None:
    with pytest.raises(EdgeqError, match=f"input `image`: `{key}` is .*wanted {wanted}") as caught:
        InputSpec.from_table("image", {key: value})
    assert caught.value.slug == "bad-input-spec"


# -- FORMAT.md 7 again, in plain Python: loops and lists, no edgeq_runtime ------------------------

Plane = list[list[int]]  # one channel, row by row


def mixed(seed: int, i: int) -> int:
    """Rule 8.1."""
    z = (seed + (i + 1) * 0x9E3779B97F4A7C15) % 2**64
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 % 2**64
    z = (z ^ z >> 27) * 0x94D049BB133111EB % 2**64
    return z ^ z >> 31


def row_resized(row: Sequence[int], m: int) -> list[int]:
    """Rule 7.1, one pass over one row of pixels."""
    n = len(row)
    if n == m:
        return list(row)
    ratio = n / m
    support = max(ratio, 1.0)
    inverse = 1.0 / support
    out = []
    for i in range(m):
        centre = (i + 0.5) * ratio
        first = max(0, math.trunc(centre - support + 0.5))
        last = min(n, math.trunc(centre + support + 0.5))
        weights = [max(0.0, 1 - abs((x - centre + 0.5) * inverse)) for x in range(first, last)]
        total = sum(weights)
        integers = [math.trunc(0.5 + weight / total * 2**22) for weight in weights]
        summed = sum(row[first + k] * integer for k, integer in enumerate(integers))
        out.append(min(255, max(0, (summed + 2**21) >> 22)))
    return out


def turned(plane: Plane) -> Plane:
    return [list(column) for column in zip(*plane, strict=True)]


def half_to_even(k: int) -> int:
    return k // 2 + (k % 4 == 3)


def planes_of(image: dict[str, Any]) -> list[Plane]:
    height, width, count = image["shape"]
    flat = [mixed(image["seed"], i) >> 56 for i in range(height * width * count)]
    return [
        [[flat[(y * width + x) * count + c] for x in range(width)] for y in range(height)]
        for c in range(count)
    ]


def prepared(image: dict[str, Any], spec: dict[str, Any]) -> list[Plane]:
    """Rules 7.1 to 7.3."""
    planes = planes_of(image)
    height, width = image["shape"][:2]
    if spec["resize"] is not None:
        short = min(height, width)
        given = spec["resize"]
        if isinstance(given, int):
            given = [height * given // short, width * given // short]
        height, width = given
        planes = [[row_resized(row, width) for row in plane] for plane in planes]
        planes = [
            turned([row_resized(column, height) for column in turned(plane)]) for plane in planes
        ]
    if spec["crop"] is not None:
        crop = spec["crop"]
        h, w = (crop, crop) if isinstance(crop, int) else crop
        top, left = half_to_even(height - h), half_to_even(width - w)
        planes = [[row[left : left + w] for row in plane[top : top + h]] for plane in planes]
    return planes[::-1] if spec["channels"] == "bgr" else planes


def vectors() -> list[dict[str, Any]]:
    path = Path(__file__).parents[2] / "runtimes" / "vectors" / "preprocess.json"
    if not path.is_file():  # beside an installed wheel, where `checkout` leaves their tests out
        return []
    found: list[dict[str, Any]] = json.loads(path.read_text())
    return found


@pytest.mark.checkout
@pytest.mark.parametrize("vector", vectors(), ids=lambda vector: str(vector["image"]["seed"]))
def test_the_golden_vectors_by_the_document_and_by_the_runtime(vector: dict[str, Any]) -> None:
    spec, wanted = vector["spec"], vector["values"]
    planes = prepared(vector["image"], spec)
    pixels = np.array(planes, np.uint8).transpose(1, 2, 0)
    assert list(pixels.shape) == vector["pixels"]["shape"]
    assert pixels.tobytes().hex() == vector["pixels"]["hex"]
    means, stds = (
        spec[key] * (1 if len(spec[key]) > 1 else len(planes)) for key in ("mean", "std")
    )
    values = np.array(
        [
            [[(v * spec["scale"] - mean) / std for v in row] for row in plane]
            for plane, mean, std in zip(planes, means, stds, strict=True)
        ],
        np.float64,
    ).astype(np.float32)
    values = values if spec["layout"] == "nchw" else values.transpose(1, 2, 0)
    image = np.array(planes_of(vector["image"]), np.uint8).transpose(1, 2, 0)
    for made in (values, InputSpec.from_table("image", spec).apply(image)):
        assert list(made.shape) == wanted["shape"]
        assert made.reshape(-1)[:4].tolist() == wanted["first"]
        assert hashlib.sha256(np.ascontiguousarray(made, "<f4")).hexdigest() == wanted["sha256"]


@pytest.mark.checkout
def test_the_golden_vectors_can_be_made_again(repository: Path) -> None:
    import importlib.util

    path = repository / "runtimes" / "vectors" / "make_preprocess.py"
    found = importlib.util.spec_from_file_location("make_preprocess", path)
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    assert module.FILE.read_text() == module.document()
    assert module.FILE.stat().st_size < 100_000


@pytest.mark.images
@given(
    arrays.arrays(np.uint8, st.tuples(st.integers(1, 40), st.integers(1, 40), st.just(3))),
    st.integers(1, 40),
    st.integers(1, 40),
)
def test_resize_is_within_a_level_of_pillow(image: np.ndarray, height: int, width: int) -> None:
    """Equal where Pillow runs the columns first; the other order rounds in another place."""
    from PIL import Image

    pillow = Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR)
    got = resize(image, height, width).astype(int)
    assert np.abs(got - np.asarray(pillow)).max() <= 1
