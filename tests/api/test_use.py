"""`edgeq.evaluate`, `edgeq.inspect`, `edgeq.api.run` and `doctor` on bundles and on models."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import edgeq
from edgeq import EdgeqError
from edgeq.api import doctor, run
from edgeq.api.use import _recorded


@pytest.fixture
def bundle(net: Path, images: np.ndarray) -> Path:
    return Path(str(edgeq.build(net, target="x86-avx2", precision="int8", data=images).bundle))


def test_evaluate_a_model_and_its_bundle_alike(net: Path, bundle: Path, images: np.ndarray) -> None:
    answers = run(net, data=images, topk=1).top
    y = np.array([best[0][0] for best in answers])
    given = {"image": images, "y": y}
    of_model = edgeq.evaluate(net, evaluate=given, metric="top1")
    of_bundle = edgeq.evaluate(bundle, evaluate=given, metric="top1", gate="top1>=0.5,size<1MB")
    assert of_model.metrics[0]["value"] == 1.0
    assert of_bundle.ok
    assert of_bundle.metrics[0]["n"] == 24
    assert (of_model.value, of_model.n, of_model.baseline) == (1.0, 24, 1.0)
    assert of_bundle.baseline is None
    assert of_bundle.interval == tuple(of_bundle.metrics[0]["interval"])


@pytest.fixture
def labelled(net: Path, images: np.ndarray) -> dict[str, np.ndarray]:
    answers = run(net, data=images, topk=1).top
    return {"image": images, "y": np.array([best[0][0] for best in answers])}


@pytest.fixture
def measured(net: Path, images: np.ndarray, labelled: dict[str, np.ndarray]) -> Path:
    settings = edgeq.BuildSettings(precision="int8", metric="top1")
    built = edgeq.build(net, target="x86-avx2", settings=settings, data=images, evaluate=labelled)
    return Path(str(built.bundle))


def test_a_bundle_is_held_against_the_float_figure_it_records(
    measured: Path, labelled: dict[str, np.ndarray]
) -> None:
    found = edgeq.evaluate(measured, evaluate=labelled, metric="top1", gate="quality>=-100pt")
    assert found.ok
    assert found.baseline == 1.0
    assert found.metrics[0]["difference_interval"] is None
    assert found.gate is not None
    (rule,) = found.gate["rules"]
    told = "pt against 100.00 %, the float figure that the bundle records, no interval"
    assert rule["text"].endswith(told)
    assert rule["certain"] is None


def test_another_number_of_samples_is_no_baseline(
    measured: Path, labelled: dict[str, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    fewer = {name: array[:10] for name, array in labelled.items()}
    assert edgeq.evaluate(measured, evaluate=fewer, metric="top1").baseline is None

    def score(self: object, run: object) -> object:
        raise AssertionError

    monkeypatch.setattr("edgeq.quality.evaluation._score_all", score)
    with pytest.raises(EdgeqError, match=r"not measured \[gate-not-measurable\]"):
        edgeq.evaluate(measured, evaluate=fewer, metric="top1", gate="top1>=-1pt")


def test_of_a_function_the_samples_are_known_afterwards(measured: Path, images: np.ndarray) -> None:
    def top1(ask: Callable[..., object]) -> list[float]:
        ask({"image": images})
        return [1.0] * count

    count = len(images)
    assert edgeq.evaluate(measured, evaluate=top1, gate="top1>=-1pt").ok
    count = 3
    with pytest.raises(EdgeqError, match=r"not measured \[gate-not-measurable\]"):
        edgeq.evaluate(measured, evaluate=top1, gate="top1>=-1pt")


def test_a_relative_gate_is_refused_before_scoring_without_a_record(bundle: Path) -> None:
    asked: list[object] = []
    with pytest.raises(EdgeqError, match=r"not measured \[gate-not-measurable\]"):
        edgeq.evaluate(bundle, evaluate=asked.append, metric="top1", gate="top1>=-1pt")
    assert not asked


def test_a_float_model_is_its_own_baseline(net: Path, labelled: dict[str, np.ndarray]) -> None:
    found = edgeq.evaluate(net, evaluate=labelled, metric="top1", gate="top1>=-1pt")
    assert found.gate is not None
    assert "+0.00 pt against 100.00 %, its own as the float model" in found.gate["rules"][0]["text"]


def test_a_manifest_may_hold_anything_as_quality() -> None:
    assert _recorded(None) == _recorded("x") == ()
    kept = {"metric": "top1", "baseline": 1, "n": 3}
    wrong = [1, {}, {"metric": "m", "baseline": None}, {"metric": "m", "baseline": True}]
    assert _recorded([*wrong, {"metric": 1, "baseline": 1.0}, kept]) == (kept,)


def test_a_failed_gate_of_eval_is_exit_1(bundle: Path, images: np.ndarray) -> None:
    result = edgeq.evaluate(
        bundle, evaluate=lambda ask: float(ask({"image": images})["scores"].size), gate="size<1B"
    )
    assert not result.ok
    assert result.exit_code == 1


def test_inspect_a_model(net: Path) -> None:
    seen = edgeq.inspect(net).to_json()
    assert seen["kind"] == "model"
    assert seen["ops"] == {"Conv": 1, "Flatten": 1, "Gemm": 1, "MaxPool": 1, "Relu": 1}
    assert seen["model"]["parameters"] == 16 * 27 + 16 + 2560 + 10
    assert seen["inputs"] == [{"name": "image", "dtype": "float32", "shape": ["N", 3, 8, 8]}]
    assert seen["weight_bytes"] == {"float": 4 * (16 * 27 + 16 + 2560 + 10)}


def test_inspect_a_bundle_starts_no_engine(bundle: Path) -> None:
    seen = edgeq.inspect(bundle).to_json()
    assert seen["kind"] == "bundle"
    assert seen["target"] == "x86-avx2"
    assert seen["precision"] == "int8"
    assert set(seen["files"]) == {"CARD.md", "golden.bin", "model.onnx", "plan.json"}


def test_a_damaged_bundle_is_refused_by_every_verb(bundle: Path, images: np.ndarray) -> None:
    data = bytearray(bundle.read_bytes())
    data[len(data) // 2] ^= 1
    bundle.write_bytes(data)
    verbs: tuple[Callable[[], object], ...] = (
        lambda: edgeq.verify(bundle),
        lambda: edgeq.inspect(bundle),
        lambda: run(bundle, data=images),
        lambda: edgeq.evaluate(bundle, evaluate=lambda ask: 1.0),
        lambda: edgeq.load(bundle),
    )
    for verb in verbs:
        with pytest.raises(EdgeqError, match=r"\[damaged-bundle\]"):
            verb()


@pytest.mark.parametrize("verb", [edgeq.inspect, edgeq.verify, edgeq.load])
def test_a_path_that_is_not_there(verb: Callable[[Path], object], tmp_path: Path) -> None:
    for name in ("none.onnx", "none.edgeq"):
        with pytest.raises(EdgeqError, match="none"):
            verb(tmp_path / name)


def test_run_refuses_topk_on_what_is_no_score(save: Callable[..., Path]) -> None:
    model = save("g (float[4] x) => (float[4] y) { y = Relu (x) }")
    with pytest.raises(EdgeqError, match=r"--topk needs scores"):
        run(model, data=np.zeros((2, 4), np.float32), topk=1)


def test_run_saves_nothing_where_it_cannot(net: Path, images: np.ndarray, tmp_path: Path) -> None:
    with pytest.raises(EdgeqError, match=r"\[no-such-folder\]"):
        run(net, data=images, out=tmp_path / "none" / "out.npz")


def test_doctor_finds_this_machine_in_order() -> None:
    found = doctor()
    assert found.ok
    rows = {check: status for check, status, _ in found.rows}
    assert rows["onnxruntime"] == "ok"
    assert rows["int8 kernels"] == "ok"
