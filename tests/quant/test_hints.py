"""Widths that packed int8 kernels take, said of the layers that miss them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from edgeq import targets
from edgeq.ir import Graph
from edgeq.quant.hints import hints
from edgeq.quant.plan import OpDecision, QuantPlan
from edgeq.targets import Widths

GraphOf = Callable[..., Graph]
X86 = Widths(4, 16, 16, 1, True, "notes: quant-quality 2.4")
ARM = Widths(4, 16, 8, 64, False, "notes: quant-quality 2.4")


def one(graph_of: GraphOf, *shape: int, group: int = 1) -> Graph:
    inputs = shape[1] * group
    return graph_of(
        f"""g (float[1,{inputs},8,8] x) => (float[1,{shape[0]},h,v] y) {{
          [c] y = Conv <group = {group}> (x, w) }}""",
        {"w": np.ones(shape, np.float32)},
    )


def all_int8(graph: Graph) -> QuantPlan:
    ops = {str(n.name): OpDecision(str(n.name), n.op_type, "int8") for n in graph.nodes()}
    return QuantPlan({}, ops)


@pytest.mark.parametrize(
    ("shape", "group", "x86", "arm"),
    [
        ((64, 64, 3, 3), 1, (), ()),
        (
            (62, 64, 3, 3),
            1,
            ("have output channels that are no multiple of 16: `c` 62 -> 64",),
            ("have output channels that are no multiple of 16: `c` 62 -> 64",),
        ),
        ((62, 64, 1, 1), 1, ("have output channels that are no multiple of 16: `c` 62 -> 64",), ()),
        ((10, 64, 3, 3), 1, (), ()),  # a head
        (
            (64, 30, 3, 3),
            1,
            ("have input channels that packed kernels do not take (multiples of 4): `c` 30 -> 32",),
            (
                "have input channels that packed kernels do not take (multiples of 4, 64 or more "
                "above 1x1): `c` 30 -> 64",
            ),
        ),
        (
            (24, 1, 3, 3),
            24,
            ("are depthwise with channels that are no multiple of 16: `c` 24 -> 32",),
            (),
        ),
        (
            (32, 3, 3, 3),
            1,
            ("have a stem's 1 to 3 input channels, which no packed kernel takes: `c` 3 -> 4",),
            ("have a stem's 1 to 3 input channels, which no packed kernel takes: `c` 3 -> 4",),
        ),
    ],
)
def test_what_is_said_of_a_shape(
    graph_of: GraphOf,
    shape: tuple[int, ...],
    group: int,
    x86: tuple[str, ...],
    arm: tuple[str, ...],
) -> None:
    graph = one(graph_of, *shape, group=group)
    for widths, wanted in ((X86, x86), (ARM, arm)):
        found = hints(graph, all_int8(graph), widths)
        assert found == tuple(f"1 of 1 int8 `Conv` {line}" for line in wanted)


def test_the_costliest_are_named_and_the_rest_counted(graph_of: GraphOf) -> None:
    widths = (18, 20, 50, 22, 24)
    body = "".join(f"[c{w}] y{w} = Conv(x, w{w})" for w in widths)
    outputs = ", ".join(f"float[1,{w},8,8] y{w}" for w in widths)
    graph = graph_of(
        f"g (float[1,16,8,8] x) => ({outputs}) {{ {body} }}",
        {f"w{w}": np.ones((w, 16, 1, 1), np.float32) for w in widths},
    )
    assert hints(graph, all_int8(graph), X86) == (
        "5 of 5 int8 `Conv` have output channels that are no multiple of 16: "
        "`c50` 50 -> 64, `c24` 24 -> 32, `c22` 22 -> 32 and 2 more",
    )


def test_float_layers_and_targets_without_a_table_get_none(graph_of: GraphOf) -> None:
    graph = one(graph_of, 62, 64, 3, 3)
    plan = QuantPlan({}, {"c": OpDecision("c", "Conv", "float32", "because")})
    assert hints(graph, plan, X86) == ()
    assert hints(graph, all_int8(graph), None) == ()


@pytest.mark.parametrize("name", targets.names())
def test_every_target_says_which_widths(name: str) -> None:
    widths = targets.load(name).engine("onnxruntime").widths
    assert widths is not None
    assert min(widths.input, widths.output, widths.depthwise, widths.least_input) >= 1
