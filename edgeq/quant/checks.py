"""What single op types must satisfy to run in int8: a reason where a node does not, else nothing.

Each check is about one engine's kernel (`edgeq.quant.kernels` has the tables that name them).
"""

from __future__ import annotations

import math

import onnx_ir

from edgeq.ir import attribute, constant, scalar


def clamp_bounds(node: onnx_ir.Node) -> tuple[float, float] | None:
    """The constant (low, high) of a Relu or Clip; None where they are computed."""
    if node.op_type == "Relu":
        return 0.0, math.inf
    bounds = [-math.inf, math.inf]
    for at in (1, 2):
        value = node.inputs[at] if at < len(node.inputs) else None
        if value is not None:
            number = scalar(value)
            if number is None:
                return None
            bounds[at - 1] = number
    return bounds[0], bounds[1]


def clip(node: onnx_ir.Node) -> str:
    bounds = clamp_bounds(node)
    if bounds is None:
        return "its bounds are not constant"
    if not bounds[0] <= 0.0 <= bounds[1]:
        return f"its range {bounds[0]:g}..{bounds[1]:g} leaves out 0, which int8 codes always hold"
    if bounds[0] == bounds[1]:
        return "its result is always 0"
    return ""


def onnxruntime_resize(node: onnx_ir.Node) -> str:
    if attribute(node, "mode", "nearest") != "nearest":
        return "ONNX Runtime has an int8 kernel only for `Resize` with mode=nearest"
    return _made_up(node)


def onnxruntime_average_pool(node: onnx_ir.Node) -> str:
    if _is_dilated(node):
        return "ONNX Runtime has no int8 kernel for a dilated `AveragePool`"
    return ""


def litert_resize(node: onnx_ir.Node) -> str:
    if attribute(node, "mode", "nearest") not in ("nearest", "linear"):
        return "LiteRT has an int8 kernel only for `Resize` with mode=nearest or linear"
    if attribute(node, "antialias", 0):
        return "LiteRT has no int8 kernel for a `Resize` with antialias=1"
    return _made_up(node)


def litert_pool(node: onnx_ir.Node) -> str:
    return f"LiteRT has no int8 kernel for a dilated `{node.op_type}`" if _is_dilated(node) else ""


def litert_pad(node: onnx_ir.Node) -> str:
    mode = attribute(node, "mode", "constant")
    if mode == "reflect":
        return ""
    if mode != "constant":
        return f"LiteRT has no int8 kernel for `Pad` with mode={mode}"
    value = node.inputs[2] if len(node.inputs) > 2 else None
    if value is not None and scalar(value) != 0.0:
        return "it pads with another value than 0, which its input's codes need not hold"
    return ""


def litert_softmax(node: onnx_ir.Node) -> str:
    """ONNX Runtime, which measures a plan in its ONNX form, makes 0 of a single value."""
    shape = node.outputs[0].shape
    size = None if shape is None else shape[int(attribute(node, "axis", -1))]
    if not isinstance(size, int) or size < 2:
        return "it may be over a single value, of which ONNX Runtime's int8 kernel makes 0"
    return ""


def litert_axes(node: onnx_ir.Node) -> str:
    """Reductions and what else reads its axes or sizes from a second input."""
    value = node.inputs[1] if len(node.inputs) > 1 else None
    if value is not None and constant(value) is None:
        return f"`{value.name}` is not constant, and LiteRT's int8 kernels want it so"
    return ""


def litert_prelu(node: onnx_ir.Node) -> str:
    slope = node.inputs[1]
    return "" if constant(slope) is not None else "its slope is not constant"


def litert_conv_transpose(node: onnx_ir.Node) -> str:
    if int(attribute(node, "group", 1)) != 1:
        return "LiteRT has no int8 kernel for a grouped `ConvTranspose`"
    return ""


def _made_up(node: onnx_ir.Node) -> str:
    if attribute(node, "coordinate_transformation_mode", "half_pixel") == "tf_crop_and_resize":
        return "`Resize` with tf_crop_and_resize makes up values outside of its input"
    return ""


def _is_dilated(node: onnx_ir.Node) -> bool:
    return any(int(step) != 1 for step in attribute(node, "dilations", ()))
