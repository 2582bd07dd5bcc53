"""Turn a seed into a hostile file, the same one for the same (seed, index) on every machine."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable, Iterator

from google.protobuf.message import DecodeError
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto
from seeds import operator_names, serialized

_WHOLE = (0, 1, -1, 2, 3, 7, 8, 16, 64, 255, -2, -128, 2**15, 2**31 - 1, 2**31, -(2**31))
_HUGE = (2**32, 2**40, 2**62, 2**63 - 1, -(2**63), 2**63 - 8)
_REAL = (0.0, -0.0, 1.0, -1.0, 1e-45, 1e38, float("inf"), float("-inf"), float("nan"), 0.5, 1e-6)
_WORDS = (
    "",
    "x",
    "y",
    "w",
    "SAME_UPPER",
    "linear",
    "cubic",
    "NHWC",
    "a\nb",
    "é\u202e",
    "%s",
    "../w",
)
_PLACES = (
    "../w.bin",
    "/etc/passwd",
    "/dev/zero",
    "w.bin",
    "./w.bin",
    "w.bin/..",
    "missing.bin",
    "",
    "a/../../w.bin",
    "..\\w.bin",
    "w.bin\0x",
    "C:\\w.bin",
    "link.bin",
    "pipe",
    ".",
)

Mutation = Callable[[random.Random, ModelProto], None]


def mutant(seed: int, index: int) -> tuple[str, bytes]:
    """("structure" | "bytes", file): two of three files are valid messages with hostile values."""
    rng = random.Random(f"{seed}:{index}")
    base = rng.choice(serialized())
    if index % 3 == 2:
        return "bytes", _bytes(rng, base)
    model = ModelProto.FromString(base)
    for _ in range(rng.choice((1, 1, 1, 2, 3, 5))):
        mutation = rng.choice(MUTATIONS)
        try:
            mutation(rng, model)
        except (IndexError, ValueError, TypeError):
            continue  # nothing there to mutate
    return "structure", model.SerializeToString()


def _whole(rng: random.Random) -> int:
    return rng.choice(_WHOLE + _HUGE) if rng.random() < 0.7 else rng.randint(-4, 20)


def _small(rng: random.Random) -> int:
    return rng.choice(_WHOLE)


def _graphs(model: ModelProto) -> Iterator[GraphProto]:
    waiting = [model.graph]
    while waiting:
        graph = waiting.pop()
        yield graph
        for node in graph.node:
            waiting.extend(attribute.g for attribute in node.attribute if attribute.HasField("g"))


def _graph(rng: random.Random, model: ModelProto) -> GraphProto:
    return rng.choice(list(_graphs(model)))


def _node(rng: random.Random, model: ModelProto) -> NodeProto:
    return rng.choice(rng.choice([graph for graph in _graphs(model) if graph.node]).node)


def _tensor(rng: random.Random, model: ModelProto) -> TensorProto:
    found = [tensor for graph in _graphs(model) for tensor in graph.initializer]
    found += [
        a.t for graph in _graphs(model) for n in graph.node for a in n.attribute if a.HasField("t")
    ]
    return rng.choice(found)


def _names(model: ModelProto) -> list[str]:
    graph = model.graph
    names = [info.name for info in graph.input] + [tensor.name for tensor in graph.initializer]
    return names + [name for node in graph.node for name in node.output] + ["", "nowhere"]


def _info(rng: random.Random, model: ModelProto) -> ValueInfoProto:
    graph = _graph(rng, model)
    return rng.choice([*graph.input, *graph.output])


def dims(rng: random.Random, model: ModelProto) -> None:
    tensor = _tensor(rng, model)
    if not tensor.dims or rng.random() < 0.3:
        tensor.dims.append(_whole(rng))
    elif rng.random() < 0.2:
        del tensor.dims[rng.randrange(len(tensor.dims))]
    else:
        tensor.dims[rng.randrange(len(tensor.dims))] = _whole(rng)


def fitting_dims(rng: random.Random, model: ModelProto) -> None:
    """Other dims of the same size: past the reader's count, into every shape rule."""
    tensor = _tensor(rng, model)
    sizes = list(tensor.dims)
    action = rng.randrange(4)
    if action == 0:
        rng.shuffle(sizes)
    elif action == 1:
        sizes.insert(rng.randint(0, len(sizes)), 1)
    elif action == 2 and sizes:
        product = 1
        for size in sizes:
            product *= size
        sizes = [product]
    else:
        sizes = [size for size in sizes if size != 1]
    del tensor.dims[:]
    tensor.dims.extend(sizes)


def element_type(rng: random.Random, model: ModelProto) -> None:
    tensor = _tensor(rng, model)
    tensor.data_type = rng.choice((*range(30), 99, -1, 2**31 - 1))


def contents(rng: random.Random, model: ModelProto) -> None:
    """Hostile numbers of the right length: shapes, axes, sizes and weights."""
    tensor = _tensor(rng, model)
    raw = bytearray(tensor.raw_data)
    if tensor.data_type == TensorProto.INT64 and len(raw) >= 8:
        at = 8 * rng.randrange(len(raw) // 8)
        raw[at : at + 8] = struct.pack("<q", _whole(rng))
    elif tensor.data_type == TensorProto.FLOAT and len(raw) >= 4:
        at = 4 * rng.randrange(len(raw) // 4)
        raw[at : at + 4] = struct.pack("<f", rng.choice(_REAL))
    elif rng.random() < 0.5:
        raw = raw[: rng.randint(0, len(raw))]
    else:
        raw += bytes(rng.randrange(64))
    tensor.raw_data = bytes(raw)


def storage(rng: random.Random, model: ModelProto) -> None:
    tensor = _tensor(rng, model)
    action = rng.randrange(5)
    if action == 0:
        tensor.float_data.append(rng.choice(_REAL))
    elif action == 1:
        tensor.int64_data.extend([_whole(rng)] * rng.randrange(4))
    elif action == 2:
        tensor.segment.begin, tensor.segment.end = _whole(rng), _whole(rng)
    elif action == 3:
        tensor.ClearField("raw_data")
    else:
        tensor.string_data.append(b"\xff\x00")


def external(rng: random.Random, model: ModelProto) -> None:
    tensor = _tensor(rng, model)
    tensor.data_location = rng.choice((TensorProto.EXTERNAL, TensorProto.EXTERNAL, 0, 7))
    if rng.random() < 0.8:
        tensor.ClearField("raw_data")
    values = {
        "location": rng.choice(_PLACES),
        "offset": rng.choice(("0", "8", "-1", "9" * 30, "1e3", " 0", "0x10", str(2**63))),
        "length": rng.choice(("64", "0", "63", "-64", "9" * 5000, str(2**64))),
        rng.choice(("checksum", "__class__", "basepath", "location")): "../w.bin",
    }
    for key, value in values.items():
        if rng.random() < 0.6:
            tensor.external_data.add(key=key, value=value)


def interface(rng: random.Random, model: ModelProto) -> None:
    info = _info(rng, model)
    action = rng.randrange(6)
    tensor = info.type.tensor_type
    if action == 0:
        tensor.elem_type = rng.choice((*range(28), 99))
    elif action == 1 and tensor.shape.dim:
        rng.choice(tensor.shape.dim).dim_value = _whole(rng)
    elif action == 2 and tensor.shape.dim:
        rng.choice(tensor.shape.dim).dim_param = rng.choice(_WORDS)
    elif action == 3:
        tensor.shape.dim.add(dim_value=_whole(rng))
    elif action == 4:
        info.type.sequence_type.elem_type.tensor_type.elem_type = 1
    else:
        info.ClearField("type")


def attribute_value(rng: random.Random, model: ModelProto) -> None:
    node = _node(rng, model)
    attribute = rng.choice(node.attribute)
    if attribute.type == AttributeProto.INT:
        attribute.i = _whole(rng)
    elif attribute.type == AttributeProto.INTS and attribute.ints:
        attribute.ints[rng.randrange(len(attribute.ints))] = _whole(rng)
    elif attribute.type == AttributeProto.FLOAT:
        attribute.f = rng.choice(_REAL)
    elif attribute.type == AttributeProto.STRING:
        attribute.s = rng.choice(_WORDS).encode()
    else:
        attribute.floats.append(rng.choice(_REAL))


def attribute_kind(rng: random.Random, model: ModelProto) -> None:
    node = _node(rng, model)
    if node.attribute and rng.random() < 0.3:
        del node.attribute[rng.randrange(len(node.attribute))]
        return
    names = ("axis", "axes", "group", "pads", "strides", "kernel_shape", "dilations", "perm", "to")
    names += ("auto_pad", "alpha", "epsilon", "keepdims", "value", "body", "mode", "output_shape")
    names += ("hidden_size", "block_size", "num_outputs", "equation", "batch_dims", "training_mode")
    fresh = (
        rng.choice(node.attribute)
        if node.attribute and rng.random() < 0.5
        else node.attribute.add()
    )
    fresh.name = rng.choice(names)
    fresh.type = rng.choice(AttributeProto.AttributeType.values())
    fresh.i, fresh.f, fresh.s = _whole(rng), rng.choice(_REAL), rng.choice(_WORDS).encode()
    fresh.ints.extend([_small(rng)] * rng.randrange(5))
    if rng.random() < 0.1:
        fresh.ref_attr_name = "alpha"


def list_length(rng: random.Random, model: ModelProto) -> None:
    attribute = rng.choice(_node(rng, model).attribute)
    if attribute.ints and rng.random() < 0.5:
        del attribute.ints[rng.randrange(len(attribute.ints))]
    else:
        attribute.ints.extend([_small(rng)] * rng.choice((1, 2, 40)))


def opset(rng: random.Random, model: ModelProto) -> None:
    entry = rng.choice(model.opset_import)
    action = rng.randrange(10)
    if action < 7:
        entry.version = rng.randint(6, 29)
    elif action == 7:
        entry.version = _whole(rng)
    elif action == 8:
        entry.domain = rng.choice(
            ("ai.onnx", "com.microsoft", "ai.onnx.ml", "ai.onnx.training", "own")
        )
    else:
        model.opset_import.add(domain="", version=rng.randint(7, 28))


def ir_version(rng: random.Random, model: ModelProto) -> None:
    model.ir_version = rng.choice((0, 1, 3, 4, 10, 12, 99, 2**62, -1))


def operator(rng: random.Random, model: ModelProto) -> None:
    node = _node(rng, model)
    node.op_type = rng.choice(operator_names()) if rng.random() < 0.9 else rng.choice(_WORDS)
    if rng.random() < 0.05:
        node.domain = rng.choice(("com.microsoft", "ai.onnx.ml", "own", "ai.onnx"))


def edge(rng: random.Random, model: ModelProto) -> None:
    node = _node(rng, model)
    if node.input and rng.random() < 0.7:
        node.input[rng.randrange(len(node.input))] = rng.choice(_names(model))
    elif rng.random() < 0.5:
        node.input.append(rng.choice(_names(model)))
    else:
        del node.input[rng.randrange(len(node.input))]


def output(rng: random.Random, model: ModelProto) -> None:
    node = _node(rng, model)
    if node.output and rng.random() < 0.6:
        node.output[rng.randrange(len(node.output))] = rng.choice(_names(model))
    else:
        node.output.append(f"extra_{rng.randrange(4)}")


def rename(rng: random.Random, model: ModelProto) -> None:
    holder = rng.choice((_node(rng, model), _info(rng, model), _tensor(rng, model)))
    holder.name = rng.choice((*_names(model), *_WORDS, "n" * 5000))


def node_list(rng: random.Random, model: ModelProto) -> None:
    graph = _graph(rng, model)
    nodes = [NodeProto.FromString(node.SerializeToString()) for node in graph.node]
    action = rng.randrange(3)
    if action == 0:
        rng.shuffle(nodes)
    elif action == 1:
        del nodes[rng.randrange(len(nodes))]
    else:
        nodes.insert(rng.randrange(len(nodes)), rng.choice(nodes))
    del graph.node[:]
    graph.node.extend(nodes)


def another_output(rng: random.Random, model: ModelProto) -> None:
    """A tensor in the middle becomes an output: every pass must mind it."""
    graph = _graph(rng, model)
    made = [name for node in graph.node for name in node.output]
    graph.output.add(name=rng.choice(made)).type.tensor_type.elem_type = 1


def second_reader(rng: random.Random, model: ModelProto) -> None:
    name = rng.choice(_names(model))
    model.graph.node.add(op_type=rng.choice(("Relu", "Identity")), input=[name], output=["extra"])
    if rng.random() < 0.5:
        model.graph.output.add(name="extra").type.tensor_type.elem_type = 1


def nested(rng: random.Random, model: ModelProto) -> None:
    """The graph inside an If inside an If ..., up to where protobuf itself gives up."""
    for _ in range(rng.choice((1, 2, 5, 18, 30))):
        inner = GraphProto.FromString(model.graph.SerializeToString())
        model.graph.ClearField("node")
        node = model.graph.node.add(op_type=rng.choice(("If", "Loop", "SequenceMap")))
        node.input.append(model.graph.input[0].name)
        node.output.extend(info.name for info in inner.output)
        if rng.random() < 0.7:
            inner.ClearField("input")
        for name in ("then_branch", "else_branch")[: rng.choice((1, 2))]:
            attribute = node.attribute.add(name=name, type=AttributeProto.GRAPH)
            attribute.g.CopyFrom(inner)
        if len(model.SerializeToString()) > 60_000:
            return


def function(rng: random.Random, model: ModelProto) -> None:
    """Functions that call each other: in a circle, or two of the next each (2^k nodes)."""
    count = rng.choice((1, 2, 24))
    for i in range(count):
        target = f"f{(i + 1) % count}" if rng.random() < 0.2 else f"f{i + 1}"
        made = model.functions.add(name=f"f{i}", domain="own", input=["p"], output=["q"])
        made.opset_import.add(domain="", version=rng.choice((17, 18, 1)))
        made.opset_import.add(domain="own", version=1)
        kind, domain = (target, "own") if i + 1 < count else ("Relu", "")
        made.node.add(op_type=kind, domain=domain, input=["p"], output=["r"])
        made.node.add(op_type=kind, domain=domain, input=["r"], output=["q"])
    model.opset_import.add(domain="own", version=1)
    node = _node(rng, model)
    node.op_type, node.domain = "f0", "own"
    node.ClearField("attribute")


def borrowed(rng: random.Random, model: ModelProto) -> None:
    """Nodes, and what they need, of another seed."""
    other = ModelProto.FromString(rng.choice(serialized()))
    model.graph.node.extend(other.graph.node[: rng.randint(1, len(other.graph.node))])
    model.graph.initializer.extend(other.graph.initializer)
    if rng.random() < 0.5:
        model.graph.input.extend(other.graph.input)


def sparse(rng: random.Random, model: ModelProto) -> None:
    tensor = model.graph.sparse_initializer.add()
    tensor.dims.append(_whole(rng))
    tensor.values.name = rng.choice(_names(model))
    tensor.values.data_type = 1


MUTATIONS: tuple[Mutation, ...] = (
    *(dims, fitting_dims, fitting_dims, element_type, contents, contents, storage, external),
    *(interface, interface, attribute_value, attribute_value, attribute_kind, list_length),
    *(opset, opset, ir_version, operator, edge, edge, output, rename, node_list),
    *(another_output, second_reader, nested, function, borrowed, sparse),
)


def _bytes(rng: random.Random, base: bytes) -> bytes:
    data = bytearray(base)
    action = rng.randrange(5)
    if action == 0:
        return bytes(data[: rng.randrange(len(data))])
    if action == 1:
        other = rng.choice(serialized())
        return bytes(data[: rng.randrange(len(data))]) + other[rng.randrange(len(other)) :]
    if action == 2:
        at = rng.randrange(len(data))
        data[at : at + rng.randrange(8)] = bytes(
            rng.randrange(256) for _ in range(rng.randrange(8))
        )
        return bytes(data)
    for _ in range(rng.choice((1, 2, 8))):
        at = rng.randrange(len(data) if action == 3 else min(len(data), 300))
        data[at] ^= 1 << rng.randrange(8)
    return bytes(data)


def parses(data: bytes) -> bool:
    """Whether protobuf takes the file as a model."""
    try:
        return ModelProto.FromString(data).HasField("graph")
    except DecodeError:
        return False
