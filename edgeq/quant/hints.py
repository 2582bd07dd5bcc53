"""What to tell a model's author of a plan: which widths a target's kernels take, and why not int8.

Packed kernels take channels in multiples (`edgeq.targets.Widths`); a layer beside them runs a
general kernel. Said of shapes alone: how much it costs is in the target's file, where measured.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import onnx_ir

from edgeq.ir import Graph, attribute, constant
from edgeq.quant import cost, kinds, rules
from edgeq.quant.plan import QuantPlan
from edgeq.targets import Widths

NAMED = 3
"""Layers a hint names, those with most multiplications first; the others are counted."""


@dataclass(frozen=True)
class _Conv:
    """Channels of an int8 Conv [out, in / group, ...] and the positions of its kernel."""

    node: onnx_ir.Node
    kind: str
    inputs: int
    outputs: int
    positions: int


@dataclass(frozen=True)
class _Rule:
    """`words` follow the count, `have` is what a Conv has, `want` the next width that fits it, or
    None where the rule is kept or not about this Conv."""

    words: Callable[[Widths], str]
    have: Callable[[_Conv], int]
    want: Callable[[_Conv, Widths], int | None]


def hints(graph: Graph, plan: QuantPlan, widths: Widths | None) -> tuple[str, ...]:
    """One line per rule that some int8 Conv misses: how many do, which, and the width that fits."""
    if widths is None:
        return ()
    convs = [_conv(node) for node in graph.nodes() if _is_int8_conv(node, plan)]
    convs.sort(key=lambda conv: (-cost.float_op(conv.node), str(conv.node.name)))
    lines = [_line(rule, convs, widths) for rule in _RULES]
    return tuple(line for line in lines if line)


def reasons(graph: Graph, plan: QuantPlan) -> dict[str, str]:
    """Node or tensor -> why the plan leaves what it names in float, for `coverage` to quote.

    Engines fuse a clamp into the op before it and keep the clamp's tensor, not the op's name: so a
    clamp's tensor has the reason of what it clamps.
    """
    found: dict[str, str] = {}
    for node in graph.nodes():
        decision = plan.ops.get(str(node.name))
        if decision is None or decision.precision != "float32" or not decision.reason:
            continue
        words = decision.reason
        source = node.inputs[0].name if node.inputs and node.inputs[0] is not None else None
        if node.op_type in rules.CLAMPS and source in found:
            words = found[str(source)]
        names = (node.name, *(value.name for value in node.outputs))
        found.update((str(name), words) for name in names if name)
    return found


def _next(channels: int, multiple: int, least: int = 1) -> int | None:
    """The next width that fits, or None where `channels` does."""
    fitting = max(math.ceil(channels / multiple) * multiple, least)
    return fitting if fitting != channels else None


def _is_packed(conv: _Conv, widths: Widths) -> bool:
    return conv.kind == "Conv" and (widths.pointwise or conv.positions > 1)


def _depthwise(conv: _Conv, widths: Widths) -> int | None:
    return _next(conv.outputs, widths.depthwise) if "Depthwise" in conv.kind else None


def _output(conv: _Conv, widths: Widths) -> int | None:
    # below one multiple it is a head, whose classes are not for the kernel to choose
    asked = _is_packed(conv, widths) and conv.outputs > widths.output
    return _next(conv.outputs, widths.output) if asked else None


def _input(conv: _Conv, widths: Widths) -> int | None:
    least = widths.least_input if conv.positions > 1 else 1
    return _next(conv.inputs, widths.input, least) if _is_packed(conv, widths) else None


def _stem(conv: _Conv, widths: Widths) -> int | None:
    return widths.input if conv.kind == "StemConv" else None


def _input_words(widths: Widths) -> str:
    least = f", {widths.least_input} or more above 1x1" if widths.least_input > 1 else ""
    asked = f"multiples of {widths.input}{least}"
    return f"have input channels that packed kernels do not take ({asked})"


_RULES = (
    _Rule(
        lambda widths: f"are depthwise with channels that are no multiple of {widths.depthwise}",
        lambda conv: conv.outputs,
        _depthwise,
    ),
    _Rule(
        lambda widths: f"have output channels that are no multiple of {widths.output}",
        lambda conv: conv.outputs,
        _output,
    ),
    _Rule(_input_words, lambda conv: conv.inputs, _input),
    _Rule(
        lambda _: "have a stem's 1 to 3 input channels, which no packed kernel takes",
        lambda conv: conv.inputs,
        _stem,
    ),
)


def _line(rule: _Rule, convs: Sequence[_Conv], widths: Widths) -> str:
    missing = [(conv, want) for conv in convs if (want := rule.want(conv, widths)) is not None]
    if not missing:
        return ""
    named = [f"`{conv.node.name}` {rule.have(conv)} -> {want}" for conv, want in missing[:NAMED]]
    more = f" and {len(missing) - NAMED} more" if len(missing) > NAMED else ""
    words = rule.words(widths)
    return f"{len(missing)} of {len(convs)} int8 `Conv` {words}: {', '.join(named)}{more}"


def _is_int8_conv(node: onnx_ir.Node, plan: QuantPlan) -> bool:
    if node.op_type != "Conv" or not plan.runs_int8(str(node.name)):
        return False
    return constant(node.inputs[1]) is not None


def _conv(node: onnx_ir.Node) -> _Conv:
    weight = constant(node.inputs[1])
    assert weight is not None
    group = int(attribute(node, "group", 1))
    return _Conv(
        node=node,
        kind=kinds.kind(node),
        inputs=int(weight.shape[1]) * group,
        outputs=int(weight.shape[0]),
        positions=math.prod(weight.shape[2:]),
    )
