"""``learnsolve methods``: what there is to choose from."""

import typer

PREFIX = "M="


def methods() -> None:
    """List the methods and preconditioners, a line each."""
    from learnsolve import methods_table

    table = methods_table()
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
