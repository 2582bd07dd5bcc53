"""LSTM layers over a sequence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx_ir
from numpy.typing import NDArray

from edgeq_converters.read.tfl.reading import Handler, Reading, Unsupported
from edgeq_runtime.tflite import Operator

_ACTIVATIONS = {"TANH": "Tanh", "RELU": "Relu", "NONE": "Affine"}
_INPUT_WEIGHTS, _STATE_WEIGHTS, _PEEPHOLES, _BIASES = 1, 5, 9, 12
_PROJECTION, _NORMS = (16, 17), (20, 21, 22, 23)
_STATES = (18, 19)
_SATURATING = 8.0
"""tanh of it is 1 in float32 but for two steps."""


def sequence_lstm(ctx: Reading, op: Operator) -> None:
    """Gates of the file: input, forget, cell, output; of ONNX: input, output, forget, cell.

    The state starts at zero at every run; LiteRT keeps it from run to run until it is told not to.
    """
    _check(ctx, op)
    source, result = op.inputs[0], op.outputs[0]
    hidden, time_major = ctx.shape(result)[-1], bool(op.options["time_major"])
    perm = (0, 1, 2) if time_major else (1, 0, 2)
    kind = _ACTIVATIONS[op.options["fused_activation_function"]]
    named = kind != "Tanh"
    made = ctx.emit(
        "LSTM",
        ctx.value(source, perm),
        *_weights(ctx, op),
        None,
        None,
        None,
        _peepholes(ctx, op),
        hidden_size=hidden,
        activations=["Sigmoid", kind, kind] if named else None,
        activation_alpha=[1.0, 1.0] if kind == "Affine" else None,
        activation_beta=[0.0, 0.0] if kind == "Affine" else None,
    )
    axes = ctx.const(np.array([1], np.int64), "axes")
    ctx.put(result, ctx.emit("Squeeze", made, axes), perm)
    ctx.note("the state of an LSTM starts at zero at every run; LiteRT keeps it between runs")
    if ctx.encoding(result) is not None:
        ctx.note(f"`{op.code}`: its integers are not kept, it is computed in float")


def _check(ctx: Reading, op: Operator) -> None:
    options = op.options
    if ctx.given(op, _INPUT_WEIGHTS) < 0:
        raise Unsupported("couples its input and forget gates")
    if any(ctx.given(op, at) >= 0 for at in _PROJECTION):
        raise Unsupported("has a projection")
    if any(ctx.given(op, at) >= 0 for at in _NORMS):
        raise Unsupported("has layer normalization")
    _check_clip(ctx, op)
    if options["fused_activation_function"] not in _ACTIVATIONS:
        raise Unsupported(f"has the activation {options['fused_activation_function']} in it")
    for at in _STATES:
        index = ctx.given(op, at)
        if index >= 0 and not ctx.tensors[index].is_variable:
            raise Unsupported("is given its state")


def _check_clip(ctx: Reading, op: Operator) -> None:
    """ONNX has no clip of cells: one that a sequence this short cannot reach is none, and cells
    beyond one that saturates the activation are rare enough for a note."""
    clip = float(op.options["cell_clip"])
    steps = ctx.shape(op.inputs[0])[0 if op.options["time_major"] else 1]
    bounded = op.options["fused_activation_function"] == "TANH"
    if not clip or (bounded and steps <= clip):
        return
    if not bounded or clip < _SATURATING:
        raise Unsupported(f"clips its cell at {clip:g}")
    ctx.note(f"`{op.code}` clips its cells at {clip:g} and ONNX cannot: larger ones stay")


def _weights(ctx: Reading, op: Operator) -> list[onnx_ir.Value]:
    from_input = _gates(ctx, op, _INPUT_WEIGHTS)
    from_state = _gates(ctx, op, _STATE_WEIGHTS)
    bias = _gates(ctx, op, _BIASES)
    zeros = np.zeros_like(bias)
    arrays = {
        "input_weights": from_input[None],
        "state_weights": from_state[None],
        "bias": np.concatenate([bias, zeros])[None],
    }
    return [ctx.const(array.astype(np.float32), name) for name, array in arrays.items()]


def _gates(ctx: Reading, op: Operator, first: int) -> NDArray[np.float32]:
    """The four constants from input `first` on, in the order of ONNX, one after the other."""
    rows = [_constant(ctx, op.inputs[first + at]) for at in (0, 3, 1, 2)]
    return np.concatenate(rows)


def _constant(ctx: Reading, index: int) -> NDArray[np.float32]:
    array = None if index < 0 else ctx.array(index)
    if array is None:
        raise Unsupported("computes its weights")
    return np.asarray(array, np.float32)


def _peepholes(ctx: Reading, op: Operator) -> onnx_ir.Value | None:
    """In the file: input, forget, output; of ONNX: input, output, forget."""
    given: Sequence[int] = [ctx.given(op, _PEEPHOLES + at) for at in (0, 2, 1)]
    if all(index < 0 for index in given):
        return None
    rows = np.concatenate([_constant(ctx, index).reshape(-1) for index in given])
    return ctx.const(rows[None].astype(np.float32), "peepholes")


HANDLERS: Mapping[str, Handler] = {"UNIDIRECTIONAL_SEQUENCE_LSTM": sequence_lstm}
