import json
import subprocess
import sys

import numpy as np
import pytest
import scipy.sparse as sp
from typer.testing import CliRunner

import learnsolve
from learnsolve.cli import app
from learnsolve.datasets import matrix_market


def poisson(n):
    """The second difference on n points: positive definite, known to every method."""
    return sp.diags_array(
        [-np.ones(n - 1), 2 * np.ones(n), -np.ones(n - 1)], offsets=[-1, 0, 1], format="csr"
    )


@pytest.fixture
def system(tmp_path):
    """Paths of a matrix and a right-hand side, and the exact answer."""
    A = poisson(60)
    x = np.sin(np.arange(60.0))
    matrix_market.write(tmp_path / "A.mtx", A)
    matrix_market.write(tmp_path / "b.mtx", A @ x)
    return tmp_path / "A.mtx", tmp_path / "b.mtx", x


def run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def command(*arguments):
    """The command in a process of its own, as users run it."""
    code = "from learnsolve.cli import main; main()"
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", code, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.parametrize("suffix", [".mtx", ".mtx.gz"])
def test_solve_writes_the_answer(system, tmp_path, suffix):
    matrix, rhs, x = system
    output = tmp_path / f"x{suffix}"
    outcome = run("solve", matrix, rhs, "--rtol", "1e-10", "-o", output)
    assert outcome.exit_code == 0, outcome.output
    assert "CONVERGED" in outcome.stdout
    assert "iteration" in outcome.stdout
    assert str(output) in outcome.stdout
    written = matrix_market.read(output)
    assert written.shape == (60, 1)
    np.testing.assert_allclose(written[:, 0], x, atol=1e-7)


def test_without_a_right_hand_side_it_is_ones_and_says_so(system):
    outcome = run("solve", system[0])
    assert outcome.exit_code == 0, outcome.output
    assert "b is all ones" in outcome.stdout


def test_residual_table_has_a_few_rows_and_ends_at_the_last_iteration(system):
    outcome = run("solve", system[0], system[1], "--method", "cg")
    lines = outcome.stdout.splitlines()
    rows = [line.split() for line in lines[1:-1]]
    assert 2 <= len(rows) <= 8
    assert rows[0][0] == "0"
    assert f"{rows[-1][0]} iterations" in lines[-1]


def test_json_is_one_object(system):
    outcome = run("solve", *system[:2], "--method", "cg", "--json")
    record = json.loads(outcome.stdout)
    assert record["success"] is True
    assert record["status"] == "CONVERGED"
    assert record["shape"] == [60, 60]
    assert len(record["residuals"]) == record["iterations"] + 1
    assert record["relative_residual"] <= 1e-5


def test_quiet_prints_nothing(system, tmp_path):
    outcome = run("solve", *system[:2], "--quiet", "-o", tmp_path / "x.mtx")
    assert outcome.exit_code == 0
    assert outcome.output == ""
    assert (tmp_path / "x.mtx").is_file()


def test_not_converged_ends_with_two_and_advice(system, tmp_path):
    output = tmp_path / "x.mtx"
    outcome = run("solve", *system[:2], "--method", "cg", "--maxiter", "3", "-o", output)
    assert outcome.exit_code == 2
    assert "MAXITER" in outcome.stdout
    assert learnsolve.Status.MAXITER.value in outcome.stderr
    assert matrix_market.read(output).shape == (60, 1)


def test_integer_matrices_and_sparse_right_hand_sides_are_welcome(tmp_path):
    matrix_market.write(tmp_path / "A.mtx", poisson(5).astype(int))
    matrix_market.write(tmp_path / "b.mtx", sp.csr_array(np.eye(5, 2)))
    outcome = run("solve", tmp_path / "A.mtx", tmp_path / "b.mtx", "-o", tmp_path / "x.mtx")
    assert outcome.exit_code == 0, outcome.output
    expected = np.linalg.solve(poisson(5).toarray(), np.eye(5, 2))
    np.testing.assert_allclose(matrix_market.read(tmp_path / "x.mtx"), expected, atol=1e-4)


def test_preconditioner_by_name(system):
    outcome = run("solve", *system[:2], "--method", "cg", "-M", "jacobi", "--json")
    assert outcome.exit_code == 0, outcome.output
    assert "jacobi" in json.loads(outcome.stdout)["method"]


BANNER = "%%MatrixMarket matrix coordinate real general\n"


@pytest.mark.parametrize(
    ("text", "options", "what"),
    [
        (None, (), "No such file"),
        ("nothing of the kind\n", (), "line 1: not a Matrix Market file"),
        (BANNER + "2 2 3\n1 1 1\n2 2 1\n", (), "line 2: 3 entries announced"),
        (BANNER + "2 2 2\n1 1 1\n2 2 nan\n", (), "line 4:"),
        (BANNER + "2 2 2\n1 1 1\n2 2 1\n", ("--method", "guess"), "guess"),
        (BANNER + "2 2 2\n1 1 1\n2 2 1\n", ("-M", "guess", "--method", "cg"), "guess"),
        (BANNER + "2 2 2\n1 1 1\n2 2 1\n", ("--rtol", "-1"), "rtol"),
        (BANNER + "2 2 2\n1 1 1\n2 2 1\n", ("-o", "no_such_folder/x.mtx"), "no folder"),
        (BANNER + "0 0 0\n", (), ""),
    ],
)
def test_bad_input_ends_with_one_and_one_line(tmp_path, text, options, what):
    path = tmp_path / "A.mtx"
    if text is not None:
        path.write_text(text)
    outcome = run("solve", path, *options)
    assert outcome.exit_code == 1
    assert outcome.stdout == ""
    assert what in outcome.stderr
    assert len(outcome.stderr.splitlines()) == 1
    assert "Traceback" not in outcome.stderr


def test_mismatched_right_hand_side(system, tmp_path):
    matrix_market.write(tmp_path / "short.mtx", np.ones(7))
    outcome = run("solve", system[0], tmp_path / "short.mtx")
    assert outcome.exit_code == 1
    assert "60" in outcome.stderr
    assert "7" in outcome.stderr


def test_a_terminal_sees_progress_on_standard_error(system, monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with pytest.raises(SystemExit) as ended:
        app(["solve", str(system[0]), str(system[1]), "--method", "cg"])
    assert ended.value.code == 0
    captured = capsys.readouterr()
    assert "|r|/|b|" in captured.err
    assert "\x1b" not in captured.out


def test_methods_lists_every_method_and_preconditioner():
    outcome = run("methods")
    assert outcome.exit_code == 0
    lines = [line.strip() for line in outcome.stdout.splitlines() if line.startswith(" ")]
    table = learnsolve.methods_table()
    assert len(lines) == len(table)
    assert any(name.startswith("M=") for name, _ in table)
    for name, summary in table:
        assert any(
            line.startswith(f"{name.removeprefix('M=')} ") and line.endswith(summary) for line in lines
        )
        assert "\n" not in summary


def test_the_command_itself(system):
    outcome = command("solve", *system[:2], "--maxiter", "1", "--method", "cg")
    assert outcome.returncode == 2
    assert "MAXITER" in outcome.stdout


@pytest.mark.parametrize("arguments", [("solve",), ("solve", "A.mtx", "--maxiter", "many"), ("guess",)])
def test_wrong_usage_ends_with_one_not_two(arguments):
    outcome = command(*arguments)
    assert outcome.returncode == 1
    assert outcome.stderr.startswith("learnsolve: ")
    assert outcome.stderr.endswith("(see 'learnsolve --help')\n")
    assert len(outcome.stderr.splitlines()) == 1


def test_version():
    outcome = run("--version")
    assert outcome.exit_code == 0
    assert outcome.stdout.strip() == f"learnsolve {learnsolve.__version__}"


@pytest.mark.parametrize(
    "arguments",
    [["--help"], ["--version"], ["solve", "--help"], ["demo", "--help"], ["train", "dcdm", "--help"]],
)
def test_help_comes_without_the_heavy_imports(arguments):
    code = (
        f"import sys; sys.argv[1:] = {arguments!r}\n"
        "from learnsolve.cli import main\n"
        "try: main()\n"
        "except SystemExit as ended: assert ended.code == 0, ended.code\n"
        "heavy = {'torch', 'numba', 'matplotlib', 'scipy', 'numpy', 'triton'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    outcome = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert outcome.returncode == 0, outcome.stderr


@pytest.mark.parametrize(
    ("problem", "rows"),
    [("shifted", ["chebcb"]), ("smoke", ["chebcb", "conjugate", "multigrid", "multigrid, tsallis"])],
)
def test_tune_shows_what_a_policy_costs(problem, rows, tmp_path):
    command = ["tune", "--problem", problem, "--steps", 20, "--policy", "chebcb", "--policy", "tsallis-inf"]
    result = run(*command, "--grid", 10, "--output", tmp_path)
    assert result.exit_code == 0, result.output
    assert all(row in result.output for row in rows)
    assert (tmp_path / "tune.png").read_bytes()[:4] == b"\x89PNG"


@pytest.mark.parametrize(
    "arguments, word",
    [
        (["--policy", "none"], "there is no 'none'"),
        (["--problem", "drift", "--grid", 50], "indefinite"),
        (["--steps", 1], "steps"),
    ],
)
def test_tune_refuses(arguments, word, tmp_path):
    ended = command("tune", *arguments, "--output", tmp_path / "new")
    assert ended.returncode == 1
    assert word in ended.stderr
    assert not (tmp_path / "new").exists()


def on_a_grid(tmp_path):
    """A matrix on a grid of 12 x 9 whose outermost cells have fixed values, with its right-hand side."""
    A = learnsolve.operators.GridPoisson(np.zeros((12, 9), int), boundary="dirichlet").to_scipy().tolil()
    edge = np.ones((12, 9), bool)
    edge[1:-1, 1:-1] = False
    for row in np.flatnonzero(edge):
        A[row] = 0
        A[row, row] = 2
    matrix_market.write(tmp_path / "A.mtx", sp.csr_array(A))
    matrix_market.write(tmp_path / "b.mtx", np.random.default_rng(0).standard_normal(108))
    return sp.csc_array(A), matrix_market.read(tmp_path / "b.mtx")[:, 0]


@pytest.mark.parametrize("preconditioner", ["multigrid", "learned-multigrid"])
def test_matrices_on_grids_take_what_asks_for_a_grid(tmp_path, preconditioner):
    A, b = on_a_grid(tmp_path)
    words = ["solve", tmp_path / "A.mtx", tmp_path / "b.mtx", "--grid", "12,9", "-o", tmp_path / "x.mtx"]
    done = run(*words, "--method", "cg", "-M", preconditioner, "--rtol", 1e-10)
    assert done.exit_code == 0, done.output
    assert f"cg + {preconditioner}" in done.output
    x = matrix_market.read(tmp_path / "x.mtx")[:, 0]
    assert np.linalg.norm(b - A @ x) <= 1e-9 * np.linalg.norm(b)


@pytest.mark.parametrize(
    ("grid", "says"), [("12x9", "--grid is '12x9'"), ("9,9", "a row a cell"), ("9,12", "neighbour")]
)
def test_grids_that_do_not_fit(tmp_path, grid, says):
    on_a_grid(tmp_path)
    done = run("solve", tmp_path / "A.mtx", tmp_path / "b.mtx", "--grid", grid, "-M", "multigrid")
    assert done.exit_code == 1 and says in done.stderr


def test_help_comes_at_once():
    code = (
        "import sys, time; sys.argv = ['learnsolve', '--help']\n"
        "from learnsolve.cli import main\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "print('seconds:', time.process_time())"
    )
    for _ in range(3):
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
        # In processor time, so that a busy machine does not count.
        if float(done.stdout.rsplit("seconds:", 1)[1]) < 0.5:
            return
    raise AssertionError(done.stdout)


def test_doctor_says_what_is_there_and_what_works():
    done = run("doctor", "--json")
    assert done.exit_code == 0, done.output
    report = json.loads(done.stdout)
    assert report["healthy"] and report["learnsolve"] == learnsolve.__version__
    assert {"torch", "numpy", "scipy", "numba", "typer"} <= report["required"].keys()
    assert all(report["required"].values())
    assert report["checks"]["solve on the CPU (numba)"]["works"]
    assert "numba" in run("doctor").stdout


def test_doctor_finds_what_is_broken(monkeypatch):
    from learnsolve.cli import doctor

    monkeypatch.setattr(doctor, "TOLERANCE", 0.0)
    done = run("doctor", "--json")
    assert done.exit_code == 1
    check = json.loads(done.stdout)["checks"]["solve on the CPU (numba)"]
    assert check["works"] is False and "from the answer" in check["says"]


def test_what_has_an_answer_tells_it_as_json(tmp_path):
    assert json.loads(run("methods", "--json").stdout)["cg"]
    tuned = run("tune", "--problem", "shifted", "--steps", 10, "--output", tmp_path, "--json")
    assert json.loads(tuned.stdout)["chebcb"]["systems"] == 10
    scans = ["mri", "simulate", "--out", tmp_path, "--slices", 1, "--size", 32, "--coils", 2]
    assert run(*scans).exit_code == 0
    about = json.loads(run("mri", "info", tmp_path / "fastmri_0.h5", "--json").stdout)
    assert about["shape"] == [1, 2, 32, 32] and about["centred"] is True


def test_a_failure_is_one_line_and_no_traceback(tmp_path, monkeypatch):
    def full(*_, **__):
        raise MemoryError

    monkeypatch.setattr("learnsolve.linear.solve", full)
    monkeypatch.setattr("learnsolve.solve", full)
    matrix_market.write(tmp_path / "A.mtx", poisson(5))
    ended = run("solve", tmp_path / "A.mtx")
    assert ended.exit_code == 1 and ended.stderr == "learnsolve: out of memory\n"
