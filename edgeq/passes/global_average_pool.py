"""A mean over height and width becomes `GlobalAveragePool`, which has an int8 kernel everywhere.

That is ReduceMean, and AveragePool with one window that holds all of the image (XNNPACK has no int8
AVERAGE_POOL_2D). Without keepdims a Flatten follows, from [N, C, 1, 1] to [N, C]. Equal up to the
order of the sum over height times width.
"""

from __future__ import annotations

import onnx_ir

from edgeq.ir import Graph, attribute
from edgeq.passes.edit import add_node, fresh_name, fresh_node_name, remove, take_over
from edgeq.passes.match import reduced, why_not_float32
from edgeq.passes.report import Log


def run(graph: Graph, log: Log) -> None:
    """Only images, [N, C, H, W]; and only float32."""
    for node in graph.nodes():
        if node.op_type == "AveragePool" and node.domain == "" and _holds_all(node):
            _replace(graph, node, node.inputs[0])
            log.change(f"`AveragePool` (node `{node.name}`) became `GlobalAveragePool`")
            continue
        if node.op_type != "ReduceMean" or node.domain != "":
            continue
        source = node.inputs[0]
        if source is None or source.shape is None or len(source.shape) != 4:
            continue
        axes = reduced(node, attribute(node, "keepdims", 1))
        reason = why_not_float32(source)
        if axes != (2, 3):
            known = "not known" if axes is None else f"{list(axes)}"
            reason = f"its axes are {known}, GlobalAveragePool takes [2, 3]"
        if reason is not None:
            log.refuse(node, reason)
            continue
        _replace(graph, node, source)
        log.change(f"`ReduceMean` (node `{node.name}`) became `GlobalAveragePool`")


def _holds_all(node: onnx_ir.Node) -> bool:
    """Whether the one window of an AveragePool is the whole image, [N, C, H, W] in float32."""
    source, made = node.inputs[0], node.outputs[0]
    sizes = [list(value.shape or ())[2:] for value in (source, made) if value is not None]
    kernel = list(attribute(node, "kernel_shape", ()))
    return (
        len(sizes) == 2
        and sizes == [kernel, [1, 1]]
        and not any(attribute(node, "pads", ()))
        and all(step == 1 for step in attribute(node, "dilations", ()))
        and source is not None
        and why_not_float32(source) is None
    )


def _replace(graph: Graph, node: onnx_ir.Node, source: onnx_ir.Value | None) -> None:
    assert source is not None
    pool = add_node(node, "GlobalAveragePool", [source], {})
    if node.op_type == "AveragePool" or attribute(node, "keepdims", 1):
        take_over(node.outputs[0], pool.outputs[0])
    else:
        made, shape = pool.outputs[0], source.shape
        assert shape is not None
        made.name = fresh_name(graph, f"{node.outputs[0].name}_pooled")
        made.type, made.shape = source.type, onnx_ir.Shape([shape[0], shape[1], 1, 1])
        flat = add_node(node, "Flatten", [made], {"axis": 1})
        flat.name = fresh_node_name(graph, f"{node.name}_flat")
        take_over(node.outputs[0], flat.outputs[0])
    remove(node)
