"""Which engine runs the artifact and in which format it is: as asked for, as the target prefers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgeq.api.models import ENGINE, LITERT
from edgeq.config import AUTO, DEFAULT
from edgeq.errors import EdgeqError

if TYPE_CHECKING:
    from edgeq.config import BuildSettings
    from edgeq.targets import Target

NAMES = {"ort": ENGINE, "litert": LITERT}
"""The words of `--engine` -> the engine's name in targets and manifests."""

FORMATS = {ENGINE: "onnx", LITERT: "tflite"}
"""Engine -> the format that it reads first."""

_ENGINE_OF = {"onnx": "ort", "ort": "ort", "tflite": "litert"}
_FLOAT_ONLY = ("fp32", "fp16")


@dataclass(frozen=True)
class Form:
    """An engine (its name in the runtime) and the format of the artifact it is to run."""

    engine: str
    format: str


def forms(settings: BuildSettings, target: Target) -> tuple[Form, ...]:
    """What to build for, the target's preference first; more than one with `--engine auto` alone.

    Raises EdgeqError [usage] where settings contradict each other or the target.
    """
    _refuse_contradictions(settings)
    supported = [engine.name for engine in target.engines]
    if settings.format != AUTO:
        wanted = [NAMES[_ENGINE_OF[settings.format]]]
    elif settings.engine == AUTO:
        wanted = [name for name in supported if name in FORMATS]
    elif settings.engine == DEFAULT:
        wanted = supported[:1]
    else:
        wanted = [NAMES[settings.engine]]
    for name in wanted:
        if name not in supported:
            raise EdgeqError(
                "usage",
                f"target {target.name} says nothing of the engine `{name}`",
                f"edgeq targets {target.name}",
            )
    found = tuple(Form(name, _format(settings, name)) for name in wanted)
    if {form.format for form in found} <= {"onnx", "ort"}:
        _refuse_border(settings)
    return found


def _format(settings: BuildSettings, engine: str) -> str:
    return FORMATS[engine] if settings.format == AUTO else settings.format


def _refuse_contradictions(settings: BuildSettings) -> None:
    form, engine = settings.format, settings.engine
    if form != AUTO and engine not in (AUTO, DEFAULT, _ENGINE_OF[form]):
        raise EdgeqError(
            "usage", f"`--format {form}` contradicts `--engine {engine}`; give one of them"
        )
    if settings.io != "int8":
        return
    if settings.precision in _FLOAT_ONLY:
        raise EdgeqError("usage", f"`--io int8` contradicts `--{settings.precision}`; give one")
    if settings.acts not in (AUTO, "static"):
        raise EdgeqError(
            "usage",
            f"`--io int8` needs inputs of known range, and `--acts {settings.acts}` has none",
            "static int8 has them: `--int8 --acts static --data calib.npz`",
        )


def _refuse_border(settings: BuildSettings) -> None:
    """What only a TFLite model can be given: an ONNX file keeps its inputs and outputs."""
    for flag, value in (("--io int8", settings.io), ("--layout nhwc", settings.layout)):
        if flag.endswith(f" {value}"):
            raise EdgeqError(
                "usage",
                f"`{flag}` is for TFLite models, and this build makes none",
                f"`--format tflite {flag}`",
            )
