"""Tiny models and bundles for the runtime's tests: made in memory, one second at most."""

import importlib
import importlib.util
import itertools
import json
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.parser
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgeq.bundle import BundleContents, assemble
from edgeq_runtime import archive, canonical, engines, manifest

Files = dict[str, bytes]

MULTIPLY_ADD = """
<ir_version: 10, opset_import: ["": 21]>
tiny (float[batch, 3] x) => (float[batch, 3] y)
<float[3] two = {2, 2, 2}, float[1] one = {1}>
{ a = Mul(x, two)  y = Add(a, one) }
"""


@pytest.fixture(scope="session")
def float_model() -> bytes:
    """y = 2 x + 1 on float32 [batch, 3]."""
    return onnx.parser.parse_model(MULTIPLY_ADD).SerializeToString()


def quantized_gemm(weight: np.ndarray) -> bytes:
    """x float32 [1, K] -> uint8 (1/255) -> Gemm by int8 [K, N], scale 1/64 -> int8 (scale 1/2)."""
    depth, width = weight.shape
    constants = {
        "xs": np.float32(2.0**-8),
        "xz": np.uint8(0),
        "w": weight.astype(np.int8),
        "ws": np.float32(2.0**-6),
        "wz": np.int8(0),
        "b": np.zeros(width, np.int32),
        "bs": np.float32(2.0**-14),
        "bz": np.int32(0),
        "ys": np.float32(0.5),
        "yz": np.uint8(128),
    }
    node = helper.make_node
    nodes = [
        node("QuantizeLinear", ["x", "xs", "xz"], ["xq"]),
        node("DequantizeLinear", ["xq", "xs", "xz"], ["xd"]),
        node("DequantizeLinear", ["w", "ws", "wz"], ["wd"]),
        node("DequantizeLinear", ["b", "bs", "bz"], ["bd"]),
        node("Gemm", ["xd", "wd", "bd"], ["g"]),
        node("QuantizeLinear", ["g", "ys", "yz"], ["yq"]),
        node("DequantizeLinear", ["yq", "ys", "yz"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "gemm",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, depth])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, width])],
        [numpy_helper.from_array(np.asarray(row), name) for name, row in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    onnx.checker.check_model(model)
    return model.SerializeToString()


@pytest.fixture(scope="session")
def int8_model() -> bytes:
    """Large weights: in int16 pair sums they saturate."""
    rng = np.random.default_rng(0)
    return quantized_gemm(rng.integers(90, 128, (16, 8)) * rng.choice([-1, 1], (1, 8)))


def contents(model: bytes, **changes: Any) -> BundleContents:
    """What an SDK would say of a model with inputs in -1..1; made for a Raspberry Pi 5."""
    name = engines.for_model(model)
    module = engines.get(name)
    session = module.open_session(model, exact=True)
    given: dict[str, Any] = {
        "name": "tiny",
        "target": "rpi5",
        "precision": "fp32",
        "artifact": model,
        "inputs": session.inputs,
        "outputs": session.outputs,
        "input_ranges": {info.name: (-1.0, 1.0) for info in session.inputs},
        "engine": name,
        "engine_measured": module.version(),
        "engine_minimum": "2.1.0" if name == "litert" else "1.18.0",
        "exact_kernels": "safe",
        "architecture": "aarch64",
        "required_features": ("asimd",),
        "fast_features": ("asimddp",),
        "card": "# tiny\n",
    }
    return BundleContents(**{**given, **changes})


Make = Callable[..., Files]


@pytest.fixture(scope="session")
def make() -> Make:
    """`make(model, **changes)`: the files of a bundle."""

    def files(model: bytes, **changes: Any) -> Files:
        session = engines.get(engines.for_model(model)).open_session(model, exact=True)
        return assemble(contents(model, **changes), session.run)

    return files


@pytest.fixture(scope="session")
def float_bundle(make: Make, float_model: bytes) -> Mapping[str, bytes]:
    return make(float_model)


@pytest.fixture(scope="session")
def int8_bundle(make: Make, int8_model: bytes) -> Mapping[str, bytes]:
    exact = {"y": {"dtype": "uint8", "scale": 0.5, "zero_point": 128}}
    return make(
        int8_model,
        precision="int8",
        exact_outputs=exact,
        input_ranges={"x": (0.0, 1.0)},
        exact_kernels="needed",
        plan={"tensors": {}, "ops": {}},
    )


@pytest.fixture(scope="session")
def edited() -> Callable[..., Files]:
    """`edited(files, change)`: the same bundle with `change(document)` applied to the manifest and
    the digest made right again, so that only the rule under test is broken."""

    def edit(files: Mapping[str, bytes], change: Callable[[dict[str, Any]], Any]) -> Files:
        document = json.loads(files[archive.MANIFEST])
        change(document)
        document["digest"] = manifest.digest(document)
        return {**files, archive.MANIFEST: canonical.dumps(document)}

    return edit


@pytest.fixture
def put() -> Callable[[Mapping[str, bytes], Path], Path]:
    """Write files as a bundle folder."""

    def write(files: Mapping[str, bytes], folder: Path) -> Path:
        folder.mkdir()
        for name, data in files.items():
            (folder / name).write_bytes(data)
        return folder

    return write


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str, str], None]]:
    """`plugin(name, source)` installs an engine as a third party would: a distribution on the path
    whose entry point in `edgeq.engines` is a module with this source."""
    roots = itertools.count()
    modules = []

    def install(name: str, source: str) -> None:
        root = tmp_path / f"plugin{next(roots)}"
        module = f"edgeq_test_engine_{name}"
        record = root / f"{module}-1.0.dist-info"
        record.mkdir(parents=True)
        (root / f"{module}.py").write_text(source)
        (record / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.0\n")
        (record / "entry_points.txt").write_text(f"[edgeq.engines]\n{name} = {module}\n")
        monkeypatch.setattr(sys, "path", [str(root), *sys.path])
        importlib.invalidate_caches()
        sys.modules.pop(module, None)
        modules.append(module)

    yield install
    for module in modules:
        sys.modules.pop(module, None)


# -- TFLite files ---------------------------------------------------------------------------------

TfliteFile = Any
"""What tests/fuzz/tfl_file.py defines."""


@pytest.fixture
def tflite_file() -> Callable[[], TfliteFile]:
    """A new TFLite file to fill; skips where LiteRT is not installed."""
    pytest.importorskip("ai_edge_litert")
    pytest.importorskip("flatbuffers")
    path = Path(__file__).parents[1] / "fuzz" / "tfl_file.py"
    spec = importlib.util.spec_from_file_location("edgeq_test_tfl_file", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.TfliteFile  # type: ignore[no-any-return]


@pytest.fixture
def dense_file(tflite_file: Callable[[], TfliteFile]) -> TfliteFile:
    """y = x w + b on float32 [1, 3], two outputs, by name."""
    file = tflite_file()
    x = file.tensor("x", (1, 3))
    w = file.tensor("w", (2, 3), data=np.array([[1, 2, 3], [4, 5, 6]], np.float32))
    b = file.tensor("b", (2,), data=np.array([10, 20], np.float32))
    y = file.tensor("y", (1, 2))
    file.operator("FULLY_CONNECTED", [x, w, b], [y], "FullyConnectedOptions")
    file.ends([x], [y])
    return file
