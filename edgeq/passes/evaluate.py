"""Compute one node from constants, in bounded memory, or say why not."""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
import onnx_ir

from edgeq.ir import OPSET, constant

Array = np.ndarray[Any, Any]

MAX_BYTES = 16 * 1024 * 1024
"""A result may be this large, or as large as the node's inputs together."""

# Deterministic operators whose memory is their inputs and outputs. No QuantizeLinear and its kin
# (a quantized model stays one), nothing random, nothing with large workspaces.
FOLDABLE = frozenset(
    {"Abs", "Add", "And", "ArgMax", "ArgMin", "Cast", "Ceil", "Clip", "Concat", "ConstantOfShape"}
    | {"Cos", "CumSum", "Div", "Equal", "Erf", "Exp", "Expand", "Flatten", "Floor", "Gather"}
    | {"GatherElements", "GatherND", "Gemm", "Greater", "GreaterOrEqual", "Identity", "Less"}
    | {"LessOrEqual", "Log", "MatMul", "Max", "Mean", "Min", "Mod", "Mul", "Neg", "NonZero", "Not"}
    | {"OneHot", "Or", "Pad", "Pow", "Range", "Reciprocal", "ReduceMax", "ReduceMean", "ReduceMin"}
    | {"ReduceProd", "ReduceSum", "Relu", "Reshape", "Round", "ScatterElements", "ScatterND"}
    | {"Sigmoid", "Sign", "Sin", "Slice", "Softmax", "Split", "Sqrt", "Squeeze", "Sub", "Sum"}
    | {"Tanh", "Tile", "Transpose", "Trilu", "Unsqueeze", "Where", "Xor"}
)

# What onnx's reference operators raise on operands that do not fit.
_FAILURES = (
    ValueError,
    TypeError,
    IndexError,
    KeyError,
    AttributeError,
    ArithmeticError,
    AssertionError,
    RuntimeError,
    MemoryError,
)


class NotEvaluated(Exception):
    """Why a node was not computed; the text is the reason that the report shows."""


def evaluate(node: onnx_ir.Node) -> list[Array]:
    """The outputs of `node`, whose inputs are all constants, in the dtypes that ONNX says."""
    import onnx
    from onnx.reference import ReferenceEvaluator

    feeds = {value.name: constant(value) for value in node.inputs if value is not None and value.name}
    given = {name: array for name, array in feeds.items() if array is not None}
    if any(array.dtype.kind not in "fiub" for array in given.values()):
        raise NotEvaluated("it computes with strings or small floats")
    if node.op_type in ("Div", "Mod") and _divides_by_zero(node):
        raise NotEvaluated("it divides integers by zero")
    model = _one_node_model(node, given)
    try:
        _refuse_large(onnx.shape_inference.infer_shapes(model, data_prop=True), given)
        with np.errstate(all="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            results = ReferenceEvaluator(model).run(None, given)
    except _FAILURES as failure:
        raise NotEvaluated(f"its evaluation failed ({type(failure).__name__})") from failure
    return _checked(node, [np.asarray(result) for result in results], given)


def _one_node_model(node: onnx_ir.Node, given: dict[str, Array]) -> Any:
    """A model of this node; operands small enough to be shapes are in it as constants."""
    from onnx import helper, numpy_helper

    proto = onnx_ir.serde.serialize_node(node)
    for index, value in enumerate(node.outputs):
        proto.output[index] = f"made_{index}"
        assert value is not None
    inputs = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(a.dtype), a.shape)
        for name, a in given.items()
    ]
    small = [numpy_helper.from_array(a, name) for name, a in given.items() if a.nbytes <= 1024]
    outputs = [helper.make_empty_tensor_value_info(name) for name in proto.output]
    graph = helper.make_graph([proto], "fold", inputs, outputs, initializer=small)
    opset = [helper.make_opsetid("", OPSET)]
    return helper.make_model(graph, opset_imports=opset, ir_version=10)


def _refuse_large(inferred: Any, given: dict[str, Array]) -> None:
    limit = max(MAX_BYTES, sum(array.nbytes for array in given.values()))
    for info in inferred.graph.output:
        tensor = info.type.tensor_type
        if not tensor.HasField("shape") or tensor.elem_type == 0:
            raise NotEvaluated("the size of its result is not known beforehand")
        sizes = [size.dim_value if size.HasField("dim_value") else -1 for size in tensor.shape.dim]
        if min(sizes, default=0) < 0:
            raise NotEvaluated("the size of its result is not known beforehand")
        width = onnx_ir.DataType(tensor.elem_type).bitwidth / 8
        if math.prod(sizes) * width > limit:
            raise NotEvaluated(f"its result of {math.prod(sizes):,} values is too large to store")


def _divides_by_zero(node: onnx_ir.Node) -> bool:
    divisor = constant(node.inputs[1])
    return divisor is not None and divisor.dtype.kind in "iub" and not divisor.all()


def _checked(node: onnx_ir.Node, results: list[Array], given: dict[str, Array]) -> list[Array]:
    finite_in = all(_finite(array) for array in given.values())
    for value, array in zip(node.outputs, results, strict=True):
        if array.dtype.kind not in "fiub":
            raise NotEvaluated("its result is not a plain array of numbers")
        if value.dtype is not None and value.dtype.numpy() != array.dtype:
            raise NotEvaluated(f"its result came out as {array.dtype}")
        if finite_in and not _finite(array):
            raise NotEvaluated("its result is not finite")
    return results


def _finite(array: Array) -> bool:
    return array.dtype.kind != "f" or bool(np.isfinite(array).all())
