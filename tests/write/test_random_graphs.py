"""Random nets: whatever the plan calls int8 must be fused, load, be finite and stay near float."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest

from edgeq.numerics.errors import sqnr_db
from edgeq.quant.plan import QuantPlan

LIGHT = {
    "Relu": "Relu({x})",
    "Clip": "Clip({x}, zero, six)",
    "Sigmoid": "Sigmoid({x})",
    "LeakyRelu": "LeakyRelu <alpha = 0.2> ({x})",
    "MaxPool": "MaxPool <kernel_shape = [3,3], pads = [1,1,1,1]> ({x})",
    "AveragePool": "AveragePool <kernel_shape = [3,3], pads = [1,1,1,1]> ({x})",
    "Transpose": "Transpose <perm = [0,1,3,2]> ({x})",
    "Tanh": "Tanh({x})",
    "HardSigmoid": "HardSigmoid({x})",
    "Sub": "Sub({x}, {y})",
    "Add": "Add({x}, {y})",
    "Mul": "Mul({x}, {y})",
    "AddConstant": "Add({x}, k)",
}
COUNTED = (
    "Conv",
    "Add",
    "Mul",
    "Concat",
    "Sigmoid",
    "LeakyRelu",
    "MaxPool",
    "AveragePool",
    "Tanh",
    "Sub",
)


def random_net(rng: np.random.Generator) -> tuple[str, dict[str, np.ndarray]]:
    """A net of 8 channels at 6x6: convolutions, joins and light ops in random order."""
    weights = {
        "zero": np.float32(0),
        "six": np.float32(6),
        "k": rng.normal(size=(1, 8, 1, 1)).astype(np.float32),
    }
    lines, tensors = [], ["x"]
    for at in range(int(rng.integers(5, 16))):
        x, y = (tensors[int(rng.integers(max(0, len(tensors) - 4), len(tensors)))] for _ in "xy")
        kind = str(rng.choice(["conv", "depthwise", "concat", *LIGHT, "conv", "conv"]))
        made = f"t{at}"
        if kind in LIGHT:
            lines.append(f"{made} = {LIGHT[kind].format(x=x, y=y)}")
        else:
            if kind == "concat":
                lines.append(f"c{at} = Concat <axis = 1> ({x}, {y})")
                x = f"c{at}"
            shape = (8, {"concat": 16, "depthwise": 1, "conv": 8}[kind], 3, 3)
            fan_in = shape[1] * 9
            weights[f"w{at}"] = (rng.normal(size=shape) / np.sqrt(fan_in)).astype(np.float32)
            weights[f"b{at}"] = (rng.normal(size=8) * 0.1).astype(np.float32)
            group = 8 if kind == "depthwise" else 1
            lines.append(f"{made} = Conv <pads = [1,1,1,1], group = {group}> ({x}, w{at}, b{at})")
        tensors.append(made)
    outputs = sorted({tensors[-1], tensors[int(rng.integers(1, len(tensors)))]})
    header = ", ".join(f"float[1,8,6,6] {name}" for name in outputs)
    return f"g (float[1,8,6,6] x) => ({header}) {{ {' '.join(lines)} }}", weights


@pytest.mark.parametrize("seed", range(40))
def test_a_random_net_survives_the_whole_way(
    graph_of: Any, quantized: Any, samples_of: Any, covered: Any, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    graph = graph_of(*random_net(rng))
    made = quantized(graph, pair_safe=bool(seed % 2), samples=samples_of(graph, 8))
    assert QuantPlan.from_json(made.plan.to_json()) == made.plan
    feeds = samples_of(graph, 8)[3]  # one of the calibration's: nothing is clipped
    wanted, got = made.run_float(feeds), made.run(feeds)
    assert list(wanted) == list(got)
    for name, reference in wanted.items():
        assert np.isfinite(got[name]).all()
        # at most 16 layers in a row, each some 40 dB below its signal: 28 dB; products and
        # differences may cancel what they are made of, so half of that in dB is asked
        assert sqnr_db(reference, got[name]) > 14
    kinds = Counter(op.op_type for op in made.plan.ops.values() if op.precision == "float32")
    found = covered(made.artifact())
    for op in COUNTED:
        assert found.float.get(op, 0) <= kinds[op], (op, found)


@pytest.mark.parametrize("seed", range(40, 52))
def test_uint8_and_int8_of_a_random_net_differ_by_rounding_alone(
    graph_of: Any, quantized: Any, samples_of: Any, seed: int
) -> None:
    graph = graph_of(*random_net(np.random.default_rng(seed)))
    feeds = samples_of(graph, 1, seed=seed)[0]
    values = [quantized(graph, activation_dtype=kind).run(feeds) for kind in ("uint8", "int8")]
    for name, array in values[0].items():
        # one tie rounded the other way reaches few elements of what follows, by a step or two
        assert sqnr_db(array, values[1][name]) > 35
