"""One module per family of operators; each has a table `HANDLERS` by ONNX operator.

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

from edgeq_converters.write.tfl.emitter import Emitter, Unwritable

Handler = Callable[[Emitter, onnx_ir.Node], None]


@functools.cache
def handlers() -> Mapping[str, Handler]:
    """Every handler by operator: op type, or `domain:op type`."""
    found: dict[str, Handler] = {}
    for module in _modules():
        assert not found.keys() & module.HANDLERS.keys(), module
        found.update(module.HANDLERS)
    return found


def handler(node: onnx_ir.Node) -> Handler | None:
    """The handler of a node, if its operator has one, or one that says why there can be none."""
    domain = "" if node.domain in ("", "ai.onnx") else f"{node.domain}:"
    name = f"{domain}{node.op_type}"
    reason = refused().get(name)
    return handlers().get(name) if reason is None else _refusal(reason)


@functools.cache
def _modules() -> tuple[Any, ...]:
    names = sorted(row.name for row in pkgutil.iter_modules(__path__))
    return tuple(import_module(f"{__name__}.{name}") for name in names)


@functools.cache
def refused() -> Mapping[str, str]:
    """Operators that can have no form, and why: the modules' tables `REFUSED`."""
    found: dict[str, str] = {}
    for module in _modules():
        found.update(getattr(module, "REFUSED", {}))
    return found


def _refusal(reason: str) -> Handler:
    def refuse(e: Emitter, node: onnx_ir.Node) -> None:
        raise Unwritable(reason)

    return refuse
