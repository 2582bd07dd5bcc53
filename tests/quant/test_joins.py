"""Concats whose result has no one scale: boxes beside scores."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest

from edgeq.ir import Graph
from edgeq.quant.calibrate import Statistics
from edgeq.quant.draft import draft
from edgeq.quant.joins import sqnr_at, unlike
from edgeq.quant.observers.histogram import Histogram

GraphOf = Callable[..., Graph]
RNG = np.random.default_rng(5)
W = np.ones((4, 3, 1, 1), np.float32)
HEADS = """g (float[1,3,8,8] x) => (float[1,4,64] y) {{
  [box] b = Conv(x, w) [score] s = {score}
  [join] j = Concat <axis = 1> (b, {read})
  [flat] f = Reshape(j, shape) [last] y = Conv(f, v)
}}"""
WEIGHTS = {"w": W, "shape": np.array([1, 8, 64]), "v": np.ones((4, 8, 1), np.float32)}


def seen(**samples: np.ndarray) -> Statistics:
    samples["y"] = IMAGE
    histograms = {name: Histogram() for name in samples}
    for name, histogram in histograms.items():
        assert histogram.add(samples[name].astype(np.float32))
    return Statistics(histograms, 1)


def heads(graph_of: GraphOf, score: str = "Conv(x, w)", read: str = "s") -> Graph:
    return graph_of(HEADS.format(score=score, read=read), WEIGHTS)


BOXES = RNG.uniform(0, 416, 4000)
IMAGE = RNG.uniform(0, 1, 4000)


def test_boxes_beside_scores_share_no_scale(graph_of: GraphOf) -> None:
    graph = heads(graph_of)
    scores = RNG.uniform(0, 1, 4000)
    made = draft(graph)
    found = unlike(graph, made, seen(x=IMAGE, b=BOXES, s=scores, j=np.r_[BOXES, scores]))
    reason = found["join"]
    assert reason.startswith("at one scale for all of its result, its operand `s` would keep ")
    assert reason.endswith("(SQNR on the calibration data)")
    assert found["flat"] == found["last"]
    assert found["last"] == "it reads the result of `join`, whose operands are too unlike"
    left = draft(graph, float_nodes=found)
    assert {name for name, op in left.ops.items() if op.precision == "int8"} == {"box", "score"}
    assert left.ops["join"].reason == reason


def test_ranges_within_reason_stay_together(graph_of: GraphOf) -> None:
    """A ratio of 6 takes less than three bits: 48 dB of an even spread become 33."""
    graph = heads(graph_of)
    narrow = BOXES / 6
    everything = seen(x=IMAGE, b=BOXES, s=narrow, j=np.r_[BOXES, narrow])
    assert unlike(graph, draft(graph), everything) == {}


def test_an_operand_of_zeros_loses_nothing(graph_of: GraphOf) -> None:
    graph = heads(graph_of)
    everything = seen(x=IMAGE, b=BOXES, s=np.zeros(4000), j=np.r_[BOXES, np.zeros(4000)])
    assert unlike(graph, draft(graph), everything) == {}


def test_a_noisy_tensor_is_no_fault_of_the_concat(graph_of: GraphOf) -> None:
    """One far outlier leaves the rest few codes at its own scale as well."""
    graph = heads(graph_of)
    spiky = np.r_[RNG.uniform(0, 1, 400_000), 416.0]
    everything = seen(x=IMAGE, b=BOXES, s=spiky, j=np.r_[BOXES, spiky])
    assert unlike(graph, draft(graph), everything) == {}


def test_a_fixed_scale_counts_as_spread_evenly_over_its_range(graph_of: GraphOf) -> None:
    graph = heads(graph_of, "Conv(x, w) [gate] g = Sigmoid(s)", "g")
    made = draft(graph)
    assert "g" in made.fixed
    scores = RNG.normal(0, 3, 4000)
    boxes = seen(x=IMAGE, b=BOXES, s=scores, j=np.r_[BOXES, IMAGE])
    # s^2 = (416 / 255)^2 against a power of 1/3, s^2 / 12: 10 log10(4 / s^2) = 1.8 dB
    assert "operand `g` would keep 2 dB of 54" in unlike(graph, made, boxes)["join"]
    small = seen(x=IMAGE, b=IMAGE, s=scores, j=IMAGE)
    assert unlike(graph, made, small) == {}


def test_clamps_that_were_folded_cut_the_range(graph_of: GraphOf) -> None:
    """What a Relu cuts off is no part of the operand: -400..1 counts as 0..1."""
    graph = heads(graph_of, "Conv(x, w) [relu] r = Relu(s)", "r")
    made = draft(graph)
    raw = RNG.uniform(-1, 1, 4000)
    everything = seen(x=IMAGE, b=BOXES, r=raw, j=np.r_[BOXES, np.maximum(raw, 0)])
    assert "operand `r`" in unlike(graph, made, everything)["join"]


def test_an_empty_result_says_nothing(graph_of: GraphOf) -> None:
    graph = heads(graph_of)
    nothing = np.zeros(0, np.float32)
    everything = seen(x=IMAGE, b=nothing, s=nothing, j=nothing)
    assert unlike(graph, draft(graph), everything) == {}


@pytest.mark.parametrize("scale", [1 / 255, 3 / 255, 40 / 255])
def test_sqnr_of_an_even_spread(scale: float) -> None:
    """Power 1/3, error s^2 / 12; a bin's centre stands for it, w = 2^-11: below w / s of it."""
    histogram = Histogram()
    histogram.add(np.linspace(0, 1, 200_001, dtype=np.float32))
    expected = 10 * math.log10(4 / scale**2)
    assert sqnr_at(histogram, scale) == pytest.approx(expected, abs=0.25)


def test_sqnr_of_nothing_lost() -> None:
    assert sqnr_at(Histogram(), 1.0) == math.inf
    zeros = Histogram()
    zeros.add(np.zeros(9, np.float32))
    assert sqnr_at(zeros, 1.0) == math.inf
