"""Operators of elliptic families against matrices that are written down cell by cell."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import block_diag

from learnsolve.problems.elliptic_families import ELLIPTIC_FAMILIES, EllipticFamily, _discs

FAMILIES = list(ELLIPTIC_FAMILIES.values())
DTYPES = [torch.float32, torch.float64]


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def by_hand(family, inside):
    """The matrix of one square over all its cells; rows of holes are zero."""
    n = len(inside)
    hole = inside if family.contrast is None else np.zeros_like(inside)
    k = np.where(inside & ~hole, family.contrast or 1.0, 1.0)
    matrix = np.zeros((n, n, n, n))
    for y, x in zip(*np.nonzero(~hole), strict=True):
        matrix[y, x, y, x] = family.absorption
        for dy, dx, along in (
            (1, 0, family.along_y),
            (-1, 0, family.along_y),
            (0, 1, family.along_x),
            (0, -1, family.along_x),
        ):
            j, i = y + dy, x + dx
            wall = not (0 <= j < n and 0 <= i < n)
            # Half a cell of each: resistances add up.
            face = along * (k[y, x] if wall or hole[j, i] else 2 / (1 / k[y, x] + 1 / k[j, i]))
            matrix[y, x, y, x] += face
            if not wall and not hole[j, i]:
                matrix[y, x, j, i] = -face
    return matrix.reshape(n * n, n * n)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_the_matrix_is_the_one_written_by_hand(family, dtype):
    A = family.draw(3, 7, seeded(1), dtype=dtype)
    whole = block_diag(*(by_hand(family, inside) for inside in _discs(3, 7, seeded(1)).numpy()))
    close = {"rtol": 1e-5, "atol": 1e-5} if dtype is torch.float32 else {"rtol": 1e-13, "atol": 1e-13}
    columns = [A @ e.reshape(3, 7, 7) for e in torch.eye(3 * 49, dtype=dtype)]
    found = torch.stack([column.flatten() for column in columns], 1)
    assert found.dtype == A.diagonal().dtype == A.dtype == dtype
    np.testing.assert_allclose(found, whole, **close)
    np.testing.assert_allclose(A.diagonal().flatten(), whole.diagonal(), **close)
    fluid = A.active.flatten()
    assert (whole.diagonal() > 0).tolist() == fluid.tolist()
    np.testing.assert_allclose(A.to_scipy().toarray(), whole[np.ix_(fluid, fluid)], **close)


@settings(deadline=None, max_examples=30)
@given(
    st.sampled_from(FAMILIES),
    st.integers(1, 3),
    st.integers(4, 9),
    st.integers(0, 2**31),
)
def test_symmetric_and_positive_definite(family, count, cells, seed):
    A = family.draw(count, cells, seeded(seed), dtype=torch.float64)
    assert A.domain_shape == (count, cells, cells) and A.positive_definite and not A.singular
    assert bool(A.active.flatten(1).any(1).all())
    matrix = A.to_scipy().toarray()
    np.testing.assert_array_equal(matrix, matrix.T)
    assert np.linalg.eigvalsh(matrix)[0] > family.absorption
    # Diagonal dominance with slack where there is absorption, a wall or a hole.
    assert (2 * matrix.diagonal() - np.abs(matrix).sum(1) >= family.absorption - 1e-12).all()


def test_rows_of_each_family():
    """Away from walls and discs, and where a disc begins."""
    centre = {
        "discs": (4.0, -1.0, -1.0),
        "along-x": (2.04, -0.02, -1.0),
        "along-y": (2.04, -1.0, -0.02),
        "screened": (5.0, -1.0, -1.0),
    }
    for name, row in centre.items():
        A = ELLIPTIC_FAMILIES[name].draw(1, 16, seeded(), dtype=torch.float64)
        free = torch.nn.functional.avg_pool2d(A.active.double(), 3, 1) == 1
        y, x = (int(place) + 1 for place in free[0].nonzero()[0])
        e = torch.zeros(1, 16, 16, dtype=torch.float64)
        e[0, y, x] = 1
        image = (A @ e)[0]
        found = image[y, x], image[y + 1, x], image[y, x - 1]
        assert torch.tensor(found).tolist() == pytest.approx(row)
    A = ELLIPTIC_FAMILIES["inclusions"].draw(1, 16, seeded(), dtype=torch.float64)
    inside = _discs(1, 16, seeded())
    across = inside[:, :, 1:] != inside[:, :, :-1]
    assert A.active.all()
    assert A.faces(2)[:, :, 1:][across].tolist() == pytest.approx([20 / 11] * int(across.sum()))
    assert A.faces(2)[inside].max() == 10 and (A.faces(0) == 0).all()


def test_members_do_not_touch():
    A = ELLIPTIC_FAMILIES["inclusions"].draw(3, 8, seeded(), dtype=torch.float64)
    x = torch.randn(3, 8, 8, generator=seeded(1), dtype=torch.float64)
    changed = x.clone()
    changed[1] += 1
    assert torch.equal((A @ changed)[[0, 2]], (A @ x)[[0, 2]])
    assert not torch.equal((A @ changed)[1], (A @ x)[1])


def test_the_generator_alone_decides():
    before = torch.get_rng_state()
    family = ELLIPTIC_FAMILIES["discs"]
    single, double = (family.draw(5, 12, seeded(3), dtype=dtype) for dtype in DTYPES)
    assert torch.equal(single.active, double.active)
    torch.testing.assert_close(single.diagonal().double(), double.diagonal())
    assert not torch.equal(single.active, family.draw(5, 12, seeded(4)).active)
    generator = seeded(3)
    one, other = (family.draw(5, 12, generator) for _ in range(2))
    assert torch.equal(one.active, single.active) and not torch.equal(other.active, single.active)
    assert torch.equal(torch.get_rng_state(), before)


def test_discs_are_as_large_as_is_said():
    """Far from the walls a place is in a disc with the probability of the mean area."""
    share = float(_discs(2000, 32, seeded())[:, 5:-5, 5:-5].double().mean())
    area = np.pi * (0.15**3 - 0.05**3) / (3 * (0.15 - 0.05))
    assert share == pytest.approx(1 - (1 - area) ** 4, abs=0.006)


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: EllipticFamily("f", along_x=0.0), ValueError, "along_x is 0.0; a positive number"),
        (lambda: EllipticFamily("f", along_y=float("nan")), ValueError, "along_y is nan"),
        (lambda: EllipticFamily("f", contrast=-1.0), ValueError, "contrast is -1.0"),
        (lambda: EllipticFamily("f", contrast=float("inf")), ValueError, "contrast is inf"),
        (
            lambda: EllipticFamily("f", absorption=-1.0),
            ValueError,
            "absorption is -1.0; a number of at least 0",
        ),
        (lambda: FAMILIES[0].draw(0, 8, seeded()), ValueError, "count is 0 and cells 8; at least 1"),
        (lambda: FAMILIES[0].draw(1, 3, seeded()), ValueError, "cells 3; at least 1, and at least 4"),
        (
            lambda: FAMILIES[0].draw(1, 8, seeded(), dtype=torch.float16),
            TypeError,
            "float32 and torch.float64",
        ),
    ],
)
def test_refusals(call, error, words):
    with pytest.raises(error, match=words):
        call()
