"""The benchmark of narrowed networks in miniature."""

import json

import pytest
import torch

from benchmarks import narrow
from learnsolve.methods.dcdm_network import NetworkOptions
from learnsolve.methods.dcdm_weights import load, save
from tests.train_cli_cases import written


@pytest.fixture
def files(tmp_path):
    """A config, and a network of random weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = NetworkOptions(dims=2, channels=4).build()
    save(tmp_path / "dense.safetensors", network)
    return written(tmp_path / "tiny.toml"), tmp_path / "dense.safetensors"


def test_the_command(files, tmp_path, capsys):
    config, weights = files
    arguments = ["--weights", weights, "--config", config, "--steps", 3, "--sizes", 16, "--systems", 2]
    arguments += ["--share", 0.5, 0.5, "--repeats", 1, "--rtol", 1e-3, "--family", "maze"]
    arguments += ["--json", tmp_path / "rows.json", "--out", tmp_path / "small.safetensors"]
    assert narrow.main([str(argument) for argument in arguments]) == 0
    rows = json.loads((tmp_path / "rows.json").read_text())["rows"]
    assert [(row["network"], row["channels"]) for row in rows] == [
        ("dense", 4), ("narrowed, round 1", 2), ("narrowed, round 2", 1), ("as narrow, from random", 1)
    ]  # fmt: skip
    assert all(row["converged"] == 2 and len(row["iterations"]) == 2 for row in rows)
    assert load(tmp_path / "small.safetensors").options.channels == 1
    assert "as narrow, from random" in capsys.readouterr().out


def test_training_begins_with_the_network_that_is_given(files):
    from learnsolve.cli.train_config import TrainingConfig

    config, weights = files
    network = load(weights).narrowed(0.5)
    near, far = (
        narrow.trained(TrainingConfig.read(config), 2, rate, network).enter.weight - network.enter.weight
        for rate in (1e-6, 1e-2)
    )
    assert 0 < near.abs().max() < 1e-5 < 1e-3 < far.abs().max()
