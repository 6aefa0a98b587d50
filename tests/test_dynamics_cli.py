"""``learnsolve dynamics``: what it writes, says and refuses."""

import json

import numpy as np
import pytest
from typer.testing import CliRunner

from learnsolve.cli import app
from learnsolve.dynamics import DynamicalModel
from learnsolve.dynamics.pictures import plot_exponents, plot_portrait, plot_spectra
from learnsolve.problems.chaotic import henon, lorenz63

FEW = ["--steps", "4", "--length", "20", "--hidden", "8"]
WRITTEN = ["model.safetensors", "report.md", "portrait.png", "spectrum.png", "exponents.png", "config.toml"]


def run(*words):
    return CliRunner().invoke(app, ["dynamics", *map(str, words)])


@pytest.fixture
def table(tmp_path):
    path, series = tmp_path / "run.csv", lorenz63().orbit(900)
    lines = [f"{t / 100},{x:.6f},{y:.6f},{z:.6f}" for t, (x, y, z) in enumerate(series)]
    lines[50] = "0.5,,,"
    path.write_text("\n".join(["t,x,y,z", *lines]) + "\n")
    return path


def test_a_series_is_fitted_and_judged(table, tmp_path):
    out = tmp_path / "run"
    found = run("fit", table, "--out", out, "--time", "t", *FEW)
    assert found.exit_code == 0, found.output
    assert "D_stsp" in found.output and "Lyapunov exponents" in found.output
    for name in WRITTEN:
        assert (out / name).stat().st_size > 0, name
    model = DynamicalModel.load(out / "model.safetensors")
    assert model.names == ("x", "y", "z") and model.dt == pytest.approx(0.01)
    report = (out / "report.md").read_text()
    assert "No success" in report and "3 states, 8 hidden units" in report
    told = run("evaluate", out, table, "--time", "t", "--ahead", 5)
    assert told.exit_code == 0, told.output
    assert "error 5 steps ahead" in told.output
    record = json.loads(run("evaluate", out, table, "--time", "t", "--json").stdout)
    assert record["ahead"] == 20 and record["floor"]["state_space"] >= 0
    again = run("fit", table, "--out", out, "--time", "t", *FEW)
    assert again.exit_code == 0 and "D_stsp" in again.output
    other = run("fit", table, "--out", out, "--time", "t", *FEW, "--method", "stf")
    assert other.exit_code == 1 and "other" in other.output


def test_one_variable_is_embedded(tmp_path):
    np.savez(tmp_path / "x.npz", x=henon().orbit(600)[:, 0], y=np.zeros(3))
    options = ["--key", "x", "--embed", 3]
    found = run("fit", tmp_path / "x.npz", "--out", tmp_path / "run", *options, *FEW, "--alpha", 0.3)
    assert found.exit_code == 0, found.output
    assert DynamicalModel.load(tmp_path / "run" / "model.safetensors").dim == 3
    assert "embedded in 3 delays of" in (tmp_path / "run" / "report.md").read_text()
    told = run("evaluate", tmp_path / "run" / "model.safetensors", tmp_path / "x.npz", *options, "--lag", 1)
    assert told.exit_code == 0, told.output


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--time", "when"], "no column 'when'"),
        (["--embed", "2"], "takes one"),
        (["--alpha", "mean"], "geometric-mean"),
        (["--held-out", "1.5"], "held_out"),
        (["--dim", "2"], "at most"),
        (["--length", "5000"], "longest"),
    ],
)
def test_what_is_refused(table, tmp_path, options, words):
    given = [] if "--embed" in options or "when" in options else ["--time", "t"]
    found = run("fit", table, "--out", tmp_path / "run", *given, *FEW, *options)
    assert found.exit_code == 1 and words in found.output, found.output
    assert not (tmp_path / "run" / "report.md").exists()


def test_an_evaluation_needs_the_same_variables(table, tmp_path):
    run("fit", table, "--out", tmp_path / "run", "--time", "t", *FEW)
    found = run("evaluate", tmp_path / "run", table)
    assert found.exit_code == 1 and "4 variables, the model 3" in found.output
    (tmp_path / "few.csv").write_text("1,2,3\n2,3,4\n3,4,6\n")
    found = run("evaluate", tmp_path / "run", tmp_path / "few.csv")
    assert found.exit_code == 1 and "whole rows" in found.output
    found = run("evaluate", tmp_path / "none", table)
    assert found.exit_code == 1


def test_pictures_show_each_run():
    runs = {"one": lorenz63().orbit(200), "two": lorenz63().orbit(200, seed=1)}
    for ax in (plot_portrait(runs, variables=(0, 2)), plot_spectra(runs, dt=0.01)):
        assert [text.get_text() for text in ax.get_legend().get_texts()] == ["one", "two"]
    line = plot_portrait({"x": runs["one"][:, :1]}).lines[0]
    np.testing.assert_array_equal(line.get_ydata()[:-1], line.get_xdata()[1:])
    ax = plot_exponents({"a": [0.9, 0.0, -14.6]})
    assert plot_exponents({"b": [0.1]}, ax) is ax and len(ax.get_legend().get_texts()) == 2
