"""Split into parts of known sizes becomes one `Slice` a part, where a part goes on to weights.

In int8 a Slice is faster than in float, a lone Split slower, and a part that nobody reads is free.
ONNX Runtime 1.31 joins the Slices to one Split again where it has all parts in one type: there the
two forms are equally fast, in float and in int8 (measured on four Conv, Split, Conv, Concat blocks
of 64x28x28). So only a Split helps whose parts could stay int8: one of them reaches weights
through operators that have int8 kernels. In attention, where the parts meet each other and no
weights, it stays. Exact: the parts are copies.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx_ir

from edgeq.ir import Graph, attribute, constant
from edgeq.passes.edit import add_initializer, add_node, fresh_node_name, remove, take_over
from edgeq.passes.match import why_not_float32
from edgeq.passes.report import Log

_WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")
_WITH_INT8 = (
    *("Add", "AveragePool", "Clip", "Concat", "GlobalAveragePool", "LeakyRelu", "MaxPool", "Mul"),
    *("DepthToSpace", "Flatten", "Relu", "Reshape", "Resize", "Sigmoid", "Slice", "Split"),
    *("Squeeze", "Transpose", "Unsqueeze"),
)


def run(graph: Graph, log: Log) -> None:
    """Only float32."""
    for node in graph.nodes():
        if node.op_type != "Split" or node.domain != "" or node.inputs[0] is None:
            continue
        sizes = _sizes(node)
        reason = why_not_float32(node.inputs[0])
        if reason is None and not _reaches_weights(node):
            reason = "none of its parts goes on to weights in operators with int8 kernels"
        if reason is not None or isinstance(sizes, str):
            log.refuse(node, reason or str(sizes))
            continue
        count = _cut(graph, node, sizes)
        log.change(f"`Split` (node `{node.name}`) became {count} `Slice`")


def _sizes(node: onnx_ir.Node) -> list[int] | str:
    """How many elements each part has along the axis, or why that is not known."""
    source, given = node.inputs[0], node.inputs[1] if len(node.inputs) > 1 else None
    assert source is not None
    if given is not None:
        stored = constant(given)
        return "its sizes are not constant" if stored is None else [int(s) for s in stored.ravel()]
    axis, count = attribute(node, "axis", 0), len(node.outputs)
    shape = source.shape
    whole = shape[axis] if shape is not None and -len(shape) <= axis < len(shape) else None
    if not isinstance(whole, int):
        return "the size of what it splits is not known"
    each = -(-whole // count)
    return [max(0, min(each, whole - at * each)) for at in range(count)]


def _reaches_weights(node: onnx_ir.Node) -> bool:
    """Whether a part arrives at constant weights through operators with int8 kernels alone."""
    seen: set[onnx_ir.Node] = set()
    ahead = list(_readers(node))
    while ahead:
        reader, value = ahead.pop()
        if reader.op_type in _WEIGHTED and reader.inputs[0] is value:
            if constant(reader.inputs[1]) is not None:
                return True
        elif reader.op_type in _WITH_INT8 and reader.domain == "" and reader not in seen:
            seen.add(reader)
            ahead += _readers(reader)
    return False


def _readers(node: onnx_ir.Node) -> Iterator[tuple[onnx_ir.Node, onnx_ir.Value]]:
    for value in node.outputs:
        yield from ((reader, value) for reader in value.consumers())


def _cut(graph: Graph, node: onnx_ir.Node, sizes: list[int]) -> int:
    """One Slice for each part that is read, in the place of `node`; how many."""
    start, count = 0, 0
    stem = str(node.inputs[0].name if node.inputs[0] is not None else node.name)
    axis = add_initializer(graph, f"{stem}_axis", np.array([attribute(node, "axis", 0)], np.int64))
    for part, size in zip(node.outputs, sizes, strict=True):
        if part.uses() or part.is_graph_output():
            ends = (("start", start), ("end", start + size))
            cuts = [
                add_initializer(graph, f"{part.name}_{name}", np.array([at], np.int64))
                for name, at in ends
            ]
            cut = add_node(node, "Slice", [node.inputs[0], *cuts, axis], {})
            cut.name = fresh_node_name(graph, f"{node.name}_{count}")
            take_over(part, cut.outputs[0])
            count += 1
        start += size
    remove(node)
    return count
