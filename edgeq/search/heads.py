"""The Softmax a model ends in, where an engine has it in int8: joined at the end of the search.

Its codes are 1/256 apart. As logarithms, which is how distributions are scored, that outweighs all
that the layers before it lost, and no step of the search would see what it does. So the search
leaves it in float, and whether it can be int8 is asked of the probabilities as they are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import onnx_ir
from numpy.typing import NDArray

from edgeq.ir import Graph
from edgeq.numerics import affine
from edgeq.numerics.errors import sqnr_db
from edgeq.quant.draft import Draft
from edgeq.quant.plan import Encoding
from edgeq.quant.rules import PERMUTATIONS
from edgeq.search.design import Design, Designer, Floats

ENOUGH_DB = 30.0
"""What rounding to codes may leave of the probabilities: noise of a thousandth of their power. Ten
sure classes keep 48 dB; a thousand even ones have less than one code each."""

_LEFT = "it is left to the end of the search"


def found(graph: Graph, draft: Draft) -> Mapping[str, str]:
    """Node -> reason, for each int8 Softmax of `draft` whose result is an output of the model, and
    the moves between the two: `Floats.nodes` of a search without them."""
    left: dict[str, str] = {}
    for node in graph.nodes():
        if node.op_type == "Softmax" and _runs_int8(draft, node):
            behind = _behind(node.outputs[0])
            if behind is not None and all(_runs_int8(draft, move) for move in behind):
                left.update(dict.fromkeys(map(str, (move.name for move in (node, *behind))), _LEFT))
    return left


def joined(designer: Designer, best: Design) -> Design:
    """`best` with those of them in int8 whose probabilities stand it; its score stays that of the
    search, which tells more."""
    left = {name for name, reason in best.floats.nodes.items() if reason == _LEFT}
    if not left:
        return best
    coarse = _coarse(designer, best, left)
    kept = {name: why for name, why in best.floats.nodes.items() if name not in left}
    floats = Floats(best.floats.tensors, {**kept, **coarse})
    drafted = designer.drafted(best.graph, floats)
    made = designer.designed(
        "softmax", best.graph, best.statistics, drafted, floats, (best.method,)
    )
    return replace(made, score=best.score)


def _coarse(designer: Designer, best: Design, left: set[str]) -> dict[str, str]:
    """Node -> reason, for those of `left` that codes would leave too little of."""
    coarse: dict[str, str] = {}
    for node in best.graph.nodes():
        if node.op_type != "Softmax" or str(node.name) not in left:
            continue
        behind = _behind(node.outputs[0]) or []
        output = str((behind[-1] if behind else node).outputs[0].name)
        decibels = _rounded_db([row[output] for row in designer.trials.references], _FIXED)
        if decibels < ENOUGH_DB:
            reason = f"codes 1/256 apart would leave {decibels:.0f} dB of its probabilities"
            names = (str(move.name) for move in (node, *behind))
            coarse.update(dict.fromkeys(names, reason))
    return coarse


_FIXED = Encoding("int8", (1.0 / 256.0,), (-128,))


def _rounded_db(arrays: Sequence[NDArray[Any]], encoding: Encoding) -> float:
    values = np.concatenate([array.reshape(-1) for array in arrays])
    scale, zero_point = encoding.scale[0], encoding.zero_point[0]
    codes = affine.quantize(values.astype(np.float32), scale, zero_point)
    return sqnr_db(values, affine.dequantize(codes, scale, zero_point))


def _behind(value: onnx_ir.Value) -> list[onnx_ir.Node] | None:
    """The moves from `value` to the one output of the model that it is; None where it is none."""
    moves: list[onnx_ir.Node] = []
    while not value.is_graph_output():
        readers = value.consumers()
        if len(readers) != 1 or readers[0].op_type not in PERMUTATIONS:
            return None
        moves.append(readers[0])
        value = readers[0].outputs[0]
    return moves


def _runs_int8(draft: Draft, node: onnx_ir.Node) -> bool:
    decision = draft.ops.get(str(node.name))
    return decision is not None and decision.precision == "int8"
