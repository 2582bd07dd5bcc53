"""Constants that are stored narrower than they are computed with: which, and their encodings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx_ir
from numpy.typing import NDArray

from edgeq.ir import constant, dtype_of
from edgeq.numerics import affine, blocks
from edgeq.numerics.pair_safe import pair_safe_scale
from edgeq.quant.plan import Encoding, OpDecision, reader_key

LEAST_VALUES = 256
"""Smaller tensors stay float: scales, nodes and names take about the bytes that would be saved."""

STORED = "weights are stored in int8, computed in float"

PLACES = {
    "Conv": ((1, 0),),
    "ConvTranspose": ((1, 1),),
    "LSTM": ((1, 1), (2, 1)),
    "GRU": ((1, 1), (2, 1)),
    "RNN": ((1, 1), (2, 1)),
}
"""Which inputs of an op are weights, each with the axis of its output channels."""

RECURRENT = {"LSTM": 4, "GRU": 3, "RNN": 1}
"""Ops whose weights int8 is for wherever a plan has int8, though none computes in it, and how many
gates they have: each has one scale (TFLite int8 specification)."""


@dataclass(frozen=True)
class Weight:
    """A constant that is stored in codes: one scale per index of `axis`, or one for all.

    `shared`: so many neighbours along `axis` have the same scale, that of a gate. In int4 it is a
    matrix, with a scale per `block` of each row along `axis` where there is one.
    """

    tensor: str
    array: NDArray[Any]
    axis: int | None
    dtype: str = "int8"
    block: int | None = None
    shared: int = 1


Decided = tuple[OpDecision, tuple[Weight, ...]]
"""How an op runs that is stored narrower, with what it stores."""


def weight(node: onnx_ir.Node, at: int, axis: int) -> Weight | str:
    """Input `at` as float32 weights with a scale along `axis`, or why it stays as it is."""
    value = node.inputs[at] if at < len(node.inputs) else None
    array = constant(value)
    if value is None or array is None:
        return "its weights are not constant"
    if dtype_of(value) != "float32":
        return f"its weights are {dtype_of(value)}"
    if array.size < LEAST_VALUES:
        return f"its weights have less than {LEAST_VALUES} values"
    return Weight(str(value.name), array, axis % array.ndim if array.ndim > 1 else None)


def stored(node: onnx_ir.Node, weights: Sequence[Weight | str], reason: str) -> Decided | str:
    """`node` with those of its weights that can be stored, or why none can."""
    found = tuple(row for row in weights if isinstance(row, Weight))
    if not found:
        return next(row for row in weights if isinstance(row, str))
    return OpDecision(str(node.name), node.op_type, "int8-weights", reason), found


def in_place(node: onnx_ir.Node, reason: str) -> Decided | str:
    """A node whose type is one of `PLACES` with its weights in int8, or why it has none."""
    return stored(node, [weight(node, *place) for place in PLACES[node.op_type]], reason)


def recurrent(node: onnx_ir.Node) -> Decided | None:
    """A recurrent op with its weights in int8; None for any other op, and where it has none."""
    if node.domain not in ("", "ai.onnx") or node.op_type not in RECURRENT:
        return None
    decided = in_place(node, STORED)
    if isinstance(decided, str):
        return None
    gates = RECURRENT[node.op_type]
    rows = (replace(row, shared=row.array.shape[1] // gates) for row in decided[1])
    return decided[0], tuple(rows)


class Encoder:
    """Adds the encodings of weights to those of a base plan."""

    def __init__(self, encodings: dict[str, Encoding], *, pair_safe: bool = False) -> None:
        self.encodings = encodings
        self._pair_safe = pair_safe
        self._raised = self._columns = 0

    def put(self, node: str, weight: Weight, *, dynamic: bool = False) -> None:
        """Under the tensor's name; if another reader has it with other numbers, under this node."""
        scale = _int4_scale(weight) if weight.dtype == "int4" else self._scale(weight, dynamic)
        numbers = tuple(float(item) for item in scale.reshape(-1))
        zeros = (0,) * scale.size
        encoding = Encoding(
            weight.dtype, numbers, zeros, weight.axis, True, "weights", weight.block
        )
        held = self.encodings.setdefault(weight.tensor, encoding)
        if held != encoding:
            self.encodings[reader_key(weight.tensor, node)] = encoding

    def notes(self) -> list[str]:
        if not self._raised:
            return []
        return [
            f"{self._raised} of {self._columns} columns of dynamic int8 weights have a coarser"
            " scale so that no pair of weights saturates x86 kernels"
        ]

    def _scale(self, weight: Weight, dynamic: bool) -> NDArray[np.float32]:
        """max |w| / 127 of each channel, raised where a pair of a row along K could saturate."""
        array, axis = weight.array, weight.axis
        others = tuple(at for at in range(array.ndim) if at != axis)
        peaks = np.abs(array).max(axis=others)
        if weight.shared > 1:
            peaks = np.repeat(peaks.reshape(-1, weight.shared).max(axis=1), weight.shared)
        scale = np.atleast_1d(affine.symmetric_scale(peaks))
        if dynamic and self._pair_safe:
            safe = pair_safe_scale(array if axis == 0 else array.T, scale)
            self._columns += scale.size
            self._raised += int(np.count_nonzero(safe > scale))
            return safe
        return scale


def _int4_scale(weight: Weight) -> NDArray[np.float32]:
    """One per row along the axis of a matrix, or [rows, blocks]."""
    rows = weight.array if weight.axis == 0 else weight.array.T
    if weight.block is None:
        return blocks.row_scales(rows)
    return blocks.block_scales(rows, weight.block)
