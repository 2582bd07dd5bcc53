"""`edgeq targets`: the devices edgeq builds for, with the source of every figure."""

from __future__ import annotations

import click

from edgeq.cli.console import Console
from edgeq.cli.lazy import Command, usage_error
from edgeq.cli.options import json_option, option

EXAMPLES = (
    ("all of them", "edgeq targets"),
    ("every figure of one, with its source", "edgeq targets rpi5"),
    ("build for this very machine", 'edgeq build model.onnx -t "$(edgeq targets --host)" --fp32'),
)


@click.command("targets", cls=Command, examples=EXAMPLES)
@click.argument("name", required=False, metavar="[NAME]")
@option("--host", section="Targets", is_flag=True, help="Print the target that this machine is")
@json_option
@click.pass_context
def command(ctx: click.Context, *, name: str | None, host: bool) -> int:
    """List the devices that edgeq builds for."""
    if name is not None and host:
        raise usage_error(f"`--host` and `{name}` contradict each other; give one", ctx)
    from edgeq import targets
    from edgeq.cli import listings
    from edgeq.cli.documents import targets_document

    console = ctx.ensure_object(Console)
    if host:
        from edgeq_runtime import cpu

        name = targets.for_host(cpu.host())
    shown = tuple(targets.load(each) for each in (targets.names() if name is None else (name,)))
    if console.json:
        console.document(targets_document(shown, host=name if host else None))
    elif host:
        console.result((shown[0].name,))
    else:
        console.result(listings.target(shown[0]) if name else listings.targets(shown))
    return 0
