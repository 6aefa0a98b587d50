"""The folder of a training run, several processes, and a GPU."""

import json
import math
import os
import subprocess
import sys
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from learnsolve.training import (
    FitOptions,
    WeightsError,
    fit,
    load_weights,
    save_weights,
)
from tests.training_cases import assert_same_bits, batches, line, loss, regressor, stop_at, weights

ROOT = Path(__file__).parents[1]


OPTIONS = {
    "steps": 20,
    "learning_rate": 1e-2,
    "ema": 0.9,
    "warmup": 3,
    "validate_every": 4,
    "checkpoint_every": 3,
}


def validate(network):
    x, y = batches(0, torch.Generator().manual_seed(0))
    return {"error": loss(network, (x, y))}


@pytest.fixture(scope="module", params=["adam", "sgd"])
def unbroken(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("unbroken")
    network = regressor()
    options = FitOptions(optimizer=request.param, **OPTIONS)
    result = fit(network, loss, batches, options, folder=folder, validate=validate)
    return options, folder, network, result


def lines(folder):
    read = [json.loads(text) for text in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{**entry, "seconds": None} for entry in read]


def assert_same_run(folder, network, unbroken):
    _, whole, trained, _ = unbroken
    assert_same_bits(weights(network), weights(trained))
    assert lines(folder) == lines(whole)
    for name in ("weights.safetensors", "checkpoint.safetensors"):
        with safe_open(folder / name, "pt") as one, safe_open(whole / name, "pt") as other:
            assert sorted(one.keys()) == sorted(other.keys())
            assert all(torch.equal(one.get_tensor(key), other.get_tensor(key)) for key in one.keys())
    assert sorted(path.name for path in folder.iterdir()) == sorted(path.name for path in whole.iterdir())


def test_folder_of_a_run(unbroken):
    options, folder, network, result = unbroken
    assert {path.name for path in folder.iterdir()} == {
        "config.toml",
        "metrics.jsonl",
        "checkpoint.safetensors",
        "weights.safetensors",
    }
    assert [entry["step"] for entry in lines(folder)] == [4, 8, 12, 16, 20]
    assert lines(folder) == [{**entry, "seconds": None} for entry in result.history]
    config = tomllib.loads((folder / "config.toml").read_text())
    assert FitOptions(**config["fit"]) == replace(options, parts=1)
    read = regressor(seed=5)
    assert load_weights(folder / "weights.safetensors", read)["metrics"] == result.metrics
    assert_same_bits(weights(read), weights(network))
    with safe_open(folder / "checkpoint.safetensors", "pt") as file:
        metadata = json.loads(file.metadata()["metadata"])
        keys = set(file.keys())
    assert metadata["step"] == 20 and metadata["seed"] == 0
    assert metadata["identity"]["fit"]["learning_rate"] == 1e-2
    assert {"network.0.weight", "average.0.weight"} < keys
    assert any(key.startswith("optimizer.0.") for key in keys)


@pytest.mark.parametrize("step", [1, 6, 8, 19])
def test_a_stopped_run_goes_on_with_the_same_bits(step, unbroken, tmp_path):
    options = unbroken[0]
    first = fit(
        regressor(),
        loss,
        batches,
        options,
        folder=tmp_path / "a" / "b",
        validate=validate,
        callback=stop_at(step),
    )
    assert (first.status, first.step, first.finished) == ("stopped", step, False)
    assert not (tmp_path / "a" / "b" / "weights.safetensors").exists()
    network = regressor(seed=7)
    result = fit(network, loss, batches, options, folder=tmp_path / "a" / "b", validate=validate)
    assert result.finished and result.seconds > first.seconds
    assert_same_run(tmp_path / "a" / "b", network, unbroken)


@pytest.mark.parametrize("step", [2, 11])
def test_a_killed_run_goes_on_with_the_same_bits(step, unbroken, tmp_path):
    options = unbroken[0]
    code = f"""
import os, sys
sys.path.insert(0, {str(ROOT)!r})
import torch
from tests.test_training_folder import *
torch.set_num_threads({torch.get_num_threads()})
def killed(progress):
    if progress.step == {step}:
        os._exit(9)
options = FitOptions(optimizer={options.optimizer!r}, **OPTIONS)
fit(regressor(), loss, batches, options, folder={str(tmp_path)!r}, validate=validate, callback=killed)
"""
    ended = subprocess.run([sys.executable, "-c", code], timeout=120, check=False, capture_output=True)
    assert ended.returncode == 9, ended.stderr.decode()
    with open(tmp_path / "metrics.jsonl", "a") as stream:
        stream.write('{"step": 12, "lo')
    network = regressor()
    assert fit(network, loss, batches, options, folder=tmp_path, validate=validate).finished
    assert_same_run(tmp_path, network, unbroken)


def test_a_run_killed_before_its_weights_were_written(unbroken, tmp_path):
    options, whole, *_ = unbroken
    for path in whole.iterdir():
        if path.name != "weights.safetensors":
            (tmp_path / path.name).write_bytes(path.read_bytes())
    network = regressor(seed=3)
    assert fit(network, None, None, options, folder=tmp_path).finished
    assert_same_run(tmp_path, network, unbroken)


def test_what_is_carried_comes_back(tmp_path):
    def run(folder, *stops):
        carried = {"target": torch.zeros(16, 1)}

        def drifting(number, generator):
            x, y = batches(number, generator)
            carried["target"].lerp_(y, 0.5)
            return x, carried["target"]

        network = line()
        for callback in stops:
            fit(network, loss, drifting, FitOptions(6), folder=folder, callback=callback, carried=carried)
            ended = carried["target"].clone()
            # As in a new process.
            carried["target"].zero_()
        return {"target": ended, **weights(network)}

    assert_same_bits(run(tmp_path / "whole", None), run(tmp_path / "parts", stop_at(4), None))


def test_a_finished_folder_returns_at_once(unbroken):
    options, folder, trained, result = unbroken
    before = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    network = regressor(seed=2)
    again = fit(network, None, None, options, folder=folder)
    assert again == result
    assert_same_bits(weights(network), weights(trained))
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == before


@pytest.mark.parametrize(
    ("changes", "config", "network", "message"),
    [
        ({"learning_rate": 0.5}, {}, regressor(), "fit.learning_rate is 0.01 there and 0.5 here"),
        ({"seed": 1}, {}, regressor(), "fit.seed is 0 there and 1 here"),
        ({}, {"data": {"n": 3}}, regressor(), "config.data.n is not given there and 3 here"),
        ({}, {}, regressor(hidden=9), r"another network: .* has shape \(8, 3\), expected \(9, 3\)"),
        ({}, {}, line(), "another network: lacks .* and has unknown"),
        ({}, {}, regressor().double(), "another network: .* dtype torch.float32, expected torch.float64"),
    ],
)
def test_a_folder_of_another_run_is_refused(changes, config, network, message, unbroken):
    options, folder, *_ = unbroken
    before = weights(network)
    changed = FitOptions(**{**OPTIONS, "optimizer": options.optimizer, **changes})
    with pytest.raises(ValueError, match=message):
        fit(network, loss, batches, changed, folder=folder, config=config)
    assert_same_bits(before, weights(network))


def test_timeout_ends_with_a_checkpoint_and_may_change(tmp_path):
    options = {**OPTIONS, "checkpoint_every": 0}
    whole, network = regressor(), regressor()
    fit(whole, loss, batches, FitOptions(**options))
    result = fit(network, loss, batches, FitOptions(timeout=1e-9, **options), folder=tmp_path)
    assert (result.status, result.step) == ("timeout", 1)
    assert fit(network, loss, batches, FitOptions(timeout=60, **options), folder=tmp_path).finished
    assert_same_bits(weights(whole), weights(network))


def test_a_damaged_checkpoint_is_an_error(tmp_path):
    options = FitOptions(**OPTIONS)
    fit(regressor(), loss, batches, options, folder=tmp_path, callback=stop_at(3))
    path = tmp_path / "checkpoint.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(WeightsError, match="not a whole safetensors file"):
        fit(regressor(), loss, batches, options, folder=tmp_path)


def test_metrics_that_are_not_finite_are_null(tmp_path):
    result = fit(line(), loss, batches, FitOptions(1), folder=tmp_path, validate=lambda net: {"a": math.nan})
    assert math.isnan(result.metrics["a"])
    assert lines(tmp_path)[0]["metrics"] == {"a": None}


def test_config_that_toml_cannot_hold(tmp_path):
    with pytest.raises(TypeError, match="TOML cannot hold"):
        fit(line(), loss, batches, FitOptions(1), folder=tmp_path / "new", config={"a": object()})
    assert not (tmp_path / "new").exists()


# Several processes, and a GPU


def numbered(number, generator):
    return batches(number, torch.Generator().manual_seed(number))


def rank_or_half(network):
    return {"rank": torch.distributed.get_rank() if torch.distributed.is_initialized() else 0.5}


def train_as(rank, folder):
    """What each of two processes runs: a run that is stopped, and its continuation."""
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2
    )
    options = FitOptions(8, 0.05, ema=0.5, validate_every=4)
    network = line(seed=rank)
    for callback in (stop_at(3), None):
        result = fit(
            network,
            loss,
            numbered,
            options,
            folder=f"{folder}/run",
            validate=rank_or_half,
            callback=callback,
        )
        assert result.status == ("stopped" if callback else "finished")
    assert result.metrics == {"rank": 0.5}
    again = fit(line(seed=5), loss, numbered, options, folder=f"{folder}/run")
    assert again.finished
    save_weights(f"{folder}/{rank}.safetensors", network)
    torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_two_processes_train_as_one_with_both_batches(tmp_path):
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); from tests.test_training_folder import train_as; "
    environment = {**os.environ, "GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"}
    started = [
        subprocess.Popen(
            [sys.executable, "-c", f"{code} train_as({rank}, {str(tmp_path)!r})"],
            env=environment,
            stderr=subprocess.PIPE,
        )
        for rank in (0, 1)
    ]
    try:
        for process in started:
            _, errors = process.communicate(timeout=120)
            assert process.returncode == 0, errors.decode()
    finally:
        for process in started:
            process.kill()

    def both(number, generator):
        pairs = [numbered(2 * number + rank, generator) for rank in (0, 1)]
        return tuple(torch.cat(parts) for parts in zip(*pairs, strict=True))

    reference, one, other = line(), line(seed=8), line(seed=9)
    fit(reference, loss, both, FitOptions(8, 0.05, ema=0.5))
    load_weights(tmp_path / "0.safetensors", one)
    load_weights(tmp_path / "1.safetensors", other)
    assert_same_bits(weights(one), weights(other))
    for name, tensor in reference.state_dict().items():
        assert torch.allclose(tensor, one.state_dict()[name], atol=1e-6)
    assert [entry["step"] for entry in lines(tmp_path / "run")] == [4, 8]


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["single", "bfloat16"])
def test_training_on_a_gpu(precision, tmp_path):
    def on_device(number, generator):
        return tuple(part.cuda() for part in batches(number, generator))

    options = FitOptions(300, 0.05, precision=precision, ema=0.9)
    before = torch.cuda.get_rng_state()
    ends = []
    for stops in ((None,), (stop_at(7), None)):
        network = line().cuda()
        folder = tmp_path / str(len(stops))
        for callback in stops:
            result = fit(network, loss, on_device, options, folder=folder, callback=callback)
        assert result.finished
        assert result.loss < (1e-4 if precision == "single" else 1e-2)
        ends.append(weights(network))
    assert torch.equal(torch.cuda.get_rng_state(), before)
    for name, tensor in ends[0].items():
        assert tensor.dtype == torch.float32
        assert torch.allclose(tensor, ends[1][name], atol=1e-5)
