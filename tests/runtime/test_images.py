"""Image files: what becomes of each kind of pixel, and what is refused, by name."""

import io
import os
import struct
import sys
import time
import warnings
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest

import edgeq_runtime
from edgeq_runtime import EdgeqError, InputSpec, images

pytestmark = pytest.mark.images
RNG = np.random.default_rng(0)


def pixels(height: int = 6, width: int = 9) -> np.ndarray:
    return RNG.integers(0, 256, (height, width, 3), dtype=np.uint8)


def picture(mode: str = "RGB", height: int = 6, width: int = 9) -> "object":
    from PIL import Image

    return Image.fromarray(pixels(height, width)).convert(mode)


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, *after: bytes, data: bytes = b"", depth: int = 8) -> bytes:
    """A PNG of RGB whose header says what it likes."""
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, 2, 0, 0, 0))
    body = chunk(b"IDAT", zlib.compress(data))
    return b"\x89PNG\r\n\x1a\n" + head + body + b"".join(after) + chunk(b"IEND", b"")


def exif(orientation: int) -> bytes:
    """A TIFF block with one tag."""
    return (
        b"II*\0\x08\0\0\0\x01\0" + struct.pack("<HHIHH", 0x0112, 3, 1, orientation, 0) + b"\0" * 4
    )


def refused(path: Path | str) -> EdgeqError:
    with pytest.raises(EdgeqError) as caught:
        images.read(path)
    assert caught.value.slug == "bad-image"
    assert str(path) in caught.value.message
    return caught.value


@pytest.mark.parametrize("suffix", ["png", "bmp", "ppm", "tiff", "webp", "gif"])
def test_lossless_formats_give_their_pixels(tmp_path: Path, suffix: str) -> None:
    from PIL import Image

    array = pixels() // 64 * 64  # few colours, so that a palette holds them
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(array).save(path, **({"lossless": True} if suffix == "webp" else {}))
    got = images.read(path)
    assert got.dtype == np.uint8
    assert got.flags.c_contiguous
    assert got.flags.writeable
    assert np.array_equal(got, array)


def test_jpeg(tmp_path: Path) -> None:
    from PIL import Image

    array = np.broadcast_to(np.linspace(0, 255, 64).astype(np.uint8)[:, None, None], (64, 64, 3))
    Image.fromarray(np.ascontiguousarray(array)).save(tmp_path / "a.jpg", quality=95)
    # a smooth ramp at quality 95: quantization steps of low frequencies are 1 or 2
    assert np.abs(images.read(tmp_path / "a.jpg").astype(int) - array).max() <= 4


@pytest.mark.parametrize(
    ("mode", "kind"),
    [
        ("1", images.GREY),
        ("L", images.GREY),
        ("LA", images.ALPHA),
        ("P", images.PALETTE),
        ("RGB", images.COLOUR),
        ("RGBA", images.ALPHA),
    ],
)
def test_every_kind_becomes_rgb_or_grey(tmp_path: Path, mode: str, kind: str) -> None:
    image = picture(mode)
    image.save(tmp_path / "a.png")
    assert images.header(tmp_path / "a.png").kind == kind
    got = images.read(tmp_path / "a.png")
    assert np.array_equal(got, np.asarray(image.convert("RGB")))
    grey = images.read(tmp_path / "a.png", channels=1)
    assert grey.shape == (6, 9, 1)
    assert np.array_equal(grey[:, :, 0], np.asarray(image.convert("RGB").convert("L")))


def test_alpha_is_left_out_not_blended(tmp_path: Path) -> None:
    from PIL import Image

    array = np.dstack([pixels(), np.zeros((6, 9), np.uint8)])  # all of it transparent
    Image.fromarray(array, "RGBA").save(tmp_path / "a.png")
    assert np.array_equal(images.read(tmp_path / "a.png"), array[:, :, :3])


def test_a_transparent_colour_is_left_out(tmp_path: Path) -> None:
    image = picture("P")
    image.save(tmp_path / "a.png", transparency=bytes(range(256)))
    assert images.header(tmp_path / "a.png").kind == images.PALETTE
    assert np.array_equal(images.read(tmp_path / "a.png"), np.asarray(image.convert("RGB")))
    array = pixels()
    from PIL import Image

    Image.fromarray(array).save(tmp_path / "b.png", transparency=(1, 2, 3))
    assert images.header(tmp_path / "b.png").kind == images.ALPHA
    assert np.array_equal(images.read(tmp_path / "b.png"), array)


def test_cmyk(tmp_path: Path) -> None:
    image = picture("CMYK")
    image.save(tmp_path / "a.tiff")
    assert images.header(tmp_path / "a.tiff").kind == images.CMYK
    assert np.array_equal(images.read(tmp_path / "a.tiff"), np.asarray(image.convert("RGB")))


@pytest.mark.parametrize("mode", ["I;16", "F", "I", "LAB"])
def test_pixels_without_one_rule_are_refused(tmp_path: Path, mode: str) -> None:
    from PIL import Image

    if mode == "LAB":
        Image.new("LAB", (4, 4)).save(tmp_path / "a.tiff")
    else:
        types = {"I;16": np.uint16, "F": np.float32, "I": np.int32}
        Image.fromarray(np.ones((4, 4), types[mode])).save(tmp_path / "a.tiff")
    error = refused(tmp_path / "a.tiff")
    assert "has pixels of mode" in error.message
    assert error.hints == ("convert it to 8-bit RGB first, as was done for training",)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("place", ["jpeg", "png", "png-late"])
def test_exif_orientation_is_applied(tmp_path: Path, orientation: int, place: str) -> None:
    """As `ImageOps.exif_transpose` does."""
    from PIL import Image, ImageOps

    path = tmp_path / f"a.{place[:4].rstrip('-')}"
    if place == "jpeg":
        Image.fromarray(pixels()).save(path, exif=b"Exif\0\0" + exif(orientation))
    elif place == "png":
        Image.fromarray(pixels()).save(path, exif=exif(orientation))
    else:  # after the pixels, where some tools write it
        rows = b"".join(b"\0" + row.tobytes() for row in pixels())
        path.write_bytes(png(9, 6, chunk(b"eXIf", exif(orientation)), data=rows))
    assert images.header(path).orientation == orientation
    want = np.asarray(ImageOps.exif_transpose(Image.open(path)).convert("RGB"))
    got = images.read(path)
    assert got.shape == ((9, 6, 3) if orientation > 4 else (6, 9, 3))
    assert np.array_equal(got, want)


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_an_orientation_that_there_is_not_is_upright(tmp_path: Path, orientation: int) -> None:
    picture().save(tmp_path / "a.jpg", exif=b"Exif\0\0" + exif(orientation))
    assert images.header(tmp_path / "a.jpg").orientation == 1


def test_of_many_frames_the_first_is_taken(tmp_path: Path) -> None:
    frames = [picture("P") for _ in range(3)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    assert not images.header(tmp_path / "a.gif").is_one
    assert np.array_equal(images.read(tmp_path / "a.gif"), np.asarray(frames[0].convert("RGB")))


# -- hostile files --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "size",
    [(2**13, 2**13 + 1), (2**16 + 1, 1), (1, 2**16 + 1), (2**31 - 1, 2**31 - 1), (40000, 40000)],
)
def test_a_bomb_is_refused_by_its_header(tmp_path: Path, size: tuple[int, int]) -> None:
    path = tmp_path / "bomb.png"
    path.write_bytes(png(*size))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert "pixels" in refused(path).message


def test_the_limit_itself_passes_the_header(tmp_path: Path) -> None:
    path = tmp_path / "large.png"
    path.write_bytes(png(2**13, 2**13))
    assert images.header(path).width == 2**13


def test_a_chain_of_frames_is_not_walked(tmp_path: Path) -> None:
    """Pillow counts them in time that grows by the square: 4 s for these, hours for many."""
    from PIL import Image

    Image.new("L", (4, 4)).save(tmp_path / "a.tif")
    data = (tmp_path / "a.tif").read_bytes()
    first = int.from_bytes(data[4:8], "little")
    size = 2 + 12 * int.from_bytes(data[first : first + 2], "little") + 4
    place = len(data)
    chain = bytearray(data)
    for index in range(16_000):
        last = index == 15_999
        after = 0 if last else place + size * (index + 1)
        chain += data[first : first + size - 4] + struct.pack("<I", after)
    struct.pack_into("<I", chain, first + size - 4, place)
    (tmp_path / "a.tif").write_bytes(chain)
    began = time.process_time()
    assert not images.header(tmp_path / "a.tif").is_one
    assert images.read(tmp_path / "a.tif").shape == (4, 4, 3)
    assert time.process_time() - began < 1  # milliseconds


def test_a_truncated_file_is_told(tmp_path: Path) -> None:
    for suffix in ("png", "jpg", "bmp", "webp"):
        whole = io.BytesIO()
        picture(height=64, width=64).save(whole, {"jpg": "JPEG"}.get(suffix, suffix.upper()))
        path = tmp_path / f"cut.{suffix}"
        path.write_bytes(whole.getvalue()[: len(whole.getvalue()) // 2])
        assert "is damaged" in refused(path).message or "no image" in refused(path).message


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"hello",
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n",  # Pillow would start Ghostscript
        b"8BPS\0\x01" + b"\0" * 40,
        b"\x89PNG\r\n\x1a\n",
        b"\xff\xd8\xff",
        b"P6 9999999999 9999999999 255\n",
        b"P6 -1 5 255\n",
        b"BM" + b"\xff" * 60,
        b"GIF89a" + b"\0" * 7,
        b"RIFF\x04\0\0\0WEBP",
        b"II*\0\x08\0\0\0" + b"\xff" * 64,
    ],
)
def test_what_is_no_image_is_told(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(data)
    refused(path)


def test_flipped_bytes_are_read_or_refused_and_nothing_else(tmp_path: Path) -> None:
    path, slugs = tmp_path / "a.bin", set()
    for suffix in ("PNG", "JPEG", "GIF", "WEBP", "TIFF", "BMP"):
        whole = io.BytesIO()
        image = picture("P" if suffix == "GIF" else "RGB", 16, 16)
        image.save(whole, suffix, **({} if suffix in ("GIF", "BMP") else {"exif": exif(6)}))
        for _ in range(60):
            data = bytearray(whole.getvalue())
            for _ in range(int(RNG.integers(1, 6))):
                data[int(RNG.integers(len(data)))] = int(RNG.integers(256))
            path.write_bytes(bytes(data))
            try:
                got = images.read(path)
            except EdgeqError as error:
                slugs.add(error.slug)
            else:
                assert got.dtype == np.uint8
                assert got.shape[2] == 3
    assert slugs == {"bad-image"}


def test_a_loop_of_links_a_pipe_and_a_folder_are_told(tmp_path: Path) -> None:
    loop, pipe, folder = tmp_path / "loop.png", tmp_path / "pipe.png", tmp_path / "folder.png"
    loop.symlink_to(loop)
    os.mkfifo(pipe)
    folder.mkdir()
    assert "cannot be read: Too many levels of symbolic links" in refused(loop).message
    assert "is not a file" in refused(pipe).message
    assert "is not a file" in refused(folder).message
    assert "cannot be read: No such file" in refused(tmp_path / "none.png").message
    assert "cannot be read" in refused("a\0b").message


def test_a_pipe_that_takes_a_files_place_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = tmp_path / "a.png"
    plain.write_bytes(b"x")
    status = os.stat(plain)
    os.mkfifo(tmp_path / "b.png")
    monkeypatch.setattr(os, "stat", lambda _: status)
    with pytest.raises(EdgeqError, match=r"b\.png` is not a file"):
        images.open_plain(str(tmp_path / "b.png"))


def test_a_large_file_is_not_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    picture().save(tmp_path / "a.png")
    monkeypatch.setattr(images, "MAX_FILE_BYTES", 20)
    assert "bytes, at most 20 are read" in refused(tmp_path / "a.png").message


def test_without_pillow_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    picture().save(tmp_path / "a.png")
    for name in [name for name in sys.modules if name.split(".")[0] == "PIL"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(EdgeqError, match="reading image files needs `pillow`") as caught:
        images.read(tmp_path / "a.png")
    assert caught.value.slug == "missing-extra"
    assert caught.value.hints == ('pip install "edgeq-runtime[images]"',)


# -- the runner -----------------------------------------------------------------------------------


@pytest.fixture
def runner(make: Callable[..., dict[str, bytes]], image_model: bytes) -> edgeq_runtime.Runner:
    specs = {"x": InputSpec(resize=(4, 5), mean=(0.5,), std=(0.25,))}
    return edgeq_runtime.load(make(image_model, input_specs=specs), isolate=False)


@pytest.fixture(scope="session")
def image_model() -> bytes:
    """The pixels themselves: [n, 3, 4, 5], times one."""
    import onnx

    text = """<ir_version: 10, opset_import: ["": 21]>
    tiny (float[n, 3, 4, 5] x) => (float[n, 3, 4, 5] y) <float[1] one = {1}> { y = Mul(x, one) }"""
    return onnx.parser.parse_model(text).SerializeToString()


def test_run_image_takes_a_path_or_pixels(runner: edgeq_runtime.Runner, tmp_path: Path) -> None:
    image = picture(height=11, width=13)
    image.save(tmp_path / "a.png")
    want = InputSpec(resize=(4, 5), mean=(0.5,), std=(0.25,)).apply(np.asarray(image))
    for given in (tmp_path / "a.png", str(tmp_path / "a.png"), np.asarray(image)):
        got: Mapping[str, np.ndarray] = runner.run_image(given)
        assert np.array_equal(got["y"][0], want)


def test_run_image_refuses_other_things(runner: edgeq_runtime.Runner) -> None:
    with pytest.raises(EdgeqError, match="image: got int, wanted a path or a uint8 array"):
        runner.run_image(3)
    with pytest.raises(EdgeqError, match="image: got float32"):
        runner.run_image(np.zeros((4, 5, 3), np.float32))
    with pytest.raises(EdgeqError, match=r"`none\.png` cannot be read"):
        runner.run_image("none.png")


def test_an_input_of_one_channel_gets_grey(
    make: Callable[..., dict[str, bytes]], image_model: bytes, tmp_path: Path
) -> None:
    import onnx

    text = onnx.printer.to_text(onnx.load_from_string(image_model)).replace("n,3,4,5", "n,1,4,5")
    model = onnx.parser.parse_model(text.replace("n, 3, 4, 5", "n,1,4,5")).SerializeToString()
    image = picture(height=4, width=5)
    image.save(tmp_path / "a.png")
    with edgeq_runtime.load(
        make(model, input_specs={"x": InputSpec(scale=1.0)}), isolate=False
    ) as runner:
        got = runner.run_image(tmp_path / "a.png")["y"]
    assert np.array_equal(got[0, 0], np.asarray(image.convert("L"), np.float32))


@pytest.mark.parametrize(
    ("shape", "layout", "channels"),
    [
        (("n", 3, 8, 8), "nchw", 3),
        (("n", 1, 8, 8), "nchw", 1),
        (("n", 8, 8, 1), "nhwc", 1),
        (("n", 1, 8, 3), "nhwc", 3),
        (("n", "c", 8, 8), "nchw", 3),
        ((3, 8, 8), "nchw", 3),
        ((), "nchw", 3),
    ],
)
def test_channels_are_those_of_the_input(
    shape: tuple[object, ...], layout: str, channels: int
) -> None:
    assert images.channels_of(shape, layout) == channels
