"""edgeq puts a trained model on a small device and tells the truth about what that costs.

The public names; each is imported when it is first asked for, so `import edgeq` stays cheap.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from edgeq_runtime.version import __version__

if TYPE_CHECKING:
    from edgeq.api import build, compare, evaluate, inspect, verify
    from edgeq.config import BuildSettings
    from edgeq.errors import EdgeqError
    from edgeq_runtime import load

_HOMES = {
    "BuildSettings": "edgeq.config",
    "EdgeqError": "edgeq.errors",
    "build": "edgeq.api",
    "compare": "edgeq.api",
    "evaluate": "edgeq.api",
    "inspect": "edgeq.api",
    "load": "edgeq_runtime",
    "verify": "edgeq.api",
}

__all__ = [
    "BuildSettings",
    "EdgeqError",
    "__version__",
    "build",
    "compare",
    "evaluate",
    "inspect",
    "load",
    "verify",
]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module `edgeq` has no attribute `{name}`")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__
