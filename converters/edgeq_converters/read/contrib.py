"""The operators of com.microsoft that ONNX Runtime has CPU kernels for."""

from __future__ import annotations

# The kernel registry of onnxruntime 1.31.1 (`get_all_opkernel_def`, provider CPU); a test compares
# the two. Which of them an older engine lacks shows when it is asked to load the model.
CPU_OPERATORS = frozenset(
    """
    Attention AttnLSTM BeamSearch BiasGelu BifurcationDetector BranchwiseRMSNorm CDist
    CausalConvWithState ConvTransposeWithDynamicPads CropAndResize
    DecoderMaskedMultiHeadAttention DequantizeLinear DynamicQuantizeLSTM
    DynamicQuantizeMatMul DynamicTimeWarping EmbedLayerNormalization EngramGate ExpandDims
    FastGelu FusedConv FusedGemm FusedMatMul GatedAdd GatedRMSNorm GatherBlockQuantized
    GatherND Gelu GreedySearch GridSample GroupQueryAttention HyperConnectionPostMix
    HyperConnectionPreMix Inverse LinearAttention LinearAttentionGate MRotaryEmbedding
    MatMulBnb4 MatMulFpQ4 MatMulInteger16 MatMulIntegerToFloat MatMulNBits MaxpoolWithMask
    MoE MultiHeadAttention MurmurHash3 NGramHashMapping NGramRepeatBlock NhwcMaxPool Pad
    QAttention QEmbedLayerNormalization QGemm QLinearAdd QLinearAveragePool QLinearConcat
    QLinearConv QLinearGlobalAveragePool QLinearLeakyRelu QLinearMul QLinearSigmoid
    QLinearSoftmax QLinearWhere QMoE QuantizeLinear QuickGelu Range RotaryEmbedding SampleOp
    Sampling ScaledSiLU SkipLayerNormalization SkipSimplifiedLayerNormalization
    SparseAttention SparseToDenseMatMul Tokenizer TransposeMatMul Trilu UnfoldTensor Unique
    VarlenNGramHashMapping WhisperBeamSearch WordConvEmbedding
    """.split()  # noqa: SIM905
)
