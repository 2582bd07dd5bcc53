"""The options that commands share, and how flags become settings."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from edgeq.cli.console import Console
from edgeq.cli.lazy import Count, Option, usage_error

if TYPE_CHECKING:
    from edgeq.config import Resolved

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]
Returned = TypeVar("Returned")
OUTPUT = "Output"


def option(*names: str, section: str, **settings: Any) -> Decorator:
    """A `click.option` that stands under the heading `section` of the help."""
    return click.option(*names, cls=Option, section=section, **settings)


def _one_of(ctx: click.Context, group: str, name: str) -> None:
    """Note that `name` was given; a second, different one of `group` is refused."""
    seen: list[str] = ctx.meta.setdefault(f"edgeq.cli.{group}", [])
    if name not in seen:
        seen.append(name)
    if len(seen) > 1:
        raise usage_error(f"`{seen[0]}` and `{seen[1]}` contradict each other; give one", ctx)


def _set_verbosity(level: int) -> Callable[[click.Context, click.Parameter, bool], None]:
    def callback(ctx: click.Context, param: click.Parameter, value: bool) -> None:
        if value:
            _one_of(ctx, "verbosity", param.opts[0])
            ctx.ensure_object(Console).verbosity = level

    return callback


def _set_json(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    ctx.ensure_object(Console).json = value


def _set_progress(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    ctx.ensure_object(Console).progress = not value


def json_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """`--json`: the result as one document on stdout."""
    return option(
        "--json",
        section=OUTPUT,
        is_flag=True,
        expose_value=False,
        callback=_set_json,
        help="Print one JSON document instead of text",
    )(command)


def story_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """`--json`, `-q` and `--no-progress`: for commands that tell how they get on."""
    for names, callback, text in (
        (("--no-progress",), _set_progress, "Show no progress bar; stages keep their lines"),
        (("-q", "--quiet"), _set_verbosity(-1), "Show warnings and errors only, beside the result"),
    ):
        command = option(
            *names,
            section=OUTPUT,
            is_flag=True,
            expose_value=False,
            callback=callback,
            help=text,
        )(command)
    return json_option(command)


def verbose_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """`-v`: nothing is summed up."""
    return option(
        *("-v", "--verbose"),
        section=OUTPUT,
        is_flag=True,
        expose_value=False,
        callback=_set_verbosity(1),
        help="Show every operator, layer and note",
    )(command)


def precision_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """`--fp32`, `--fp16`, `--int8`, `--auto`: two of them together are an error."""

    def callback(ctx: click.Context, param: click.Parameter, value: bool) -> None:
        if value:
            _one_of(ctx, "precision", param.opts[0])
            ctx.params["precision"] = param.opts[0].removeprefix("--")

    for name, text in (
        ("--auto", "int8 if there is data and the gate passes, else float (default)"),
        ("--int8", "Quantize to 8 bits; needs --data, see --acts"),
        (
            "--fp16",
            "Store weights in 16 bits; LiteRT computes in them on some targets; needs no data",
        ),
        ("--fp32", "Keep float32, optimized"),
    ):
        command = option(
            name, section="Build", is_flag=True, expose_value=False, callback=callback, help=text
        )(command)
    return command


def samples_option(section: str, what: str) -> Decorator:
    """`--samples N`: read at most N samples."""
    return option(
        "--samples", section=section, type=Count(), help=f"Use at most N {what} (default: all)"
    )


def shape_option(section: str) -> Decorator:
    """`--shape NAME=1x3x224x224`, repeatable."""

    def callback(
        ctx: click.Context, _: click.Parameter, value: tuple[str, ...]
    ) -> dict[str, tuple[int, ...]] | None:
        from edgeq.config import parse_shape

        shapes: dict[str, tuple[int, ...]] = {}
        for text in value:
            name, dimensions = parse_shape(text)
            if shapes.setdefault(name, dimensions) != dimensions:
                raise usage_error(f"`--shape` gives `{name}` two shapes; give one", ctx)
        return shapes or None

    return option(
        "--shape",
        section=section,
        multiple=True,
        metavar="NAME=1x3x224x224",
        callback=callback,
        help="Fix an input's shape; repeat for more inputs",
    )


def config_option(section: str) -> Decorator:
    """`--config FILE`."""
    return option(
        "--config",
        section=section,
        metavar="FILE",
        help="Read settings from FILE (default: edgeq.toml, where there is one)",
    )


def resolve(flags: Mapping[str, Any], config: str | None) -> Resolved:
    """Flags over EDGEQ_* over `config` (or ./edgeq.toml) over defaults.

    A flag that is None, False or () was not given.
    """
    from edgeq.config import FILE_NAME
    from edgeq.config import resolve as merge

    path = Path(config or FILE_NAME)
    given = {name: value for name, value in flags.items() if value not in (None, (), False)}
    return merge(given, os.environ, path if config or path.is_file() else None)


def is_bundle(path: str) -> bool:
    """Whether `path` names a bundle, going by what it is called: for words on screen, no more."""
    return path.endswith(".edgeq") or Path(path).is_dir()
