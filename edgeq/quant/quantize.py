"""Numbers for a draft: ranges and weights become the encodings of a plan (DESIGN section 4)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from numpy.typing import NDArray

from edgeq.ir import Graph, constant
from edgeq.numerics import affine
from edgeq.quant import ranges
from edgeq.quant.calibrate import Statistics
from edgeq.quant.draft import Draft, Join
from edgeq.quant.plan import Encoding, QuantPlan
from edgeq.quant.ranges import Range
from edgeq.quant.stored import Encoder, recurrent
from edgeq.quant.weights import WeightEncoder

TIE_RATIO = 2.0
"""A Concat gives its operands one encoding while that costs none of them more than one bit."""

_UNSEEN = 255.0
"""How far a clamped tensor that was always 0 is assumed to go at most: steps of 1."""

DEFAULT_METHOD = "minmax"
"""The range method of a tensor that is given none."""


def quantize(
    graph: Graph,
    draft: Draft,
    statistics: Statistics,
    *,
    method: str | Mapping[str, str] = DEFAULT_METHOD,
    pair_safe: bool,
) -> QuantPlan:
    """The plan of `draft`, which `edgeq.quant.draft.draft` made of the same `graph`, with numbers.

    `statistics` holds a histogram for each of `draft.observe`; `method` is one of
    `ranges.METHODS` for all of them, or one per tensor. `pair_safe` keeps neighbouring weights from
    saturating x86 kernels without VNNI. Raises EdgeqError: [unknown-algorithm] for another method,
    [range-too-wide] where a product of scales leaves float32.
    """
    encodings = _Activations(draft, statistics, method).encodings()
    encoder = WeightEncoder(_arrays(graph, draft), encodings, pair_safe=pair_safe)
    for layer in draft.layers:
        encoder.add_layer(layer)
    for operand in draft.constants:
        encoder.add_operand(operand.tensor, operand.node)
    stored = _stored(graph, draft)
    notes = (*_never_seen(draft, statistics), *encoder.notes())
    if not encodings and not stored:
        notes = ("no op of this model can run in int8: all of it stays float", *notes)
    return QuantPlan({**encodings, **encoder.encodings, **stored}, draft.ops, notes)


def _stored(graph: Graph, draft: Draft) -> dict[str, Encoding]:
    """Encodings of the weights that recurrent ops have in int8 and compute with in float."""
    encoder = Encoder({})
    for node in graph.nodes():
        decision = draft.ops.get(str(node.name))
        if decision is None or decision.precision != "int8-weights":
            continue
        for weight in (recurrent(node) or (decision, ()))[1]:
            encoder.put(str(node.name), weight)
    return encoder.encodings


def _arrays(graph: Graph, draft: Draft) -> dict[str, NDArray[Any]]:
    """The constants that int8 ops read, by name."""
    wanted = {layer.weight for layer in draft.layers}
    wanted |= {layer.bias for layer in draft.layers if layer.bias is not None}
    wanted |= {operand.tensor for operand in draft.constants}
    found: dict[str, NDArray[Any]] = {}
    for value in graph.values():
        array = constant(value) if value.name in wanted else None
        if array is not None:
            found[str(value.name)] = array
    return found


def _by_tensor(observe: Sequence[str], method: str | Mapping[str, str]) -> dict[str, str]:
    """The range method of each tensor of `observe`, in its order."""
    if isinstance(method, str):
        return dict.fromkeys(observe, method)
    return {name: method.get(name, DEFAULT_METHOD) for name in observe}


def _never_seen(draft: Draft, statistics: Statistics) -> list[str]:
    return [
        f"tensor `{name}` was empty in every sample: its range is assumed to be 0"
        for name in draft.observe
        if statistics.tensors[name].total == 0
    ]


class _Activations:
    """Ranges of groups of tensors, joined where a Concat may give its operands one encoding."""

    def __init__(
        self, draft: Draft, statistics: Statistics, method: str | Mapping[str, str]
    ) -> None:
        self.draft = draft
        self.methods = _by_tensor(draft.observe, method)
        self.head = {tensor: group[0] for group in draft.ties for tensor in group}
        self.seen: dict[str, Range] = {
            name: ranges.find(statistics.tensors[name], chosen, draft.clamps.get(name, ()))
            for name, chosen in self.methods.items()
        }
        self.joined: dict[str, tuple[str, ...]] = {name: (name,) for name in self.seen}
        self.reason: dict[str, str] = {}

    def encodings(self) -> dict[str, Encoding]:
        """One encoding per activation tensor of the int8 region, in topological order."""
        for join in self.draft.joins:
            self._join(join)
        made = {head: self._encoding(head) for head in self.seen} | dict(self.draft.fixed)
        return {tensor: made[group[0]] for group in self.draft.ties for tensor in group}

    def _encoding(self, head: str) -> Encoding:
        low, high = self._ends(head)
        scale, zero_point = affine.from_range(low, high)
        while scale > affine.SMALLEST_SCALE and not self._keeps_clamps((head,), scale, zero_point):
            scale, zero_point = affine.tighter(low, scale)
        origin = self.methods[head] + self.reason.get(head, "")
        return Encoding("int8", (scale,), (zero_point,), origin=origin)

    def _ends(self, head: str) -> Range:
        """The range of a group. Where it is 0 alone, what its clamps let through, within reason: no
        codes around 0 would end where a clamp at 0 does."""
        low, high = self._union(self.joined[head])
        bounds = self.draft.clamps.get(head, ())
        if low < high or not bounds:
            return low, high
        low = max(-_UNSEEN, *(bottom for bottom, _ in bounds))
        high = min(_UNSEEN, *(top for _, top in bounds))
        return low, max(high, low + _UNSEEN * affine.SMALLEST_SCALE)

    def _join(self, join: Join) -> None:
        """Give the operands and the result one range, unless that costs a bit or undoes a clamp."""
        heads = [self.head[name] for name in (*join.inputs, join.output)]
        if any(head not in self.joined for head in heads):
            return  # one of them has a fixed encoding
        members = tuple(dict.fromkeys(name for head in heads for name in self.joined[head]))
        low, high = self._union(members)
        spans = [span for name in members if (span := _span(self.seen[name])) > 0.0]
        scale, zero_point = affine.from_range(low, high)
        if any(span * TIE_RATIO < high - low for span in spans):
            return
        if not self._keeps_clamps(members, scale, zero_point):
            return
        for name in members:
            self.joined[name] = members
            self.reason[name] = f", one range for `{join.node}`"

    def _union(self, members: tuple[str, ...]) -> Range:
        ranges = [self.seen[name] for name in members]
        return min(0.0, *(low for low, _ in ranges)), max(0.0, *(high for _, high in ranges))

    def _keeps_clamps(self, heads: tuple[str, ...], scale: float, zero_point: int) -> bool:
        bounds = [pair for head in heads for pair in self.draft.clamps.get(head, ())]
        return all(
            affine.ends_at(low, scale, zero_point, upper=False)
            and affine.ends_at(high, scale, zero_point, upper=True)
            for low, high in bounds
        )


def _span(ends: Range) -> float:
    return ends[1] - ends[0]
