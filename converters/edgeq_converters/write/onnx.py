"""Write ONNX: float, or with `QuantizeLinear`/`DequantizeLinear` pairs that engines fuse (QDQ).

Opset 21 (20 for int8 activations, see `SIGNED_OPSET`), IR 10. Nothing of the host, the time or the
source file gets in: no doc strings, no metadata, no value_info; every initializer as little-endian
raw data.
"""

from __future__ import annotations

from collections.abc import Sequence

import onnx
import onnx_ir

from edgeq.errors import EdgeqError
from edgeq.ir import IR_VERSION, Graph
from edgeq.quant.plan import QuantPlan
from edgeq_converters.write import half, outside, qdq

SIGNED_OPSET = 20
"""The opset of files with int8 activations. ONNX Runtime (seen in 1.31.1) copies their Q/DQ pairs
past Reshape, MaxPool and the like; at opset 21 it gives the copies `output_dtype` INT8, on x86 it
then turns the region to uint8, and it refuses the model for the contradiction. At 20 there is no
such attribute. Opset 21 gave most operators no more than the 4-bit types."""

CHANGED_AT_21 = ("GroupNormalization",)
"""Operators that compute something else at opset 21 than at 20."""

LARGEST_FILE_BYTES = 2**31 - 1
"""What protobuf can hold in one message."""

ROOM_FOR_NODES = 2**24
"""What is kept of it for all but the weights."""


def write(
    graph: Graph,
    plan: QuantPlan | None,
    *,
    activation_dtype: str = "uint8",
    extra_outputs: Sequence[str] = (),
) -> bytes:
    """The bytes of an ONNX file; `plan` None writes the float graph.

    `activation_dtype` "uint8" shifts the plan's activations by 128 (codes and zero point), "int8"
    writes them as they are. A quantized tensor's dequantized value keeps the tensor's name, so
    `extra_outputs` can ask for it; names that are inputs or outputs already are passed over. Graph
    inputs and outputs keep name, order, shape and float type.

    Raises EdgeqError: [plan-mismatch] where the plan is not one of this graph, [no-such-tensor]
    for an extra output the file does not hold, [too-large] past 2 GB.
    """
    assert activation_dtype in ("uint8", "int8"), activation_dtype
    lowered = qdq.lower(graph, plan, activation_dtype)
    model = onnx.ModelProto(ir_version=IR_VERSION, producer_name="edgeq")
    imports = dict(graph.model.opset_imports)
    if plan is not None and activation_dtype == "int8" and _fits_opset_20(graph, plan):
        imports[""] = SIGNED_OPSET
    for domain, version in sorted(imports.items()):
        model.opset_import.add(domain=domain, version=version)
    proto = model.graph
    proto.name = "main"
    for value in graph.model.graph.inputs:
        proto.input.append(_interface(value))
    for value in graph.model.graph.outputs:
        proto.output.append(_interface(value))
    outside.bring(graph, lowered.initializers, plan.tensors if plan is not None else ())
    nodes, initializers = half.halve(plan, lowered.nodes, lowered.initializers)
    proto.node.extend(nodes)
    left = outside.settle(graph, initializers, LARGEST_FILE_BYTES - ROOM_FOR_NODES)
    _check_size(initializers)
    proto.initializer.extend(initializers)
    _add_outputs(graph, proto, extra_outputs)
    return outside.stored(bytes(model.SerializeToString(deterministic=True)), left)


def _fits_opset_20(graph: Graph, plan: QuantPlan) -> bool:
    """Whether every operator means the same at opset 20, and no tensor is of a 4-bit type."""
    nodes = list(graph.model.graph.all_nodes())
    values = [value for node in nodes for value in (*node.inputs, *node.outputs) if value]
    narrow = (onnx_ir.DataType.INT4, onnx_ir.DataType.UINT4)
    return not (
        any(node.op_type in CHANGED_AT_21 for node in nodes)
        or any(value.dtype in narrow for value in values)
        or any(encoding.dtype == "int4" for encoding in plan.tensors.values())
    )


def _interface(value: onnx_ir.Value) -> onnx.ValueInfoProto:
    """Name, type and shape alone."""
    made = onnx_ir.to_proto(value)
    assert isinstance(made, onnx.ValueInfoProto)
    return onnx.ValueInfoProto(name=made.name, type=made.type)


def _check_size(initializers: Sequence[onnx.TensorProto]) -> None:
    size_bytes = sum(len(tensor.raw_data) for tensor in initializers)
    if size_bytes > LARGEST_FILE_BYTES - ROOM_FOR_NODES:
        raise EdgeqError(
            "too-large", f"the weights are {size_bytes / 1e9:.1f} GB, and an ONNX file holds 2"
        )


def _add_outputs(graph: Graph, proto: onnx.GraphProto, names: Sequence[str]) -> None:
    """List tensors as outputs too, float ones with their type, their shape left open."""
    present = {value.name for value in (*proto.input, *proto.output)}
    made = {name for node in proto.node for name in node.output}
    for name in names:
        if name in present:
            continue
        if name not in made:
            raise EdgeqError("no-such-tensor", f"the artifact holds no tensor `{name}`")
        present.add(name)
        value = graph.value(name)
        dtype = onnx_ir.DataType.FLOAT if value is None or value.dtype is None else value.dtype
        output = proto.output.add(name=name)
        output.type.tensor_type.elem_type = int(dtype)
