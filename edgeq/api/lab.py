"""The search's laboratory: models opened by exact kernels on one thread, closed behind `with`.

One thread and exact integers, so that a decision does not hang on the host that took it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgeq import registry
from edgeq.api.models import open_exact, write_model

if TYPE_CHECKING:
    import numpy as np

    from edgeq.ir import Graph
    from edgeq.quant.plan import QuantPlan
    from edgeq.search.laboratory import Group
    from edgeq_runtime.engines.onnxruntime import Session

    Feeds = Mapping[str, np.ndarray[Any, Any]]


class _Runner:
    """`edgeq.search.laboratory.Runner` over a session of the runtime."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def run(self, feeds: Feeds) -> Feeds:
        return self._session.run(dict(feeds))


class _Switched:
    """`edgeq.search.laboratory.Switched`: the switches are inputs of the session."""

    def __init__(self, session: Session, count: int) -> None:
        self._session = session
        self._count = count

    def run(self, feeds: Feeds, on: frozenset[int]) -> Feeds:
        import numpy as np

        from edgeq_converters.write.switched import switch_name

        switches = {switch_name(at): np.array(at in on) for at in range(self._count)}
        return self._session.run({**feeds, **switches})


@dataclass(frozen=True)
class Lab:
    """`edgeq.search.laboratory.Laboratory`; artifacts are written for `activation_dtype`."""

    activation_dtype: str

    @contextmanager
    def float_model(self, graph: Graph, extra_outputs: Sequence[str] = ()) -> Iterator[_Runner]:
        with _opened(write_model(graph, extra_outputs)) as session:
            yield _Runner(session)

    @contextmanager
    def artifact(
        self, graph: Graph, plan: QuantPlan, extra_outputs: Sequence[str] = ()
    ) -> Iterator[_Runner]:
        writer = registry.resolve("writers", "onnx")
        model = writer(
            graph, plan, activation_dtype=self.activation_dtype, extra_outputs=extra_outputs
        )
        with _opened(model) as session:
            yield _Runner(session)

    @contextmanager
    def switched(self, graph: Graph, groups: Sequence[Group]) -> Iterator[_Switched]:
        from edgeq_converters.write import switched

        with _opened(switched.write(graph, groups)) as session:
            yield _Switched(session, len(groups))


@contextmanager
def _opened(model: bytes) -> Iterator[Session]:
    session = open_exact(model, threads=1)
    try:
        yield session
    finally:
        session.close()
