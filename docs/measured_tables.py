"""The directive ``measured``: a benchmark's record as a table, with the machine and the versions beside it.

.. code-block:: rst

   .. measured:: poisson.json
      :rows: problems/rows
      :columns: solver; iterations runs/iterations; seconds runs/total .3g

The argument names a file in the folder ``measured``, as a benchmark wrote it with ``--json``. ``rows`` is the
path to the list of rows; a list on the way makes a table of each of its items. A column is a title (``_`` for
spaces), the path to its value in a row (``+`` for spaces), by default the title, and a format. Of a list the
median is taken, or, where the path ends in ``count``, how many there are.
"""

import json
import statistics
from pathlib import Path
from typing import Any, ClassVar

from docutils.parsers.rst import directives
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

FOLDER = Path(__file__).parent / "measured"


def value(held: Any, path: list[str]) -> Any:
    """What stands at the end of a path; of a list on the way the median, or the list if it is no numbers."""
    for place, name in enumerate(path):
        if isinstance(held, list) and name == "count":
            return len(held)
        if isinstance(held, list) and not name.isdigit():
            found = [value(one, path[place:]) for one in held]
            found = [one for one in found if one is not None]
            return statistics.median(found) if found and isinstance(found[0], int | float) else found
        held = held[int(name)] if isinstance(held, list) else (held or {}).get(name)
    return held


def shown(found: Any, form: str) -> str:
    """A cell."""
    if found is None or found == []:
        return ""
    if isinstance(found, list):
        return " x ".join(map(str, found))
    if isinstance(found, dict):
        return ", ".join(f"{held} {name}" for name, held in found.items())
    if isinstance(found, float) and found.is_integer() and not form:
        found = int(found)
    return format(found, form) if isinstance(found, int | float) else str(found)


def tables(record: Any, path: list[str]) -> list[tuple[dict[str, Any], list[dict[str, Any]]]]:
    """Rows, with what stands beside them."""
    if not path:
        return [({}, record)]
    inner = record[path[0]]
    if len(path) == 1:
        return [(record, inner if isinstance(inner, list) else [inner])]
    each = inner if isinstance(inner, list) else [inner]
    return [table for one in each for table in tables(one, path[1:])]


def conditions(record: dict[str, Any], command: str) -> list[str]:
    """The lines below a table."""
    about = record["conditions"]
    machine, versions = about["machine"], about["versions"]
    named = ", ".join(f"{name} {held}" for name, held in versions.items() if held)
    options = " ".join(
        f"--{name.replace('_', '-')} {' '.join(map(str, held)) if isinstance(held, list) else held}"
        for name, held in record.get("options", {}).items()
        if held not in (None, [], False, "")
    )
    return [
        f"*{machine['processor']}, {machine['cores']} cores, {about['threads']} threads; {named}; "
        f"{about['when'][:10]}, commit {(about['commit'] or 'unknown')[:8]}.*",
        "",
        f"``python -m benchmarks.{command} {options}``".replace(" ``", "``"),
        "",
    ]


class Measured(SphinxDirective):
    """See the module."""

    required_arguments = 1
    option_spec: ClassVar = {
        "rows": directives.unchanged,
        "columns": directives.unchanged_required,
        "title": directives.unchanged,
        "command": directives.unchanged,
    }

    def run(self) -> list[Any]:
        """The tables' nodes."""
        path = FOLDER / self.arguments[0]
        self.env.note_dependency(str(path))
        record = json.loads(path.read_text(encoding="utf-8"))
        columns = []
        for text in self.options["columns"].split(";"):
            title, *rest = text.split()
            where, form = [*rest, *[title, ""][len(rest) :]]
            columns.append((title.replace("_", " "), where.replace("+", " ").split("/"), form))
        lines: list[str] = []
        for about, rows in tables(record, self.options.get("rows", "rows").split("/")):
            if title := self.options.get("title"):
                words = (shown(value(about, one.split("/")), "") for one in title.split())
                lines += [f"**{', '.join(words)}**", ""]
            lines += [".. list-table::", "   :header-rows: 1", ""]
            for cells in (
                [title for title, _, _ in columns],
                *([shown(value(row, where), form) for _, where, form in columns] for row in rows),
            ):
                lines += [f"   {'* -' if not place else '  -'} {cell}" for place, cell in enumerate(cells)]
            lines.append("")
        command = self.options.get("command") or path.stem.split("-")[0]
        return self.parse_text_to_nodes("\n".join([*lines, *conditions(record, command)]))


def setup(app: Sphinx) -> dict[str, Any]:
    """Add the directive."""
    app.add_directive("measured", Measured)
    return {"parallel_read_safe": True}
