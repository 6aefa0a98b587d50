"""What a block of 2 cells along each halved axis gives the unknown that it is, if it is not split.

In a `UnitStencil` all follows from which of its corners are unknowns, a set of 8 bits, and is counted by
tables; in a `FaceStencil` it is summed.
"""

import numpy as np
from numba import njit
from numba.extending import overload

from learnsolve.kernels.faces_numba import diagonal_of, is_faces, outside_of
from learnsolve.kernels.pointers import read
from learnsolve.kernels.threads import INLINE

EMPTY, SPLIT = -1, -2

COUNT = np.array([bin(corners).count("1") for corners in range(256)])

# The fields of an unknown's code, 10 bits each.
SPREAD = np.array([(c & 3) | (c >> 2 & 3) << 10 | (c >> 4 & 3) << 20 if c & 64 else 0 for c in range(256)])


@njit(**INLINE)
def excess_of(cells, absorption, k, j, i):
    """Coupling of a cell to boundary values: what its diagonal has beyond faces and absorption."""
    value = outside_of(cells, k, j, i) * 1.0
    if absorption.size > 0:
        value -= absorption[k, j, i]
    return value if value > 1e-10 * diagonal_of(cells, k, j, i) else 0.0


@njit(cache=True)
def _beside(blocks, side, k, j, i):
    """What `aggregate_blocks` says of the block on a side (before and after along z, y and x)."""
    step = 1 if side & 1 else -1
    axis = side >> 1
    k, j, i = k + step * (axis == 0), j + step * (axis == 1), i + step * (axis == 2)
    if k < 0 or j < 0 or i < 0 or k >= blocks.shape[0] or j >= blocks.shape[1] or i >= blocks.shape[2]:
        return EMPTY
    return blocks[k, j, i]


@njit(cache=True)
def regular(blocks, k, j, i):
    """How many blocks stand beside one of one part; -1 where it, or one of them, is split."""
    if blocks[k, j, i] == SPLIT:
        return -1
    count = 0
    for side in range(6):
        found = _beside(blocks, side, k, j, i)
        if found == SPLIT:
            return -1
        count += found != EMPTY
    return count


def edges_of(cells, blocks, corners, halved, k, j, i, factors, ids, sums, many, crossing):
    """Edges of a regular block; returns how many there are.

    Their ends go into ``ids``, their couplings into ``sums``, the faces for which each stands into ``many``,
    and into ``crossing`` how many of these lie across each axis. ``corners`` is that of
    `learnsolve.kernels.aggregate_numba.aggregate_blocks`.
    """


@overload(edges_of, jit_options=INLINE)
def _edges_overload(cells, blocks, corners, halved, k, j, i, factors, ids, sums, many, crossing):
    if is_faces(cells):

        def faces(cells, blocks, corners, halved, k, j, i, factors, ids, sums, many, crossing):
            _, wz, wy, wx = cells[0]
            nz, ny, nx = cells[1]
            hz, hy, hx = halved[0], halved[1], halved[2]
            length = 0
            crossing[:] = 0
            for side in range(6):
                other = _beside(blocks, side, k, j, i)
                if other == EMPTY:
                    continue
                axis, after = side >> 1, side & 1
                z0, y0, x0 = k << hz, j << hy, i << hx
                z1, y1, x1 = (k + 1) << hz, (j + 1) << hy, (i + 1) << hx
                # The layer of cells whose faces before them lie on this side.
                if axis == 0:
                    z0 = z1 if after else z0
                    z1 = z0 + 1
                elif axis == 1:
                    y0 = y1 if after else y0
                    y1 = y0 + 1
                else:
                    x0 = x1 if after else x0
                    x1 = x0 + 1
                weights, total, count = wz if axis == 0 else (wy if axis == 1 else wx), 0.0, 0
                for z in range(z0, min(z1, nz)):
                    for y in range(y0, min(y1, ny)):
                        for x in range(x0, min(x1, nx)):
                            w = read(weights, (z * ny + y) * nx + x)
                            total += w
                            count += w > 0
                if count > 0:
                    ids[length], sums[length], many[length] = other, total * factors[axis], count
                    length += 1
                    crossing[axis] += count
            return length

        return faces

    def unit(cells, blocks, corners, halved, k, j, i, factors, ids, sums, many, crossing):
        weights, mine, length = cells[1], corners[k, j, i], 0
        crossing[:] = 0
        for side in range(6):
            other = _beside(blocks, side, k, j, i)
            if other == EMPTY:
                continue
            axis, step = side >> 1, 2 * (side & 1) - 1
            theirs = corners[k + step * (axis == 0), j + step * (axis == 1), i + step * (axis == 2)]
            before, behind = (mine, theirs) if side & 1 else (theirs, mine)
            if halved[axis]:
                before = before >> (4 >> axis) & (0x0F if axis == 0 else (0x33 if axis == 1 else 0x55))
            count = COUNT[before & behind]
            w = weights[0] if axis == 0 else (weights[1] if axis == 1 else weights[2])
            if count > 0 and w > 0:
                ids[length], sums[length], many[length] = other, count * w * factors[axis], count
                length += 1
                crossing[axis] += count
        return length

    return unit


def sums_of(cells, absorption, excess, corners, halved, k, j, i, crossing, around):
    """Of a regular block: sums of diagonal, excess and absorption, how many unknowns, sums of their places.

    ``crossing`` is that of `edges_of`; ``around`` is how many faces a full block has.
    """


@overload(sums_of, jit_options=INLINE)
def _sums_overload(cells, absorption, excess, corners, halved, k, j, i, crossing, around):
    if is_faces(cells):

        def faces(cells, absorption, excess, corners, halved, k, j, i, crossing, around):
            nz, ny, nx = cells[-1]
            hz, hy, hx = halved[0], halved[1], halved[2]
            # Among unknowns on all sides nothing couples to a boundary value.
            inside = crossing.sum() == around and excess.size == 0
            d, e, a, many, z, y, x = 0.0, 0.0, 0.0, 0, 0.0, 0.0, 0.0
            for kk in range(k << hz, min((k + 1) << hz, nz)):
                for jj in range(j << hy, min((j + 1) << hy, ny)):
                    for ii in range(i << hx, min((i + 1) << hx, nx)):
                        own = diagonal_of(cells, kk, jj, ii)
                        if own == 0:
                            continue
                        d += own
                        if absorption.size > 0:
                            a += absorption[kk, jj, ii]
                        if excess.size > 0:
                            e += excess[kk, jj, ii]
                        elif not inside:
                            e += excess_of(cells, absorption, kk, jj, ii)
                        many += 1
                        z, y, x = z + kk + 0.5, y + jj + 0.5, x + ii + 0.5
            return d, e, a, many, z, y, x

        return faces

    def unit(cells, absorption, excess, corners, halved, k, j, i, crossing, around):
        code, w, shift, (nz, ny, nx) = cells[0][0], cells[1], cells[2], cells[3]
        hz, hy, hx = halved[0], halved[1], halved[2]
        z0, y0, x0, mine, fields = k << hz, j << hy, i << hx, np.int64(corners[k, j, i]), 0
        for z in range(z0, min((k + 1) << hz, nz)):
            for y in range(y0, min((j + 1) << hy, ny)):
                for x in range(x0, min((i + 1) << hx, nx)):
                    fields += SPREAD[read(code, (z * ny + y) * nx + x)]
        across_z, across_y, across_x = fields & 1023, fields >> 10 & 1023, fields >> 20
        many = COUNT[mine]
        d = across_z * w[0] + across_y * w[1] + across_x * w[2] + many * shift
        e = (across_z - crossing[0] - 2 * COUNT[mine & mine >> 4]) * w[0] * 1.0
        e += (across_y - crossing[1] - 2 * COUNT[mine & mine >> 2 & 0x33]) * w[1]
        e += (across_x - crossing[2] - 2 * COUNT[mine & mine >> 1 & 0x55]) * w[2]
        z = many * (z0 + 0.5) + COUNT[mine & 0xF0]
        y = many * (y0 + 0.5) + COUNT[mine & 0xCC]
        x = many * (x0 + 0.5) + COUNT[mine & 0xAA]
        return d * 1.0, e, many * shift * 1.0, many, z, y, x

    return unit
