"""The JSON schemas: valid, closed, one for each document, and each result type fits its own."""

import dataclasses
import json
import re
from collections.abc import Iterator
from importlib import resources
from typing import Any

import jsonschema
import pytest

from edgeq.report import comparison, results

NAMES = (
    *("build", "plan", "run", "eval", "compare", "inspect", "verify", "init"),
    *("targets", "doctor", "explain", "config", "error"),
)
RESULTS = {
    results.Build: "build",
    results.Planned: "plan",
    results.Evaluation: "eval",
    results.Ran: "run",
    results.Inspection: "inspect",
    results.Verified: "verify",
    results.Initialized: "init",
    results.Doctor: "doctor",
    comparison.Compared: "compare",
}


def load(name: str) -> dict[str, Any]:
    return json.loads((resources.files("edgeq") / "schemas" / f"edgeq.{name}-1.json").read_text())


def test_there_is_a_schema_for_each_document_and_no_other() -> None:
    files = sorted(item.name for item in (resources.files("edgeq") / "schemas").iterdir())
    assert files == sorted(f"edgeq.{name}-1.json" for name in NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_it_is_a_schema_of_draft_2020_12(name: str) -> None:
    schema = load(name)
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert schema["$id"] == f"edgeq.{name}/1"
    jsonschema.Draft202012Validator.check_schema(schema)


@pytest.mark.parametrize("name", NAMES)
def test_its_top_level_is_closed_and_says_schema_ok_and_error(name: str) -> None:
    schema = load(name)
    assert schema["additionalProperties"] is False
    assert {"schema", "ok", "error"} <= set(schema["required"])
    assert schema["properties"]["schema"] == {"const": f"edgeq.{name}/1"}
    if name != "inspect":  # a model and a bundle have keys of their own
        assert schema["required"] == list(schema["properties"])


@pytest.mark.parametrize("name", NAMES)
def test_every_reference_is_defined_and_every_definition_is_used(name: str) -> None:
    schema = load(name)
    used = set(re.findall(r'"#/\$defs/(\w+)"', json.dumps(schema)))
    assert used == set(schema.get("$defs", {}))


def objects(schema: Any) -> Iterator[dict[str, Any]]:
    """Every subschema that lists properties."""
    if isinstance(schema, dict):
        if isinstance(schema.get("properties"), dict):
            yield schema
        for item in schema.values():
            yield from objects(item)
    elif isinstance(schema, list):
        for item in schema:
            yield from objects(item)


UNIT = re.compile(r"_(bytes|ms|db|hz|bytes_per_s)$")
PHYSICAL = re.compile(r"(^|_)(size|memory|latency|time|clock|bandwidth|sqnr)(_|$)")


@pytest.mark.parametrize("name", NAMES)
def test_keys_of_physical_quantities_end_in_their_unit(name: str) -> None:
    for schema in objects(load(name)):
        for key in schema["properties"]:
            if PHYSICAL.search(key):
                assert UNIT.search(key), key


@pytest.mark.parametrize("name", NAMES)
def test_keys_are_lower_case_words(name: str) -> None:
    for schema in objects(load(name)):
        assert all(re.fullmatch(r"[a-z][a-z0-9_]*", key) for key in schema["properties"])


@pytest.mark.parametrize("kind", RESULTS, ids=lambda kind: kind.__name__)
def test_a_result_type_has_a_document_named_after_its_schema(kind: type) -> None:
    """An empty result: only the names of the keys matter here, tests/cli validates real ones."""
    values = {field.name: _empty(str(field.type)) for field in dataclasses.fields(kind)}
    document = kind(**values).to_json()
    schema = load(RESULTS[kind])
    assert document["schema"] == schema["$id"]
    assert set(document) <= set(schema["properties"])
    if kind is not results.Inspection:
        assert set(document) == set(schema["required"])


def _empty(annotation: str) -> Any:
    if annotation.endswith("| None"):
        return None
    if annotation.startswith("tuple"):
        return ()
    if annotation.startswith("Mapping"):
        return {}
    if annotation == "Fidelity":
        return results.Fidelity((), (), 0, "", "default")
    if annotation == "Side":
        return comparison.Side("", "", None, 0, "", "default")
    return {"str": "", "bool": True, "int": 0}.get(annotation)


def test_every_verb_of_the_command_line_prints_a_document_that_has_a_schema() -> None:
    from edgeq.cli.entry import COMMANDS

    assert set(COMMANDS) <= set(NAMES)
