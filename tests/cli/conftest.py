"""The command line under test: run in this process or as a real one; texts compared whole."""

import io
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

GOLDEN = Path(__file__).parent / "golden"


@dataclass(frozen=True)
class Outcome:
    """What a command left behind."""

    code: int
    out: str
    err: str


Command = Callable[..., Outcome]


@pytest.fixture(autouse=True)
def _quiet_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No settings from outside, a fixed width, and a folder of its own for each test."""
    for name in [name for name in os.environ if _is_setting(name)]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.chdir(tmp_path)


def _is_setting(name: str) -> bool:
    return name.startswith("EDGEQ_") and name != "EDGEQ_REQUIRE"


class _Stream(io.TextIOWrapper):
    """A text stream in memory that can claim to be a terminal."""

    def __init__(self, *, terminal: bool) -> None:
        super().__init__(io.BytesIO(), encoding="utf-8", newline="")
        self._terminal = terminal

    def isatty(self) -> bool:
        return self._terminal

    def text(self) -> str:
        self.flush()
        data = self.buffer
        assert isinstance(data, io.BytesIO)
        return data.getvalue().decode("utf-8")


@pytest.fixture
def edgeq_text(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Outcome]:
    """What a function that returns an exit code writes; `terminal` makes both streams claim so."""

    def call(action: Callable[[], int], *, terminal: bool = False) -> Outcome:
        out, err = _Stream(terminal=terminal), _Stream(terminal=terminal)
        with monkeypatch.context() as patch:
            patch.setattr(sys, "stdout", out)
            patch.setattr(sys, "stderr", err)
            code = action()
        return Outcome(code, out.text(), err.text())

    return call


@pytest.fixture
def edgeq(edgeq_text: Callable[..., Outcome]) -> Command:
    """`edgeq("build", "m.onnx", ...)` in this process, through the real entry point."""
    from edgeq.cli import main

    def call(*arguments: str, terminal: bool = False) -> Outcome:
        return edgeq_text(lambda: main(list(arguments)), terminal=terminal)

    return call


@pytest.fixture
def process() -> Command:
    """`process("targets")`: the command line as a process of its own."""

    def call(*arguments: str, **settings: object) -> Outcome:
        command = [sys.executable, "-m", "edgeq.cli", *arguments]
        paths = os.pathsep.join(path for path in sys.path if path)
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            errors="surrogateescape",
            env={**os.environ, "PYTHONPATH": paths},
            timeout=120,
            check=False,
            **settings,
        )
        return Outcome(done.returncode, done.stdout, done.stderr)

    return call


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """tiny.onnx (Conv, Relu, Flatten, Gemm, Softmax), calib.npz and eval.npz in the test's folder.

    A tenth of the labels is wrong, so float top1 is 90 %.
    """
    rng = np.random.default_rng(0)

    def weights(name: str, *shape: int) -> onnx.TensorProto:
        return numpy_helper.from_array(rng.normal(0, 0.3, shape).astype(np.float32), name)

    nodes = [
        helper.make_node("Conv", ["image", "w1", "b1"], ["c"], name="conv", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["r"], name="relu"),
        helper.make_node("Flatten", ["r"], ["f"], name="flatten"),
        helper.make_node("Gemm", ["f", "w2", "b2"], ["logits"], name="fc", transB=1),
        helper.make_node("Softmax", ["logits"], ["scores"], name="softmax"),
    ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 1, 8, 8])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["n", 10])],
        [weights("w1", 8, 1, 3, 3), weights("b1", 8), weights("w2", 10, 512), weights("b2", 10)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path = tmp_path / "tiny.onnx"
    onnx.save(model, path)
    images = rng.uniform(0, 1, (40, 1, 8, 8)).astype(np.float32)
    np.savez(tmp_path / "calib.npz", image=images)
    labels = _float_classes(path, images)
    labels[::10] = (labels[::10] + 1) % 10
    np.savez(tmp_path / "eval.npz", image=images, y=labels)
    return path


def _float_classes(path: Path, images: np.ndarray) -> np.ndarray:
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run(None, {"image": images})[0].argmax(1)


_NOISE = (
    (re.compile(r" *\d+\.\ds$", re.MULTILINE), lambda time: "0.0s".rjust(len(time.group()))),
    (re.compile(r"edgeq-crash-\w+\.txt"), "edgeq-crash-X.txt"),
    (re.compile(r"\b[0-9a-f]{64}\b"), "SHA256"),
    (re.compile(r"onnxruntime \d+\.\d+\.\d+"), "onnxruntime VERSION"),
)
# The card names versions, so its size, and with it the bundle's, varies with what is installed.
_MEASURED = (
    (re.compile(r"\d+\.\d dB"), "N dB"),
    (re.compile(r"[\d.]+ kB(?=, verified on)"), "N kB"),
    (re.compile(r"(CARD\.md +)[\d.]+ kB"), r"\1N kB"),
)


@pytest.fixture
def golden(tmp_path: Path) -> Callable[[str, Outcome], None]:
    """Compare an outcome whole with tests/cli/golden/NAME.txt; times, paths, digests normalised.

    `measured`: figures that depend on this host's float kernels are normalised too.
    `golden/regenerate.py` writes them anew.
    """

    def compare(name: str, outcome: Outcome, *, measured: bool = False) -> None:
        streams = f"[exit {outcome.code}]\n[stdout]\n{outcome.out}[stderr]\n{outcome.err}"
        text = streams.replace(str(tmp_path), "FOLDER")
        for pattern, word in (*_NOISE, *(_MEASURED if measured else ())):
            text = pattern.sub(word, text)
        path = GOLDEN / f"{name}.txt"
        if os.environ.get("REGENERATE_GOLDEN"):
            path.write_text(text, encoding="utf-8")
        assert text == path.read_text(encoding="utf-8")

    return compare


@pytest.fixture
def schema_check() -> Iterator[Callable[[str], dict]]:
    """Parse the one document on a stdout and hold it against its schema in edgeq/schemas."""
    import json
    from importlib import resources

    import jsonschema

    def check(text: str) -> dict:
        document = json.loads(text)
        name = document["schema"].replace("/", "-")
        schema = json.loads((resources.files("edgeq") / "schemas" / f"{name}.json").read_text())
        jsonschema.Draft202012Validator(schema).validate(document)
        return document

    return check
