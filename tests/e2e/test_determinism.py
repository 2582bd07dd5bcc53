"""The same inputs give the same bytes, wherever, whenever and by however many threads."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import edgeq

pytestmark = pytest.mark.checkout

FLAGS = ("--target", "rpi5", "--int8", "--metric", "top1", "--gate", "top1>=-1pt")
Build = Callable[..., Path]


def _content(bundle: Path) -> dict[str, bytes]:
    files = sorted(path for path in bundle.rglob("*") if path.is_file())
    return {path.relative_to(bundle).as_posix(): path.read_bytes() for path in files}


@pytest.fixture
def build(repository: Path, tmp_path: Path) -> Build:
    """`build(name, packaging, hash_seed=, cpus=, by=)`: digits, by a process in a folder of its
    own, its inputs named relative to that folder, or absolutely where they lie."""

    def run(name: str, packaging: str, *, hash_seed: str, cpus: int, copied: bool) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        source = repository / "examples" / "digits"
        names = ("digits.onnx", "calib.npz", "eval.npz")
        if copied:
            for file in names:
                (folder / file).write_bytes((source / file).read_bytes())
        model, data, evaluate = names if copied else tuple(str(source / file) for file in names)
        available = sorted(os.sched_getaffinity(0))[:cpus]
        done = subprocess.run(
            [
                *("taskset", "--cpu-list", ",".join(map(str, available))),
                *(sys.executable, "-m", "edgeq.cli", "build", model, *FLAGS),
                *("--data", data, "--eval", evaluate, "--as", packaging, "-o", "d.edgeq"),
            ],
            cwd=folder,
            env=os.environ
            | {"PYTHONHASHSEED": hash_seed, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            check=False,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        return folder / "d.edgeq"

    return run


def test_builds_repeat_in_other_folders_hash_seeds_processes_and_thread_counts(
    build: Build, repository: Path, tmp_path: Path
) -> None:
    one = build("one", "zip", hash_seed="0", cpus=1, copied=True)
    two = build("two", "zip", hash_seed="4242", cpus=2, copied=False)
    assert one.read_bytes() == two.read_bytes()

    source, here = repository / "examples" / "digits", tmp_path / "here.edgeq"
    built = edgeq.build(
        source / "digits.onnx",
        target="rpi5",
        precision="int8",
        data=str(source / "calib.npz"),
        evaluate=str(source / "eval.npz"),
        gate="top1>=-1pt",
        out=here,
        settings=edgeq.BuildSettings(metric="top1"),
    )
    assert built.ok
    assert here.read_bytes() == one.read_bytes(), "the command line and the API build the same"


def test_folders_repeat_and_hold_what_the_zip_holds(build: Build, tmp_path: Path) -> None:
    import zipfile

    one = build("one", "dir", hash_seed="1", cpus=2, copied=True)
    two = build("two", "dir", hash_seed="2", cpus=1, copied=False)
    assert _content(one) == _content(two)
    packed = build("three", "zip", hash_seed="3", cpus=2, copied=True)
    with zipfile.ZipFile(packed) as archive:
        assert {name: archive.read(name) for name in archive.namelist()} == _content(one)
