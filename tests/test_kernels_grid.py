"""The numba form of the grid kernels against the reference, and the reference against definitions."""

import numpy as np
import pytest
import torch
from numba.core.errors import TypingError

from learnsolve.kernels import grid_numba, grid_reference
from learnsolve.kernels.stencil import FaceStencil
from tests.kernel_cases import TOLERANCE, close, grid_case, halved, numpy, poison, random

SHAPES = [(1, 1, 1), (1, 1, 8), (1, 9, 1), (5, 1, 1), (1, 2, 2), (1, 26, 7), (2, 3, 4), (25, 3, 5)]
ODD_AND_EVEN = [(1, 1, 1), (1, 1, 8), (1, 27, 7), (2, 3, 4), (26, 3, 5)]
# Each compiles every kernel anew, so most of the combinations are left to the slow tests.
REAL = [("unit", torch.float64), ("face", torch.float32)]
COMPLEX = [("face", torch.complex128)]
OTHERS = [
    pytest.param(*form, marks=pytest.mark.slow)
    for form in [
        ("face", torch.float64),
        ("unit", torch.float32),
        ("unit", torch.complex64),
        ("face", torch.complex64),
        ("unit", torch.complex128),
    ]
]
SLOW_COMPLEX = [pytest.param(*form, marks=pytest.mark.slow) for form in COMPLEX]
OMEGA = 1.25
# No aggregates, and no relaxation of each cell.
PLAIN, COMMON = np.empty((0, 0, 0), np.int32), np.empty((0, 0, 0, 0), np.int16)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("kind", "dtype"), REAL + COMPLEX + OTHERS)
def test_apply_residual_and_jacobi(kind, dtype, shape, threads):
    stencil, b, x = grid_case(kind, shape, dtype)
    y, r, step = poison(x), poison(x), poison(x)
    grid_numba.apply(*numpy(stencil, x, y), threads)
    close(y, grid_reference.apply(stencil, x))
    grid_numba.residual(*numpy(stencil, b, x, r), threads)
    close(r, grid_reference.residual(stencil, b, x))
    grid_numba.jacobi(*numpy(stencil, b, x, step), numpy(x).dtype.type(OMEGA), threads)
    close(step, grid_reference.jacobi(stencil, b, x, OMEGA))


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 1, 8), (1, 9, 1), (1, 4, 5), (3, 3, 4)])
@pytest.mark.parametrize(("kind", "dtype"), REAL + COMPLEX + OTHERS)
def test_gauss_seidel(kind, dtype, shape, reverse):
    stencil, b, x = grid_case(kind, shape, dtype)
    expected = x.clone()
    grid_reference.gauss_seidel(stencil, b, expected, OMEGA, reverse)
    grid_numba.gauss_seidel(*numpy(stencil, b, x), numpy(x).dtype.type(OMEGA), reverse)
    close(x, expected)


STAGES = [  # prolongs, halves, first, fresh, restricts
    (0, 1, 0, False, 0),
    (0, 1, 1, True, 0),
    (0, 4, 1, True, 1),
    (1, 3, 0, False, 0),
    (1, 2, 1, False, 1),
    (0, 0, 0, False, 1),
    (1, 0, 0, False, 0),
]


def smooth_case(kind, shape, dtype, axes, stages):
    """Arguments of ``smooth``, whose outputs are poisoned, and what they should become."""
    stencil, b, x = grid_case(kind, shape, dtype)
    coarse_x = random(halved(shape, axes), dtype, torch.Generator().manual_seed(1))
    coarse_b = poison(coarse_x)
    expected_x, expected_b = x.clone(), coarse_b.clone()
    grid_reference.smooth(stencil, b, expected_x, coarse_x, expected_b, OMEGA, *stages)
    if stages[3]:
        x = poison(x)
    if not stages[0]:
        coarse_x = poison(coarse_x)
    return stencil, b, x, coarse_x, coarse_b, expected_x, expected_b


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("axes", [(True, True, True), (True, True, False), (False, True, True)])
@pytest.mark.parametrize("shape", ODD_AND_EVEN)
@pytest.mark.parametrize(("kind", "dtype"), REAL + SLOW_COMPLEX + OTHERS)
def test_fused_smoothing_is_the_plain_composition(kind, dtype, shape, axes, threads):
    for stages in STAGES:
        *arguments, expected_x, expected_b = smooth_case(kind, shape, dtype, axes, stages)
        _, _, x, _, coarse_b = arguments
        start = x.clone()
        omega = numpy(x).dtype.type(OMEGA)
        grid_numba.smooth(*numpy(*arguments), PLAIN, COMMON, omega, *stages, threads)
        close(x, expected_x)
        if stages[4]:
            close(coarse_b, expected_b)
        prolongs, halves, first, fresh, _ = stages
        arguments[2] = start
        for stage in [(1, 0, 0, False, 0)] * prolongs + [
            (0, 1, (first + half) % 2, fresh and half == 0, 0) for half in range(halves)
        ]:
            grid_numba.smooth(*numpy(*arguments), PLAIN, COMMON, omega, *stage, 1)
        assert torch.equal(x, start)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("shape", ODD_AND_EVEN)
@pytest.mark.parametrize(("kind", "dtype"), REAL)
def test_smoothing_with_relaxation_of_each_cell(kind, dtype, shape, threads):
    for stages in [(0, 4, 0, True, 1), (1, 4, 1, False, 0)]:
        stencil, b, x = grid_case(kind, shape, dtype)
        coarse = random(halved(shape), dtype, torch.Generator().manual_seed(1))
        own = torch.randint(1, 2**15, (2, *shape), generator=torch.Generator().manual_seed(2)).to(torch.int16)
        expected_x, expected_b, found_b = x.clone(), coarse.clone(), poison(coarse)
        grid_reference.smooth(stencil, b, expected_x, coarse, expected_b, 1.0, *stages, relaxation=own)
        views = numpy(stencil, b, x, coarse, found_b)
        grid_numba.smooth(*views, PLAIN, numpy(own), numpy(x).dtype.type(1), *stages, threads)
        close(x, expected_x)
        if stages[4]:
            close(found_b, expected_b)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("shape", ODD_AND_EVEN)
@pytest.mark.parametrize(("kind", "dtype"), REAL)
def test_smoothing_with_aggregates(kind, dtype, shape, threads):
    stencil, b, x = grid_case(kind, shape, dtype)
    coarse = halved(shape)
    aggregate = torch.arange(np.prod(coarse)).reshape(coarse)
    for axis in range(3):
        aggregate = aggregate.repeat_interleave(2, axis).narrow(axis, 0, shape[axis])
    unknown = grid_reference.diagonal(stencil) != 0
    aggregate = torch.where(unknown, aggregate, -1).int()
    coarse_x = random((1, 1, int(np.prod(coarse))), dtype, torch.Generator().manual_seed(1))
    coarse_b = poison(coarse_x)
    expected_x, expected_b = x.clone(), torch.empty(coarse, dtype=dtype)
    stages = (1, 2, 0, False, 1)
    grid_reference.smooth(stencil, b, expected_x, coarse_x.reshape(coarse), expected_b, OMEGA, *stages)
    views = numpy(stencil, b, x, coarse_x, coarse_b, aggregate)
    grid_numba.smooth(*views, COMMON, numpy(x).dtype.type(OMEGA), *stages, threads)
    close(x, expected_x)
    close(coarse_b.reshape(coarse), expected_b)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("shape", SHAPES)
def test_writing_a_unit_stencil_out_keeps_the_operator(shape, dtype):
    stencil, _, x = grid_case("unit", shape, dtype)
    faces = grid_reference.to_face(stencil)
    assert isinstance(faces, FaceStencil)
    assert grid_reference.to_face(faces) is faces
    unknown = grid_reference.diagonal(stencil) != 0
    close(grid_reference.apply(faces, x * unknown), grid_reference.apply(stencil, x * unknown))


@pytest.mark.parametrize("shape", [(1, 1, 8), (1, 3, 4), (3, 2, 3)])
@pytest.mark.parametrize("dtype", TOLERANCE)
def test_reference_apply_is_the_definition(shape, dtype):
    stencil, _, x = grid_case("face", shape, dtype)
    expected = torch.zeros_like(x)
    for cell in np.ndindex(shape):
        expected[cell] = stencil.diagonal[cell] * x[cell]
        for axis in range(3):
            before, after = list(cell), list(cell)
            before[axis] -= 1
            after[axis] += 1
            if cell[axis] > 0:
                expected[cell] -= stencil[1 + axis][cell] * x[tuple(before)]
            if after[axis] < shape[axis]:
                expected[cell] -= stencil[1 + axis][tuple(after)] * x[tuple(after)]
    close(grid_reference.apply(stencil, x), expected)


@pytest.mark.parametrize("kind", ["unit", "face"])
def test_a_full_sweep_solves_what_jacobi_and_gauss_seidel_solve(kind):
    stencil, _, x = grid_case(kind, (3, 4, 5), torch.float64)
    stencil = grid_reference.to_face(stencil)
    stencil = stencil._replace(diagonal=stencil.diagonal + 8 * (stencil.diagonal != 0))
    b = grid_reference.apply(stencil, x)
    by_colours, by_order, by_jacobi = torch.zeros_like(x), torch.zeros_like(x), torch.zeros_like(x)
    for _ in range(60):
        grid_reference.relax(stencil, b, by_colours, 1.0, 0)
        grid_reference.relax(stencil, b, by_colours, 1.0, 1)
        grid_reference.gauss_seidel(stencil, b, by_order, 1.0, False)
        by_jacobi = grid_reference.jacobi(stencil, b, by_jacobi, 1.0)
    for solution in (by_colours, by_order, by_jacobi):
        torch.testing.assert_close(solution, x, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("axes", [(True, True, True), (False, True, False)])
@pytest.mark.parametrize("shape", ODD_AND_EVEN)
def test_restriction_is_the_transpose_of_prolongation(shape, axes):
    stencil, fine, x = grid_case("face", shape, torch.float64)
    fine = fine * (stencil.diagonal != 0)
    coarse = random(halved(shape, axes), torch.float64, torch.Generator().manual_seed(1))
    x.zero_()
    grid_reference.prolong_add(stencil, coarse, x)
    restricted = grid_reference.restrict(fine, coarse.shape)
    assert restricted.shape == coarse.shape
    torch.testing.assert_close((x * fine).sum(), (coarse * restricted).sum())


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
def test_the_reference_is_differentiable_twice(dtype):
    stencil, b, x = grid_case("face", (2, 2, 3), dtype)
    unit, _, _ = grid_case("unit", (2, 2, 3), dtype)
    mask = stencil.diagonal != 0

    def of_faces(x, b, *weights):
        varied = FaceStencil(*(w * mask for w in weights))
        return grid_reference.jacobi(varied, b, x, 0.8), grid_reference.apply(varied, x)

    def of_unit(x, weights, shift):
        varied = unit._replace(weights=weights, shift=shift)
        return grid_reference.apply(varied, x), grid_reference.apply(grid_reference.to_face(varied), x)

    inputs = [t.clone().requires_grad_() for t in (x, b, *(w + 0.1 for w in stencil))]
    assert torch.autograd.gradcheck(of_faces, inputs)
    assert torch.autograd.gradgradcheck(of_faces, inputs)
    inputs = [t.clone().requires_grad_() for t in (x, unit.weights, unit.shift)]
    assert torch.autograd.gradcheck(of_unit, inputs)
    assert torch.autograd.gradgradcheck(of_unit, inputs)


def test_only_contiguous_arrays_have_an_address():
    stencil, _, x = grid_case("unit", (2, 3, 4), torch.float64)
    strided = np.zeros((2, 3, 8))[:, :, ::2]
    with pytest.raises(TypingError, match="C-contiguous"):
        grid_numba.apply(*numpy(stencil, x), strided, 1)
