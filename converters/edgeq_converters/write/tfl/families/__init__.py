"""One module per family of operators; each has a table of handlers by ONNX operator.

A handler is called as (emitter, node). It takes the node's inputs as tensors, adds TFLite operators
and makes tensors for its outputs; what it cannot write it refuses with `Unwritable` and a reason.
"""

from __future__ import annotations

import functools
import pkgutil
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

import onnx_ir

from edgeq_converters.write.tfl.emitter import Emitter

Handler = Callable[[Emitter, onnx_ir.Node], None]


@functools.cache
def handlers() -> Mapping[str, Handler]:
    """Every handler by operator: op type, or `domain:op type`."""
    found: dict[str, Handler] = {}
    for name in sorted(row.name for row in pkgutil.iter_modules(__path__)):
        module: Any = import_module(f"{__name__}.{name}")
        assert not found.keys() & module.HANDLERS.keys(), name
        found.update(module.HANDLERS)
    return found


def handler(node: onnx_ir.Node) -> Handler | None:
    """The handler of a node, if its operator has one."""
    domain = "" if node.domain in ("", "ai.onnx") else f"{node.domain}:"
    return handlers().get(f"{domain}{node.op_type}")
