"""``learnsolve train``: from a config to weights, a report, and clean refusals."""

import os
import signal
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest

import learnsolve
from learnsolve.cli.train_config import DataOptions, TrainingConfig
from learnsolve.cli.train_data import matrix, samples_file
from learnsolve.methods import DCDM
from learnsolve.preconditioners import LearnedMultigrid
from learnsolve.preconditioners.coupling_network import CouplingOptions
from learnsolve.problems import poisson
from learnsolve.training.toml import toml_text
from tests.train_cli_cases import train, written


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


def test_a_schedule_refined_by_an_earlier_run(run, tmp_path):
    folder, config, _ = run
    outcome = train(config, tmp_path / "refined", "--schedule", "refined", "--from", folder)
    assert outcome.exit_code == 0, outcome.output
    fit = tomllib.loads((tmp_path / "refined" / "config.toml").read_text(encoding="utf-8"))["fit"]
    assert max(fit["schedule"]) == 1 and fit["schedule"][-1] == 0 and len(fit["schedule"]) == 4
    assert fit["warmup"] == 0
    # As a table, too, and as a name.
    again = TrainingConfig.read(written(tmp_path / "again.toml", fit=fit)).training.fit
    assert list(again.schedule) == fit["schedule"]
    linear = train(config, tmp_path / "linear", "--schedule", "linear", "--timeout", "1e-9")
    assert linear.exit_code == 0 and "--schedule linear" in linear.output


@pytest.mark.parametrize(
    ("options", "what"),
    [
        (["--schedule", "refined"], "--schedule refined or --narrow SHARE and --from RUN go together"),
        (["--narrow", "0.5"], "--schedule refined or --narrow SHARE and --from RUN go together"),
        (["--from", "."], "--schedule refined or --narrow SHARE and --from RUN go together"),
        (["--narrow", "0.5", "--from", "nowhere"], "nowhere holds no finished run"),
        (["--schedule", "sine"], "schedule must be one of rex"),
        (["--schedule", "refined", "--from", "nowhere"], "nowhere holds no run"),
    ],
)
def test_a_schedule_that_is_none(tmp_path, options, what):
    outcome = train(written(tmp_path / "tiny.toml"), tmp_path / "run", *options)
    assert outcome.exit_code == 1 and what in outcome.output
    assert not (tmp_path / "run").exists()


def test_a_network_narrowed_from_an_earlier_run(run, tmp_path):
    folder, config, _ = run
    outcome = train(config, tmp_path / "narrow", "--narrow", 0.5, "--from", folder)
    assert outcome.exit_code == 0, outcome.output
    dense, narrow = (
        DCDM.load(place / "network.safetensors").network for place in (folder, tmp_path / "narrow")
    )
    assert narrow.options.channels == dense.options.channels // 2
    tables = tomllib.loads((tmp_path / "narrow" / "config.toml").read_text(encoding="utf-8"))
    assert tables["config"]["network"]["channels"] == 2
    # Training began with the narrowed weights, four small steps ago, and a second call finds it finished.
    assert (narrow.enter.weight - dense.narrowed(0.5).enter.weight).abs().max() < 0.02
    again = train(config, tmp_path / "narrow", "--narrow", 0.5, "--from", folder)
    assert again.exit_code == 0 and "there is nothing left to train" in again.output
    refused = train(config, tmp_path / "none", "--narrow", 1.5, "--from", folder)
    assert refused.exit_code == 1 and "share is 1.5" in refused.output
    assert not (tmp_path / "none").exists()


def test_a_signal_stops_with_a_checkpoint(tmp_path, monkeypatch):
    from learnsolve.cli import train as command

    def figures(now):
        os.kill(os.getpid(), signal.SIGINT)
        return [f"step {now.step}"]

    monkeypatch.setattr(command, "_figures", figures)
    before = signal.getsignal(signal.SIGINT)
    outcome = train(written(tmp_path / "a.toml"), tmp_path / "run")
    assert outcome.exit_code == 130, outcome.output
    assert "to continue: learnsolve train dcdm" in outcome.stdout
    assert (tmp_path / "run" / "checkpoint.safetensors").exists()
    assert signal.getsignal(signal.SIGINT) is before


def test_options_stand_above_the_config_and_a_folder_keeps_its_run(tmp_path):
    config = written(tmp_path / "a.toml")
    outcome = train(config, tmp_path / "run", "--steps", 2, "--seed", 7)
    assert outcome.exit_code == 0, outcome.output
    noted = tomllib.loads((tmp_path / "run" / "config.toml").read_text(encoding="utf-8"))["fit"]
    assert (noted["steps"], noted["seed"], noted["warmup"]) == (2, 7, 0)
    outcome = train(config, tmp_path / "run")
    assert outcome.exit_code == 1
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
        samples_file(tmp_path, DataOptions(((4, 4),), vectors=4, samples=2, seed=seed), "closed", A)
        for seed in (0, 1)
    }
    assert len(paths) == 2


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


def test_a_multigrid_is_trained_by_the_command(tmp_path):
    config, out = tmp_path / "c.toml", tmp_path / "run"
    tables = {
        "fit": {"steps": 2},
        "multigrid": {"coarsest": 20},
        "data": {"shapes": [[12, 12]], "domains": ["jump"]},
        "held_out": {"families": ["jump", "maze"]},
    }
    config.write_text(toml_text(tables), encoding="utf-8")
    done = train(config, out, kind="multigrid")
    assert done.exit_code == 0, done.output
    assert "LearnedMultigrid.load" in done.output
    assert "| jump | 12×12 |" in (out / "report.md").read_text(encoding="utf-8")
    assert LearnedMultigrid.load(out / "network.safetensors").network.options == CouplingOptions()
    assert "nothing left to train" in train(config, out, kind="multigrid").output
    config.write_text(toml_text({**tables, "dcdm": {}}), encoding="utf-8")
    refused = train(config, out, kind="multigrid")
    assert refused.exit_code == 1
    assert "no table [dcdm]" in refused.output
