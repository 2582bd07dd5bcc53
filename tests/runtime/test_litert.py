"""LiteRT as an engine: what it reports, refuses and computes."""

from __future__ import annotations

import importlib.metadata
import json
import re
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeq_runtime import EdgeqError, TensorInfo, engines, isolate

pytest.importorskip("ai_edge_litert")
from edgeq_runtime.engines import capabilities, litert, tflite_session

File = Any  # conftest's TfliteFile
NewFile = Callable[[], File]

X = np.array([[1, 1, 2]], np.float32)
Y = [[1 + 2 + 6 + 10, 4 + 5 + 12 + 20]]


def noted(file: File, **entries: Any) -> bytes:
    """With the metadata entry that edgeq writes."""
    file.note("edgeq", json.dumps({"format": 1, **entries}).encode())
    data: bytes = file.bytes()
    return data


@pytest.fixture(params=["bytes", "path"])
def opened(request: pytest.FixtureRequest, dense_file: File, tmp_path: Path) -> litert.Session:
    path = tmp_path / "m.tflite"
    path.write_bytes(dense_file.bytes())
    return litert.open_session(dense_file.bytes() if request.param == "bytes" else str(path))


def test_a_session_says_what_it_is(opened: litert.Session) -> None:
    assert opened.inputs == (TensorInfo("x", "float32", (1, 3)),)
    assert opened.outputs == (TensorInfo("y", "float32", (1, 2)),)
    assert (opened.engine, opened.mode) == ("litert", "default")
    assert opened.version == litert.version() == importlib.metadata.version("ai-edge-litert")
    assert (opened.partitions, opened.delegated, opened.left) == (1, (1,), ())


def test_it_runs_and_hands_out_copies(opened: litert.Session) -> None:
    first = opened.run({"x": X})["y"]
    second = opened.run({"x": 2 * X})["y"]
    assert first.tolist() == Y
    assert (second - first).tolist() == [[9, 21]]
    assert opened.run({"x": X}, []) == {}
    assert opened.run({"x": np.asfortranarray(X.astype(">f4"))})["y"].tolist() == Y


@pytest.mark.parametrize(
    ("feeds", "message"),
    [
        ({}, "input `x` is missing, wanted float32 [1, 3]"),
        ({"z": 0}, "there is no input `z`"),
        ({"x": [1]}, "input `x`: got list, wanted float32 [1, 3]"),
        ({"x": np.zeros((1, 3))}, "input `x`: got float64 [1, 3], wanted float32 [1, 3]"),
        ({"x": np.zeros((2, 3), np.float32)}, "input `x`: got float32 [2, 3], wanted"),
    ],
)
def test_a_feed_that_does_not_fit(
    opened: litert.Session, feeds: dict[str, Any], message: str
) -> None:
    with pytest.raises(EdgeqError, match=re.escape(message) + r".* \[bad-input\]$|\[bad-input\]$"):
        opened.run(feeds)


def test_an_output_that_is_not_there(opened: litert.Session) -> None:
    with pytest.raises(EdgeqError, match=r"^there is no output `z` \[bad-input\]$"):
        opened.run({"x": X}, ["z"])


def test_a_closed_session(opened: litert.Session) -> None:
    opened.close()
    with pytest.raises(EdgeqError, match=r"the session is closed \[engine-failed\]"):
        opened.run({"x": X})


# -- names ----------------------------------------------------------------------------------------


def test_names_are_those_of_the_signature(dense_file: File) -> None:
    dense_file.sign({"a": 0}, {"b": 3}, "other")
    dense_file.sign({"image": 0}, {"scores": 3}, "serving_default")
    session = litert.open_session(dense_file.bytes())
    assert [info.name for info in (*session.inputs, *session.outputs)] == ["image", "scores"]
    assert session.run({"image": X})["scores"].tolist() == Y


def test_a_lone_signature_counts_whatever_its_name(dense_file: File) -> None:
    dense_file.sign({"a": 0}, {"b": 3}, "other")
    session = litert.open_session(dense_file.bytes())
    assert [info.name for info in (*session.inputs, *session.outputs)] == ["a", "b"]


def test_names_of_tensors_are_made_unique(tflite_file: NewFile) -> None:
    file = tflite_file()
    a, b = file.tensor("x", (1,)), file.tensor("x", (1,))
    y = file.tensor("", (1,))
    file.operator("SUB", [a, b], [y], "SubOptions")
    file.ends([b, a], [y])
    session = litert.open_session(file.bytes())
    assert [info.name for info in session.inputs] == ["x", "x_2"]
    one, two = np.array([1], np.float32), np.array([2], np.float32)
    assert session.run({"x": two, "x_2": one}) == {"tensor_2": np.float32([-1])}


def test_one_tensor_under_two_names(dense_file: File) -> None:
    dense_file.sign({"x": 0}, {"a": 3, "b": 3}, "serving_default")
    got = litert.open_session(dense_file.bytes()).run({"x": X})
    assert {name: value.tolist() for name, value in got.items()} == {"a": Y, "b": Y}


# -- batches and sizes ----------------------------------------------------------------------------


def test_a_free_batch_is_run_row_by_row(dense_file: File) -> None:
    data = noted(dense_file, free_batch={"inputs": ["x"], "outputs": ["y"]})
    session = litert.open_session(data)
    assert session.inputs == (TensorInfo("x", "float32", ("batch", 3)),)
    assert session.outputs == (TensorInfo("y", "float32", ("batch", 2)),)
    x = np.arange(12, dtype=np.float32).reshape(4, 3)
    rows = [session.run({"x": x[row : row + 1]})["y"] for row in range(4)]
    together = session.run({"x": x})["y"]
    assert together.tolist() == np.concatenate(rows).tolist()
    with pytest.raises(EdgeqError, match=r"input `x`: an array without elements \[bad-input\]"):
        session.run({"x": x[:0]})


def test_batches_must_agree(tflite_file: NewFile) -> None:
    file = tflite_file()
    a, b, c, y = (file.tensor(name, (1, 2)) for name in "abcy")
    m = file.tensor("m", (1, 2))
    file.operator("ADD", [a, b], [m], "AddOptions", version=2)
    file.operator("ADD", [m, c], [y], "AddOptions", version=2)
    file.ends([a, b, c], [y, c])
    free = {"inputs": ["a", "b"], "outputs": ["y"]}
    session = litert.open_session(noted(file, free_batch=free))
    two, three, fixed = (np.ones((n, 2), np.float32) for n in (2, 3, 1))
    with pytest.raises(EdgeqError, match=r"the inputs differ in their batch: `a` 2, `b` 3 \[bad-"):
        session.run({"a": two, "b": three, "c": fixed})
    got = session.run({"a": two, "b": two, "c": fixed})
    assert (got["y"].tolist(), got["c"].tolist()) == ([[3, 3], [3, 3]], [[1, 1]])


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (b"{", "the metadata entry `edgeq` is not JSON"),
        (b"[" * 100_000, "the metadata entry `edgeq` is not JSON"),
        (b"\xff", "the metadata entry `edgeq` is not JSON"),
        (b'{"format": 2}', "the metadata entry `edgeq` is not of format 1"),
        (b'{"format": 1, "free_batch": 3}', "has no names in `free_batch`"),
        (b'{"format": 1, "free_batch": {"inputs": "x"}}', "has no names in `free_batch`"),
        (b'{"format": 1, "free_batch": {"inputs": ["z"]}}', "names `z`, which the file does not"),
        (b'{"format": 1, "free_batch": null}', "has no names in `free_batch`"),
        (b'{"format": 1, "free_batch": {"outputs": [["y"]]}}', "has no names in `free_batch`"),
        (b'{"format": 1, "free_batch": {"inputs": ["\\ud800\\n"]}}', r"names `\ud800\n`, which"),
        (b'{"format": 1, "channels_last": 3}', "has no names in `channels_last`"),
        (b'{"format": 1, "channels_last": [[1]]}', "has no names in `channels_last`"),
        (b'{"format": 1, "x": NaN}', "the metadata entry `edgeq` is not JSON"),
        (b'{"format": 1, "x": ' + b"9" * 10**6 + b"}", "the metadata entry `edgeq` is not JSON"),
        (b"[]", "the metadata entry `edgeq` is not of format 1"),
        (b'{"format": 1, "free_batch": {"inputs": ["w"]}}', "names `w`, which the file does not"),
    ],
)
def test_notes_that_are_wrong(dense_file: File, entry: bytes, message: str) -> None:
    dense_file.note("edgeq", entry)
    with pytest.raises(EdgeqError, match=re.escape(message) + r".*\[damaged-model\]"):
        litert.open_session(dense_file.bytes())


def test_a_batch_without_rows_of_an_input_without_elements(tflite_file: NewFile) -> None:
    file = tflite_file()
    x, a, y = file.tensor("x", (1, 0)), file.tensor("a", (1, 2)), file.tensor("y", (1, 2))
    file.operator("RELU", [a], [y])
    file.ends([x, a], [y])
    session = litert.open_session(noted(file, free_batch={"inputs": ["x"], "outputs": []}))
    feeds = {"x": np.zeros((2, 0), np.float32), "a": np.ones((1, 2), np.float32)}
    assert session.run(feeds)["y"].tolist() == [[1, 1]]
    with pytest.raises(EdgeqError, match=r"input `x`: a batch without rows \[bad-input\]"):
        session.run({**feeds, "x": feeds["x"][:0]})


def test_thousands_of_names_are_no_work(tflite_file: NewFile) -> None:
    """Twenty thousand of one text, then as many of a signature."""
    file = tflite_file()
    count = 20_000
    ends = [file.tensor("x" if at else "x_2", (1,)) for at in range(count)]
    file.ends(ends, ends)
    names, _ = tflite_session.names_of(tflite_session.tflite.parse(file.bytes()))
    assert list(names.values()) == ends
    assert list(names)[:4] == ["x_2", "x", "x_3", "x_4"]
    file.sign({f"n{at}": at for at in reversed(ends)}, {"last": ends[-1]}, "serving_default")
    names, outputs = tflite_session.names_of(tflite_session.tflite.parse(file.bytes()))
    assert list(names) == [f"n{at}" for at in range(count)]
    assert outputs == {"last": count - 1}


def test_a_free_batch_of_two(tflite_file: NewFile) -> None:
    file = tflite_file()
    x, y = file.tensor("x", (2, 3)), file.tensor("y", (2, 3))
    file.operator("RELU", [x], [y])
    file.ends([x], [y])
    with pytest.raises(EdgeqError, match=r"names `x`, whose first size is not 1 \[damaged-model\]"):
        litert.open_session(noted(file, free_batch={"inputs": ["x"]}))


def test_sizes_that_a_file_leaves_open(tflite_file: NewFile) -> None:
    file = tflite_file()
    x = file.tensor("x", (1, 1, 2), shapeSignature=[-1, -1, 2])
    y = file.tensor("y", (1, 1, 2), shapeSignature=[-1, -1, 2])
    file.operator("RELU", [x], [y])
    file.ends([x], [y])
    session = litert.open_session(file.bytes())
    assert session.inputs == (TensorInfo("x", "float32", ("batch", None, 2)),)
    for shape in ((3, 4, 2), (1, 1, 2), (3, 4, 2), (2, 1, 2)):
        given = np.linspace(-1, 1, np.prod(shape), dtype=np.float32).reshape(shape)
        assert session.run({"x": given})["y"].tolist() == np.maximum(given, 0).tolist()


def test_nothing_is_no_batch(tflite_file: NewFile) -> None:
    file = tflite_file()
    x = file.tensor("x", (1, 2), shapeSignature=[-1, 2])
    y = file.tensor("y", (1, 2), shapeSignature=[-1, 2])
    file.operator("RELU", [x], [y])
    file.ends([x], [y])
    with pytest.raises(EdgeqError, match=r"`x`: an array without elements \[bad-input\]"):
        litert.open_session(file.bytes()).run({"x": np.zeros((0, 2), np.float32)})


def test_state_begins_anew_with_each_run(tflite_file: NewFile) -> None:
    """An SVDF of memory 2: fed twice the same, a state kept would show."""
    file = tflite_file()
    x = file.tensor("x", (1, 2))
    feature = file.tensor("feature", (1, 2), data=np.ones(2, np.float32))
    time = file.tensor("time", (1, 2), data=np.ones(2, np.float32))
    state = file.tensor("state", (1, 2), isVariable=True)
    y = file.tensor("y", (1, 1))
    file.operator("SVDF", [x, feature, time, -1, state], [y], "SVDFOptions", rank=1)
    file.ends([x], [y])
    session = litert.open_session(file.bytes())
    x_value = np.array([[1, 2]], np.float32)
    assert [session.run({"x": x_value})["y"].tolist() for _ in range(3)] == [[[3.0]]] * 3


def test_threads_may_share_a_session(dense_file: File) -> None:
    session = litert.open_session(dense_file.bytes(), threads=1)
    wrong: list[Any] = []

    def work(scale: float) -> None:
        wanted = [[9 * scale + 10, 21 * scale + 20]]
        got = [session.run({"x": scale * X})["y"].tolist() for _ in range(200)]
        wrong.extend(row for row in got if row != wanted)

    threads = [threading.Thread(target=work, args=(float(scale),)) for scale in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


# -- integers -------------------------------------------------------------------------------------


def int8_dense(file: File, depth: int) -> bytes:
    """y = sum of `depth` products of int8 codes, as many as one output step is worth."""
    x = file.tensor("x", (1, depth), "INT8", scale=1.0, zero_point=0)
    weights = np.full((16, depth), 127, np.int8)
    weights[1::2] = -127
    w = file.tensor("w", (16, depth), "INT8", data=weights, scale=np.ones(16), zero_point=[0] * 16)
    bias = file.tensor("b", (16,), "INT32", data=np.zeros(16, np.int32), scale=np.ones(16))
    file.graph.tensors[bias].quantization.zeroPoint = np.zeros(16, np.int64)
    y = file.tensor("y", (1, 16), "INT8", scale=float(depth * 128), zero_point=0)
    file.operator("FULLY_CONNECTED", [x, w, bias], [y], "FullyConnectedOptions", version=5)
    file.ends([x], [y])
    data: bytes = file.bytes()
    return data


@pytest.mark.parametrize("depth", [64, 1024])
def test_int8_kernels_do_not_saturate(tflite_file: NewFile, depth: int) -> None:
    """Pairs of 127 * -128 are beyond int16, where some kernels of ONNX Runtime clip. So `exact`
    has nothing to change."""
    data = int8_dense(tflite_file(), depth)
    for kernels in ("auto", "builtin", "reference"):
        session = litert.open_session(data, resolver=kernels)
        low = session.run({"x": np.full((1, depth), -128, np.int8)})["y"][0]
        high = session.run({"x": np.full((1, depth), 127, np.int8)})["y"][0]
        assert low.tolist() == [-127, 127] * 8  # 127 * -128 * depth / (128 * depth), and its like
        assert high.tolist() == [126, -126] * 8
    assert litert.saturates() is False
    exact = litert.open_session(data, exact=True, low_memory=True)
    assert exact.mode == "default"


def test_exact_leaves_out_float16(dense_file: File, monkeypatch: pytest.MonkeyPatch) -> None:
    """What XNNPACK would do with the entry is seen on an emulated A76, in tests/device."""
    seen = []
    real = litert.interpreter.Interpreter

    def spy(**options: Any) -> Any:
        seen.append(b"reduced_precision_support" in options["model_content"])
        return real(**options)

    dense_file.note("reduced_precision_support", b"fp16accfp16")
    monkeypatch.setattr(litert.interpreter, "Interpreter", spy)
    for exact, mode in ((False, "default"), (True, "exact")):
        session = litert.open_session(dense_file.bytes(), exact=exact)
        assert session.mode == mode
        assert session.run({"x": X})["y"].tolist() == Y
    assert seen == [True, False]


def test_other_kernels_on_demand(dense_file: File) -> None:
    for name in ("builtin", "reference"):
        session = litert.open_session(dense_file.bytes(), resolver=name)
        assert (session.mode, session.partitions) == (name, 0)
        assert session.left == ("FULLY_CONNECTED",)
        assert session.run({"x": X})["y"].tolist() == Y


# -- refusals -------------------------------------------------------------------------------------


def test_the_verifier_comes_before_the_engine(
    dense_file: File, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(**_: object) -> None:
        raise AssertionError("the engine saw the file")

    monkeypatch.setattr(litert.interpreter, "Interpreter", never)
    dense_file.graph.inputs = [9]
    with pytest.raises(EdgeqError, match=r"is tensor 9, of 4 \[damaged-model\]"):
        litert.open_session(dense_file.bytes())


def test_an_operator_that_it_does_not_have(tflite_file: NewFile) -> None:
    file = tflite_file()
    x, y = file.tensor("x", (1,)), file.tensor("y", (1,))
    file.operator("CUSTOM", [x], [y])
    file.model.operatorCodes[0].customCode = b"Frobnicate"
    file.ends([x], [y])
    message = r"^litert .* refused the model: .*custom op: Frobnicate \[engine-refused\]$"
    with pytest.raises(EdgeqError, match=message):
        litert.open_session(file.bytes())


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(EdgeqError, match=r"cannot read .*: No such file.* \[engine-refused\]"):
        litert.open_session(str(tmp_path / "none.tflite"))


def test_what_fails_while_it_runs(tflite_file: NewFile) -> None:
    """A GATHER out of range."""
    file = tflite_file()
    table = file.tensor("t", (2,), data=np.zeros(2, np.float32))
    at, y = file.tensor("at", (1,), "INT32"), file.tensor("y", (1,))
    file.operator("GATHER", [table, at], [y], "GatherOptions")
    file.ends([at], [y])
    session = litert.open_session(file.bytes())
    with pytest.raises(EdgeqError, match=r"^litert .* failed: .* \[engine-failed\]$"):
        session.run({"at": np.array([5], np.int32)})


def test_it_is_quiet(dense_file: File, tmp_path: Path) -> None:
    """XNNPACK's greeting would come in between the lines of a program's own."""
    path = tmp_path / "m.tflite"
    path.write_bytes(dense_file.bytes())
    program = (
        "import sys; sys.path[:] = eval(sys.argv[2]);"
        "from edgeq_runtime.engines import litert;"
        "litert.open_session(sys.argv[1]); print('here', file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(path), repr(sys.path)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert (done.stdout, done.stderr) == ("", "here\n")


def test_in_a_child_process(dense_file: File) -> None:
    data = dense_file.bytes()
    isolate.probe(data, engine="litert")
    isolate.probe(data, engine="litert", feeds={"x": X})
    dense_file.graph.inputs = [9]
    with pytest.raises(EdgeqError, match=r"\[damaged-model\]"):
        isolate.probe(dense_file.bytes(), engine="litert")


def test_it_may_not_be_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ai_edge_litert", None)
    monkeypatch.delitem(sys.modules, "edgeq_runtime.engines.litert")
    with pytest.raises(EdgeqError, match=r"`litert` is not installed \[missing-engine\]") as caught:
        engines.get("litert")
    assert caught.value.hints == ('install it: pip install "edgeq-runtime[litert]"',)


def test_which_engine_a_file_is_for(dense_file: File, float_model: bytes) -> None:
    assert engines.for_model(dense_file.bytes()) == "litert"
    assert engines.for_model(float_model) == engines.for_model(b"") == "onnxruntime"
    assert engines.get("litert") is litert
    assert engines.installed_version("litert") == litert.version()


# -- what each engine computes rightly ------------------------------------------------------------


def dense_of(file: File, x: str, w: str, y: str) -> File:
    """A FULLY_CONNECTED of these types."""
    scales = {"INT8": 0.5, "UINT8": 0.5, "INT16": 0.5, "INT4": 0.5}
    a = file.tensor("x", (1, 4), x, scale=scales.get(x))
    sizes = {"FLOAT32": 32, "INT4": 4, "INT8": 8, "UINT8": 8}
    b = file.tensor("w", (2, 4), w, data=bytes(8 * sizes[w] // 8), scale=scales.get(w))
    c = file.tensor("y", (1, 2), y, scale=scales.get(y))
    file.operator("FULLY_CONNECTED", [a, b, -1], [c], "FullyConnectedOptions", version=12)
    file.ends([a], [c])
    return file


def unpacked(file: File, dtype: str) -> File:
    """Weights stored small, and made floats before they are used."""
    size = 2 if dtype == "FLOAT16" else 1
    stored = file.tensor("s", (2, 4), dtype, data=bytes(8 * size), scale=0.5 if size == 1 else None)
    w, x, y = file.tensor("w", (2, 4)), file.tensor("x", (1, 4)), file.tensor("y", (1, 2))
    file.operator("DEQUANTIZE", [stored], [w], "DequantizeOptions", version=3)
    file.operator("FULLY_CONNECTED", [x, w, -1], [y], "FullyConnectedOptions")
    file.ends([x], [y])
    return file


@pytest.mark.parametrize(
    ("change", "kinds", "wrong"),
    [
        (lambda f: dense_of(f, "FLOAT32", "FLOAT32", "FLOAT32"), {"float32"}, ""),
        (lambda f: unpacked(f, "FLOAT16"), {"fp16 weights", "float32"}, ""),
        (lambda f: unpacked(f, "INT8"), {"int8 weights", "float32"}, ""),
        (lambda f: dense_of(f, "INT8", "INT8", "INT8"), {"static int8"}, ""),
        (lambda f: dense_of(f, "UINT8", "UINT8", "UINT8"), {"static uint8"}, ""),
        (
            lambda f: dense_of(f, "INT16", "INT8", "INT16"),
            {"int8 weights with int16 activations"},
            "",
        ),
        (lambda f: dense_of(f, "FLOAT32", "INT8", "FLOAT32"), {"dynamic int8"}, "wrong values"),
        (lambda f: dense_of(f, "INT8", "INT4", "INT8"), {"int4", "static int8"}, "NaN"),
        (lambda f: dense_of(f, "FLOAT32", "INT4", "FLOAT32"), {"int4", "dynamic int8"}, "NaN"),
    ],
)
def test_kinds_of_models(
    tflite_file: NewFile, change: Callable[[File], File], kinds: set[str], wrong: str
) -> None:
    model = tflite_session.tflite.parse(change(tflite_file()).bytes())
    assert set(capabilities.kinds(model)) == kinds
    capabilities.check(model, "litert", "2.3.0")
    if not wrong:
        capabilities.check(model, "tflite-runtime", "2.14.0")
        return
    message = rf"^tflite-runtime 2\.14\.0 cannot run .*{wrong}.* \[engine-cannot\]$"
    with pytest.raises(EdgeqError, match=message):
        capabilities.check(model, "tflite-runtime", "2.14.0")


def int4_dense(file: File, lowest: int, *, blocks: bool) -> bytes:
    """y = x * codes, of which some are `lowest`."""
    codes = np.full((4, 32), 7, np.int8)
    codes[:, ::3] = lowest
    pairs = (codes.reshape(-1, 2) & 0x0F).astype(np.uint8)
    x, y = file.tensor("x", (1, 32)), file.tensor("y", (1, 4))
    scales = None if blocks else np.ones(4)
    stored = (pairs[:, 0] | pairs[:, 1] << 4).astype(np.uint8)
    w = file.tensor("w", (4, 32), "INT4", data=stored, scale=scales, zero_point=[0] * 4)
    if blocks:
        held = file.tensor("s", (4, 1), "FLOAT16", data=np.ones(4, np.float16))
        made = file.graph.tensors[w].quantization = file.schema.QuantizationParametersT()
        made.detailsType = file.schema.QuantizationDetails.BlockwiseQuantization
        made.details = file.schema.BlockwiseQuantizationT()
        made.details.scales, made.details.zeroPoints, made.details.blockSize = held, -1, 32
    file.operator("FULLY_CONNECTED", [x, w, -1], [y], "FullyConnectedOptions", version=13)
    file.ends([x], [y])
    data: bytes = file.bytes()
    return data


@pytest.mark.parametrize("blocks", [False, True])
@pytest.mark.parametrize("lowest", [-7, -8])
@pytest.mark.parametrize("kernels", ["auto", "builtin", "reference"])
def test_int4_by_each_of_the_kernels(
    tflite_file: NewFile, kernels: str, lowest: int, blocks: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those that compute something else are refused; were they right one day, this test says so."""
    data = int4_dense(tflite_file(), lowest, blocks=blocks)
    x = np.where(np.arange(32) % 2, 1.0, -1.0).astype(np.float32)[None]
    right = [[lowest * float(x[0, ::3].sum()) + 7 * float(x[0].sum() - x[0, ::3].sum())] * 4]
    refused = kernels == ("reference" if blocks else "builtin") and (blocks or lowest == -8)
    if refused:
        message = rf"^litert .* cannot run .*{'blocks' if blocks else '-8'}.* \[engine-cannot\]$"
        with pytest.raises(EdgeqError, match=message) as caught:
            litert.open_session(data, resolver=kernels)
        assert caught.value.hints[0].startswith("run it with the kernels of XNNPACK")
        monkeypatch.setattr(capabilities, "KERNELS", ())
    made = litert.open_session(data, resolver=kernels).run({"x": x})["y"]
    assert np.allclose(made, right, 0, 2.0) is not refused


def test_what_was_never_measured_is_not_run() -> None:
    assert capabilities.verdict("tflite-runtime", "2.14.0", "float32") == ""
    for version in ("2.13.1", "2.15.0", "3.0", "junk"):
        assert "never measured" in capabilities.verdict("tflite-runtime", version, "float32")
    assert "never measured" in capabilities.verdict("tflite-runtime", "2.14.0", "other types")
    assert [capabilities.verdict("litert", "2.1.0", kind) for kind in capabilities.KINDS] == [
        ""
    ] * len(capabilities.KINDS)


def test_numpy_2_is_refused_before_the_wheel_is_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    monkeypatch.setattr(np, "__version__", "2.4.6")
    monkeypatch.delitem(sys.modules, "edgeq_runtime.engines.tflite_runtime", raising=False)
    message = (
        r"^tflite-runtime is made for numpy 1, and this is numpy 2\.4\.6 \[engine-needs-numpy1\]$"
    )
    with pytest.raises(EdgeqError, match=message) as caught:
        engines.get("tflite-runtime")
    assert caught.value.hints == ('pip install "numpy<2"',)
