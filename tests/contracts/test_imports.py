"""Imports: one way down the chain, cheap at the top, and nothing under a generic name."""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest

HEAVY = ("numpy", "onnx", "onnx_ir", "onnxruntime", "rich", "sympy", "google.protobuf")


def modules_after(code: str, *arguments: str, cwd: Path) -> set[str]:
    """The names in sys.modules after `code` ran in a fresh interpreter."""
    report = (
        "import atexit, json, sys\n"
        "atexit.register(lambda: print(json.dumps(sorted(sys.modules)), file=sys.stderr))\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", report + code, *arguments],
        capture_output=True,
        text=True,
        cwd=cwd,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stderr.splitlines()[-1]))


def heavy(modules: Iterable[str]) -> list[str]:
    return sorted(set(modules) & set(HEAVY))


@pytest.mark.parametrize(
    "name",
    [
        "edgeq",
        "edgeq.errors",
        "edgeq.config",
        "edgeq.registry",
        "edgeq.targets",
        "edgeq.cli",
        "edgeq_converters",
        "edgeq_runtime",
        "edgeq_runtime.errors",
    ],
)
def test_the_top_imports_nothing_heavy(name: str, tmp_path: Path) -> None:
    assert heavy(modules_after(f"import {name}", cwd=tmp_path)) == []


HELP = "import sys; from edgeq.cli import main; sys.exit(main())"


@pytest.mark.parametrize(
    "arguments", [("--help",), ("--version",), ("build", "--help"), ("targets", "--help")]
)
def test_help_imports_nothing_heavy(arguments: tuple[str, ...], tmp_path: Path) -> None:
    assert heavy(modules_after(HELP, *arguments, cwd=tmp_path)) == []


def test_the_runtime_opens_an_engine_without_the_sdk(tmp_path: Path) -> None:
    code = "from edgeq_runtime.engines import get; get('onnxruntime').version()"
    modules = modules_after(code, cwd=tmp_path)
    strangers = {"edgeq", "edgeq_converters", "onnx", "onnx_ir", "rich", "click"}
    assert "onnxruntime" in modules
    assert sorted(modules & strangers) == []


def test_every_public_name_is_there() -> None:
    import edgeq

    assert sorted(edgeq.__all__) == list(edgeq.__all__)
    for name in edgeq.__all__:
        assert getattr(edgeq, name) is not None
    assert set(edgeq.__all__) <= set(dir(edgeq))
    with pytest.raises(AttributeError, match="module `edgeq` has no attribute `biuld`"):
        _ = edgeq.biuld  # type: ignore[attr-defined]


def test_the_error_and_the_version_are_the_runtimes() -> None:
    import edgeq
    import edgeq_runtime

    assert edgeq.EdgeqError is edgeq_runtime.EdgeqError
    assert edgeq.load is edgeq_runtime.load
    assert edgeq.__version__ == edgeq_runtime.__version__


@pytest.mark.checkout
def test_imports_go_one_way(repository: Path) -> None:
    program = shutil.which("lint-imports", path=str(Path(sys.executable).parent))
    assert program, "import-linter is part of the extra [dev]"
    done = subprocess.run(
        [program, "--no-cache"],
        cwd=repository,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 broken" in done.stdout


@pytest.mark.checkout
@pytest.mark.parametrize("name", ["converters", "runtimes", "targets", "tests", "bench"])
def test_a_generic_folder_is_no_import_root(name: str, repository: Path, tmp_path: Path) -> None:
    """An editable install puts the repository on the path: ruff refuses what would then import."""
    program = shutil.which("ruff", path=str(Path(sys.executable).parent))
    assert program, "ruff is part of the extra [dev]"
    done = subprocess.run(
        [program, "check", "--no-cache", "--stdin-filename", "edgeq/made_up.py", "-"],
        input=f'"""A module."""\n\nimport {name}.thing\n\nprint({name})\n',
        cwd=repository,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert f"TID251 `{name}` is banned" in done.stdout
