"""`edgeq compare`: two artifacts on the same inputs, every output and inner tensor, worst first."""

from __future__ import annotations

import click

from edgeq.cli.console import Console
from edgeq.cli.lazy import Command, Count, usage_error
from edgeq.cli.options import (
    OUTPUT,
    config_option,
    is_bundle,
    option,
    resolve,
    samples_option,
    story_options,
)
from edgeq.cli.units import shell_word

EXAMPLES = (
    (
        "what int8 costs, tensor by tensor",
        "edgeq compare model.onnx model-rpi5-int8.edgeq -d calib.npz",
    ),
    (
        "two bundles, on inputs made up in their calibrated ranges",
        "edgeq compare old.edgeq new.edgeq --synthetic-data",
    ),
    (
        "for a script, which reads `max_lsb`",
        "edgeq compare old.edgeq new.edgeq -d calib.npz --json",
    ),
)


@click.command("compare", cls=Command, examples=EXAMPLES)
@click.argument("a", metavar="A")
@click.argument("b", metavar="B")
@option(
    "-d",
    "--data",
    section="Data",
    metavar="SRC",
    help="Compare on SRC: .npz, folder of .npy or file.py:function (default: synthetic)",
)
@samples_option("Data", "samples")
@option(
    "--synthetic-data",
    section="Data",
    is_flag=True,
    help="Compare on seeded inputs in the calibrated ranges, whatever edgeq.toml names",
)
@config_option("Data")
@option(
    "--top",
    section=OUTPUT,
    type=Count(),
    metavar="N",
    help="Show the N worst inner tensors (default: 10)",
)
@option("--tensors", section=OUTPUT, is_flag=True, help="Show every inner tensor, worst first")
@story_options
@click.pass_context
def command(
    ctx: click.Context,
    *,
    a: str,
    b: str,
    data: str | None,
    samples: int | None,
    synthetic_data: bool,
    config: str | None,
    top: int | None,
    tensors: bool,
) -> int:
    """Measure how far one artifact is from another."""
    for given, other in ((data and synthetic_data, "--data"), (top and tensors, "--top")):
        if given:
            flag = "--synthetic-data" if other == "--data" else "--tensors"
            raise usage_error(f"`{other}` and `{flag}` contradict each other; give one", ctx)
    settings = resolve({"data": data, "samples": samples}, config).settings
    from functools import partial

    from edgeq import api
    from edgeq.cli import render
    from edgeq.cli import tensors as listed
    from edgeq.cli.story import Story

    console = ctx.ensure_object(Console)
    with Story(console) as story:
        result = api.compare(
            a,
            b,
            data=None if synthetic_data else settings.data,
            samples=settings.samples,
            input=settings.input,
            progress=story,
        )
    story.rest(notes=result.notes, warnings=result.warnings)
    shown = None if tensors else top or listed.SHOWN
    return render.show(console, result, partial(listed.compared, shown=shown), _after(a, b))


def _after(a: str, b: str) -> str:
    """The plan of the bundle among the two, which says where a difference comes from."""
    bundle = next((path for path in (b, a) if is_bundle(path)), None)
    return (
        f"edgeq inspect {shell_word(b)}"
        if bundle is None
        else (f"edgeq inspect {shell_word(bundle)} --plan")
    )
