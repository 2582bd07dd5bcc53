"""Compute one node from constants, in bounded memory, or say why not."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir

from edgeq.ir import OPSET, constant

if TYPE_CHECKING:
    from onnx import ModelProto

Array = np.ndarray[Any, Any]

MAX_BYTES = 16 * 1024 * 1024
"""A result may be this large, or as large as the node's inputs together."""
_MAX_PRODUCTS = 1 << 30

# Deterministic operators whose memory is their inputs and outputs. No QuantizeLinear and its kin
# (a quantized model stays one), nothing random, nothing with large workspaces or loops in Python.
# By how many elements they can make at most: as many as their first input has,
_AS_FIRST = (
    "Abs ArgMax ArgMin Cast Ceil Clip Cos CumSum Erf Exp Flatten Floor Identity Log Neg Not "
    "Reciprocal ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum Relu Reshape Round Sigmoid "
    "Sign Sin Slice Softmax Split Sqrt Squeeze Tanh Transpose Trilu Unsqueeze"
)
# as many as their inputs spread over each other,
_AS_SPREAD = (
    "Add And Div Equal Greater GreaterOrEqual Less LessOrEqual Max Mean Min Mod Mul Or Pow Sub "
    "Sum Where Xor"
)


class NotEvaluated(Exception):
    """Why a node was not computed; the text is the reason that the report shows."""


def _whole(array: Array) -> list[int]:
    return [int(item) for item in array.reshape(-1)]


def _spread(arrays: list[Array]) -> int:
    count: int = math.prod(np.broadcast_shapes(*(array.shape for array in arrays)))
    return count


def _range(arrays: list[Array]) -> int:
    start, limit, delta = (float(array.reshape(())) for array in arrays)
    return max(0, math.ceil((limit - start) / delta))


def _pad(arrays: list[Array]) -> int:
    """Pads without axes; more than the result where some are negative."""
    grown = sum(abs(size) for size in _whole(arrays[1]))
    return math.prod(size + grown for size in arrays[0].shape)


def _matmul(arrays: list[Array]) -> int:
    left, right = arrays
    inner: int = max(1, left.shape[-1])
    products = left.size * max(1, right.size // inner)
    if products > _MAX_PRODUCTS:
        raise NotEvaluated(f"it takes {products:,} multiplications")
    return max(1, left.size // inner) * max(1, right.size // inner)


# and these by a rule of their own: elements from the input arrays.
_OWN: dict[str, Callable[[list[Array]], int]] = {
    "Concat": lambda arrays: sum(array.size for array in arrays),
    "ConstantOfShape": lambda arrays: math.prod(_whole(arrays[0])),
    "Expand": lambda arrays: math.prod(
        np.broadcast_shapes(arrays[0].shape, tuple(_whole(arrays[1])))
    ),
    "Gather": lambda arrays: arrays[1].size * arrays[0].size,
    "MatMul": _matmul,
    "NonZero": lambda arrays: arrays[0].size * max(1, arrays[0].ndim),
    "OneHot": lambda arrays: arrays[0].size * max(0, int(arrays[1].reshape(()))),
    "Pad": _pad,
    "Range": _range,
    "Tile": lambda arrays: arrays[0].size * math.prod(_whole(arrays[1])),
}
_AS_ONE = frozenset(_AS_FIRST.split())
FOLDABLE = _AS_ONE | frozenset(_AS_SPREAD.split()) | frozenset(_OWN)

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


def evaluate(node: onnx_ir.Node) -> list[Array]:
    """The outputs of `node`, whose inputs are all constants, in the dtypes that ONNX says."""
    from onnx.reference import ReferenceEvaluator

    operands = [(value.name or "", constant(value)) for value in node.inputs if value is not None]
    given = {name: array for name, array in operands if array is not None}
    if any(array.dtype.kind not in "fiub" for array in given.values()):
        raise NotEvaluated("it computes with strings or small floats")
    if node.op_type in ("Div", "Mod") and _divides_by_zero(node):
        raise NotEvaluated("it divides integers by zero")
    try:
        _refuse_large(node, [given[name] for name, _ in operands])
        with np.errstate(all="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            results = ReferenceEvaluator(_one_node_model(node, given)).run(None, given)
    except _FAILURES as failure:
        raise NotEvaluated(f"its evaluation failed ({type(failure).__name__})") from failure
    return _checked(node, [np.asarray(result) for result in results], given)


def _refuse_large(node: onnx_ir.Node, arrays: list[Array]) -> None:
    """Bound the result from above before anything is computed."""
    if node.op_type in _AS_ONE:
        count = arrays[0].size
    elif node.op_type in _OWN:
        count = _OWN[node.op_type](arrays)
    else:
        count = _spread(arrays)
    width = max(8 if node.op_type == "Cast" else 0, *(array.itemsize for array in arrays))
    if count * width > max(MAX_BYTES, sum(array.nbytes for array in arrays)):
        raise NotEvaluated(f"its result may have {count:,} values, too many to store")


def _one_node_model(node: onnx_ir.Node, given: dict[str, Array]) -> ModelProto:
    from onnx import helper

    proto = onnx_ir.serde.serialize_node(node)
    inputs = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(a.dtype), a.shape)
        for name, a in given.items()
    ]
    outputs = [helper.make_empty_tensor_value_info(name) for name in proto.output]
    graph = helper.make_graph([proto], "fold", inputs, outputs)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=10)


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
