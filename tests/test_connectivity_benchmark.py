"""The benchmark of what lies between two networks, in miniature."""

import copy
import json
import math
import os

import numpy as np
import pytest
import torch

from benchmarks import connectivity as benchmark
from learnsolve.problems.digits import digits
from learnsolve.training.connectivity import averaged, barrier, judged, layer_barriers
from learnsolve.training.landscape import Plane

pytest.importorskip("sklearn")
SMALL = benchmark.Setting(width=8, depth=2, epochs=2, batch=32, rate=0.2)


@pytest.fixture
def as_before(monkeypatch):
    """What a benchmark sets for its process is set back."""
    threads = torch.get_num_threads()
    monkeypatch.setattr("benchmarks.measure.keep_memory", lambda: None)
    monkeypatch.setitem(os.environ, "OMP_NUM_THREADS", "1")
    yield
    torch.set_num_threads(threads)


def rows_of(arguments, path):
    tiny = "--pairs 2 --width 8 --epochs 2 --fork-at 0 1 2 --fork-rates 0.2"
    assert benchmark.main([*f"{tiny} {arguments} --json".split(), str(path)]) == 0
    return json.loads(path.read_text(encoding="utf-8"))["rows"]


def same(one, other):
    return all(p.equal(q) for p, q in zip(one.parameters(), other.parameters(), strict=True))


def test_a_run_in_parts_is_the_run():
    whole, parts, other = (SMALL.network(3) for _ in range(3))
    assert same(whole, parts) and not same(whole, SMALL.network(4))
    state = torch.get_rng_state()
    SMALL.learn(whole, (5, "order"), (0, 2))
    SMALL.learn(SMALL.learn(parts, (5, "order"), (0, 1)), (5, "order"), (1, 2))
    SMALL.learn(other, (6, "order"), (0, 2))
    assert same(whole, parts) and not same(whole, other)
    assert torch.equal(torch.get_rng_state(), state)
    assert judged(whole, benchmark.held_out) < judged(SMALL.network(3), benchmark.held_out) - 0.3


def test_half_of_the_classes_is_learned_in_as_many_steps(monkeypatch):
    seen = []

    def noted(outputs, labels):
        seen.append(labels)
        return torch.nn.functional.cross_entropy(outputs, labels)

    monkeypatch.setattr(benchmark, "cross_entropy", noted)
    SMALL.learn(SMALL.network(0), (0, "order"), (0, 1))
    whole, seen = torch.cat(seen), []
    SMALL.learn(SMALL.network(0), (0, "order"), (0, 1), range(5, 10))
    half = torch.cat(seen)
    assert len(whole) == len(half) == len(digits("learned")[0]) // 32 * 32
    assert whole.unique().tolist() == list(range(10)) and half.unique().tolist() == list(range(5, 10))
    # No image twice before each was there once.
    counts = half.bincount() / digits("learned")[1].bincount()
    assert counts[5:].min() >= 1 and counts.max() <= 2.1


def test_what_is_right_is_counted_on_images_held_out():
    a, b = (benchmark.run(SMALL, seed)[1] for seed in (0, 1))
    images, classes = digits("judged")
    right = (averaged([a, b], [0.5, 0.5])(images).argmax(-1) == classes).sum() / len(classes)
    assert benchmark.correct(a, b) == pytest.approx(float(right))
    assert benchmark.correct(a) != benchmark.correct(b)


def test_matching(tmp_path, capsys, as_before):
    rows = rows_of("--what matching --accept 0", tmp_path / "rows.json")
    a, b = (benchmark.run(SMALL, seed)[1] for seed in (0, 1))
    assert rows[0]["naive"] == pytest.approx(barrier(a, b, benchmark.held_out).height)
    matched = benchmark.in_order_of(a, b)[0]
    assert rows[0]["matched"] == pytest.approx(barrier(a, matched, benchmark.held_out).height)
    for row in rows:
        assert row["permuted"] > 1e-3 and row["permuted_matched"] < 1e-6
        assert row["matched"] < row["naive"] and not row["naive_accepted"]
        assert 0 < row["naive_middle"] <= 1 and len(row["parents"]) == 2
    assert rows[0]["naive"] != rows[1]["naive"]
    assert "0 of 2" in capsys.readouterr().out
    again = rows_of("--what matching --accept 99", tmp_path / "rows.json")
    assert all(row["naive_accepted"] and row["matched_accepted"] for row in again)
    assert "2 of 2" in capsys.readouterr().out


def test_layers(tmp_path, capsys, monkeypatch, as_before):
    monkeypatch.setattr(benchmark, "RESAMPLES", 20)
    rows = rows_of("--what layers", tmp_path / "rows.json")
    assert len(rows) == 2 * 2 * 2 * 3
    a, b = (benchmark.run(SMALL, seed)[1] for seed in (0, 1))
    for start, ends in (("first", (a, b)), ("second", (b, a))):
        its = [row for row in rows if (row["pair"], row["order"], row["start"]) == (0, "naive", start)]
        wanted = layer_barriers(*ends, benchmark.held_out)
        assert [row["layer"] for row in its] == list(wanted) == ["1", "3", "5"]
        assert [row["barrier"] for row in its] == pytest.approx([one.middle for one in wanted.values()])
    first = next(row for row in rows if row["layer"] == "1")
    difference = [
        (p - q).square().sum().item() for p, q in zip(a[1].parameters(), b[1].parameters(), strict=True)
    ]
    assert first["distance"] == pytest.approx(sum(difference))
    assert "from start" in capsys.readouterr().out


def test_fork(tmp_path, capsys, as_before):
    rows = rows_of("--what fork", tmp_path / "rows.json")
    assert [(row["condition"], row["pair"], row["epoch"]) for row in rows] == [
        (name, pair, epoch)
        for name in ("rate 0.2", "halves of the classes, rate 0.2")
        for pair in (0, 1)
        for epoch in (0, 1, 2)
    ]
    for row in rows:
        if row["epoch"] == 2:
            # What parts at the end has not parted.
            assert row["height"] < 1e-6 and row["branches"][0] == row["branches"][1] == row["average"]
        else:
            assert row["ends"][0] != row["ends"][1]
    apart = next(row for row in rows if "halves" in row["condition"])
    assert max(apart["branches"]) < 0.6 and apart["middle"] < 0
    assert "halves of the classes" in capsys.readouterr().out


def test_the_surface_is_not_told_the_line_that_it_predicts(tmp_path, monkeypatch):
    options = benchmark.parser().parse_args(["--pairs", "1", "--plot", str(tmp_path / "plane.png")])
    rows = list(benchmark.mountainside(SMALL, options))
    assert [row["order"] for row in rows] == ["naive", "matched"]
    assert (tmp_path / "plane.png").stat().st_size > 10_000
    losses = [judged(benchmark.run(SMALL, seed)[1], benchmark.held_out) for seed in (0, 1)]
    assert rows[0]["measured_ends"] == pytest.approx(losses)
    chord = sum(losses) / 2
    assert rows[0]["measured"] >= rows[0]["measured_top"] - chord - 1e-6
    measured = benchmark.measure_plane

    def other(*arguments):
        plane = measured(*arguments)
        return Plane(plane.u, plane.v, np.where(plane.v[:, None] == 1, 99.0, plane.losses))

    monkeypatch.setattr(benchmark, "measure_plane", other)
    changed = list(benchmark.mountainside(SMALL, options))
    assert [row["predicted"] for row in changed] == [row["predicted"] for row in rows]
    table = benchmark.mountainside_table(rows)
    assert list(table.columns[0].cells) == ["0", "0", "mean", "mean"]
    assert list(table.columns[2].cells)[::2] == [f"{rows[0]['measured']:.3g}"] * 2


def test_rank_correlations_by_hand():
    def rows(pair, order, measured):
        return [
            {"pair": pair, "order": order, "x": place, "y": value} for place, value in enumerate(measured)
        ]

    same = [*rows(0, "naive", [1, 2, 3]), *rows(1, "naive", [4, 5, 7])]
    whole, (low, high), within = benchmark.agreement(same, "x", "y")
    assert within == pytest.approx([1, 1]) and low <= whole <= high == pytest.approx(1)
    # Ranks of x are 1.5, 3.5 and 5.5, twice, and those of y one to six.
    assert whole == pytest.approx(8 / math.sqrt(16 * 17.5))
    mixed = [*rows(0, "naive", [1, 2, 3]), *rows(0, "matched", [3, 2, 1]), *rows(1, "naive", [1, 3, 2])]
    mixed += rows(1, "matched", [1, 2, 3])
    assert benchmark.agreement(mixed, "x", "y")[2] == pytest.approx([0, 0.75])


def test_spread():
    assert benchmark.spread([2.0]) == "2" and benchmark.spread([1.0, 2.0, 3.0]) == "2 ± 2.5"


def test_networks_are_left_alone():
    a = benchmark.run(SMALL, 0)[1]
    before = copy.deepcopy(a)
    turned = benchmark.shuffled(a, 0)
    images = digits("judged")[0]
    torch.testing.assert_close(turned(images), a(images), rtol=1e-4, atol=1e-5)
    assert same(a, before) and not same(a, turned)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("--pairs 0", "positive numbers"),
        ("--depth 0", "positive numbers"),
        ("--fork-at 3 21", "--fork-at takes epochs from 0 to 20"),
        ("--fork-at -1", "--fork-at takes epochs from 0 to 20"),
        ("--learning-rate 0", "rates take positive numbers"),
        ("--accept -1", "--accept one of at least 0"),
        ("--accept nan", "--accept one of at least 0"),
        ("--what heights", "invalid choice"),
    ],
)
def test_refusals(arguments, words, capsys):
    with pytest.raises(SystemExit):
        benchmark.main(arguments.split())
    assert words in capsys.readouterr().err
