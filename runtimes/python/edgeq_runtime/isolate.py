"""Load and run a model once in a child process, so that a crash or a hang stays there.

The child is `python -I -S -c`: no PYTHON* variables, no user site, no .pth code, no current folder
on the path. It gets the parent's own `sys.path`, the request and the model on its stdin, answers
in JSON lines on a private copy of its stdout, and ends itself by an alarm should the parent die.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from edgeq_runtime import engines
from edgeq_runtime.errors import EdgeqError
from edgeq_runtime.outside import ModelBytes, folder_of

DEFAULT_TIMEOUT_S = 120.0
ALARM_MARGIN_S = 10  # the parent's own limit comes first
_BOOTSTRAP = (
    "import json, sys; "
    "size = int.from_bytes(sys.stdin.buffer.read(8), 'little'); "
    "request = json.loads(sys.stdin.buffer.read(size)); "
    "sys.path[:] = request['sys_path']; "
    "from edgeq_runtime.isolate import child; "
    "child(request)"
)


def probe(
    model: bytes | str | Path,
    *,
    engine: str = "onnxruntime",
    timeout_s: float = DEFAULT_TIMEOUT_S,
    feeds: Mapping[str, Any] | None = None,
    memory_limit_bytes: int | None = None,
) -> None:
    """Open `model` with `engine` in a child and run it once on `feeds`, or on zeros.

    A signal is EdgeqError("engine-crashed"), too long is ("engine-timeout"), a refusal is the same
    EdgeqError as in-process. Where sizes are unknown and zeros of size 1 are made up for them, a
    run that the engine refuses is no error: only a crash counts. `memory_limit_bytes` sets
    RLIMIT_AS where the system has it.
    """
    request, body = _request(model, engine, timeout_s, feeds, memory_limit_bytes)
    head = json.dumps(request).encode()
    stream = [len(head).to_bytes(8, "little"), head, *body]
    process = _start()
    try:
        answer = _talk(process, stream, timeout_s)
    except subprocess.TimeoutExpired:
        raise EdgeqError(
            "engine-timeout",
            f"{engine} did not load and run the model within {timeout_s:g} s",
        ) from None
    finally:
        _end(process)
    _judge(process.returncode, answer, engine)


def _request(
    model: bytes | str | Path,
    engine: str,
    timeout_s: float,
    feeds: Mapping[str, Any] | None,
    memory_limit_bytes: int | None,
) -> tuple[dict[str, Any], list[bytes]]:
    """The JSON head and the bytes that follow it: the model, then each array."""
    is_bytes = isinstance(model, bytes)
    request: dict[str, Any] = {
        "engine": engine,
        "sys_path": [row for row in sys.path if row and os.path.isabs(row)],
        "timeout_s": timeout_s,
        "memory_limit_bytes": memory_limit_bytes,
        "model_bytes": len(model) if isinstance(model, bytes) else None,
        "model_path": None if is_bytes else os.path.abspath(str(model)),
        "model_folder": folder_of(model),
        "feeds": None,
    }
    body = [model] if isinstance(model, bytes) else []
    if feeds is not None:
        request["feeds"] = [_array_head(name, array) for name, array in feeds.items()]
        body += [array.tobytes() for array in feeds.values() if array.dtype.kind not in "OUS"]
    return request, body


def _array_head(name: str, array: Any) -> dict[str, Any]:
    head = {"name": name, "dtype": array.dtype.str, "shape": list(array.shape)}
    if array.dtype.kind in "OUS":
        head["strings"] = [str(row) for row in array.ravel().tolist()]
    return head


def _start() -> subprocess.Popen[bytes]:
    if not sys.executable:
        raise _no_isolation("this program has no Python interpreter of its own")
    try:
        return subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _BOOTSTRAP],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            close_fds=True,
        )
    except OSError as error:
        raise _no_isolation(f"cannot start a child process: {error.strerror}") from error


def _no_isolation(message: str) -> EdgeqError:
    return EdgeqError(
        "no-isolation", message, "load without it, if you trust the file: load(..., isolate=False)"
    )


def _talk(process: subprocess.Popen[bytes], stream: Sequence[bytes], timeout_s: float) -> bytes:
    """Send everything, then read until the child is done; a child that died early is no error."""
    answer, _ = process.communicate(b"".join(stream), timeout=timeout_s)
    return answer


def _end(process: subprocess.Popen[bytes]) -> None:
    """Nothing stays behind: no child, no open pipe."""
    process.kill()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with contextlib.suppress(OSError):  # what was never read cannot be flushed
                pipe.close()
    process.wait()


def _judge(returncode: int, answer: bytes, engine: str) -> None:
    """Turn what the child said and how it ended into nothing or an EdgeqError."""
    said: dict[str, Any] = {}
    for line in answer.splitlines():
        said.update(json.loads(line))
    version = said.get("version") or engines.installed_version(engine) or "(version unknown)"
    if "slug" in said:
        raise EdgeqError(said["slug"], said["message"], *said["hints"])
    if returncode < 0:
        raise EdgeqError(
            "engine-crashed",
            f"{engine} {version} was killed by {_signal_name(-returncode)} while it "
            f"{said.get('stage', 'was imported')}",
            *_crash_hints(-returncode),
        )
    if returncode != 0 or not said.get("done"):
        raise EdgeqError(
            "engine-crashed", f"{engine} {version} ended the process with status {returncode}"
        )


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _crash_hints(number: int) -> tuple[str, ...]:
    if number == getattr(signal, "SIGKILL", None):
        return ("the system may have run out of memory",)
    if number == getattr(signal, "SIGILL", None):
        return ("this engine build uses instructions that the cpu lacks: try another version",)
    return ()


def child(request: Mapping[str, Any]) -> None:
    """The child's whole life: limits, engine, model, one run. Answers on a private stdout."""
    source = sys.stdin.buffer
    answer = os.fdopen(os.dup(1), "wb")
    _quiet_stdout()
    _limit(request)

    def say(**facts: Any) -> None:
        answer.write(json.dumps(facts).encode() + b"\n")
        answer.flush()

    def unforeseen(
        kind: type[BaseException], error: BaseException, _: TracebackType | None
    ) -> None:
        say(
            slug="engine-failed", message=f"{request['engine']}: {kind.__name__}: {error}", hints=()
        )

    sys.excepthook = unforeseen
    try:
        _load_and_run(request, source, say)
    except EdgeqError as error:
        say(slug=error.slug, message=error.message, hints=error.hints)
    say(done=True)
    os._exit(0)  # an engine that crashes in its own teardown has still loaded and run the model


def _quiet_stdout() -> None:
    """Engines print; nothing of that may reach the answer."""
    void = os.open(os.devnull, os.O_RDWR)
    os.dup2(void, 1)
    os.close(void)


def _limit(request: Mapping[str, Any]) -> None:
    """No core files; an end of its own if the parent is gone; memory where asked and possible."""
    if hasattr(signal, "alarm"):
        signal.alarm(int(request["timeout_s"]) + ALARM_MARGIN_S)
    try:
        import resource
    except ImportError:  # not on Windows
        return
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    limit = request["memory_limit_bytes"]
    if limit is not None:
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def _load_and_run(request: Mapping[str, Any], source: IO[bytes], say: Any) -> None:
    model = request["model_path"]
    if request["model_bytes"] is not None:
        model = source.read(request["model_bytes"])
    if request["model_folder"] is not None:
        model = ModelBytes.beside(model, request["model_folder"], 0)
    module = engines.get(request["engine"])
    say(version=module.version(), stage="loaded the model")
    session = module.open_session(model, threads=1, low_memory=True)
    say(stage="ran the model")
    given = request["feeds"] is not None
    feeds = _read_feeds(request["feeds"], source) if given else zeros(session.inputs)
    try:
        session.run(feeds)
    except EdgeqError:
        if given or all(info.is_static for info in session.inputs):
            raise


def _read_feeds(heads: Sequence[Mapping[str, Any]], source: IO[bytes]) -> dict[str, Any]:
    import numpy as np

    feeds: dict[str, Any] = {}
    for head in heads:
        if "strings" in head:
            array = np.array(head["strings"], dtype=object).reshape(head["shape"])
        else:
            dtype = np.dtype(head["dtype"])
            size = int(np.prod(head["shape"], dtype=np.int64)) * dtype.itemsize
            array = np.frombuffer(source.read(size), dtype).reshape(head["shape"])
        feeds[head["name"]] = array
    return feeds


def zeros(inputs: Sequence[Any]) -> dict[str, Any]:
    """Zeros (empty strings) for each input; an unknown size is 1."""
    import numpy as np

    feeds: dict[str, Any] = {}
    for info in inputs:
        shape = [size if isinstance(size, int) else 1 for size in info.shape]
        if info.dtype == "object":
            feeds[info.name] = np.full(shape, "", dtype=object)
            continue
        try:
            feeds[info.name] = np.zeros(shape, info.dtype)
        except (MemoryError, ValueError, TypeError) as error:
            raise EdgeqError(
                "engine-failed", f"cannot make input `{info.name}`, {info.describe()}: {error}"
            ) from error
    return feeds
