"""The benchmarks of completion, in miniature."""

import json

import numba
import pytest

from benchmarks import completion, completion_few, completion_peers, completion_rates, stored


@pytest.fixture
def same_threads():
    before = numba.get_num_threads()
    yield
    numba.set_num_threads(before)


def record(path):
    return json.loads(path.read_text(encoding="utf-8"))["rows"]


@pytest.mark.usefixtures("same_threads")
def test_all_row_solves_find_the_matrix(tmp_path, capsys):
    path = tmp_path / "record.json"
    command = [
        "--size",
        "80",
        "--entries",
        "2500",
        "3500",
        "--rank",
        "2",
        "--solver",
        "exact",
        "cg",
        "sketch",
    ]
    assert completion.main([*command, "--maxiter", "100", "--json", str(path)]) == 0
    rows = record(path)
    assert [row["solver"] for row in rows] == ["exact", "cg", "sketch"] * 2
    assert all(row["error"] < 1e-6 and row["sweep"] > 0 for row in rows)
    printed = capsys.readouterr().out
    assert "2,500" in printed
    assert "cg, rank 2: a sweep grows as entries to the" in printed


def test_exponents_are_those_of_powers():
    assert completion.exponent([1, 10, 100], [3.0, 30.0, 300.0]) == pytest.approx(1.0)


@pytest.mark.usefixtures("same_threads")
def test_forms_of_our_own_reach_the_goal(tmp_path):
    path = tmp_path / "record.json"
    methods = ["ours", "exact als", "scaledgd", "gnmr", "irls"]
    command = ["--size", "150", "--entries", "9000", "--rank", "2", "--repeats", "2", "--methods", *methods]
    assert completion_peers.main([*command, "--limit", "20", "--json", str(path)]) == 0
    rows = record(path)
    assert [row["method"] for row in rows] == methods
    assert all(row["error"] < 1e-6 for row in rows)
    assert rows[0]["ratio"] == 1


def test_accuracies_that_are_doubled_keep_the_rate(tmp_path):
    path, plot = tmp_path / "record.json", tmp_path / "rates.png"
    command = ["--size", "300", "--rank", "3", "--seeds", "2", "--plot", str(plot), "--json", str(path)]
    assert completion_rates.main(command) == 0
    rows = {row["rows"]: row for row in record(path)}
    assert plot.stat().st_size > 0
    for name in ("sketch: count", "sketch: hadamard", "sketch: leverage"):
        assert rows[name]["ratio"] <= 1.1
    assert rows["exact"]["rate"] < 0.9


@pytest.mark.usefixtures("same_threads")
def test_stored_entries_are_completed(tmp_path, capsys):
    command = ["--size", "500", "--entries", "50000", "--rank", "2", "--folder", str(tmp_path)]
    assert stored.main([*command, "--json", str(tmp_path / "record.json")]) == 0
    assert record(tmp_path / "record.json")[0]["error"] < 1e-5
    assert stored.main([*command, "--json", str(tmp_path / "record.json")]) == 0
    assert capsys.readouterr().out.count("stored in") == 1


def test_few_entries_are_enough_for_ours(tmp_path):
    path = tmp_path / "record.json"
    command = ["--size", "100", "--rank", "2", "--oversampling", "2", "--condition", "10", "--instances", "3"]
    assert completion_few.main([*command, "--methods", "ours", "altmin", "irls", "--json", str(path)]) == 0
    found = {row["method"]: row["found"] for row in record(path)}
    assert found["ours"] == found["irls"] == 3
