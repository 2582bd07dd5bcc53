"""`edgeq run`: a bundle or a model over samples; outputs summarised, saved, or the best classes."""

from __future__ import annotations

import click

from edgeq.cli.console import Console
from edgeq.cli.lazy import Command, Count, usage_error
from edgeq.cli.options import (
    OUTPUT,
    config_option,
    option,
    resolve,
    samples_option,
    story_options,
)
from edgeq.cli.units import shell_word

EXAMPLES = (
    (
        "the three best classes of each sample",
        "edgeq run model-rpi5-int8.edgeq -d test.npz --topk 3",
    ),
    ("every output, saved", "edgeq run model.onnx -d test.npz -o outputs.npz"),
)


@click.command("run", cls=Command, examples=EXAMPLES)
@click.argument("artifact", metavar="BUNDLE|MODEL")
@option(
    "-d",
    "--data",
    section="Data",
    metavar="SRC",
    help="Run on SRC: .npz, image, folder of .npy or images, file.py:function",
)
@samples_option("Data", "samples")
@config_option("Data")
@option("-o", "--out", section=OUTPUT, metavar="FILE", help="Save all outputs to FILE (.npz)")
@option(
    "--topk",
    section=OUTPUT,
    type=Count(),
    metavar="N",
    help="Show the N best classes of the first output, per sample",
)
@story_options
@click.pass_context
def command(
    ctx: click.Context,
    *,
    artifact: str,
    data: str | None,
    samples: int | None,
    config: str | None,
    out: str | None,
    topk: int | None,
) -> int:
    """Run a bundle or a model on samples."""
    settings = resolve({"data": data, "samples": samples}, config).settings
    if settings.data is None:
        raise usage_error("`edgeq run` needs samples", ctx, "give them: `--data test.npz`")
    from edgeq import api
    from edgeq.cli import render
    from edgeq.cli.story import Story

    console = ctx.ensure_object(Console)
    with Story(console) as story:
        result = api.run(
            artifact,
            data=settings.data,
            out=out,
            topk=topk,
            samples=settings.samples,
            input=settings.input,
            progress=story,
        )
    story.rest(notes=result.notes, warnings=result.warnings)
    return render.show(console, result, render.run, f"edgeq inspect {shell_word(artifact)}")
