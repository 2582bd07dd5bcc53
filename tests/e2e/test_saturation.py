"""No pair of int8 weights can saturate a 16-bit sum in a file for x86-avx2: counted from the file.

vpmaddubsw adds a0*w0 + a1*w1 in 16 bits, a in 0..255: two neighbours of one sign must not sum past
128. The count here shares no code with edgeq: it reads the written file's weights and lays them out
as the kernels multiply them. That default and exact kernels agree is in tests/emulated.
"""

import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

import edgeq

PAIR_LIMIT = 128
Data = Mapping[str, np.ndarray[Any, Any]] | Callable[[], Any]


def int8_rows(model: onnx.ModelProto) -> Iterator[tuple[str, np.ndarray[Any, Any]]]:
    """(node, weights [R, K] as int) of every layer whose int8 weights meet int8 activations."""
    weights = {row.name: row for row in model.graph.initializer}
    stored = {
        node.output[0]: node.input[0]
        for node in model.graph.node
        if node.op_type == "DequantizeLinear" and node.input[0] in weights
    }
    brought_back = {n.output[0] for n in model.graph.node if n.op_type == "DequantizeLinear"}
    for node in model.graph.node:
        if node.op_type in ("MatMulInteger", "ConvInteger"):
            name = node.input[1]
        elif node.op_type in ("Conv", "Gemm", "MatMul") and node.input[0] in brought_back:
            name = stored.get(node.input[1], "")
        else:
            continue
        if name in weights and weights[name].data_type == onnx.TensorProto.INT8:
            rows = _rows(node, numpy_helper.to_array(weights[name]).astype(np.int64))
            if rows is not None:
                yield node.name or node.output[0], rows


def _rows(node: onnx.NodeProto, weight: np.ndarray[Any, Any]) -> np.ndarray[Any, Any] | None:
    """Each output's weights in the order the kernel multiplies them; None: no such kernel."""
    attributes = {row.name: helper.get_attribute_value(row) for row in node.attribute}
    if node.op_type in ("Conv", "ConvInteger"):
        groups = attributes.get("group", 1)
        if groups == len(weight) and weight.shape[1] == 1 and groups > 1:
            return None  # depthwise kernels multiply in 32 bits
        # (kh, kw, cin): with an odd cin a pair straddles two places of the kernel
        return np.moveaxis(weight, 1, -1).reshape(len(weight), -1)
    if node.op_type == "Gemm" and attributes.get("transB", 0):
        return weight
    assert weight.ndim == 2, node.op_type
    return weight.T


def saturating(rows: np.ndarray[Any, Any]) -> int:
    """How many pairs (2i, 2i+1) of a row have one sign and sum past the limit."""
    even, odd = rows[:, 0::2], rows[:, 1::2]
    even = even[:, : odd.shape[1]]
    return int(((even * odd > 0) & (np.abs(even + odd) > PAIR_LIMIT)).sum())


@pytest.fixture(scope="module")
def nets(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Any]:
    """`nets(name)` is (model, data) of a net of bench/nets.py, with 16 samples."""
    folder = tmp_path_factory.mktemp("nets")

    def make(name: str) -> tuple[Path, str]:
        model, data = folder / f"{name}.onnx", folder / f"{name}.npz"
        script = str(repository / "bench" / "nets.py")
        command = [sys.executable, script, name, str(model), "--samples", "16", str(data)]
        subprocess.run(command, check=True)
        return model, str(data)

    return make


def _layers(model: Path, data: Any, target: str, folder: Path) -> tuple[Any, dict[str, int]]:
    """The build, and each int8 layer's number of saturating pairs."""
    out = folder / f"{target}.edgeq"
    settings = edgeq.BuildSettings(packaging="dir")
    built = edgeq.build(
        model, target=target, precision="int8", data=data, out=out, settings=settings
    )
    (artifact,) = built.artifacts
    file = onnx.load(out / artifact.file)
    counted = {name: saturating(rows) for name, rows in int8_rows(file)}
    return built, counted


def _check(built: Any, layers: Mapping[str, int], kinds: tuple[str, ...], least: int) -> None:
    assert {name: count for name, count in layers.items() if count} == {}
    # the counter has looked at what the build says is int8, no less
    planned = sum(
        count
        for precision in ("int8", "dynamic-int8")
        for kind, count in built.ops.get(precision, {}).items()
        if kind in kinds
    )
    assert planned >= len(layers) >= least


def test_the_counter_counts() -> None:
    rows = np.array([[127, 1, -127, -2, 100, -100, 64, 64, 127], [0] * 9])
    assert saturating(rows) == 1
    # a stem of three channels: the second pair is channel 2 of one place and channel 0 of the next
    weight = np.zeros((1, 3, 1, 2), np.int64)
    weight[0, 2, 0, 0] = weight[0, 0, 0, 1] = 100
    node = helper.make_node("Conv", ["x", "w"], ["y"], group=1)
    straddling = _rows(node, weight)
    assert straddling is not None and saturating(straddling) == 1
    assert (
        _rows(helper.make_node("Conv", ["x", "w"], ["y"], group=4), np.ones((4, 1, 3, 3))) is None
    )


@pytest.mark.checkout
def test_digits(repository: Path, tmp_path: Path) -> None:
    folder = repository / "examples" / "digits"
    model, data = folder / "digits.onnx", str(folder / "calib.npz")
    built, safe = _layers(model, data, "x86-avx2", tmp_path)
    _check(built, safe, ("Conv", "Gemm"), least=4)
    _, full = _layers(model, data, "x86-vnni", tmp_path)
    assert sum(full.values()) > 0, "the control: full-range weights do have such pairs"


@pytest.mark.slow
@pytest.mark.checkout
@pytest.mark.parametrize(
    ("name", "least"), [("small_se", 12), ("encoder", 16), ("mobilenet_v2", 30)]
)
def test_nets_of_the_bench(
    nets: Callable[[str], Any], tmp_path: Path, name: str, least: int
) -> None:
    model, data = nets(name)
    built, layers = _layers(model, data, "x86-avx2", tmp_path)
    _check(built, layers, ("Conv", "Gemm", "MatMul"), least)


@pytest.mark.slow
@pytest.mark.shared
def test_yolox(shared: Path, tmp_path: Path) -> None:
    folder = shared / "data" / "det_yolox_nano"
    with np.load(folder / "data.npz") as data:
        images = data["calib_x"][..., ::-1].transpose(0, 3, 1, 2).astype(np.float32)
    built, layers = _layers(folder / "yolox_nano.onnx", {"images": images}, "x86-avx2", tmp_path)
    # 113 convolutions, 23 of them depthwise, a few left in float by the build's own measurement
    _check(built, layers, ("Conv",), least=75)


@pytest.mark.slow
@pytest.mark.shared
def test_minilm(shared: Path, tmp_path: Path) -> None:
    folder = shared / "data" / "text_minilm"
    with np.load(folder / "data.npz") as data:
        rows = [row[row != 0][None].astype(np.int64) for row in data["ids_a"][:32]]

    def sentences() -> Iterator[dict[str, Any]]:
        for row in rows:
            yield {"input_ids": row, "attention_mask": np.ones_like(row)}

    built, layers = _layers(folder / "minilm.onnx", sentences, "x86-avx2", tmp_path)
    _check(built, layers, ("MatMul",), least=36)
