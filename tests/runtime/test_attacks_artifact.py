"""Every attack on what an artifact is and refers to: FORMAT.md 4.4, 4.5 and 6.6."""

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import onnx
import pytest
from onnx import ModelProto, TensorProto, helper

from edgeq_runtime import EdgeqError, artifact, canonical, manifest, reader
from edgeq_runtime.engines import onnxruntime as engine
from edgeq_runtime.engines.protobuf import message

Bundle = Mapping[str, bytes]
Files = dict[str, bytes]
WEIGHTS = "model.weights"
MODEL = """
<ir_version: 10, opset_import: ["": 21]>
tiny (float[3] x, bool c) => (float[3] y, float[3] z)
<float[3] w = {1, 2, 3}>
{
  y = Add(x, w)
  z = If (c) <
    then_branch = yes () => (float[3] a) <float[3] b = {1, 1, 1}> { a = Mul(x, b) },
    else_branch = no () => (float[3] d) { d = Identity(x) }
  >
}
"""


def parsed() -> ModelProto:
    return onnx.parser.parse_model(MODEL)


def point(tensor: TensorProto, **entries: object) -> TensorProto:
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in entries.items():
        tensor.external_data.add(key=key, value=str(value))
    return tensor


def check(model: ModelProto | bytes, weights: str | None = None, size: int = 0) -> Any:
    data = model if isinstance(model, bytes) else model.SerializeToString()
    return artifact.check(data, "model.onnx", "onnx", weights, size)


def refused(model: ModelProto | bytes, match: str, weights: str | None = None, size: int = 0):
    with pytest.raises(EdgeqError, match=match) as caught:
        check(model, weights, size)
    assert caught.value.slug == "damaged-bundle"


def test_the_table_has_every_way_to_a_tensor() -> None:
    """Compared with onnx's own descriptors: nothing that can hold a tensor is passed over."""
    descriptors, waiting = {}, [ModelProto.DESCRIPTOR]
    while waiting:
        message = waiting.pop()
        descriptors[message.name] = fields = {
            field.number: field.message_type for field in message.fields if field.message_type
        }
        waiting += [row for row in fields.values() if row.name not in descriptors]
    holds, before = {"TensorProto"}, 0
    while len(holds) > before:
        before = len(holds)
        holds |= {
            name
            for name, fields in descriptors.items()
            if any(child.name in holds for child in fields.values())
        }
    assert {
        name: {number: child.name for number, child in fields.items() if child.name in holds}
        for name, fields in descriptors.items()
        if name in holds - {"TensorProto"}
    } == artifact.CHILDREN
    entries = TensorProto.DESCRIPTOR.fields_by_name["external_data"]
    assert (entries.number, entries.message_type.name) == (artifact.EXTERNAL_DATA, artifact.ENTRY)


def an_initializer(model: ModelProto) -> TensorProto:
    return model.graph.initializer[0]


def a_tensor_of_a_body(model: ModelProto) -> TensorProto:
    return model.graph.node[1].attribute[0].g.initializer[0]


def a_constant_node(model: ModelProto) -> TensorProto:
    model.graph.node.insert(0, helper.make_node("Constant", [], ["k"], value=TensorProto()))
    return model.graph.node[0].attribute[0].t


def a_list_attribute(model: ModelProto) -> TensorProto:
    return model.graph.node[0].attribute.add(name="all").tensors.add()


def a_sparse_tensor(model: ModelProto) -> TensorProto:
    return model.graph.sparse_initializer.add().indices


def a_function(model: ModelProto) -> TensorProto:
    return model.functions.add().node.add().attribute.add(name="value").t


def the_default_of_a_function(model: ModelProto) -> TensorProto:
    return model.functions.add().attribute_proto.add(name="value").t


def a_training_graph(model: ModelProto) -> TensorProto:
    return model.training_info.add().algorithm.initializer.add()


PLACES = (
    an_initializer,
    a_tensor_of_a_body,
    a_constant_node,
    a_list_attribute,
    a_sparse_tensor,
    a_function,
    the_default_of_a_function,
    a_training_graph,
)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("location", ["../x", "/etc/passwd", "x", "*/_ORT_MEM_ADDR_/*", WEIGHTS])
def test_a_reference_where_there_are_no_weights(place: Any, location: str) -> None:
    model = parsed()
    point(place(model), location=location, offset=0, length=12)
    refused(model, "`model.onnx` refers to another file, '")


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("location", ["../x", "/model.weights", "./model.weights", "", "é"])
def test_a_reference_to_another_file_than_the_weights(place: Any, location: str) -> None:
    model = parsed()
    point(place(model), location=location, offset=0, length=12)
    refused(model, "refers to another file", WEIGHTS, 12)


def test_references_as_they_are_written() -> None:
    model = parsed()
    assert check(model) == ()
    point(an_initializer(model), location=WEIGHTS, offset=4096, length=12)
    point(a_tensor_of_a_body(model), location=WEIGHTS, offset=0, length=100)
    assert check(model, WEIGHTS, 4108) == ((100, 4096),)


def test_a_name_with_the_word_is_no_reference() -> None:
    model = parsed()
    an_initializer(model).name = model.graph.node[0].input[1] = "location"
    assert check(model) == ()


@pytest.mark.parametrize(
    ("entries", "match"),
    [
        ({"location": WEIGHTS, "length": 12}, "has the entries 'length, location'"),
        ({"location": WEIGHTS, "offset": 0}, "has the entries 'location, offset'"),
        (
            {"location": WEIGHTS, "offset": 0, "length": 12, "checksum": "0"},
            "has the entries 'checksum, length, location, offset'",
        ),
        ({"offset": 0, "length": 12}, "refers to another file, 'None'"),
        ({"location": WEIGHTS, "offset": -1, "length": 12}, "no byte count"),
        ({"location": WEIGHTS, "offset": 0, "length": "0x12"}, "no byte count"),
        ({"location": WEIGHTS, "offset": "0" * 19, "length": 12}, "no byte count"),
        ({"location": WEIGHTS, "offset": "", "length": 12}, "no byte count"),
        ({"location": WEIGHTS, "offset": 1, "length": 11}, "at byte 1 of `model.weights`, out of"),
        ({"location": WEIGHTS, "offset": 4096, "length": 12}, "byte 4096 of .*, out of place"),
        ({"location": WEIGHTS, "offset": 0, "length": 11}, "end at byte 11 .*, not at 12"),
        ({"location": WEIGHTS, "offset": 0, "length": 13}, "end at byte 13 .*, not at 12"),
    ],
)
def test_entries_that_point_wrong(entries: dict[str, object], match: str) -> None:
    model = parsed()
    point(an_initializer(model), **entries)
    refused(model, match, WEIGHTS, 12)


def test_two_tensors_in_one_place() -> None:
    model = parsed()
    for tensor in (an_initializer(model), a_tensor_of_a_body(model)):
        point(tensor, location=WEIGHTS, offset=0, length=12)
    refused(model, "out of place", WEIGHTS, 12)


def test_weights_that_nothing_refers_to() -> None:
    refused(parsed(), "its tensors end at byte 0 of `model.weights`, not at 12", WEIGHTS, 12)


def test_an_entry_twice() -> None:
    model = parsed()
    point(an_initializer(model), location=WEIGHTS, offset=0, length=12)
    point(an_initializer(model), location="../x")
    refused(model, "has an entry twice", WEIGHTS, 12)


def test_a_key_twice_in_one_entry_counts_last() -> None:
    """As protobuf reads it: key `location`, value `ok`, value `../x`."""
    entry = b"\x0a\x08location\x12\x02ok\x12\x04../x"
    tensor = b"\x6a" + bytes([len(entry)]) + entry
    graph = b"\x2a" + bytes([len(tensor)]) + tensor
    model = b"\x3a" + bytes([len(graph)]) + graph
    read = ModelProto.FromString(model).graph.initializer[0].external_data[0]
    assert (read.key, read.value) == ("location", "../x")
    refused(model, r"another file, '\.\./x'")


@pytest.mark.parametrize(
    ("tail", "match"),
    [
        (b"\x3a\x05\x00", "a field runs past its end at byte"),
        (b"\x3a" + b"\xff" * 20, "a number does not end at byte"),
        (b"\x3a", "a number does not end at byte"),
        (b"\x3b\x3c", "wire type 3 before byte"),
        (b"\x0d\x00", "a field runs past its end at byte"),
        (b"\xba\x80\x80\x80\x80\x02\x00", "a field runs past its end at byte"),
    ],
)
def test_bytes_that_are_no_protobuf(tail: bytes, match: str) -> None:
    model = parsed()
    point(an_initializer(model), location="x")
    refused(model.SerializeToString() + tail, match)


def test_endless_fields(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(artifact, "MAX_FIELDS", 100)
    refused(b"\x08\x01" * 101 + b"\x7a\x08location", "more than 100 fields")


def test_a_reference_thousands_of_bodies_deep() -> None:
    """It is found, and no recursion ends the process before."""
    graph = message((5, message((13, message((1, "location"), (2, "../x"))))))
    for _ in range(2000):  # an attribute of a node of the graph around it
        graph = message((1, message((5, message((6, graph))))))
    refused(message((7, graph)), r"another file, '\.\./x'")


# -- in bundles -----------------------------------------------------------------------------------


def test_a_bundle_whose_model_reads_the_current_folder(
    make: Callable[..., Files], float_model: bytes
) -> None:
    """ONNX Runtime 1.18 to 1.20 would read it: refused before an engine is asked."""
    files = make(float_model)
    model = ModelProto.FromString(float_model)
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.ClearField("float_data")
    point(tensor, location="passwords.txt", offset=0, length=12)
    with pytest.raises(EdgeqError, match=r"another file, 'passwords\.txt' \[damaged-bundle\]"):
        reader.read(with_artifact(files, model.SerializeToString()))


def with_artifact(files: Bundle, data: bytes) -> Files:
    """The bundle with another artifact, size and digests made right again."""
    document = json.loads(files["manifest.json"])
    name = document["artifact"]["file"]
    document["files"][name] = {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    document["digest"] = manifest.digest(document)
    return {**files, name: data, "manifest.json": canonical.dumps(document)}


def test_an_onnx_file_that_is_called_ort(
    make: Callable[..., Files], edited: Any, float_model: bytes
) -> None:
    made = {"format": "ort", "platform": "aarch64", "engine_version": "1.18.0"}
    files = edited(make(float_model), lambda d: d["artifact"].update(made))
    with pytest.raises(EdgeqError, match=r"`model\.onnx` is not in ORT format, not as it says"):
        reader.read(files)


def test_an_ort_file_that_is_called_onnx(make: Callable[..., Files], float_model: bytes) -> None:
    """It would pass by the check of its platform."""
    files = with_artifact(make(float_model), engine.to_ort(float_model, architecture="aarch64"))
    with pytest.raises(EdgeqError, match=r"`model\.onnx` is in ORT format, not as it says"):
        reader.read(files)


def test_an_ort_file_for_older_engines_than_wrote_it(
    make: Callable[..., Files], float_model: bytes
) -> None:
    ort = engine.to_ort(float_model, architecture="aarch64")
    files = make(ort, artifact_file="model.ort", artifact_format="ort", engine_minimum="1.18.0")
    with pytest.raises(EdgeqError, match=r"written by '.*', and `engine\.minimum` is '1\.18\.0'"):
        reader.read(files)


@pytest.mark.parametrize("role", ["model.onnx", "golden.bin", "CARD.md", "plan.json"])
def test_weights_that_are_another_file_too(
    int8_bundle: Bundle, edited: Any, put: Any, tmp_path: Path, role: str
) -> None:
    """They are left on the disk, so what looks for that file in memory would not find it."""
    files = edited(int8_bundle, lambda d: d["artifact"].update(weights=role))
    with pytest.raises(EdgeqError, match=f"`{role}` cannot be the weights"):
        reader.read(put(files, tmp_path / "m.edgeq"))


def test_bytes_between_the_tensors(
    make: Callable[..., Files], edited: Any, put: Any, float_model: bytes, tmp_path: Path
) -> None:
    model = ModelProto.FromString(float_model)
    for index, tensor in enumerate(model.graph.initializer):
        length = 4 * tensor.dims[0]
        for field in ("raw_data", "float_data"):
            tensor.ClearField(field)
        point(tensor, location=WEIGHTS, offset=4096 * index, length=length)
    for name, between in (("zeros", bytes(4084)), ("text", b"!" + bytes(4083))):
        weights = bytes(12) + between + bytes(4)
        entry = {"size": len(weights), "sha256": hashlib.sha256(weights).hexdigest()}

        def add(document: dict[str, Any], entry: dict[str, object] = entry) -> None:
            document["artifact"]["weights"] = WEIGHTS
            document["files"][WEIGHTS] = entry

        files = edited(with_artifact(make(float_model), model.SerializeToString()), add)
        folder = put({**files, WEIGHTS: weights}, tmp_path / name)
        if name == "zeros":
            assert reader.read(folder).folder == str(folder)
            continue
        with pytest.raises(EdgeqError, match="holds bytes of no tensor after byte 12"):
            reader.read(folder)
