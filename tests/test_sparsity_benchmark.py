"""The benchmark of pruning and sparse training: its tables by hand, and the command in miniature."""

import json
import os
from collections import Counter
from importlib.util import find_spec

import numpy as np
import pytest
import torch

from benchmarks import sparsity as benchmark
from benchmarks.sparse_digits import SPARSE, images_of, learn_digits, perceptron, prune_digits
from learnsolve.training import FitOptions
from tests.training_cases import assert_same_bits, weights

needs_digits = pytest.mark.skipif(find_spec("sklearn") is None, reason="the digits come with scikit-learn")


def cells(table):
    """The rows of a table, without its lines."""
    return list(zip(*(column.cells for column in table.columns), strict=True))


def test_perceptrons_depend_on_the_seed_alone():
    state = torch.get_rng_state()
    one, other = perceptron(SPARSE, 3), perceptron(SPARSE, 3)
    assert_same_bits(weights(one), weights(other))
    assert torch.equal(torch.get_rng_state(), state)
    assert not torch.equal(one[0].weight, perceptron(SPARSE, 4)[0].weight)
    assert one(torch.zeros(2, 64)).shape == (2, 10)


@needs_digits
def test_settings_are_chosen_by_images_that_are_not_judged():
    (learned, names), (judged, answers) = images_of(False)
    (fewer, _), (validated, _) = images_of(True)
    assert float(learned.min()) == 0 and float(learned.max()) == 1
    assert len(names) == len(learned) and len(answers) == len(judged)
    assert Counter(map(tuple, torch.cat((fewer, validated)).tolist())) == Counter(
        map(tuple, learned.tolist())
    )
    assert 5 * len(validated) == pytest.approx(len(fewer), abs=5)
    assert not set(map(tuple, judged.tolist())) & set(map(tuple, validated.tolist()))


@needs_digits
def test_pruning_with_and_without_begins_alike():
    def run(activate, validate=False):
        options = FitOptions(60, 0.03, seed=1)
        return prune_digits(options, cycles=2, share=0.5, activate=activate, batch=32, validate=validate)

    without, given = run(0.0), run(0.2)
    assert without[0] == given[0] and without[1] != given[1]
    for rows in (without, given):
        assert [row["density"] for row in rows] == pytest.approx([1, 0.5, 0.25], abs=1e-3)
        assert all(row["accuracy"] > 0.7 and 0 < row["dynamic"] + row["static"] < 1 for row in rows)
    right = run(0.0, validate=True)[0]["accuracy"] * len(images_of(True)[1][0])
    assert right == pytest.approx(round(right))


@needs_digits
def test_a_head_of_ones_own_has_no_mask():
    settings = {"density": 0.2, "distribution": "uniform", "growth": "random", "every": 5}
    found = {own: learn_digits(FitOptions(10, 0.01), own_heads=own, **settings) for own in (False, True)}
    for row in found.values():
        matrix = np.array(row["matrix"])
        assert matrix.shape == (5, 5) and row["accuracy"] == pytest.approx(matrix[-1].mean())
        assert row["last"] == matrix[-1, -1] and row["backward_transfer"] == 0
        assert 0.2 < row["used"] < 1 - 0.8**5 + 0.05
    assert found[True]["accuracy"] > found[False]["accuracy"]


def test_percent_by_hand():
    # Student's t of one degree of freedom at 97.5 % is 12.706; of two, the mean has half their distance.
    assert benchmark.percent([0.10, 0.12]) == "11.0 ± 12.7"
    assert benchmark.percent(np.array([-0.105]), "+.1f") == "-10.5"


def pruned_rows():
    values = {  # optimizer, part, seed: accuracy of two cycles
        ("sgd", 0.0, 0): (0.9, 0.8), ("sgd", 0.0, 1): (0.7, 0.6),
        ("sgd", 0.1, 0): (0.9, 0.9), ("sgd", 0.1, 1): (0.7, 0.7),
    }  # fmt: skip
    return [
        {
            "optimizer": optimizer, "activate": part, "seed": seed, "cycle": cycle,
            "density": (1.0, 0.5)[cycle], "accuracy": accuracy, "dynamic": 0.25 + part * cycle, "static": 0.5,
        }
        for (optimizer, part, seed), accuracies in values.items()
        for cycle, accuracy in enumerate(accuracies)
    ]  # fmt: skip


def test_table_of_pruning_is_paired_by_seeds():
    (table,) = benchmark.pruning_tables(pruned_rows())
    assert "sgd, of which activate-while-pruning 10%" in table.title and "2 seeds" in table.title
    dense, pruned, mean = cells(table)
    assert dense[:4] == ("100.0", "80.0 ± 127.1", "80.0 ± 127.1", "+0.0 ± 0.0")
    # Means are far from known, and their difference to the last digit.
    assert pruned[:4] == ("50.0", "70.0 ± 127.1", "80.0 ± 127.1", "+10.0 ± 0.0")
    assert pruned[4:7] == ("25.0 ± 0.0", "35.0 ± 0.0", "+10.0 ± 0.0")
    assert mean[0] == "mean of all pruned" and mean[1:] == pruned[1:]
    assert benchmark.pruning_tables([row for row in pruned_rows() if not row["activate"]]) == []


def grown_rows():
    """ERK is better by 0.1, gradient by 0.2; seeds are 0.3 apart, and come in another order each time."""
    return [
        {
            "density": 0.1, "distribution": distribution, "growth": growth, "seed": seed, "used": 0.3,
            "accuracy": 0.3 + 0.1 * erk + 0.2 * gradient + 0.3 * seed, "last": 0.5,
            "backward_transfer": -0.25 if erk and gradient and seed else 0.0,
        }
        for erk, distribution in enumerate(("uniform", "erk"))
        for gradient, growth in enumerate(("static", "gradient"))
        for seed in ((0, 1) if gradient else (1, 0))
    ]  # fmt: skip


def test_tables_of_growth():
    rows = cells(benchmark.growth_table(grown_rows()))
    assert [row[:3] for row in rows] == [
        ("0.1", distribution, growth)
        for distribution in ("uniform", "erk")
        for growth in ("static", "gradient")
    ]
    assert rows[0][3:] == ("45.0 ± 190.6", "21.2", "50.0 ± 0.0", "30.0 ± 0.0", "0")
    assert [row[-1] for row in rows] == ["0", "0", "0", "-0.25"]
    shared_out, grown = benchmark.paired_tables(grown_rows())
    assert cells(shared_out) == [("0.1", "+10.0 ± 0.0", "+10.0 ± 0.0")]
    assert cells(grown) == [("0.1", "uniform", "+20.0 ± 0.0"), ("0.1", "erk", "+20.0 ± 0.0")]
    assert benchmark.paired_tables([row for row in grown_rows() if row["growth"] == "static"])[1:] == []
    uniform = [row for row in grown_rows() if row["distribution"] == "uniform"]
    assert [cells(table)[0][1] for table in benchmark.paired_tables(uniform)] == ["uniform"]


@pytest.fixture
def as_before(monkeypatch):
    """What a benchmark sets for its process is set back."""
    threads = torch.get_num_threads()
    monkeypatch.setattr("benchmarks.measure.keep_memory", lambda: None)
    monkeypatch.setitem(os.environ, "OMP_NUM_THREADS", "1")
    yield
    torch.set_num_threads(threads)


@needs_digits
def test_the_command(tmp_path, capsys, as_before):
    path = tmp_path / "rows.json"
    arguments = (
        "--seeds 3 1 --steps 4 --optimizer adam --cycles 1 --activate 0.1 --density 0.2 --distribution erk "
        "--growth static gradient --every 2 --own-heads --json"
    )
    assert benchmark.main([*arguments.split(), str(path)]) == 0
    written = json.loads(path.read_text(encoding="utf-8"))
    rows = [row for row in written["rows"] if row["what"] == "pruning"]
    assert [(row["seed"], row["activate"], row["cycle"]) for row in rows] == [
        (seed, part, cycle) for seed in (3, 1) for part in (0.0, 0.1) for cycle in (0, 1)
    ]
    rows = [row for row in written["rows"] if row["what"] == "growth"]
    assert [(row["growth"], row["seed"]) for row in rows] == [
        (growth, seed) for growth in ("static", "gradient") for seed in (3, 1)
    ]
    assert len({row["accuracy"] for row in rows[:2]}) == 2 and written["options"]["own_heads"]
    shown = capsys.readouterr().out
    for words in ("mean of all pruned", "weights used", "growth less static masks", "±", str(path)):
        assert words in shown
    assert "ERK less uniform" not in shown


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("--steps 0", "steps must be an integer of at least 1, not 0"),
        ("--learning-rate 0", "learning_rate must be a positive number"),
        ("--cycles 0", "--cycles, --batch and --every take positive numbers"),
        ("--every 0", "positive numbers"),
        ("--share 1", "--share takes a number between 0 and 1"),
        ("--activate 0.02 0.2", "--activate parts of it"),
        ("--activate 0", "--activate parts of it"),
        ("--density 0.5 0.0001", "density 0.0001 leaves 4.weight without a weight"),
        ("--density 2", "density is 2.0"),
        ("--validate", "--validate is for --what pruning alone"),
        ("--growth none", "invalid choice"),
    ],
)
def test_refusals(arguments, words, capsys, monkeypatch):
    for what in ("pruning", "growth"):
        monkeypatch.setattr(benchmark, what, lambda *given: pytest.fail("it was not refused"))
    with pytest.raises(SystemExit):
        benchmark.main(arguments.split())
    assert words in " ".join(capsys.readouterr().err.split())
