"""CPU kernels that aggregate the cells of a grid, in blocks of two, along strong couplings."""

import numpy as np
from numba import njit, prange
from numba.extending import overload

from learnsolve.kernels.blocks_numba import EMPTY, SPLIT
from learnsolve.kernels.copies_numba import copy_vector
from learnsolve.kernels.faces_numba import diagonal_of, face_of, faces_of, located, shape_of
from learnsolve.kernels.stencil_numba import is_face_stencil
from learnsolve.kernels.threads import kernel


def _components() -> np.ndarray:
    """For each set of corners of a cube the parts that its edges join: each corner's smallest fellow."""
    labels = np.empty((256, 8), np.int64)
    for corners in range(256):
        row = labels[corners]
        row[:] = np.arange(8)
        for _ in range(3):
            for a in range(8):
                for bit in (1, 2, 4):
                    if corners >> a & 1 and corners >> (a ^ bit) & 1:
                        row[a] = row[a ^ bit] = min(row[a], row[a ^ bit])
    return labels


COMPONENTS = _components()


def _all_strong(stencil, theta):
    """Whether it is known that all couplings between unknowns are strong."""


@overload(_all_strong)
def _all_strong_overload(stencil, theta):
    if is_face_stencil(stencil):
        return lambda stencil, theta: False

    def unit(stencil, theta):
        low, high = np.inf, 0.0
        for axis in range(3):
            if stencil.weights[axis] > 0:
                low, high = min(low, stencil.weights[axis]), max(high, stencil.weights[axis])
        return low >= theta * high

    return unit


@njit(cache=True)
def _join(cells, theta, corners, z, y, x, faces, strongest, label):
    """Label the cells of a block by the strong couplings between them."""
    for a in range(8):
        label[a] = a
        if corners >> a & 1:
            faces_of(cells, z + (a >> 2), y + (a >> 1 & 1), x + (a & 1), faces)
            strongest[a] = faces.max()
    for a in range(8):
        if not corners >> a & 1:
            continue
        for axis in range(3):
            bit = 4 >> axis
            b = a | bit
            if a & bit or not corners >> b & 1:
                continue
            w = face_of(cells, axis, z + (b >> 2), y + (b >> 1 & 1), x + (b & 1))
            if w > 0 and w * w >= theta * theta * strongest[a] * strongest[b] and label[a] != label[b]:
                low, high = min(label[a], label[b]), max(label[a], label[b])
                for other in range(8):
                    if label[other] == high:
                        label[other] = low


@kernel
def aggregate_blocks(stencil, halved, theta, aggregate, blocks, corners, threads):
    """Split each block of 2 (along the ``halved`` axes) into parts joined by strong couplings.

    A coupling is strong if ``w_ij >= theta sqrt(m_i m_j)`` with ``m`` a cell's largest coupling.
    Fills ``aggregate`` (int32, -1 where there is no unknown), ``blocks`` (int32: the number of its only
    part, or `EMPTY` or `SPLIT`) and ``corners`` (uint8: a block's unknowns, with bits 4, 2 and 1 of a bit's
    place for z, y and x); returns the number of parts and that of blocks that are not empty.
    """
    nz, ny, nx = shape_of(stencil)
    hz, hy, hx = halved[0], halved[1], halved[2]
    cz, cy, cx = blocks.shape
    rows, easy = cz * cy, _all_strong(stencil, theta)
    parts, filled = np.zeros(rows + 1, np.int64), np.zeros(rows, np.int64)
    shares = max(1, min(threads, rows))
    for t in prange(shares):
        number, label, faces = np.empty(8, np.int64), np.empty(8, np.int64), np.empty(6, np.float64)
        cells, strongest = located(stencil), np.empty(8, np.float64)
        for row in range(t * rows // shares, (t + 1) * rows // shares):
            big_k, big_j = row // cy, row % cy
            z, y = big_k << hz, big_j << hy
            count = 0
            for big_i in range(cx):
                x = big_i << hx
                found = 0
                for k in range(z, min(z + 1 + hz, nz)):
                    for j in range(y, min(y + 1 + hy, ny)):
                        for i in range(x, min(x + 1 + hx, nx)):
                            if diagonal_of(cells, k, j, i) != 0:
                                found |= 1 << ((k - z) * 4 + (j - y) * 2 + i - x)
                            else:
                                aggregate[k, j, i] = -1
                corners[big_k, big_j, big_i] = found
                if found == 0:
                    blocks[big_k, big_j, big_i] = EMPTY
                    continue
                if easy:
                    copy_vector(COMPONENTS[found], label)
                else:
                    _join(cells, theta, found, z, y, x, faces, strongest, label)
                first = count
                for a in range(8):
                    if found >> a & 1:
                        if label[a] == a:
                            number[a] = count
                            count += 1
                        aggregate[z + (a >> 2), y + (a >> 1 & 1), x + (a & 1)] = number[label[a]]
                filled[row] += 1
                blocks[big_k, big_j, big_i] = first if count == first + 1 else SPLIT
            parts[row + 1] = count
    offsets = np.cumsum(parts)
    for t in prange(shares):
        for row in range(t * rows // shares, (t + 1) * rows // shares):
            big_k, big_j = row // cy, row % cy
            for i in range(cx):
                blocks[big_k, big_j, i] += offsets[row] if blocks[big_k, big_j, i] >= 0 else 0
            for k in range(big_k << hz, min((big_k + 1) << hz, nz)):
                for j in range(big_j << hy, min((big_j + 1) << hy, ny)):
                    for i in range(nx):
                        aggregate[k, j, i] += offsets[row] if aggregate[k, j, i] >= 0 else 0
    return offsets[rows], filled.sum()
