"""`edgeq explain`: cause, example and fix of an error, from the table that raises it."""

from __future__ import annotations

import click

from edgeq.cli.console import Console
from edgeq.cli.lazy import Command
from edgeq.cli.options import json_option

EXAMPLES = (
    ("one error", "edgeq explain needs-data"),
    ("all of them", "edgeq explain"),
)


@click.command("explain", cls=Command, examples=EXAMPLES)
@click.argument("slug", required=False, metavar="[SLUG]")
@json_option
@click.pass_obj
def command(console: Console, /, *, slug: str | None) -> int:
    """Explain an error by its slug."""
    from edgeq.cli import listings
    from edgeq.cli.documents import explain_document
    from edgeq.errors import SLUGS, explain

    if slug is None:
        rows = dict(sorted(SLUGS.items()))
    else:
        row = explain(slug)
        rows = {name: value for name, value in SLUGS.items() if value is row}
    if console.json:
        console.document(explain_document(rows))
    else:
        console.result(listings.slugs(rows) if slug is None else listings.slug(rows))
    return 0
