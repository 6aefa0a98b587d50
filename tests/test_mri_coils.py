"""Sensitivity maps, on simulated coils and, where it is at hand, on a real scan with its truth."""

import numpy as np
import pytest
import torch

from learnsolve.mri import compress, espirit, images_of, low_resolution_maps, rss, walsh, whiten
from learnsolve.operators import Fourier
from tests.mri_cases import SCAN, scan


def disagreement(maps, truth, where):
    """Share of the squares of maps that the truth does not explain, in the mean."""
    inner = (maps.conj() * truth).sum(-3).abs() / (rss(maps) * rss(truth)).clamp_min(1e-12)
    return float((1 - inner.square())[where].mean())


@pytest.mark.parametrize("make", [lambda y: espirit(y).maps[0], walsh, low_resolution_maps])
def test_maps_are_those_of_the_coils(make):
    image, truth, full = scan((96, 80), 8, noise=0.005)
    y = torch.zeros_like(full)
    y[..., 36:60, :] = full[..., 36:60, :]
    inside = image.abs() > 0.3
    maps = make(y)
    limit = 2e-4 if make not in (walsh, low_resolution_maps) else 2e-2
    assert disagreement(maps, truth, inside) < limit
    torch.testing.assert_close(rss(maps)[inside], torch.ones(96, 80)[inside], rtol=1e-4, atol=1e-4)


def test_espirit_is_the_eigenvector_of_its_definition():
    """Against the sum over kernels of their transforms, pixel by pixel."""
    _, _, full = scan((24, 20), 3, noise=0.01, dtype=torch.complex128)
    k, side = 4, 14
    found = espirit(full, acs=(side, side), kernel=k, threshold=0.05)
    y, x = 12 - side // 2, 10 - side // 2
    middle = full[:, y : y + side, x : x + side]
    patches = torch.stack(
        [middle[:, a : a + k, b : b + k].flatten() for a in range(side - k + 1) for b in range(side - k + 1)]
    )
    _, s, right = torch.linalg.svd(patches, full_matrices=False)
    kernels = right[s > 0.05 * s[0]].reshape(-1, 3, k, k)
    v, u = torch.meshgrid(torch.arange(24) - 12, torch.arange(20) - 10, indexing="ij")
    matrices = torch.zeros(24, 20, 3, 3, dtype=torch.complex128)
    for kernel in kernels.conj():
        wave = torch.zeros(3, 24, 20, dtype=torch.complex128)
        for a in range(k):
            for b in range(k):
                wave += kernel[:, a, b, None, None] * torch.exp(-2j * np.pi * (a * v / 24 + b * u / 20))
        matrices += torch.einsum("cyx,dyx->yxcd", wave.conj(), wave) / k**2
    values, vectors = torch.linalg.eigh(matrices)
    torch.testing.assert_close(found.eigenvalues[0], values[..., -1], rtol=1e-3, atol=1e-3)
    inner = torch.einsum("yxc,cyx->yx", vectors[..., -1].conj(), found.maps[0]).abs()
    apart = values[..., -2] < 0.7 * values[..., -1]
    assert apart.sum() > 100
    torch.testing.assert_close(
        inner[apart], torch.ones(24, 20, dtype=torch.float64)[apart], rtol=1e-3, atol=1e-3
    )
    both = espirit(full, acs=(side, side), kernel=k, threshold=0.05, maps=2)
    torch.testing.assert_close(
        both.eigenvalues, values[..., -2:].flip(-1).permute(2, 0, 1), rtol=1e-6, atol=1e-6
    )


def test_single_and_double_precision_agree():
    image, _, full = scan((64, 64), 6)
    inside = image.abs() > 0.3
    single, double = (espirit(full.to(dtype)).maps[0] for dtype in (torch.complex64, torch.complex128))
    torch.testing.assert_close(single[:, inside], double[:, inside].to(torch.complex64), rtol=1e-3, atol=1e-3)


def test_layouts_agree():
    _, _, full = scan((32, 28), 4)
    found = espirit(full)
    corner = espirit(torch.fft.ifftshift(full, (-2, -1)), centred=False)
    torch.testing.assert_close(torch.fft.fftshift(corner.maps, (-2, -1)), found.maps, rtol=1e-3, atol=1e-3)
    batch = espirit(torch.stack([full, 2 * full]))
    torch.testing.assert_close(batch.maps[0], found.maps)
    torch.testing.assert_close(batch.maps[1], found.maps, rtol=1e-3, atol=1e-3)
    for make in (walsh, low_resolution_maps):
        corner = make(torch.fft.ifftshift(full, (-2, -1)), centred=False)
        torch.testing.assert_close(torch.fft.fftshift(corner, (-2, -1)), make(full), rtol=1e-3, atol=1e-3)


def test_the_crop_is_soft():
    image, _, full = scan((64, 64), 6, noise=0.02)
    found, whole = espirit(full, crop=0.9), espirit(full)
    assert rss(found.maps[0])[image.abs() > 0.3].mean() > 0.6
    assert rss(found.maps[0])[:4, :4].mean() < 0.5 * rss(whole.maps[0])[:4, :4].mean()
    assert ((rss(found.maps[0]) > 0.1) & (rss(found.maps[0]) < 0.6)).any()


def test_noise_is_whitened_and_coils_are_compressed():
    rng = np.random.default_rng(0)
    mixing = torch.tensor(rng.standard_normal((4, 4)) + 1j * rng.standard_normal((4, 4)))
    noise = torch.tensor(rng.standard_normal((4, 40, 50)) + 1j * rng.standard_normal((4, 40, 50))) / 2**0.5
    mixed = torch.einsum("cd,dyx->cyx", mixing, noise)
    white = whiten(mixed, mixing @ mixing.mH).flatten(-2)
    torch.testing.assert_close(white @ white.mH / 2000, torch.eye(4, dtype=white.dtype), atol=0.1, rtol=0.1)
    _, _, full = scan((32, 32), 8, noise=1e-4)
    fewer, kept = compress(full, 5)
    assert fewer.shape == (5, 32, 32)
    torch.testing.assert_close(kept @ kept.mH, torch.eye(5, dtype=kept.dtype), atol=1e-5, rtol=1e-5)
    assert float(fewer.norm() / full.norm()) > 0.99


def test_images_are_the_adjoint_transform():
    _, _, full = scan((16, 12), 2)
    torch.testing.assert_close(images_of(full), Fourier(tuple(full.shape)).H @ full)


@pytest.mark.parametrize("make", [espirit, walsh, low_resolution_maps])
def test_what_is_refused(make):
    _, _, full = scan((24, 24), 3)
    holes, nan = full.clone(), full.clone()
    holes[:, 12, 12] = 0
    nan[0, 0, 0] = float("inf")
    for k, what in (
        (full.real, "k-space is"),
        (full[0], "k-space is"),
        (holes, "fully sampled middle"),
        (nan, "not finite"),
    ):
        with pytest.raises(ValueError, match=what):
            make(k)
    with pytest.raises(ValueError, match="fully sampled middle"):
        make(full, acs=(40, 40))


def test_options_are_checked():
    _, _, full = scan((24, 24), 3)
    for options in ({"kernel": 0}, {"threshold": 0.0}, {"crop": 1.0}, {"maps": 4}, {"maps": 0}):
        with pytest.raises(ValueError, match=next(iter(options))):
            espirit(full, **options)
    with pytest.raises(ValueError, match="window"):
        walsh(full, window=4)
    with pytest.raises(ValueError, match="coils"):
        compress(full, 4)
    with pytest.raises(ValueError, match="positive definite"):
        whiten(full, -torch.eye(3, dtype=full.dtype))
    with pytest.raises(ValueError, match="covariance is"):
        whiten(full, torch.eye(2, dtype=full.dtype))


@pytest.mark.real_data
@pytest.mark.skipif(not SCAN.is_file(), reason=f"there is no {SCAN}; LEARNSOLVE_DATA names another place")
def test_maps_of_a_real_scan_are_those_of_the_body_coil():
    import h5py

    with h5py.File(SCAN) as file:
        full, body = (torch.from_numpy(file[name][0]) for name in ("kspace", "kspace_bodycoil"))
    local, seen = images_of(full), images_of(body)
    truth = local / (rss(seen) * torch.exp(1j * seen[0].angle()))
    inside = rss(local) > 0.08 * rss(local).max()
    y = torch.zeros_like(full)
    y[:, 54:74] = full[:, 54:74]
    found = {make.__name__: make(y) for make in (walsh, low_resolution_maps)}
    errors = {name: disagreement(maps, truth, inside) for name, maps in found.items()}
    errors["espirit"] = disagreement(espirit(y).maps[0], truth, inside)
    print(errors)
    assert errors["espirit"] < 0.9 * min(errors["walsh"], errors["low_resolution_maps"])


def test_maps_are_finite_where_there_is_nothing():
    """A point's k-space is constant: at most pixels all that is left are rounding errors."""
    for sampled in (torch.ones(16, 16, dtype=torch.bool), torch.arange(16)[:, None].expand(16, 16) > 2):
        maps = espirit(torch.where(sampled, torch.ones(2, 16, 16, dtype=torch.complex64), 0)).maps
        assert torch.isfinite(torch.view_as_real(maps)).all()
        assert bool((rss(maps) < 1.001).all())


def test_noise_is_not_taken_for_signal():
    """Where all directions were kept, every vector would be an eigenvector, and rounding would choose."""
    _, _, full = scan((48, 40), 4)
    found = espirit(full)
    assert found.eigenvalues.amin() < 0.7
    nudged = espirit(full * (1 + 1e-6))
    torch.testing.assert_close(found.maps, nudged.maps, rtol=1e-3, atol=1e-3)
