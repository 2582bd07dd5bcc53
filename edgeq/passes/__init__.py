"""Graph passes, one file each, run in the order of `PASSES` until a round changes nothing.

A pass is a function `run(graph, log)`: it edits `graph` in place, tells `log` each change and each
place where it could have fired and must not, with the reason. It leaves names of graph inputs and
outputs alone, never edits a body, and keeps `edgeq.ir.check` true.
"""

from __future__ import annotations

from collections.abc import Callable

from edgeq.errors import EdgeqError
from edgeq.ir import Graph, check
from edgeq.ir.inference import InferenceFailure, infer
from edgeq.passes import (
    batch_norm,
    channel_affine,
    clip_to_relu,
    constant_folding,
    dead_nodes,
    identity,
    linear,
)
from edgeq.passes.report import Log, PassReport

__all__ = ["PASSES", "PassReport", "run_all"]

PASSES: tuple[tuple[str, Callable[[Graph, Log], None]], ...] = (
    ("constant-folding", constant_folding.run),
    ("identity", identity.run),
    ("clip-to-relu", clip_to_relu.run),
    ("linear", linear.run),
    ("batch-norm", batch_norm.run),
    ("channel-affine", channel_affine.run),
    ("dead-nodes", dead_nodes.run),
)

_MAX_ROUNDS = 8


def _infer(graph: Graph) -> None:
    """Constants may have made sizes known; the other passes keep the shapes that there were."""
    try:
        infer(graph.model)
    except InferenceFailure as failure:
        text = " ".join(str(failure).split())[:200]
        raise EdgeqError("invalid-model", f"its shapes contradict each other: {text}") from failure


def run_all(graph: Graph) -> tuple[Graph, tuple[PassReport, ...]]:
    """A clone of `graph` after every pass, and what each did, in the order of `PASSES`."""
    graph = graph.clone()
    changed: dict[str, list[str]] = {name: [] for name, _ in PASSES}
    refused: dict[str, dict[str, str]] = {}
    for _ in range(_MAX_ROUNDS):
        before = sum(map(len, changed.values()))
        for name, run in PASSES:
            log = Log()
            run(graph, log)
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
