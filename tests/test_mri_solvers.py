"""Classical reconstruction, on simulated scans and, where it is at hand, on a real one."""

import pytest
import torch

import learnsolve
from learnsolve.mri import (
    Sampling,
    cg_sense,
    espirit,
    foreground,
    images_of,
    l1_wavelet,
    nmse,
    noise_level,
    recurrentvarnet,
    rss,
    ssim,
    total_variation,
    zero_filled,
)
from learnsolve.operators import Wavelet, sense
from tests.mri_cases import SCAN, scan, undersampled

SOLVERS = [cg_sense, l1_wavelet, total_variation]


@pytest.mark.parametrize("kind", ["random", "poisson"])
@pytest.mark.parametrize("solver", SOLVERS)
def test_images_are_better_than_zero_filled(solver, kind):
    image, maps, full = scan()
    y, sampled = undersampled(full, kind)
    inside = foreground(image.abs().numpy())
    before = nmse(image.abs(), zero_filled(y), where=inside)
    res = solver(y, sampled, maps)
    assert res.success
    assert nmse(image.abs(), res.x.abs(), where=inside) < (1.0 if solver is cg_sense else 0.7) * before
    assert res.extras["noise"] == pytest.approx(0.05, rel=0.4)
    left = sense(maps, sampled) @ res.x - y
    assert res.relative_residual < 0.1
    if solver is not cg_sense:
        assert res.relative_residual == pytest.approx(float(left.norm() / y.norm()), rel=1e-3)
        assert len(res.residuals) == res.iterations + 1


def test_sparse_methods_are_better_than_least_squares():
    image, maps, full = scan()
    y, sampled = undersampled(full)
    errors = [nmse(image.abs(), solver(y, sampled, maps).x.abs()) for solver in SOLVERS]
    assert errors[1] < 0.8 * errors[0]
    assert errors[2] < 0.8 * errors[0]


def test_least_squares_are_those_of_the_dense_matrix():
    _, maps, full = scan((12, 10), 3, dtype=torch.complex128)
    for kind, axis in (("random", -1), ("random", -2), ("gaussian_2d", -1)):
        sampled = Sampling(kind, 2.0, centre=3, axis=axis).mask((12, 10))
        y = torch.where(sampled, full, 0)
        E = sense(maps, sampled)
        columns = torch.eye(120, dtype=torch.complex128).reshape(120, 12, 10)
        dense = torch.stack([(E @ column).flatten() for column in columns], 1)
        matrix = dense.mH @ dense + 0.05 * torch.eye(120)
        expected = torch.linalg.solve(matrix, dense.mH @ y.flatten()).reshape(12, 10)
        res = cg_sense(y, sampled, maps, weight=0.05, rtol=1e-10, maxiter=500)
        torch.testing.assert_close(res.x, expected, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("solver", [l1_wavelet, total_variation])
def test_penalties_are_minimised(solver):
    """No small change makes the objective less."""
    _, maps, full = scan((16, 16), 3, dtype=torch.complex128)
    y, sampled = undersampled(full, acceleration=1.3)
    weight = 0.05
    W = Wavelet((16, 16), 2, dtype=torch.complex128)

    def objective(x):
        left = sense(maps, sampled) @ x - y
        if solver is total_variation:
            size = torch.stack([x.roll(-1, -1) - x, x.roll(-1, -2) - x]).abs().square().sum(0).sqrt().sum()
        else:
            size = 0
            for v in range(4):
                for u in range(4):
                    c = (W @ x.roll((v, u), (-2, -1))).abs()
                    size = size + (c.sum() - c[:4, :4].sum()) / 16
        return float(0.5 * left.norm() ** 2 + weight * size)

    res = solver(y, sampled, maps, weight=weight, rtol=1e-4, maxiter=4000)
    found, rng = objective(res.x), torch.Generator().manual_seed(0)
    # Wavelets at random shifts minimise the mean over shifts only nearly.
    slack = 1e-6 if solver is total_variation else 1e-3
    for size in (1e-3, 1e-2, 1e-1):
        for _ in range(10):
            change = size * torch.randn(16, 16, dtype=torch.complex128, generator=rng)
            assert objective(res.x + change) > found * (1 - slack)
    for scale in (0.9, 1.1):
        assert objective(scale * res.x) > found
    assert found < objective(cg_sense(y, sampled, maps, weight=0.05, rtol=1e-8, maxiter=200).x)


@pytest.mark.parametrize("solver", SOLVERS)
def test_layouts_agree(solver):
    """Lines along either axis, k-space with its origin at the corner, slices as a batch."""
    _, maps, full = scan((32, 32), 4)
    y, sampled = undersampled(full, acceleration=2.0)
    options = {"weight": 0.01}
    expected = solver(y, sampled, maps, **options).x
    corner = [torch.fft.ifftshift(part, (-2, -1)) for part in (y, sampled, maps)]
    found = solver(*corner, centred=False, **options).x
    torch.testing.assert_close(torch.fft.fftshift(found, (-2, -1)), expected, rtol=1e-4, atol=1e-4)
    batch = solver(torch.stack([y, y]), sampled, torch.stack([maps, maps]), **options).x
    torch.testing.assert_close(batch[1], batch[0])
    torch.testing.assert_close(batch[0], expected, rtol=1e-3, atol=1e-3)
    if solver is not l1_wavelet:
        found = solver(y.mT.contiguous(), sampled.mT, maps.mT.contiguous(), **options).x.mT
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("shape", [(33, 27), (5, 64), (7, 7)])
def test_odd_sizes_and_one_coil(solver, shape):
    _, maps, full = scan(shape, 1)
    sampled = torch.ones(shape, dtype=torch.bool)
    res = solver(full, sampled, maps, weight=0.0, rtol=1e-6, maxiter=300)
    assert res.x.shape == shape
    torch.testing.assert_close(maps[0] * res.x, images_of(full)[0], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("solver", SOLVERS)
def test_warm_starts_and_scale(solver):
    _, maps, full = scan()
    y, sampled = undersampled(full)
    cold = solver(y, sampled, maps)
    warm = solver(y, sampled, maps, x0=cold.x)
    assert warm.iterations <= cold.iterations
    scaled = solver(1e4 * y, sampled, maps)
    torch.testing.assert_close(scaled.x / 1e4, cold.x, rtol=1e-2, atol=1e-3)


@pytest.mark.parametrize("solver", SOLVERS)
def test_what_does_not_end_says_so(solver):
    _, maps, full = scan()
    y, sampled = undersampled(full)
    with pytest.warns(learnsolve.ConvergenceWarning, match="maxiter"):
        res = solver(y, sampled, maps, maxiter=2)
    assert not res.success
    assert res.iterations == 2


@pytest.mark.parametrize("solver", [l1_wavelet, total_variation])
@pytest.mark.filterwarnings("ignore::learnsolve.ConvergenceWarning")
def test_a_callback_stops(solver):
    _, maps, full = scan((16, 16), 2)
    seen = []
    y, sampled = undersampled(full, acceleration=1.2)
    res = solver(y, sampled, maps, callback=lambda n, left: seen.append(n) or n == 3)
    assert seen == [1, 2, 3]
    assert res.status is learnsolve.Status.STOPPED


@pytest.mark.parametrize("solver", SOLVERS)
def test_what_is_refused(solver):
    _, maps, full = scan((8, 8), 2)
    everywhere, nan = torch.ones(8, 8, dtype=torch.bool), full.clone()
    nan[0, 0, 0] = float("nan")
    for arguments, what in (
        ((full.real, everywhere, maps), "k-space is"),
        ((full[0], everywhere, maps), "k-space is"),
        ((full, everywhere, maps[:1]), "maps are"),
        ((full, everywhere[:4], maps), "mask is"),
        ((full, everywhere.float(), maps), "mask is"),
        ((full, ~everywhere, maps), "nothing is sampled"),
        ((nan, everywhere, maps), "not finite"),
        ((torch.zeros_like(full), everywhere, maps), "zero wherever"),
    ):
        with pytest.raises(ValueError, match=what):
            solver(*arguments)
    for options in ({"weight": -1.0}, {"weight": "best"}, {"maxiter": 0}, {"rtol": 0.0}):
        with pytest.raises(ValueError, match=next(iter(options))):
            solver(full, everywhere, maps, **options)


def test_noise_is_found():
    for shape, axis in (((64, 48), -1), ((128, 96), -2)):
        _, _, full = scan(shape, noise=0.1)
        sampled = Sampling("random", 3, axis=axis, seed=2).mask(shape)
        assert noise_level(torch.where(sampled, full, 0), sampled) == pytest.approx(0.1, rel=0.2)


CASES = [("random", 3.66), ("equispaced_fraction", 4.0), ("poisson", 3.95)]
FIGURES = [(0.0191, 0.0161, 0.0173), (0.0224, 0.0150, 0.0194), (0.0082, 0.0082, 0.0083)]
there = pytest.mark.skipif(
    not SCAN.is_file(), reason=f"there is no {SCAN}; LEARNSOLVE_DATA names another place"
)


def real(kind, acceleration):
    """K-space of the real scan under a mask, the mask, maps, and the reference."""
    import h5py

    with h5py.File(SCAN) as file:
        full = torch.from_numpy(file["kspace"][0])
    centre = 24 if kind == "poisson" else 20
    sampled = Sampling(kind, acceleration, centre=centre, axis=-2, seed=1).mask((128, 128))
    y = torch.where(sampled, full, 0)
    return y, sampled, espirit(y).maps[0], rss(images_of(full))


@pytest.mark.real_data
@there
@pytest.mark.parametrize(
    ("kind", "acceleration", "figures"), [(*case, row) for case, row in zip(CASES, FIGURES, strict=True)]
)
def test_a_real_scan_is_reconstructed_as_by_the_peers(kind, acceleration, figures):
    y, sampled, maps, reference = real(kind, acceleration)
    for solver, figure in zip(SOLVERS, figures, strict=True):
        image = solver(y, sampled, maps).x.abs()
        error, inside = nmse(reference, image), nmse(reference, image, where=foreground(reference))
        print(f"{kind} {solver.__name__}: NMSE {error:.4f}, foreground {inside:.4f}")
        assert error <= figure


@pytest.mark.real_data
@there
@pytest.mark.parametrize(("kind", "acceleration"), CASES)
def test_the_network_is_better_on_a_real_scan_than_wavelets(kind, acceleration):
    y, sampled, maps, reference = real(kind, acceleration)
    inside = foreground(reference)

    def judged(image):
        return nmse(reference, image, where=inside), ssim(reference, image, where=inside)

    res = recurrentvarnet(y, sampled, maps)
    (error, likeness), (before, as_before) = judged(res.x), judged(l1_wavelet(y, sampled, maps).x.abs())
    print(f"{kind}: foreground NMSE {error:.4f} ({before:.4f}), similarity {likeness:.4f} ({as_before:.4f})")
    assert res.success and res.extras["fallback"] == []
    assert error <= {"random": 0.0091, "equispaced_fraction": 0.0086}.get(kind, before)
    assert error < before and likeness > as_before
