"""``learnsolve methods``: what there is to choose from."""

import json

import typer

from learnsolve.cli.common import Json

PREFIX = "M="


def methods(as_json: Json = False) -> None:
    """List the methods and preconditioners, a line each."""
    from learnsolve import methods_table

    table = methods_table()
    if as_json:
        typer.echo(json.dumps(dict(table)))
        return
    width = max(len(name) for name, _ in table)
    preconditioners = [
        (name.removeprefix(PREFIX), summary) for name, summary in table if name.startswith(PREFIX)
    ]
    for title, rows in (
        ("methods (--method)", [row for row in table if not row[0].startswith(PREFIX)]),
        ("preconditioners (--preconditioner)", preconditioners),
    ):
        typer.echo(title)
        for name, summary in rows:
            typer.echo(f"  {name:<{width}}  {summary}")
