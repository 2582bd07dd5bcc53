"""A writer of the few protobuf fields that a tiny ONNX model needs; the runtime has no onnx.

Wire format: https://protobuf.dev/programming-guides/encoding/. A message here is a list of
(field number, value): an int is a varint, bytes and str are length-delimited.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Union

Field = tuple[int, Union[int, bytes, str]]


def varint(value: int) -> bytes:
    """`value` >= 0 in groups of seven bits, least significant first."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def message(*fields: Field) -> bytes:
    """Fields in the given order."""
    out = b""
    for number, value in fields:
        if isinstance(value, int):
            out += varint(number << 3) + varint(value)
        else:
            data = value.encode() if isinstance(value, str) else value
            out += varint(number << 3 | 2) + varint(len(data)) + data
    return out


def value_info(name: str, element_type: int, shape: Sequence[int]) -> bytes:
    """onnx.ValueInfoProto of a tensor; `element_type` is TensorProto.DataType."""
    dimensions = message(*((1, message((1, size))) for size in shape))
    tensor_type = message((1, element_type), (2, dimensions))
    return message((1, name), (2, message((1, tensor_type))))


def one_node_model(
    op_type: str,
    inputs: Sequence[tuple[str, int, Sequence[int]]],
    output: tuple[str, int, Sequence[int]],
) -> bytes:
    """onnx.ModelProto (IR 7, opset 13) of one node; tensors are (name, element type, shape)."""
    node = message(*((1, name) for name, _, _ in inputs), (2, output[0]), (3, "node"), (4, op_type))
    graph = message(
        (1, node),
        (2, "graph"),
        *((11, value_info(*tensor)) for tensor in inputs),
        (12, value_info(*output)),
    )
    return message((1, 7), (7, graph), (8, message((1, ""), (2, 13))))
