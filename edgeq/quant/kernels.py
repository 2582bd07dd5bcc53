"""What each engine runs in int8, as tables: one row per op type, with the words a user reads.

ONNX Runtime was measured with 1.31.1 (tests/write/test_fusion.py), LiteRT with 2.3.0
(tests/quant/test_litert_kernels.py). The same plan is written for both: where it was drafted for
LiteRT, the ONNX form computes in float what ONNX Runtime has no int8 kernel for, between
DequantizeLinear and QuantizeLinear, which comes to the same codes within one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

import onnx_ir

from edgeq.quant import checks
from edgeq.quant.rules import PERMUTATIONS

Check = Callable[[onnx_ir.Node], str]
"""A reason why this node cannot run in int8, or nothing."""

_NONE: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True)
class Kernels:
    """`heavy` ops are those int8 is for; `joiners` are arithmetic, `moves` only move elements.

    `tied` ops have one encoding for input and output. `joins` are those of them whose every operand
    would be read at the result's encoding: one that has another is requantized first.
    `whole`: int8 need not end in an int8 op, and a clamp that folds into none is an op of its own;
    otherwise ops besides `heavy` are int8 only between int8 ops, and the model's inputs are
    quantized before `at_border` ops alone.
    `fixed_outputs` holds scale and zero point of outputs whose range is known; no clamp folds into
    the ops of `unclampable`. `held` are kinds (`edgeq.quant.kinds`) that have a kernel which is not
    used unless the target's policy has a ratio for it; `kept_float` says why a type has none.
    `reorders`: it changes the layout of tensors between int8 and float. `dynamic_conv` says what a
    Conv costs that quantizes what it reads while the model runs; `dynamic_int4` what a layer on
    int4 weights does instead of multiplying integers, or nothing.
    """

    engine: str
    heavy: tuple[str, ...]
    joiners: tuple[str, ...]
    moves: tuple[str, ...]
    tied: tuple[str, ...]
    joins: tuple[str, ...]
    at_border: tuple[str, ...]
    whole: bool
    reorders: bool
    conv_dimensions: tuple[int, ...]
    matrix_weights_only: bool
    dynamic_conv: str
    dynamic_int4: str
    unclampable: tuple[str, ...]
    checks: Mapping[str, Check]
    kept_float: Mapping[str, str]
    held: Mapping[str, str] = field(default_factory=lambda: _NONE)
    fixed_outputs: Mapping[str, tuple[float, int]] = field(
        default_factory=lambda: MappingProxyType(
            {
                "Sigmoid": (1.0 / 256.0, -128),
                "Softmax": (1.0 / 256.0, -128),
                "Tanh": (1.0 / 128.0, 0),
            }
        )
    )

    def no_rule(self, op_type: str, domain: str) -> str:
        """The reason for an op type that is not int8 here."""
        name = f"{domain}.{op_type}" if domain else op_type
        return self.kept_float.get(name, f"edgeq has no int8 rule for `{name}`")


def _without(engine: str, op_types: tuple[str, ...]) -> dict[str, str]:
    return {op: f"{engine} has no int8 kernel for `{op}`" for op in op_types}


_ALONE = "this `BatchNormalization` follows no layer it could be folded into"

_MOVES = (*PERMUTATIONS, "Slice", "Gather", "Resize", "DepthToSpace", "Split")

ONNXRUNTIME = Kernels(
    engine="ONNX Runtime",
    heavy=("Conv", "Gemm", "MatMul"),
    joiners=(
        "Add",
        "Mul",
        "Concat",
        "MaxPool",
        "AveragePool",
        "GlobalAveragePool",
        "Sigmoid",
        "LeakyRelu",
    ),
    moves=_MOVES,
    # AveragePool because the TFLite int8 specification asks
    tied=(*_MOVES, "MaxPool", "AveragePool"),
    joins=("Concat",),
    at_border=PERMUTATIONS,
    whole=False,
    reorders=True,
    conv_dimensions=(1, 2, 3),
    matrix_weights_only=False,
    dynamic_conv="ONNX Runtime's `ConvInteger` takes 8 times as long as its float `Conv`",
    dynamic_int4="ONNX Runtime turns int4 weights back to floats as it runs: smaller, not faster",
    unclampable=("Sigmoid",),
    checks=MappingProxyType(
        {
            "Resize": checks.onnxruntime_resize,
            "AveragePool": checks.onnxruntime_average_pool,
            "Clip": checks.clip,
        }
    ),
    kept_float=MappingProxyType(
        {
            **_without(
                "ONNX Runtime",
                (
                    *("ConvTranspose", "Div", "Elu", "Erf", "Exp", "Gelu", "GlobalMaxPool"),
                    *("HardSigmoid", "HardSwish", "InstanceNormalization", "LayerNormalization"),
                    *("Log", "Max", "Mean", "Min", "Mish", "Pad", "Pow", "PRelu", "ReduceMean"),
                    *("ReduceSum", "Selu", "Softplus", "SpaceToDepth", "Sqrt", "Sub", "Tanh"),
                ),
            ),
            "Softmax": "ONNX Runtime's int8 `Softmax` is 5 times slower than its float one",
            "BatchNormalization": _ALONE,
        }
    ),
)

_LITERT_MOVES = (*_MOVES, "SpaceToDepth", "Expand", "Tile", "Pad")
_LITERT_PICKS = ("MaxPool", "AveragePool", "GlobalMaxPool", "ReduceMax", "ReduceMin")

LITERT = Kernels(
    engine="LiteRT",
    heavy=("Conv", "ConvTranspose", "Gemm", "MatMul"),
    joiners=(
        *("Add", "Sub", "Mul", "Concat", "Max", "Min", "GlobalAveragePool"),
        *("ReduceMean", "ReduceSum"),
        *("Softmax", "Sigmoid", "Tanh", "HardSwish", "LeakyRelu", "PRelu", "Elu", "Gelu", "Abs"),
        *_LITERT_PICKS,
    ),
    moves=_LITERT_MOVES,
    tied=(*_LITERT_MOVES, *_LITERT_PICKS),
    joins=("Concat", "Max", "Min"),
    at_border=(),
    whole=True,
    reorders=False,
    conv_dimensions=(1, 2),
    matrix_weights_only=True,
    dynamic_conv="LiteRT's hybrid `Conv` takes twice as long as its float one",
    dynamic_int4="",
    unclampable=("Sigmoid", "Softmax", "Tanh"),
    checks=MappingProxyType(
        {
            "Resize": checks.litert_resize,
            "AveragePool": checks.litert_pool,
            "MaxPool": checks.litert_pool,
            "Clip": checks.clip,
            "Pad": checks.litert_pad,
            "Softmax": checks.litert_softmax,
            "ReduceMean": checks.litert_axes,
            "ReduceSum": checks.litert_axes,
            "ReduceMax": checks.litert_axes,
            "ReduceMin": checks.litert_axes,
            "Expand": checks.litert_axes,
            "Tile": checks.litert_axes,
            "PRelu": checks.litert_prelu,
            "ConvTranspose": checks.litert_conv_transpose,
        }
    ),
    kept_float=MappingProxyType(
        {
            **_without(
                "LiteRT",
                (
                    *("Erf", "GroupNormalization", "HardSigmoid", "InstanceNormalization"),
                    *("LayerNormalization", "LRN", "Mean", "Mish", "Pow", "Selu", "Softplus"),
                ),
            ),
            "BatchNormalization": _ALONE,
        }
    ),
    held=MappingProxyType(
        {
            "ActivationMatMul": (
                "XNNPACK has no int8 kernel for a `MatMul` of two activations, which would split "
                "the net"
            ),
        }
    ),
)

BY_ENGINE: Mapping[str, Kernels] = MappingProxyType({"onnxruntime": ONNXRUNTIME, "litert": LITERT})
"""The tables by the engine's name in a target's file."""
