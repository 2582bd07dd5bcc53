"""The pages that docs/generate.py writes are what it would write now."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from edgeq.cli.entry import COMMANDS
from edgeq.errors import SLUGS
from edgeq.targets import names

pytestmark = pytest.mark.checkout


def headings(page: Path) -> list[str]:
    return re.findall(r"^## (.+)$", page.read_text(), re.MULTILINE)


def test_no_page_is_out_of_date(repository: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(repository / "docs" / "generate.py"), "--check"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_every_slug_target_and_command_has_its_section(repository: Path) -> None:
    docs = repository / "docs"
    assert headings(docs / "errors.md") == sorted(SLUGS)
    assert headings(docs / "targets.md") == list(names())
    assert sorted(headings(docs / "commands.md")) == sorted(f"edgeq {name}" for name in COMMANDS)


def test_every_page_is_reached_from_the_readme_and_no_link_is_broken(repository: Path) -> None:
    pages = [repository / "README.md", repository / "CONTRIBUTING.md"]
    pages += sorted((repository / "docs").glob("*.md"))
    pages += [repository / "examples/digits/README.md", repository / "runtimes/python/README.md"]
    linked = set()
    for page in pages:
        for address in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text()):
            if not re.match(r"https?://", address):
                assert (page.parent / address).exists(), f"{page.name} links to {address}"
                linked.add((page.parent / address).resolve())
    assert [page.name for page in pages[1:] if page.resolve() not in linked] == []
