"""LiteRT as the benches run it: float in, float out, whatever a file has at its border.

Also the public float .tflite files of shared/data, each with the int8 file that was published.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tasks import SHARED, Feeds


class LiteRt:
    """A file in LiteRT, one thread. `run` sets the inputs, invokes and fetches, as ONNX Runtime's
    does; float rows become codes of the file's own scale where it reads int8, and codes floats."""

    def __init__(self, path: Path, *, reference: bool = False) -> None:
        from ai_edge_litert import interpreter

        kinds = interpreter.OpResolverType
        self._interpreter: Any = interpreter.Interpreter(
            model_path=str(path),
            num_threads=1,
            experimental_op_resolver_type=kinds.BUILTIN_REF if reference else kinds.AUTO,
        )
        self._interpreter.allocate_tensors()
        self.inputs = self._interpreter.get_input_details()
        self.outputs = self._interpreter.get_output_details()

    def set(self, feeds: Feeds) -> None:
        """Give each input its value; a single one may have any name."""
        for row in self.inputs:
            name = row["name"].removeprefix("serving_default_").partition(":")[0]
            value = feeds[name] if len(self.inputs) > 1 else next(iter(feeds.values()))
            self._interpreter.set_tensor(row["index"], _as_read(row, value))

    def run(self, _: None, feeds: Feeds) -> list[NDArray[Any]]:
        """As ONNX Runtime's method of that name: what an LSTM remembers ends with the call."""
        self._interpreter.reset_all_variables()
        self.set(feeds)
        self._interpreter.invoke()
        return [_as_float(row, self._interpreter.get_tensor(row["index"])) for row in self.outputs]

    def run_again(self) -> None:
        """The same inputs once more: all that a comparison of two LiteRT files should time."""
        self._interpreter.invoke()

    @property
    def partitions(self) -> int:
        """How many pieces of the graph XNNPACK runs; 1 is all of it."""
        kinds = [row["op_name"] for row in self._interpreter._get_ops_details()]
        return kinds.count("DELEGATE")


def _as_read(row: Mapping[str, Any], value: NDArray[Any]) -> NDArray[Any]:
    if row["dtype"] == np.int8:
        scale, zero_point = row["quantization"]
        value = np.clip(np.round(value / scale) + zero_point, -128, 127)
    return np.asarray(value, row["dtype"]).reshape(row["shape"])


def _as_float(row: Mapping[str, Any], value: NDArray[Any]) -> NDArray[Any]:
    if row["dtype"] == np.int8:
        scale, zero_point = row["quantization"]
        value = (value.astype(np.float32) - zero_point) * np.float32(scale)
    return value


def in_float(path: Path, out: Path) -> Path:
    """`path`, or `out`: the same file with its int8 weights as the floats they stand for.

    Operators that read float and int8 weights quantize what they read at run time, which is no
    float arithmetic: the float file of kws does, 0.09 from itself in another kernel.
    """
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(path.read_bytes(), 0))
    (graph,) = model.subgraphs
    weights = [
        graph.tensors[at]
        for row in graph.operators
        if graph.tensors[row.inputs[0]].type == schema.TensorType.FLOAT32
        for at in row.inputs[1:]
        if graph.tensors[at].type == schema.TensorType.INT8
    ]
    if not weights:
        return path
    for tensor in weights:
        codes = model.buffers[tensor.buffer].data.view(np.int8).reshape(tensor.shape)
        axes = np.ones(codes.ndim, int)
        axes[tensor.quantization.quantizedDimension] = -1
        scales = np.asarray(tensor.quantization.scale, np.float32)
        values = codes * scales.reshape(axes if scales.size > 1 else ())
        model.buffers[tensor.buffer].data = np.frombuffer(values.tobytes(), np.uint8)
        tensor.type, tensor.quantization = schema.TensorType.FLOAT32, None
    builder = flatbuffers.Builder(1 << 20)
    builder.Finish(model.Pack(builder), b"TFL3")
    out.write_bytes(builder.Output())
    return out


@dataclass(frozen=True)
class Public:
    """A net of shared/data: its float file, the int8 file that was published, rows, labels."""

    name: str
    folder: str
    float_name: str
    int8_name: str | None
    over: int = 1  # what the stored rows are divided by

    @property
    def float_file(self) -> Path:
        return SHARED / self.folder / self.float_name

    @property
    def int8_file(self) -> Path | None:
        return SHARED / self.folder / self.int8_name if self.int8_name else None

    def rows(self, key: str) -> NDArray[Any]:
        """`calib_x` or `x`, as the model reads them."""
        with np.load(SHARED / self.folder / "data.npz") as data:
            rows: NDArray[Any] = data[key].astype(np.float32) / np.float32(self.over)
        return rows

    @cached_property
    def labels(self) -> NDArray[Any]:
        with np.load(SHARED / self.folder / "data.npz") as data:
            labels: NDArray[Any] = data["y"]
        return labels


PUBLIC = {
    net.name: net
    for net in (
        Public("kws", "kws_dscnn", "kws_ref_model_float32.tflite", "kws_ref_model.tflite"),
        Public("resnet8", "ic_resnet8", "pretrainedResnet.tflite", "pretrainedResnet_quant.tflite"),
        Public(
            "resnet8_large",
            "ic_resnet8",
            "pretrainedResnet_large_float.tflite",
            "pretrainedResnet_large_int8.tflite",
        ),
        Public("vww", "vww_mobilenet", "vww_96_float.tflite", "vww_96_int8.tflite", 255),
        Public("gesture", "tab_gesture", "keypoint_classifier.tflite", None),
        Public("lstm", "mnist", "trained_lstm.tflite", "trained_lstm_int8.tflite", 255),
    )
}
