"""Every code block of the hand-written pages is run, in order, in a copy of the repository.

- ```bash and ```python blocks run; a ```text block right after one is what it must print
  (stdout, then for bash stderr in place). Times are left out of the comparison, and a number
  with a point may differ by 5 %: the last digits are the machine's and the engine's.
- A block with a file name, like ```toml edgeq.toml, is written to that file; a ```diff block is
  applied to it: its lines without `+` must stand there once.
- ```sh blocks are for the reader's machine; `ELSEWHERE` names what runs each of their lines.
- `<!-- in: FOLDER -->` says where the blocks after it run.
"""

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

pytestmark = pytest.mark.checkout

PAGES = (
    "README.md",
    "docs/guide.md",
    "examples/digits/README.md",
    "runtimes/python/README.md",
    "CONTRIBUTING.md",
)
WHEELS, CI = "tests/packaging/test_wheels.py", ".ci/run"
# line of a ```sh block -> the file that runs it, or a line that does the same
ELSEWHERE = {
    "make demo": CI,
    "make lint": CI,
    "make test": CI,
    "make test-slow": CI,
    "make bench": "Makefile",
    "make docs": "Makefile",
    "pip install .": WHEELS,
    'pip install "edgeq-runtime[onnxruntime]"': WHEELS,
    'pip install "edgeq[torch]" scikit-learn': "examples/digits/train.py",
    "python examples/digits/train.py": "examples/digits/train.py",
}
TIME = re.compile(r"\b\d+\.\d+s\b")
NUMBER = re.compile(r"\d+\.\d+(?![.\d])|\d+(?:\.\d+){2,}|\d+")
COPIED = ("edgeq", "converters", "runtimes", "targets", "examples", "tests", "docs", "bench")


@dataclass(frozen=True)
class Block:
    """One fenced block: its language, the file name after it, its text, where it runs."""

    language: str
    file: str
    text: str
    folder: str
    line: int


def blocks(page: Path) -> list[Block]:
    found: list[Block] = []
    folder, fence, start, body = ".", "", 0, list[str]()
    for number, line in enumerate(page.read_text().splitlines(), 1):
        if fence:
            if line.strip() == "```":
                language, _, file = fence.partition(" ")
                found.append(Block(language, file, "\n".join(body) + "\n", folder, start))
                fence = ""
            else:
                body.append(line)
        elif line.startswith("```"):
            fence, start, body = line[3:].strip(), number, []
            assert fence, f"{page.name}:{number}: a block needs a language"
        elif match := re.fullmatch(r"<!-- in: (\S+) -->", line):
            folder = match[1]
    assert not fence, f"{page.name}:{start}: the block has no end"
    return found


@pytest.fixture
def copy(repository: Path, tmp_path: Path) -> Path:
    """The repository's files, for blocks that write and edit."""
    root = tmp_path / "edgeq"
    root.mkdir()
    for name in COPIED:
        shutil.copytree(
            repository / name, root / name, ignore=shutil.ignore_patterns("__pycache__", "*.edgeq")
        )
    for path in repository.glob("*"):
        if path.is_file():
            shutil.copy(path, root)
    return root


def run(block: Block, root: Path) -> str:
    """Run a block where its page says; it must succeed. Returns what it printed."""
    (root / block.folder).mkdir(parents=True, exist_ok=True)
    command = {
        "bash": ["bash", "-euo", "pipefail", "-c", block.text],
        "python": [sys.executable, "-c", block.text],
    }[block.language]
    packages = [str(root / name) for name in (".", "converters", "runtimes/python")]
    done = subprocess.run(
        command,
        cwd=root / block.folder,
        env={
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": os.pathsep.join(packages),
            "COLUMNS": "120",
            "NO_COLOR": "1",
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, f"line {block.line}:\n{block.text}\n{done.stdout}"
    return done.stdout


def patched(path: Path, block: Block) -> str:
    """The text of `path` with a ```diff block applied."""
    lines = block.text.splitlines()
    assert all(line[:1] in ("+", "-", " ") for line in lines), f"line {block.line}: no diff"
    before = "".join(f"{line[1:]}\n" for line in lines if line[0] in " -")
    after = "".join(f"{line[1:]}\n" for line in lines if line[0] in " +")
    text = path.read_text()
    assert text.count(before) == 1, f"line {block.line}: {path.name} does not hold once\n{before}"
    return text.replace(before, after)


def same(shown: str, got: str) -> bool:
    """Whether two texts agree but for times, spacing and 5 % of numbers with a point."""
    shown, got = (" ".join(TIME.sub("TIME", text).split()) for text in (shown, got))
    if NUMBER.sub("0", shown) != NUMBER.sub("0", got):
        return False
    pairs = zip(NUMBER.findall(shown), NUMBER.findall(got), strict=True)
    return all(close(left, right) for left, right in pairs)


def close(left: str, right: str) -> bool:
    if left.count(".") != 1:
        return left == right
    return abs(float(left) - float(right)) <= 0.05 * abs(float(left))


@pytest.mark.parametrize("name", PAGES)
def test_the_blocks_of_a_page_do_what_it_says(name: str, repository: Path, copy: Path) -> None:
    printed: str | None = None
    for block in blocks(repository / name):
        where = f"{name}:{block.line}"
        if block.file:
            path = copy / block.folder / block.file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(patched(path, block) if block.language == "diff" else block.text)
        elif block.language in ("bash", "python"):
            printed = run(block, copy)
            continue
        elif block.language == "text":
            assert printed is not None, f"{where}: nothing above prints this"
            assert same(block.text, printed), (
                f"{where}: the page shows\n{block.text}\nbut got\n{printed}"
            )
        else:
            assert block.language == "sh", f"{where}: a block of {block.language} is not run"
            for line in block.text.splitlines():
                assert line in ELSEWHERE, f"{where}: nothing runs `{line}`"
        printed = None


def test_what_runs_elsewhere_does(repository: Path) -> None:
    for line, file in ELSEWHERE.items():
        text = (repository / file).read_text()
        word = line.split('"')[1] if '"' in line else line.split()[-1]
        assert word in text or f"{word}:" in text, f"{file} does not run `{line}`"


@pytest.mark.parametrize(
    ("shown", "got", "equal"),
    [
        ("Read  m.onnx  0.3s", "Read m.onnx 12.9s", True),
        ("SQNR 32.8 dB", "SQNR 33.9 dB", True),
        ("SQNR 32.8 dB", "SQNR 35.9 dB", False),
        ("634 of 640", "635 of 640", False),
        ("onnxruntime 1.31.1", "onnxruntime 1.31.2", False),
        ("next: edgeq verify a", "next: edgeq verify b", False),
    ],
)
def test_what_counts_as_the_same_text(shown: str, got: str, equal: bool) -> None:
    assert same(shown, got) is equal
