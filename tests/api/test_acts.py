"""What layers read in an int8 build: the words that ask for it, and what comes out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import edgeq
from edgeq import BuildSettings, EdgeqError, api
from edgeq.api import timing
from edgeq.report.events import Event, StageFinished, Warned
from edgeq_runtime import reader

SETTINGS = BuildSettings(weights="int8", acts="dynamic")


def artifact(build: edgeq.Build) -> onnx.ModelProto:
    assert build.bundle is not None
    return onnx.load_from_string(reader.read(build.bundle).artifact)


def test_dynamic_needs_no_data(net: Path) -> None:
    build = edgeq.build(net, target="x86-vnni", settings=SETTINGS)
    assert (build.precision, build.outcome) == ("int8", "built")
    assert build.ops["dynamic-int8"] == {"Gemm": 1}
    assert build.ops["int8-weights"] == {"Conv": 1}
    assert build.calibration is None
    assert build.warnings == ()
    assert "assumed precision int8: `--weights int8 --acts dynamic` was given" in build.notes
    (said,) = [note for note in build.notes if "ConvInteger" in note]
    assert said.startswith("1 `Conv`: ")
    worst = [row.name for row in build.fidelity.worst]
    assert worst == ["scores"]
    assert edgeq.verify(build.bundle).passed


def test_every_target_gets_the_same_integers_but_for_safe_pairs(net: Path) -> None:
    found = {}
    for target in ("rpi5", "x86-vnni", "x86-avx2"):
        model = artifact(edgeq.build(net, target=target, settings=SETTINGS))
        (codes,) = [row for row in model.graph.initializer if row.name == "fc_codes"]
        found[target] = codes.raw_data
    assert found["rpi5"] == found["x86-vnni"] != found["x86-avx2"]


def test_stored_weights_compute_in_float(net: Path) -> None:
    settings = BuildSettings(weights="int8", acts="fp32")
    build = edgeq.build(net, target="rpi5", settings=settings)
    assert build.ops["int8-weights"] == {"Conv": 1, "Gemm": 1}
    assert build.coverage is None
    assert build.size_bytes < build.float_size_bytes / 2
    sqnr = build.fidelity.outputs[0].sqnr_db
    # 8-bit weights per channel of a normal distribution: about 40 dB each, two layers
    assert sqnr is not None
    assert sqnr > 33


def test_int8_weights_alone_mean_dynamic_without_data(net: Path) -> None:
    build = edgeq.build(net, target="rpi5", settings=BuildSettings(weights="int8"))
    assert "assumed --acts dynamic: no calibration data was given" in build.notes
    assert build.ops["dynamic-int8"] == {"Gemm": 1}


def test_with_data_a_cnn_stays_static(net: Path, images: np.ndarray) -> None:
    build = edgeq.build(
        net, target="rpi5", data=images, settings=BuildSettings(weights="int8", acts="auto")
    )
    assert "dynamic-int8" not in build.ops
    assert build.ops["int8"]["Conv"] == 1


def test_mixed_has_both(net: Path, images: np.ndarray) -> None:
    settings = BuildSettings(acts="mixed")
    events: list[Event] = []
    build = edgeq.build(
        net, target="x86-vnni", data=images, settings=settings, progress=events.append
    )
    assert build.ops["int8"]["Conv"] == 1
    assert build.ops["dynamic-int8"] == {"Gemm": 1}
    (told,) = [e for e in events if isinstance(e, StageFinished) and e.name == "Quantized"]
    assert told.detail == f"{len(build.left_in_float)} left in float, 1 to dynamic int8"
    assert build.calibration is not None
    assert edgeq.verify(build.bundle).passed


def test_a_plan_alone(net: Path) -> None:
    planned = api.plan(net, target="rpi5", settings=SETTINGS)
    rows = {row["op_type"]: row["precision"] for row in planned.plan["ops"]}
    assert (rows["Gemm"], rows["Conv"]) == ("dynamic-int8", "int8-weights")


@pytest.mark.parametrize(
    ("settings", "slug", "message"),
    [
        (
            {"precision": "fp32", "weights": "int8"},
            "usage",
            "`--weights int8` contradicts `--fp32`",
        ),
        (
            {"precision": "fp16", "weights": "int8", "acts": "fp32"},
            "usage",
            "`--weights int8 --acts fp32` contradicts `--fp16`",
        ),
        ({"acts": "fp32"}, "usage", "`--acts fp32` alone does not say what to store"),
        (
            {"acts": "dynamic", "algo": "p99.99"},
            "usage",
            "`--algo p99.99` picks static ranges, and `--acts dynamic` has none",
        ),
        ({"acts": "static"}, "needs-data", "static int8 needs calibration data"),
        ({"acts": "mixed"}, "needs-data", "mixed int8 needs calibration data"),
        ({"precision": "int8"}, "needs-data", "static int8 needs calibration data"),
    ],
)
def test_words_that_do_not_fit(
    net: Path, settings: dict[str, Any], slug: str, message: str
) -> None:
    with pytest.raises(EdgeqError, match=message) as caught:
        edgeq.build(net, target="rpi5", settings=BuildSettings(**settings))
    assert caught.value.slug == slug
    if slug == "needs-data":
        assert "or quantize without data: `--weights int8 --acts dynamic`" in caught.value.hints


def test_a_model_that_int8_is_not_for(save: Callable[..., Path]) -> None:
    model = save("g (float[N,8] x) => (float[N,8] y) { y = Tanh (x) }")
    with pytest.raises(EdgeqError, match=r"no operator of `net\.onnx` can run in int8") as caught:
        edgeq.build(
            model, target="rpi5", settings=BuildSettings(weights="int8", shape={"x": (1, 8)})
        )
    assert caught.value.slug == "nothing-to-quantize"


def test_a_model_of_tiny_weights_is_built_in_float(save: Callable[..., Path]) -> None:
    model = save(
        "g (float[N,8] x) => (float[N,4] y) { y = MatMul (x, w) }", w=np.eye(8, 4, dtype=np.float32)
    )
    build = edgeq.build(model, target="rpi5", settings=SETTINGS)
    assert build.precision == "fp32"
    (line,) = [line for line in build.warnings if "the artifact is float" in line]
    assert "its weights have less than 256 values" in line


def test_a_state_that_might_drift_stays_float(save: Callable[..., Path]) -> None:
    """Sixteen made-up samples in a row cannot show that 99 % of decisions hold."""
    model = save(
        """g (float[1,16] x, float[1,32] state_in) => (float[1,32] y, float[1,32] state_out) {
            a = MatMul (x, w)  b = MatMul (state_in, u)  c = Add (a, b)
            state_out = Tanh (c)  y = Sigmoid (state_out) }""",
        w=np.random.default_rng(0).normal(size=(16, 32)).astype(np.float32),
        u=np.eye(32, dtype=np.float32),
    )
    build = edgeq.build(model, target="rpi5", settings=SETTINGS)
    assert build.precision == "fp32"
    (line,) = [line for line in build.warnings if "the artifact is float" in line]
    assert "`state_out` is fed back as `state_in`" in line


# -- speed --------------------------------------------------------------------------------------


def product(save: Callable[..., Path], width: int) -> bytes:
    return save(
        f"g (float[64,{width}] x) => (float[64,{width}] y) {{ y = MatMul (x, w) }}",
        w=np.ones((width, width), np.float32),
    ).read_bytes()


def test_models_are_timed_in_turns(save: Callable[..., Path]) -> None:
    models = {str(width): product(save, width) for width in (128,)}
    models["twice"] = models["128"]
    seconds = timing.interleaved(models, [{"x": np.ones((64, 128), np.float32)}])
    assert seconds.keys() == {"128", "twice"}
    # one million multiply-adds take a core microseconds, not seconds
    assert all(1e-6 < value < 0.1 for value in seconds.values())


def test_this_host_is_like_one_target_at_most() -> None:
    from edgeq import targets

    like = [name for name in targets.names() if timing.is_like_target(targets.load(name))]
    assert len(like) <= 1


@pytest.mark.parametrize(("seconds", "warned"), [(0.5, False), (1.25, True)])
def test_slower_than_float_is_said_and_not_packed(
    net: Path, monkeypatch: pytest.MonkeyPatch, seconds: float, warned: bool
) -> None:
    quiet = edgeq.build(net, target="rpi5", settings=SETTINGS)
    monkeypatch.setattr(timing, "is_worth_it", lambda work: True)
    monkeypatch.setattr(
        timing, "interleaved", lambda models, feeds: {"float": 1.0, "int8": seconds}
    )
    events: list[object] = []
    build = edgeq.build(net, target="rpi5", settings=SETTINGS, progress=events.append)
    lines = (
        "the int8 artifact is slower than float: 0.80x its speed (measured here, not on the"
        " target)",
    )
    assert build.warnings == (lines if warned else ())
    assert [event.text for event in events if isinstance(event, Warned)] == list(build.warnings)
    assert "Timed" in [event.name for event in events if isinstance(event, StageFinished)]
    assert build.digest == quiet.digest


def test_small_models_are_not_timed(net: Path) -> None:
    events: list[object] = []
    edgeq.build(net, target="x86-vnni", settings=SETTINGS, progress=events.append)
    assert "Timed" not in [event.name for event in events if isinstance(event, StageFinished)]
