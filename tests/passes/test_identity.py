"""Nodes that do nothing, and nodes that nobody reads."""

import numpy as np
import pytest

from edgeq.passes import dead_nodes, identity

# node(s) making `b` from `a` [2, 3, 4], and constants
NO_OPS = {
    "Identity": ("Identity (a)", {}),
    "Dropout": ("Dropout (a)", {}),
    "Dropout off": ("Dropout (a, ratio, off)", {"ratio": np.float32(0.5), "off": np.bool_(False)}),
    "Reshape": ("Reshape (a, s)", {"s": np.array([2, 3, 4])}),
    "Reshape by -1": ("Reshape (a, s)", {"s": np.array([0, -1, 4])}),
    "Expand": ("Expand (a, s)", {"s": np.array([1, 3, 1])}),
    "Tile": ("Tile (a, s)", {"s": np.array([1, 1, 1])}),
    "Concat": ("Concat <axis = 1> (a)", {}),
    "Sum": ("Sum (a)", {}),
    "Transpose": ("Transpose <perm = [0,1,2]> (a)", {}),
    "Cast": ("Cast <to = 1> (a)", {}),
    "Pad": ("Pad (a, p)", {"p": np.zeros(6, np.int64)}),
    "Slice": (
        "Slice (a, from, upto, axes)",
        {"from": np.array([0]), "upto": np.array([2**62]), "axes": np.array([1])},
    ),
    "Add": ("Add (zero, a)", {"zero": np.float32(0)}),
    "Sub": ("Sub (a, zero)", {"zero": np.zeros((1, 1), np.float32)}),
    "Mul": ("Mul (a, one)", {"one": np.float32(1)}),
    "Div": ("Div (a, one)", {"one": np.ones(1, np.float32)}),
}


@pytest.mark.parametrize("case", NO_OPS)
def test_is_taken_out(make, run, ops, apply, noise, case):
    node, arrays = NO_OPS[case]
    text = f"g (float[2,3,4] x) => (float[2,3,4] y) {{ a = Relu (x) [n] b = {node} y = Neg (b) }}"
    graph = make(text, **{name: np.asarray(array) for name, array in arrays.items()})
    after, refused, changed = apply(identity.run, graph)
    assert ops(after) == ["Relu", "Neg"]
    assert (refused, changed) == ({}, [f"`{node.split()[0]}` (node `n`) did nothing"])
    x = noise(2, 3, 4)
    np.testing.assert_array_equal(run(after, {"x": x})["y"], run(graph, {"x": x})["y"])


# the same operators where they do something
OPS = {
    "mask is read": ("Dropout (a)", "b, m", "m2 = Not (m)", {}),
    "training": ("Dropout (a, r, on)", "b", "", {"r": np.float32(0.5), "on": np.bool_(True)}),
    "transposed": ("Transpose (a)", "b", "", {}),
    "reversed": (
        "Slice (a, from, upto, axes, step)",
        "b",
        "",
        {
            "from": np.array([-1]),
            "upto": np.array([-9]),
            "axes": np.array([1]),
            "step": np.array([-1]),
        },
    ),
    "one dimension as -1": (
        "Slice (a, from, upto)",
        "b",
        "",
        {"from": np.array([0]), "upto": np.array([1])},
    ),
    "from a constant": ("Sub (zero, a)", "b", "", {"zero": np.float32(0)}),
    "widening": ("Add (a, zero)", "b", "", {"zero": np.zeros((1, 1, 1, 1), np.float32)}),
    "by channel": ("Mul (a, one)", "b", "", {"one": np.ones(4, np.float32)}),
    "two parts": ("Concat <axis = 0> (a, a)", "b", "", {}),
}


@pytest.mark.parametrize("case", OPS)
def test_what_does_something_stays(make, ops, apply, case):
    node, outputs, more, arrays = OPS[case]
    rank = 4 if case == "widening" else 3
    size = ",".join("ABCD"[:rank])
    text = f"""g (float[2,3,4] x) => (float[{size}] y, bool[M] z) {{
        a = Relu (x) {outputs} = {node} {more}
        y = Neg (b) z = Cast <to = 9> (q) q = Reshape (x, flat) }}"""
    arrays = {**arrays, "flat": np.array([-1])}
    graph = make(text, **{name: np.asarray(array) for name, array in arrays.items()})
    after, _, changed = apply(identity.run, graph)
    assert changed == []
    assert ops(after) == ops(graph)


def test_an_output_keeps_its_name(make, run, ops, apply, noise):
    graph = make("g (float[2] x) => (float[2] y) { a = Relu (x) y = Identity (a) }")
    after, _, _ = apply(identity.run, graph)
    assert ops(after) == ["Relu"]
    assert [info.name for info in after.outputs] == ["y"]
    x = noise(2)
    np.testing.assert_array_equal(run(after, {"x": x})["y"], run(graph, {"x": x})["y"])


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (
            "g (float[2] x) => (float[2] y) { [n] y = Identity (x) }",
            "it joins an input or a constant to an output of the model",
        ),
        (
            "g (float[2] x) => (float[2] y, float[2] a) { a = Relu (x) [n] y = Identity (a) }",
            "its input is an output of the model too",
        ),
    ],
)
def test_between_two_names_that_callers_know_it_stays(make, ops, apply, text, reason):
    graph = make(text)
    after, refused, _ = apply(identity.run, graph)
    assert ops(after) == ops(graph)
    assert refused == {"n": reason}


def test_what_a_body_reads(make, run, ops, inside, apply, noise):
    """The body reads the source instead; a tensor from outside is never an output of a body."""
    text = """g (float[2] x, bool c) => (float[2] y) {
        a = Relu (x)
        [n] b = Identity (a)
        y = If (c) <then_branch = t () => (float[2] p) { p = Neg (b) },
                    else_branch = e () => (float[2] q) { q = Identity (x) }> }"""
    graph = make(text)
    after, refused, _ = apply(identity.run, graph)
    assert ops(after) == ["Relu", "If"]
    assert inside(after) == {"If_2/then_branch": ["Neg"], "If_2/else_branch": ["Identity"]}
    assert list(refused.values()) == ["it joins an input or a constant to an output of the model"]
    for branch in (True, False):
        feeds = {"x": noise(2), "c": np.array(branch)}
        np.testing.assert_array_equal(run(after, feeds)["y"], run(graph, feeds)["y"])


def test_in_a_body(make, run, inside, apply, noise):
    text = """g (float[2] x, bool c) => (float[2] y) {
        a = Relu (x)
        y = If (c) <then_branch = t () => (float[2] p) { r = Identity (a) s = Neg (r)
                                                         p = Identity (s) },
                    else_branch = e () => (float[2] q) { [n] q = Identity (a) }> }"""
    graph = make(text)
    after, refused, changed = apply(identity.run, graph)
    assert inside(after) == {"If_1/then_branch": ["Neg"], "If_1/else_branch": ["Identity"]}
    assert [line.partition(": ")[0] for line in changed] == ["in `If_1/then_branch`"] * 2
    assert refused == {
        "If_1/else_branch/n": "it hands a tensor from outside the body out of it",
    }
    for branch in (True, False):
        feeds = {"x": noise(2), "c": np.array(branch)}
        np.testing.assert_array_equal(run(after, feeds)["y"], run(graph, feeds)["y"])


@pytest.mark.parametrize(("start", "end", "stays"), [(0, 2**31 - 1, 0), (0, 3, 1), (1, 2**40, 1)])
def test_a_slice_of_everything(make, ops, apply, start, end, stays):
    """Though the batch is not known, and so the shapes are not static."""
    text = "g (float[N,4] x) => (float[M,4] z) { y = Slice (x, s, e, ax) z = Relu (y) }"
    operands = {"s": [start, 0], "e": [end, 4], "ax": [0, 1]}
    after, _, _ = apply(identity.run, make(text, **{k: np.array(v) for k, v in operands.items()}))
    assert ops(after) == ["Slice"] * stays + ["Relu"]


def test_its_input_may_be_read_by_a_body(make, run, ops, apply, noise):
    text = """g (float[2] x, bool c) => (float[2] y, float[2] z) {
        a = Relu (x)
        b = Identity (a)
        z = Neg (b)
        y = If (c) <then_branch = t () => (float[2] p) { p = Neg (a) },
                    else_branch = e () => (float[2] q) { q = Identity (a) }> }"""
    graph = make(text)
    after, _, _ = apply(identity.run, graph)
    assert ops(after) == ["Relu", "Neg", "If"]
    feeds = {"x": noise(2), "c": np.array(False)}
    np.testing.assert_array_equal(run(after, feeds)["y"], run(graph, feeds)["y"])


def test_dead_nodes_and_constants_go_in_one_sweep(make, ops, apply, noise):
    text = """g (float[2] x, float[2] unused) => (float[2] y) {
        y = Relu (x) a = Add (x, k) b = Neg (a) }"""
    after, _, changed = apply(dead_nodes.run, make(text, k=noise(2)))
    assert ops(after) == ["Relu"]
    assert [info.name for info in after.inputs] == ["x", "unused"]
    assert changed == [
        "`Neg` (node `Neg_2`): nothing reads it",
        "`Add` (node `Add_1`): nothing reads it",
        "1 constants that nothing reads: k",
    ]


def test_what_only_a_body_reads_is_alive(make, ops, apply, noise):
    text = """g (float[2] x, bool c) => (float[2] y) {
        a = Add (x, k)
        y = If (c) <then_branch = t () => (float[2] p) { p = Neg (a) },
                    else_branch = e () => (float[2] q) { q = Add (x, k2) }> }"""
    after, _, changed = apply(dead_nodes.run, make(text, k=noise(2), k2=noise(2)))
    assert changed == []
    assert ops(after) == ["Add", "If"]
