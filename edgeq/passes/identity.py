"""Nodes that hand their input on unchanged are taken out.

Each rule says why a node is a no-op from its attributes, its constants and the inferred shapes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir

from edgeq.ir import Graph, attribute, constant, dtype_of, scalar, static_shape
from edgeq.passes.edit import bypass, why_not_bypassed
from edgeq.passes.report import Log


def run(graph: Graph, log: Log) -> None:
    """Outputs of the model keep their names; what a body reads stays."""
    for node in graph.nodes():
        rule = _RULES.get(node.op_type) if node.domain == "" else None
        if rule is None or not node.inputs:
            continue
        index = rule(node)
        source = None if index is None else node.inputs[index]
        if source is None:
            continue
        reason = why_not_bypassed(node.outputs[0], source)
        if reason is not None:
            log.refuse(node, reason)
            continue
        bypass(node, source)
        log.change(f"`{node.op_type}` (node `{node.name}`) did nothing")


def _always(node: onnx_ir.Node) -> int | None:
    return 0


def _dropout(node: onnx_ir.Node) -> int | None:
    """Without training mode its output is its input, whatever the ratio."""
    training = node.inputs[2] if len(node.inputs) > 2 else None
    mask_read = any(value.uses() or value.is_graph_output() for value in node.outputs[1:])
    off = training is None or scalar(training) == 0.0
    return 0 if off and not mask_read else None


def _same_shape(node: onnx_ir.Node) -> int | None:
    """For operators that keep the order of elements: the same static shape, the same tensor."""
    before, after = static_shape(node.inputs[0]), static_shape(node.outputs[0])
    return 0 if before is not None and before == after else None


def _single_input(node: onnx_ir.Node) -> int | None:
    return 0 if len(node.inputs) == 1 else None


def _transpose(node: onnx_ir.Node) -> int | None:
    """An order of axes that is none; without `perm` only up to rank 1."""
    perm = attribute(node, "perm", None)
    if perm is not None:
        return 0 if list(perm) == sorted(perm) else None
    shape = None if node.inputs[0] is None else node.inputs[0].shape
    return 0 if shape is not None and len(shape) < 2 else None


def _cast(node: onnx_ir.Node) -> int | None:
    if node.inputs[0] is None:
        return None
    dtype = dtype_of(node.inputs[0])
    return 0 if dtype and attribute(node, "to", None) == node.inputs[0].dtype else None


def _pad(node: onnx_ir.Node) -> int | None:
    pads = constant(node.inputs[1])
    return 0 if pads is not None and not pads.any() else None


def _slice(node: onnx_ir.Node) -> int | None:
    """All of every axis it names; or forward steps that leave the static shape as it was."""
    steps = constant(node.inputs[4]) if len(node.inputs) > 4 else np.ones(1)
    if steps is None or not (steps > 0).all():
        return None
    return 0 if _takes_all(node, steps) else _same_shape(node)


def _takes_all(node: onnx_ir.Node, steps: np.ndarray[Any, Any]) -> bool:
    """From 0 in steps of 1 to the known end, or to the largest int32, which ONNX means as it."""
    starts, ends = constant(node.inputs[1]), constant(node.inputs[2])
    axes = constant(node.inputs[3]) if len(node.inputs) > 3 else None
    shape = None if node.inputs[0] is None else node.inputs[0].shape
    if starts is None or ends is None or axes is None or starts.any() or (steps != 1).any():
        return False
    for axis, end in zip(axes.ravel(), ends.ravel(), strict=False):
        known = shape is not None and -len(shape) <= axis < len(shape)
        size = shape[int(axis)] if shape is not None and known else None
        if end < (size if isinstance(size, int) else np.iinfo(np.int32).max):
            return False
    return True


def _neutral(operand: float, *, either_side: bool) -> Callable[[onnx_ir.Node], int | None]:
    """A rule for x + 0 and its like: one operand is constant `operand` and does not widen x."""

    def rule(node: onnx_ir.Node) -> int | None:
        for index in (1, 0) if either_side else (1,):
            other, value = node.inputs[index], node.inputs[1 - index]
            stored = constant(other)
            if (
                stored is None
                or value is None
                or value.shape is None
                or stored.dtype.kind not in "fiu"
            ):
                continue
            narrow = stored.size == 1 and stored.ndim <= len(value.shape)
            if narrow and float(stored.reshape(())) == operand:
                return 1 - index
        return None

    return rule


_RULES: dict[str, Callable[[onnx_ir.Node], int | None]] = {
    "Identity": _always,
    "Dropout": _dropout,
    "Reshape": _same_shape,
    "Flatten": _same_shape,
    "Squeeze": _same_shape,
    "Unsqueeze": _same_shape,
    "Expand": _same_shape,
    "Tile": _same_shape,
    "Concat": _single_input,
    "Sum": _single_input,
    "Mean": _single_input,
    "Max": _single_input,
    "Min": _single_input,
    "Transpose": _transpose,
    "Cast": _cast,
    "Pad": _pad,
    "Slice": _slice,
    "Add": _neutral(0.0, either_side=True),
    "Sub": _neutral(0.0, either_side=False),
    "Mul": _neutral(1.0, either_side=True),
    "Div": _neutral(1.0, either_side=False),
}
