"""What every algorithm gives back, and how it puts new numbers into the clone it works on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir
from numpy.typing import NDArray

from edgeq.ir import Graph, is_captured
from edgeq.passes.edit import add_initializer, fresh_name

_STEPS = (
    *(1.0, 1.0905077326652577, 1.189207115002721, 1.2968395546510096),
    *(1.4142135623730951, 1.5422108254079407, 1.681792830507429, 1.8340080864093424),
)
"""2 ** (k / 8) for k = 0..7."""


SCALED = "_scaled"
"""How the names of scaled tensors end."""


@dataclass(frozen=True)
class Transformed:
    """A clone of the graph with other weights, and the account of it.

    `lines` say what changed; `refused` are places (a node's name) where the algorithm could have
    acted and must not, with the reason; `changed` counts pairs, groups or layers; `scaled` names
    the tensors that hold other numbers now, by design.
    """

    graph: Graph
    lines: tuple[str, ...]
    refused: tuple[tuple[str, str], ...]
    changed: int
    scaled: tuple[str, ...] = ()


class RefusedError(Exception):
    """Carries the reason for leaving a place alone up to its algorithm; nothing else sees it."""

    def __init__(
        self, table: Mapping[str, str], key: str, node: onnx_ir.Node | None = None, **words: object
    ) -> None:
        if node is not None:
            words = {"node": node.name, "op": node.op_type, **words}
        super().__init__(table[key].format(**words))


def on_grid(factor: NDArray[np.float64]) -> NDArray[np.float64]:
    """`factor` > 0 of any shape, each moved to the nearest eighth of an octave: by 4.5 % at most.

    Activations differ in their last bits between two hosts. Factors made of them would change the
    last bits of millions of weights, and the codes of some; so they come off a coarse grid.
    """
    steps = np.rint(8.0 * np.log2(factor)).astype(np.int64)
    return np.asarray(np.ldexp(np.array(_STEPS)[steps % 8], steps // 8))


def set_constant(graph: Graph, node: onnx_ir.Node, at: int, array: NDArray[Any], stem: str) -> None:
    """Give `node` this constant as input `at`; a constant that only it read keeps its name.

    `graph` is the caller's own clone. `stem` names a constant that is new.
    """
    if len(node.inputs) <= at:
        node.resize_inputs(at + 1)
    old = node.inputs[at]
    if old is not None and only_reader(old) and old.is_initializer():
        old.const_value = onnx_ir.Tensor(np.asarray(array, order="C"), name=old.name)
        old.shape = onnx_ir.Shape(array.shape)
        return
    node.replace_input_with(at, add_initializer(graph, stem, array))
    maker = None if old is None else old.producer()
    if old is not None and maker is not None and not old.uses() and not old.is_graph_output():
        graph.model.graph.remove(maker, safe=True)


def named_anew(made: Transformed) -> Graph:
    """The graph of `made`, the caller's to edit, with other names for what is `scaled`.

    A name stands for the same numbers in every form of a model, or `compare` would set scaled
    channels against unscaled ones and call the difference an error.
    """
    for value in list(made.graph.values()):
        if value.name in made.scaled and not value.name.endswith(SCALED):
            value.name = fresh_name(made.graph, f"{value.name}{SCALED}")
    return made.graph


def only_reader(value: onnx_ir.Value) -> bool:
    """Whether one input of one node is all that reads `value`."""
    return len(value.uses()) == 1 and not value.is_graph_output() and not is_captured(value)
