"""Figures for people, and words for a shell."""

import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeq.cli import units


@pytest.mark.parametrize(
    ("size_bytes", "text"),
    [
        (0, "0 B"),
        (812, "812 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (999_949, "999.9 kB"),
        (999_950, "1.0 MB"),
        (3_600_000, "3.6 MB"),
        (14_000_000, "14.0 MB"),
        (2_000_000_000, "2.0 GB"),
    ],
)
def test_sizes_are_decimal(size_bytes: int, text: str) -> None:
    assert units.size(size_bytes) == text


@given(st.integers(0, 10**13))
def test_a_size_is_never_written_with_four_digits(size_bytes: int) -> None:
    number, unit = units.size(size_bytes).split()
    assert float(number) < 1000 or unit == "GB"


@pytest.mark.parametrize(
    ("before", "after", "text"),
    [
        (14_000_000, 3_600_000, "3.9x smaller"),
        (100, 100, "same size"),
        (1000, 990, "1.01x smaller"),
        (100, 120, "1.2x larger"),
        (1000, 1001, "1.00x larger"),
        (0, 5, "-"),
    ],
)
def test_factors(before: int, after: int, text: str) -> None:
    assert units.factor(before, after) == text


@settings(max_examples=60, deadline=None)
@given(st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"]), min_size=1))
def test_a_shell_reads_back_the_word(text: str) -> None:
    word = units.shell_word(text)
    read = subprocess.run(
        ["bash", "-c", f"printf %s {word}"], capture_output=True, check=True
    ).stdout.decode("utf-8")
    assert read == (f"./{text}" if text.startswith("-") else text)


def test_a_shell_reads_back_bytes_that_are_not_utf8() -> None:
    name = b"caf\xe9 'x' \\ \n.onnx"
    word = units.shell_word(name.decode("utf-8", "surrogateescape"))
    assert word.isascii()
    assert word.isprintable()
    read = subprocess.run(["bash", "-c", f"printf %s {word}"], capture_output=True, check=True)
    assert read.stdout == name


def test_tables_align_and_leave_no_blanks_at_the_end() -> None:
    assert units.table([("a", "bb", "c"), ("aaa", "b"), ("", "")], gap=2) == [
        "a    bb  c",
        "aaa  b",
        "",
    ]
    assert units.table([]) == []


def test_counted() -> None:
    assert [units.counted(n, "sample") for n in (0, 1, 2)] == ["0 samples", "1 sample", "2 samples"]
