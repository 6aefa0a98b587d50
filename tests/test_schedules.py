"""Schedules of the learning rate, and the options of a training run."""

import math
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from learnsolve.training import SCHEDULES, BudgetLR, FitOptions, schedule
from learnsolve.training.schedules import polynomial, rex, sampled, tabulated, warmed_up

SHARES = st.floats(0, 1)


@given(st.sampled_from(sorted(SCHEDULES)), SHARES)
def test_factors_are_in_the_unit_interval(name, z):
    assert 0 <= schedule(name)(z) <= 1


@given(st.sampled_from(sorted(SCHEDULES)), SHARES, SHARES)
def test_factors_never_rise(name, one, other):
    early, late = sorted((one, other))
    assert schedule(name)(early) >= schedule(name)(late) - 1e-15


@pytest.mark.parametrize("name", SCHEDULES)
def test_end_points(name):
    last = {"constant": 1.0, "step": 0.01, "exponential": 0.001}.get(name, 0.0)
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


@pytest.mark.parametrize(
    ("given_options", "message"),
    [
        ({"steps": 0}, "steps must be an integer of at least 1, not 0"),
        ({"steps": True}, "steps must be an integer"),
        ({"steps": 1.5}, "steps must be an integer"),
        ({"learning_rate": 0}, "learning_rate must be a positive number, not 0"),
        ({"learning_rate": math.nan}, "learning_rate must be a positive number, not nan"),
        ({"learning_rate": "1"}, "learning_rate must be a positive number"),
        (
            {"schedule": "sine"},
            "schedule must be one of rex, .*, step, exponential, polynomial, not 'sine'",
        ),
        ({"warmup": 10}, r"warmup must be less than steps \(10\), not 10"),
        ({"warmup": -1}, "warmup must be an integer of at least 0"),
        ({"optimizer": "lion"}, "optimizer must be one of adam, adamw, radam, sgd, not 'lion'"),
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
    with pytest.raises(ValueError, match="power must be positive, not 0"):
        polynomial(0.5, power=0)
    for at in ([], [0.1], [0, 0.5, 0.5], [0, 1.0], 0):
        with pytest.raises(ValueError, match="points that rise from 0 to less than 1"):
            sampled(rex, at)
    for values in ([], [0.5, 1.5], [math.nan]):
        with pytest.raises(ValueError, match="values are none, or not all of them in"):
            tabulated(values)


@given(SHARES, st.sampled_from(sorted(SCHEDULES)), st.integers(1, 30))
def test_a_sampled_profile_is_that_of_the_last_point(z, name, count):
    factor = schedule(name)
    last = max(k / count for k in range(count) if k / count <= z)
    assert sampled(factor, count)(z) == factor(last)


@given(st.lists(SHARES, min_size=1, max_size=20), SHARES)
def test_a_table_has_its_values_and_lines_between(values, z):
    factor, n = tabulated(values), len(values)
    for k, value in enumerate(values):
        assert factor(k / n) == pytest.approx(value, abs=1e-9)
    held = [*values, values[-1]]
    assert factor(z) == pytest.approx(np.interp(z * n, range(n + 1), held), abs=1e-9)


def rates_of(optimizer, scheduler, steps):
    found = []
    for _ in range(steps):
        optimizer.step()
        found.append(tuple(scheduler.get_last_lr()))
        scheduler.step()
    return found


def optimizer_of():
    weights = [torch.nn.Parameter(torch.zeros(1)) for _ in range(2)]
    return torch.optim.Adam([{"params": weights[:1], "lr": 0.3}, {"params": weights[1:]}], lr=0.07)


@pytest.mark.parametrize("profile", [*SCHEDULES, sampled(rex, 5), [1.0, 0.3, 0.8]])
@pytest.mark.parametrize("warmup", [0, 4])
def test_a_run_that_goes_on_has_the_same_rates_to_the_bit(profile, warmup):
    whole = optimizer_of()
    wanted = rates_of(whole, BudgetLR(whole, profile, 23, warmup=warmup), 23)
    factor = (
        schedule(profile)
        if isinstance(profile, str)
        else profile
        if callable(profile)
        else tabulated(profile)
    )
    for t, rates in enumerate(wanted):
        now = t + (t < warmup)
        assert rates == tuple(base * warmed_up(factor, warmup / 23)(now / 23) for base in (0.3, 0.07))
    for stop in range(1, 23):
        one = optimizer_of()
        scheduler = BudgetLR(one, profile, 23, warmup=warmup)
        before = rates_of(one, scheduler, stop)
        other = optimizer_of()
        going_on = BudgetLR(other, profile, 23, warmup=warmup)
        other.load_state_dict(one.state_dict())
        going_on.load_state_dict(pickle.loads(pickle.dumps(scheduler.state_dict())))
        assert before + rates_of(other, going_on, 23 - stop) == wanted


def test_a_scheduler_says_what_does_not_fit():
    optimizer = optimizer_of()
    with pytest.raises(ValueError, match="total_steps is 5 and warmup 5"):
        BudgetLR(optimizer, "rex", 5, warmup=5)
    with pytest.raises(ValueError, match="there is no schedule 'sine'"):
        BudgetLR(optimizer, "sine", 5)
    state = BudgetLR(optimizer, "rex", 5).state_dict()
    with pytest.raises(ValueError, match="the state has described 'rex', this scheduler 'linear'"):
        BudgetLR(optimizer_of(), "linear", 5).load_state_dict(state)
    with pytest.raises(ValueError, match="the state has total_steps 5, this scheduler 6"):
        BudgetLR(optimizer_of(), "rex", 6).load_state_dict(state)
