"""The plan before its numbers: which ops become int8, why not the others, what to observe.

Heavy ops (Conv, Gemm, MatMul) are int8 wherever the engine can; the rest beside them. Recurrent ops
compute in float, on weights stored in int8.
"""

from __future__ import annotations

import difflib
import fnmatch
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import onnx_ir

from edgeq.errors import EdgeqError
from edgeq.ir import Graph, subgraphs
from edgeq.quant import balance, candidates, checks, kinds, rules
from edgeq.quant.candidates import Candidate
from edgeq.quant.kernels import ONNXRUNTIME, Kernels
from edgeq.quant.layers import Layer
from edgeq.quant.plan import Encoding, OpDecision
from edgeq.quant.policy import ANY, Policy
from edgeq.quant.regions import Regions
from edgeq.quant.stored import recurrent


@dataclass(frozen=True)
class Operand:
    """A constant that an int8 op other than a layer reads; it is quantized like an activation."""

    node: str
    tensor: str


@dataclass(frozen=True)
class Join:
    """A Concat, Max or Min: the activations it reads and what it makes, candidates for one
    encoding."""

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


def draft(
    graph: Graph,
    *,
    keep_float: Sequence[str] = (),
    float_nodes: Mapping[str, str] = MappingProxyType({}),
    float_tensors: Mapping[str, str] = MappingProxyType({}),
    policy: Policy = ANY,
    kernels: Kernels = ONNXRUNTIME,
) -> Draft:
    """Decide for every node what runs in int8 on the engine of `kernels`. `keep_float` are shell
    patterns over node names.

    `float_nodes` (node -> reason) and `float_tensors` (tensor -> reason: no op makes it or reads
    it in int8, nor what shares its codes) are what measuring found; `policy` is the target's.
    Raises EdgeqError: [already-quantized], or [no-such-node] for a pattern that matches nothing.
    """
    _refuse_quantized(graph)
    kept = kept_float(graph, keep_float)
    held = _held(graph, policy, kernels)
    regions = Regions(graph, kept, kernels=kernels, float_nodes=held)
    slow = balance.too_dear(graph, regions, policy)
    # the policy's choice does not depend on what was measured since, so that a draft with more in
    # float never has an int8 op that the first one had not
    regions = Regions(
        graph,
        kept,
        kernels=kernels,
        float_nodes={**held, **float_nodes},
        float_tensors=float_tensors,
    )
    regions.leave(slow)
    regions.leave(balance.lonely(graph, regions, policy))
    ops: dict[str, OpDecision] = {}
    for node in graph.nodes():
        name = str(node.name)
        stored = None if name in kept else recurrent(node)
        if stored is not None and name in float_nodes:
            ops[name] = OpDecision(name, node.op_type, "float32", float_nodes[name])
        elif stored is not None:
            ops[name] = stored[0]
        elif node.op_type != "Constant":
            ops[name] = regions.decision(node)
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


def kept_float(graph: Graph, patterns: Sequence[str]) -> dict[str, str]:
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


def _held(graph: Graph, policy: Policy, kernels: Kernels) -> dict[str, str]:
    """Node name -> reason, for kinds whose kernel is only used where a target's table has it."""
    found = ((str(node.name), kinds.kind(node)) for node in graph.nodes())
    return {
        name: kernels.held[kind]
        for name, kind in found
        if kind in kernels.held and kind not in policy.ratios
    }


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


class _Tensors:
    """Collects tensors of the int8 nodes into groups that share an encoding."""

    def __init__(self, graph: Graph, regions: Regions) -> None:
        self.regions = regions
        self.kernels = regions.kernels
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
        tied = str(found.inputs[0].name) if node.op_type in self.kernels.tied else None
        for output in outputs:
            self.head[output] = self.head[tied] if tied is not None else output
        if tied is None:
            self._fix(outputs[0], node.op_type)
        if node.op_type in rules.CLAMPS:
            self.clamps[outputs[0]] = [checks.clamp_bounds(node) or (0.0, math.inf)]
        if node.op_type in self.kernels.joins:
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
        if op_type in self.kernels.fixed_outputs:
            scale, zero_point = self.kernels.fixed_outputs[op_type]
            self.fixed[tensor] = Encoding(
                "int8", (scale,), (zero_point,), origin=f"{op_type} output"
            )

    def _clamp(self, node: onnx_ir.Node) -> None:
        head = self.head[str(self.regions.made(node.outputs[0]).name)]
        self.clamps.setdefault(head, []).append(checks.clamp_bounds(node) or (0.0, math.inf))
