"""What is given to a model and what an engine says of it, judged alike for every engine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from edgeq_runtime.errors import EdgeqError
from edgeq_runtime.tensors import TensorInfo, describe


def input_mistake(inputs: Sequence[TensorInfo], feeds: dict[str, Any]) -> EdgeqError | None:
    """The first way in which `feeds` does not fit `inputs`, or None: name, got, wanted."""
    known = ", ".join(f"`{info.name}`" for info in inputs)
    names = [info.name for info in inputs]
    for name in feeds:
        if name not in names:
            return EdgeqError("bad-input", f"there is no input `{name}`", f"inputs: {known}")
    for info in inputs:
        if info.name not in feeds:
            return EdgeqError(
                "bad-input", f"input `{info.name}` is missing, wanted {info.describe()}"
            )
        value = feeds[info.name]
        if not isinstance(value, np.ndarray):
            got = type(value).__name__
        elif info.accepts(_dtype_name(value), value.shape):
            continue
        else:
            got = describe(_dtype_name(value), value.shape)
        text = f"input `{info.name}`: got {got}, wanted {info.describe()}"
        return EdgeqError("bad-input", text, *_how(info, value, inputs.index(info)))
    return None


def _how(info: TensorInfo, value: Any, place: int) -> tuple[str, ...]:
    """What to do with floats for an input of codes."""
    if info.scale is None or not isinstance(value, np.ndarray) or value.dtype.kind != "f":
        return ()
    return (f"make codes of floats: `inputs[{place}].codes(array)`",)


def output_mistake(known: Sequence[str], wanted: Sequence[str]) -> EdgeqError | None:
    """The first of the outputs asked for that there is not, or None."""
    for name in wanted:
        if name not in known:
            rows = ", ".join(f"`{row}`" for row in known)
            return EdgeqError("bad-input", f"there is no output `{name}`", f"outputs: {rows}")
    return None


def first_line(error: BaseException) -> str:
    """The first line that says something, at most 300 characters."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:300].rstrip(".") if lines else type(error).__name__


def _dtype_name(value: Any) -> str:
    return "object" if value.dtype.kind in "OUS" else str(value.dtype.name)
