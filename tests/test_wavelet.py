"""Wavelets."""

import pytest
import torch

from learnsolve.operators import Wavelet


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
@pytest.mark.parametrize(("shape", "levels"), [((4, 4), 1), ((2, 16, 8), 3), ((8, 12), 2), ((5, 7), 0)])
def test_the_transform_is_orthogonal(shape, levels, dtype):
    W = Wavelet(shape, levels, dtype=dtype)
    x, y = (torch.randn(shape, dtype=dtype, generator=torch.Generator().manual_seed(s)) for s in (0, 1))
    torch.testing.assert_close(W.H @ (W @ x), x)
    torch.testing.assert_close(W @ (W.H @ x), x)
    torch.testing.assert_close(
        torch.vdot((W @ x).flatten(), y.flatten()), torch.vdot(x.flatten(), (W.H @ y).flatten())
    )


def test_the_filters_are_daubechies():
    """One level is the product with the filters at every second place, around the rim."""
    W = Wavelet((8, 8), 1, dtype=torch.float64)
    root = 3**0.5
    low = torch.tensor([1 + root, 3 + root, 3 - root, 1 - root], dtype=torch.float64) / (4 * 2**0.5)
    high = torch.tensor([low[3], -low[2], low[1], -low[0]], dtype=torch.float64)
    matrix = torch.zeros(8, 8, dtype=torch.float64)
    for n in range(4):
        for tap in range(4):
            matrix[n, (2 * n + tap) % 8] += low[tap]
            matrix[4 + n, (2 * n + tap) % 8] += high[tap]
    x = torch.randn(8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(W @ x, matrix @ x @ matrix.T)


def test_slopes_have_no_details():
    slope = torch.arange(16.0, dtype=torch.float64).expand(16, 16)
    details = Wavelet((16, 16), 1, dtype=torch.float64) @ slope
    assert details[:, 8:15].abs().max() < 1e-12


def test_shapes_that_cannot_be_halved_are_refused():
    for shape, levels in (((6, 8), 2), ((8,), 1), ((8, 8), -1)):
        with pytest.raises(ValueError, match="halve"):
            Wavelet(shape, levels)
