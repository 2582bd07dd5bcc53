"""Canonical JSON: one spelling for each value, and a reader that takes no other.

Sorted keys, no spaces, ASCII with escapes, shortest round-trip numbers (Python's repr). Refused:
duplicate keys, NaN and infinity, lone surrogates, NUL, numbers over 40 characters, depth over 32.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any, NoReturn

from edgeq_runtime.errors import EdgeqError
from edgeq_runtime.limits import MAX_JSON_DEPTH, MAX_JSON_NUMBER

_STRING = re.compile(rb'"(?:[^"\\]|\\.)*"', re.DOTALL)
_UNFIT = re.compile("[\0\ud800-\udfff]")
_BRACKET = re.compile(rb"[\[\]{}]")


def dumps(value: Any) -> bytes:
    """The canonical bytes of `value`; a value that JSON cannot hold is our own mistake."""
    text = json.dumps(
        value, sort_keys=True, ensure_ascii=True, allow_nan=False, separators=(",", ":")
    )
    return text.encode("ascii")


def loads(data: bytes, what: str) -> Any:
    """Parse `data`, which must be canonical; `what` names it in [damaged-bundle]."""
    try:
        text = data.decode("ascii")
    except UnicodeDecodeError as error:
        raise damaged(f"{what}: byte {error.start} is not ASCII") from None
    _check_depth(data, what)
    try:
        value = json.loads(
            text,
            object_pairs_hook=_unique,
            parse_int=_integer,
            parse_float=_number,
            parse_constant=_no_constant,
        )
    except json.JSONDecodeError as error:
        raise damaged(f"{what}: not JSON at byte {error.pos}: {error.msg}") from None
    except _Refused as error:
        raise damaged(f"{what}: {error}") from None
    _check_strings(value, what)
    if dumps(value) != data:
        raise damaged(f"{what}: not in canonical form")
    return value


def damaged(message: str) -> EdgeqError:
    """The error of every broken rule of the format."""
    return EdgeqError("damaged-bundle", message, "copy the bundle again, or build it again")


class _Refused(Exception):
    """What a hook of the parser does not take."""


def _check_depth(data: bytes, what: str) -> None:
    """Before the parser, whose own recursion would be the limit."""
    depth = 0
    for bracket in _BRACKET.findall(_STRING.sub(b"", data)):
        depth += 1 if bracket in b"[{" else -1
        if depth > MAX_JSON_DEPTH:
            raise damaged(f"{what}: nested deeper than {MAX_JSON_DEPTH}")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) != len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise _Refused(f"duplicate key {json.dumps(twice)}")
    return table


def _integer(text: str) -> int:
    _check_length(text)
    return int(text)


def _number(text: str) -> float:
    _check_length(text)
    value = float(text)
    if not math.isfinite(value):
        raise _Refused(f"number {text} is not finite")
    return value


def _check_length(text: str) -> None:
    if len(text) > MAX_JSON_NUMBER:
        raise _Refused(f"a number of {len(text)} characters")


def _no_constant(text: str) -> NoReturn:
    raise _Refused(f"{text} is not a number JSON has")


def _check_strings(value: Any, what: str) -> None:
    """Strings that no file name, terminal or UTF-8 file can hold."""
    stack = [value]
    while stack:
        item = stack.pop()
        if isinstance(item, dict):
            stack.extend(item.keys())
            stack.extend(item.values())
        elif isinstance(item, list):
            stack.extend(item)
        elif isinstance(item, str) and _UNFIT.search(item):
            raise damaged(f"{what}: a string holds NUL or half a surrogate pair")
