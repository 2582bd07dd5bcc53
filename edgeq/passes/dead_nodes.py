"""Nodes whose outputs nobody reads, and constants nobody uses, are taken out."""

from __future__ import annotations

from edgeq.ir import Graph
from edgeq.passes.edit import remove
from edgeq.passes.report import Log


def run(graph: Graph, log: Log) -> None:
    """Graph inputs stay even when unused: an artifact keeps the float model's interface."""
    top = graph.home
    for node in reversed(graph.nodes()):
        if not any(value.uses() or value.is_graph_output() for value in node.outputs):
            log.change(f"`{node.op_type}` (node `{node.name}`): nothing reads it")
            remove(node)
    unread = [
        name
        for name, value in top.initializers.items()
        if not value.uses() and not value.is_graph_output()
    ]
    for name in unread:
        del top.initializers[name]
    if unread:
        log.change(f"{len(unread)} constants that nothing reads: {', '.join(unread)}")
