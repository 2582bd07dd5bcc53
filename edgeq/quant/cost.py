"""What an op or a change of precision is estimated to cost: the one place with the formulas.

Costs are whole picoseconds on a nominal core: counts from shapes times the rates below, which are
those of one Zen 4 core (`bench/kernels.py`, ONNX Runtime 1.31.1, one thread; 64 channels of 56x56
unless said). Only their proportions matter: what int8 gains on a target is its policy's ratio.
No clock is read, so that a plan is the same on every host. Other cores are assumed to have the
same proportions; a size that is not known counts as 1 on the first axis and as 64 on others.

    float op          count * rate
    int8 op           count * rate / ratio
    float -> int8     elements * (QUANTIZE + layout)
    int8 -> float     elements * (DEQUANTIZE + layout)
    layout            where a Conv or pool is at one end: CHANNELS_LAST on the int8 side, and
                      BLOCKED on the float side unless the tensor is the model's own
"""

from __future__ import annotations

import math

import onnx_ir

from edgeq.ir import attribute, constant
from edgeq.quant import kinds

QUANTIZE, DEQUANTIZE, CHANNELS_LAST, BLOCKED = 75, 120, 55, 100
"""Picoseconds per element of QuantizeLinear, DequantizeLinear, Transpose of codes, Reorder."""

_MAC = {"DepthwiseConv": 20, "NarrowDepthwiseConv": 20, "StemConv": 13}
_DENSE_MAC = 10
"""Picoseconds per multiply-add in float; depthwise and 3-channel kernels reach less."""

_ELEMENT = {
    "Mul": 200,
    "Sigmoid": 250,
    "LeakyRelu": 250,
    "SiLU": 90,  # each of its two ops: float has one QuickGelu of 180 for both
    "Resize": 390,
    "GlobalAveragePool": 65,
    "MaxPool": 30,  # per element of each window
    "AveragePool": 30,
}
_OTHER_ELEMENT = 100
"""Picoseconds per element, of input or output, whichever has more, of an op in float."""

_SILU_APART = 270
"""Picoseconds per element that a float SiLU costs more behind a DequantizeLinear, where the engine
does not see that its Sigmoid and its Mul are one op."""

_UNKNOWN_SIZE = 64
SPATIAL = ("Conv", "MaxPool", "AveragePool", "GlobalAveragePool")
"""Ops the engine runs with channels last in int8 and with blocked channels in float."""


def elements(value: onnx_ir.Value | None) -> int:
    """How many elements `value` is assumed to have; 0 where not even its rank is known."""
    if value is None or value.shape is None:
        return 0
    sizes = [
        size if isinstance(size, int) else (_UNKNOWN_SIZE if at else 1)
        for at, size in enumerate(value.shape)
    ]
    return math.prod(sizes)


def float_op(node: onnx_ir.Node) -> int:
    """Picoseconds of `node` in float."""
    kind = kinds.kind(node)
    if node.op_type in ("Conv", "Gemm", "MatMul"):
        return elements(node.outputs[0]) * _depth(node) * _MAC.get(kind, _DENSE_MAC)
    if node.op_type in ("MaxPool", "AveragePool"):
        window = math.prod(int(size) for size in attribute(node, "kernel_shape", ()))
        return elements(node.outputs[0]) * window * _ELEMENT[kind]
    most = max(elements(value) for value in (*node.inputs, *node.outputs))
    return most * _ELEMENT.get(kind, _OTHER_ELEMENT)


def change(value: onnx_ir.Value, rate: int, *, reorders: bool = True) -> int:
    """Picoseconds of taking `value` from float to int8 (`rate` QUANTIZE) or back (DEQUANTIZE), in
    an engine that `reorders` tensors on the way."""
    made, readers = value.producer(), value.consumers()
    ends = {node.op_type for node in (*readers, *([made] if made is not None else []))}
    if reorders and ends.intersection(SPATIAL):
        rate += CHANNELS_LAST
        if made is not None and not value.is_graph_output():
            rate += BLOCKED
    return elements(value) * rate


def seam(reader: onnx_ir.Node, value: onnx_ir.Value) -> int:
    """Picoseconds that `reader`, in float, costs more because an int8 op makes `value`."""
    apart = reader.op_type == "Sigmoid" and kinds.kind(reader) == "SiLU"
    return elements(value) * _SILU_APART if apart else 0


def _depth(node: onnx_ir.Node) -> int:
    """Multiply-adds per output element."""
    weight = node.inputs[1]
    if node.op_type == "Conv":
        array = constant(weight)
        return 0 if array is None else math.prod(array.shape[1:])
    left = node.inputs[0]
    shape = None if left is None else left.shape
    if shape is None or len(shape) == 0:
        return 0
    return shape[-1] if isinstance(shape[-1], int) else _UNKNOWN_SIZE
