"""``learnsolve train``: from a config to weights, a report, and clean refusals."""

import os
import signal
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import learnsolve
from learnsolve.cli import app
from learnsolve.cli.train_config import DataOptions, TrainingConfig, shipped
from learnsolve.cli.train_data import matrix, samples_file
from learnsolve.methods import DCDM
from learnsolve.problems import poisson
from learnsolve.training.tables import from_table
from learnsolve.training.toml import toml_text

TINY = {
    "network": {"dims": 2, "channels": 4},
    "fit": {"steps": 4, "learning_rate": 2e-3, "warmup": 1, "validate_every": 2},
    "dcdm": {"depth": 3, "cells": 512},
    "data": {"shapes": [[16, 16]]},
    "held_out": {"shapes": [[16, 16]], "families": ["obstacles"], "rhs": ["noise"]},
}


def written(path, **changes):
    """A config file: the tiny one with some tables changed."""
    tables = {name: TINY.get(name, {}) | changes.get(name, {}) for name in {**TINY, **changes}}
    path.write_text(toml_text(tables), encoding="utf-8")
    return path


def train(config, out, *options):
    arguments = ["train", "dcdm", "--config", config, "--out", out, *options]
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A finished run: its folder, its config and what the command said."""
    folder = tmp_path_factory.mktemp("train")
    config = written(folder / "tiny.toml")
    outcome = train(config, folder / "run")
    assert outcome.exit_code == 0, outcome.output
    return folder / "run", config, outcome


def test_a_run_leaves_weights_report_and_picture(run):
    folder, _, outcome = run
    report = (folder / "report.md").read_text(encoding="utf-8")
    row = next(line for line in report.splitlines() if line.startswith("| obstacles"))
    iterations = [float(cell.rstrip("*")) for cell in row.split("|")[3:9:2]]
    assert min(iterations) >= 1
    assert "16×16" in row
    assert "multigrid CG" in report
    assert (folder / "convergence.png").stat().st_size > 10_000
    assert tomllib.loads((folder / "config.toml").read_text(encoding="utf-8"))["fit"]["steps"] == 4
    assert f'DCDM.load("{(folder / "network.safetensors").as_posix()}")' in outcome.stdout
    assert "held-out iterations" in outcome.stdout


def test_the_weights_solve(run):
    problem = poisson.obstacles((16, 16), seed=3)
    method = DCDM.load(run[0] / "network.safetensors")
    result = learnsolve.solve(problem.A, problem.b, method=method)
    assert result.success
    assert result.extras["network_steps"] > 0


def test_a_finished_run_says_so_and_stays(run):
    folder, config, _ = run
    before = {path: path.read_bytes() for path in folder.glob("*.*") if path.name != "network.safetensors"}
    outcome = train(config, folder)
    assert outcome.exit_code == 0, outcome.output
    assert "finished run of 4 steps" in outcome.stdout
    assert "DCDM.load" in outcome.stdout
    assert all(path.read_bytes() == content for path, content in before.items())


def test_a_lost_report_is_written_again(run):
    folder, config, _ = run
    (folder / "report.md").unlink()
    assert train(config, folder).exit_code == 0
    assert "| obstacles" in (folder / "report.md").read_text(encoding="utf-8")


def test_a_run_pauses_at_the_timeout_and_goes_on(run, tmp_path):
    folder, config, _ = run
    out = tmp_path / "paused"
    outcome = train(config, out, "--timeout", "1e-6")
    assert outcome.exit_code == 0, outcome.output
    assert "stopped at step 1 of 4" in outcome.stdout
    assert f"learnsolve train dcdm --config {config} --out {out} --timeout 1e-06" in outcome.stdout
    assert not (out / "network.safetensors").exists()
    outcome = train(config, out)
    assert outcome.exit_code == 0, outcome.output
    whole, parts = (DCDM.load(place / "network.safetensors").network for place in (folder, out))
    for one, other in zip(whole.parameters(), parts.parameters(), strict=True):
        assert one.equal(other)


def test_a_signal_stops_with_a_checkpoint(tmp_path, monkeypatch):
    from learnsolve.cli import train as command

    def figures(now):
        os.kill(os.getpid(), signal.SIGINT)
        return f"step {now.step}"

    monkeypatch.setattr(command, "_figures", figures)
    outcome = train(written(tmp_path / "a.toml"), tmp_path / "run")
    assert outcome.exit_code == 130, outcome.output
    assert "to continue: learnsolve train dcdm" in outcome.stdout
    assert (tmp_path / "run" / "checkpoint.safetensors").exists()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_options_stand_above_the_config_and_a_folder_keeps_its_run(tmp_path):
    config = written(tmp_path / "a.toml")
    outcome = train(config, tmp_path / "run", "--steps", 2, "--seed", 7)
    assert outcome.exit_code == 0, outcome.output
    noted = tomllib.loads((tmp_path / "run" / "config.toml").read_text(encoding="utf-8"))["fit"]
    assert (noted["steps"], noted["seed"], noted["warmup"]) == (2, 7, 0)
    outcome = train(config, tmp_path / "run")
    assert outcome.exit_code == 2
    assert "holds a run with other options" in outcome.stderr
    assert len(outcome.stderr.splitlines()) == 1


def test_the_papers_loss_makes_its_vectors_once(tmp_path):
    config = written(tmp_path / "a.toml", dcdm={"loss": "residual"}, data={"vectors": 20, "samples": 10})
    outcome = train(config, tmp_path / "run", "--timeout", "1e-6")
    assert outcome.exit_code == 0, outcome.output
    (file,) = (tmp_path / "run" / "data").glob("*.h5")
    assert "room-16x16-vectors20-samples10" in file.name
    made = file.stat().st_mtime_ns
    outcome = train(config, tmp_path / "run")
    assert outcome.exit_code == 0, outcome.output
    assert file.stat().st_mtime_ns == made
    assert (tmp_path / "run" / "report.md").exists()


def test_vectors_of_other_settings_get_a_file_of_their_own(tmp_path):
    A = matrix("closed", (4, 4))
    paths = {
        samples_file(tmp_path, DataOptions(((4, 4),), vectors=4, samples=2, seed=seed), A, (4, 4))
        for seed in (0, 1)
    }
    assert len(paths) == 2


@pytest.mark.parametrize(("domain", "singular"), [("room", False), ("dirichlet", False), ("closed", True)])
def test_domains(domain, singular):
    A = matrix(domain, (6, 5))
    assert A.singular == singular
    assert A.unknowns == (20 if domain == "room" else 30)
    assert float(A.diagonal().max()) == 4
    assert (float(A.diagonal()[0, 0]) == 4) == (domain == "dirichlet")


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"guess": {"a": 1}}, "there is no table [guess]"),
        ({"fit": {"stepz": 3}}, "[fit] has no key 'stepz'; its keys are steps, learning_rate"),
        ({"fit": {"steps": "many"}}, "[fit] steps must be an integer, not 'many'"),
        ({"fit": {"steps": True}}, "[fit] steps must be an integer, not True"),
        ({"fit": {"warmup": 4}}, "[fit] warmup must be less than steps"),
        ({"network": {"dims": 3}}, "set dims = 2 in [network]"),
        ({"network": {"architecture": "deep"}}, "must be one of 'recursive', 'paper', not 'deep'"),
        ({"dcdm": {"network": 1}}, "[dcdm] has no key 'network'"),
        ({"dcdm": {"depth": 0}}, "[dcdm] depth is 0"),
        ({"data": {"domain": "sphere"}}, "[data] domain must be one of 'room'"),
        ({"data": {"shapes": []}}, "[data] shapes is empty"),
        ({"data": {"shapes": [16, 16]}}, "[data] shapes, item 1: must be a list, not 16"),
        ({"data": {"shapes": [[16, 2]]}}, "[data] shapes holds [16, 2]"),
        ({"data": {"low": 2.0}}, "[data] low is 2.0"),
        ({"held_out": {"families": ["ball"]}}, "families, item 1: must be one of 'obstacles'"),
        ({"held_out": {"rtol": 0.0}}, "[held_out] rtol is 0.0"),
    ],
)
def test_a_wrong_config_ends_with_two_before_any_work(tmp_path, changes, what):
    refused(train(written(tmp_path / "a.toml", **changes), tmp_path / "run"), what)
    assert not (tmp_path / "run").exists()


def refused(outcome, what):
    assert outcome.exit_code == 2, outcome.output
    assert what in outcome.stderr
    assert outcome.stdout == ""
    assert len(outcome.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("[fit\n", "a.toml: Expected"),
        ("fit = 1\n[data]\nshapes = [[8, 8]]\n", "fit must be a table, not 1"),
        ("[data]\nshapes = [[8, 8]]\n", "the table [fit] is missing"),
        ("[fit]\n[data]\nshapes = [[8, 8]]\n", "[fit] lacks 'steps'"),
    ],
)
def test_a_file_that_is_no_config(tmp_path, text, what):
    (tmp_path / "a.toml").write_text(text, encoding="utf-8")
    refused(train(tmp_path / "a.toml", tmp_path / "run"), what)


@pytest.mark.parametrize(
    ("name", "what"), [("no.toml", "there is no file no.toml"), ("guess", "there are poisson2d, poisson3d")]
)
def test_a_config_that_is_not_there(tmp_path, name, what):
    refused(train(name, tmp_path / "run"), what)


@pytest.mark.parametrize("name", shipped())
def test_shipped_configs_are_read(name):
    config = TrainingConfig.read(name)
    assert config.training.network.dims == len(config.data.shapes[0])
    # The record and the options of fit make the config again.
    tables = {**config.record(), "fit": {"steps": config.training.fit.steps}}
    assert TrainingConfig.from_tables(tomllib.loads(toml_text(tables))).data == config.data


def test_without_held_out_systems_the_last_shape_is_judged():
    tables = {name: table for name, table in TINY.items() if name != "held_out"}
    assert TrainingConfig.from_tables(tables).held_out.shapes == ((16, 16),)


def test_numbers_of_tables_become_those_of_the_fields():
    options = from_table(DataOptions, {"shapes": [[8, 8]], "weight": 2}, "data")
    assert isinstance(options.weight, float)
    assert options.shapes == ((8, 8),)


@pytest.mark.skipif(sys.platform == "win32", reason="torchrun needs a fork")
@pytest.mark.slow
def test_two_processes_train_one_network(tmp_path):
    config = written(tmp_path / "a.toml", dcdm={"loss": "residual"}, data={"vectors": 20, "samples": 10})
    code = tmp_path / "command.py"
    code.write_text("from learnsolve.cli import main\nmain()\n", encoding="utf-8")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    outcome = subprocess.run(
        [*command, str(code), "train", "dcdm", "--config", str(config), "--out", str(tmp_path / "run")],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        cwd=Path(__file__).parents[1],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
    )
    assert outcome.returncode == 0, outcome.stderr
    assert outcome.stdout.count("DCDM.load") == 1
    parameters = DCDM.load(tmp_path / "run" / "network.safetensors").network.parameters()
    assert all(np.isfinite(parameter.detach().numpy()).all() for parameter in parameters)
