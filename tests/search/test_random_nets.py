"""Random small nets of convolutions, products, joins, patterns and oddities, the whole way.

Passes, search and the plans without data: every artifact loads, keeps names, types and shapes, is
finite, and is as close to float as the build was told.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from edgeq.api.lab import Lab
from edgeq.api.models import open_exact, read_model, write_model
from edgeq.errors import EdgeqError
from edgeq.ir import Graph
from edgeq.numerics.errors import sqnr_db
from edgeq.passes import run_all
from edgeq.quant.dynamic import dynamic_nodes, plan_dynamic
from edgeq.quant.half import plan_half
from edgeq.quant.plan import QuantPlan
from edgeq.search import static
from edgeq_converters.write.onnx import write

# What is kept at the least, in dB. Passes only reorder float32 sums: 24 bits less some roundings.
PASSES_DB = 80.0
# float16 rounds a weight to 73 dB, int8 to 40 dB or more; a softmax of large numbers, or a
# difference of like ones, magnifies what is lost: half of either is asked. Where channels have
# unlike ranges, a plan that measures nothing may lose all: then it only has to run.
HALF_DB = 36.0
LOWERED_DB = 15.0

Feeds = dict[str, np.ndarray]
Outputs = Sequence[dict[str, np.ndarray]]


@dataclass(frozen=True)
class Case:
    """A random net with samples and what the float model makes of them."""

    seed: int
    is_skewed: bool
    source: Graph
    feeds: list[Feeds]
    wanted: Outputs

    @property
    def kept(self) -> list[Feeds]:
        return self.feeds[:8]

    def __iter__(self) -> Any:
        return iter(self.feeds)

    @property
    def pair_safe(self) -> bool:
        return self.seed % 2 == 1

    @property
    def dtype(self) -> str:
        return "uint8" if self.seed % 3 else "int8"


def run(model: bytes, feeds: Sequence[Feeds]) -> Outputs:
    session = open_exact(model, threads=1)
    try:
        return [session.run(dict(sample)) for sample in feeds]
    finally:
        session.close()


def made_case(folder: Path, seed: int, net: Any) -> Case:
    path = folder / f"net{seed}.onnx"
    path.write_bytes(net.model().SerializeToString())
    source = read_model(path, {}).graph
    feeds = net.samples(seed, 1 if seed % 11 == 0 else 10)
    return Case(seed, net.is_skewed, source, feeds, run(write_model(source), feeds))


def check_outputs(case: Case, model: bytes, least_db: float, what: str) -> None:
    got = run(model, case.feeds)
    for wanted, made in zip(case.wanted, got, strict=True):
        assert list(wanted) == list(made), (case.seed, what)
        for name, array in wanted.items():
            other = made[name]
            assert (array.dtype, array.shape) == (other.dtype, other.shape), (case.seed, what, name)
            assert array.dtype.kind != "f" or np.isfinite(other).all(), (case.seed, what, name)
    for name, array in case.wanted[0].items():
        if array.dtype.kind == "f":
            left = sqnr_db(*(np.stack([row[name] for row in rows]) for rows in (case.wanted, got)))
            assert left >= least_db, (case.seed, what, name)


def check_static(case: Case, graph: Graph, lab: Lab, **options: Any) -> None:
    """The static plan, then the mixed one where layers are left to dynamic int8."""
    chosen = static.Options(pair_safe=case.pair_safe, **options)
    first = static.drafted(graph, chosen)
    if not static.has_int8(first):
        return
    found = static.find(lab, static.start(lab, graph, first, case), case, chosen)
    assert QuantPlan.from_json(found.plan.to_json()) == found.plan
    # the score is of the kept samples, and of parts; others may hold what none of these did
    least = min(8.0, found.score.worst[1] - 4.0)
    made = write(found.graph, found.plan, activation_dtype=case.dtype)
    check_outputs(case, made, least, f"static: {found.summary}")
    if chosen.float_nodes:
        mixed = plan_dynamic(found.graph, acts="dynamic", pair_safe=case.pair_safe, base=found.plan)
        made = write(found.graph, mixed, activation_dtype=case.dtype)
        check_outputs(case, made, least, f"mixed: {found.summary}")


def check_without_data(case: Case, graph: Graph) -> None:
    lowered, half = (-np.inf, -np.inf) if case.is_skewed else (LOWERED_DB, HALF_DB)
    for acts in ("dynamic", "fp32"):
        plan = plan_dynamic(graph, acts=acts, pair_safe=case.pair_safe)
        check_outputs(case, write(graph, plan), lowered, acts)
    with suppress(EdgeqError):  # [nothing-to-quantize]: no tensor is large enough
        check_outputs(case, write(graph, plan_half(graph)), half, "fp16")


def check_net(folder: Path, seed: int, net: Any) -> None:
    case = made_case(folder, seed, net)
    graph, _ = run_all(case.source)
    check_outputs(case, write_model(graph), PASSES_DB, "passes")
    assert write_model(run_all(graph)[0]) == write_model(graph), f"{seed}: a second run changes it"
    check_without_data(case, graph)
    lab = Lab(case.dtype)
    check_static(case, graph, lab, method="p99.99" if seed % 5 == 0 else "auto")
    names = dynamic_nodes(graph)
    if names and seed % 2:
        check_static(case, graph, lab, float_nodes=dict.fromkeys(names, "dynamic"))


@pytest.mark.parametrize("start", range(0, 40, 8))
def test_random_nets_survive_the_whole_way(
    tmp_path: Path, start: int, random_nets: ModuleType
) -> None:
    for seed in range(start, start + 8):
        check_net(tmp_path, seed, random_nets.random_net(seed))


@pytest.mark.slow
@pytest.mark.parametrize("start", range(100, 400, 50))
def test_many_random_nets_survive_the_whole_way(
    tmp_path: Path, start: int, random_nets: ModuleType
) -> None:
    for seed in range(start, start + 50):
        check_net(tmp_path, seed, random_nets.random_net(seed))
