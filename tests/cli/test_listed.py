"""`compare`, `inspect --plan` and `init`: results by hand on screen, real ones as documents."""

import json
import math
import os
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from edgeq.cli import render, tensors
from edgeq.cli.console import Console
from edgeq.report.comparison import Compared, PairDifference, Side
from edgeq.report.results import Initialized, Inspection

BUNDLE = "tiny-rpi5-int8.edgeq"

A = Side("m.onnx", "onnx", None, 14_000_000, "onnxruntime VERSION", "default")
B = Side("m-rpi5-int8.edgeq", "onnx", "int8", 3_600_000, "onnxruntime VERSION", "exact")
SCORES = PairDifference("scores", "scores", "values", 0.5, 33.94, 0.028, 1.417, 0.02)
BOXES = PairDifference("boxes", "frames", "codes", 0.99999, 51.2, 0.08, 1.0, 0.08)
CLASSES = PairDifference("classes", "classes", "elements", 0.75, None, 3.0, None, None)
SAME = PairDifference("mask", "mask", "values", 1.0, None, 0.0, 0.0, None)
INNER = tuple(
    PairDifference(f"layer.{place}", f"layer.{place}", "codes", 0.9, 20.0 + place, 0.5, 2.0, 0.25)
    for place in range(12)
)
COMPARED = Compared(
    a=A,
    b=B,
    outputs=(SCORES, BOXES, CLASSES, SAME),
    tensors=INNER,
    not_compared=(("logits", "only m.onnx has it"),),
    samples=16,
    source="calib.npz",
    synthetic=False,
    warnings=(),
    notes=(),
)
MADE_UP = replace(
    COMPARED,
    b=replace(A, file="n.onnx"),
    outputs=(replace(BOXES, sqnr_db=-math.inf, max_lsb=254.0),),
    tensors=(),
    not_compared=(),
    source="16 synthetic samples (seed 0)",
    synthetic=True,
)
EQUAL = replace(MADE_UP, outputs=(SAME,), tensors=(SAME,))


def op(node: str, precision: str = "int8", **more: object) -> dict:
    row = dict.fromkeys(
        ("reason", "fused_into", "tensor", "dtype", "scale", "zero_point")
        + ("minimum", "maximum", "range_from", "sqnr_db")
    )
    return {
        **row,
        "node": node,
        "op_type": node.title(),
        "precision": precision,
        "measured": False,
        **more,
    }


GRID = {"tensor": "c", "dtype": "int8", "scale": 0.008, "zero_point": -128}
GRID |= {"minimum": 0.0, "maximum": 2.04, "range_from": "minmax over 16 samples"}
PLAN = Inspection(
    file="m-rpi5-int8.edgeq",
    kind="bundle",
    sections=(),
    data={
        "precision": "int8",
        "target": "rpi5",
        "plan": {
            "counts": {"int8": 4, "float32": 1, "other": 1},
            "ops": [
                op("conv", **GRID, measured=True, sqnr_db=48),
                op("relu", fused_into="conv"),
                op("maxpool", **{**GRID, "tensor": "p"}),
                op("add", **{**GRID, "tensor": "a"}, measured=True),
                op("softmax", "float32", tensor="scores", reason="slower in int8 than in float"),
                op("shape", "other", tensor="n"),
            ],
        },
    },
    notes=(),
)
NO_PLAN = replace(PLAN, data={**PLAN.data, "precision": "fp32", "plan": {"counts": {}, "ops": []}})
INITIALIZED = Initialized("edgeq.toml", "m.onnx", "rpi5", ("layout of `image`",), ())

SCREENS = {
    "compare": (COMPARED, partial(tensors.compared, shown=10)),
    "compare-all": (COMPARED, partial(tensors.compared, shown=None)),
    "compare-made-up": (MADE_UP, partial(tensors.compared, shown=10)),
    "compare-equal": (EQUAL, partial(tensors.compared, shown=10)),
    "inspect-plan": (PLAN, partial(tensors.plan, only_float=False)),
    "inspect-plan-float": (PLAN, partial(tensors.plan, only_float=True)),
    "inspect-plan-none": (NO_PLAN, partial(tensors.plan, only_float=False)),
    "init": (INITIALIZED, tensors.initialized),
    "init-no-target": (replace(INITIALIZED, target=None, guessed=()), tensors.initialized),
}


@pytest.mark.parametrize("name", SCREENS)
def test_a_result_on_screen(edgeq_text, golden, name: str) -> None:
    result, text = SCREENS[name]
    outcome = edgeq_text(lambda: render.show(Console(), result, text, "edgeq next"))
    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.out.splitlines()[-1] == "next: edgeq next"
    golden(f"render-{name}", outcome)


@pytest.mark.parametrize("result", [COMPARED, MADE_UP, EQUAL])
def test_a_comparison_as_json(edgeq_text, schema_check, result: Compared) -> None:
    console = Console(json=True)
    outcome = edgeq_text(lambda: render.show(console, result, SCREENS["compare"][1], ""))
    document = schema_check(outcome.out)
    assert document["max_lsb"] == {COMPARED: None, MADE_UP: 254.0, EQUAL: 0.0}[result]
    assert document["bit_equal"] is (result is EQUAL)


USAGE = {
    "compare-data-and-synthetic": ["compare", "a", "b", "-d", "c.npz", "--synthetic-data"],
    "compare-top-and-tensors": ["compare", "a", "b", "--top", "3", "--tensors"],
    "compare-one": ["compare", "a.onnx"],
    "inspect-float-alone": ["inspect", "m.edgeq", "--float"],
}


@pytest.mark.parametrize("name", USAGE)
def test_wrong_usage(edgeq, golden, name: str) -> None:
    outcome = edgeq(*USAGE[name])
    assert (outcome.code, outcome.out) == (2, "")
    golden(f"usage-{name}", outcome)


REFUSED = {
    "compare-absent": ("compare", "tiny.onnx", "absent.onnx", "-q"),
    "compare-no-such-data": ("compare", "tiny.onnx", "tiny.onnx", "-d", "absent.npz", "-q"),
    "compare-other-inputs": ("compare", "tiny.onnx", "other.onnx", "-q"),
    "inspect-plan-of-a-model": ("inspect", "tiny.onnx", "--plan"),
    "init-absent": ("init", "absent.onnx"),
    "init-unknown-target": ("init", "tiny.onnx", "-t", "rpi6"),
    "init-exists": ("init", "tiny.onnx", "-t", "rpi5", "-o", "calib.npz"),
}


@pytest.fixture
def other(tiny: Path) -> Path:
    """A model with inputs of its own."""
    import onnx

    text = '<ir_version: 8, opset_import: ["" : 17]> g (int64[n,4] t) => (int64[n,4] y) '
    onnx.save(onnx.parser.parse_model(text + "{ y = Neg (t) }"), tiny.with_name("other.onnx"))
    return tiny.with_name("other.onnx")


@pytest.mark.parametrize("name", REFUSED)
def test_refused(edgeq, golden, schema_check, other: Path, name: str) -> None:
    outcome = edgeq(*REFUSED[name])
    assert (outcome.code, outcome.out) == (2, "")
    golden(f"refused-{name}", outcome)
    document = schema_check(edgeq(*REFUSED[name], "--json").out)
    assert f"[{document['error']['slug']}]" in outcome.err


def test_a_model_beside_itself(edgeq, golden, tiny: Path) -> None:
    outcome = edgeq("compare", "tiny.onnx", "tiny.onnx", "-d", "calib.npz")
    assert outcome.code == 0
    golden("use-compare", outcome)


def test_compare_plan_and_init_end_to_end(edgeq, schema_check, tiny: Path) -> None:
    build = ("build", "tiny.onnx", "-t", "rpi5", "--int8", "--algo", "minmax", "-d", "calib.npz")
    assert edgeq(*build, "-q").code == 0
    compared = edgeq("compare", "tiny.onnx", BUNDLE, "-d", "calib.npz", "--samples", "4")
    assert compared.code == 0
    assert compared.out.splitlines()[-1] == f"next: edgeq inspect {BUNDLE} --plan"
    document = schema_check(edgeq("compare", BUNDLE, BUNDLE, "-q", "--json").out)
    assert (document["bit_equal"], document["max_lsb"], document["synthetic"]) == (True, 0, True)
    shown = edgeq("inspect", BUNDLE, "--plan")
    assert (shown.code, "fused into conv" in shown.out) == (0, True)
    floats = edgeq("inspect", BUNDLE, "--plan", "--float")
    assert "Softmax" in floats.out
    assert "Conv " not in floats.out
    plan = schema_check(edgeq("inspect", BUNDLE, "--plan", "--json").out)["plan"]
    assert (plan["ops"][0]["op_type"], plan["ops"][0]["measured"]) == ("Conv", True)


def test_a_bundle_for_another_kind_of_processor(edgeq, tiny: Path) -> None:
    """`verify` would be refused here: the target is what there is to look at."""
    import platform

    there = "rpi5" if platform.machine() == "x86_64" else "x86-avx2"
    build = ("build", "tiny.onnx", "-t", there, "--fp32", "--format", "ort", "-o", "far.edgeq")
    assert edgeq(*build, "-q").code == 0
    for more in ((), ("--plan",)):
        shown = edgeq("inspect", "far.edgeq", *more)
        assert (shown.code, shown.out.splitlines()[-1]) == (0, f"next: edgeq targets {there}")
        assert "Left in float" not in shown.out  # a title without rows


def test_init_and_the_build_that_it_names(edgeq, process, schema_check, tiny: Path) -> None:
    done = edgeq("init", "tiny.onnx", "-t", "rpi5")
    assert (done.code, done.out.splitlines()[-1]) == (0, "next: edgeq build")
    assert process("build", "-q", cwd=tiny.parent).code == 0
    document = schema_check(edgeq("init", "tiny.onnx", "-o", "a b.toml", "--json").out)
    assert document["file"] == "a b.toml"
    again = edgeq("init", "tiny.onnx", "-o", "a b.toml", "--force")
    assert again.out.splitlines()[-1] == "next: edgeq build --config 'a b.toml'"


def test_data_of_the_settings_file_is_used_unless_told_otherwise(edgeq, tiny: Path) -> None:
    Path("edgeq.toml").write_text('data = "calib.npz"\nsamples = 3\n')
    arguments = ("compare", "tiny.onnx", "tiny.onnx", "--json", "-q")
    document = json.loads(edgeq(*arguments).out)
    assert (document["source"], document["samples"]) == ("calib.npz", 3)
    document = json.loads(edgeq(*arguments, "--synthetic-data").out)
    assert (document["synthetic"], document["samples"]) == (True, 3)


@pytest.mark.parametrize("place", [0, 1])
def test_a_pipe_is_not_waited_for(process, tiny: Path, place: int) -> None:
    os.mkfifo(tiny.with_name("pipe"))
    files = ["tiny.onnx", "tiny.onnx"]
    files[place] = "pipe"
    done = process("compare", *files, cwd=tiny.parent)
    assert (done.code, done.out) == (2, "")
    assert "pipe" in done.err
    assert "Traceback" not in done.err


def test_a_bundle_that_was_damaged_is_refused(edgeq, tiny: Path) -> None:
    assert edgeq("build", "tiny.onnx", "-t", "rpi5", "--fp32", "--as", "dir", "-q").code == 0
    model = Path("tiny-rpi5-fp32.edgeq/model.onnx")
    model.write_bytes(model.read_bytes()[:-1] + b"\x01")
    outcome = edgeq("compare", "tiny.onnx", "tiny-rpi5-fp32.edgeq", "-q")
    assert (outcome.code, "[damaged-bundle]" in outcome.err) == (2, True)


def test_the_model_of_a_folder_bundle_is_its_own_equal(edgeq, tiny: Path) -> None:
    build = ("build", "tiny.onnx", "-t", "x86-avx2", "--int8", "--algo", "minmax")
    assert edgeq(*build, "-d", "calib.npz", "--as", "dir", "-o", "out", "-q").code == 0
    outcome = edgeq("compare", "out", "out/model.onnx", "-d", "calib.npz", "--json", "-q")
    document = json.loads(outcome.out)
    assert (outcome.code, document["bit_equal"], document["max_lsb"]) == (0, True, 0)
    assert {row["compared_as"] for row in document["tensors"]} == {"codes"}
    assert np.isfinite([row["step"] for row in document["tensors"]]).all()
