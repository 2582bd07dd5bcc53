"""Errors a user can act on: the class (the runtime's own), every slug of the SDK, and `explain`."""

from __future__ import annotations

from collections.abc import Iterable

from edgeq_runtime.errors import SLUGS as RUNTIME_SLUGS
from edgeq_runtime.errors import EdgeqError, Slug

__all__ = ["SLUGS", "EdgeqError", "MissingExtra", "Slug", "explain", "nearest"]


# Rows of the SDK, by area. `cause` and `fix` are sentences, `example` is a whole error line as the
# user sees it.
SDK_SLUGS: dict[str, Slug] = {
    # -- reading models --------------------------------------------------------------------------
    "no-such-model": Slug(
        cause="The model's file does not exist or cannot be opened.",
        example="there is no file `mobilnet.onnx` [no-such-model]",
        fix="Give the path of an .onnx file that you may read.",
    ),
    "not-onnx": Slug(
        cause="The file is something other than an ONNX model, whatever its name says.",
        example="model.onnx is a git-LFS pointer, not an ONNX model [not-onnx]",
        fix="Fetch the real file, or export the model to ONNX.",
    ),
    "invalid-model": Slug(
        cause="The file can be parsed and is no valid graph: a cycle, a name that is never made.",
        example="m.onnx: a cycle through `Add`, `Relu` [invalid-model]",
        fix="Export the model again; onnx.checker.check_model shows whether the exporter erred.",
    ),
    "external-data": Slug(
        cause="Weights in another file are missing, too short, or not plainly beside the model.",
        example="m.onnx: tensor `w` is at `../w.bin`, outside the model's folder [external-data]",
        fix="Put a plain copy of the weights' file into the model's folder, no link.",
    ),
    "unsupported-opset": Slug(
        cause="The model's opset is older or newer than what can be brought to the one edgeq "
        "works in.",
        example="m.onnx: opset 999; opsets 7 to 28 are read [unsupported-opset]",
        fix="Export the model again with opset 17 to 21.",
    ),
    "non-finite-weights": Slug(
        cause="A weight is NaN, or is infinite where an infinity would spread.",
        example="m.onnx: tensor `w` has 4 NaN of 16 values [non-finite-weights]",
        fix="Repair the weights where the model is trained, then export again.",
    ),
    "onnx-failed": Slug(
        cause="The onnx library crashed or ran out of time on the model, in a process of its own.",
        example="onnx was killed by SIGABRT while inferring shapes: the model is damaged or "
        "hostile "
        "[onnx-failed]",
        fix="Export the model again, best with a newer exporter and opset 17 to 21.",
    ),
    "no-such-input": Slug(
        cause="A shape was given for an input that the model does not have.",
        example="m.onnx: there is no input `imge` [no-such-input]",
        fix="Use the nearest name in the hint; `edgeq inspect` lists the inputs.",
    ),
    # -- settings, targets, registry -------------------------------------------------------------
    "unknown-slug": Slug(
        cause="`edgeq explain` was asked for a slug that does not exist.",
        example="there is no slug `need-data` [unknown-slug]",
        fix="Copy the slug from the square brackets at the end of an error line.",
    ),
    "config": Slug(
        cause="A setting has an unknown name, a wrong type or a value outside its choices.",
        example="edgeq.toml:7: unknown key `evl` [config]",
        fix="Correct the line that the message names; the same words are flags and EDGEQ_* "
        "variables.",
    ),
    "bad-shape": Slug(
        cause="A shape is not written as NAME=1x3x224x224, or does not fit the model's input.",
        example="`--shape image=1x3x224x` is not NAME=1x3x224x224 [bad-shape]",
        fix="Give the input's name, an equals sign, and every dimension as a number of 1 or more.",
    ),
    "unknown-target": Slug(
        cause="The target's name is not one of the files in `targets/`.",
        example="there is no target `rpi6` [unknown-target]",
        fix="Run `edgeq targets` for the list and give one of its names.",
    ),
    "bad-target": Slug(
        cause="A target's TOML file breaks a rule: a field is missing, or a number has no source.",
        example="target file rpi5.toml: `cpu.clock` has a number and no source [bad-target]",
        fix="Name where the number comes from in `source`, or leave the number out.",
    ),
    "no-host-target": Slug(
        cause="This machine's CPU is none of those that edgeq has a target for.",
        example="no target describes this machine (riscv64) [no-host-target]",
        fix="Choose a target by name: `edgeq targets` lists them.",
    ),
    "not-registered": Slug(
        cause="No table and no installed package offers a reader, writer, engine or "
        "algorithm so named.",
        example="there is no writer `onx` [not-registered]",
        fix="Use the nearest name in the hint, or install the package that brings it.",
    ),
    "broken-plugin": Slug(
        cause="An installed package offers an entry point that cannot be imported.",
        example="entry point `mine` of edgeq.readers (`mine.read:read`) fails to import "
        "[broken-plugin]",
        fix="Repair or uninstall the package that the message names.",
    ),
    # -- data and evaluation ---------------------------------------------------------------------
    "bad-data": Slug(
        cause="A file of samples is missing, damaged, too large, or holds values no model "
        "can take.",
        example="calib.npz: array `image` has NaN in sample 12 [bad-data]",
        fix="Write the arrays again with numpy.savez or numpy.save, numbers only.",
    ),
    "data-mismatch": Slug(
        cause="The samples do not fit the model's inputs by name, shape or type.",
        example="input `image` wants float32 [N, 3, 224, 224], got float32 [80, 224, 224, 3] "
        "[data-mismatch]",
        fix="Name the arrays as the model's inputs and give each the input's shape after a "
        "sample axis.",
    ),
    "needs-preprocess": Slug(
        cause="Images were given and nothing says how they become the model's input.",
        example="input `image` got uint8 images [80, 480, 640, 3] and no `[input.image]` "
        "[needs-preprocess]",
        fix="Describe resize, crop, scale, mean, std, channels and layout in "
        "`[input.NAME]` of edgeq.toml.",
    ),
    "needs-shape": Slug(
        cause="An input has an axis of no fixed size, and made-up data or a TFLite file needs one.",
        example="input `x` is float32 [batch, 3, height, width], and made-up data needs a size "
        "for axis 2 [needs-shape]",
        fix="Give the size: --shape x=1x3x224x224, or give real samples with --data.",
    ),
    "bad-function": Slug(
        cause="A `file.py:function` cannot be found, fails when called, or returns the wrong "
        "thing.",
        example="eval.py:12: NameError: name 'labels' is not defined [bad-function]",
        fix="Correct the function in your file at the line that the message names.",
    ),
    "bad-eval": Slug(
        cause="The evaluation has no labels, a score that is not a number, or scores that do "
        "not pair up.",
        example="eval.npz has no array `y` with the labels [bad-eval]",
        fix="Add `y` with one label per sample, or give `file.py:function` that returns "
        "the scores.",
    ),
    "needs-metric": Slug(
        cause="An .npz evaluation holds outputs to compare and not how to compare them.",
        example="eval.npz needs a metric [needs-metric]",
        fix="Add `--metric top1` (or top5, mae, mse, cosine).",
    ),
    "unknown-metric": Slug(
        cause="The metric's name is not one that edgeq measures or that the evaluation returns.",
        example="there is no metric `top2` [unknown-metric]",
        fix="Use the nearest name in the hint, or write a `file.py:function` that returns "
        "your own.",
    ),
    # -- gates -----------------------------------------------------------------------------------
    "bad-gate": Slug(
        cause="A gate is not `name op value unit`, or its unit does not fit what it measures.",
        example="gate `top1>-0.5mm`: unknown unit `mm` at position 10 [bad-gate]",
        fix="Write it like top1>=-0.5pt, mae<=+5%, size<5MB; several are split by commas.",
    ),
    "gate-not-measurable": Slug(
        cause="A gate asks for something that this command does not measure.",
        example="gate `p90<30ms`: `p90` is not measured here [gate-not-measurable]",
        fix="Gate on what the message lists, or take the rule out.",
    ),
    # -- quantization, writers -------------------------------------------------------------------
    "already-quantized": Slug(
        cause="Int8 was asked for and the model holds quantized operators already.",
        example="the model is quantized already: it holds `QLinearConv` [already-quantized]",
        fix="Quantize the float model it was made from, or package it as it is with `--fp32`.",
    ),
    "no-such-node": Slug(
        cause="A `--keep-float` pattern matches the name of no node of the optimized model.",
        example="no node matches `--keep-float head/*` [no-such-node]",
        fix="Correct the pattern; `edgeq build --plan-only` prints the names.",
    ),
    "no-samples": Slug(
        cause="The calibration source ended before it gave a sample.",
        example="calibration got no sample at all [no-samples]",
        fix="Give a source with at least one sample; a hundred is a good number.",
    ),
    "non-finite-activation": Slug(
        cause="A tensor inside the model became NaN or infinite on a calibration sample.",
        example="tensor `conv1` has 3 values that are NaN or infinite in sample 7 "
        "[non-finite-activation]",
        fix="Check that sample and its preprocessing, or build with `--fp32`.",
    ),
    "unknown-algorithm": Slug(
        cause="The method for activation ranges is none that edgeq has.",
        example="there is no range method `p99` [unknown-algorithm]",
        fix="Choose one of the methods that the message lists.",
    ),
    "range-too-wide": Slug(
        cause="Activations and weights of one layer are so large that their scales leave float32.",
        example="node `fc` (Gemm): input scale 1e+30 times weight scale 1e+20 is beyond float32 "
        "[range-too-wide]",
        fix="Keep that node in float with `--keep-float`, or scale the model's weights down.",
    ),
    "bad-plan": Slug(
        cause="A quantization plan is not what edgeq writes: a key, type or number is wrong.",
        example="this is not a quantization plan: tensor `x` has scale -1 [bad-plan]",
        fix="Use the plan as edgeq wrote it, or build again.",
    ),
    "plan-mismatch": Slug(
        cause="A quantization plan names nodes or tensors that its graph does not have, or "
        "misses some.",
        example="the plan does not fit the graph: tensor `conv1` has no encoding, and an int8 op "
        "uses it [plan-mismatch]",
        fix="Build the plan from this very model again.",
    ),
    "no-such-tensor": Slug(
        cause="A tensor was asked for that the artifact does not hold, or not under this name.",
        example="the artifact holds no tensor `conv9` [no-such-tensor]",
        fix="Ask for one of the tensors that the plan lists.",
    ),
    "unwritable-op": Slug(
        cause="Nodes of the model have no form in the wanted format: an operator it lacks, or "
        "settings of one it has.",
        example="the model cannot be written as TFLite: `Erf` (`e1`): edgeq knows no TFLite form "
        "of it [unwritable-op]",
        fix="Build it as ONNX (`--format onnx`), or export the model without the nodes named.",
    ),
    "too-large": Slug(
        cause="The weights do not fit into one file: protobuf (ONNX) and flatbuffers (TFLite) end "
        "at 2 GB.",
        example="the weights are 2.6 GB, and an ONNX file holds 2 [too-large]",
        fix="Export with external data: weights that edgeq does not change stay outside.",
    ),
    # -- build -----------------------------------------------------------------------------------
    "needs-data": Slug(
        cause="Static int8 takes its ranges from calibration samples, and none were given.",
        example="static int8 needs calibration data, and none was given [needs-data]",
        fix="Give samples of real input with `--data`; `--weights int8 --acts dynamic` needs none; "
        "`--synthetic-data` shows the work uncalibrated.",
    ),
    "nothing-to-quantize": Slug(
        cause="Int8 was asked for and no operator of the model can run in int8 on the target.",
        example="no operator of `tree.onnx` can run in int8 on rpi5 [nothing-to-quantize]",
        fix="Build it in float with `--fp32`.",
    ),
    "no-such-folder": Slug(
        cause="The output names a folder that does not exist, or a folder where a file must go.",
        example="there is no folder `out` to write into [no-such-folder]",
        fix="Make the folder first, or name another place with `-o`.",
    ),
    "bad-labels": Slug(
        cause="The labels file is missing, empty, too large or not text.",
        example="labels `labels.txt` hold no label [bad-labels]",
        fix="Write one label a line, in the order of the model's classes, as UTF-8.",
    ),
    "not-finite": Slug(
        cause="Running the model gave NaN or infinity where a number must be.",
        example="output `logits` of the float model is NaN on calib.npz [not-finite]",
        fix="Check that the samples are as the model expects them: scale, order, type.",
    ),
    "not-repeatable": Slug(
        cause="The model gives other outputs for the same input: it draws random numbers.",
        example="output `y` of the float model differs between two runs of one sample "
        "[not-repeatable]",
        fix="Export the model for inference, without dropout and random operators.",
    ),
    # -- the command line ------------------------------------------------------------------------
    "usage": Slug(
        cause="The command line is not one that edgeq takes: a wrong option, argument or "
        "combination.",
        example="`--int8` and `--fp32` contradict each other; give one [usage]",
        fix="Correct what the message names; `edgeq COMMAND --help` lists what a command takes.",
    ),
    "interrupted": Slug(
        cause="The command was stopped from the keyboard before it was done.",
        example="interrupted [interrupted]",
        fix="Run it again; an output file is either the old one or the whole new one.",
        exit_code=130,
    ),
    "out-of-memory": Slug(
        cause="The work needs more memory than this machine has free.",
        example="this needs more memory than is free [out-of-memory]",
        fix="Close other programs, or build on a machine with more memory.",
    ),
    "os-error": Slug(
        cause="The operating system refused to open, read or write a file.",
        example="`out/model.edgeq`: no space left on device [os-error]",
        fix="Free space, or correct the permissions of the file that the message names.",
    ),
    "cannot-print": Slug(
        cause="The result could not be written to stdout, or the story to stderr.",
        example="stdout takes no more output: no space left on device [cannot-print]",
        fix="Send the output to a file or a disk that has room.",
    ),
    "bug": Slug(
        cause="Edgeq broke a rule of its own; nothing you did should end so.",
        example="a bug in edgeq 0.1.0: KeyError: 'conv1' [bug]",
        fix="Report it with the crash file that the hint names; it holds no data of yours.",
        exit_code=70,
    ),
    # -- comparing -------------------------------------------------------------------------------
    "not-comparable": Slug(
        cause="Two artifacts take other inputs or have no output in common, so nothing can be "
        "measured between them.",
        example="the inputs do not match: a.onnx has `image` float32 [n, 3, 224, 224]; b.edgeq has "
        "`tokens` int64 [n, 64] [not-comparable]",
        fix="Compare artifacts of one model; `edgeq inspect` shows the inputs and outputs of each.",
    ),
    "needs-bundle": Slug(
        cause="The plan of a model was asked for, and a plan is made from data when it is built.",
        example="`model.onnx` is a model: its plan is made from calibration data when it is built "
        "[needs-bundle]",
        fix="Give a bundle, or let `edgeq build MODEL -t TARGET -d SRC --plan-only -v` make the "
        "plan.",
    ),
    # -- devices ---------------------------------------------------------------------------------
    "no-emulator": Slug(
        cause="A board's core cannot be emulated here: a program, the root file system or a right "
        "that the kernel grants is missing.",
        example="no root file system of an ARM board: EDGEQ_ARM64_ROOT names none [no-emulator]",
        fix="Install QEMU's user mode, make a root file system as the hints say, and name it.",
    ),
    "emulation-failed": Slug(
        cause="What ran on the emulated core of a board died there, or took too long.",
        example="the program on the emulated Cortex-A72 was killed by SIGILL: it said nothing "
        "[emulation-failed]",
        fix="Use another version of the engine there; under load, try again.",
        exit_code=3,
    ),
    # -- bundles ---------------------------------------------------------------------------------
    "output-exists": Slug(
        cause="A folder stands where the bundle is to be written, or a file where settings are.",
        example="the folder `digits-rpi5-int8.edgeq` exists [output-exists]",
        fix="Write elsewhere with `-o`, or replace what is there with `--force`.",
    ),
    "write-failed": Slug(
        cause="The bundle could not be written: no space, no permission, a failing disk; the old "
        "output is there still.",
        example="cannot write `digits-rpi5-int8.edgeq`: No space left on device [write-failed]",
        fix="Make room or choose another folder with `-o`, then build again.",
    ),
    "bundle-too-large": Slug(
        cause="The artifact or what is said of it is beyond the limits of the bundle format.",
        example="the bundle would have 4512345678 bytes, more than 4294967295 [bundle-too-large]",
        fix="Choose a lower precision, or split the model.",
    ),
}

SLUGS: dict[str, Slug] = {**RUNTIME_SLUGS, **SDK_SLUGS}


class MissingExtra(EdgeqError):
    """A package of an extra is not installed; the hint is the line that installs it."""

    def __init__(self, what: str, package: str, extra: str) -> None:
        """`what` needs `package`, which the extra `edgeq[extra]` brings."""
        super().__init__(
            "missing-extra",
            f"{what} needs `{package}`",
            f'pip install "edgeq[{extra}]"',
        )


def nearest(name: str, candidates: Iterable[str]) -> str | None:
    """The candidate most like `name`, or None where nothing is close. Deterministic."""
    from difflib import get_close_matches

    found = get_close_matches(name.lower(), sorted(candidates), n=1, cutoff=0.6)
    return found[0] if found else None


def did_you_mean(name: str, candidates: Iterable[str]) -> tuple[str, ...]:
    """The hint for a mistyped name: the nearest candidate, or all of a few."""
    known = sorted(candidates)
    close = nearest(name, known)
    if close is not None:
        return (f"did you mean `{close}`?",)
    if 0 < len(known) <= 12:
        return ("one of: " + ", ".join(f"`{item}`" for item in known),)
    return ()


def explain(slug: str) -> Slug:
    """The row of a slug, as `edgeq explain` prints it; brackets around it are taken off."""
    key = slug.strip().strip("[]").lower()
    if key in SLUGS:
        return SLUGS[key]
    close = nearest(key, SLUGS)
    hints = (f"edgeq explain {close}",) if close else ()
    raise EdgeqError("unknown-slug", f"there is no slug `{slug}`", *hints)
