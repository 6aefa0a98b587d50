"""Tables of the documentation come from the records of benchmarks."""

import importlib.util
import json

import pytest

from tests.test_documentation import ROOT, blocks

pytest.importorskip("sphinx")
SPEC = importlib.util.spec_from_file_location("measured_tables", ROOT / "docs" / "measured_tables.py")
measured_tables = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(measured_tables)
value, shown, tables = measured_tables.value, measured_tables.shown, measured_tables.tables


def test_values_are_found_by_their_paths():
    row = {"a": {"b": 2}, "runs": [{"s": 1.0}, {"s": 5.0}, {"s": 2.0}], "list": [1, 2], "none": None}
    assert value(row, ["a", "b"]) == 2
    assert value(row, ["runs", "s"]) == 2.0
    assert value(row, ["runs", "1", "s"]) == 5.0
    assert value(row, ["list", "count"]) == 2
    assert value(row, ["none", "deep"]) is None


def test_cells():
    assert shown(None, "") == shown([], ".2f") == ""
    assert shown(0.1234, ".2f") == "0.12" and shown(5.0, "") == "5" and shown(1000, ",d") == "1,000"
    assert shown([64, 64], "") == "64 x 64" and shown({"done": 3, "hung": 1}, "") == "3 done, 1 hung"


def test_tables_of_lists():
    record = {"problems": [{"case": "a", "rows": [1]}, {"case": "b", "rows": [2, 3]}], "rows": [4]}
    assert [(about["case"], rows) for about, rows in tables(record, ["problems", "rows"])] == [
        ("a", [1]),
        ("b", [2, 3]),
    ]
    assert [rows for _, rows in tables(record, ["rows"])] == [[4]]


@pytest.mark.parametrize("page", ["measured", "reliability"])
def test_every_column_of_a_page_is_in_its_record(page):
    for block in blocks(ROOT / "docs" / f"{page}.rst"):
        if block.name == "measured":
            record = json.loads((ROOT / "docs" / "measured" / block.argument).read_text(encoding="utf-8"))
            found = tables(record, block.options.get("rows", "rows").split("/"))
            for text in block.options["columns"].split(";"):
                title, *rest = text.split()
                path = (rest or [title])[0].replace("+", " ").split("/")
                cells = [shown(value(row, path), "") for _, rows in found for row in rows]
                assert any(cells), f"{block.argument}: nothing at {'/'.join(path)}"
