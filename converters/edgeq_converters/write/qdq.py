"""Lower a graph and its plan to ONNX nodes: float ops between pairs of Quantize and Dequantize.

What an engine needs to fuse such a pattern, measured with ONNX Runtime 1.31.1: int8 weights and
int32 biases as constants behind a DequantizeLinear, no Relu or Clip left where the range of the
output already ends at its bound, both sides of an op that only moves data with equal parameters.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import onnx_ir
from numpy.typing import NDArray

from edgeq.errors import EdgeqError
from edgeq.ir import Graph, constant, is_captured
from edgeq.numerics import affine
from edgeq.quant import candidates, rules
from edgeq.quant.layers import bias_vector
from edgeq.quant.plan import Encoding, QuantPlan, reader_key
from edgeq_converters.write import tensors

_SHIFT = 128
"""int8 code + 128 = uint8 code, zero point likewise."""


@dataclass
class Lowered:
    """Nodes in an order that runs, and the initializers they read."""

    nodes: list[onnx.NodeProto] = field(default_factory=list)
    initializers: list[onnx.TensorProto] = field(default_factory=list)


def lower(graph: Graph, plan: QuantPlan | None, activation_dtype: str) -> Lowered:
    """Nodes and initializers of the artifact; raises EdgeqError [plan-mismatch]."""
    lowering = _Lowering(graph, plan or QuantPlan({}, {}), activation_dtype)
    return lowering.run()


class _Names:
    """Hands out tensor and node names that the graph does not use."""

    def __init__(self, graph: onnx_ir.Graph) -> None:
        self._used: set[str] = set()
        for body in (graph, *graph.subgraphs()):
            values = (*body.inputs, *body.initializers.values())
            self._used.update(str(value.name) for value in values)
            for node in body:
                self._used.add(str(node.name))
                self._used.update(str(value.name) for value in node.outputs)

    def fresh(self, wanted: str) -> str:
        name, count = wanted, 1
        while name in self._used:
            count += 1
            name = f"{wanted}_{count}"
        self._used.add(name)
        return name


class _Lowering:
    """One walk over the nodes. `floats` and `doubles` are the two names of a quantized tensor."""

    def __init__(self, graph: Graph, plan: QuantPlan, activation_dtype: str) -> None:
        self.graph = graph
        self.plan = plan
        self.unsigned = activation_dtype == "uint8"
        self.names = _Names(graph.model.graph)
        self.out = Lowered()
        self.nodes = graph.nodes()
        self._check_plan()
        self.dropped = {node for node in self.nodes if self._is_dropped(node)}
        self.int8 = {node for node in self.nodes if self._is_int8(node)}
        self.quantized = self._quantized()
        self.raw: dict[onnx_ir.Value, str] = {}
        self.restored: dict[onnx_ir.Value, str] = {}
        self.constants: dict[str, str] = {}

    def run(self) -> Lowered:
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
            if decision.precision == "int8" and name not in names:
                raise _mismatch(f"it has an op `{name}`, and the graph has no such node")

    def _is_dropped(self, node: onnx_ir.Node) -> bool:
        """Whether the encoding of a folded clamp's output ends where the clamp would cut."""
        decision = self.plan.ops.get(str(node.name))
        if decision is None or decision.fused_into is None:
            return False
        bounds = candidates.clamp_bounds(node) if node.op_type in rules.CLAMPS else None
        encoding = self.plan.encoding(str(self._codes_of(node.outputs[0]).name))
        if bounds is None or encoding is None:
            raise _mismatch(f"node `{node.name}` is no clamp that could be folded away")
        scale, zero_point = encoding.scale[0], encoding.zero_point[0]
        low = affine.ends_at(bounds[0], scale, zero_point, upper=False)
        return low and affine.ends_at(bounds[1], scale, zero_point, upper=True)

    def _codes_of(self, value: onnx_ir.Value) -> onnx_ir.Value:
        """The tensor that holds the codes of `value`: after the clamps folded into its maker."""
        reader = candidates.only_use(value)
        decision = self.plan.ops.get(str(reader.name)) if reader is not None else None
        if reader is not None and decision is not None and decision.fused_into is not None:
            return self._codes_of(reader.outputs[0])
        return value

    def _is_int8(self, node: onnx_ir.Node) -> bool:
        decision = self.plan.ops.get(str(node.name))
        return decision is not None and decision.precision == "int8"

    def _quantized(self) -> set[onnx_ir.Value]:
        """Activations that get a pair: what int8 nodes read and what they make."""
        found: set[onnx_ir.Value] = set()
        for node in self.nodes:
            if node not in self.int8:
                continue
            if node.op_type not in rules.CLAMPS:
                active = (value for value in candidates.operands(node) if constant(value) is None)
                found.update(active)
            outputs = node.outputs if node.op_type == "Split" else node.outputs[:1]
            found.update(self._codes_of(value) for value in outputs)
        return found

    def _node(self, node: onnx_ir.Node) -> None:
        made = tensors.from_node(node)
        clamp = node.op_type in rules.CLAMPS
        operands = len(candidates.operands(node)) if node in self.int8 and not clamp else 0
        inputs = [
            self._operand(node, value, at) if at < operands else self._float(value)
            for at, value in enumerate(node.inputs)
        ]
        outputs = [self._past_dropped(value) for value in node.outputs]
        del made.input[:], made.output[:]
        made.input.extend(inputs)
        made.output.extend(self._raw_name(value) for value in outputs)
        self.out.nodes.append(made)
        for value in outputs:
            if value in self.quantized:
                self._pair(value)

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
            self.raw[value] = self.names.fresh(f"{name}_raw")
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
        key = reader_key(str(value.name), str(node.name))
        key = key if key in self.plan.tensors else str(value.name)
        if key not in self.constants:
            encoding = self._encoding(key)
            if encoding.dtype == "int32":
                array = self._bias(node, array, encoding)
            self.constants[key] = self._constant(key, array, encoding)
        return self.constants[key]

    def _bias(
        self, node: onnx_ir.Node, array: NDArray[Any], encoding: Encoding
    ) -> NDArray[np.float64]:
        """One value per channel, in float64 so that the division rounds once."""
        vector = bias_vector(array, len(encoding.scale))
        if vector is None:
            raise _mismatch(f"the bias of node `{node.name}` has {array.size} values")
        return vector.astype(np.float64)

    def _encoding(self, tensor: str) -> Encoding:
        encoding = self.plan.tensors.get(tensor)
        if encoding is None:
            raise _mismatch(f"tensor `{tensor}` has no encoding, and an int8 op uses it")
        return encoding

    def _constant(self, name: str, array: NDArray[Any], encoding: Encoding) -> str:
        """Store the codes of `array` behind a DequantizeLinear; returns the restored name."""
        scale = np.array(encoding.scale, np.float32)
        points = np.array(encoding.zero_point, np.int64)
        size = 1 if encoding.axis is None else array.shape[encoding.axis : encoding.axis + 1]
        if size not in (scale.size, (scale.size,)):
            raise _mismatch(f"tensor `{name}` {list(array.shape)} has {scale.size} scales")
        if encoding.dtype == "int8" and encoding.symmetric:
            codes: NDArray[Any] = affine.quantize_weights(array, scale, encoding.axis)
        else:
            codes = affine.quantize(array, scale, points, dtype=encoding.dtype, axis=encoding.axis)
        stored = self._store(f"{name}_quantized", self._shifted(codes, encoding))
        restored = self.names.fresh(f"{name}_dequantized")
        parameters = self._parameters(name, encoding)
        self._emit("DequantizeLinear", name, [stored, *parameters], restored, encoding.axis)
        return restored

    def _pair(self, value: onnx_ir.Value) -> None:
        """Quantize and dequantize an activation where it is made."""
        name, raw = str(value.name), self._raw_name(value)
        encoding = self._encoding(name)
        parameters = self._parameters(name, encoding)
        codes = self.names.fresh(f"{name}_quantized")
        restored = self.names.fresh(f"{name}_dequantized") if raw == name else name
        self.restored[value] = restored
        self._emit("QuantizeLinear", name, [raw, *parameters], codes, None)
        self._emit("DequantizeLinear", name, [codes, *parameters], restored, None)

    def _parameters(self, name: str, encoding: Encoding) -> list[str]:
        """Store scale and zero point: numbers for one, vectors for one per channel."""
        scale = np.array(encoding.scale, np.float32)
        points = self._shifted(np.array(encoding.zero_point, np.int64), encoding)
        points = points if points.dtype == np.uint8 else points.astype(encoding.dtype)
        if encoding.axis is None:
            scale, points = scale.reshape(()), points.reshape(())
        return [self._store(f"{name}_scale", scale), self._store(f"{name}_zero_point", points)]

    def _shifted(self, codes: NDArray[Any], encoding: Encoding) -> NDArray[Any]:
        """Activation codes and zero points as the artifact has them."""
        if self.unsigned and encoding.dtype == "int8" and not encoding.symmetric:
            return (codes.astype(np.int64) + _SHIFT).astype(np.uint8)
        return codes

    def _store(self, name: str, array: NDArray[Any]) -> str:
        name = self.names.fresh(name)
        self.out.initializers.append(tensors.from_array(name, array))
        return name

    def _emit(
        self, op_type: str, about: str, inputs: Sequence[str], output: str, axis: int | None
    ) -> None:
        word = "quantize" if op_type == "QuantizeLinear" else "dequantize"
        node = onnx.NodeProto(op_type=op_type, name=self.names.fresh(f"{about}_{word}"))
        node.input.extend(inputs)
        node.output.append(output)
        if axis is not None:
            node.attribute.append(onnx.helper.make_attribute("axis", axis))
        self.out.nodes.append(node)

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


def _read_names(nodes: Iterable[onnx.NodeProto]) -> Iterable[str]:
    """Every tensor name that nodes read, in bodies too."""
    for node in nodes:
        yield from node.input
        for attribute in node.attribute:
            for body in (*attribute.graphs, *([attribute.g] if attribute.HasField("g") else [])):
                yield from _read_names(body.node)
                yield from (value.name for value in body.output)


def _mismatch(what: str) -> EdgeqError:
    return EdgeqError("plan-mismatch", f"the plan does not fit the graph: {what}")
