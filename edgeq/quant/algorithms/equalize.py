"""Cross-layer equalization: channels of unlike range trade a factor with the layer after them.

Nagel et al. 2019, arXiv 1906.04721, with guards: as printed there it takes a real MobileNet from
87.5 to 48.4 %, because channels with dead weights but a live bias explode (measured: notes
quant-quality 3.2). The float function stays what it was, but for rounding of the weights.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import onnx_ir
from numpy.typing import NDArray

from edgeq.ir import Graph, attribute, constant
from edgeq.quant.algorithms.pairs import Pair, find_pairs, input_channels, output_channels
from edgeq.quant.algorithms.transform import Transformed, on_grid, set_constant

Floats = NDArray[np.float64]

CLAMP = 16.0
"""No channel is scaled by more than this, or its inverse, unless the caller asks for more."""

SWEEPS = 3
"""How often all pairs are visited: a change in one moves the balance of the next."""

_SETTLED = 1e-3
"""Largest |log factor| of a pair that is called balanced."""

_HEADROOM = 1.25
"""A channel is moved no closer to a bound than this times its measured peak: unseen samples reach
further than the measured ones."""

_DEAD = 1e-3
"""Channels below this share of the median are left alone: a factor made of nothing is noise."""


def equalize(
    graph: Graph,
    *,
    channel_maxima: Mapping[str, NDArray[Any]] | None = None,
    clamp: float = CLAMP,
    clips: bool = False,
    fixed: Collection[str] = (),
) -> Transformed:
    """A clone in which the legal pairs of layers have like ranges channel by channel.

    Without `channel_maxima` the weights of the two layers are balanced. With it, max |x| [C] of
    what second layers read, by tensor name (`ChannelStatistics.peak`), the activations are: that is
    what helps where weights have a scale per channel anyway. Pairs whose tensor it lacks are
    balanced by weights. `fixed`: see `find_pairs`.

    `clips` takes in pairs with a bound between them (ReLU6). By weights, their factors are >= 1,
    which is exact below the bound and loosens it above: measure. By activations, channels that
    reach the bound are left alone and no other is moved up to it: exact on all that was measured.
    """
    assert clamp >= 1.0, clamp
    graph = graph.clone()
    pairs = find_pairs(graph, clips=clips, fixed=fixed)
    layers = {str(node.name): node for node in graph.nodes()}
    sides = _Sides(layers, pairs.legal)
    maxima = {name: np.asarray(peak, np.float64) for name, peak in (channel_maxima or {}).items()}
    totals = {pair: np.ones(pair.channels) for pair in pairs.legal}
    for _ in range(SWEEPS):
        moved = [_visit(pair, sides, maxima.get(pair.tensor), totals, clamp) for pair in totals]
        if max(moved, default=0.0) < _SETTLED:
            break
    moved_pairs = {p: total for p, total in totals.items() if _distance(total) >= _SETTLED}
    for name in dict.fromkeys(name for pair in moved_pairs for name in (pair.first, pair.second)):
        _store(graph, layers[name], sides)
    lines = tuple(_line(pair, total) for pair, total in moved_pairs.items())
    ways = (name for pair in moved_pairs for name in (pair.first, *pair.between))
    scaled = tuple(str(layers[name].outputs[0].name) for name in ways)
    return Transformed(graph, lines, pairs.refused, len(lines), scaled)


class _Sides:
    """Weights as [groups, rows, columns, repeat] with the factors so far; arrays stay untouched."""

    def __init__(self, layers: Mapping[str, onnx_ir.Node], pairs: Collection[Pair]) -> None:
        self.layers = layers
        self.repeat = {pair.second: pair.repeat for pair in pairs}
        names = dict.fromkeys(name for pair in pairs for name in (pair.first, pair.second))
        self.rows = {name: np.ones(output_channels(layers[name])) for name in names}
        self.columns = {
            name: np.ones(input_channels(layers[name]) // self.repeat.get(name, 1))
            for name in names
        }

    def scaled(self, name: str) -> Floats:
        """The weights of a layer, rows divided by and columns multiplied with its factors."""
        stored = _view(self.layers[name], self.repeat.get(name, 1))
        groups = stored.shape[0]
        columns = self.columns[name].reshape(groups, 1, -1, 1)
        rows = self.rows[name].reshape(groups, -1, 1, 1)
        return np.asarray(stored * columns / rows)

    def row_peaks(self, name: str) -> Floats:
        """max(max |W[c]|, |b[c]|) per output channel: a dead channel may have a live bias."""
        peaks: Floats = np.abs(self.scaled(name)).max(axis=(2, 3), initial=0.0).reshape(-1)
        bias = _bias(self.layers[name])
        return peaks if bias is None else np.maximum(peaks, np.abs(bias / self.rows[name]))

    def column_peaks(self, name: str) -> Floats:
        """max |W[:, c]| per input channel."""
        return np.asarray(np.abs(self.scaled(name)).max(axis=(1, 3), initial=0.0).reshape(-1))


def _visit(
    pair: Pair, sides: _Sides, peak: Floats | None, totals: dict[Pair, Floats], clamp: float
) -> float:
    """Scale one pair; returns the largest |log factor| that this took."""
    old = totals[pair]
    peak = None if peak is None else peak.reshape(pair.channels, -1).max(axis=1)
    wanted = np.clip(old * _balance(pair, sides, peak, old), 1.0 / clamp, clamp)
    if pair.top < math.inf:
        wanted = _below_the_clip(wanted, peak, pair.top)
    wanted = on_grid(wanted)
    step = wanted / old
    totals[pair] = wanted
    sides.rows[pair.first] *= step
    sides.columns[pair.second] *= step
    return _distance(step)


def _balance(pair: Pair, sides: _Sides, peak: Floats | None, old: Floats) -> Floats:
    """The factors that even out what there is now; `peak` is of the activations at the start."""
    columns = sides.column_peaks(pair.second)
    if peak is None:
        return _ratio(sides.row_peaks(pair.first), columns, 0.5)
    depthwise = int(attribute(sides.layers[pair.second], "group", 1)) == pair.channels
    if depthwise:  # its weights have a scale for each channel: only activations need to be even
        return _ratio(peak / old, np.ones_like(columns), 1.0)
    return _ratio(peak / old, columns, 0.5)


def _below_the_clip(wanted: Floats, peak: Floats | None, top: float) -> Floats:
    """`wanted` times one number, so that no channel is cut by the bound that was not before."""
    if peak is None:
        return np.asarray(wanted / wanted.min())
    share = np.minimum(_HEADROOM * peak / top, 1.0)
    scaled = wanted * np.max(share / wanted, initial=0.0)
    return np.where((share >= 1.0) | (share == 0.0), 1.0, scaled)


def _ratio(first: Floats, second: Floats, power: float) -> Floats:
    """(first / second) ** power with geometric mean 1; 1 for channels that are as good as dead."""
    alive = (first > _DEAD * np.median(first)) & (second > _DEAD * np.median(second))
    factor = np.ones_like(first)
    if alive.any():
        logs = power * (np.log(first[alive]) - np.log(second[alive]))
        factor[alive] = np.exp(logs - logs.mean())
    return factor


def _distance(factor: Floats) -> float:
    return float(np.abs(np.log(factor)).max(initial=0.0))


def _view(node: onnx_ir.Node, repeat: int) -> NDArray[Any]:
    """Weights as [groups, rows of a group, columns of a group, elements that share a column]."""
    weights = constant(node.inputs[1])
    assert weights is not None
    if node.op_type == "Conv":
        groups = int(attribute(node, "group", 1))
        return weights.reshape(groups, weights.shape[0] // groups, weights.shape[1], -1)
    rows = weights if attribute(node, "transB", 0) else weights.T
    return rows.reshape(1, rows.shape[0], -1, repeat)


def _store(graph: Graph, node: onnx_ir.Node, sides: _Sides) -> None:
    """Write the factors of a layer into its weights and bias, rounded once."""
    name, weights = str(node.name), constant(node.inputs[1])
    assert weights is not None
    scaled = sides.scaled(name).astype(weights.dtype)
    if node.op_type != "Conv":
        matrix = scaled.reshape(sides.rows[name].size, -1)
        scaled = matrix if attribute(node, "transB", 0) else matrix.T
    set_constant(graph, node, 1, scaled.reshape(weights.shape), f"{name}_weights")
    bias = constant(node.inputs[2]) if len(node.inputs) > 2 else None
    if bias is not None and not np.all(sides.rows[name] == 1.0):
        spread = np.broadcast_to(bias / sides.rows[name], bias.shape)
        set_constant(graph, node, 2, spread.astype(bias.dtype), f"{name}_bias")


def _bias(node: onnx_ir.Node) -> Floats | None:
    bias = constant(node.inputs[2]) if len(node.inputs) > 2 else None
    return None if bias is None else bias.reshape(-1).astype(np.float64)


def _line(pair: Pair, total: Floats) -> str:
    clip = f", with a clip at {pair.top:g} between them" if pair.top < math.inf else ""
    return (
        f"`{pair.first}` -> `{pair.second}`: {pair.channels} channels scaled by "
        f"{1 / total.max():.3g}..{1 / total.min():.3g}{clip}"
    )
