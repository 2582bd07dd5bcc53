"""onnx's C++ (inliner, version converter, checker, shape inference) in a child with a time limit.

Measured with onnx 1.23.2: a Split with more outputs than `num_outputs` ends the process by SIGABRT
(2 of 20,000 mutated files). So a hostile model must not be shown to it in-process. The child is
started when it is first needed, serves one request after the other, and is started anew after it
died; it ends with this process, or after two idle minutes.
"""

from __future__ import annotations

import atexit
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import IO, Any

from edgeq.errors import EdgeqError

_CHILD = str(Path(__file__).with_name("onnx_child.py"))
_BOOTSTRAP = (
    "import json, runpy, sys; "
    "path, sys.path[:] = sys.argv[1], json.loads(sys.argv[2]); "
    "runpy.run_path(path, run_name='__main__')"
)
BASE_LIMIT_S = 4.0
LIMIT_S_PER_BYTE = 20e-6
"""Processor time: a model without its weights has about 300 bytes a node, so 6 ms a node."""
WALL_S = 60.0
WALL_PER_LIMIT = 10.0
"""Wall time, for a child that sleeps: on a busy machine its start alone may take seconds."""

_DOING = {"prepare": "raising the opset", "infer": "inferring shapes"}


class OnnxChild:
    """One child process at a time; `ask` is safe to call from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._owner = os.getpid()
        atexit.register(self.close)

    def ask(self, request: Mapping[str, Any], model: bytes) -> tuple[dict[str, Any], bytes]:
        """The child's answer: facts and a model. A crash or a hang raises `[onnx-failed]`."""
        limit_s = BASE_LIMIT_S + LIMIT_S_PER_BYTE * len(model)
        with self._lock:
            for _ in range(2):  # the first child may have gone to rest since the last request
                fresh = not self._is_running()
                process = self._start() if fresh else self._process
                assert process is not None
                late = threading.Event()
                answer = _talk(process, request, model, limit_s, late)
                if answer is not None:
                    return answer
                status = self._end()
                if fresh or late.is_set() or status != -getattr(signal, "SIGALRM", 0):
                    raise _failure(request["step"], status, limit_s, late.is_set())
        raise AssertionError("unreachable")

    def close(self) -> None:
        """End the child, if it is this process's."""
        if self._process is not None and self._owner == os.getpid():
            self._end()

    def _is_running(self) -> bool:
        """A child made before this process forked away is not ours to talk to."""
        if self._owner != os.getpid():
            self._process, self._owner = None, os.getpid()
        return self._process is not None and self._process.poll() is None

    def _start(self) -> subprocess.Popen[bytes]:
        if self._process is not None:
            self._end()
        if not sys.executable:
            raise EdgeqError("onnx-failed", "this program has no Python interpreter of its own")
        path = json.dumps([row for row in sys.path if os.path.isabs(row)])
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _BOOTSTRAP, _CHILD, path],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        return self._process

    def _end(self) -> int:
        """Kill and forget the child; how it ended (a signal is negative)."""
        process, self._process = self._process, None
        assert process is not None
        for pipe in (process.stdin, process.stdout):
            assert pipe is not None
            _close(pipe)
        status = process.poll()
        if status is None:
            process.kill()
            status = process.wait()
        return status


@cache
def onnx_child() -> OnnxChild:
    """The one of this process."""
    return OnnxChild()


def _talk(
    process: subprocess.Popen[bytes],
    request: Mapping[str, Any],
    model: bytes,
    limit_s: float,
    late: threading.Event,
) -> tuple[dict[str, Any], bytes] | None:
    """One request and its answer; None when the child ended first, `late` set if we ended it."""
    assert process.stdin is not None and process.stdout is not None

    def give_up() -> None:
        late.set()
        process.kill()

    head = data = None
    timer = threading.Timer(WALL_S + WALL_PER_LIMIT * limit_s, give_up)
    timer.start()
    try:
        for part in (json.dumps({**request, "limit_s": limit_s}).encode(), model):
            process.stdin.write(len(part).to_bytes(8, "little"))
            process.stdin.write(part)
        process.stdin.flush()
        head, data = _read(process.stdout), _read(process.stdout)
    except BrokenPipeError:
        pass
    finally:
        timer.cancel()
        if data is None and process.poll() is None and not late.is_set():
            _await_end(process)  # also on Ctrl-C: a late answer must not meet the next request
    return None if head is None or data is None else (json.loads(head), data)


def _await_end(process: subprocess.Popen[bytes]) -> None:
    """How it ended is worth a moment: a closed pipe comes before the status."""
    try:
        process.wait(timeout=1.0)
    except subprocess.TimeoutExpired:
        process.kill()


def _read(source: IO[bytes]) -> bytes | None:
    size = source.read(8)
    if len(size) < 8:
        return None
    data = source.read(int.from_bytes(size, "little"))
    return data if len(data) == int.from_bytes(size, "little") else None


def _close(pipe: IO[bytes]) -> None:
    try:
        pipe.close()
    except BrokenPipeError:  # what was not flushed to a dead child
        return


def _failure(step: str, status: int, limit_s: float, late: bool) -> EdgeqError:
    doing = _DOING[step]
    if late:
        return EdgeqError("onnx-failed", f"onnx did not finish {doing} in time")
    if status == -getattr(signal, "SIGPROF", 0):
        text = f"onnx did not finish {doing} within {limit_s:.0f} s of processor time"
        return EdgeqError("onnx-failed", text)
    try:
        how = f"was killed by {signal.Signals(-status).name}"
    except ValueError:
        how = f"ended with status {status}"
    return EdgeqError("onnx-failed", f"onnx {how} while {doing}: the model is damaged or hostile")
