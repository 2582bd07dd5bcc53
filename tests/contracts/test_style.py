"""House rules that a machine can check: short functions and files, types, no stray output."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.checkout

PACKAGES = ("edgeq", "converters/edgeq_converters", "runtimes/python/edgeq_runtime")
MAX_FILE_LINES = 600
MAX_FUNCTION_LINES = 35  # code lines: the docstring, comments and blank lines are free
TABLES = {"edgeq/errors.py"}  # rows of data may be many
BROAD = {  # file -> why it may catch everything
    "edgeq/cli/entry.py": "the last resort: a bug becomes exit code 70 and a crash file",
    "edgeq/data/functions.py": "the user's own code may raise anything, and is blamed for it",
}


@pytest.fixture(scope="module")
def modules(repository: Path) -> dict[str, str]:
    """Every module of the three packages: path -> text."""
    paths = (path for name in PACKAGES for path in sorted((repository / name).rglob("*.py")))
    return {path.relative_to(repository).as_posix(): path.read_text() for path in paths}


def functions(text: str) -> Iterator[tuple[ast.FunctionDef | ast.AsyncFunctionDef, int]]:
    """Each function with its number of code lines, nested functions included in their parent."""
    lines = text.splitlines()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            body = node.body[1:] if ast.get_docstring(node) is not None else node.body
            first = body[0].lineno if body else node.end_lineno
            head = body[0].lineno - node.lineno if body and body is node.body else 1
            code = lines[(first or 1) - 1 : node.end_lineno]
            yield node, head + sum(bool(line.strip()) and line.strip()[0] != "#" for line in code)


def test_no_file_is_over_600_lines(modules: dict[str, str]) -> None:
    long = {name: len(text.splitlines()) for name, text in modules.items() if name not in TABLES}
    assert {name: count for name, count in long.items() if count > MAX_FILE_LINES} == {}


def test_no_function_is_over_35_lines(modules: dict[str, str]) -> None:
    long = [
        f"{name}:{node.lineno} {node.name}: {count}"
        for name, text in modules.items()
        for node, count in functions(text)
        if count > MAX_FUNCTION_LINES
    ]
    assert long == []


def test_every_module_says_what_it_owns(modules: dict[str, str]) -> None:
    silent = [name for name, text in modules.items() if not ast.get_docstring(ast.parse(text))]
    assert silent == []


def test_only_two_places_catch_everything(modules: dict[str, str]) -> None:
    broad = {"Exception", "BaseException"}
    found = []
    for name, text in modules.items():
        for node in ast.walk(ast.parse(text)):
            if not isinstance(node, ast.ExceptHandler):
                continue
            kinds = node.type.elts if isinstance(node.type, ast.Tuple) else [node.type]
            if any(kind is None or getattr(kind, "id", "") in broad for kind in kinds):
                found.append(name)
    assert sorted(found) == sorted(BROAD)


def test_nothing_shipped_names_this_machine(repository: Path) -> None:
    paths = (f"{repository}/", "/wo" + "rk/")  # in two parts: this file must not hold the word
    roots = (*PACKAGES, "targets", "tests", "examples", "docs", "bench", "runtimes", ".ci")
    files = [path for name in roots for path in (repository / name).rglob("*") if path.is_file()]
    files += [path for path in repository.glob("*") if path.is_file()]
    found = [
        f"{path.relative_to(repository)}: {word}"
        for path in files
        if not any(part == "__pycache__" or part.endswith("_cache") for part in path.parts)
        for word in paths
        if word.encode() in path.read_bytes()
    ]
    assert found == []
