"""Dynamic int8: MatMul and Gemm on int8 weights, what they read quantized while the model runs.

    DynamicQuantizeLinear -> MatMulInteger -> Cast -> Mul(input scale * weight scales) [-> Add bias]

ONNX Runtime (seen in 1.31.1) fuses this, and only this, to DynamicQuantizeMatMul, or, where several
layers read one tensor, to one DynamicQuantizeLinear and a MatMulIntegerToFloat for each. Layers
that read one tensor are not merged to a wider one: with the Split after it that ran at 0.90 to 1.03
of the speed (measured on a MiniLM encoder of 8 to 128 rows, x86 with VNNI).

Codes are uint8 on every target: DynamicQuantizeLinear makes no other. ONNX Runtime has kernels for
uint8 x int8 on ARM too, at the speed of int8 x int8 where there is a dot product (their source; the
packed signed ones are for static layers alone; notes quant-quality 2.4).
"""

from __future__ import annotations

from typing import Any

import onnx
from numpy.typing import NDArray

from edgeq.quant.plan import Encoding
from edgeq_converters.write.sink import Sink
from edgeq_converters.write.stored import Stored


class Dynamic:
    """Lowers layers one by one; each tensor that they read is quantized once."""

    def __init__(self, sink: Sink, stored: Stored) -> None:
        self.sink = sink
        self.stored = stored
        self._quantized: dict[str, tuple[str, str, str]] = {}

    def product(
        self, node: onnx.NodeProto, key: str, weight: NDArray[Any], encoding: Encoding
    ) -> None:
        """`node` reads `weight` [K, N], or [N, K] where the encoding's axis is 0.

        A Gemm has alpha = beta = 1 and transA = 0; its bias is added in float.
        """
        sink, name, output = self.sink, node.name, node.output[0]
        source, source_scale, source_zero = self._quantize(node.input[0])
        codes = self.stored.codes(key, weight, encoding, transposed=encoding.axis == 0)
        scales = self.stored.scales(key, encoding)
        words = ("sums", "wide", "factor")
        sums, wide, factor = (sink.fresh(f"{output}_{word}") for word in words)
        bias = node.input[2] if len(node.input) > 2 else ""
        product = sink.fresh(f"{output}_product") if bias else output
        sink.add("MatMulInteger", name, [source, codes, source_zero], [sums])
        sink.add("Cast", f"{name}_widen", [sums], [wide], to=int(onnx.TensorProto.FLOAT))
        sink.add("Mul", f"{name}_factor", [source_scale, scales], [factor])
        sink.add("Mul", f"{name}_rescale", [wide, factor], [product])
        if bias:
            sink.add("Add", f"{name}_bias", [product, bias], [output])

    def _quantize(self, tensor: str) -> tuple[str, str, str]:
        """Codes, scale and zero point of `tensor`, made where it is first read."""
        if tensor not in self._quantized:
            words = ("codes", "scale", "zero_point")
            codes, scale, zero = (self.sink.fresh(f"{tensor}_dynamic_{word}") for word in words)
            outputs = [codes, scale, zero]
            self.sink.add("DynamicQuantizeLinear", f"{tensor}_quantize", [tensor], outputs)
            self._quantized[tensor] = (codes, scale, zero)
        return self._quantized[tensor]
