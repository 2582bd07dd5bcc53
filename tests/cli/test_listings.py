"""`targets` and `explain`: the tables, whole."""

import pytest

from edgeq import errors, targets

SHIPPED = ("rpi-zero2w", "rpi4", "rpi5", "x86-avx2", "x86-vnni")  # a new target needs no golden


def test_targets(edgeq, golden, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(targets, "names", lambda: SHIPPED)
    golden("targets", edgeq("targets"))


def test_every_target_has_its_row(edgeq) -> None:
    rows = edgeq("targets").out.split("\n\n")[0].splitlines()
    assert [row.split()[0] for row in rows] == ["NAME", *targets.names()]


@pytest.mark.parametrize("name", SHIPPED)
def test_one_target(edgeq, golden, name: str) -> None:
    golden(f"targets-{name}", edgeq("targets", name))


@pytest.mark.parametrize("name", targets.names())
def test_every_figure_of_a_target_has_a_source_or_is_unknown(edgeq, name: str) -> None:
    lines = edgeq("targets", name).out.splitlines()
    for label in ("cores", "clock", "memory", "bandwidth"):
        line = next(line for line in lines if line.startswith(label))
        assert ("unknown" in line) != line.endswith("]"), line


def test_targets_as_json(edgeq, schema_check) -> None:
    document = schema_check(edgeq("targets", "--json").out)
    assert [target["name"] for target in document["targets"]] == list(targets.names())
    assert document["host"] is None


def test_the_target_of_this_host(edgeq, schema_check) -> None:
    plain, document = edgeq("targets", "--host"), edgeq("targets", "--host", "--json")
    if plain.code:
        pytest.skip(plain.err)  # a CPU that no target describes: refused by name
    assert plain.out.strip() in targets.names()
    assert schema_check(document.out)["host"] == plain.out.strip()


def test_explain_lists_every_slug_with_its_exit_code(edgeq, schema_check) -> None:
    document = schema_check(edgeq("explain", "--json").out)
    rows = {row["slug"]: row["exit_code"] for row in document["slugs"]}
    assert rows == {slug: row.exit_code for slug, row in errors.SLUGS.items()}
    text = edgeq("explain")
    first_words = [line.split()[0] for line in text.out.splitlines() if line and line[0] != " "]
    assert first_words == ["SLUG", *sorted(errors.SLUGS), "next:"]
    assert text.err == ""


@pytest.mark.parametrize("slug", ["usage", "bug", "interrupted", "unknown-target"])
def test_explain_one(edgeq, golden, slug: str) -> None:
    golden(f"explain-{slug}", edgeq("explain", slug))


@pytest.mark.parametrize("slug", ["[usage]", "USAGE"])
def test_explain_takes_a_slug_as_it_was_copied(edgeq, slug: str) -> None:
    assert edgeq("explain", slug).out == edgeq("explain", "usage").out


@pytest.mark.parametrize("slug", sorted(errors.SLUGS))
def test_every_slug_can_be_explained(edgeq, schema_check, slug: str) -> None:
    outcome = edgeq("explain", slug, "--json")
    assert [row["slug"] for row in schema_check(outcome.out)["slugs"]] == [slug]
