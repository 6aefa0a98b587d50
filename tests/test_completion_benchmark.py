"""The benchmark of completion, in miniature."""

import json

import numba

from benchmarks import completion


def test_all_row_solves_find_the_matrix(tmp_path, capsys):
    before, path = numba.get_num_threads(), tmp_path / "record.json"
    command = ["--size", "80", "--entries", "2500", "--rank", "2", "--solver", "exact", "cg", "sketch"]
    try:
        assert completion.main([*command, "--maxiter", "100", "--json", str(path)]) == 0
    finally:
        numba.set_num_threads(before)
    rows = json.loads(path.read_text(encoding="utf-8"))["rows"]
    assert [row["solver"] for row in rows] == ["exact", "cg", "sketch"]
    assert all(row["error"] < 1e-6 and row["sweep"] > 0 for row in rows)
    assert "2,500" in capsys.readouterr().out
