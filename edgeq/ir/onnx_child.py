"""The child process in which onnx's C++ looks at models: see `edgeq.ir.isolated`.

Run as a script, without the package around it: it needs onnx and nothing else. Each request is a
JSON head and a model, each after its length in 8 bytes; so is each answer.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from typing import IO, Any

import onnx
from onnx import ModelProto, checker, inliner, shape_inference, version_converter

# What onnx's C++ throws, as it arrives in Python.
FAILURES = (
    version_converter.ConvertError,
    shape_inference.InferenceError,
    checker.ValidationError,
    RuntimeError,
    ValueError,
    IndexError,
    TypeError,
    OverflowError,
    MemoryError,
)
MEMORY_BYTES = 2 << 30
IDLE_S = 120
MAX_NESTED = 4


def prepare(data: bytes, head: dict[str, Any]) -> tuple[dict[str, Any], bytes]:
    """Functions expanded, the default domain at `head["opset"]`, checked; or which step failed."""
    model = ModelProto.FromString(data)
    if model.functions:
        try:
            model = inliner.inline_local_functions(model)
        except FAILURES as failure:
            return _failed("functions", failure), b""
    source = next(entry.version for entry in model.opset_import if not entry.domain)
    if source != head["opset"]:
        ir_version = model.ir_version
        model = _without_newer(model, head["opset"])
        try:
            converted = version_converter.convert_version(model, head["opset"])
        except FAILURES as failure:
            return {**_failed("opset", failure), **_blame(model, source, head["opset"])}, b""
        model = converted
        model.ir_version = ir_version
    try:
        checker.check_model(model)
    except FAILURES as failure:
        return _failed("check", failure), b""
    return {}, model.SerializeToString()


def _without_newer(model: ModelProto, opset: int) -> ModelProto:
    """Operators that came after `opset` as the functions that their schemas have, where they do."""
    for _ in range(MAX_NESTED):  # a function may be of such operators itself
        newer = {
            node.op_type
            for node in model.graph.node
            if not node.domain and not onnx.defs.has(node.op_type, opset, "")
        }
        if not newer:
            break
        _fill_in(model.graph, newer)
        try:
            named = [("", name) for name in sorted(newer)]
            model = inliner.inline_selected_functions(model, named, inline_schema_functions=True)
        except FAILURES:
            break  # converting says what is wrong
    return model


def _fill_in(graph: onnx.GraphProto, op_types: set[str]) -> None:
    """What the inliner goes by: default attributes, and the types of initializers."""
    for node in graph.node:
        if node.domain or node.op_type not in op_types or not onnx.defs.has(node.op_type):
            continue
        given = {attribute.name for attribute in node.attribute}
        for name, attribute in onnx.defs.get_schema(node.op_type).attributes.items():
            if name not in given and attribute.default_value.type:
                node.attribute.append(attribute.default_value)
    told = {info.name for info in graph.value_info}
    for tensor in graph.initializer:
        if tensor.name in told:
            continue
        typed = graph.value_info.add(name=tensor.name)
        typed.type.tensor_type.elem_type = tensor.data_type
        typed.type.tensor_type.shape.dim.extend(
            onnx.TensorShapeProto.Dimension(dim_value=size) for size in tensor.dims
        )


def infer(data: bytes, head: dict[str, Any]) -> tuple[dict[str, Any], bytes]:
    """The model with the shapes and types that follow, sizes strict."""
    model = ModelProto.FromString(data)
    try:
        inferred = shape_inference.infer_shapes(
            model, check_type=True, strict_mode=True, data_prop=True
        )
    except FAILURES as failure:
        return _failed("infer", failure), b""
    _keep_bodies(inferred.graph)
    return {}, inferred.SerializeToString()


def _keep_bodies(graph: onnx.GraphProto) -> None:
    """Of the nodes those with bodies, of them the bodies, and of these what was inferred."""
    del graph.initializer[:]
    for at in reversed(range(len(graph.node))):
        node = graph.node[at]
        for index in reversed(range(len(node.attribute))):
            bodies = node.attribute[index]
            inside = [bodies.g] if bodies.HasField("g") else bodies.graphs
            for body in inside:
                _keep_bodies(body)
            if not inside:
                del node.attribute[index]
        if not node.attribute:
            del graph.node[at]


STEPS = {"prepare": prepare, "infer": infer}


def _failed(step: str, failure: BaseException) -> dict[str, Any]:
    return {"failed": step, "message": f"{failure}" or type(failure).__name__}


def _blame(model: ModelProto, source: int, target: int) -> dict[str, Any]:
    """The one step between opsets that fails, and the operators in use that it changes."""
    step = 1 if source < target else -1
    for version in range(source + step, target + step, step):
        try:
            model = version_converter.convert_version(model, version)
        except FAILURES as failure:
            changed = max(version, version - step)
            return {"operators": _changed_in(model, changed), "message": str(failure)}
    return {}


def _changed_in(model: ModelProto, version: int) -> list[str]:
    used = {node.op_type for node in model.graph.node if not node.domain}
    return sorted(
        name
        for name in used
        if onnx.defs.has(name, version, "")
        and onnx.defs.get_schema(name, version, "").since_version == version
    )


def _read(source: IO[bytes]) -> bytes | None:
    size = source.read(8)
    return source.read(int.from_bytes(size, "little")) if len(size) == 8 else None


def _end_after(processor_s: float, idle_s: int) -> None:
    """SIGPROF ends a request that computes too long, SIGALRM a child that nobody asks (0: off)."""
    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_PROF, processor_s)
        signal.alarm(idle_s)


def _limit_memory(model_bytes: int) -> None:
    """In proportion to the model; and no core file of a crash."""
    try:
        import resource
    except ImportError:  # not on Windows
        return
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    wanted = MEMORY_BYTES + 10 * model_bytes
    soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def serve(source: IO[bytes], answer: IO[bytes]) -> None:
    """Answer requests until the other end closes."""
    while True:
        head, data = _read(source), _read(source)
        if head is None or data is None:
            return
        request = json.loads(head)
        _end_after(request["limit_s"], 0)
        _limit_memory(len(data))
        said, model = STEPS[request["step"]](data, request)
        text = json.dumps(said).encode()
        answer.write(b"".join(len(part).to_bytes(8, "little") + part for part in (text, model)))
        answer.flush()
        _end_after(0, IDLE_S)


if __name__ == "__main__":
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_RDWR), 1)  # onnx prints; nothing of that may reach the answer
    serve(sys.stdin.buffer, out)
    os._exit(0)
