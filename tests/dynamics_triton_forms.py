"""The Triton forms of piecewise-linear maps against the reference, interpreted or on a GPU.

Not collected by itself, as `triton_forms.py` is not.
"""

import os

import pytest
import torch

from learnsolve.kernels import shplrnn, shplrnn_triton
from learnsolve.kernels.shplrnn_reference import orbit
from tests.shplrnn_cases import DRAWN, problem, weights_of

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cpu" if INTERPRETED else "cuda"
SIZES = [(1, 1, 1, 2), (2, 6, 3, 5), (2, 7, 5, 9)]
SIZES += [] if INTERPRETED else [(16, 200, 3, 50), (16, 50, 16, 512), (3, 100, 20, 250)]
TOLERANCES = {torch.float64: 1e-10, torch.float32: 1e-3}


def moved(given):
    return type(given)(*(one.to(DEVICE) for one in given))


def close(found, wanted, dtype):
    assert found.dtype == dtype
    error = torch.linalg.vector_norm(found.cpu().double() - wanted)
    assert error <= TOLERANCES[dtype] * (1 + torch.linalg.vector_norm(wanted))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("drawn", DRAWN)
@pytest.mark.parametrize(
    ("clipped", "driven", "targeted"), [(True, True, True), (False, False, True), (True, False, False)]
)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_orbits_and_gradients(dtype, clipped, driven, targeted, drawn, size):
    batch, length, states, hidden = size
    weights = weights_of(states, hidden, dtype)
    first, targets, drive, slopes = problem(batch, length, states, dtype, driven, targeted)
    exact = [one.double().requires_grad_() for one in (*weights, first, drive)]
    wanted = orbit(exact[:5], exact[5], targets.double(), exact[6], *drawn, clipped, length)
    gradients = torch.autograd.grad(wanted, exact, slopes.double(), allow_unused=True, materialize_grads=True)
    given = [one.to(DEVICE) for one in (first, targets, drive)]
    found = shplrnn_triton.orbit(moved(weights), *given, drawn, clipped, length)
    close(found, wanted.detach(), dtype)
    back = shplrnn_triton.orbit_adjoint(moved(weights), *given, drawn, found, slopes.to(DEVICE), clipped)
    for one, other in zip((*back[0], *back[1:]), gradients, strict=True):
        close(one, other, dtype)


def test_launches_refuse_what_they_cannot_do():
    first, targets, drive, _ = problem(1, 2, 3)
    none = shplrnn.Drawn()
    with pytest.raises(TypeError, match="one dtype"):
        shplrnn_triton.orbit(weights_of(3, 4, torch.float32), first, targets, drive, none, True, 2)
    large = weights_of(3, 1 << 13)
    assert not shplrnn_triton.fits(large)
    with pytest.raises(ValueError, match="powers of two"):
        shplrnn_triton.orbit(large, first, targets, drive, none, True, 2)
