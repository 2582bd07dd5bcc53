"""The command line: parse, call `edgeq.api`, render. `main` is the entry point of `edgeq`."""

from __future__ import annotations

from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `edgeq` with `arguments` (default: the process's own) and return its exit code."""
    from edgeq.cli.entry import run

    return run(arguments)
