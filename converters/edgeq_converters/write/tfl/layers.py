"""Weights and biases of layers, checked against what integer kernels take for granted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx_ir

from edgeq.ir import constant, dtype_of
from edgeq_converters.write.clamps import mismatch
from edgeq_converters.write.tfl.emitter import Array, Emitter, Unwritable

MOST_STEPS = 256
"""How many steps of its result a step of an int8 layer's products is at most, in XNNPACK."""


def transposer(order: Sequence[int]) -> Callable[[Array], Array]:
    """Brings an array's axes into `order`."""
    return lambda array: array.transpose(order)


def require_float(node: onnx_ir.Node) -> None:
    """Refuse a node whose tensors are no float32: TFLite's kernels have no others."""
    for value in (*node.inputs, *node.outputs):
        if value is not None and value.name and dtype_of(value) not in ("float32", ""):
            raise Unwritable(f"`{value.name}` is a tensor of {dtype_of(value)}")


def float_form(e: Emitter, made: int) -> int:
    """What a float operator makes for `made`: itself, or floats that `as_codes` brings to it."""
    return e.temp(e.file.shape(made)) if e.file.parameters(made) else made


def as_codes(e: Emitter, target: int, made: int) -> None:
    """Round what `float_form` gave to the codes of `made`, as everybody is to read it."""
    if target != made:
        e.op("QUANTIZE", [target], [made])


def input_at(node: onnx_ir.Node, at: int) -> onnx_ir.Value | None:
    """Input `at` of a node; None where it is left out."""
    return node.inputs[at] if at < len(node.inputs) else None


def check_scales(
    e: Emitter, data: onnx_ir.Value, weights: onnx_ir.Value, bias: onnx_ir.Value | None
) -> None:
    """Whether the plan's bias of an int8 layer is in steps of s_x * s_w, as kernels add it."""
    check_steps(e, data, weights)
    if not e.int8 or bias is None:
        return
    x, w, b = (e.encoding(value) for value in (data, weights, bias))
    if x is None or w is None or b is None:
        return  # who takes it says so
    product = np.float32(x.scale[0]) * np.array(w.scale, np.float32)
    given = np.array(b.scale, np.float32)
    fits = 1 in (given.size, product.size) or given.size == product.size
    if not fits or (given != product).any():
        raise mismatch(f"the scale of bias `{bias.name}` is not that of its products")
    if any(b.zero_point):
        raise mismatch(f"bias `{bias.name}` has a zero point")


def check_steps(e: Emitter, data: onnx_ir.Value, weights: onnx_ir.Value) -> None:
    """Whether an int8 layer's result has steps that XNNPACK can bring its products to; a file in
    which one has not is refused as a whole."""
    if not e.int8 or e.node is None:
        return
    x, w, y = (e.encoding(value) for value in (data, weights, e.node.outputs[0]))
    if x is None or w is None or y is None:
        return  # who takes it says so
    if x.scale[0] * max(w.scale) >= MOST_STEPS * y.scale[0]:
        raise Unwritable(
            f"one step of its products is over {MOST_STEPS} of its result, which XNNPACK refuses; "
            f"keep it in float: `--keep-float {e.node.name}`"
        )


def bias_or_zeros(
    e: Emitter,
    data: onnx_ir.Value,
    weights: onnx_ir.Value,
    bias: onnx_ir.Value | None,
    channels: int,
) -> int:
    """The bias of a convolution; zeros where it has none, which every engine takes."""
    if bias is not None and constant(bias) is None:
        return e.take(bias)
    check_scales(e, data, weights, bias)
    if bias is not None:
        return e.bias(bias, channels)
    name = f"{e.node.outputs[0].name}_bias"
    if not e.int8:
        return e.numbers(np.zeros(channels), "float32", name)
    x, w = e.encoding(data), e.encoding(weights)
    if x is None or w is None:
        raise mismatch(f"node `{e.node.name}` reads something that has no encoding")
    scale = np.float32(x.scale[0]) * np.array(w.scale, np.float32)
    zeros = [0] * len(scale)
    parameters: dict[str, Any] = {"scale": scale, "zero_point": zeros, "axis": 0}
    return e.file.constant(name, np.zeros(channels, np.int32), **parameters)
