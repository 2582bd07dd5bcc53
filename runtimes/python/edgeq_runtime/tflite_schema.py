"""The TFLite flatbuffer schema as data: tables, unions, enumerations, operators.

Facts of the schema that LiteRT 2.3 carries (schema.fbs of the TensorFlow and LiteRT projects, file
identifier TFL3): the number and type of each field. A test compares every row with the schema
module of ai-edge-litert.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import NamedTuple

IDENTIFIER = b"TFL3"
VERSION = 3


DTYPES: tuple[str, ...] = (
    "float32",
    "float16",
    "int32",
    "uint8",
    "int64",
    "string",
    "bool",
    "int16",
    "complex64",
    "int8",
    "float64",
    "complex128",
    "uint64",
    "resource",
    "variant",
    "uint32",
    "uint16",
    "int4",
    "bfloat16",
    "int2",
    "uint4",
    "float8_e4m3fn",
    "float8_e5m2",
)
"""TensorType by number: numpy's names, and those of what numpy does not have."""
BITS: Mapping[str, int] = {
    "float32": 32,
    "float16": 16,
    "int32": 32,
    "uint8": 8,
    "int64": 64,
    "bool": 8,
    "int16": 16,
    "complex64": 64,
    "int8": 8,
    "float64": 64,
    "complex128": 128,
    "uint64": 64,
    "uint32": 32,
    "uint16": 16,
    "int4": 4,
    "bfloat16": 16,
    "int2": 2,
    "uint4": 4,
    "float8_e4m3fn": 8,
    "float8_e5m2": 8,
}
"""Bits of one element; strings, resources and variants have no fixed size."""
RANGES: Mapping[str, tuple[int, int]] = {
    "int2": (-2, 1),
    "int4": (-8, 7),
    "uint4": (0, 15),
    "int8": (-128, 127),
    "uint8": (0, 255),
    "int16": (-(2**15), 2**15 - 1),
    "uint16": (0, 2**16 - 1),
    "int32": (-(2**31), 2**31 - 1),
    "uint32": (0, 2**32 - 1),
    "int64": (-(2**63), 2**63 - 1),
    "uint64": (0, 2**64 - 1),
}
"""The values of the integers."""

ENUMS: Mapping[str, tuple[str, ...]] = {
    "Activation": ("NONE", "RELU", "RELU_N1_TO_1", "RELU6", "TANH", "SIGN_BIT"),
    "Combiner": ("SUM", "MEAN", "SQRTN"),
    "LshProjection": ("UNKNOWN", "SPARSE", "DENSE"),
    "LstmKernel": ("FULL", "BASIC"),
    "MirrorPad": ("REFLECT", "SYMMETRIC"),
    "Padding": ("SAME", "VALID"),
    "ReduceWindow": ("UNSUPPORTED", "ADD", "MUL", "MINIMUM", "MAXIMUM", "ALL", "ANY"),
    "WeightsFormat": ("DEFAULT", "SHUFFLED4x16INT8"),
}

_UNION = """
NONE Conv2DOptions DepthwiseConv2DOptions ConcatEmbeddingsOptions LSHProjectionOptions
Pool2DOptions SVDFOptions RNNOptions FullyConnectedOptions SoftmaxOptions ConcatenationOptions
AddOptions L2NormOptions LocalResponseNormalizationOptions LSTMOptions ResizeBilinearOptions
CallOptions ReshapeOptions SkipGramOptions SpaceToDepthOptions EmbeddingLookupSparseOptions
MulOptions PadOptions GatherOptions BatchToSpaceNDOptions SpaceToBatchNDOptions TransposeOptions
ReducerOptions SubOptions DivOptions SqueezeOptions SequenceRNNOptions StridedSliceOptions
ExpOptions TopKV2Options SplitOptions LogSoftmaxOptions CastOptions DequantizeOptions
MaximumMinimumOptions ArgMaxOptions LessOptions NegOptions PadV2Options GreaterOptions
GreaterEqualOptions LessEqualOptions SelectOptions SliceOptions TransposeConvOptions
SparseToDenseOptions TileOptions ExpandDimsOptions EqualOptions NotEqualOptions ShapeOptions
PowOptions ArgMinOptions FakeQuantOptions PackOptions LogicalOrOptions OneHotOptions
LogicalAndOptions LogicalNotOptions UnpackOptions FloorDivOptions SquareOptions ZerosLikeOptions
FillOptions BidirectionalSequenceLSTMOptions BidirectionalSequenceRNNOptions
UnidirectionalSequenceLSTMOptions FloorModOptions RangeOptions ResizeNearestNeighborOptions
LeakyReluOptions SquaredDifferenceOptions MirrorPadOptions AbsOptions SplitVOptions
UniqueOptions ReverseV2Options AddNOptions GatherNdOptions CosOptions WhereOptions RankOptions
ReverseSequenceOptions MatrixDiagOptions QuantizeOptions MatrixSetDiagOptions HardSwishOptions
IfOptions WhileOptions DepthToSpaceOptions NonMaxSuppressionV4Options NonMaxSuppressionV5Options
ScatterNdOptions SelectV2Options DensifyOptions SegmentSumOptions BatchMatMulOptions
CumsumOptions CallOnceOptions BroadcastToOptions Rfft2dOptions Conv3DOptions HashtableOptions
HashtableFindOptions HashtableImportOptions HashtableSizeOptions VarHandleOptions
ReadVariableOptions AssignVariableOptions RandomOptions BucketizeOptions GeluOptions
DynamicUpdateSliceOptions UnsortedSegmentProdOptions UnsortedSegmentMaxOptions
UnsortedSegmentMinOptions UnsortedSegmentSumOptions ATan2Options SignOptions BitcastOptions
BitwiseXorOptions RightShiftOptions
"""
BUILTIN_OPTIONS: tuple[str, ...] = tuple(_UNION.split())
"""The union of options, by the number of its type."""
_UNION_2 = """
NONE StablehloConcatenateOptions StablehloBroadcastInDimOptions StablehloSliceOptions
StablehloConvolutionOptions StablehloCustomCallOptions StablehloReduceOptions
StablehloScatterOptions StablehloCompareOptions StablehloDynamicSliceOptions StablehloPadOptions
StablehloIotaOptions StablehloDotGeneralOptions StablehloReduceWindowOptions
StablehloSortOptions StablehloWhileOptions StablehloGatherOptions StablehloTransposeOptions
DilateOptions StablehloRngBitGeneratorOptions ReduceWindowOptions StableHLOCompositeOptions
StablehloShiftLeftOptions StablehloCaseOptions
"""
BUILTIN_OPTIONS_2: tuple[str, ...] = tuple(_UNION_2.split())
QUANTIZATION_DETAILS = (
    "NONE",
    "CustomQuantization",
    "BlockwiseQuantization",
    "MultiAxisQuantization",
)

_TABLES = """
Model version:u32 operator_codes:[OperatorCode] subgraphs:[SubGraph] description:str
    buffers:[Buffer] metadata_buffer:[i32] metadata:[Metadata] signature_defs:[SignatureDef]
    external_buffer_groups:[ExternalBufferGroup] external_buffers:[ExternalBuffer]
OperatorCode deprecated_builtin_code:i8 custom_code:str version:i32=1 builtin_code:i32
SubGraph tensors:[Tensor] inputs:[i32] outputs:[i32] operators:[Operator] name:str
    debug_metadata_index:i32=-1
Tensor shape:[i32] type:i8 buffer:u32 name:str quantization:QuantizationParameters
    is_variable:bool sparsity:SparsityParameters shape_signature:[i32] has_rank:bool
    variant_tensors:[VariantSubType] external_buffer:u32
QuantizationParameters min:[f32] max:[f32] scale:[f32] zero_point:[i64] details_type:u8
    details:union quantized_dimension:i32
BlockwiseQuantization scales:i32 zero_points:i32 block_size:i32 block_shape:[i32]
Operator opcode_index:u32 inputs:[i32] outputs:[i32] builtin_options_type:u8 builtin_options:union
    custom_options:[u8] custom_options_format:i8 mutating_variable_inputs:[bool]
    intermediates:[i32] large_custom_options_offset:u64 large_custom_options_size:u64
    builtin_options2_type:u8 builtin_options2:union debug_metadata_index:i32=-1
Buffer data:[u8] offset:u64 size:u64
Metadata name:str buffer:u32
TensorMap name:str tensor_index:u32
SignatureDef inputs:[TensorMap] outputs:[TensorMap] signature_key:str - subgraph_index:u32
Conv2DOptions padding:Padding stride_w:i32 stride_h:i32 fused_activation_function:Activation
    dilation_w_factor:i32=1 dilation_h_factor:i32=1 quantized_bias_type:dtype
DepthwiseConv2DOptions padding:Padding stride_w:i32 stride_h:i32 depth_multiplier:i32
    fused_activation_function:Activation dilation_w_factor:i32=1 dilation_h_factor:i32=1
ConcatEmbeddingsOptions num_channels:i32 num_columns_per_channel:[i32]
    embedding_dim_per_channel:[i32]
LSHProjectionOptions type:LshProjection
Pool2DOptions padding:Padding stride_w:i32 stride_h:i32 filter_width:i32 filter_height:i32
    fused_activation_function:Activation
SVDFOptions rank:i32 fused_activation_function:Activation asymmetric_quantize_inputs:bool
RNNOptions fused_activation_function:Activation asymmetric_quantize_inputs:bool
FullyConnectedOptions fused_activation_function:Activation weights_format:WeightsFormat
    keep_num_dims:bool asymmetric_quantize_inputs:bool quantized_bias_type:dtype quant_spec:[u8]
SoftmaxOptions beta:f32
ConcatenationOptions axis:i32 fused_activation_function:Activation
AddOptions fused_activation_function:Activation pot_scale_int16:bool=1
L2NormOptions fused_activation_function:Activation
LocalResponseNormalizationOptions radius:i32 bias:f32 alpha:f32 beta:f32
LSTMOptions fused_activation_function:Activation cell_clip:f32 proj_clip:f32
    kernel_type:LstmKernel asymmetric_quantize_inputs:bool
ResizeBilinearOptions - - align_corners:bool half_pixel_centers:bool
CallOptions subgraph:u32
ReshapeOptions new_shape:[i32]
SkipGramOptions ngram_size:i32 max_skip_size:i32 include_all_ngrams:bool
SpaceToDepthOptions block_size:i32
EmbeddingLookupSparseOptions combiner:Combiner
MulOptions fused_activation_function:Activation
GatherOptions axis:i32 batch_dims:i32
ReducerOptions keep_dims:bool
SubOptions fused_activation_function:Activation pot_scale_int16:bool=1
DivOptions fused_activation_function:Activation
SqueezeOptions squeeze_dims:[i32]
SequenceRNNOptions time_major:bool fused_activation_function:Activation
    asymmetric_quantize_inputs:bool
StridedSliceOptions begin_mask:i32 end_mask:i32 ellipsis_mask:i32 new_axis_mask:i32
    shrink_axis_mask:i32 offset:bool
SplitOptions num_splits:i32
CastOptions in_data_type:dtype out_data_type:dtype
ArgMaxOptions output_type:dtype
TransposeConvOptions padding:Padding stride_w:i32 stride_h:i32
    fused_activation_function:Activation quantized_bias_type:dtype
SparseToDenseOptions validate_indices:bool
ShapeOptions out_type:dtype
ArgMinOptions output_type:dtype
FakeQuantOptions min:f32 max:f32 num_bits:i32 narrow_range:bool
PackOptions values_count:i32 axis:i32
OneHotOptions axis:i32
UnpackOptions num:i32 axis:i32
BidirectionalSequenceLSTMOptions fused_activation_function:Activation cell_clip:f32 proj_clip:f32
    merge_outputs:bool time_major:bool=1 asymmetric_quantize_inputs:bool
BidirectionalSequenceRNNOptions time_major:bool fused_activation_function:Activation
    merge_outputs:bool asymmetric_quantize_inputs:bool
UnidirectionalSequenceLSTMOptions fused_activation_function:Activation cell_clip:f32 proj_clip:f32
    time_major:bool asymmetric_quantize_inputs:bool diagonal_recurrent_tensors:bool
ResizeNearestNeighborOptions align_corners:bool half_pixel_centers:bool
LeakyReluOptions alpha:f32
MirrorPadOptions mode:MirrorPad
SplitVOptions num_splits:i32
UniqueOptions idx_out_type:dtype=2
ReverseSequenceOptions seq_dim:i32 batch_dim:i32
IfOptions then_subgraph_index:i32 else_subgraph_index:i32
WhileOptions cond_subgraph_index:i32 body_subgraph_index:i32
DepthToSpaceOptions block_size:i32
BatchMatMulOptions adj_x:bool adj_y:bool asymmetric_quantize_inputs:bool
CumsumOptions exclusive:bool reverse:bool
CallOnceOptions init_subgraph_index:i32
Conv3DOptions padding:Padding stride_d:i32 stride_w:i32 stride_h:i32
    fused_activation_function:Activation dilation_d_factor:i32=1 dilation_w_factor:i32=1
    dilation_h_factor:i32=1
HashtableOptions table_id:i32 key_dtype:dtype value_dtype:dtype
VarHandleOptions container:str shared_name:str
RandomOptions seed:i64 seed2:i64
BucketizeOptions boundaries:[f32]
GeluOptions approximate:bool
StablehloConcatenateOptions dimension:i64
StablehloBroadcastInDimOptions broadcast_dimensions:[i64]
StablehloSliceOptions start_indices:[i64] limit_indices:[i64] strides:[i64]
StablehloConvolutionOptions window_strides:[i64] padding:[i64] lhs_dilation:[i64]
    rhs_dilation:[i64] window_reversal:[bool] input_batch_dimension:i64
    input_feature_dimension:i64 input_spatial_dimensions:[i64] kernel_input_feature_dimension:i64
    kernel_output_feature_dimension:i64 kernel_spatial_dimensions:[i64] output_batch_dimension:i64
    output_feature_dimension:i64 output_spatial_dimensions:[i64] feature_group_count:i64
    batch_group_count:i64 precision_config:[u32]
StablehloCustomCallOptions call_target_name:str has_side_effect:bool backend_config:str
    api_version:i32 called_computations:[i32] custom_attributes:[u8]
StablehloReduceOptions dimensions:[i64] body_subgraph_index:i32
StablehloScatterOptions indices_are_sorted:bool update_window_dims:[i64]
    inserted_window_dims:[i64] scatter_dims_to_operand_dims:[i64] index_vector_dim:i64
    unique_indices:bool update_computation_subgraph_index:i32
StablehloCompareOptions comparison_direction:u32 compare_type:u32
StablehloDynamicSliceOptions slice_sizes:[i64]
StablehloPadOptions edge_padding_low:[i64] edge_padding_high:[i64] interior_padding:[i64]
StablehloIotaOptions iota_dimension:i64
StablehloDotGeneralOptions lhs_batching_dimensions:[i64] rhs_batching_dimensions:[i64]
    lhs_contracting_dimensions:[i64] rhs_contracting_dimensions:[i64] precision_config:[u32]
StablehloReduceWindowOptions window_dimensions:[i64] window_strides:[i64] base_dilations:[i64]
    window_dilations:[i64] padding:[i64] body_subgraph_index:i32
StablehloSortOptions dimension:i64 is_stable:bool comparator_subgraph_index:i32
StablehloWhileOptions cond_subgraph_index:i32 body_subgraph_index:i32
StablehloGatherOptions offset_dims:[i64] collapsed_slice_dims:[i64] start_index_map:[i64]
    index_vector_dim:i64 slice_sizes:[i64] indices_are_sorted:bool
StablehloTransposeOptions permutation:[i64]
StablehloRngBitGeneratorOptions algorithm:i8
ReduceWindowOptions reduce_function:ReduceWindow
StableHLOCompositeOptions name:str decomposition_subgraph_index:i32 composite_attributes:[u8]
    composite_attributes_format:i8 version:i32
StablehloCaseOptions branch_subgraph_indices:[i32]
"""
"""Tables with fields; those of the unions that are not here have none."""

_OPERATORS = """
ADD:AddOptions AVERAGE_POOL_2D:Pool2DOptions CONCATENATION:ConcatenationOptions
CONV_2D:Conv2DOptions DEPTHWISE_CONV_2D:DepthwiseConv2DOptions
DEPTH_TO_SPACE:DepthToSpaceOptions DEQUANTIZE:DequantizeOptions EMBEDDING_LOOKUP FLOOR
FULLY_CONNECTED:FullyConnectedOptions HASHTABLE_LOOKUP L2_NORMALIZATION:L2NormOptions
L2_POOL_2D:Pool2DOptions LOCAL_RESPONSE_NORMALIZATION:LocalResponseNormalizationOptions LOGISTIC
LSH_PROJECTION:LSHProjectionOptions LSTM:LSTMOptions MAX_POOL_2D:Pool2DOptions MUL:MulOptions
RELU RELU_N1_TO_1 RELU6 RESHAPE:ReshapeOptions RESIZE_BILINEAR:ResizeBilinearOptions
RNN:RNNOptions SOFTMAX:SoftmaxOptions SPACE_TO_DEPTH:SpaceToDepthOptions SVDF:SVDFOptions TANH
CONCAT_EMBEDDINGS:ConcatEmbeddingsOptions SKIP_GRAM:SkipGramOptions CALL:CallOptions CUSTOM
EMBEDDING_LOOKUP_SPARSE:EmbeddingLookupSparseOptions PAD:PadOptions
UNIDIRECTIONAL_SEQUENCE_RNN:SequenceRNNOptions GATHER:GatherOptions
BATCH_TO_SPACE_ND:BatchToSpaceNDOptions SPACE_TO_BATCH_ND:SpaceToBatchNDOptions
TRANSPOSE:TransposeOptions MEAN:ReducerOptions SUB:SubOptions DIV:DivOptions
SQUEEZE:SqueezeOptions UNIDIRECTIONAL_SEQUENCE_LSTM:UnidirectionalSequenceLSTMOptions
STRIDED_SLICE:StridedSliceOptions BIDIRECTIONAL_SEQUENCE_RNN:BidirectionalSequenceRNNOptions
EXP:ExpOptions TOPK_V2:TopKV2Options SPLIT:SplitOptions LOG_SOFTMAX:LogSoftmaxOptions DELEGATE
BIDIRECTIONAL_SEQUENCE_LSTM:BidirectionalSequenceLSTMOptions CAST:CastOptions PRELU
MAXIMUM:MaximumMinimumOptions ARG_MAX:ArgMaxOptions MINIMUM:MaximumMinimumOptions
LESS:LessOptions NEG:NegOptions PADV2:PadV2Options GREATER:GreaterOptions
GREATER_EQUAL:GreaterEqualOptions LESS_EQUAL:LessEqualOptions SELECT:SelectOptions
SLICE:SliceOptions SIN TRANSPOSE_CONV:TransposeConvOptions SPARSE_TO_DENSE:SparseToDenseOptions
TILE:TileOptions EXPAND_DIMS:ExpandDimsOptions EQUAL:EqualOptions NOT_EQUAL:NotEqualOptions LOG
SUM:ReducerOptions SQRT RSQRT SHAPE:ShapeOptions POW:PowOptions ARG_MIN:ArgMinOptions
FAKE_QUANT:FakeQuantOptions REDUCE_PROD:ReducerOptions REDUCE_MAX:ReducerOptions
PACK:PackOptions LOGICAL_OR:LogicalOrOptions ONE_HOT:OneHotOptions LOGICAL_AND:LogicalAndOptions
LOGICAL_NOT:LogicalNotOptions UNPACK:UnpackOptions REDUCE_MIN:ReducerOptions
FLOOR_DIV:FloorDivOptions REDUCE_ANY:ReducerOptions SQUARE:SquareOptions
ZEROS_LIKE:ZerosLikeOptions FILL:FillOptions FLOOR_MOD:FloorModOptions RANGE:RangeOptions
RESIZE_NEAREST_NEIGHBOR:ResizeNearestNeighborOptions LEAKY_RELU:LeakyReluOptions
SQUARED_DIFFERENCE:SquaredDifferenceOptions MIRROR_PAD:MirrorPadOptions ABS:AbsOptions
SPLIT_V:SplitVOptions UNIQUE:UniqueOptions CEIL REVERSE_V2:ReverseV2Options ADD_N:AddNOptions
GATHER_ND:GatherNdOptions COS:CosOptions WHERE:WhereOptions RANK:RankOptions ELU
REVERSE_SEQUENCE:ReverseSequenceOptions MATRIX_DIAG:MatrixDiagOptions QUANTIZE:QuantizeOptions
MATRIX_SET_DIAG:MatrixSetDiagOptions ROUND HARD_SWISH:HardSwishOptions IF:IfOptions
WHILE:WhileOptions NON_MAX_SUPPRESSION_V4:NonMaxSuppressionV4Options
NON_MAX_SUPPRESSION_V5:NonMaxSuppressionV5Options SCATTER_ND:ScatterNdOptions
SELECT_V2:SelectV2Options DENSIFY:DensifyOptions SEGMENT_SUM:SegmentSumOptions
BATCH_MATMUL:BatchMatMulOptions PLACEHOLDER_FOR_GREATER_OP_CODES CUMSUM:CumsumOptions
CALL_ONCE:CallOnceOptions BROADCAST_TO:BroadcastToOptions RFFT2D:Rfft2dOptions
CONV_3D:Conv3DOptions IMAG REAL COMPLEX_ABS HASHTABLE:HashtableOptions
HASHTABLE_FIND:HashtableFindOptions HASHTABLE_IMPORT:HashtableImportOptions
HASHTABLE_SIZE:HashtableSizeOptions REDUCE_ALL:ReducerOptions CONV_3D_TRANSPOSE:Conv3DOptions
VAR_HANDLE:VarHandleOptions READ_VARIABLE:ReadVariableOptions
ASSIGN_VARIABLE:AssignVariableOptions BROADCAST_ARGS RANDOM_STANDARD_NORMAL:RandomOptions
BUCKETIZE:BucketizeOptions RANDOM_UNIFORM:RandomOptions MULTINOMIAL:RandomOptions
GELU:GeluOptions DYNAMIC_UPDATE_SLICE:DynamicUpdateSliceOptions RELU_0_TO_1
UNSORTED_SEGMENT_PROD:UnsortedSegmentProdOptions UNSORTED_SEGMENT_MAX:UnsortedSegmentMaxOptions
UNSORTED_SEGMENT_SUM:UnsortedSegmentSumOptions ATAN2:ATan2Options
UNSORTED_SEGMENT_MIN:UnsortedSegmentMinOptions SIGN:SignOptions BITCAST:BitcastOptions
BITWISE_XOR:BitwiseXorOptions RIGHT_SHIFT:RightShiftOptions STABLEHLO_LOGISTIC STABLEHLO_ADD
STABLEHLO_DIVIDE STABLEHLO_MULTIPLY STABLEHLO_MAXIMUM STABLEHLO_RESHAPE STABLEHLO_CLAMP
STABLEHLO_CONCATENATE:StablehloConcatenateOptions
STABLEHLO_BROADCAST_IN_DIM:StablehloBroadcastInDimOptions
STABLEHLO_CONVOLUTION:StablehloConvolutionOptions STABLEHLO_SLICE:StablehloSliceOptions
STABLEHLO_CUSTOM_CALL:StablehloCustomCallOptions STABLEHLO_REDUCE:StablehloReduceOptions
STABLEHLO_ABS STABLEHLO_AND STABLEHLO_COSINE STABLEHLO_EXPONENTIAL STABLEHLO_FLOOR STABLEHLO_LOG
STABLEHLO_MINIMUM STABLEHLO_NEGATE STABLEHLO_OR STABLEHLO_POWER STABLEHLO_REMAINDER
STABLEHLO_RSQRT STABLEHLO_SELECT STABLEHLO_SUBTRACT STABLEHLO_TANH
STABLEHLO_SCATTER:StablehloScatterOptions STABLEHLO_COMPARE:StablehloCompareOptions
STABLEHLO_CONVERT STABLEHLO_DYNAMIC_SLICE:StablehloDynamicSliceOptions
STABLEHLO_DYNAMIC_UPDATE_SLICE STABLEHLO_PAD:StablehloPadOptions
STABLEHLO_IOTA:StablehloIotaOptions STABLEHLO_DOT_GENERAL:StablehloDotGeneralOptions
STABLEHLO_REDUCE_WINDOW:StablehloReduceWindowOptions STABLEHLO_SORT:StablehloSortOptions
STABLEHLO_WHILE:StablehloWhileOptions STABLEHLO_GATHER:StablehloGatherOptions
STABLEHLO_TRANSPOSE:StablehloTransposeOptions DILATE:DilateOptions
STABLEHLO_RNG_BIT_GENERATOR:StablehloRngBitGeneratorOptions REDUCE_WINDOW:ReduceWindowOptions
STABLEHLO_COMPOSITE:StableHLOCompositeOptions STABLEHLO_SHIFT_LEFT:StablehloShiftLeftOptions
STABLEHLO_CBRT STABLEHLO_CASE:StablehloCaseOptions
"""

UNIONS: Mapping[str, tuple[str, ...]] = {
    "builtin_options": BUILTIN_OPTIONS,
    "builtin_options2": BUILTIN_OPTIONS_2,
    "details": QUANTIZATION_DETAILS,
}
"""Field -> the tables it can hold, by the number in the field before it."""


class Field(NamedTuple):
    """A field of a table: its number there, name, type and default.

    `kind` is a scalar ("i8" to "u64", "f32", "bool"), an enumeration of `ENUMS`, "dtype" (a number
    of `DTYPES`), "str", a table, "union", or a vector of one of them: "[i32]".
    """

    slot: int
    name: str
    kind: str
    default: int


@functools.cache
def fields(table: str) -> Mapping[str, Field]:
    """Name -> field of one table, by number; of a table without a row here, none is read."""
    return {row.name: row for row in _rows(_texts().get(table, ""))}


def _rows(text: str) -> list[Field]:
    """`name:kind` or `name:kind=default`, in order; `-` is a number no longer in use."""
    rows = []
    for slot, word in enumerate(text.split()):
        if word != "-":
            name, _, rest = word.partition(":")
            kind, _, default = rest.partition("=")
            rows.append(Field(slot, name, kind, int(default or 0)))
    return rows


@functools.cache
def _texts() -> Mapping[str, str]:
    """Table -> its row. A line that is indented continues the one before."""
    lines = _TABLES.replace("\n    ", " ").split("\n")
    return {line.partition(" ")[0]: line.partition(" ")[2] for line in lines if line}


@functools.cache
def operators() -> tuple[tuple[str, str], ...]:
    """(operator, its table of options or "") by the operator's number."""
    words = [word.partition(":") for word in _OPERATORS.split()]
    return tuple((name, options) for name, _, options in words)
