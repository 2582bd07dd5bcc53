"""The rule tables against the engine itself: what has an int8 kernel, and what has none."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest

from edgeq.quant.kernels import ONNXRUNTIME
from edgeq_converters.read.ort_optimized import Coverage

Covered = Callable[[bytes], Coverage]
RNG = np.random.default_rng(41)


def normal(*shape: int) -> np.ndarray:
    return RNG.normal(size=shape).astype(np.float32)


BETWEEN = {
    "Add": "m = Add(a, a)",
    "Mul": "m = Mul(a, a)",
    "Concat": "n = LeakyRelu(a)  m = Concat <axis = 0> (a, n)",
    "MaxPool": "m = MaxPool <kernel_shape = [2,2], dilations = [2,2]> (a)",
    "AveragePool": "m = AveragePool <kernel_shape = [3,3], ceil_mode = 1, strides = [2,2]> (a)",
    "GlobalAveragePool": "m = GlobalAveragePool(a)",
    "Sigmoid": "m = Sigmoid(a)",
    "LeakyRelu": "m = LeakyRelu(a)",
    "Reshape": "m = Reshape(a, four)",
    "Flatten": "n = Flatten <axis = 2> (a)  m = Reshape(n, four)",
    "Squeeze": "n = Squeeze(a, zero)  m = Reshape(n, four)",
    "Unsqueeze": "n = Unsqueeze(a, zero)  m = Reshape(n, four)",
    "Slice": "m = Slice(a, zero, one, zero)",
    "Gather": "m = Gather(a, zero)",
    "Resize": 'm = Resize <mode = "nearest"> (a, , scales)',
    "DepthToSpace": "n = DepthToSpace <blocksize = 2> (a)  m = Reshape(n, deep)",
    "Split": "n, o = Split <axis = 1, num_outputs = 2> (a)  m = Concat <axis = 1> (n, o)",
    "Transpose": "n = Transpose <perm = [2,3,0,1]> (a)  m = Transpose <perm = [2,3,0,1]> (n)",
}
CONSTANTS = {
    "four": np.array([1, 4, -1, 1]),
    "deep": np.array([1, 4, -1, 1]),
    "zero": np.array([0]),
    "one": np.array([1]),
    "scales": np.array([1, 1, 2, 2], np.float32),
}


def test_every_light_op_has_a_row_here() -> None:
    assert set(BETWEEN) == {*ONNXRUNTIME.joiners, *ONNXRUNTIME.moves}


@pytest.mark.parametrize("dtype", ["uint8", "int8"])
@pytest.mark.parametrize("op", BETWEEN)
def test_the_engine_fuses_every_op_we_call_int8(
    graph_of: Any, quantized: Any, tmp_path: Any, op: str, dtype: str
) -> None:
    from edgeq_converters.read.ort_optimized import coverage

    graph = graph_of(
        f"g (float[1,3,8,8] x) => (y) {{ a = Conv(x, w)  {BETWEEN[op]}  y = Conv(m, v) }}",
        {"w": normal(4, 3, 3, 3), "v": normal(4, 4, 1, 1)} | CONSTANTS,
    )
    made = quantized(graph, activation_dtype=dtype)
    assert {d.precision for d in made.plan.ops.values()} == {"int8"}
    found = coverage(optimized(made.artifact(), str(tmp_path / "o.onnx")))
    assert found.float == {}
    assert (found.q, found.dq) == (1, 1)


def optimized(model: bytes, path: str) -> bytes:
    """The engine's own model, with int8 activations let through as they are on ARM.

    On x86 the engine leaves several int8 (not uint8) ops in float unless it is asked not to.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.optimized_model_filepath = path
    options.add_session_config_entry("session.qdqisint8allowed", "1")
    onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    with open(path, "rb") as file:
        return file.read()


NO_KERNEL = {
    "ConvTranspose": "ConvTranspose (d, k4)",
    "Div": "Div (d, d)",
    "InstanceNormalization": "InstanceNormalization (d, k1, k1)",
    "LayerNormalization": "LayerNormalization (d, k8)",
    "Pad": "Pad (d, pads)",
    "Pow": "Pow (d, two)",
    "PRelu": "PRelu (d, k8)",
    "ReduceMean": "ReduceMean (d, last)",
    "ReduceSum": "ReduceSum (d, last)",
    "SpaceToDepth": "SpaceToDepth <blocksize = 2> (d)",
    "Sub": "Sub (d, d)",
    "Max": "Max (d, d)",
    "Mean": "Mean (d, d)",
    "Min": "Min (d, d)",
}


@pytest.mark.parametrize(
    "op", sorted(op for op, reason in ONNXRUNTIME.kept_float.items() if "no int8 kernel" in reason)
)
def test_the_engine_has_no_int8_kernel_where_we_say_so(covered: Covered, op: str) -> None:
    node = NO_KERNEL.get(op, f"{op} (d)")
    model = onnx.parser.parse_model(
        f"""<ir_version: 10, opset_import: ["" : 21]>
        g (float[1,1,8,8] x) => (float[a,b,c,e] y)
        <float s = {{0.1}}, uint8 z = {{128}}, float two = {{2.0}}, int64[1] last = {{3}},
         int64[8] pads = {{0,0,1,1,0,0,1,1}}, float[1] k1 = {{1.0}}> {{
          q = QuantizeLinear(x, s, z)  d = DequantizeLinear(q, s, z)
          t = {node}
          p = QuantizeLinear(t, s, z)  y = DequantizeLinear(p, s, z)
        }}"""
    )
    for name, shape in (("k8", (8,)), ("k4", (1, 1, 3, 3))):
        model.graph.initializer.append(onnx.numpy_helper.from_array(normal(*shape), name))
    found = covered(model.SerializeToString())
    assert found.int8 == {}
    assert sum(found.float.values()) >= 1


def test_softmax_has_a_kernel_and_we_leave_it_for_its_speed(covered: Covered) -> None:
    """The reason given for Softmax is its speed; were the kernel gone, the words would be wrong."""
    model = onnx.parser.parse_model(
        """<ir_version: 10, opset_import: ["" : 21]>
        g (float[1,8] x) => (float[1,8] y)
        <float s = {0.1}, uint8 z = {128}, float t = {0.00390625}, uint8 o = {0}> {
          q = QuantizeLinear(x, s, z)  d = DequantizeLinear(q, s, z)  m = Softmax(d)
          p = QuantizeLinear(m, t, o)  y = DequantizeLinear(p, t, o)
        }"""
    )
    assert covered(model.SerializeToString()).int8 == {"Softmax": 1}


GATED = """g (float[1,16,8,8] x) => (float[1,16,8,8] y) {
  [one] a = Conv(x, w)  [act] r = Relu(a)
  [mean] m = GlobalAveragePool(r)
  [squeeze] s = Conv(m, v)  [inner] i = Relu(s)
  [excite] e = Conv(i, v)  [gate] g = HardSigmoid <alpha = 0.1666667, beta = 0.5> (e)
  [scaled] p = Mul(r, g)  [two] y = Conv(p, w)
}"""


@pytest.mark.parametrize("dtype", ["uint8", "int8"])
def test_squeeze_and_excitation_runs_whole_in_int8(
    graph_of: Any, quantized: Any, tmp_path: Any, dtype: str
) -> None:
    """With the HardSigmoid a Clip behind the last Conv; without, three float ops stay."""
    from edgeq.passes import run_all
    from edgeq_converters.read.ort_optimized import coverage

    graph = graph_of(GATED, {"w": normal(16, 16, 1, 1), "v": normal(16, 16, 1, 1)})
    path = str(tmp_path / "o.onnx")
    before = coverage(optimized(quantized(graph, activation_dtype=dtype).artifact(), path))
    assert before.float == {"HardSigmoid": 1}
    made = quantized(run_all(graph)[0], activation_dtype=dtype)
    after = coverage(optimized(made.artifact(), path))
    assert (after.float, after.q, after.dq) == ({}, 1, 1)
    assert after.int8 == {"Conv": 4, "GlobalAveragePool": 1, "Mul": 1}
    assert made.plan.tensors["g"].scale[0] == pytest.approx(1 / 255, rel=0.02)


def test_unlike_operands_run_as_float_from_the_concat_on(
    graph_of: Any, quantized: Any, tmp_path: Any
) -> None:
    from edgeq_converters.read.ort_optimized import coverage

    graph = graph_of(
        """g (float[1,4,8,8] x) => (float[1,4,8,8] y) {
          [a] a = Conv(x, w) [b] b = Conv(x, v) [join] j = Concat <axis = 1> (a, b)
          [last] y = Conv(j, u) }""",
        {"w": 400 * normal(4, 4, 1, 1), "v": normal(4, 4, 1, 1), "u": normal(4, 8, 1, 1)},
    )
    made = quantized(graph, float_nodes={"join": "too unlike", "last": "too unlike"})
    found = coverage(optimized(made.artifact(), str(tmp_path / "o.onnx")))
    assert (found.int8, found.float) == ({"Conv": 2}, {"Concat": 1, "Conv": 1})


@pytest.mark.shared
def test_magika_multiplies_in_int8(shared: Any, tmp_path: Any) -> None:
    """Both products and the convolution, on its own bytes (ONNX Runtime's tool crashes on it)."""
    import onnxruntime

    from edgeq import passes, targets
    from edgeq.quant import policy
    from edgeq.quant.calibrate import calibrate
    from edgeq.quant.draft import draft
    from edgeq.quant.quantize import quantize
    from edgeq_converters.read.onnx import read
    from edgeq_converters.read.ort_optimized import coverage
    from edgeq_converters.write.onnx import write

    folder = shared / "data" / "bytes_magika"
    graph = passes.run_all(read(folder / "model.onnx").graph)[0]
    support = targets.load("x86-vnni").engine("onnxruntime")
    drafted = draft(graph, policy=policy.of(support))
    model = write(graph, None, extra_outputs=drafted.observe)
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]

    class Executor:
        def run(self, feeds: Any) -> Any:
            return dict(zip(names, session.run(None, dict(feeds)), strict=True))

    with np.load(folder / "data.npz") as data:
        samples = [{graph.inputs[0].name: row[None].astype(np.int32)} for row in data["x"][:2]]
    plan = quantize(
        graph, drafted, calibrate(Executor(), samples, drafted.observe), pair_safe=False
    )
    found = coverage(optimized(write(graph, plan), str(tmp_path / "o.onnx")))
    heavy = {kind: found.int8.get(kind, 0) for kind in ("Conv", "Gemm", "MatMul")}
    assert heavy == {"Conv": 1, "Gemm": 1, "MatMul": 1}
    assert not {"Conv", "Gemm", "MatMul"} & set(found.float)
