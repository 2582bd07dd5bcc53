"""Sources of samples: what each form yields, what is said, and how a mismatch is told."""
# ruff: noqa: E501 - tables of whole messages, one row each

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeq.data import Source, open_source
from edgeq.data.feeds import evenly_spaced
from edgeq.errors import EdgeqError
from edgeq_runtime.preprocess import InputSpec
from edgeq_runtime.tensors import TensorInfo

IMAGE = TensorInfo("image", "float32", ("batch", 3, 4, 5))
IDS = TensorInfo("ids", "int64", ("batch", "length"))
MASK = TensorInfo("mask", "int64", ("batch", "length"))
Write = Callable[..., Path]


def images(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, 3, 4, 5)).astype(np.float32)


@pytest.fixture
def npz(tmp_path: Path) -> Write:
    def write(**arrays: np.ndarray) -> Path:
        np.savez(tmp_path / "calib.npz", **arrays)
        return tmp_path / "calib.npz"

    return write


@pytest.fixture
def code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], str]:
    """Write data.py into the current folder; gives the file's name."""
    monkeypatch.chdir(tmp_path)

    def write(text: str) -> str:
        Path("data.py").write_text(text)
        return "data.py"

    return write


def refused(slug: str, spec: Any, *inputs: TensorInfo, **options: Any) -> EdgeqError:
    with pytest.raises(EdgeqError) as caught:
        list(open_source(spec, inputs=inputs, **options))
    assert caught.value.slug == slug, str(caught.value)
    return caught.value


# -- npz ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_an_npz_gives_its_samples_one_by_one(tmp_path: Path, save: Any) -> None:
    array = images(7)
    save(tmp_path / "c.npz", image=array)
    source = open_source(tmp_path / "c.npz", inputs=[IMAGE])
    assert (source.count, source.notes, source.skipped) == (7, (), 0)
    feeds = list(source)
    assert [feed["image"].shape for feed in feeds] == [(1, 3, 4, 5)] * 7
    np.testing.assert_array_equal(np.concatenate([f["image"] for f in feeds]), array)
    np.testing.assert_array_equal(
        np.concatenate([f["image"] for f in source]), array, err_msg="a second pass"
    )


def test_a_single_array_feeds_a_single_input_whatever_its_name_and_it_is_said(npz: Write) -> None:
    source = open_source(npz(foo=images(2)), inputs=[IMAGE])
    assert (source.count, source.notes) == (2, ("array `foo` is used as input `image`",))
    assert open_source({"image": images(2)}, inputs=[IMAGE]).notes == ()
    beside_labels = open_source(npz(foo=images(2), y=np.arange(2)), inputs=[IMAGE])
    assert "array `foo` is used as input `image`" in beside_labels.notes


def test_an_array_without_a_name_needs_no_note(tmp_path: Path) -> None:
    np.save(tmp_path / "calib.npy", images(2))
    for spec in (images(2), tmp_path / "calib.npy", lambda: images(2), lambda: iter(images(2))):
        assert open_source(spec, inputs=[IMAGE]).notes == ()


@pytest.mark.parametrize(
    "function",
    [lambda: {"foo": images(3)}, lambda: ({"foo": image} for image in images(3))],
    ids=["arrays", "items"],
)
def test_an_array_of_another_name_from_a_function_is_said(function: Any) -> None:
    source = open_source(function, inputs=[IMAGE])
    assert len(list(source)) == 3
    assert source.notes == ("array `foo` is used as input `image`",)


def test_labels_are_never_an_input(npz: Write, tmp_path: Path) -> None:
    np.save(tmp_path / "y.npy", images(2))
    specs = (
        npz(y=images(2)),
        {"y": images(2)},
        tmp_path / "y.npy",
        lambda: {"y": images(2)},
        lambda: ({"y": image} for image in images(2)),
    )
    for spec in specs:
        error = refused("data-mismatch", spec, IMAGE)
        assert error.message.endswith(
            "has no array for input `image`; it has `y`, which holds labels"
        )
    called_y = TensorInfo("y", "float32", IMAGE.shape)
    assert open_source(npz(y=images(2)), inputs=[called_y]).notes == ()


def test_arrays_that_are_no_input_are_said(npz: Write) -> None:
    path = npz(image=images(2), path=np.array(["a", "b"]), y=np.arange(2))
    source = open_source(path, inputs=[IMAGE])
    assert source.notes == (
        "array `path` of calib.npz is no input and is not used",
        "array `y` of calib.npz is no input and is not used",
    )


def test_several_inputs_go_by_name(npz: Write) -> None:
    ids = np.arange(12).reshape(3, 4)
    source = open_source(npz(mask=np.ones((3, 4), np.int64), ids=ids), inputs=[IDS, MASK])
    feeds = list(source)
    assert [list(feed) for feed in feeds] == [["ids", "mask"]] * 3
    np.testing.assert_array_equal(feeds[2]["ids"], [[8, 9, 10, 11]])


def test_a_missing_input_is_named_with_what_there_is(npz: Write) -> None:
    error = refused("data-mismatch", npz(idz=np.ones((3, 4)), mask=np.ones((3, 4))), IDS, MASK)
    assert "has no array for input `ids`; it has `idz`, `mask`" in error.message
    assert error.hints == ("did you mean `idz`?",)


def test_unequal_numbers_of_samples_are_named(npz: Write) -> None:
    path = npz(ids=np.ones((3, 4), np.int64), mask=np.ones((2, 4), np.int64))
    error = refused("data-mismatch", path, IDS, MASK)
    assert error.message.endswith("the inputs have different numbers of samples: `ids` 3, `mask` 2")


def test_a_wrong_shape_names_input_wanted_and_got(npz: Write) -> None:
    error = refused("data-mismatch", npz(image=np.ones((8, 4, 5, 3), np.float32)), IMAGE)
    assert "input `image` wants float32 [samples, 3, 4, 5], got float32 [8, 4, 5, 3]" in str(error)
    assert error.hints == ("channels last: write the array as `array.transpose(0, 3, 1, 2)`",)


def test_a_sample_without_sample_axis_is_refused(npz: Write) -> None:
    refused("data-mismatch", npz(image=np.ones((3, 4, 5), np.float32)), IMAGE)


def test_no_samples_at_all(npz: Write) -> None:
    error = refused("bad-data", npz(image=np.ones((0, 3, 4, 5), np.float32)), IMAGE)
    assert error.message.endswith("holds no samples")


@pytest.mark.parametrize(("value", "word"), [(np.nan, "NaN"), (np.inf, "Inf"), (-np.inf, "Inf")])
def test_a_sample_that_is_not_finite_is_named(npz: Write, value: float, word: str) -> None:
    array = images(15)
    array[12, 1, 2, 3] = value
    path = npz(image=array)
    error = refused("bad-data", path, IMAGE)
    assert error.message == f"{path}: sample 12: array `image` has {word}"


# -- batches ------------------------------------------------------------------------------------


def test_a_fixed_batch_takes_groups_and_says_what_is_dropped(npz: Write) -> None:
    info = TensorInfo("image", "float32", (4, 3, 4, 5))
    path = npz(image=images(11))
    source = open_source(path, inputs=[info])
    assert (source.count, source.group, source.skipped) == (2, 4, 3)
    assert source.notes == ("3 samples of calib.npz dropped: the model's batch is 4",)
    feeds = list(source)
    np.testing.assert_array_equal(np.concatenate([f["image"] for f in feeds]), images(11)[:8])


def test_too_few_samples_for_one_batch(npz: Write) -> None:
    info = TensorInfo("image", "float32", (4, 3, 4, 5))
    error = refused("bad-data", npz(image=images(3)), info)
    assert error.message.endswith("holds 3 samples, and the model's batch is 4")


def test_state_and_scalars_come_as_whole_feeds(npz: Write) -> None:
    inputs = [
        TensorInfo("input", "float32", (None, 6)),
        TensorInfo("state", "float32", (2, 1, 8)),
        TensorInfo("sr", "int64", ()),
    ]
    path = npz(
        input=np.ones((5, 6), np.float32),
        state=np.arange(80, dtype=np.float32).reshape(5, 2, 1, 8),
        sr=np.full(5, 16000),
    )
    feeds = list(open_source(path, inputs=inputs))
    assert len(feeds) == 5
    assert [array.shape for array in feeds[1].values()] == [(1, 6), (2, 1, 8), ()]
    assert feeds[1]["state"][0, 0, 0] == 16


@given(st.integers(1, 60), st.integers(1, 9), st.one_of(st.none(), st.integers(1, 70)))
def test_groups_cover_what_they_say(count: int, batch: int, limit: int | None) -> None:
    info = TensorInfo("x", "int64", (batch, 1))
    array = np.arange(count).reshape(count, 1)
    if count < batch:
        refused("bad-data", array, info)
        return
    source = open_source(array, inputs=[info], limit=limit)
    feeds = list(source)
    assert source.count == len(feeds) >= 1
    assert source.skipped == count % batch
    seen = np.concatenate([feed["x"] for feed in feeds]).ravel()
    assert len(seen) == len(set(seen.tolist())) == len(feeds) * batch
    if limit is not None:
        assert len(seen) <= max(limit, batch)
    assert (np.diff(seen) > 0).all()


def test_a_limit_takes_samples_evenly_and_says_so(npz: Write) -> None:
    array = np.arange(100, dtype=np.float32).reshape(100, 1)
    info = TensorInfo("x", "float32", ("n", 1))
    source = open_source(npz(x=array), inputs=[info], limit=4)
    assert [int(feed["x"][0, 0]) for feed in source] == [0, 25, 50, 75]
    assert source.notes == ("4 of 100 samples used, evenly spaced",)


@given(st.integers(0, 1000), st.one_of(st.none(), st.integers(1, 1200)))
def test_even_spacing(count: int, limit: int | None) -> None:
    chosen = evenly_spaced(count, limit)
    assert len(chosen) == (count if limit is None else min(count, limit))
    assert all(0 <= i < count for i in chosen)
    steps = np.diff(chosen)
    assert len(steps) == 0 or (steps.min() >= 1 and steps.max() - steps.min() <= 1)


# -- types --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("have", "want", "note"),
    [
        ("float64", "float32", "input `x`: float64 cast to float32"),
        ("int32", "float32", "input `x`: int32 cast to float32"),
        ("uint8", "float32", "input `x`: uint8 cast to float32"),
        ("bool", "float32", "input `x`: bool cast to float32"),
        ("float32", "float16", "input `x`: float32 cast to float16"),
        ("int64", "int32", "input `x`: int64 cast to int32"),
        (">f4", "float32", None),
        ("float32", "float32", None),
    ],
)
def test_casts_are_said(npz: Write, have: str, want: str, note: str | None) -> None:
    array = np.arange(6).reshape(2, 3).astype(have)
    source = open_source(npz(x=array), inputs=[TensorInfo("x", want, ("n", 3))])
    assert source.notes == (() if note is None else (note,))
    feed = next(iter(source))["x"]
    assert feed.dtype == np.dtype(want)
    np.testing.assert_array_equal(feed, array[:1].astype(want))


@pytest.mark.parametrize(
    ("have", "want"),
    [("float32", "int64"), ("float32", "bool"), ("int64", "bool"), ("U3", "float32"),
     ("float32", "object"), ("float32", "bfloat16")],
)  # fmt: skip
def test_other_types_are_refused(npz: Write, have: str, want: str) -> None:
    error = refused("data-mismatch", npz(x=np.ones((2, 3), have)), TensorInfo("x", want, ("n", 3)))
    assert "input `x` wants " in error.message


def test_an_integer_that_does_not_fit_is_named(npz: Write) -> None:
    path = npz(x=np.array([[1], [2**40]]))
    error = refused("bad-data", path, TensorInfo("x", "int32", ("n", 1)))
    assert error.message == f"{path}: sample 1: a value of `x` is no int32"


def test_a_float_that_overflows_is_named(npz: Write) -> None:
    path = npz(x=np.array([[1.0], [1e300]]))
    error = refused("bad-data", path, TensorInfo("x", "float32", ("n", 1)))
    assert error.message == f"{path}: sample 1: array `x` cast to float32 has Inf"


def test_strings_for_a_string_input(npz: Write) -> None:
    source = open_source(
        npz(x=np.array([["a"], ["b"]])), inputs=[TensorInfo("x", "object", (None, 1))]
    )
    assert [feed["x"].tolist() for feed in source] == [[["a"]], [["b"]]]


# -- images as arrays -----------------------------------------------------------------------------

PIXELS = TensorInfo("image", "float32", (None, 3, 4, 4))
SPEC = InputSpec.from_table("image", {"scale": 0.5, "mean": [1, 2, 3], "std": [1, 1, 1]})


def test_uint8_images_are_preprocessed_and_it_is_said(npz: Write) -> None:
    array = np.random.default_rng(1).integers(0, 256, (3, 4, 4, 3), dtype=np.uint8)
    source = open_source(npz(image=array), inputs=[PIXELS], specs={"image": SPEC})
    assert source.notes == ("input `image`: preprocessed as `[input.image]` says",)
    wanted = (array * 0.5 - np.array([1, 2, 3])).transpose(0, 3, 1, 2).astype(np.float32)
    np.testing.assert_array_equal(np.concatenate([f["image"] for f in source]), wanted)


def test_uint8_images_without_a_spec_are_refused(npz: Write) -> None:
    path = npz(image=np.zeros((3, 9, 9, 3), np.uint8))
    error = refused("needs-preprocess", path, PIXELS)
    assert "got uint8 images [3, 9, 9, 3] and no `[input.image]`" in error.message


def test_images_that_do_not_end_in_the_models_shape_are_refused(npz: Write) -> None:
    path = npz(image=np.zeros((3, 9, 9, 3), np.uint8))
    error = refused("data-mismatch", path, PIXELS, specs={"image": SPEC})
    assert "got float32 [1, 3, 9, 9]" in error.message


def test_float_arrays_beside_a_spec_are_used_as_they_are(npz: Write) -> None:
    array = np.ones((2, 3, 4, 4), np.float32)
    source = open_source(npz(image=array), inputs=[PIXELS], specs={"image": SPEC})
    assert source.notes == (
        "input `image`: the arrays are float32, so `[input.image]` is not applied",
    )
    np.testing.assert_array_equal(next(iter(source))["image"], array[:1])


# -- folders ------------------------------------------------------------------------------------


def test_a_folder_has_one_sample_a_file_in_the_order_of_names(tmp_path: Path) -> None:
    array = images(12)
    for index, sample in enumerate(array):
        np.save(tmp_path / f"{index:03}.npy", sample if index % 2 else sample[None])
    (tmp_path / ".hidden").write_text("x")
    source = open_source(tmp_path, inputs=[IMAGE])
    assert source.count == 12
    np.testing.assert_array_equal(np.concatenate([f["image"] for f in source]), array)


def test_a_folder_for_several_inputs_has_a_folder_for_each(tmp_path: Path) -> None:
    for name in ("ids", "mask"):
        (tmp_path / name).mkdir()
        for index in range(3):
            np.save(tmp_path / name / f"{index}.npy", np.full(index + 1, index))
    feeds = list(open_source(str(tmp_path), inputs=[IDS, MASK]))
    assert [feed["ids"].shape for feed in feeds] == [(1, 1), (1, 2), (1, 3)]
    (tmp_path / "mask" / "1.npy").unlink()
    error = refused("data-mismatch", tmp_path, IDS, MASK)
    assert "`1.npy` is not there for every input" in error.message


def test_a_folder_without_the_inputs_folders(tmp_path: Path) -> None:
    (tmp_path / "ids").mkdir()
    error = refused("data-mismatch", tmp_path, IDS, MASK)
    assert error.message == f"{tmp_path} has no folder for input `mask`"


def test_a_folder_fills_a_fixed_batch(tmp_path: Path) -> None:
    for index, sample in enumerate(images(7)):
        np.save(tmp_path / f"{index}.npy", sample)
    source = open_source(tmp_path, inputs=[TensorInfo("image", "float32", (3, 3, 4, 5))])
    assert (source.count, [f["image"].shape[0] for f in source]) == (2, [3, 3])
    assert source.skipped == 1
    assert source.notes == (f"1 sample of {tmp_path.name} dropped: the model's batch is 3",)


def test_a_folder_of_images_as_arrays_of_any_size(tmp_path: Path) -> None:
    spec = InputSpec.from_table("image", {"resize": [4, 4]})
    for index, side in enumerate((4, 9, 30)):
        np.save(tmp_path / f"{index}.npy", np.full((side, side + 1, 3), 255, np.uint8))
    source = open_source(tmp_path, inputs=[PIXELS], specs={"image": spec})
    assert [float(feed["image"].max()) for feed in source] == [1.0, 1.0, 1.0]
    assert source.notes == ("input `image`: preprocessed as `[input.image]` says",)


def test_a_misfit_in_a_folder_is_found_before_any_work(tmp_path: Path) -> None:
    np.save(tmp_path / "0.npy", images(1)[0])
    np.save(tmp_path / "1.npy", images(8))
    with pytest.raises(
        EdgeqError, match=r"1.npy: input `image` wants one sample a file, float32 \[3"
    ):
        open_source(tmp_path, inputs=[IMAGE])


@pytest.mark.parametrize(
    ("name", "specs", "slug", "text"),
    [
        ("cat.png", {}, "bad-data", "holds images and .npy files, `0.npy` for one"),
        ("cat.JPG", {"image": SPEC}, "bad-data", "holds images and .npy files, `0.npy` for one"),
        ("notes.txt", {}, "bad-data", "`notes.txt` is neither a .npy file, nor an image, nor"),
    ],
)
def test_other_files_in_a_folder_are_named(
    tmp_path: Path, name: str, specs: dict[str, InputSpec], slug: str, text: str
) -> None:
    np.save(tmp_path / "0.npy", images(1)[0])
    (tmp_path / name).write_bytes(b"x")
    assert text in refused(slug, tmp_path, IMAGE, specs=specs).message


def test_an_empty_folder(tmp_path: Path) -> None:
    assert refused("bad-data", tmp_path, IMAGE).message == (
        f"{tmp_path} holds no .npy files and no images"
    )


@pytest.mark.parametrize("name", ["/etc", "../..", "a/b", ".."])
def test_an_inputs_name_leads_to_no_other_folder(tmp_path: Path, name: str) -> None:
    np.save(tmp_path / "0.npy", np.ones(2, np.float32))
    source = open_source(tmp_path, inputs=[TensorInfo(name, "float32", (None, 2))])
    assert source.count == 1
    other = TensorInfo("x", "float32", (None, 2))
    refused("data-mismatch", tmp_path, TensorInfo(name, "float32", (None, 2)), other)


def test_a_limit_on_a_folder(tmp_path: Path) -> None:
    for index in range(10):
        np.save(tmp_path / f"{index}.npy", np.full(1, index, np.float32))
    info = TensorInfo("x", "float32", (None, 1))
    source = open_source(tmp_path, inputs=[info], limit=2)
    assert [float(f["x"][0, 0]) for f in source] == [0.0, 5.0]
    assert source.notes == ("2 of 10 files used, evenly spaced",)


# -- functions ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [
        "    for row in DATA:\n        yield row\n",
        "    for row in DATA:\n        yield {'image': row[None]}\n",
        "    return list(DATA)\n",
        "    return DATA\n",
        "    return {'image': DATA}\n",
        "    yield DATA\n",
        "    yield DATA[:2]\n    yield DATA[2:]\n",
    ],
)
def test_a_function_gives_samples_in_any_of_its_ways(code: Callable[[str], str], body: str) -> None:
    head = "import numpy as np\nDATA = np.arange(5 * 60, dtype=np.float32).reshape(5, 3, 4, 5)\n"
    source = open_source(code(f"{head}def calib():\n{body}") + ":calib", inputs=[IMAGE])
    for _ in range(2):  # a second pass gives the same
        feeds = [feed["image"] for feed in source]
        assert [feed.shape for feed in feeds] == [(1, 3, 4, 5)] * 5
        assert np.concatenate(feeds).ravel().tolist() == list(range(300))


def test_a_function_may_be_given_itself() -> None:
    def samples() -> Iterator[dict[str, np.ndarray]]:
        for index in range(4):
            yield {"ids": np.arange(index + 1), "mask": np.ones(index + 1, np.int64)}

    source = open_source(samples, inputs=[IDS, MASK], limit=3)
    assert source.count is None
    assert [feed["ids"].shape for feed in source] == [(1, 1), (1, 2), (1, 3)]


def test_a_function_may_import_its_neighbour_and_leaves_nothing(
    code: Callable[[str], str], tmp_path: Path
) -> None:
    (tmp_path / "edgeq_neighbour_of_a_test.py").write_text(
        "import numpy as np\nX = np.ones((2, 3, 4, 5))\n"
    )
    spec = code("from edgeq_neighbour_of_a_test import X\ndef f():\n    return X\n") + ":f"
    assert open_source(spec, inputs=[IMAGE]).notes == ("input `image`: float64 cast to float32",)
    assert not (tmp_path / "__pycache__" / "data.cpython-311.pyc").exists()


def test_a_fixed_batch_counts_what_a_function_left_over() -> None:
    source = open_source(
        lambda: (images(1)[0] for _ in range(8)),
        inputs=[TensorInfo("image", "float32", (3, 3, 4, 5))],
    )
    assert [feed["image"].shape[0] for feed in source] == [3, 3]
    assert source.skipped == 2


def test_an_endless_function_is_limited() -> None:
    def forever() -> Iterator[np.ndarray]:
        while True:
            yield images(1)[0]

    assert len(list(open_source(forever, inputs=[IMAGE], limit=5))) == 5


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("def other(): pass\n", "data.py has no function `calib`"),
        ("calib = 3\n", "data.py: `calib` is a int, not a function"),
        ("import nowhere_to_be_found\n", "data.py:1: ModuleNotFoundError: No module named 'nowhere_to_be_found'"),
        ("def calib(:\n", "data.py:1: SyntaxError: invalid syntax"),
        ("x = 1\n\ndef calib():\n    return missing\n", "data.py:4: NameError: name 'missing' is not defined"),
        ("def calib():\n    yield 1 / 0\n", "data.py:2: ZeroDivisionError: division by zero"),
        ("import sys\ndef calib():\n    sys.exit(3)\n", "data.py:3: SystemExit: 3"),
        ("def calib():\n    return 3\n", "data.py:1: `data.py:calib` returned int, not arrays or samples"),
        ("def calib(n):\n    return n\n", "data.py: TypeError: calib() missing 1 required positional argument: 'n'"),
        ("it = iter([[1.0]])\ndef calib():\n    return it\n", "data.py:2: `data.py:calib` returns the same iterator at every call"),
    ],
)  # fmt: skip
def test_a_users_mistake_is_told_by_file_and_line(
    code: Callable[[str], str], text: str, message: str
) -> None:
    info = TensorInfo("x", "float32", (None, 1))
    assert refused("bad-function", code(text) + ":calib", info).message == message


def test_a_missing_file_and_a_near_name(code: Callable[[str], str]) -> None:
    error = refused("bad-function", "nowhere.py:f", IMAGE)
    assert error.message == "nowhere.py: No such file or directory"
    error = refused("bad-function", code("def calibrate(): pass\n") + ":calibrat", IMAGE)
    assert error.hints == ("did you mean `calibrate`?",)


def test_items_that_do_not_fit_are_placed() -> None:
    def samples() -> Iterator[np.ndarray]:
        yield images(1)[0]
        yield np.ones((3, 4, 6), np.float32)

    error = refused("data-mismatch", samples, IMAGE)
    assert re.search(
        r"sample 1: input `image` wants float32 \[batch, 3, 4, 5\], got float32 \[3, 4, 6\]",
        str(error),
    )


def test_a_function_that_gives_nothing() -> None:
    assert refused("bad-data", list, IMAGE).message.endswith("gives no samples")


# -- arrays and nonsense ------------------------------------------------------------------------


def test_arrays_in_memory() -> None:
    assert open_source(images(3), inputs=[IMAGE]).count == 3
    assert open_source({"image": images(3)}, inputs=[IMAGE], limit=2).count == 2
    assert isinstance(open_source(images(1), inputs=[IMAGE]), Source)


def test_a_single_npy_is_samples(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", images(3))
    assert open_source(tmp_path / "x.npy", inputs=[IMAGE]).count == 3


@pytest.mark.parametrize(
    ("spec", "slug", "message"),
    [
        (3, "bad-data", "data is a int, neither a path, arrays nor a function"),
        ("no/such/folder", "bad-data", "no/such/folder: no such file or folder"),
        ({"image": np.array([object()])}, "bad-data", "array `image` has the type object, which no model takes"),
        ({"image": np.array([1j])}, "bad-data", "array `image` has the type complex128"),
        (__file__, "bad-data", "is neither an .npz, a .npy, an image, a folder of .npy or images, nor file.py:function"),
    ],
)  # fmt: skip
def test_nonsense_is_told(spec: Any, slug: str, message: str) -> None:
    assert message in refused(slug, spec, IMAGE).message


# -- reports ---------------------------------------------------------------------------------------


def test_what_is_reported_does_not_depend_on_the_folder(tmp_path: Path) -> None:
    """Notes and descriptions go into bundles, which must be the same from any folder."""
    told = []
    for name in ("one", "two"):
        folder = tmp_path / name / "calib"
        folder.mkdir(parents=True)
        np.savez(folder / "c.npz", image=images(7), y=np.arange(7))
        for index, sample in enumerate(images(7)):
            np.save(folder.parent / f"{index}.npy", sample)
        (folder.parent / "0.npy").rename(folder / "0.npy")
        (folder / "data.py").write_text(
            "import numpy as np\ndef f():\n    yield {'image': np.ones((3, 4, 5)), 'z': 1}\n"
        )
        info = TensorInfo("image", "float32", (2, 3, 4, 5))
        sources = [
            open_source(folder / "c.npz", inputs=[info]),
            open_source(f"{folder}/data.py:f", inputs=[IMAGE]),
            open_source(lambda: iter(images(4)), inputs=[info]),
        ]
        told.append([(source.description, source.notes) for source in sources])
    assert told[0] == told[1]
    assert told[0][0] == (
        "c.npz",
        (
            "array `y` of c.npz is no input and is not used",
            "1 sample of c.npz dropped: the model's batch is 2",
        ),
    )
