"""The forward model of magnetic resonance imaging, against its matrix and in a solve."""

import numpy as np
import pytest
import torch

import learnsolve
from learnsolve.operators import Coils, Fourier, Identity, Mask, sense

DTYPES = [torch.complex64, torch.complex128]


def random(shape, dtype=torch.complex128, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def columns(A):
    """The matrix, column by column."""
    size = int(np.prod(A.domain_shape))
    eye = torch.eye(size, dtype=A.dtype)
    return torch.stack([A._apply(e.reshape(A.domain_shape)).reshape(-1) for e in eye], 1)


FACTORIES = {
    "fourier": lambda d: Fourier((3, 4, 5), dtype=d),
    "fourier, odd": lambda d: Fourier((5, 3), dtype=d),
    "fourier, not centred": lambda d: Fourier((2, 4, 3), centred=False, dtype=d),
    "fourier, one axis": lambda d: Fourier((3, 5), 1, dtype=d),
    "coils": lambda d: Coils(random((3, 2, 4), d)),
    "coils, batch": lambda d: Coils(random((2, 3, 2, 4), d)),
    "mask": lambda d: Mask(torch.tensor([True, False, True]), (2, 4, 3), d),
    "sense": lambda d: sense(random((3, 4, 5), d), random((5,), torch.float64).abs() > 0.5),
    "sense, batch": lambda d: sense(
        random((2, 3, 4, 3), d), random((4, 3), torch.float64) > 0, centred=False
    ),
}


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", FACTORIES)
def test_products_adjoints_and_gram_matrices(name, dtype):
    A = FACTORIES[name](dtype)
    tolerance = 1e-5 if dtype == torch.complex64 else 1e-12
    matrix = columns(A)
    x, y = random(A.domain_shape, dtype, 1), random(A.range_shape, dtype, 2)
    close = {"rtol": tolerance, "atol": 10 * tolerance}
    torch.testing.assert_close((A @ x).reshape(-1), matrix @ x.reshape(-1), **close)
    torch.testing.assert_close((A.H @ y).reshape(-1), matrix.mH @ y.reshape(-1), **close)
    torch.testing.assert_close(((A.H @ A) @ x).reshape(-1), matrix.mH @ (matrix @ x.reshape(-1)), **close)
    assert (A.H @ A).hermitian or A.H is A
    double = A.to(dtype=torch.complex128)
    torch.testing.assert_close(double @ x.to(torch.complex128), (A @ x).to(torch.complex128), **close)
    if name == "mask":
        torch.testing.assert_close(A.diagonal().reshape(-1), matrix.diagonal())


@pytest.mark.parametrize("shape", [(4, 6), (5, 7), (4, 5)])
def test_the_centred_transform_is_that_of_the_field(shape):
    """As fastMRI writes it: the middle of the image has phase zero."""
    x = random(shape)
    expected = np.fft.fftshift(np.fft.fft2(np.fft.ifftshift(x.numpy()), norm="ortho"))
    np.testing.assert_allclose(Fourier(shape, dtype=x.dtype) @ x.numpy(), expected, atol=1e-12)
    point = np.zeros(shape, complex)
    point[shape[0] // 2, shape[1] // 2] = 1
    flat = Fourier(shape, dtype=torch.complex128) @ point
    np.testing.assert_allclose(flat, np.full(shape, 1 / np.sqrt(point.size)), atol=1e-12)
    assert np.linalg.norm(Fourier(shape, dtype=torch.complex128) @ x.numpy()) == pytest.approx(
        x.norm().item()
    )


def test_the_whole_is_what_its_parts_say():
    maps, image = random((2, 3, 6, 5)), random((2, 6, 5), seed=1)
    sampled = torch.tensor([True, False, True, True, False])
    found = sense(maps, sampled) @ image
    for s in range(2):
        for c in range(3):
            whole = np.fft.ifftshift((maps[s, c] * image[s]).numpy())
            whole = np.fft.fftshift(np.fft.fft2(whole, norm="ortho"))
            np.testing.assert_allclose(found[s, c], whole * sampled.numpy(), atol=1e-12)


def test_least_squares_of_the_model_are_a_solve():
    """CG-SENSE of a volume of two slices: every second line, four coils, no noise."""
    rng = np.random.default_rng(0)
    u, v = np.meshgrid(np.linspace(-1, 1, 24), np.linspace(-1, 1, 20))
    centres = [(-1, 0), (1, 0), (0, -1), (0, 1)]
    smooth = np.stack([np.exp(-((u - a) ** 2) - (v - b) ** 2 + 1j * (a * u + b * v)) for a, b in centres])
    maps = torch.tensor(np.stack([smooth, smooth[::-1]]))
    image = torch.tensor(rng.standard_normal((2, 20, 24)) + 1j * rng.standard_normal((2, 20, 24)))
    E = sense(maps, torch.arange(24) % 2 == 0)
    y = E @ image
    A = E.H @ E + 1e-9 * Identity(E.domain_shape, E.dtype)
    res = learnsolve.solve(A, E.H @ y, method="cg", rtol=1e-9, maxiter=2000)
    assert res.success
    assert torch.linalg.norm(res.x - image) < 1e-4 * torch.linalg.norm(image)
    zero_filled = E.H @ y
    assert torch.linalg.norm(zero_filled - image) > 0.3 * torch.linalg.norm(image)


def test_gradients_reach_the_maps():
    maps, image = random((2, 3, 3)).requires_grad_(), random((3, 3), seed=1).requires_grad_()
    sampled = torch.tensor([True, False, True])
    assert torch.autograd.gradcheck(lambda S, x: sense(S, sampled)._apply(x), (maps, image))
    y = random((2, 3, 3), seed=2)

    def solved(S):
        E = sense(S, sampled)
        A = E.H @ E + 0.1 * Identity(E.domain_shape, E.dtype)
        return learnsolve.solve(A, E._adjoint(y), method="cg", rtol=1e-13).x

    assert torch.autograd.gradcheck(solved, (maps,), rtol=1e-4, atol=1e-6)


def test_what_is_refused():
    with pytest.raises(TypeError, match="complex"):
        Fourier((3, 3), dtype=torch.float32)
    with pytest.raises(ValueError, match="axes"):
        Fourier((3,), 2)
    with pytest.raises(ValueError, match="coils, height, width"):
        Coils(torch.ones(3, 3, dtype=torch.complex64))
    with pytest.raises(ValueError, match="coils, height, width"):
        Coils(torch.ones(3, 3, 3))
    with pytest.raises(TypeError, match="booleans"):
        Mask(torch.ones(3), (2, 3))
    for shape in ((4,), (2, 2, 3), (3, 1)):
        with pytest.raises(ValueError, match="broadcast"):
            Mask(torch.ones(shape, dtype=torch.bool), (2, 3))
