"""The Makefile's first words to somebody whose machine lacks something."""

import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [
    pytest.mark.checkout,
    pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed"),
]
PREREQUISITES = (
    "pyproject.toml",
    "hatch_build.py",
    "runtimes/python/pyproject.toml",
    "runtimes/python/edgeq_runtime/version.py",
)


@pytest.fixture
def bare(tmp_path: Path, repository: Path) -> Path:
    """A folder with the Makefile and what the venv hangs on, and no venv."""
    shutil.copy(repository / "Makefile", tmp_path)
    for name in PREREQUISITES:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


def make(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["make", "--no-print-directory", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def interpreter(folder: Path, script: str) -> Path:
    """A program that stands for `python3` on a machine that is not this one."""
    path = folder / "python3-of-another-machine"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def test_without_venv_it_says_the_apt_line(bare: Path) -> None:
    python = interpreter(
        bare, f'case "$*" in *ensurepip*) exit 1;; esac\nexec {sys.executable} "$@"'
    )
    done = make(bare, "test", f"PYTHON={python}")
    assert done.returncode != 0
    assert "`" + str(python) + " -m venv` does not work here" in done.stderr
    assert "hint: sudo apt-get install python3-venv\n" in done.stderr
    assert not (bare / ".venv").exists()


def test_an_old_python_is_named(bare: Path) -> None:
    python = interpreter(bare, 'case "$1" in -V) echo Python 3.9.2;; *) exit 1;; esac')
    done = make(bare, "demo", f"PYTHON={python}")
    assert done.returncode != 0
    assert f"edgeq needs Python 3.11 or newer, and `{python}` is Python 3.9.2" in done.stderr
    assert "hint: name a newer one: make demo PYTHON=python3.12\n" in done.stderr


def test_no_python_at_all(bare: Path) -> None:
    done = make(bare, "venv", "PYTHON=python-of-nowhere")
    assert done.returncode != 0
    assert "error: there is no `python-of-nowhere` on this machine" in done.stderr
    assert "hint: sudo apt-get install python3 python3-venv\n" in done.stderr


def test_help_lists_every_target(bare: Path) -> None:
    done = make(bare, "help")
    text = (bare / "Makefile").read_text()
    phony = next(line for line in text.splitlines() if line.startswith(".PHONY:"))
    assert [line.split()[0] for line in done.stdout.splitlines()] == phony.split()[1:]


def test_clean_removes_what_make_made(bare: Path) -> None:
    for name in (".venv", "build", "dist"):
        (bare / name).mkdir()
    assert make(bare, "clean").returncode == 0
    assert not any((bare / name).exists() for name in (".venv", "build", "dist"))
    assert (bare / "pyproject.toml").exists()
