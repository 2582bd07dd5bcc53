"""A build that cannot write its output says so, exits 2 and leaves what was there."""

import resource
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest


def _build(
    workbench: Any, roots: Mapping[str, str], out: Path, *flags: str, limit: int | None = None
) -> "subprocess.CompletedProcess[str]":
    def limit_file_size() -> None:
        # Beyond the limit, write() fails with EFBIG (Python ignores SIGXFSZ): a disk that fills up.
        if limit is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    program = (sys.executable, "-m", "edgeq.cli", "build", str(workbench.models["new"]))
    return subprocess.run(
        [*program, "--target", "rpi5", "--fp32", "-o", str(out), *flags],
        check=False,
        capture_output=True,
        text=True,
        env=dict(roots),
        preexec_fn=limit_file_size,
    )


@pytest.mark.parametrize("packaging", ["zip", "dir"])
def test_a_disk_that_fills_up(
    workbench: Any, import_roots: Mapping[str, str], tmp_path: Path, packaging: str
) -> None:
    out = tmp_path / "tiny.edgeq"
    model_bytes = (workbench.bundles["new", "dir"] / "model.onnx").stat().st_size
    done = _build(workbench, import_roots, out, "--as", packaging, limit=model_bytes // 2)
    assert done.returncode == 2, done.stderr
    assert "[write-failed]" in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == [], "no half output, no partial file"


def test_a_disk_that_fills_up_keeps_the_old_bundle(
    workbench: Any, import_roots: Mapping[str, str], tmp_path: Path
) -> None:
    out, old = tmp_path / "tiny.edgeq", workbench.bundles["old", "zip"].read_bytes()
    out.write_bytes(old)
    done = _build(workbench, import_roots, out, limit=len(old) // 2)
    assert done.returncode == 2, done.stderr
    assert out.read_bytes() == old
    assert [path.name for path in tmp_path.iterdir()] == ["tiny.edgeq"]


def test_a_folder_that_takes_no_files(
    workbench: Any, import_roots: Mapping[str, str], tmp_path: Path
) -> None:
    """/proc refuses new files to everyone, root as well."""
    done = _build(workbench, import_roots, Path("/proc/tiny.edgeq"))
    assert done.returncode == 2, done.stderr
    assert "[write-failed]" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_parent_that_is_a_file(
    workbench: Any, import_roots: Mapping[str, str], tmp_path: Path
) -> None:
    (tmp_path / "file").write_bytes(b"mine")
    done = _build(workbench, import_roots, tmp_path / "file" / "tiny.edgeq")
    assert done.returncode == 2, done.stderr
    assert "[no-such-folder]" in done.stderr
    assert (tmp_path / "file").read_bytes() == b"mine"
