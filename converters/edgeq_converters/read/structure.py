"""The graph as text promises it: names given once, nothing undefined, no cycle, bounded nesting.

Runs on the parsed message before any library looks at it.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Set
from dataclasses import dataclass

from onnx import AttributeProto, FunctionProto, GraphProto, ModelProto, NodeProto

from edgeq_converters.read import tensors
from edgeq_converters.read.findings import Findings, listed, quote

MAX_NESTING = 16
MAX_NODES = 200_000

Holder = GraphProto | FunctionProto


def label(node: NodeProto) -> str:
    """How messages call a node: operator and name, or what it makes where it has no name."""
    if node.name:
        return f"`{node.op_type}` (node {quote(node.name)})"
    makes = next((name for name in node.output if name), "")
    return f"`{node.op_type}` (makes {quote(makes)})"


@dataclass
class Structure:
    """Checks every graph of one model, reorders nodes where a valid order exists, and counts."""

    found: Findings
    reordered: int = 0
    nodes: int = 0

    def model(self, model: ModelProto) -> None:
        """The main graph and every local function."""
        self.graph(model.graph, frozenset(), 0)
        for function in model.functions:
            self._function(function)
        if self.nodes > MAX_NODES:
            self.found.add("invalid-model", f"{self.nodes:,} nodes; at most {MAX_NODES:,} are read")

    def graph(self, graph: GraphProto, outer: Set[str], depth: int) -> set[str]:
        """One graph, then its bodies. `outer`: the names it sees from outside; those it reads."""
        if depth > MAX_NESTING:
            self.found.add("invalid-model", f"bodies are nested deeper than {MAX_NESTING}")
            return set()
        if len(graph.sparse_initializer):
            names = [sparse.values.name for sparse in graph.sparse_initializer]
            self.found.add("unsupported-type", f"sparse initializers {listed(names)}")
        for tensor in graph.initializer:
            tensors.check(tensor, self.found)
        inputs = [info.name for info in graph.input]
        stored = [tensor.name for tensor in graph.initializer]
        self._once(inputs, "input")
        self._once(stored, "initializer")
        given = set(inputs) | set(stored)
        free = self._scope(graph, given, outer, depth)
        self._outputs(graph, given)
        return free

    def _function(self, function: FunctionProto) -> None:
        self._once(function.input, "function input")
        self._scope(function, set(function.input), frozenset(), 0, in_function=True)

    def _once(self, names: Iterable[str], what: str) -> None:
        seen: set[str] = set()
        for name in names:
            if not name:
                self.found.add("invalid-model", f"{what} without a name")
            elif name in seen:
                self.found.add("invalid-model", f"{what} {quote(name)} is given twice")
            seen.add(name)

    def _scope(
        self,
        graph: Holder,
        given: set[str],
        outer: Set[str],
        depth: int,
        in_function: bool = False,
    ) -> set[str]:
        """Names and order of the nodes; returns the outer names that they read."""
        made = self._made(graph, given)
        local = given | made
        for name in sorted(local & outer):
            text = f"{quote(name)} is made inside a body and outside of it"
            self.found.add("invalid-model", text)
        visible = local | outer
        needs = [self._node(node, visible, depth, in_function) for node in graph.node]
        self._order(graph, [need & made for need in needs])
        return set().union(*needs) - local

    def _made(self, graph: Holder, given: set[str]) -> set[str]:
        made: set[str] = set()
        for node in graph.node:
            for name in node.output:
                if name and (name in made or name in given):
                    self.found.add("invalid-model", f"tensor {quote(name)} is made twice")
                if name:
                    made.add(name)
        return made

    def _node(self, node: NodeProto, visible: Set[str], depth: int, in_function: bool) -> set[str]:
        """The names that `node` and its bodies read from the scope it stands in."""
        self.nodes += 1
        if not node.op_type:
            self.found.add("invalid-model", f"a node without an operator ({quote(node.name)})")
        needs = {name for name in node.input if name}
        for name in sorted(needs - visible):
            self.found.add("invalid-model", f"{label(node)} reads {quote(name)}, never made")
        self._once([attribute.name for attribute in node.attribute], f"{label(node)}: attribute")
        seen_inside = visible - set(node.output)
        for attribute in node.attribute:
            self._attribute(node, attribute, in_function)
            for body in tensors.bodies(attribute):
                needs |= self.graph(body, seen_inside, depth + 1)
        return needs

    def _attribute(self, node: NodeProto, attribute: AttributeProto, in_function: bool) -> None:
        called = f"{label(node)}: attribute {quote(attribute.name)}"
        if attribute.ref_attr_name and not in_function:
            self.found.add("invalid-model", f"{called} refers to a function's")
        if attribute.HasField("sparse_tensor") or len(attribute.sparse_tensors):
            self.found.add("unsupported-type", f"{called} is a sparse tensor")
        if not all(_is_text(item) for item in (attribute.s, *attribute.strings)):
            self.found.add("damaged-model", f"{called} is not text")
        for tensor in tensors.attribute_tensors(attribute):
            tensors.check(tensor, self.found)

    def _outputs(self, graph: GraphProto, given: set[str]) -> None:
        names = [info.name for info in graph.output]
        self._once(names, "output")
        local = given | {name for node in graph.node for name in node.output}
        for name in names:
            if name and name not in local:
                self.found.add("invalid-model", f"output {quote(name)} is never made")

    def _order(self, graph: Holder, needs: list[set[str]]) -> None:
        """Sort the nodes in place where they are not sorted; a cycle is named by its nodes."""
        if _is_sorted(graph, needs):
            return
        order = _topological(graph, needs)
        if order is None:
            names = [node.name or node.op_type for node in _on_cycle(graph, needs)]
            self.found.add("invalid-model", f"a cycle through {listed(names)}")
            return
        nodes = [NodeProto.FromString(graph.node[i].SerializeToString()) for i in order]
        del graph.node[:]
        graph.node.extend(nodes)
        self.reordered += 1


def _is_text(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def _is_sorted(graph: Holder, needs: list[set[str]]) -> bool:
    done: set[str] = set()
    for node, need in zip(graph.node, needs, strict=True):
        if not need <= done:
            return False
        done.update(node.output)
    return True


def _topological(graph: Holder, needs: list[set[str]]) -> list[int] | None:
    """Indices in an order that is valid and as near to the file's as can be; None: a cycle."""
    maker = {name: i for i, node in enumerate(graph.node) for name in node.output if name}
    waiting = [{maker[name] for name in need} for need in needs]
    readers: list[list[int]] = [[] for _ in needs]
    for i, makers in enumerate(waiting):
        for j in makers:
            readers[j].append(i)
    ready = [i for i, makers in enumerate(waiting) if not makers]
    order: list[int] = []
    while ready:
        i = heapq.heappop(ready)
        order.append(i)
        for j in readers[i]:
            waiting[j].discard(i)
            if not waiting[j]:
                heapq.heappush(ready, j)
    return order if len(order) == len(needs) else None


def _on_cycle(graph: Holder, needs: list[set[str]]) -> list[NodeProto]:
    """The nodes left when all with nothing before them, or nothing after, are gone."""
    left = set(range(len(needs)))
    while True:
        made = {name for i in left for name in graph.node[i].output if name}
        read = {name for i in left for name in needs[i]}
        inner = {i for i in left if needs[i] & made and read & set(graph.node[i].output)}
        if inner == left:
            return [graph.node[i] for i in sorted(left)]
        left = inner
