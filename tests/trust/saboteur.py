"""Run a build again and again, each time stopped at another of its file operations.

A script, run by the tests beside it: one JSON request on stdin, one JSON report on stdout. An audit
hook sees every opening for writing, rename, removal and folder made below the output's folder,
*before* it happens. What audit events cannot show (write, fsync) is the strace test's. Each build
runs in a fork of this process, which has imported everything and started nothing.
"""

import errno
import importlib
import json
import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
CHANGING = {
    *("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.symlink", "os.truncate"),
    *("os.chmod", "os.chown", "os.utime", "ctypes.dlsym"),
}
NAMELESS = ("ctypes.dlsym",)  # a call that names no file: renameat2 has no binding of Python's own

WRITE_STAGE = ("edgeq.bundle",)
WHOLE_BUILD = (
    *WRITE_STAGE,
    *("edgeq.api.building", "edgeq.api.pack", "edgeq.api.stages", "edgeq_converters.read.onnx"),
    *("edgeq_converters.write.onnx", "edgeq_runtime.engines.onnxruntime"),
)


def _is_below(value: object, folder: str) -> bool:
    return isinstance(value, str | bytes | os.PathLike) and os.fsdecode(value).startswith(folder)


def _counts(event: str, arguments: tuple[Any, ...], folder: str) -> bool:
    if event == "open":
        path, _, flags = arguments
        return bool(int(flags or 0) & WRITING) and _is_below(path, folder)
    if event in NAMELESS:
        return "rename" in str(arguments[-1])
    return event in CHANGING and any(_is_below(value, folder) for value in arguments)


def _sabotage(at: int, mode: str, folder: str, say: Callable[[str], None]) -> None:
    """From now on, the `at`-th counted operation is the last (KILL), or fails with errno `mode`."""
    seen = 0

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal seen
        if not _counts(event, arguments, folder):
            return
        seen += 1
        if seen != at:
            return
        names = [os.fsdecode(row) for row in arguments if isinstance(row, str | os.PathLike)]
        say(f"{event} {' '.join(Path(name).name for name in names)}\n")
        if mode == "KILL":
            os.kill(os.getpid(), signal.SIGKILL)
        number = getattr(errno, mode)
        raise OSError(number, os.strerror(number))

    sys.addaudithook(hook)


@dataclass(frozen=True)
class _Weights:
    """A file too large for memory, here small: it comes in pieces."""

    data: bytes

    @property
    def size_bytes(self) -> int:
        return len(self.data)

    def pieces(self) -> Iterator[bytes]:
        for start in range(0, len(self.data), 4096):
            yield self.data[start : start + 4096]


def _check(folder: Path) -> None:
    """What is checked before it gets its name is whole."""
    assert "model.weights" in _files(folder), folder


def _act(request: Mapping[str, Any]) -> None:
    """The stage that is stopped: the whole build, or only the writing of finished files."""
    new, out, packaging = Path(request["new"]), Path(request["out"]), request["packaging"]
    if request["model"] is None:
        from edgeq.bundle import WEIGHTS_FILE, write

        files = _files(new)
        if packaging == "weights":
            weights = _Weights(files.pop(WEIGHTS_FILE))
            write(files, out, packaging="zip", force=True, weights=weights, check=_check)
        else:
            write(files, out, packaging=packaging, force=True)
        return
    import edgeq

    settings = edgeq.BuildSettings(packaging=packaging, force=True)
    edgeq.build(request["model"], target="rpi5", precision="fp32", out=out, settings=settings)


def _fork(request: Mapping[str, Any], at: int) -> tuple[str, str]:
    """(how a stopped build ended, the operation it was stopped at)."""
    from edgeq.errors import EdgeqError

    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)

        def say(text: str) -> None:
            os.write(writer, text.encode())

        code = 1
        try:
            if at:
                _sabotage(at, request["mode"], str(Path(request["out"]).parent) + os.sep, say)
            _act(request)
            code = 0
        except EdgeqError as error:
            say(f"{error.slug}: {error.message}")
            code = error.exit_code
        finally:
            if code == 1:
                sys.excepthook(*sys.exc_info())
            os._exit(code)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        operation, _, said = pipe.read().partition("\n")
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return {0: "done", 2: said or "exit 2", -signal.SIGKILL: "killed"}.get(
        status, f"status {status}"
    ), operation


def _state(out: Path, request: Mapping[str, Any]) -> dict[str, Any]:
    """What lies at the output now, and what else lies in its folder."""
    found = "broken"
    if not out.exists():
        found = "absent"
    elif request["old"] and _same(out, Path(request["old"])):
        found = "old"
    elif _same(out, Path(request["expected"])):
        found = "new"
    others = sorted(path.name for path in out.parent.iterdir() if path.name != out.name)
    return {"output": found, "others": others}


def _files(folder: Path) -> dict[str, bytes]:
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def _same(one: Path, two: Path) -> bool:
    if one.is_dir() != two.is_dir():
        return False
    return _files(one) == _files(two) if one.is_dir() else one.read_bytes() == two.read_bytes()


def _place_old(out: Path, old: str | None) -> None:
    shutil.rmtree(out.parent)
    out.parent.mkdir()
    if old and Path(old).is_dir():
        shutil.copytree(old, out)
    elif old:
        shutil.copyfile(old, out)


def main() -> None:
    request = json.load(sys.stdin)
    for name in WHOLE_BUILD if request["model"] else WRITE_STAGE:
        importlib.import_module(name)
    out, rows = Path(request["out"]), []
    for at in range(1, 1000):
        _place_old(out, request["old"])
        ended, operation = _fork(request, at)
        row = {"at": at, "operation": operation, "ended": ended, **_state(out, request)}
        if not operation:
            rows.append(row)
            break
        ended, _ = _fork(request, 0)
        rows.append({**row, "again": {"ended": ended, **_state(out, request)}})
    json.dump(rows, sys.stdout)


if __name__ == "__main__":
    main()
