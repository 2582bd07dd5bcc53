"""Results on screen: built by hand, so that every figure and every branch stands in the golden."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from edgeq.cli import render
from edgeq.cli.console import Console
from edgeq.report.results import (
    Artifact,
    Build,
    Doctor,
    Evaluation,
    Fidelity,
    Inspection,
    LeftInFloat,
    Planned,
    Ran,
    TensorError,
    Verified,
)

MODEL = {"name": "m.onnx", "sha256": "a" * 64, "size_bytes": 14_000_000, "opset": 17}
MODEL["parameters"] = 3_500_000
ATTENTION = "activations times activations stay in float"
SLOW = "ONNX Runtime's int8 `Softmax` is slower than its float one"
TOP1 = {
    "metric": "top1",
    "value": 0.714,
    "baseline": 0.719,
    "difference": -0.005,
    "n": 2000,
    "confidence": 0.95,
    "interval": [0.694, 0.733],
    "difference_interval": [-0.0085, -0.0015],
    "lower_is_better": False,
    "unit": "fraction",
}
MSE = {
    **TOP1,
    "metric": "mse",
    "value": 0.01234567,
    "baseline": 0.01,
    "difference": 0.00234567,
    "n": None,
    "interval": None,
    "difference_interval": None,
    "lower_is_better": True,
    "unit": None,
}
GATE = {
    "passed": True,
    "rules": [
        {
            "rule": "top1>=-1pt",
            "passed": True,
            "certain": True,
            "text": "gate top1>=-1pt passed: -0.50 pt, 95 % interval -0.85 pt to -0.15 pt",
        },
        {
            "rule": "size<5MB",
            "passed": True,
            "certain": True,
            "text": "gate size<5MB passed: 3.6 MB",
        },
    ],
}
FAILED = {
    "passed": False,
    "rules": [
        {
            "rule": "size<3MB",
            "passed": False,
            "certain": True,
            "text": "gate size<3MB failed: 3.6 MB",
        }
    ],
}
FIDELITY = Fidelity(
    outputs=(TensorError("scores", 31.24, 0.01, 0.2), TensorError("index", None, 0.0, 1.0)),
    worst=tuple(TensorError(f"layer{place}", 14.0 + place, 0.1, 0.1) for place in range(5)),
    samples=16,
    source="calib.npz",
    mode="default",
)
BUILD = Build(
    bundle="m-rpi5-int8.edgeq",
    model=MODEL,
    target="rpi5",
    precision="int8",
    outcome="built",
    artifacts=(Artifact("model.onnx", "onnx", 3_600_000, "b" * 64),),
    size_bytes=3_600_000,
    float_size_bytes=14_000_000,
    optimized=({"pass": "batch_norm", "changed": ["bn1 folded"], "refused": [["bn2", "no"]]},),
    ops={"int8": {"Conv": 52, "Gemm": 1}, "float32": {"MatMul": 2, "Softmax": 1}},
    left_in_float=(
        LeftInFloat("qk", "MatMul", ATTENTION),
        LeftInFloat("av", "MatMul", ATTENTION),
        LeftInFloat("softmax", "Softmax", SLOW),
    ),
    coverage={
        "engine": "onnxruntime",
        "on": "this host",
        "int8": {"QLinearConv": 52, "QGemm": 1},
        "float32": {"MatMul": 2, "Softmax": 1},
        "quantize_linear": 2,
        "dequantize_linear": 2,
        "lines": ["MatMul `qk` stays in float: its inputs are float"],
    },
    calibration={"samples": 128, "method": "minmax", "source": "calib.npz", "calibrated": True},
    fidelity=FIDELITY,
    metrics=(TOP1, MSE),
    gate=GATE,
    golden={"vectors": 4},
    warnings=(),
    notes=(),
    digest="c" * 64,
)
UNMEASURED = replace(BUILD, metrics=(), gate=None, bundle="out dir/m.edgeq")
FLOAT = replace(
    BUILD,
    precision="fp32",
    size_bytes=14_000_000,
    ops={"float32": {"Conv": 52, "Gemm": 1}},
    left_in_float=(),
    coverage=None,
    calibration=None,
    fidelity=replace(FIDELITY, worst=()),
    gate=None,
)
MANY = tuple(LeftInFloat(f"n{place}", f"Op{place}", "no int8 kernel") for place in range(12))
BUILDS = {
    "built": BUILD,
    "not-measured": UNMEASURED,
    "float": FLOAT,
    "larger": replace(UNMEASURED, size_bytes=14_500_000, left_in_float=MANY),
    "gate-failed": replace(BUILD, outcome="gate-failed", gate=FAILED),
    "strict": replace(BUILD, outcome="gate-failed", gate=FAILED, bundle=None, digest=None),
    "garbage": replace(UNMEASURED, outcome="garbage"),
}
PLAN = {
    "tensors": {
        "image": {
            "dtype": "int8",
            "scale": [0.003921569],
            "zero_point": -128,
            "axis": None,
            "symmetric": False,
            "origin": "minmax",
        },
        "w": {
            "dtype": "int8",
            "scale": [0.002, 0.004],
            "zero_point": 0,
            "axis": 0,
            "symmetric": True,
            "origin": "weights",
        },
    },
    "ops": [
        {"node": "conv", "op_type": "Conv", "precision": "int8", "reason": "", "fused_into": None},
        {"node": "r", "op_type": "Relu", "precision": "int8", "reason": "", "fused_into": "conv"},
        {
            "node": "s",
            "op_type": "Softmax",
            "precision": "float32",
            "reason": SLOW,
            "fused_into": None,
        },
    ],
    "notes": [],
}
PLANNED = Planned(
    model=MODEL,
    target="rpi5",
    precision="int8",
    plan=PLAN,
    ops={"int8": {"Conv": 1, "Relu": 1}, "float32": {"Softmax": 1}},
    left_in_float=(LeftInFloat("s", "Softmax", SLOW),),
    calibration={"samples": 1, "method": "minmax", "source": "seed 0", "calibrated": False},
    warnings=(),
    notes=(),
)
EVALUATION = Evaluation(
    artifact="m.edgeq",
    metrics=({**TOP1, "baseline": None, "difference": None, "difference_interval": None}, MSE),
    gate=FAILED,
    engine="onnxruntime VERSION",
    kernels="exact",
    warnings=(),
    notes=(),
)
RAN = Ran(
    artifact="m.edgeq",
    samples=2,
    outputs=(
        {
            "name": "scores",
            "dtype": "float32",
            "shape": [2, 10],
            "minimum": 0.0,
            "maximum": 0.99,
            "mean": 0.1,
        },
        {
            "name": "text",
            "dtype": "object",
            "shape": [2],
            "minimum": None,
            "maximum": None,
            "mean": None,
        },
    ),
    top=(((3, "three", 0.99), (5, None, 0.005)), ((0, "zero", 0.5), (1, "one", 0.5))),
    out="out.npz",
    engine="onnxruntime VERSION",
    kernels="exact-unoptimized",
    warnings=(),
    notes=(),
)
INSPECTION = Inspection(
    file="m.onnx",
    kind="model",
    sections=(
        ("Model", (("file", "m.onnx"), ("opset", "17"))),
        ("Inputs", (("image", "float32 [1, 3, 224, 224]"),)),
    ),
    data={"model": MODEL},
    notes=(),
)
CHECK = {"name": "codes", "rule": "codes", "compared": 40, "mismatches": 0, "max_error": 0.0}
CHECK |= {"tolerance": None, "max_lsb": 0}
TAIL = {**CHECK, "name": "scores", "rule": "tolerance", "tolerance": 1e-6, "max_error": 2e-8}
TAIL["max_lsb"] = None
VERIFIED = Verified(
    bundle="m.edgeq",
    passed=True,
    vectors=4,
    outputs=(CHECK, TAIL),
    engine="onnxruntime VERSION",
    kernels="default",
    host="x86_64",
    target="rpi5",
    on_target=False,
    digest="c" * 64,
    warnings=(),
)
BROKEN = replace(
    VERIFIED,
    passed=False,
    outputs=({**CHECK, "mismatches": 3, "max_error": 0.04, "max_lsb": 2}, TAIL),
)
DOCTOR = Doctor(
    (
        ("python", "ok", "3.11.7 on Linux"),
        ("rich", "problem", "not installed: pip install rich"),
        ("target of this host", "missing", "no target describes this machine (riscv64)"),
    )
)
OTHERS: dict[str, tuple[Any, Callable[..., Any]]] = {
    "plan": (PLANNED, render.plan),
    "plan-float": (replace(PLANNED, plan={}, precision="fp32", calibration=None), render.plan),
    "eval": (EVALUATION, render.evaluation),
    "eval-no-gate": (replace(EVALUATION, gate=None), render.evaluation),
    "run": (RAN, render.run),
    "run-plain": (replace(RAN, top=(), out=None), render.run),
    "inspect": (INSPECTION, render.inspection),
    "verify": (VERIFIED, render.verified),
    "verify-failed": (BROKEN, render.verified),
    "doctor": (DOCTOR, render.doctor),
}
CASES = {**{name: (result, render.build) for name, result in BUILDS.items()}, **OTHERS}
EXIT_CODES = {
    "gate-failed": 1,
    "strict": 1,
    "garbage": 1,
    "eval": 1,
    "verify-failed": 1,
    "doctor": 2,
}


@pytest.mark.parametrize("verbosity", [0, 1])
@pytest.mark.parametrize("name", CASES)
def test_a_result_on_screen(edgeq_text, golden, name: str, verbosity: int) -> None:
    result, text = CASES[name]
    console = Console()
    console.verbosity = verbosity
    outcome = edgeq_text(lambda: render.show(console, result, text, "edgeq next"))
    assert outcome.code == EXIT_CODES.get(name, 0)
    assert outcome.err == ""
    assert outcome.out.splitlines()[-1] == "next: edgeq next"
    if verbosity and name not in ("inspect", "run"):
        golden(f"render-{name}-v", outcome)
    elif not verbosity:
        golden(f"render-{name}", outcome)


def test_colours_are_on_words_that_say_it_themselves(edgeq_text, monkeypatch) -> None:
    import re

    monkeypatch.setenv("TERM", "xterm")
    for result, text in CASES.values():
        show = lambda: render.show(Console(), result, text, "edgeq next")  # noqa: B023,E731
        coloured, plain = edgeq_text(show, terminal=True), edgeq_text(show)
        assert "\x1b[" in coloured.out
        assert re.sub(r"\x1b\[\d+m", "", coloured.out) == plain.out


def test_no_line_ends_in_blanks(edgeq_text) -> None:
    for result, text in CASES.values():
        out = edgeq_text(lambda: render.show(Console(), result, text, "x")).out  # noqa: B023
        assert [line for line in out.splitlines() if line != line.rstrip()] == []
