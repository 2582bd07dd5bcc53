"""Each byte of a 4 kB bundle changed, as a zip and as a folder: every change is refused."""

import io
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from edgeq_runtime import EdgeqError, archive, manifest, reader

Bundle = Mapping[str, bytes]
FLIPS = (0x01, 0x80, 0xFF)


@pytest.fixture(scope="module")
def padded(int8_bundle: Bundle, make: Callable[..., dict[str, bytes]], int8_model: bytes) -> Bundle:
    exact = {"y": {"dtype": "uint8", "scale": 0.5, "zero_point": 128}}
    files = make(
        int8_model,
        input_ranges={"x": (0.0, 1.0)},
        exact_outputs=exact,
        card="# tiny\n" + "words " * 150,
        plan={"ops": {}},
        labels=["one", "two"],
    )
    assert 3500 < len(archive.pack(files)) < 5000
    return files


def test_each_byte_of_the_zip(padded: Bundle) -> None:
    data = bytearray(archive.pack(padded))
    seen: list[manifest.Manifest] = []

    def on_manifest(raw: bytes) -> None:
        seen[:] = [manifest.parse(raw)]

    def read(raw: bytes) -> None:
        files = archive.unpack(io.BytesIO(raw), on_manifest)
        reader._check_digests(seen[0], files)

    for place in range(len(data)):
        for flip in FLIPS:
            data[place] ^= flip
            with pytest.raises(EdgeqError) as caught:
                read(bytes(data))
            assert caught.value.slug in ("damaged-bundle", "not-a-bundle"), (place, flip)
            data[place] ^= flip
    assert archive.unpack(io.BytesIO(bytes(data)), on_manifest) == padded


def test_each_byte_of_each_file_in_memory(padded: Bundle) -> None:
    for name, data in padded.items():
        changed = bytearray(data)
        for place in range(len(changed)):
            for flip in FLIPS:
                changed[place] ^= flip
                with pytest.raises(EdgeqError, match=r"\[damaged-bundle\]"):
                    reader.read({**padded, name: bytes(changed)})
                changed[place] ^= flip


def test_each_byte_of_the_folder(
    padded: Bundle, put: Callable[[Bundle, Path], Path], tmp_path: Path
) -> None:
    folder = put(padded, tmp_path / "m.edgeq")
    count = 0
    for name, data in padded.items():
        with (folder / name).open("r+b", buffering=0) as file:
            for place in range(len(data)):
                file.seek(place)
                file.write(bytes([data[place] ^ 0x10]))
                with pytest.raises(EdgeqError, match=r"\[damaged-bundle\]"):
                    reader.read(folder)
                file.seek(place)
                file.write(data[place : place + 1])
                count += 1
    assert count > 3000
    assert reader.read(folder).files == padded
