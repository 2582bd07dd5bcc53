"""`edgeq build`: a model file in, a verified and packaged artifact for one target out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from edgeq.cli.console import Console
from edgeq.cli.lazy import Choice, Command
from edgeq.cli.options import (
    OUTPUT,
    config_option,
    option,
    precision_options,
    resolve,
    samples_option,
    shape_option,
    story_options,
    verbose_option,
)
from edgeq.cli.units import shell_line, shell_word
from edgeq.registry import ALGORITHMS

if TYPE_CHECKING:
    from edgeq.config import BuildSettings
    from edgeq.report.results import Build

BUILD, DATA, QUALITY, SETTINGS = "Build", "Data", "Quality", "Settings"

EXAMPLES = (
    ("static int8, calibrated on samples", "edgeq build model.onnx -t rpi5 --int8 -d calib.npz"),
    (
        "and measured: at most one point of top-1 lost, under 5 MB",
        "edgeq build model.onnx -t rpi5 --int8 -d calib.npz --eval eval.npz --metric top1 "
        '--gate "top1>=-1pt,size<5MB"',
    ),
    (
        "what would be int8, and why not",
        "edgeq build model.onnx -t rpi5 -d calib.npz --plan-only -v",
    ),
)


@click.command("build", cls=Command, examples=EXAMPLES)
@click.argument("model", required=False, metavar="[MODEL]")
@option(
    "-t",
    "--target",
    section=BUILD,
    metavar="NAME",
    help="Build for target NAME, see `edgeq targets`",
)
@precision_options
@option(
    "--weights",
    section=BUILD,
    type=Choice("auto", "int8", "int4", "int4-block32"),
    metavar="HOW",
    help="Store weights as int8, or those of dynamic layers as int4: a scale per column, or "
    "int4-block32: per 32 weights (default: auto)",
)
@option(
    "--acts",
    section=BUILD,
    type=Choice("auto", "static", "dynamic", "mixed", "fp32"),
    metavar="HOW",
    help="Quantize what layers read: static (needs --data), dynamic, mixed, fp32: not at all "
    "(default: auto, by measuring)",
)
@option(
    "--keep-float",
    section=BUILD,
    multiple=True,
    metavar="PATTERN",
    help="Leave nodes whose name matches in float, like 'head/*'; repeat for more",
)
@option(
    "--algo",
    section=BUILD,
    type=Choice("auto", *ALGORITHMS),
    help="Cut ranges by this method (default: auto, the best by measuring)",
)
@shape_option(BUILD)
@option(
    "-d",
    "--data",
    section=DATA,
    metavar="SRC",
    help="Calibrate on SRC: .npz, folder of .npy or images, file.py:function",
)
@samples_option(DATA, "samples of --data")
@option(
    "--synthetic-data",
    section=DATA,
    is_flag=True,
    help="Calibrate on random numbers; marks every figure `not calibrated`",
)
@option(
    "--labels", section=DATA, metavar="FILE", help="Pack class names into the bundle, one per line"
)
@option(
    "--eval",
    section=QUALITY,
    metavar="SRC",
    help="Measure with SRC: .npz with `y`, folder of class folders of images, file.py:function",
)
@option(
    "--metric",
    section=QUALITY,
    metavar="NAME",
    help="Measure NAME on an .npz or a folder: top1, top5, mae, mse or cosine",
)
@option(
    "--gate",
    section=QUALITY,
    multiple=True,
    metavar="RULES",
    help="Exit 1 unless RULES hold, like 'top1>=-0.5pt,size<5MB'; repeat for more",
)
@option("--strict", section=QUALITY, is_flag=True, help="Write nothing when the gate fails")
@option(
    "-o",
    "--out",
    section=OUTPUT,
    metavar="PATH",
    help="Write to PATH (default: NAME-TARGET-PRECISION.edgeq)",
)
@option(
    "--as",
    "packaging",
    section=OUTPUT,
    type=Choice("zip", "dir"),
    help="Write one zip file or a folder (default: zip)",
)
@option(
    "--format",
    section=OUTPUT,
    type=Choice("auto", "onnx", "ort", "tflite"),
    help="Write the model as ONNX, as ORT for the target's kind of CPU, or as TFLite (default: "
    "what the engine reads)",
)
@option(
    "--engine",
    section=OUTPUT,
    type=Choice("default", "auto", "ort", "litert"),
    help="Build for ONNX Runtime or LiteRT; auto builds for both and keeps one by measuring "
    "(default: the target's first)",
)
@option(
    "--io",
    section=OUTPUT,
    type=Choice("auto", "float", "int8"),
    help="Give an int8 TFLite model inputs and outputs of this type (default: float, or as a "
    ".tflite source has them)",
)
@option(
    "--layout",
    section=OUTPUT,
    type=Choice("keep", "nhwc"),
    help="Keep the axes of a TFLite model's inputs and outputs, or put channels last "
    "(default: keep)",
)
@option("--force", section=OUTPUT, is_flag=True, help="Replace an existing folder")
@option("--plan-only", section=OUTPUT, is_flag=True, help="Show the plan and write nothing")
@config_option(SETTINGS)
@option(
    "--show-config",
    section=SETTINGS,
    is_flag=True,
    help="Show every setting and where it comes from, then stop",
)
@story_options
@verbose_option
@click.pass_obj
def command(
    console: Console, /, *, plan_only: bool, show_config: bool, config: str | None, **flags: Any
) -> int:
    """Build a verified, packaged model for one target."""
    resolved = resolve(flags, config)
    if show_config:
        return _show(console, resolved.settings, resolved.origins)
    return (_plan if plan_only else _build)(console, resolved.settings)


def _build(console: Console, settings: BuildSettings) -> int:
    from edgeq import api
    from edgeq.cli import render
    from edgeq.cli.story import Story

    with Story(console) as story:
        result = api.build(settings=settings, progress=story)
    story.rest(notes=result.notes, warnings=result.warnings)
    return render.show(console, result, render.build, _after(result, settings))


def _plan(console: Console, settings: BuildSettings) -> int:
    from edgeq import api
    from edgeq.cli import render
    from edgeq.cli.story import Story

    with Story(console) as story:
        result = api.plan(settings=settings, progress=story)
    story.rest(notes=result.notes, warnings=result.warnings)
    typed = [word for word in console.arguments if word not in ("--plan-only", "-v", "--verbose")]
    return render.show(console, result, render.plan, f"edgeq {shell_line(typed)}")


def _after(result: Build, settings: BuildSettings) -> str:
    if result.bundle is None:
        model = shell_word(settings.model or "")
        return f"edgeq build {model} --target {result.target} --fp32"
    anywhere = result.artifacts[0].format in (
        "onnx",
        "tflite",
    )  # else verified where it is for, perhaps here
    verb = "verify" if result.ok and anywhere else "inspect"
    return f"edgeq {verb} {shell_word(result.bundle)}"


def _show(console: Console, settings: BuildSettings, origins: dict[str, str]) -> int:
    from edgeq.cli import render
    from edgeq.cli.documents import config_document

    document = config_document(settings, origins)
    if console.json:
        console.document(document)
    else:
        console.result(render.config(document))
    return 0
