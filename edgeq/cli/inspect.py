"""`edgeq inspect`: what a model file or a bundle holds; nothing of it is run."""

from __future__ import annotations

import click

from edgeq.cli.console import Console
from edgeq.cli.lazy import Command
from edgeq.cli.options import json_option, shape_option
from edgeq.cli.units import shell_word

EXAMPLES = (
    ("inputs, outputs, operators of a model", "edgeq inspect model.onnx"),
    ("what a bundle was made of, and its quality", "edgeq inspect model-rpi5-int8.edgeq"),
)


@click.command("inspect", cls=Command, examples=EXAMPLES)
@click.argument("file", metavar="FILE")
@shape_option("Model")
@json_option
@click.pass_obj
def command(console: Console, /, *, file: str, shape: dict[str, tuple[int, ...]] | None) -> int:
    """Show what a model or a bundle holds."""
    from edgeq import api
    from edgeq.cli import render
    from edgeq.cli.story import Story

    result = api.inspect(file, shape=shape)
    Story(console).rest(notes=result.notes)
    word = shell_word(file)
    bundle = result.kind == "bundle"
    next_line = f"edgeq verify {word}" if bundle else f"edgeq build {word} --target rpi5"
    return render.show(console, result, render.inspection, next_line)
