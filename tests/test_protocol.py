"""The two-phase protocol: equal trials, settings that see nothing of the second phase, and what it tells."""

import io
import json
import math

import numpy as np
import pytest
from rich.console import Console
from scipy import stats

from learnsolve.training.protocol import (
    Choice,
    Contender,
    LogUniform,
    Uniform,
    interval,
    two_phase_evaluate,
)


def near(settings, data, seed):
    """A method whose settings have a best value, which is the data's."""
    return (settings["x"] - data) ** 2 + 0.01 * np.random.default_rng(seed).normal()


def test_the_best_of_the_first_phase_is_used_unchanged_in_the_second():
    calls = []

    def run(settings, data, seed):
        calls.append((settings["x"], data, seed))
        return near(settings, data, seed)

    found = two_phase_evaluate(
        {"one": Contender(run, {"x": Uniform(0, 1)})}, tune=0.3, evaluate=lambda: 0.8, trials=7, seeds=[4, 5]
    ).rows[0]
    tried = [x for x, data, seed in calls if data == 0.3 and seed == 4]
    assert len(tried) == 7 and len(calls) == 7 * 2 + 2
    best = min(tried, key=lambda x: (x - 0.3) ** 2)
    assert found.settings == {"x": best}
    assert calls[-2:] == [(best, 0.8, 4), (best, 0.8, 5)]
    assert found.evaluated == tuple(near({"x": best}, 0.8, seed) for seed in (4, 5))
    assert found.gap == pytest.approx(np.mean(found.evaluated) - np.mean(found.tuned))
    assert [settings["x"] for settings, _ in found.trials] == tried


def test_data_of_the_second_phase_is_made_when_all_settings_are_chosen():
    order = []

    def run(settings, data, seed):
        order.append(data)
        return settings["x"]

    def evaluate():
        order.append("made")
        return "later"

    space = {"x": Uniform(0, 1)}
    contenders = {"one": Contender(run, space), "two": Contender(run, space)}
    two_phase_evaluate(contenders, tune="now", evaluate=evaluate, trials=3, seeds=[0])
    assert order == ["now"] * 6 + ["made"] + ["later"] * 2


def test_a_method_that_only_searches_well_loses_its_place():
    """The lucky one fits noise of the first data, the steady one has no settings."""

    def lucky(settings, data, seed):
        return np.random.default_rng([settings["draw"], data]).normal()

    def steady(settings, data, seed):
        return -0.5

    contenders = {
        "lucky": Contender(lucky, {"draw": Choice(*range(10**6))}),
        "steady": Contender(steady, {}),
    }
    found = two_phase_evaluate(contenders, tune=1, evaluate=lambda: 2, trials=50, seeds=[0, 1], seed=3)
    assert found.ranks("tuned") == {"lucky": 1, "steady": 2}
    assert found.ranks("evaluated") == {"steady": 1, "lucky": 2}
    assert [row.method for row in found.rows] == ["steady", "lucky"]
    assert len(found.rows[0].trials) == 1


@pytest.mark.parametrize(("better", "wanted"), [("less", 1.0), ("more", 3.0)])
def test_scores_that_are_not_finite_are_worst(better, wanted):
    def run(settings, data, seed):
        return settings["score"]

    space = {"score": Choice(1.0, 2.0, 3.0, math.nan, math.inf, -math.inf)}
    found = two_phase_evaluate(
        {"one": Contender(run, space)}, tune=0, evaluate=lambda: 1, trials=60, seeds=[0], better=better
    )
    assert found.rows[0].settings == {"score": wanted}
    assert None in [score for _, score in json.loads(found.to_json())["rows"][0]["trials"]]


def test_settings_depend_on_the_method_alone():
    def of(names, **options):
        contenders = {name: Contender(near, {"x": LogUniform(0.1, 10)}) for name in names}
        found = two_phase_evaluate(contenders, tune=1.0, evaluate=lambda: 1.0, trials=4, **options)
        return {row.method: row.trials for row in found.rows}

    both, alone, other = of(["a", "b"]), of(["b"]), of(["b"], seed=1)
    assert both["b"] == alone["b"] != other["b"]
    assert [one["x"] for one, _ in both["a"]] != [one["x"] for one, _ in both["b"]]


def test_draws_are_where_they_should_be():
    rng = np.random.default_rng(0)
    numbers = np.array([LogUniform(1e-4, 1).draw(rng) for _ in range(4000)])
    assert ((numbers >= 1e-4) & (numbers <= 1)).all()
    assert np.mean(np.log10(numbers)) == pytest.approx(-2, abs=0.1)
    assert np.mean([Uniform(-1, 3).draw(rng) for _ in range(4000)]) == pytest.approx(1, abs=0.1)
    counts = np.unique([Choice("a", "b").draw(rng) for _ in range(2000)], return_counts=True)[1]
    assert (abs(counts - 1000) < 100).all()


def test_intervals_are_students():
    scores = [1.0, 4.0, 2.5, 3.0]
    low, high = stats.t.interval(0.95, 3, np.mean(scores), stats.sem(scores))
    assert interval(scores) == pytest.approx((high - low) / 2)
    assert interval([1.0]) == math.inf


def test_the_table_has_both_phases():
    found = two_phase_evaluate(
        {"one": Contender(near, {"x": Uniform(0, 1)})}, tune=0.5, evaluate=lambda: 0.5, trials=2
    )
    console = Console(file=io.StringIO(), width=200)
    console.print(found.table())
    text = console.file.getvalue()
    assert "one" in text and f"x {found.rows[0].settings['x']:.3g}" in text and "±" in text


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"contenders": {}}, "0 contenders"),
        ({"seeds": []}, "0 seeds"),
        ({"trials": 0}, "trials is 0"),
        ({"better": "greater"}, "better 'greater'"),
    ],
)
def test_what_is_refused(change, words):
    options = {"contenders": {"a": Contender(near, {})}, "tune": 0, "evaluate": lambda: 0} | change
    with pytest.raises(ValueError, match=words):
        two_phase_evaluate(options.pop("contenders"), **options)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Choice(), "has no values"),
        (lambda: Uniform(1, 1), "from 1 to 1"),
        (lambda: LogUniform(0, 1), "low is 0"),
    ],
)
def test_spaces_that_are_none(make, words):
    with pytest.raises(ValueError, match=words):
        make()
