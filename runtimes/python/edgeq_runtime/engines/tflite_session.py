"""TFLite models as sessions, for the two engines that read them: one code, two libraries.

Both have the Python interface of the TensorFlow Lite interpreter. A file is read by our own
verifier first, always: an interpreter trusts more of a file than it should.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from edgeq_runtime import limits, tflite
from edgeq_runtime.engines import capabilities, quiet
from edgeq_runtime.engines.feeds import first_line, input_mistake, output_mistake
from edgeq_runtime.errors import EdgeqError
from edgeq_runtime.flatbuffer import damaged, shown
from edgeq_runtime.tensors import Dimension, TensorInfo

FORMATS = ("tflite",)
BATCH = "batch"
"""The name of a leading size that is free."""
NOTES = "edgeq"
"""The metadata entry of the files that edgeq writes."""
SIGNATURE = "serving_default"
HALVES = "reduced_precision_support"
"""The metadata entry that makes XNNPACK compute floats in float16, on processors that can."""
MOST_THREADS = 4
RESOLVERS: Mapping[str, str] = {
    "auto": "AUTO",
    "builtin": "BUILTIN_WITHOUT_DEFAULT_DELEGATES",
    "reference": "BUILTIN_REF",
}
"""Which kernels: XNNPACK's where it has them; TFLite's own; the slow ones that define them."""
_CODES = ("int8", "uint8", "int16")
_ERRORS = (RuntimeError, ValueError, TypeError, MemoryError, OverflowError, SystemError)


class Session:
    """An open model. `mode` is "default" for XNNPACK's kernels, "exact" for them without float16
    where the file allows it, else the resolver's name.

    `partitions` is how many parts of the graph XNNPACK runs, `delegated` the operators in each,
    `left` the names of the operators outside: one partition and none left is best. They are None
    where this version of the engine does not say.
    """

    def __init__(
        self, raw: Any, model: tflite.Model, *, engine: str, version: str, mode: str
    ) -> None:
        self.raw = raw
        self.engine = engine
        self.version = version
        self.mode = mode
        graph = model.subgraphs[0]
        self._feeds, self._fetches = names_of(model)
        free = notes(model).get("free_batch", {})
        self._looped = _free(free.get("inputs", ()), self._feeds)
        self._joined = _free(free.get("outputs", ()), self._fetches)
        self.inputs = tuple(
            _info(name, graph.tensors[index], name in self._looped)
            for name, index in self._feeds.items()
        )
        self.outputs = tuple(
            _info(name, graph.tensors[index], name in self._joined)
            for name, index in self._fetches.items()
        )
        self._names = [info.name for info in self.outputs]
        self._shapes = {name: graph.tensors[index].shape for name, index in self._feeds.items()}
        self._has_state = any(tensor.is_variable for tensor in graph.tensors)
        self._lock = threading.Lock()  # an interpreter serves one thread
        self.partitions, self.delegated, self.left = _partitions(raw, graph)

    def run(self, feeds: dict[str, Any], names: Sequence[str] | None = None) -> dict[str, Any]:
        """Run once. `names` asks for some outputs (default: all, in the model's order).

        A free batch is run row by row. State that a model keeps begins anew with each run.
        """
        wanted = self._names if names is None else list(names)
        mistake = output_mistake(self._names, wanted) or input_mistake(self.inputs, feeds)
        if mistake is not None:
            raise mistake
        arrays = {name: _plain(value) for name, value in feeds.items()}
        for name, array in arrays.items():
            if not array.size and 0 not in self._shapes[name]:
                raise EdgeqError("bad-input", f"input `{name}`: an array without elements")
        count = self._count(arrays)
        with self._lock:
            try:
                return self._run(arrays, wanted, count)
            except _ERRORS as error:
                raise EdgeqError(
                    "engine-failed", f"{self.engine} {self.version} failed: {first_line(error)}"
                ) from error

    def close(self) -> None:
        """Free the model; a later `run` is refused."""
        self.raw = _Closed()

    def _count(self, arrays: Mapping[str, Any]) -> int:
        """Rows of the free batch."""
        counts = {name: len(arrays[name]) for name in self._looped}
        if len(set(counts.values())) > 1:
            rows = ", ".join(f"`{name}` {count}" for name, count in counts.items())
            raise EdgeqError("bad-input", f"the inputs differ in their batch: {rows}")
        count = next(iter(counts.values()), 1)
        if count == 0:
            raise EdgeqError("bad-input", f"input `{next(iter(counts))}`: a batch without rows")
        return count

    def _run(self, arrays: Mapping[str, Any], wanted: Sequence[str], count: int) -> dict[str, Any]:
        self._resize(arrays)
        for name, array in arrays.items():
            if name not in self._looped:
                self.raw.set_tensor(self._feeds[name], array)
        rows = []
        for row in range(count):
            for name in self._looped:
                self.raw.set_tensor(self._feeds[name], arrays[name][row : row + 1])
            if self._has_state:
                self.raw.reset_all_variables()
            self.raw.invoke()
            rows.append([self.raw.get_tensor(self._fetches[name]) for name in wanted])
        return {
            name: np.concatenate(values) if name in self._joined and count > 1 else values[-1]
            for name, values in zip(wanted, zip(*rows))
        }

    def _resize(self, arrays: Mapping[str, Any]) -> None:
        """Sizes that the file leaves open are those of the arrays."""
        changed = [
            name
            for name, array in arrays.items()
            if name not in self._looped and array.shape != self._shapes[name]
        ]
        for name in changed:
            self.raw.resize_tensor_input(self._feeds[name], arrays[name].shape, strict=True)
            self._shapes[name] = arrays[name].shape
        if changed:
            self.raw.allocate_tensors()


class _Closed:
    """Stands in for the interpreter after `close`."""

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError("the session is closed")


def open_session(
    library: Any,
    model: bytes | str,
    *,
    engine: str,
    version: str,
    threads: int | None,
    exact: bool,
    resolver: str,
) -> Session:
    """Check `model` (bytes or a path), and open it with the module `library`.

    threads: by default as many as this process may use, four at most. exact: floats are computed
    in float32 everywhere. Raises EdgeqError [damaged-model] and the like from our reader,
    [engine-cannot], [engine-refused].
    """
    data = bytes(model) if isinstance(model, bytes) else _contents(model)
    checked = tflite.parse(data)
    capabilities.check(checked, engine, version, resolver)
    mode = "default" if resolver == "auto" else resolver
    if exact and HALVES in checked.metadata:
        data, mode = data.replace(HALVES.encode(), b"x" * len(HALVES)), "exact"
    kernels = library.OpResolverType[RESOLVERS[resolver]]
    try:
        with quiet.native_stderr():
            raw = library.Interpreter(
                model_content=data,
                num_threads=threads if threads is not None else _usable(),
                experimental_op_resolver_type=kernels,
            )
            raw.allocate_tensors()
    except _ERRORS as error:
        raise EdgeqError(
            "engine-refused", f"{engine} {version} refused the model: {first_line(error)}"
        ) from error
    return Session(raw, checked, engine=engine, version=version, mode=mode)


def notes(model: tflite.Model) -> dict[str, Any]:
    """What edgeq wrote into the file (FORMAT.md 10); {} in anyone else's."""
    text = model.metadata.get(NOTES)
    if text is None:
        return {}
    try:
        value = json.loads(
            bytes(text[: limits.MAX_MANIFEST_BYTES]).decode("utf-8"),
            parse_int=_integer,
            parse_constant=_integer,
        )
    except (ValueError, RecursionError):
        raise damaged(f"the metadata entry `{NOTES}` is not JSON") from None
    if not isinstance(value, dict) or value.get("format") != 1:
        raise damaged(f"the metadata entry `{NOTES}` is not of format 1")
    free = value.get("free_batch", {})
    ends = [free]
    if isinstance(free, dict):
        ends = [free.get(key, []) for key in ("inputs", "outputs")]
    for key, lists in (("free_batch", ends), ("channels_last", [value.get("channels_last", [])])):
        if not all(map(_are_names, lists)):
            raise damaged(f"the metadata entry `{NOTES}` has no names in `{key}`")
    return value


def _integer(text: str) -> int:
    """A number of JSON, which has no NaN; thousands of digits would take minutes."""
    if len(text) > limits.MAX_JSON_NUMBER:
        raise ValueError(text[:80])
    return int(text)


def _are_names(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(name, str) for name in value)


def _contents(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise EdgeqError("engine-refused", f"cannot read `{path}`: {error.strerror}") from error


def _usable() -> int:
    if hasattr(os, "sched_getaffinity"):
        return min(len(os.sched_getaffinity(0)), MOST_THREADS)
    return min(os.cpu_count() or 1, MOST_THREADS)


def names_of(model: tflite.Model) -> tuple[dict[str, int], dict[str, int]]:
    """Name -> tensor of the inputs, and of the outputs, in the model's order."""
    graph = model.subgraphs[0]
    known = {row.key: row for row in model.signatures if row.subgraph == 0}
    chosen = known.get(SIGNATURE) or (next(iter(known.values())) if len(known) == 1 else None)
    if chosen is None:
        return _unique(graph, graph.inputs), _unique(graph, graph.outputs)
    inputs = _in_order(chosen.inputs, graph.inputs)
    outputs = _in_order(chosen.outputs, graph.outputs)
    if set(inputs.values()) != set(graph.inputs) or not outputs:  # unnamed inputs are fed too
        return _unique(graph, graph.inputs), _unique(graph, graph.outputs)
    return inputs, outputs


def _in_order(names: Mapping[str, int], indices: Sequence[int]) -> dict[str, int]:
    """The names of a signature, in the order of the graph."""
    place = {index: at for at, index in enumerate(indices)}
    return dict(sorted(names.items(), key=lambda row: place[row[1]]))


def _unique(graph: tflite.Subgraph, indices: Sequence[int]) -> dict[str, int]:
    """The tensors' own names; a second one of a name gets a number."""
    found: dict[str, int] = {}
    counts: dict[str, int] = {}
    for index in indices:
        name = plain = graph.tensors[index].name or f"tensor_{index}"
        while name in found:
            counts[plain] = counts.get(plain, 1) + 1
            name = f"{plain}_{counts[plain]}"
        found[name] = index
    return found


def _free(names: Sequence[str], known: Mapping[str, int]) -> tuple[str, ...]:
    """Names of the tensors with a free leading axis."""
    missing = [name for name in names if name not in known]
    if missing:
        raise damaged(f"`free_batch` names `{shown(missing[0])}`, which the file does not have")
    return tuple(dict.fromkeys(names))


def _info(name: str, tensor: tflite.Tensor, free: bool) -> TensorInfo:
    dtype = "object" if tensor.dtype == "string" else tensor.dtype
    shape: list[Dimension] = list(tensor.shape)
    for axis, size in enumerate(tensor.shape_signature or ()):
        if size < 0:
            shape[axis] = None if axis else BATCH
    if free:
        if tensor.shape[:1] != (1,):
            raise damaged(f"`free_batch` names `{shown(name)}`, whose first size is not 1")
        shape[0] = BATCH
    scale, zero_point = _grid(tensor)
    return TensorInfo(name, dtype, tuple(shape), scale, zero_point)


def _grid(tensor: tflite.Tensor) -> tuple[float | None, int]:
    """Scale and zero point of a tensor of codes; None and 0 of any other."""
    found = tensor.quantization
    if tensor.dtype not in _CODES or found is None or len(found.scale) != 1:
        return None, 0
    return float(found.scale[0]), int(found.zero_point[0])


def _plain(value: Any) -> Any:
    """In the order and byte order that the interpreter copies."""
    return np.asarray(value, value.dtype.newbyteorder("="), order="C")


def _partitions(
    raw: Any, graph: tflite.Subgraph
) -> tuple[int | None, tuple[int, ...] | None, tuple[str, ...] | None]:
    """How the graph is shared out: parts run by a delegate, operators in each, those left."""
    try:
        rows = raw._get_ops_details()
        parts = [row for row in rows if row["op_name"] == "DELEGATE"]
        inside = [
            _inside(graph, [int(i) for i in row["inputs"]], [int(i) for i in row["outputs"]])
            for row in parts
        ]
    except (AttributeError, KeyError, TypeError, RuntimeError, ValueError):
        return None, None, None
    taken = {number for numbers in inside for number in numbers}
    left = [op.code for number, op in enumerate(graph.operators) if number not in taken]
    return len(parts), tuple(map(len, inside)), tuple(left)


def _inside(graph: tflite.Subgraph, inputs: list[int], outputs: list[int]) -> set[int]:
    """The operators between the tensors that a part reads and those that it makes."""
    makers = {index: number for number, op in enumerate(graph.operators) for index in op.outputs}
    found: set[int] = set()
    given = set(inputs)
    waiting = [index for index in outputs if index not in given]
    while waiting:
        number = makers.get(waiting.pop())
        if number is not None and number not in found:
            found.add(number)
            waiting += [i for i in graph.operators[number].inputs if i not in given]
    return found
