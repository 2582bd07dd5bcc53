"""Which precisions a request asks for, and what its layers are to read."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgeq.errors import EdgeqError

if TYPE_CHECKING:
    from edgeq.api.building import Request
    from edgeq.config import BuildSettings

NO_DATA = ("dynamic", "fp32")
"""Values of `acts` for which nothing is calibrated."""

INT4 = ("int4", "int4-block32")
"""Values of `weights` that layers have which quantize what they read at run time."""


def rungs(request: Request, *, has_plan: bool = False) -> tuple[str, ...]:
    """The precisions to try, in order; `auto` falls back to float where the gate fails.

    `has_plan`: the model is int8 itself, and its integers are kept, which asks for no data.
    Raises EdgeqError: [usage] where settings contradict each other, [needs-data].
    """
    settings = request.settings
    _refuse_contradictions(settings)
    if has_plan:
        return _of_integers(settings)
    if settings.precision == "auto" and not names_int8(settings):
        return ("int8", "fp32") if request.has_data else ("fp32",)
    if settings.precision not in ("auto", "int8"):
        return (settings.precision,)
    if not request.has_data and acts(settings, has_data=False) not in NO_DATA:
        raise EdgeqError(
            "needs-data",
            f"{_kind(settings)} int8 needs calibration data, and none was given",
            "give samples: `--data calib/` (folder, .npz, or `file.py:function`)",
            "or quantize without data: `--weights int8 --acts dynamic`",
            "or see what it would do, uncalibrated: `--synthetic-data`",
        )
    return ("int8",)


def _of_integers(settings: BuildSettings) -> tuple[str, ...]:
    """The precision of a model that was quantized before: its own, or float made of it."""
    default = type(settings)()
    refused = [("--fp16", settings.precision == "fp16")]
    refused += [
        (f"--{word.replace('_', '-')}", getattr(settings, word) != getattr(default, word))
        for word in ("weights", "acts", "algo", "keep_float")
    ]
    for flag, given in refused:
        if given:
            raise EdgeqError(
                "usage",
                f"`{flag}` is for float models, and this one is int8: its integers are kept",
                "build it as it is: `--int8`",
                "or in float, from the float model that it was made of",
            )
    return ("fp32",) if settings.precision == "fp32" else ("int8",)


def names_int8(settings: BuildSettings) -> bool:
    """Whether `weights` or `acts` ask for int8, whatever `precision` says."""
    return settings.weights != "auto" or settings.acts != "auto"


def acts(settings: BuildSettings, *, has_data: bool) -> str:
    """What the layers of an int8 build read; "auto": chosen by measuring.

    Int4 weights without a word on activations mean "dynamic", int8 weights where there is no data.
    """
    if settings.acts != "auto":
        return settings.acts
    if settings.weights in INT4 or (settings.weights == "int8" and not has_data):
        return "dynamic"
    return "auto"


def why_dynamic(settings: BuildSettings) -> str:
    """What made `acts` return "dynamic" where nothing was said."""
    if settings.weights in INT4:
        return f"`--weights {settings.weights}` is for layers that quantize what they read"
    return "no calibration data was given"


def reason(settings: BuildSettings) -> str:
    """The words that made `auto` an int8 build."""
    named = [("--weights", settings.weights), ("--acts", settings.acts)]
    return " ".join(f"{flag} {value}" for flag, value in named if value != "auto")


def _kind(settings: BuildSettings) -> str:
    return settings.acts if settings.acts in ("static", "mixed") else "static"


def _refuse_contradictions(settings: BuildSettings) -> None:
    words = f"`{reason(settings)}`"
    if names_int8(settings) and settings.precision not in ("auto", "int8"):
        raise EdgeqError("usage", f"{words} contradicts `--{settings.precision}`; give one")
    if settings.weights in INT4 and settings.acts not in ("auto", "dynamic"):
        raise EdgeqError(
            "usage",
            f"`--weights {settings.weights}` is for layers that quantize what they read at run"
            f" time, and those of `--acts {settings.acts}` do not",
            f"`--weights {settings.weights} --acts dynamic`",
            f"or 8 bits: `--weights int8 --acts {settings.acts}`",
        )
    if settings.acts == "fp32" and settings.weights == "auto" and settings.precision == "auto":
        raise EdgeqError(
            "usage",
            "`--acts fp32` alone does not say what to store",
            "int8 weights, computed in float: `--weights int8 --acts fp32`",
            "all of it in float: `--fp32`",
        )
    default = type(settings)().algo
    if settings.acts in NO_DATA and settings.algo != default:
        raise EdgeqError(
            "usage",
            f"`--algo {settings.algo}` picks static ranges, and `--acts {settings.acts}` has none;"
            " give one",
        )
