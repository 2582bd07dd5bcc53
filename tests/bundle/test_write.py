"""Writing: all or nothing, beside and renamed, never through a link, never over something else."""

import errno
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from edgeq import bundle
from edgeq.bundle import write
from edgeq.errors import EdgeqError
from edgeq_runtime import archive, reader

Files = Mapping[str, bytes]
NAME = "m.edgeq"
PARTIAL = f".{NAME}.edgeq-partial"
BOTH = pytest.mark.parametrize("packaging", ["zip", "dir"])


def alone(folder: Path) -> bool:
    return [path.name for path in folder.iterdir()] == [NAME]


@BOTH
def test_a_bundle_is_written_and_read(files: Files, tmp_path: Path, packaging: str) -> None:
    write(files, tmp_path / NAME, packaging=packaging, force=False)
    assert reader.read(tmp_path / NAME).files == files
    assert (tmp_path / NAME).is_dir() == (packaging == "dir")
    assert alone(tmp_path)


@BOTH
def test_the_same_files_give_the_same_bytes(files: Files, tmp_path: Path, packaging: str) -> None:
    for name in ("a", "b"):
        write(dict(reversed(files.items())), tmp_path / name, packaging=packaging, force=False)
    if packaging == "zip":
        assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes() == archive.pack(files)


def test_permissions_follow_the_umask(files: Files, tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        write(files, tmp_path / NAME, packaging="zip", force=False)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / NAME).stat().st_mode) == 0o640


@BOTH
@pytest.mark.parametrize("force", [False, True])
def test_an_existing_file_is_replaced(
    files: Files, tmp_path: Path, packaging: str, force: bool
) -> None:
    (tmp_path / NAME).write_bytes(b"old")
    write(files, tmp_path / NAME, packaging=packaging, force=force)
    assert reader.read(tmp_path / NAME).files == files
    assert alone(tmp_path)


@BOTH
def test_an_existing_folder_is_refused(
    files: Files, other: Files, tmp_path: Path, packaging: str
) -> None:
    write(files, tmp_path / NAME, packaging="dir", force=False)
    with pytest.raises(
        EdgeqError, match=r"^the folder `m.edgeq` exists \[output-exists\]$"
    ) as caught:
        write(other, tmp_path / NAME, packaging=packaging, force=False)
    assert caught.value.hints == ("write elsewhere: `-o other.edgeq`", "or replace it: `--force`")
    assert reader.read(tmp_path / NAME).files == files
    assert alone(tmp_path)


@BOTH
@pytest.mark.parametrize("old", ["bundle", "empty"])
def test_force_replaces_a_bundles_folder(
    files: Files, other: Files, tmp_path: Path, packaging: str, old: str
) -> None:
    if old == "bundle":
        write(files, tmp_path / NAME, packaging="dir", force=False)
    else:
        (tmp_path / NAME).mkdir()
    write(other, tmp_path / NAME, packaging=packaging, force=True)
    assert reader.read(tmp_path / NAME).files == other
    assert alone(tmp_path)


@BOTH
def test_force_does_not_replace_a_folder_of_something_else(
    files: Files, tmp_path: Path, packaging: str
) -> None:
    (tmp_path / NAME).mkdir()
    (tmp_path / NAME / "thesis.tex").write_text("years of work")
    with pytest.raises(EdgeqError, match=r"is not a bundle and is not replaced \[output-exists\]"):
        write(files, tmp_path / NAME, packaging=packaging, force=True)
    assert (tmp_path / NAME / "thesis.tex").read_text() == "years of work"


def test_force_does_not_replace_a_bundle_with_folders_in_it(files: Files, tmp_path: Path) -> None:
    write(files, tmp_path / NAME, packaging="dir", force=False)
    (tmp_path / NAME / "photos").mkdir()
    with pytest.raises(EdgeqError, match="is not a bundle"):
        write(files, tmp_path / NAME, packaging="dir", force=True)


@pytest.mark.parametrize("out", [".", "..", "/"])
def test_the_current_folder_is_not_replaced(
    files: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, out: str
) -> None:
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "file").write_bytes(b"")
    monkeypatch.chdir(tmp_path / "work")
    with pytest.raises(EdgeqError, match=r"\[output-exists\]"):
        write(files, Path(out), packaging="dir", force=True)


def test_a_relative_path(files: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write(files, Path(NAME), packaging="zip", force=False)
    assert alone(tmp_path)


# -- links ----------------------------------------------------------------------------------------


@BOTH
def test_a_symlink_at_the_output_is_replaced_itself(
    files: Files, tmp_path: Path, packaging: str
) -> None:
    (tmp_path / "elsewhere").write_bytes(b"keep")
    (tmp_path / NAME).symlink_to("elsewhere")
    write(files, tmp_path / NAME, packaging=packaging, force=False)
    assert (tmp_path / "elsewhere").read_bytes() == b"keep"
    assert not (tmp_path / NAME).is_symlink()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["elsewhere", NAME]


@BOTH
def test_a_symlink_to_a_folder_is_a_folder(
    files: Files, other: Files, tmp_path: Path, packaging: str
) -> None:
    write(files, tmp_path / "real", packaging="dir", force=False)
    (tmp_path / NAME).symlink_to("real")
    with pytest.raises(EdgeqError, match=r"\[output-exists\]"):
        write(other, tmp_path / NAME, packaging=packaging, force=False)
    write(other, tmp_path / NAME, packaging=packaging, force=True)
    assert reader.read(tmp_path / "real").files == files, "only the link was replaced"
    assert reader.read(tmp_path / NAME).files == other
    assert not (tmp_path / PARTIAL).is_symlink()


@BOTH
@pytest.mark.parametrize("kind", ["file", "folder", "dangling"])
def test_a_symlink_at_the_temporary_name_is_never_followed(
    files: Files, tmp_path: Path, packaging: str, kind: str
) -> None:
    target = tmp_path / "victim"
    if kind == "file":
        target.write_bytes(b"keep")
    elif kind == "folder":
        target.mkdir()
        (target / "model.onnx").write_bytes(b"keep")
    (tmp_path / PARTIAL).symlink_to("victim")
    write(files, tmp_path / NAME, packaging=packaging, force=False)
    assert reader.read(tmp_path / NAME).files == files
    assert not (tmp_path / PARTIAL).is_symlink()
    assert target.exists() == (kind != "dangling")
    if kind == "file":
        assert target.read_bytes() == b"keep"
    if kind == "folder":
        assert (target / "model.onnx").read_bytes() == b"keep"


def test_a_link_put_there_in_between_is_refused(
    files: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between removing the leftover and opening: O_EXCL."""
    real = os.open

    def race(path: Any, flags: int, *rest: Any) -> int:
        if Path(path).name == PARTIAL and not os.path.lexists(path):
            Path(path).symlink_to("victim")
        return real(path, flags, *rest)

    monkeypatch.setattr(os, "open", race)
    with pytest.raises(EdgeqError, match=r"File exists \[write-failed\]"):
        write(files, tmp_path / NAME, packaging="zip", force=False)
    assert not (tmp_path / "victim").exists()


# -- leftovers and failures -----------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize("leftover", ["file", "folder"])
def test_leftovers_of_a_killed_build_are_removed(
    files: Files, tmp_path: Path, packaging: str, leftover: str
) -> None:
    if leftover == "file":
        (tmp_path / PARTIAL).write_bytes(b"half")
    else:
        (tmp_path / PARTIAL).mkdir()
        (tmp_path / PARTIAL / "model.onnx").write_bytes(b"half")
    write(files, tmp_path / NAME, packaging=packaging, force=False)
    assert alone(tmp_path)


@BOTH
def test_a_failing_write_leaves_nothing(
    files: Files, tmp_path: Path, packaging: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(
        EdgeqError, match=r"^cannot write `m.edgeq`: No space left on device \[write-failed\]$"
    ):
        write(files, tmp_path / NAME, packaging=packaging, force=False)
    assert list(tmp_path.iterdir()) == []


def test_no_folder_to_write_into(files: Files, tmp_path: Path) -> None:
    with pytest.raises(EdgeqError, match=r"No such file or directory \[write-failed\]"):
        write(files, tmp_path / "none" / NAME, packaging="zip", force=False)


def test_a_file_where_a_folder_should_be(files: Files, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(EdgeqError, match=r"Not a directory \[write-failed\]"):
        write(files, tmp_path / "file" / NAME, packaging="zip", force=False)


def test_everything_is_synced_before_it_gets_its_name(
    files: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    story: list[str] = []
    real_sync, real_exchange = os.fsync, bundle._exchange

    def sync(descriptor: int) -> None:
        story.append(Path(os.readlink(f"/proc/self/fd/{descriptor}")).name)
        real_sync(descriptor)

    def exchange(one: Path, two: Path) -> bool:
        story.append("exchange")
        return real_exchange(one, two)

    write(files, tmp_path / NAME, packaging="dir", force=False)
    monkeypatch.setattr(os, "fsync", sync)
    monkeypatch.setattr(bundle, "_exchange", exchange)
    write(files, tmp_path / NAME, packaging="dir", force=True)
    assert story == [*files, PARTIAL, "exchange", tmp_path.name]


# -- without RENAME_EXCHANGE ----------------------------------------------------------------------


@pytest.fixture
def no_exchange(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundle, "_exchange", lambda one, two: False)


@BOTH
def test_a_folder_is_replaced_all_the_same(
    files: Files, other: Files, tmp_path: Path, packaging: str, no_exchange: None
) -> None:
    write(files, tmp_path / NAME, packaging="dir", force=False)
    write(other, tmp_path / NAME, packaging=packaging, force=True)
    assert reader.read(tmp_path / NAME).files == other
    assert alone(tmp_path)


def test_a_build_killed_in_the_middle_of_it_is_mended_by_the_next(
    files: Files, other: Files, tmp_path: Path, no_exchange: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(files, tmp_path / NAME, packaging="dir", force=False)

    class Killed(BaseException):
        pass

    real = Path.rename

    def rename(self: Path, target: Path) -> Path:
        if self.name == PARTIAL:
            raise Killed
        return real(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", rename)
        patch.setattr(bundle, "_remove", lambda path: None)  # a killed process tidies up nothing
        with pytest.raises(Killed):
            write(other, tmp_path / NAME, packaging="dir", force=True)
    assert reader.read(tmp_path / f".{NAME}.edgeq-old").files == files, "the old one is whole"
    with pytest.raises(EdgeqError, match=r"\[output-exists\]"):
        write(other, tmp_path / NAME, packaging="dir", force=False)
    assert reader.read(tmp_path / NAME).files == files, "and back in its place"
    write(other, tmp_path / NAME, packaging="dir", force=True)
    assert reader.read(tmp_path / NAME).files == other
    assert alone(tmp_path)


def test_exchange_swaps_in_one_step(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").write_bytes(b"file")
    if not bundle._exchange(tmp_path / "a", tmp_path / "b"):
        pytest.skip("this file system cannot exchange two names")
    assert (tmp_path / "a").read_bytes() == b"file"
    assert (tmp_path / "b").is_dir()


def test_exchange_tells_what_went_wrong(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file or directory"):
        bundle._exchange(tmp_path / "a", tmp_path / "b")
