"""Tiny models and bundles for the runtime's tests: made in memory, one second at most."""

import importlib
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
from edgeq_runtime import archive, canonical, manifest
from edgeq_runtime.engines import onnxruntime as engine

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
    session = engine.open_session(model, exact=True)
    given: dict[str, Any] = {
        "name": "tiny",
        "target": "rpi5",
        "precision": "fp32",
        "artifact": model,
        "inputs": session.inputs,
        "outputs": session.outputs,
        "input_ranges": {info.name: (-1.0, 1.0) for info in session.inputs},
        "engine": "onnxruntime",
        "engine_measured": engine.version(),
        "engine_minimum": "1.18.0",
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
        session = engine.open_session(model, exact=True)
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


# -- TFLite files, written by the schema module of LiteRT -----------------------------------------


class TfliteFile:
    """A TFLite file in the making. `model` and `graph` are the schema's objects, to be spoilt."""

    def __init__(self) -> None:
        self.schema: Any = importlib.import_module("ai_edge_litert.schema_py_generated")
        self.model = self.schema.ModelT()
        self.model.version, self.model.description = 3, b"made by a test"
        self.model.buffers = [self.schema.BufferT()]
        self.model.operatorCodes, self.model.metadata = [], []
        self.graph = self.subgraph()

    def subgraph(self) -> Any:
        """One more; the first is there."""
        graph = self.schema.SubGraphT()
        graph.name, graph.tensors, graph.operators = "main", [], []
        graph.inputs, graph.outputs = [], []
        self.model.subgraphs = [*(self.model.subgraphs or []), graph]
        self.graph = graph
        return graph

    def buffer(self, data: bytes) -> int:
        made = self.schema.BufferT()
        made.data = np.frombuffer(data, np.uint8)
        self.model.buffers.append(made)
        return len(self.model.buffers) - 1

    def tensor(
        self,
        name: str,
        shape: tuple[int, ...],
        dtype: str = "FLOAT32",
        *,
        data: Any = None,
        scale: Any = None,
        zero_point: Any = 0,
        axis: int = 0,
        **fields: Any,
    ) -> int:
        """`data`: array or bytes of a constant; `fields`: more of the schema's, by its names."""
        made = self.schema.TensorT()
        made.name, made.shape = name, np.array(shape, np.int32)
        made.type = getattr(self.schema.TensorType, dtype)
        if data is not None:
            made.buffer = self.buffer(data if isinstance(data, bytes) else data.tobytes())
        if scale is not None:
            made.quantization = self.schema.QuantizationParametersT()
            made.quantization.scale = np.atleast_1d(np.float32(scale))
            made.quantization.zeroPoint = np.atleast_1d(np.int64(zero_point))
            made.quantization.quantizedDimension = axis
        for field, value in fields.items():
            setattr(made, field, value)
        self.graph.tensors.append(made)
        return len(self.graph.tensors) - 1

    def operator(
        self,
        code: str,
        inputs: list[int],
        outputs: list[int],
        options: str = "",
        version: int = 1,
        **fields: Any,
    ) -> Any:
        """`options` names the table of options; `fields` are its own, by the schema's names."""
        number = getattr(self.schema.BuiltinOperator, code)
        row = self.schema.OperatorCodeT()
        row.builtinCode, row.deprecatedBuiltinCode = number, min(number, 127)
        row.version = version
        self.model.operatorCodes.append(row)
        made = self.schema.OperatorT()
        made.opcodeIndex = len(self.model.operatorCodes) - 1
        made.inputs, made.outputs = inputs, outputs
        if options:
            second = not hasattr(self.schema.BuiltinOptions, options)
            union = self.schema.BuiltinOptions2 if second else self.schema.BuiltinOptions
            table = getattr(self.schema, f"{options}T")()
            for field, value in fields.items():
                setattr(table, field, value)
            key = "builtinOptions2" if second else "builtinOptions"
            setattr(made, f"{key}Type", getattr(union, options))
            setattr(made, key, table)
        self.graph.operators.append(made)
        return made

    def ends(self, inputs: list[int], outputs: list[int]) -> None:
        self.graph.inputs, self.graph.outputs = inputs, outputs

    def note(self, name: str, data: bytes) -> None:
        row = self.schema.MetadataT()
        row.name, row.buffer = name, self.buffer(data)
        self.model.metadata.append(row)

    def sign(self, inputs: dict[str, int], outputs: dict[str, int], key: str) -> None:
        made = self.schema.SignatureDefT()
        made.signatureKey, made.subgraphIndex = key, 0
        for field, names in (("inputs", inputs), ("outputs", outputs)):
            rows = []
            for name, index in names.items():
                row = self.schema.TensorMapT()
                row.name, row.tensorIndex = name, index
                rows.append(row)
            setattr(made, field, rows)
        self.model.signatureDefs = [*(self.model.signatureDefs or []), made]

    def bytes(self) -> bytes:
        builder = importlib.import_module("flatbuffers").Builder(1024)
        builder.Finish(self.model.Pack(builder), b"TFL3")
        return bytes(builder.Output())


@pytest.fixture
def tflite_file() -> Callable[[], TfliteFile]:
    """A new TFLite file to fill; skips where LiteRT is not installed."""
    pytest.importorskip("ai_edge_litert")
    pytest.importorskip("flatbuffers")
    return TfliteFile


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
