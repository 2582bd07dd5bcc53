"""The kinds of op that an engine's kernel table tells apart, finer than op types."""

from __future__ import annotations

import onnx_ir

from edgeq.ir import attribute, constant

FALLBACK = {
    "NarrowDepthwiseConv": "DepthwiseConv",
    "DepthwiseConv": "Conv",
    "StemConv": "Conv",
    "GroupedConv": "Conv",
    "MatMul": "Gemm",
    "ActivationMatMul": "Gemm",
    "Conv": "CNN",
    "Gemm": "Transformer",
}
"""The kind whose row counts where a kind has none."""

NETS = ("CNN", "Transformer")
"""Rows about whole nets, of engines whose kinds were not measured one by one."""

WORDS = {
    "NarrowDepthwiseConv": "depthwise `Conv` of few channels",
    "DepthwiseConv": "depthwise `Conv`",
    "StemConv": "`Conv` of 1 to 3 input channels",
    "GroupedConv": "grouped `Conv`",
    "ActivationMatMul": "`MatMul` of two activations",
    "SiLU": "x * Sigmoid(x)",
}
"""What a user calls a kind that is no op type."""

NARROW = 128
"""Below this many channels a depthwise kernel is narrow: it pays per position, not per channel."""

STEM = 4
"""A Conv of fewer input channels is a stem: it misses the packed int8 kernels."""


def kind(node: onnx_ir.Node) -> str:
    """The row of a kernel table that is about `node`: its op type unless shapes make another."""
    if node.op_type == "Conv":
        return _conv(node)
    if node.op_type == "MatMul":
        computed = len(node.inputs) > 1 and constant(node.inputs[1]) is None
        return "ActivationMatMul" if computed else "MatMul"
    return "SiLU" if node.op_type in ("Sigmoid", "Mul") and _is_silu(node) else node.op_type


def _conv(node: onnx_ir.Node) -> str:
    weight = constant(node.inputs[1]) if len(node.inputs) > 1 else None
    group = int(attribute(node, "group", 1))
    if weight is None or weight.ndim < 3:
        return "Conv"
    if group > 1 and weight.shape[1] == 1:
        return "NarrowDepthwiseConv" if weight.shape[0] < NARROW else "DepthwiseConv"
    if group > 1:
        return "GroupedConv"
    return "StemConv" if weight.shape[1] < STEM else "Conv"


def _is_silu(node: onnx_ir.Node) -> bool:
    """Whether `node` is a half of x * Sigmoid(x), which float engines run as one op."""
    if node.op_type == "Sigmoid":
        readers = node.outputs[0].consumers()
        return any(reader.op_type == "Mul" and _is_silu(reader) for reader in readers)
    pair = list(node.inputs)
    for gate, other in (pair, reversed(pair)) if len(pair) == 2 else ():
        maker = None if gate is None else gate.producer()
        if maker is not None and maker.op_type == "Sigmoid" and maker.inputs[0] is other:
            return True
    return False
