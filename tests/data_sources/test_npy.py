"""Reading .npy and .npz from strangers: every attack is a test named after it, and refused fast."""

import io
import re
import struct
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from edgeq.data import npy
from edgeq.data.npy import open_npy, open_npz
from edgeq.errors import EdgeqError

ROOT = Path(__file__).resolve().parents[2]


def npy_bytes(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def header(text: str, version: bytes = b"\x01\x00") -> bytes:
    width = 2 if version == b"\x01\x00" else 4
    return b"\x93NUMPY" + version + len(text).to_bytes(width, "little") + text.encode("latin-1")


def plain(descr: str, shape: str) -> bytes:
    return header(f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}\n")


def npz(path: Path, *members: tuple[str, bytes], compression: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in members:
            archive.writestr(name, data)
    return path


@pytest.fixture(scope="session")
def shared_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One file that the examples of a property test write over again."""
    return tmp_path_factory.mktemp("npy") / "a.npz"


@pytest.fixture(autouse=True)
def quick() -> Iterator[None]:
    """Nothing here may take a second of CPU, whatever the file promises."""
    start = time.process_time()
    yield
    assert time.process_time() - start < 3.0


def read_all(path: Path) -> None:
    rows = open_npz(path) if path.suffix == ".npz" else {"": open_npy(path)}
    for row in rows.values():
        for _ in row.blocks(range(row.shape[0] if row.shape else 0), 1):
            pass


def refused(path: Path, problem: str) -> None:
    start = time.process_time()
    with pytest.raises(EdgeqError, match=re.escape(problem)) as caught:
        read_all(path)
    assert caught.value.slug == "bad-data"
    assert time.process_time() - start < 1.0


# -- honest files --------------------------------------------------------------------------------

ARRAYS = hnp.arrays(
    dtype=st.sampled_from(["<f4", ">f4", "<f8", "<f2", "|u1", "|i1", "<i8", ">i2", "|b1", "<U3"]),
    shape=hnp.array_shapes(min_dims=1, max_dims=4, max_side=5),
)


@settings(max_examples=150)
@given(ARRAYS, st.booleans(), st.booleans(), st.integers(1, 3))
def test_what_numpy_writes_is_read_back_row_by_row(
    shared_path: Path, array: np.ndarray, compressed: bool, fortran: bool, length: int
) -> None:
    array = np.asfortranarray(array) if fortran else array
    (np.savez_compressed if compressed else np.savez)(shared_path, a=array, b=np.arange(3))
    rows = open_npz(shared_path)
    assert list(rows) == ["a", "b"]
    assert rows["a"].shape == array.shape
    np.testing.assert_array_equal(rows["a"].whole(), array)
    starts = list(range(0, len(array) - length + 1, length))
    blocks = list(rows["a"].blocks(starts, length))
    np.testing.assert_array_equal(np.concatenate([*blocks, array[len(blocks) * length :]]), array)


def test_rows_may_be_skipped(tmp_path: Path) -> None:
    array = np.arange(1000, dtype=np.int32).reshape(100, 10)
    np.savez_compressed(tmp_path / "a.npz", a=array)
    rows = open_npz(tmp_path / "a.npz")["a"]
    got = np.concatenate(list(rows.blocks([3, 50, 99], 1)))
    np.testing.assert_array_equal(got, array[[3, 50, 99]])


def test_a_scalar_and_an_empty_array(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", s=np.float32(3), e=np.ones((0, 4)))
    rows = open_npz(tmp_path / "a.npz")
    assert rows["s"].whole() == np.float32(3)
    assert rows["e"].whole().shape == (0, 4)


def test_header_version_2_is_read(tmp_path: Path) -> None:
    text = "{'descr': '<i4', 'fortran_order': False, 'shape': (2,), }\n"
    path = tmp_path / "a.npy"
    path.write_bytes(header(text, b"\x02\x00") + struct.pack("<2i", 5, 6))
    assert open_npy(path).whole().tolist() == [5, 6]


# -- attacks -------------------------------------------------------------------------------------


def test_object_array_attack(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> Any:
            return (Path.touch, (tmp_path / "ran",))

    np.savez(tmp_path / "a.npz", a=np.array([Evil()], dtype=object))
    refused(tmp_path / "a.npz", "array `a` holds Python objects, which would run code when read")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("descr", "shape", "problem"),
    [
        ("<f4", "(999999999999, 99999999)", "and holds 8"),
        ("<f4", "(3,)", "says float32 [3], 12 bytes, and holds 8"),
        ("<f4", "(1,)", "says float32 [1], 4 bytes, and holds 8"),
        ("<f4", "(0,)", "says float32 [0], 0 bytes, and holds 8"),
        ("<f4", "(" + "9" * 400 + ",)", "a header that is not a plain array's"),
        ("<f4", "(" + "1," * 40 + ")", "a header that is not a plain array's"),
        ("<f4", "(-2,)", "a header that is not a plain array's"),
        ("<f4", "(2.0,)", "a header that is not a plain array's"),
        ("<f4", "(__import__('os'),)", "a header that is not a plain array's"),
        ("|O", "(1,)", "holds Python objects"),
        ("<c8", "(1,)", "has the type `complex64`, which no model takes"),
        ("<M8[s]", "(1,)", "which no model takes"),
        ("|V8", "(1,)", "which no model takes"),
        ("<zz", "(1,)", "has the type `<zz`, which numpy does not know"),
        ("f4,f4", "(1,)", "which no model takes"),
    ],
)  # fmt: skip
def test_header_attack(tmp_path: Path, descr: str, shape: str, problem: str) -> None:
    refused(npz(tmp_path / "a.npz", ("a.npy", plain(descr, shape) + b"\0" * 8)), problem)


@pytest.mark.parametrize(
    "text",
    [
        "{'descr': '<f4', 'fortran_order': False}\n",
        "{'descr': '<f4', 'descr': '<f8', 'fortran_order': False, 'shape': (2,)}\n",
        "{'descr': '<f4', 'fortran_order': 'x', 'shape': (2,)}\n",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (2,), 'extra': 1}\n",
        "[" * 9000,
        "",
        "\0" * 100,
    ],
)
def test_header_text_attack(tmp_path: Path, text: str) -> None:
    path = tmp_path / "a.npy"
    path.write_bytes(header(text) + b"\0" * 8)
    refused(path, "a header that is not a plain array's")


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"", "is not a .npy array of version 1 or 2"),
        (b"\x93NUMPY\x03\x00\0\0\0\0", "is not a .npy array of version 1 or 2"),
        (b"\x93NUMPY\x02\x00\xff\xff\xff\xff", "has a header of 4294967295 bytes"),
        (b"\x93NUMPY\x01\x00\x10", "a header that is not a plain array's"),
        (b"PK\x03\x04", "is not a .npy array of version 1 or 2"),
    ],
)
def test_short_and_huge_headers(tmp_path: Path, data: bytes, problem: str) -> None:
    path = tmp_path / "a.npy"
    path.write_bytes(data)
    refused(path, problem)


def test_duplicate_member_attack(tmp_path: Path) -> None:
    good = npy_bytes(np.ones(2))
    with pytest.warns(UserWarning, match="Duplicate name"):
        npz(tmp_path / "a.npz", ("a.npy", good), ("a.npy", good))
    refused(tmp_path / "a.npz", "has two members called `a.npy`")


def test_foreign_member(tmp_path: Path) -> None:
    path = npz(tmp_path / "a.npz", ("a.npy", npy_bytes(np.ones(2))), ("run.py", b"x"))
    refused(path, "has a member `run.py` that is not a .npy array")


def test_many_members_attack(tmp_path: Path) -> None:
    good = npy_bytes(np.ones(1))
    path = npz(tmp_path / "a.npz", *((f"{i}.npy", good) for i in range(npy.MAX_MEMBERS + 1)))
    refused(path, f"has {npy.MAX_MEMBERS + 1} members, more than {npy.MAX_MEMBERS}")


def test_huge_directory_attack(tmp_path: Path) -> None:
    path = npz(tmp_path / "a.npz", *((f"{i:050000}", b"") for i in range(25)))
    refused(path, "bytes of member names")


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_other_compressions(tmp_path: Path, method: int) -> None:
    path = npz(tmp_path / "a.npz", ("a.npy", npy_bytes(np.ones(2))), compression=method)
    refused(path, "in a compression numpy does not write")


def test_deflate_bomb_attack(tmp_path: Path) -> None:
    """A small file that says 2 GB: its directory is patched, so the test itself stays small."""
    size = 2 << 30
    data = plain("<f4", f"({size // 4},)") + b"\0" * (1 << 20)
    path = npz(tmp_path / "a.npz", ("a.npy", data), compression=zipfile.ZIP_DEFLATED)
    raw = bytearray(path.read_bytes())
    place = raw.rindex(b"PK\x01\x02")
    struct.pack_into("<I", raw, place + 24, size + len(plain("<f4", f"({size // 4},)")))
    path.write_bytes(raw)
    refused(path, "unpacks `a.npy` from ")


def test_total_size_attack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(npy, "MAX_TOTAL_BYTES", 100)
    path = npz(tmp_path / "a.npz", ("a.npy", npy_bytes(np.ones(2))))
    refused(path, "unpacks to 144 bytes, more than 100")


def test_a_sample_beyond_all_bounds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    np.savez(tmp_path / "a.npz", a=np.ones((2, 100)))
    monkeypatch.setattr(npy, "MAX_SAMPLE_BYTES", 100)
    refused(tmp_path / "a.npz", "has samples of 800 bytes")


def test_encrypted_member(tmp_path: Path) -> None:
    path = npz(tmp_path / "a.npz", ("a.npy", npy_bytes(np.ones(2))))
    raw = bytearray(path.read_bytes())
    raw[raw.rindex(b"PK\x01\x02") + 8] |= 1
    raw[6] |= 1
    path.write_bytes(raw)
    refused(path, "is not a sound .npz: ")


@pytest.mark.parametrize("data", [b"", b"<!DOCTYPE html>", b"PK\x03\x04" + b"\0" * 100])
def test_what_is_no_zip(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "a.npz"
    path.write_bytes(data)
    refused(path, "is not a .npz (a zip of arrays)")


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    refused(tmp_path / "a.npy", "a.npy: cannot be read: No such file or directory")
    refused(tmp_path / "a.npz", "a.npz: cannot be read: No such file or directory")


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_every_flipped_byte_is_refused_or_changes_nothing_unseen(
    tmp_path: Path, save: Callable[..., None]
) -> None:
    """The zip's own CRC covers the data; a flip elsewhere is refused or changes no number."""
    path = tmp_path / "a.npz"
    array = np.arange(24, dtype=np.float32).reshape(6, 4)
    save(path, a=array)
    good, slugs = path.read_bytes(), set()
    for place in range(len(good)):
        raw = bytearray(good)
        raw[place] ^= 0xFF
        path.write_bytes(raw)
        try:
            rows = open_npz(path)
            got = [np.concatenate(list(row.blocks(range(6), 1))) for row in rows.values()]
        except EdgeqError as error:
            slugs.add(error.slug)
            continue
        assert all(np.array_equal(item, array) for item in got), place
    assert slugs == {"bad-data"}


@settings(max_examples=200)
@given(st.data())
def test_no_mutation_ends_in_a_traceback(shared_path: Path, data: st.DataObject) -> None:
    stream = io.BytesIO()
    np.savez_compressed(stream, a=np.arange(24, dtype=np.float32).reshape(6, 4), b=np.ones(3))
    raw = bytearray(stream.getvalue())
    for _ in range(data.draw(st.integers(1, 6))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    raw = raw[: data.draw(st.integers(0, len(raw)))] if data.draw(st.booleans()) else raw
    shared_path.write_bytes(raw)
    slug = "bad-data"
    try:
        read_all(shared_path)
    except EdgeqError as error:
        slug = error.slug
    assert slug == "bad-data"


# -- memory --------------------------------------------------------------------------------------

PEAK = """
import re, sys
from pathlib import Path
from edgeq.data import open_source
from edgeq_runtime.tensors import TensorInfo
source = open_source(sys.argv[1], inputs=[TensorInfo("x", "float32", (None, 3, 128, 128))])
assert source.count == int(sys.argv[2])
for feed in source:
    pass
# VmHWM, not ru_maxrss: exec keeps the parent's peak in the latter.
print(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc/self/status")
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_memory_does_not_grow_with_the_samples(tmp_path: Path, save: Callable[..., None]) -> None:
    """400 samples of 196 kB cost at most 1.05 times the memory of 80."""
    peaks = []
    for count in (80, 400):
        path = tmp_path / f"{count}.npz"
        array = np.arange(count * 3 * 128 * 128, dtype=np.float32) % 256
        save(path, x=array.reshape(count, 3, 128, 128))
        done = subprocess.run(
            [sys.executable, "-c", PEAK, str(path), str(count)],
            capture_output=True, text=True, check=True, cwd=ROOT, timeout=60,
            env={"PYTHONPATH": ":".join((".", "converters", "runtimes/python"))},
        )  # fmt: skip
        peaks.append(int(done.stdout))
    assert peaks[1] <= 1.05 * peaks[0], peaks
