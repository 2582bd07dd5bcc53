"""Every code block of the hand-written pages does what its page says: docs/blocks.py runs them."""

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

pytestmark = pytest.mark.checkout

PAGES = (
    "README.md",
    "docs/guide.md",
    "examples/digits/README.md",
    "examples/sentence-similarity/README.md",
    "runtimes/python/README.md",
    "CONTRIBUTING.md",
)


@pytest.fixture(scope="module")
def runner(repository: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("blocks", repository / "docs" / "blocks.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["blocks"] = module  # dataclasses look their module up
    try:
        spec.loader.exec_module(module)
    finally:
        del sys.modules["blocks"]
    return module


@pytest.mark.parametrize("name", PAGES)
def test_a_page_says_what_happens(name: str, repository: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(repository / "docs" / "blocks.py"), "--check", name],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_recipe_for_a_target_ends_with_the_tests_that_see_it(
    runner: ModuleType, repository: Path
) -> None:
    """The page's own check then runs them in the copy, where the recipe's file lies."""
    page = (repository / "CONTRIBUTING.md").read_text()
    found = runner.blocks(page)
    written = next(block.line for block in found if block.file == "targets/my-board.toml")
    commands = [line for block in found if block.line > written for line in block.text.splitlines()]
    [tests] = [line for line in commands if line.startswith("python -m pytest ")]
    assert {"tests/targets", "tests/cli/test_listings.py"} <= set(tests.split())


def test_every_page_is_on_the_list(runner: ModuleType, repository: Path) -> None:
    assert runner.PAGES == PAGES
    written = {
        path.relative_to(repository).as_posix()
        for name in (".", "docs", "examples", "runtimes/python")
        for path in (repository / name).glob("*.md" if name != "examples" else "*/*.md")
        if "Written by docs/generate.py" not in path.read_text()
    }
    assert written - {"CHANGELOG.md"} == set(PAGES)


def test_what_runs_elsewhere_is_there(runner: ModuleType, repository: Path) -> None:
    for file in runner.ELSEWHERE.values():
        assert (repository / file).is_file()
    ci = (repository / ".ci" / "run").read_text().splitlines()
    assert {line for line, file in runner.ELSEWHERE.items() if file == ".ci/run"} <= set(ci)


@pytest.mark.parametrize(
    ("shown", "got", "equal"),
    [
        ("Read  m.onnx  0.3s", "Read m.onnx 12.9s", True),
        ("SQNR 32.8 dB", "SQNR 33.9 dB", True),
        ("SQNR 32.8 dB", "SQNR 35.9 dB", False),
        ("634 of 640", "635 of 640", False),
        ("onnxruntime 1.31.1", "onnxruntime 1.31.2", False),
        ("next: edgeq verify a", "next: edgeq verify b", False),
        ("one", "one two", False),
    ],
)
def test_what_counts_as_the_same_text(
    runner: ModuleType, shown: str, got: str, equal: bool
) -> None:
    assert runner.same(shown, got) is equal


@pytest.mark.parametrize(
    ("page", "problem"),
    [
        ("```\nx\n```\n", "line 1: a block needs a language"),
        ("```bash\ntrue\n", "line 1: the block has no end"),
        ("```bash\nexit 3\n```\n", "line 1: exit code 3"),
        ("\n```text\nx\n```\n", "line 2: nothing above prints this"),
        ("```sh\nmake tea\n```\n", "line 1: nothing runs `make tea`"),
        ("```rust\nx\n```\n", "line 1: a block of rust is not run"),
        ("```text a.txt\nx\n```\n```diff a.txt\n y\n+z\n```\n", "line 4: a.txt does not hold once"),
    ],
)
def test_a_wrong_page_is_named(runner: ModuleType, tmp_path: Path, page: str, problem: str) -> None:
    with pytest.raises(runner.WrongPageError) as caught:
        runner.outputs(page, tmp_path)
    assert str(caught.value).startswith(problem)


def test_a_page_is_written_anew(runner: ModuleType, tmp_path: Path) -> None:
    page = (
        "<!-- in: sub -->\n```text a.txt\none\n```\n```diff a.txt\n one\n+two\n```\n"
        "```bash\ncat a.txt\n```\n\n```text\nzero\n```\nend\n"
    )
    found = runner.outputs(page, tmp_path)
    assert list(found.values()) == ["one\ntwo\n"]
    assert runner.renewed(page, found) == page.replace("zero\n", "one\ntwo\n")
