"""Encodings of weights, biases and constant operands, raised where integers would overflow."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeq.errors import EdgeqError
from edgeq.numerics import affine
from edgeq.numerics.pair_safe import pair_safe_scale
from edgeq.quant.layers import Layer, bias_vector, weight_rows
from edgeq.quant.plan import Encoding, reader_key

_BIAS_LIMIT = 2**30
"""Largest bias code: half of int32, the other half is left to the products."""

_SUM_LIMIT = 2**31 - 1
"""Largest sum the int32 accumulator may reach."""

_DEAD_SCALE = 2.0**-10
"""Weight scale of a layer whose weights are all zero."""


class WeightEncoder:
    """Fills `encodings` layer by layer and counts what it had to raise."""

    def __init__(
        self,
        arrays: Mapping[str, NDArray[Any]],
        activations: Mapping[str, Encoding],
        *,
        pair_safe: bool,
    ) -> None:
        self.encodings: dict[str, Encoding] = {}
        self._arrays = arrays
        self._activations = activations
        self._pair_safe = pair_safe
        self._counts = dict.fromkeys(("all", "dead", "bias", "sum", "pairs"), 0)

    def add_layer(self, layer: Layer) -> None:
        """Encode the weights of `layer`, symmetric per channel, and its bias as s_x * s_w."""
        rows = weight_rows(layer, self._arrays[layer.weight])
        bias = None
        if layer.bias is not None:
            bias = bias_vector(self._arrays[layer.bias], rows.shape[0])
            assert bias is not None, layer.bias
        input_scale = self._activations[layer.input].scale[0]
        scale = self._row_scales(layer, rows, bias, input_scale)
        self._check_product(layer, input_scale, scale)
        scale = scale[:1] if layer.axis is None else scale
        self._counts["all"] += scale.size
        self._put_layer(layer, input_scale, scale)

    def _row_scales(
        self,
        layer: Layer,
        rows: NDArray[Any],
        bias: NDArray[np.float32] | None,
        input_scale: float,
    ) -> NDArray[np.float32]:
        """Scales [R] of `rows` [R, K]; all equal where the layer has one scale for all."""
        one = layer.axis is None
        scale = _common(self._fit_bias(self._plain(rows), bias, input_scale), one)
        if self._pair_safe and layer.pairs:
            safe = pair_safe_scale(rows, scale)
            self._counts["pairs"] += int(np.count_nonzero(safe > scale))
            scale = _common(safe, one)
        return _common(self._fit_sum(rows, bias, input_scale, scale), one)

    def _put_layer(self, layer: Layer, input_scale: float, scale: NDArray[np.float32]) -> None:
        zeros = (0,) * scale.size
        numbers = tuple(float(item) for item in scale)
        encoding = Encoding("int8", numbers, zeros, layer.axis, True, "weights")
        self._put(layer.weight, layer.node, encoding)
        if layer.bias is not None:
            products = tuple(float(np.float32(input_scale) * item) for item in scale)
            encoding = Encoding("int32", products, zeros, 0, True, "input scale * weight scale")
            self._put(layer.bias, layer.node, encoding)

    def add_operand(self, tensor: str, node: str) -> None:
        """Encode a constant that an op reads in an activation's place."""
        array = self._arrays[tensor]
        scale, zero_point = affine.from_range(float(array.min()), float(array.max()))
        self._put(tensor, node, Encoding("int8", (scale,), (zero_point,), origin="constant"))

    def notes(self) -> list[str]:
        """One line for each kind of scale that is not simply max |w| / 127."""
        total = self._counts["all"]
        texts = {
            "dead": "hold only zeros",
            "bias": "have a coarser scale so that their bias fits int32",
            "sum": "have a coarser scale so that their sum fits int32",
            "pairs": "have a coarser scale so that no pair of weights saturates x86 kernels",
        }
        return [
            f"{self._counts[key]} of {total} weight channels {text}"
            for key, text in texts.items()
            if self._counts[key]
        ]

    def _put(self, tensor: str, node: str, encoding: Encoding) -> None:
        """Under the tensor's name; if another reader has it with other numbers, under this node."""
        held = self.encodings.setdefault(tensor, encoding)
        if held != encoding:
            self.encodings[reader_key(tensor, node)] = encoding

    def _plain(self, rows: NDArray[Any]) -> NDArray[np.float32]:
        """max |w| / 127 per row [R, K] -> [R]; a row of zeros takes the others' least scale."""
        peaks = np.abs(rows).max(axis=1, initial=0.0)
        scale = affine.symmetric_scale(peaks)
        dead = peaks == 0.0
        if dead.any():
            scale[dead] = _DEAD_SCALE if dead.all() else scale[~dead].min()
            self._counts["dead"] += int(np.count_nonzero(dead))
        return scale

    def _fit_bias(
        self, scale: NDArray[np.float32], bias: NDArray[np.float32] | None, input_scale: float
    ) -> NDArray[np.float32]:
        """Raise `scale` [R] where the code of `bias` [R] would pass its limit."""
        if bias is None:
            return scale
        floor = np.abs(bias.astype(np.float64)) / (input_scale * _BIAS_LIMIT)
        self._counts["bias"] += int(np.count_nonzero(floor > scale))
        return np.maximum(scale, affine.round_up_scale(floor))

    def _fit_sum(
        self,
        rows: NDArray[Any],
        bias: NDArray[np.float32] | None,
        input_scale: float,
        scale: NDArray[np.float32],
    ) -> NDArray[np.float32]:
        """Raise `scale` [R] until 255 * sum |q_w| + |q_b| fits int32, whatever the activations."""
        raised = np.zeros(scale.shape, np.bool_)
        while True:
            codes = affine.quantize_weights(rows, scale, 0).astype(np.int64)
            sums = 255.0 * np.abs(codes).sum(axis=1)
            if bias is not None:
                sums = sums + np.ceil(np.abs(bias) / (input_scale * scale.astype(np.float64)))
            over = sums > _SUM_LIMIT
            if not over.any():
                self._counts["sum"] += int(np.count_nonzero(raised))
                return scale
            raised |= over
            factor = np.where(over, sums / _SUM_LIMIT * 1.001, 1.0)
            scale = affine.round_up_scale(scale * factor)

    def _check_product(self, layer: Layer, input_scale: float, scale: NDArray[np.float32]) -> None:
        product = float(scale.max()) * input_scale
        if product > float(np.finfo(np.float32).max):
            raise EdgeqError(
                "range-too-wide",
                f"node `{layer.node}` ({layer.op_type}): input scale {input_scale:.3g} times "
                f"weight scale {float(scale.max()):.3g} is beyond float32",
                f"keep it in float: `--keep-float {layer.node}`",
            )


def _common(scale: NDArray[np.float32], one: bool) -> NDArray[np.float32]:
    """`scale` itself, or its largest everywhere: codes only shrink under a larger scale."""
    return np.full_like(scale, scale.max()) if one else scale
