"""The form an artifact ships in: as it was written, or ORT's own, optimized once for the target's
platform."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgeq.api.models import ENGINE
from edgeq.errors import EdgeqError
from edgeq_runtime.outside import ModelBytes

if TYPE_CHECKING:
    from edgeq.api.stages import Quantized, Work

FILES = {"onnx": "model.onnx", "ort": "model.ort", "tflite": "model.tflite"}
"""Format -> what the artifact's file is called in a bundle."""


@dataclass(frozen=True)
class Shipped:
    """`artifact` goes into the bundle; `measured` is what this host runs: the same bytes, or the
    ONNX form of the same graph where the artifact is for another platform."""

    artifact: bytes
    measured: bytes
    format: str


def ship(work: Work, model: bytes, quantized: Quantized | None) -> Shipped:
    """`model` in the form that the settings ask for; what that means is noted.

    Raises EdgeqError [too-large] for a model whose weights lie beside it.
    """
    if work.form.format != "ort":
        return Shipped(model, model, work.form.format)
    if isinstance(model, ModelBytes):
        raise EdgeqError(
            "too-large",
            "the weights are over 2 GB, which an .ort file cannot hold",
            "ship it as ONNX: `--format onnx`",
        )
    from edgeq_converters.write.ort import canonical
    from edgeq_runtime import engines

    engine = engines.get(ENGINE)
    with work.stage("Converted") as stage:
        artifact = canonical(engine.to_ort(model, architecture=work.target.architecture))
        stage.done(FILES["ort"], f"for {work.target.architecture}, {ENGINE} {engine.version()}")
    reason = _not_here(work, quantized)
    work.notes.extend(_notes(work, quantized, engine.version(), reason))
    return Shipped(artifact, model if reason else artifact, "ort")


def _not_here(work: Work, quantized: Quantized | None) -> str:
    """Why this host cannot measure the .ort file itself, or nothing."""
    from edgeq_runtime import cpu, engines

    here = cpu.host().architecture
    if here != work.target.architecture:
        return f"this host is {here}"
    saturating = quantized is not None and quantized.plan.computes_int8
    if saturating and not work.engine.pair_safe and engines.get(ENGINE).saturates():
        return "the int8 kernels of this host saturate"
    return ""


def _notes(work: Work, quantized: Quantized | None, version: str, reason: str) -> list[str]:
    platform = work.target.architecture
    notes = [f"model.ort runs on {platform} alone, with {ENGINE} {version} or newer"]
    if reason:
        notes.append(
            "measured on the onnx form of the same graph: "
            f"model.ort is for {platform}, and {reason}"
        )
    if quantized is not None and _is_unfolded(quantized):
        notes.append(
            "model.ort holds the weights in float32: the engine folds their casts when it writes it"
        )
    return notes


def _is_unfolded(quantized: Quantized) -> bool:
    """Whether any weights are stored narrow and computed with in float32; tables stay narrow."""
    counts = quantized.plan.counts()
    return bool(counts["fp16-weights"] or counts["int8-weights"].keys() - {"Gather"})
