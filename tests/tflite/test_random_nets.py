"""Random nets in both formats: float, int8, narrow weights, other borders, and back from TFLite.

The nets are those of tests/nets. Float files agree with ONNX Runtime; int8 files with the ONNX form
of the same plan; and what is read from a file that edgeq wrote, written again, computes the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from edgeq.api.models import read_model, write_model
from edgeq.errors import EdgeqError
from edgeq.ir import Graph
from edgeq.numerics import affine
from edgeq.numerics.errors import sqnr_db
from edgeq.passes import run_all
from edgeq.quant.calibrate import calibrate
from edgeq.quant.draft import draft
from edgeq.quant.dynamic import plan_dynamic
from edgeq.quant.half import plan_half
from edgeq.quant.kernels import LITERT
from edgeq.quant.plan import QuantPlan
from edgeq.quant.quantize import quantize
from edgeq_converters.write import onnx as onnx_writer
from edgeq_converters.write import tflite
from edgeq_runtime import engines
from edgeq_runtime.engines.tflite_session import notes
from edgeq_runtime.tflite import parse

pytestmark = pytest.mark.checkout

FLOAT, SKEWED = 1e-4, 1e-2
"""Of the largest value of an output: what sums in another order may cost, and where channels are
far apart, so that a norm or a difference magnifies it."""
LOWERED_DB = 15.0
"""Dynamic int8 against float at the least, where no channel is far larger than another."""
WITHIN_ONE = 0.99
"""Share of the codes that are one step off at most; none is over two."""
LIKE = 3.0
"""How much farther from float one int8 form may be than the other, where they are not so near."""

Feeds = dict[str, np.ndarray]
Outputs = list[dict[str, np.ndarray]]


def run(model: bytes, feeds: Sequence[Feeds], **options: Any) -> Outputs:
    engine = engines.get(engines.for_model(model))
    session = engine.open_session(model, threads=1, **{"exact": True, **options})
    try:
        return [session.run(dict(sample)) for sample in feeds]
    finally:
        session.close()


def stacked(rows: Outputs) -> dict[str, np.ndarray]:
    return {name: np.stack([row[name] for row in rows]) for name in rows[0]}


@dataclass
class Case:
    """A net, its samples on the grid of its plan, and where it is in words."""

    seed: int
    folder: Path
    graph: Graph
    feeds: list[Feeds]
    is_skewed: bool

    @cached_property
    def wanted(self) -> dict[str, np.ndarray]:
        return stacked(run(write_model(self.graph), self.feeds))

    @cached_property
    def plan(self) -> QuantPlan:
        """Static int8 by min and max."""
        made = draft(self.graph, kernels=LITERT)
        model = onnx_writer.write(self.graph, None, extra_outputs=made.observe)
        rows = run(model, self.feeds)

        class Executor:
            def __init__(self) -> None:
                self.rows = iter(rows)

            def run(self, feeds: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
                return next(self.rows)

        found = calibrate(Executor(), self.feeds, made.observe)
        return quantize(self.graph, made, found, pair_safe=False)

    def on_grid(self, plan: QuantPlan) -> list[Feeds]:
        """The samples as their codes restore them: engines divide by a scale in other ways."""
        return [
            {name: restored(plan, name, array) for name, array in row.items()} for row in self.feeds
        ]

    def agree(
        self,
        found: Mapping[str, np.ndarray],
        wanted: Mapping[str, np.ndarray],
        limit: float,
        what: str,
        loose: Sequence[str] = (),
    ) -> None:
        """The same names, shapes and types; floats within `limit` of the largest value, those of
        `loose` within that of floats."""
        limit = SKEWED if limit == FLOAT and self.is_skewed else limit
        assert list(found) == list(wanted), (self.seed, what)
        for name, array in wanted.items():
            other, where = found[name], (self.seed, what, name)
            assert (other.shape, other.dtype) == (array.shape, array.dtype), where
            if array.dtype.kind != "f" or not (limit or name in loose):
                np.testing.assert_array_equal(other, array, str(where))
            elif array.size:
                off = float(np.abs(other - array).max())
                assert off <= (limit or FLOAT) * max(1.0, float(np.abs(array).max())), (*where, off)

    def int8_agrees(
        self,
        plan: QuantPlan,
        found: Mapping[str, np.ndarray],
        other: Mapping[str, np.ndarray],
        exact: Mapping[str, np.ndarray],
        what: str,
    ) -> None:
        """Two int8 forms of one plan: within two steps, and nearly all within one.

        A step may become more, in a net that is not trained: a Tanh or a Softmax of a wide range
        magnifies the rounding of a pool; and TFLite's products take an Add behind them for their
        bias, which spares a rounding. Then neither is farther from float than the other.
        """
        assert list(found) == list(other), (self.seed, what)
        for name, array in other.items():
            where, encoding = (self.seed, what, name), plan.encoding(name)
            assert found[name].shape == array.shape, where
            if array.dtype != np.float32 or not array.size:
                continue
            scale = float(np.abs(array).max()) / 127 if encoding is None else encoding.scale[0]
            steps = np.abs(np.rint((found[name] - array) / np.float64(scale or 1.0)))
            if steps.max() <= 2 and np.mean(steps <= 1) >= WITHIN_ONE:
                continue
            one, two = (np.abs(form - exact[name]).mean() for form in (found[name], array))
            assert max(one, two) <= LIKE * min(one, two) + scale, (*where, one, two)


def restored(plan: QuantPlan, name: str, array: np.ndarray) -> np.ndarray:
    encoding = plan.encoding(name)
    if encoding is None:
        return array
    scale, point = np.float32(encoding.scale[0]), encoding.zero_point[0]
    codes = affine.quantize(array, scale, point, dtype=encoding.dtype)
    return affine.dequantize(codes, scale, point)


def renamed(
    found: Mapping[str, np.ndarray], wanted: Mapping[str, np.ndarray]
) -> Mapping[str, np.ndarray]:
    """A graph has no output with the name of another tensor, an input; a TFLite file can."""
    return dict(zip(wanted, found.values(), strict=True))


def made_case(folder: Path, seed: int, random_nets: ModuleType) -> Case:
    net = random_nets.random_net(seed, random_nets.grow_edge)
    path = folder / f"net{seed}.onnx"
    path.write_bytes(net.model().SerializeToString())
    graph = run_all(read_model(path, {}).graph)[0]
    return Case(seed, folder, graph, net.samples(seed, 6), net.is_skewed)


def check_float(case: Case) -> bytes:
    data = tflite.write(case.graph, None)
    for resolver in ("auto", "reference"):
        found = stacked(run(data, case.feeds, resolver=resolver))
        case.agree(found, case.wanted, FLOAT, f"float, {resolver}")
    return data


def check_narrow(case: Case) -> None:
    """Weights in float16, and in int8 with activations quantized at run time."""
    with suppress(EdgeqError):  # [nothing-to-quantize]: no tensor is large enough
        plan = plan_half(case.graph)
        wanted = stacked(run(onnx_writer.write(case.graph, plan), case.feeds))
        found = stacked(run(tflite.write(case.graph, plan), case.feeds))
        case.agree(found, wanted, FLOAT, "fp16")
    plan = plan_dynamic(case.graph, acts="dynamic", kernels=LITERT)
    found = stacked(run(tflite.write(case.graph, plan), case.feeds))
    for name, array in case.wanted.items():
        if array.dtype.kind == "f" and array.size:
            assert np.isfinite(found[name]).all(), (case.seed, "dynamic", name)
            least = -np.inf if case.is_skewed else LOWERED_DB
            assert sqnr_db(array, found[name]) >= least, (case.seed, "dynamic", name)


def check_static(case: Case) -> bytes:
    plan = case.plan
    feeds = case.on_grid(plan)
    data = tflite.write(case.graph, plan)
    wanted = stacked(run(onnx_writer.write(case.graph, plan, activation_dtype="int8"), feeds))
    found = stacked(run(data, feeds))
    case.int8_agrees(plan, found, wanted, stacked(run(write_model(case.graph), feeds)), "int8")
    return data


def check_borders(case: Case, data: bytes) -> None:
    """int8 inputs and outputs, and images with their channels last: the same numbers."""
    plan, feeds = case.plan, case.on_grid(case.plan)
    wanted = stacked(run(data, feeds))
    given = [{name: coded(plan, name, array) for name, array in row.items()} for row in feeds]
    codes = stacked(run(tflite.write(case.graph, plan, io="int8"), given))
    whole = {
        name: coded(plan, name, array) if codes[name].dtype == np.int8 else array
        for name, array in wanted.items()
    }
    case.agree(codes, whole, 0.0, "--io int8")

    last = tflite.write(case.graph, plan, layout="nhwc")
    turned = turned_names(last)
    given = [
        {k: np.moveaxis(array, 1, -1) if k in turned else array for k, array in row.items()}
        for row in feeds
    ]
    rows = stacked(run(last, given))
    found = {name: np.moveaxis(a, -1, 2) if name in turned else a for name, a in rows.items()}
    case.agree(found, wanted, 0.0, "--layout nhwc")


def coded(plan: QuantPlan, name: str, array: np.ndarray) -> np.ndarray:
    encoding = plan.encoding(name)
    if encoding is None:
        return array
    return affine.quantize(array, np.float32(encoding.scale[0]), encoding.zero_point[0])


def turned_names(data: bytes) -> set[str]:
    """Inputs and outputs that a file has with their channels last."""
    return set(notes(parse(data)).get("channels_last", ()))


def check_round_trip(case: Case, data: bytes, what: str, *, limit: float) -> None:
    """Read what was written, write it again in both formats."""
    path = case.folder / f"net{case.seed}-{what}.tflite"
    path.write_bytes(data)
    read = read_model(path, {})
    plan = read.plan
    feeds = case.feeds if plan is None else case.on_grid(plan)
    if any(info.shape[:1] == (1,) for info in read.graph.inputs):  # samples are not apart in it
        feeds = [{name: array[:1] for name, array in row.items()} for row in feeds]
    wanted = stacked(run(data, feeds))
    again = tflite.write(read.graph, plan)
    found = renamed(stacked(run(again, feeds)), wanted)
    loose = [name for name in wanted if plan is not None and plan.encoding(name) is None]
    case.agree(found, wanted, limit, f"{what}, TFLite again", loose=loose)
    model = onnx_writer.write(read.graph, plan, activation_dtype="int8")
    found = renamed(stacked(run(model, feeds)), wanted)
    if plan is None:
        case.agree(found, wanted, FLOAT, f"{what}, as ONNX")
    else:
        exact = renamed(stacked(run(write_model(read.graph), feeds)), wanted)
        case.int8_agrees(plan, found, wanted, exact, f"{what}, as ONNX")


def check_net(folder: Path, seed: int, random_nets: ModuleType) -> None:
    case = made_case(folder, seed, random_nets)
    try:
        data = check_float(case)
    except EdgeqError as error:  # an output without a batch, of a net whose batch is free
        if error.slug != "needs-shape":
            raise
        return
    check_round_trip(case, data, "float", limit=1e-5)
    check_narrow(case)
    try:
        data = check_static(case)
    except EdgeqError as error:  # where channels are far apart
        if "XNNPACK refuses" not in error.message:
            raise
        return
    check_borders(case, data)
    check_round_trip(case, data, "int8", limit=0.0)


@pytest.mark.parametrize("start", range(0, 24, 6))
def test_random_nets_in_both_formats(tmp_path: Path, start: int, random_nets: ModuleType) -> None:
    for seed in range(start, start + 6):
        check_net(tmp_path, seed, random_nets)


@pytest.mark.slow
@pytest.mark.parametrize("start", range(100, 250, 50))
def test_many_random_nets_in_both_formats(
    tmp_path: Path, start: int, random_nets: ModuleType
) -> None:
    for seed in range(start, start + 50):
        check_net(tmp_path, seed, random_nets)
