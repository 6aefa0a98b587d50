"""Schedules, the training loop, its folder, and files of weights."""

import json
import math
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from learnsolve.training import (
    SCHEDULES,
    FitOptions,
    WeightsError,
    fit,
    load_weights,
    save_weights,
    schedule,
)
from learnsolve.training.schedules import rex, warmed_up
from learnsolve.training.toml import toml_text
from learnsolve.training.weights import WEIGHTS_FORMAT

ROOT = Path(__file__).parents[1]
SHARES = st.floats(0, 1)


def regressor(seed=0, hidden=8):
    """A small network with dropout, so that the loss has randomness of its own."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(3, hidden), nn.Tanh(), nn.Dropout(0.1), nn.Linear(hidden, 1))


def line(seed=0):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Linear(3, 1)


def batches(number, generator):
    x = torch.randn(16, 3, generator=generator)
    return x, x.sum(dim=1, keepdim=True) - 0.5


def loss(network, batch):
    x, y = batch
    return nn.functional.mse_loss(network(x), y)


def weights(network):
    return {name: tensor.clone() for name, tensor in network.state_dict().items()}


def assert_same_bits(one, other):
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        assert torch.equal(tensor, other[name]), name


def stop_at(step):
    return lambda progress: progress.step == step


# Schedules


@given(st.sampled_from(sorted(SCHEDULES)), SHARES)
def test_factors_are_in_the_unit_interval(name, z):
    assert 0 <= schedule(name)(z) <= 1


@given(st.sampled_from(["rex", "linear", "cosine", "step", "constant"]), SHARES, SHARES)
def test_factors_never_rise(name, one, other):
    early, late = sorted((one, other))
    assert schedule(name)(early) >= schedule(name)(late) - 1e-15


@pytest.mark.parametrize("name", SCHEDULES)
def test_end_points(name):
    last = {"constant": 1.0, "step": 0.01}.get(name, 0.0)
    assert (schedule(name)(0.0), schedule(name)(1.0)) == (1.0, last)


def test_step_falls_at_a_half_and_three_quarters():
    assert [SCHEDULES["step"](z) for z in (0.49, 0.5, 0.74, 0.75)] == [1.0, 0.1, 0.1, 0.01]


@given(SHARES, st.floats(0.01, 1))
def test_rex_is_the_formula_of_the_paper(z, beta):
    assert rex(z, beta) == pytest.approx((1 - z) / (beta + (1 - beta) * (1 - z)), abs=1e-12)


@given(st.sampled_from(sorted(SCHEDULES)), SHARES, st.floats(0, 0.99))
def test_warm_up_rises_then_follows(name, z, share):
    risen, factor = warmed_up(schedule(name), share), schedule(name)
    assert risen(z) == (z / share if z < share else factor((z - share) / (1 - share)))
    assert 0 <= risen(z) <= 1


def test_schedules_refuse():
    with pytest.raises(ValueError, match="there is no schedule 'sine'; there are rex, linear, cosine"):
        schedule("sine")
    with pytest.raises(ValueError, match=r"beta must be in \(0, 1\], not 0"):
        rex(0.5, beta=0)
    with pytest.raises(ValueError, match="share of the warm-up"):
        warmed_up(rex, 1.0)


# Options


@pytest.mark.parametrize(
    ("given_options", "message"),
    [
        ({"steps": 0}, "steps must be an integer of at least 1, not 0"),
        ({"steps": True}, "steps must be an integer"),
        ({"steps": 1.5}, "steps must be an integer"),
        ({"learning_rate": 0}, "learning_rate must be a positive number, not 0"),
        ({"learning_rate": math.nan}, "learning_rate must be a positive number, not nan"),
        ({"learning_rate": "1"}, "learning_rate must be a positive number"),
        ({"schedule": "sine"}, "schedule must be one of rex, linear, cosine, constant, step, not 'sine'"),
        ({"warmup": 10}, r"warmup must be less than steps \(10\), not 10"),
        ({"warmup": -1}, "warmup must be an integer of at least 0"),
        ({"optimizer": "lion"}, "optimizer must be one of adam, adamw, sgd, not 'lion'"),
        ({"weight_decay": -1}, "weight_decay must be a number of at least 0"),
        ({"clip": math.inf}, "clip must be a number of at least 0"),
        ({"ema": 1}, r"ema must be a number in \[0, 1\)"),
        ({"seed": 2**63}, r"seed must be less than 2\^63"),
        ({"seed": -1}, "seed must be an integer of at least 0"),
        ({"validate_every": -1}, "validate_every must be an integer of at least 0"),
        ({"checkpoint_every": None}, "checkpoint_every must be an integer of at least 0"),
        ({"precision": "half"}, "precision must be one of single, bfloat16, not 'half'"),
        ({"timeout": 0}, "timeout must be a positive number of seconds or None"),
    ],
)
def test_bad_options(given_options, message):
    with pytest.raises(ValueError, match=message):
        FitOptions(**{"steps": 10, **given_options})


# The loop


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "sgd"])
def test_fit_lowers_the_loss(optimizer):
    rate = 0.05 if optimizer == "sgd" else 0.1
    network = line()
    result = fit(network, loss, batches, FitOptions(200, rate, optimizer=optimizer))
    assert result.finished and result.step == 200 and result.skipped == 0
    assert result.loss < 1e-4
    assert torch.allclose(network.weight, torch.ones(1, 3), atol=0.02)
    assert all(p.grad is None for p in network.parameters())


def test_global_generators_neither_matter_nor_change():
    ends = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        before = torch.get_rng_state()
        network = regressor()
        fit(network, loss, batches, FitOptions(20, 1e-2), validate=lambda net: {"x": torch.rand(())})
        assert torch.equal(torch.get_rng_state(), before)
        ends.append(weights(network))
    assert_same_bits(*ends)
    other = regressor()
    fit(other, loss, batches, FitOptions(20, 1e-2, seed=1))
    assert not torch.equal(other[0].weight, ends[0]["0.weight"])


def test_batches_depend_on_seed_and_step_only():
    seen = {}

    def watched(number, generator):
        x, y = batches(number, generator)
        seen.setdefault(number, []).append(x)
        return x, y

    fit(line(), loss, watched, FitOptions(5))
    fit(line(3), loss, watched, FitOptions(7, 1e-2))
    assert sorted(seen) == list(range(7))
    assert all(torch.equal(*seen[number]) for number in range(5))
    assert not torch.equal(seen[0][0], seen[1][0])


def test_learning_rates_follow_schedule_and_warm_up():
    rates = []
    options = FitOptions(10, 0.5, schedule="linear", warmup=4)
    fit(line(), loss, batches, options, callback=lambda progress: rates.append(progress.learning_rate))
    assert rates == pytest.approx([0.125, 0.25, 0.375, 0.5, *(0.5 * (1 - k / 6) for k in range(6))])


@pytest.mark.parametrize("decay", [0.5, 0.99])
def test_average_is_that_of_a_slow_reference(decay):
    plain, averaged = line(), line()
    trail = []
    options = {"steps": 30, "learning_rate": 0.05}
    fit(plain, loss, batches, FitOptions(**options), callback=lambda _: trail.append(weights(plain)))
    fit(averaged, loss, batches, FitOptions(ema=decay, **options))
    for name, got in averaged.state_dict().items():
        terms = [decay ** (29 - k) * trail[k][name].double() for k in range(30)]
        want = (1 - decay) / (1 - decay**30) * torch.stack(terms).sum(dim=0)
        assert torch.allclose(got.double(), want, atol=1e-6)


def test_first_average_is_the_first_weights():
    plain, averaged = line(), line()
    fit(plain, loss, batches, FitOptions(1, 0.1))
    fit(averaged, loss, batches, FitOptions(1, 0.1, ema=0.999))
    assert_same_bits(weights(plain), weights(averaged))


def test_validation_sees_the_average_in_evaluation_mode_and_changes_nothing():
    seen = []

    def validate(network):
        assert not torch.is_grad_enabled()
        assert not any(module.training for module in network.modules())
        seen.append(weights(network))
        return {"error": torch.tensor(2.0)}

    plain, checked = regressor(), regressor()
    checked.eval()
    options = {"steps": 9, "learning_rate": 0.05, "ema": 0.9}
    fit(plain, loss, batches, FitOptions(**options))
    result = fit(checked, loss, batches, FitOptions(validate_every=4, **options), validate=validate)
    assert_same_bits(weights(plain), weights(checked))
    assert_same_bits(seen[-1], weights(checked))
    assert [entry["step"] for entry in result.history] == [4, 8, 9]
    assert result.metrics == {"error": 2.0}
    assert not any(module.training for module in checked.modules())


def test_clipping_bounds_the_gradient():
    def steep(network, batch):
        return 1e3 * loss(network, batch)

    for clip, bound in ((0.25, 0.25), (0.0, math.inf)):
        network = line()
        before = torch.cat([p.detach().flatten() for p in network.parameters()])
        fit(network, steep, batches, FitOptions(1, 1.0, optimizer="sgd", clip=clip))
        after = torch.cat([p.detach().flatten() for p in network.parameters()])
        moved = float((after - before).norm())
        assert moved == pytest.approx(bound, rel=1e-4) if clip else moved > 10


@pytest.mark.parametrize("what", ["loss", "gradient"])
def test_steps_that_are_not_finite_are_skipped(what):
    def batch(number, generator):
        return number, batches(number, generator)

    def broken(network, numbered):
        number, inner = numbered
        value = loss(network, inner)
        if number % 3 != 1:
            return value
        if what == "loss":
            return value * math.nan
        zero = (network.weight * 0).sum()
        return value + torch.sqrt(zero) * 0

    skipping, reference = line(), line()
    trail = []
    result = fit(
        skipping,
        broken,
        batch,
        FitOptions(9, 0.1, ema=0.5, schedule="constant"),
        callback=lambda progress: trail.append((progress.skipped, weights(skipping))),
    )
    assert result.skipped == 3
    assert [count for count, _ in trail] == [0, 1, 1, 1, 2, 2, 2, 3, 3]
    assert_same_bits(trail[0][1], trail[1][1])
    optimizer = torch.optim.Adam(reference.parameters(), lr=0.1)
    taken = []
    fit(line(), loss, lambda n, g: taken.append(batches(n, g)) or taken[-1], FitOptions(9))
    for number in (0, 2, 3, 5, 6, 8):
        optimizer.zero_grad()
        loss(reference, taken[number]).backward()
        nn.utils.clip_grad_norm_(reference.parameters(), 1.0)
        optimizer.step()
    assert torch.allclose(trail[-1][1]["weight"], reference.weight, atol=1e-6)


def test_fifty_skipped_steps_in_a_row_are_an_error():
    with pytest.raises(RuntimeError, match="not finite in 50 steps in a row, up to step 50"):
        fit(line(), lambda net, batch: loss(net, batch) * math.inf, batches, FitOptions(100))


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (lambda net, batch: 1.0, "not a float"),
        (lambda net, batch: net(batch[0]), r"not one of shape \(16, 1\) with a gradient"),
        (lambda net, batch: batch[0].sum(), r"not one of shape \(\) without a gradient"),
    ],
)
def test_loss_must_be_a_scalar_with_a_gradient(bad, message):
    with pytest.raises(ValueError, match=message):
        fit(line(), bad, batches, FitOptions(1))


def test_networks_and_precisions_that_cannot_be_trained():
    with pytest.raises(ValueError, match="nothing to train"):
        fit(nn.Tanh(), loss, batches, FitOptions(1))
    with pytest.raises(ValueError, match="bfloat16' needs a network on a CUDA device, this one is on cpu"):
        fit(line(), loss, batches, FitOptions(1, precision="bfloat16"))


def test_frozen_parameters_stay():
    network = regressor()
    network[0].requires_grad_(False)
    before = weights(network)
    fit(network, loss, batches, FitOptions(5, 0.1, ema=0.9, weight_decay=0.1))
    assert torch.equal(network[0].weight, before["0.weight"])
    assert not torch.equal(network[3].weight, before["3.weight"])


def test_progress():
    seen = []
    options = FitOptions(4, 0.1, validate_every=2, schedule="constant")
    fit(line(), loss, batches, options, validate=lambda net: {"a": 3}, callback=seen.append)
    assert [(progress.step, progress.steps) for progress in seen] == [(k, 4) for k in (1, 2, 3, 4)]
    assert [progress.metrics for progress in seen] == [{}, {"a": 3.0}, {"a": 3.0}, {"a": 3.0}]
    assert all(progress.learning_rate == 0.1 and progress.loss > 0 for progress in seen)
    seconds = [progress.seconds for progress in seen]
    assert seconds == sorted(seconds) and seconds[0] > 0
    assert seen[0].eta == pytest.approx(3 * seconds[0]) and seen[-1].eta == 0


# The folder


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
    assert FitOptions(**config["fit"]) == options
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
from tests.test_training import *
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


# TOML


KEYS = st.text(st.characters(codec="utf-8"), max_size=5)
PLAIN = st.one_of(
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False),
    st.text(st.characters(codec="utf-8"), max_size=10),
)
VALUES = st.recursive(
    PLAIN,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(KEYS, inner, max_size=3)),
    max_leaves=8,
)


@given(st.dictionaries(KEYS, VALUES, max_size=4))
def test_toml_is_read_back(mapping):
    assert tomllib.loads(toml_text(mapping)) == mapping


def test_toml_leaves_none_out_and_refuses_the_rest():
    assert tomllib.loads(toml_text({"a": None, "b": {"c": None}, "d": [{"e": None}]})) == {"b": {}, "d": [{}]}
    assert math.isnan(tomllib.loads(toml_text({"a": math.nan}))["a"])
    with pytest.raises(TypeError, match="TOML wants strings as keys, not 1"):
        toml_text({1: 2})
    for value in (object(), [None], {1}, b"x", 1j):
        with pytest.raises(TypeError, match="TOML cannot hold"):
            toml_text({"a": value})


# Weights


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "w.safetensors"
    save_weights(path, regressor(), {"levels": 3, "names": ["a", "b"], "nested": {"x": 0.5}})
    return path


def written(path, tensors, form=WEIGHTS_FORMAT, metadata="{}"):
    save_file(tensors, path, metadata={"format": form, "metadata": metadata})
    return path


def refused(path, message, **bound):
    network = regressor(seed=1)
    before = weights(network)
    with pytest.raises(WeightsError, match=message) as caught:
        load_weights(path, network, **bound)
    assert str(path) in str(caught.value)
    assert_same_bits(before, weights(network))


def test_weights_round_trip(file):
    network = regressor(seed=1)
    assert load_weights(file, network) == {"levels": 3, "names": ["a", "b"], "nested": {"x": 0.5}}
    assert_same_bits(weights(network), weights(regressor()))
    assert [path.name for path in file.parent.iterdir()] == [file.name]


def test_weights_come_in_the_dtype_of_the_network(file):
    network = regressor(seed=1).double()
    load_weights(file, network)
    assert network[0].weight.dtype == torch.float64
    assert torch.equal(network[0].weight.float(), regressor()[0].weight)


def test_weights_of_tied_complex_and_integer_tensors(tmp_path):
    def network():
        made = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3), nn.BatchNorm1d(3))
        made[1].weight = made[0].weight
        made.phase = nn.Parameter(torch.randn(2, dtype=torch.complex64))
        return made

    one, other = network(), network()
    save_weights(tmp_path / "w", one)
    assert load_weights(tmp_path / "w", other) == {}
    assert_same_bits(weights(one), weights(other))


@settings(max_examples=60)
@given(st.floats(0, 1, exclude_max=True))
def test_weights_cut_short(tmp_path_factory, share):
    path = tmp_path_factory.mktemp("cut") / "w.safetensors"
    save_weights(path, regressor())
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    refused(path, "not a whole safetensors file")


@settings(max_examples=60)
@given(st.data())
def test_changed_headers_are_read_or_refused_cleanly(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("changed") / "w.safetensors"
    save_weights(path, regressor())
    content = bytearray(path.read_bytes())
    size = int.from_bytes(content[:8], "little")
    for place in data.draw(st.lists(st.integers(0, 8 + size - 1), min_size=1, max_size=3)):
        content[place] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    try:
        load_weights(path, regressor())
    except WeightsError:
        pass


def test_weights_that_do_not_fit(tmp_path):
    good = weights(regressor())
    path = tmp_path / "w"
    without = {name: tensor for name, tensor in good.items() if name != "0.bias"}
    refused(written(path, without), "lacks 0.bias")
    refused(written(path, {**good, "more": torch.ones(1)}), "has unknown more")
    refused(written(path, {f"x.{name}": t for name, t in good.items()}), "lacks .* 1 more and has unknown")
    shape = r"0.bias has shape \(3,\), expected \(8,\)"
    refused(written(path, {**good, "0.bias": torch.ones(3)}), shape)
    whole_numbers = {**good, "0.bias": torch.ones(8, dtype=torch.int32)}
    refused(written(path, whole_numbers), "0.bias has dtype torch.int32, expected a floating one")
    refused(written(path, {**good, "0.bias": torch.full((8,), math.inf)}), "0.bias holds NaN or infinity")
    refused(written(path, good, form="learnsolve-weights-99"), "its format is 'learnsolve-weights-99'")
    refused(written(path, good, metadata="[1"), "metadata are not a JSON object")
    save_file(good, path)
    refused(path, "its format is None, expected 'learnsolve-weights-1'")


def test_weights_files_are_bounded_and_must_exist(file):
    refused(file, "bytes are more than the 100 that are accepted", max_bytes=100)
    load_weights(file, regressor(), max_bytes=file.stat().st_size)
    with pytest.raises(FileNotFoundError):
        load_weights(file.with_name("none"), regressor())
    with pytest.raises(FileNotFoundError):
        save_weights(file.parent / "none" / "w", regressor())


def test_a_failed_write_leaves_the_old_weights(file):
    before = file.read_bytes()
    with pytest.raises(TypeError):
        save_weights(file, regressor(seed=1), {"a": object()})
    assert file.read_bytes() == before


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
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); from tests.test_training import train_as; "
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
