"""The benchmark of logistic regression: its files, its parts, its loop beside `fit`, and its choices."""

import json
import math

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from benchmarks import logistic
from benchmarks.logistic import TWICE, LabelledSet, best, compare, differs, order, read, split, train
from learnsolve.training import FitOptions, fit
from learnsolve.training.refinement import refined

ARFF = """% a comment
@relation 'three of each'
@attribute length numeric
@attribute 'made of' {wood, iron}
@attribute width real
@attribute kind {b, a}
@attribute weight integer
@data
{rows}
"""


def arff(tmp_path, rows, name="things.arff", header=ARFF):
    path = tmp_path / name
    path.write_text(header.replace("{rows}", "\n".join(rows)), encoding="utf-8")
    return path


ROWS = ["1,wood,0.5,a,7"] * 3 + ["2,iron,1.5,b,8"] * 3


def blobs(count=40, classes=3, seed=0):
    """Classes around means of their own, and a feature that never changes."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % classes
    features = rng.normal(size=(classes, 4))[labels] * 2 + rng.normal(size=(count, 4))
    return LabelledSet("blobs", np.c_[5 + 10 * features, np.full(count, 0.1)], labels)


def test_arff_files(tmp_path):
    found = read(arff(tmp_path, ROWS))
    assert found.name == "things" and found.classes.tolist() == [0] * 3 + [1] * 3
    assert found.features[[0, 3]].tolist() == [[1, 0.5, 7], [2, 1.5, 8]]


def test_csv_files(tmp_path):
    path = tmp_path / "things.csv"
    path.write_text('a,b,"the class"\n' + '1,2,"x, #1"\n' * 3 + "3,4e1,y\n" * 3, encoding="utf-8")
    found = read(path)
    assert (
        found.features[[0, 5]].tolist() == [[1, 2], [3, 40]] and found.classes.tolist() == [0] * 3 + [1] * 3
    )


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (["?,wood,1,a,1", *ROWS], "1 missing or infinite values, the first in sample 1, feature 1"),
        ([*ROWS, "1,wood,1,?,1"], "missing values among its classes"),
        ([*ROWS, "1,wood,1,c,1"], "no table of numbers and a class"),
        ([*ROWS, "1,wood,1"], "no table of numbers and a class"),
        (ROWS[:4], "classes of 3, 1 samples"),
        (ROWS[:3], "classes of 3 samples"),
    ],
)
def test_arff_files_that_are_refused(tmp_path, rows, words):
    with pytest.raises(ValueError, match=words):
        read(arff(tmp_path, rows))


@pytest.mark.parametrize(
    ("attributes", "row", "words"),
    [
        ("@attribute a numeric", "1", "there is no nominal attribute"),
        ("@attribute a {x, y}", "x", "no numeric features"),
        ("@attribute a string\n@attribute b {x, y}", "one,x", "no table of numbers and a class"),
    ],
)
def test_attributes_that_are_refused(tmp_path, attributes, row, words):
    header = f"@relation r\n{attributes}\n@data\n{{rows}}\n"
    with pytest.raises(ValueError, match=words):
        read(arff(tmp_path, [row] * 3, header=header))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a,b\n" + "1,x\n" * 3 + ",y\n" * 3, "3 missing or infinite values, the first in sample 4"),
        ("a,b\n" + "1,x\n" * 3 + "inf,y\n" * 3, "3 missing or infinite"),
        ("a,b\n" + "1,x\n" * 3 + "one,y\n" * 3, "no table of numbers and a class: .*one"),
        ("a,b\n" + "1,x\n" * 3 + "1,2,y\n" * 3, "no table of numbers and a class"),
        ("a,b\n" + "1,x\n" * 3 + "2,\n" * 3, "missing values among its classes"),
        ("b\n" + "x\n" * 3 + "y\n" * 3, "no numeric features"),
    ],
)
def test_csv_files_that_are_refused(tmp_path, text, words):
    path = tmp_path / "wrong.csv"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=words):
        read(path)


def test_parts():
    data = blobs(63)
    parts = split(data, 0)
    for x, y in parts[1:]:
        assert y.bincount().tolist() == [4, 4, 4] and x.shape == (12, 6)
    learned, classes = parts[0]
    assert classes.bincount().tolist() == [13, 13, 13]
    assert learned[:, :4].mean(0).abs().max() < 1e-6
    assert learned[:, :4].std(0, correction=0) == pytest.approx(np.ones(4), abs=1e-5)
    assert learned[:, 4].abs().max() < 1e-12 and (learned[:, 5] == 1).all()
    # One transformation for all parts, and each sample in one of them.
    everything = torch.cat([x for x, _ in parts])[:, 0].double().numpy()
    scale = data.features[:, 0].std() / everything.std()
    again = np.sort(everything * scale)
    assert again - again[0] == pytest.approx(
        np.sort(data.features[:, 0]) - data.features[:, 0].min(), abs=1e-4
    )
    assert torch.equal(split(data, 0)[2][0], parts[2][0]) and not torch.equal(
        split(data, 1)[2][0], parts[2][0]
    )


def test_the_smallest_set_is_in_all_parts():
    data = LabelledSet("small", np.arange(6.0)[:, None], np.array([0, 0, 0, 1, 1, 1]))
    assert [sorted(y.tolist()) for _, y in split(data, 3)] == [[0, 1]] * 3


def test_none_comes_twice_before_each_was_there_once():
    drawn = order(7, 5, 4, seed=2).flatten()
    assert sorted(drawn[:7].tolist()) == sorted(drawn[7:14].tolist()) == list(range(7))
    assert not torch.equal(drawn[:7], drawn[7:14]) and len(set(drawn[14:].tolist())) == 6
    assert torch.equal(order(7, 5, 4, 2), order(7, 10, 4, 2)[:5])
    assert not torch.equal(order(7, 5, 4, 2), order(7, 5, 4, 3))


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_runs_are_those_of_fit(optimizer):
    data, steps, rates = blobs(), 30, (1e-2, 3e-1)
    parts = [split(data, seed) for seed in (0, 1)]
    orders = [order(len(part[0][1]), steps, 8, seed) for seed, part in enumerate(parts)]
    scores, norms = train(parts, orders, optimizer, "rex", rates)
    assert scores.shape == (3, 2, 2) and norms.shape == (steps, 2, 2, 2)
    for place, rate in enumerate(rates):
        for seed, ((x, y), validated, judged) in enumerate(parts):
            network = torch.nn.Linear(x.shape[1], 3, bias=False)
            torch.nn.init.zeros_(network.weight)
            result = fit(
                network,
                lambda network, batch: cross_entropy(network(batch[0]), batch[1]),
                lambda number, generator, x=x, y=y, seed=seed: (
                    x[orders[seed][number]],
                    y[orders[seed][number]],
                ),
                FitOptions(steps, rate, "rex", optimizer=optimizer, clip=0, gradient_norms=True),
            )
            assert norms[:, place, seed] == pytest.approx(result.gradient_norms.numpy(), rel=1e-3, abs=1e-5)
            with torch.no_grad():
                wanted = [cross_entropy(network(one), its).item() for one, its in (validated, judged)]
                wrong = 100 * (network(judged[0]).argmax(-1) != judged[1]).double().mean().item()
            assert scores[[0, 2], place, seed] == pytest.approx(wanted, rel=1e-3)
            assert scores[1, place, seed] == pytest.approx(wrong)


def test_a_run_that_flies_away_harms_no_other():
    data = blobs()
    parts, orders = [split(data, 0)], [order(22, 10, 8, 0)]
    alone, _ = train(parts, orders, "sgd", "constant", (0.1, 0.3))
    scores, _ = train(parts, orders, "sgd", "constant", (1e38, 0.1, 0.3))
    assert not np.isfinite(scores[0, 0, 0]) and scores[:, 1:] == pytest.approx(alone, rel=1e-5)
    assert best(scores)[0] == 1 + best(alone)[0]


def test_each_seed_chooses_by_its_own_validation(monkeypatch):
    seen = []

    def known(parts, orders, optimizer, profile, rates):
        """By validation the second rate of an even seed is best, else the third; what is judged disagrees."""
        seeds, steps = len(parts), len(orders[0])
        asked = [int(one[0, 0]) for one in orders]
        seen.append((profile, steps, asked))
        scores = np.ones((3, 3, seeds), np.float32)
        for place, seed in enumerate(asked):
            scores[0, 1 + seed % 2, place] = 0.5
            scores[1, :, place] = [0, 10 + seed, 20 + seed]
            scores[2, :, place] = [0, 1, math.nan]
        norms = np.ones((steps, 3, seeds, 2), np.float32)
        norms[:, 1, :, 0] = np.linspace(2, 1, steps)[:, None]
        norms[:, 2, :, 1] = np.linspace(1, 3, steps)[:, None]
        norms[4, 2, :, 1] = np.nan
        return scores, norms

    monkeypatch.setattr(logistic, "train", known)
    monkeypatch.setattr(logistic, "order", lambda n, steps, batch, seed: torch.full((steps, batch), seed))
    rows = compare(blobs(), "adam", [4, 7], 3, 8, (0.1, 0.2, 0.4))
    names = ["constant", "linear", "cosine", "rex", TWICE, "refined, l2^-2", "refined, l1^-1"]
    assert [row["schedule"] for row in rows] == names and {row["set"] for row in rows} == {"blobs"}
    assert [row["steps"] for row in rows] == [8] * 4 + [16] * 3
    for row in rows:
        assert row["rates"] == [0.2, 0.4] and row["error"] == [14, 27] and row["optimizer"] == "adam"
        assert row["cross_entropy"] == pytest.approx([1, math.nan], nan_ok=True)
    assert [(steps, seeds) for _, steps, seeds in seen] == [(8, [4, 7])] * 4 + [(16, [4, 7])] + [
        (8, [4]), (8, [7]), (8, [4]), (8, [7])
    ]  # fmt: skip
    # Refined by the linear run of the same seed at its chosen rate, and of finite norms alone.
    falling, flat = refined(np.linspace(2, 1, 8), "sgd"), refined(np.ones(8), "adam")
    rising = refined(np.delete(np.linspace(1, 3, 8), 4), "adam")
    for (profile, _, _), wanted in zip(
        seen[5:], [falling, refined(np.ones(8), "sgd"), flat, rising], strict=True
    ):
        assert profile == pytest.approx(wanted, rel=1e-5)


def test_differences_count_where_they_are_beyond_chance():
    def row(of, schedule, scores):
        return {"set": of, "schedule": schedule, "error": scores, "cross_entropy": scores, "optimizer": "sgd"}

    linear = {"a": [1.0, 2.0, 3.0], "b": [1.0, 2.0, 3.0], "c": [5.0, 5.0, 5.0], "d": [1.0, 1.0, math.nan]}
    other = {"a": [0.9, 1.88, 2.9], "b": [0.0, 3.0, 3.0], "c": [6.0, 6.0, 6.0], "d": [2.0, 2.0, 2.0]}
    rows = [row(of, TWICE, its) for of, its in linear.items()]
    rows += [row(of, "linear", its) for of, its in linear.items()]
    rows += [row(of, "other", its) for of, its in other.items()]
    assert differs(rows, "other", "linear", "error") == "1 : 1"
    assert differs(rows, "linear", "other", "error") == "1 : 1"
    assert differs(rows, "linear", TWICE, "error") == "0 : 0"
    shown = logistic.places_table(rows, "sgd")
    # Demšar's table 5 has 2.343 for three; times the root of 3 * 4 / (6 * 4).
    assert "critical difference 1.66" in shown.title
    columns = [list(column.cells) for column in shown.columns]
    assert columns[0] == [TWICE, "linear", "other"] and columns[3] == ["0 : 0", "0 : 0", "1 : 1"]
    # Places 2.5, 2.5, 1 in a; 2 each in b, whose means are the same; 1.5, 1.5, 3 in c; 2.5, 2.5, 1 in d.
    assert columns[1] == ["2.12", "2.12", "1.75"]


def test_sets_of_scikit_learn():
    pytest.importorskip("sklearn")
    iris = logistic.from_sklearn("iris")
    assert iris.features.shape == (150, 4) and np.bincount(iris.classes).tolist() == [50, 50, 50]


@pytest.fixture
def as_before(monkeypatch):
    """What a benchmark sets for its process is set back."""
    threads = torch.get_num_threads()
    monkeypatch.setattr("benchmarks.measure.keep_memory", lambda: None)
    yield
    torch.set_num_threads(threads)


def test_the_command(tmp_path, capsys, as_before):
    data = blobs(45)
    one = arff(tmp_path, ROWS)
    other = tmp_path / "blobs.csv"
    lines = [",".join(map(str, [*x, f"class {y}"])) for x, y in zip(data.features, data.classes, strict=True)]
    other.write_text("\n".join(["1,2,3,4,5,6", *lines]), encoding="utf-8")
    path = tmp_path / "rows.json"
    arguments = ["--sets", "--data", str(one), str(other), "--seeds", "0", "1", "--epochs", "4"]
    assert logistic.main([*arguments, "--rates", "0.01", "0.1", "0.3", "--json", str(path)]) == 0
    rows = json.loads(path.read_text(encoding="utf-8"))["rows"]
    assert len(rows) == 2 * 2 * 7 and {row["set"] for row in rows} == {"things", "blobs"}
    for row in rows:
        assert len(row["error"]) == len(row["cross_entropy"]) == len(row["rates"]) == 2
        # Far better than to guess: three classes that hardly overlap.
        assert row["set"] == "things" or np.mean(row["cross_entropy"]) < 0.7 * math.log(3)
    shown = capsys.readouterr().out
    assert "blobs, 6 steps" in shown and "adam, sets: 2" in shown and "±" in shown


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("--sets --data", "one or more of different names"),
        ("--sets --data things.arff things.arff", "the sets are things, things"),
        ("--sets --data nowhere.arff", "there is no file nowhere.arff"),
        ("--sets --data things.txt", "that ends on .arff or .csv"),
        ("--sets --data things.arff --epochs 0", "--epochs, --batch and --rates take positive numbers"),
        ("--sets --data things.arff --rates nan", "--epochs, --batch and --rates take positive numbers"),
        ("--sets moons", "invalid choice"),
    ],
)
def test_refusals(tmp_path, monkeypatch, arguments, words, capsys):
    monkeypatch.chdir(tmp_path)
    arff(tmp_path, ROWS)
    arff(tmp_path, ROWS, "things.txt")
    with pytest.raises(SystemExit):
        logistic.main(arguments.split())
    assert words in capsys.readouterr().err
