"""Which positions of k-space are sampled."""

from typing import get_args

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from learnsolve.mri import Sampling, acs_region, factor, sampled_of
from learnsolve.mri.masks import Kind

KINDS = get_args(Kind)
EXACT = [kind for kind in KINDS if kind not in ("equispaced", "magic")]
POINTS = ("gaussian_2d", "poisson", "radial", "spiral")


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(EXACT), st.integers(16, 90), st.integers(16, 90), st.floats(1, 9), st.integers(0, 99))
def test_the_factor_is_met_to_one_position(kind, height, width, acceleration, seed):
    rule = Sampling(kind, acceleration, centre=2, axis=-1, seed=seed)
    sampled = rule.mask((height, width))
    assert sampled.shape == (height, width)
    assert sampled.dtype == torch.bool
    size = height * width if kind in POINTS else width
    count = int(sampled.sum()) if kind in POINTS else int(sampled[0].sum())
    assert count == max(1, round(size / acceleration))
    assert bool((sampled == rule.mask((height, width))).all())
    assert factor(sampled) == pytest.approx(height * width / int(sampled.sum()))


@pytest.mark.parametrize("kind", KINDS)
def test_the_middle_is_sampled(kind):
    sampled = Sampling(kind, 4, centre=12, axis=-2, seed=3).mask((96, 80))
    tall, wide = acs_region(sampled)
    assert tall >= 12
    assert wide >= (12 if kind in POINTS else 80)


def test_random_lines_are_fastmris():
    """Of its rule's lines, which are those below a share, the same in the same order."""
    width, low = 368, 29
    numbers = np.random.RandomState(tuple(map(ord, "file1000031.h5"))).uniform(size=width)
    share = (width / 4 - low) / (width - low)
    theirs = numbers < share
    pad = (width - low + 1) // 2
    theirs[pad : pad + low] = True
    ours = Sampling("random", 4, centre=0.08, seed="file1000031.h5").mask((640, width))[0].numpy()
    assert ours.sum() == 92
    smaller, larger = (ours, theirs) if ours.sum() < theirs.sum() else (theirs, ours)
    assert not (smaller & ~larger).any()


def test_equispaced_lines_are_fastmris():
    width, low = 368, 29
    offset = np.random.RandomState(tuple(map(ord, "a.h5"))).randint(0, 4)
    theirs = np.zeros(width, bool)
    theirs[(width - low + 1) // 2 :][:low] = True
    theirs[offset::4] = True
    ours = Sampling("equispaced", 4, centre=0.08, seed="a.h5").mask((8, width))[0].numpy()
    assert np.array_equal(ours, theirs)


def test_magic_lines_complete_each_other():
    """The mirror image of a line is not one of the others, outside of the middle."""
    lines = Sampling("magic", 4, centre=0, seed=2).mask((1, 128))[0].numpy()
    positions = set((np.flatnonzero(lines) - 64).tolist())
    mirrored = {-p for p in positions}
    assert len(positions & mirrored) <= 2
    assert len(positions | mirrored) >= 2 * 128 / 4 - 4


def test_poisson_disks_keep_their_distance():
    sampled = Sampling("poisson", 6, centre=0, seed=0).mask((96, 96)).numpy()
    y, x = np.nonzero(sampled)
    away = np.hypot((y - 48) / 48, (x - 48) / 48)
    apart = np.hypot(y[:, None] - y, x[:, None] - x) + 1e9 * np.eye(len(y))
    nearest = apart.min(1)
    outer, inner = nearest[away > 0.8], nearest[away < 0.3]
    assert np.median(outer) > 1.5 * np.median(inner)
    uniform = Sampling("gaussian_2d", 6, centre=0, seed=0).mask((96, 96)).numpy()
    v, u = np.nonzero(uniform)
    clumped = (np.hypot(v[:, None] - v, u[:, None] - u) + 1e9 * np.eye(len(v))).min(1)
    assert np.quantile(outer, 0.05) > np.quantile(clumped, 0.05)


@pytest.mark.parametrize("kind", ["gaussian_1d", *POINTS])
def test_the_middle_is_sampled_more_densely(kind):
    sampled = Sampling(kind, 5, centre=0, seed=1).mask((120, 120)).double()
    assert sampled[:, 40:80].mean() > 1.3 * sampled[:, :40].mean()


def test_zeros_tell_the_mask():
    sampled = Sampling("poisson", 3, centre=4).mask((20, 30))
    k = torch.where(sampled, torch.randn(2, 3, 20, 30, dtype=torch.complex64), 0)
    assert bool((sampled_of(k) == sampled).all())


def test_the_largest_box():
    rng = np.random.default_rng(0)
    for _ in range(200):
        height, width = rng.integers(1, 9, 2)
        sampled = torch.from_numpy(rng.random((height, width)) < 0.8)
        best = 0
        for tall in range(height + 1):
            for wide in range(width + 1):
                y, x = height // 2 - tall // 2, width // 2 - wide // 2
                if bool(sampled[y : y + tall, x : x + wide].all()):
                    best = max(best, tall * wide)
        tall, wide = acs_region(sampled)
        assert tall * wide == best


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"kind": "lines"}, "kind is"),
        ({"acceleration": 0.5}, "acceleration"),
        ({"acceleration": float("nan")}, "acceleration"),
        ({"centre": -1}, "centre"),
        ({"axis": 0}, "axis"),
    ],
)
def test_what_is_refused(options, what):
    with pytest.raises(ValueError, match=what):
        Sampling(**options)


def test_a_middle_that_is_too_large_is_refused():
    with pytest.raises(ValueError, match="the middle are more than"):
        Sampling("random", 8, centre=40).mask((64, 64))
    with pytest.raises(ValueError, match="shape"):
        Sampling().mask((0, 4))
