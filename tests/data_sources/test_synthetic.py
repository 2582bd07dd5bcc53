"""Made-up samples: the same everywhere, in safe ranges, and refused where a size is missing."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeq.data import synthetic
from edgeq.errors import EdgeqError
from edgeq_runtime.golden import splitmix64
from edgeq_runtime.tensors import TensorInfo

ROOT = Path(__file__).resolve().parents[2]
X = TensorInfo("x", "float32", ("batch", 3, 16, 16))


def test_floats_look_like_a_normal_distribution() -> None:
    values = np.concatenate([feed["x"].ravel() for feed in synthetic([X], 64, seed=1)])
    n = values.size
    # 5 standard errors: of the mean 1/sqrt(n), of the deviation about 0.6/sqrt(n) here
    assert abs(values.mean()) < 5 / np.sqrt(n)
    assert abs(values.std() - 1) < 3 / np.sqrt(n)
    assert np.abs(values).max() <= 2 * np.sqrt(3)
    assert values.dtype == np.float32


def test_samples_inputs_and_seeds_differ() -> None:
    two = [X, TensorInfo("z", "float32", (1, 3, 16, 16))]
    a, b = synthetic(two, 2, seed=0)
    (c, *_) = synthetic(two, 1, seed=1)
    assert len({array.tobytes() for array in (a["x"], a["z"], b["x"], c["x"])}) == 4


def test_a_source_gives_the_same_again() -> None:
    source = synthetic([X], 3, seed=7)
    assert source.count == 3
    assert source.description == "3 synthetic samples (seed 7)"
    for left, right in zip(source, source, strict=True):
        np.testing.assert_array_equal(left["x"], right["x"])


@pytest.mark.parametrize(
    ("sizes", "count", "used"),
    [
        ([2**22], 16, 16),  # 2**26 elements: just as many as may be
        ([2**22, 1], 16, 15),
        ([48_000_000], 16, 1),
        ([2**28], 3, 1),
        ([2**27, 2**27], 1, 1),
        ([0], 16, 16),
    ],
)
def test_large_inputs_lower_the_count_and_it_is_said(
    sizes: list[int], count: int, used: int
) -> None:
    inputs = [TensorInfo(f"x{size}", "float32", ("n", size)) for size in sizes]
    source = synthetic(inputs, count)
    note = f"{used} of {count} made-up samples: the inputs are large"
    assert source.count == used
    assert source.notes == ((note,) if used < count else ())
    assert source.description == f"{used} synthetic sample{'s' * (used > 1)} (seed 0)"


def test_as_many_feeds_come_as_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    module = sys.modules["edgeq.data.synthetic"]  # the package calls a function so
    monkeypatch.setattr(module, "MAX_TOTAL_ELEMENTS", 3 * 3 * 16 * 16)
    fewer, all_of_them = synthetic([X], 16), synthetic([X], 3)
    for left, right in zip(fewer, all_of_them, strict=True):
        np.testing.assert_array_equal(left["x"], right["x"])


def test_splitmix64_as_published() -> None:
    """The first outputs of splitmix64 seeded with 1234567 (Vigna's reference implementation)."""
    assert splitmix64(1234567, 5).tolist() == [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
        4593380528125082431,
        16408922859458223821,
    ]


def test_another_process_and_hash_seed_give_the_same_bytes() -> None:
    code = (
        "from edgeq.data import synthetic; import hashlib;"
        "from edgeq_runtime.tensors import TensorInfo;"
        "f = next(iter(synthetic([TensorInfo('x', 'float32', ('b', 3, 16, 16))], 1, seed=3)));"
        "print(hashlib.sha256(f['x'].tobytes()).hexdigest())"
    )
    digests = {
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT,
            env={"PYTHONPATH": ".:converters:runtimes/python", "PYTHONHASHSEED": seed},
        ).stdout
        for seed in ("0", "1")
    }  # fmt: skip
    assert len(digests) == 1


@pytest.mark.parametrize(
    ("dtype", "low", "high"),
    [("int64", 0, 1), ("int32", 0, 1), ("uint16", 0, 1), ("bool", 0, 1), ("uint8", 0, 255),
     ("int8", -128, 127), ("float16", -3.5, 3.5), ("float64", -3.5, 3.5)],
)  # fmt: skip
def test_ranges_by_type(dtype: str, low: float, high: float) -> None:
    feed = next(iter(synthetic([TensorInfo("x", dtype, (64, 64))], 1)))["x"]
    assert feed.dtype == np.dtype(dtype)
    assert low <= feed.min() < feed.max() <= high


def test_strings() -> None:
    feed = next(iter(synthetic([TensorInfo("x", "object", (None, 8))], 1)))["x"]
    assert feed.shape == (1, 8)
    assert set(feed.ravel().tolist()) <= {"0", "1"}


@given(st.lists(st.integers(0, 4), max_size=4))
def test_any_fixed_shape(shape: list[int]) -> None:
    info = TensorInfo("x", "float32", tuple(shape))
    assert next(iter(synthetic([info], 1)))["x"].shape == tuple(shape)


def test_an_axis_without_size_is_refused_with_the_flag_to_give() -> None:
    info = TensorInfo("x", "float32", ("batch", 3, "height", None))
    with pytest.raises(EdgeqError, match=r"needs a size for axis 2 \[needs-shape\]$") as caught:
        synthetic([info], 1)
    assert caught.value.hints == ("--shape x=1x3x1x1",)


def test_a_size_beyond_all_bounds_is_refused() -> None:
    with pytest.raises(EdgeqError, match=r"too large to make up \[needs-shape\]"):
        synthetic([TensorInfo("x", "float32", (2**20, 2**20))], 1)


def test_a_type_that_numpy_lacks_is_refused() -> None:
    with pytest.raises(EdgeqError, match=r"is bfloat16, which numpy cannot make up \[bad-data\]"):
        list(synthetic([TensorInfo("x", "bfloat16", (1, 2))], 1))
