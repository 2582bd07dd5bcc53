"""Nets of a known shape with random weights, for benchmarks: numpy and onnx.helper alone.

    python bench/nets.py mobilenet_v2 mobilenet_v2.onnx
    python bench/nets.py mobilenet_v2 mobilenet_v2.onnx --samples 80 calib.npz

The shape is what costs time and memory; the weights only have to keep activations in a sane range.
Nets that were trained are in `trained.py`, what makes a net hard to quantize in `hardships.py`.
"""

import argparse
import math
from collections.abc import Callable
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

# Three blocks with squeeze-and-excitation (arXiv 1905.02244, HardSigmoid gate): t, c, stride
SMALL_SE = ((6, 48, 1), (6, 64, 2), (6, 96, 2))
SMALL_STEM, SMALL_HEAD, SMALL_CLASSES, SQUEEZE = 32, 256, 10, 8


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

    def relu(self, x: str, name: str) -> str:
        return self.add("Relu", f"{name}.relu", x)

    def gate(self, x: str, name: str, channels: int) -> str:
        """Squeeze-and-excitation: x times HardSigmoid of two 1x1 convolutions of its mean."""
        inner = channels // SQUEEZE
        y = self.add("GlobalAveragePool", f"{name}.mean", x)
        y = self.relu(self.plain_conv(y, f"{name}.squeeze", channels, inner), f"{name}.squeeze")
        y = self.plain_conv(y, f"{name}.excite", inner, channels)
        y = self.add("HardSigmoid", f"{name}.gate", y, alpha=1 / 6, beta=0.5)
        return self.add("Mul", f"{name}.scaled", x, y)

    def plain_conv(self, x: str, name: str, inputs: int, outputs: int) -> str:
        """A 1x1 convolution with a bias and no norm."""
        weight = self.random.standard_normal((outputs, inputs, 1, 1)) * math.sqrt(2 / inputs)
        bias = self.random.uniform(-0.1, 0.1, outputs)
        names = self.constant(f"{name}.weight", weight), self.constant(f"{name}.bias", bias)
        return self.add("Conv", f"{name}.conv", x, *names, kernel_shape=[1, 1])

    def linear(self, x: str, name: str, inputs: int, outputs: int) -> str:
        """MatMul and Add, as exporters write a Linear on three axes."""
        weight = self.random.standard_normal((inputs, outputs)) / math.sqrt(inputs)
        bias = self.random.standard_normal(outputs) * 0.05
        y = self.add("MatMul", f"{name}.matmul", x, self.constant(f"{name}.weight", weight))
        return self.add("Add", f"{name}.add", y, self.constant(f"{name}.bias", bias))

    def layer_norm(self, x: str, name: str, width: int) -> str:
        scale, bias = self.random.uniform(0.8, 1.2, width), self.random.uniform(-0.1, 0.1, width)
        names = self.constant(f"{name}.scale", scale), self.constant(f"{name}.bias", bias)
        return self.add("LayerNormalization", name, x, *names, axis=-1, epsilon=1e-5)

    def gelu(self, x: str, name: str) -> str:
        """GELU by Erf, as torch exports it: five operators that an engine fuses into one."""
        y = self.add("Erf", f"{name}.erf", self.add("Div", f"{name}.div", x, "sqrt2"))
        y = self.add("Mul", f"{name}.mul", x, self.add("Add", f"{name}.plus", y, "one"))
        return self.add("Mul", f"{name}.gelu", y, "half")


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
    return _classifier(net, x, HEAD, CLASSES, ["batch", 3, size, size])


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


def small_se(size: int = 32, seed: int = 0) -> onnx.ModelProto:
    """Three inverted residuals with SE and HardSigmoid, 0.2 M parameters: image [batch, 3, size,
    size] -> scores [batch, 10]."""
    net = Net(np.random.default_rng(seed))
    x = net.relu(net.conv("image", "stem", (3, SMALL_STEM), 3, 2), "stem")
    width = SMALL_STEM
    for index, (expansion, channels, stride) in enumerate(SMALL_SE):
        name, hidden = f"block{index}", width * expansion
        y = net.relu(net.conv(x, f"{name}.expand", (width, hidden), 1, 1), f"{name}.expand")
        y = net.conv(y, f"{name}.depthwise", (hidden, hidden), 3, stride, groups=hidden)
        y = net.gate(net.relu(y, f"{name}.depthwise"), f"{name}.se", hidden)
        x, width = net.conv(y, f"{name}.project", (hidden, channels), 1, 1), channels
    x = net.relu(net.conv(x, "head", (width, SMALL_HEAD), 1, 1), "head")
    return _classifier(net, x, SMALL_HEAD, SMALL_CLASSES, ["batch", 3, size, size])


# The net that is trained and then skewed: expansion, output channels, stride of each block
DEPTHWISE = ((4, 24, 2), (4, 24, 1), (4, 40, 2))
DEPTHWISE_STEM, DEPTHWISE_HEAD = 16, 128


def depthwise(size: int = 32, seed: int = 0) -> onnx.ModelProto:
    """A small MobileNetV2 with Relu for Relu6, so that its channels can be rescaled exactly:
    image [batch, 1, size, size] -> scores [batch, 10]; 28,000 parameters."""
    net = Net(np.random.default_rng(seed))
    x = net.relu(net.conv("image", "stem", (1, DEPTHWISE_STEM), 3, 2), "stem")
    width = DEPTHWISE_STEM
    for index, (expansion, channels, stride) in enumerate(DEPTHWISE):
        name, hidden = f"block{index}", width * expansion
        y = net.relu(net.conv(x, f"{name}.expand", (width, hidden), 1, 1), f"{name}.expand")
        y = net.conv(y, f"{name}.depthwise", (hidden, hidden), 3, stride, groups=hidden)
        y = net.relu(y, f"{name}.depthwise")
        y = net.conv(y, f"{name}.project", (hidden, channels), 1, 1)
        x = net.add("Add", f"{name}.add", x, y) if (width, stride) == (channels, 1) else y
        width = channels
    x = net.relu(net.conv(x, "head", (width, DEPTHWISE_HEAD), 1, 1), "head")
    return _classifier(net, x, DEPTHWISE_HEAD, 10, ["batch", 1, size, size])


def _classifier(
    net: Net, x: str, width: int, classes: int, shape: list[int | str]
) -> onnx.ModelProto:
    """Mean of each channel, then a Linear: the model with `scores` [batch, classes]."""
    x = net.add("Flatten", "flat", net.add("GlobalAveragePool", "pool", x))
    weight = net.random.standard_normal((classes, width)) / math.sqrt(width)
    net.constant("classifier.weight", weight)
    net.constant("classifier.bias", np.zeros(classes))
    net.add("Gemm", "scores", x, "classifier.weight", "classifier.bias", transB=1)
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, shape)
    scores = helper.make_tensor_value_info("scores", TensorProto.FLOAT, [shape[0], classes])
    return _checked(net, [image], scores)


@dataclass(frozen=True)
class EncoderShape:
    """Of a pre-norm transformer encoder; about 0.9 M parameters as it stands."""

    vocabulary: int = 1000
    positions: int = 64
    width: int = 128
    heads: int = 4
    inner: int = 512
    layers: int = 4


def encoder(shape: EncoderShape = EncoderShape(), seed: int = 0) -> onnx.ModelProto:
    """A pre-norm transformer encoder: tokens [batch, positions] int64 -> hidden [batch, positions,
    width] float32; no mask."""
    net = Net(np.random.default_rng(seed))
    for name, value in (("sqrt2", math.sqrt(2)), ("one", 1.0), ("half", 0.5)):
        net.constant(name, np.array(value))
    net.constant("root", np.array(math.sqrt(shape.width // shape.heads)))
    draw = net.random.standard_normal
    net.constant("words", draw((shape.vocabulary, shape.width)))
    net.constant("places", draw((1, shape.positions, shape.width)) * 0.3)
    split = [0, 0, shape.heads, shape.width // shape.heads]
    net.weights.append(numpy_helper.from_array(np.array(split, np.int64), "split"))
    net.weights.append(numpy_helper.from_array(np.array([0, 0, shape.width], np.int64), "joined"))
    x = net.add("Add", "embedded", net.add("Gather", "looked_up", "words", "tokens"), "places")
    for index in range(shape.layers):
        x = _encoder_layer(net, x, f"layer{index}", shape)
    net.layer_norm(x, "hidden", shape.width)
    inputs = [
        helper.make_tensor_value_info("tokens", TensorProto.INT64, ["batch", shape.positions])
    ]
    size: list[str | int | None] = ["batch", shape.positions, shape.width]
    return _checked(net, inputs, helper.make_tensor_value_info("hidden", TensorProto.FLOAT, size))


def _encoder_layer(net: Net, x: str, name: str, shape: EncoderShape) -> str:
    """x + attention(norm(x)), then x + feed-forward(norm(x)); returns the sum's name."""
    width = shape.width
    y = net.layer_norm(x, f"{name}.norm1", width)
    heads = {}
    for part, order in (("query", [0, 2, 1, 3]), ("key", [0, 2, 3, 1]), ("value", [0, 2, 1, 3])):
        split = net.linear(y, f"{name}.{part}", width, width)
        split = net.add("Reshape", f"{name}.{part}.split", split, "split")
        heads[part] = net.add("Transpose", f"{name}.{part}.heads", split, perm=order)
    scores = net.add("MatMul", f"{name}.scores", heads["query"], heads["key"])
    scores = net.add("Div", f"{name}.scaled", scores, "root")
    weights = net.add("Softmax", f"{name}.softmax", scores, axis=-1)
    y = net.add("MatMul", f"{name}.context", weights, heads["value"])
    y = net.add("Transpose", f"{name}.context.heads", y, perm=[0, 2, 1, 3])
    y = net.add("Reshape", f"{name}.context.joined", y, "joined")
    y = net.linear(y, f"{name}.out", width, width)
    x = net.add("Add", f"{name}.residual1", x, y)
    y = net.linear(net.layer_norm(x, f"{name}.norm2", width), f"{name}.up", width, shape.inner)
    y = net.linear(net.gelu(y, f"{name}.gelu"), f"{name}.down", shape.inner, width)
    return net.add("Add", f"{name}.residual2", x, y)


def _checked(
    net: Net, inputs: list[onnx.ValueInfoProto], output: onnx.ValueInfoProto
) -> onnx.ModelProto:
    graph = helper.make_graph(net.nodes, "net", inputs, [output], net.weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    return model


def samples(model: onnx.ModelProto, count: int, seed: int = 0) -> dict[str, NDArray[Any]]:
    """`count` random samples for a net of this file: normal images, uniform token ids."""
    random = np.random.default_rng(seed)
    (info,) = model.graph.input
    shape = [count, *(dim.dim_value for dim in info.type.tensor_type.shape.dim[1:])]
    if info.type.tensor_type.elem_type == TensorProto.FLOAT:
        return {info.name: random.standard_normal(shape, dtype=np.float32)}
    words = next(row.dims[0] for row in model.graph.initializer if row.name == "words")
    return {info.name: random.integers(0, words, shape)}


NETS: dict[str, Callable[[], onnx.ModelProto]] = {
    "depthwise": depthwise,
    "encoder": encoder,
    "mobilenet_v2": mobilenet_v2,
    "small_se": small_se,
}


def main() -> None:
    parser = argparse.ArgumentParser(description="Write a net of a known shape as ONNX")
    parser.add_argument("net", choices=sorted(NETS))
    parser.add_argument("out", type=Path)
    parser.add_argument("--samples", nargs=2, metavar=("N", "OUT.npz"), help="random inputs for it")
    arguments = parser.parse_args()
    model = NETS[arguments.net]()
    arguments.out.write_bytes(model.SerializeToString(deterministic=True))
    if arguments.samples:
        count, path = arguments.samples
        np.savez(path, allow_pickle=False, **samples(model, int(count)))


if __name__ == "__main__":
    main()
