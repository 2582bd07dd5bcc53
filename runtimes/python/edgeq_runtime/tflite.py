"""A TFLite model as plain values, with every rule checked that an engine takes for granted.

`parse` reads a file that may be damaged or hostile: offsets (flatbuffer.py), then indices, shapes,
sizes, quantization, the order of operators. What it returns is safe to walk; whether an engine can
run it is the engine's affair. Enumerations are the schema's names ("SAME", "RELU6"), types numpy's.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgeq_runtime import flatbuffer
from edgeq_runtime import tflite_schema as schema
from edgeq_runtime.errors import EdgeqError
from edgeq_runtime.flatbuffer import damaged, shown

MAX_RANK = 16
MAX_BYTES = 2**36
"""Of one tensor, constant or not: more than any engine here can hold."""
MAX_DEPTH = 16
"""Subgraphs that call each other."""
MOST_READ = 4
"""How often the bytes of a file may be copied or gone through, shared vectors counted each time."""
LEFT_OUT = -1
"""The index of an input that an operator goes without."""
_REFUSED = ("DELEGATE", "PLACEHOLDER_FOR_GREATER_OP_CODES")
_LSTM = frozenset({1, 5, 9, 10, 11, 12, 16, 17})
_MAY_LACK: Mapping[str, frozenset[int]] = {
    "FULLY_CONNECTED": frozenset({2}),
    "CONV_2D": frozenset({2}),
    "DEPTHWISE_CONV_2D": frozenset({2}),
    "TRANSPOSE_CONV": frozenset({3}),
    "CONV_3D": frozenset({2}),
    "CONV_3D_TRANSPOSE": frozenset({3}),
    "SVDF": frozenset({3}),
    "LSTM": _LSTM | {20, 21, 22, 23},
    "UNIDIRECTIONAL_SEQUENCE_LSTM": _LSTM | {20, 21, 22, 23},
    "BIDIRECTIONAL_SEQUENCE_LSTM": _LSTM | {at + 17 for at in _LSTM} | set(range(39, 48)),
    "BIDIRECTIONAL_SEQUENCE_RNN": frozenset({9, 10, 11}),
}
"""The inputs that an operator can go without; kernels of others follow a null pointer."""
_TWO = """ADD SUB MUL DIV POW MAXIMUM MINIMUM SQUARED_DIFFERENCE PRELU TRANSPOSE PAD MIRROR_PAD
GATHER GATHER_ND MEAN SUM REDUCE_MAX REDUCE_MIN REDUCE_PROD SPLIT TILE EXPAND_DIMS BATCH_MATMUL
ARG_MAX ARG_MIN TOPK_V2 RESIZE_BILINEAR RESIZE_NEAREST_NEIGHBOR FULLY_CONNECTED CONV_2D
DEPTHWISE_CONV_2D CONV_3D BROADCAST_TO CUMSUM FILL"""
_LEAST: Mapping[str, int] = {
    **dict.fromkeys(_TWO.split(), 2),
    **dict.fromkeys(("SLICE", "SPLIT_V", "PADV2", "TRANSPOSE_CONV", "SELECT", "SELECT_V2"), 3),
    "STRIDED_SLICE": 4,
}
"""Inputs without which kernels read behind the list's end, measured for SPLIT and SLICE."""
_STORED = {"bfloat16": "uint16", "int4": "uint8", "uint4": "uint8", "int2": "uint8"}
"""What numpy reads the bytes of a type as that it does not have."""


@dataclass(frozen=True)
class Quantization:
    """real = (code - zero_point) * scale, per tensor, or per index of dimension `axis`.

    In blocks of `block_size` along the last axis, the scales are the constant `scales_tensor` and
    `scale` is empty.
    """

    scale: tuple[float, ...]
    zero_point: tuple[int, ...]
    axis: int
    block_size: int = 0
    scales_tensor: int = -1


@dataclass(frozen=True)
class Tensor:
    """`data` is the bytes of a constant, else None. Where `shape_signature` has -1, `shape` has a
    size that stands in for one that is not known."""

    name: str
    shape: tuple[int, ...]
    shape_signature: tuple[int, ...] | None
    dtype: str
    buffer: int
    data: memoryview | None
    quantization: Quantization | None
    is_variable: bool

    def array(self) -> Any:
        """The constant: int4 as int8, uint4 as uint8, bfloat16 as float32, strings as objects."""
        assert self.data is not None, f"`{self.name}` is no constant"
        if self.dtype == "string":
            places = _places(self.data).tolist()
            rows = [bytes(self.data[start:stop]) for start, stop in zip(places, places[1:])]
            return np.array(rows, dtype=object).reshape(self.shape)
        if self.dtype.startswith("float8"):
            raise EdgeqError("unsupported-type", f"`{self.name}` is of type {self.dtype}")
        kind = np.dtype(_STORED.get(self.dtype, self.dtype)).newbyteorder("<")
        values = np.frombuffer(self.data, kind)
        if schema.BITS[self.dtype] < 8:
            values = _unpacked(values, self.dtype, math.prod(self.shape))
        elif self.dtype == "bfloat16":
            values = (values.astype("<u4") << 16).view("<f4")
        return values.reshape(self.shape)


@dataclass(frozen=True)
class Operator:
    """`code` is the schema's name ("CONV_2D"); that of a CUSTOM operator is in `custom`.

    `inputs` has LEFT_OUT (-1) for what is not given. `options` holds the fields of the operator's
    table in snake_case, defaults filled in; a custom operator's bytes are `custom_options`.
    """

    code: str
    version: int
    custom: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    intermediates: tuple[int, ...]
    options: Mapping[str, Any]


@dataclass(frozen=True)
class Subgraph:
    """Operators are in an order in which they can run."""

    name: str
    tensors: tuple[Tensor, ...]
    operators: tuple[Operator, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


@dataclass(frozen=True)
class Signature:
    """Names for the inputs and outputs of a subgraph: name -> index of the tensor."""

    key: str
    inputs: Mapping[str, int]
    outputs: Mapping[str, int]
    subgraph: int


@dataclass(frozen=True)
class Model:
    """A whole file."""

    version: int
    description: str
    subgraphs: tuple[Subgraph, ...]
    signatures: tuple[Signature, ...]
    metadata: Mapping[str, bytes]


def is_tflite(data: bytes) -> bool:
    """Whether the file says of itself that it is a TFLite model."""
    return data[4:8] == schema.IDENTIFIER


def parse(data: bytes) -> Model:
    """Read and check a file. Raises EdgeqError [damaged-model], [unsupported-type],
    [unsupported-op] or [model-too-large], and nothing else."""
    view = memoryview(data).toreadonly()
    if not is_tflite(data):
        raise damaged("not a TFLite file: its identifier is missing")
    table = flatbuffer.read(view, "Model")
    if table["version"] != schema.VERSION:
        raise EdgeqError("unsupported-type", f"TFLite schema version {table['version']}, not 3")
    if table["external_buffers"] or table["external_buffer_groups"]:
        raise EdgeqError("unsupported-type", "weights in other files are not read")
    if not table["subgraphs"]:
        raise damaged("a TFLite file without a graph")
    buffers = tuple(_buffer(view, number, row) for number, row in enumerate(table["buffers"]))
    codes = tuple(map(_code, table["operator_codes"]))
    file = _File(view, buffers, codes, len(table["subgraphs"]))
    subgraphs = tuple(
        _Graph(file, number, row).subgraph() for number, row in enumerate(table["subgraphs"])
    )
    _check_calls(subgraphs)
    return Model(
        version=table["version"],
        description=table["description"] or "",
        subgraphs=subgraphs,
        signatures=_signatures(table["signature_defs"], subgraphs),
        metadata=_metadata(table["metadata"], file),
    )


def _buffer(view: memoryview, number: int, row: Mapping[str, Any]) -> memoryview:
    """Its bytes: in the flatbuffer, or behind it in a file of more than 2 GB."""
    start, size = row["offset"], row["size"]
    if start <= 1:
        data: memoryview = row["data"] or view[:0]
        return data
    if start + size > len(view):
        raise damaged(f"buffer {number} is at byte {start}, beyond the end")
    if row["data"]:
        raise damaged(f"buffer {number} is in two places")
    return view[start : start + size]


@dataclass(frozen=True)
class _Code:
    name: str
    options: str
    version: int
    custom: str


def _code(row: Mapping[str, Any]) -> _Code:
    """An entry of the table of operators; old files have its number in a byte."""
    number = max(row["builtin_code"], row["deprecated_builtin_code"])
    known = schema.operators()
    if not 0 <= number < len(known):
        raise EdgeqError("unsupported-op", f"operator number {number} is not known")
    name, options = known[number]
    if name in _REFUSED:
        raise EdgeqError("unsupported-op", f"{name} is no operator of a file")
    custom = row["custom_code"] or ""
    if name == "CUSTOM" and not custom:
        raise damaged("a custom operator has no name")
    return _Code(name, options, row["version"], custom if name == "CUSTOM" else "")


class _File:
    """What all subgraphs of a file share."""

    def __init__(
        self,
        view: memoryview,
        buffers: Sequence[memoryview],
        codes: Sequence[_Code],
        graphs: int,
    ) -> None:
        self.view = view
        self.buffers = buffers
        self.codes = codes
        self.graphs = graphs
        self._left = MOST_READ * len(view)

    def take(self, size: int) -> None:
        """Count bytes that are copied or gone through: of a shared vector, each time."""
        self._left -= size
        if self._left < 0:
            raise EdgeqError("model-too-large", "too many parts of the file share its vectors")


class _Graph:
    """One subgraph while it is read."""

    def __init__(self, file: _File, number: int, row: Mapping[str, Any]) -> None:
        self._file = file
        self._where = "" if number == 0 else f"subgraph {number}: "
        self._row = row
        self._count = len(row["tensors"])

    def subgraph(self) -> Subgraph:
        row = self._row
        inputs = self._indices(row["inputs"], "an input of the graph")
        outputs = self._indices(row["outputs"], "an output of the graph")
        operators = tuple(self._operator(*pair) for pair in enumerate(row["operators"]))
        made = {index for op in operators for index in op.outputs}.union(inputs)
        tensors = tuple(
            self._tensor(index, table, index in made) for index, table in enumerate(row["tensors"])
        )
        graph = Subgraph(row["name"] or "", tensors, operators, inputs, outputs)
        self._check_blocks(tensors)
        self._check_order(graph)
        return graph

    def _indices(
        self, rows: Sequence[int], what: str, *, optional: bool = False
    ) -> tuple[int, ...]:
        for index in rows:
            if not (LEFT_OUT if optional else 0) <= index < self._count:
                raise self._damaged(f"{what} is tensor {index}, of {self._count}")
        return tuple(rows)

    def _damaged(self, message: str) -> EdgeqError:
        return damaged(self._where + message)

    # -- tensors ----------------------------------------------------------------------------------

    def _tensor(self, index: int, row: Mapping[str, Any], made: bool) -> Tensor:
        name = row["name"] or ""
        what = f"tensor {index} `{shown(name)}`"
        dtype = self._dtype(row, what)
        shape = row["shape"]
        if made and self._data(row["buffer"], what):
            raise self._damaged(f"{what} is a constant, and made while the model runs")
        self._check_shape(shape, row["shape_signature"], dtype, what)
        return Tensor(
            name=name,
            shape=shape,
            shape_signature=row["shape_signature"] or None,
            dtype=dtype,
            buffer=row["buffer"],
            data=None if made else self._constant(row, dtype, what),
            quantization=self._quantization(row["quantization"], shape, dtype, what),
            is_variable=row["is_variable"],
        )

    def _constant(self, row: Mapping[str, Any], dtype: str, what: str) -> memoryview | None:
        """The bytes of a constant, None of another tensor; one without elements is a constant."""
        data = self._data(row["buffer"], what)
        empty = not row["is_variable"] and dtype in schema.BITS and not math.prod(row["shape"])
        if not data and not empty:
            return None
        self._check_bytes(data, row["shape"], dtype, what)
        return data

    def _data(self, number: int, what: str) -> memoryview:
        """The bytes of a buffer; number 0 stands for none, whatever it holds."""
        buffers = self._file.buffers
        if number >= max(len(buffers), 1):
            raise self._damaged(f"{what} is buffer {number}, of {len(buffers)}")
        return buffers[number] if number else self._file.view[:0]

    def _dtype(self, row: Mapping[str, Any], what: str) -> str:
        number = row["type"]
        if not 0 <= number < len(schema.DTYPES):
            raise EdgeqError("unsupported-type", f"{self._where}{what} is of type number {number}")
        dtype: str = schema.DTYPES[number]
        if row["sparsity"] is not None or row["variant_tensors"] or dtype == "variant":
            raise EdgeqError("unsupported-type", f"{self._where}{what} is sparse or a variant")
        if row["external_buffer"]:
            raise EdgeqError("unsupported-type", f"{self._where}{what} is in another file")
        return dtype

    def _check_shape(
        self, shape: Sequence[int], signature: Sequence[int], dtype: str, what: str
    ) -> None:
        if len(shape) > MAX_RANK or any(size < 0 for size in shape):
            raise self._damaged(f"{what} has the shape {list(shape[:20])}")
        if math.prod(max(size, 1) for size in shape) * schema.BITS.get(dtype, 32) > 8 * MAX_BYTES:
            raise EdgeqError(
                "model-too-large", f"{self._where}{what}, {dtype} {list(shape)}, is beyond 64 GB"
            )
        if signature and (len(signature) != len(shape) or any(size < -1 for size in signature)):
            raise self._damaged(f"{what} has the shape signature {list(signature[:20])}")

    def _check_bytes(self, data: memoryview, shape: Sequence[int], dtype: str, what: str) -> None:
        """A constant has the bytes that its shape needs, no fewer and no more."""
        if dtype == "string":
            self._file.take(len(data))
            count = len(_places(data)) - 1
            if count != math.prod(shape):
                raise self._damaged(f"{what}, {list(shape)}, has {count} strings")
        elif dtype not in schema.BITS:
            raise self._damaged(f"{what} is a constant of type {dtype}")
        else:
            needed = -(-math.prod(shape) * schema.BITS[dtype] // 8)
            if len(data) != needed:
                raise self._damaged(
                    f"{what}, {dtype} {list(shape)}, needs {needed} bytes and has {len(data)}"
                )

    def _quantization(
        self, row: Mapping[str, Any] | None, shape: Sequence[int], dtype: str, what: str
    ) -> Quantization | None:
        """None for floats too, which some converters give the ranges they have seen."""
        if row is None or dtype not in schema.RANGES:
            return None
        axis = row["quantized_dimension"]
        if row["details"] is not None:
            table, fields = row["details"]
            return self._blockwise(table, fields, axis, shape, what)
        scale, zero_point = row["scale"], row["zero_point"]
        if not scale:
            return None
        if not all(0 < value < math.inf for value in scale):
            raise self._damaged(f"{what} has a scale that is not above 0, or not finite")
        if len(scale) > 1 and not (0 <= axis < len(shape) and shape[axis] == len(scale)):
            raise self._damaged(f"{what}, {list(shape)}, has {len(scale)} scales on axis {axis}")
        if len(zero_point) not in (0, 1, len(scale)):
            raise self._damaged(f"{what} has {len(scale)} scales, {len(zero_point)} zero points")
        low, high = schema.RANGES[dtype]
        if not all(low <= value <= high for value in zero_point):
            raise self._damaged(f"{what} has a zero point that {dtype} does not hold")
        zero_point = zero_point or (0,)
        if len(zero_point) < len(scale):
            zero_point = zero_point * len(scale)
        return Quantization(scale, zero_point, axis if 0 <= axis < len(shape) else 0)

    def _blockwise(
        self, table: str, row: Mapping[str, Any], axis: int, shape: Sequence[int], what: str
    ) -> Quantization | None:
        if table != "BlockwiseQuantization" or row["block_shape"]:
            raise EdgeqError("unsupported-type", f"{self._where}{what} is quantized by {table}")
        if row["block_size"] < 1 or not 0 <= row["scales"] < self._count:
            raise self._damaged(f"{what} has blocks of {row['block_size']}, scales in no tensor")
        if not 0 <= axis < len(shape):
            raise self._damaged(f"{what}, {list(shape)}, has blocks on axis {axis}")
        if row["zero_points"] > 0:
            raise EdgeqError("unsupported-type", f"{self._where}{what} has zero points in blocks")
        return Quantization((), (), axis, row["block_size"], row["scales"])

    def _check_blocks(self, tensors: Sequence[Tensor]) -> None:
        """Scales of blocks are a constant of floats above 0, one for each block."""
        for tensor in tensors:
            blocks = tensor.quantization
            if blocks is None or not blocks.block_size:
                continue
            scales = tensors[blocks.scales_tensor]
            count = math.prod(tensor.shape) // blocks.block_size
            left = tensor.shape[-1] % blocks.block_size  # a block ends with its row
            good = scales.data is not None and scales.dtype in ("float16", "float32", "bfloat16")
            if not good or left or math.prod(scales.shape) != count:
                raise self._damaged(
                    f"`{shown(tensor.name)}`, {list(tensor.shape)}, has no scale for each block of "
                    f"{blocks.block_size}"
                )
            self._file.take(len(scales.data or b""))
            values = scales.array()
            if not ((values > 0) & np.isfinite(values)).all():
                raise self._damaged(f"`{shown(tensor.name)}` has a scale that is not above 0")

    # -- operators --------------------------------------------------------------------------------

    def _operator(self, number: int, row: Mapping[str, Any]) -> Operator:
        if row["opcode_index"] >= len(self._file.codes):
            raise self._damaged(f"operator {number} is of kind {row['opcode_index']}, not listed")
        code = self._file.codes[row["opcode_index"]]
        what = f"{shown(code.custom) or code.name} (operator {number})"
        lacks = {at for at, index in enumerate(row["inputs"]) if index == LEFT_OUT}
        too_few = len(row["inputs"]) < _LEAST.get(code.name, 0)
        if too_few or (not code.custom and lacks - _MAY_LACK.get(code.name, frozenset())):
            raise self._damaged(f"{what} lacks an input that it needs")
        return Operator(
            code=code.name,
            version=code.version,
            custom=code.custom,
            inputs=self._indices(row["inputs"], f"an input of {what}", optional=True),
            outputs=self._indices(row["outputs"], f"an output of {what}"),
            intermediates=self._indices(row["intermediates"], f"an intermediate of {what}"),
            options=self._options(row, code, what),
        )

    def _options(self, row: Mapping[str, Any], code: _Code, what: str) -> Mapping[str, Any]:
        """The fields of the operator's own table; where there is none, its defaults."""
        if code.custom:
            return {"custom_options": self._custom_options(row, what)}
        given = [row[key] for key in ("builtin_options", "builtin_options2") if row[key]]
        for table, _ in given:
            if table != code.options:
                raise self._damaged(f"{what} has options of another operator, {table}")
        values: dict[str, Any] = given[0][1] if given else flatbuffer.defaults(code.options)
        for key, value in values.items():
            if "subgraph" in key:
                self._check_called(value, what)
        return values

    def _custom_options(self, row: Mapping[str, Any], what: str) -> bytes:
        start, size = row["large_custom_options_offset"], row["large_custom_options_size"]
        options = row["custom_options"]
        if start > 1:
            if start + size > len(self._file.view):
                raise self._damaged(f"{what} has its options at byte {start}, beyond the end")
            options = self._file.view[start : start + size]
        self._file.take(len(options))
        return bytes(options)

    def _check_called(self, value: Any, what: str) -> None:
        for index in value if isinstance(value, tuple) else (value,):
            if not 0 <= index < self._file.graphs:
                raise self._damaged(f"{what} calls subgraph {index}, of {self._file.graphs}")

    def _check_order(self, graph: Subgraph) -> None:
        """Each operator reads what is there before it runs, and nothing is made twice. A custom one
        may be given room to work in that nobody makes (Arm's Vela does so)."""
        ready = set(graph.inputs)
        if len(ready) < len(graph.inputs):
            raise self._damaged("one tensor is two inputs of the graph")
        for index, tensor in enumerate(graph.tensors):
            if tensor.data is not None or tensor.is_variable:
                ready.add(index)
        for number, operator in enumerate(graph.operators):
            what = f"{shown(operator.custom) or operator.code} (operator {number})"
            for index in operator.inputs:
                if index not in ready and index != LEFT_OUT and not operator.custom:
                    raise self._damaged(f"{what} reads tensor {index} before it is made")
            for index in operator.outputs:
                if index in ready:
                    raise self._damaged(f"{what} makes tensor {index}, which is already there")
                ready.add(index)
        for index in graph.outputs:
            if index not in ready:
                raise self._damaged(f"the output tensor {index} is never made")


def called(operator: Operator) -> tuple[int, ...]:
    """The subgraphs that an operator runs."""
    rows: list[int] = []
    for key, value in operator.options.items():
        if "subgraph" in key:
            rows += value if isinstance(value, tuple) else (value,)
    return tuple(rows)


def _check_calls(subgraphs: Sequence[Subgraph]) -> None:
    """No subgraph runs itself, by whatever way; and the way down is short."""
    calls = [
        sorted({index for operator in graph.operators for index in called(operator)})
        for graph in subgraphs
    ]
    depths: dict[int, int] = {}
    for graph in range(len(subgraphs)):
        _depth(graph, calls, depths, ())


def _depth(
    graph: int, calls: Sequence[Sequence[int]], depths: dict[int, int], above: tuple[int, ...]
) -> int:
    if graph in above or len(above) > MAX_DEPTH:
        raise damaged(f"subgraph {graph} runs itself, or is called too deep")
    if graph not in depths:
        below = [_depth(index, calls, depths, (*above, graph)) for index in calls[graph]]
        depths[graph] = 1 + max(below, default=0)
    if len(above) + depths[graph] > MAX_DEPTH:
        raise damaged(f"subgraphs that call each other, deeper than {MAX_DEPTH}")
    return depths[graph]


def _signatures(
    rows: Sequence[Mapping[str, Any]], subgraphs: Sequence[Subgraph]
) -> tuple[Signature, ...]:
    found = []
    for row in rows:
        key, number = row["signature_key"] or "", row["subgraph_index"]
        if number >= len(subgraphs):
            raise damaged(f"signature `{shown(key)}` is of subgraph {number}")
        graph = subgraphs[number]
        inputs = _named(row["inputs"], graph.inputs, f"signature `{shown(key)}`, inputs")
        outputs = _named(row["outputs"], graph.outputs, f"signature `{shown(key)}`, outputs")
        found.append(Signature(key, inputs, outputs, number))
    if len({row.key for row in found}) < len(found):
        raise damaged("two signatures of one name")
    return tuple(found)


def _named(rows: Sequence[Mapping[str, Any]], known: Sequence[int], what: str) -> Mapping[str, int]:
    names = {row["name"] or "": row["tensor_index"] for row in rows}
    if len(names) < len(rows):
        raise damaged(f"{what}: one name twice")
    there = set(known)
    for name, index in names.items():
        if index not in there:
            text = f"`{shown(name)}` is tensor {index}, which is none of the graph's"
            raise damaged(f"{what}: {text}")
    return names


def _metadata(rows: Sequence[Mapping[str, Any]], file: _File) -> Mapping[str, bytes]:
    entries: dict[str, bytes] = {}
    for row in rows:
        name, number = row["name"] or "", row["buffer"]
        if number >= len(file.buffers):
            raise damaged(f"metadata `{shown(name)}` is buffer {number}, of {len(file.buffers)}")
        if name in entries:
            raise damaged(f"metadata `{shown(name)}` is there twice")
        file.take(len(file.buffers[number]))
        entries[name] = bytes(file.buffers[number])
    return entries


def _places(data: memoryview) -> Any:
    """Where each string begins, and the last ends. A constant of strings is a count, count + 1
    offsets (int32), the bytes."""
    if len(data) < 4:
        raise damaged("a constant of strings is cut off")
    count = int.from_bytes(data[:4], "little")
    if 4 * (count + 2) > len(data):
        raise damaged(f"a constant of {count} strings has {len(data)} bytes")
    places = np.frombuffer(data, "<i4", count + 1, 4)
    if places[0] != 4 * (count + 2) or places[-1] > len(data):
        raise damaged("a constant of strings does not hold what it says")
    if (places[1:] < places[:-1]).any():
        raise damaged("a string of less than no bytes")
    return places


def _unpacked(packed: Any, dtype: str, count: int) -> Any:
    """The values of bytes that hold two or four each, the first in the lowest bits."""
    bits = schema.BITS[dtype]
    shifts = np.arange(0, 8, bits, dtype=np.uint8)
    values = ((packed[:, None] >> shifts) & (2**bits - 1)).reshape(-1)[:count].astype(np.int8)
    if dtype[0] == "u":
        return values.astype(np.uint8)
    half = 2 ** (bits - 1)
    return ((values ^ half) - half).astype(np.int8)
