"""The one error class of edgeq and the runtime's table of slugs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Dict, Optional, Tuple

MAX_HINTS = 3


@dataclass(frozen=True)
class Slug:
    """One row of the error table: what `edgeq explain` prints, and the exit code of a command."""

    cause: str
    example: str
    fix: str
    exit_code: int = 2


class EdgeqError(Exception):
    """A mistake a user can mend; `str(error)` is "message [slug]".

    `message` says what, where and the value, in lower case, without a full stop. Each of the at
    most three `hints` is something to paste or to do. `exit_code` is that of the slug's row in the
    runtime's table; a row of another table passes its own when it is not 2.
    """

    def __init__(
        self, slug: str, message: str, *hints: str, exit_code: Optional[int] = None
    ) -> None:
        assert len(hints) <= MAX_HINTS, f"{len(hints)} hints for [{slug}]"
        super().__init__(f"{message} [{slug}]")
        self.slug = slug
        self.message = message
        self.hints: Tuple[str, ...] = hints
        row = SLUGS.get(slug)
        self.exit_code: int = exit_code if exit_code is not None else row.exit_code if row else 2

    def __reduce__(self) -> Tuple[object, Tuple[object, ...]]:
        """Exceptions are rebuilt from `args`, which hold one string here; so say how."""
        return (_rebuild, (self.slug, self.message, self.hints, self.exit_code))


def _rebuild(slug: str, message: str, hints: Tuple[str, ...], exit_code: int) -> EdgeqError:
    return EdgeqError(slug, message, *hints, exit_code=exit_code)


SLUGS: Dict[str, Slug] = {
    "bad-input": Slug(
        "An array given to `run` does not fit the model: its name, dtype, rank or a dimension.",
        "input `image`: got float64 [1, 8, 8], wanted float32 [batch, 1, 8, 8] [bad-input]",
        "Give each input the dtype and shape that `Runner.inputs` lists.",
    ),
    "bad-input-spec": Slug(
        "A preprocessing table (`[input.NAME]`) has an unknown key or a value out of range.",
        "input `image`: unknown key `men` [bad-input-spec]",
        "Use the keys resize, crop, scale, mean, std, channels and layout.",
    ),
    "bundle-unreadable": Slug(
        "The bundle cannot be opened or read: no such path, no permission, or a failing disk.",
        "cannot read `m.edgeq`: No such file or directory [bundle-unreadable]",
        "Check the path and its permissions.",
    ),
    "bundle-version": Slug(
        "The bundle was written in a newer format than this runtime knows.",
        "bundle format 2, this runtime reads up to 1: made by edgeq 2.0, needs edgeq-runtime >= "
        "2.0 [bundle-version]",
        "Update the runtime: pip install --upgrade edgeq-runtime",
    ),
    "damaged-bundle": Slug(
        "The bundle breaks a rule of the format or a digest in it does not match: it was damaged "
        "or edited after it was built.",
        "`model.onnx`: sha256 is 3b0c..., the manifest says 9f86... [damaged-bundle]",
        "Copy the bundle again, or build it again.",
    ),
    "engine-crashed": Slug(
        "The engine died on this model (a signal, not an error): a damaged or hostile file, or an "
        "engine built for another CPU.",
        "onnxruntime 1.31.1 was killed by SIGSEGV while it loaded the model [engine-crashed]",
        "Build the model again from a trusted source; try another engine version.",
    ),
    "engine-failed": Slug(
        "The engine loaded the model but failed while it ran it.",
        "onnxruntime 1.31.1 failed: Non-zero status code returned while running Reshape node "
        "[engine-failed]",
        "Check the input values; try another engine version.",
    ),
    "engine-refused": Slug(
        "The engine does not accept the model.",
        "onnxruntime 1.31.1 refused the model: [ONNXRuntimeError] : 9 : NOT_IMPLEMENTED "
        "[engine-refused]",
        "Check the model with `edgeq inspect`, or use the engine version the bundle names.",
    ),
    "engine-timeout": Slug(
        "The engine did not load and run the model once within the time limit.",
        "onnxruntime did not finish within 120 s [engine-timeout]",
        "Raise the limit on slow devices: load(bundle, timeout_s=600)",
    ),
    "engine-version": Slug(
        "The installed engine is older than the bundle needs, or known to be broken.",
        "onnxruntime 1.17.0 is older than 1.18.0, which this bundle needs [engine-version]",
        'Install the version the message names: pip install "onnxruntime==VERSION"',
    ),
    "missing-cpu-feature": Slug(
        "This CPU lacks a feature that the bundle's target requires.",
        "bundle for `x86-vnni` requires the cpu feature `avx_vnni`, which this cpu lacks "
        "[missing-cpu-feature]",
        "Build for a target that this CPU meets; `edgeq targets --host` names it.",
    ),
    "missing-engine": Slug(
        "The inference engine is not installed; edgeq-runtime brings none by itself.",
        "engine `onnxruntime` is not installed [missing-engine]",
        'pip install "edgeq-runtime[onnxruntime]"',
    ),
    "no-isolation": Slug(
        "A child process for loading the model safely could not be started.",
        "cannot start a child process: Resource temporarily unavailable [no-isolation]",
        "Load without one, if you trust the bundle: load(bundle, isolate=False)",
    ),
    "not-a-bundle": Slug(
        "The path holds something else than an edgeq bundle (a zip or a folder with a manifest).",
        "`model.onnx` is not an edgeq bundle: it does not begin as a zip file [not-a-bundle]",
        "Make a bundle first: edgeq build model.onnx --target rpi5",
    ),
    "unknown-engine": Slug(
        "No engine of this name is known.",
        "there is no engine `onnxruntme` [unknown-engine]",
        "Use one of the names the hint lists.",
    ),
}
