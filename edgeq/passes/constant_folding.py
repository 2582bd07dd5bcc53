"""What depends on constants alone is computed once, here, by onnx's reference evaluator.

Also the sizes that a static shape makes constant: Shape and Size, and Gather or Slice of a Shape
where the picked dimensions are static though another (the batch) is not.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir

from edgeq.ir import Graph, attribute, constant, static_shape, subgraphs
from edgeq.passes.edit import remove
from edgeq.passes.evaluate import FOLDABLE, NotEvaluated, evaluate
from edgeq.passes.report import Log

Array = np.ndarray[Any, Any]


def run(graph: Graph, log: Log) -> None:
    """One sweep in topological order, so that chains fold in one go."""
    for node in graph.nodes():
        if node.domain != "" or node.op_type == "Constant" or subgraphs(node):
            continue
        known = _from_shape(node)
        if known is None and not _reads_only_constants(node):
            continue
        reason = _why_not(node)
        if reason is None:
            try:
                arrays = [known] if known is not None else evaluate(node)
            except NotEvaluated as failure:
                reason = str(failure)
            else:
                _replace(graph, node, arrays)
                log.change(f"`{node.op_type}` (node `{node.name}`) is a constant now")
                continue
        log.refuse(node, reason)


def _reads_only_constants(node: onnx_ir.Node) -> bool:
    given = [value for value in node.inputs if value is not None]
    return bool(given) and all(constant(value) is not None for value in given)


def _why_not(node: onnx_ir.Node) -> str | None:
    if node.op_type not in FOLDABLE and node.op_type not in ("Shape", "Size"):
        return f"`{node.op_type}` is not in the table of operators that are evaluated"
    if any(value.is_graph_output() for value in node.outputs):
        return "its output is an output of the model"
    return None


def _from_shape(node: onnx_ir.Node) -> Array | None:
    """The constant that static sizes make of Shape, Size, and Gather or Slice of a Shape."""
    if node.op_type == "Shape":
        sizes = _sizes(node)
        return np.array(sizes, np.int64) if sizes is not None and None not in sizes else None
    if node.op_type == "Size":
        shape = static_shape(node.inputs[0])
        return None if shape is None else np.array(np.prod(shape, dtype=np.int64))
    if node.op_type not in ("Gather", "Slice") or node.inputs[0] is None:
        return None
    shape_node = node.inputs[0].producer()
    if shape_node is None or shape_node.op_type != "Shape" or shape_node.domain != "":
        return None
    sizes = _sizes(shape_node)
    picked = None if sizes is None else _picked(node, len(sizes))
    if sizes is None or picked is None:
        return None
    chosen = [sizes[index] for index in picked.reshape(-1)]
    known = [size for size in chosen if size is not None]
    return np.array(known, np.int64).reshape(picked.shape) if len(known) == len(chosen) else None


def _sizes(node: onnx_ir.Node) -> list[int | None] | None:
    """The dimensions a Shape node gives, None for each that is not static."""
    value = node.inputs[0]
    if value is None or value.shape is None:
        return None
    sizes = [size if isinstance(size, int) else None for size in value.shape]
    start, end = attribute(node, "start", 0), attribute(node, "end", None)
    return sizes[slice(start, end)]


def _picked(node: onnx_ir.Node, count: int) -> Array | None:
    """Which of `count` elements a Gather or Slice with constant operands picks: their indices."""
    operands = [constant(value) for value in node.inputs[1:]]
    if not operands or any(array is None for array in operands):
        return None
    index = np.arange(count)
    if node.op_type == "Gather":
        at = operands[0]
        assert at is not None
        inside = bool(((at >= -count) & (at < count)).all())
        return index[at] if inside and attribute(node, "axis", 0) in (0, -1) else None
    one_each = [array.reshape(-1) for array in operands if array is not None]
    if len(one_each) < 2 or any(len(array) != 1 for array in one_each):
        return None
    given = (int(array[0]) for array in one_each)
    start, end, axis, step = (*given, *(0, 1)[len(one_each) - 2 :])
    return index[start:end:step] if step and axis in (0, -1) else None


def _replace(graph: Graph, node: onnx_ir.Node, arrays: list[Array]) -> None:
    """Each output that is read becomes an initializer of the same name."""
    for value, array in zip(node.outputs, arrays, strict=True):
        if not value.uses():
            continue
        name = value.name
        value.name = None
        tensor = onnx_ir.Tensor(np.asarray(array, order="C"), name=name)
        stored = onnx_ir.Value(
            name=name,
            type=onnx_ir.TensorType(tensor.dtype),
            shape=onnx_ir.Shape(array.shape),
            const_value=tensor,
        )
        value.replace_all_uses_with(stored)
        graph.home.register_initializer(stored)
    remove(node)
