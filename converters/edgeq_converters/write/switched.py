"""Write the float graph with a switch per group of tensors: off it runs in float, on these tensors
go through Quantize and Dequantize. One session then answers what each of them costs alone.

A switch is an `If`, so that what is off costs a copy and no arithmetic.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx

from edgeq.ir import Graph
from edgeq.quant.plan import Encoding
from edgeq_converters.write import onnx as plain
from edgeq_converters.write import tensors
from edgeq_runtime.outside import ModelBytes

_FLOAT = onnx.TensorProto.FLOAT


def switch_name(index: int) -> str:
    """The scalar bool input that quantizes group `index`."""
    return f"edgeq_switch_{index}"


def write(graph: Graph, groups: Sequence[Sequence[tuple[str, Encoding]]]) -> bytes:
    """An ONNX file with the inputs of `graph` and a bool input for each of `groups`.

    Every tensor named is a float32 tensor of the graph, in one group, constants among them; inputs
    and outputs keep their names.
    """
    written = plain.write(graph, None)
    model = onnx.load_model_from_string(written)
    owner = {tensor: index for index, group in enumerate(groups) for tensor, _ in group}
    encodings = {tensor: encoding for group in groups for tensor, encoding in group}
    given = [value.name for value in (*model.graph.input, *model.graph.initializer)]
    copied = {name: _switched(name) for name in given if name in owner}
    nodes = [
        _switch(name, copy, owner[name], encodings[name].axis) for name, copy in copied.items()
    ]
    for node in model.graph.node:
        nodes.append(node)
        _rename_reads(node, copied)
        for at, name in enumerate(node.output):
            if name in owner:
                node.output[at] = _raw(name)
                nodes.append(_switch(_raw(name), name, owner[name], encodings[name].axis))
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    _declare(model.graph, len(groups))
    _add_parameters(model.graph, encodings, copied)
    data = bytes(model.SerializeToString(deterministic=True))
    if isinstance(written, ModelBytes):
        return ModelBytes.beside(data, written.folder, written.weights_bytes)
    return data


def _raw(name: str) -> str:
    return f"edgeq_raw/{name}"


def _switched(name: str) -> str:
    return f"edgeq_switched/{name}"


def _parameters(source: str) -> tuple[str, str]:
    return f"{source}/edgeq_scale", f"{source}/edgeq_zero_point"


def _switch(source: str, target: str, index: int, axis: int | None) -> onnx.NodeProto:
    """`target` = quantized `source` where the switch is on, else `source` itself."""
    scale, zero_point = _parameters(source)
    codes, rounded, same = (f"{target}/edgeq_{word}" for word in ("codes", "rounded", "same"))
    helper = onnx.helper
    where: dict[str, Any] = {} if axis is None else {"axis": axis}
    on = helper.make_graph(
        [
            helper.make_node("QuantizeLinear", [source, scale, zero_point], [codes], **where),
            helper.make_node("DequantizeLinear", [codes, scale, zero_point], [rounded], **where),
        ],
        "on",
        [],
        [helper.make_tensor_value_info(rounded, _FLOAT, None)],
    )
    off = helper.make_graph(
        [helper.make_node("Identity", [source], [same])],
        "off",
        [],
        [helper.make_tensor_value_info(same, _FLOAT, None)],
    )
    return helper.make_node("If", [switch_name(index)], [target], then_branch=on, else_branch=off)


def _rename_reads(node: onnx.NodeProto, renamed: Mapping[str, str]) -> None:
    """Point reads at the switched copy, in bodies too."""
    for at, name in enumerate(node.input):
        if name in renamed:
            node.input[at] = renamed[name]
    for attribute in node.attribute:
        bodies = [attribute.g] if attribute.HasField("g") else []
        for body in (*bodies, *attribute.graphs):
            for inner in body.node:
                _rename_reads(inner, renamed)


def _declare(graph: onnx.GraphProto, count: int) -> None:
    for index in range(count):
        graph.input.append(
            onnx.helper.make_tensor_value_info(switch_name(index), onnx.TensorProto.BOOL, [])
        )


def _add_parameters(
    graph: onnx.GraphProto, encodings: Mapping[str, Encoding], copied: Mapping[str, str]
) -> None:
    """Scale and zero point of each switched tensor, under the name of its float source."""
    for tensor, encoding in encodings.items():
        scale, zero_point = _parameters(tensor if tensor in copied else _raw(tensor))
        shape = () if encoding.axis is None else (len(encoding.scale),)
        scales = np.array(encoding.scale, np.float32).reshape(shape)
        points = np.array(encoding.zero_point, np.int8).reshape(shape)
        graph.initializer.append(tensors.from_array(scale, scales))
        graph.initializer.append(tensors.from_array(zero_point, points))
