"""What makes a net hard to quantize while it computes the same: skewed channels, outlier channels.

    python bench/hardships.py skew small_se.onnx small_se_skew.onnx

A rescaling is undone by the weights behind it, so the float function stays (up to a few ulp of the
weights); what an 8-bit tensor with one scale keeps of the small channels does not.
"""

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

SPREAD = 3.0  # channels are scaled by e^-SPREAD to e^SPREAD
OUTLIERS, FACTOR = 4, 30.0  # so many channels of a LayerNormalization, so many times larger


class Editor:
    """A model with its weights as arrays: `write` puts back those that were changed."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.model = onnx.ModelProto()
        self.model.CopyFrom(model)
        graph = self.model.graph
        self.nodes = list(graph.node)
        self.outputs = {info.name for info in graph.output}
        self.weights = {row.name: numpy_helper.to_array(row).copy() for row in graph.initializer}

    def only_consumer(self, tensor: str) -> onnx.NodeProto | None:
        """The one node that reads `tensor`; None for several, none, or an output of the model."""
        found = self.consumers(tensor)
        return found[0] if len(found) == 1 and tensor not in self.outputs else None

    def consumers(self, tensor: str) -> list[onnx.NodeProto]:
        return [node for node in self.nodes if tensor in node.input]

    def scale(self, name: str, factors: NDArray[np.float64], axis: int = 0) -> None:
        """Multiply a weight along `axis` by `factors` [channels] float64."""
        weight = self.weights[name]
        shape = [-1 if index == axis else 1 for index in range(weight.ndim)]
        self.weights[name] = (weight * factors.reshape(shape)).astype(np.float32)

    def write(self) -> onnx.ModelProto:
        for row in self.model.graph.initializer:
            row.CopyFrom(numpy_helper.from_array(self.weights[row.name], row.name))
        onnx.checker.check_model(self.model, full_check=True)
        return self.model


@dataclass(frozen=True)
class Link:
    """A tensor between two convolutions whose channels may be scaled: the producing Conv, its
    BatchNormalization if it has one, and the Conv that alone reads it (a Relu may lie between)."""

    first: onnx.NodeProto
    norm: onnx.NodeProto | None
    second: onnx.NodeProto


def links(editor: Editor) -> Iterator[Link]:
    """Every Conv -> (BatchNormalization) -> (Relu) -> Conv; Relu6 is not linear for any scale, so
    nets that have it are skewed only where a convolution's output is read without it."""
    for first in (node for node in editor.nodes if node.op_type == "Conv"):
        norm, node = None, editor.only_consumer(first.output[0])
        if node is not None and node.op_type == "BatchNormalization":
            norm, node = node, editor.only_consumer(node.output[0])
        if node is not None and node.op_type == "Relu":
            node = editor.only_consumer(node.output[0])
        if node is not None and node.op_type == "Conv":
            yield Link(first, norm, node)


def _groups(node: onnx.NodeProto) -> int:
    return next((row.i for row in node.attribute if row.name == "group"), 1)


def _undo(editor: Editor, node: onnx.NodeProto, factors: NDArray[np.float64]) -> None:
    """Divide what `node` (Conv) does with each input channel by its factor."""
    name = node.input[1]
    weight, groups = editor.weights[name], _groups(node)
    per_group = factors.reshape(groups, -1)  # [groups, inputs of a group]
    rows = np.repeat(per_group, len(weight) // groups, axis=0)  # [outputs, inputs of a group]
    editor.weights[name] = (weight / rows[:, :, None, None]).astype(np.float32)


def skew(model: onnx.ModelProto, spread: float = SPREAD, seed: int = 0) -> onnx.ModelProto:
    """The same function with the channels between convolutions scaled by e^(-spread..spread)."""
    random, editor = np.random.default_rng(seed), Editor(model)
    found = list(links(editor))
    if not found:
        raise SystemExit("there is no Conv -> (BatchNormalization) -> (Relu) -> Conv to skew")
    for link in found:
        channels = len(editor.weights[link.first.input[1]])
        factors = np.exp(random.uniform(-spread, spread, channels))
        # gamma and beta, or weight and bias
        scaled = link.norm.input[1:3] if link.norm is not None else link.first.input[1:]
        for name in scaled:
            editor.scale(name, factors)
        _undo(editor, link.second, factors)
    return editor.write()


def outliers(model: onnx.ModelProto, factor: float = FACTOR, seed: int = 0) -> onnx.ModelProto:
    """The same function with a few channels behind each LayerNormalization `factor` times larger,
    where only MatMuls by a weight read it."""
    random, editor = np.random.default_rng(seed), Editor(model)
    for node in [node for node in editor.nodes if node.op_type == "LayerNormalization"]:
        readers = editor.consumers(node.output[0])
        if not readers or any(reader.op_type != "MatMul" for reader in readers):
            continue
        width = len(editor.weights[node.input[1]])
        factors = np.ones(width)
        factors[random.choice(width, OUTLIERS, replace=False)] = factor
        for name in node.input[1:]:
            editor.scale(name, factors)
        for reader in readers:
            editor.scale(reader.input[1], 1 / factors)
    return editor.write()


KINDS: dict[str, Any] = {"skew": skew, "outliers": outliers}


def main() -> None:
    parser = argparse.ArgumentParser(description="Rescale a net's channels; its function stays")
    parser.add_argument("kind", choices=sorted(KINDS))
    parser.add_argument("model", type=Path)
    parser.add_argument("out", type=Path)
    arguments = parser.parse_args()
    model = KINDS[arguments.kind](onnx.load(arguments.model))
    arguments.out.write_bytes(model.SerializeToString(deterministic=True))


if __name__ == "__main__":
    main()
