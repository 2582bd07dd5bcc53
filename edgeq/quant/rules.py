"""Tables of what ONNX Runtime can run in int8 (measured with 1.31.1: tests/write/test_fusion.py).

One row per op type; the words are what a user reads as the reason an op stayed in float.
"""

from __future__ import annotations

HEAVY = ("Conv", "Gemm", "MatMul")
"""Ops int8 is for. The others become int8 only between them, to save the way through float."""

JOINERS = (
    "Add",
    "Mul",
    "Concat",
    "MaxPool",
    "AveragePool",
    "GlobalAveragePool",
    "Sigmoid",
    "LeakyRelu",
)
"""Arithmetic with an int8 kernel, worth it only between int8 ops."""

MOVES = (
    "Reshape",
    "Flatten",
    "Squeeze",
    "Unsqueeze",
    "Transpose",
    "Slice",
    "Gather",
    "Resize",
    "DepthToSpace",
    "Split",
)
"""Ops that only move elements: output and input share one encoding."""

PERMUTATIONS = ("Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose")
"""Moves that drop no element, so a graph input may be quantized before them."""

PROPAGATED = ("Reshape", "Transpose", "Squeeze", "Unsqueeze", "Slice", "MaxPool")
"""Float ops that ONNX Runtime pulls a DequantizeLinear down through, and a QuantizeLinear up. Where
a body reads what the last of them makes, its optimizer ends the process (1.31.1: an assertion on an
implicit input)."""

TIED = (*MOVES, "MaxPool", "AveragePool")
"""Output and input share one encoding; AveragePool because the TFLite int8 specification asks."""

OPERANDS = {"Conv": 3, "Gemm": 3, "MatMul": 2, "Add": 2, "Mul": 2, "Concat": None}
"""How many leading inputs of an int8 op are quantized (None: all); 1 for every other type."""

CLAMPS = ("Relu", "Clip")
"""Ops an int8 op before them can do by where its output range ends."""

UNCLAMPABLE = ("Sigmoid",)
"""int8 ops whose output encoding is fixed, so that no clamp can be folded into it."""

FIXED_OUTPUTS = {
    "Sigmoid": (1.0 / 256.0, -128),
    "Softmax": (1.0 / 256.0, -128),
    "Tanh": (1.0 / 128.0, 0),
}
"""Scale and zero point of outputs whose range is known (TFLite int8 specification)."""

QUANTIZED_OPS = frozenset(
    {
        "QuantizeLinear",
        "DequantizeLinear",
        "DynamicQuantizeLinear",
        "ConvInteger",
        "ConvTransposeInteger",
        "MatMulInteger",
        "MatMulIntegerToFloat",
        "DynamicQuantizeMatMul",
        "DynamicQuantizeLSTM",
        "GatherBlockQuantized",
        "MatMulNBits",
        "MatMulBnb4",
        "QAttention",
        "QEmbedLayerNormalization",
        "QGemm",
        "QMoE",
        "QOrderedMatMul",
    }
)
"""Ops only a quantized model has; besides these every name that starts with `QLinear`."""

_NO_KERNEL = (
    *("ConvTranspose", "Div", "Elu", "Erf", "Exp", "Gelu", "GlobalMaxPool", "HardSigmoid"),
    *("HardSwish", "InstanceNormalization", "LayerNormalization", "Log", "Max", "Mean", "Min"),
    *("Mish", "Pad", "Pow", "PRelu", "ReduceMean", "ReduceSum", "Selu", "Softplus"),
    *("SpaceToDepth", "Sqrt", "Sub", "Tanh"),
)

KEPT_FLOAT = {
    **{op: f"ONNX Runtime has no int8 kernel for `{op}`" for op in _NO_KERNEL},
    "Softmax": "ONNX Runtime's int8 `Softmax` is 5 times slower than its float one",
    "BatchNormalization": "this `BatchNormalization` follows no layer it could be folded into",
}
"""Why an op type is never int8 here."""


def is_quantized_op(op_type: str) -> bool:
    """Whether a node of this type means that the model was quantized before."""
    return op_type in QUANTIZED_OPS or op_type.startswith("QLinear")


def no_rule(op_type: str, domain: str) -> str:
    """The reason for an op type that no table knows."""
    name = f"{domain}.{op_type}" if domain else op_type
    return KEPT_FLOAT.get(name, f"edgeq has no int8 rule for `{name}`")
