"""TFLite files from LiteRT's own schema module: what tests of reading start from."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np


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
