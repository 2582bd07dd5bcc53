"""One plan, two formats: every int8 op of LiteRT's table, by `edgeq compare`.

The float graph, its int8 ONNX form and its int8 TFLite file meet on the same samples: ONNX
Runtime's codes against LiteRT's bit by bit or within one step, and both near the float graph.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import edgeq
from edgeq.quant.kernels import LITERT
from edgeq.quant.rules import CLAMPS
from edgeq_converters.write import onnx as onnx_writer
from edgeq_converters.write import tflite

RNG = np.random.default_rng(21)
SAMPLES = 8

LEAST_DB = 20.0
"""Int8 against float, of normal inputs: the quantizer alone leaves over 30 dB here, an op that
computes something else is far below 10."""


@dataclass(frozen=True)
class Net:
    """One operator. `lsb` is by how many codes LiteRT may be off those of ONNX Runtime."""

    body: str
    output: str = "1, 8, 6, 6"
    inputs: str = "1, 8, 6, 6"
    constants: dict[str, tuple[int, ...]] = field(default_factory=dict)
    lsb: int = 1

    @property
    def text(self) -> str:
        shapes = [f"float[{shape}] {name}" for shape, name in self._named(self.inputs, "xz")]
        results = [f"float[{shape}] {name}" for shape, name in self._named(self.output, "yv")]
        return f"agraph ({', '.join(shapes)}) => ({', '.join(results)}) {{ {self.body} }}"

    def _named(self, shapes: str, names: str) -> list[tuple[str, str]]:
        return list(zip(shapes.split("; "), names, strict=False))


TWO = "1, 8, 6, 6; 1, 8, 6, 6"
CONV = {"w": (8, 8, 3, 3), "b": (8,)}

NETS: dict[str, Net] = {
    "Conv": Net("y = Conv <pads = [1, 1, 1, 1]> (x, w, b)", constants=CONV, lsb=0),
    "Conv, depthwise": Net(
        "y = Conv <group = 8, pads = [1, 1, 1, 1]> (x, w, b)",
        constants={"w": (8, 1, 3, 3), "b": (8,)},
        lsb=0,
    ),
    "ConvTranspose": Net(
        "y = ConvTranspose <strides = [2, 2]> (x, w, b)", "1, 8, 13, 13", constants=CONV
    ),
    "Gemm": Net(
        "y = Gemm <transB = 1> (x, w, b)", "4, 12", "4, 16", {"w": (12, 16), "b": (12,)}, lsb=0
    ),
    "MatMul": Net("y = MatMul (x, w)", "4, 12", "4, 16", {"w": (16, 12)}),
    "Add": Net("y = Add (x, z)", inputs=TWO),
    "Sub": Net("y = Sub (x, z)", inputs=TWO),
    "Mul": Net("y = Mul (x, z)", inputs=TWO),
    "Max": Net("y = Max (x, z)", inputs=TWO),
    "Min": Net("y = Min (x, z)", inputs=TWO),
    "Concat": Net("y = Concat <axis = 1> (x, z)", "1, 16, 6, 6", TWO),
    "GlobalAveragePool": Net("y = GlobalAveragePool (x)", "1, 8, 1, 1"),
    "GlobalMaxPool": Net("y = GlobalMaxPool (x)", "1, 8, 1, 1", lsb=0),
    "AveragePool": Net("y = AveragePool <kernel_shape = [2, 2]> (x)", "1, 8, 5, 5"),
    "MaxPool": Net("y = MaxPool <kernel_shape = [2, 2]> (x)", "1, 8, 5, 5", lsb=0),
    **{
        kind: Net(
            f"a = Constant <value_ints = [2, 3]> () y = {kind} (x, a)",
            "1, 8, 1, 1",
            lsb=int(kind in ("ReduceMean", "ReduceSum")),
        )
        for kind in ("ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin")
    },
    "Softmax": Net("y = Softmax (x)", "4, 16", "4, 16"),
    "Sigmoid": Net("y = Sigmoid (x)"),
    "Tanh": Net("y = Tanh (x)"),
    "HardSwish": Net("y = HardSwish (x)"),
    "LeakyRelu": Net("y = LeakyRelu <alpha = 0.1> (x)"),
    "PRelu": Net("y = PRelu (x, s)", constants={"s": (8, 1, 1)}),
    "Elu": Net("y = Elu (x)"),
    "Gelu": Net("y = Gelu (x)"),
    "Abs": Net("y = Abs (x)"),
    "Relu": Net("y = Relu (x)"),
    "Clip": Net(
        "l = Constant <value_float = -0.5> () h = Constant <value_float = 1.0> () "
        "y = Clip (x, l, h)"
    ),
    "Reshape": Net("s = Constant <value_ints = [1, 48, 6]> () y = Reshape (x, s)", "1, 48, 6"),
    "Flatten": Net("y = Flatten (x)", "1, 288"),
    "Squeeze": Net("a = Constant <value_ints = [0]> () y = Squeeze (x, a)", "8, 6, 6"),
    "Unsqueeze": Net("a = Constant <value_ints = [0]> () y = Unsqueeze (x, a)", "1, 1, 8, 6, 6"),
    "Transpose": Net("y = Transpose <perm = [0, 2, 3, 1]> (x)", "1, 6, 6, 8"),
    "Slice": Net(
        "s = Constant <value_ints = [1]> () e = Constant <value_ints = [5]> () "
        "a = Constant <value_ints = [2]> () y = Slice (x, s, e, a)",
        "1, 8, 4, 6",
    ),
    "Gather": Net(
        "i = Constant <value_ints = [3, 1]> () y = Gather <axis = 1> (x, i)", "1, 2, 6, 6"
    ),
    "Resize": Net(
        'k = Constant <value_floats = [1.0, 1.0, 2.0, 2.0]> () y = Resize <mode = "nearest", '
        'coordinate_transformation_mode = "asymmetric", nearest_mode = "floor"> (x, "", k)',
        "1, 8, 12, 12",
    ),
    "Resize, linear": Net(
        'k = Constant <value_floats = [1.0, 1.0, 2.0, 2.0]> () y = Resize <mode = "linear"> '
        '(x, "", k)',
        "1, 8, 12, 12",
    ),
    "DepthToSpace": Net("y = DepthToSpace <blocksize = 2> (x)", "1, 2, 12, 12"),
    "SpaceToDepth": Net("y = SpaceToDepth <blocksize = 2> (x)", "1, 32, 3, 3"),
    "Split": Net("y, v = Split <axis = 1, num_outputs = 2> (x)", "1, 4, 6, 6; 1, 4, 6, 6"),
    "Expand": Net(
        "s = Constant <value_ints = [1, 8, 6, 6]> () y = Expand (x, s)", inputs="1, 8, 1, 6"
    ),
    "Tile": Net("r = Constant <value_ints = [1, 1, 2, 2]> () y = Tile (x, r)", "1, 8, 12, 12"),
    "Pad": Net(
        "p = Constant <value_ints = [0, 0, 1, 1, 0, 0, 1, 1]> () y = Pad (x, p)", "1, 8, 8, 8"
    ),
}


def test_every_op_of_the_table_has_a_net() -> None:
    wanted = {*LITERT.heavy, *LITERT.joiners, *LITERT.moves, *CLAMPS}
    assert {name.split(",")[0] for name in NETS} == wanted


@pytest.mark.parametrize("name", NETS)
def test_three_forms_of_one_op(name: str, graph_of: Any, plan_of: Any, tmp_path: Path) -> None:
    net = NETS[name]
    constants = {
        key: RNG.normal(0.0, 0.5, shape).astype(np.float32) for key, shape in net.constants.items()
    }
    graph = graph_of(net.text, constants)
    samples = {
        info.name: RNG.normal(size=(SAMPLES, *info.shape)).astype(np.float32)
        for info in graph.inputs
    }
    feeds = [{key: rows[at] for key, rows in samples.items()} for at in range(SAMPLES)]
    plan = plan_of(graph, samples=feeds)
    kept = {row.op_type: row.reason for row in plan.ops.values() if row.precision == "float32"}
    assert not kept
    files = {"float": tmp_path / "float.onnx", "ort": tmp_path / "int8.onnx"}
    files["lite"] = tmp_path / "int8.tflite"
    files["float"].write_bytes(onnx_writer.write(graph, None))
    files["ort"].write_bytes(onnx_writer.write(graph, plan, activation_dtype="int8"))
    files["lite"].write_bytes(tflite.write(graph, plan))

    engines = edgeq.compare(files["ort"], files["lite"], data=lambda: iter(feeds))
    assert engines.samples == SAMPLES
    assert len(engines.outputs) == len(graph.outputs)
    for output in engines.outputs:
        assert output.compared_as == "codes", output
        assert output.bit_equal or (net.lsb and output.max_lsb is not None), output
        assert (output.max_lsb or 0.0) <= net.lsb, output

    against_float = edgeq.compare(files["float"], files["lite"], data=lambda: iter(feeds))
    for output in against_float.outputs:
        assert output.bit_equal or (output.sqnr_db or 0.0) > LEAST_DB, output
