"""The JSON documents that are the command line's own: targets, explain, show-config."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from edgeq.errors import Slug

if TYPE_CHECKING:
    from edgeq.config import BuildSettings
    from edgeq.targets import Target


def targets_document(targets: Sequence[Target], *, host: str | None) -> dict[str, Any]:
    """`host` is the name of this machine's target where it was asked for."""
    return {
        "schema": "edgeq.targets/1",
        "ok": True,
        "host": host,
        "targets": [target.to_json() for target in targets],
        "error": None,
    }


def explain_document(rows: Mapping[str, Slug]) -> dict[str, Any]:
    """The error table's `rows`, by slug."""
    return {
        "schema": "edgeq.explain/1",
        "ok": True,
        "slugs": [
            {
                "slug": slug,
                "cause": row.cause,
                "example": row.example,
                "fix": row.fix,
                "exit_code": row.exit_code,
            }
            for slug, row in rows.items()
        ],
        "error": None,
    }


def config_document(settings: BuildSettings, origins: Mapping[str, str]) -> dict[str, Any]:
    """Every setting by the word that edgeq.toml uses, with its origin."""
    from edgeq.config import FIELDS

    return {
        "schema": "edgeq.config/1",
        "ok": True,
        "settings": [
            {"name": row.word, "value": _plain(getattr(settings, name)), "origin": origins[name]}
            for name, row in FIELDS.items()
        ],
        "error": None,
    }


def _plain(value: Any) -> Any:
    """Tuples as lists and mappings as dicts, all the way down."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    return value
