"""A graph of static sizes: the free batch axis becomes 1, and what follows from it is folded."""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir

from edgeq.errors import EdgeqError
from edgeq.ir import Graph
from edgeq.ir.inference import infer
from edgeq.passes import constant_folding, dead_nodes
from edgeq.passes.report import Log
from edgeq_converters.write.tfl import samples

_MAX_ROUNDS = 8


@dataclass(frozen=True)
class Fixed:
    """`graph` with the batch at 1; `inputs` and `outputs` had it free as their leading axis."""

    graph: Graph
    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()


def fixed(graph: Graph) -> Fixed:
    """`graph` with every free leading axis of an input at size 1.

    Raises EdgeqError [needs-shape] where another axis of an input is free, or an output is of all
    samples at once.
    """
    batched = tuple(info.name for info in graph.inputs if info.shape and _is_free(info.shape[0]))
    for info in graph.inputs:
        if any(_is_free(size) for size in info.shape[1:]):
            sizes = "x".join("1" if _is_free(size) else str(size) for size in info.shape)
            raise EdgeqError(
                "needs-shape",
                f"TFLite holds fixed sizes, and input `{info.name}` has a free axis beside the "
                "batch",
                f"--shape {info.name}={sizes}",
            )
    made = _made_of(graph, batched)
    outputs = tuple(
        info.name
        for info in graph.outputs
        if info.name in made and info.shape and _is_free(info.shape[0])
    )
    _check_apart(graph, batched, outputs)
    if not batched and all(_is_static(value) for value in graph.values()):
        return Fixed(graph)
    graph = graph.clone()
    for value in graph.model.graph.inputs:
        if value.name in batched and value.shape is not None:
            value.shape = onnx_ir.Shape([1, *list(value.shape)[1:]])
    for _ in range(_MAX_ROUNDS):
        infer(graph.model)
        log = Log()
        constant_folding.run(graph, log)
        dead_nodes.run(graph, log)
        if not log.changed:
            break
    for value in graph.model.graph.outputs:
        if value.name in outputs and value.shape is not None and value.shape[0] != 1:
            raise _of_a_batch(graph, batched, str(value.name))
    return Fixed(graph, batched, outputs)


def _check_apart(graph: Graph, batched: tuple[str, ...], outputs: tuple[str, ...]) -> None:
    """Refuse a graph in which the samples of a batch are not apart."""
    whole = sorted(_made_of(graph, batched) - set(outputs))
    name = whole[0] if whole else samples.mixed(graph, batched, outputs) if batched else None
    if name is not None:
        raise _of_a_batch(graph, batched, name)


def _of_a_batch(graph: Graph, batched: tuple[str, ...], name: str) -> EdgeqError:
    shapes = {
        info.name: "x".join("1" if _is_free(size) else str(size) for size in info.shape)
        for info in graph.inputs
        if info.name in batched
    }
    return EdgeqError(
        "needs-shape",
        f"TFLite files are run sample by sample, and output `{name}` is of a whole batch",
        " ".join(f"--shape {given}={shapes[given]}" for given in batched),
    )


def is_batched(graph: Graph, name: str) -> bool:
    """Whether the leading axis of a tensor is free."""
    value = graph.value(name)
    shape = None if value is None else value.shape
    return shape is not None and len(shape) > 0 and _is_free(shape[0])


def _made_of(graph: Graph, batched: tuple[str, ...]) -> set[str]:
    """The outputs of known shape that follow from the inputs `batched`."""
    home = graph.model.graph
    reached = {value for value in home.inputs if value.name in batched}
    for node in graph.nodes():
        if not reached.isdisjoint(node.inputs):
            reached.update(node.outputs)
    return {str(v.name) for v in home.outputs if v in reached and v.shape is not None}


def _is_free(size: object) -> bool:
    return not isinstance(size, int)


def _is_static(value: onnx_ir.Value) -> bool:
    return value.shape is not None and all(isinstance(size, int) for size in value.shape)
