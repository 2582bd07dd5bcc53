"""Graph passes, one file each, run in the order of `PASSES` until a round changes nothing.

A pass is a function `run(graph, log)`: it edits `graph` in place, tells `log` each change and each
place where it could have fired and must not, with the reason. It leaves names of graph inputs and
outputs alone and keeps `edgeq.ir.check` true. Each body of If, Loop and Scan, at any depth, is a
graph of its own to it; what a body reads from outside belongs to the graph around it.
"""

from __future__ import annotations

from collections.abc import Callable

from edgeq.errors import EdgeqError
from edgeq.ir import Graph, check
from edgeq.ir.inference import InferenceFailure, infer
from edgeq.passes import (
    batch_norm,
    channel_affine,
    clip_to_hard_sigmoid,
    clip_to_relu,
    constant_folding,
    dead_nodes,
    gelu,
    global_average_pool,
    hard_sigmoid,
    hard_swish,
    identity,
    layer_norm,
    linear,
    sigmoid,
    softmax,
    split_to_slice,
)
from edgeq.passes.edit import fresh_node_name
from edgeq.passes.report import Log, PassReport

__all__ = ["PASSES", "PassReport", "run_all"]

PASSES: tuple[tuple[str, Callable[[Graph, Log], None]], ...] = (
    ("constant-folding", constant_folding.run),
    ("identity", identity.run),
    ("clip-to-relu", clip_to_relu.run),
    ("sigmoid", sigmoid.run),
    ("softmax", softmax.run),
    ("gelu", gelu.run),
    ("hard-swish", hard_swish.run),
    ("clip-to-hard-sigmoid", clip_to_hard_sigmoid.run),
    ("layer-norm", layer_norm.run),
    ("split-to-slice", split_to_slice.run),
    ("global-average-pool", global_average_pool.run),
    ("linear", linear.run),
    ("batch-norm", batch_norm.run),
    ("channel-affine", channel_affine.run),
    ("hard-sigmoid", hard_sigmoid.run),
    ("dead-nodes", dead_nodes.run),
)

# Not among them, because measuring said so (MiniLM, one row of 8 to 128 tokens, one thread, ONNX
# Runtime 1.31 on x86 with VNNI; speed against without): com.microsoft MultiHeadAttention 1.01 to
# 0.88 in float and 1.19 to 0.86 around dynamic int8, the more tokens the slower; one MatMul for
# query, key and value with a Split after it 1.00 to 1.02 in dynamic int8 (16 to 128 tokens), and in
# static int8 the three would share one scale.

_MAX_ROUNDS = 8


def _infer(graph: Graph) -> None:
    """Constants may have made sizes known; the other passes keep the shapes that there were."""
    try:
        infer(graph.model)
    except InferenceFailure as failure:
        text = " ".join(str(failure).split())[:200]
        raise EdgeqError("invalid-model", f"its shapes contradict each other: {text}") from failure


def prepare_bodies(graph: Graph) -> None:
    """Names for their nodes, so that a line can name them, and shapes."""
    bodies = [body for _, body in graph.bodies()]
    for body in bodies:
        for index, node in enumerate(body.nodes()):
            node.name = node.name or fresh_node_name(body, f"{node.op_type}_{index}")
    if bodies:
        _infer(graph)


def run_everywhere(graph: Graph, run: Callable[[Graph, Log], None]) -> Log:
    """One pass at the top, then in each body that is still there."""
    log = Log()
    run(graph, log)
    for place, body in graph.bodies():
        inner = Log(body=place)
        run(body, inner)
        log.changed += inner.changed
        log.refused |= inner.refused
    return log


def run_all(graph: Graph) -> tuple[Graph, tuple[PassReport, ...]]:
    """A clone of `graph` after every pass, and what each did, in the order of `PASSES`."""
    graph = graph.clone()
    prepare_bodies(graph)
    changed: dict[str, list[str]] = {name: [] for name, _ in PASSES}
    refused: dict[str, dict[str, str]] = {}
    for _ in range(_MAX_ROUNDS):
        before = sum(map(len, changed.values()))
        for name, run in PASSES:
            log = run_everywhere(graph, run)
            check(graph)
            if log.changed and name == "constant-folding":
                _infer(graph)
            changed[name] += log.changed
            refused[name] = log.refused  # the last round's: only what still stands
        if sum(map(len, changed.values())) == before:
            break
    return graph, tuple(
        PassReport(name, tuple(changed[name]), tuple(refused[name].items())) for name, _ in PASSES
    )
