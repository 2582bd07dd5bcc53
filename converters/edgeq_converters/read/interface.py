"""Inputs and outputs: their types, `--shape`, and the sizes that a file only declares."""

from __future__ import annotations

from collections.abc import Mapping

from onnx import ModelProto, TensorProto, TypeProto, ValueInfoProto

from edgeq.errors import EdgeqError, did_you_mean
from edgeq_converters.read.findings import Findings, listed, quote

Shapes = Mapping[str, tuple[int, ...]]
MAX_RANK = 64

_TYPES = frozenset(
    {TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE, TensorProto.BOOL}
    | {TensorProto.INT8, TensorProto.INT16, TensorProto.INT32, TensorProto.INT64}
    | {TensorProto.UINT8, TensorProto.UINT16, TensorProto.UINT32, TensorProto.UINT64}
)


def drop_constant_inputs(model: ModelProto) -> tuple[str, ...]:
    """Take initializers out of the inputs; the names that were there."""
    stored = {tensor.name for tensor in model.graph.initializer}
    kept = [info for info in model.graph.input if info.name not in stored]
    dropped = tuple(info.name for info in model.graph.input if info.name in stored)
    if dropped:
        copies = [ValueInfoProto.FromString(info.SerializeToString()) for info in kept]
        del model.graph.input[:]
        model.graph.input.extend(copies)
    return dropped


def check(model: ModelProto, found: Findings) -> None:
    """Inputs and outputs are tensors of numbers: what a manifest and golden vectors describe."""
    for info in model.graph.input:
        _check_type(info, "input", found)
    for info in model.graph.output:
        _check_type(info, "output", found)
    if not model.graph.output:
        found.add("invalid-model", "the graph has no output")


def _check_type(info: ValueInfoProto, role: str, found: Findings) -> None:
    kind = info.type.WhichOneof("value")
    called = f"{role} {quote(info.name)}"
    if kind != "tensor_type":
        what = (kind or "nothing known").removesuffix("_type").replace("_", " ")
        found.add("unsupported-type", f"{called} is not a tensor ({what})")
        return
    element = info.type.tensor_type.elem_type
    if element not in _TYPES:
        known = element in TensorProto.DataType.values()
        name = TensorProto.DataType.Name(element) if known else f"type {element}"
        found.add("unsupported-type", f"{called} is a tensor of {name}")
    elif len(info.type.tensor_type.shape.dim) > MAX_RANK:
        found.add("invalid-model", f"{called} has more than {MAX_RANK} dimensions")
    else:
        _check_sizes(info, called, found)


def _check_sizes(info: ValueInfoProto, called: str, found: Findings) -> None:
    """-1 is how some exporters write an open dimension; anything else below 0 is damage."""
    for size in info.type.tensor_type.shape.dim:
        if size.HasField("dim_value") and size.dim_value < 0:
            if size.dim_value == -1:
                size.ClearField("dim_value")
            else:
                found.add("invalid-model", f"{called} has a dimension of {size.dim_value}")


def fix_shapes(model: ModelProto, shapes: Shapes, file: str) -> tuple[str, ...]:
    """Give inputs the wanted shapes; a symbol that becomes a number does so everywhere. Notes."""
    inputs = {info.name: info for info in model.graph.input}
    symbols: dict[str, int] = {}
    notes: list[str] = []
    for name, wanted in sorted(shapes.items()):
        if name not in inputs:
            text = f"{file}: there is no input {quote(name)}"
            raise EdgeqError("no-such-input", text, *did_you_mean(name, inputs))
        _check_wanted(inputs[name], wanted, symbols, file)
        _set_shape(inputs[name].type.tensor_type, wanted)
        notes.append(f"input {quote(name)} has the shape {_text(wanted)} (given)")
    for info in (*model.graph.input, *model.graph.output):
        for size in info.type.tensor_type.shape.dim if info.type.HasField("tensor_type") else ():
            if size.dim_param in symbols:
                size.dim_value = symbols[size.dim_param]
    fixed = [f"{symbol}={number}" for symbol, number in sorted(symbols.items())]
    return (*notes, *((f"dimensions fixed with it: {listed(fixed)}",) if fixed else ()))


def _check_wanted(
    info: ValueInfoProto, wanted: tuple[int, ...], symbols: dict[str, int], file: str
) -> None:
    """Every size at least 1, the same rank, no static size changed, no symbol with two values."""
    declared = info.type.tensor_type
    called = f"{file}: input {quote(info.name)}"
    if any(size < 1 or size > 2**31 for size in wanted):
        raise EdgeqError("bad-shape", f"{called} cannot have the shape {_text(wanted)}")
    if not declared.HasField("shape"):
        return
    if len(declared.shape.dim) != len(wanted):
        text = f"{called} is {describe(declared)}, the shape given is {_text(wanted)}"
        raise EdgeqError("bad-shape", text)
    for size, number in zip(declared.shape.dim, wanted, strict=True):
        if size.HasField("dim_value") and size.dim_value != number:
            text = f"{called} is {describe(declared)} and cannot become {_text(wanted)}"
            raise EdgeqError("bad-shape", text)
        if size.dim_param and symbols.setdefault(size.dim_param, number) != number:
            text = f"{called}: {quote(size.dim_param)} is {symbols[size.dim_param]} and {number}"
            raise EdgeqError("bad-shape", text)


def _set_shape(declared: TypeProto.Tensor, wanted: tuple[int, ...]) -> None:
    declared.ClearField("shape")
    for number in wanted:
        declared.shape.dim.add(dim_value=number)
    if not wanted:
        declared.shape.SetInParent()


def require_ranks(model: ModelProto, file: str) -> None:
    """Every input must have a rank by now; [bad-shape] names those that need `--shape`."""
    without = [i.name for i in model.graph.input if not i.type.tensor_type.HasField("shape")]
    if without:
        raise EdgeqError(
            "bad-shape",
            f"{file}: the file does not say the rank of input {listed(without)}",
            f"--shape {without[0]}=1x3x224x224",
        )


def describe(declared: TypeProto.Tensor) -> str:
    """A declared shape as text, `?` where nothing is said."""
    sizes = [
        str(size.dim_value) if size.HasField("dim_value") else size.dim_param or "?"
        for size in declared.shape.dim
    ]
    return "[" + ", ".join(sizes) + "]"


def _text(shape: tuple[int, ...]) -> str:
    return "[" + ", ".join(str(size) for size in shape) + "]"
