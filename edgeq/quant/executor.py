"""What calibration needs of an engine; `edgeq.api` hands it one, this layer starts none."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from numpy.typing import NDArray


class Executor(Protocol):
    """The float graph with the tensors to observe as extra outputs."""

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> Mapping[str, NDArray[Any]]:
        """Outputs by name, the observed tensors (graph inputs excepted) among them."""
        ...
