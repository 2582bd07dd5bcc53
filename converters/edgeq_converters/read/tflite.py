"""Read a TFLite file: `read` gives a float `Graph`, and the plan of a model that has integers."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx_ir

from edgeq.errors import EdgeqError, did_you_mean
from edgeq.ir import IR_VERSION, OPSET, Graph, check
from edgeq.ir.inference import InferenceFailure, infer
from edgeq_converters.read import files
from edgeq_converters.read.findings import Findings, counted, one_line, quote
from edgeq_converters.read.onnx import NO_SHAPES
from edgeq_converters.read.result import ReadResult
from edgeq_converters.read.tfl import (
    conv,
    elementwise,
    move,
    names,
    numbers,
    pad,
    plain,
    plan,
    pool,
    product,
    recurrent,
    reduce,
)
from edgeq_converters.read.tfl.reading import (
    BATCH,
    Handler,
    NotPerSample,
    Reading,
    Unsupported,
    is_readable,
)
from edgeq_runtime import tflite
from edgeq_runtime.tflite import Model, Operator, Signature

HANDLERS: Mapping[str, Handler] = {
    **conv.HANDLERS,
    **pool.HANDLERS,
    **product.HANDLERS,
    **elementwise.HANDLERS,
    **reduce.HANDLERS,
    **move.HANDLERS,
    **pad.HANDLERS,
    **plain.HANDLERS,
    **recurrent.HANDLERS,
}
"""Operator of the schema -> what reads it."""

METADATA = "edgeq"
"""The entry in which our own files say what a TFLite file cannot."""


def read(path: str | Path, *, shapes: Mapping[str, tuple[int, ...]] = NO_SHAPES) -> ReadResult:
    """The model at `path` as a `Graph`, inputs and outputs as the file has them.

    A first axis that the file leaves open is free where every operator works on one sample at a
    time; `shapes` fixes it. Codes on a scale become floats in the graph and encodings in the plan.

    Raises EdgeqError: no-such-model, model-too-large, damaged-model, invalid-model,
    unsupported-op, unsupported-type, non-finite-weights, no-such-input, bad-shape.
    """
    path = Path(path)
    data = files.read_bounded(path)
    model = parse(data, path.name)
    source = _Source(path.name, model)
    source.check()
    made = source.made(shapes)
    check(made.graph)
    return ReadResult(
        graph=made.graph,
        source_opset=0,
        source_ir=0,
        notes=(*source.notes, *made.notes()),
        sha256=hashlib.sha256(data).hexdigest(),
        size_bytes=len(data),
        format="tflite",
        plan=plan.plan_of(made.ctx, made.graph.nodes()),
        border="int8" if source.has_codes_at_its_border() else "float",
    )


def parse(data: bytes, name: str) -> Model:
    """The file called `name` after our own check of its bytes; errors name it."""
    try:
        return tflite.parse(data)
    except EdgeqError as error:
        raise EdgeqError(error.slug, f"{name}: {error.message}", *error.hints) from error


class _Source:
    """The file: which of its graphs is read, and what its inputs and outputs are called."""

    def __init__(self, name: str, model: Model) -> None:
        self.name = name
        self.notes: list[str] = []
        self.signature = _signature(model)
        self.number = 0 if self.signature is None else self.signature.subgraph
        self.graph = model.subgraphs[self.number]
        if len(model.signatures) > 1 and self.signature is not None:
            self.notes.append(
                f"of {len(model.signatures)} signatures, {quote(self.signature.key)} is read"
            )
        self.inputs = self._called(self.graph.inputs, True)
        self.outputs = self._called(self.graph.outputs, False)
        self.free = self._free(model.metadata.get(METADATA, b""))

    def _called(self, indices: Sequence[int], inputs: bool) -> dict[int, str]:
        said: Mapping[str, int] = {}
        if self.signature is not None:
            said = self.signature.inputs if inputs else self.signature.outputs
        by_index = {index: name for name, index in said.items() if name}
        kind = "input" if inputs else "output"
        return {
            index: by_index.get(index) or self.graph.tensors[index].name or f"{kind}_{at}"
            for at, index in enumerate(indices)
        }

    def _free(self, ours: bytes) -> frozenset[int]:
        """Inputs whose first axis is open: by their signature of shapes, or by our own word."""
        found = {
            index
            for index in self.graph.inputs
            if (self.graph.tensors[index].shape_signature or (0,))[0] == -1
        }
        said = _free_batch(ours)
        found |= {index for index, name in self.inputs.items() if name in said}
        return frozenset(index for index in found if self.graph.tensors[index].shape[:1] == (1,))

    def has_codes_at_its_border(self) -> bool:
        """Whether an input or an output is integers on a scale."""
        border = (*self.graph.inputs, *self.graph.outputs)
        return any(self.graph.tensors[index].quantization is not None for index in border)

    def check(self) -> None:
        """Every operator and every type that is not read, in one error."""
        found = Findings(self.name, hints=_HINTS)
        missing = Counter(
            f"custom operator {quote(op.custom)}" if op.custom else quote(op.code)
            for op in self.graph.operators
            if op.code not in HANDLERS
        )
        for called, count in sorted(missing.items()):
            times = f" ({count} times)" if count > 1 else ""
            found.add("unsupported-op", f"{called}{times} is not read")
        found.raise_any()
        self._check_types(found)
        found.raise_any()
        self._note_open_sizes()

    def _check_types(self, found: Findings) -> None:
        used = {index for op in self.graph.operators for index in (*op.inputs, *op.outputs)}
        for index in sorted({*used, *self.graph.inputs, *self.graph.outputs} - {tflite.LEFT_OUT}):
            tensor = self.graph.tensors[index]
            if tensor.data is None and not tensor.is_variable and not is_readable(tensor):
                found.add("unsupported-type", f"tensor {quote(tensor.name)} is {tensor.dtype}")
            elif tensor.data is None and numbers.has_scales(tensor):
                text = f"tensor {quote(tensor.name)}, no constant, has a scale for each channel"
                found.add("unsupported-type", text)
        for index, tensor in enumerate(self.graph.tensors):
            if tensor.data is None or tensor.dtype not in ("float32", "float16", "bfloat16"):
                continue
            array = np.asarray(tensor.array())
            bad = int(np.count_nonzero(np.isnan(array)))
            if bad and index in used:
                text = f"tensor {quote(tensor.name)} has {bad} NaN of {array.size} values"
                found.add("non-finite-weights", text)

    def _note_open_sizes(self) -> None:
        for index in self.graph.inputs:
            tensor = self.graph.tensors[index]
            sizes = tensor.shape_signature or tensor.shape
            first = 1 if index in self.free else 0
            if -1 in sizes[first:]:
                self.notes.append(
                    f"input {quote(self.inputs[index])} is open in the file, {list(sizes)}, and "
                    f"is read as {list(tensor.shape)}"
                )

    # -- making the graph -------------------------------------------------------------------------

    def made(self, shapes: Mapping[str, tuple[int, ...]]) -> _Made:
        """With a free batch where that works, else with the sizes of the file."""
        fixed = self._fixed(shapes)
        if self.free:
            try:
                return _Made(self, self.free, fixed)
            except NotPerSample as reason:
                if fixed not in (None, 1):
                    raise self._bad_batch(str(reason)) from None
                text = "the batch is open in the file and read as 1: samples are not apart"
                self.notes.append(f"{text}, {reason}")
        return _Made(self, frozenset(), None)

    def _bad_batch(self, reason: str) -> EdgeqError:
        return EdgeqError("bad-shape", f"{self.name}: its batch cannot be changed: {reason}")

    def _fixed(self, shapes: Mapping[str, tuple[int, ...]]) -> int | None:
        """The batch that `shapes` asks for; all else in them must be as the file has it."""
        by_name = {name: index for index, name in self.inputs.items()}
        batches: set[int] = set()
        for name, wanted in shapes.items():
            if name not in by_name:
                text = f"{self.name}: there is no input {quote(name)}"
                raise EdgeqError("no-such-input", text, *did_you_mean(name, by_name))
            index = by_name[name]
            given = self.graph.tensors[index].shape
            is_free = index in self.free
            if len(wanted) != len(given) or wanted[is_free:] != given[is_free:]:
                raise EdgeqError(
                    "bad-shape",
                    f"{self.name}: input {quote(name)} is {list(given)} in the file and cannot "
                    f"become {list(wanted)}",
                )
            if is_free:
                batches.add(wanted[0])
        if len(batches) > 1:
            text = f"{self.name}: its inputs have one batch, not {sorted(batches)}"
            raise EdgeqError("bad-shape", text)
        return batches.pop() if batches else None


class _Made:
    """The graph of a source, with the reading that it came from."""

    def __init__(self, source: _Source, free: frozenset[int], batch: int | None) -> None:
        self.source = source
        self.ctx = Reading(source.graph, free_batch=free)
        self._given: set[onnx_ir.Value] = set(self.ctx.inputs)
        outputs = self._run()
        self.graph = Graph(self._model(outputs, batch))
        self._infer(bool(free) and batch is None)

    def notes(self) -> tuple[str, ...]:
        """What the reading had to say, and the biases that a float32 cannot hold to the unit."""
        rounded = self.ctx.rounded_biases
        if not rounded:
            return tuple(self.ctx.notes)
        many = counted(rounded, "bias code", "bias codes")
        return (*self.ctx.notes, f"{many} beyond 2**23 rounded to the 24 bits of a float32")

    def _run(self) -> list[onnx_ir.Value]:
        """Read operator by operator; returns the outputs."""
        found = Findings(self.source.name, hints=_HINTS)
        broken: set[int] = set()
        for number, op in enumerate(self.source.graph.operators):
            if broken.intersection(op.inputs):
                broken.update(op.outputs)
                continue
            self.ctx.about(op)
            try:
                self._one(op)
            except Unsupported as reason:
                found.add("unsupported-op", f"{quote(op.code)} (operator {number}) {reason}")
                broken.update(op.outputs)
        found.raise_any()
        try:
            return [self._output(index) for index in self.source.graph.outputs]
        except _FAILURES as reason:
            found.add("unsupported-op", f"an output: {one_line(str(reason))}")
            found.raise_any()
            raise AssertionError("unreachable") from reason

    def _one(self, op: Operator) -> None:
        try:
            HANDLERS[op.code](self.ctx, op)
        except Unsupported:
            raise
        except _FAILURES as failure:
            raise Unsupported(f"contradicts itself: {one_line(str(failure))}") from failure

    def _output(self, index: int) -> onnx_ir.Value:
        """The tensor as it is stored; one that is an input, a constant or a second output too is
        made another tensor, so that it can have its name."""
        value = self.ctx.value(index)
        if value.const_value is not None or value in self._given:
            value = self.ctx.like(index, self.ctx.copy(value))
        self._given.add(value)
        return value

    def _model(self, outputs: list[onnx_ir.Value], batch: int | None) -> onnx_ir.Model:
        ctx, source = self.ctx, self.source
        constants = _constants(ctx.nodes)
        interface = [
            *zip(ctx.inputs, source.inputs.values(), strict=True),
            *zip(outputs, (source.outputs[i] for i in source.graph.outputs), strict=True),
        ]
        names.settle(interface, ctx.nodes, constants, ctx.wanted)
        for value in ctx.inputs:
            shape = [_size(size, batch) for size in ctx.expected[value]]
            value.shape = onnx_ir.Shape(shape)
        for index, value in zip(source.graph.outputs, outputs, strict=True):
            value.type = onnx_ir.TensorType(ctx.dtype(source.graph.tensors[index]))
        graph = onnx_ir.Graph(
            ctx.inputs,
            outputs,
            nodes=ctx.nodes,
            initializers=constants,
            opset_imports={"": OPSET},
            name="main",
        )
        return onnx_ir.Model(graph, ir_version=IR_VERSION)

    def _infer(self, free: bool) -> None:
        """Shapes, which must be those that the file says."""
        try:
            infer(self.graph.model)
        except InferenceFailure as failure:
            if free:
                raise NotPerSample(one_line(str(failure))) from failure
            raise EdgeqError(
                "invalid-model",
                f"{self.source.name}: its shapes contradict each other: {one_line(str(failure))}",
            ) from failure
        for node in self.graph.nodes():
            for value in node.outputs:
                self._compare(value, free)

    def _compare(self, value: onnx_ir.Value, free: bool) -> None:
        wanted = self.ctx.expected.get(value)
        if wanted is None or value.shape is None:
            return
        known = [size if isinstance(size, int) else size.value for size in value.shape]
        if free and self.ctx.hides_batch and len(known) == len(wanted):
            pairs = zip(known, wanted, strict=True)
            known = [said if size is None else size for size, said in pairs]
            value.shape = onnx_ir.Shape(known)
        if free and known != list(wanted):
            raise NotPerSample(f"{quote(str(value.name))} would be {known}")
        fixed = [size for size in known if isinstance(size, int)]
        if len(known) != len(wanted) or (BATCH not in wanted and fixed != list(wanted)):
            raise EdgeqError(
                "invalid-model",
                f"{self.source.name}: tensor {quote(str(value.name))} is declared {list(wanted)} "
                f"and is {known}",
            )


def _size(size: int | str, batch: int | None) -> int | str:
    return batch if batch is not None and size == BATCH else size


def _constants(nodes: Iterable[onnx_ir.Node]) -> list[onnx_ir.Value]:
    """The constants that are read, in order of use."""
    found = {
        value: None
        for node in nodes
        for value in node.inputs
        if value is not None and value.const_value is not None
    }
    return list(found)


def _signature(model: Model) -> Signature | None:
    """`serving_default`, else the first of the first graph."""
    named = {signature.key: signature for signature in model.signatures}
    if "serving_default" in named:
        return named["serving_default"]
    first = [signature for signature in model.signatures if signature.subgraph == 0]
    return first[0] if first else None


def _free_batch(ours: bytes) -> frozenset[str]:
    """Inputs that a file of ours says to have a free batch axis."""
    try:
        document = json.loads(ours.rstrip(b"\0") or b"{}")
        said = document["free_batch"]["inputs"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return frozenset()
    return (
        frozenset(name for name in said if isinstance(name, str))
        if isinstance(said, list)
        else frozenset()
    )


_FAILURES = (Unsupported, ValueError, IndexError, TypeError, KeyError, ArithmeticError, MemoryError)
"""What reading an operator raises whose parts do not fit each other."""

_HINTS = {
    "unsupported-type": ("convert the model again with float32 or int8 tensors",),
    "unsupported-op": ("convert the model again without these operators, or give it as ONNX",),
    "non-finite-weights": ("repair the weights where the model is trained, then convert again",),
}
