"""From ONNX text to a TFLite file that LiteRT runs, beside the same graph in ONNX Runtime."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from types import MappingProxyType
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter, OpResolverType

from edgeq.ir import Graph
from edgeq.numerics import affine
from edgeq.quant.calibrate import calibrate
from edgeq.quant.draft import draft
from edgeq.quant.kernels import LITERT
from edgeq.quant.plan import Encoding, QuantPlan
from edgeq.quant.quantize import quantize
from edgeq.quant.regions import Regions
from edgeq_converters.write import onnx as onnx_writer
from edgeq_converters.write import tflite
from edgeq_runtime.engines import onnxruntime as engine

NONE: Mapping[str, np.ndarray] = MappingProxyType({})
Feeds = Mapping[str, np.ndarray]

RESOLVERS = {
    "xnnpack": OpResolverType.AUTO,
    "builtin": OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
    "reference": OpResolverType.BUILTIN_REF,
}


@dataclass(frozen=True)
class Written:
    """A TFLite file and what LiteRT makes of it."""

    data: bytes

    def interpreter(self, resolver: str = "xnnpack") -> Interpreter:
        made = Interpreter(
            model_content=self.data,
            num_threads=1,
            experimental_op_resolver_type=RESOLVERS[resolver],
        )
        made.allocate_tensors()
        return made

    def run(self, feeds: Feeds, resolver: str = "xnnpack") -> dict[str, np.ndarray]:
        """Outputs by ONNX name and in ONNX order of axes; int64 feeds as the file wants them."""
        runner = self.interpreter(resolver).get_signature_runner()
        wanted = runner.get_input_details()
        outputs = runner(**{name: _fitted(feeds[name], wanted[name]) for name in wanted})
        return {name: np.array(value) for name, value in outputs.items()}

    @cached_property
    def ops(self) -> Counter[str]:
        """How often each operator is in the file."""
        details = self.interpreter("builtin")._get_ops_details()
        return Counter(row["op_name"] for row in details)

    @cached_property
    def partitions(self) -> int:
        """In how many pieces XNNPACK takes the graph."""
        details = self.interpreter()._get_ops_details()
        return sum(row["op_name"] == "DELEGATE" for row in details)


def _fitted(array: np.ndarray, details: Mapping[str, Any]) -> np.ndarray:
    """`array` in the type and, where the file has the channels last, the order of an input."""
    array = array.astype(details["dtype"])
    shape = tuple(details["shape"])
    if array.shape != shape and array.ndim > 2:
        array = np.moveaxis(array, 1, -1)
    assert array.shape == shape, (array.shape, shape)
    return np.ascontiguousarray(array)


@dataclass(frozen=True)
class Pair:
    """One graph, and one plan, as TFLite and as ONNX."""

    graph: Graph
    plan: QuantPlan | None
    lite: Written
    onnx: Any = field(repr=False)

    def samples(self, count: int, seed: int = 0) -> list[Feeds]:
        """Normal inputs (whole numbers below 3 for integers), on the grid of their codes."""
        return [self.on_grid(feeds) for feeds in random_samples(self.graph, count, seed)]

    def on_grid(self, feeds: Feeds) -> Feeds:
        """`feeds` as their codes restore them, so that no engine can round them another way."""
        if self.plan is None:
            return feeds
        found = {name: self.plan.encoding(name) for name in feeds}
        return {
            name: array if (row := found[name]) is None else restored(codes_of(array, row), row)
            for name, array in feeds.items()
        }

    def steps(self, name: str, one: np.ndarray, other: np.ndarray) -> np.ndarray:
        """By how many codes two float versions of an int8 output differ."""
        encoding = None if self.plan is None else self.plan.encoding(name)
        assert encoding is not None, f"`{name}` has no codes"
        difference = one.astype(np.float64) - other.astype(np.float64)
        return np.abs(np.rint(difference / encoding.scale[0])).astype(int)


def codes_of(values: np.ndarray, encoding: Encoding) -> np.ndarray:
    scale, points = np.array(encoding.scale, np.float32), np.array(encoding.zero_point)
    return affine.quantize(values, scale, points, dtype=encoding.dtype, axis=encoding.axis)


def restored(codes: np.ndarray, encoding: Encoding) -> np.ndarray:
    scale, points = np.array(encoding.scale, np.float32), np.array(encoding.zero_point)
    return affine.dequantize(codes, scale, points, axis=encoding.axis)


def random_samples(graph: Graph, count: int, seed: int = 0) -> list[Feeds]:
    rng = np.random.default_rng(seed)

    def draw(dtype: str, shape: Sequence[Any]) -> np.ndarray:
        sizes = [size if isinstance(size, int) else 1 for size in shape]
        if dtype.startswith("float"):
            return rng.normal(size=sizes).astype(dtype)
        return rng.integers(0, 2 if dtype == "bool" else 3, sizes).astype(dtype)

    return [
        {info.name: draw(info.dtype, info.shape) for info in graph.inputs} for _ in range(count)
    ]


def make_plan(
    graph: Graph,
    *,
    samples: Sequence[Feeds] | None = None,
    float_nodes: Mapping[str, str] = MappingProxyType({}),
) -> QuantPlan:
    """A static int8 plan for LiteRT by min/max over random samples.

    A net needs no layer to be in int8, as it would in a build: one operator is a net here.
    """
    with patch.object(Regions, "_find_reached", lambda regions: frozenset(regions.nodes)):
        made = draft(graph, kernels=LITERT, float_nodes=float_nodes)
    model = onnx_writer.write(graph, None, extra_outputs=made.observe)
    session = engine.open_session(model, threads=1)

    class Executor:
        def run(self, feeds: Feeds) -> Feeds:
            return session.run(dict(feeds))

    statistics = calibrate(Executor(), samples or random_samples(graph, 4, seed=9), made.observe)
    return quantize(graph, made, statistics, pair_safe=False)


def make_pair(graph: Graph, plan: QuantPlan | None = None, **options: Any) -> Pair:
    """`graph` written both ways; `options` are those of `tflite.write`."""
    lite = Written(tflite.write(graph, plan, **options))
    model = onnx_writer.write(graph, plan, activation_dtype="int8")
    return Pair(graph, plan, lite, engine.open_session(model, threads=1, exact=True))


@pytest.fixture(scope="session")
def pair() -> Callable[..., Pair]:
    """pair(graph, plan=None, **options of tflite.write)."""
    return make_pair


@pytest.fixture(scope="session")
def plan_of() -> Callable[..., QuantPlan]:
    """plan_of(graph, samples=None, float_nodes={}): static int8 for LiteRT."""
    return make_plan


@pytest.fixture(scope="session")
def check_float(graph_of: Callable[..., Graph]) -> Callable[..., Written]:
    """check_float(text, weights, feeds=None, tolerance=1e-5, **options): float, in both engines.

    LiteRT (XNNPACK and its reference kernels) must agree with ONNX Runtime within `tolerance` of
    the largest value of each output; integers and booleans must be equal.
    """

    def check(
        text: str,
        weights: Mapping[str, np.ndarray] = NONE,
        feeds: Feeds | None = None,
        *,
        tolerance: float = 1e-5,
        resolvers: Sequence[str] = ("xnnpack", "reference"),
        **options: Any,
    ) -> Written:
        made = make_pair(graph_of(text, weights), **options)
        feeds = feeds or made.samples(1)[0]
        wanted = made.onnx.run(dict(feeds))
        for resolver in resolvers:
            found = made.lite.run(feeds, resolver)
            for name, value in wanted.items():
                agree(found[name], value, tolerance, f"{resolver}: {name}")
        return made.lite

    return check


def agree(found: np.ndarray, wanted: np.ndarray, tolerance: float, label: str) -> None:
    """Within `tolerance` of the largest finite value; equal where they are not float."""
    if found.shape != wanted.shape and found.ndim > 2:
        found = np.moveaxis(found, -1, 1)
    assert found.shape == wanted.shape, (label, found.shape, wanted.shape)
    if wanted.dtype.kind != "f":
        np.testing.assert_array_equal(found, wanted, label)
        return
    finite = wanted[np.isfinite(wanted)]
    limit = tolerance * max(1.0, float(np.abs(finite).max(initial=0.0)))
    np.testing.assert_allclose(found, wanted, 0.0, limit, err_msg=label)


@pytest.fixture(scope="session")
def check_int8(graph_of: Callable[..., Graph]) -> Callable[..., Pair]:
    """check_int8(text, weights, lsb=0, share=0.0, ...): static int8, in both engines.

    XNNPACK's codes may be `lsb` from those of ONNX Runtime's exact kernels, in at most `share` of
    the elements, and the reference kernels' (those of the resolver `other`) `reference_lsb`.
    `float_ops` are those types that the plan may leave in float: none, unless said.
    """

    def check(
        text: str,
        weights: Mapping[str, np.ndarray] = NONE,
        *,
        lsb: int = 0,
        share: float = 1.0,
        reference_lsb: int = 1,
        float_ops: Sequence[str] = (),
        plan: QuantPlan | None = None,
        count: int = 4,
        other: str = "reference",
        **options: Any,
    ) -> Pair:
        graph = graph_of(text, weights)
        plan = plan or make_plan(graph)
        left = {
            (row.op_type, row.reason) for row in plan.ops.values() if row.precision == "float32"
        }
        assert {op for op, _ in left} <= set(float_ops), left
        made = make_pair(graph, plan, **options)
        for feeds in made.samples(count):
            wanted = made.onnx.run(dict(feeds))
            for resolver, limit in (("xnnpack", lsb), (other, reference_lsb)):
                found = made.lite.run(feeds, resolver)
                for name, value in wanted.items():
                    steps = made.steps(name, found[name], value)
                    assert steps.max(initial=0) <= limit, (resolver, name, Counter(steps.flat))
                    off = np.count_nonzero(steps)
                    assert resolver != "xnnpack" or off <= share * steps.size, Counter(steps.flat)
        return made

    return check
