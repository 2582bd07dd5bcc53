"""Bundles with a model in ORT format: where they run, and where they are refused by name."""

from collections.abc import Callable, Mapping

import numpy as np
import pytest

import edgeq_runtime
from edgeq_runtime import EdgeqError
from edgeq_runtime.cpu import Cpu
from edgeq_runtime.engines import onnxruntime as engine

Files = dict[str, bytes]
PI = Cpu("aarch64", frozenset({"asimd", "asimddp"}), "Raspberry Pi 5 Model B")
X86 = Cpu("x86_64", frozenset({"avx2", "fma"}), "made up")


@pytest.fixture
def files(make: Callable[..., Files], int8_model: bytes) -> Files:
    """Int8 for x86, of weights that saturate."""
    return make(
        engine.to_ort(int8_model, architecture="x86_64"),
        artifact_file="model.ort",
        artifact_format="ort",
        engine_minimum=engine.version(),
        exact_outputs={"y": {"dtype": "uint8", "scale": 0.5, "zero_point": 128}},
        exact_kernels="needed",
        target="x86-vnni",
        architecture="x86_64",
        required_features=("avx2",),
        fast_features=(),
        input_ranges={"x": (0.0, 1.0)},
    )


def load(files: Mapping[str, bytes], **options: object) -> edgeq_runtime.Runner:
    return edgeq_runtime.load(files, **{"isolate": False, "cpu": X86, **options})  # type: ignore[arg-type]


def test_it_says_what_it_was_made_for_and_runs(files: Files, int8_model: bytes) -> None:
    with edgeq_runtime.load(files, cpu=X86) as model:  # tried in a child first
        made = model.manifest.made_for
        assert made is not None
        assert (made.platform, made.engine_version) == ("x86_64", engine.version())
        assert model.session.mode == "default"
        x = np.linspace(0, 1, 16, dtype=np.float32)[None]
        want = engine.open_session(int8_model, exact=True).run({"x": x})["y"]
        if not engine.saturates():
            assert np.array_equal(model.run(x)["y"], want)
            assert model.self_test().passed


def test_another_platform_is_refused(files: Files) -> None:
    with pytest.raises(EdgeqError) as caught:
        load(files, cpu=PI)
    assert str(caught.value) == (
        "`model.ort` is optimized for x86_64, and this cpu is aarch64 [wrong-platform]"
    )
    assert "--format onnx" in caught.value.hints[0]
    with pytest.raises(EdgeqError, match="wrong-platform"):
        edgeq_runtime.verify(files, isolate=False, cpu=PI)


def test_an_older_engine_is_refused(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    from edgeq_runtime import engines

    monkeypatch.setattr(engines, "installed_version", lambda _: "1.30.9")
    with pytest.raises(EdgeqError, match=r"onnxruntime 1\.30\.9 is older than") as caught:
        load(files)
    assert caught.value.slug == "engine-version"


def test_where_kernels_saturate_it_is_not_called_exact(
    files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "saturates", lambda: True)
    with pytest.raises(EdgeqError, match="cannot be run exactly here") as caught:
        load(files, exact=True)
    assert caught.value.slug == "not-exact"
    with load(files) as model:  # as an app runs it, with a warning
        assert any("saturate" in warning for warning in model.warnings)
        with pytest.raises(EdgeqError, match=r"\[not-exact\]"):
            model.self_test()


def test_safe_weights_are_exact_everywhere(
    files: Files,
    edited: Callable[..., Mapping[str, bytes]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(engine, "saturates", lambda: True)
    safe = edited(files, lambda document: document.update(exact_kernels="safe"))
    with load(safe, exact=True) as model:
        assert model.session.mode == "default"


@pytest.mark.parametrize("key", ["platform", "engine_version"])
def test_what_it_was_made_for_must_be_said(
    files: Files, edited: Callable[..., Mapping[str, bytes]], key: str
) -> None:
    broken = edited(files, lambda document: document["artifact"].pop(key))
    with pytest.raises(EdgeqError, match=f"`{key}` is missing"):
        load(broken)


def test_an_onnx_artifact_is_made_for_nothing(
    float_bundle: Mapping[str, bytes], edited: Callable[..., Mapping[str, bytes]]
) -> None:
    odd = edited(float_bundle, lambda document: document["artifact"].update(platform="x86_64"))
    with pytest.raises(EdgeqError, match="unknown key `platform`"):
        edgeq_runtime.load(odd, isolate=False, cpu=PI)
