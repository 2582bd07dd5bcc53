"""The one error class of edgeq and the runtime's table of slugs."""

from __future__ import annotations

from dataclasses import dataclass

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

    def __init__(self, slug: str, message: str, *hints: str, exit_code: int | None = None) -> None:
        assert len(hints) <= MAX_HINTS, f"{len(hints)} hints for [{slug}]"
        super().__init__(f"{message} [{slug}]")
        self.slug = slug
        self.message = message
        self.hints: tuple[str, ...] = hints
        row = SLUGS.get(slug)
        self.exit_code: int = exit_code if exit_code is not None else row.exit_code if row else 2

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        """Exceptions are rebuilt from `args`, which hold one string here; so say how."""
        return (_rebuild, (self.slug, self.message, self.hints, self.exit_code))


def _rebuild(slug: str, message: str, hints: tuple[str, ...], exit_code: int) -> EdgeqError:
    return EdgeqError(slug, message, *hints, exit_code=exit_code)


SLUGS: dict[str, Slug] = {
    "bad-image": Slug(
        cause="A file is no image, is damaged or cut short, is too large, or has pixels that no one"
        " rule makes 8-bit RGB of.",
        example="`calib/cat.jpg` is damaged: image file is truncated (5 bytes not processed) "
        "[bad-image]",
        fix="Replace or convert the file that the message names, or take it out of the folder.",
    ),
    "bad-input": Slug(
        cause="An array given to `run` does not fit the model: its name, dtype, rank or a "
        "dimension.",
        example="input `image`: got float64 [1, 8, 8], wanted float32 [batch, 1, 8, 8] [bad-input]",
        fix="Give each input the dtype and shape that `Runner.inputs` lists.",
    ),
    "bad-input-spec": Slug(
        cause="A preprocessing table (`[input.NAME]`) has an unknown key or a value out of range.",
        example="input `image`: unknown key `men` [bad-input-spec]",
        fix="Use the keys resize, crop, scale, mean, std, channels and layout.",
    ),
    "bundle-unreadable": Slug(
        cause="The bundle cannot be opened or read: no such path, no permission, a failing disk.",
        example="cannot read `m.edgeq`: No such file or directory [bundle-unreadable]",
        fix="Check the path and its permissions.",
    ),
    "bundle-version": Slug(
        cause="The bundle was written in a newer format than this runtime knows.",
        example="bundle format 2, this runtime reads up to 1: made by edgeq 2.0.0, needs "
        "edgeq-runtime >= 2.0.0 [bundle-version]",
        fix="Update the runtime: pip install --upgrade edgeq-runtime",
    ),
    "damaged-bundle": Slug(
        cause="The bundle breaks a rule of the format or a digest does not match: it was damaged or"
        " edited after it was built.",
        example="`model.onnx`: sha256 is 3b0c44298fc1..., the manifest says 9f86d081884c... "
        "[damaged-bundle]",
        fix="Copy the bundle again, or build it again.",
    ),
    "damaged-model": Slug(
        cause="The bytes of the file contradict themselves: cut short, overwritten, or badly made.",
        example="m.onnx: tensor `w` of shape [4, 4] needs 64 bytes and has 40 [damaged-model]",
        fix="Fetch or export the file again and compare its size or digest.",
    ),
    "engine-cannot": Slug(
        cause="The engine would load the model and compute it wrongly, or die: seen when each kind"
        " of model was measured with it.",
        example="tflite-runtime 2.14.0 cannot run dynamic int8 (FULLY_CONNECTED, operator 0): it "
        "gives wrong values without an error [engine-cannot]",
        fix="Run it with LiteRT, or build the model in another form: --int8 with calibration data.",
    ),
    "engine-crashed": Slug(
        cause="The engine died on this model instead of refusing it: a damaged or hostile file, or "
        "an engine built for another processor.",
        example="onnxruntime 1.31.1 was killed by SIGSEGV while it loaded the model "
        "[engine-crashed]",
        fix="Get the model again from a source you trust, or try another version of the engine.",
    ),
    "engine-failed": Slug(
        cause="The engine loaded the model but failed while it ran it.",
        example="onnxruntime 1.31.1 failed: Non-zero status code returned while running Reshape "
        "node [engine-failed]",
        fix="Check the values of the inputs, or try another version of the engine.",
    ),
    "engine-needs-numpy1": Slug(
        cause="The engine tflite-runtime was compiled for numpy 1 and dies with numpy 2.",
        example="tflite-runtime is made for numpy 1, and this is numpy 2.4.6 [engine-needs-numpy1]",
        fix='Install numpy 1, best in an environment of its own: pip install "numpy<2"',
    ),
    "engine-refused": Slug(
        cause="The engine does not accept the model.",
        example="onnxruntime 1.31.1 refused the model: [ONNXRuntimeError] : 9 : NOT_IMPLEMENTED "
        "[engine-refused]",
        fix="Look at the model with `edgeq inspect`, or use the engine version that the bundle "
        "names.",
    ),
    "engine-timeout": Slug(
        cause="The engine did not load and run the model once within the time limit.",
        example="onnxruntime did not load and run the model within 120 s [engine-timeout]",
        fix="Raise the limit on a slow device: load(bundle, timeout_s=600).",
    ),
    "engine-version": Slug(
        cause="The installed engine is older than the bundle needs, or known to be broken.",
        example="onnxruntime 1.17.0 is older than 1.18.0, which this bundle needs [engine-version]",
        fix="Install the version that the hint names.",
    ),
    "missing-cpu-feature": Slug(
        cause="This processor lacks a feature that the bundle's target requires.",
        example="bundle for `x86-vnni` requires the cpu feature `avx512_vnni|avx_vnni`, which this "
        "cpu lacks [missing-cpu-feature]",
        fix="Build for a target that this processor meets; `edgeq targets --host` names it.",
    ),
    "missing-extra": Slug(
        cause="A part of edgeq needs a package that the default install leaves out.",
        example="reading PyTorch models needs `torch` [missing-extra]",
        fix="Run the `pip install` line that the hint prints.",
    ),
    "missing-engine": Slug(
        cause="The inference engine is not installed; edgeq-runtime brings none by itself.",
        example="engine `onnxruntime` is not installed [missing-engine]",
        fix='pip install "edgeq-runtime[onnxruntime]"',
    ),
    "model-too-large": Slug(
        cause="The model file, or all small tensors of it, are beyond the 2 GB of protobuf; or a "
        "TFLite file has more tables, or bytes in a tensor, than are read.",
        example="big.onnx: 3,221,225,472 bytes in one file or small tensors; at most "
        "2,147,483,647 are read [model-too-large]",
        fix="Export the model with its weights as external data: those may be larger.",
    ),
    "no-golden-vectors": Slug(
        cause="The bundle holds no golden vectors, so there is nothing to verify it with.",
        example="the bundle holds no golden vectors, so nothing can be compared "
        "[no-golden-vectors]",
        fix="Run it without `self_test`, and compare its outputs with data of your own.",
    ),
    "no-isolation": Slug(
        cause="A child process to try the model in could not be started.",
        example="cannot start a child process: Resource temporarily unavailable [no-isolation]",
        fix="Load without one, if you trust the bundle: load(bundle, isolate=False).",
    ),
    "not-a-bundle": Slug(
        cause="The path holds something else than an edgeq bundle, which is a zip or a folder with "
        "a manifest.",
        example="`model.onnx`: not an edgeq bundle: it does not begin as a zip file [not-a-bundle]",
        fix="Make a bundle first: edgeq build model.onnx --target rpi5.",
    ),
    "not-exact": Slug(
        cause="An .ort file was to be run with exact integers on a processor whose int8 kernels "
        "saturate; it was optimized when it was built, so nothing can be changed here.",
        example="`model.ort` cannot be run exactly here: the int8 kernels of this cpu saturate on "
        "its weights [not-exact]",
        fix="Verify it on the target, or build it with `--format onnx`.",
    ),
    "unknown-engine": Slug(
        cause="No engine of this name is known.",
        example="there is no engine `onnxruntme` [unknown-engine]",
        fix="Use one of the names that the hint lists.",
    ),
    "unsupported-op": Slug(
        cause="The model uses operators that neither the ONNX standard, nor ONNX Runtime, nor "
        "LiteRT has, or that edgeq does not read.",
        example="m.onnx: `com.acme::MyOp` is of the unknown domain `com.acme` (node `a`) "
        "[unsupported-op]",
        fix="Export without the nodes that the message names; pre- and post-processing "
        "often hold them.",
    ),
    "unsupported-type": Slug(
        cause="An input, output or tensor is no plain array of numbers: string, sequence, "
        "sparse, 4-bit.",
        example="m.onnx: input `x` is a tensor of STRING [unsupported-type]",
        fix="Export the model with tensors of numbers as inputs and outputs.",
    ),
    "wrong-platform": Slug(
        cause="An .ort file was optimized for another kind of processor.",
        example="`model.ort` is optimized for aarch64, and this cpu is x86_64 [wrong-platform]",
        fix="Run it on its target, or build it with `--format onnx`, which runs anywhere.",
    ),
}
