"""How close a candidate comes to the float model, as one number that the worst part dominates.

An output that ends in a Concat holds unlike things (boxes beside scores): each of its parts is
scored by itself, or the one with the largest numbers would hide the others (measured on a detector:
the SQNR of the whole output prefers ranges that lose the objects; notes quant-quality 7.1).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

import numpy as np
import onnx_ir
from numpy.typing import NDArray

from edgeq.ir import Graph, attribute, constant

MOST_PARTS = 16
"""An output with more parts than this is scored as one."""

BEST_DB = 120.0
WORST_DB = -60.0
"""Scores end here: equal to float's in all of float32's bits; noise a million times the signal."""

LEAST_PROBABILITY = 1e-9
"""Probabilities below are equal: no class is chosen for them."""

_MOVES = ("Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity")
_NOBODY = -1
"""The label of elements that are constants: quantizing changes nothing there."""


@dataclass(frozen=True)
class Parts:
    """The parts of one output: `labels` has its shape, 1 where a size is not known; each element's
    label is an index into `names`. None where the output is one part.

    `is_distribution`: rows of probabilities that sum to 1, scored as logarithms. A softmax hides
    what its inputs lost wherever one class is sure, and shows it where the next sample is not.
    `gate` = (axis, index): the one part that is a single slice and holds 0..1, a detector's
    objectness. It weighs the others, whose values mean nothing where there is no object.
    """

    output: str
    names: tuple[str, ...]
    labels: NDArray[np.int16] | None
    is_distribution: bool = False
    gate: tuple[int, int] | None = None


@dataclass(frozen=True)
class Score:
    """SQNR in dB per part, and in all: -10 log10 of the mean over parts of noise / signal.

    Parts that were never comparable are not in it; `BEST_DB` where none was.
    """

    parts: Mapping[str, float]
    total: float

    @property
    def worst(self) -> tuple[str, float]:
        """The part that lost most, and its SQNR in dB."""
        if not self.parts:
            return "", BEST_DB
        name = min(self.parts, key=lambda part: self.parts[part])
        return name, self.parts[name]


def parts(graph: Graph) -> tuple[Parts, ...]:
    """Every output of `graph` with its parts."""
    return tuple(_output_parts(value) for value in graph.model.graph.outputs)


def refined(
    outputs: Sequence[Parts], references: Sequence[Mapping[str, NDArray[Any]]]
) -> tuple[Parts, ...]:
    """`outputs` with what only values tell, those of every one of `references`."""
    return tuple(_refined(output, [row[output.output] for row in references]) for output in outputs)


def _refined(output: Parts, arrays: Sequence[NDArray[Any]]) -> Parts:
    if not arrays:
        return output
    if output.labels is None:
        return replace(output, is_distribution=all(_is_distribution(array) for array in arrays))
    slices = [_lone_slice(output.labels, label) for label in range(len(output.names))]
    gates = [at for at in slices if at is not None and all(_is_share(a, *at) for a in arrays)]
    return replace(output, gate=gates[0]) if len(gates) == 1 else output


def _lone_slice(labels: NDArray[np.int16], label: int) -> tuple[int, int] | None:
    """(axis, index) where the elements of `label` are all there is at one index of one axis."""
    chosen = labels == label
    for axis, size in enumerate(labels.shape):
        places = np.flatnonzero(
            chosen.any(axis=tuple(at for at in range(labels.ndim) if at != axis))
        )
        if size > 1 and places.size == 1 and bool(chosen.take(places[0], axis).all()):
            return axis, int(places[0])
    return None


def _is_share(array: NDArray[Any], axis: int, index: int) -> bool:
    values = array.take(index, axis)
    return bool(values.size) and bool(values.min() >= 0.0) and bool(values.max() <= 1.0)


def _is_distribution(array: NDArray[Any]) -> bool:
    if array.dtype.kind != "f" or array.ndim == 0 or array.shape[-1] < 2 or array.size == 0:
        return False
    sums = array.sum(axis=-1, dtype=np.float64)
    # float32 adds up a thousand probabilities to within 1e-4 of 1
    return bool(array.min() >= 0.0) and bool(np.all(np.abs(sums - 1.0) < 1e-3))


class Meter:
    """Sums noise and signal per part while samples stream past; nothing else is kept."""

    def __init__(
        self, outputs: Sequence[Parts], least: Mapping[str, float] = MappingProxyType({})
    ) -> None:
        """`least` holds, by output, the probabilities below which all are equal there."""
        self._outputs = outputs
        self._least = least
        self._noise = [np.zeros(len(output.names)) for output in outputs]
        self._signal = [np.zeros(len(output.names)) for output in outputs]
        self._seen = [False] * len(outputs)

    def add(
        self, reference: Mapping[str, NDArray[Any]], candidate: Mapping[str, NDArray[Any]]
    ) -> None:
        """Count one run: `reference` of the float model, `candidate` of the artifact."""
        for at, output in enumerate(self._outputs):
            wanted, got = reference[output.output], candidate[output.output]
            if wanted.shape != got.shape:
                continue  # its shape depends on the data: the check tells that it was not compared
            self._seen[at] = True
            if output.is_distribution:
                least = self._least.get(output.output, LEAST_PROBABILITY)
                wanted, got = _logarithms(wanted, least), _logarithms(got, least)
            noise, signal = _energies(wanted, got)
            labels = _fitting(output, wanted.shape)
            if labels is None:
                self._noise[at] += noise.sum()
                self._signal[at] += signal.sum()
                continue
            if output.gate is not None:
                weight = _weights(wanted, output.gate)
                noise = np.where(weight > 0.0, noise, 0.0) * weight  # infinite where nothing is
                signal = signal * weight
            chosen = labels != _NOBODY
            size = len(output.names)
            where = labels[chosen]
            self._noise[at] += np.bincount(where, noise[chosen], size)
            self._signal[at] += np.bincount(where, signal[chosen], size)

    def score(self) -> Score:
        """The score of all that was added."""
        ratios: dict[str, float] = {}
        for at, output in enumerate(self._outputs):
            for name, noise, signal in zip(
                output.names, self._noise[at], self._signal[at], strict=True
            ):
                if self._seen[at]:
                    ratios[name] = _ratio(float(noise), float(signal))
        mean = sum(ratios.values()) / max(1, len(ratios))
        return Score({name: _decibels(ratio) for name, ratio in ratios.items()}, _decibels(mean))


def _energies(
    wanted: NDArray[Any], got: NDArray[Any]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Per element: squared error and squared value; of integers, whether they differ, and 1.

    Where the float model's own value is not finite (a mask) there is nothing to compare.
    """
    if wanted.dtype.kind != "f":
        return np.asarray(wanted != got, np.float64), np.ones(wanted.shape)
    signal = np.square(wanted.astype(np.float64))
    known = np.isfinite(wanted)
    with np.errstate(invalid="ignore", over="ignore"):
        noise = np.square(got.astype(np.float64) - wanted)
    noise = np.where(np.isfinite(noise), noise, math.inf)
    return np.where(known, noise, 0.0), np.where(known, signal, 0.0)


def _weights(wanted: NDArray[Any], gate: tuple[int, int]) -> NDArray[np.float64]:
    """What an error counts: the gate's own as it is, the others' as far as the gate is open."""
    axis, index = gate
    opened = np.square(wanted.take([index], axis).astype(np.float64))
    weights = np.broadcast_to(opened, wanted.shape).copy()
    np.moveaxis(weights, axis, 0)[index] = 1.0
    return weights


def _logarithms(rows: NDArray[Any], least: float) -> NDArray[np.float64]:
    """Log probabilities, each row about its own mean: what logits say, but for their offset."""
    logs = np.log(np.maximum(rows.astype(np.float64), least))
    return np.asarray(logs - logs.mean(axis=-1, keepdims=True), np.float64)


def _fitting(output: Parts, shape: tuple[int, ...]) -> NDArray[np.int16] | None:
    """The labels spread over sizes that were not known; None where the shape is another."""
    if output.labels is None:
        return None
    try:
        return np.broadcast_to(output.labels, shape)
    except ValueError:
        return np.zeros(shape, np.int16)


def _ratio(noise: float, signal: float) -> float:
    if noise == 0.0:
        return 0.0
    worst = math.pow(10.0, -WORST_DB / 10.0)
    return worst if signal == 0.0 else min(noise / signal, worst)


def _decibels(ratio: float) -> float:
    return min(-10.0 * math.log10(ratio), BEST_DB) if ratio > 0.0 else BEST_DB


@dataclass(frozen=True)
class _Tags:
    """Labels of a tensor's elements; `layout` are the sizes of the parts of the Concat it ends in,
    () where it is no Concat's."""

    labels: NDArray[np.int16]
    count: int
    layout: tuple[int, ...] = ()


def _output_parts(value: onnx_ir.Value) -> Parts:
    name = str(value.name)
    tags = _tag(value)
    used = [] if tags is None else sorted({int(label) for label in np.unique(tags.labels)})
    used = [label for label in used if label != _NOBODY]
    if tags is None or not 1 < len(used) <= MOST_PARTS:
        return Parts(name, (name,), None)
    order = np.full(tags.count + 1, _NOBODY, np.int16)  # the last for constants: index -1
    order[used] = np.arange(len(used))
    labels = order[tags.labels]
    names = [_slice_name(name, labels == label) for label in range(len(used))]
    if len(set(names)) < len(names):
        names = [f"{name} (part {label})" for label in range(len(used))]
    return Parts(name, tuple(names), labels)


def _tag(value: onnx_ir.Value) -> _Tags | None:
    """Labels by the Concats that `value` ends in; None where a shape is not known well enough."""
    shape = _shape(value)
    if shape is None:
        return None
    node = value.producer()
    if constant(value) is not None:
        return _Tags(np.full(shape, _NOBODY, np.int16), 0)
    if node is not None and node.domain in ("", "ai.onnx"):
        if node.op_type == "Concat":
            return _joined(node, shape) or _whole(shape)
        if node.op_type in (*_MOVES, "Transpose"):
            return _moved(node, shape) or _whole(shape)
    return _whole(shape)


def _whole(shape: tuple[int, ...]) -> _Tags:
    return _Tags(np.zeros(shape, np.int16), 1)


def _joined(node: onnx_ir.Node, shape: tuple[int, ...]) -> _Tags | None:
    """Operands that are laid out alike (one scale of a detector each) keep their common labels."""
    found = [None if value is None else _tag(value) for value in node.inputs]
    operands = [tags for tags in found if tags is not None]
    axis = int(attribute(node, "axis", 0))
    if len(operands) < len(found) or not -len(shape) <= axis < len(shape):
        return None
    sizes = tuple(tags.labels.shape[axis] for tags in operands)
    layout = operands[0].layout
    if layout and all(tags.layout == layout for tags in operands):
        arrays, count = [tags.labels for tags in operands], operands[0].count
    else:
        layout, arrays, count = sizes, [], 0
        for tags in operands:
            shift = np.where(tags.labels == _NOBODY, 0, count).astype(np.int16)
            arrays.append(tags.labels + shift)
            count += tags.count
    try:
        labels = np.concatenate(arrays, axis=axis)
    except ValueError:
        return None
    return _Tags(labels, count, layout) if labels.shape == shape else None


def _moved(node: onnx_ir.Node, shape: tuple[int, ...]) -> _Tags | None:
    source = node.inputs[0]
    tags = None if source is None else _tag(source)
    if tags is None:
        return None
    labels = tags.labels
    if node.op_type == "Transpose":
        labels = labels.transpose(attribute(node, "perm", tuple(range(labels.ndim))[::-1]))
    if labels.size != np.prod(shape, dtype=np.int64):
        return None
    return _Tags(labels.reshape(shape), tags.count, tags.layout)


def _shape(value: onnx_ir.Value) -> tuple[int, ...] | None:
    """The shape with 1 for every size that is not known (a batch); None for an unknown rank."""
    if value.shape is None:
        return None
    return tuple(size if isinstance(size, int) else 1 for size in value.shape)


def _slice_name(output: str, chosen: NDArray[np.bool_]) -> str:
    """`output[:, 4:5]` where the chosen elements are that block, else the plain name."""
    spans = []
    for axis in range(chosen.ndim):
        others = tuple(at for at in range(chosen.ndim) if at != axis)
        places = np.flatnonzero(chosen.any(axis=others))
        first, last = int(places[0]), int(places[-1]) + 1
        whole = (first, last) == (0, chosen.shape[axis])
        spans.append(":" if whole else f"{first}:{last}")
    return f"{output}[{', '.join(spans)}]"
