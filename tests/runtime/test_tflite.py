"""The view of TFLite files: equal to LiteRT's own schema module, and hard on what is wrong."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeq_runtime import EdgeqError, tflite
from edgeq_runtime import tflite_schema as ours

File = Any  # conftest's TfliteFile
NewFile = Callable[[], File]


@pytest.fixture(scope="module")
def schema() -> Any:
    """The reference."""
    return pytest.importorskip("ai_edge_litert.schema_py_generated")


def snake(name: str) -> str:
    name = re.sub(r"Dilation([WHD])Factor", r"Dilation_\1_Factor", name)
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()


def members(enumeration: Any) -> tuple[str, ...]:
    rows = {value: name for name, value in vars(enumeration).items() if isinstance(value, int)}
    return tuple(rows[number] for number in range(len(rows)))


# -- the schema -----------------------------------------------------------------------------------

READERS = {
    "Bool": "bool",
    "Int8": "i8",
    "Uint8": "u8",
    "Uint16": "u16",
    "Int32": "i32",
    "Uint32": "u32",
    "Int64": "i64",
    "Uint64": "u64",
    "Float32": "f32",
}
FIELD = re.compile(r"    def (\w+)\(self(, j)?\):\n(.*?)(?=\n    # |\Z)", re.DOTALL)


def reference_fields(body: str) -> dict[str, tuple[int, str, float]]:
    """Name -> (number, type, default) as the reference's accessors have them."""
    found = {}
    for name, element, code in FIELD.findall(body):
        offset = re.search(r"self\._tab\.Offset\((\d+)\)", code)
        if offset is None or (not element and re.search("(Length|IsNone|AsNumpy)$", name)):
            continue
        number = re.search(r"number_types\.(\w+)Flags, ", code)
        table = re.search(r"obj = (\w+)\(\)", code)
        kind = READERS[number[1]] if number else "str" if "_tab.String" in code else ""
        kind = kind or ("union" if "_tab.Union" in code else table[1] if table else "?")
        default = re.findall(r"return (.*)", code)[-1]
        value = (
            0.0 if default in ("None", "False") else 1.0 if default == "True" else float(default)
        )
        found[snake(name)] = (int(offset[1]) // 2 - 2, f"[{kind}]" if element else kind, value)
    return found


def stored(kind: str) -> str:
    """The scalar that an enumeration is stored as."""
    if kind == "ReduceWindow":
        return "i32"
    return "i8" if kind == "dtype" or kind in ours.ENUMS else kind


def test_every_table_is_that_of_the_reference(schema: Any) -> None:
    source = Path(schema.__file__).read_text(encoding="utf-8")
    bodies = dict(
        re.findall(r"^class (\w+)\(object\):\n(.*?)(?=^class |^def |\Z)", source, re.M | re.S)
    )
    read = ["Model", "OperatorCode", "SubGraph", "Tensor", "QuantizationParameters", "Operator"]
    read += ["BlockwiseQuantization", "Buffer", "Metadata", "TensorMap", "SignatureDef"]
    for table in [*read, *ours.BUILTIN_OPTIONS[1:], *ours.BUILTIN_OPTIONS_2[1:]]:
        rows = {
            row.name: (row.slot, stored(row.kind), float(row.default))
            for row in ours.fields(table).values()
        }
        assert rows == reference_fields(bodies[table]), table


def test_every_enumeration_is_that_of_the_reference(schema: Any) -> None:
    assert members(schema.BuiltinOptions) == ours.BUILTIN_OPTIONS
    assert members(schema.BuiltinOptions2) == ours.BUILTIN_OPTIONS_2
    assert members(schema.QuantizationDetails) == ours.QUANTIZATION_DETAILS
    assert tuple(name for name, _ in ours.operators()) == members(schema.BuiltinOperator)
    assert tuple(name.lower() for name in members(schema.TensorType)) == ours.DTYPES
    names = {
        "Activation": "ActivationFunctionType",
        "Combiner": "CombinerType",
        "LshProjection": "LSHProjectionType",
        "LstmKernel": "LSTMKernelType",
        "MirrorPad": "MirrorPadMode",
        "Padding": "Padding",
        "ReduceWindow": "ReduceWindowFunction",
        "WeightsFormat": "FullyConnectedOptionsWeightsFormat",
    }
    assert {ours_: members(getattr(schema, theirs)) for ours_, theirs in names.items()} == dict(
        ours.ENUMS
    )


def test_operators_with_a_least_number_of_inputs_are_the_schema_s() -> None:
    known = {name for name, _ in ours.operators()}
    assert set(tflite._LEAST) | set(tflite._MAY_LACK) <= known


def test_every_table_of_options_belongs_to_an_operator() -> None:
    used = {options for _, options in ours.operators() if options}
    assert used == {*ours.BUILTIN_OPTIONS[1:], *ours.BUILTIN_OPTIONS_2[1:]}


# -- the view -------------------------------------------------------------------------------------


def same(value: Any, theirs: Any, kind: str) -> bool:
    """Whether our value of a field is the reference's."""
    if theirs is None:
        return value in (None, (), "") or len(value) == 0
    if kind == "dtype":
        return bool(value == ours.DTYPES[theirs])
    if kind in ours.ENUMS:
        return bool(value == ours.ENUMS[kind][theirs])
    if kind == "str":
        return bool(value == theirs.decode())
    if kind[0] == "[":
        return list(value) == np.asarray(theirs).tolist()
    return bool(value == theirs)


def compare(model: tflite.Model, theirs: Any, schema: Any) -> None:
    for graph, reference in zip(model.subgraphs, theirs.subgraphs, strict=True):
        assert graph.inputs == tuple(reference.inputs)
        assert graph.outputs == tuple(reference.outputs)
        for tensor, row in zip(graph.tensors, reference.tensors, strict=True):
            compare_tensor(tensor, row, theirs.buffers)
        for operator, row in zip(graph.operators, reference.operators or [], strict=True):
            compare_operator(operator, row, theirs, schema)


def compare_tensor(tensor: tflite.Tensor, row: Any, buffers: Any) -> None:
    assert tensor.name == (row.name or b"").decode()
    assert tensor.shape == tuple([] if row.shape is None else row.shape)
    assert (tensor.dtype, tensor.is_variable) == (ours.DTYPES[row.type], row.isVariable)
    signature = row.shapeSignature
    assert tensor.shape_signature == (None if signature is None else tuple(signature) or None)
    data = buffers[row.buffer].data if row.buffer else None
    assert bytes(tensor.data or b"") == (b"" if data is None else np.asarray(data).tobytes())
    scale = None if row.quantization is None else row.quantization.scale
    if tensor.quantization is not None and not tensor.quantization.block_size:
        assert tensor.quantization.scale == tuple(scale)
        assert tensor.quantization.zero_point == tuple(row.quantization.zeroPoint)
        assert tensor.quantization.axis == row.quantization.quantizedDimension
    elif tensor.dtype in ours.RANGES and tensor.quantization is None:
        assert scale is None


def compare_operator(operator: tflite.Operator, row: Any, theirs: Any, schema: Any) -> None:
    code = theirs.operatorCodes[row.opcodeIndex]
    number = max(code.builtinCode, code.deprecatedBuiltinCode)
    assert operator.code == members(schema.BuiltinOperator)[number]
    assert operator.version == code.version
    assert operator.inputs == tuple([] if row.inputs is None else row.inputs)
    assert operator.outputs == tuple(row.outputs)
    if operator.custom:
        assert operator.custom == code.customCode.decode()
        return
    options = row.builtinOptions or row.builtinOptions2
    if options is None:
        return
    kinds = ours.fields(type(options).__name__[:-1])
    assert list(operator.options) == list(kinds)
    for name, value in vars(options).items():
        key = snake(name[0].upper() + name[1:])
        assert same(operator.options[key], value, kinds[key].kind), (operator.code, key)


@pytest.mark.shared
def test_public_files_read_as_the_reference_reads_them(shared: Path, schema: Any) -> None:
    refused = []
    for path in sorted((shared / "data").rglob("*.tflite")):
        data = path.read_bytes()
        try:
            model = tflite.parse(data)
        except EdgeqError as error:
            refused.append((path.name, error.slug))
        else:
            compare(model, schema.ModelT.InitFromPackedBuf(data, 0), schema)
    assert refused == [
        ("flip_kws.tflite", "damaged-model"),
        ("html_error_page.tflite", "damaged-model"),
        ("trunc_60pct_kws.tflite", "damaged-model"),
    ]


def test_a_file_with_every_table_of_options(tflite_file: NewFile, schema: Any) -> None:
    """Every field with a value of its own, of each operator that has options."""
    file = tflite_file()
    x = file.tensor("x", (1,))
    file.ends([x], [x])
    for at, (code, options) in enumerate(ours.operators()):
        if not options or any("subgraph" in name for name in ours.fields(options)):
            continue
        made = file.operator(code, [x] * 4, [file.tensor(f"y{at}", (1,))], options)
        table = made.builtinOptions or made.builtinOptions2
        for place, name in enumerate(vars(table)):
            kind = ours.fields(options)[snake(name[0].upper() + name[1:])].kind
            setattr(table, name, a_value(kind, place))
    data = file.bytes()
    compare(tflite.parse(data), schema.ModelT.InitFromPackedBuf(data, 0), schema)


def a_value(kind: str, place: int) -> Any:
    if kind == "str":
        return b"text"
    if kind[0] == "[":
        dtypes = {"f32": "f4", "bool": "?", "u8": "u1", "i32": "i4", "u32": "u4", "i64": "i8"}
        return np.array([place, 1, 2], dtypes[kind[1:-1]])
    if kind in ours.ENUMS:
        return len(ours.ENUMS[kind]) - 1
    return 0.5 if kind == "f32" else kind == "bool" or place + 2


def test_what_is_left_out_has_its_default(tflite_file: NewFile) -> None:
    file = tflite_file()
    x, y = file.tensor("x", (1, 4, 4, 1)), file.tensor("y", (1, 4, 4, 1))
    w = file.tensor("w", (1, 1, 1, 1), data=np.ones(1, np.float32))
    file.operator("CONV_2D", [x, w, -1], [y])
    file.ends([x], [y])
    (operator,) = tflite.parse(file.bytes()).subgraphs[0].operators
    assert operator.inputs == (x, w, tflite.LEFT_OUT)
    assert operator.options == {
        "padding": "SAME",
        "stride_w": 0,
        "stride_h": 0,
        "fused_activation_function": "NONE",
        "dilation_w_factor": 1,
        "dilation_h_factor": 1,
        "quantized_bias_type": "float32",
    }


def test_signatures_metadata_and_names(dense_file: File) -> None:
    dense_file.sign({"image": 0}, {"scores": 3}, "serving_default")
    dense_file.note("min_runtime_version", b"1.5.0".ljust(16, b"\0"))
    model = tflite.parse(dense_file.bytes())
    assert model.signatures == (
        tflite.Signature("serving_default", {"image": 0}, {"scores": 3}, 0),
    )
    assert model.metadata == {"min_runtime_version": b"1.5.0".ljust(16, b"\0")}
    assert (model.version, model.description) == (3, "made by a test")
    assert tflite.is_tflite(dense_file.bytes()) and not tflite.is_tflite(b"PK\3\4 and more")


@pytest.mark.parametrize(
    ("dtype", "stored_bytes", "shape", "values"),
    [
        ("INT4", b"\x8f\x07", (3,), [-1, -8, 7]),
        ("UINT4", b"\x8f\x07", (3,), [15, 8, 7]),
        ("INT2", b"\xe4", (4,), [0, 1, -2, -1]),
        ("BFLOAT16", b"\x80\x3f\x00\xc0", (2,), [1.0, -2.0]),
        ("FLOAT16", b"\x00\x3c", (1,), [1.0]),
        ("BOOL", b"\0\1", (2,), [False, True]),
        ("INT8", b"\xff\x01", (2, 1), [[-1], [1]]),
        ("STRING", struct.pack("<4i", 2, 16, 17, 19) + b"abc", (2,), [b"a", b"bc"]),
        ("FLOAT32", b"", (0, 3), []),
    ],
)
def test_constants_as_arrays(
    tflite_file: NewFile, dtype: str, stored_bytes: bytes, shape: tuple[int, ...], values: Any
) -> None:
    file = tflite_file()
    file.tensor("c", shape, dtype, data=stored_bytes)
    file.ends([], [])
    array = tflite.parse(file.bytes()).subgraphs[0].tensors[0].array()
    assert array.tolist() == values
    assert array.shape == shape


def test_scales_in_blocks(tflite_file: NewFile) -> None:
    model = tflite.parse(blockwise(tflite_file, np.full(4, 0.5, np.float16)).bytes())
    quantization = model.subgraphs[0].tensors[1].quantization
    assert quantization == tflite.Quantization((), (), 0, 32, 0)


def blockwise(new: NewFile, scales: Any) -> File:
    file = new()
    file.tensor("scales", scales.shape, "FLOAT16", data=scales)
    file.tensor("w", (2, 64), "INT4", data=bytes(64), scale=1.0)
    quantization = file.graph.tensors[1].quantization
    quantization.scale = quantization.zeroPoint = None
    quantization.detailsType = file.schema.QuantizationDetails.BlockwiseQuantization
    quantization.details = file.schema.BlockwiseQuantizationT()
    quantization.details.scales, quantization.details.zeroPoints = 0, -1
    quantization.details.blockSize = 32
    file.ends([], [])
    return file


# -- what is refused ------------------------------------------------------------------------------


def spoil_scales(file: File) -> None:
    tensor = file.graph.tensors[1]
    tensor.type = file.schema.TensorType.INT8
    file.model.buffers[tensor.buffer].data = np.zeros(6, np.uint8)
    tensor.quantization = file.schema.QuantizationParametersT()
    tensor.quantization.scale = np.array([1, 2], np.float32)
    tensor.quantization.zeroPoint = np.zeros(2, np.int64)


def three_scales(file: File) -> None:
    spoil_scales(file)
    file.graph.tensors[1].quantization.scale = np.ones(3, np.float32)
    file.graph.tensors[1].quantization.zeroPoint = np.zeros(3, np.int64)


def no_scale_above_zero(file: File) -> None:
    spoil_scales(file)
    file.graph.tensors[1].quantization.scale = np.array([1, 0], np.float32)


def scale_not_finite(file: File) -> None:
    spoil_scales(file)
    file.graph.tensors[1].quantization.scale = np.array([1, np.nan], np.float32)


def zero_point_too_large(file: File) -> None:
    spoil_scales(file)
    file.graph.tensors[1].quantization.zeroPoint = np.array([0, 128], np.int64)


def axis_out_of_range(file: File) -> None:
    spoil_scales(file)
    file.graph.tensors[1].quantization.quantizedDimension = 2


def called_by_itself(file: File) -> None:
    row = file.schema.OperatorCodeT()
    row.builtinCode, row.deprecatedBuiltinCode = file.schema.BuiltinOperator.CALL_ONCE, 127
    file.model.operatorCodes.append(row)
    made = file.schema.OperatorT()
    made.opcodeIndex = len(file.model.operatorCodes) - 1
    made.builtinOptionsType = file.schema.BuiltinOptions.CallOnceOptions
    made.builtinOptions = file.schema.CallOnceOptionsT()
    file.graph.operators.append(made)


def spoilt(path: str, value: Any) -> Callable[[File], None]:
    """Set a field: `graph.tensors.1.buffer`."""

    def change(file: File) -> None:
        *way, last = path.split(".")
        place: Any = file
        for word in way:
            place = place[int(word)] if word.isdigit() else getattr(place, word)
        if last.isdigit():
            place[int(last)] = value
        else:
            setattr(place, last, value)

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (spoilt("model.version", 4), "schema version 4, not 3 [unsupported-type]"),
        (spoilt("model.subgraphs", []), "without a graph [damaged-model]"),
        (spoilt("graph.inputs", [7]), "an input of the graph is tensor 7, of 4 [damaged-model]"),
        (spoilt("graph.inputs", [-1]), "an input of the graph is tensor -1, of 4 [damaged-model]"),
        (spoilt("graph.inputs", [0, 0]), "one tensor is two inputs of the graph [damaged-model]"),
        (spoilt("graph.inputs", []), "(operator 0) reads tensor 0 before it is made"),
        (spoilt("graph.inputs", [1]), "tensor 1 `w` is a constant, and made while the model runs"),
        (spoilt("graph.operators", []), "the output tensor 3 is never made [damaged-model]"),
        (
            spoilt("graph.operators.0.inputs", [0, 1, 4]),
            "an input of FULLY_CONNECTED (operator 0) is tensor 4, of 4 [damaged-model]",
        ),
        (
            spoilt("graph.operators.0.inputs", [0, -1, 2]),
            "FULLY_CONNECTED (operator 0) lacks an input that it needs [damaged-model]",
        ),
        (spoilt("graph.operators.0.inputs", [0]), "lacks an input that it needs [damaged-model]"),
        (spoilt("graph.operators.0.outputs", [0]), "makes tensor 0, which is already there"),
        (spoilt("graph.operators.0.outputs", [-1]), "is tensor -1, of 4 [damaged-model]"),
        (spoilt("graph.operators.0.opcodeIndex", 1), "is of kind 1, not listed [damaged-model]"),
        (
            spoilt("graph.operators.0.builtinOptionsType", 1),
            "has options of another operator, Conv2DOptions [damaged-model]",
        ),
        (
            spoilt("graph.operators.0.builtinOptionsType", 127),
            "Operator.builtin_options of a type that is not known, 127 [unsupported-type]",
        ),
        (
            spoilt("graph.operators.0.builtinOptions.fusedActivationFunction", 6),
            "`fused_activation_function` is 6, which is not known [unsupported-type]",
        ),
        (spoilt("model.operatorCodes.0.builtinCode", 400), "operator number 400 is not known"),
        (spoilt("model.operatorCodes.0.builtinCode", 51), "DELEGATE is no operator of a file"),
        (spoilt("graph.tensors.1.buffer", 3), "tensor 1 `w` is buffer 3, of 3 [damaged-model]"),
        (spoilt("graph.tensors.1.shape", [2, 4]), "[2, 4], needs 32 bytes and has 24"),
        (spoilt("graph.tensors.0.shape", [1, -3]), "`x` has the shape [1, -3] [damaged-model]"),
        (spoilt("graph.tensors.0.shape", [1] * 17), "has the shape"),
        (
            spoilt("graph.tensors.0.shape", [2**31 - 1, 2**31 - 1]),
            "is beyond 64 GB [model-too-large]",
        ),
        (spoilt("graph.tensors.0.shapeSignature", [-2, 3]), "the shape signature [-2, 3]"),
        (spoilt("graph.tensors.0.shapeSignature", [3]), "the shape signature [3]"),
        (spoilt("graph.tensors.0.type", 99), "tensor 0 `x` is of type number 99"),
        (spoilt("graph.tensors.0.type", 14), "is sparse or a variant [unsupported-type]"),
        (spoilt("graph.tensors.0.externalBuffer", 1), "is in another file [unsupported-type]"),
        (spoilt("graph.tensors.0.name", b"\xff"), "Tensor.name is not UTF-8 [damaged-model]"),
        (spoilt("model.buffers.1.offset", 10**6), "buffer 1 is at byte 1000000, beyond the end"),
        (spoilt("model.buffers.1.offset", 2**64 - 1), "beyond the end [damaged-model]"),
        (spoilt("model.buffers.1.offset", 16), "buffer 1 is in two places [damaged-model]"),
        (no_scale_above_zero, "`w` has a scale that is not above 0, or not finite"),
        (scale_not_finite, "`w` has a scale that is not above 0, or not finite"),
        (three_scales, "`w`, [2, 3], has 3 scales on axis 0 [damaged-model]"),
        (axis_out_of_range, "`w`, [2, 3], has 2 scales on axis 2 [damaged-model]"),
        (zero_point_too_large, "`w` has a zero point that int8 does not hold [damaged-model]"),
        (called_by_itself, "subgraph 0 runs itself, or is called too deep [damaged-model]"),
    ],
)
def test_what_is_wrong_is_refused(
    dense_file: File, change: Callable[[File], None], message: str
) -> None:
    tflite.parse(dense_file.bytes())
    change(dense_file)
    with pytest.raises(EdgeqError, match=re.escape(message)):
        tflite.parse(dense_file.bytes())


@pytest.mark.parametrize("scales", [np.ones(3, np.float16), np.array([1, 1, 0, 1], np.float16)])
def test_scales_in_blocks_are_checked(tflite_file: NewFile, scales: Any) -> None:
    with pytest.raises(EdgeqError, match=r"`w`.* scale .*\[damaged-model\]"):
        tflite.parse(blockwise(tflite_file, scales).bytes())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (spoilt("graph.tensors.1.shape", [4, 32]), None),
        (spoilt("graph.tensors.1.shape", [8, 16]), "no scale for each block of 32"),
        (spoilt("graph.tensors.1.quantization.quantizedDimension", 2), "has blocks on axis 2"),
        (spoilt("graph.tensors.1.quantization.quantizedDimension", -1), "has blocks on axis -1"),
        (spoilt("graph.tensors.1.quantization.details.scales", 1), "no scale for each block"),
        (spoilt("graph.tensors.1.quantization.details.scales", 2), "scales in no tensor"),
        (spoilt("graph.tensors.1.quantization.details.blockSize", 0), "has blocks of 0"),
        (spoilt("graph.tensors.1.quantization.details.zeroPoints", 1), "zero points in blocks"),
    ],
)
def test_blocks_that_do_not_fit(
    tflite_file: NewFile, change: Callable[[File], None], message: str | None
) -> None:
    file = blockwise(tflite_file, np.full(4, 0.5, np.float16))
    change(file)
    if message is None:
        tflite.parse(file.bytes())
        return
    with pytest.raises(EdgeqError, match=re.escape(message)):
        tflite.parse(file.bytes())


def test_the_axis_of_one_scale_is_one_of_the_tensor(dense_file: File) -> None:
    spoil_scales(dense_file)
    quantization = dense_file.graph.tensors[1].quantization
    quantization.scale, quantization.zeroPoint = np.ones(1, np.float32), np.zeros(1, np.int64)
    for given, axis in ((1, 1), (2, 0), (-7, 0), (2**31 - 1, 0)):
        quantization.quantizedDimension = given
        found = tflite.parse(dense_file.bytes()).subgraphs[0].tensors[1].quantization
        assert found is not None and found.axis == axis


@pytest.mark.parametrize("left_out", [2, 4, 6, 8, 13, 18])
def test_a_recurrent_operator_lacks_only_what_it_can(tflite_file: NewFile, left_out: int) -> None:
    file = tflite_file()
    x = [file.tensor(f"x{at}", (1, 4)) for at in range(24)]
    optional = {1, 5, 9, 10, 11, 12, 16, 17, 20, 21, 22, 23}
    inputs = [-1 if at in optional else index for at, index in enumerate(x)]
    y = file.tensor("y", (1, 4))
    options = "UnidirectionalSequenceLSTMOptions"
    made = file.operator("UNIDIRECTIONAL_SEQUENCE_LSTM", inputs, [y], options)
    file.ends(x, [y])
    tflite.parse(file.bytes())
    made.inputs[left_out] = -1
    with pytest.raises(EdgeqError, match=r"lacks an input that it needs \[damaged-model\]"):
        tflite.parse(file.bytes())


def test_tensors_and_buffers_may_share(dense_file: File) -> None:
    """Equal weights are stored once: by one buffer, or by two that lead to one vector."""
    first = dense_file.graph.tensors[1].buffer
    x, y = 3, dense_file.tensor("z", (1, 2))
    w = dense_file.tensor("again", (2, 2), buffer=dense_file.buffer(bytes(16)))
    dense_file.operator("FULLY_CONNECTED", [x, w, -1], [y], "FullyConnectedOptions")
    dense_file.tensor("same", (2, 3), buffer=first)
    tensors = tflite.parse(dense_file.bytes()).subgraphs[0].tensors
    assert tensors[-1].array().tolist() == tensors[1].array().tolist()


@pytest.mark.parametrize(
    ("inputs", "outputs", "message"),
    [
        ({"a": 1}, {"b": 3}, "inputs: `a` is tensor 1, which is none of the graph's"),
        ({"a": 0}, {"b": 9}, "outputs: `b` is tensor 9, which is none of the graph's"),
    ],
)
def test_a_signature_of_other_tensors(
    dense_file: File, inputs: dict[str, int], outputs: dict[str, int], message: str
) -> None:
    dense_file.sign(inputs, outputs, "serving_default")
    with pytest.raises(EdgeqError, match=re.escape(message)):
        tflite.parse(dense_file.bytes())


def test_metadata_of_no_buffer(dense_file: File) -> None:
    dense_file.note("a", b"1")
    dense_file.model.metadata[0].buffer = 99
    with pytest.raises(EdgeqError, match=r"metadata `a` is buffer 99, of 4 \[damaged-model\]"):
        tflite.parse(dense_file.bytes())


def test_a_custom_operator_may_have_room_to_work_in(dense_file: File) -> None:
    scratch = dense_file.tensor("scratch", (64,), "UINT8")
    made = dense_file.operator("CUSTOM", [3, scratch], [dense_file.tensor("z", (1,))])
    dense_file.model.operatorCodes[made.opcodeIndex].customCode = b"ethos-u"
    made.customOptions = np.frombuffer(b"options", np.uint8)
    operator = tflite.parse(dense_file.bytes()).subgraphs[0].operators[1]
    assert (operator.code, operator.custom, operator.inputs) == ("CUSTOM", "ethos-u", (3, scratch))
    assert operator.options == {"custom_options": b"options"}
    dense_file.model.operatorCodes[made.opcodeIndex].customCode = None
    with pytest.raises(EdgeqError, match=r"a custom operator has no name \[damaged-model\]"):
        tflite.parse(dense_file.bytes())


def test_strings_that_contradict_themselves(tflite_file: NewFile) -> None:
    good = struct.pack("<4i", 2, 16, 17, 19) + b"abc"
    for bad in (b"\2\0", good[:12], good.replace(b"\x10", b"\x0f"), good[:-1], good[:4] + good[8:]):
        file = tflite_file()
        file.tensor("c", (2,), "STRING", data=bad)
        file.ends([], [])
        with pytest.raises(EdgeqError, match=r"\[damaged-model\]"):
            tflite.parse(file.bytes())


def test_each_length_of_a_file_and_each_byte_is_taken_or_refused(dense_file: File) -> None:
    """Nothing but EdgeqError, wherever the file is cut and whatever byte is wrong."""
    data = dense_file.bytes()
    slugs = set()
    for size in range(len(data)):
        with pytest.raises(EdgeqError) as caught:
            tflite.parse(data[:size])
        slugs.add(caught.value.slug)
    for at in range(len(data)):
        for value in (0, 1, 0x7F, 0x80, 0xFF):
            try:
                tflite.parse(data[:at] + bytes([value]) + data[at + 1 :])
            except EdgeqError as error:
                slugs.add(error.slug)
    assert slugs == {"damaged-model", "unsupported-type", "unsupported-op"}


def test_offsets_that_lead_to_one_table_from_everywhere_are_counted(tflite_file: NewFile) -> None:
    """A file of a few hundred kilobytes could stand for billions of tables."""
    file = tflite_file()
    data = bytearray(file.bytes())
    model = struct.unpack_from("<I", data, 0)[0]
    subgraphs = follow(data, model, 2)
    graph = subgraphs + 4 + struct.unpack_from("<I", data, subgraphs + 4)[0]
    place = graph + field_offset(data, graph, 0)
    data += bytes(-len(data) % 4)
    struct.pack_into("<I", data, place, len(data) - place)
    count = 2**18
    entries = [4 * (count - row) + 4 for row in range(count)]  # all lead to the table at the end
    data += struct.pack("<I", count) + struct.pack(f"<{count}I", *entries)
    data += struct.pack("<HHi", 4, 4, 4)  # the layout of a table without a field, and that table
    with pytest.raises(EdgeqError, match=r"more than 131072 tables .*\[model-too-large\]"):
        tflite.parse(bytes(data))


def field_offset(data: bytearray, table: int, number: int) -> int:
    layout = table - struct.unpack_from("<i", data, table)[0]
    return int(struct.unpack_from("<H", data, layout + 4 + 2 * number)[0])


def follow(data: bytearray, table: int, number: int) -> int:
    place = table + field_offset(data, table, number)
    return int(place + struct.unpack_from("<I", data, place)[0])


# -- little files that stand for much -------------------------------------------------------------


def many_metadata(new: NewFile) -> File:
    file = new()
    buffer = file.buffer(bytes(2**16))
    for at in range(2**10):
        file.note(f"n{at}", b"")
        file.model.metadata[-1].buffer = buffer
    file.ends([], [])
    return file


def many_strings(new: NewFile) -> File:
    file = new()
    count = 2**14
    places = np.full(count + 1, 4 * (count + 2), "<i4")
    buffer = file.buffer(struct.pack("<i", count) + places.tobytes())
    for at in range(2**10):
        file.tensor(f"s{at}", (count,), "STRING", buffer=buffer)
    file.ends([], [])
    return file


def many_blocks(new: NewFile) -> File:
    file = blockwise(new, np.ones(2**14, np.float16))
    weights = file.graph.tensors[1]
    weights.shape, weights.buffer = [2**14, 32], file.buffer(bytes(2**18))
    file.graph.tensors += [weights] * 2**10
    return file


def many_options(new: NewFile) -> File:
    """Options outside the flatbuffer, of which all are the same bytes."""
    file = new()
    made = file.operator("CUSTOM", [], [])
    file.model.operatorCodes[0].customCode = b"Mine"
    made.largeCustomOptionsOffset, made.largeCustomOptionsSize = 8, 2**10
    file.graph.operators = [made] * 2**12
    file.ends([], [])
    return file


@pytest.mark.parametrize("make", [many_metadata, many_strings, many_blocks, many_options])
def test_what_many_share_is_not_gone_through_for_each(
    tflite_file: NewFile, make: Callable[[NewFile], File]
) -> None:
    """Each of these would be copied or read a thousand times: gigabytes out of some megabytes."""
    message = r"too many parts of the file share its vectors \[model-too-large\]"
    with pytest.raises(EdgeqError, match=message):
        tflite.parse(make(tflite_file).bytes())


def test_names_in_messages_are_of_one_line(dense_file: File) -> None:
    dense_file.graph.tensors[1].name = "a\nb\x1b[31m\u202eé".encode() + b"n" * 200
    dense_file.graph.tensors[1].shape = [9, 9]
    with pytest.raises(EdgeqError) as caught:
        tflite.parse(dense_file.bytes())
    assert r"`a\nb\x1b[31m\u202eénnn" in caught.value.message
    assert caught.value.message.isprintable() and len(caught.value.message) < 250
