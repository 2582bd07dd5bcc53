"""What quantization asks of op types whatever the engine; `kernels` has what each engine runs."""

from __future__ import annotations

WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul", "LSTM", "GRU", "RNN")
"""Ops that hold weights: a model with none of them has nothing that int8 is for."""

PERMUTATIONS = ("Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose")
"""Moves that drop no element, so a graph input may be quantized before them."""

PROPAGATED = ("Reshape", "Transpose", "Squeeze", "Unsqueeze", "Slice", "MaxPool")
"""Float ops that ONNX Runtime pulls a DequantizeLinear down through, and a QuantizeLinear up. Where
a body reads what the last of them makes, its optimizer ends the process (1.31.1: an assertion on an
implicit input). A plan for any engine has an ONNX form, in which it is measured."""

OPERANDS = {
    "Conv": 3,
    "ConvTranspose": 3,
    "Gemm": 3,
    "MatMul": 2,
    "Add": 2,
    "Sub": 2,
    "Mul": 2,
    "PRelu": 2,
    "Concat": None,
    "Max": None,
    "Min": None,
}
"""How many leading inputs of an int8 op are quantized (None: all); 1 for every other type."""

CLAMPS = ("Relu", "Clip")
"""Ops an int8 op before them can do by where its output range ends."""

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


def is_quantized_op(op_type: str) -> bool:
    """Whether a node of this type means that the model was quantized before."""
    return op_type in QUANTIZED_OPS or op_type.startswith("QLinear")
