"""The benchmarks of completion, in miniature."""

import json
import time

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
def test_sweeps_are_compared_with_what_they_must_read(tmp_path):
    path = tmp_path / "record.json"
    command = ["--size", "80", "--entries", "3000", "--rank", "2", "3", "--solver", "exact"]
    assert completion.main([*command, "--maxiter", "3", "--json", str(path)]) == 0
    for row in record(path):
        assert 0 < row["read"] < row["gathered"]
        assert row["sweeps"] <= 3


@pytest.mark.parametrize("wrong", [["--entries", "0"], ["--threads", "0"], ["--threads", "100000"]])
def test_impossible_numbers_are_refused(wrong):
    with pytest.raises(SystemExit):
        completion.main(wrong)


def peers(tmp_path, *command):
    path = tmp_path / "record.json"
    size = ["--size", "150", "--entries", "9000", "--rank", "2", "--limit", "20"]
    assert completion_peers.main([*size, *command, "--json", str(path)]) == 0
    return record(path)


def test_forms_of_our_own_reach_the_goal(tmp_path):
    methods = ["ours", "exact als", "scaledgd", "gnmr", "irls"]
    rows = peers(tmp_path, "--repeats", "2", "--methods", *methods)
    assert [row["method"] for row in rows] == methods
    assert all(row["error"] < 1e-6 and len(row["runs"]) == 2 for row in rows)
    assert rows[0]["ratio"] == rows[0]["sweep_ratio"] == 1


def test_peers_without_a_tolerance_fit_until_the_goal(tmp_path, monkeypatch):
    asked = []

    def halving(problem, rank, options):
        def fit(count):
            asked.append(count)
            return problem.U * (1 + 0.5**count), problem.V

        return completion_peers.grown(fit, problem, options)

    monkeypatch.setitem(completion_peers.METHODS, "peer", halving)
    (row,) = peers(tmp_path, "--repeats", "1", "--methods", "peer")
    assert asked == [10, 14, 20] * 2
    assert row["error"] == pytest.approx(0.5**20)
    assert row["seconds"] == pytest.approx(20 * row["sweep"])
    assert row["ratio"] is None


def test_a_peer_that_never_reaches_the_goal_ends_in_time(tmp_path, monkeypatch):
    def slow(problem, rank, options):
        def fit(count):
            time.sleep(0.02 * count)
            return 2 * problem.U, problem.V

        return completion_peers.grown(fit, problem, options, 1)

    monkeypatch.setitem(completion_peers.METHODS, "peer", slow)
    (row,) = peers(tmp_path, "--repeats", "3", "--limit", "0.1", "--methods", "peer")
    assert row["error"] == pytest.approx(1)
    assert len(row["runs"]) == 1


def test_peers_that_fit_other_values_have_the_time_of_a_sweep(tmp_path, monkeypatch):
    def other(problem, rank, options):
        return completion_peers.Answer(None, None, 0.5)

    monkeypatch.setitem(completion_peers.METHODS, "peer", other)
    first, row = peers(tmp_path, "--repeats", "1", "--methods", "ours", "peer")
    assert row["seconds"] is row["error"] is row["ratio"] is None
    assert row["sweep_ratio"] == pytest.approx(0.5 / first["sweep"])


def test_peers_that_cannot_run_are_left_out_with_a_word(tmp_path, monkeypatch, capsys):
    def broken(problem, rank, options):
        raise TypeError("an unexpected keyword")

    monkeypatch.setitem(completion_peers.METHODS, "peer", broken)
    monkeypatch.setattr(completion_peers.importlib.util, "find_spec", lambda name: name == "fancyimpute")
    monkeypatch.setattr(completion_peers, "DENSE", 100)
    rows = peers(tmp_path, "--repeats", "1", "--methods", "ours", "peer", "cmfrec, exact", "fancyimpute, svd")
    assert [row["method"] for row in rows] == ["ours"]
    said = " ".join(capsys.readouterr().err.split())
    assert "peer fails: an unexpected keyword" in said
    assert "cmfrec, exact is not installed" in said
    assert "fancyimpute, svd is for dense matrices" in said


def test_accuracies_that_are_doubled_keep_the_rate(tmp_path):
    path, plot = tmp_path / "record.json", tmp_path / "rates.png"
    command = ["--size", "300", "--rank", "3", "--seeds", "2", "--plot", str(plot), "--json", str(path)]
    assert completion_rates.main(command) == 0
    rows = {row["rows"]: row for row in record(path)}
    assert plot.stat().st_size > 0
    for name in ("sketch: countsketch", "sketch: srht", "sketch: leverage"):
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
