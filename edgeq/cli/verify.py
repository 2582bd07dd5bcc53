"""`edgeq verify`: every byte of a bundle checked, its golden vectors computed on this host."""

from __future__ import annotations

import click

from edgeq.cli.console import Console
from edgeq.cli.lazy import Command
from edgeq.cli.options import story_options
from edgeq.cli.units import shell_word

EXAMPLES = (
    ("after a copy to another machine", "edgeq verify model-rpi5-int8.edgeq"),
    ("for a script", "edgeq verify model-rpi5-int8.edgeq --json"),
)


@click.command("verify", cls=Command, examples=EXAMPLES)
@click.argument("bundle", metavar="BUNDLE")
@story_options
@click.pass_obj
def command(console: Console, /, *, bundle: str) -> int:
    """Prove that a bundle is whole and computes as built."""
    from edgeq import api
    from edgeq.cli import render
    from edgeq.cli.story import Story

    with Story(console) as story:
        result = api.verify(bundle, progress=story)
    story.rest(warnings=result.warnings)
    next_line = (
        f"edgeq run {shell_word(bundle)} --data samples.npz" if result.ok else "edgeq doctor"
    )
    return render.show(console, result, render.verified, next_line)
