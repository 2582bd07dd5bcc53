"""`edgeq init`: an edgeq.toml for one model, every setting explained."""

from __future__ import annotations

import click

from edgeq.cli.console import Console
from edgeq.cli.lazy import Command
from edgeq.cli.options import OUTPUT, json_option, option
from edgeq.cli.units import shell_word

EXAMPLES = (
    ("then `edgeq build` alone builds it", "edgeq init model.onnx -t rpi5"),
    ("settings of another name, for this machine", "edgeq init model.onnx -o small.toml"),
)


@click.command("init", cls=Command, examples=EXAMPLES)
@click.argument("model", metavar="MODEL")
@option(
    "-t",
    "--target",
    section="Settings",
    metavar="NAME",
    help="Write target NAME, see `edgeq targets` (default: this machine)",
)
@option("-o", "--out", section=OUTPUT, metavar="FILE", help="Write FILE (default: edgeq.toml)")
@option("--force", section=OUTPUT, is_flag=True, help="Replace a file that is there")
@json_option
@click.pass_obj
def command(
    console: Console, /, *, model: str, target: str | None, out: str | None, force: bool
) -> int:
    """Write a commented edgeq.toml for a model."""
    from edgeq import api
    from edgeq.cli import render, tensors
    from edgeq.cli.story import Story
    from edgeq.config import FILE_NAME

    result = api.init(model, target=target, out=out or FILE_NAME, force=force)
    Story(console).rest(notes=result.notes)
    own = result.file == FILE_NAME
    next_line = "edgeq build" if own else f"edgeq build --config {shell_word(result.file)}"
    return render.show(console, result, tensors.initialized, next_line)
