"""Time single operators inside an int8 region and in float: the ratios that `targets/` quotes.

    python bench/kernels.py                     one table for this machine, one thread

Each op stands between two 1x1 convolutions of 64 channels at 56x56 (unless the case says so), so
that it runs in the layout it has in a network. Times are the engine's own kernel times; the tenth
percentile of many runs, the least of several rounds in turn: other work only ever adds.
"""

import json
import math
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray

from edgeq.api.models import EngineExecutor, open_exact, write_model
from edgeq.ir import Graph
from edgeq.quant.calibrate import calibrate
from edgeq.quant.draft import draft
from edgeq.quant.quantize import quantize
from edgeq_converters.read.onnx import read
from edgeq_converters.write.onnx import write

RUNS, ROUNDS = 60, 5
CHANGES = ("QuantizeLinear", "DequantizeLinear", "Transpose", "ReorderInput", "ReorderOutput")


class Case(NamedTuple):
    """`body` reads `a` and makes `m`; `channels` and `size` are those of `a`."""

    body: str
    channels: int = 64
    size: int = 56
    width: int = 64  # channels of `m`
    stem: bool = False  # `body` reads `x` itself


def depthwise(channels: int) -> str:
    return f"[m] m = Conv <group = {channels}, pads = [1,1,1,1]> (a, d{channels})"


WINDOW = "kernel_shape = [2,2], strides = [2,2]"
CASES = {
    "Conv 1x1": Case("[m] m = Conv (a, w)"),
    "Conv 3x3": Case("[m] m = Conv <pads = [1,1,1,1]> (a, w3)"),
    "Conv 1x1 of 62": Case("[m] m = Conv (a, o62)", 62, 56, 62),
    "Conv 3x3 of 62": Case("[m] m = Conv <pads = [1,1,1,1]> (a, o62x3)", 62, 56, 62),
    "DepthwiseConv 62 at 56": Case(depthwise(62), 62, 56, 62),
    "DepthwiseConv 32 at 112": Case(depthwise(32), 32, 112, 32),
    "DepthwiseConv 64 at 56": Case(depthwise(64)),
    "DepthwiseConv 144 at 56": Case(depthwise(144), 144, 56, 144),
    "DepthwiseConv 192 at 28": Case(depthwise(192), 192, 28, 192),
    "DepthwiseConv 576 at 14": Case(depthwise(576), 576, 14, 576),
    "StemConv": Case("[m] m = Conv <strides = [2,2]> (x, stem)", 3, 224, 32, stem=True),
    "Add": Case("[b] b = Conv (x, w) [m] m = Add (a, b)"),
    "Mul": Case("[b] b = Conv (x, w) [m] m = Mul (a, b)"),
    "Concat": Case("[b] b = Conv (x, w) [m] m = Concat <axis = 1> (a, b)", width=128),
    "MaxPool 2x2": Case(f"[m] m = MaxPool <{WINDOW}> (a)"),
    "MaxPool 3x3": Case("[m] m = MaxPool <kernel_shape = [3,3], pads = [1,1,1,1]> (a)"),
    "AveragePool 2x2": Case(f"[m] m = AveragePool <{WINDOW}> (a)"),
    "GlobalAveragePool": Case("[m] m = GlobalAveragePool (a)"),
    "Sigmoid": Case("[m] m = Sigmoid (a)"),
    "LeakyRelu": Case("[m] m = LeakyRelu (a)"),
    "SiLU": Case("[s] s = Sigmoid (a) [m] m = Mul (a, s)"),
}


def weights() -> dict[str, NDArray[np.float32]]:
    draw = np.random.default_rng(0)
    shapes: dict[str, tuple[int, ...]] = {"w": (64, 64, 1, 1), "w3": (64, 64, 3, 3)}
    shapes |= {"o62": (62, 62, 1, 1), "o62x3": (62, 62, 3, 3)}
    for case in CASES.values():
        shapes[f"v{case.channels}"] = (case.channels, case.channels, 1, 1)
        shapes[f"u{case.width}"] = (64, case.width, 1, 1)
        shapes[f"d{case.channels}"] = (case.channels, 1, 3, 3)
    shapes["stem"] = (32, 3, 3, 3)
    return {name: draw.normal(0, 0.1, shape).astype(np.float32) for name, shape in shapes.items()}


def graph_of(text: str, folder: Path) -> Graph:
    model = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["" : 17]> {text}')
    for name, array in weights().items():
        if f"{name})" in text:
            model.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    path = folder / "net.onnx"
    path.write_bytes(model.SerializeToString())
    return read(path).graph


def plain(graph: Graph, feed: Mapping[str, NDArray[Any]]) -> bytes:
    return write(graph, None)


def int8(graph: Graph, feed: Mapping[str, NDArray[Any]]) -> bytes:
    drafted = draft(graph)
    session = open_exact(write_model(graph, drafted.observe))
    statistics = calibrate(EngineExecutor(session), [feed], drafted.observe)
    session.close()
    plan = quantize(graph, drafted, statistics, pair_safe=False)
    return write(graph, plan, activation_dtype="uint8")


def kernels(model: bytes, feed: Mapping[str, NDArray[Any]], folder: Path) -> dict[str, float]:
    """Microseconds per operator, named after the tensor it makes; changes of form left out."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.enable_profiling = True
    options.profile_file_prefix = str(folder / "profile")
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    for _ in range(RUNS):
        session.run(None, dict(feed))
    seen: dict[str, list[float]] = {}
    for event in json.loads(Path(session.end_profiling()).read_text()):
        whole, _, tail = str(event["name"]).rpartition("_kernel_")
        if tail == "time" and event["args"]["op_name"] not in CHANGES:
            seen.setdefault(whole.split("_")[0], []).append(event["dur"])
    return {name: float(np.percentile(times, 10)) for name, times in seen.items()}


def subject(times: Mapping[str, float], first: float) -> float:
    """All kernels but the last convolution and what the first ones take, `first` in all."""
    return sum(time for name, time in times.items() if name != "y") - first


def main() -> None:
    print(f"{'op':26} {'float us':>9} {'int8 us':>9} {'ratio':>6}")
    with tempfile.TemporaryDirectory() as name:
        for title, case in CASES.items():
            report(title, case, Path(name))


def report(title: str, case: Case, folder: Path) -> None:
    c, s = case.channels, case.size
    head = f"g (float[1,{c},{s},{s}] x) => (float[n,c,h,k] y) {{ "
    conv = "" if case.stem else f"[a] a = Conv (x, v{c}) "
    feed = {"x": np.random.default_rng(1).normal(size=(1, c, s, s)).astype(np.float32)}
    graph = graph_of(f"{head}{conv}{case.body} [y] y = Conv (m, u{case.width}) }}", folder)
    lone = graph_of(f"{head}[a] a = Conv (x, v{c}) [y] y = Conv (a, v{c}) }}", folder)
    before = 0 if case.stem else 2 if "[b]" in case.body else 1
    models = [(build(lone, feed), build(graph, feed)) for build in (plain, int8)]
    found = [math.inf, math.inf]
    for _ in range(ROUNDS):
        for at, (base, whole) in enumerate(models):
            first = before * kernels(base, feed, folder)["y"]
            found[at] = min(found[at], subject(kernels(whole, feed, folder), first))
    ratio = found[0] / found[1] if found[0] > 0 else 0.0
    print(f"{title:26} {found[0]:9.1f} {found[1]:9.1f} {ratio:6.2f}")


if __name__ == "__main__":
    main()
