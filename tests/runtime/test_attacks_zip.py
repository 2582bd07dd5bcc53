"""Every attack on the zip form that FORMAT.md 3 forbids, each refused by its own rule."""

import io
import struct
import tracemalloc
import zipfile
from collections.abc import Mapping
from pathlib import Path

import pytest

from edgeq_runtime import EdgeqError, archive, reader

Bundle = Mapping[str, bytes]
LOCAL = struct.Struct("<4s5H3I2H")


def refused(data: bytes, tmp_path: Path, match: str, slug: str = "damaged-bundle") -> None:
    path = tmp_path / "m.edgeq"
    path.write_bytes(data)
    with pytest.raises(EdgeqError, match=match) as caught:
        reader.read(path)
    assert caught.value.slug == slug
    assert caught.value.exit_code == 2


def raw_zip(rows: list[tuple[str, bytes]]) -> bytes:
    """Canonical in all but the names and their order, which `archive.pack` would refuse."""
    body, central, offset = b"", [], 0
    for name, data in rows:
        entry = (name.encode(), archive.zlib.crc32(data), len(data))
        head = archive._local_header(*entry)
        central.append(archive._central_header(*entry, offset))
        body += head + data
        offset += len(head) + len(data)
    return body + archive._directory(central, offset)


def with_manifest(bundle: Bundle, *rows: tuple[str, bytes]) -> bytes:
    return raw_zip([("manifest.json", bundle["manifest.json"]), *rows])


def patched(data: bytes, field: int, value: int) -> bytes:
    """The first local header with one of its fields changed."""
    fields = list(LOCAL.unpack(data[: LOCAL.size]))
    fields[field] = value
    return LOCAL.pack(*fields) + data[LOCAL.size :]


def test_a_good_zip_is_read(float_bundle: Bundle, tmp_path: Path) -> None:
    path = tmp_path / "m.edgeq"
    path.write_bytes(archive.pack(float_bundle))
    assert reader.read(path).files == float_bundle


def test_the_zip_is_one_that_others_read(float_bundle: Bundle) -> None:
    with zipfile.ZipFile(io.BytesIO(archive.pack(float_bundle))) as other:
        assert other.testzip() is None
        assert {name: other.read(name) for name in other.namelist()} == float_bundle
        assert {info.date_time for info in other.infolist()} == {(1980, 1, 1, 0, 0, 0)}
        assert {info.external_attr >> 16 for info in other.infolist()} == {0o100644}


@pytest.mark.parametrize(
    "name",
    ["../evil", "..", "a/../../b", "a..b", "/etc/passwd", "c:evil", "a\\b", "..\\evil", "sub/file"],
)
def test_path_escape(float_bundle: Bundle, tmp_path: Path, name: str) -> None:
    refused(with_manifest(float_bundle, (name, b"x")), tmp_path, "file name .* is not allowed")


@pytest.mark.parametrize("name", ["", ".", ".hidden", "Model.onnx", "card.md", "x" * 101, "a\0b"])
def test_a_name_outside_the_alphabet(float_bundle: Bundle, tmp_path: Path, name: str) -> None:
    refused(
        with_manifest(float_bundle, (name, b"x")), tmp_path, "name .*(not allowed|of 101 bytes)"
    )


@pytest.mark.parametrize("name", ["con", "aux.txt", "nul", "com1.onnx", "lpt9", "prn"])
def test_a_device_name_of_windows(float_bundle: Bundle, tmp_path: Path, name: str) -> None:
    refused(with_manifest(float_bundle, (name, b"x")), tmp_path, "is not allowed")


def test_a_name_that_is_not_ascii(float_bundle: Bundle, tmp_path: Path) -> None:
    refused(with_manifest(float_bundle, ("\u0430.onnx", b"x")), tmp_path, "is not allowed")


def test_names_that_differ_only_in_case(float_bundle: Bundle, tmp_path: Path) -> None:
    rows = [("MODEL.onnx", b"x"), ("model.onnx", b"y")]
    refused(with_manifest(float_bundle, *rows), tmp_path, "'MODEL.onnx' is not allowed")


def test_duplicate_names(float_bundle: Bundle, tmp_path: Path) -> None:
    rows = [("model.onnx", float_bundle["model.onnx"]), ("model.onnx", b"other")]
    refused(with_manifest(float_bundle, *rows), tmp_path, "`model.onnx` is there twice")


def test_a_second_manifest(float_bundle: Bundle, tmp_path: Path) -> None:
    refused(
        with_manifest(float_bundle, ("manifest.json", b"{}")),
        tmp_path,
        "`manifest.json` is there twice",
    )


def test_files_out_of_order(float_bundle: Bundle, tmp_path: Path) -> None:
    names = sorted(set(float_bundle) - {"manifest.json"}, reverse=True)
    rows = [(name, float_bundle[name]) for name in names]
    refused(with_manifest(float_bundle, *rows), tmp_path, "`golden.bin` stands after `model.onnx`")


def test_the_manifest_is_not_first(float_bundle: Bundle, tmp_path: Path) -> None:
    data = raw_zip(sorted(float_bundle.items()))
    refused(data, tmp_path, "first file is `CARD.md`, not manifest.json", "not-a-bundle")


def test_a_compressed_entry(float_bundle: Bundle, tmp_path: Path) -> None:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as other:
        for name, data in float_bundle.items():
            other.writestr(name, data)
    refused(stream.getvalue(), tmp_path, "`manifest.json` is compressed")


def test_a_zip_bomb(tmp_path: Path) -> None:
    """134 MB of zeros in 130 kB: refused before a byte is unpacked."""
    path = tmp_path / "bomb.edgeq"
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as other,
        other.open("manifest.json", "w") as entry,
    ):
        for _ in range(8):
            entry.write(bytes(2**24))
    tracemalloc.start()
    with pytest.raises(EdgeqError, match=r"manifest.json.*(compressed|more than 4194304)"):
        reader.read(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**20


def test_a_data_descriptor(float_bundle: Bundle, tmp_path: Path) -> None:
    data = patched(archive.pack(float_bundle), 2, 8)
    refused(data, tmp_path, "`manifest.json` has a data descriptor")


def test_an_encrypted_entry(float_bundle: Bundle, tmp_path: Path) -> None:
    refused(patched(archive.pack(float_bundle), 2, 1), tmp_path, "`manifest.json` is encrypted")


def test_a_flag(float_bundle: Bundle, tmp_path: Path) -> None:
    refused(patched(archive.pack(float_bundle), 2, 0x800), tmp_path, "has flags set")


def test_an_extra_field(float_bundle: Bundle, tmp_path: Path) -> None:
    refused(patched(archive.pack(float_bundle), 10, 4), tmp_path, "has extra fields")


def test_two_sizes(float_bundle: Bundle, tmp_path: Path) -> None:
    refused(patched(archive.pack(float_bundle), 7, 5), tmp_path, "has two sizes")


def test_another_date(float_bundle: Bundle, tmp_path: Path) -> None:
    refused(patched(archive.pack(float_bundle), 5, 0x5921), tmp_path, "another version or date")


def test_wrong_crc(float_bundle: Bundle, tmp_path: Path) -> None:
    refused(patched(archive.pack(float_bundle), 6, 1), tmp_path, "crc or size of `manifest.json`")


def test_a_size_beyond_the_file(float_bundle: Bundle, tmp_path: Path) -> None:
    data = archive.pack(float_bundle)
    fields = list(LOCAL.unpack(data[: LOCAL.size]))
    fields[7] = fields[8] = 2**32 - 1
    huge = LOCAL.pack(*fields) + data[LOCAL.size :]
    refused(huge, tmp_path, "claims 4294967295 bytes of a file of")


def test_a_huge_header(float_bundle: Bundle, tmp_path: Path) -> None:
    refused(patched(archive.pack(float_bundle), 9, 65535), tmp_path, "a name of 65535 bytes")


def test_a_huge_manifest(tmp_path: Path) -> None:
    data = raw_zip([("manifest.json", b" " * (4 * 2**20 + 1))])
    refused(data, tmp_path, "has 4194305 bytes, more than 4194304")


def test_too_many_files(float_bundle: Bundle, tmp_path: Path) -> None:
    rows = [(f"f{index:03}", b"") for index in range(64)]
    refused(with_manifest(float_bundle, *rows), tmp_path, "more than 64 files")


def test_trailing_bytes(float_bundle: Bundle, tmp_path: Path) -> None:
    refused(archive.pack(float_bundle) + b"\0", tmp_path, "bytes follow the end")


def test_a_comment(float_bundle: Bundle, tmp_path: Path) -> None:
    data = archive.pack(float_bundle)
    refused(data[:-2] + b"\5\0hello", tmp_path, "directory is not the one of these files")


def test_prefix_bytes(float_bundle: Bundle, tmp_path: Path) -> None:
    """A program before a zip is a zip to most readers: a file of two kinds."""
    refused(b"#!/bin/sh\n" + archive.pack(float_bundle), tmp_path, "as a zip", "not-a-bundle")


def test_a_gap_between_entries(float_bundle: Bundle, tmp_path: Path) -> None:
    data = archive.pack(float_bundle)
    second = data.index(b"PK\3\4", 4)
    refused(data[:second] + b"\0" * 30 + data[second:], tmp_path, "bytes that belong to no file")


def test_a_gap_before_the_directory(float_bundle: Bundle, tmp_path: Path) -> None:
    data = archive.pack(float_bundle)
    start = data.index(b"PK\1\2")
    refused(data[:start] + b"gap" + data[start:], tmp_path, "bytes that belong to no file")


def test_a_file_only_the_directory_knows(float_bundle: Bundle, tmp_path: Path) -> None:
    rows = [(name, float_bundle[name]) for name in sorted(float_bundle)]
    rows.sort(key=lambda row: row[0] != "manifest.json")
    data = raw_zip(rows)
    start = data.index(b"PK\1\2")
    name = b"zz.bin"
    ghost = archive._central_header(name, 0, 0, 0)
    refused(data[:start] + ghost + data[start:], tmp_path, "directory is not the one")


def test_cut_off_anywhere(float_bundle: Bundle, tmp_path: Path) -> None:
    data = archive.pack(float_bundle)
    path = tmp_path / "m.edgeq"
    for size in range(len(data)):
        path.write_bytes(data[:size])
        with pytest.raises(EdgeqError) as caught:
            reader.read(path)
        assert caught.value.slug in ("damaged-bundle", "not-a-bundle")


def test_a_file_that_is_no_zip(tmp_path: Path) -> None:
    refused(b"\x08\x0aonnx", tmp_path, "`m.edgeq`: not an edgeq bundle", "not-a-bundle")
    refused(b"", tmp_path, "does not begin as a zip file", "not-a-bundle")


def test_a_zip_that_is_no_bundle(tmp_path: Path) -> None:
    refused(raw_zip([("a.txt", b"x")]), tmp_path, "first file is `a.txt`", "not-a-bundle")


def test_a_file_beyond_four_gigabytes(float_bundle: Bundle, tmp_path: Path) -> None:
    path = tmp_path / "m.edgeq"
    path.write_bytes(archive.pack(float_bundle))
    with path.open("r+b") as file:
        file.truncate(2**32)  # sparse
    with pytest.raises(EdgeqError, match=r"4294967296 bytes, more than 4294967295"):
        reader.read(path)


def test_wrong_digest(float_bundle: Bundle, tmp_path: Path) -> None:
    model = bytearray(float_bundle["model.onnx"])
    model[40] ^= 1
    data = archive.pack({**float_bundle, "model.onnx": bytes(model)})
    refused(data, tmp_path, "`model.onnx`: sha256 is [0-9a-f]{12}..., the manifest says")


def test_a_file_the_manifest_does_not_name(float_bundle: Bundle, tmp_path: Path) -> None:
    data = archive.pack({**float_bundle, "zz.bin": b"x"})
    refused(data, tmp_path, "`zz.bin` is not in the manifest")


def test_a_file_that_is_missing(float_bundle: Bundle, tmp_path: Path) -> None:
    left = {name: data for name, data in float_bundle.items() if name != "golden.bin"}
    refused(archive.pack(left), tmp_path, "`golden.bin` is missing")
