"""The training loop."""

import math

import pytest
import torch
from torch import nn

from learnsolve.training import (
    FitOptions,
    fit,
)
from learnsolve.training.joined import JoinedRAdam
from tests.training_cases import assert_same_bits, batches, line, loss, regressor, weights


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


@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_joined_radam_is_torchs(decay):
    def network():
        generator = torch.Generator().manual_seed(3)
        made = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Tanh(), torch.nn.Linear(4, 1)).double()
        for one in made.parameters():
            one.data = torch.randn(one.shape, generator=generator, dtype=torch.float64)
        return made

    one, other = network(), network()
    x = torch.randn(9, 3, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    joined = JoinedRAdam(list(one.parameters()), lr=0.03, weight_decay=decay)
    parted = torch.optim.RAdam(other.parameters(), lr=0.03, weight_decay=decay)
    for _ in range(40):
        for net, optimizer in ((one, joined), (other, parted)):
            optimizer.zero_grad()
            net(x).square().mean().backward()
            optimizer.step()
    for mine, wanted in zip(one.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(mine, wanted, rtol=1e-12, atol=1e-14)
