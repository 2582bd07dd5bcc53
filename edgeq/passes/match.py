"""What the fusing passes ask: the polynomial that a few nodes compute, a clamp, who else reads.

A spelled-out activation comes in any order of its operands and factors, so what is compared is the
polynomial that its elementwise nodes compute, not their shape.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir

from edgeq.ir import attribute, constant, dtype_of, scalar
from edgeq.passes.edit import add_node, remove, take_over

Powers = tuple[int, ...]
Terms = Mapping[Powers, float]
Nodes = tuple[onnx_ir.Node, ...]

_DEPTH = 8
_DEGREE = 4


@dataclass(frozen=True)
class Expression:
    """sum of coefficient * product(atom ** power), and the nodes that compute it."""

    terms: Terms
    nodes: Nodes


def is_number(value: float, number: float) -> bool:
    """Whether a stored float32 constant, or a product of up to three, means `number`.

    Each is rounded by half an ulp, and people write seven decimals: four ulp are allowed. What
    that moves is within the four ulp of the result by which two float32 kernels differ anyway.
    """
    return abs(value - number) <= 4 * float(np.finfo(np.float32).eps) * abs(number)


def same(terms: Terms, wanted: Terms) -> bool:
    """Whether two polynomials are one, coefficient by coefficient as `is_number` says."""
    if set(terms) != set(wanted):
        return False
    return all(is_number(terms[powers], number) for powers, number in wanted.items())


def number_beside(value: onnx_ir.Value | None, other: onnx_ir.Value) -> float | None:
    """The finite number in `value` if, spread over `other`, it does not widen it."""
    stored, number = constant(value), scalar(value)
    if stored is None or number is None or not math.isfinite(number):
        return None
    rank = 0 if other.shape is None else len(other.shape)
    return number if stored.ndim <= rank else None


def expression(value: onnx_ir.Value | None, atoms: Sequence[onnx_ir.Value]) -> Expression | None:
    """`value` as a polynomial of `atoms`, computed in float64; None where it is none.

    Every step lies in the graph that makes `value`. The atoms have one shape.
    """
    home = None if value is None else value.graph
    return None if value is None else _expression(value, atoms, home, _DEPTH)


def _expression(
    value: onnx_ir.Value, atoms: Sequence[onnx_ir.Value], home: onnx_ir.Graph | None, depth: int
) -> Expression | None:
    for index, atom in enumerate(atoms):
        if value is atom:
            return Expression({tuple(int(at == index) for at in range(len(atoms))): 1.0}, ())
    number = number_beside(value, atoms[0])
    if number is not None:
        return Expression({(0,) * len(atoms): number} if number else {}, ())
    node = value.producer()
    if depth == 0 or node is None or not _is_arithmetic(node, home):
        return None
    parts: list[Expression] = []
    for given in node.inputs:
        part = None if given is None else _expression(given, atoms, home, depth - 1)
        if part is None:
            return None
        parts.append(part)
    terms = _OPERATIONS[node.op_type](*(part.terms for part in parts))
    if terms is None or any(sum(powers) > _DEGREE for powers in terms):
        return None
    nodes = dict.fromkeys(inner for part in parts for inner in part.nodes)
    return Expression(terms, (*nodes, node))


def atoms_below(value: onnx_ir.Value | None) -> Iterator[onnx_ir.Value]:
    """What `value` could be a polynomial of: itself, then what it is computed from, near first."""
    layer = [] if value is None else [value]
    home = None if value is None else value.graph
    seen: dict[onnx_ir.Value, None] = {}
    for _ in range(_DEPTH):
        fresh = dict.fromkeys(v for v in layer if v not in seen and constant(v) is None)
        yield from fresh
        seen |= fresh
        makers = [given.producer() for given in fresh]
        layer = [
            given
            for node in makers
            if node is not None and _is_arithmetic(node, home)
            for given in node.inputs
            if given is not None
        ]


def climb(
    gate: onnx_ir.Value, x: onnx_ir.Value, wanted: Terms, steps: int = 4
) -> tuple[onnx_ir.Node, Nodes] | None:
    """The node above `gate` whose output is `wanted` of (x, gate), and all nodes from there down.

    x and `gate` have one shape; each step up has one reader.
    """
    value = gate
    for _ in range(steps):
        readers = value.consumers()
        if len(readers) != 1 or readers[0].graph is not gate.graph:
            return None
        value = readers[0].outputs[0]
        found = expression(value, (x, gate))
        if found is not None and same(found.terms, wanted):
            return readers[0], found.nodes
    return None


@dataclass(frozen=True)
class Clamp:
    """min(max(source, low), high) with finite bounds, and the nodes that compute it."""

    source: onnx_ir.Value
    low: float
    high: float
    nodes: Nodes


def clamp(node: onnx_ir.Node) -> Clamp | None:
    """`node` as the outer end of a clamp: Clip, or one of Max, Min and Relu after the other."""
    if node.domain != "" or node.op_type not in ("Clip", "Max", "Min", "Relu"):
        return None
    if node.op_type == "Clip" and node.inputs[0] is not None:
        low, high = (number_beside(value, node.inputs[0]) for value in (*node.inputs, None)[1:3])
        if low is None or high is None or low > high:
            return None
        return Clamp(node.inputs[0], low, high, (node,))
    outer = _bound(node)
    inner_node = None if outer is None else outer[0].producer()
    inner = None if inner_node is None else _bound(inner_node)
    if outer is None or inner is None or inner_node is None or inner_node.graph is not node.graph:
        return None
    bounds = dict([inner[1:], outer[1:]])
    if set(bounds) != {"low", "high"} or not bounds["low"] <= bounds["high"]:
        return None
    return Clamp(inner[0], bounds["low"], bounds["high"], (inner_node, node))


def _bound(node: onnx_ir.Node) -> tuple[onnx_ir.Value, str, float] | None:
    """(what it bounds, on which side, where) of Max or Min with a constant, and of Relu."""
    if node.domain != "" or node.op_type not in ("Max", "Min", "Relu"):
        return None
    if node.op_type == "Relu":
        return None if node.inputs[0] is None else (node.inputs[0], "low", 0.0)
    if len(node.inputs) != 2:
        return None
    for value, other in (node.inputs, node.inputs[::-1]):
        number = None if value is None else number_beside(other, value)
        if value is not None and number is not None:
            return value, "low" if node.op_type == "Max" else "high", number
    return None


def reduced(node: onnx_ir.Node, keepdims: int = 1) -> tuple[int, ...] | None:
    """The axes >= 0 of a reduction in ascending order; None where they or the rank are not known.

    Also None where it keeps the reduced axes and should not, or the other way round.
    """
    source = node.inputs[0]
    if source is None or source.shape is None or attribute(node, "keepdims", 1) != keepdims:
        return None
    rank, given = len(source.shape), node.inputs[1] if len(node.inputs) > 1 else None
    if given is None:
        return None if attribute(node, "noop_with_empty_axes", 0) else tuple(range(rank))
    axes = constant(given)
    if axes is None or axes.size == 0 or not ((axes >= -rank) & (axes < rank)).all():
        return None
    return tuple(sorted({int(axis) % rank for axis in axes.reshape(-1)}))


def why_not_merged(nodes: Iterable[onnx_ir.Node], root: onnx_ir.Node) -> str | None:
    """Why `nodes` cannot become one in the place of `root`, or None: their results are theirs."""
    inside = {*nodes, root}
    for node in nodes:
        for value in () if node is root else node.outputs:
            if value.is_graph_output():
                return f"the result of `{node.op_type}` (node `{node.name}`) is an output"
            for reader in value.consumers():
                if reader.graph is not node.graph:
                    return f"the result of `{node.op_type}` (node `{node.name}`) is read in a body"
                if reader not in inside:
                    return f"the result of `{node.op_type}` (node `{node.name}`) has another reader"
    return None


def why_not_float32(value: onnx_ir.Value) -> str | None:
    """Fused operators have kernels for float32 everywhere, for other floats only here or there."""
    dtype = dtype_of(value)
    return None if dtype == "float32" else f"its input is {dtype or 'of unknown type'}"


def merge(
    nodes: Iterable[onnx_ir.Node],
    root: onnx_ir.Node,
    op_type: str,
    inputs: Sequence[onnx_ir.Value | None],
    attributes: dict[str, Any],
) -> onnx_ir.Node:
    """One node in the place of `root`, with its name and output; `nodes` are taken out."""
    fused = add_node(root, op_type, inputs, attributes)
    take_over(root.outputs[0], fused.outputs[0])
    left = list(dict.fromkeys((root, *nodes)))
    while left:
        free = [node for node in left if not any(value.uses() for value in node.outputs)]
        assert free, "a merged node has another reader"
        for node in free:
            remove(node)
        left = [node for node in left if node not in free]
    return fused


def _is_arithmetic(node: onnx_ir.Node, home: onnx_ir.Graph | None) -> bool:
    return node.op_type in _OPERATIONS and node.domain == "" and node.graph is home


def _plus(left: Terms, right: Terms, sign: float = 1.0) -> Terms:
    terms = dict(left)
    for powers, number in right.items():
        terms[powers] = terms.get(powers, 0.0) + sign * number
    return {powers: number for powers, number in terms.items() if number != 0.0}


def _times(left: Terms, right: Terms) -> Terms:
    terms: Terms = {}
    for at, number in left.items():
        row = {
            tuple(a + b for a, b in zip(at, other, strict=True)): number * factor
            for other, factor in right.items()
        }
        terms = _plus(terms, row)
    return terms


def _constant_of(terms: Terms) -> float | None:
    """The number that a polynomial without atoms is; None for zero, which no rule here needs."""
    if len(terms) != 1:
        return None
    [(powers, number)] = terms.items()
    return None if any(powers) else number


def _over(left: Terms, right: Terms) -> Terms | None:
    divisor = _constant_of(right)
    return None if divisor is None else {powers: n / divisor for powers, n in left.items()}


def _power(left: Terms, right: Terms) -> Terms | None:
    exponent = _constant_of(right)
    if exponent not in (1.0, 2.0, 3.0):
        return None
    product = left
    for _ in range(int(exponent) - 1):
        product = _times(product, left)
    return product


_OPERATIONS: dict[str, Callable[..., Terms | None]] = {
    "Add": _plus,
    "Sub": lambda left, right: _plus(left, right, -1.0),
    "Mul": _times,
    "Div": _over,
    "Pow": _power,
    "Neg": lambda terms: _plus({}, terms, -1.0),
}
