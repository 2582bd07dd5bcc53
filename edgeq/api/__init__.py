"""The Python API: every verb of the command line as a function; orchestration only.

Keyword-only after the subject, frozen results with `to_json`, nothing printed, no globals.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeq.config import BuildSettings
from edgeq.report.events import Progress, silent

if TYPE_CHECKING:
    from edgeq.report.comparison import Compared
    from edgeq.report.results import (
        Build,
        Doctor,
        Evaluation,
        Initialized,
        Inspection,
        Planned,
        Ran,
        Verified,
    )


def build(
    model: str | Path | None = None,
    *,
    target: str | None = None,
    precision: str | None = None,
    data: Any = None,
    evaluate: Any = None,
    gate: str | Sequence[str] | None = None,
    out: str | Path | None = None,
    settings: BuildSettings | None = None,
    progress: Progress | None = None,
) -> Build:
    """Build one artifact of `model` for `target`, check it, and write it as a bundle.

    What is given here outranks `settings`, which holds everything else (`BuildSettings`).
    `data`: calibration samples as a path, `file.py:function`, an array [N, ...], a mapping of
    input names to arrays, or a callable that yields samples. `evaluate`: an .npz path, a
    `file.py:function`, or a callable `f(run)`. Raises EdgeqError; a gate that fails is in the
    result's `outcome`, not an exception.
    """
    from edgeq.api.building import build as carry_out

    request = _request(settings, model, target, precision, data, evaluate, gate, out)
    return carry_out(request, progress or silent)


def plan(
    model: str | Path | None = None,
    *,
    target: str | None = None,
    precision: str | None = None,
    data: Any = None,
    settings: BuildSettings | None = None,
    progress: Progress | None = None,
) -> Planned:
    """Make the quantization plan that `build` would carry out; write nothing."""
    from edgeq.api.building import plan as make_plan

    request = _request(settings, model, target, precision, data, None, None, None)
    return make_plan(request, progress or silent)


def _request(
    settings: BuildSettings | None,
    model: str | Path | None,
    target: str | None,
    precision: str | None,
    data: Any,
    evaluate: Any,
    gate: str | Sequence[str] | None,
    out: str | Path | None,
) -> Any:
    from edgeq.api.building import Request

    given: dict[str, Any] = {
        "model": None if model is None else str(model),
        "target": target,
        "precision": precision,
        "gate": gate,
        "out": None if out is None else str(out),
    }
    merged = dataclasses.replace(
        settings or BuildSettings(), **{k: v for k, v in given.items() if v is not None}
    )
    return Request(
        merged,
        data=merged.data if data is None else data,
        evaluate=merged.eval if evaluate is None else evaluate,
    )


def evaluate(
    artifact: str | Path,
    *,
    evaluate: Any,
    metric: str | None = None,
    gate: str | Sequence[str] | None = None,
    input: Mapping[str, Any] | None = None,
    labels: str | Path | None = None,
    progress: Progress | None = None,
) -> Evaluation:
    """Measure the quality of a bundle or a float model with exact kernels; apply the gate.

    `labels`: a file of class names, for a model and a folder of images in class folders.
    """
    from edgeq.api.use import evaluate as measure

    return measure(
        artifact,
        evaluate=evaluate,
        metric=metric,
        gate=gate,
        input=input,
        labels=labels,
        progress=progress or silent,
    )


def run(
    artifact: str | Path,
    *,
    data: Any,
    out: str | Path | None = None,
    topk: int | None = None,
    samples: int | None = None,
    input: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> Ran:
    """Run a bundle or a float model over `data`; outputs go to `out` (.npz) where it is given."""
    from edgeq.api.use import run as carry_out

    return carry_out(
        artifact,
        data=data,
        out=out,
        topk=topk,
        samples=samples,
        input=input,
        progress=progress or silent,
    )


def verify(bundle: str | Path, *, progress: Progress | None = None) -> Verified:
    """Check a bundle's bytes and run its golden vectors on this host, exactly."""
    from edgeq.api.use import verify as prove

    return prove(bundle, progress=progress or silent)


def compare(
    a: str | Path,
    b: str | Path,
    *,
    data: Any = None,
    samples: int | None = None,
    input: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> Compared:
    """Measure how far artifact `b` is from `a`: each output and each inner tensor of one name.

    Bundles and models in any mix, on the same `data` (None: made-up inputs in the calibrated
    ranges), with exact kernels.
    """
    from edgeq.api.comparing import compare as measure

    return measure(a, b, data=data, samples=samples, input=input, progress=progress or silent)


def inspect(
    file: str | Path, *, shape: Mapping[str, Sequence[int]] | None = None, plan: bool = False
) -> Inspection:
    """Describe a model file or a bundle: inputs, outputs, operators, precision, quality, files.

    `plan` adds each operator of a bundle to `data["plan"]`: precision, range, error, reason.
    """
    from edgeq.api.examine import inspect as look

    return look(file, shape=shape or {}, plan=plan)


def init(
    model: str | Path,
    *,
    target: str | None = None,
    out: str | Path | None = None,
    force: bool = False,
) -> Initialized:
    """Write a settings file for `model` (default: edgeq.toml), every setting explained."""
    from edgeq.api.settings_file import init as write
    from edgeq.config import FILE_NAME

    return write(model, target=target, out=FILE_NAME if out is None else out, force=force)


def doctor() -> Doctor:
    """Say what this machine has for edgeq: Python, packages, engine, CPU, kernels."""
    from edgeq.api.examine import doctor as look

    return look()
