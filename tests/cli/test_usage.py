"""Wrong usage: exit 2, the slug [usage], and the nearest right word; on stderr, stdout is empty."""

import pytest

CASES = {
    "unknown-command": ["buld"],
    "unknown-command-far": ["frobnicate"],
    "unknown-option": ["build", "--in8"],
    "unknown-option-far": ["build", "--frobnicate"],
    "unknown-group-option": ["--verison"],
    "unknown-short-option": ["build", "-x"],
    "two-precisions": ["build", "m.onnx", "--int8", "--fp32"],
    "two-precisions-other-order": ["build", "m.onnx", "--fp32", "--int8"],
    "weights-and-float": ["build", "m.onnx", "-t", "rpi5", "--fp32", "--weights", "int8"],
    "format-and-engine": [
        *("build", "m.onnx", "-t", "rpi5", "--format", "onnx", "--engine", "litert"),
    ],
    "io-of-onnx": ["build", "m.onnx", "-t", "rpi5", "--int8", "--io", "int8", "-d", "c.npz"],
    "acts-alone": ["build", "m.onnx", "-t", "rpi5", "--acts", "fp32"],
    "bad-acts": ["build", "m.onnx", "--acts", "dynamik"],
    "three-precisions": ["build", "m.onnx", "--auto", "--fp32", "--int8"],
    "quiet-and-verbose": ["build", "m.onnx", "-q", "-v"],
    "missing-argument": ["verify"],
    "two-arguments": ["verify", "a.edgeq", "b.edgeq"],
    "missing-value": ["build", "--data"],
    "option-for-value": ["build", "m.onnx", "--data", "--int8"],
    "value-for-flag": ["build", "--force=yes"],
    "bad-choice": ["build", "--algo", "p99"],
    "bad-choice-far": ["build", "--as", "android"],
    "bad-count": ["build", "--samples", "0"],
    "bad-count-text": ["run", "m.onnx", "--topk", "many"],
    "bad-shape": ["build", "--shape", "image=1x3x"],
    "two-shapes": ["inspect", "m.onnx", "--shape", "a=1x2", "--shape", "a=1x3"],
    "host-and-name": ["targets", "rpi5", "--host"],
    "unknown-target": ["targets", "rpi6"],
    "unknown-slug": ["explain", "need-data"],
    "no-data": ["run", "m.onnx"],
    "no-eval": ["eval", "m.onnx"],
    "no-config-file": ["build", "--config", "absent.toml"],
}


@pytest.mark.parametrize("name", CASES)
def test_wrong_usage(edgeq, golden, name: str) -> None:
    outcome = edgeq(*CASES[name])
    assert (outcome.code, outcome.out) == (2, "")
    golden(f"usage-{name}", outcome)


@pytest.mark.parametrize("name", CASES)
def test_wrong_usage_as_json(edgeq, schema_check, name: str) -> None:
    if CASES[name][0] not in ("build", "run", "eval", "verify", "inspect", "targets", "explain"):
        return
    plain, outcome = edgeq(*CASES[name]), edgeq(CASES[name][0], "--json", *CASES[name][1:])
    document = schema_check(outcome.out)
    assert document["schema"] == "edgeq.error/1"
    assert (outcome.code, outcome.err) == (plain.code, plain.err)
    error = document["error"]
    told = [f"error: {error['message']} [{error['slug']}]", *(f"hint: {h}" for h in error["hints"])]
    assert outcome.err.splitlines() == told


def test_the_same_precision_twice_is_fine(edgeq) -> None:
    outcome = edgeq("build", "m.onnx", "--int8", "--int8", "--show-config")
    assert outcome.code == 0
    assert '"int8"' in outcome.out


def test_an_unknown_key_in_edgeq_toml(edgeq, golden, tmp_path) -> None:
    (tmp_path / "edgeq.toml").write_text('model = "m.onnx"\n\nevl = "e.npz"\n')
    golden("config-unknown-key", edgeq("build"))


def test_a_bad_variable(edgeq, golden, monkeypatch) -> None:
    monkeypatch.setenv("EDGEQ_PRECISION", "int4")
    golden("config-bad-variable", edgeq("build"))
