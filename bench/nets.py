"""Nets of a known shape with random weights, for benchmarks: numpy and onnx.helper alone.

    python bench/nets.py mobilenet_v2 /tmp/mobilenet_v2.onnx

The shape is what costs time and memory; the weights only have to keep activations in a sane range.
"""

import argparse
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

# MobileNetV2 1.0 (arXiv 1801.04381, table 2): expansion t, output channels c, repeats n, stride s
MOBILENET_V2 = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
STEM, HEAD, CLASSES = 32, 1280, 1000


@dataclass
class Net:
    """An ONNX graph under construction; every `add` returns the name of the tensor it made."""

    random: np.random.Generator
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    weights: list[onnx.TensorProto] = field(default_factory=list)

    def constant(self, name: str, value: NDArray[np.floating[Any]]) -> str:
        self.weights.append(numpy_helper.from_array(value.astype(np.float32), name))
        return name

    def add(self, op_type: str, name: str, *inputs: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(op_type, inputs, [name], name=name, **attributes))
        return name

    def conv(
        self, x: str, name: str, channels: tuple[int, int], size: int, stride: int, groups: int = 1
    ) -> str:
        """Conv without bias (He initialised), then BatchNormalization."""
        inputs, outputs = channels[0] // groups, channels[1]
        scale = math.sqrt(2 / (inputs * size * size))
        weight = self.random.standard_normal((outputs, inputs, size, size)) * scale
        y = self.add(
            "Conv",
            f"{name}.conv",
            x,
            self.constant(f"{name}.weight", weight.astype(np.float32)),
            kernel_shape=[size, size],
            strides=[stride, stride],
            pads=[size // 2] * 4,
            group=groups,
        )
        return self._norm(y, name, outputs)

    def _norm(self, x: str, name: str, channels: int) -> str:
        draw = self.random.uniform
        rows = {
            "gamma": draw(0.8, 1.2, channels),
            "beta": draw(-0.1, 0.1, channels),
            "mean": draw(-0.1, 0.1, channels),
            "var": draw(0.8, 1.2, channels),
        }
        names = [self.constant(f"{name}.{key}", row) for key, row in rows.items()]
        return self.add("BatchNormalization", f"{name}.norm", x, *names, epsilon=1e-5)

    def relu6(self, x: str, name: str) -> str:
        return self.add("Clip", f"{name}.relu6", x, "zero", "six")


def mobilenet_v2(size: int = 224, seed: int = 0) -> onnx.ModelProto:
    """MobileNetV2 1.0 before any folding: image [batch, 3, size, size] -> scores [batch, 1000]."""
    net = Net(np.random.default_rng(seed))
    net.constant("zero", np.array(0, np.float32))
    net.constant("six", np.array(6, np.float32))
    x = net.relu6(net.conv("image", "stem", (3, STEM), 3, 2), "stem")
    width, index = STEM, 0
    for expansion, channels, repeats, first_stride in MOBILENET_V2:
        for repeat in range(repeats):
            stride = first_stride if repeat == 0 else 1
            x = _inverted_residual(net, x, f"block{index}", (width, channels), expansion, stride)
            width, index = channels, index + 1
    x = net.relu6(net.conv(x, "head", (width, HEAD), 1, 1), "head")
    x = net.add("Flatten", "flat", net.add("GlobalAveragePool", "pool", x))
    weight = (net.random.standard_normal((CLASSES, HEAD)) / math.sqrt(HEAD)).astype(np.float32)
    net.constant("classifier.weight", weight)
    net.constant("classifier.bias", np.zeros(CLASSES, np.float32))
    net.add("Gemm", "scores", x, "classifier.weight", "classifier.bias", transB=1)
    return _model(net, ["batch", 3, size, size])


def _inverted_residual(
    net: Net, x: str, name: str, channels: tuple[int, int], expansion: int, stride: int
) -> str:
    inputs, outputs = channels
    hidden = inputs * expansion
    y = x
    if expansion != 1:
        y = net.relu6(net.conv(y, f"{name}.expand", (inputs, hidden), 1, 1), f"{name}.expand")
    y = net.conv(y, f"{name}.depthwise", (hidden, hidden), 3, stride, groups=hidden)
    y = net.relu6(y, f"{name}.depthwise")
    y = net.conv(y, f"{name}.project", (hidden, outputs), 1, 1)
    if stride == 1 and inputs == outputs:
        y = net.add("Add", f"{name}.add", x, y)
    return y


def _model(net: Net, shape: list[int | str]) -> onnx.ModelProto:
    graph = helper.make_graph(
        net.nodes,
        "mobilenet_v2",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, [shape[0], CLASSES])],
        net.weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    return model


NETS = {"mobilenet_v2": mobilenet_v2}


def main() -> None:
    parser = argparse.ArgumentParser(description="Write a net of a known shape as ONNX")
    parser.add_argument("net", choices=sorted(NETS))
    parser.add_argument("out", type=Path)
    arguments = parser.parse_args()
    arguments.out.write_bytes(NETS[arguments.net]().SerializeToString(deterministic=True))


if __name__ == "__main__":
    main()
