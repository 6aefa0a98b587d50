import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import scipy.sparse as sp
import scipy.sparse.linalg

from benchmarks import measure, memory, peers, poisson, scaling, worker
from learnsolve.datasets import matrix_market

ROOT = Path(__file__).parents[1]
SPEC = {"case": "box", "shape": [16, 16, 16], "rhs": "noise", "seed": 0, "rtol": 1e-6, "threads": 1}


@pytest.fixture
def absent(monkeypatch):
    """Make a module count as not installed."""

    def hide(module):
        found = importlib.util.find_spec
        monkeypatch.setattr(peers, "find_spec", lambda name: None if name == module else found(name))

    return hide


def load(path):
    """A record, refusing the NaN and infinity that JSON does not have."""

    def refuse(word):
        raise AssertionError(f"{word} in {path}")

    record = json.loads(path.read_text(encoding="utf-8"), parse_constant=refuse)
    conditions = record["conditions"]
    assert conditions["machine"]["cores"] >= 1
    assert conditions["versions"]["numpy"] == np.__version__
    assert "commit" in conditions
    return record


def test_a_case_is_compared_and_a_missing_peer_keeps_its_row(tmp_path, absent, capsys):
    absent("pyamgcl")
    path = tmp_path / "box.json"
    arguments = "--case box --shape 16 16 16 --against amgcl fft --repeats 1 --threads 1 --json".split()
    assert poisson.main([*arguments, str(path)]) == 0
    shown = capsys.readouterr().out
    record = load(path)
    assert record["conditions"]["threads"] == 1
    (found,) = record["problems"]
    rows = {row["solver"]: row for row in found["rows"]}
    assert list(rows) == [
        "learnsolve",
        "learnsolve auto",
        "amgcl ruge_stuben",
        "amgcl smoothed_aggregation",
        "scipy.fft",
    ]
    assert found["ratios_to"] == "learnsolve"
    for name in ("learnsolve", "learnsolve auto", "scipy.fft"):
        assert rows[name]["residual"] <= 1e-6
        assert len(rows[name]["runs"]) == 1
        assert rows[name]["total"] == pytest.approx(rows[name]["setup"] + rows[name]["solve"])
        assert rows[name]["unknowns"] == 16**3
    assert rows["learnsolve"]["total_ratio"] == rows["learnsolve"]["solve_ratio"] == 1.0
    assert rows["learnsolve"]["method"] == "cg + multigrid"
    assert rows["amgcl ruge_stuben"]["word"] == "not installed"
    assert rows["amgcl ruge_stuben"]["runs"] == []
    assert "not installed" in shown
    assert "box 16x16x16, 4,096 unknowns" in shown


def test_a_matrix_from_a_file_is_compared(tmp_path, capsys):
    matrix = poisson_matrix(20)
    matrix_market.write(tmp_path / "A.mtx", matrix)
    path = tmp_path / "A.json"
    arguments = ["--matrix", str(tmp_path / "A.mtx"), "--against", "scipy", "fft", "--repeats", "1"]
    assert poisson.main([*arguments, "--threads", "1", "--json", str(path)]) == 0
    (found,) = load(path)["problems"]
    rows = {row["solver"]: row for row in found["rows"]}
    assert found["ratios_to"] == "learnsolve auto"
    assert rows["learnsolve"]["word"] == "needs a grid"
    assert rows["scipy.fft"]["word"] == "needs a box"
    assert rows["scipy"]["method"] == "cg"
    assert rows["scipy"]["unknowns"] == 400
    assert rows["learnsolve auto"]["residual"] <= 1e-6
    assert "A.mtx, 400 unknowns" in capsys.readouterr().out


def poisson_matrix(n):
    """The five-point operator on a square."""
    second = sp.diags_array([-np.ones(n - 1), 2 * np.ones(n), -np.ones(n - 1)], offsets=[-1, 0, 1])
    return sp.csr_array(sp.kron(second, sp.eye_array(n)) + sp.kron(sp.eye_array(n), second))


@pytest.mark.parametrize("name", [name for name in peers.SOLVERS if not name.startswith("amgcl")])
@pytest.mark.parametrize("case", ["box", "obstacles"])
def test_each_solver_solves(name, case):
    solver = peers.SOLVERS[name]
    if word := solver.unsuited(case):
        pytest.skip(word)
    problem = worker._problem({**SPEC, "case": case}, solver, warm=False)
    answer, seconds = worker.run(solver, problem, 1e-6)
    residual, source = worker.true_residual(problem, answer.x)
    assert residual <= 1.001e-6
    assert source == "matrix"
    assert seconds["total"] == pytest.approx(seconds["setup"] + seconds["solve"])
    assert answer.iterations is None or answer.iterations > 0


def test_amgcl_is_called_as_its_module_says(monkeypatch):
    class Solver:
        def __init__(self, levels, options):
            self.levels, self.iters, self.options = levels, 7, options

        def __call__(self, rhs):
            return scipy.sparse.linalg.spsolve(self.levels.tocsc(), rhs)

    module = SimpleNamespace(amgcl=lambda matrix, options: matrix, solver=Solver)
    monkeypatch.setitem(sys.modules, "pyamgcl", module)
    solver = peers.SOLVERS["amgcl smoothed_aggregation"]
    problem = worker._problem({**SPEC, "shape": [8, 8]}, solver, warm=False)
    answer, _ = worker.run(solver, problem, 1e-6)
    assert answer.iterations == 7
    assert worker.true_residual(problem, answer.x)[0] < 1e-12


@pytest.mark.parametrize("case", ["box", "obstacles", "free_surface", "maze", "jump"])
@pytest.mark.parametrize("shape", [(12, 13), (9, 10, 11)])
def test_the_residual_by_faces_is_that_of_the_matrix(case, shape, monkeypatch):
    problem = worker.build({**SPEC, "case": case}, list(shape), assembled=False)
    active = problem.A.active.numpy()
    x = np.random.default_rng(3).standard_normal(shape) * active
    expected, source = worker.true_residual(problem, x)
    assert source == "matrix"
    monkeypatch.setattr(worker, "ASSEMBLED", 1)
    for form in (x, x[active]):
        found, source = worker.true_residual(problem, form)
        assert source == "faces"
        assert found == pytest.approx(expected, rel=1e-12)


def test_a_solver_that_fails_or_hangs_leaves_a_word(tmp_path):
    matrix_market.write(tmp_path / "A.mtx", np.ones((2, 3)))
    spec = {**SPEC, "case": "matrix", "matrix": str(tmp_path / "A.mtx"), "solver": "scipy"}
    assert "a square matrix is accepted" in measure.once(spec, timeout=60)["word"]
    assert measure.once({**SPEC, "solver": "scipy"}, timeout=0.01) == {"word": "ended after 0.01 s"}


def test_repeats_are_interleaved_and_the_slow_and_the_failed_get_fewer(monkeypatch):
    order = []

    def once(spec, timeout):
        order.append(spec["solver"])
        return {"word": "failed"} if spec["solver"] == "broken" else {"total": spec["seconds"]}

    monkeypatch.setattr(measure, "once", once)
    specs = {name: {"solver": name, "seconds": s} for name, s in (("a", 1), ("slow", 50), ("b", 2))}
    specs["broken"] = {"solver": "broken"}
    runs = measure.interleaved(specs, repeats=3, timeout=1, slow_after=20, slow_repeats=2)
    assert order == ["a", "slow", "b", "broken", "a", "slow", "b", "a", "b"]
    assert {name: len(found) for name, found in runs.items()} == {"a": 3, "slow": 2, "b": 3, "broken": 1}


def test_auto_has_no_row_where_it_does_the_same(monkeypatch):
    counts = {}

    def once(spec, timeout):
        counts[spec["solver"]] = counts.get(spec["solver"], 0) + 1
        seconds = dict.fromkeys(("setup", "solve", "total"), 1.0)
        rest = {"memory": 0, "iterations": 3, "residual": 1e-7, "unknowns": 9, "method": "cg + multigrid"}
        return {**seconds, **rest}

    monkeypatch.setattr(measure, "once", once)
    options = poisson.parser().parse_args(["--case", "maze", "--repeats", "4"])
    (problem,) = poisson.problems(options)
    found = poisson.compare(problem, options, SimpleNamespace(print=lambda *a, **k: None))
    assert [row["solver"] for row in found["rows"]] == ["learnsolve"]
    assert counts == {"learnsolve": 4, "learnsolve auto": 1}


def test_all_cases_are_those_of_the_readme():
    options = poisson.parser().parse_args(["--case", "all"])
    found = [(problem["case"], *problem["shape"]) for problem in poisson.problems(options)]
    assert len(found) == len(set(found)) == 10
    assert ("box", 1024, 1024) in found
    assert ("free_surface", 128, 128, 128) in found


@pytest.mark.parametrize(
    "arguments",
    ["--shape 4", "--shape 8 0", "--case all --shape 8 8", "--repeats 0", "--matrix nowhere.mtx"],
)
def test_wrong_usage_ends_with_a_message(arguments, capsys):
    with pytest.raises(SystemExit) as ended:
        poisson.main(arguments.split())
    assert ended.value.code == 2
    assert "error:" in capsys.readouterr().err


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere an earlier peak hides a later one")
def test_peak_memory_counts_what_was_allocated_and_freed_since():
    before = np.ones(8 << 20)
    del before
    peak = memory.Peak()
    block = np.ones(4 << 20)
    del block
    assert 31 < peak.bytes() / 2**20 < 40


def test_kernels_are_measured(tmp_path):
    path = tmp_path / "kernels.json"
    arguments = ["--shape", "16", "16", "16", "--repeats", "1", "--triad-mib", "8", "--threads", "1"]
    ended = subprocess.run(
        [sys.executable, "-m", "benchmarks.kernels", *arguments, "--json", str(path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    assert "of triad" in ended.stdout
    rows = load(path)["rows"]
    found = {(row["kernel"], row["form"], row["dtype"]): row for row in rows}
    assert len(found) == len(rows) == 36
    for row in rows:
        assert row["bytes_per_second"] == pytest.approx(row["bytes"] / row["seconds"])
        assert 0 < row["bytes"] <= row["unfused_bytes"]
    cells = 16**3
    assert found["apply", "unit", "float64"]["bytes"] == 17 * cells
    assert found["residual", "face", "float32"]["bytes"] == 28 * cells
    assert found["smooth, before", "unit", "float32"]["bytes"] == 9.5 * cells
    assert found["smooth, after", "face", "float64"]["bytes"] == 57 * cells
    assert found["descend", "vector", "float64"]["bytes"] == 48 * cells


def test_scaling_is_measured_and_fitted(tmp_path, capsys):
    path = tmp_path / "scaling.json"
    arguments = ["--case", "box", "--shapes", "16", "12", "--repeats", "1", "--threads", "1"]
    assert scaling.main([*arguments, "--json", str(path)]) == 0
    (found,) = load(path)["cases"]
    assert [row["unknowns"] for row in found["rows"]] == [12**3, 16**3]
    assert all(row["residual"] <= 1e-6 for row in found["rows"])
    assert found["exponents"]["total"] is not None
    assert "time ~ unknowns^" in capsys.readouterr().out


def test_the_exponent_is_that_of_a_power():
    sizes = [64**3, 128**3, 256**3]
    assert scaling.exponent(sizes, [2e-7 * n**1.05 for n in sizes]) == pytest.approx(1.05)
    assert scaling.exponent([8], [1.0]) is None
