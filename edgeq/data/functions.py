"""`file.py:function`: the user's own code, loaded from its file and blamed by file and line."""

from __future__ import annotations

import sys
import types
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from edgeq.errors import EdgeqError, did_you_mean

MAX_SOURCE_BYTES = 1 << 22
T = TypeVar("T")


def is_function_spec(spec: str) -> bool:
    """Whether a source is written `file.py:function`."""
    return split_spec(spec) is not None


def split_spec(spec: str) -> tuple[Path, str] | None:
    """`eval.py:top1` as its file and its name, or None for anything else."""
    file, colon, name = spec.rpartition(":")
    return (Path(file), name) if colon and file.endswith(".py") else None


def open_function(spec: str) -> Callable[..., Any]:
    """The function that `file.py:function` names, its file executed once.

    The file may import its neighbours. Whatever goes wrong, here or when it is called through
    `calling`, is `[bad-function]` with the user's file and line.
    """
    parts = split_spec(spec)
    if parts is None:
        raise EdgeqError("bad-function", f"`{spec}` is not file.py:function")
    path, name = parts
    module = _execute(path)
    function = getattr(module, name, None)
    if function is None:
        own = [key for key, value in vars(module).items() if isinstance(value, types.FunctionType)]
        raise EdgeqError(
            "bad-function", f"{path} has no function `{name}`", *did_you_mean(name, own)
        )
    if not callable(function):
        raise EdgeqError(
            "bad-function", f"{path}: `{name}` is a {type(function).__name__}, not a function"
        )
    return function  # type: ignore[no-any-return]


def name_of(function: Callable[..., Any]) -> str:
    """A function's name for reports: no path in it, so that results do not depend on folders."""
    return f"{getattr(function, '__name__', type(function).__name__)}()"


def place_of(function: Callable[..., Any]) -> str:
    """`eval.py:12`: the line where a function begins, for messages about what it returned."""
    code = getattr(function, "__code__", None)
    if code is None:
        return getattr(function, "__name__", type(function).__name__)
    return f"{code.co_filename}:{code.co_firstlineno}"


@contextmanager
def calling(function: Callable[..., Any]) -> Iterator[None]:
    """Run user code: what it raises becomes `[bad-function]`; edgeq's own errors pass through."""
    code = getattr(function, "__code__", None)
    with _blaming(code.co_filename if code is not None else place_of(function)):
        yield


def iterate(function: Callable[..., Any], items: Iterable[T]) -> Iterator[T]:
    """The items of what a function returned, each step of a generator blamed like a call."""
    with calling(function):
        iterator = iter(items)
    while True:
        with calling(function):
            try:
                item = next(iterator)
            except StopIteration:
                return
        yield item


def _execute(path: Path) -> types.ModuleType:
    try:
        with path.open("rb") as stream:
            source = stream.read(MAX_SOURCE_BYTES + 1)
    except OSError as failure:
        raise EdgeqError("bad-function", f"{path}: {failure.strerror}") from None
    if len(source) > MAX_SOURCE_BYTES:
        raise EdgeqError("bad-function", f"{path}: larger than {MAX_SOURCE_BYTES} bytes")
    module = types.ModuleType(path.stem)
    module.__file__ = str(path)
    with _blaming(str(path)), _neighbours(path):
        exec(compile(source, str(path), "exec"), module.__dict__)  # noqa: S102 - the user's own file
    return module


@contextmanager
def _neighbours(path: Path) -> Iterator[None]:
    """Let the file import what lies beside it, while it is executed."""
    folder = str(path.resolve().parent)
    sys.path.insert(0, folder)
    try:
        yield
    finally:
        sys.path.remove(folder)


@contextmanager
def _blaming(file: str) -> Iterator[None]:
    try:
        yield
    except EdgeqError:
        raise
    except (Exception, SystemExit) as failure:
        raise EdgeqError("bad-function", _describe(failure, file)) from failure


def _describe(failure: BaseException, file: str) -> str:
    """`eval.py:12: NameError: name 'labels' is not defined`, by the deepest frame in `file`."""
    if isinstance(failure, SyntaxError) and failure.filename == file:
        return f"{file}:{failure.lineno}: SyntaxError: {failure.msg}"
    line, trace = None, failure.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == file:
            line = trace.tb_lineno
        trace = trace.tb_next
    place = file if line is None else f"{file}:{line}"
    text = " ".join(str(failure).split())[:300]
    return f"{place}: {type(failure).__name__}" + (f": {text}" if text else "")
