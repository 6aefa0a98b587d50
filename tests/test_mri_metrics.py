"""Measures of images, against loops."""

import numpy as np
import pytest

from learnsolve.mri import foreground, interval, nmse, psnr, ssim


def volume(shape=(3, 20, 24), seed=0):
    rng = np.random.default_rng(seed)
    reference = rng.random(shape) * np.linspace(0.5, 2, shape[0])[:, None, None]
    return reference, reference + 0.1 * rng.standard_normal(shape)


def similarity(r, x, span, y, u):
    """Of one window, with unbiased variances."""
    a, b = r[y : y + 7, u : u + 7].ravel(), x[y : y + 7, u : u + 7].ravel()
    both = np.cov(a, b)
    first, second = (0.01 * span) ** 2, (0.03 * span) ** 2
    found = (2 * a.mean() * b.mean() + first) * (2 * both[0, 1] + second)
    return found / ((a.mean() ** 2 + b.mean() ** 2 + first) * (both[0, 0] + both[1, 1] + second))


def test_structural_similarity_is_that_of_its_windows():
    reference, image = volume()
    windows = [
        similarity(r, x, reference.max(), y, u)
        for r, x in zip(reference, image, strict=True)
        for y in range(14)
        for u in range(18)
    ]
    assert ssim(reference, image) == pytest.approx(np.mean(windows))
    there = np.zeros(reference.shape, bool)
    there[1, 3, 3] = there[2, 16, 20] = True
    expected = [windows[14 * 18], windows[2 * 14 * 18 + 13 * 18 + 17]]
    assert ssim(reference, image, where=there) == pytest.approx(np.mean(expected))


def test_calgarys_are_those_of_each_slice():
    reference, image = volume()
    peaks, windows = [], []
    for r, x in zip(reference, image, strict=True):
        a, b = r / r.max(), x / r.max()
        span = max(a.max(), b.max()) - min(a.min(), b.min())
        peaks.append(10 * np.log10(span**2 / np.mean((a - b) ** 2)))
        windows += [similarity(a, b, span, y, u) for y in range(14) for u in range(18)]
    assert psnr(reference, image, convention="calgary") == pytest.approx(np.mean(peaks))
    assert ssim(reference, image, convention="calgary") == pytest.approx(np.mean(windows))
    empty = np.concatenate([reference, np.zeros((1, 20, 24))])
    assert psnr(empty, np.concatenate([image, image[:1]]), convention="calgary") == pytest.approx(
        np.mean(peaks)
    )


def test_fastmris_are_those_of_the_volume():
    reference, image = volume()
    error = np.sum((image - reference) ** 2)
    assert nmse(reference, image) == pytest.approx(error / np.sum(reference**2))
    expected = 10 * np.log10(reference.max() ** 2 / (error / reference.size))
    assert psnr(reference, image) == pytest.approx(expected)
    assert psnr(reference, reference) == np.inf
    inside = foreground(reference, 0.5)
    assert nmse(reference, image, where=inside) == pytest.approx(
        np.sum((image - reference)[inside] ** 2) / np.sum(reference[inside] ** 2)
    )


def test_intervals_hold_the_mean():
    hits = 0
    for seed in range(60):
        values = np.random.default_rng(seed).standard_normal(40) + 3
        low, high = interval(values, seed=seed)
        hits += low <= 3 <= high
    assert hits >= 50


@pytest.mark.parametrize("measure", [nmse, psnr, ssim])
def test_what_is_refused(measure):
    good, bad = np.ones((8, 8)), np.ones((8, 8))
    bad[0, 0] = np.nan
    for pair, what in (
        ((good, good[:4]), "two of"),
        ((good[0], good[0]), "two of"),
        ((good, bad), "not finite"),
        ((0 * good, good), "zero everywhere"),
    ):
        with pytest.raises(ValueError, match=what):
            measure(*pair)
    with pytest.raises(ValueError, match="at least 7"):
        ssim(good[:6], good[:6])
    with pytest.raises(ValueError, match="wherever"):
        nmse(good, good, where=np.zeros((8, 8), bool))
    with pytest.raises(ValueError, match="no window"):
        ssim(good, good, where=np.zeros((8, 8), bool))
    with pytest.raises(ValueError, match="no values"):
        interval([])
