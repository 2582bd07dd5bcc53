"""ONNX Runtime as an engine: sessions on the CPU, exact where the host's kernels are not.

On x86 without VNNI the u8 x s8 kernels add pairs of products in int16 and saturate (vpmaddubsw;
onnxruntime #6004). `exact=True` sets `session.x64quantprecision`, which stores such weights as
uint8 and so computes the exact integers, slower. That option fails to create some sessions
("Attempt to replace the existing tensor", seen in 1.31.1); then the graph runs unoptimized, where
quantized ops are computed in float from the dequantized integers (static Q/DQ graphs only: a
MatMulInteger saturates either way).
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnxruntime
from onnxruntime.capi import onnxruntime_pybind11_state as state

from edgeq_runtime.engines import protobuf
from edgeq_runtime.engines.feeds import first_line, input_mistake, output_mistake
from edgeq_runtime.errors import EdgeqError
from edgeq_runtime.outside import folder_of
from edgeq_runtime.tensors import TensorInfo

ENGINE = "onnxruntime"
FORMATS = ("onnx", "ort")
QUIET = 4  # ORT_LOGGING_LEVEL_FATAL: what is wrong is said once, by the error

PROPAGATION = "QDQPropagationTransformer"
"""Copies Q/DQ past MaxPool and the like; seen in 1.31.1 on x86: what it copies of an int8 region
keeps `output_dtype` INT8 when the engine then makes the region uint8, and the model is refused."""
LAYOUT = "NchwcTransformer"

_ONNX_TYPES = {
    "tensor(float)": "float32",
    "tensor(double)": "float64",
    "tensor(float16)": "float16",
    "tensor(bfloat16)": "bfloat16",
    "tensor(string)": "object",
    "tensor(bool)": "bool",
}
_ERROR_NAMES = (
    "Fail",
    "InvalidArgument",
    "NoSuchFile",
    "NoModel",
    "EngineError",
    "RuntimeException",
    "InvalidProtobuf",
    "ModelLoaded",
    "NotImplemented",
    "InvalidGraph",
    "EPFail",
    "ModelLoadCanceled",
    "ModelRequiresCompilation",
    "NotFound",
)


def _engine_errors() -> tuple[type[BaseException], ...]:
    """Every error the binding raises; the list of its own types grows with versions."""
    own = (getattr(state, name, None) for name in _ERROR_NAMES)
    foreign = (RuntimeError, ValueError, TypeError, MemoryError, OverflowError, UnicodeDecodeError)
    return tuple(row for row in own if row is not None) + foreign


ENGINE_ERRORS = _engine_errors()


def version() -> str:
    """Version of the imported engine, like "1.31.1"."""
    return str(onnxruntime.__version__)


class Session:
    """An open model. `mode` says how it computes: "default" is the engine's own kernels; "exact"
    and "exact-unoptimized" are slower settings for a host that saturates, never to be timed."""

    engine = ENGINE

    def __init__(self, raw: Any, mode: str) -> None:
        self.raw = raw
        self.mode = mode
        self.version = version()
        self.inputs = tuple(_info(row) for row in raw.get_inputs())
        self.outputs = tuple(_info(row) for row in raw.get_outputs())
        self._names = [info.name for info in self.outputs]

    def run(self, feeds: dict[str, Any], names: Sequence[str] | None = None) -> dict[str, Any]:
        """Run once. `names` asks for some outputs (default: all, in the model's order)."""
        wanted = self._names if names is None else list(names)
        try:
            values = self.raw.run(wanted, feeds)
        except ENGINE_ERRORS as error:
            raise self._explain(feeds, wanted, error) from error
        return dict(zip(wanted, values))

    def close(self) -> None:
        """Free the model; a later `run` is refused."""
        self.raw = _Closed()

    def _explain(
        self, feeds: dict[str, Any], wanted: Sequence[str], error: BaseException
    ) -> EdgeqError:
        """The user's mistake where there is one, else what the engine said."""
        known = output_mistake(self._names, wanted) or input_mistake(self.inputs, feeds)
        return known or EdgeqError(
            "engine-failed", f"{ENGINE} {self.version} failed: {first_line(error)}"
        )


class _Closed:
    """Stands in for the session after `close`."""

    def run(self, *_: object) -> None:
        raise RuntimeError("the session is closed")


def open_session(
    model: bytes | str,
    *,
    threads: int | None = None,
    exact: bool = False,
    optimize: bool = True,
    low_memory: bool = False,
    optimized_path: str | None = None,
    signed_int8: bool = False,
) -> Session:
    """Open `model` (bytes or a path) on the CPU.

    exact: exact integers on any host; changes nothing where the kernels do not saturate.
    optimize: False runs the graph as written. low_memory: no CPU arena, no memory pattern.
    optimized_path: where the engine saves the graph it really runs. signed_int8: fuse int8
    activations as they are, which is the default on ARM; on x86 there are no fast kernels for it.
    A file in ORT format is run as it is, in mode "default" whatever `exact` says.
    Raises EdgeqError("engine-refused") with the engine's first line.
    """
    if is_ort(model):  # optimized when it was written: nothing here changes it
        exact = optimize = False
    careful = exact and saturates()
    beside = _beside(model, low_memory)
    config = dict(beside)
    if signed_int8:
        config["session.qdqisint8allowed"] = "1"
    if careful:
        config["session.x64quantprecision"] = "1"
    mode = "exact" if careful else "default"
    ways: list[tuple[str, dict[str, str], bool, tuple[str, ...]]] = [(mode, config, optimize, ())]
    if optimize:
        ways.append((mode, config, True, (PROPAGATION,)))
    if optimize and exact:
        ways.append(("exact-unoptimized", beside, False, ()))
    refusals: list[BaseException] = []
    for name, entries, optimized, without in ways:
        options = _options(threads, optimized, low_memory, optimized_path)
        for key, value in entries.items():
            options.add_session_config_entry(key, value)
        try:
            return Session(_create(model, options, without), name)
        except ENGINE_ERRORS as error:
            refusals.append(error)
    raise _refused(refusals[0]) from refusals[0]


def _beside(model: bytes | str, low_memory: bool) -> dict[str, str]:
    """Settings for a model whose weights lie in files beside it."""
    folder = folder_of(model)
    if folder is None:
        return {}
    config = {"session.model_external_initializers_file_folder_path": folder}
    if low_memory:  # else the weights are copied into the order the kernels like best
        config["session.disable_prepacking"] = "1"
    return config


def is_ort(model: bytes | str) -> bool:
    """Whether `model` is a file in ORT format, in memory."""
    return isinstance(model, bytes) and model[4:8] == b"ORTM"


def to_ort(model: bytes, *, architecture: str) -> bytes:
    """`model` (ONNX) in ORT format, optimized for "aarch64" or "x86_64" as ONNX Runtime's own
    converter does (tools/convert_onnx_models_to_ort.py): all levels, int8 activations kept on ARM.

    Never with NchwcTransformer: the blocks of its layout are those of this host's registers. The
    order of one table in the bytes is random. Raises EdgeqError("engine-refused").
    """
    import tempfile
    from pathlib import Path

    refusals: list[BaseException] = []
    with tempfile.TemporaryDirectory(prefix="edgeq-") as folder:
        path = Path(folder) / "model.ort"
        for without in ((LAYOUT,), (LAYOUT, PROPAGATION)):
            options = _options(1, True, True, str(path))
            signed = "1" if architecture == "aarch64" else "0"
            options.add_session_config_entry("session.save_model_format", "ORT")
            options.add_session_config_entry("session.qdqisint8allowed", signed)
            try:
                _create(model, options, without)
                return path.read_bytes()
            except ENGINE_ERRORS as error:
                refusals.append(error)
    raise _refused(refusals[0]) from refusals[0]


@functools.cache
def saturates() -> bool:
    """True when this host's u8 x s8 kernel is not exact: ask it, so an emulator answers too.

    Each of the 64 products is 255 * 127: a pair of them is 64,770, beyond int16.
    """
    rows, depth, columns = 2, 64, 32
    uint8, int8, int32 = 2, 3, 6
    model = protobuf.one_node_model(
        "MatMulInteger",
        [("a", uint8, (rows, depth)), ("b", int8, (depth, columns))],
        ("y", int32, (rows, columns)),
    )
    feeds = {
        "a": np.full((rows, depth), 255, np.uint8),
        "b": np.full((depth, columns), 127, np.int8),
    }
    product = Session(_create(model, _options(1, True, True, None)), "default").run(feeds)["y"]
    return bool((product != 255 * 127 * depth).any())


def _options(
    threads: int | None, optimize: bool, low_memory: bool, optimized_path: str | None
) -> Any:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = QUIET
    options.inter_op_num_threads = 1
    if threads is not None:
        options.intra_op_num_threads = threads
    if not optimize:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    if low_memory:
        options.enable_cpu_mem_arena = False
        options.enable_mem_pattern = False
    if optimized_path is not None:
        options.optimized_model_filepath = optimized_path
    return options


def _create(model: bytes | str, options: Any, without: tuple[str, ...] = ()) -> Any:
    """`without` names graph optimizers to leave out. No fallback: it prints to stdout."""
    raw = onnxruntime.InferenceSession(
        model,
        options,
        providers=["CPUExecutionProvider"],
        enable_fallback=0,
        disabled_optimizers=list(without) or None,
    )
    raw._model_bytes = None  # else the file stays in memory beside the session
    return raw


def _refused(error: BaseException) -> EdgeqError:
    return EdgeqError(
        "engine-refused", f"{ENGINE} {version()} refused the model: {first_line(error)}"
    )


def _info(row: Any) -> TensorInfo:
    kind = str(row.type)
    dtype = _ONNX_TYPES.get(kind) or kind.replace("tensor(", "").replace(")", "")
    return TensorInfo(str(row.name), dtype, tuple(row.shape))
