"""The graph that grows while a TFLite file is read: tensors in their layouts, nodes, encodings."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir
from numpy.typing import NDArray

from edgeq.ir import constant
from edgeq.passes.evaluate import FOLDABLE, NotEvaluated, evaluate
from edgeq.quant import candidates, rules
from edgeq.quant.plan import Encoding
from edgeq_converters.read.tfl import numbers
from edgeq_runtime.tflite import Operator, Subgraph, Tensor

Array = NDArray[Any]
Perm = tuple[int, ...]
Handler = Callable[["Reading", Operator], None]

BATCH = "batch"
"""The name of the free axis of a graph whose file leaves the first size of its inputs open."""

INTERNAL = "value"
"""What a tensor is called that the file has no name for, after the name of what it leads to."""

_PLAIN = ("float32", "int32", "int64", "bool", "int8", "uint8", "uint32")


class Unsupported(Exception):
    """An operator, or a way to use it, that has no ONNX form here; the text says which."""


class NotPerSample(Exception):
    """With a free batch axis the operator would mix samples, or has its batch in the file."""


def channels_first(rank: int) -> Perm:
    """From [N, ..., C] to [N, C, ...]."""
    return (0, rank - 1, *range(1, rank - 1))


@dataclass(frozen=True)
class Apart:
    """A convolution between SPACE_TO_BATCH_ND and BATCH_TO_SPACE_ND: one with dilations `block`,
    from the tensor `source` to `result`."""

    source: int
    result: int
    block: tuple[int, ...]
    pads: tuple[tuple[int, int], ...]


class Reading:
    """One walk over the operators of a subgraph.

    Every tensor of the file can exist in several forms, each the tensor transposed by some
    permutation; `forms` has those there are, and `value` makes one that is asked for. Operators
    that do not care take what there is, so that layouts spread and a CNN is transposed once.
    """

    def __init__(self, subgraph: Subgraph, *, free_batch: Iterable[int] = ()) -> None:
        self.tensors = subgraph.tensors
        self.batched = set(free_batch)
        self.nodes: list[onnx_ir.Node] = []
        self.inputs: list[onnx_ir.Value] = []
        self.forms: dict[int, dict[Perm, onnx_ir.Value]] = {}
        self.arrays: dict[int, Array] = {}
        self.lazy: dict[int, Callable[[], None]] = {}
        self.padded: dict[int, tuple[int, tuple[tuple[int, int], ...]]] = {}
        self.dilated: dict[int, Apart] = {}
        self.makers: dict[int, Operator] = {}
        self.weight_only: dict[int, int] = {}
        self.restored: set[int] = set()
        self.encodings: dict[onnx_ir.Value, Encoding] = {}
        self.precisions: dict[onnx_ir.Node, str] = {}
        self.hosts: dict[onnx_ir.Node, onnx_ir.Node] = {}
        self.wanted: dict[onnx_ir.Value, str] = {}
        self.expected: dict[onnx_ir.Value, tuple[int | str, ...]] = {}
        self.notes: dict[str, None] = {}
        self.rounded_biases = 0
        self.hides_batch = False  # onnx infers no batch of a Resize, nor of what follows
        self._constants: dict[tuple[Any, ...], onnx_ir.Value] = {}
        self._count = 0
        self._about = ""
        self.outputs = set(subgraph.outputs)
        self.readers: dict[int, list[Operator]] = {}
        for op in subgraph.operators:
            for index in dict.fromkeys(op.inputs):
                self.readers.setdefault(index, []).append(op)
        for index in subgraph.inputs:
            self._add_input(index)

    # -- what the file says -----------------------------------------------------------------------

    def shape(self, index: int) -> tuple[int, ...]:
        """The sizes of a tensor as the file has them, 1 for a free batch."""
        return self.tensors[index].shape

    def rank(self, index: int) -> int:
        return len(self.tensors[index].shape)

    def encoding(self, index: int) -> Encoding | None:
        """The scale of a tensor of codes; None for floats and for plain integers."""
        return numbers.activation_encoding(self.tensors[index])

    def array(self, index: int) -> Array | None:
        """The numbers of a constant, codes and small floats as float32; None for activations."""
        if index not in self.arrays:
            tensor = self.tensors[index]
            if tensor.data is None:
                return None
            if tensor.dtype == "string" or tensor.dtype.startswith("complex"):
                raise Unsupported(f"reads a constant of {tensor.dtype}")
            self.arrays[index] = numbers.values(tensor, self.tensors)
        return self.arrays[index]

    def whole(self, index: int, what: str) -> list[int]:
        """The integers of a constant that a parameter is; [] for one that is left out."""
        if index < 0:
            return []
        array = self.array(index)
        if array is None or array.dtype.kind not in "iub":
            raise Unsupported(f"computes its {what} while it runs")
        return [int(item) for item in array.reshape(-1)]

    def given(self, op: Operator, at: int) -> int:
        """The index of an input, -1 for one that is left out."""
        return op.inputs[at] if at < len(op.inputs) else -1

    # -- forms ------------------------------------------------------------------------------------

    def value(self, index: int, perm: Perm | None = None) -> onnx_ir.Value:
        """The tensor, transposed by `perm`; made from a form there is, if it must be."""
        perm = tuple(range(self.rank(index))) if perm is None else perm
        array = self.array(index)
        if array is not None:
            return self._constant_form(index, array, perm)
        forms = self._known(index)
        if perm not in forms:
            source, there = self.any_form(index)
            steps = tuple(there.index(axis) for axis in perm)
            made = self._transpose(index, source, steps)
            self.bind(index, made, perm)
        return forms[perm]

    def any_form(self, index: int) -> tuple[onnx_ir.Value, Perm]:
        """A form that is there, as it is stored where that is among them."""
        forms = self._known(index)
        plain = tuple(range(self.rank(index)))
        perm = plain if plain in forms else next(iter(forms))
        return forms[perm], perm

    def common(self, indices: Sequence[int], rank: int) -> Perm:
        """The form that most of the activations among `indices` have; of two, channels first."""
        plain, first = tuple(range(rank)), channels_first(rank) if rank > 3 else ()
        votes: dict[Perm, int] = {}
        for index in indices:
            if self.array(index) is None and self.rank(index) == rank:
                for perm in self._known(index):
                    votes[perm] = votes.get(perm, 0) + 1
        if not votes:
            return plain
        return max(votes, key=lambda perm: (votes[perm], perm == first, perm == plain))

    def spread(self, index: int, perm: Perm, *, wide: bool = False) -> onnx_ir.Value:
        """An operand of any rank as what it is beside tensors in the form `perm`.

        `wide`: no other operand has as many axes, so that a single number keeps its own.
        """
        rank, own = len(perm), self.rank(index)
        array = self.array(index)
        if array is not None:
            return self._constant_operand(index, array, perm, wide)
        if own == rank:
            return self.value(index, perm)
        if index in self.batched:
            raise NotPerSample("spreads its batch over another axis")
        value = self.value(index)
        if perm == tuple(range(rank)) or all(size == 1 for size in self.shape(index)):
            return value
        axes = self.const(np.arange(rank - own, dtype=np.int64), "axes")
        spread = self.like(index, self.emit("Unsqueeze", value, axes))
        return self.like(index, self.emit("Transpose", spread, perm=list(perm)))

    def flat(self, index: int) -> onnx_ir.Value:
        """A form whose elements lie in the order of the file's: the same for a Reshape."""
        if self.array(index) is None:
            for perm, value in self._known(index).items():
                sizes = self.shape(index)
                moved = [axis for axis in perm if sizes[axis] != 1 or self._is_free(index, axis)]
                if moved == sorted(moved) and (index not in self.batched or perm[0] == 0):
                    return value
        return self.value(index)

    def known(self, index: int) -> Iterable[tuple[Perm, onnx_ir.Value]]:
        """The forms there are."""
        return tuple(self._known(index).items())

    def is_output(self, index: int) -> bool:
        """Whether the tensor is an output of the model."""
        return index in self.outputs

    def sole_reader(self, index: int) -> Operator | None:
        """The one operator that reads the tensor, if nothing else does."""
        readers = self.readers.get(index, [])
        return readers[0] if len(readers) == 1 and index not in self.outputs else None

    def later(self, op: Operator, make: Callable[[], None]) -> None:
        """Leave an operator until its result is asked for, which may be never."""

        def run() -> None:
            about, self._about = self._about, self._name_of(op)
            make()
            self._about = about

        self.lazy[op.outputs[0]] = run

    def _known(self, index: int) -> dict[Perm, onnx_ir.Value]:
        if index in self.lazy:
            self.lazy.pop(index)()
        if index not in self.forms:
            raise Unsupported(f"reads `{self.tensors[index].name}`, which no operator makes")
        return self.forms[index]

    def _is_free(self, index: int, axis: int) -> bool:
        return axis == 0 and index in self.batched

    def _transpose(self, index: int, source: onnx_ir.Value, steps: Perm) -> onnx_ir.Value:
        made = self.emit("Transpose", source, perm=list(steps))
        if self.encoding(index) is not None:
            self.precisions[made.producer()] = "int8"  # type: ignore[index]
        return made

    # -- constants --------------------------------------------------------------------------------

    def const(self, array: Array, name: str) -> onnx_ir.Value:
        """A constant that the file has in another way; the same one twice is stored once."""
        array = np.ascontiguousarray(array) if array.ndim else array
        key = (name, array.dtype.str, array.shape, array.tobytes())
        if key not in self._constants:
            self._constants[key] = self._stored(array, name)
        return self._constants[key]

    def weight(self, index: int, perm: Perm) -> onnx_ir.Value:
        """Weights, transposed by `perm`, with the encoding that keeps their codes."""
        array = self.array(index)
        if array is None:
            return self.value(index, perm)
        source = self.weight_only.get(index, index)
        encoding = numbers.weight_encoding(self.tensors[source], perm)
        if encoding is not None and any(encoding.zero_point):
            self.note(
                "weights with a zero point, which int8 TFLite has not: as integers they are "
                "written as ONNX only"
            )
        return self._keyed(("weight", index, perm), np.transpose(array, perm), index, encoding)

    def stored_codes(self, index: int, perm: Perm) -> Encoding | None:
        """The encoding of constant weights that are codes in the file."""
        if self.array(index) is None:
            return None
        source = self.weight_only.get(index, index)
        return numbers.weight_encoding(self.tensors[source], perm)

    def bias(self, index: int, source: int, weights: Encoding | None) -> onnx_ir.Value | None:
        """A bias [C]; int32 codes keep what they stand for beside `source` and `weights`."""
        if index < 0:
            return None
        array, tensor = self.array(index), self.tensors[index]
        if array is None:
            return self.value(index)
        scale = self.encoding(source)
        if tensor.dtype != "int32" or scale is None or weights is None:
            return self._keyed(("bias", index), array.reshape(-1), index, None)
        codes = np.asarray(tensor.array()).reshape(-1)
        encoding = numbers.bias_encoding(scale.scale[0], weights)
        exact = codes.astype(np.float64) * np.array(encoding.scale, np.float64)
        held = exact.astype(np.float32)
        back = np.rint(held.astype(np.float64) / np.array(encoding.scale))
        self.rounded_biases += int(np.count_nonzero(back != codes))
        return self._keyed(("bias", index, encoding.scale), held, index, encoding)

    def _constant_form(self, index: int, array: Array, perm: Perm) -> onnx_ir.Value:
        encoding = self.encoding(index)
        return self._keyed(("value", index, perm), np.transpose(array, perm), index, encoding)

    def _constant_operand(self, index: int, array: Array, perm: Perm, wide: bool) -> onnx_ir.Value:
        """A constant beside activations: one number without axes, else as many as it needs."""
        if array.size == 1 and not wide:
            array = array.reshape(())
        elif perm != tuple(range(len(perm))):
            array = array.reshape((1,) * (len(perm) - array.ndim) + array.shape)
            array = np.transpose(array, perm)
        key = ("operand", index, array.shape, perm if array.ndim else ())
        return self._keyed(key, array, index, self.encoding(index))

    def _keyed(
        self, key: tuple[Any, ...], array: Array, index: int, encoding: Encoding | None
    ) -> onnx_ir.Value:
        if key not in self._constants:
            made = self._stored(np.ascontiguousarray(array), self.tensors[index].name)
            if array.ndim == 0:
                made = self._stored(array, self.tensors[index].name)
            self._constants[key] = made
            if encoding is not None:
                self.encodings[made] = encoding
        return self._constants[key]

    def _stored(self, array: Array, name: str) -> onnx_ir.Value:
        tensor = onnx_ir.tensor(np.asarray(array))
        made = onnx_ir.Value(
            name=self._fresh(),
            type=onnx_ir.TensorType(tensor.dtype),
            shape=onnx_ir.Shape(array.shape),
            const_value=tensor,
        )
        self.wanted[made] = name
        return made

    # -- nodes ------------------------------------------------------------------------------------

    def emit(self, op_type: str, *inputs: onnx_ir.Value | None, **attributes: Any) -> onnx_ir.Value:
        """A node of one output; computed at once where all it reads is constant."""
        return self.emit_many(op_type, 1, *inputs, **attributes)[0]

    def emit_many(
        self, op_type: str, outputs: int, *inputs: onnx_ir.Value | None, **attributes: Any
    ) -> tuple[onnx_ir.Value, ...]:
        given = list(inputs)
        while given and given[-1] is None:
            given.pop()
        kept = {key: item for key, item in attributes.items() if item is not None}
        node = onnx_ir.node(op_type, given, attributes=kept, num_outputs=outputs)
        for value in node.outputs:
            value.name = self._fresh()
            self.wanted[value] = f"{self._about}/{op_type}"
        folded = self._fold(node)
        if folded is not None:
            return folded
        self.nodes.append(node)
        return tuple(node.outputs)

    def copy(self, value: onnx_ir.Value) -> onnx_ir.Value:
        """The same once more: a tensor of its own, even of a constant."""
        node = onnx_ir.node("Identity", [value])
        node.outputs[0].name = self._fresh()
        self.nodes.append(node)
        return node.outputs[0]

    def _fold(self, node: onnx_ir.Node) -> tuple[onnx_ir.Value, ...] | None:
        values = [value for value in node.inputs if value is not None]
        if node.op_type not in FOLDABLE or not values:
            return None
        if any(constant(value) is None for value in values):
            return None
        try:
            arrays = evaluate(node)
        except NotEvaluated:
            return None
        for at in range(len(node.inputs)):
            node.replace_input_with(at, None)
        return tuple(self._stored(array, self._about) for array in arrays)

    def _fresh(self) -> str:
        self._count += 1
        return f"#{self._count}"

    # -- results ----------------------------------------------------------------------------------

    def put(self, index: int, value: onnx_ir.Value, perm: Perm | None = None) -> None:
        """What the tensor `index` is, transposed by `perm`."""
        perm = tuple(range(self.rank(index))) if perm is None else perm
        array = constant(value)
        if array is not None:
            self.arrays[index] = np.transpose(array, np.argsort(perm)) if perm else array
            return
        encoding = self.encoding(index)
        if encoding is not None:
            value = self._on_grid(value, encoding)
        self.bind(index, value, perm)

    def put_array(self, index: int, array: Array) -> None:
        """The tensor is a constant after all."""
        self.arrays[index] = array

    def bind(self, index: int, value: onnx_ir.Value, perm: Perm) -> None:
        """Enter a form; nothing is rounded."""
        forms = self.forms.setdefault(index, {})
        plain = perm == tuple(range(len(perm)))
        name = self.tensors[index].name or f"tensor_{index}"
        if not plain and (forms or index in self.outputs):
            first = perm == channels_first(len(perm)) if len(perm) > 2 else False
            name = f"{name}_{'channels_first' if first else 'transposed'}"
        elif forms:
            name = f"{name}_as_stored"
        self.wanted[value] = name
        forms[perm] = value
        self.expected[value] = self._expected(index, perm)
        encoding = self.encoding(index)
        if encoding is not None:
            self.encodings.setdefault(value, encoding)

    def share(self, index: int, source: int, forms: Mapping[Perm, onnx_ir.Value]) -> None:
        """The tensor `index` is `source` by another name, or seen from another side."""
        self.forms[index] = dict(forms)
        if source in self.restored:
            self.restored.add(index)

    def like(self, index: int, value: onnx_ir.Value) -> onnx_ir.Value:
        """`value` holds the elements of the tensor `index`, so it has its scale too."""
        encoding = self.encoding(index)
        node = value.producer()
        if encoding is not None and node is not None:
            self.encodings[value] = encoding
            self.precisions[node] = "int8"
        return value

    def activated(self, value: onnx_ir.Value, op: Operator) -> onnx_ir.Value:
        """The activation that is fused into the operator, as a node of its own."""
        kind = op.options.get("fused_activation_function", "NONE")
        if kind == "NONE":
            return value
        host = value.producer()
        if kind == "RELU":
            made = self.emit("Relu", value)
        elif kind in ("RELU6", "RELU_N1_TO_1"):
            low, high = (0.0, 6.0) if kind == "RELU6" else (-1.0, 1.0)
            bounds = [self.const(np.array(end, np.float32), "bound") for end in (low, high)]
            made = self.emit("Clip", value, *bounds)
        elif kind == "TANH":
            made = self.emit("Tanh", value)
        else:
            raise Unsupported(f"has the activation {kind} in it")
        clamp = made.producer()
        if clamp is not None and host is not None and clamp.op_type in rules.CLAMPS:
            self.hosts[clamp] = host
        return made

    def int8_able(self, value: onnx_ir.Value) -> bool:
        """Whether the node that makes `value`, its clamp aside, reads and makes only codes."""
        node = value.producer()
        if node is None or (value is not node.outputs[0] and node.op_type != "Split"):
            return False
        if node in self.hosts:
            source = node.inputs[0]
            return source is not None and self.int8_able(source)
        if node.op_type in rules.CLAMPS:
            return node.inputs[0] in self.encodings
        return all(operand in self.encodings for operand in candidates.operands(node))

    def is_unrounded(self, value: onnx_ir.Value) -> bool:
        """Whether `value`, which has codes, holds floats: an input, or what a float node makes."""
        node = value.producer()
        return node is None or self.precisions.get(node) != "int8"

    def on_scale_of(self, index: int, value: onnx_ir.Value) -> onnx_ir.Value:
        """`value`, rounded to the scale of the tensor `index`, whose elements it holds."""
        encoding = self.encoding(index)
        return value if encoding is None else self._on_grid(value, encoding)

    def weighted(self, made: onnx_ir.Value, source: int, weight: int, precision: str) -> None:
        """Say how a node runs that reads floats, and weights that are codes in the file.

        Weights behind a DEQUANTIZE are only stored as codes.
        """
        node = made.producer()
        held = node.inputs[1] if node is not None and node.op_type != "Gather" else None
        held = node.inputs[0] if node is not None and node.op_type == "Gather" else held
        if held is not None and self._in_int4(node, held, source, weight, precision):
            return
        encoding = None if held is None else self.encodings.get(held)
        if node is None or held is None or encoding is None or constant(held) is None:
            return
        if source >= 0 and self.encoding(source) is not None and weight not in self.weight_only:
            return
        if not encoding.symmetric or (self.rank(weight) > 2 and node.op_type == "MatMul"):
            del self.encodings[held]
            self.note("some int8 weights of float operators are read as floats")
            return
        if weight in self.weight_only and precision == "dynamic-int8":
            precision = "int8-weights"
        self.precisions[node] = precision

    def _in_int4(
        self,
        node: onnx_ir.Node | None,
        held: onnx_ir.Value,
        source: int,
        weight: int,
        precision: str,
    ) -> bool:
        """Whether a layer reads floats and a matrix of int4, which then is said."""
        if precision != "dynamic-int8" or node is None or constant(held) is None:
            return False
        if weight in self.weight_only or self.encoding(source) is not None:
            return False
        axis = 0 if node.op_type == "Gemm" else 1
        encoding = numbers.int4_encoding(self.tensors[weight], self.tensors, axis)
        if encoding is None:
            return False
        self.encodings[held] = encoding
        self.precisions[node] = "dynamic-int4"
        return True

    def target(self, index: int, source: int) -> onnx_ir.Value:
        """The shape of the tensor `index` for a Reshape of `source`; a free batch is copied."""
        sizes = list(self.shape(index))
        if source in self.batched:
            if not sizes or sizes[0] != 1 or self.shape(source)[:1] != (1,):
                raise NotPerSample("makes the batch part of another axis")
            sizes[0] = 0
        return self.const(np.array(sizes, np.int64), "shape")

    def _on_grid(self, value: onnx_ir.Value, encoding: Encoding) -> onnx_ir.Value:
        """`value`, made by an int8 node: by its own, or by one that does nothing but round."""
        node = value.producer()
        if self.encodings.get(value, encoding) == encoding and self.int8_able(value):
            assert node is not None
            self.encodings[value] = encoding
            self._set_int8(node)
            return value
        self.encodings.setdefault(value, encoding)
        rounded = self.emit("Identity", value)
        self.encodings[rounded] = encoding
        self._set_int8(rounded.producer())
        return rounded

    def _set_int8(self, node: onnx_ir.Node | None) -> None:
        assert node is not None
        self.precisions[node] = "int8"
        if node in self.hosts:
            self.precisions[self.hosts[node]] = "int8"

    def about(self, op: Operator) -> None:
        """Name what comes next after the first result of `op`, and let its batch through."""
        self._about = self._name_of(op)
        for index in op.outputs:
            self.makers[index] = op
        if any(index in self.batched for index in op.inputs):
            self.batched.update(op.outputs)

    def _name_of(self, op: Operator) -> str:
        return (self.tensors[op.outputs[0]].name if op.outputs else "") or INTERNAL

    def note(self, text: str) -> None:
        self.notes[text] = None

    # -- inputs -----------------------------------------------------------------------------------

    def _add_input(self, index: int) -> None:
        tensor = self.tensors[index]
        value = onnx_ir.Value(name=self._fresh(), type=onnx_ir.TensorType(self.dtype(tensor)))
        self.bind(index, value, tuple(range(self.rank(index))))
        value.shape = onnx_ir.Shape(self.expected[value])
        self.inputs.append(value)

    def dtype(self, tensor: Tensor) -> onnx_ir.DataType:
        """The type of a tensor in the graph: float for codes on a scale."""
        if numbers.activation_encoding(tensor) is not None:
            return onnx_ir.DataType.FLOAT
        return onnx_ir.DataType.from_numpy(np.dtype(tensor.dtype))

    def _expected(self, index: int, perm: Perm) -> tuple[int | str, ...]:
        sizes: list[int | str] = list(self.shape(index))
        if index in self.batched:
            if not sizes or sizes[0] != 1:
                raise NotPerSample(f"`{self.tensors[index].name}` has no batch of 1")
            sizes[0] = BATCH
        return tuple(sizes[axis] for axis in perm)


def is_readable(tensor: Tensor) -> bool:
    """Whether an activation of this type can be part of a `Graph`."""
    return tensor.dtype in _PLAIN
