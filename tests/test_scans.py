"""Simulated scans: tissues, phantoms, coils, and what a scanner makes of them."""

import numpy as np
import pytest

from learnsolve.problems.analytic import analytic_kspace, intensities, nodes
from learnsolve.problems.phantoms import Ellipsoid, Phantom, Waves
from learnsolve.problems.receive_coils import chebyshev, interpolation, loop_fields, receive_coils
from learnsolve.problems.scans import Scans, Volume
from learnsolve.problems.tissues import TISSUES, Contrast


def images(kspace):
    axes = (-2, -1)
    return np.fft.fftshift(np.fft.ifft2(np.fft.ifftshift(kspace, axes), norm="ortho"), axes)


def test_signals_are_those_of_the_steady_state():
    tissue = np.array([[0.7, 850.0, 72.0, 48.0]])
    e1 = np.exp(-600 / 850)
    spin = Contrast("spin-echo", 600, 15).signal(tissue)[0]
    assert spin == pytest.approx(0.7 * (1 - e1) * np.exp(-15 / 72))
    nulled = Contrast("inversion-recovery", 1e6, 10, inversion=850 * np.log(2)).signal(tissue)[0]
    assert nulled == pytest.approx(0, abs=1e-12)
    ernst = np.rad2deg(np.arccos(e1))
    best = [
        Contrast("gradient-echo", 600, 5, flip=flip).signal(tissue)[0]
        for flip in (ernst - 5, ernst, ernst + 5)
    ]
    assert best[1] == max(best)
    assert Contrast("spin-echo").signal(np.array([TISSUES["air"]]))[0] == 0
    for wrong in ({"sequence": "none"}, {"echo": 0.0}, {"flip": -1.0}, {"repetition": np.inf}):
        with pytest.raises(ValueError, match="accepted"):
            Contrast(**wrong)


def test_fields_of_loops_are_those_of_biot_and_savart():
    """On the axis the field of a loop is known; far away it is a dipole's."""
    heights = np.array([0.0, 0.5, 2.0])
    places = np.stack([0 * heights, 0 * heights, heights], 1)
    radii = np.array([1.5])
    field = loop_fields(np.zeros((1, 3)), np.array([[0, 0, 2.0]]), radii, places)[0]
    # A wire of some thickness acts as if all were so much further away.
    known = 2 * np.pi * 1.5**2 / (1.5**2 + heights**2 + 0.25**2) ** 1.5
    np.testing.assert_allclose(field[:, 2], known, rtol=1e-10)
    np.testing.assert_allclose(field[:, :2], 0, atol=1e-12)
    far = loop_fields(np.zeros((1, 3)), np.array([[0, 0, 1.0]]), radii, np.array([[40.0, 0, 0]]))[0, 0]
    assert far[2] == pytest.approx(-np.pi * 1.5**2 / 40**3, rel=0.01)


def test_fields_are_interpolated_well():
    nodes, weights = chebyshev(22)
    places = np.linspace(-1, 1, 41)
    matrix = interpolation(nodes, weights, np.concatenate([places, nodes[:1]]))
    wanted = 1 / (1.6 - np.concatenate([places, nodes[:1]]))
    np.testing.assert_allclose(matrix @ (1 / (1.6 - nodes)), wanted, rtol=1e-9)


def test_coils_differ_and_are_smooth():
    axis = np.linspace(-1, 1, 64)
    maps = receive_coils(12, axis, axis, 0.1, np.random.default_rng(3))
    assert maps.shape == (12, 64, 64)
    assert np.sqrt((np.abs(maps[:, 31:33, 31:33]) ** 2).sum(0)).mean() == pytest.approx(1, rel=0.1)
    flat = maps.reshape(12, -1)
    flat = flat / np.linalg.norm(flat, axis=1, keepdims=True)
    assert np.median(np.abs(flat.conj() @ flat.T)) < 0.5
    inner = maps[:, 16:48, 16:48]
    assert np.abs(np.diff(inner, axis=1)).max() < 0.25 * np.abs(inner).max()


def test_ellipsoids_are_cut_by_planes():
    body = Ellipsoid(np.array([0.1, -0.2, 0.0]), np.array([0.5, 0.3, 0.4]), 0.4, 1)
    axis = np.linspace(-1, 1, 401)
    inside = body.level(axis[:, None], axis[None], 0.2) < 1
    x, y, wide, tall, angle = body.ellipse(0.2)
    assert angle == 0.4
    assert inside.mean() * 4 == pytest.approx(np.pi * wide * tall, rel=0.01)
    places = np.argwhere(inside).mean(0) * 2 / 400 - 1
    np.testing.assert_allclose(places, [y, x], atol=0.01)
    assert body.ellipse(0.41) is None


def test_waves_have_variance_one():
    axis = np.linspace(-4, 4, 200)
    fields = [Waves.random(np.random.default_rng(seed), 0.2, 0.5)(axis, axis, 0.3) for seed in range(5)]
    assert np.mean([field.std() for field in fields]) == pytest.approx(1, rel=0.15)


def test_heads_have_what_heads_have():
    axis = np.linspace(-1, 1, 128)
    names = list(TISSUES)
    for seed in range(4):
        labels = Phantom.head(np.random.default_rng(seed)).labels(axis, axis, 0.05)
        found = {names[label] for label in np.unique(labels)}
        assert {"air", "fat", "bone", "csf", "grey", "white"} <= found
        assert labels[0, 0] == 0


def test_a_scan_is_what_its_coils_see():
    scan = Scans(sizes=(48, 64), coils=(5, 5), noise=(0, 0), seed=2)[3]
    assert scan.kspace.dtype == np.complex64
    np.testing.assert_array_equal(scan.kspace, scan.clean)
    seen = images(scan.clean)
    assert np.square(np.abs(seen)).sum(0).mean() == pytest.approx(1, rel=1e-4)
    np.testing.assert_allclose(np.square(np.abs(scan.maps)).sum(0), 1, rtol=1e-4)
    # What the maps do not explain is what falls between the pixels.
    combined = (scan.maps.conj() * seen).sum(0)
    left = seen - scan.maps * combined
    assert np.square(np.abs(left)).sum() < 0.01 * np.square(np.abs(seen)).sum()


def test_noise_has_its_covariance():
    stream = Scans(sizes=(96,), coils=(4, 4), noise=(0.02, 0.02), seed=5)
    scan = stream[0]
    noise = (scan.kspace - scan.clean).reshape(4, -1)
    found = noise @ noise.conj().T / noise.shape[1]
    np.testing.assert_allclose(found, scan.covariance, atol=0.05 * np.abs(scan.covariance).max())
    assert np.trace(scan.covariance).real == pytest.approx(0.02, rel=1e-3)


def test_number_and_seed_say_which_scan():
    one, other = Scans(sizes=(32,), seed=1), Scans(sizes=(32,), seed=2)
    np.testing.assert_array_equal(one[4].kspace, Scans(sizes=(32,), seed=1)[4].kspace)
    assert one[4].kspace.shape != one[5].kspace.shape or (one[4].kspace != one[5].kspace).any()
    assert one[4].kspace.shape != other[4].kspace.shape or (one[4].kspace != other[4].kspace).any()


def test_the_transform_of_an_ellipse_is_exact():
    """Against sums over a fine grid, seen by no coil and by smooth ones."""
    height, width, finer = 32, 24, 24
    ellipses = [((0.1, -0.2, 0.6, 0.4, 0.5), 1.0), ((0.2, 0.1, 0.2, 0.1, 0.0), -0.5)]
    y, x = ((np.arange(finer * n) - finer * n // 2) * 2 / (finer * n) for n in (height, width))
    image = np.zeros((finer * height, finer * width))
    for (x0, y0, a, b, angle), value in ellipses:
        u, v = x[None] - x0, y[:, None] - y0
        cos, sin = np.cos(angle), np.sin(angle)
        image[((cos * u + sin * v) / a) ** 2 + ((cos * v - sin * u) / b) ** 2 < 1] += value
    places = nodes()

    def seen(y, x):
        maps = receive_coils(3, y, x, 0.1, np.random.default_rng(1))
        return np.concatenate([np.ones((1, len(y), len(x))), maps * np.exp(1j * (y[:, None] + x**2 / 2))])

    found, error = analytic_kspace(ellipses, (height, width), seen(places, places))
    assert error < 0.01
    whole = np.fft.fftshift(
        np.fft.fft2(np.fft.ifftshift(seen(y, x) * image, (-2, -1)), norm="ortho"), (-2, -1)
    )
    top, left = (finer * n // 2 - n // 2 for n in (height, width))
    wanted = whole[:, top : top + height, left : left + width] / finer
    for one, other in zip(found, wanted, strict=True):
        assert np.linalg.norm(one - other) < 0.01 * np.linalg.norm(other)


def test_scans_in_closed_form():
    stream = Scans(sizes=(64,), coils=(4, 4), noise=(0, 0), heads=1.0, seed=4, analytic=True)
    scan = stream[0]
    np.testing.assert_array_equal(scan.kspace, stream[0].kspace)
    seen = images(scan.clean)
    left = seen - scan.maps * (scan.maps.conj() * seen).sum(0)
    # Gibbs' rings at the rim of the body are all that the pixels' maps do not explain.
    assert np.square(np.abs(left)).sum() < 0.02 * np.square(np.abs(seen)).sum()
    phantom = Phantom.head(np.random.default_rng(0))
    signals = Contrast("spin-echo", 600, 10).signal(phantom.tissues)
    added = [value for _, value in intensities(phantom, signals, 0.0)]
    assert added[0] == signals[phantom.bodies[0].tissue]
    assert added[1] == pytest.approx(signals[phantom.bodies[1].tissue] - added[0])


def test_a_volume_is_one_object():
    volume = Volume((48, 40), coils=4, slices=9, noise=0.0, seed=3)
    kept = [images(volume[i].clean) for i in range(9)]
    sizes = [np.abs(image).sum() for image in kept]
    assert max(sizes) < 4 * min(sizes)
    near = np.linalg.norm(np.abs(kept[4]) - np.abs(kept[5])) / np.linalg.norm(kept[4])
    assert near < 0.6
    with pytest.raises(IndexError):
        volume[9]


@pytest.mark.parametrize(
    "wrong",
    [
        {"sizes": ()}, {"sizes": (4,)}, {"coils": (0, 2)}, {"coils": (3, 2)}, {"noise": (0.1, 0.01)},
        {"noise": (0, 0.1)}, {"noise": (-1, 1)}, {"heads": 1.5}, {"seed": -1},
    ],
)  # fmt: skip
def test_what_scans_refuse(wrong):
    with pytest.raises(ValueError, match=r"accepted|negative"):
        Scans(**wrong)


@pytest.mark.parametrize(
    "wrong", [{"shape": (4, 9)}, {"coils": 0}, {"slices": 0}, {"noise": -1.0}, {"seed": -1}]
)
def test_what_volumes_refuse(wrong):
    with pytest.raises(ValueError, match="accepted"):
        Volume(**{"shape": (16, 16), **wrong})
