"""Bundles with a TFLite model: they load and verify, and what FORMAT.md 10 refuses is refused."""

import hashlib
import json
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest

import edgeq_runtime
from edgeq_runtime import EdgeqError, archive, engines
from edgeq_runtime.cpu import Cpu

Files = dict[str, bytes]
File = Any  # conftest's TfliteFile
PI5 = Cpu("aarch64", frozenset({"asimd", "asimddp", "fphp", "asimdhp"}), "Raspberry Pi 5")
PI4 = Cpu("aarch64", frozenset({"asimd"}), "Raspberry Pi 4")
X = np.array([[1, 1, 2]], np.float32)
COMPUTE = [
    {"features": ["fphp", "asimdhp"], "computes": "float16"},
    {"features": [], "computes": "float32"},
]


@pytest.fixture
def files(make: Callable[..., Files], dense_file: File) -> Files:
    dense_file.note("edgeq", b'{"format": 1, "free_batch": {"inputs": ["x"], "outputs": ["y"]}}')
    return make(
        dense_file.bytes(),
        artifact_file="model.tflite",
        artifact_format="tflite",
        tolerances={"y": 1e-5},
    )


def with_artifact(files: Files, edited: Callable[..., Files], data: bytes, **entries: Any) -> Files:
    """The same bundle with another model, everything else right."""

    def change(document: dict[str, Any]) -> None:
        digest = hashlib.sha256(data).hexdigest()
        document["files"]["model.tflite"] = {"size": len(data), "sha256": digest}
        document["artifact"].update(entries)

    return {**edited(files, change), "model.tflite": data}


def load(files: Mapping[str, bytes], **options: Any) -> edgeq_runtime.Runner:
    return edgeq_runtime.load(files, **{"isolate": False, "cpu": PI5, **options})


def test_it_loads_runs_and_verifies(files: Files) -> None:
    with edgeq_runtime.load(files, cpu=PI5) as model:  # tried in a child first
        assert (model.session.engine, model.session.partitions) == ("litert", 1)
        assert model.inputs == (edgeq_runtime.TensorInfo("x", "float32", ("batch", 3)),)
        assert model.run(np.repeat(X, 2, 0))["y"].tolist() == [[19, 41]] * 2
        assert model.self_test().passed
        assert (model.warnings, model.computes) == ((), None)
    verification = edgeq_runtime.verify(files, cpu=PI4, isolate=False)
    assert (verification.passed, verification.engine) == (True, "litert")
    assert verification.mode == "default"


def test_golden_vectors_find_another_model(
    files: Files, edited: Callable[..., Files], dense_file: File
) -> None:
    weights = np.array([[1, 2, 3], [4, 5, 6.01]], np.float32)
    dense_file.model.buffers[dense_file.graph.tensors[1].buffer].data = np.frombuffer(
        weights.tobytes(), np.uint8
    )
    other = with_artifact(files, edited, dense_file.bytes())
    assert not edgeq_runtime.verify(other, isolate=False, cpu=PI5).passed


@pytest.mark.parametrize("isolate", [True, False])
def test_a_damaged_model_never_reaches_the_engine(
    files: Files, edited: Callable[..., Files], dense_file: File, isolate: bool
) -> None:
    dense_file.graph.operators[0].inputs = [0, 1, 77]
    bad = with_artifact(files, edited, dense_file.bytes())
    message = r"^`model.tflite`: an input of FULLY_CONNECTED .* 77, of 4 \[damaged-bundle\]$"
    with pytest.raises(EdgeqError, match=message):
        load(bad, isolate=isolate)


@pytest.mark.parametrize(
    ("called", "is_onnx", "message"),
    [
        ("onnx", False, "`model.tflite` is TFLite, not as it says"),
        ("ort", False, "`model.tflite` is not in ORT format, not as it says"),
        ("tflite", True, "`model.tflite` is not TFLite, not as it says"),
    ],
)
def test_a_format_that_is_another(
    files: Files,
    edited: Callable[..., Files],
    float_model: bytes,
    called: str,
    is_onnx: bool,
    message: str,
) -> None:
    data = float_model if is_onnx else files["model.tflite"]
    entries = {"format": called}
    if called == "ort":
        minimum = json.loads(files[archive.MANIFEST])["engine"]["minimum"]
        entries |= {"platform": "aarch64", "engine_version": minimum}
    with pytest.raises(EdgeqError, match=rf"^{message} \[damaged-bundle\]$"):
        load(with_artifact(files, edited, data, **entries))


def test_another_engine_does_not_read_it(files: Files) -> None:
    with pytest.raises(EdgeqError, match=r"`onnxruntime` does not read `tflite` files") as caught:
        load(files, engine="onnxruntime")
    assert caught.value.hints == (
        "use the one it was measured with: load(bundle, engine='litert')",
    )


def test_the_fallback_is_for_where_the_engine_is_missing(
    files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it then computes is tried with the real wheel, in tests/packaging."""
    have: dict[str, str] = {"tflite-runtime": "2.14.0", "litert": "2.3.0"}
    asked = []

    def get(name: str) -> Any:
        asked.append(name)
        raise EdgeqError("missing-engine", f"engine `{name}` is not installed")

    monkeypatch.setattr(engines, "installed_version", have.get)
    monkeypatch.setattr(engines, "get", get)
    for gone in (None, "litert", "tflite-runtime"):
        have.pop(gone or "", None)
        with pytest.raises(EdgeqError, match="missing-engine"):
            load(files)
    with pytest.raises(EdgeqError, match="missing-engine"):
        load(files, engine="tflite-runtime")
    assert asked == ["litert", "tflite-runtime", "litert", "tflite-runtime"]


# -- what each processor computes -----------------------------------------------------------------


def test_what_a_processor_computes_in(files: Files, edited: Callable[..., Files]) -> None:
    bundle = edited(files, lambda document: document["artifact"].update(compute=COMPUTE))
    assert load(bundle).computes == "float16"
    assert load(bundle, cpu=PI4).computes == "float32"
    assert load(bundle, cpu=Cpu("aarch64", frozenset())).computes is None
    assert [row.dtype for row in load(bundle).manifest.compute] == ["float16", "float32"]
    first = edited(files, lambda document: document["artifact"].update(compute=COMPUTE[:1]))
    assert load(first, cpu=PI4).computes is None


def test_golden_vectors_are_run_in_float32(
    files: Files, edited: Callable[..., Files], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the session may compute in float16, another one is opened for them."""
    asked = []
    module = engines.get("litert")
    real = module.open_session

    def spy(model: bytes, **options: Any) -> Any:
        asked.append(options["exact"])
        return real(model, **options)

    monkeypatch.setattr(module, "open_session", spy)
    assert load(files).self_test().passed
    assert asked == [False]
    bundle = edited(files, lambda document: document["artifact"].update(compute=COMPUTE))
    assert load(bundle).self_test().passed
    assert asked == [False, False, True]


@pytest.mark.parametrize(
    "rows",
    [
        {},
        [{}],
        [{"features": [], "computes": "int8"}],
        [{"features": "fphp", "computes": "float16"}],
        [COMPUTE[1]] * 17,
    ],
)
def test_rows_that_are_wrong(files: Files, edited: Callable[..., Files], rows: Any) -> None:
    bundle = edited(files, lambda document: document["artifact"].update(compute=rows))
    with pytest.raises(EdgeqError, match=r"manifest.json: artifact.*\[damaged-bundle\]"):
        load(bundle)


def test_a_row_of_a_newer_writer(files: Files, edited: Callable[..., Files]) -> None:
    rows = [{**COMPUTE[1], "accumulates": "float32"}]
    bundle = edited(files, lambda document: document["artifact"].update(compute=rows))
    with pytest.raises(EdgeqError, match=r"unknown key `accumulates`.*\[bundle-version\]"):
        load(bundle)
