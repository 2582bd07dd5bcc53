"""The version of an operator: the least that computes what a file asks of it.

An old engine must refuse what it cannot run, and goes by this number alone: with too small a one
tflite-runtime 2.14 computes wrong values (notes: tflite 6). Figures as TensorFlow stamps them
(tensorflow/lite/tools/versioning/op_version.cc).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edgeq_converters.write.tfl.file import File, Op

_INT8_2 = frozenset(
    {
        *("ADD", "SUB", "MUL", "MAXIMUM", "MINIMUM", "CONCATENATION", "SPLIT", "SPLIT_V", "SLICE"),
        *("STRIDED_SLICE", "PAD", "PADV2", "TRANSPOSE", "GATHER", "BATCH_MATMUL"),
        *("SPACE_TO_DEPTH", "MEAN", "SUM", "REDUCE_MAX", "REDUCE_MIN", "MAX_POOL_2D", "DEQUANTIZE"),
        *("AVERAGE_POOL_2D", "SOFTMAX", "LOG_SOFTMAX", "LOGISTIC", "TANH", "RELU", "RELU6"),
        *("LEAKY_RELU", "RESIZE_BILINEAR", "RESIZE_NEAREST_NEIGHBOR", "TRANSPOSE_CONV", "ARG_MAX"),
        *("ARG_MIN", "TOPK_V2", "L2_NORMALIZATION", "EQUAL", "NOT_EQUAL", "GREATER", "LESS"),
        *("GREATER_EQUAL", "LESS_EQUAL", "PACK", "UNPACK", "SPACE_TO_BATCH_ND"),
        *("BATCH_TO_SPACE_ND", "MIRROR_PAD", "ABS", "EXP", "LOG", "GELU", "RSQRT"),
    }
)
"""Operators whose int8 kernels came with version 2."""

_INT64_4 = frozenset({"ADD", "SUB", "MUL"})
_BY_TYPE = {
    ("CONCATENATION", "uint32"): 4,
    ("EQUAL", "int16"): 4,
    ("FILL", "bool"): 2,
    ("FILL", "int16"): 3,
    ("FILL", "int8"): 3,
    ("FLOOR_DIV", "float32"): 2,
    ("GATHER_ND", "bool"): 5,
    ("GREATER_EQUAL", "int16"): 3,
    ("LESS", "int16"): 3,
    ("RANGE", "int64"): 2,
    ("REVERSE_V2", "bool"): 2,
    ("REVERSE_V2", "int8"): 3,
    ("SPLIT", "int8"): 2,
    ("SPLIT", "int32"): 3,
    ("STRIDED_SLICE", "bool"): 3,
    ("TOPK_V2", "int16"): 3,
    **{("WHERE", dtype): 2 for dtype in ("float32", "int32", "int64", "int8", "uint8")},
    **{(code, "int16"): 4 for code in ("MAXIMUM", "MINIMUM", "SLICE", "SPLIT")},
    **{(code, "uint32"): at for code, at in (("SLICE", 6), ("STRIDED_SLICE", 7), ("PACK", 4))},
}
"""Versions with which operators got kernels for other types."""

_WIDE = {"TRANSPOSE": 4, "SLICE": 5, "STRIDED_SLICE": 4, "MAXIMUM": 4, "MINIMUM": 4, "SUB": 3}
"""Versions that broadcast or move more than four dimensions."""


NEWER = {"FULLY_CONNECTED": 12, "EMBEDDING_LOOKUP": 4}
"""Operators of which tflite-runtime 2.14 has versions below these alone: per-channel weights in
dynamic int8, int4, and int8 tables. Which release was the first to have them is not known here."""


def is_old(file: File) -> bool:
    """Whether TensorFlow Lite 2.14 has every operator of the file in its version."""
    return all(version(file, op) < NEWER.get(op.code, 1000) for op in file.ops)


def version(file: File, op: Op) -> int:
    """The version for an operator's tensors and options."""
    code, inputs, outputs, options = op.code, op.inputs, op.outputs, op.options
    special = _SPECIAL.get(code)
    found = special(file, inputs, outputs, options) if special is not None else 1
    found = max(found, _BY_TYPE.get((code, _data_type(file, code, inputs)), 1))
    types = [file.dtype(at) for at in inputs if at >= 0]
    first = types[0] if types else ""
    if code in _INT8_2 and first == "int8":
        found = max(found, 2)
    if code in _INT64_4 and first == "int64":
        found = max(found, 4)
    if code in _WIDE and inputs and max(len(file.shape(at)) for at in inputs if at >= 0) > 4:
        found = max(found, _WIDE[code])
    return found


def _data_type(file: File, code: str, inputs: Sequence[int]) -> str:
    """The type of what an operator works on: not of a SPLIT's axis or a FILL's sizes."""
    at = 1 if code in ("SPLIT", "FILL") else 0
    return file.dtype(inputs[at]) if len(inputs) > at and inputs[at] >= 0 else ""


def _weights(file: File, inputs: Sequence[int]) -> tuple[str, str, bool]:
    """Types of data and weights, and whether the weights have a scale per channel."""
    scales = file.parameters(inputs[1]).get("scale", ())
    return file.dtype(inputs[0]), file.dtype(inputs[1]), len(scales) > 1


def _conv_2d(file: File, inputs: Sequence[int], outputs: Sequence[int], options: Any) -> int:
    data, weights, per_channel = _weights(file, inputs)
    if weights == "int4":
        return 7
    if file.shape(inputs[0])[-1] != file.shape(inputs[1])[-1]:
        return 6  # in groups
    if weights == "int8":
        return 3 if data == "int8" else 5 if per_channel else 2
    return 1


def _depthwise(file: File, inputs: Sequence[int], outputs: Sequence[int], options: Any) -> int:
    data, weights, per_channel = _weights(file, inputs)
    if weights == "int4":
        return 7
    if weights == "int8":
        return 3 if data == "int8" else 6 if per_channel else 4
    dilated = max(options.get("dilation_h_factor", 1), options.get("dilation_w_factor", 1)) > 1
    return 2 if dilated else 1


def _fully_connected(
    file: File, inputs: Sequence[int], outputs: Sequence[int], options: Any
) -> int:
    data, weights, per_channel = _weights(file, inputs)
    if weights == "int4":
        return 10 if data == "int8" else 13
    if data != "int8" and weights == "int8":
        return 12 if per_channel else 9 if options.get("asymmetric_quantize_inputs") else 3
    if len(inputs) == 2 or inputs[2] < 0:
        return 6
    if options.get("keep_num_dims"):
        return 5
    return 4 if data == "int8" else 1


def _mul(file: File, inputs: Sequence[int], outputs: Sequence[int], options: Any) -> int:
    scales = [file.parameters(at).get("scale", (0.0,))[0] for at in (*inputs, outputs[0])]
    return 3 if scales[2] and scales[0] * scales[1] / scales[2] >= 1.0 else 1


def _dequantize(file: File, inputs: Sequence[int], outputs: Sequence[int], options: Any) -> int:
    if file.dtype(inputs[0]) == "int4":
        return 6
    if len(file.parameters(inputs[0]).get("scale", ())) > 1:
        return 5
    return 3 if file.dtype(inputs[0]) == "float16" else 1


def _quantize(file: File, inputs: Sequence[int], outputs: Sequence[int], options: Any) -> int:
    return 1 if file.dtype(inputs[0]) == "float32" else 2


def _gather(file: File, inputs: Sequence[int], outputs: Sequence[int], options: Any) -> int:
    return 5 if options.get("batch_dims") else 1


def _resize(file: File, inputs: Sequence[int], outputs: Sequence[int], options: Any) -> int:
    return 3 if options.get("half_pixel_centers") or options.get("align_corners") else 1


def _transpose_conv(file: File, inputs: Sequence[int], outputs: Sequence[int], options: Any) -> int:
    if options.get("fused_activation_function", "NONE") != "NONE":
        return 4
    return 3 if len(inputs) > 3 and inputs[3] >= 0 else 1


def _broadcast_to(file: File, inputs: Sequence[int], outputs: Sequence[int], options: Any) -> int:
    return 3 if file.dtype(inputs[0]) in ("int8", "int16") else 2


def _cast(file: File, inputs: Sequence[int], outputs: Sequence[int], options: Any) -> int:
    types = {file.dtype(inputs[0]), file.dtype(outputs[0])}
    for version, dtypes in ((5, ("float64", "float16")), (4, ("uint16",)), (3, ("int8",))):
        if types & {*dtypes}:
            return version
    return 2 if "uint32" in types else 1


def _embedding(file: File, inputs: Sequence[int], outputs: Sequence[int], options: Any) -> int:
    if len(file.parameters(inputs[1]).get("scale", ())) > 1:
        return 4
    return 1 if file.dtype(inputs[1]) == file.dtype(outputs[0]) else 3


def _lstm(file: File, inputs: Sequence[int], outputs: Sequence[int], options: Any) -> int:
    return 2 if file.dtype(inputs[2]) == "int8" else 1


def _div(file: File, inputs: Sequence[int], outputs: Sequence[int], options: Any) -> int:
    return 2 if max(len(file.shape(at)) for at in inputs) > 4 else 1


_SPECIAL = {
    "CONV_2D": _conv_2d,
    "DEPTHWISE_CONV_2D": _depthwise,
    "FULLY_CONNECTED": _fully_connected,
    "MUL": _mul,
    "DIV": _div,
    "DEQUANTIZE": _dequantize,
    "QUANTIZE": _quantize,
    "GATHER": _gather,
    "BROADCAST_TO": _broadcast_to,
    "CAST": _cast,
    "EMBEDDING_LOOKUP": _embedding,
    "RESIZE_BILINEAR": _resize,
    "RESIZE_NEAREST_NEIGHBOR": _resize,
    "TRANSPOSE_CONV": _transpose_conv,
    "UNIDIRECTIONAL_SEQUENCE_LSTM": _lstm,
}
