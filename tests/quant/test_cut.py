"""The minimum cut against all cuts of small networks."""

from __future__ import annotations

import itertools
import random

import pytest

from edgeq.quant.cut import FREE, SINK, SOURCE, Edge, Network


def price(edges: list[Edge], sink_side: frozenset[int]) -> int:
    return sum(c for tail, head, c in edges if tail not in sink_side and head in sink_side)


def every_sink_side(vertices: int) -> list[frozenset[int]]:
    inner = range(FREE, vertices)
    sets = (c for n in range(len(inner) + 1) for c in itertools.combinations(inner, n))
    return [frozenset({SINK, *chosen}) for chosen in sets]


@pytest.mark.parametrize("seed", range(40))
def test_no_cut_is_cheaper_and_no_smaller_side_as_cheap(seed: int) -> None:
    draw = random.Random(seed)
    vertices = FREE + draw.randint(1, 7)
    ends = [(a, b) for a in range(vertices) for b in range(vertices) if a != b]
    chosen = draw.sample(ends, min(len(ends), draw.randint(2, 24)))
    edges = [(a, b, draw.randint(0, 9)) for a, b in chosen]
    found = Network(vertices, edges).sink_side()
    prices = {side: price(edges, side) for side in every_sink_side(vertices)}
    least = min(prices.values())
    assert SOURCE not in found
    assert prices[found] == least
    assert all(found <= side for side, cost in prices.items() if cost == least)


def test_a_long_chain_needs_no_deep_stack() -> None:
    length = 20_000
    edges = [(SOURCE, FREE, 5), *((FREE + i, FREE + i + 1, 9) for i in range(length))]
    edges += [(FREE + length, SINK, 3)]
    assert Network(FREE + length + 1, edges).sink_side() == {SINK}


def test_nothing_flows_where_nothing_leads_to_the_sink() -> None:
    assert Network(FREE + 1, [(SOURCE, FREE, 5)]).sink_side() == {SINK}
