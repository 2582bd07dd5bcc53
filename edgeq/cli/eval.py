"""`edgeq eval`: the quality of a bundle or a model, with exact kernels, and a gate on it."""

from __future__ import annotations

import click

from edgeq.cli.console import Console
from edgeq.cli.lazy import Command, usage_error
from edgeq.cli.options import config_option, is_bundle, option, resolve, story_options
from edgeq.cli.units import shell_word

EXAMPLES = (
    ("labels in an .npz", "edgeq eval model-rpi5-int8.edgeq --eval test.npz --metric top1"),
    (
        "your own function, with a gate",
        'edgeq eval model.onnx --eval eval.py:score --gate "score>=0.9"',
    ),
)


@click.command("eval", cls=Command, examples=EXAMPLES)
@click.argument("artifact", metavar="BUNDLE|MODEL")
@option(
    "--eval",
    "evaluation",
    section="Quality",
    metavar="SRC",
    help="Measure with SRC: .npz with `y`, folder of class folders of images, file.py:function",
)
@option(
    "--metric",
    section="Quality",
    metavar="NAME",
    help="Measure NAME on an .npz or a folder: top1, top5, mae, mse or cosine",
)
@option(
    "--gate",
    section="Quality",
    multiple=True,
    metavar="RULES",
    help="Exit 1 unless RULES hold, like 'top1>=0.7,size<5MB'; repeat for more",
)
@option(
    "--labels",
    section="Quality",
    metavar="FILE",
    help="Name the classes of class folders, one per line (default: the bundle's)",
)
@config_option("Quality")
@story_options
@click.pass_context
def command(
    ctx: click.Context,
    *,
    artifact: str,
    evaluation: str | None,
    metric: str | None,
    gate: tuple[str, ...],
    labels: str | None,
    config: str | None,
) -> int:
    """Measure the quality of a bundle or a model."""
    flags = {"eval": evaluation, "metric": metric, "gate": gate, "labels": labels}
    resolved = resolve(flags, config)
    settings, gate_from = resolved.settings, resolved.origins["gate"]
    if settings.eval is None:
        raise usage_error(
            "`edgeq eval` needs something to measure with", ctx, "give it: `--eval test.npz`"
        )
    from edgeq.api.use import evaluate
    from edgeq.cli import render
    from edgeq.cli.story import Story

    console = ctx.ensure_object(Console)
    with Story(console) as story:
        result = evaluate(
            artifact,
            evaluate=settings.eval,
            metric=settings.metric,
            gate=settings.gate,
            standing_gate=":" in gate_from,  # `edgeq.toml:7`: written for `build` as well
            input=settings.input,
            labels=settings.labels,
            progress=story,
        )
    story.rest(notes=result.notes, warnings=result.warnings)
    verb = "verify" if result.ok and is_bundle(artifact) else "inspect"
    next_line = f"edgeq {verb} {shell_word(artifact)}"
    return render.show(console, result, render.evaluation, next_line)
