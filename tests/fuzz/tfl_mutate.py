"""Turn a TFLite seed into a hostile file, the same one for the same (seed, index) everywhere."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable, Iterator
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema
from tfl_seeds import serialized

_WHOLE = (0, 1, -1, 2, 3, 4, 5, 7, 8, 16, 64, 127, 128, 255, -2, -128, 2**15, 2**31 - 1, -(2**31))
_HUGE = (2**31, 2**32 - 1, 2**32, 2**40, 2**63 - 1, -(2**63), 2**64 - 1)
_REAL = (0.0, -0.0, 1.0, -1.0, 1e-45, 1e38, float("inf"), float("nan"), 0.5, 1e-6)
_WORDS = (
    b"",
    b"x",
    b"\xff\xfe",
    b"a\0b",
    b"serving_default",
    b"edgeq",
    b"%s",
    b"n" * 300,
    b"a\nb\x1b[2J",
)

Mutation = Callable[[random.Random, Any], None]


def mutant(seed: int, index: int) -> tuple[str, bytes]:
    """("structure" | "bytes", file): two of three files are whole flatbuffers of hostile values."""
    rng = random.Random(f"tflite:{seed}:{index}")
    base = rng.choice(serialized())
    if index % 3 == 2:
        return "bytes", _bytes(rng, base)
    model = schema.ModelT.InitFromPackedBuf(base, 0)
    packed = base
    for _ in range(rng.choice((1, 1, 1, 2, 3, 5))):
        try:
            rng.choice(MUTATIONS)(rng, model)
            packed = _packed(model)
        except (IndexError, ValueError, TypeError, AttributeError, OverflowError, struct.error):
            model = schema.ModelT.InitFromPackedBuf(packed, 0)  # no value that the field can hold
    return "structure", packed


def _packed(model: Any) -> bytes:
    builder = flatbuffers.Builder(4096)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def _whole(rng: random.Random) -> int:
    roll = rng.random()
    return (
        rng.choice(_WHOLE)
        if roll < 0.5
        else rng.randint(-2, 12)
        if roll < 0.9
        else rng.choice(_HUGE)
    )


def _graph(rng: random.Random, model: Any) -> Any:
    return rng.choice(model.subgraphs)


def _tensor(rng: random.Random, model: Any) -> Any:
    return rng.choice(_graph(rng, model).tensors)


def _operator(rng: random.Random, model: Any) -> Any:
    return rng.choice(_graph(rng, model).operators)


def _objects(value: Any) -> Iterator[Any]:
    """Every table of the file."""
    waiting = [value]
    while waiting:
        item = waiting.pop()
        if isinstance(item, list):
            waiting += item
        elif hasattr(item, "__dict__"):
            yield item
            waiting += vars(item).values()


# -- anything, anywhere ---------------------------------------------------------------------------


def any_field(rng: random.Random, model: Any) -> None:
    """Some field of some table: another number, another text, a vector changed, or gone."""
    table = rng.choice(list(_objects(model)))
    _change(rng, table, rng.choice(list(vars(table))))


def _change(rng: random.Random, table: Any, name: str) -> None:
    value = getattr(table, name)
    if isinstance(value, bool):
        made: Any = not value
    elif isinstance(value, int):
        made = _whole(rng)
    elif isinstance(value, float):
        made = rng.choice(_REAL)
    elif isinstance(value, bytes):
        made = rng.choice(_WORDS)
    elif isinstance(value, (list, np.ndarray)) and len(value):
        made = _list(rng, list(value))
    else:
        made = None
    setattr(table, name, made)


def _list(rng: random.Random, rows: list[Any]) -> Any:
    at, action = rng.randrange(len(rows)), rng.randrange(5)
    if action == 0:
        del rows[at]
    elif action == 1:
        rows.insert(at, rng.choice(rows))
    elif action == 2:
        rng.shuffle(rows)
    elif isinstance(rows[at], (int, float, np.number)):
        real = isinstance(rows[at], (float, np.floating))
        rows[at] = rng.choice(_REAL) if real else _whole(rng)
    return rows


# -- what a verifier passes and a kernel must take ------------------------------------------------


def option(rng: random.Random, model: Any) -> None:
    """A number of an operator's options: strides of 0, axes out of range."""
    operator = _operator(rng, model)
    table = operator.builtinOptions or operator.builtinOptions2
    if table is not None and vars(table):
        _change(rng, table, rng.choice(list(vars(table))))


def constant(rng: random.Random, model: Any) -> None:
    """The values of a constant: indices, shapes, axes, lengths of strings."""
    buffers = [row for row in model.buffers if row.data is not None and len(row.data)]
    buffer = rng.choice(buffers)
    data = bytearray(np.asarray(buffer.data, np.uint8).tobytes())
    for _ in range(rng.choice((1, 1, 3))):
        at = rng.randrange(len(data))
        size = rng.choice((1, 4))
        at -= at % size
        data[at : at + size] = (_whole(rng) & (256**size - 1)).to_bytes(size, "little")
    buffer.data = np.frombuffer(bytes(data[: len(buffer.data)]), np.uint8)


def shape(rng: random.Random, model: Any) -> None:
    """Of a tensor; of a constant, one that needs the same number of bytes."""
    tensor = _tensor(rng, model)
    sizes = [int(size) for size in tensor.shape]
    action = rng.randrange(4)
    if action == 0:
        rng.shuffle(sizes)
    elif action == 1:
        sizes.insert(rng.randint(0, len(sizes)), 1)
    elif action == 2:
        sizes = [int(np.prod(sizes))]
    else:
        sizes[rng.randrange(len(sizes))] = _whole(rng)
    tensor.shape = np.array(sizes, np.int32)


def element_type(rng: random.Random, model: Any) -> None:
    _tensor(rng, model).type = rng.randrange(23)


def quantization(rng: random.Random, model: Any) -> None:
    tensor = _tensor(rng, model)
    made = schema.QuantizationParametersT()
    count = rng.choice((1, 1, *(int(size) for size in tensor.shape if size < 100)))
    made.scale = np.array([rng.choice((*_REAL, 0.1, 2.0))] * count, np.float32)
    made.zeroPoint = np.array([rng.randint(-3, 3)] * count, np.int64)
    made.quantizedDimension = rng.randint(0, 4)
    tensor.quantization = rng.choice((made, None))


def edge(rng: random.Random, model: Any) -> None:
    """An operator reads or makes another tensor."""
    graph = _graph(rng, model)
    operator = rng.choice(graph.operators)
    name = rng.choice(("inputs", "inputs", "inputs", "outputs"))
    rows = [int(row) for row in getattr(operator, name)]
    rows[rng.randrange(len(rows))] = rng.choice((-1, *range(len(graph.tensors) + 1)))
    setattr(operator, name, rows)


def arity(rng: random.Random, model: Any) -> None:
    """Inputs or outputs more or fewer than the operator has."""
    operator = _operator(rng, model)
    name = rng.choice(("inputs", "inputs", "outputs"))
    rows = [int(row) for row in getattr(operator, name)]
    if rng.random() < 0.6:
        rows = rows[: rng.randrange(len(rows))]
    else:
        rows += rng.choices(rows, k=rng.choice((1, 2, 30)))
    setattr(operator, name, rows)


def another_operator(rng: random.Random, model: Any) -> None:
    """The operator becomes another, its options those of that one, or none."""
    operator = _operator(rng, model)
    code = schema.OperatorCodeT()
    code.builtinCode = rng.randrange(210)
    code.deprecatedBuiltinCode, code.version = min(code.builtinCode, 127), rng.choice((1, 2, 5, 99))
    model.operatorCodes.append(code)
    operator.opcodeIndex = len(model.operatorCodes) - 1
    if rng.random() < 0.8:
        operator.builtinOptions, operator.builtinOptionsType = None, 0
        operator.builtinOptions2, operator.builtinOptions2Type = None, 0


def version(rng: random.Random, model: Any) -> None:
    rng.choice(model.operatorCodes).version = rng.choice((0, 1, 2, 3, 4, 5, 6, 12, 99, -1))


def order(rng: random.Random, model: Any) -> None:
    rng.shuffle(_graph(rng, model).operators)


def ends(rng: random.Random, model: Any) -> None:
    """Inputs and outputs of a graph."""
    graph = _graph(rng, model)
    name = rng.choice(("inputs", "outputs"))
    rows = [int(row) for row in getattr(graph, name)]
    action = rng.randrange(3)
    if action == 0:
        rows = rows[1:]
    elif action == 1:
        rows.append(rng.randrange(len(graph.tensors)))
    else:
        rng.shuffle(rows)
    setattr(graph, name, rows)


def variable(rng: random.Random, model: Any) -> None:
    tensor = _tensor(rng, model)
    tensor.isVariable = not tensor.isVariable


def free_sizes(rng: random.Random, model: Any) -> None:
    tensor = _tensor(rng, model)
    tensor.shapeSignature = np.array([rng.choice((-1, int(n))) for n in tensor.shape], np.int32)


MUTATIONS: tuple[Mutation, ...] = (
    *(any_field, any_field, any_field, any_field, option, option, option, constant, constant),
    *(constant, shape, shape, element_type, quantization, edge, edge, arity, another_operator),
    *(version, order, ends, variable, free_sizes),
)


def _bytes(rng: random.Random, base: bytes) -> bytes:
    data = bytearray(base)
    action = rng.randrange(6)
    if action == 0:
        return bytes(data[: rng.randrange(len(data))])
    if action == 1:
        other = rng.choice(serialized())
        return bytes(data[: rng.randrange(len(data))]) + other[rng.randrange(len(other)) :]
    if action == 2:
        at = rng.randrange(len(data) // 4) * 4
        struct.pack_into(
            "<I", data, at, (at + rng.choice((4, 8, -4, 400, _whole(rng)))) & 0xFFFFFFFF
        )
        return bytes(data)
    for _ in range(rng.choice((1, 2, 8))):
        at = rng.randrange(len(data) if action < 5 else min(len(data), 300))
        if action == 3:
            data[at] ^= 1 << rng.randrange(8)
        else:
            data[at] = rng.choice((0, 1, 4, 0x7F, 0x80, 0xFF))
    return bytes(data)
