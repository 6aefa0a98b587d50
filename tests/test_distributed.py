"""PETSc's processes: the same iterations and answers on any number of them, and those of `solve`."""

import json
import os
import shutil
import subprocess
import sys
from functools import cache

import numpy as np
import pytest
import scipy.sparse

import learnsolve
from learnsolve.datasets import matrix_market
from learnsolve.problems import poisson

# Debian's is built for numpy 1, whose C interface it then asks a later numpy for in vain.
pytest.importorskip("petsc4py", exc_type=ImportError)
MPIEXEC = shutil.which("mpiexec")
pytestmark = pytest.mark.skipif(MPIEXEC is None, reason="there is no mpiexec")
COUNTS = [1, 2, 4]
LEARNED = ["learned-multigrid", "multigrid", "dcdm"]
OPTIONS = ["-user_pc_type", "python", "-user_pc_python_type", "learnsolve.distributed.LearnedPC"]
PROGRAMS = ["", " multigrid V", " dcdm"]


def launched(count, module, *words):
    """``python -m module`` on so many processes, which may be more than there are cores."""
    openmpi = {f"OMPI_{name}": "1" for name in ("ALLOW_RUN_AS_ROOT", "ALLOW_RUN_AS_ROOT_CONFIRM")}
    openmpi["OMPI_MCA_rmaps_base_oversubscribe"] = "1"
    openmpi["PRTE_MCA_rmaps_default_mapping_policy"] = ":oversubscribe"
    settings = os.environ | openmpi | {"OMP_NUM_THREADS": "1"}
    command = [MPIEXEC, "-n", str(count), sys.executable, "-m", module, *map(str, words)]
    return subprocess.run(command, env=settings, capture_output=True, text=True, timeout=500)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("petsc")

    @cache
    def run(count):
        out = folder / f"{count}.npz"
        done = launched(count, "tests.petsc_program", out, *OPTIONS)
        if done.returncode != 0:
            return done.stderr[-3000:]
        with np.load(out) as data:
            arrays = {name: data[name] for name in data.files}
            return json.loads(str(arrays.pop("found"))), arrays

    def found(count):
        came = run(count)
        assert not isinstance(came, str), came
        return came

    return found


@pytest.mark.parametrize("count", COUNTS[1:])
@pytest.mark.parametrize("name", [*LEARNED, "plane", "small", "singular", *(f"program{p}" for p in PROGRAMS)])
def test_many_processes_do_what_one_does(runs, name, count):
    (one, single), (many, several) = runs(1), runs(count)
    assert many[name]["iterations"] == one[name]["iterations"]
    difference = np.linalg.norm(several[name] - single[name])
    assert difference <= 1e-10 * np.linalg.norm(single[name])


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("name", [*LEARNED, "gamg"])
def test_obstacles(runs, name, count):
    found, arrays = runs(count)
    problem = poisson.obstacles((24, 28, 32), seed=1)
    expected = learnsolve.solve(problem.A, problem.b, method="cg", M="multigrid", rtol=1e-12).x
    assert found[name]["status"] == "CONVERGED" and found[name]["processes"] == count
    residual = problem.b - problem.A @ arrays[name]
    assert np.linalg.norm(residual) <= 1e-8 * np.linalg.norm(problem.b)
    assert found[name]["residuals"] == found[name]["iterations"] + 1
    np.testing.assert_allclose(arrays[name], expected, atol=1e-6 * np.abs(expected).max())
    assert found["learned-multigrid"]["iterations"] < found["gamg"]["iterations"] / 2


@pytest.mark.parametrize("count", COUNTS)
def test_iterations_are_those_of_solve(runs, count):
    problem = poisson.obstacles((24, 28, 32), seed=1)
    res = learnsolve.solve(problem.A, problem.b, method="cg", M="learned-multigrid", rtol=1e-8)
    found, arrays = runs(count)
    assert found["learned-multigrid"]["iterations"] == res.iterations
    assert np.linalg.norm(arrays["learned-multigrid"] - res.x) <= 1e-10 * np.linalg.norm(res.x)


@pytest.mark.parametrize("count", COUNTS)
def test_singular_systems_have_the_answer_of_least_norm(runs, count):
    found, arrays = runs(count)
    for name in ("singular", "singular gamg"):
        assert found[name]["status"] == "CONVERGED"
        assert abs(arrays[name].mean()) < 1e-10
    assert found["zero"]["status"] == "CONVERGED" and not arrays["zero"].any()


@pytest.mark.parametrize("count", COUNTS)
def test_sparse_matrices_take_preconditioners_of_petsc(runs, count):
    found, arrays = runs(count)
    matrix = scipy.sparse.diags_array([-1.5, 2.2, -0.4], offsets=[-1, 0, 1], shape=(60, 60)).tocsr()
    b = np.random.default_rng(0).standard_normal(60)
    for name in ("sparse", "sparse auto"):
        assert found[name]["status"] == "CONVERGED"
        np.testing.assert_allclose(arrays[name], scipy.sparse.linalg.spsolve(matrix.tocsc(), b), rtol=1e-6)


@pytest.mark.parametrize("count", COUNTS)
def test_a_petsc_program_loads_it_from_its_options(runs, count):
    found, _ = runs(count)
    for program in PROGRAMS:
        record = found[f"program{program}"]
        assert record["reason"] > 0 and record["relative_residual"] <= 1.01e-9
        assert record["iterations"] <= (60 if "dcdm" in program else 15)
        expected = (
            "dcdm" if "dcdm" in program else "multigrid, <Multigrid V" if program else "learned-multigrid"
        )
        assert expected in record["label"]
    assert "DMDA" in found["no grid"]


@pytest.mark.parametrize("count", COUNTS)
def test_it_says_why_it_did_not_converge(runs, count):
    found, _ = runs(count)
    assert (found["maxiter"]["status"], found["maxiter"]["iterations"]) == ("MAXITER", 5)
    assert found["timeout"]["status"] == "TIMEOUT"
    assert found["stagnated"]["status"] in ("STAGNATED", "MAXITER", "BREAKDOWN")
    assert found["check"].startswith("SolveError")


@pytest.mark.parametrize("count", [1, 3])
def test_the_command(tmp_path, count):
    A = poisson.box((12, 10)).A
    matrix_market.write(tmp_path / "A.mtx", A.to_scipy())
    words = ["solve", tmp_path / "A.mtx", "--grid", "12,10", "--mpi", "--json", "-o", tmp_path / "x.mtx"]
    done = launched(count, "learnsolve", *words, "--rtol", "1e-9")
    assert done.returncode == 0, done.stderr
    record = json.loads(done.stdout)
    assert record["method"] == "PETSc cg + learned-multigrid" and record["success"]
    x = matrix_market.read(tmp_path / "x.mtx")[:, 0]
    assert np.linalg.norm(1 - A.to_scipy() @ x) <= 1e-9 * 120**0.5
    short = launched(count, "learnsolve", *words, "-M", "none", "--maxiter", 1)
    assert short.returncode == 2 and json.loads(short.stdout)["status"] == "MAXITER"
    wrong = launched(count, "learnsolve", *words, "-M", "nothing")
    assert wrong.returncode == 1 and "no preconditioner" in wrong.stderr


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("no such M", "learned-multigrid, multigrid, dcdm"),
        ("no such method", "fcg"),
        ("wrong shape", "grid's shape"),
        ("NaN", "NaN"),
        ("learned on sparse", "grid_from_matrix"),
        ("not square", "square"),
        ("rtol", "rtol"),
    ],
)
def test_bad_input_is_refused(runs, name, says):
    assert says in runs(1)[0][name]
