"""The group `edgeq`, and how every way a command can end becomes an exit code."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

import click

from edgeq.cli.console import Console, make_printable
from edgeq.cli.lazy import VERSION, LazyGroup

COMMANDS = {
    "build": ("edgeq.cli.build:command", "Build a verified, packaged model for one target"),
    "run": ("edgeq.cli.run:command", "Run a bundle or a model on samples"),
    "eval": ("edgeq.cli.eval:command", "Measure the quality of a bundle or a model"),
    "verify": ("edgeq.cli.verify:command", "Prove that a bundle is whole and computes as built"),
    "compare": ("edgeq.cli.compare:command", "Measure how far one artifact is from another"),
    "inspect": ("edgeq.cli.inspect:command", "Show what a model or a bundle holds"),
    "init": ("edgeq.cli.init:command", "Write a commented edgeq.toml for a model"),
    "targets": ("edgeq.cli.targets:command", "List the devices that edgeq builds for"),
    "doctor": ("edgeq.cli.doctor:command", "Check this machine for what edgeq needs"),
    "explain": ("edgeq.cli.explain:command", "Explain an error by its slug"),
}
"""name -> (module:attribute, the help line shown without importing it); a test compares the two."""

EXAMPLES = (
    ("static int8 for a Raspberry Pi 5", "edgeq build model.onnx -t rpi5 --int8 -d calib.npz"),
    ("what is in the bundle, and does it still compute?", "edgeq verify model-rpi5-int8.edgeq"),
)


def _show_version(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        from edgeq import __version__

        click.echo(f"edgeq {__version__}")
        ctx.exit()


@click.group(
    cls=LazyGroup,
    table=COMMANDS,
    examples=EXAMPLES,
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_show_version,
    help=VERSION,
)
def group() -> None:
    """Put a trained model on a small device and tell what that costs: bytes and quality."""


def run(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code of its outcome and never raises."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    make_printable(sys.stdout, sys.stderr)
    console = Console(json="--json" in arguments, arguments=arguments)
    code = _guard(lambda: _invoke(arguments, console), console)
    return _guard(lambda: _flushed(console, code), console)


def _invoke(arguments: list[str], console: Console) -> int:
    try:
        with group.make_context("edgeq", arguments, obj=console) as context:
            return int(group.invoke(context) or 0)
    except click.exceptions.Exit as stop:
        return stop.exit_code
    except click.exceptions.NoArgsIsHelpError as nothing:
        click.echo(nothing.format_message(), err=True)
        return nothing.exit_code


def _flushed(console: Console, code: int) -> int:
    console.flush()
    return code


def _guard(action: Callable[[], int], console: Console) -> int:
    """Run `action` for its exit code; what it raises is told, and has an exit code too."""
    try:
        return action()
    except BrokenPipeError:
        return 0  # only help and --version write past the console: their reader has what it wanted
    except (Exception, KeyboardInterrupt) as raised:  # noqa: BLE001  nothing leaves as a traceback
        from edgeq.cli.outcome import as_error

        return console.fail(as_error(raised))
