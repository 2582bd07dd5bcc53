"""What C code logs while it opens a model, kept off the user's screen."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import threading
from collections.abc import Iterator
from typing import Any

_LOCK = threading.Lock()


@contextlib.contextmanager
def native_stderr() -> Iterator[None]:
    """No log of C code, which TFLite has no switch for ("INFO: Created ... XNNPACK delegate").

    Only the C library's `stderr` stream points elsewhere meanwhile: file descriptor 2 stays as it
    is, so what Python writes from any thread is seen. Does nothing where glibc is not the library.
    """
    found = _streams()
    if found is None:
        yield
        return
    stream, void = found
    with _LOCK:
        before = stream.value
        stream.value = void
        try:
            yield
        finally:
            stream.value = before


@functools.cache
def _streams() -> tuple[Any, int] | None:
    """The variable `stderr` of the C library, and a stream that goes nowhere."""
    try:
        library = ctypes.CDLL("libc.so.6")
        stream = ctypes.c_void_p.in_dll(library, "stderr")
        library.fopen.restype = ctypes.c_void_p
        void = library.fopen(b"/dev/null", b"w")
    except (AttributeError, OSError, ValueError):
        return None
    return (stream, int(void)) if void else None
