"""Every way a command can end badly, as an error with a slug and an exit code."""

from __future__ import annotations

import errno
import platform
import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path

import click

from edgeq.cli.console import Console
from edgeq.cli.lazy import usage_error
from edgeq.errors import EdgeqError, did_you_mean

NOT_OURS = frozenset(
    getattr(errno, name)
    for name in (
        *("ENOSPC", "EDQUOT", "EACCES", "EPERM", "EROFS"),
        *("EMFILE", "ENFILE", "EIO", "ENAMETOOLONG", "ELOOP"),
    )
    if hasattr(errno, name)
)
"""What the operating system refuses whatever edgeq does: an error to act on, not a bug."""


def guard(action: Callable[[], int], console: Console) -> int:
    """Run `action` for its exit code; what it raises is told, and has an exit code too."""
    try:
        return action()
    except EdgeqError as error:
        return console.fail(error)
    except BrokenPipeError:
        return 0  # only help and --version write past the console: their reader has what it wanted
    except (KeyboardInterrupt, click.Abort):
        return console.fail(EdgeqError("interrupted", "interrupted"))
    except MemoryError:
        return console.fail(EdgeqError("out-of-memory", "this needs more memory than is free"))
    except OSError as error:
        return console.fail(_refused(error) if error.errno in NOT_OURS else _bug(error))
    except Exception as error:  # the last resort: a bug is told in one line and saved in a file
        return console.fail(_bug(error))


def from_click(wrong: click.UsageError) -> EdgeqError:
    """click's complaint in edgeq's words, with the nearest option as a hint."""
    command = "edgeq" if wrong.ctx is None else wrong.ctx.command_path
    if isinstance(wrong, click.NoSuchOption):
        known = _options(wrong.ctx)
        hints = did_you_mean(wrong.option_name, known) if wrong.option_name[:2] == "--" else ()
        close = tuple(hint for hint in hints if hint.startswith("did you mean"))
        return usage_error(f"`{command}` has no option `{wrong.option_name}`", wrong.ctx, *close)
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


def _refused(error: OSError) -> EdgeqError:
    where = "" if error.filename is None else f"`{error.filename}`: "
    return EdgeqError("os-error", f"{where}{error.strerror or error}".lower())


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
        return EdgeqError("bug", message, "set TMPDIR to a folder that takes the crash file")
    return EdgeqError("bug", message, f"report it with the crash file `{path}`")


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
        stream.write(
            f"edgeq {version}\nPython {sys.version.split()[0]}\n{platform.platform()}\n\n"
        )
        stream.writelines(traceback.format_exception(error))
        return Path(stream.name)
