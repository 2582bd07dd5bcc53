"""The quantization plan: which tensor has which integers, which op runs how, and why. Pure data."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from edgeq.errors import EdgeqError

DTYPES = {
    "int8": (-128, 127),
    "int4": (0, 0),
    "int32": (-(2**31), 2**31 - 1),
    "float16": (0, 0),
}
"""Types an encoding may have, with the zero points each allows; int4 is symmetric, float16 is
rounded, not scaled."""

_LARGEST_FLOAT32 = (2.0 - 2.0**-23) * 2.0**127

PRECISIONS = (
    "int8",
    "dynamic-int8",
    "dynamic-int4",
    "int8-weights",
    "fp16-weights",
    "float32",
    "other",
)
"""How an op may run. "int8": static. "dynamic-int8", "dynamic-int4": weights of so many bits, its
input quantized to int8 at run time. "int8-weights", "fp16-weights": so stored, computed in float.
"other": no float tensor (shapes, masks, text)."""

DYNAMIC = ("dynamic-int8", "dynamic-int4")
"""Precisions that quantize an op's input while the model runs."""


@dataclass(frozen=True)
class Encoding:
    """value = (code - zero_point[c]) * scale[c]; one c, or one along `axis`.

    With a `block` (int4 matrices only) each row along `axis` has a scale for every `block` of its
    elements; the scales of a row follow each other. Scales are positive, finite and exact in
    float32; float16 has scale 1 and zero point 0. `origin` says where the range came from.
    """

    dtype: str
    scale: tuple[float, ...]
    zero_point: tuple[int, ...]
    axis: int | None = None
    symmetric: bool = False
    origin: str = ""
    block: int | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain data; `block` is only in it where there is one."""
        zero_point: Any = list(self.zero_point)
        if len(set(self.zero_point)) == 1:
            zero_point = self.zero_point[0]
        return {
            "dtype": self.dtype,
            "scale": list(self.scale),
            "zero_point": zero_point,
            "axis": self.axis,
            "symmetric": self.symmetric,
            "origin": self.origin,
            **({} if self.block is None else {"block": self.block}),
        }


@dataclass(frozen=True)
class OpDecision:
    """How one op runs, one of `PRECISIONS`. `reason` is empty for an op that runs in int8.

    `fused_into` names the int8 node whose output range does this op's work (Relu, Clip).
    """

    node: str
    op_type: str
    precision: str
    reason: str = ""
    fused_into: str | None = None

    def to_json(self) -> dict[str, Any]:
        return {
            "node": self.node,
            "op_type": self.op_type,
            "precision": self.precision,
            "reason": self.reason,
            "fused_into": self.fused_into,
        }


@dataclass(frozen=True)
class QuantPlan:
    """The whole plan of one build. `ops` has a row for every node but Constant.

    `tensors` holds an encoding per tensor name; `TENSOR@NODE` overrides it for one reader of a
    constant (a bias shared by two layers has two scales). `notes` say what was adjusted.
    """

    tensors: Mapping[str, Encoding]
    ops: Mapping[str, OpDecision]
    notes: tuple[str, ...] = field(default=())

    def encoding(self, tensor: str, node: str | None = None) -> Encoding | None:
        """The encoding of `tensor` as `node` reads it; None where it stays float."""
        own = self.tensors.get(reader_key(tensor, node)) if node is not None else None
        return own or self.tensors.get(tensor)

    def runs_int8(self, node: str) -> bool:
        decision = self.ops.get(node)
        return decision is not None and decision.precision == "int8"

    @property
    def computes_int8(self) -> bool:
        """Whether any op multiplies or adds integers, whenever they were made."""
        return any(op.precision in ("int8", *DYNAMIC) for op in self.ops.values())

    def counts(self) -> dict[str, dict[str, int]]:
        """Ops per precision and type, types sorted: {"int8": {"Conv": 4}, "float32": {}, ...}."""
        counted: dict[str, dict[str, int]] = {precision: {} for precision in PRECISIONS}
        for op in sorted(self.ops.values(), key=lambda decision: decision.op_type):
            kinds = counted[op.precision]
            kinds[op.op_type] = kinds.get(op.op_type, 0) + 1
        return counted

    def diff(self, other: QuantPlan) -> tuple[str, ...]:
        """One line per op or tensor that differs, `self` first, in name order."""
        lines = [
            f"op `{name}`: {_op_text(self.ops.get(name))} -> {_op_text(other.ops.get(name))}"
            for name in sorted({*self.ops, *other.ops})
            if self.ops.get(name) != other.ops.get(name)
        ]
        lines += [
            f"tensor `{name}`: {_tensor_text(self.tensors.get(name))} -> "
            f"{_tensor_text(other.tensors.get(name))}"
            for name in sorted({*self.tensors, *other.tensors})
            if self.tensors.get(name) != other.tensors.get(name)
        ]
        return tuple(lines)

    def to_json(self) -> dict[str, Any]:
        """Plain data; `from_json` gives back an equal plan, bit for bit."""
        return {
            "tensors": {name: encoding.to_json() for name, encoding in self.tensors.items()},
            "ops": [decision.to_json() for decision in self.ops.values()],
            "notes": list(self.notes),
        }

    @classmethod
    def from_json(cls, document: Any) -> QuantPlan:
        """Read what `to_json` wrote. Anything else is refused with [bad-plan], naming the place."""
        table = _table(document, "plan", {"tensors", "ops", "notes"})
        tensors = table["tensors"]
        if not isinstance(tensors, dict):
            raise _bad("plan.tensors is not a table")
        encodings = {
            _text(name, "a tensor name"): _read_encoding(entry, f"tensor `{name}`")
            for name, entry in tensors.items()
        }
        decisions = [_read_op(entry, at) for at, entry in enumerate(_list(table["ops"], "ops"))]
        ops = {decision.node: decision for decision in decisions}
        if len(ops) != len(decisions):
            raise _bad("plan.ops names a node twice")
        notes = tuple(_text(note, "a note") for note in _list(table["notes"], "notes"))
        return cls(encodings, ops, notes)


def reader_key(tensor: str, node: str) -> str:
    """The key under which a plan holds what only `node` sees of the constant `tensor`."""
    return f"{tensor}@{node}"


def _op_text(decision: OpDecision | None) -> str:
    if decision is None:
        return "absent"
    fused = f" in `{decision.fused_into}`" if decision.fused_into else ""
    reason = f" ({decision.reason})" if decision.reason else ""
    return decision.precision + fused + reason


def _tensor_text(encoding: Encoding | None) -> str:
    if encoding is None:
        return "float32"
    if len(encoding.scale) == 1:
        return f"{encoding.dtype} scale {encoding.scale[0]:.9g} zero {encoding.zero_point[0]}"
    low, high = min(encoding.scale), max(encoding.scale)
    blocks = f" in blocks of {encoding.block}" if encoding.block else ""
    many = f"{encoding.dtype} x{len(encoding.scale)} on axis {encoding.axis}{blocks}"
    return f"{many} {low:.9g}..{high:.9g}"


def _bad(what: str) -> EdgeqError:
    return EdgeqError("bad-plan", f"this is not a quantization plan: {what}")


def _table(value: Any, where: str, keys: set[str]) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _bad(f"{where} is not a table")
    if set(value) != keys:
        odd = ", ".join(sorted(f"`{key}`" for key in set(value) ^ keys))
        raise _bad(f"{where} has missing or unknown keys: {odd}")
    return value


def _list(value: Any, where: str) -> list[Any]:
    if not isinstance(value, list):
        raise _bad(f"plan.{where} is not a list")
    return value


def _text(value: Any, where: str) -> str:
    if not isinstance(value, str):
        raise _bad(f"{where} is not text")
    return value


def _integer(value: Any, where: str) -> int:
    if type(value) is not int:
        raise _bad(f"{where} is not an integer")
    return value


def _read_encoding(value: Any, where: str) -> Encoding:
    keys = {"dtype", "scale", "zero_point", "axis", "symmetric", "origin"}
    has_block = isinstance(value, dict) and "block" in value
    table = _table(value, where, keys | {"block"} if has_block else keys)
    dtype = table["dtype"]
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise _bad(f"{where} has dtype {json.dumps(dtype, default=str)}")
    axis = None if table["axis"] is None else _integer(table["axis"], f"{where}: axis")
    if axis is not None and not 0 <= axis < 64:
        raise _bad(f"{where} has axis {axis}")
    if type(table["symmetric"]) is not bool:
        raise _bad(f"{where}: symmetric is not true or false")
    scale = tuple(_scale(item, where) for item in _list(table["scale"], f"{where}: scale"))
    points = table["zero_point"]
    points = [points] * len(scale) if isinstance(points, int) else points
    zero_point = tuple(_zero_point(item, dtype, where) for item in _list(points, "zero_point"))
    if dtype == "float16" and scale != (1.0,):
        raise _bad(f"{where} is float16 and has a scale other than 1")
    if not scale or len(scale) != len(zero_point) or (axis is None and len(scale) != 1):
        raise _bad(f"{where} has {len(scale)} scales and {len(zero_point)} zero points")
    origin = _text(table["origin"], f"{where}: origin")
    block = _block(table["block"], dtype, axis, where) if has_block else None
    return Encoding(dtype, scale, zero_point, axis, table["symmetric"], origin, block)


def _block(value: Any, dtype: str, axis: int | None, where: str) -> int:
    block = _integer(value, f"{where}: block")
    if dtype != "int4" or axis not in (0, 1) or not 16 <= block <= 256 or block & (block - 1):
        raise _bad(f"{where} has blocks of {block} of {dtype} on axis {axis}")
    return block


def _scale(value: Any, where: str) -> float:
    if type(value) not in (int, float) or not 0 < value <= _LARGEST_FLOAT32:
        raise _bad(f"{where} has scale {json.dumps(value, default=str)}")
    number = float(value)
    if struct.unpack("<f", struct.pack("<f", number))[0] != number:
        raise _bad(f"{where} has scale {number!r}, which float32 does not hold")
    return number


def _zero_point(value: Any, dtype: str, where: str) -> int:
    low, high = DTYPES[dtype]
    point = _integer(value, f"{where}: zero_point")
    if not low <= point <= high:
        raise _bad(f"{where} has zero point {point}")
    return point


def _read_op(value: Any, at: int) -> OpDecision:
    keys = {"node", "op_type", "precision", "reason", "fused_into"}
    table = _table(value, f"ops[{at}]", keys)
    texts = [_text(table[key], f"ops[{at}]: {key}") for key in ("node", "op_type", "reason")]
    precision = table["precision"]
    if precision not in PRECISIONS:
        raise _bad(f"ops[{at}] has precision {json.dumps(precision, default=str)}")
    fused = table["fused_into"]
    if fused is not None:
        fused = _text(fused, f"ops[{at}]: fused_into")
    return OpDecision(texts[0], texts[1], precision, texts[2], fused)
