"""The grid that factors lie on, and constants put in their place."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from edgeq.ir import Graph, check, constant
from edgeq.quant.algorithms.transform import on_grid, only_reader, set_constant

FACTORS = st.floats(1e-9, 1e9)


@given(FACTORS)
def test_the_grid_is_eighths_of_an_octave(factor: float) -> None:
    [moved] = on_grid(np.array([factor]))
    steps = 8 * np.log2(moved)
    assert abs(steps - round(steps)) < 1e-9  # log2 of a double near 2**30: 1e-15 relative
    assert abs(np.log2(moved / factor)) <= 1 / 16 + 1e-9
    assert on_grid(np.array([moved])) == moved


@given(FACTORS, st.floats(-1e-6, 1e-6))
def test_the_last_bits_of_a_factor_rarely_matter(factor: float, error: float) -> None:
    """Only within the error itself of the middle between two steps."""
    moved, other = on_grid(np.array([factor, factor * (1 + error)]))
    middle = abs((8 * np.log2(factor)) % 1 - 0.5)
    assert moved == other or middle <= 8 * 1.5e-6


@given(FACTORS)
def test_the_inverse_and_whole_octaves_are_exact(factor: float) -> None:
    moved, inverse, twice = on_grid(np.array([factor, 1 / factor, factor * 2]))
    assert twice == 2 * moved
    middle = abs((8 * np.log2(factor)) % 1 - 0.5)
    assert abs(moved * inverse - 1) < 1e-15 or middle < 1e-9


def test_a_constant_of_one_reader_keeps_its_name(graph_of: Callable[..., Graph]) -> None:
    w = np.ones((3, 4), np.float32)
    graph = graph_of("g (float[2,3] x) => (y) { y = MatMul (x, w) }", {"w": w})
    [node] = graph.nodes()
    set_constant(graph, node, 1, w * 2, "new")
    assert [value.name for value in graph.model.graph.initializers.values()] == ["w"]
    np.testing.assert_array_equal(constant(node.inputs[1]), w * 2)
    check(graph)


def test_a_constant_of_two_readers_stays_for_the_other(graph_of: Callable[..., Graph]) -> None:
    w = np.ones((3, 3), np.float32)
    graph = graph_of("g (float[2,3] x) => (y) { a = MatMul (x, w) y = MatMul (a, w) }", {"w": w})
    first, second = graph.nodes()
    assert first.inputs[1] is not None
    assert not only_reader(first.inputs[1])
    set_constant(graph, first, 1, w * 2, "new")
    assert [value.name for value in graph.model.graph.initializers.values()] == ["w", "new"]
    np.testing.assert_array_equal(constant(second.inputs[1]), w)
    check(graph)


def test_a_constant_node_that_nobody_reads_any_more_goes(graph_of: Callable[..., Graph]) -> None:
    graph = graph_of(
        "g (float[2,2] x) => (y) { w = Constant <value = float[2,2] {1, 2, 3, 4}> ()"
        " y = MatMul (x, w) }"
    )
    set_constant(graph, graph.nodes()[1], 1, np.eye(2, dtype=np.float32), "new")
    assert [node.op_type for node in graph.nodes()] == ["MatMul"]
    check(graph)


def test_an_input_that_was_left_out_is_added(graph_of: Callable[..., Graph]) -> None:
    graph = graph_of(
        "g (float[2,3] x) => (y) { y = Gemm (x, w) }", {"w": np.ones((3, 4), np.float32)}
    )
    [node] = graph.nodes()
    set_constant(graph, node, 2, np.zeros(4, np.float32), "bias")
    assert [value.name for value in node.inputs if value] == ["x", "w", "bias"]
    check(graph)
