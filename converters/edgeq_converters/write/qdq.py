"""Lower a graph and its plan to ONNX nodes: float ops between pairs of Quantize and Dequantize.

What an engine needs to fuse such a pattern, measured with ONNX Runtime 1.31.1: int8 weights and
int32 biases as constants behind a DequantizeLinear, no Relu or Clip left where the range of the
output already ends at its bound, both sides of an op that only moves data with equal parameters.
`dynamic` and `stored` have the patterns of other precisions, `half` that of float16.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import onnx
import onnx_ir
from numpy.typing import NDArray

from edgeq.ir import Graph, attribute, constant, is_captured
from edgeq.numerics import affine
from edgeq.quant import candidates
from edgeq.quant.layers import bias_vector
from edgeq.quant.plan import DYNAMIC, Encoding, QuantPlan, reader_key
from edgeq_converters.write import tensors
from edgeq_converters.write.clamps import codes_of, is_dropped, mismatch
from edgeq_converters.write.dynamic import Dynamic
from edgeq_converters.write.sink import Sink
from edgeq_converters.write.stored import Stored

_SHIFT = 128
"""int8 code + 128 = uint8 code, zero point likewise."""

_NAMED = ("int8", *DYNAMIC, "int8-weights")
"""Precisions that this module lowers; a node that has one must be in the graph."""


def lower(graph: Graph, plan: QuantPlan | None, activation_dtype: str) -> Sink:
    """Nodes and initializers of the artifact; raises EdgeqError [plan-mismatch]."""
    lowering = _Lowering(graph, plan or QuantPlan({}, {}), activation_dtype)
    return lowering.run()


class _Lowering:
    """One walk over the nodes. `floats` and `doubles` are the two names of a quantized tensor."""

    def __init__(self, graph: Graph, plan: QuantPlan, activation_dtype: str) -> None:
        self.graph = graph
        self.plan = plan
        self.unsigned = activation_dtype == "uint8"
        self.out = Sink(graph.model.graph)
        self.stored = Stored(self.out)
        self.dynamic = Dynamic(self.out, self.stored)
        self.nodes = graph.nodes()
        self._check_plan()
        self.dropped = {node for node in self.nodes if is_dropped(plan, node)}
        self.int8 = {node for node in self.nodes if self._is_int8(node)}
        self.quantized = self._quantized()
        self.raw: dict[onnx_ir.Value, str] = {}
        self.restored: dict[onnx_ir.Value, str] = {}
        self.constants: dict[str, str] = {}
        self.zero_points: dict[tuple[str, tuple[int, ...], bytes], str] = {}

    def run(self) -> Sink:
        for value in self.graph.model.graph.inputs:
            if value in self.quantized:
                self._pair(value)
        for node in self.nodes:
            if node not in self.dropped:
                self._node(node)
        self._add_initializers()
        return self.out

    def _check_plan(self) -> None:
        names = {str(node.name) for node in self.nodes}
        for name, decision in self.plan.ops.items():
            if decision.precision in _NAMED and name not in names:
                raise mismatch(f"it has an op `{name}`, and the graph has no such node")

    def _is_int8(self, node: onnx_ir.Node) -> bool:
        decision = self.plan.ops.get(str(node.name))
        return decision is not None and decision.precision == "int8"

    def _is_folded(self, node: onnx_ir.Node) -> bool:
        """Whether an int8 op before `node`, a clamp, does its work by the range of its output."""
        decision = self.plan.ops.get(str(node.name))
        return decision is not None and decision.fused_into is not None

    def _quantized(self) -> set[onnx_ir.Value]:
        """Activations that get a pair: what int8 nodes read and what they make."""
        found: set[onnx_ir.Value] = set()
        for node in self.nodes:
            if node not in self.int8:
                continue
            if not self._is_folded(node):
                active = (value for value in candidates.operands(node) if constant(value) is None)
                found.update(active)
            outputs = node.outputs if node.op_type == "Split" else node.outputs[:1]
            found.update(codes_of(self.plan, value) for value in outputs)
        return found

    def _node(self, node: onnx_ir.Node) -> None:
        decision = self.plan.ops.get(str(node.name))
        precision = "float32" if decision is None else decision.precision
        outputs = [self._past_dropped(value) for value in node.outputs]
        made = tensors.from_node(node)
        del made.input[:], made.output[:]
        made.output.extend(self._raw_name(value) for value in outputs)
        if precision == "dynamic-int8":
            self._dynamic(node, made)
        elif precision == "dynamic-int4":
            self._widened(node, made)
        elif precision == "int8-weights":
            self._stored(node, made)
        else:
            made.input.extend(self._inputs(node))
            self.out.nodes.append(made)
        for value in outputs:
            if value in self.quantized:
                self._pair(value)

    def _inputs(self, node: onnx_ir.Node) -> list[str]:
        """What the node reads, as an int8 op or as a float one."""
        quantized = node in self.int8 and not self._is_folded(node)
        operands = len(candidates.operands(node)) if quantized else 0
        return [
            self._operand(node, value, at) if at < operands else self._float(value)
            for at, value in enumerate(node.inputs)
        ]

    def _dynamic(self, node: onnx_ir.Node, made: onnx.NodeProto) -> None:
        """A MatMul or Gemm whose activation is quantized at run time."""
        made.input.extend(self._float(value) for value in node.inputs)
        weight = self._weight(node, node.inputs[1])
        if weight is None or node.op_type not in ("Gemm", "MatMul") or weight[1].ndim != 2:
            raise mismatch(f"node `{node.name}` ({node.op_type}) cannot run in dynamic int8")
        self.dynamic.product(made, *weight)

    def _widened(self, node: onnx_ir.Node, made: onnx.NodeProto) -> None:
        """A MatMul or Gemm on int4 weights: in float here, whatever other engines do."""
        made.input.extend(self._float(value) for value in node.inputs)
        weight = self._weight(node, node.inputs[1], "int4")
        if weight is None or node.op_type not in ("Gemm", "MatMul") or weight[1].ndim != 2:
            raise mismatch(f"node `{node.name}` ({node.op_type}) has no int4 matrix")
        made.input[1] = self.stored.widened(*weight)
        self.out.nodes.append(made)

    def _stored(self, node: onnx_ir.Node, made: onnx.NodeProto) -> None:
        """An op that computes in float; those of its constants that have an encoding are int8."""
        weights = [self._weight(node, value) for value in node.inputs]
        if node.op_type == "Gather" and weights[0] is not None:
            if weights[0][2].axis != 0 or attribute(node, "axis", 0) != 0:
                raise mismatch(f"node `{node.name}` (Gather) picks no rows of an int8 table")
            made.input.extend(self._float(value) for value in node.inputs)
            self.stored.gathered(made, *weights[0])
            return
        made.input.extend(
            self._float(value) if weight is None else self.stored.restored(*weight)
            for value, weight in zip(node.inputs, weights, strict=True)
        )
        self.out.nodes.append(made)

    def _weight(
        self, node: onnx_ir.Node, value: onnx_ir.Value | None, dtype: str = "int8"
    ) -> tuple[str, NDArray[Any], Encoding] | None:
        """Key, array and encoding of a constant that is stored in `dtype`; None for all others."""
        array = constant(value)
        if value is None or array is None:
            return None
        key = self._key(node, value)
        encoding = self.plan.tensors.get(key)
        if encoding is None or encoding.dtype != dtype or not encoding.symmetric:
            return None
        _check_scales(key, array, encoding)
        return key, array, encoding

    def _key(self, node: onnx_ir.Node, value: onnx_ir.Value) -> str:
        """Under which name the plan has what `node` sees of a constant."""
        key = reader_key(str(value.name), str(node.name))
        return key if key in self.plan.tensors else str(value.name)

    def _past_dropped(self, value: onnx_ir.Value) -> onnx_ir.Value:
        """The output a node writes once the clamps after it are gone."""
        reader = candidates.only_use(value)
        return self._past_dropped(reader.outputs[0]) if reader in self.dropped else value

    def _is_int8_made(self, value: onnx_ir.Value) -> bool:
        return value.producer() in self.int8

    def _raw_name(self, value: onnx_ir.Value) -> str:
        """The name of `value` before it is quantized; its own where a reader needs just that."""
        name = str(value.name or "")
        if value not in self.quantized or value.is_graph_input():
            return name
        if not self._is_int8_made(value) and (value.is_graph_output() or is_captured(value)):
            return name
        if value not in self.raw:
            self.raw[value] = self.out.fresh(f"{name}_raw", whole=True)
        return self.raw[value]

    def _float(self, value: onnx_ir.Value | None) -> str:
        """What a float op reads: never rounded unless an int8 op made it."""
        if value is None:
            return ""
        return str(value.name) if self._is_int8_made(value) else self._raw_name(value)

    def _operand(self, node: onnx_ir.Node, value: onnx_ir.Value | None, at: int) -> str:
        """What an int8 op reads: always the output of a DequantizeLinear."""
        assert value is not None
        array = constant(value)
        if array is None:
            return self.restored[value]
        key = self._key(node, value)
        if key not in self.constants:
            encoding = self._encoding(key)
            if encoding.dtype == "int32":
                array = self._bias(node, array, encoding)
            self.constants[key] = self._constant(key, array, encoding)
        return self.constants[key]

    def _bias(
        self, node: onnx_ir.Node, array: NDArray[Any], encoding: Encoding
    ) -> NDArray[np.float64]:
        """One value per channel, in float64 so that the division rounds once. The scale is one for
        all where that of the weights is."""
        channels = array.size if encoding.axis is None else len(encoding.scale)
        vector = bias_vector(array, channels)
        if vector is None:
            raise mismatch(f"the bias of node `{node.name}` has {array.size} values")
        return vector.astype(np.float64)

    def _encoding(self, tensor: str) -> Encoding:
        encoding = self.plan.tensors.get(tensor)
        if encoding is None:
            raise mismatch(f"tensor `{tensor}` has no encoding, and an int8 op uses it")
        return encoding

    def _constant(self, name: str, array: NDArray[Any], encoding: Encoding) -> str:
        """Store the codes of `array` behind a DequantizeLinear; returns the restored name."""
        scale = np.array(encoding.scale, np.float32)
        points = np.array(encoding.zero_point, np.int64)
        _check_scales(name, array, encoding)
        codes = affine.quantize(array, scale, points, dtype=encoding.dtype, axis=encoding.axis)
        stored = self.out.store(f"{name}_quantized", self._shifted(codes, encoding))
        restored = self.out.fresh(f"{name}_dequantized")
        inputs = [stored, *self._parameters(name, encoding)]
        self.out.add("DequantizeLinear", "", inputs, [restored], axis=encoding.axis)
        return restored

    def _pair(self, value: onnx_ir.Value) -> None:
        """Quantize and dequantize an activation where it is made."""
        name, raw = str(value.name), self._raw_name(value)
        encoding = self._encoding(name)
        parameters = self._parameters(name, encoding)
        codes = self.out.fresh(f"{name}_quantized")
        restored = self.out.fresh(f"{name}_dequantized") if raw == name else name
        self.restored[value] = restored
        self.out.add("QuantizeLinear", "", [raw, *parameters], [codes])
        self.out.add("DequantizeLinear", "", [codes, *parameters], [restored])

    def _parameters(self, name: str, encoding: Encoding) -> list[str]:
        """Store scale and zero point: numbers for one, vectors for one per channel."""
        scale = np.array(encoding.scale, np.float32)
        points = self._shifted(np.array(encoding.zero_point, np.int64), encoding)
        points = points if points.dtype == np.uint8 else points.astype(encoding.dtype)
        if encoding.axis is None:
            scale, points = scale.reshape(()), points.reshape(())
        own = encoding.symmetric and encoding.dtype == "int8"
        zero_point = self._zero_point(name, points, own=own)
        return [self.out.store(f"{name}_scale", scale), zero_point]

    def _zero_point(self, name: str, points: NDArray[Any], *, own: bool) -> str:
        """Stored once for all that have the same: most are zeros. Not so those of weights, which
        ONNX Runtime's exact mode replaces one by one, and fails at the second (1.31.1)."""
        if own:
            return self.out.store(f"{name}_zero_point", points)
        key = points.dtype.str, points.shape, points.tobytes()
        if key not in self.zero_points:
            self.zero_points[key] = self.out.store(f"{name}_zero_point", points)
        return self.zero_points[key]

    def _shifted(self, codes: NDArray[Any], encoding: Encoding) -> NDArray[Any]:
        """Activation codes and zero points as the artifact has them."""
        if self.unsigned and encoding.dtype == "int8" and not encoding.symmetric:
            return (codes.astype(np.int64) + _SHIFT).astype(np.uint8)
        return codes

    def _add_initializers(self) -> None:
        """Put the float constants that are still read in front; leave out the others."""
        outputs = {str(value.name) for value in self.graph.model.graph.outputs}
        read = set(_read_names(self.out.nodes)) | outputs
        self.out.nodes = [
            node for node in self.out.nodes if node.op_type != "Constant" or node.output[0] in read
        ]
        kept = [
            tensors.from_ir(name, value.const_value)
            for name, value in self.graph.model.graph.initializers.items()
            if name in read and value.const_value is not None
        ]
        self.out.initializers = kept + self.out.initializers


def _check_scales(name: str, array: NDArray[Any], encoding: Encoding) -> None:
    count = len(encoding.scale)
    if encoding.block is not None:
        if array.ndim != 2 or array.size != count * encoding.block:
            raise mismatch(f"tensor `{name}` {list(array.shape)} has {count} blocks")
        return
    size = 1 if encoding.axis is None else array.shape[encoding.axis : encoding.axis + 1]
    if size not in (count, (count,)):
        raise mismatch(f"tensor `{name}` {list(array.shape)} has {count} scales")


def _read_names(nodes: Iterable[onnx.NodeProto]) -> Iterable[str]:
    """Every tensor name that nodes read, in bodies too."""
    for node in nodes:
        yield from node.input
        for body in tensors.bodies_of(node):
            yield from _read_names(body.node)
            yield from (value.name for value in body.output)
