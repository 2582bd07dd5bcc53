"""What a pass did and what it left, as data."""

from __future__ import annotations

from dataclasses import dataclass, field

import onnx_ir


@dataclass(frozen=True)
class PassReport:
    """One line per change, naming the node; and (node name, reason) for each refusal."""

    name: str
    changed: tuple[str, ...]
    refused: tuple[tuple[str, str], ...]


@dataclass
class Log:
    """What a pass writes while it runs."""

    changed: list[str] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)
    body: str = ""
    """Where the body lies that is worked on (`If_0/then_branch`); empty at the top."""

    def change(self, line: str) -> None:
        """One change, for people: names the node and what became of it."""
        self.changed.append(f"in `{self.body}`: {line}" if self.body else line)

    def refuse(self, node: onnx_ir.Node, reason: str) -> None:
        """`node` fits the pass and stays; the first reason counts."""
        place = f"{self.body}/" if self.body else ""
        self.refused.setdefault(f"{place}{node.name}", reason)
