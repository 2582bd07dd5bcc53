"""Names of a graph that was made from a TFLite file: its own where they are unique."""

from __future__ import annotations

from collections.abc import Iterable

import onnx_ir


class Names:
    """Gives each name once: `x`, then `x_2`, `x_3`."""

    def __init__(self) -> None:
        self._taken: set[str] = set()
        self._next: dict[str, int] = {}

    def unique(self, wanted: str) -> str:
        wanted = wanted or "tensor"
        name, number = wanted, self._next.get(wanted, 2)
        while name in self._taken:
            name, number = f"{wanted}_{number}", number + 1
        self._next[wanted] = number
        self._taken.add(name)
        return name


def settle(
    interface: Iterable[tuple[onnx_ir.Value, str]],
    nodes: Iterable[onnx_ir.Node],
    constants: Iterable[onnx_ir.Value],
    wanted: dict[onnx_ir.Value, str],
) -> None:
    """Name inputs and outputs first, then what nodes make, then constants; and the nodes after
    what they make."""
    names, labels = Names(), Names()
    done: set[onnx_ir.Value] = set()
    for value, name in interface:
        value.name = names.unique(name)
        done.add(value)
    nodes = tuple(nodes)
    for node in nodes:
        for value in node.outputs:
            if value not in done:
                value.name = names.unique(wanted.get(value, ""))
    for value in constants:
        value.name = names.unique(wanted.get(value, ""))
        assert value.const_value is not None
        value.const_value.name = value.name
    for node in nodes:
        node.name = labels.unique(str(node.outputs[0].name))
