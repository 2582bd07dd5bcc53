"""The plan before its numbers: which ops become int8, why not the others, what to observe.

Heavy ops (Conv, Gemm, MatMul) are int8 wherever the engine can; the rest only between int8 ops.
"""

from __future__ import annotations

import difflib
import fnmatch
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import onnx_ir

from edgeq.errors import EdgeqError
from edgeq.ir import Graph, consumers, subgraphs
from edgeq.quant import candidates, rules
from edgeq.quant.candidates import Candidate
from edgeq.quant.layers import Layer
from edgeq.quant.plan import Encoding, OpDecision


@dataclass(frozen=True)
class Operand:
    """A constant that an int8 op other than a layer reads; it is quantized like an activation."""

    node: str
    tensor: str


@dataclass(frozen=True)
class Join:
    """A Concat: the activations it reads and what it makes, candidates for one encoding."""

    node: str
    inputs: tuple[str, ...]
    output: str


@dataclass(frozen=True)
class Draft:
    """`ties` are groups of tensors that share one encoding, the head (observed or fixed) first.

    `observe` lists the heads whose range must come from data, graph inputs among them, in
    topological order. `clamps` holds, per head, the bounds (low, high) of clamps folded into it.
    """

    ops: Mapping[str, OpDecision]
    observe: tuple[str, ...]
    fixed: Mapping[str, Encoding]
    ties: tuple[tuple[str, ...], ...]
    clamps: Mapping[str, tuple[tuple[float, float], ...]]
    layers: tuple[Layer, ...]
    constants: tuple[Operand, ...]
    joins: tuple[Join, ...]


def draft(graph: Graph, *, keep_float: Sequence[str] = ()) -> Draft:
    """Decide for every node. `keep_float` are shell patterns over node names.

    Raises EdgeqError: [already-quantized], or [no-such-node] for a pattern that matches nothing.
    """
    _refuse_quantized(graph)
    kept = _kept(graph, keep_float)
    regions = _Regions(graph, kept)
    regions.settle()
    ops: dict[str, OpDecision] = {}
    for node in graph.nodes():
        if node.op_type != "Constant":
            ops[str(node.name)] = regions.decision(node)
        ops.update(_inside(node))
    return _Tensors(graph, regions).draft(ops)


def _refuse_quantized(graph: Graph) -> None:
    types = {node.op_type for node in graph.model.graph.all_nodes()}
    found = sorted(name for name in types if rules.is_quantized_op(name))
    if found:
        names = ", ".join(f"`{name}`" for name in found[:3])
        raise EdgeqError(
            "already-quantized",
            f"the model is quantized already: it holds {names}",
            "package it as it is: `--fp32`",
            "or quantize the float model it was made from",
        )


def _kept(graph: Graph, patterns: Sequence[str]) -> dict[str, str]:
    """Node name -> reason, for nodes that the user wants in float."""
    names = [str(node.name) for node in graph.nodes()]
    kept: dict[str, str] = {}
    for pattern in patterns:
        matched = [name for name in names if fnmatch.fnmatchcase(name, pattern)]
        if not matched:
            close = difflib.get_close_matches(pattern, names, 1, 0.0)
            hints = [f"did you mean `{name}`?" for name in close]
            raise EdgeqError("no-such-node", f"no node matches `--keep-float {pattern}`", *hints)
        for name in matched:
            kept.setdefault(name, f"kept in float by `--keep-float {pattern}`")
    return kept


def _inside(node: onnx_ir.Node) -> dict[str, OpDecision]:
    """The ops in the bodies of If, Loop and Scan: none is int8."""
    found: dict[str, OpDecision] = {}
    for body in subgraphs(node):
        for inner in body.all_nodes():
            if inner.op_type == "Constant":
                continue
            key = f"{node.name}/{inner.name or inner.op_type}"
            while key in found:
                key += "'"
            precision = "float32" if candidates.works_on(inner) == "float32" else "other"
            reason = f"inside the body of {_article(node.op_type)} `{node.op_type}`"
            found[key] = OpDecision(key, inner.op_type, precision, reason)
    return found


def _article(word: str) -> str:
    return "an" if word[:1] in "AEIOU" else "a"


class _Regions:
    """Which nodes are int8: the largest set in which every op has the neighbours it needs."""

    def __init__(self, graph: Graph, kept: Mapping[str, str]) -> None:
        self.nodes = graph.nodes()
        self.found: dict[onnx_ir.Node, Candidate | str] = {
            node: kept.get(str(node.name)) or candidates.find(node) for node in self.nodes
        }
        self.hosts: dict[onnx_ir.Node, onnx_ir.Node] = {}

    def settle(self) -> None:
        """Take away ops without int8 neighbours until nothing changes; each round removes some."""
        while True:
            self.hosts = self._find_hosts()
            lonely = {
                node: reason
                for node, found in self.found.items()
                if isinstance(found, Candidate) and (reason := self._lonely(node, found))
            }
            if not lonely:
                return
            self.found.update(lonely)

    def candidate(self, node: onnx_ir.Node | None) -> Candidate | None:
        """What an int8 node reads and makes; None for float ones, and for clamps."""
        if node is None or node.op_type in rules.CLAMPS:
            return None
        found = self.found.get(node)
        return found if isinstance(found, Candidate) else None

    def maker(self, value: onnx_ir.Value) -> onnx_ir.Node | None:
        """The int8 node whose codes `value` is, looking through clamps that are folded away."""
        node = value.producer()
        if node is None:
            return None
        node = self.hosts.get(node, node)
        return node if self.candidate(node) else None

    def made(self, value: onnx_ir.Value) -> onnx_ir.Value:
        """The tensor that holds the codes of an int8 node's output: the last clamp's, if any."""
        users = consumers(value)
        if len(users) == 1 and users[0] in self.hosts:
            return self.made(users[0].outputs[0])
        return value

    def decision(self, node: onnx_ir.Node) -> OpDecision:
        name = str(node.name)
        found = self.found[node]
        if node in self.hosts:
            return OpDecision(name, node.op_type, "int8", fused_into=str(self.hosts[node].name))
        if isinstance(found, str):
            dtype = candidates.works_on(node)
            if dtype != "float32":
                return OpDecision(name, node.op_type, "other", f"it works on {dtype}")
            return OpDecision(name, node.op_type, "float32", found)
        return OpDecision(name, node.op_type, "int8")

    def _find_hosts(self) -> dict[onnx_ir.Node, onnx_ir.Node]:
        """Clamp -> the int8 node whose range it becomes."""
        self.hosts = {}
        for node in self.nodes:
            if node.op_type in rules.CLAMPS and isinstance(self.found[node], Candidate):
                host = self._host(node)
                if host is not None:
                    self.hosts[node] = host
        return self.hosts

    def _host(self, clamp: onnx_ir.Node) -> onnx_ir.Node | None:
        """The maker of what `clamp` reads, if nobody else reads it or what it is tied to."""
        value = clamp.inputs[0]
        assert value is not None
        first = maker = self.maker(value)
        while maker is not None and candidates.only_use(value) is not None:
            if maker.op_type not in rules.TIED:
                return None if maker.op_type in rules.UNCLAMPABLE else first
            if len(maker.outputs) > 1 or maker.inputs[0] is None:
                return None
            value = maker.inputs[0]
            maker = self.maker(value)
        return None

    def _lonely(self, node: onnx_ir.Node, found: Candidate) -> str:
        """Why this op has no place in an int8 region, or nothing."""
        if node.op_type in rules.CLAMPS:
            return "" if node in self.hosts else candidates.why_not_folded(node)
        if node.op_type in rules.HEAVY:
            return ""
        if not any(self._fed(node, value) for value in found.inputs):
            return "its inputs come from float ops"
        if self._adds_bias(node, found):
            return ""
        readers = [user for value in found.outputs for user in consumers(self.made(value))]
        if not any(self.candidate(user) for user in readers):
            return "only float ops or outputs of the model read its result"
        return ""

    def _fed(self, node: onnx_ir.Node, value: onnx_ir.Value) -> bool:
        if value.is_graph_input():
            return node.op_type in rules.PERMUTATIONS
        return self.maker(value) is not None

    def _adds_bias(self, node: onnx_ir.Node, found: Candidate) -> bool:
        """An Add of a constant to the product of an int8 MatMul: the second half of a Linear."""
        if node.op_type != "Add" or len(found.inputs) != 1:
            return False
        maker = self.maker(found.inputs[0])
        return maker is not None and maker.op_type == "MatMul"


class _Tensors:
    """Collects tensors of the int8 nodes into groups that share an encoding."""

    def __init__(self, graph: Graph, regions: _Regions) -> None:
        self.regions = regions
        self.head: dict[str, str] = {}
        self.fixed: dict[str, Encoding] = {}
        self.clamps: dict[str, list[tuple[float, float]]] = {}
        self.joins: list[Join] = []
        self.constants: list[Operand] = []
        self.layers: list[Layer] = []
        for node in graph.nodes():
            found = regions.candidate(node)
            if node in regions.hosts:
                self._clamp(node)
            elif found is not None:
                self._node(node, found)

    def draft(self, ops: Mapping[str, OpDecision]) -> Draft:
        groups: dict[str, list[str]] = {}
        for tensor, head in self.head.items():
            groups.setdefault(head, []).append(tensor)
        return Draft(
            ops=ops,
            observe=tuple(head for head in groups if head not in self.fixed),
            fixed=self.fixed,
            ties=tuple(tuple(group) for group in groups.values()),
            clamps={head: tuple(bounds) for head, bounds in self.clamps.items()},
            layers=tuple(self.layers),
            constants=tuple(self.constants),
            joins=tuple(self.joins),
        )

    def _node(self, node: onnx_ir.Node, found: Candidate) -> None:
        for value in found.inputs:
            self._read(value)
        self.constants += [Operand(str(node.name), tensor) for tensor in found.constants]
        if found.layer is not None:
            self.layers.append(found.layer)
        outputs = [str(self.regions.made(value).name) for value in found.outputs]
        tied = str(found.inputs[0].name) if node.op_type in rules.TIED else None
        for output in outputs:
            self.head[output] = self.head[tied] if tied is not None else output
        if tied is None:
            self._fix(outputs[0], node.op_type)
        if node.op_type == "Concat":
            names = tuple(str(value.name) for value in found.inputs)
            self.joins.append(Join(str(node.name), names, outputs[0]))

    def _read(self, value: onnx_ir.Value) -> None:
        """Give an activation that a float op (or nobody) makes a group of its own."""
        name = str(value.name)
        if name not in self.head:
            self.head[name] = name
            producer = value.producer()
            if producer is not None:
                self._fix(name, producer.op_type)

    def _fix(self, tensor: str, op_type: str) -> None:
        if op_type in rules.FIXED_OUTPUTS:
            scale, zero_point = rules.FIXED_OUTPUTS[op_type]
            self.fixed[tensor] = Encoding(
                "int8", (scale,), (zero_point,), origin=f"{op_type} output"
            )

    def _clamp(self, node: onnx_ir.Node) -> None:
        head = self.head[str(self.regions.made(node.outputs[0]).name)]
        self.clamps.setdefault(head, []).append(candidates.clamp_bounds(node) or (0.0, math.inf))
