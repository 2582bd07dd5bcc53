"""Minimum s-t cut (Dinic 1970), in whole numbers, so that it is the same on every host."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

SOURCE, SINK = 0, 1
FREE = 2
"""The first vertex that a caller may use for its own."""

Edge = tuple[int, int, int]


class Network:
    """Edges are pairs: `to[e]`, its reverse at `e ^ 1`, `left[e]` what may still flow."""

    def __init__(self, vertices: int, edges: Iterable[Edge]) -> None:
        self.out: list[list[int]] = [[] for _ in range(vertices)]
        self.to: list[int] = []
        self.left: list[int] = []
        for tail, head, capacity in edges:
            self._add(tail, head, capacity)
            self._add(head, tail, 0)

    def sink_side(self) -> frozenset[int]:
        """The smallest set of vertices that holds the sink and whose border is a minimum cut."""
        while True:
            level = self._levels()
            if SINK not in level:
                return self._reaching_sink()
            start = [0] * len(self.out)
            while self._push(level, start):
                pass

    def _add(self, tail: int, head: int, capacity: int) -> None:
        self.out[tail].append(len(self.to))
        self.to.append(head)
        self.left.append(capacity)

    def _levels(self) -> dict[int, int]:
        """Distance from the source of each vertex that more can flow to."""
        level, waiting = {SOURCE: 0}, deque([SOURCE])
        while waiting:
            vertex = waiting.popleft()
            for edge in self.out[vertex]:
                if self.left[edge] and self.to[edge] not in level:
                    level[self.to[edge]] = level[vertex] + 1
                    waiting.append(self.to[edge])
        return level

    def _push(self, level: dict[int, int], start: list[int]) -> bool:
        """Send flow along one shortest path; `start` skips edges that led nowhere."""
        path: list[int] = []
        vertex = SOURCE
        while vertex != SINK:
            edges = self.out[vertex]
            while start[vertex] < len(edges):
                edge = edges[start[vertex]]
                if self.left[edge] and level.get(self.to[edge], -1) == level[vertex] + 1:
                    break
                start[vertex] += 1
            else:
                if not path:
                    return False
                vertex = self.to[path.pop() ^ 1]
                start[vertex] += 1
                continue
            path.append(edge)
            vertex = self.to[edge]
        flow = min(self.left[edge] for edge in path)
        for edge in path:
            self.left[edge] -= flow
            self.left[edge ^ 1] += flow
        return True

    def _reaching_sink(self) -> frozenset[int]:
        found, waiting = {SINK}, deque([SINK])
        while waiting:
            vertex = waiting.popleft()
            for edge in self.out[vertex]:
                if self.left[edge ^ 1] and self.to[edge] not in found:
                    found.add(self.to[edge])
                    waiting.append(self.to[edge])
        return frozenset(found)
