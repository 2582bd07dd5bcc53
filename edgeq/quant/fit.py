"""Whether a plan is one of a graph: for plans that come from a file, not from a draft of it.

A reader of quantized models makes both at once; a saved plan may be replayed on another model.
"""

from __future__ import annotations

from collections.abc import Iterator

import onnx_ir

from edgeq.errors import EdgeqError
from edgeq.ir import Graph, constant
from edgeq.quant import candidates
from edgeq.quant.plan import DYNAMIC, Encoding, QuantPlan, reader_key

_NAMED = ("int8", *DYNAMIC, "int8-weights", "fp16-weights")
"""Precisions of ops that must be in the graph; others are told of ops in bodies too."""


def check(graph: Graph, plan: QuantPlan) -> None:
    """Raise [plan-mismatch] where names, types or shapes of `plan` are not those of `graph`.

    Every op that is not float is a node of the same type, with what it reads and makes encoded;
    every encoded tensor exists and has as many scales as sizes along its axis.
    """
    nodes = {str(node.name): node for node in graph.nodes()}
    values = {str(value.name): value for value in graph.values()}
    for name, decision in plan.ops.items():
        if decision.precision not in _NAMED or ("/" in name and name not in nodes):
            continue
        node = nodes.get(name)
        if node is None:
            raise _mismatch(f"it has an op `{name}`, and the graph has no such node")
        if node.op_type != decision.op_type:
            raise _mismatch(f"node `{name}` is a {node.op_type} and no {decision.op_type}")
        if decision.fused_into is not None and decision.fused_into not in nodes:
            raise _mismatch(f"node `{name}` is fused into `{decision.fused_into}`, no node here")
        if decision.precision == "int8":
            _check_encoded(node, plan)
    for key, encoding in plan.tensors.items():
        _check_shape(key, encoding, values, nodes)


def _check_encoded(node: onnx_ir.Node, plan: QuantPlan) -> None:
    """An int8 node reads codes and makes codes; what is folded away after it has its result's."""
    name = str(node.name)
    for value in _reads(node, plan):
        if plan.encoding(str(value.name), name) is None:
            raise _mismatch(f"tensor `{value.name}` has no encoding, and node `{name}` reads it")
    made = node.outputs[0]
    while str(made.name) not in plan.tensors:
        reader = candidates.only_use(made)
        decision = None if reader is None else plan.ops.get(str(reader.name))
        if reader is None or decision is None or decision.fused_into is None:
            raise _mismatch(f"tensor `{made.name}` has no encoding, and node `{name}` makes it")
        made = reader.outputs[0]


def _reads(node: onnx_ir.Node, plan: QuantPlan) -> Iterator[onnx_ir.Value]:
    decision = plan.ops[str(node.name)]
    if decision.fused_into is None:
        yield from candidates.operands(node)


def _check_shape(
    key: str,
    encoding: Encoding,
    values: dict[str, onnx_ir.Value],
    nodes: dict[str, onnx_ir.Node],
) -> None:
    value = values.get(key)
    if value is None:
        tensor, _, reader = key.rpartition("@")
        value = values.get(tensor)
        if value is None or reader not in nodes or key != reader_key(tensor, reader):
            raise _mismatch(f"it has a tensor `{key}`, and the graph has no such tensor")
    array = constant(value)
    if array is None or encoding.axis is None:
        return
    count = len(encoding.scale) * (encoding.block or 1)
    if encoding.dtype == "int32" and array.size in (1, count):
        return  # a bias may be one number for all channels
    size = array.size if encoding.block else array.shape[encoding.axis : encoding.axis + 1]
    if size not in (count, (count,)):
        raise _mismatch(f"tensor `{key}` {list(array.shape)} has {len(encoding.scale)} scales")


def _mismatch(what: str) -> EdgeqError:
    return EdgeqError("plan-mismatch", f"the plan does not fit the graph: {what}")
