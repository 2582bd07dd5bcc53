"""What an artifact is and refers to, looked at before an engine sees it: FORMAT.md 4.4, 4.5, 6.6,
10.2.

Engines differ in what they follow: ONNX Runtime 1.18 to 1.20 look for external data of a model in
memory in the current folder, 1.21 to 1.23 follow any path (1.21 and 1.22 any address in memory),
later ones refuse all of that but hard links (each measured). Here a reference is to the bundle's
own file of weights, or the bundle is refused.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from edgeq_runtime import tflite
from edgeq_runtime.canonical import damaged
from edgeq_runtime.errors import EdgeqError

ALIGNMENT = 4096
"""Each tensor of the file of weights begins at a multiple of it."""
MAX_FIELDS = 2**24
"""Protobuf fields that are looked at: seconds, where a model of hostile depth could take hours."""

MODEL, TENSOR, ENTRY = "ModelProto", "TensorProto", "StringStringEntryProto"
CHILDREN: Mapping[str, Mapping[int, str]] = {
    MODEL: {7: "GraphProto", 20: "TrainingInfoProto", 25: "FunctionProto"},
    "TrainingInfoProto": {1: "GraphProto", 2: "GraphProto"},
    "FunctionProto": {7: "NodeProto", 11: "AttributeProto"},
    "GraphProto": {1: "NodeProto", 5: TENSOR, 15: "SparseTensorProto"},
    "NodeProto": {5: "AttributeProto"},
    "AttributeProto": {
        5: TENSOR,
        6: "GraphProto",
        10: TENSOR,
        11: "GraphProto",
        22: "SparseTensorProto",
        23: "SparseTensorProto",
    },
    "SparseTensorProto": {1: TENSOR, 2: TENSOR},
}
"""Message -> field -> the message in it, for those of onnx.proto that can hold a tensor."""
EXTERNAL_DATA = 13
"""The field of TensorProto with the entries (key 1, value 2) that point to another file."""
_KEYS = ("length", "location", "offset")
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5  # wire types; groups are in no ONNX file

Range = tuple[int, int]
Field = tuple[int, int, int, int]


def check(data: bytes, name: str, form: str, weights: str | None, size: int) -> tuple[Range, ...]:
    """Refuse an artifact that is not of the format `form`, or refers to any file but `weights`.

    `size`: bytes of that file. Returns its pieces [start, stop) that no tensor covers, which must
    be zeros. Raises EdgeqError [damaged-bundle].
    """
    for mark, kind, called in ((b"ORTM", "ort", "in ORT format"), (b"TFL3", "tflite", "TFLite")):
        is_so = data[4:8] == mark
        if form in ("onnx", "ort", "tflite") and is_so != (form == kind):
            raise damaged(f"`{name}` is {'' if is_so else 'not '}{called}, not as it says")
    if form == "tflite":
        _check_tflite(data, name)
    # a reference has the key `location`, in so many bytes: without the word there is none
    if form != "onnx" or (weights is None and b"location" not in data):
        return ()
    ranges = sorted(_range(row, name, weights) for row in references(data, name))
    gaps, end = [], 0
    for start, stop in ranges:
        if start != end + -end % ALIGNMENT:
            raise damaged(f"`{name}`: a tensor lies at byte {start} of `{weights}`, out of place")
        gaps.append((end, start))
        end = stop
    if weights is not None and end != size:
        raise damaged(f"`{name}`: its tensors end at byte {end} of `{weights}`, not at {size}")
    return tuple(gap for gap in gaps if gap[0] < gap[1])


def _check_tflite(data: bytes, name: str) -> None:
    """Every rule of rule 10.2."""
    try:
        tflite.parse(data)
    except EdgeqError as error:
        raise damaged(f"`{name}`: {error.message}") from None


def _range(entries: Mapping[str, str], name: str, weights: str | None) -> Range:
    """[start, stop) of a tensor in the file of weights."""
    location = entries.get("location")
    if weights is None or location != weights:
        raise damaged(f"`{name}` refers to another file, {str(location)[:100]!a}")
    if tuple(sorted(entries)) != _KEYS:
        raise damaged(f"`{name}`: a tensor has the entries {', '.join(sorted(entries))[:100]!a}")
    numbers = [entries[key] for key in ("offset", "length")]
    if not all(text.isascii() and text.isdigit() and len(text) <= 18 for text in numbers):
        raise damaged(f"`{name}`: a tensor has no byte count in `offset` or `length`")
    return int(numbers[0]), int(numbers[0]) + int(numbers[1])


def references(data: bytes, name: str) -> Iterator[dict[str, str]]:
    """The `external_data` entries of each tensor that has any, wherever it is in the model."""
    left = MAX_FIELDS
    waiting = [(MODEL, 0, len(data))]
    while waiting:
        kind, start, stop = waiting.pop()
        entries: list[tuple[str, str]] = []
        for number, wire, begin, end in _fields(data, start, stop, name):
            left -= 1
            if left < 0:
                raise damaged(f"`{name}` has more than {MAX_FIELDS} fields")
            child = CHILDREN.get(kind, {}).get(number)
            if wire == _BYTES and child is not None:
                waiting.append((child, begin, end))
            elif wire == _BYTES and kind == TENSOR and number == EXTERNAL_DATA:
                entries.append(_entry(data, begin, end, name))
        if len(dict(entries)) < len(entries):
            raise damaged(f"`{name}`: a tensor has an entry twice")
        if entries:
            yield dict(entries)


def _entry(data: bytes, start: int, stop: int, name: str) -> tuple[str, str]:
    """Key and value; of a field that is there twice, readers take the last."""
    found = {1: b"", 2: b""}
    for number, wire, begin, end in _fields(data, start, stop, name):
        if wire == _BYTES and number in found:
            found[number] = data[begin:end]
    return found[1].decode("latin-1"), found[2].decode("latin-1")


def _fields(data: bytes, start: int, stop: int, name: str) -> Iterator[Field]:
    """(number, wire type, begin, end) of each field of a message; nothing is copied."""
    at = start
    while at < stop:
        tag, at = _varint(data, at, stop, name)
        wire, begin = tag & 7, at
        if wire == _BYTES:
            size, begin = _varint(data, at, stop, name)
            at = begin + size
        elif wire == _VARINT:
            _, at = _varint(data, at, stop, name)
        elif wire in (_FIXED64, _FIXED32):
            at += 8 if wire == _FIXED64 else 4
        else:
            raise damaged(f"`{name}` is no ONNX file: wire type {wire} before byte {at}")
        if at > stop or tag >> 32:
            raise damaged(f"`{name}` is no ONNX file: a field runs past its end at byte {begin}")
        yield tag >> 3, wire, begin, at


def _varint(data: bytes, at: int, stop: int, name: str) -> tuple[int, int]:
    """The number at `at`, and where it ends: at most ten bytes, seven bits each."""
    value = shift = 0
    while at < stop and shift < 70:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
    raise damaged(f"`{name}` is no ONNX file: a number does not end at byte {at}")
