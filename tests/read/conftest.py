"""Files for the reader: models as text or message, written to a folder of their own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import ModelProto, numpy_helper, parser

from edgeq import EdgeqError
from edgeq_converters.read.onnx import ReadResult, read

RELU = "g (float[N,4] x) => (float[N,4] y) { y = Relu (x) }"


@pytest.fixture
def model() -> Callable[..., ModelProto]:
    """model(body, opset, ir, **arrays) -> ModelProto from ONNX's text form."""

    def build(
        body: str = RELU, opset: str = '"": 21', ir: int = 10, **arrays: np.ndarray
    ) -> ModelProto:
        made = parser.parse_model(f"<ir_version: {ir}, opset_import: [{opset}]>\n{body}")
        for name, array in arrays.items():
            made.graph.initializer.append(numpy_helper.from_array(np.asarray(array), name))
        return made

    return build


@pytest.fixture
def load(tmp_path: Path) -> Callable[..., ReadResult]:
    """load(model or bytes, **options): written to `m.onnx` and read."""

    def result(content: ModelProto | bytes, **options: Any) -> ReadResult:
        path = tmp_path / "m.onnx"
        data = content if isinstance(content, bytes) else content.SerializeToString()
        path.write_bytes(data)
        return read(path, **options)

    return result


@pytest.fixture
def refusal(load: Callable[..., ReadResult]) -> Callable[..., EdgeqError]:
    """refusal(model or bytes, **options): the one error that reading it raises."""

    def error(content: ModelProto | bytes, **options: Any) -> EdgeqError:
        with pytest.raises(EdgeqError) as caught:
            load(content, **options)
        assert "\n" not in str(caught.value)
        return caught.value

    return error


@pytest.fixture
def weights() -> Callable[[onnx.TensorProto], ModelProto]:
    """weights(tensor): a model whose MatMul reads the tensor `w` [4, 4]."""

    def build(tensor: onnx.TensorProto) -> ModelProto:
        made = parser.parse_model(
            '<ir_version: 10, opset_import: ["": 21]>'
            "g (float[N,4] x) => (float[N,4] y) { y = MatMul (x, w) }"
        )
        made.graph.initializer.append(tensor)
        return made

    return build
