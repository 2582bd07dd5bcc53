"""The fp16 plan: weights stored in float16, cast back to float32 when the model is loaded.

No activation changes and nothing is calibrated: the engine computes what it computed before, on
weights of 11 significant bits. Rounding leaves a tensor 73 dB (relative error uniform within
2**-12..2**-11 of each value); one that keeps less than `LEAST_DB`, because its values lie below
float16's normal numbers, stays as it is, and so does one with a value beyond the largest.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import onnx_ir
from numpy.typing import NDArray

from edgeq.errors import EdgeqError
from edgeq.ir import Graph, subgraphs
from edgeq.ir.query import constant_tensor
from edgeq.quant import candidates, rules
from edgeq.quant.draft import kept_float
from edgeq.quant.plan import Encoding, OpDecision, QuantPlan

LEAST_VALUES = 256
"""Smaller tensors stay: the Cast and its names take about the bytes that would be saved."""
LEAST_DB = 60.0
"""Signal to rounding noise that a tensor must keep."""
LARGEST = 65504.0
"""The largest finite float16."""
SMALLEST_NORMAL = 2.0**-14

_BLOCK = 1 << 20


def plan_half(graph: Graph, *, keep_float: Sequence[str] = ()) -> QuantPlan:
    """Decide for every float32 constant and every node, in bodies too.

    `keep_float` are shell patterns over node names; what they read stays float32. Raises EdgeqError
    [no-such-node] for a pattern that matches nothing, [nothing-to-quantize] where no tensor can be.
    """
    kept = kept_float(graph, keep_float)
    tensors: dict[str, Encoding] = {}
    refused: dict[str, str] = {}
    names = Counter(str(value.name) for value in _constants(graph.model.graph))
    for value in _constants(graph.model.graph):
        name = str(value.name)
        tensor = constant_tensor(value)
        if tensor is None or tensor.dtype != onnx_ir.DataType.FLOAT or tensor.size < LEAST_VALUES:
            continue
        reason = _other_use(value, kept, names) or _too_coarse(np.asarray(tensor.numpy()))
        if reason:
            refused[name] = reason
        else:
            tensors[name] = Encoding("float16", (1.0,), (0,), symmetric=True, origin="rounded")
    if not tensors:
        why = "; ".join(f"`{name}`: {reason}" for name, reason in list(refused.items())[:3])
        raise EdgeqError(
            "nothing-to-quantize",
            f"no weights can be stored in float16: {why or f'none has {LEAST_VALUES} values'}",
            "build it in float: `--fp32`",
        )
    notes = tuple(f"kept in float32: `{name}`: {reason}" for name, reason in refused.items())
    return QuantPlan(tensors, dict(_decisions(graph, tensors, refused)), notes)


def _constants(graph: onnx_ir.Graph) -> Iterator[onnx_ir.Value]:
    """Initializers and outputs of Constant nodes, of the graph and of every body in it."""
    for body in (graph, *graph.subgraphs()):
        yield from body.initializers.values()
        yield from (node.outputs[0] for node in body if node.op_type == "Constant")


def _other_use(value: onnx_ir.Value, kept: dict[str, str], names: Counter[str]) -> str:
    """Why who uses `value` needs it as it is, or nothing."""
    if value.is_graph_output():
        return "it is an output of the model"
    if names[str(value.name)] > 1:
        return "bodies beside each other have one of this name each"
    for node in value.consumers():
        if str(node.name) in kept:
            return kept[str(node.name)]
        if rules.is_quantized_op(node.op_type):
            return f"`{node.op_type}` (node `{node.name}`) reads it: the model is quantized already"
    return ""


def _too_coarse(array: NDArray[Any]) -> str:
    """Why float16 does not hold these values, or nothing. Infinities are held as they are."""
    flat = array.reshape(-1)
    signal = noise = largest = 0.0
    for start in range(0, flat.size, _BLOCK):
        block = flat[start : start + _BLOCK]
        block = block[np.isfinite(block)].astype(np.float64)
        largest = max(largest, float(np.abs(block).max(initial=0.0)))
        with np.errstate(over="ignore"):
            rounded = block.astype(np.float32).astype(np.float16).astype(np.float64)
        if not np.isfinite(rounded).all():
            return f"it holds {largest:.3g}, beyond float16's {LARGEST:g}"
        signal += float(np.sum(np.square(block)))
        noise += float(np.sum(np.square(block - rounded)))
    left_db = 10.0 * math.log10(signal / noise) if signal and noise else math.inf
    if noise and left_db < LEAST_DB:
        return (
            f"float16 would leave {left_db:.0f} dB of it: its values lie below"
            f" {SMALLEST_NORMAL:.1e}, the largest is {largest:.1e}"
        )
    return ""


def _decisions(
    graph: Graph, tensors: dict[str, Encoding], refused: dict[str, str]
) -> Iterator[tuple[str, OpDecision]]:
    """A row for each node but Constant; those in bodies are called NODE/INNER, as drafts do."""
    for node in graph.nodes():
        if node.op_type != "Constant":
            yield str(node.name), _decision(node, str(node.name), tensors, refused)
        taken: set[str] = set()
        for inner in (inner for body in subgraphs(node) for inner in body.all_nodes()):
            key = f"{node.name}/{inner.name or inner.op_type}"
            while key in taken:
                key += "'"
            taken.add(key)
            if inner.op_type != "Constant":
                yield key, _decision(inner, key, tensors, refused)


def _decision(
    node: onnx_ir.Node, key: str, tensors: dict[str, Encoding], refused: dict[str, str]
) -> OpDecision:
    read = [str(value.name) for value in node.inputs if value is not None]
    if any(name in tensors for name in read):
        return OpDecision(key, node.op_type, "fp16-weights")
    dtype = candidates.works_on(node)
    if dtype != "float32":
        return OpDecision(key, node.op_type, "other", f"it works on {dtype}")
    reasons = [refused[name] for name in read if name in refused]
    return OpDecision(key, node.op_type, "float32", reasons[0] if reasons else "")
