"""Which ops that could be int8 cost less in float: whole regions first, then a minimum cut.

A vertex per int8 op, with the clamps folded into it. Cutting it from the int8 side costs what it
takes in float, cutting it from the float side what it takes in int8; a tensor whose maker and
readers are on different sides costs its changes. What an estimate of speed may undo is bounded:
nineteen of twenty layers stay in int8, and all of them where none would be left.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import onnx_ir

from edgeq.ir import Graph, constant
from edgeq.quant import cost, kinds
from edgeq.quant.cut import FREE, SINK, SOURCE, Edge, Network
from edgeq.quant.policy import Policy
from edgeq.quant.regions import Regions

DOUBTS = (0.9, 0.8, 0.7, 0.6, 0.5)
"""int8 ops are counted this much cheaper, for differences within what a table does not know; the
first of these is taken at which few enough layers are left in float."""

LAYERS_KEPT, LEAST_LAYERS = 20, 10
"""One in so many layers may be left in float for speed, and one of so many in any case."""

_SAVED = 0.75
"""Share of a weight's bytes that int8 saves. One percent of the file is worth one percent of the
time, so that no estimate of microseconds undoes what a user asks int8 for."""

_NEVER = 2**62
"""A capacity that no cut can afford."""


def too_dear(graph: Graph, regions: Regions, policy: Policy) -> Mapping[onnx_ir.Node, str]:
    """Node -> reason, for the int8 ops of settled `regions` that are estimated to be cheaper in
    float. Empty where that would leave no layer in int8: then int8 is for the size alone."""
    if not policy.ratios:
        return {}
    prices = _Prices(graph, regions, policy)
    layers = {node for node in prices.ops if regions.has_weights(node)}
    reasons = _losing(prices)
    if layers <= set(reasons):
        return {}
    count = len(regions.layers)
    allowed = max(count // LAYERS_KEPT, int(count >= LEAST_LAYERS)) - len(layers & set(reasons))
    for doubt in DOUBTS:
        left = [node for node in prices.cut(doubt) if node not in reasons]
        left = _without_fused(left, prices, regions)
        if len(layers.intersection(left)) <= max(0, allowed):
            return {node: _reason(node, policy) for node in left} | reasons
    return reasons


def lonely(graph: Graph, regions: Regions, policy: Policy) -> Mapping[onnx_ir.Node, str]:
    """Node -> reason, for whole regions that cost less in float: what is left of larger ones once
    measuring has taken ops out of them. Empty where that would leave no layer in int8."""
    if not policy.ratios:
        return {}
    prices = _Prices(graph, regions, policy)
    reasons = _losing(prices)
    kept = any(regions.has_weights(node) for node in prices.ops if node not in reasons)
    return reasons if kept else {}


def _without_fused(
    left: list[onnx_ir.Node], prices: _Prices, regions: Regions
) -> list[onnx_ir.Node]:
    """`left` without ops all of whose neighbours stay in int8: ONNX Runtime takes every op that has
    an int8 kernel into int8 between DequantizeLinear and QuantizeLinear, asked or not."""
    gone = set(left)
    beside: dict[onnx_ir.Node, bool] = {}
    for tensor in prices.tensors:
        outside = tensor.maker is None or tensor.maker in gone
        for reader in tensor.readers:
            beside[reader] = beside.get(reader, False) or outside
        if tensor.maker is not None:
            reaches = tensor.others > 0 or bool(gone.intersection(tensor.readers))
            beside[tensor.maker] = beside.get(tensor.maker, False) or reaches
    return [node for node in left if regions.has_weights(node) or beside[node]]


def _losing(prices: _Prices) -> dict[onnx_ir.Node, str]:
    reasons: dict[onnx_ir.Node, str] = {}
    for region in prices.regions():
        if prices.loses(region):
            reasons.update(dict.fromkeys(region, _region_reason(len(region))))
    return reasons


def _region_reason(size: int) -> str:
    ops = f"with {size} ops " if size > 1 else ""
    return (
        f"its int8 region {ops}would gain less than the changes to int8 and back cost (estimated)"
    )


def _reason(node: onnx_ir.Node, policy: Policy) -> str:
    kind = kinds.kind(node)
    ratio = policy.ratio(kind)
    if ratio < 1.0:
        word = kinds.WORDS.get(kind, f"`{kind}`")
        return (
            f"the engine runs an int8 {word} at {ratio:g} of float's speed on this target, "
            "and its int8 neighbours do not make up for it (estimated)"
        )
    return (
        "beside ops in float it would gain less in int8 than the changes to int8 and back cost "
        "(estimated)"
    )


@dataclass(frozen=True)
class _Op:
    """Picoseconds on each side, and what its weights' smaller file is worth in them."""

    floating: int
    int8: int
    saved: int


@dataclass(frozen=True)
class _Tensor:
    """An activation of the int8 ops: who of them makes and reads it, how many others read it."""

    value: onnx_ir.Value
    maker: onnx_ir.Node | None
    readers: tuple[onnx_ir.Node, ...]
    others: int


class _Prices:
    """What the int8 ops and the tensors between them cost on both sides."""

    def __init__(self, graph: Graph, regions: Regions, policy: Policy) -> None:
        nodes = [node for node in graph.nodes() if regions.candidate(node) is not None]
        whole = sum(cost.float_op(node) for node in nodes)
        parameters = max(1, graph.parameter_count)
        self.ops: dict[onnx_ir.Node, _Op] = {}
        for node in nodes:
            price = cost.float_op(node)
            weights = _weights(node) if regions.has_weights(node) else 0
            int8 = int(price / policy.ratio(kinds.kind(node)))
            self.ops[node] = _Op(price, int8, int(_SAVED * whole * weights / parameters))
        self.tensors = tuple(_tensors(nodes, regions))
        self.reorders = regions.kernels.reorders

    def _change(self, value: onnx_ir.Value, rate: int) -> int:
        return cost.change(value, rate, reorders=self.reorders)

    def _seam(self, reader: onnx_ir.Node, value: onnx_ir.Value) -> int:
        return cost.seam(reader, value) if self.reorders else 0

    def regions(self) -> tuple[tuple[onnx_ir.Node, ...], ...]:
        """The connected regions, in the order of their first ops."""
        head = {node: node for node in self.ops}

        def find(node: onnx_ir.Node) -> onnx_ir.Node:
            while head[node] is not node:
                head[node] = head[head[node]]
                node = head[node]
            return node

        for tensor in self.tensors:
            ends = [*([tensor.maker] if tensor.maker else []), *tensor.readers]
            for node in ends[1:]:
                head[find(node)] = find(ends[0])
        groups: dict[onnx_ir.Node, list[onnx_ir.Node]] = {}
        for node in self.ops:
            groups.setdefault(find(node), []).append(node)
        return tuple(tuple(group) for group in groups.values())

    def loses(self, region: Iterable[onnx_ir.Node]) -> bool:
        """Whether a whole region costs less in float."""
        inside = set(region)
        gain = sum(
            op.floating + op.saved - int(op.int8 * DOUBTS[0])
            for op in map(self.ops.get, inside)
            if op
        )
        for tensor in self.tensors:
            if tensor.maker is None and inside.intersection(tensor.readers):
                gain -= self._change(tensor.value, cost.QUANTIZE)
            if tensor.maker in inside:
                gain -= tensor.others * self._change(tensor.value, cost.DEQUANTIZE)
        return gain < 0

    def cut(self, doubt: float) -> tuple[onnx_ir.Node, ...]:
        """The ops that are cheaper in float, given where the others are."""
        at = {node: FREE + index for index, node in enumerate(self.ops)}
        edges: list[Edge] = []
        for node, op in self.ops.items():
            edges.append((SOURCE, at[node], op.floating + op.saved))
            edges.append((at[node], SINK, int(op.int8 * doubt)))
        gate = FREE + len(at)
        for tensor in self.tensors:
            home = at[tensor.maker] if tensor.maker is not None else SINK
            # one QuantizeLinear however many read it, but a DequantizeLinear for each reader
            edges.append((gate, home, self._change(tensor.value, cost.QUANTIZE)))
            edges += [(at[reader], gate, _NEVER) for reader in tensor.readers]
            gate += 1
            if tensor.maker is not None:
                back = self._change(tensor.value, cost.DEQUANTIZE)
                edges.append((home, SINK, tensor.others * back))
                edges += [(home, at[r], back + self._seam(r, tensor.value)) for r in tensor.readers]
        side = Network(gate, edges).sink_side()
        return tuple(node for node in self.ops if at[node] in side)


def _tensors(nodes: Iterable[onnx_ir.Node], regions: Regions) -> Iterable[_Tensor]:
    made: dict[onnx_ir.Value, onnx_ir.Node] = {}
    read: dict[onnx_ir.Value, list[onnx_ir.Node]] = {}
    for node in nodes:
        found = regions.candidate(node)
        assert found is not None
        for value in found.outputs:
            made[regions.made(value)] = node
        for value in dict.fromkeys(found.inputs):
            read.setdefault(value, []).append(node)
    for value in {**made, **read}:
        readers = tuple(read.get(value, ()))
        others = len(set(value.consumers()) - set(readers)) + int(value.is_graph_output())
        yield _Tensor(value, made.get(value), readers, others)


def _weights(node: onnx_ir.Node) -> int:
    array = constant(node.inputs[1])
    return 0 if array is None else math.prod(array.shape)
