"""Which inputs and outputs of two artifacts belong together: by name, else by order, else told."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from edgeq.errors import EdgeqError

if TYPE_CHECKING:
    from edgeq.api.use import Opened
    from edgeq_runtime import TensorInfo

    Infos = Sequence[TensorInfo]
    Pair = tuple[TensorInfo, TensorInfo]


@dataclass(frozen=True)
class Pairs:
    """`matched` tensors of A and B; `alone` are (name, why it has no partner)."""

    matched: tuple[Pair, ...]
    alone: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()


def pair_inputs(a: Opened, b: Opened) -> Pairs:
    """Every input of A with one of B, sizes that only one of them fixes taken over.

    Raises [not-comparable] naming the inputs of both where they do not fit each other.
    """
    by_name = {info.name: info for info in b.inputs}
    notes: tuple[str, ...] = ()
    if by_name.keys() == {info.name for info in a.inputs}:
        pairs = [(info, by_name[info.name]) for info in a.inputs]
    elif len(a.inputs) == len(b.inputs):
        pairs = list(zip(a.inputs, b.inputs, strict=True))
        notes = (_by_order("inputs", a, b, pairs),)
    else:
        raise _differ("inputs", a, b, a.inputs, b.inputs)
    if not all(_fits(one, two, same_dtype=True) for one, two in pairs):
        raise _differ("inputs", a, b, a.inputs, b.inputs)
    return Pairs(tuple((_joint(one, two), two) for one, two in pairs), notes=notes)


def pair_outputs(a: Opened, b: Opened) -> Pairs:
    """The outputs of one name; where there is none of one name, those at the same place."""
    by_name = {info.name: info for info in b.outputs}
    names = {info.name for info in a.outputs}
    matched = tuple((info, by_name[info.name]) for info in a.outputs if info.name in by_name)
    if matched:
        only_a = [(info.name, f"only {a.name} has it") for info in a.outputs]
        only_b = [(info.name, f"only {b.name} has it") for info in b.outputs]
        alone = [row for row in only_a if row[0] not in by_name]
        alone += [row for row in only_b if row[0] not in names]
        return Pairs(matched, tuple(alone))
    pairs = list(zip(a.outputs, b.outputs, strict=False))
    same_count = len(a.outputs) == len(b.outputs)
    if not (pairs and same_count and all(_fits(*pair, same_dtype=False) for pair in pairs)):
        raise _differ("outputs", a, b, a.outputs, b.outputs)
    return Pairs(tuple(pairs), notes=(_by_order("outputs", a, b, pairs),))


def _fits(one: TensorInfo, two: TensorInfo, *, same_dtype: bool) -> bool:
    if len(one.shape) != len(two.shape) or (same_dtype and one.dtype != two.dtype):
        return False
    sizes = zip(one.shape, two.shape, strict=True)
    return all(x == y or not (isinstance(x, int) and isinstance(y, int)) for x, y in sizes)


def _joint(one: TensorInfo, two: TensorInfo) -> TensorInfo:
    """`one` with the sizes that `two` fixes."""
    sizes = zip(one.shape, two.shape, strict=True)
    return replace(one, shape=tuple(y if isinstance(y, int) else x for x, y in sizes))


def _by_order(what: str, a: Opened, b: Opened, pairs: Sequence[Pair]) -> str:
    named = ", ".join(f"`{one.name}` with `{two.name}`" for one, two in pairs)
    return f"{what} of {a.name} and {b.name} have other names and are paired by order: {named}"


def _differ(what: str, a: Opened, b: Opened, ones: Infos, twos: Infos) -> EdgeqError:
    said = "; ".join(
        f"{model.name} has {_listed(infos)}" for model, infos in ((a, ones), (b, twos))
    )
    return EdgeqError("not-comparable", f"the {what} do not match: {said}")


def _listed(infos: Infos, most: int = 8) -> str:
    shown = ", ".join(f"`{info.name}` {info.describe()}" for info in infos[:most]) or "none"
    return shown if len(infos) <= most else f"{shown} and {len(infos) - most} more"
