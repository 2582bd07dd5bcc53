"""TFLite files made with LiteRT's own schema module, and what LiteRT computes with them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeq.ir import check
from edgeq.passes import run_all
from edgeq_converters.read.result import ReadResult
from edgeq_converters.read.tflite import read
from edgeq_converters.write.onnx import write
from edgeq_runtime.engines.onnxruntime import open_session

flatbuffers = pytest.importorskip("flatbuffers")
schema = pytest.importorskip("ai_edge_litert.schema_py_generated")

TYPES = {
    "float32": 0,
    "float16": 1,
    "int32": 2,
    "uint8": 3,
    "int64": 4,
    "string": 5,
    "bool": 6,
    "int16": 7,
    "int8": 9,
    "int4": 17,
}
Feeds = Mapping[str, np.ndarray]


class Net:
    """A TFLite model that grows operator by operator. Shapes of results come from LiteRT."""

    def __init__(self) -> None:
        self.graph = schema.SubGraphT()
        self.graph.tensors, self.graph.operators = [], []
        self.graph.inputs, self.graph.outputs, self.graph.name = [], [], b"main"
        self.model = schema.ModelT()
        self.model.version, self.model.subgraphs = 3, [self.graph]
        self.model.buffers = [schema.BufferT()]
        self.model.operatorCodes = []

    def tensor(
        self,
        name: str,
        shape: Sequence[int],
        dtype: str = "float32",
        scale: Any = None,
        zero: Any = 0,
        axis: int = 0,
        data: bytes | None = None,
    ) -> int:
        made = schema.TensorT()
        made.name, made.shape, made.type, made.buffer = name, list(shape), TYPES[dtype], 0
        if scale is not None:
            numbers = made.quantization = schema.QuantizationParametersT()
            numbers.scale = np.atleast_1d(np.float32(scale))
            numbers.zeroPoint = np.broadcast_to(np.int64(zero), numbers.scale.shape).copy()
            numbers.quantizedDimension = axis
        if data is not None:
            buffer = schema.BufferT()
            buffer.data = np.frombuffer(data, np.uint8)
            made.buffer = len(self.model.buffers)
            self.model.buffers.append(buffer)
        self.graph.tensors.append(made)
        return len(self.graph.tensors) - 1

    def input(self, name: str, shape: Sequence[int], dtype: str = "float32", **more: Any) -> int:
        index = self.tensor(name, shape, dtype, **more)
        self.graph.inputs.append(index)
        return index

    def const(self, array: Any, name: str = "constant", **more: Any) -> int:
        array = np.asarray(array)
        more = {"dtype": str(array.dtype), "data": array.tobytes(), **more}
        return self.tensor(name, array.shape, **more)

    def op(
        self,
        code: str,
        inputs: Sequence[int],
        options: str = "",
        *,
        results: Sequence[Mapping[str, Any]] = ({},),
        custom: str = "",
        **fields: Any,
    ) -> Any:
        """Append an operator; returns its result, or all if there are several."""
        kind = schema.OperatorCodeT()
        kind.builtinCode = getattr(schema.BuiltinOperator, code)
        kind.deprecatedBuiltinCode, kind.version = min(kind.builtinCode, 127), 1
        kind.customCode = custom or None
        node = schema.OperatorT()
        node.opcodeIndex = len(self.model.operatorCodes)
        self.model.operatorCodes.append(kind)
        node.inputs = list(inputs)
        count = len(self.graph.tensors)
        node.outputs = [
            self.tensor(**{"name": f"t{count + at}", "shape": (), **row})
            for at, row in enumerate(results)
        ]
        if options:
            node.builtinOptionsType = getattr(schema.BuiltinOptions, options)
            node.builtinOptions = getattr(schema, f"{options}T")()
            for key, value in fields.items():
                assert hasattr(node.builtinOptions, key), key
                setattr(node.builtinOptions, key, value)
        self.graph.operators.append(node)
        return node.outputs[0] if len(node.outputs) == 1 else node.outputs

    def finish(self, *outputs: int, versions: int = 0, run: bool = False) -> Net:
        """Say what the outputs are; LiteRT tells the shapes of all that is computed, some only
        after a run."""
        self.graph.outputs = list(outputs)
        for kind in self.model.operatorCodes:
            kind.version = versions or kind.version
        session = interpreter(self.data)
        if run:
            session.invoke()
        rows = {row["index"]: row["shape"] for row in session.get_tensor_details()}
        made = {index for node in self.graph.operators for index in node.outputs}
        for index in made:
            self.graph.tensors[index].shape = [int(size) for size in rows[index]]
        return self

    @property
    def data(self) -> bytes:
        builder = flatbuffers.Builder(1024)
        builder.Finish(self.model.Pack(builder), b"TFL3")
        return bytes(builder.Output())


def interpreter(data: bytes, reference: bool = True) -> Any:
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    kind = OpResolverType.BUILTIN_REF if reference else OpResolverType.AUTO
    try:
        made = Interpreter(model_content=data, experimental_op_resolver_type=kind)
    except ValueError as failure:
        if "Didn't find op" not in str(failure):
            raise
        kind = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES  # it has no reference kernel
        made = Interpreter(model_content=data, experimental_op_resolver_type=kind)
    made.allocate_tensors()
    return made


def litert(data: bytes, feeds: Sequence[np.ndarray], reference: bool = True) -> list[np.ndarray]:
    """Outputs in the order of the file, of inputs in the order of the file."""
    session = interpreter(data, reference)
    for row, array in zip(session.get_input_details(), feeds, strict=True):
        session.set_tensor(row["index"], array)
    session.invoke()
    return [session.get_tensor(row["index"]).copy() for row in session.get_output_details()]


def onnx_outputs(result: ReadResult, feeds: Sequence[np.ndarray], **how: Any) -> list[np.ndarray]:
    """What ONNX Runtime makes of the model that was read, int8 as the plan has it."""
    graph = result.graph if result.plan is not None else run_all(result.graph)[0]
    session = open_session(write(graph, result.plan, **how))
    given = {info.name: array for info, array in zip(graph.inputs, feeds, strict=True)}
    made = session.run(given)
    session.close()
    return [made[info.name] for info in graph.outputs]


@pytest.fixture
def net() -> Net:
    return Net()


@pytest.fixture
def load(tmp_path: Path) -> Callable[..., ReadResult]:
    """load(net or bytes, **options): written to `m.tflite` and read; the graph is valid."""

    def result(content: Net | bytes, **options: Any) -> ReadResult:
        path = tmp_path / "m.tflite"
        path.write_bytes(content if isinstance(content, bytes) else content.data)
        made = read(path, **options)
        check(made.graph)
        return made

    return result


def draw(info: Any, rng: np.random.Generator) -> np.ndarray:
    """Values for one input, by LiteRT's description of it."""
    if info["dtype"] is np.float32:
        return rng.normal(0, 1.5, info["shape"]).astype(np.float32)
    if info["dtype"] is np.bool_:
        return rng.integers(0, 2, info["shape"]).astype(bool)
    low, high = (-128, 128) if info["dtype"] is np.int8 else (0, 5)
    return rng.integers(low, high, info["shape"]).astype(info["dtype"])


@pytest.fixture
def same(load: Callable[..., ReadResult]) -> Callable[..., ReadResult]:
    """same(net, feeds=None, rounds=...): LiteRT's reference kernels and ONNX Runtime agree.

    Float outputs within 1e-5 of the largest: kernels add up in different orders. The rest is equal.
    """

    def compare(
        made: Net, feeds: Sequence[np.ndarray] | None = None, reference: bool = True
    ) -> ReadResult:
        rng = np.random.default_rng(3)
        infos = interpreter(made.data).get_input_details()
        given = [draw(info, rng) for info in infos] if feeds is None else list(feeds)
        wanted = litert(made.data, given, reference)
        result = load(made)
        for expected, got in zip(wanted, onnx_outputs(result, given), strict=True):
            assert got.dtype == expected.dtype and got.shape == expected.shape
            if expected.dtype == np.float32:
                limit = 1e-5 * max(1.0, float(np.abs(expected).max(initial=0.0)))
                assert np.abs(got - expected).max(initial=0.0) <= limit
            else:
                assert (got == expected).all()
        return result

    return compare


@pytest.fixture
def integers() -> Callable[..., np.ndarray]:
    """integers(net, result, dtype): |difference| in codes between LiteRT and the ONNX file."""

    def differences(
        made: Net, result: ReadResult, activation_dtype: str = "uint8", reference: bool = False
    ) -> np.ndarray:
        rng = np.random.default_rng(5)
        session = interpreter(made.data)
        given = [draw(info, rng) for info in session.get_input_details()]
        floats = [
            (array.astype(np.float32) - info["quantization"][1])
            * np.float32(info["quantization"][0])
            if info["quantization"][0]
            else array
            for array, info in zip(given, session.get_input_details(), strict=True)
        ]
        wanted = litert(made.data, given, reference)
        got = onnx_outputs(result, floats, activation_dtype=activation_dtype)
        rows = []
        for info, expected, real in zip(session.get_output_details(), wanted, got, strict=True):
            scale, zero = info["quantization"]
            codes = np.rint(real / np.float32(scale)) + zero if scale else real
            rows.append(np.abs(codes - expected.astype(np.float64)).reshape(-1))
        return np.concatenate(rows)

    return differences
