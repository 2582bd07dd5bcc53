"""The ONNX form of plans for LiteRT: in float between Q/DQ where ONNX Runtime has no int8 kernel.

Plans are measured in this form, so it must have the codes that LiteRT makes, within one.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from edgeq.numerics import affine
from edgeq.numerics.errors import sqnr_db
from edgeq.quant.kernels import LITERT
from edgeq.quant.rules import CLAMPS

RNG = np.random.default_rng(5)


def normal(*shape: int) -> np.ndarray:
    return RNG.normal(size=shape).astype(np.float32)


NODES = {
    "Add": "m = Add (a, b)",
    "Sub": "m = Sub (a, b)",
    "Mul": "m = Mul (a, k)",
    "Concat": "m = Concat <axis = 1> (a, b)",
    "Max": "m = Max (a, b)",
    "Min": "m = Min (a, b, k)",
    "GlobalAveragePool": "m = GlobalAveragePool (a)",
    "GlobalMaxPool": "m = GlobalMaxPool (a)",
    "ReduceMean": "m = ReduceMean (a, last)",
    "ReduceSum": "m = ReduceSum (a, last)",
    "ReduceMax": "m = ReduceMax (a, last)",
    "ReduceMin": "m = ReduceMin (a, last)",
    "Softmax": "m = Softmax <axis = 1> (a)",
    "Sigmoid": "m = Sigmoid (a)",
    "Tanh": "m = Tanh (a)",
    "HardSwish": "m = HardSwish (a)",
    "LeakyRelu": "m = LeakyRelu (a)",
    "PRelu": "m = PRelu (a, k)",
    "Elu": "m = Elu (a)",
    "Gelu": "m = Gelu (a)",
    "Abs": "m = Abs (a)",
    "MaxPool": "m = MaxPool <kernel_shape = [3,3], pads = [1,1,1,1]> (a)",
    "AveragePool": "m = AveragePool <kernel_shape = [3,3], pads = [1,1,1,1]> (a)",
    "Relu": "m = Relu (a)",
    "Clip": "m = Clip (a, zero, two)",
    "Reshape": "m = Reshape (a, shape)",
    "Flatten": "m = Flatten (a)",
    "Squeeze": "m = Squeeze (a, first)",
    "Unsqueeze": "m = Unsqueeze (a, first)",
    "Transpose": "m = Transpose <perm = [0,2,3,1]> (a)",
    "Slice": "m = Slice (a, first, last)",
    "Split": "m, n = Split <axis = 1, num_outputs = 2> (a)  p = Add (m, n)",
    "Gather": "m = Gather <axis = 1> (a, last)",
    "Resize": 'm = Resize <mode = "linear"> (a, , scales)',
    "DepthToSpace": "m = DepthToSpace <blocksize = 2> (a)",
    "SpaceToDepth": "m = SpaceToDepth <blocksize = 2> (a)",
    "Expand": "m = Expand (a, twice)",
    "Tile": "m = Tile (a, twice)",
    "Pad": "m = Pad (a, pads)",
    "ConvTranspose": "m = ConvTranspose <strides = [2,2]> (a, up, bias)",
    "Conv": "m = Conv <group = 2> (a, grouped, bias)",
    "Gemm": "n = Flatten (a)  m = Gemm (n, rows)",
    "MatMul": "m = MatMul (a, matrix)",
}
CONSTANTS: dict[str, np.ndarray] = {
    "k": normal(1, 4, 1, 1),
    "zero": np.array(0, np.float32),
    "two": np.array(2, np.float32),
    "first": np.array([0]),
    "last": np.array([3]),
    "shape": np.array([1, 8, -1]),
    "twice": np.array([2, 1, 1, 1]),
    "scales": np.array([1, 1, 2, 2], np.float32),
    "pads": np.array([0, 0, 1, 2, 0, 0, 0, 1]),
    "up": normal(4, 3, 2, 2),
    "grouped": normal(3, 2, 3, 3)[[0, 1, 2, 0]],
    "bias": normal(3)[[0, 1, 2, 0]],
    "rows": normal(256, 5),
    "matrix": normal(8, 6),
}


def test_every_op_of_the_table_is_here() -> None:
    assert set(NODES) == {*LITERT.heavy, *LITERT.joiners, *LITERT.moves, *CLAMPS}


@pytest.mark.parametrize("dtype", ["uint8", "int8"])
@pytest.mark.parametrize("op", NODES)
def test_an_op_makes_the_codes_of_its_float_answer(
    graph_of: Any, quantized: Any, samples_of: Any, op: str, dtype: str
) -> None:
    """At most one code off, where a product of scales is rounded the other way."""
    node = NODES[op].replace("bias", "bias3") if op == "ConvTranspose" else NODES[op]
    constants = {**CONSTANTS, "bias3": CONSTANTS["bias"][:3]}
    graph = graph_of(
        f"""g (float[1,3,8,8] x) => (y, b) {{
          a = Conv <pads = [1,1,1,1]> (x, w)  b = Conv <pads = [1,1,1,1]> (x, v)  o = Abs (a)
          {node}  y = Mul (m, two) }}""",
        {**constants, "w": normal(4, 3, 3, 3), "v": 0.1 * normal(4, 3, 3, 3)},
    )
    made = quantized(graph, activation_dtype=dtype, kernels=LITERT)
    assert {op.precision for op in made.plan.ops.values()} == {"int8"}
    feeds = samples_of(graph, 4)[1]
    tensors = [name for name in ("a", "b", "m") if name in made.plan.tensors]
    got = made.run(feeds, *tensors)
    shapes = {name: list(got[name].shape) for name in ("a", "b")}
    alone = graph_of(
        f"g (float{shapes['a']} a, float{shapes['b']} b) => (m) {{ {node} }}", constants
    )
    wanted = float_answer(alone, got)
    if op in LITERT.heavy:  # their weights are rounded too, by 1/254 of the largest
        assert sqnr_db(wanted, got["m"]) > 35
        return
    encoding = made.plan.tensors["m"]
    scale, zero_point = encoding.scale[0], encoding.zero_point[0]
    codes = affine.quantize(wanted, scale, zero_point).astype(int)
    assert np.abs(codes - np.rint(got["m"] / scale + zero_point)).max() <= 1
    assert len(np.unique(codes)) > 2


def float_answer(graph: Any, feeds: Any) -> np.ndarray:
    from edgeq_converters.write.onnx import write
    from edgeq_runtime.engines import onnxruntime as engine

    session = engine.open_session(write(graph, None), threads=1)
    values = session.run({name: feeds[name] for name in ("a", "b")})
    return values["m"]


LIGHT = {
    **{op: f"{op} ({{x}})" for op in ("Relu", "Sigmoid", "Tanh", "HardSwish", "Elu", "Gelu")},
    **{op: f"{op} ({{x}}, {{y}})" for op in ("Add", "Sub", "Mul", "Max", "Min")},
    "Clip": "Clip ({x}, zero, six)",
    "Softmax": "Softmax <axis = 1> ({x})",
    "MaxPool": "MaxPool <kernel_shape = [3,3], pads = [1,1,1,1]> ({x})",
    "PRelu": "PRelu ({x}, k)",
    "Erf": "Erf ({x})",
    "ReduceMax": "ReduceMax ({x}, axes)",
}


@pytest.mark.parametrize("seed", range(30))
def test_a_random_net_survives_the_whole_way(
    graph_of: Any, quantized: Any, samples_of: Any, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    weights: dict[str, np.ndarray] = {
        "zero": np.array(0, np.float32),
        "six": np.array(6, np.float32),
        "k": rng.normal(size=(8, 1, 1)).astype(np.float32),
        "axes": np.array([2]),
    }
    lines, tensors = [], ["x"]
    for at in range(int(rng.integers(5, 16))):
        x, y = (tensors[int(rng.integers(max(0, len(tensors) - 4), len(tensors)))] for _ in "xy")
        kind = str(rng.choice([*LIGHT, *["Conv"] * 6]))
        if kind == "Conv":
            weights[f"w{at}"] = (rng.normal(size=(8, 8, 3, 3)) / 8).astype(np.float32)
            lines.append(f"t{at} = Conv <pads = [1,1,1,1]> ({x}, w{at})")
        else:
            lines.append(f"t{at} = {LIGHT[kind].format(x=x, y=y)}")
        tensors.append(f"t{at}")
    outputs = sorted({tensors[-1], tensors[int(rng.integers(1, len(tensors)))]})
    graph = graph_of(
        f"g (float[1,8,6,6] x) => ({', '.join(outputs)}) {{ {' '.join(lines)} }}", weights
    )
    made = quantized(graph, samples=samples_of(graph, 8), kernels=LITERT)
    feeds = samples_of(graph, 8)[3]
    wanted, got = made.run_float(feeds), made.run(feeds)
    for name, reference in wanted.items():
        # codes lose some 40 dB a layer, products and differences half of what is left; softmax
        # outputs and what is near 0 after an Erf are coarser
        assert sqnr_db(reference, got[name]) > 12, made.plan.counts()
