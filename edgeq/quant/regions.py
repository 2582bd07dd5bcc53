"""Which nodes run in int8: the largest set in which every op has the neighbours it needs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import onnx_ir

from edgeq.ir import Graph, attribute, constant, consumers
from edgeq.quant import candidates, rules
from edgeq.quant.candidates import Candidate
from edgeq.quant.kernels import ONNXRUNTIME, Kernels
from edgeq.quant.plan import OpDecision


class Regions:
    """Which nodes are int8: the largest set in which every op has the neighbours it needs.

    `found` holds the int8 form of each node or the reason it has none; `layers` the nodes with
    weights that could be int8, whatever else speaks against it; `hosts` clamp -> its int8 op.
    """

    def __init__(
        self,
        graph: Graph,
        kept: Mapping[str, str],
        *,
        kernels: Kernels = ONNXRUNTIME,
        float_nodes: Mapping[str, str] = MappingProxyType({}),
        float_tensors: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self.kernels = kernels
        self.nodes = graph.nodes()
        tensors = _spread(self.nodes, float_tensors, kernels)
        self.found: dict[onnx_ir.Node, Candidate | str] = {}
        self.layers: set[onnx_ir.Node] = set()
        for node in self.nodes:
            found = candidates.find(node, kernels)
            if isinstance(found, Candidate) and found.layer is not None:
                self.layers.add(node)
            found = kept.get(str(node.name)) or found
            if isinstance(found, Candidate):
                found = float_nodes.get(str(node.name)) or _touched(found, tensors) or found
            self.found[node] = found
        self.hosts: dict[onnx_ir.Node, onnx_ir.Node] = {}
        self.reached: frozenset[onnx_ir.Node] = frozenset()
        self._settle()

    def _settle(self) -> None:
        """Take away ops without int8 neighbours until nothing changes; each round removes some."""
        while True:
            self.hosts = self._find_hosts()
            self.reached = self._find_reached() if self.kernels.whole else frozenset()
            lonely = {
                node: reason
                for node, found in self.found.items()
                if isinstance(found, Candidate) and (reason := self._lonely(node, found))
            }
            if not lonely:
                return
            self.found.update(lonely)

    def candidate(self, node: onnx_ir.Node | None) -> Candidate | None:
        """What an int8 node reads and makes; None for float ones, and for folded clamps."""
        if node is None or node in self.hosts:
            return None
        if node.op_type in rules.CLAMPS and not self.kernels.whole:
            return None
        found = self.found.get(node)
        return found if isinstance(found, Candidate) else None

    def has_weights(self, node: onnx_ir.Node) -> bool:
        """Whether an int8 node is a layer: int8 saves the bytes of its weights."""
        found = self.candidate(node)
        return found is not None and found.layer is not None

    def leave(self, reasons: Mapping[onnx_ir.Node, str]) -> None:
        """Take these nodes out of int8, those that are in it, and then whatever has no neighbours
        any more."""
        for node, reason in reasons.items():
            if isinstance(self.found[node], Candidate):
                self.found[node] = reason
        self._settle()

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

    def _find_reached(self) -> frozenset[onnx_ir.Node]:
        """The int8 nodes with an int8 layer before or behind them, int8 all the way."""
        below: set[onnx_ir.Node] = set()
        above: set[onnx_ir.Node] = set()
        for node in self.nodes:
            found = self.candidate(node)
            if found is None:
                continue
            makers = (self.maker(value) for value in found.inputs)
            if node.op_type in self.kernels.heavy or any(maker in below for maker in makers):
                below.add(node)
        for node in reversed(self.nodes):
            found = self.candidate(node)
            if found is None:
                continue
            readers = (user for value in found.outputs for user in consumers(self.made(value)))
            if node.op_type in self.kernels.heavy or any(reader in above for reader in readers):
                above.add(node)
        return frozenset(below | above)

    def _host(self, clamp: onnx_ir.Node) -> onnx_ir.Node | None:
        """The maker of what `clamp` reads, if nobody else reads it or what it is tied to."""
        value = clamp.inputs[0]
        assert value is not None
        first = maker = self.maker(value)
        while maker is not None and candidates.only_use(value) is not None:
            if maker.op_type not in self.kernels.tied:
                return None if maker.op_type in self.kernels.unclampable else first
            if len(maker.outputs) > 1 or maker.inputs[0] is None:
                return None
            value = maker.inputs[0]
            maker = self.maker(value)
        return None

    def _lonely(self, node: onnx_ir.Node, found: Candidate) -> str:
        """Why this op has no place in an int8 region, or nothing."""
        if node in self.hosts:
            return ""
        if node.op_type in rules.CLAMPS and not self.kernels.whole:
            return candidates.why_not_folded(node, self.kernels)
        if any(self._crashes(value) for value in found.outputs):
            return "a body reads its result behind a move in float: there ONNX Runtime crashes"
        if any(self._makes_int8_softmax(value) for value in found.inputs):
            return (
                "ONNX Runtime would take the `Softmax` before it into int8, and that makes 0 of a "
                "single value"
            )
        if node.op_type in self.kernels.heavy:
            return ""
        if not any(self._fed(node, value) for value in found.inputs):
            return "its inputs come from float ops"
        if self.kernels.whole:
            return "" if node in self.reached else "no int8 layer is before or behind it"
        if self._adds_bias(node, found):
            return ""
        readers = [user for value in found.outputs for user in consumers(self.made(value))]
        if not any(self.candidate(user) for user in readers):
            return "only float ops or outputs of the model read its result"
        return ""

    def _crashes(self, value: onnx_ir.Value) -> bool:
        made = self.made(value)
        return candidates.crashes_in_body(made, lambda node: self.candidate(node) is not None)

    def _makes_int8_softmax(self, value: onnx_ir.Value) -> bool:
        """Whether `value` comes from a Softmax of codes along an axis that may have size 1."""
        node = self._above_moves(value).producer()
        if node is None or node.op_type != "Softmax" or node.domain or node.inputs[0] is None:
            return False
        shape, axis = node.outputs[0].shape, int(attribute(node, "axis", -1))
        size = None if shape is None else shape[axis]
        if isinstance(size, int) and size > 1:
            return False
        return self.maker(self._above_moves(node.inputs[0])) is not None

    def _above_moves(self, value: onnx_ir.Value) -> onnx_ir.Value:
        """The origin of `value`, above ops in float that a QuantizeLinear is moved up through."""
        node = value.producer()
        while node is not None and node.op_type in rules.PROPAGATED and self.maker(value) is None:
            assert node.inputs[0] is not None
            value = node.inputs[0]
            node = value.producer()
        return value

    def _fed(self, node: onnx_ir.Node, value: onnx_ir.Value) -> bool:
        if value.is_graph_input():
            return self.kernels.whole or node.op_type in self.kernels.at_border
        return self.maker(value) is not None

    def _adds_bias(self, node: onnx_ir.Node, found: Candidate) -> bool:
        """An Add of a constant to the product of an int8 MatMul: the second half of a Linear."""
        if node.op_type != "Add" or len(found.inputs) != 1:
            return False
        maker = self.maker(found.inputs[0])
        return maker is not None and maker.op_type == "MatMul"


def _spread(
    nodes: Sequence[onnx_ir.Node], float_tensors: Mapping[str, str], kernels: Kernels
) -> dict[str, str]:
    """`float_tensors` and what shares their codes: through moves and pools to both sides, and
    back through clamps that an int8 op would do by its range."""
    spread = dict(float_tensors)
    while True:
        before = len(spread)
        for node in nodes:
            if node.op_type not in (*kernels.tied, *rules.CLAMPS):
                continue
            source = node.inputs[0] if node.inputs else None
            if source is None or constant(source) is not None:
                continue
            clamp = node.op_type in rules.CLAMPS
            back = not clamp or candidates.only_use(source) is not None
            for made in node.outputs:
                if str(made.name) in spread and back:
                    spread.setdefault(str(source.name), spread[str(made.name)])
                elif str(source.name) in spread and not clamp:
                    spread.setdefault(str(made.name), spread[str(source.name)])
        if len(spread) == before:
            return spread


def _touched(found: Candidate, tensors: Mapping[str, str]) -> str | None:
    """The reason of the first tensor of a candidate that must stay float."""
    names = (str(value.name) for value in (*found.inputs, *found.outputs))
    return next((tensors[name] for name in names if name in tensors), None)
