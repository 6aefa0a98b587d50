"""Training on tasks: what is learned is judged beyond its lengths; the command line; bad configs."""

import json
import tomllib

import pytest
import torch
from typer.testing import CliRunner

from learnsolve.cli import app
from learnsolve.cli.sequence_config import SequenceConfig
from learnsolve.problems.sequence_tasks import NOTHING, TASKS, Recall
from learnsolve.sequence.backbone import BackboneOptions, load
from learnsolve.sequence.training import SequenceTraining, accuracy, train
from learnsolve.training import FitOptions
from learnsolve.training.shipped import shipped


def test_negative_eigenvalues_learn_parity_beyond_their_lengths():
    found = {}
    for beta_max in (1.0, 2.0):
        config = SequenceConfig.read("parity").changed(steps=120, beta_max=beta_max)
        network, result = train(config.training, config.task)
        assert result.finished
        found[beta_max] = result.metrics["last_256"]
        assert accuracy(network, config.task, 256, 64, seed=9).last == pytest.approx(found[beta_max], abs=0.2)
    assert found[2.0] > 0.9 and found[1.0] < 0.7


def test_accuracy_counts_what_is_asked():
    task = Recall(pairs=2, vocabulary_size=16)

    class Right(torch.nn.Module):
        """Answers by looking up; wrong at a query's second position of two."""

        def __init__(self):
            super().__init__()
            self.p = torch.nn.Parameter(torch.zeros(1))

        def forward(self, tokens):
            logits = torch.zeros(*tokens.shape, 16)
            for row, line in enumerate(tokens.tolist()):
                pairs = dict(zip(line[:4:2], line[1:4:2], strict=True))
                for t, token in enumerate(line):
                    logits[row, t, pairs.get(token, 0) if token == line[0] else 0] = 1
            return logits, []

    shares = accuracy(Right(), task, 12, count=200)
    assert shares.everywhere == 0.5
    assert 0.2 < shares.last < 0.8


@pytest.mark.parametrize("name", shipped("sequence", ".toml"))
def test_shipped_configs_are_read_and_run(name):
    config = SequenceConfig.read(name)
    assert config.task.name in TASKS
    again = SequenceConfig.of_tables({**json.loads(json.dumps(config.record())), "fit": {"steps": 1}})
    assert again.task == config.task and again.training.network == config.training.network
    network = config.training.network.build()
    batch = config.task.batch(2, config.training.lengths[1], 0)
    assert network(batch.tokens)[0].shape[-1] >= config.task.classes
    assert (batch.targets != NOTHING).any()


def test_the_command_trains_stops_and_goes_on(tmp_path):
    run = CliRunner().invoke
    given = ["sequence", "train", "--task", "parity", "--steps", "4", "--out"]
    whole = run(app, [*given, str(tmp_path / "a")])
    assert whole.exit_code == 0, whole.output
    for name in ("network.safetensors", "report.md", "accuracy.png", "config.toml", "metrics.jsonl"):
        assert (tmp_path / "a" / name).stat().st_size > 0
    assert "length 256" in whole.output and "longer than any it has seen" in whole.output
    paused = run(app, [*given, str(tmp_path / "b"), "--timeout", "0.0001"])
    assert paused.exit_code == 0 and "to continue: learnsolve sequence train --task parity" in paused.output
    assert run(app, [*given, str(tmp_path / "b"), "--quiet"]).exit_code == 0
    a, b = (load(tmp_path / name / "network.safetensors") for name in "ab")
    for one, two in zip(a.parameters(), b.parameters(), strict=True):
        assert torch.equal(one, two)
    config = tomllib.loads((tmp_path / "a" / "config.toml").read_text())["config"]
    assert config["task"]["name"] == "parity" and config["network"]["beta_max"] == 2.0


def test_the_command_takes_another_model(tmp_path):
    given = ["sequence", "train", "--task", "parity", "--steps", "1", "--model", "attention,lstm"]
    found = CliRunner().invoke(app, [*given, "--out", str(tmp_path), "--quiet"])
    assert found.exit_code == 0, found.output
    assert load(tmp_path / "network.safetensors").options.mixers == ("attention", "lstm")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "the table [task] is missing"),
        ("[task]\nname = 'nothing'\n[fit]\nsteps = 1", "parity, modular-arithmetic"),
        ("[task]\nname = 'parity'\nodd = 1\n[fit]\nsteps = 1", "odd"),
        ("[task]\nname = 'parity'\n[fit]\nsteps = 0", "steps must be"),
        ("[task]\nname = 'parity'\n[fit]\nsteps = 1\n[network]\nmixers = ['x']", "mixers are"),
        ("[task]\nname = 'parity'\n[fit]\nsteps = 1\n[train]\nlengths = [5, 3]", "lengths are"),
        ("[task]\nname = 'parity'\n[fit]\nsteps = 1\n[other]", "no table [other]"),
        ("not toml", "a.toml"),
    ],
)
def test_bad_configs_end_in_a_line(tmp_path, text, words):
    (tmp_path / "a.toml").write_text(text)
    given = ["sequence", "train", "--task", str(tmp_path / "a.toml"), "--out", str(tmp_path / "run")]
    found = CliRunner().invoke(app, given)
    assert found.exit_code == 1
    assert words in found.output and "Traceback" not in found.output
    assert not (tmp_path / "run").exists()


def test_an_unknown_name_says_what_there_is(tmp_path):
    found = CliRunner().invoke(
        app, ["sequence", "train", "--task", "nothing", "--out", str(tmp_path / "run")]
    )
    assert found.exit_code == 1 and "parity" in found.output


def test_a_network_of_too_few_tokens_is_refused():
    training = SequenceTraining(BackboneOptions(2, 2, 8), FitOptions(steps=1))
    with pytest.raises(ValueError, match="128"):
        train(training, Recall())
    with pytest.raises(ValueError, match="lengths are"):
        SequenceTraining(BackboneOptions(2, 2, 8), FitOptions(steps=1), lengths=(0, 3))
    with pytest.raises(ValueError, match="judged"):
        SequenceTraining(BackboneOptions(2, 2, 8), FitOptions(steps=1), judged=())
