"""A matrix product with constant weights and a bias becomes one Gemm in its plainest form.

Static int8 in ONNX Runtime is fast for Gemm with an int32 bias; MatMul followed by a float Add is
not (DESIGN 5). Only rank-2 inputs: Gemm has no batch axes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir

from edgeq.ir import Graph, attribute, constant, dtype_of, sole_consumer, static_shape
from edgeq.passes.edit import add_initializer, add_node, remove, take_over
from edgeq.passes.report import Log


def run(graph: Graph, log: Log) -> None:
    """MatMul + Add(bias) to Gemm; then alpha, beta and transA out of every Gemm where constant."""
    for node in graph.nodes():
        if node.domain == "" and node.op_type == "MatMul":
            _fuse(graph, node, log)
    for node in graph.nodes():
        if node.domain == "" and node.op_type == "Gemm":
            _normalise(graph, node, log)


def _fuse(graph: Graph, node: onnx_ir.Node, log: Log) -> None:
    weights = constant(node.inputs[1])
    if weights is None:
        return
    add = sole_consumer(node.outputs[0])
    if add is None or add.op_type != "Add" or add.domain != "":
        readers = node.outputs[0].consumers()
        if any(reader.op_type == "Add" for reader in readers):
            log.refuse(node, "its product has a second reader, so the sum cannot take it in")
        return
    bias = _bias_of(add, node.outputs[0], weights)
    reason = _why_not(node, weights, bias)
    if reason is not None or bias is None:
        log.refuse(node, reason or "the bias is not a constant with one value per column")
        return
    stored = add_initializer(graph, f"{add.outputs[0].name}_bias", bias)
    gemm = add_node(add, "Gemm", [node.inputs[0], node.inputs[1], stored], {})
    take_over(add.outputs[0], gemm.outputs[0])
    remove(add)
    remove(node)
    gemm.name = node.name
    log.change(f"`MatMul` (node `{gemm.name}`) and `Add` (node `{add.name}`) became `Gemm`")


def _why_not(
    node: onnx_ir.Node, weights: np.ndarray[Any, Any], bias: np.ndarray[Any, Any] | None
) -> str | None:
    left = node.inputs[0]
    if left is None or left.shape is None:
        return "the rank of its input is unknown"
    if len(left.shape) != 2 or weights.ndim != 2:
        return f"its input has rank {len(left.shape)}, Gemm takes rank 2"
    if dtype_of(left) not in ("float32", "float16", "float64"):
        return f"its input is {dtype_of(left) or 'of unknown type'}"
    return "the bias is not a constant with one value per column" if bias is None else None


def _bias_of(
    add: onnx_ir.Node, product: onnx_ir.Value, weights: np.ndarray[Any, Any]
) -> np.ndarray[Any, Any] | None:
    """The other operand of `add` as [columns], if it is a constant that does not widen the sum."""
    other = add.inputs[1] if add.inputs[0] is product else add.inputs[0]
    bias = constant(other)
    columns = weights.shape[-1]
    if bias is None or bias.ndim > 2 or bias.size not in (1, columns):
        return None
    if bias.size == columns != 1 and (bias.ndim == 0 or bias.shape[-1] != columns):
        return None
    return np.ascontiguousarray(np.broadcast_to(bias.reshape(-1), (columns,)))


def _normalise(graph: Graph, node: onnx_ir.Node, log: Log) -> None:
    if attribute(node, "transA", 0):
        log.refuse(node, "transA is set, and its left operand is not a constant")
    alpha, beta = (float(attribute(node, name, 1.0)) for name in ("alpha", "beta"))
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    scaled = [(node.inputs[1], alpha, 1, "alpha"), (bias, beta, 2, "beta")]
    for value, factor, index, name in scaled:
        array = constant(value)
        if value is None or factor == 1.0:
            node.attributes.pop(name, None)
        elif array is None:
            log.refuse(node, f"{name} is {factor:g} and what it scales is not a constant")
        elif not np.isfinite(factor):
            log.refuse(node, f"{name} is {factor:g}")
        else:
            product = (array.astype(np.float64) * factor).astype(array.dtype)
            stored = add_initializer(graph, f"{value.name}_{name}", product)
            node.replace_input_with(index, stored)
            node.attributes.pop(name)
            log.change(f"`Gemm` (node `{node.name}`): {name} {factor:g} is in its constant now")
    _flatten_bias(graph, node, log)


def _flatten_bias(graph: Graph, node: onnx_ir.Node, log: Log) -> None:
    """A constant bias of one value, or of shape [1, N], becomes [N]."""
    value = node.inputs[2] if len(node.inputs) > 2 else None
    bias, weights = constant(value), static_shape(node.inputs[1])
    if value is None or bias is None or weights is None or len(weights) != 2:
        return
    columns = weights[0] if attribute(node, "transB", 0) else weights[1]
    wide = bias.ndim > 1 and bias.shape[0] != 1
    if bias.shape == (columns,) or wide or bias.size not in (1, columns):
        return
    flat = np.ascontiguousarray(np.broadcast_to(bias.reshape(-1), (columns,)))
    node.replace_input_with(2, add_initializer(graph, f"{value.name}_flat", flat))
    log.change(f"`Gemm` (node `{node.name}`): its bias has the shape [{columns}] now")
