"""Which operators may pass: the ONNX standard's, ai.onnx.ml's, and ONNX Runtime's own for CPUs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import onnx
from onnx import FunctionProto, GraphProto, ModelProto, NodeProto

from edgeq.ir import OPSET
from edgeq_converters.read import tensors
from edgeq_converters.read.contrib import CPU_OPERATORS
from edgeq_converters.read.findings import Findings, listed, quote

LOWEST_OPSET = 7
CONTRIB = "com.microsoft"
_ML = "ai.onnx.ml"
_DEFAULT_NAMES = ("", "ai.onnx")


@dataclass(frozen=True)
class Opsets:
    """The version of each domain that a model imports; the default domain is ""."""

    versions: Mapping[str, int]

    @property
    def default(self) -> int:
        """The default domain's; `OPSET` for a model that uses none of it."""
        return self.versions.get("", OPSET)


def opsets(model: ModelProto, found: Findings) -> Opsets:
    """The imports of `model`, checked; the alias `ai.onnx` is written as "" from here on."""
    versions: dict[str, int] = {}
    for entry in model.opset_import:
        domain = "" if entry.domain in _DEFAULT_NAMES else entry.domain
        if versions.setdefault(domain, entry.version) != entry.version:
            text = f"domain {quote(domain or 'ai.onnx')} is imported at two versions"
            found.add("invalid-model", text)
    for node in every_node(model):
        if node.domain in _DEFAULT_NAMES and node.domain:
            node.domain = ""
    _check_versions(versions, found)
    return Opsets(versions)


def _check_versions(versions: Mapping[str, int], found: Findings) -> None:
    newest = onnx.defs.onnx_opset_version()
    default = versions.get("")
    if default is not None and not LOWEST_OPSET <= default <= newest:
        text = f"opset {default}; opsets {LOWEST_OPSET} to {newest} are read"
        found.add("unsupported-opset", text)
    limits = onnx.helper.OP_SET_ID_VERSION_MAP
    newest_ml = max(version for domain, version in limits if domain == _ML)
    if not 1 <= versions.get(_ML, 1) <= newest_ml:
        found.add("unsupported-opset", f"opset {versions[_ML]} of {_ML}; 1 to {newest_ml} are read")


def every_node(model: ModelProto) -> Iterator[NodeProto]:
    """All nodes: of the graph, of bodies, of local functions."""
    yield from nodes_in(model.graph)
    for function in model.functions:
        yield from nodes_in(function)


def nodes_in(graph: GraphProto | FunctionProto) -> Iterator[NodeProto]:
    """All nodes of a graph and of the bodies in it, in file order."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for body in tensors.bodies(attribute):
                yield from nodes_in(body)


def check(model: ModelProto, known: Opsets, found: Findings) -> None:
    """Every operator that nothing here can run, each kind once, with the names of its nodes."""
    functions = {(function.domain, function.name) for function in model.functions}
    bad: dict[tuple[str, str], list[str]] = {}
    for node in every_node(model):
        if (node.domain, node.op_type) in functions:
            continue
        problem = _problem(node.domain, node.op_type, known)
        if problem is not None:
            first = next((name for name in node.output if name), "")
            bad.setdefault(problem, []).append(node.name or first)
    for (slug, text), names in bad.items():
        found.add(slug, f"{text} (node {listed(names, 3)})")


def _problem(domain: str, op_type: str, known: Opsets) -> tuple[str, str] | None:
    called = quote(f"{domain}::{op_type}" if domain else op_type)
    if domain not in known.versions:
        return "unsupported-opset", f"{called} is of a domain without an opset import"
    version = known.versions[domain]
    if not domain and not LOWEST_OPSET <= version <= onnx.defs.onnx_opset_version():
        return None  # the opset itself is refused
    if domain == CONTRIB:
        if op_type in CPU_OPERATORS:
            return None
        return "unsupported-op", f"{called} is not an operator of ONNX Runtime on a CPU"
    if domain not in ("", _ML):
        return "unsupported-op", f"{called} is of the unknown domain {quote(domain)}"
    return _standard_problem(domain, op_type, version, called)


def _standard_problem(
    domain: str, op_type: str, version: int, called: str
) -> tuple[str, str] | None:
    if not 1 <= version <= 2**31 - 1 or not onnx.defs.has(op_type, domain):
        return "unsupported-op", f"{called} is no operator of ONNX"
    if not onnx.defs.has(op_type, version, domain):
        return "unsupported-op", f"{called} does not exist in opset {version}"
    if onnx.defs.get_schema(op_type, version, domain).deprecated:
        return "unsupported-op", f"{called} was withdrawn before opset {version}"
    return None


def foreign(model: ModelProto) -> Counter[str]:
    """How often each operator outside the default domain is used, named with its domain."""
    return Counter(f"{node.domain}::{node.op_type}" for node in every_node(model) if node.domain)
