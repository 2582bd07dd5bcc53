"""`edgeq inspect`: what a model file or a bundle holds; nothing of it is run."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from edgeq.cli.console import Console
from edgeq.cli.lazy import Command, usage_error
from edgeq.cli.options import OUTPUT, json_option, option, shape_option
from edgeq.cli.units import shell_word

if TYPE_CHECKING:
    from edgeq.report.results import Inspection

EXAMPLES = (
    ("inputs, outputs, operators of a model", "edgeq inspect model.onnx"),
    ("what a bundle was made of, and its quality", "edgeq inspect model-rpi5-int8.edgeq"),
    (
        "which operators stayed in float, and why",
        "edgeq inspect model-rpi5-int8.edgeq --plan --float",
    ),
)


@click.command("inspect", cls=Command, examples=EXAMPLES)
@click.argument("file", metavar="FILE")
@shape_option("Model")
@option(
    "--plan",
    section=OUTPUT,
    is_flag=True,
    help="Show each operator of a bundle or a .tflite file: precision, range, error, reason",
)
@option(
    "--float",
    "only_float",
    section=OUTPUT,
    is_flag=True,
    help="With --plan, show only the operators that stayed in float",
)
@json_option
@click.pass_context
def command(
    ctx: click.Context,
    *,
    file: str,
    shape: dict[str, tuple[int, ...]] | None,
    plan: bool,
    only_float: bool,
) -> int:
    """Show what a model or a bundle holds."""
    if only_float and not plan:
        raise usage_error("`--float` needs `--plan`", ctx)
    from functools import partial

    from edgeq import api
    from edgeq.cli import render, tensors
    from edgeq.cli.story import Story

    console = ctx.ensure_object(Console)
    result = api.inspect(file, shape=shape, plan=plan)
    Story(console).rest(notes=() if plan else result.notes)
    show = partial(tensors.plan, only_float=only_float) if plan else render.inspection
    return render.show(console, result, show, _after(result, shell_word(file)))


def _after(result: Inspection, word: str) -> str:
    """`verify` where this host can load the artifact, else what is known of the one that can."""
    if result.kind != "bundle":
        return f"edgeq build {word} --target rpi5"
    from edgeq_runtime.cpu import host

    platform = result.data["artifact"].get("platform")
    if platform not in (None, host().architecture):
        return f"edgeq targets {result.data['target']}"
    return f"edgeq verify {word}"
