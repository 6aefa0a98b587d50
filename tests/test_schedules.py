"""Schedules of the learning rate, and the options of a training run."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from learnsolve.training import (
    SCHEDULES,
    FitOptions,
    schedule,
)
from learnsolve.training.schedules import rex, warmed_up

SHARES = st.floats(0, 1)


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
