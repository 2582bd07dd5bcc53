"""Preprocessing against an independent computation, and its table against mistakes."""

import math
from fractions import Fraction

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
