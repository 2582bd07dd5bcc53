"""ORT format: the engine's conversion per platform, and the one spelling of its bytes."""

import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from onnxruntime.tools.ort_format_model.ort_flatbuffers_py.fbs.InferenceSession import (
    InferenceSession as Tables,
)

from edgeq.ir import Graph
from edgeq_converters.write import ort
from edgeq_converters.write.onnx import write
from edgeq_runtime.engines import onnxruntime as engine

RNG = np.random.default_rng(0)
GraphOf = Callable[..., Graph]

NET = """g (float[N, 16, 8, 8] x) => (float[N, 10] y) {
    a = Conv <pads = [1, 1, 1, 1]> (x, w, b)
    c = Relu (a)
    d = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (c)
    f = Flatten (d)
    y = Gemm <transB = 1> (f, v) }"""
PLATFORMS = ("aarch64", "x86_64")


@pytest.fixture
def models(graph_of: GraphOf, quantized: Callable[..., Any]) -> Mapping[str, bytes]:
    """float32, and int8 as each platform has it."""
    shapes = {"w": (32, 16, 3, 3), "b": (32,), "v": (10, 512)}
    weights = {name: RNG.normal(size=s).astype(np.float32) * 0.1 for name, s in shapes.items()}
    graph = graph_of(NET, weights)
    return {
        "float": write(graph, None),
        "aarch64": quantized(graph, activation_dtype="int8").artifact(),
        "x86_64": quantized(graph, activation_dtype="uint8", pair_safe=True).artifact(),
    }


def converted(model: bytes, platform: str) -> bytes:
    return ort.canonical(engine.to_ort(model, architecture=platform))


def kernels(data: bytes) -> list[Any]:
    """The kernel types, as ONNX Runtime's own generated reader sees them."""
    resolver = Tables.GetRootAs(data, 0).KernelTypeStrResolver()
    ops = [resolver.OpKernelTypeStrArgs(at) for at in range(resolver.OpKernelTypeStrArgsLength())]
    found = []
    for op in ops:
        rows = [op.KernelTypeStrArgs(at) for at in range(op.KernelTypeStrArgsLength())]
        args = [
            [(arg.ArgType(), arg.Index()) for arg in map(row.Args, range(row.ArgsLength()))]
            for row in rows
        ]
        names = [row.KernelTypeStr() for row in rows]
        found.append((op.OpId(), list(zip(names, args, strict=True))))
    return found


@pytest.mark.parametrize("platform", PLATFORMS)
@pytest.mark.parametrize("kind", ["float", *PLATFORMS])
def test_the_same_model_gives_the_same_bytes(
    models: Mapping[str, bytes], kind: str, platform: str
) -> None:
    assert len({converted(models[kind], platform) for _ in range(4)}) == 1


@pytest.mark.parametrize("kind", ["float", *PLATFORMS])
def test_the_length_of_the_engines_own_front_changes_nothing(
    models: Mapping[str, bytes], kind: str
) -> None:
    """It varies by 8 bytes with the order of the kernel types: names before them need padding.

    Seen with two dynamic layers on one tensor. What follows keeps its distance to the end.
    """
    data = engine.to_ort(models[kind], architecture="x86_64")
    root = int.from_bytes(data[:4], "little")
    longer = (root + 8).to_bytes(4, "little") + data[4:8] + bytes(8) + data[8:]
    assert kernels(longer) == kernels(data)  # it is the same file to a reader
    made = ort.canonical(data)
    assert ort.canonical(longer) == made
    assert len(made) % ort.ALIGNMENT == 0


def test_the_same_bytes_in_another_process(models: Mapping[str, bytes], tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(models["aarch64"])
    code = """
import sys
from edgeq_converters.write.ort import canonical
from edgeq_runtime.engines.onnxruntime import to_ort
model = open(sys.argv[1], "rb").read()
sys.stdout.buffer.write(canonical(to_ort(model, architecture="aarch64")))
"""
    run = [sys.executable, "-c", code, str(tmp_path / "m.onnx")]
    assert subprocess.run(run, capture_output=True, check=True).stdout == converted(
        models["aarch64"], "aarch64"
    )


@pytest.mark.parametrize("kind", ["float", *PLATFORMS])
def test_only_the_order_of_kernel_types_changes(models: Mapping[str, bytes], kind: str) -> None:
    raw = engine.to_ort(models[kind], architecture="x86_64")
    data = ort.canonical(raw)
    assert ort.is_ort(data)
    assert ort.canonical(data) == data
    before, after = kernels(raw), kernels(data)
    assert after == sorted((op, sorted(rows)) for op, rows in before)
    assert Tables.GetRootAs(data, 0).OrtVersion() == Tables.GetRootAs(raw, 0).OrtVersion()
    # the model follows at the same distance from the end, by which it is aligned
    assert len(data) % ort.ALIGNMENT == 0
    assert data[-len(raw) * 3 // 4 :] == raw[-len(raw) * 3 // 4 :]


@pytest.mark.parametrize("kind", PLATFORMS)
def test_it_computes_what_the_onnx_form_computes(models: Mapping[str, bytes], kind: str) -> None:
    """The arm form too: nothing in it is of one processor, and the integers are the same."""
    session = onnxruntime.InferenceSession(
        converted(models[kind], kind), providers=["CPUExecutionProvider"]
    )
    exact = engine.open_session(models[kind], exact=True)
    for _ in range(5):
        x = RNG.normal(size=(2, 16, 8, 8)).astype(np.float32)
        assert np.array_equal(session.run(None, {"x": x})[0], exact.run({"x": x})["y"])


def test_float_is_within_rounding(models: Mapping[str, bytes]) -> None:
    """Two sums, of 144 and 512 products in another order: 8 sqrt(n) ulp each, see bundle.py."""
    session = engine.open_session(converted(models["float"], "x86_64"))
    x = RNG.normal(size=(2, 16, 8, 8)).astype(np.float32)
    got, want = session.run({"x": x})["y"], engine.open_session(models["float"]).run({"x": x})["y"]
    assert np.abs(got - want).max() <= 2 * 8 * np.sqrt(512) * 2.0**-24 * np.abs(want).max()


def test_no_layout_of_this_host_is_in_it(models: Mapping[str, bytes]) -> None:
    """NCHWc blocks are 8 or 16 wide, as this host's registers are: not in any file."""
    for platform in PLATFORMS:
        ops = {op for op, _ in kernels(converted(models["float"], platform))}
        assert not [op for op in ops if b"nchwc" in op.lower()]
        assert b":Conv" in b" ".join(ops) or b"FusedConv" in b" ".join(ops)


def test_signed_activations_stay_signed_for_arm(models: Mapping[str, bytes]) -> None:
    arm, x86 = (converted(models["aarch64"], platform) for platform in PLATFORMS)
    assert arm != x86
    assert b"QLinearConv" in b" ".join(op for op, _ in kernels(arm))


def test_what_the_engine_refuses_is_told() -> None:
    from edgeq_runtime import EdgeqError

    with pytest.raises(EdgeqError, match=r"onnxruntime .* refused the model") as caught:
        engine.to_ort(b"nonsense", architecture="x86_64")
    assert caught.value.slug == "engine-refused"
