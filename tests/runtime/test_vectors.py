"""The golden bundles of released formats: every reader reproduces them; they can be made again."""

import importlib.util
import json
import struct
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import edgeq_runtime
from edgeq import bundle
from edgeq_runtime import archive, reader

pytestmark = pytest.mark.checkout


@pytest.fixture(scope="module")
def folder(repository: Path) -> Path:
    return repository / "runtimes" / "vectors"


@pytest.fixture(scope="module")
def make(folder: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_vectors", folder / "make.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_released_format_is_read_and_verified(folder: Path) -> None:
    found = sorted(folder.glob("*.edgeq"))
    assert [path.name for path in found] == ["format-1.edgeq"]
    for path in found:
        assert path.stat().st_size < 100_000
        assert edgeq_runtime.verify(path).passed


def test_its_digest_is_the_released_one(folder: Path) -> None:
    """A change here is a change of the format: readers on devices have the old rules."""
    assert (
        reader.read(folder / "format-1.edgeq").manifest.digest
        == "c6cf520128f9794c44a19f99a1dfa52657f93714af4fb640672851e4dd7c1280"
    )


def test_every_rule_is_in_it(folder: Path) -> None:
    manifest = reader.read(folder / "format-1.edgeq").manifest
    assert {rule.rule for rule in manifest.golden.rules.values()} == {"codes", "equal", "tolerance"}
    assert manifest.labels == ("one", "two", "dr\u00e4i")
    assert manifest.input_specs["image"].resize == 4
    assert manifest.plan == "plan.json"


def test_it_can_be_made_again(
    folder: Path, make: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    released = (folder / "format-1.edgeq").read_bytes()
    made_by = reader.read(folder / "format-1.edgeq").manifest.made_by
    monkeypatch.setattr(bundle, "__version__", made_by)  # the one thing that a release changes
    assert archive.pack(make.files()) == released


@pytest.mark.parametrize("form", ["zip", "folder", "memory"])
def test_all_forms_are_one(
    folder: Path, tmp_path: Path, form: str, put: Callable[[Mapping[str, bytes], Path], Path]
) -> None:
    source: Any = folder / "format-1.edgeq"
    files = reader.read(source).files
    if form == "folder":
        source = put(files, tmp_path / "m.edgeq")
    elif form == "memory":
        source = dict(files)
    assert reader.read(source).files == files


def test_a_reader_written_from_the_document_alone(folder: Path) -> None:
    """Plain Python, zipfile and struct, no edgeq_runtime: the golden outputs as FORMAT.md 8 and 9
    say, against what the engine computes."""
    with zipfile.ZipFile(folder / "format-1.edgeq") as archive_:
        files = {name: archive_.read(name) for name in archive_.namelist()}
    document = json.loads(files["manifest.json"])
    golden = document["golden"]
    with edgeq_runtime.load(folder / "format-1.edgeq", isolate=False, exact=True) as model:
        for vector in golden["vectors"]:
            feeds = {row["name"]: _input(row) for row in vector["inputs"]}
            got = model.run(feeds)
            for row in vector["outputs"]:
                _compare(golden["rules"][row["name"]], row, files[golden["file"]], got[row["name"]])


def _input(row: dict[str, Any]) -> np.ndarray:
    values = []
    for i in range(int(np.prod(row["shape"]))):
        z = (row["seed"] + (i + 1) * 0x9E3779B97F4A7C15) % 2**64
        z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 % 2**64
        z = (z ^ z >> 27) * 0x94D049BB133111EB % 2**64
        k = (z ^ z >> 31) >> 40
        values.append(row["low"] + (row["high"] - row["low"]) * (k * 2.0**-24))
    return np.array(values, np.float32).reshape(row["shape"])


def _compare(rule: dict[str, Any], row: dict[str, Any], data: bytes, got: np.ndarray) -> None:
    code = {"uint8": "B", "int64": "q", "float32": "f"}[row["dtype"]]
    count = row["size"] // struct.calcsize(code)
    stored = struct.unpack_from(f"<{count}{code}", data, row["offset"])
    assert list(got.shape) == row["shape"]
    values = got.reshape(-1)[:: row["stride"]].tolist()
    if rule["rule"] == "codes":
        assert values == [(v - rule["zero_point"]) * rule["scale"] for v in stored]
    elif rule["rule"] == "equal":
        assert values == list(stored)
    else:
        assert all(abs(a - b) <= rule["absolute"] for a, b in zip(values, stored, strict=True))
