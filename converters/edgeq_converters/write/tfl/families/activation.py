"""Functions of one value: Relu, Sigmoid, Tanh and the like."""

from __future__ import annotations

import onnx_ir

from edgeq_converters.write.tfl.emitter import Emitter

_PLAIN = {"Relu": "RELU", "Sigmoid": "LOGISTIC", "Tanh": "TANH"}


def unary(e: Emitter, node: onnx_ir.Node) -> None:
    """One operator of one input, in whatever layout the input has."""
    value = node.inputs[0]
    layout = e.layout(value)
    e.op(_PLAIN[node.op_type], [e.take(value, layout)], [e.make(node.outputs[0], layout)])


HANDLERS = dict.fromkeys(_PLAIN, unary)
