"""The benchmark of tuned methods, in miniature."""

import json

import numba
import numpy as np
import pytest
import torch

import learnsolve
from benchmarks import online


@pytest.fixture(autouse=True)
def threads():
    """Puts the numbers of threads back that the benchmark sets."""
    before = numba.get_num_threads(), torch.get_num_threads()
    yield
    numba.set_num_threads(before[0])
    torch.set_num_threads(before[1])


def run(tmp_path, *arguments):
    path = tmp_path / "record.json"
    assert online.main([*arguments, "--json", str(path)]) == 0
    return json.loads(path.read_text(encoding="utf-8"))


def test_heat(tmp_path, capsys):
    record = run(tmp_path, "--grid", "8", "--steps", "6", "--seeds", "2", "--every", "2")
    shown = capsys.readouterr().out
    assert all(word in shown for word in ("best fixed", "per-instance optimum", "tsallis-inf", "young"))
    assert set(record["rows"]) == {"cg", "omega 1", "best omega", "superlu"}
    assert [len(record["policies"][name]) for name in ("tsallis-inf", "chebcb", "young")] == [2, 2, 1]
    assert record["instance_optimum"] <= record["best_fixed"]


def test_a_replay_pays_what_the_table_says(tmp_path):
    record = run(
        tmp_path, "--problem", "low", "--steps", "40", "--seeds", "1", "--replay", "--horizon", "100",
        "--policy", "tsallis-inf", "--leave-out", "superlu", "omega 1",
    )  # fmt: skip
    (paid,) = record["policies"]["tsallis-inf"]
    assert len(paid["iterations"]) == 100
    assert sum(paid["iterations"]) >= record["instance_optimum"]


@pytest.mark.parametrize("omega", [1.0, 1.6, 1.9])
def test_the_counts_of_the_table_are_those_of_solve(omega):
    from learnsolve.problems.heat import shifted

    steps = list(shifted(4, "high", seed=3))
    options = SimpleOptions()
    counts = online.counts_of(options, steps, [None] * 4, omega)
    solved = [
        learnsolve.solve(
            step.A, step.b, method="sor", omega=omega, order="lexicographic", rtol=1e-8, maxiter=10**5
        ).iterations
        for step in steps
    ]
    np.testing.assert_allclose(counts, solved, atol=1)


class SimpleOptions:
    problem = "high"


def test_a_row_of_the_table_stands_for_several_systems(tmp_path):
    record = run(
        tmp_path, "--problem", "low", "--steps", "20", "--every", "5", "--seeds", "1", "--replay",
        "--policy", "chebcb", "--leave-out", "superlu", "omega 1", "best omega",
    )  # fmt: skip
    (paid,) = record["policies"]["chebcb"]
    assert len(paid["iterations"]) == 20
    assert record["rows"] == {}
