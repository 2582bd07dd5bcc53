"""The quality of an artifact that its target computes otherwise than this host: on the emulated
core where there is one, else measured here and said to be."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from edgeq.api import border, timing
from edgeq.api.border import open_as_float

if TYPE_CHECKING:
    import numpy as np

    from edgeq.api.stages import Work

    Arrays = Mapping[str, np.ndarray[Any, Any]]

HERE, THERE = "float32", "float16"


def differs(work: Work, precision: str) -> bool:
    """Whether the target computes this precision in float16 and this host does not."""
    if precision != "fp16" or not work.is_tflite or timing.is_like_target(work.target):
        return False
    return work.target.fp16_computes(work.form.engine) == THERE


def core(work: Work, precision: str) -> str:
    """The core to emulate; "" where this host computes as the target or has no emulator."""
    from edgeq.devices import emulated

    wanted = differs(work, precision) and not emulated.available(work.target.core)
    return work.target.core if wanted else ""


def note(work: Work, precision: str) -> tuple[str, ...]:
    """What the figures of quality are of, where that is not what the target computes."""
    if not differs(work, precision):
        return ()
    name = work.target.name
    emulated_core = core(work, precision)
    if emulated_core:
        return (f"quality was measured on an emulated {emulated_core}, which computes in {THERE}",)
    return (f"quality was measured in {HERE} here; {name} computes in {THERE}, less exactly",)


@dataclass
class Recorder:
    """Runs an artifact here and remembers what it was given."""

    session: Any
    feeds: list[dict[str, Any]] = field(default_factory=list)

    def run(self, feeds: Arrays) -> Arrays:
        self.feeds.append({name: array.copy() for name, array in feeds.items()})
        outputs: Arrays = self.session.run(dict(feeds))
        return outputs


class Replay:
    """Gives what the emulated core made of the same feeds, in their order."""

    def __init__(self, outputs: tuple[Arrays, ...]) -> None:
        self._outputs = iter(outputs)

    def run(self, _: Arrays) -> Arrays:
        return next(self._outputs)


def outputs(artifact: bytes, samples: list[Any], on: str) -> tuple[Arrays, ...]:
    """What the core `on` computes of `samples`, both in the float model's terms."""
    from edgeq.devices import emulated

    found = border.borders(artifact)
    given = [border.codes(found, feeds) for feeds in samples]
    ran = emulated.run(artifact, given, core=on)
    return tuple(border.values(found, row) for row in ran.outputs)


def score(evaluation: Any, artifact: bytes, on: str) -> Any:
    """The scores of `evaluation` on the core `on`: once here, to learn what it feeds, and once with
    what the core made of that, all of it in one start of the emulator."""
    recorder = Recorder(open_as_float(artifact))
    try:
        evaluation.score(recorder.run)
    finally:
        recorder.session.close()
    return evaluation.score(Replay(outputs(artifact, recorder.feeds, on)).run)
