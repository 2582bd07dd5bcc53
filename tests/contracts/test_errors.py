"""Every error has a row, every row an error: read from the source of all packages."""

import ast
import inspect
import pickle
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeq import errors
from edgeq.errors import SLUGS, EdgeqError, MissingExtra, Slug, did_you_mean, explain, nearest
from edgeq_runtime import errors as runtime_errors

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = (
    ROOT / "edgeq",
    ROOT / "converters" / "edgeq_converters",
    ROOT / "runtimes" / "python" / "edgeq_runtime",
)
TABLES = {ROOT / "edgeq" / "errors.py", PACKAGES[2] / "errors.py"}


def sources() -> list[Path]:
    found = [path for package in PACKAGES for path in sorted(package.rglob("*.py"))]
    assert len(found) > 20, "the packages have moved"
    return found


def raised_literals(path: Path) -> Iterator[tuple[str, int]]:
    """The literal slugs of EdgeqError(...) and of subclasses' super().__init__ in one file."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.Call) or not node.args:
            continue
        name = getattr(node.func, "id", getattr(node.func, "attr", ""))
        first = node.args[0]
        literal = isinstance(first, ast.Constant) and isinstance(first.value, str)
        if literal and name in ("EdgeqError", "__init__"):
            yield first.value, node.lineno


def strings(path: Path) -> set[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {n.value for n in ast.walk(tree) if isinstance(n, ast.Constant) and type(n.value) is str}


@pytest.mark.checkout
def test_every_raised_slug_has_a_row() -> None:
    unknown = [
        f"{path.relative_to(ROOT)}:{line}: {slug}"
        for path in sources()
        for slug, line in raised_literals(path)
        if slug not in SLUGS
    ]
    assert unknown == []


@pytest.mark.checkout
def test_every_row_is_raised_somewhere() -> None:
    used = set().union(*(strings(path) for path in sources() if path not in TABLES))
    used |= {slug for path in TABLES for slug, _ in raised_literals(path)}
    assert sorted(set(SLUGS) - used) == []


def test_the_two_tables_share_no_slug() -> None:
    assert set(runtime_errors.SLUGS).isdisjoint(errors.SDK_SLUGS)


@pytest.mark.parametrize("slug", sorted(SLUGS))
def test_a_row_reads_as_the_style_asks(slug: str) -> None:
    row = SLUGS[slug]
    assert slug == slug.lower()
    assert set(slug) <= set("abcdefghijklmnopqrstuvwxyz0123456789-")
    assert row.example.endswith(f" [{slug}]")
    message = row.example.removesuffix(f" [{slug}]")
    assert not message.endswith(".") or message.endswith("...")
    assert row.cause.endswith(".")
    assert not row.cause[0].islower()
    assert "please" not in (row.cause + row.fix + row.example).lower()
    assert row.exit_code in (2, 3, 70, 130)
    assert row.fix.strip() == row.fix != ""


def test_it_is_the_runtimes_own_class() -> None:
    assert EdgeqError is runtime_errors.EdgeqError
    assert Slug is runtime_errors.Slug


def test_an_error_says_message_and_slug() -> None:
    error = EdgeqError("config", "`samples` is wrong", "--samples 8")
    assert str(error) == "`samples` is wrong [config]"
    assert (error.slug, error.hints, error.exit_code) == ("config", ("--samples 8",), 2)


def test_an_error_travels_between_processes() -> None:
    error = pickle.loads(pickle.dumps(EdgeqError("config", "a", "b")))
    assert (str(error), error.hints) == ("a [config]", ("b",))


def test_a_missing_extra_names_the_line_that_installs_it() -> None:
    error = MissingExtra("reading PyTorch models", "torch", "torch")
    assert str(error) == "reading PyTorch models needs `torch` [missing-extra]"
    assert error.hints == ('pip install "edgeq[torch]"',)
    assert isinstance(error, EdgeqError)


@pytest.mark.parametrize("text", ["bad-gate", "[bad-gate]", " BAD-GATE "])
def test_explain_finds_a_row_however_it_was_copied(text: str) -> None:
    assert explain(text) is SLUGS["bad-gate"]


def test_explain_hints_the_nearest_slug() -> None:
    with pytest.raises(
        EdgeqError, match=r"^there is no slug `bad-gat` \[unknown-slug\]$"
    ) as caught:
        explain("bad-gat")
    assert caught.value.hints == ("edgeq explain bad-gate",)


def test_explain_of_nonsense_has_no_hint() -> None:
    with pytest.raises(EdgeqError, match=r"\[unknown-slug\]") as caught:
        explain("zzzzqqqq")
    assert caught.value.hints == ()


def test_hints_list_the_few_when_none_is_near() -> None:
    assert did_you_mean("zzz", ["rpi5", "rpi4"]) == ("one of: `rpi4`, `rpi5`",)
    assert did_you_mean("zzz", [f"name{i}" for i in range(50)]) == ()
    assert did_you_mean("rpi6", ["rpi5"]) == ("did you mean `rpi5`?",)


@given(st.text(max_size=30), st.lists(st.text(max_size=10), max_size=8))
def test_nearest_is_one_of_them_and_does_not_depend_on_order(name: str, known: list[str]) -> None:
    found = nearest(name, known)
    assert found is None or found in known
    assert found == nearest(name, list(reversed(known)))


def test_no_hint_names_a_command_or_flag_that_does_not_exist_yet() -> None:
    absent = (
        "edgeq ladder",
        "edgeq profile",
        "edgeq export",
        "edgeq devices",
        "--on ",
    )
    for slug, row in SLUGS.items():
        text = row.cause + row.fix + row.example
        assert not any(word in text for word in absent), slug


def test_the_module_is_small_beside_its_table() -> None:
    code = inspect.getsource(errors).split("SLUGS: dict[str, Slug] = {**")[1]
    assert len(code.splitlines()) < 80
