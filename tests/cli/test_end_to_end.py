"""The whole tool on a tiny model: every command, its text, its document, its exit code."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

INT8 = ("build", "tiny.onnx", "-t", "rpi5", "--int8", "-d", "calib.npz")
MEASURED = (*INT8, "--eval", "eval.npz", "--metric", "top1", "--gate", "top1>=-1pt,size<5MB")
BUNDLE = "tiny-rpi5-int8.edgeq"


@pytest.fixture
def bundle(edgeq, tiny: Path) -> Path:
    """tiny built for rpi5 in int8, measured."""
    assert edgeq(*MEASURED, "-q").code == 0
    return tiny.with_name(BUNDLE)


# name -> arguments, exit code; all in a folder with tiny.onnx, calib.npz, eval.npz
BUILDS = {
    "int8": (INT8, 0),
    "int8-measured": (MEASURED, 0),
    "int8-verbose": ((*MEASURED, "-v"), 0),
    "int8-quiet": ((*MEASURED, "-q"), 0),
    "fp32": (("build", "tiny.onnx", "-t", "x86-avx2", "--fp32"), 0),
    "fp16": (("build", "tiny.onnx", "-t", "rpi5", "--fp16"), 0),
    "tflite": ((*INT8, "--format", "tflite"), 0),
    "tflite-codes": ((*INT8, "--format", "tflite", "--io", "int8", "--layout", "nhwc"), 0),
    "tflite-fp16": (("build", "tiny.onnx", "-t", "rpi5", "--fp16", "--format", "tflite"), 0),
    "engine-auto": ((*MEASURED, "--engine", "auto"), 0),
    "auto-without-data": (("build", "tiny.onnx", "-t", "rpi5"), 0),
    "auto-with-data": (("build", "tiny.onnx", "-t", "rpi5", "-d", "calib.npz"), 0),
    "synthetic": (("build", "tiny.onnx", "-t", "rpi4", "--int8", "--synthetic-data"), 0),
    "keep-float": ((*INT8, "--keep-float", "fc"), 0),
    "plan-only": ((*INT8, "--plan-only"), 0),
    "plan-only-verbose": ((*INT8, "--plan-only", "-v"), 0),
    "plan-only-fp32": (("build", "tiny.onnx", "-t", "rpi5", "--plan-only"), 0),
    "folder": ((*INT8, "--as", "dir", "-o", "out dir"), 0),
    "gate-failed": ((*INT8, "--gate", "size<5kB"), 1),
    "gate-failed-strict": ((*INT8, "--gate", "size<5kB", "--strict"), 1),
}
REFUSED = {
    "no-model": ("build", "-t", "rpi5"),
    "no-target": ("build", "tiny.onnx"),
    "unknown-target": ("build", "tiny.onnx", "-t", "rpi6"),
    "needs-data": ("build", "tiny.onnx", "-t", "rpi5", "--int8"),
    "no-such-model": ("build", "absent.onnx", "-t", "rpi5"),
    "model-is-a-folder": ("build", ".", "-t", "rpi5"),
    "model-is-data": ("build", "calib.npz", "-t", "rpi5"),
    "no-such-data": (*INT8[:-1], "absent.npz"),
    "no-such-eval": (*INT8, "--eval", "absent.npz", "--metric", "top1"),
    "needs-metric": (*INT8, "--eval", "eval.npz"),
    "unknown-metric": (*INT8, "--eval", "eval.npz", "--metric", "top2"),
    "bad-gate": (*INT8, "--gate", "size<5mm"),
    "gate-not-measurable": (*INT8, "--gate", "p90<30ms"),
    "no-such-folder": (*INT8, "-o", "absent/m.edgeq"),
    "no-such-labels": (*INT8, "--labels", "absent.txt"),
    "no-such-node": (*INT8, "--keep-float", "nothing*"),
    "no-such-input": (*INT8, "--shape", "imag=1x1x8x8"),
    "verify-absent": ("verify", "absent.edgeq"),
    "verify-model": ("verify", "tiny.onnx"),
    "run-absent": ("run", "absent.onnx", "-d", "calib.npz"),
    "inspect-absent": ("inspect", "absent.onnx"),
    "inspect-data": ("inspect", "calib.npz"),
    "inspect-folder": ("inspect", "."),
    "eval-absent": ("eval", "absent.edgeq", "--eval", "eval.npz", "--metric", "top1"),
}


def _quiet(arguments: tuple[str, ...]) -> list[str]:
    return [] if arguments[0] == "inspect" else ["-q"]


@pytest.mark.parametrize("name", BUILDS)
def test_build(edgeq, golden, tiny: Path, name: str) -> None:
    arguments, code = BUILDS[name]
    outcome = edgeq(*arguments)
    assert outcome.code == code
    golden(f"build-{name}", outcome, measured=True)
    written = sorted(path.name for path in tiny.parent.iterdir())
    expected = ["calib.npz", "eval.npz", "tiny.onnx"]
    bundles = [name for name in written if name not in expected]
    assert len(bundles) == ("plan-only" not in name and "strict" not in name), written


@pytest.mark.parametrize("name", [name for name in BUILDS if "verbose" not in name])
def test_build_as_json(edgeq, schema_check, tiny: Path, name: str) -> None:
    arguments, code = BUILDS[name]
    outcome = edgeq(*arguments, "--json")
    document = schema_check(outcome.out)
    assert (outcome.code, document["ok"]) == (code, code == 0)
    assert outcome.err == "" or "error:" not in outcome.err
    if document["schema"] == "edgeq.build/1" and document["bundle"]:
        assert Path(document["bundle"]).exists()


@pytest.mark.parametrize("name", REFUSED)
def test_refused(edgeq, golden, tiny: Path, name: str) -> None:
    outcome = edgeq(*REFUSED[name], *_quiet(REFUSED[name]))
    assert (outcome.code, outcome.out) == (2, "")
    golden(f"refused-{name}", outcome)
    assert sorted(path.name for path in tiny.parent.iterdir()) == [
        "calib.npz",
        "eval.npz",
        "tiny.onnx",
    ]


@pytest.mark.parametrize("name", REFUSED)
def test_refused_as_json(edgeq, schema_check, tiny: Path, name: str) -> None:
    outcome = edgeq(*REFUSED[name], *_quiet(REFUSED[name]), "--json")
    document = schema_check(outcome.out)
    assert (outcome.code, document["schema"]) == (2, "edgeq.error/1")
    assert f"[{document['error']['slug']}]" in outcome.err


USES = {
    "verify": ("verify", BUNDLE),
    "inspect-bundle": ("inspect", BUNDLE),
    "inspect-model": ("inspect", "tiny.onnx"),
    "inspect-model-shaped": ("inspect", "tiny.onnx", "--shape", "image=1x1x8x8"),
    "run-bundle": ("run", BUNDLE, "-d", "calib.npz", "--topk", "1", "--samples", "3"),
    "run-model": ("run", "tiny.onnx", "-d", "calib.npz", "-o", "out.npz"),
    "eval-bundle": ("eval", BUNDLE, "--eval", "eval.npz", "--metric", "top1", "--gate", "top1>0.5"),
    "eval-model": ("eval", "tiny.onnx", "--eval", "eval.npz", "--metric", "top1"),
}


@pytest.mark.parametrize("name", USES)
def test_use(edgeq, golden, bundle: Path, name: str) -> None:
    outcome = edgeq(*USES[name])
    assert outcome.code == 0
    golden(f"use-{name}", outcome, measured=True)


@pytest.mark.parametrize("name", USES)
def test_use_as_json(edgeq, schema_check, bundle: Path, name: str) -> None:
    outcome = edgeq(*USES[name], "--json")
    assert schema_check(outcome.out)["ok"] is True
    assert outcome.code == 0


def test_eval_with_a_gate_that_fails(edgeq, schema_check, bundle: Path) -> None:
    arguments = ("eval", BUNDLE, "--eval", "eval.npz", "--metric", "top1", "--gate", "top1>=99%")
    outcome = edgeq(*arguments, "--json")
    document = schema_check(outcome.out)
    assert (outcome.code, document["ok"], document["gate"]["passed"]) == (1, False, False)
    plain = edgeq(*arguments)
    assert plain.code == 1
    assert "top1>=99%  failed" in plain.out


def test_a_gate_of_the_file_is_left_out_where_eval_cannot_measure_it(edgeq, tiny: Path) -> None:
    assert edgeq(*INT8, "-q").code == 0
    Path("edgeq.toml").write_text('gate = ["top1>=-1pt", "p90<30ms", "size<5MB"]\n')
    arguments = ("eval", BUNDLE, "--eval", "eval.npz", "--metric", "top1")
    outcome = edgeq(*arguments)
    assert outcome.code == 0
    assert "size<5MB  passed" in outcome.out
    assert "top1>=-1pt" not in outcome.out
    for rule in ("top1>=-1pt", "p90<30ms"):
        assert f"note: gate `{rule}`: " in outcome.err
    refused = edgeq(*arguments, "--gate", "top1>=-1pt")
    assert (refused.code, "[gate-not-measurable]" in refused.err) == (2, True)
    Path("edgeq.toml").write_text('gate = "topp1>=-1pt"\n')
    assert edgeq(*arguments).code == 2


def test_a_gate_of_the_file_holds_for_a_bundle_with_its_float_figure(edgeq, bundle: Path) -> None:
    Path("edgeq.toml").write_text('eval = "eval.npz"\nmetric = "top1"\ngate = "top1>=-1pt"\n')
    outcome = edgeq("eval", BUNDLE)
    assert outcome.code == 0
    assert "the float figure that the bundle records" in outcome.out


def test_run_saves_every_output(edgeq, bundle: Path) -> None:
    assert edgeq("run", BUNDLE, "-d", "calib.npz", "-o", "out.npz", "-q").code == 0
    with np.load("out.npz") as saved:
        assert saved["scores"].shape == (40, 10)


def test_labels_name_the_best_classes(edgeq, tiny: Path) -> None:
    words = [f"class-{place}" for place in range(10)]
    Path("labels.txt").write_text("\n".join(words))
    assert edgeq(*INT8, "--labels", "labels.txt", "-q").code == 0
    document = json.loads(edgeq("run", BUNDLE, "-d", "calib.npz", "--topk", "1", "--json").out)
    assert {best[0]["label"] for best in document["top"]} <= set(words)


def test_doctor(edgeq, schema_check) -> None:
    outcome = edgeq("doctor", "--json")
    document = schema_check(outcome.out)
    assert outcome.code == (0 if document["ok"] else 2)
    text = edgeq("doctor")
    assert len(text.out.splitlines()) == len(document["checks"]) + 2
    assert text.out.splitlines()[-1].startswith("next: edgeq ")


def test_settings_from_the_file(edgeq, tiny: Path) -> None:
    Path("edgeq.toml").write_text(
        'model = "tiny.onnx"\ntarget = "rpi5"\nprecision = "int8"\ndata = "calib.npz"\n'
        'eval = "eval.npz"\nmetric = "top1"\ngate = "top1>=-1pt"\n'
    )
    outcome = edgeq("build")
    assert (outcome.code, outcome.out.splitlines()[-1]) == (0, f"next: edgeq verify {BUNDLE}")
    assert "top1>=-1pt  passed" in outcome.out
    assert edgeq("run", BUNDLE, "--samples", "2", "-q").code == 0


def test_an_existing_folder_needs_force(edgeq, golden, tiny: Path) -> None:
    arguments = (*INT8, "--as", "dir", "-q")
    assert edgeq(*arguments).code == 0
    refused = edgeq(*arguments)
    assert refused.code == 2
    golden("refused-output-exists", refused)
    assert edgeq(*arguments, "--force").code == 0


@pytest.mark.parametrize("arguments", [INT8, ("run", "tiny.onnx", "-d", "calib.npz")])
def test_a_pipe_as_output_is_refused_and_stays(edgeq, tiny: Path, arguments) -> None:
    os.mkfifo("out.npz")
    outcome = edgeq(*arguments, "-o", "out.npz", "-q")
    assert (outcome.code, outcome.out) == (2, "")
    assert Path("out.npz").is_fifo()


@pytest.mark.parametrize("verb", ["inspect", "verify", "build"])
def test_a_pipe_as_input_is_not_waited_for(process, tmp_path: Path, verb: str) -> None:
    os.mkfifo(tmp_path / "pipe")
    more = ("-t", "rpi5") if verb == "build" else ()
    done = process(verb, "pipe", *more, cwd=tmp_path)
    assert (done.code, done.out) == (2, "")
    assert "Traceback" not in done.err


def test_the_next_line_of_every_command_runs(process, bundle: Path, tmp_path: Path) -> None:
    """Follow `next:` from a build on; the samples it names are put where it says."""
    (tmp_path / "samples.npz").write_bytes((tmp_path / "calib.npz").read_bytes())
    line, seen = f"edgeq verify {BUNDLE}", []
    while line not in seen:
        seen.append(line)
        done = process(*line.split()[1:], cwd=tmp_path)
        assert done.code == 0, (line, done)
        assert done.out.splitlines()[-1].startswith("next: "), line
        line = done.out.splitlines()[-1].removeprefix("next: ")
    assert seen == [
        f"edgeq verify {BUNDLE}",
        f"edgeq run {BUNDLE} --data samples.npz",
        f"edgeq inspect {BUNDLE}",
    ]


def test_the_plan_s_next_line_builds_it(edgeq, process, tiny: Path, tmp_path: Path) -> None:
    (tmp_path / "a b.npz").write_bytes((tmp_path / "calib.npz").read_bytes())
    plan = edgeq(*INT8[:-1], "a b.npz", "--plan-only", "-v")
    line = plan.out.splitlines()[-1].removeprefix("next: edgeq ")
    assert line == "build tiny.onnx -t rpi5 --int8 -d 'a b.npz'"


def test_a_real_process_says_the_same(edgeq, process, tiny: Path, golden, tmp_path: Path) -> None:
    golden("build-int8-measured", process(*MEASURED, cwd=tmp_path), measured=True)


def test_json_on_stdout_is_one_document_and_nothing_else(process, tiny: Path, tmp_path) -> None:
    done = process(*MEASURED, "--json", cwd=tmp_path)
    assert json.loads(done.out)["schema"] == "edgeq.build/1"
    assert "Packed" in done.err


def test_names_that_are_not_utf8(tiny: Path, tmp_path: Path, process) -> None:
    """Python hands such bytes over as surrogates; they come back as something a shell reads."""
    name = b"caf\xe9.onnx"
    os.rename(os.fsencode(tiny), os.fsencode(tmp_path) + b"/" + name)
    done = process("build", os.fsdecode(name), "-t", "rpi5", "--fp32", cwd=tmp_path)
    assert done.code == 0, done.err
    assert done.out.splitlines()[-1] == "next: edgeq verify $'caf\\xe9-rpi5-fp32.edgeq'"
    paths = os.pathsep.join(path for path in sys.path if path)
    line = f'"{sys.executable}" -m edgeq.cli {done.out.splitlines()[-1].split(" ", 2)[2]} --json'
    again = subprocess.run(
        ["bash", "-c", line],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
        check=True,
    )
    assert json.loads(again.stdout)["passed"] is True
