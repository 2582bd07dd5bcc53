"""SIGKILL at any system call that touches the output, injected by strace; and failing calls.

Walked: every opening, write, fsync, rename, removal, folder and change of mode on the output, its
partial name, anything below either, and the folder that holds them. strace counts per system call
and only those on the paths given (-P), so that an operation is a pair (call, n-th time). The list
comes from a run that is only watched. The call is killed on entry: the n-th one has not happened.

- the write stage alone, complete: zip and folder, over nothing and over an old output, killed, and
  over an old output failing with ENOSPC and EIO;
- the whole command line `edgeq build`, complete: a zip over an old one, a folder with `--force`;
- the whole command line, anywhere: eight of all the calls of its main thread, evenly spread.
"""

import dataclasses
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.strace, pytest.mark.slow]

CALLS = (
    *("open", "openat", "creat", "write", "pwrite64", "writev", "pwritev", "ftruncate", "truncate"),
    *("fsync", "fdatasync", "rename", "renameat", "renameat2", "unlink", "unlinkat", "link"),
    *("linkat", "symlink", "symlinkat", "mkdir", "mkdirat", "rmdir", "chmod", "fchmod", "fchmodat"),
    *("copy_file_range", "sendfile", "fallocate", "utimensat"),
)
NAME = "tiny.edgeq"
PARTIAL = f".{NAME}.edgeq-partial"
WRITE_STAGE = """
import sys
from pathlib import Path
from edgeq.bundle import write
from edgeq.errors import EdgeqError
source, out, packaging = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
paths = sorted(path for path in source.rglob("*") if path.is_file())
files = {path.relative_to(source).as_posix(): path.read_bytes() for path in paths}
try:
    write(files, out, packaging=packaging, force=True)
except EdgeqError as error:
    sys.exit(f"error: {error}")
"""
CASES = [
    pytest.param("zip", False, id="zip-fresh"),
    pytest.param("zip", True, id="zip-over-old"),
    pytest.param("dir", False, id="dir-fresh"),
    pytest.param("dir", True, id="dir-over-old"),
]


@dataclass(frozen=True)
class Case:
    """One build to be stopped: its command line for an output path, and what may be found there.

    `repeat` is the next build: for a whole command line only its last stage, which tidies up.
    """

    command: Callable[[Path], Sequence[str]]
    repeat: Callable[[Path], Sequence[str]]
    old: Path | None
    new: Path
    environment: Mapping[str, str]

    def place(self, folder: Path) -> Path:
        """A fresh folder with the old output in it, where there is one."""
        folder.mkdir()
        out = folder / NAME
        if self.old is not None and self.old.is_dir():
            shutil.copytree(self.old, out)
        elif self.old is not None:
            shutil.copyfile(self.old, out)
        return out

    def run(self, out: Path, *strace: str) -> subprocess.CompletedProcess[str]:
        return self._start([*strace, *self.command(out)])

    def again(self, out: Path) -> subprocess.CompletedProcess[str]:
        return self._start(self.repeat(out))

    def _start(self, command: Sequence[str]) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command,
            check=False,
            capture_output=True,
            text=True,
            env=dict(self.environment),
            timeout=300,
        )


def _watch(case: Case, folder: Path) -> list[str]:
    """Every path at or below `folder` that a build names, in the order of appearance."""
    out, log = case.place(folder), folder.with_suffix(".log")
    watched = ("strace", "-f", "-qq", "-y", "-s", "4096", "-e", "trace=%file,%desc", "-o", str(log))
    done = case.run(out, *watched)
    assert done.returncode == 0, done.stderr
    found = re.findall(rf"[\"<]({re.escape(str(folder))}[^\">]*)", log.read_text(errors="replace"))
    below = [path.relative_to(out).as_posix() for path in out.rglob("*")] if out.is_dir() else []
    partial = folder / PARTIAL
    extra = [str(root / row) for root in (out, partial) for row in ("", *below)]
    return list(dict.fromkeys([*found, *extra]))


def _operations(case: Case, folder: Path, paths: Sequence[str]) -> list[tuple[str, int]]:
    """(system call, n-th time) of each operation of the main thread on one of `paths`."""
    out, log = case.place(folder), folder.with_suffix(".log")
    done = case.run(out, *_traced(log, _moved(paths, out)))
    assert done.returncode == 0, done.stderr
    seen: Counter[str] = Counter()
    operations = []
    for call in re.findall(r"(?m)^(\w+)\(", log.read_text(errors="replace")):
        seen[call] += 1
        operations.append((call, seen[call]))
    return operations


def _moved(paths: Iterable[str], out: Path) -> list[str]:
    """The watched paths, as they are called in the folder of this run."""
    return [str(out.parent / path) for path in paths]


def _traced(log: Path, paths: Iterable[str], *more: str) -> tuple[str, ...]:
    chosen = [word for path in paths for word in ("-P", path)]
    return ("strace", "-qq", "-o", str(log), "-e", f"trace={','.join(CALLS)}", *more, *chosen)


def _tree(path: Path) -> dict[str, bytes]:
    if not path.is_dir():
        return {"": path.read_bytes()} if path.exists() else {}
    files = sorted(row for row in path.rglob("*") if row.is_file())
    return {row.relative_to(path).as_posix(): row.read_bytes() for row in files}


def _check(case: Case, out: Path, where: object) -> None:
    """Old or whole new, at most the named partial beside it; a next build leaves only the new."""
    before = {} if case.old is None else _tree(case.old)
    assert _tree(out) in (before, _tree(case.new)), where
    assert {path.name for path in out.parent.iterdir()} <= {NAME, PARTIAL}, where
    again = case.again(out)
    assert again.returncode == 0, (where, again.stderr)
    assert _tree(out) == _tree(case.new), where
    assert [path.name for path in out.parent.iterdir()] == [NAME], where


def _walk(case: Case, folder: Path, fault: str) -> list[tuple[str, int]]:
    """Stop or fail `case` at each of its operations on the output; returns what was walked."""
    paths = [str(Path(row).relative_to(folder / "watch")) for row in _watch(case, folder / "watch")]
    operations = _operations(case, folder / "count", paths)

    def stop(operation: tuple[str, int]) -> None:
        call, number = operation
        place = folder / f"{call}-{number}"
        out = case.place(place)
        inject = ("-e", f"inject={call}:{fault}:when={number}")
        done = case.run(out, *_traced(place.with_suffix(".log"), _moved(paths, out), *inject))
        if fault == "signal=KILL":
            assert done.returncode in (137, -9), (operation, done.returncode, done.stderr)
        else:
            assert done.returncode in (0, 1), (operation, done.stderr)
            assert "Traceback" not in done.stderr, (operation, done.stderr)
            assert done.returncode == 0 or "[write-failed]" in done.stderr, (operation, done.stderr)
        _check(case, out, operation)
        shutil.rmtree(place)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(stop, operations))
    return operations


@pytest.fixture
def write_stage(workbench: Any, import_roots: Mapping[str, str]) -> Callable[[str, bool], Case]:
    def case(packaging: str, over_old: bool) -> Case:
        program = (sys.executable, "-c", WRITE_STAGE, str(workbench.bundles["new", "dir"]))
        return Case(
            lambda out: (*program, str(out), packaging),
            lambda out: (*program, str(out), packaging),
            workbench.bundles["old", packaging] if over_old else None,
            workbench.bundles["new", packaging],
            import_roots,
        )

    return case


@pytest.fixture
def command_line(workbench: Any, write_stage: Callable[[str, bool], Case]) -> Callable[[str], Case]:
    def case(packaging: str) -> Case:
        program = (sys.executable, "-m", "edgeq.cli", "build", str(workbench.models["new"]))
        flags = ("--target", "rpi5", "--fp32", "--as", packaging, "--force")
        return dataclasses.replace(
            write_stage(packaging, True), command=lambda out: (*program, *flags, "-o", str(out))
        )

    return case


@pytest.mark.parametrize(("packaging", "over_old"), CASES)
def test_killing_the_write_stage_at_each_operation(
    write_stage: Callable[[str, bool], Case], tmp_path: Path, packaging: str, over_old: bool
) -> None:
    walked = _walk(write_stage(packaging, over_old), tmp_path, "signal=KILL")
    calls = {call for call, _ in walked}
    assert "openat" in calls, walked
    assert "write" in calls, walked
    assert "fsync" in calls, "a rename before the bytes are on the disk could lose both bundles"
    assert calls & {"rename", "renameat", "renameat2"}, walked


@pytest.mark.parametrize("packaging", ["zip", "dir"])
def test_killing_the_command_line_at_each_operation_on_the_output(
    command_line: Callable[[str], Case], tmp_path: Path, packaging: str
) -> None:
    walked = _walk(command_line(packaging), tmp_path, "signal=KILL")
    assert {call for call, _ in walked} >= {"openat", "write", "fsync"}, walked


def test_killing_the_command_line_anywhere(
    command_line: Callable[[str], Case], tmp_path: Path
) -> None:
    """Most of these are openings of modules: long before the output is touched."""
    case, log = command_line("zip"), tmp_path / "log"
    everything = ("strace", "-qq", "-o", str(log), "-e", f"trace={','.join(CALLS)}")
    assert case.run(case.place(tmp_path / "count"), *everything).returncode == 0
    opened = re.findall(r"(?m)^openat\(", log.read_text(errors="replace"))
    assert case.old is not None
    old = _tree(case.old)
    for number in range(len(opened) // 9, len(opened) - 20, len(opened) // 9):
        out = case.place(tmp_path / str(number))
        inject = ("-e", f"inject=openat:signal=KILL:when={number}")
        assert case.run(out, *everything, *inject).returncode in (137, -9)
        assert _tree(out) == old
        assert [path.name for path in out.parent.iterdir()] == [NAME]


@pytest.mark.parametrize("error", ["ENOSPC", "EIO"])
@pytest.mark.parametrize("packaging", ["zip", "dir"])
def test_failing_each_operation_of_the_write_stage(
    write_stage: Callable[[str, bool], Case], tmp_path: Path, packaging: str, error: str
) -> None:
    _walk(write_stage(packaging, True), tmp_path, f"error={error}")
