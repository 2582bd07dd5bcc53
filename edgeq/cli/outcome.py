"""Every way a command can end badly, as an error with a slug and an exit code."""

from __future__ import annotations

import errno
import platform
import sys
import tempfile
import traceback
from pathlib import Path

import click

from edgeq.cli.lazy import nearest, usage_error
from edgeq.errors import EdgeqError

NOT_OURS = frozenset(
    getattr(errno, name)
    for name in (
        *("ENOSPC", "EDQUOT", "EACCES", "EPERM", "EROFS"),
        *("EMFILE", "ENFILE", "EIO", "ENAMETOOLONG", "ELOOP"),
    )
    if hasattr(errno, name)
)
"""What the operating system refuses whatever edgeq does: an error to act on, not a bug."""


def as_error(raised: BaseException) -> EdgeqError:
    """What a command raised, as the error to tell; anything unforeseen is a bug, and saved."""
    if isinstance(raised, EdgeqError):
        return raised
    if isinstance(raised, click.UsageError):
        return from_click(raised)
    if isinstance(raised, KeyboardInterrupt | click.Abort):
        return EdgeqError("interrupted", "interrupted", exit_code=130)
    if isinstance(raised, MemoryError):
        return EdgeqError("out-of-memory", "this needs more memory than is free")
    if isinstance(raised, OSError) and raised.errno in NOT_OURS:
        where = "" if raised.filename is None else f"`{raised.filename}`: "
        return EdgeqError("os-error", f"{where}{(raised.strerror or str(raised)).lower()}")
    return _bug(raised)


def from_click(wrong: click.UsageError) -> EdgeqError:
    """click's complaint in edgeq's words, with the nearest option as a hint."""
    command = "edgeq" if wrong.ctx is None else wrong.ctx.command_path
    if isinstance(wrong, click.NoSuchOption):
        hints = nearest(wrong.option_name, _options(wrong.ctx))
        return usage_error(f"`{command}` has no option `{wrong.option_name}`", wrong.ctx, *hints)
    if isinstance(wrong, click.MissingParameter) and wrong.param is not None:
        return usage_error(f"`{command}` needs {wrong.param.human_readable_name}", wrong.ctx)
    if isinstance(wrong, click.BadOptionUsage):
        verb = "takes no value" if "not take" in wrong.message else "needs a value"
        return usage_error(f"`{wrong.option_name}` {verb}", wrong.ctx)
    message = wrong.format_message().rstrip(".")
    return usage_error(message[:1].lower() + message[1:], wrong.ctx)


def _options(ctx: click.Context | None) -> tuple[str, ...]:
    if ctx is None:
        return ()
    names = (name for param in ctx.command.get_params(ctx) for name in param.opts)
    return tuple(name for name in names if name.startswith("--"))


def _bug(error: BaseException) -> EdgeqError:
    """Save the traceback where the user can send it from; say so in one line."""
    from edgeq import __version__

    kind = type(error).__name__
    first = str(error).split("\n", 1)[0][:200]
    what = f"{kind}: {first}" if first else kind
    message = f"a bug in edgeq {__version__}: {what}"
    try:
        path = _save(error, __version__)
    except OSError:
        return EdgeqError(
            "bug", message, "set TMPDIR to a folder that takes the crash file", exit_code=70
        )
    return EdgeqError("bug", message, f"report it with the crash file `{path}`", exit_code=70)


def _save(error: BaseException, version: str) -> Path:
    """Write the crash file; it holds versions and the traceback, no arguments and no data."""
    with tempfile.NamedTemporaryFile(
        "w",
        prefix="edgeq-crash-",
        suffix=".txt",
        delete=False,
        encoding="utf-8",
        errors="backslashreplace",
    ) as stream:
        stream.write(f"edgeq {version}\nPython {sys.version.split()[0]}\n{platform.platform()}\n\n")
        stream.writelines(traceback.format_exception(error))
        return Path(stream.name)
