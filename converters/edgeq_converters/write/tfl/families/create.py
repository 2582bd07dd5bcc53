"""What follows from shapes alone, sequences of numbers, and what has no static shape."""

from __future__ import annotations

import string
from collections import Counter
from collections.abc import Sequence

import numpy as np
import onnx_ir

from edgeq.ir import dtype_of
from edgeq_converters.write.tfl.emitter import Emitter, Unwritable
from edgeq_converters.write.tfl.steps import FLOAT, WHOLE, Steps, cast, kind

_LARGEST_CONSTANT = 1 << 16
"""Elements up to which equal numbers are stored and not made while the model runs."""

REFUSED = {
    "NonZero": "how many elements are not zero is known only when the model runs",
    "Compress": "how many elements it keeps is known only when the model runs",
    "Unique": "how many elements are unique is known only when the model runs",
    "NonMaxSuppression": (
        "how many boxes it keeps is known only when the model runs; do it after the model"
    ),
}
"""Why operators have no handler."""


def size(e: Emitter, node: onnx_ir.Node) -> None:
    """Shape and Size."""
    value = node.inputs[0]
    shape = e.shape(value)
    if node.op_type == "Size":
        e.alias(node.outputs[0], e.numbers(int(np.prod(shape)), "int64"))
        return
    end = e.attribute("end", None)
    numbers = shape[int(e.attribute("start", 0)) : None if end is None else int(end)]
    e.alias(node.outputs[0], e.numbers(numbers, "int64"))


def filled(e: Emitter, node: onnx_ir.Node) -> None:
    """ConstantOfShape."""
    result = node.outputs[0]
    shape = e.shape(result)
    given = e.attribute("value", None)
    number = np.float32(0.0) if given is None else given.numpy().reshape(())
    dtype = dtype_of(result)
    if np.prod(shape) <= _LARGEST_CONSTANT:
        e.alias(result, e.numbers(np.full(shape, number), dtype))
        return
    working = kind(dtype, (*FLOAT, *WHOLE, "int8", "int16", "uint8", "bool"))
    made = e.make(result, codes=False)
    part = made if working == dtype else e.temp(shape, dtype=working)
    e.op("FILL", [e.numbers(list(shape)), e.numbers(number, working)], [part])
    e.settle(part, made)


def diagonal(e: Emitter, node: onnx_ir.Node) -> None:
    """EyeLike."""
    result = node.outputs[0]
    rows, columns = e.shape(result)
    ones = np.eye(rows, columns, int(e.attribute("k", 0)))
    e.alias(result, e.numbers(ones, dtype_of(result)))


def count(e: Emitter, node: onnx_ir.Node) -> None:
    """Range, of a length that is known."""
    result = node.outputs[0]
    e.shape(result)
    inputs = [e.take(value, codes=False) for value in node.inputs]
    working = kind(e.file.dtype(inputs[0]), (*FLOAT, *WHOLE))
    made = e.make(result, codes=False)
    part = made if e.file.dtype(made) == working else e.temp(e.shape(result), dtype=working)
    e.op("RANGE", [cast(e, at, working) for at in inputs], [part])
    e.settle(part, made)


def einsum(e: Emitter, node: onnx_ir.Node) -> None:
    """One or two operands, as a BATCH_MATMUL between transpositions."""
    equation = str(e.attribute("equation", "")).replace(" ", "")
    terms, result = _terms(equation)
    inputs = [e.take(value, codes=False) for value in node.inputs]
    if len(terms) != len(inputs) or len(inputs) > 2 or "." in equation:
        raise Unwritable(f"edgeq knows no TFLite form of the equation {equation}")
    for term in (*terms, result):
        if len(set(term)) != len(term):
            raise Unwritable(f"it takes a diagonal: {equation}")
    steps = Steps(e, kind(e.file.dtype(inputs[0]), FLOAT))
    inputs = [cast(e, at, steps.dtype) for at in inputs]
    elsewhere = [set(result).union(*terms[:at], *terms[at + 1 :]) for at in range(len(terms))]
    for at, term in enumerate(terms):
        inputs[at], terms[at] = _summed(e, inputs[at], term, elsewhere[at])
    found, order = inputs[0], terms[0]
    if len(inputs) == 2:
        found, order = _product(e, inputs, terms, result)
    found = e.transposed(found, [order.index(letter) for letter in result])
    if e.file.is_constant(found) or found in inputs:
        e.pass_on(found, node.outputs[0])
    else:
        e.settle(found, e.make(node.outputs[0], codes=False))


def _terms(equation: str) -> tuple[list[str], str]:
    """Operands and result; a result left out has the letters that occur once."""
    left, arrow, right = equation.partition("->")
    terms = left.split(",")
    if not arrow:
        seen = Counter("".join(terms))
        right = "".join(letter for letter in string.ascii_letters if seen[letter] == 1)
        right = "".join(sorted(right))
    return terms, right


def _summed(e: Emitter, at: int, term: str, wanted: set[str]) -> tuple[int, str]:
    """An operand without the axes that nothing else has."""
    places = [place for place, letter in enumerate(term) if letter not in wanted]
    if not places:
        return at, term
    left = "".join(letter for letter in term if letter in wanted)
    sizes = [size for place, size in enumerate(e.file.shape(at)) if place not in places]
    made = e.temp(sizes)
    e.op("SUM", [at, e.numbers(places)], [made], keep_dims=False)
    return made, left


def _product(
    e: Emitter, inputs: Sequence[int], terms: Sequence[str], result: str
) -> tuple[int, str]:
    """Both operands as batches of matrices, multiplied; the letters of what comes out."""
    left, right = terms
    both = [letter for letter in left if letter in right]
    batch = "".join(letter for letter in both if letter in result)
    inner = "".join(letter for letter in both if letter not in result)
    rows = "".join(letter for letter in left if letter not in right)
    columns = "".join(letter for letter in right if letter not in left)
    sizes = {
        letter: size
        for at, term in zip(inputs, terms, strict=True)
        for letter, size in zip(term, e.file.shape(at), strict=True)
    }

    def total(letters: str) -> int:
        return int(np.prod([sizes[letter] for letter in letters]))

    def arranged(at: int, term: str, order: str, shape: Sequence[int]) -> int:
        turned = e.transposed(at, [term.index(letter) for letter in order])
        return e.reshaped(turned, shape)

    shape = [total(batch), total(rows), total(inner)]
    one = arranged(inputs[0], left, batch + rows + inner, shape)
    shape = [total(batch), total(inner), total(columns)]
    other = arranged(inputs[1], right, batch + inner + columns, shape)
    made = e.temp([total(batch), total(rows), total(columns)])
    e.op("BATCH_MATMUL", [one, other], [made], adj_x=False, adj_y=False)
    order = batch + rows + columns
    return e.reshaped(made, [sizes[letter] for letter in order]), order


HANDLERS = {
    **dict.fromkeys(("Shape", "Size"), size),
    "ConstantOfShape": filled,
    "EyeLike": diagonal,
    "Range": count,
    "Einsum": einsum,
}
