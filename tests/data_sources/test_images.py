"""Folders of images as data: order, classes, what is said, and what is refused by name."""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeq.data import open_source
from edgeq.errors import EdgeqError, MissingExtra
from edgeq_runtime.preprocess import InputSpec
from edgeq_runtime.tensors import TensorInfo

pytestmark = pytest.mark.images
RNG = np.random.default_rng(0)
IMAGE = TensorInfo("image", "float32", ("batch", 3, 4, 5))
SPEC = InputSpec(resize=(4, 5), mean=(0.5,), std=(0.25,))
SPECS = {"image": SPEC}
Draw = Callable[..., np.ndarray]


@pytest.fixture
def draw(tmp_path: Path) -> Draw:
    """Save an image of random pixels below tmp_path; gives the pixels."""

    def save(name: str, height: int = 6, width: int = 7, mode: str = "RGB") -> np.ndarray:
        from PIL import Image

        array = RNG.integers(0, 256, (height, width, 3), dtype=np.uint8)
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        image = Image.fromarray(array).convert(mode)
        image.save(path)
        return np.asarray(image.convert("RGB"))

    return save


def refused(slug: str, spec: Any, *inputs: TensorInfo, **options: Any) -> EdgeqError:
    with pytest.raises(EdgeqError) as caught:
        list(open_source(spec, inputs=inputs, **options))
    assert caught.value.slug == slug, str(caught.value)
    return caught.value


def test_a_flat_folder_by_name(tmp_path: Path, draw: Draw) -> None:
    two, ten, one = draw("2.png"), draw("10.bmp"), draw("1.PNG", 9, 4)
    source = open_source(tmp_path, inputs=[IMAGE], specs=SPECS)
    assert source.description == tmp_path.name
    assert source.count == 3
    assert source.names == ("1.PNG", "10.bmp", "2.png")
    assert source.labels == ()
    for _ in range(2):
        feeds = list(source)
        assert [feed["image"].shape for feed in feeds] == [(1, 3, 4, 5)] * 3
        for feed, pixels in zip(feeds, (one, ten, two), strict=True):
            assert np.array_equal(feed["image"][0], SPEC.apply(pixels))
    assert source.notes[1:] == ("input `image`: preprocessed as `[input.image]` says",)
    assert source.notes[0].startswith("images: 3 images decoded by Pillow ")


def test_one_file(tmp_path: Path, draw: Draw) -> None:
    pixels = draw("cat.png")
    source = open_source(tmp_path / "cat.png", inputs=[IMAGE], specs=SPECS)
    assert (source.count, source.names) == (1, ("cat.png",))
    assert np.array_equal(next(iter(source))["image"][0], SPEC.apply(pixels))


def test_class_folders(tmp_path: Path, draw: Draw) -> None:
    for name in ("dog/a.png", "cat/b.png", "cat/a.png", "emu/z.png"):
        draw(name)
    source = open_source(tmp_path, inputs=[IMAGE], specs=SPECS)
    assert source.classes == ("cat", "dog", "emu")
    assert source.names == ("a.png", "b.png", "a.png", "z.png")
    assert source.labels == (0, 0, 1, 2)
    limited = open_source(tmp_path, inputs=[IMAGE], specs=SPECS, limit=2)
    assert limited.labels == (0, 1)
    assert "2 of 4 images used, evenly spaced" in limited.notes
    assert len(list(limited)) == 2


def test_a_fixed_batch_is_filled(tmp_path: Path, draw: Draw) -> None:
    pixels = [draw(f"{at}.png") for at in range(5)]
    info = TensorInfo("image", "float32", (2, 3, 4, 5))
    source = open_source(tmp_path, inputs=[info], specs=SPECS)
    feeds = list(source)
    assert (source.count, source.group, source.skipped) == (2, 2, 1)
    assert [feed["image"].shape for feed in feeds] == [(2, 3, 4, 5)] * 2
    assert np.array_equal(feeds[1]["image"][1], SPEC.apply(pixels[3]))
    assert "1 sample dropped: the model's batch is 2" in source.notes
    assert len(source.names) == 4


def test_the_one_folder_of_the_input(tmp_path: Path, draw: Draw) -> None:
    draw("image/a.png")
    source = open_source(tmp_path, inputs=[IMAGE], specs=SPECS)
    assert (source.count, source.classes) == (1, ())


def test_one_channel_gets_grey(tmp_path: Path, draw: Draw) -> None:
    pixels = draw("a.png", 4, 5)
    info = TensorInfo("image", "float32", ("batch", 1, 4, 5))
    source = open_source(tmp_path, inputs=[info], specs={"image": InputSpec(scale=1.0)})
    from PIL import Image

    grey = np.asarray(Image.fromarray(pixels).convert("L"), np.float32)
    assert np.array_equal(next(iter(source))["image"][0, 0], grey)
    assert "images: 1 image in colour, turned to grey" in source.notes


def test_what_decoding_does_is_said(tmp_path: Path, draw: Draw) -> None:
    from PIL import Image

    draw("a.png", mode="L"), draw("b.png", mode="P"), draw("c.png", mode="RGBA"), draw("d.png")
    draw("e.tiff", mode="CMYK")
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(draw("f.png")).save(tmp_path / "f.png", exif=exif.tobytes())
    frames = [Image.fromarray(draw("g.png")).convert("P") for _ in range(2)]
    (tmp_path / "g.png").unlink()
    frames[0].save(tmp_path / "g.gif", save_all=True, append_images=frames[1:])
    notes = open_source(tmp_path, inputs=[IMAGE], specs=SPECS).notes
    assert notes[1:-1] == (
        "images: 1 of 7 images turned upright as EXIF says",
        "images: 1 of 7 images with more frames, of which the first is used",
        "images: 1 of 7 images greyscale, repeated to RGB",
        "images: 2 of 7 images of a palette, looked up",
        "images: 1 of 7 images with alpha, which is left out",
        "images: 1 of 7 images in CMYK, turned to RGB",
    )


# -- refused --------------------------------------------------------------------------------------


def test_without_preprocessing_a_line_to_paste_is_given(
    tmp_path: Path, draw: Draw, monkeypatch: pytest.MonkeyPatch
) -> None:
    import subprocess
    import tomllib

    draw("a.png")
    info = TensorInfo("it's $(touch owned)", "float32", ("batch", 3, 8, 9))
    error = refused("needs-preprocess", tmp_path, info)
    assert "holds images, and nothing says how they become input" in error.message
    line = error.hints[0].split(": ", 1)[1]
    monkeypatch.chdir(tmp_path)
    subprocess.run(["sh", "-c", line], check=True)
    table = tomllib.loads(Path("edgeq.toml").read_text())["input"][info.name]
    assert InputSpec.from_table(info.name, table).resize == (8, 9)
    assert not Path("owned").exists()


def test_the_hint_knows_channels_last_and_grey(tmp_path: Path, draw: Draw) -> None:
    draw("a.png")
    last = refused("needs-preprocess", tmp_path, TensorInfo("x", "float32", ("n", 8, 9, 3)))
    assert "'resize = [8, 9]'" in last.hints[0]
    assert "nhwc" in last.hints[0]
    grey = refused("needs-preprocess", tmp_path, TensorInfo("x", "float32", ("n", 1, 8, 9)))
    assert "'mean = 0.5'" in grey.hints[0]


def test_models_that_take_no_image(tmp_path: Path, draw: Draw) -> None:
    draw("a.png")
    codes = TensorInfo("x", "uint8", ("n", 4, 5, 3))
    assert "wants uint8 [n, 4, 5, 3]" in refused("data-mismatch", tmp_path, codes).message
    two = refused("data-mismatch", tmp_path, IMAGE, TensorInfo("size", "int64", (2,)))
    assert "the model has 2 inputs: `image`, `size`" in two.message
    large = TensorInfo("image", "float32", ("n", 3, 9, 9))
    assert (
        "wants float32 [n, 3, 9, 9]"
        in refused("data-mismatch", tmp_path, large, specs=SPECS).message
    )


def test_a_mixed_folder_is_told(tmp_path: Path, draw: Draw) -> None:
    draw("a.png")
    (tmp_path / "labels.txt").write_text("cat\n")
    error = refused("bad-data", tmp_path, IMAGE, specs=SPECS)
    assert "`labels.txt` is not an image, by its name" in error.message
    (tmp_path / "labels.txt").unlink()
    draw("cat/a.png")
    error = refused("bad-data", tmp_path, IMAGE, specs=SPECS)
    assert "holds the file `a.png` beside the class folder `cat`" in error.message
    (tmp_path / "a.png").unlink()
    (tmp_path / "dog").mkdir()
    assert "dog holds no images" in refused("bad-data", tmp_path, IMAGE, specs=SPECS).message
    draw("dog/deep/a.png")
    error = refused("bad-data", tmp_path, IMAGE, specs=SPECS)
    assert "dog is a class folder and holds the folder `deep`" in error.message


def test_hidden_files_are_passed_over(tmp_path: Path, draw: Draw) -> None:
    draw("a.png")
    (tmp_path / ".DS_Store").write_bytes(b"x")
    assert open_source(tmp_path, inputs=[IMAGE], specs=SPECS).count == 1


def test_a_bad_file_is_named_before_any_work(tmp_path: Path, draw: Draw) -> None:
    draw("a.png"), draw("b.png")
    (tmp_path / "c.png").write_bytes(b"hello")
    with pytest.raises(EdgeqError, match=r"c\.png` is no image") as caught:
        open_source(tmp_path, inputs=[IMAGE], specs=SPECS)
    assert caught.value.slug == "bad-image"


def test_a_file_cut_short_is_named(tmp_path: Path, draw: Draw) -> None:
    draw("a.png"), draw("b.png", 50, 50)
    data = (tmp_path / "b.png").read_bytes()
    (tmp_path / "b.png").write_bytes(data[: len(data) // 2])
    assert (
        "b.png` is damaged: image file is truncated"
        in refused("bad-image", tmp_path, IMAGE, specs=SPECS).message
    )


def test_links_that_lead_in_circles_are_told(tmp_path: Path, draw: Draw) -> None:
    draw("cat/a.png")
    loop = tmp_path / "cat" / "loop.png"
    loop.symlink_to(loop)
    assert "loop.png` cannot be read" in refused("bad-image", tmp_path, IMAGE, specs=SPECS).message
    loop.unlink()
    (tmp_path / "dog").symlink_to(tmp_path)
    error = refused("bad-data", tmp_path, IMAGE, specs=SPECS)
    assert "dog is a class folder and holds the folder `cat`" in error.message


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.png")
    assert "is not a file" in refused("bad-image", tmp_path, IMAGE, specs=SPECS).message


def test_names_that_are_not_utf8_are_told_with_escapes(tmp_path: Path, draw: Draw) -> None:
    """They go into manifests and JSON, which hold text alone."""
    folder = tmp_path / os.fsdecode(b"im\xff")
    draw(f"{folder.name}/a/" + os.fsdecode(b"\xfe.png"))
    (folder / "a").rename(folder / os.fsdecode(b"\xfd"))
    source = open_source(folder, inputs=[IMAGE], specs=SPECS)
    assert (source.description, source.classes) == ("im\\xff", ("\\xfd",))
    assert source.names == ("\\xfe.png",)
    assert len(list(source)) == 1


def test_a_folder_called_like_an_image_is_none(tmp_path: Path) -> None:
    (tmp_path / "a.png").mkdir()
    np.save(tmp_path / "b.npy", np.zeros((1, 3, 4, 5), np.float32))
    assert "`a.png` is neither a .npy file" in refused("bad-data", tmp_path, IMAGE).message


def test_an_image_too_small_for_the_crop_is_named(tmp_path: Path, draw: Draw) -> None:
    draw("a.png", 3, 3)
    error = refused("bad-data", tmp_path, IMAGE, specs={"image": InputSpec(crop=(4, 5))})
    assert f"{tmp_path / 'a.png'}: image: 3 x 3 after resizing, smaller than crop" in error.message


def test_without_pillow_the_extra_is_named(
    tmp_path: Path, draw: Draw, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw("a.png")
    for name in [name for name in sys.modules if name.split(".")[0] == "PIL"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(MissingExtra, match="reading image files needs `pillow`") as caught:
        open_source(tmp_path, inputs=[IMAGE], specs=SPECS)
    assert caught.value.hints == ('pip install "edgeq[images]"',)
