"""The benchmark of training: rates are chosen by validation, places by what is judged."""

import json
import math

import pytest
import torch

from benchmarks import budgets, training
from benchmarks.budgets import SCHEDULES, Learner, Trained, ranks
from learnsolve.training import FitOptions


def score(options):
    """Validation is best at a rate of 0.1, and judges nothing."""
    places = options.seed + len(str(options.schedule))
    return Trained(abs(options.learning_rate - 0.1), places, torch.ones(options.steps, 2))


def test_rates_are_chosen_by_validation_alone():
    seen = []

    def run(options):
        seen.append(options)
        return score(options)

    learner = Learner(run, 100, (0.001, 0.01, 0.1, 1.0, 10.0), 0.01, "places")
    rows = list(budgets.budgets(learner, [0, 5], [0.05, 1.0]))
    assert [row["schedule"] for row in rows] == [*SCHEDULES] * 2
    assert {row["steps"] for row in rows} == {5, 100}
    # From 0.01 and its neighbours up to one that is no longer better, and not beyond.
    assert {tuple(row["tried"]) for row in rows} == {(0.001, 0.01, 0.1, 1.0)}
    assert {(row["rate"], row["edge"]) for row in rows} == {(0.1, False)}
    assert rows[1]["schedule"] == "rex" and rows[1]["judged"] == [3, 8]
    # The refined ones spend their steps on two runs, the second by factors that norms of a linear one gave:
    # equal norms are linear decay.
    first, second = [options for options in seen if options.steps == 50][-2:]
    assert first.schedule == "linear" and second.schedule == pytest.approx([1 - t / 49 for t in range(50)])


@pytest.mark.parametrize(("best", "tried"), [(3, 3), (1, 5), (0, 5), (5, 4)])
def test_the_search_ends_inside_if_it_can(best, tried):
    rates = (0.0, 1.0, 2.0, 3.0, 4.0, 5.0)
    found = budgets.searched(lambda rate: [Trained((rate - best) ** 2, 0.0, None)], rates, 3.0)
    assert len(found) == tried
    assert min(found, key=lambda rate: found[rate][0].validated) == best


def test_places_and_failures():
    def row(name, judged):
        return {"schedule": name, "share": 1.0, "judged": judged}

    found = ranks(
        [row("a", [2.0, 4.0]), row("b", [math.nan, 1.0]), row("c", [3.0, 3.0]), row("d", [0.5, 0.5])]
    )
    assert found == {"a": {1.0: 2.5}, "b": {1.0: 4.0}, "c": {1.0: 2.5}, "d": {1.0: 1.0}}


@pytest.mark.parametrize("name", ["preconditioner", "digits"])
def test_learners_learn(name):
    if name == "digits":
        pytest.importorskip("sklearn")
    run = budgets.LEARNERS[name].run
    few, more = (run(FitOptions(steps, 6e-3, gradient_norms=True)) for steps in (1, 25))
    assert more.judged < few.judged and more.validated < few.validated
    assert few.norms.shape == (1, 2)


def test_the_command(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(budgets.LEARNERS, "digits", Learner(score, 40, (0.1, 0.2), 0.1, "places"))
    path = tmp_path / "rows.json"
    assert training.main(["--learner", "digits", "--seeds", "0", "1", "--json", str(path)]) == 0
    rows = json.loads(path.read_text())["rows"]
    assert len(rows) == len(SCHEDULES) * 4 and {row["learner"] for row in rows} == {"digits"}
    assert "low budgets" in capsys.readouterr().out
