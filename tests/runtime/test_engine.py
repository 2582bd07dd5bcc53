"""ONNX Runtime as an engine: what it reports, refuses and computes."""

import importlib.metadata
import itertools
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import onnx.parser
import pytest

from edgeq_runtime import EdgeqError, TensorInfo, engines
from edgeq_runtime.engines import onnxruntime as engine
from edgeq_runtime.engines import protobuf

STRINGS = """
<ir_version: 10, opset_import: ["": 21]>
words (string[n] a, bool[2] b, int64 c) => (string[n] d, bool[2] e, int64 f)
{ d = Identity(a)  e = Identity(b)  f = Identity(c) }
"""


@pytest.fixture(params=["bytes", "path"])
def opened(request: pytest.FixtureRequest, float_model: bytes, tmp_path: Path) -> engine.Session:
    path = tmp_path / "m.onnx"
    path.write_bytes(float_model)
    return engine.open_session(float_model if request.param == "bytes" else str(path))


def test_a_session_says_what_it_is(opened: engine.Session) -> None:
    assert opened.inputs == (TensorInfo("x", "float32", ("batch", 3)),)
    assert opened.outputs == (TensorInfo("y", "float32", ("batch", 3)),)
    assert (opened.engine, opened.mode) == ("onnxruntime", "default")
    assert opened.version == importlib.metadata.version("onnxruntime")


def test_it_runs(opened: engine.Session) -> None:
    x = np.array([[1, 2, 3], [4, 5, 6]], np.float32)
    assert opened.run({"x": x})["y"].tolist() == (2 * x + 1).tolist()
    assert list(opened.run({"x": x}, ["y"])) == ["y"]


def test_strings_bools_and_scalars() -> None:
    session = engine.open_session(onnx.parser.parse_model(STRINGS).SerializeToString())
    assert [info.dtype for info in session.inputs] == ["object", "bool", "int64"]
    assert [info.describe() for info in session.inputs] == ["string [n]", "bool [2]", "int64 []"]
    feeds = {"a": np.array(["x"]), "b": np.array([True, False]), "c": np.array(3)}
    assert session.run(feeds)["d"].tolist() == ["x"]


@pytest.mark.parametrize(
    ("feeds", "message"),
    [
        ({}, "input `x` is missing, wanted float32 [batch, 3]"),
        ({"z": 0}, "there is no input `z`"),
        ({"x": [1]}, "input `x`: got list, wanted float32 [batch, 3]"),
        ({"x": None}, "input `x`: got NoneType, wanted float32 [batch, 3]"),
        ({"x": np.zeros((1, 3))}, "input `x`: got float64 [1, 3], wanted float32 [batch, 3]"),
        ({"x": np.zeros(3, np.float32)}, "input `x`: got float32 [3], wanted float32 [batch, 3]"),
        (
            {"x": np.zeros((1, 4), np.float32)},
            "input `x`: got float32 [1, 4], wanted float32 [batch, 3]",
        ),
        ({"x": np.array([["a"] * 3])}, "input `x`: got string [1, 3], wanted float32 [batch, 3]"),
    ],
)
def test_a_feed_that_does_not_fit(
    opened: engine.Session, feeds: dict[str, Any], message: str
) -> None:
    with pytest.raises(EdgeqError) as caught:
        opened.run(feeds)
    assert str(caught.value) == f"{message} [bad-input]"


def test_an_output_that_is_not_there(opened: engine.Session) -> None:
    with pytest.raises(EdgeqError, match=r"^there is no output `z` \[bad-input\]$") as caught:
        opened.run({"x": np.zeros((1, 3), np.float32)}, ["z"])
    assert caught.value.hints == ("outputs: `y`",)


def test_a_failure_of_the_engines_own() -> None:
    text = """<ir_version: 10, opset_import: ["": 21]>
    g (float[3] x, int64[1] s) => (float[n] y) { y = Reshape(x, s) }"""
    session = engine.open_session(onnx.parser.parse_model(text).SerializeToString())
    with pytest.raises(
        EdgeqError, match=r"^onnxruntime [\d.]+ failed: .*Reshape.* \[engine-failed\]$"
    ):
        session.run({"x": np.zeros(3, np.float32), "s": np.array([2])})


def test_a_closed_session(opened: engine.Session) -> None:
    opened.close()
    with pytest.raises(EdgeqError, match="failed: the session is closed"):
        opened.run({"x": np.zeros((1, 3), np.float32)})


@pytest.mark.parametrize("model", [b"", b"junk", b"\x08\x0a", b"\0" * 100])
def test_bytes_that_are_no_model(model: bytes, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(EdgeqError, match=r"^onnxruntime [\d.]+ refused the model: ") as caught:
        engine.open_session(model)
    assert caught.value.slug == "engine-refused"
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", ""), "the engine says nothing beside the error"


def test_a_path_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(EdgeqError, match=r"\[engine-refused\]"):
        engine.open_session(str(tmp_path / "none.onnx"))


def test_an_operator_that_is_not_there() -> None:
    text = """<ir_version: 10, opset_import: ["": 21, "com.acme": 1]>
    g (float[3] x) => (float[3] y) { y = com.acme.Spin(x) }"""
    with pytest.raises(EdgeqError, match=r"Spin.*\[engine-refused\]"):
        engine.open_session(onnx.parser.parse_model(text).SerializeToString())


def test_the_optimized_graph_is_saved_where_asked(int8_model: bytes, tmp_path: Path) -> None:
    engine.open_session(int8_model, optimized_path=str(tmp_path / "o.onnx"))
    ops = [node.op_type for node in onnx.load(tmp_path / "o.onnx").graph.node]
    assert "QGemm" in ops
    plain = tmp_path / "plain.onnx"
    engine.open_session(int8_model, optimize=False, optimized_path=str(plain))
    assert "Gemm" in [node.op_type for node in onnx.load(plain).graph.node]


def integers(model: bytes, x: np.ndarray) -> np.ndarray:
    """The quantized Gemm in integers, as numpy computes them."""
    constants = {
        row.name: onnx.numpy_helper.to_array(row)
        for row in onnx.load_model_from_string(model).graph.initializer
    }
    codes = np.clip(np.rint(x / constants["xs"]), 0, 255).astype(np.int64)
    total = codes @ constants["w"].astype(np.int64)
    real = (total * 2.0**-14).astype(np.float32)
    return (np.clip(np.rint(real / 0.5) + 128, 0, 255) - 128) * np.float32(0.5)


@pytest.mark.parametrize(
    "options",
    [{"exact": True}, {"optimize": False}, {"exact": True, "low_memory": True, "threads": 1}],
)
def test_exact_sessions_compute_the_exact_integers(
    int8_model: bytes, options: dict[str, Any]
) -> None:
    """Weights of 90..127 against inputs near 255: pair sums of up to 64,770 overflow int16."""
    x = np.random.default_rng(1).uniform(0.9, 1, (1, 16)).astype(np.float32)
    got = engine.open_session(int8_model, **options).run({"x": x})["y"]
    assert got.tolist() == integers(int8_model, x).tolist()


def test_a_default_session_is_exact_unless_the_engine_says_it_saturates(int8_model: bytes) -> None:
    """`saturates` asks with its own product; a Gemm through the same kernels must agree."""
    x = np.ones((1, 16), np.float32)
    got = engine.open_session(int8_model).run({"x": x})["y"]
    exact = got.tolist() == integers(int8_model, x).tolist()
    assert exact is not engine.saturates()


class Saturating:
    """Makes the host one that saturates; counts the sessions and may fail the careful ones."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, failures: int) -> None:
        self.options: list[Any] = []
        real, left = engine._create, itertools.count(-failures)

        def create(model: Any, options: Any, without: Any = ()) -> Any:
            self.options.append(options)
            if next(left) < 0:
                raise RuntimeError("Attempt to replace the existing tensor")
            return real(model, options, without)

        monkeypatch.setattr(engine, "saturates", lambda: True)
        monkeypatch.setattr(engine, "_create", create)


def careful(options: Any) -> bool:
    try:
        return bool(options.get_session_config_entry("session.x64quantprecision") == "1")
    except RuntimeError:
        return False


def test_exact_on_a_saturating_host(int8_model: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    host = Saturating(monkeypatch, failures=0)
    session = engine.open_session(int8_model, exact=True)
    assert session.mode == "exact"
    assert [careful(row) for row in host.options] == [True]
    x = np.ones((1, 16), np.float32)
    assert session.run({"x": x})["y"].tolist() == integers(int8_model, x).tolist()


def test_exact_falls_back_to_an_unoptimized_graph(
    int8_model: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = Saturating(monkeypatch, failures=2)  # with all optimizers, and without one
    session = engine.open_session(int8_model, exact=True)
    assert session.mode == "exact-unoptimized"
    assert [careful(row) for row in host.options] == [True, True, False]


def test_both_exact_ways_refused(int8_model: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    Saturating(monkeypatch, failures=3)
    with pytest.raises(
        EdgeqError, match=r"Attempt to replace the existing tensor \[engine-refused\]"
    ):
        engine.open_session(int8_model, exact=True)


def test_not_exact_on_a_saturating_host(int8_model: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    host = Saturating(monkeypatch, failures=0)
    assert engine.open_session(int8_model).mode == "default"
    assert [careful(row) for row in host.options] == [False]


def test_the_hand_made_model_is_valid_onnx() -> None:
    data = protobuf.one_node_model(
        "MatMulInteger", [("a", 2, (2, 300)), ("b", 3, (300, 4))], ("y", 6, (2, 4))
    )
    model = onnx.load_model_from_string(data)
    onnx.checker.check_model(model, full_check=True)
    assert model.SerializeToString() == data
    assert [node.op_type for node in model.graph.node] == ["MatMulInteger"]


@pytest.mark.parametrize("value", [0, 1, 127, 128, 300, 2**32, 2**63])
def test_varints_are_protobufs(value: int) -> None:
    from google.protobuf.internal.encoder import _VarintBytes

    assert protobuf.varint(value) == _VarintBytes(value)


def test_an_engine_nobody_knows() -> None:
    with pytest.raises(
        EdgeqError, match=r"^there is no engine `onnxruntme` \[unknown-engine\]$"
    ) as e:
        engines.get("onnxruntme")
    assert e.value.hints == ("known engines: `onnxruntime`, `litert`, `tflite-runtime`",)


def test_a_missing_engine_names_the_line_to_type(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(engines.ENGINES, "onnxruntime", "edgeq_runtime.engines.not_there")
    with pytest.raises(EdgeqError) as caught:
        engines.get("onnxruntime")
    assert str(caught.value) == "engine `onnxruntime` is not installed [missing-engine]"
    assert caught.value.hints == ('install it: pip install "edgeq-runtime[onnxruntime]"',)


def test_an_engine_that_cannot_be_loaded(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, plugin: Callable[[str, str], None]
) -> None:
    plugin("broken", "raise ImportError('libfoo.so: cannot open shared object file')")
    with pytest.raises(EdgeqError, match=r"engine `broken` cannot be imported: libfoo\.so"):
        engines.get("broken")


def test_an_engine_of_a_third_party(plugin: Callable[[str, str], None]) -> None:
    plugin("other", "def version():\n    return '1.0'\n")
    assert engines.get("other").version() == "1.0"


def test_every_row_imports(monkeypatch: pytest.MonkeyPatch) -> None:
    """tflite-runtime has an environment of its own, in tests/packaging."""
    for name in ("tflite_runtime", "tflite_runtime.interpreter"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    for name in engines.ENGINES:
        if name == "litert":
            pytest.importorskip("ai_edge_litert")
        module = engines.get(name)
        assert {"open_session", "saturates", "version", "FORMATS"} <= set(dir(module))


def test_versions_are_read_without_importing() -> None:
    assert engines.installed_version("onnxruntime") == engine.version()
    assert engines.installed_version("no-such-engine") is None
