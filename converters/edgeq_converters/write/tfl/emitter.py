"""From ONNX nodes to TFLite operators: in which layout and type each tensor exists.

A value of the graph can exist as several tensors: as codes (int8, by the plan) and as it is
(float32, int64 ...), each in the order of its ONNX axes (`AS_IS`) or with the channels last
(`LAST`). What a handler takes in another form than it was made in is converted once, where it is
first needed. Whether a node runs in int8 is the emitter's business: `take`, `make` and `parameter`
give it codes or floats as the plan says.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir
from numpy.typing import NDArray

from edgeq.ir import Graph, attribute, constant, dtype_of, static_shape
from edgeq.numerics import affine
from edgeq.quant import candidates, rules
from edgeq.quant.checks import clamp_bounds
from edgeq.quant.layers import bias_vector
from edgeq.quant.plan import Encoding, OpDecision, QuantPlan
from edgeq_converters.write.clamps import codes_of, is_dropped, mismatch
from edgeq_converters.write.tfl import narrow
from edgeq_converters.write.tfl.builder import Builder
from edgeq_converters.write.tfl.file import File

AS_IS, LAST, FLAT = "as it is", "channels last", "flattened from channels last"
"""Layouts. N x C x ... becomes N x ... x C in `LAST`; `FLAT` is N x F, its features in the order of
a tensor with the channels last (see `Emitter.make_flat`)."""

FLOAT = OpDecision("", "", "float32")

LABEL_LENGTH = 20
"""What the name of a tensor that no ONNX tensor is keeps of the one that it is for."""

ACTIVATIONS = {(0.0, np.inf): "RELU", (0.0, 6.0): "RELU6", (-1.0, 1.0): "RELU_N1_TO_1"}
"""Clamps that operators do themselves."""

Array = NDArray[Any]
Key = tuple[onnx_ir.Value, bool, str, int]


class Unwritable(Exception):
    """Why a node has no TFLite form; said of all such nodes at once."""


def to_last(rank: int) -> tuple[int, ...]:
    """The permutation from N x C x ... to N x ... x C."""
    return (0, *range(2, rank), 1)


def to_first(rank: int) -> tuple[int, ...]:
    """The permutation from N x ... x C to N x C x ..."""
    return (0, rank - 1, *range(1, rank - 1))


class Emitter(Builder):
    """Writes the nodes of one static graph into a file; `failures` are (op type, node, reason)."""

    def __init__(self, graph: Graph, plan: QuantPlan | None, file: File) -> None:
        super().__init__(file)
        self.graph = graph
        self.plan = plan or QuantPlan({}, {})
        self.node: onnx_ir.Node = None  # type: ignore[assignment]  # that is written, or was last
        self.failures: list[tuple[str, str, str]] = []
        self._at: dict[Key, int] = {}
        self._home: dict[onnx_ir.Value, tuple[bool, str, int]] = {}
        self._spatial: dict[onnx_ir.Value, tuple[int, ...]] = {}
        self._permuted: dict[onnx_ir.Value, tuple[int, tuple[int, ...]]] = {}
        self._done: set[onnx_ir.Node] = set()
        self._stood_in: set[onnx_ir.Value] = set()

    # -- what the graph and the plan say

    def run(self, handlers: Callable[[onnx_ir.Node], Any]) -> None:
        """Emit every node by the handler that `handlers` has for it (None: it has none)."""
        nodes = self.graph.nodes()
        self._done = {node for node in nodes if is_dropped(self.plan, node)}
        for node in nodes:
            if node in self._done or node.op_type == "Constant":
                continue
            self.node, self.label = node, str(node.outputs[0].name)[:LABEL_LENGTH]
            handler = handlers(node)
            try:
                if handler is None:
                    raise Unwritable("edgeq knows no TFLite form of it")
                handler(self, node)
            except Unwritable as failure:
                if handler is None or not self._follows(node):
                    self.failures.append((node.op_type, str(node.name), str(failure)))
                self._stand_in(node)

    def _follows(self, node: onnx_ir.Node) -> bool:
        """Whether `node` reads what could not be written, which is why it cannot either."""
        return any(value in self._stood_in for value in node.inputs)

    def _stand_in(self, node: onnx_ir.Node) -> None:
        """Tensors in place of what could not be written, so that the rest can be looked at."""
        for value in self._made_with(node):
            if value.name and value not in self._home:
                shape = static_shape(value) or ()
                at = self.file.tensor(value.name, shape, "float32")
                self._home[value] = False, AS_IS, len(shape)
                self._at[value, False, AS_IS, len(shape)] = at
                self._stood_in.add(value)

    def _made_with(self, node: onnx_ir.Node) -> Iterator[onnx_ir.Value]:
        """What `node` makes, and what the nodes behind it do whose work is done with its own."""
        for value in node.outputs:
            yield value
            reader = candidates.only_use(value)
            if reader is not None and reader in self._done:
                yield from self._made_with(reader)

    def decision(self, node: onnx_ir.Node) -> OpDecision:
        """How the plan runs a node."""
        return self.plan.ops.get(str(node.name), FLOAT)

    @property
    def int8(self) -> bool:
        """Whether the node at hand computes with codes."""
        return self.decision(self.node).precision == "int8"

    def encoding(self, value: onnx_ir.Value) -> Encoding | None:
        """The encoding of an activation's codes, or of a constant as the node at hand reads it."""
        if constant(value) is not None:
            reader = None if self.node is None else str(self.node.name)
            return self.plan.encoding(str(value.name), reader)
        own = self.plan.tensors.get(str(value.name))
        return own or self.plan.tensors.get(str(codes_of(self.plan, value).name))

    def shape(self, value: onnx_ir.Value | None) -> tuple[int, ...]:
        """The static ONNX sizes of a value; raises `Unwritable` where they are not known."""
        found = static_shape(value)
        if found is None:
            array = constant(value)
            if array is not None:
                return tuple(array.shape)
            name = "" if value is None else value.name
            raise Unwritable(f"the shape of `{name}` is not known before the model runs")
        return found

    def constant(self, value: onnx_ir.Value | None) -> Array | None:
        """The contents of a constant in float or as they are; None for an activation."""
        return constant(value)

    def numbers_of(self, at: int, what: str) -> list[int] | None:
        """Input `at` of the node as whole numbers, None where it is left out; must be constant."""
        value = self.node.inputs[at] if at < len(self.node.inputs) else None
        if value is None:
            return None
        array = constant(value)
        if array is None:
            raise Unwritable(f"its {what} are computed while the model runs")
        return [int(number) for number in array.reshape(-1)]

    def attribute(self, name: str, default: Any) -> Any:
        """An attribute of the node at hand."""
        return attribute(self.node, name, default)

    # -- layouts

    def layout(self, *values: onnx_ir.Value | None) -> str:
        """The layout an elementwise node over `values` should have: LAST if one was made so."""
        homes = [self._home.get(value) for value in values if value is not None]
        return LAST if any(home is not None and home[1] == LAST for home in homes) else AS_IS

    def axis(self, axis: int, rank: int, layout: str) -> int:
        """Where ONNX axis `axis` (of `rank`) lies in a tensor of `layout`."""
        axis %= rank
        return to_last(rank).index(axis) if layout == LAST and rank > 2 else axis

    def ordered(self, sizes: Sequence[Any], layout: str) -> list[Any]:
        """One entry per ONNX axis, in the order of `layout`."""
        rank = len(sizes)
        return [sizes[axis] for axis in to_last(rank)] if _moves(layout, rank) else list(sizes)

    def features(self, value: onnx_ir.Value) -> tuple[int, Array | None]:
        """A 2-D value for a layer whose weights can be reordered: the tensor, and for each of its
        features the ONNX feature it is (None: as it is)."""
        home = self._home.get(value)
        if home is None or home[1] != FLAT:
            return self.take(value), None
        sizes = self._spatial[value]
        order = np.arange(int(np.prod(sizes))).reshape(sizes)
        return self.take(value, FLAT), np.moveaxis(order, 0, -1).reshape(-1)

    # -- tensors

    def take(
        self,
        value: onnx_ir.Value | None,
        layout: str = AS_IS,
        *,
        rank: int | None = None,
        codes: bool | None = None,
    ) -> int:
        """The tensor in which the node at hand reads `value`; -1 for one left out.

        `rank`: with leading axes of size 1 up to so many. `codes`: as int8 or as it is, whatever
        the node is. Raises `Unwritable`.
        """
        if value is None:
            return -1
        if codes is None:
            codes = self.int8 and self.encoding(value) is not None
        own = len(self.shape(value))
        rank = own if rank is None else max(rank, own)
        layout = layout if _moves(layout, rank) or layout == FLAT else AS_IS
        if constant(value) is not None:
            return self._constant(value, layout, rank, codes)
        key = (value, codes, layout, rank)
        if key not in self._at:
            self._at[key] = self._converted(value, codes, layout, rank)
        return self._at[key]

    def aligned(
        self, values: Sequence[onnx_ir.Value | None], *, codes: bool | None = None
    ) -> tuple[str, list[int]]:
        """Operands that broadcast, in one layout and at one rank where that is called for."""
        layout = self.layout(*values)
        rank = max(len(self.shape(value)) for value in values)
        pad = rank if layout == LAST else None
        return layout, [self.take(value, layout, rank=pad, codes=codes) for value in values]

    def make(self, value: onnx_ir.Value, layout: str = AS_IS, *, codes: bool | None = None) -> int:
        """A new tensor for what the node at hand makes: codes where it runs in int8."""
        value = self.past_dropped(value)
        encoding = self.encoding(value)
        if codes is None:
            codes = self.int8 and encoding is not None and dtype_of(value) == "float32"
        layout = layout if _moves(layout, len(self.shape(value))) else AS_IS
        shape = self.ordered(self.shape(value), layout)
        at = self._tensor(value, str(value.name), shape, codes)
        self._register(value, codes, layout, at)
        return at

    def make_flat(self, value: onnx_ir.Value, sizes: tuple[int, ...]) -> int:
        """A tensor N x F whose features are those of C x ... `sizes` with the channels last. It has
        a name of its own: its values are the model's, in another order."""
        value = self.past_dropped(value)
        codes = self.int8 and self.encoding(value) is not None
        at = self._tensor(value, f"{value.name}_nhwc", self.shape(value), codes)
        self._spatial[value] = sizes
        self._register(value, codes, FLAT, at)
        return at

    def alias(self, value: onnx_ir.Value, at: int, layout: str = AS_IS) -> None:
        """Say that `value` is the tensor `at` already, read by this node as codes or as it is.

        Not for two values of different encodings: see `pass_on`.
        """
        value = self.past_dropped(value)
        codes = self.file.dtype(at) == "int8" and dtype_of(value) == "float32"
        self._register(value, codes, layout, at)

    def permute(self, value: onnx_ir.Value, at: int, order: Sequence[int]) -> None:
        """Say that `value` is the tensor `at` with its axes in `order`; that is done where a node
        takes it, and most often the next one moves the axes again."""
        self._permuted[value] = at, tuple(order)

    def permuted(self, value: onnx_ir.Value) -> tuple[int, tuple[int, ...]] | None:
        """What `permute` said of a value that the node at hand reads as it was made."""
        if value not in self._permuted:
            return None
        at, order = self._permuted[value]
        codes = bool(self.file.parameters(at))
        return (at, order) if codes == (self.int8 and self.encoding(value) is not None) else None

    def pass_on(self, at: int, value: onnx_ir.Value, layout: str = AS_IS) -> None:
        """Let `value` hold what the tensor `at` does: itself, or with the codes of the plan."""
        encoding = self.encoding(self.past_dropped(value)) if self.int8 else None
        had = self.file.parameters(at)
        if not had or (encoding is not None and _same(had, encoding)):
            self.alias(value, at, layout)
        else:
            made = self.make(value, layout)
            self.op("DEQUANTIZE" if encoding is None else "QUANTIZE", [at], [made])

    def same_codes(self, one: onnx_ir.Value, other: onnx_ir.Value) -> bool:
        """Whether the node at hand may pass codes of `one` on as those of `other`."""
        if not self.int8:
            return True
        first, second = self.encoding(one), self.encoding(self.past_dropped(other))
        if first is None or second is None:
            return first is second
        return (first.scale, first.zero_point) == (second.scale, second.zero_point)

    # -- constants

    def parameter(
        self,
        value: onnx_ir.Value | None,
        arrange: Callable[[Array], Array] = lambda array: array,
        axis: int | None = None,
    ) -> int:
        """Weights of the node at hand, stored as the plan says, then `arrange`d.

        `axis`: where the channels of a scale per channel lie in what `arrange` returns. Codes where
        the node computes with them, in dynamic int8 too; else floats, through a DEQUANTIZE where
        they are stored narrower. Raises `Unwritable` for what is no constant, and for int8 weights
        with a zero point: kernels take it for 0.
        """
        encoding = None if value is None else self.encoding(value)
        if self.int8 and encoding is not None and any(encoding.zero_point):
            raise Unwritable("its weights have a zero point, and int8 TFLite knows none but 0")
        return self._parameter(value, arrange, axis)

    def _parameter(
        self,
        value: onnx_ir.Value | None,
        arrange: Callable[[Array], Array],
        axis: int | None,
    ) -> int:
        """A constant as `parameter` has it, or one in an activation's place, whose zero point may
        be any."""
        array = constant(value)
        if value is None or array is None:
            raise Unwritable("its weights are computed while the model runs")
        encoding = self.encoding(value)
        precision = self.decision(self.node).precision
        stored = encoding is not None and (
            encoding.dtype == "float16" or precision not in ("float32", "other")
        )
        if encoding is None or not stored:
            if precision == "int8":
                raise mismatch(f"tensor `{value.name}` has no encoding, and an int8 op uses it")
            return self.file.constant(str(value.name), np.ascontiguousarray(arrange(array)))
        if encoding.dtype == "float16":
            half = np.ascontiguousarray(arrange(array)).astype(np.float16)
            return self._restored(self.file.constant(str(value.name), half))
        at = narrow.constant(
            self.file, str(value.name), array, encoding, arrange, 0 if axis is None else axis
        )
        return self._restored(at) if precision == "int8-weights" else at

    def table(self, value: onnx_ir.Value) -> int:
        """The stored codes of a constant that the node at hand restores itself, row by row."""
        array, encoding = constant(value), self.encoding(value)
        assert array is not None
        assert encoding is not None
        if encoding.axis not in (None, 0) or encoding.dtype != "int8":
            raise mismatch(f"node `{self.node.name}` picks no rows of an int8 table")
        codes = narrow.codes(array, encoding)
        return self.file.constant(str(value.name), codes, **narrow.parameters(encoding, 0))

    def bias(self, value: onnx_ir.Value | None, channels: int) -> int:
        """One bias per channel: int32 for a node in int8, else float; -1 where there is none."""
        if value is None:
            return -1
        array = constant(value)
        vector = None if array is None else bias_vector(array, channels)
        if vector is None:
            raise Unwritable(f"its bias `{value.name}` is not one constant per output channel")
        encoding = self.encoding(value)
        if not self.int8 and encoding is not None and encoding.dtype == "float16":
            return self.parameter(value, lambda _: vector)
        if not self.int8:
            return self.file.constant(str(value.name), vector)
        scales = () if encoding is None else encoding.scale
        if encoding is None or encoding.dtype != "int32" or len(scales) not in (1, channels):
            raise mismatch(f"bias `{value.name}` of node `{self.node.name}` has no int32 encoding")
        scale = np.broadcast_to(np.array(scales, np.float32), (channels,))
        codes = affine.quantize(vector.astype(np.float64), scale, 0, dtype="int32", axis=0)
        return self.file.constant(
            str(value.name), codes, scale=scales, zero_point=[0] * len(scales), axis=0
        )

    def activation(self, value: onnx_ir.Value) -> tuple[str, onnx_ir.Value]:
        """What an operator that makes `value` can do of the clamp after it: the name of its fused
        activation, and the value that it makes then.

        A clamp that codes do by where they end is named too: it changes none of them, and whoever
        makes floats of the file finds it.
        """
        first, name = candidates.only_use(value), "NONE"
        value, made = self.past_dropped(value), value
        if self.int8 and value is not made and first is not None:
            name = ACTIVATIONS.get(clamp_bounds(first) or (0.0, 0.0), "NONE")
        reader = candidates.only_use(value)
        if reader is None or reader.domain or reader.op_type not in rules.CLAMPS:
            return name, value
        folded = self.decision(reader).fused_into is not None
        if self.int8 != folded or (not folded and self.decision(reader).precision == "int8"):
            return name, value
        fused = ACTIVATIONS.get(clamp_bounds(reader) or (0.0, 0.0))
        if fused is None or dtype_of(value) != "float32":
            return name, value
        self._done.add(reader)
        return fused, self.past_dropped(reader.outputs[0])

    def past_dropped(self, value: onnx_ir.Value) -> onnx_ir.Value:
        """`value` after the clamps that its codes do by where they end."""
        reader = candidates.only_use(value)
        if reader is not None and reader in self._done and is_dropped(self.plan, reader):
            return self.past_dropped(reader.outputs[0])
        return value

    # -- inputs and outputs of the model

    def input(self, value: onnx_ir.Value, *, codes: bool) -> int:
        """The tensor of an input of the model."""
        at = self._tensor(value, str(value.name), self.shape(value), codes)
        self._register(value, codes, AS_IS, at)
        return at

    def output(self, value: onnx_ir.Value, *, codes: bool, taken: Sequence[int]) -> int:
        """The tensor of an output; one of its own, called as it is, where others have it too."""
        at = self.take(value, codes=codes)
        if at in taken or self.file.is_constant(at):
            made = self._tensor(value, str(value.name), self.shape(value), codes)
            self.reshape(at, made)
            at = made
        return at

    def exists(self, value: onnx_ir.Value) -> bool:
        """Whether the file holds `value` in any form."""
        return value in self._home or value in self._permuted or constant(value) is not None

    def has_codes(self, value: onnx_ir.Value) -> bool:
        """Whether an int8 op makes `value`, or reads it as codes already."""
        return any(key[0] is value and key[1] for key in self._at)

    def made_as_codes(self, value: onnx_ir.Value) -> bool:
        """Whether nothing finer than the codes of `value` was ever there."""
        home = self._home.get(value)
        return home is not None and home[0]

    def mark_done(self, node: onnx_ir.Node) -> None:
        """Say that the node at hand does the work of `node` too."""
        self._done.add(node)

    def made_in(self, layout: str) -> list[int]:
        """The tensors called like their values that are in `layout`."""
        return [
            self._at[value, codes, home, rank]
            for value, (codes, home, rank) in self._home.items()
            if home == layout and self.file.name(self._at[value, codes, home, rank]) == value.name
        ]

    # -- inside

    def _register(self, value: onnx_ir.Value, codes: bool, layout: str, at: int) -> None:
        rank = len(self.shape(value)) if layout != FLAT else 2
        layout = layout if _moves(layout, rank) or layout == FLAT else AS_IS
        self._at[value, codes, layout, rank] = at
        self._home.setdefault(value, (codes, layout, rank))

    def _tensor(self, value: onnx_ir.Value, name: str, shape: Sequence[int], codes: bool) -> int:
        if not codes:
            return self.file.tensor(name, shape, dtype_of(value) or "float32")
        encoding = self.encoding(value)
        if encoding is None:
            raise mismatch(f"tensor `{value.name}` has no encoding, and an int8 op uses it")
        return self.file.tensor(name, shape, encoding.dtype, **narrow.parameters(encoding, 0))

    def _converted(self, value: onnx_ir.Value, codes: bool, layout: str, rank: int) -> int:
        """Another form of a value that exists: first its type, in bytes where it can be, then its
        axes."""
        if value not in self._home and value in self._permuted:
            at, order = self._permuted[value]
            at = self.transposed(at, order)
            self._register(value, bool(self.file.parameters(at)), AS_IS, at)
            return self._form(value, codes, layout, rank)
        home = self._home.get(value)
        if home is None:
            raise Unwritable(f"it reads `{value.name}`, which nothing makes")
        had_codes, had_layout, had_rank = home
        if (value, codes, had_layout, had_rank) in self._at:
            at = self._at[value, codes, had_layout, had_rank]
            return self._arranged(value, at, had_layout, layout, rank)
        if had_codes and not codes:  # move bytes, then restore
            other = self._form(value, had_codes, layout, rank)
            at = self._tensor(value, f"{value.name}_float", self.file.shape(other), codes=False)
            self.op("DEQUANTIZE", [other], [at])
            return at
        other = self._at[value, had_codes, had_layout, had_rank]
        at = self._tensor(value, f"{value.name}_codes", self.file.shape(other), codes=True)
        self.op("QUANTIZE", [other], [at])
        self._at[value, codes, had_layout, had_rank] = at
        return self._arranged(value, at, had_layout, layout, rank)

    def _form(self, value: onnx_ir.Value, codes: bool, layout: str, rank: int) -> int:
        key = (value, codes, layout, rank)
        if key not in self._at:
            self._at[key] = self._converted(value, codes, layout, rank)
        return self._at[key]

    def _arranged(self, value: onnx_ir.Value, at: int, had: str, layout: str, rank: int) -> int:
        """`at`, in layout `had`, in `layout` and with leading axes up to `rank`."""
        shape = self.file.shape(at)
        if had == FLAT and layout != FLAT:
            channels, *spatial = self._spatial[value]
            at = self.reshaped(at, [shape[0], *spatial, channels])
            at = self.transposed(at, to_first(len(spatial) + 2))
            at = self.reshaped(at, shape)
            had = AS_IS
        if layout == FLAT:
            assert had == FLAT, value
            return at
        if had == LAST and (layout != LAST or rank != len(shape)):
            at = self.transposed(at, to_first(len(shape)))
            had = AS_IS
        if rank != len(shape):
            shape = self.file.shape(at)
            at = self.reshaped(at, [1] * (rank - len(shape)) + list(shape))
        return self.transposed(at, to_last(rank)) if layout == LAST != had else at

    def _constant(self, value: onnx_ir.Value, layout: str, rank: int, codes: bool) -> int:
        array = constant(value)
        assert array is not None
        shape = [1] * (rank - array.ndim) + list(array.shape)

        def arrange(data: Array) -> Array:
            data = data.reshape(shape)
            return data.transpose(to_last(rank)) if layout == LAST else data

        encoding = self.encoding(value)
        axis = None
        if encoding is not None and encoding.axis is not None:
            axis = self.axis(encoding.axis + rank - array.ndim, rank, layout)
        if codes or (encoding is not None and dtype_of(value) == "float32" and not self.int8):
            return self._parameter(value, arrange, axis)
        return self.numbers(arrange(array), str(array.dtype), str(value.name))

    def _restored(self, at: int) -> int:
        """The floats behind a constant that is stored narrower."""
        name = f"{self.file.name(at)[:LABEL_LENGTH]}_float"
        made = self.file.tensor(name, self.file.shape(at), "float32")
        self.op("DEQUANTIZE", [at], [made])
        return made


def _moves(layout: str, rank: int) -> bool:
    """Whether a tensor of `rank` axes is another one with its channels last."""
    return layout == LAST and rank > 2


def _same(had: Mapping[str, Any], encoding: Encoding) -> bool:
    """Whether the parameters of a tensor are those of an encoding."""
    return bool(
        np.array_equal(had["scale"], np.array(encoding.scale, np.float32))
        and np.array_equal(had["zero_point"], np.array(encoding.zero_point))
    )
