"""`edgeq doctor`: what this machine has of what edgeq needs, and what is missing."""

from __future__ import annotations

import click

from edgeq.cli.console import Console
from edgeq.cli.lazy import Command
from edgeq.cli.options import json_option

EXAMPLES = (
    ("before a first build", "edgeq doctor"),
    ("for a report", "edgeq doctor --json"),
)


@click.command("doctor", cls=Command, examples=EXAMPLES)
@json_option
@click.pass_obj
def command(console: Console, /) -> int:
    """Check this machine for what edgeq needs."""
    from edgeq import api
    from edgeq.cli import render

    result = api.doctor()
    next_line = "edgeq targets" if result.ok else "edgeq doctor"
    return render.show(console, result, render.doctor, next_line)
