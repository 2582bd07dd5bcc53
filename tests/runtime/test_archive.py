"""Pack and unpack over arbitrary files; and the reader over arbitrary bytes."""

import io
import zipfile
from collections.abc import Mapping

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeq_runtime import EdgeqError, archive, canonical

NAME = st.from_regex(r"[a-z0-9][a-z0-9_-]{0,20}(\.[a-z0-9]{1,5})?", fullmatch=True).filter(
    lambda name: not archive._DEVICES.fullmatch(name) and name not in ("manifest.json", "card.md")
)
FILES = st.dictionaries(NAME, st.binary(max_size=200), max_size=8).map(
    lambda files: {"manifest.json": b"{}", **files}
)


def ignore(_: bytes) -> None:
    pass


@given(FILES)
def test_unpack_gives_what_was_packed(files: Mapping[str, bytes]) -> None:
    data = archive.pack(files)
    assert archive.unpack(io.BytesIO(data), ignore) == files
    assert len(data) == archive.zip_size(files)


@given(FILES)
def test_the_order_of_the_files_changes_nothing(files: Mapping[str, bytes]) -> None:
    assert archive.pack(dict(reversed(list(files.items())))) == archive.pack(files)


@given(FILES)
def test_another_reader_finds_the_same(files: Mapping[str, bytes]) -> None:
    with zipfile.ZipFile(io.BytesIO(archive.pack(files))) as other:
        assert {name: other.read(name) for name in other.namelist()} == files


@given(FILES, st.data())
def test_any_other_bytes_are_refused(files: Mapping[str, bytes], data: st.DataObject) -> None:
    """One zip for each set of files: what unpacks is what packs to it."""
    packed = bytearray(archive.pack(files))
    for _ in range(data.draw(st.integers(1, 3))):
        packed[data.draw(st.integers(0, len(packed) - 1))] = data.draw(st.integers(0, 255))
    try:
        found = archive.unpack(io.BytesIO(bytes(packed)), ignore)
    except EdgeqError:
        return
    assert archive.pack(found) == bytes(packed)


@settings(max_examples=300)
@given(st.binary(max_size=300).map(lambda tail: b"PK\3\4" + tail))
def test_no_bytes_raise_anything_else(data: bytes) -> None:
    with pytest.raises(EdgeqError):
        archive.unpack(io.BytesIO(data), ignore)


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**60), 2**60)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0"), max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text('abc{["\\', max_size=3), inner)
    ),
    max_leaves=12,
)


@given(JSON)
def test_canonical_json_round_trips(value: object) -> None:
    data = canonical.dumps(value)
    assert canonical.loads(data, "value") == value
    assert canonical.dumps(canonical.loads(data, "value")) == data


@settings(max_examples=300)
@given(
    st.binary(max_size=60)
    | st.text('{}[]",:0123456789.eE+-truefalsn\\u ', max_size=60).map(str.encode)
)
def test_no_bytes_make_the_json_reader_raise_anything_else(data: bytes) -> None:
    try:
        value = canonical.loads(data, "value")
    except EdgeqError:
        return
    assert canonical.dumps(value) == data
