"""What a single node needs to run in int8 on an engine, its neighbours left aside."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir

from edgeq.ir import constant, dtype_of, is_captured, static_shape
from edgeq.quant import rules, stored
from edgeq.quant.kernels import Kernels
from edgeq.quant.layers import Layer, find_layer


@dataclass(frozen=True)
class Candidate:
    """A node that could run in int8: the activations it reads and makes, and its constants."""

    inputs: tuple[onnx_ir.Value, ...]
    outputs: tuple[onnx_ir.Value, ...]
    constants: tuple[str, ...] = ()
    layer: Layer | None = None


def find(node: onnx_ir.Node, kernels: Kernels) -> Candidate | str:
    """The int8 form of `node`, or the reason it has none."""
    if node.domain not in ("", "ai.onnx"):
        return kernels.no_rule(node.op_type, node.domain)
    check = kernels.checks.get(node.op_type)
    refused = check(node) if check is not None else ""
    if node.op_type in kernels.heavy:
        return refused or _heavy(node, kernels)
    if node.op_type in (*kernels.joiners, *kernels.moves, *rules.CLAMPS):
        return refused or _light(node)
    if node.op_type in stored.RECURRENT:  # int8 is for its weights alone
        decided = stored.in_place(node, stored.STORED)
        return decided if isinstance(decided, str) else stored.STORED
    return kernels.no_rule(node.op_type, "")


def only_use(value: onnx_ir.Value) -> onnx_ir.Node | None:
    """The one node that reads `value`; None if there are more, a body does, or it is an output."""
    if value.is_graph_output() or len(value.uses()) != 1 or is_captured(value):
        return None
    return value.consumers()[0]


def crashes_in_body(value: onnx_ir.Value, is_int8: Callable[[onnx_ir.Node], bool]) -> bool:
    """Whether `value`, dequantized, goes through float ops of `rules.PROPAGATED` into a body."""
    for reader in value.consumers():
        if reader.graph is not value.graph or reader.domain or is_int8(reader):
            continue
        if reader.op_type in rules.PROPAGATED and reader.inputs[0] is value:
            made = reader.outputs[0]
            if is_captured(made) or crashes_in_body(made, is_int8):
                return True
    return False


def why_not_folded(node: onnx_ir.Node, kernels: Kernels) -> str:
    """The reason for a clamp that could have been folded but was not."""
    value = node.inputs[0]
    assert value is not None
    alone = f"and {kernels.engine} has no int8 `{node.op_type}`"
    if value.producer() is None:
        return f"it reads the model's input, {alone}"
    if only_use(value) is None:
        return f"`{value.name}` is read elsewhere too, {alone}"
    return f"no int8 op makes `{value.name}`, {alone}"


def works_on(node: onnx_ir.Node) -> str:
    """The type of what `node` makes, if all of it is known not to be float, else "float32"."""
    dtypes = [dtype_of(value) for value in node.outputs if value.name]
    whole = all(dtype and not dtype.startswith(("float", "bfloat")) for dtype in dtypes)
    return dtypes[0] if dtypes and whole else "float32"


def operands(node: onnx_ir.Node) -> list[onnx_ir.Value]:
    """The inputs of `node` that are quantized when it runs in int8, those left out skipped."""
    count = rules.OPERANDS.get(node.op_type, 1)
    return [value for value in node.inputs[:count] if value is not None]


def _heavy(node: onnx_ir.Node, kernels: Kernels) -> Candidate | str:
    layer = find_layer(node, kernels)
    if isinstance(layer, str):
        return layer
    if layer is not None:
        values = operands(node)
        return _checked(values, node.outputs[:1], values[:1], layer=layer)
    return _light(node)


def _light(node: onnx_ir.Node) -> Candidate | str:
    """Ops that read activations, and constants in their place (Add, Concat, MatMul)."""
    values = operands(node)
    used = [value for value in node.outputs if value.uses() or value.is_graph_output()]
    if node.op_type == "Split" and len(used) != len(node.outputs):
        return "one of its outputs is not used"
    if node.op_type != "Split" and any(value is not node.outputs[0] for value in used):
        return "its second output is used"
    active = [value for value in values if constant(value) is None]
    if not active:
        return "its operands are constant"
    for value in values:
        array = constant(value)
        if array is not None and array.dtype.kind == "f" and not np.isfinite(array).all():
            return f"`{value.name}` holds an infinity, which no int8 code stands for"
    fixed = tuple(str(value.name) for value in values if constant(value) is not None)
    outputs = node.outputs if node.op_type == "Split" else node.outputs[:1]
    return _checked(values, outputs, active, fixed)


def _checked(
    values: Sequence[onnx_ir.Value],
    outputs: Sequence[onnx_ir.Value],
    inputs: Sequence[onnx_ir.Value],
    constants: tuple[str, ...] = (),
    *,
    layer: Layer | None = None,
) -> Candidate | str:
    """A candidate if all tensors are float32 and none is known to be empty."""
    for value in (*values, *outputs):
        dtype = dtype_of(value)
        if not dtype:
            return f"the type of `{value.name}` is not known"
        if dtype != "float32":
            return f"`{value.name}` is a tensor of {dtype}"
        if 0 in (static_shape(value) or ()) or 0 in getattr(constant(value), "shape", ()):
            return f"`{value.name}` has no elements"
    return Candidate(tuple(inputs), tuple(outputs), constants, layer)
