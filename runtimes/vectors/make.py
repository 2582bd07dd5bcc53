"""Make the golden bundle of format 1 again: `python runtimes/vectors/make.py`.

Two inputs, three outputs, one of each comparison rule, preprocessing, labels, a plan: what a reader
of format 1 must reproduce. The bytes change only with the format or the version of edgeq.
"""

import sys
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edgeq.bundle import BundleContents, assemble, write
from edgeq_runtime import InputSpec, reader
from edgeq_runtime.engines import onnxruntime as engine

FOLDER = Path(__file__).parent
NAME = "format-1.edgeq"
MEASURED = "1.31.1"  # what the vectors were first made with, so that a newer engine gives the same


def model() -> bytes:
    """`scores` is an int8 Gemm of `image`, `best` its ArgMax, `shift` 0.3 * `bias` (a product
    that every host rounds the same)."""
    weights = np.arange(-24, 24, dtype=np.int8).reshape(16, 3)
    constants = {
        "xs": np.float32(2.0**-7),
        "xz": np.uint8(128),
        "shape": np.array([-1, 16], np.int64),
        "w": weights,
        "ws": np.float32(2.0**-5),
        "wz": np.int8(0),
        "b": np.array([64, -64, 0], np.int32),
        "bs": np.float32(2.0**-12),
        "bz": np.int32(0),
        "ys": np.float32(0.125),
        "yz": np.uint8(120),
        "third": np.float32(0.3),
    }
    node = helper.make_node
    nodes = [
        node("Reshape", ["image", "shape"], ["flat"]),
        node("QuantizeLinear", ["flat", "xs", "xz"], ["xq"]),
        node("DequantizeLinear", ["xq", "xs", "xz"], ["xd"]),
        node("DequantizeLinear", ["w", "ws", "wz"], ["wd"]),
        node("DequantizeLinear", ["b", "bs", "bz"], ["bd"]),
        node("Gemm", ["xd", "wd", "bd"], ["g"]),
        node("QuantizeLinear", ["g", "ys", "yz"], ["yq"]),
        node("DequantizeLinear", ["yq", "ys", "yz"], ["scores"]),
        node("ArgMax", ["scores"], ["best"], axis=1, keepdims=0),
        node("Mul", ["bias", "third"], ["shift"]),
    ]
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "format1",
        [
            value("image", TensorProto.FLOAT, ["n", 1, 4, 4]),
            value("bias", TensorProto.FLOAT, [2]),
        ],
        [
            value("scores", TensorProto.FLOAT, ["n", 3]),
            value("best", TensorProto.INT64, ["n"]),
            value("shift", TensorProto.FLOAT, [2]),
        ],
        [numpy_helper.from_array(np.asarray(row), name) for name, row in constants.items()],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    onnx.checker.check_model(made, full_check=True)
    data: bytes = made.SerializeToString(deterministic=True)
    return data


def files() -> dict[str, bytes]:
    """Every file of the bundle."""
    artifact = model()
    session = engine.open_session(artifact, exact=True)
    contents = BundleContents(
        name="format-1",
        target="x86-avx2",
        precision="int8",
        artifact=artifact,
        inputs=session.inputs,
        outputs=session.outputs,
        exact_outputs={"scores": {"dtype": "uint8", "scale": 0.125, "zero_point": 120}},
        input_ranges={"image": (-1.0, 1.0), "bias": (-2.5, 1.5)},
        float_depths={"shift": (1, 1)},
        input_specs={"image": InputSpec(resize=4, crop=4, mean=(0.5,), std=(0.5,))},
        labels=("one", "two", "dr\u00e4i"),
        engine="onnxruntime",
        engine_measured=MEASURED,
        engine_minimum="1.18.0",
        engine_known_bad={"1.21.0": "an example of a known bad version"},
        exact_kernels="safe",
        architecture="x86_64",
        required_features=("avx2",),
        fast_features=("avx512_vnni|avx_vnni",),
        ops={"float32": {"ArgMax": 1, "Mul": 1}, "int8": {"Gemm": 1, "Reshape": 1}},
        left_in_float=[{"node": "mul", "op_type": "Mul", "reason": "a float tail"}],
        plan={"ops": {}, "tensors": {}},
        card="# format-1\n\nThe golden bundle of format 1.\n",
        notes=("made by runtimes/vectors/make.py",),
    )
    return assemble(contents, session.run)


def main() -> None:
    """Write it, and say its digest."""
    write(files(), FOLDER / NAME, packaging="zip", force=False)
    manifest = reader.read(FOLDER / NAME).manifest
    size = (FOLDER / NAME).stat().st_size
    assert size < 100_000
    sys.stdout.write(f"{NAME}: {size} bytes, digest {manifest.digest}\n")


if __name__ == "__main__":
    main()
