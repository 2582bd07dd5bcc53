"""Products of matrices: layers with constant weights, and two activations."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir

from edgeq.ir import attribute, constant, static_shape
from edgeq.numerics import affine
from edgeq.quant import candidates
from edgeq.quant.layers import bias_vector
from edgeq.quant.plan import DYNAMIC
from edgeq_converters.write.clamps import mismatch
from edgeq_converters.write.tfl.emitter import Array, Emitter, Unwritable
from edgeq_converters.write.tfl.layers import check_scales, check_steps, input_at, require_float

_MAX_RANK = 5
"""Most axes of a BATCH_MATMUL."""

_ROOM = 2**30
"""What a bias that was none in the plan may take of int32, and what products may."""


@dataclass(frozen=True)
class Linear:
    """x W + b: `weights` is [out, in] where `by_rows`, else [in, out]; both are scaled before."""

    data: onnx_ir.Value
    weights: onnx_ir.Value
    by_rows: bool
    alpha: float = 1.0


def wants_flat(value: onnx_ir.Value) -> bool:
    """Whether all that reads `value` [N, F] can take its features in another order: layers, whose
    weights are reordered instead."""
    readers = value.consumers()
    if value.is_graph_output() or not readers or candidates.only_use(value) is None:
        return False
    return all(_reorders(reader, value) for reader in readers)


def _reorders(node: onnx_ir.Node, value: onnx_ir.Value) -> bool:
    weights = constant(input_at(node, 1))
    if node.domain not in ("", "ai.onnx") or weights is None or weights.ndim != 2:
        return False
    shape = static_shape(value)
    if shape is None or len(shape) != 2 or node.inputs[0] is not value:
        return False
    if node.op_type == "Gemm":
        return not attribute(node, "transA", 0) and input_at(node, 2) is not value
    return node.op_type == "MatMul"


def gemm(e: Emitter, node: onnx_ir.Node) -> None:
    """FULLY_CONNECTED; what is no bias per column is added behind it."""
    require_float(node)
    data, weights, bias = node.inputs[0], node.inputs[1], input_at(node, 2)
    assert data is not None and weights is not None
    alpha, beta = float(e.attribute("alpha", 1.0)), float(e.attribute("beta", 1.0))
    turned, by_rows = bool(e.attribute("transA", 0)), bool(e.attribute("transB", 0))
    if (alpha, beta) != (1.0, 1.0) and e.decision(node).precision not in ("float32", "other"):
        raise mismatch(f"node `{node.name}` has alpha or beta, and is not float")
    array = constant(bias)
    columns = e.shape(weights)[0 if by_rows else 1]
    vector = None if array is None else bias_vector(array, columns)
    plain = bias is None or (vector is not None and beta == 1.0)
    if constant(weights) is None or turned:
        source = e.take(data)
        right = e.take(weights)
        if by_rows:
            right = e.transposed(right, (1, 0))
        product = _product(e, e.transposed(source, (1, 0)) if turned else source, right, alpha)
        _sum(e, node, product, bias, beta)
        return
    linear = Linear(data, weights, by_rows, alpha)
    if plain:
        clamp, value = e.activation(node.outputs[0])
        source, filters = _operands(e, linear)
        check_scales(e, data, weights, bias)
        _connected(e, source, filters, e.bias(bias, columns), e.make(value), clamp)
        return
    source, filters = _operands(e, linear)
    product = e.temp(e.shape(node.outputs[0]))
    _connected(e, source, filters, -1, product, "NONE")
    _sum(e, node, product, bias, beta)


def _product(e: Emitter, left: int, right: int, alpha: float) -> int:
    """alpha times the product of two matrices."""
    product = e.temp([e.file.shape(left)[0], e.file.shape(right)[1]])
    _batched(e, left, right, product)
    return _scaled(e, product, alpha)


def _scaled(e: Emitter, at: int, factor: float) -> int:
    if factor == 1.0:
        return at
    made = e.temp(e.file.shape(at))
    inputs = [at, e.numbers(factor, "float32")]
    e.op("MUL", inputs, [made], fused_activation_function="NONE")
    return made


def _sum(
    e: Emitter, node: onnx_ir.Node, product: int, bias: onnx_ir.Value | None, beta: float
) -> None:
    """product + beta * bias, or what makes the product where there is no bias."""
    if e.int8:
        raise Unwritable("LiteRT has no int8 kernel for this Gemm")
    if bias is None:
        e.pass_on(product, node.outputs[0])
        return
    clamp, value = e.activation(node.outputs[0])
    added = _scaled(e, e.take(bias), beta)
    e.op("ADD", [product, added], [e.make(value)], fused_activation_function=clamp)


def _operands(e: Emitter, linear: Linear) -> tuple[int, int]:
    """The tensor of the data, and that of the weights [out, in] in the order of its features."""
    encoding = e.encoding(linear.weights)
    if encoding is not None and encoding.block is not None:  # runs of features: not to reorder
        source, order = e.take(linear.data), None
    else:
        source, order = e.features(linear.data)

    def arrange(array: Array) -> Array:
        array = array if linear.by_rows else array.T
        array = array if order is None else array[:, order]
        return array if linear.alpha == 1.0 else (array * linear.alpha).astype(array.dtype)

    return source, e.parameter(linear.weights, arrange, 0)


def _connected(e: Emitter, source: int, filters: int, bias: int, made: int, clamp: str) -> None:
    e.op(
        "FULLY_CONNECTED",
        [source, filters, bias],
        [made],
        fused_activation_function=clamp,
        keep_num_dims=len(e.file.shape(made)) > 2,
        asymmetric_quantize_inputs=e.decision(e.node).precision in DYNAMIC,
    )


def matmul(e: Emitter, node: onnx_ir.Node) -> None:
    """FULLY_CONNECTED where the right operand is a constant matrix, else BATCH_MATMUL."""
    require_float(node)
    left, right = node.inputs[0], node.inputs[1]
    assert left is not None and right is not None
    array = constant(right)
    if array is not None and array.ndim == 2 and len(e.shape(left)) > 1:
        _layer(e, node, Linear(left, right, by_rows=False))
        return
    if e.decision(node).precision in DYNAMIC:
        raise mismatch(f"node `{node.name}` (MatMul) has no constant matrix on its right")
    _activations(e, node)


def _layer(e: Emitter, node: onnx_ir.Node, linear: Linear) -> None:
    """With the bias that an Add behind it adds."""
    array = constant(linear.weights)
    assert array is not None
    check_steps(e, linear.data, linear.weights)
    source, filters = _operands(e, linear)
    value = node.outputs[0]
    add = _bias_behind(e, value, array.shape[1])
    bias = -1
    if add is not None:
        other = add.inputs[1] if add.inputs[0] is value else add.inputs[0]
        bias = _added_bias(e, linear, add, other)
        if bias >= 0:
            e.mark_done(add)
            value = add.outputs[0]
    clamp, value = e.activation(value)
    _connected(e, source, filters, bias, e.make(value), clamp)


def _bias_behind(e: Emitter, value: onnx_ir.Value, columns: int) -> onnx_ir.Node | None:
    """The Add that alone reads `value`, if what it adds is one number per column."""
    add = candidates.only_use(value)
    if add is None or add.op_type != "Add" or add.domain:
        return None
    other = add.inputs[1] if add.inputs[0] is value else add.inputs[0]
    array = constant(other)
    if other is value or array is None or array.ndim > len(e.shape(value)):
        return None
    if bias_vector(array, columns) is None:
        return None
    return add if e.int8 == (e.decision(add).precision == "int8") else None


def _added_bias(e: Emitter, linear: Linear, add: onnx_ir.Node, value: onnx_ir.Value | None) -> int:
    """The constant of an Add as a bias; -1 where int32 has no room for it, or where its steps,
    which are those of the products, are coarse beside those of the sum."""
    weights = constant(linear.weights)
    assert value is not None
    assert weights is not None
    columns = weights.shape[1]
    if not e.int8:
        return e.bias(value, columns)
    array = constant(value)
    vector = None if array is None else bias_vector(array, columns)
    x, w, y = (e.encoding(one) for one in (linear.data, linear.weights, add.outputs[0]))
    if vector is None or x is None or w is None or y is None:
        return -1
    scale = np.float32(x.scale[0]) * np.array(w.scale, np.float32)
    steps = np.rint(vector.astype(np.float64) / np.broadcast_to(scale, (columns,)))
    codes = affine.quantize_weights(weights, np.array(w.scale, np.float32), w.axis)
    sums = 255.0 * np.abs(codes.astype(np.int64)).sum(axis=0)
    if max(np.abs(steps).max(initial=0.0), sums.max(initial=0.0)) > _ROOM:
        return -1
    if scale.max() > y.scale[0] / 2:
        return -1
    return e.file.constant(
        str(value.name), steps.astype(np.int32), scale=scale, zero_point=[0] * scale.size, axis=0
    )


def _activations(e: Emitter, node: onnx_ir.Node) -> None:
    """BATCH_MATMUL, transposes of the last two axes taken into it."""
    (left, adj_x), (right, adj_y) = (_turned(e, value) for value in node.inputs[:2])
    sizes = [list(e.shape(node.inputs[0])), list(e.shape(node.inputs[1]))]
    if max(map(len, sizes)) > _MAX_RANK:
        raise Unwritable(f"TFLite has no MatMul of more than {_MAX_RANK} axes")
    one, other = e.take(left), e.take(right)
    if len(sizes[0]) == 1:
        one = e.reshaped(one, [1, *sizes[0]])
    if len(sizes[1]) == 1:
        other = e.reshaped(other, [*sizes[1], 1])
    made = e.make(node.outputs[0])
    target = made
    if min(map(len, sizes)) == 1:
        target = e.temp(_product_shape(e, one, other, adj_x, adj_y), like=made)
    _batched(e, one, other, target, adj_x, adj_y)
    if target != made:
        e.reshape(target, made)


def _product_shape(e: Emitter, left: int, right: int, adj_x: bool, adj_y: bool) -> list[int]:
    one, other = e.file.shape(left), e.file.shape(right)
    batch = np.broadcast_shapes(one[:-2], other[:-2])
    return [*batch, one[-1 if adj_x else -2], other[-2 if adj_y else -1]]


def _batched(
    e: Emitter, left: int, right: int, made: int, adj_x: bool = False, adj_y: bool = False
) -> None:
    e.op("BATCH_MATMUL", [left, right], [made], adj_x=adj_x, adj_y=adj_y)


def _turned(e: Emitter, value: onnx_ir.Value | None) -> tuple[onnx_ir.Value, bool]:
    """`value`, or what a Transpose of its last two axes makes it of."""
    assert value is not None
    maker = value.producer()
    if maker is None or maker.op_type != "Transpose" or maker.domain or constant(value) is not None:
        return value, False
    source, rank = maker.inputs[0], len(e.shape(value))
    order = list(range(rank))
    order[-2:] = reversed(order[-2:])
    wanted = list(attribute(maker, "perm", None) or reversed(range(rank)))
    if source is None or rank < 2 or wanted != order or constant(source) is not None:
        return value, False
    return (source, True) if not e.int8 or e.same_codes(source, value) else (value, False)


def fused_matmul(e: Emitter, node: onnx_ir.Node) -> None:
    """com.microsoft's MatMul with transposes and a factor."""
    require_float(node)
    if e.attribute("transBatchA", 0) or e.attribute("transBatchB", 0):
        raise Unwritable("TFLite has no product with transposed batches")
    turned = [bool(e.attribute("transA", 0)), bool(e.attribute("transB", 0))]
    if min(len(e.shape(value)) for value in node.inputs) < 2:
        turned = [False, False]
    one, other = e.take(node.inputs[0]), e.take(node.inputs[1])
    alpha = float(e.attribute("alpha", 1.0))
    product = e.temp(e.shape(node.outputs[0]))
    _batched(e, one, other, product, *turned)
    e.pass_on(_scaled(e, product, alpha), node.outputs[0])


HANDLERS = {"Gemm": gemm, "MatMul": matmul, "com.microsoft:FusedMatMul": fused_matmul}
