"""Weights stored in int8: as codes and scales, and as what an op reads that computes in float.

`Cast` and `Mul` bring a constant back: ONNX Runtime (seen in 1.31.1) folds both when it loads the
model, so that the op runs on the kernels of float. It never folds a DequantizeLinear, and a Conv
behind one takes 1.1 to 6 times as long as in float (measured, notes quant-quality 2.1).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from edgeq.numerics import affine, blocks
from edgeq.quant.plan import Encoding
from edgeq_converters.write.sink import Sink


class Stored:
    """Stores each tensor once, whoever reads it. `key` is what the plan calls the encoding."""

    def __init__(self, sink: Sink) -> None:
        self.sink = sink
        self._codes: dict[tuple[str, bool], str] = {}
        self._scales: dict[tuple[str, int], str] = {}
        self._restored: dict[str, str] = {}

    def codes(
        self, key: str, array: NDArray[Any], encoding: Encoding, *, transposed: bool = False
    ) -> str:
        """The int8 codes of weights [...] as an initializer."""
        if (key, transposed) not in self._codes:
            scale = np.array(encoding.scale, np.float32)
            codes = affine.quantize(array, scale, axis=encoding.axis)
            name = self.sink.store(f"{key}_codes", codes.T if transposed else codes)
            self._codes[key, transposed] = name
        return self._codes[key, transposed]

    def scales(self, key: str, encoding: Encoding, after: int = 0) -> str:
        """The scales as an initializer [C, 1, ...] with `after` ones, or [] where there is one."""
        if (key, after) not in self._scales:
            scale = np.array(encoding.scale, np.float32)
            shape = () if encoding.axis is None else (scale.size, *[1] * after)
            self._scales[key, after] = self.sink.store(f"{key}_scale", scale.reshape(shape))
        return self._scales[key, after]

    def restored(self, key: str, array: NDArray[Any], encoding: Encoding) -> str:
        """The float tensor that `array`, stored in int8, is turned back into."""
        if key not in self._restored:
            after = 0 if encoding.axis is None else array.ndim - encoding.axis - 1
            codes = self.codes(key, array, encoding)
            self._restored[key] = self.sink.fresh(f"{key}_restored")
            self._rescale(codes, self.scales(key, encoding, after), self._restored[key])
        return self._restored[key]

    def widened(self, key: str, matrix: NDArray[Any], encoding: Encoding) -> str:
        """The float tensor that `matrix`, stored in int4, is turned back into.

        By a DequantizeLinear, which is the one operator that reads blocks. ONNX Runtime (1.31.1)
        makes one operator of it and the product behind it where there are blocks.
        """
        if key in self._restored:
            return self._restored[key]
        axis, block = encoding.axis or 0, encoding.block
        scale = np.array(encoding.scale, np.float32)
        rows = matrix if axis == 0 else matrix.T
        if block is not None:
            scale = scale.reshape(rows.shape[0], -1)
        codes = blocks.quantize(rows, scale, block)
        if axis == 1:
            codes, scale = codes.T, scale.T
        inputs = [
            self.sink.store_nibbles(f"{key}_codes", codes),
            self.sink.store(f"{key}_scale", scale),
        ]
        self._restored[key] = self.sink.fresh(f"{key}_restored")
        along = axis if block is None else 1 - axis
        outputs = [self._restored[key]]
        self.sink.add("DequantizeLinear", "", inputs, outputs, axis=along, block_size=block)
        return self._restored[key]

    def gathered(
        self, node: onnx.NodeProto, key: str, table: NDArray[Any], encoding: Encoding
    ) -> None:
        """`node`, a Gather of rows of `table` [V, ...], on its codes.

        Rows are brought back after they are picked, so the table stays int8 in memory.
        """
        output = node.output[0]
        tables = {
            "codes": self.codes(key, table, encoding),
            "scale": self.scales(key, encoding, table.ndim - 1),
        }
        picked = {word: self.sink.fresh(f"{output}_{word}") for word in tables}
        for word, stored in tables.items():
            inputs, name = [stored, node.input[1]], f"{node.name}_{word}"
            self.sink.add("Gather", name, inputs, [picked[word]], axis=0)
        self._rescale(picked["codes"], picked["scale"], output)

    def _rescale(self, codes: str, scale: str, output: str) -> None:
        wide = self.sink.fresh(f"{output}_wide")
        to = int(onnx.TensorProto.FLOAT)
        self.sink.add("Cast", "", [codes], [wide], to=to)
        self.sink.add("Mul", "", [wide, scale], [output])
