"""The file under the TFLite writer: tensors, buffers, operator versions, metadata, bytes."""

import numpy as np
import pytest

from edgeq.errors import EdgeqError
from edgeq_converters.write.tfl import file as files
from edgeq_converters.write.tfl import versions
from edgeq_converters.write.tfl.file import File, Op, schema


def interpreter(data: bytes):
    from ai_edge_litert.interpreter import Interpreter

    opened = Interpreter(model_content=data)
    opened.allocate_tensors()
    return opened


def read(data: bytes):
    return schema().ModelT.InitFromPackedBuf(data, 0)


def test_a_file_runs_and_has_its_signature() -> None:
    file = File()
    x, y = file.tensor("x", [1, 3], "float32"), file.tensor("y", [1, 3], "float32")
    file.op("ADD", [x, file.constant("c", np.array([[1, 2, 3]], np.float32))], [y])
    file.inputs, file.outputs = {"in": x}, {"out": y}
    run = interpreter(file.data()).get_signature_runner("serving_default")
    made = run(**{"in": np.array([[1, 1, 1]], np.float32)})
    np.testing.assert_array_equal(made["out"], [[2, 3, 4]])


def test_the_same_calls_give_the_same_bytes() -> None:
    def made() -> bytes:
        file = File()
        x, y = file.tensor("x", [4], "float32"), file.tensor("y", [4], "float32")
        file.op("MUL", [x, file.constant("c", np.arange(4, dtype=np.float32))], [y])
        file.inputs, file.outputs = {"x": x}, {"y": y}
        file.metadata("a", b"1")
        return file.data()

    assert made() == made()
    assert made()[4:8] == b"TFL3"


def test_names_are_unique_and_equal_constants_share_a_buffer() -> None:
    file = File()
    one = file.constant("c", np.ones(8, np.float32))
    two = file.constant("c", np.ones((2, 4), np.float32))
    assert file.name(one) == "c"
    assert file.name(two) != "c"
    assert len(file.model.buffers) == 2  # the empty one and the shared one
    assert not len(file.model.buffers[0].data or ())


def test_what_nothing_refers_to_is_left_out() -> None:
    file = File()
    x, unused, y = (file.tensor(name, [2], "float32") for name in ("x", "unused", "y"))
    file.op("ABS", [x], [y])
    file.inputs, file.outputs = {"x": x}, {"y": y}
    model = read(file.data())
    assert [bytes(row.name) for row in model.subgraphs[0].tensors] == [b"x", b"y"]
    assert unused == 1


def test_a_file_over_2_gb_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "LARGEST_FILE_BYTES", 100)
    file = File()
    file.constant("small", np.ones(20, np.float32))
    with pytest.raises(EdgeqError) as caught:
        file.constant("large", np.zeros(20, np.float32))
    assert caught.value.slug == "too-large"


def test_old_readers_see_a_code_they_know() -> None:
    file = File()
    x, y = file.tensor("x", [2], "float32"), file.tensor("y", [2], "float32")
    file.op("GELU", [x], [y], approximate=False)
    file.inputs, file.outputs = {"x": x}, {"y": y}
    (code,) = read(file.data()).operatorCodes
    assert (code.deprecatedBuiltinCode, code.builtinCode) == (127, 150)


def stamped(code: str, types: list[str], *, scales: int = 1, **options: object) -> int:
    file = File()
    places = []
    for dtype in types:
        narrow = dtype in ("int8", "int4")
        few = {"scale": [0.5] * scales, "zero_point": [0] * scales} if narrow else {}
        places.append(file.tensor("t", [scales, 4], dtype, **few))
    op = Op(code, places[:-1], places[-1:], options)
    return versions.version(file, op)


@pytest.mark.parametrize(
    ("code", "types", "scales", "wanted"),
    [
        ("CONV_2D", ["float32", "float32", "float32", "float32"], 1, 1),
        ("CONV_2D", ["int8", "int8", "int32", "int8"], 4, 3),
        ("CONV_2D", ["float32", "int8", "float32", "float32"], 4, 5),  # what 2.14 gets wrong
        ("DEPTHWISE_CONV_2D", ["int8", "int8", "int32", "int8"], 4, 3),
        ("DEPTHWISE_CONV_2D", ["float32", "int8", "float32", "float32"], 4, 6),
        ("FULLY_CONNECTED", ["float32", "int8", "float32", "float32"], 4, 12),
        ("FULLY_CONNECTED", ["int8", "int8", "int32", "int8"], 1, 4),
        ("FULLY_CONNECTED", ["float32", "int4", "float32", "float32"], 4, 13),
        ("SOFTMAX", ["int8", "int8"], 1, 2),
        ("SOFTMAX", ["float32", "float32"], 1, 1),
        ("DEQUANTIZE", ["float16", "float32"], 1, 3),
        ("DEQUANTIZE", ["int8", "float32"], 1, 2),
        ("QUANTIZE", ["int8", "int8"], 1, 2),
    ],
)
def test_versions(code: str, types: list[str], scales: int, wanted: int) -> None:
    assert stamped(code, types, scales=scales) == wanted
