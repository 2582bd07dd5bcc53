"""Run an edgeq bundle on a device: numpy and one engine, nothing else."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from edgeq_runtime.version import __version__

if TYPE_CHECKING:
    from edgeq_runtime.errors import EdgeqError as EdgeqError
    from edgeq_runtime.golden import Verification as Verification
    from edgeq_runtime.preprocess import InputSpec as InputSpec
    from edgeq_runtime.runner import Runner as Runner
    from edgeq_runtime.runner import load as load
    from edgeq_runtime.runner import verify as verify
    from edgeq_runtime.tensors import TensorInfo as TensorInfo

_PUBLIC: dict[str, str] = {
    "EdgeqError": "edgeq_runtime.errors",
    "InputSpec": "edgeq_runtime.preprocess",
    "Runner": "edgeq_runtime.runner",
    "TensorInfo": "edgeq_runtime.tensors",
    "Verification": "edgeq_runtime.golden",
    "load": "edgeq_runtime.runner",
    "verify": "edgeq_runtime.runner",
}
__all__ = [
    "EdgeqError",
    "InputSpec",
    "Runner",
    "TensorInfo",
    "Verification",
    "__version__",
    "load",
    "verify",
]


def __getattr__(name: str) -> object:
    """Import on first use (PEP 562), so that `import edgeq_runtime` loads no numpy."""
    module = _PUBLIC.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(module), name)


def __dir__() -> list[str]:
    return sorted(__all__)
