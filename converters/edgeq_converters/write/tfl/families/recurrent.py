"""LSTM, GRU and RNN: LiteRT's own LSTM over a sequence where it fits, else step by step.

A step of an unrolled layer is a FULLY_CONNECTED of the state, whose weights all steps share, and
elementwise operators; what comes from the inputs is one FULLY_CONNECTED for all steps. LiteRT's
LSTM keeps its state from one run to the next until `reset_all_variables` is called, which the
runtime does before every run.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir

from edgeq.ir import constant
from edgeq_converters.write.tfl.emitter import Array, Emitter, Unwritable
from edgeq_converters.write.tfl.layers import input_at

MOST_STEPS = 256
"""Steps that are written one by one: each is about a dozen operators."""

_GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
_DEFAULTS = {
    "LSTM": ("Sigmoid", "Tanh", "Tanh"),
    "GRU": ("Sigmoid", "Tanh"),
    "RNN": ("Tanh",),
}
_PLAIN = {"sigmoid": "LOGISTIC", "tanh": "TANH", "relu": "RELU", "elu": "ELU"}
_SCALED = ("affine", "hardsigmoid")
_ALPHA = {"hardsigmoid": 0.2, "affine": 1.0, "leakyrelu": 0.01, "elu": 1.0}
_BETA = {"hardsigmoid": 0.5}
_KERNEL_GATES = (0, 2, 3, 1)
"""Where LiteRT's input, forget, cell and output gates are in ONNX's order: i, o, f, c."""
_KERNEL_PEEPHOLES = (0, 2, 1)
"""The same of peepholes, in ONNX: i, o, f."""

Activation = Callable[[int], int]


@dataclass(frozen=True)
class Layer:
    """One direction of a node. `steps`, `batch`, `hidden` are sizes; activations are by place."""

    at: int
    reverse: bool
    steps: int
    batch: int
    hidden: int
    activations: tuple[tuple[str, float, float], ...]
    clip: float


@dataclass(frozen=True)
class Made:
    """What a direction gives: [steps, batch, hidden] (None: nobody reads it), and the last states,
    [batch, hidden]."""

    every: int | None
    state: int | None
    cell: int | None = None


def recurrent(e: Emitter, node: onnx_ir.Node) -> None:
    """All directions of a node, then its outputs."""
    layers = _layers(e, node)
    _check_lengths(e, node, layers[0])
    batch_major = bool(e.attribute("layout", 0))
    if node.op_type == "LSTM" and all(_fits_kernel(e, node, layer) for layer in layers):
        made = [_kernel(e, node, layer, batch_major) for layer in layers]
    else:
        steps = sum(layer.steps for layer in layers)
        if steps > MOST_STEPS:
            raise Unwritable(
                f"it has {steps} steps, and edgeq writes {MOST_STEPS} one by one at most"
            )
        made = [_unrolled(e, node, layer, batch_major) for layer in layers]
    _outputs(e, node, layers, made, batch_major)


def _layers(e: Emitter, node: onnx_ir.Node) -> list[Layer]:
    sizes = e.shape(node.inputs[0])
    steps, batch = (sizes[1], sizes[0]) if e.attribute("layout", 0) else sizes[:2]
    weights = e.constant(node.inputs[1])
    if weights is None or e.constant(node.inputs[2]) is None:
        raise Unwritable("its weights are computed while the model runs")
    directions = weights.shape[0]
    hidden = weights.shape[1] // _GATES[node.op_type]
    each = _activations(e, node, directions)
    clip = float(e.attribute("clip", 0.0))
    backward = e.attribute("direction", "forward") == "reverse"
    if not steps:
        raise Unwritable("its sequence has no steps")
    return [
        Layer(at, backward or at == 1, steps, batch, hidden, each[at], clip)
        for at in range(directions)
    ]


def _activations(
    e: Emitter, node: onnx_ir.Node, directions: int
) -> list[tuple[tuple[str, float, float], ...]]:
    """Name, alpha and beta of each activation of each direction.

    Lists of alphas and betas have one entry for each activation that has such a number.
    """
    defaults = _DEFAULTS[node.op_type]
    names = [str(name).lower() for name in e.attribute("activations", defaults * directions)]
    alphas = list(e.attribute("activation_alpha", ()))
    betas = list(e.attribute("activation_beta", ()))
    found = []
    for name in names:
        if name not in (*_PLAIN, *_SCALED, "leakyrelu"):
            raise Unwritable(f"edgeq knows no TFLite form of its activation `{name}`")
        has_alpha, has_beta = name in _ALPHA, name in _SCALED
        alpha = float(alphas.pop(0)) if alphas and has_alpha else _ALPHA.get(name, 0.0)
        beta = float(betas.pop(0)) if betas and has_beta else _BETA.get(name, 0.0)
        if name == "elu" and alpha != 1.0:
            raise Unwritable(f"TFLite has no Elu of alpha {alpha:g}")
        found.append((name, alpha, beta))
    count = len(defaults)
    return [tuple(found[at * count : (at + 1) * count]) for at in range(directions)]


def _check_lengths(e: Emitter, node: onnx_ir.Node, layer: Layer) -> None:
    value = input_at(node, 4)
    if value is None:
        return
    lengths = e.constant(value)
    if lengths is None or (lengths != layer.steps).any():
        raise Unwritable("its sequences have lengths of their own")


# -- inputs


def _given_state(e: Emitter, node: onnx_ir.Node, place: int, layer: Layer) -> int | None:
    """A state to begin with, [batch, hidden]; None for zeros."""
    value = input_at(node, place)
    array = constant(value)
    if value is None or (array is not None and not array.any()):
        return None
    at = e.take(value)
    axis = 1 if e.attribute("layout", 0) else 0
    picked = _picked(e, at, axis, layer.at)
    return e.reshaped(picked, (layer.batch, layer.hidden))


def _picked(e: Emitter, at: int, axis: int, index: int) -> int:
    """One index of an axis, which stays as one of size 1."""
    shape = list(e.file.shape(at))
    if shape[axis] == 1:
        return at
    begin = [index if place == axis else 0 for place in range(len(shape))]
    shape[axis] = 1
    made = e.temp(shape)
    e.op("SLICE", [at, e.numbers(begin), e.numbers(shape)], [made])
    return made


def _time_major(e: Emitter, node: onnx_ir.Node, batch_major: bool) -> int:
    at = e.take(node.inputs[0])
    return e.transposed(at, (1, 0, 2)) if batch_major else at


def _weights(e: Emitter, node: onnx_ir.Node, place: int, layer: Layer, first: int, end: int) -> int:
    """Rows of gates `first` to `end` of W (place 1) or R (2): [gates x hidden, in]."""
    hidden, at = layer.hidden, layer.at
    rows = slice(first * hidden, end * hidden)
    return e.parameter(node.inputs[place], lambda array: array[at, rows], 0)


def _vectors(e: Emitter, node: onnx_ir.Node, place: int, layer: Layer) -> Array:
    """Biases or peepholes of a direction, [rows, hidden]; zeros where they are left out."""
    value = input_at(node, place)
    rows = 2 * _GATES[node.op_type] if place == 3 else 3
    if value is None:
        return np.zeros((rows, layer.hidden), np.float32)
    array = e.constant(value)
    if array is None:
        raise Unwritable(f"`{value.name}` is computed while the model runs")
    encoding = e.encoding(value)
    if encoding is not None and encoding.dtype == "float16":
        array = array.astype(np.float16)
    return np.asarray(array[layer.at], np.float32).reshape(rows, layer.hidden)


# -- LiteRT's LSTM


def _fits_kernel(e: Emitter, node: onnx_ir.Node, layer: Layer) -> bool:
    """Whether the kernel computes what the node does; its last cell is not to be had."""
    names = tuple(name for name, _, _ in layer.activations)
    states = [_is_zero(input_at(node, place)) for place in (5, 6)]
    return (
        names[0] == "sigmoid"
        and names[1] == names[2]
        and names[1] in ("tanh", "relu")
        and all(states)
        and not layer.clip
        and not e.attribute("input_forget", 0)
        and not _is_read(node, 2)
    )


def _is_zero(value: onnx_ir.Value | None) -> bool:
    array = constant(value)
    return value is None or (array is not None and not array.any())


def _kernel(e: Emitter, node: onnx_ir.Node, layer: Layer, batch_major: bool) -> Made:
    """UNIDIRECTIONAL_SEQUENCE_LSTM; backwards between two reversals."""
    axis = 1 if batch_major else 0
    source = e.take(node.inputs[0])
    if layer.reverse:
        source = _reversed(e, source, axis)
    biases = _vectors(e, node, 3, layer)
    inputs = [source]
    for place in (1, 2):
        inputs += [_weights(e, node, place, layer, gate, gate + 1) for gate in _KERNEL_GATES]
    inputs += _kernel_peepholes(e, node, layer)
    inputs += [e.numbers(biases[gate] + biases[gate + 4], "float32") for gate in _KERNEL_GATES]
    inputs += [-1, -1, *(_variable(e, layer, word) for word in ("state", "cell"))]
    sizes = (layer.batch, layer.steps) if batch_major else (layer.steps, layer.batch)
    every = e.temp((*sizes, layer.hidden))
    e.op(
        "UNIDIRECTIONAL_SEQUENCE_LSTM",
        [*inputs, -1, -1, -1, -1],
        [every],
        fused_activation_function=layer.activations[1][0].upper(),
        time_major=not batch_major,
    )
    if layer.reverse:
        every = _reversed(e, every, axis)
    state = None
    if _is_read(node, 1):
        last = _picked(e, every, axis, 0 if layer.reverse else layer.steps - 1)
        state = e.reshaped(last, (layer.batch, layer.hidden))
    if batch_major and _is_read(node, 0):
        every = e.transposed(every, (1, 0, 2))
    return Made(every, state)


def _kernel_peepholes(e: Emitter, node: onnx_ir.Node, layer: Layer) -> list[int]:
    if input_at(node, 7) is None:
        return [-1, -1, -1]
    rows = _vectors(e, node, 7, layer)
    return [e.numbers(rows[row], "float32") for row in _KERNEL_PEEPHOLES]


def _variable(e: Emitter, layer: Layer, word: str) -> int:
    at = e.file.tensor(f"{e.node.name}_{word}", (layer.batch, layer.hidden), "float32")
    e.file.make_variable(at)
    return at


def _reversed(e: Emitter, at: int, axis: int) -> int:
    made = e.temp(e.file.shape(at))
    e.op("REVERSE_V2", [at, e.numbers([axis])], [made])
    return made


# -- step by step


class _Steps:
    """The operators of a step, on tensors of [batch, hidden] or so."""

    def __init__(self, e: Emitter, layer: Layer) -> None:
        self.e = e
        self.layer = layer

    def connected(self, at: int, weights: int, bias: int = -1) -> int:
        """at x weights + bias."""
        rows = self.e.file.shape(weights)[0]
        made = self.e.temp((self.e.file.shape(at)[0], rows))
        inputs = [at, weights, bias]
        self.e.op("FULLY_CONNECTED", inputs, [made], fused_activation_function="NONE")
        return made

    def binary(self, code: str, one: int, other: int) -> int:
        """ADD, SUB, MUL; a number beside a tensor is a constant of it."""
        shape = np.broadcast_shapes(self.e.file.shape(one), self.e.file.shape(other))
        made = self.e.temp(shape)
        self.e.op(code, [one, other], [made], fused_activation_function="NONE")
        return made

    def number(self, value: float) -> int:
        return self.e.numbers(value, "float32")

    def added(self, one: int, other: int | None) -> int:
        """The sum; None is nothing."""
        return one if other is None else self.binary("ADD", one, other)

    def split(self, at: int, count: int) -> list[int]:
        """Columns in `count` equal parts."""
        rows, columns = self.e.file.shape(at)
        if count == 1:
            return [at]
        parts = [self.e.temp((rows, columns // count)) for _ in range(count)]
        self.e.op("SPLIT", [self.e.numbers(1), at], parts, num_splits=count)
        return parts

    def active(self, at: int, place: int) -> int:
        """The activation in a place, of what the layer's clip leaves."""
        name, alpha, beta = self.layer.activations[place]
        if self.layer.clip:
            at = self._extreme("MINIMUM", at, self.layer.clip)
            at = self._extreme("MAXIMUM", at, -self.layer.clip)
        return self._activation(at, name, alpha, beta)

    def output(self, at: int, place: int) -> int:
        """The activation in a place, not clipped."""
        return self._activation(at, *self.layer.activations[place])

    def _extreme(self, code: str, at: int, bound: float) -> int:
        made = self.e.temp(self.e.file.shape(at))
        self.e.op(code, [at, self.number(bound)], [made])
        return made

    def _activation(self, at: int, name: str, alpha: float, beta: float) -> int:
        if name in _SCALED:
            at = self.binary("MUL", at, self.number(alpha))
            at = self.binary("ADD", at, self.number(beta))
            if name == "affine":
                return at
            return self._extreme("MAXIMUM", self._extreme("MINIMUM", at, 1.0), 0.0)
        made = self.e.temp(self.e.file.shape(at))
        if name == "leakyrelu":
            self.e.op("LEAKY_RELU", [at], [made], alpha=alpha)
        else:
            self.e.op(_PLAIN[name], [at], [made])
        return made


States = tuple[int | None, int | None]


def _unrolled(e: Emitter, node: onnx_ir.Node, layer: Layer, batch_major: bool) -> Made:
    step = {"LSTM": _lstm, "GRU": _gru, "RNN": _rnn}[node.op_type](e, node, layer)
    state = _given_state(e, node, 5, layer)
    cell = _given_state(e, node, 6, layer) if node.op_type == "LSTM" else None
    parts = _projected(e, node, layer, batch_major)
    every: list[int] = []
    for at in reversed(range(layer.steps)) if layer.reverse else range(layer.steps):
        state, cell = step(parts[at], (state, cell))
        assert state is not None
        every.append(state)
    if layer.reverse:
        every.reverse()
    if not _is_read(node, 0):
        return Made(None, state, cell)
    joined = every[0]
    if len(every) > 1:
        joined = e.temp((layer.steps * layer.batch, layer.hidden))
        e.op("CONCATENATION", every, [joined], axis=0, fused_activation_function="NONE")
    return Made(e.reshaped(joined, (layer.steps, layer.batch, layer.hidden)), state, cell)


def _projected(e: Emitter, node: onnx_ir.Node, layer: Layer, batch_major: bool) -> list[int]:
    """W x + the biases that are added to it, of every step: [batch, gates x hidden] each."""
    gates = _GATES[node.op_type]
    source = _time_major(e, node, batch_major)
    steps, batch, inputs = e.file.shape(source)
    biases = _vectors(e, node, 3, layer)
    total = biases[:gates] + biases[gates:]
    if node.op_type == "GRU" and e.attribute("linear_before_reset", 0):
        total[2] = biases[2]
    weights = _weights(e, node, 1, layer, 0, gates)
    bias = e.numbers(total.reshape(-1), "float32")
    flat = e.reshaped(source, (steps * batch, inputs))
    product = _Steps(e, layer).connected(flat, weights, bias)
    if steps == 1:
        return [product]
    parts = [e.temp((batch, gates * layer.hidden)) for _ in range(steps)]
    e.op("SPLIT", [e.numbers(0), product], parts, num_splits=steps)
    return parts


Step = Callable[[int, States], States]


def _rnn(e: Emitter, node: onnx_ir.Node, layer: Layer) -> Step:
    """H = f(W x + R H + b)."""
    ops = _Steps(e, layer)
    weights = _weights(e, node, 2, layer, 0, 1)

    def step(part: int, states: States) -> States:
        state, _ = states
        fed = None if state is None else ops.connected(state, weights)
        return ops.active(ops.added(part, fed), 0), None

    return step


def _gru(e: Emitter, node: onnx_ir.Node, layer: Layer) -> Step:
    """H = (1 - z) h + z H, with the reset gate before or behind the product."""
    return (_gru_linear if e.attribute("linear_before_reset", 0) else _gru_plain)(e, node, layer)


def _gru_plain(e: Emitter, node: onnx_ir.Node, layer: Layer) -> Step:
    """h = g(W x + R (r H) + b)."""
    ops = _Steps(e, layer)
    gates = _weights(e, node, 2, layer, 0, 2)
    hidden = _weights(e, node, 2, layer, 2, 3)

    def step(part: int, states: States) -> States:
        state, _ = states
        update, reset, new = ops.split(part, 3)
        if state is None:
            return _mixed(ops, ops.active(update, 0), ops.active(new, 1), None), None
        fed = ops.split(ops.connected(state, gates), 2)
        update = ops.active(ops.added(update, fed[0]), 0)
        reset = ops.active(ops.added(reset, fed[1]), 0)
        inside = ops.connected(ops.binary("MUL", reset, state), hidden)
        return _mixed(ops, update, ops.active(ops.added(new, inside), 1), state), None

    return step


def _gru_linear(e: Emitter, node: onnx_ir.Node, layer: Layer) -> Step:
    """h = g(W x + r (R H + b') + b)."""
    ops = _Steps(e, layer)
    weights = _weights(e, node, 2, layer, 0, 3)
    behind = _vectors(e, node, 3, layer)[5]
    zeros = np.zeros_like(behind)
    bias = e.numbers(np.concatenate([zeros, zeros, behind]), "float32")

    def step(part: int, states: States) -> States:
        state, _ = states
        update, reset, new = ops.split(part, 3)
        inside = e.numbers(behind, "float32")
        if state is not None:
            fed = ops.split(ops.connected(state, weights, bias), 3)
            update, reset = ops.added(update, fed[0]), ops.added(reset, fed[1])
            inside = fed[2]
        kept = ops.binary("MUL", ops.active(reset, 0), inside)
        update = ops.active(update, 0)
        return _mixed(ops, update, ops.active(ops.added(new, kept), 1), state), None

    return step


def _mixed(ops: _Steps, update: int, new: int, state: int | None) -> int:
    """new + update (state - new)."""
    if state is None:
        return ops.binary("SUB", new, ops.binary("MUL", update, new))
    return ops.added(new, ops.binary("MUL", update, ops.binary("SUB", state, new)))


def _lstm(e: Emitter, node: onnx_ir.Node, layer: Layer) -> Step:
    """C = f C + i c, H = o h(C); the gates may look at C through peepholes."""
    ops = _Steps(e, layer)
    weights = _weights(e, node, 2, layer, 0, 4)
    coupled = bool(e.attribute("input_forget", 0))
    looks: list[int] | None = None
    if input_at(node, 7) is not None:
        looks = [e.numbers(row, "float32") for row in _vectors(e, node, 7, layer)]

    def looking(at: int, gate: int, cell: int | None) -> int:
        if looks is None or cell is None:
            return at
        return ops.added(at, ops.binary("MUL", cell, looks[gate]))

    def step(part: int, states: States) -> States:
        state, cell = states
        fed = None if state is None else ops.connected(state, weights)
        let_in, let_out, forget, new = ops.split(ops.added(part, fed), 4)
        let_in = ops.active(looking(let_in, 0, cell), 0)
        made = ops.binary("MUL", let_in, ops.active(new, 1))
        if cell is not None:
            if coupled:
                forget = ops.binary("SUB", ops.number(1.0), let_in)
            else:
                forget = ops.active(looking(forget, 2, cell), 0)
            made = ops.added(made, ops.binary("MUL", forget, cell))
        let_out = ops.active(looking(let_out, 1, made), 0)
        return ops.binary("MUL", let_out, ops.output(made, 2)), made

    return step


# -- outputs


def _is_read(node: onnx_ir.Node, at: int) -> bool:
    """Whether anything uses output `at`."""
    if at >= len(node.outputs):
        return False
    value = node.outputs[at]
    return bool(value.name) and (bool(value.uses()) or value.is_graph_output())


def _outputs(
    e: Emitter,
    node: onnx_ir.Node,
    layers: Sequence[Layer],
    made: Sequence[Made],
    batch_major: bool,
) -> None:
    """Y [steps, directions, batch, hidden], Y_h and Y_c [directions, batch, hidden]; with the batch
    in front where the node has it there."""
    if _is_read(node, 0):
        _joined(e, node.outputs[0], [row.every for row in made], (2, 0, 1, 3), batch_major)
    if _is_read(node, 1):
        _joined(e, node.outputs[1], [row.state for row in made], (1, 0, 2), batch_major)
    if _is_read(node, 2):
        _joined(e, node.outputs[2], [row.cell for row in made], (1, 0, 2), batch_major)


def _joined(
    e: Emitter,
    value: onnx_ir.Value,
    tensors: Sequence[int | None],
    order: Sequence[int],
    batch_major: bool,
) -> None:
    """Directions beside each other: behind the steps, or in front."""
    parts = [at for at in tensors if at is not None]
    axis = len(order) - 3
    shape = list(e.file.shape(parts[0]))
    shape.insert(axis, 1)
    parts = [e.reshaped(at, shape) for at in parts]
    joined = parts[0]
    if len(parts) > 1:
        shape[axis] = len(parts)
        joined = e.temp(shape)
        e.op("CONCATENATION", parts, [joined], axis=axis, fused_activation_function="NONE")
    e.pass_on(e.transposed(joined, order) if batch_major else joined, value)


HANDLERS = dict.fromkeys(_GATES, recurrent)
