"""A TFLite file in the making: tensors, buffers and operators, then its bytes.

The schema is `ai_edge_litert`'s own generated module (tensorflow/lite/schema/schema.fbs). Buffer 0
stays empty, tensor names are unique, equal constants share a buffer, and the same calls give the
same bytes.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeq.errors import EdgeqError
from edgeq.ir import free_name
from edgeq.numerics import blocks
from edgeq_converters.write.tfl import versions

IDENTIFIER = b"TFL3"
SCHEMA_VERSION = 3
LARGEST_FILE_BYTES = 2**31 - 2**16
"""Offsets in a flatbuffer are signed 32-bit numbers."""

DTYPES = {
    "float32": "FLOAT32",
    "float16": "FLOAT16",
    "float64": "FLOAT64",
    "int4": "INT4",
    "int8": "INT8",
    "int16": "INT16",
    "int32": "INT32",
    "int64": "INT64",
    "uint8": "UINT8",
    "uint16": "UINT16",
    "uint32": "UINT32",
    "uint64": "UINT64",
    "bool": "BOOL",
}
"""Element type -> its name in the schema."""

OPTIONS = {
    "AVERAGE_POOL_2D": "Pool2DOptions",
    "MAX_POOL_2D": "Pool2DOptions",
    "L2_POOL_2D": "Pool2DOptions",
    "CONV_2D": "Conv2DOptions",
    "CONV_3D": "Conv3DOptions",
    "CONV_3D_TRANSPOSE": "Conv3DOptions",
    "DEPTHWISE_CONV_2D": "DepthwiseConv2DOptions",
    "TRANSPOSE_CONV": "TransposeConvOptions",
    "BATCH_MATMUL": "BatchMatMulOptions",
    "TOPK_V2": "TopKV2Options",
    "L2_NORMALIZATION": "L2NormOptions",
    "LOCAL_RESPONSE_NORMALIZATION": "LocalResponseNormalizationOptions",
    "UNIDIRECTIONAL_SEQUENCE_LSTM": "UnidirectionalSequenceLSTMOptions",
    "BATCH_TO_SPACE_ND": "BatchToSpaceNDOptions",
    "SPACE_TO_BATCH_ND": "SpaceToBatchNDOptions",
    "MAXIMUM": "MaximumMinimumOptions",
    "MINIMUM": "MaximumMinimumOptions",
    "SPLIT_V": "SplitVOptions",
    "SELECT_V2": "SelectV2Options",
    "PADV2": "PadV2Options",
    "REVERSE_V2": "ReverseV2Options",
    "ATAN2": "ATan2Options",
    **dict.fromkeys(
        ("MEAN", "SUM", "REDUCE_PROD", "REDUCE_MAX", "REDUCE_MIN", "REDUCE_ANY", "REDUCE_ALL"),
        "ReducerOptions",
    ),
    **dict.fromkeys(
        (
            *("RELU", "RELU6", "RELU_N1_TO_1", "RELU_0_TO_1", "TANH", "LOGISTIC", "ELU", "PRELU"),
            *("FLOOR", "CEIL", "ROUND", "SIN", "LOG", "SQRT", "RSQRT", "EMBEDDING_LOOKUP"),
        ),
        "",
    ),
}
"""Operators whose options table is not called as they are; "" for those that have none."""


@functools.cache
def schema() -> ModuleType:
    """The generated schema module, imported when the first file is made."""
    try:
        return import_module("ai_edge_litert.schema_py_generated")
    except ImportError as failure:
        raise EdgeqError(
            "missing-engine",
            "writing TFLite files needs `ai-edge-litert`, which is not installed",
            'pip install "ai-edge-litert>=2.1"',
        ) from failure


@dataclass
class Op:
    """One operator. `options` are fields of its options table in snake_case."""

    code: str
    inputs: list[int]
    outputs: list[int]
    options: dict[str, Any]


class File:
    """One model with one subgraph. Tensors are numbers: their place in the file's list."""

    def __init__(self) -> None:
        self.schema = schema()
        self.graph = self.schema.SubGraphT()
        self.graph.name, self.graph.tensors, self.graph.operators = "main", [], []
        self.ops: list[Op] = []
        self.inputs: dict[str, int] = {}
        self.outputs: dict[str, int] = {}
        self.model = self.schema.ModelT()
        self.model.version, self.model.description = SCHEMA_VERSION, "edgeq"
        self.model.subgraphs, self.model.buffers = [self.graph], [self.schema.BufferT()]
        self.model.operatorCodes, self.model.metadata = [], []
        self._codes: dict[tuple[str, int], int] = {}
        self._buffers: dict[tuple[int, bytes], int] = {}
        self._names: set[str] = set()
        self.size_bytes = 0

    # -- tensors

    def tensor(
        self,
        name: str,
        shape: Sequence[int],
        dtype: str,
        *,
        scale: Sequence[float] = (),
        zero_point: Sequence[int] = (),
        axis: int = 0,
    ) -> int:
        """A tensor that an operator makes, or an input. `axis` is that of a scale per channel."""
        tensor = self.schema.TensorT()
        tensor.name = self.fresh(name)
        tensor.shape = np.array(shape, np.int32)
        tensor.type = getattr(self.schema.TensorType, DTYPES[dtype])
        tensor.buffer, tensor.hasRank = 0, True
        if len(scale):
            quantization = tensor.quantization = self.schema.QuantizationParametersT()
            quantization.scale = np.array(scale, np.float32)
            quantization.zeroPoint = np.array(zero_point, np.int64)
            quantization.quantizedDimension = axis
        self.graph.tensors.append(tensor)
        return len(self.graph.tensors) - 1

    def constant(self, name: str, array: NDArray[Any], dtype: str = "", **parameters: Any) -> int:
        """A tensor with contents; `dtype` "int4" packs an int8 array two to a byte, low first.

        `parameters` are those of `tensor`: scale, zero_point, axis.
        """
        at = self.tensor(name, array.shape, dtype or str(array.dtype), **parameters)
        stored = blocks.pack(array) if dtype == "int4" else np.ascontiguousarray(array)
        self.graph.tensors[at].buffer = self._buffer(stored.tobytes())
        return at

    def blocks(self, at: int, scales: int, block_size: int) -> None:
        """Make the constant `at` one of blocks: `scales` is a float16 tensor [rows, blocks]."""
        quantization = self.graph.tensors[at].quantization = self.schema.QuantizationParametersT()
        quantization.detailsType = self.schema.QuantizationDetails.BlockwiseQuantization
        details = quantization.details = self.schema.BlockwiseQuantizationT()
        details.scales, details.zeroPoints, details.blockSize = scales, -1, block_size

    def make_variable(self, at: int) -> None:
        """Make a tensor one that an engine keeps from run to run, of zeros at first."""
        self.graph.tensors[at].isVariable = True

    def fresh(self, wanted: str) -> str:
        """A tensor name that no other tensor has."""
        name = free_name(wanted, self._names)
        self._names.add(name)
        return name

    def name(self, at: int) -> str:
        """The name of a tensor."""
        return str(self.graph.tensors[at].name)

    def swap_names(self, one: int, other: int) -> None:
        """Exchange two tensors' names."""
        tensors = self.graph.tensors
        tensors[one].name, tensors[other].name = tensors[other].name, tensors[one].name

    def rename(self, at: int, name: str) -> None:
        """Give a tensor a name that no other has."""
        self._names.add(name)
        self.graph.tensors[at].name = name

    def shape(self, at: int) -> tuple[int, ...]:
        """The sizes of a tensor."""
        return tuple(int(size) for size in self.graph.tensors[at].shape)

    def dtype(self, at: int) -> str:
        """The element type of a tensor, a key of `DTYPES`."""
        return _dtype_names()[int(self.graph.tensors[at].type)]

    def parameters(self, at: int) -> dict[str, Any]:
        """Scale, zero point and axis of a tensor, as `tensor` takes them; empty for a float one."""
        quantization = self.graph.tensors[at].quantization
        if quantization is None or quantization.scale is None:
            return {}
        return {
            "scale": quantization.scale,
            "zero_point": quantization.zeroPoint,
            "axis": quantization.quantizedDimension,
        }

    def is_constant(self, at: int) -> bool:
        """Whether a tensor has contents."""
        return bool(self.graph.tensors[at].buffer)

    def set_shape(self, at: int, shape: Sequence[int]) -> None:
        """Give a tensor other sizes."""
        self.graph.tensors[at].shape = np.array(shape, np.int32)

    def numbers_of(self, at: int) -> tuple[int, ...]:
        """The contents of a constant of int32."""
        data = self.model.buffers[self.graph.tensors[at].buffer].data
        return tuple(int(number) for number in np.asarray(data).view(np.int32))

    def readers(self, at: int) -> list[Op]:
        """The operators that read a tensor."""
        return [op for op in self.ops if at in op.inputs]

    def maker(self, at: int) -> Op | None:
        """The operator that makes a tensor."""
        return next((op for op in self.ops if at in op.outputs), None)

    def replace(self, at: int, other: int) -> None:
        """Let whatever reads `at` read `other`."""
        for op in self.ops:
            op.inputs = [other if tensor == at else tensor for tensor in op.inputs]

    def _buffer(self, data: bytes) -> int:
        """A buffer that holds `data`; one that does already is taken."""
        key = len(data), hashlib.sha256(data).digest()
        if key not in self._buffers:
            self.size_bytes += len(data)
            if self.size_bytes > LARGEST_FILE_BYTES:
                raise EdgeqError(
                    "too-large",
                    "the weights are over 2 GB, which a TFLite file cannot hold",
                    "ship it as ONNX: `--format onnx`",
                )
            buffer = self.schema.BufferT()
            buffer.data = np.frombuffer(data, np.uint8)
            self.model.buffers.append(buffer)
            self._buffers[key] = len(self.model.buffers) - 1
        return self._buffers[key]

    # -- operators

    def op(self, code: str, inputs: Sequence[int], outputs: Sequence[int], **options: Any) -> None:
        """Add an operator by its builtin name. An input of -1 is left out.

        `options` are fields of its options table in snake_case; a padding, an activation and a
        type are given by their names in the schema.
        """
        self.ops.append(Op(code, list(inputs), list(outputs), options))

    def _operator(self, op: Op) -> Any:
        operator = self.schema.OperatorT()
        operator.opcodeIndex = self._opcode(op.code, versions.version(self, op))
        operator.inputs, operator.outputs = _indices(op.inputs), _indices(op.outputs)
        kind = OPTIONS.get(op.code, _camel(op.code) + "Options")
        if not kind:
            assert not op.options, op
            return operator
        table = getattr(self.schema, f"{kind}T")()
        for field, value in op.options.items():
            name = _field(field)
            assert hasattr(table, name), (kind, field)
            setattr(table, name, self._number(field, value))
        operator.builtinOptionsType = getattr(self.schema.BuiltinOptions, kind)
        operator.builtinOptions = table
        return operator

    def _number(self, field: str, value: Any) -> Any:
        """The number behind a name of the schema; everything else as it is."""
        if not isinstance(value, str):
            return value
        if field == "padding":
            return getattr(self.schema.Padding, value)
        if field == "fused_activation_function":
            return getattr(self.schema.ActivationFunctionType, value)
        if field == "mode":
            return getattr(self.schema.MirrorPadMode, value)
        return getattr(self.schema.TensorType, DTYPES[value])

    def _opcode(self, code: str, version: int) -> int:
        if (code, version) not in self._codes:
            entry = self.schema.OperatorCodeT()
            entry.builtinCode = getattr(self.schema.BuiltinOperator, code)
            entry.deprecatedBuiltinCode = min(entry.builtinCode, 127)
            entry.version = version
            self.model.operatorCodes.append(entry)
            self._codes[code, version] = len(self.model.operatorCodes) - 1
        return self._codes[code, version]

    # -- the whole

    def _signature(self) -> Any:
        made = self.schema.SignatureDefT()
        made.signatureKey, made.subgraphIndex = "serving_default", 0
        made.inputs, made.outputs = self._named(self.inputs), self._named(self.outputs)
        return made

    def _named(self, tensors: Mapping[str, int]) -> list[Any]:
        rows = []
        for name, at in tensors.items():
            row = self.schema.TensorMapT()
            row.name, row.tensorIndex = name, at
            rows.append(row)
        return rows

    def metadata(self, name: str, data: bytes) -> None:
        """An entry of the file's metadata."""
        entry = self.schema.MetadataT()
        entry.name, entry.buffer = name, self._buffer(data)
        self.model.metadata.append(entry)

    def data(self) -> bytes:
        """The bytes of the file: what `inputs` and `outputs` (name -> tensor) say, in order."""
        from edgeq_converters.write.tfl.packing import Packer

        self._join_reshapes()
        self._drop_dead()
        self._drop_unused()
        self.graph.inputs = _indices(list(self.inputs.values()))
        self.graph.outputs = _indices(list(self.outputs.values()))
        self.graph.operators = [self._operator(op) for op in self.ops]
        self.model.signatureDefs = [self._signature()]
        builder = Packer(self.size_bytes + (1 << 16))
        builder.Finish(self.model.Pack(builder), IDENTIFIER)
        return bytes(builder.Output())

    def _join_reshapes(self) -> None:
        """Let a RESHAPE of a RESHAPE read what the first one read; `_drop_dead` does the rest."""
        sources: dict[int, int] = {}
        for op in self.ops:
            if op.code == "RESHAPE":
                op.inputs[0] = sources.get(op.inputs[0], op.inputs[0])
                sources[op.outputs[0]] = op.inputs[0]

    def _drop_dead(self) -> None:
        """Leave out operators whose results nobody reads: an operator behind them took what they
        were to turn as it was."""
        wanted = {*self.outputs.values()}
        kept: list[Op] = []
        for op in reversed(self.ops):
            if not op.outputs or not wanted.isdisjoint(op.outputs):
                kept.append(op)
                wanted.update(op.inputs)
        self.ops = kept[::-1]

    def _drop_unused(self) -> None:
        """Leave out tensors that nothing refers to any more."""
        tensors = self.graph.tensors
        used = {at for op in self.ops for at in (*op.inputs, *op.outputs)}
        used |= {*self.inputs.values(), *self.outputs.values()}
        used |= {scales for at in used if at >= 0 and (scales := _scales_of(tensors[at])) >= 0}
        kept = [at for at in range(len(tensors)) if at in used]
        moved = {old: new for new, old in enumerate(kept)} | {-1: -1}
        self.graph.tensors = [tensors[at] for at in kept]
        self._drop_buffers()
        for tensor in self.graph.tensors:
            if _scales_of(tensor) >= 0:
                tensor.quantization.details.scales = moved[_scales_of(tensor)]
        for op in self.ops:
            op.inputs = [moved[at] for at in op.inputs]
            op.outputs = [moved[at] for at in op.outputs]
        self.inputs = {name: moved[at] for name, at in self.inputs.items()}
        self.outputs = {name: moved[at] for name, at in self.outputs.items()}

    def _drop_buffers(self) -> None:
        """Leave out the contents of tensors that are no more."""
        owners = [*self.graph.tensors, *self.model.metadata]
        kept = sorted({0, *(int(owner.buffer) for owner in owners)})
        moved = {old: new for new, old in enumerate(kept)}
        self.model.buffers = [self.model.buffers[at] for at in kept]
        for owner in owners:
            owner.buffer = moved[int(owner.buffer)]


def _scales_of(tensor: Any) -> int:
    """The tensor with the scales of a tensor of blocks, or -1."""
    details = None if tensor.quantization is None else tensor.quantization.details
    return -1 if details is None else int(details.scales)


@functools.cache
def _dtype_names() -> Mapping[int, str]:
    return {getattr(schema().TensorType, name): dtype for dtype, name in DTYPES.items()}


def _indices(numbers: Sequence[int]) -> NDArray[np.int32]:
    return np.array(list(numbers), np.int32)


def _camel(code: str) -> str:
    """CONV_2D as Conv2D."""
    return "".join(part.capitalize() for part in code.lower().split("_"))


def _field(name: str) -> str:
    """stride_h as strideH, the attribute of the schema's object."""
    first, *rest = name.split("_")
    return first + "".join(part.capitalize() for part in rest)
