"""Every attack on the folder form that FORMAT.md 4 forbids."""

import os
import socket
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from edgeq_runtime import EdgeqError, reader

Bundle = Mapping[str, bytes]
Put = Callable[[Bundle, Path], Path]


@pytest.fixture
def folder(float_bundle: Bundle, put: Put, tmp_path: Path) -> Path:
    return put(float_bundle, tmp_path / "m.edgeq")


def refused(folder: Path, match: str, slug: str = "damaged-bundle") -> None:
    with pytest.raises(EdgeqError, match=match) as caught:
        reader.read(folder)
    assert caught.value.slug == slug


def test_a_good_folder_is_read(folder: Path, float_bundle: Bundle) -> None:
    assert reader.read(folder).files == float_bundle


def test_a_symbolic_link_to_a_bundle_may_be_given(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(folder)
    assert reader.read(tmp_path / "link").manifest.name == "tiny"


@pytest.mark.parametrize("name", ["model.onnx", "manifest.json"])
def test_a_symlink_in_the_folder(folder: Path, tmp_path: Path, name: str) -> None:
    (folder / name).rename(tmp_path / "outside")
    (folder / name).symlink_to(tmp_path / "outside")
    refused(folder, f"`{name}` is a symbolic link")


def test_a_dangling_symlink(folder: Path) -> None:
    (folder / "model.onnx").unlink()
    (folder / "model.onnx").symlink_to("nowhere")
    refused(folder, "`model.onnx` is a symbolic link")


@pytest.mark.parametrize("name", ["model.onnx", "manifest.json"])
def test_a_hard_link_out_of_the_folder(folder: Path, tmp_path: Path, name: str) -> None:
    os.link(folder / name, tmp_path / "outside")
    refused(folder, f"`{name}` is a hard link")


def test_a_fifo(folder: Path) -> None:
    """Opening it would wait for ever."""
    (folder / "model.onnx").unlink()
    os.mkfifo(folder / "model.onnx")
    refused(folder, "`model.onnx` is not a regular file")


def test_a_socket(folder: Path) -> None:
    (folder / "golden.bin").unlink()
    os.chdir(folder)  # a socket's path is at most 108 bytes
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("golden.bin")
        refused(folder, "`golden.bin` is not a regular file")


def test_a_device(folder: Path) -> None:
    (folder / "golden.bin").unlink()
    try:
        os.mknod(folder / "golden.bin", 0o20666, os.makedev(1, 5))  # /dev/zero: never ends
    except PermissionError:
        (folder / "golden.bin").mkdir()  # not root: at least something that is no file
    refused(folder, "`golden.bin` is not a regular file")


def test_a_folder_in_the_folder(folder: Path) -> None:
    (folder / "sub").mkdir()
    refused(folder, "`sub` is not in the manifest")


def test_a_folder_in_place_of_a_file(folder: Path) -> None:
    (folder / "model.onnx").unlink()
    (folder / "model.onnx").mkdir()
    refused(folder, "`model.onnx` is not a regular file")


def test_an_extra_file(folder: Path) -> None:
    (folder / "weights.bin").write_bytes(b"")
    refused(folder, "`weights.bin` is not in the manifest")


def test_an_extra_file_with_a_bad_name(folder: Path) -> None:
    (folder / ".DS_Store").write_bytes(b"")
    refused(folder, "file name '.DS_Store' is not allowed")


def test_a_missing_file(folder: Path) -> None:
    (folder / "golden.bin").unlink()
    refused(folder, "`golden.bin` is missing")


def test_a_file_that_grew(folder: Path) -> None:
    with (folder / "model.onnx").open("ab") as file:
        file.write(b"\0")
    refused(folder, r"`model.onnx` has \d+ bytes, not \d+")


def test_a_huge_file(folder: Path) -> None:
    """Not read: only the bytes that the manifest names, and one more."""
    with (folder / "model.onnx").open("r+b") as file:
        file.truncate(2**40)
    refused(folder, r"`model.onnx` has 1099511627776 bytes, not \d+")


def test_a_huge_manifest(folder: Path) -> None:
    with (folder / "manifest.json").open("r+b") as file:
        file.truncate(2**40)
    refused(folder, "`manifest.json` has 1099511627776 bytes, not at most 4194304")


def test_a_million_files(folder: Path) -> None:
    for index in range(200):
        (folder / f"f{index}").write_bytes(b"")
    refused(folder, "more than 64 files")


def test_a_name_that_differs_in_case(folder: Path) -> None:
    (folder / "Model.onnx").write_bytes(b"")
    refused(folder, "file name 'Model.onnx' is not allowed")


def test_wrong_digest(folder: Path) -> None:
    data = bytearray((folder / "model.onnx").read_bytes())
    data[-1] ^= 0x80
    (folder / "model.onnx").write_bytes(data)
    refused(folder, "`model.onnx`: sha256 is")


def test_a_folder_that_is_no_bundle(tmp_path: Path) -> None:
    refused(tmp_path, "it has no manifest.json", "not-a-bundle")


def test_no_such_path(tmp_path: Path) -> None:
    refused(tmp_path / "none", "No such file or directory", "bundle-unreadable")


def test_a_path_with_nul() -> None:
    refused(Path("a\0b"), "null", "bundle-unreadable")


def test_the_bundle_itself_is_a_device() -> None:
    refused(Path("/dev/zero"), "neither a file nor a folder", "not-a-bundle")


def test_the_bundle_itself_is_a_fifo(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "m.edgeq")
    refused(tmp_path / "m.edgeq", "neither a file nor a folder", "not-a-bundle")


def test_a_file_that_may_not_be_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Root may read all, so the refusal is the system call's own error, made here."""
    real = os.open

    def deny(path: Path, *rest: int) -> int:
        if Path(path).name == "model.onnx":
            raise PermissionError(13, "Permission denied")
        return real(path, *rest)

    monkeypatch.setattr(os, "open", deny)
    refused(folder, "cannot read `.*m.edgeq`: Permission denied", "bundle-unreadable")
