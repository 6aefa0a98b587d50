"""CPU kernels that make the first coarse level of the multigrid, by aggregation along strong couplings."""

import numpy as np
from numba import njit, prange
from numba.extending import overload

from learnsolve.kernels.coarsen_graph_numba import CoarseGraph
from learnsolve.kernels.stencil_numba import is_face_stencil
from learnsolve.kernels.threads import kernel


def _face(stencil, axis, k, j, i):
    """Coefficient of the face between cell ``(k, j, i)`` and the one before it along ``axis``."""


@overload(_face)
def _face_overload(stencil, axis, k, j, i):
    if is_face_stencil(stencil):

        def face(stencil, axis, k, j, i):
            if axis == 0:
                return stencil.wz[k, j, i] if k > 0 else stencil.wx.dtype.type(0)
            if axis == 1:
                return stencil.wy[k, j, i]
            return stencil.wx[k, j, i]

        return face

    def unit(stencil, axis, k, j, i):
        code = stencil.code
        if axis == 0:
            both = (code[k, j, i] & code[k - 1, j, i]) >> 6 if k > 0 else 0
        elif axis == 1:
            both = (code[k, j, i] & code[k, j - 1, i]) >> 6 if j > 0 else 0
        else:
            both = (code[k, j, i] & code[k, j, i - 1]) >> 6 if i > 0 else 0
        return stencil.weights[axis] * both

    return unit


def diagonal_of(stencil, k, j, i):
    """The diagonal entry of a cell; zero if the cell is not an unknown."""


@overload(diagonal_of)
def _diagonal_overload(stencil, k, j, i):
    if is_face_stencil(stencil):
        return lambda stencil, k, j, i: stencil.diagonal[k, j, i]

    def unit(stencil, k, j, i):
        c = np.int32(stencil.code[k, j, i])
        w = stencil.weights
        d = (c & 3) * w[0] + ((c >> 2) & 3) * w[1] + ((c >> 4) & 3) * w[2] + stencil.shift[0]
        return d * (c >> 6)

    return unit


def shape_of(stencil):
    """The grid's shape."""


@overload(shape_of)
def _shape_of_overload(stencil):
    if is_face_stencil(stencil):
        return lambda stencil: stencil.diagonal.shape
    return lambda stencil: stencil.code.shape


@njit(cache=True)
def faces_of(stencil, k, j, i, out):
    """The six face coefficients of a cell: before and after along z, y, x."""
    nz, ny, nx = shape_of(stencil)
    zero = out.dtype.type(0)
    out[0] = _face(stencil, 0, k, j, i) if nz > 1 else zero
    out[1] = _face(stencil, 0, k + 1, j, i) if k + 1 < nz else zero
    out[2] = _face(stencil, 1, k, j, i)
    out[3] = _face(stencil, 1, k, j + 1, i) if j + 1 < ny else zero
    out[4] = _face(stencil, 2, k, j, i)
    out[5] = _face(stencil, 2, k, j, i + 1) if i + 1 < nx else zero


@kernel
def aggregate_blocks(stencil, halved, theta, aggregate, threads):
    """Split each block of 2 (along the ``halved`` axes) into parts joined by strong couplings.

    A coupling is strong if ``w_ij >= theta sqrt(m_i m_j)`` with ``m`` a cell's largest coupling.
    Fills ``aggregate`` (int32, -1 where there is no unknown); returns the number of parts and that of
    blocks that are not empty.
    """
    nz, ny, nx = shape_of(stencil)
    hz, hy, hx = halved[0], halved[1], halved[2]
    cz, cy, cx = (nz + hz) >> hz, (ny + hy) >> hy, (nx + hx) >> hx
    rows = cz * cy
    parts, filled = np.zeros(rows + 1, np.int64), np.zeros(rows, np.int64)
    blocks = max(1, min(threads, rows))
    for t in prange(blocks):
        root, cells = np.empty(8, np.int64), np.empty((8, 3), np.int64)
        strongest, faces = np.empty(8, np.float64), np.empty((8, 6), np.float64)
        for row in range(t * rows // blocks, (t + 1) * rows // blocks):
            big_k, big_j = row // cy, row % cy
            count = 0
            for big_i in range(cx):
                size = 0
                for k in range(big_k << hz, min((big_k + 1) << hz, nz)):
                    for j in range(big_j << hy, min((big_j + 1) << hy, ny)):
                        for i in range(big_i << hx, min((big_i + 1) << hx, nx)):
                            if diagonal_of(stencil, k, j, i) != 0:
                                cells[size, 0], cells[size, 1], cells[size, 2] = k, j, i
                                faces_of(stencil, k, j, i, faces[size])
                                strongest[size] = faces[size].max()
                                root[size] = size
                                size += 1
                            else:
                                aggregate[k, j, i] = -1
                for p in range(size):
                    for q in range(p):
                        dk = cells[p, 0] - cells[q, 0]
                        dj = cells[p, 1] - cells[q, 1]
                        di = cells[p, 2] - cells[q, 2]
                        if abs(dk) + abs(dj) + abs(di) != 1:
                            continue
                        side = (0 if dk else (2 if dj else 4)) + (1 if dk + dj + di < 0 else 0)
                        w = faces[p, side]
                        if w > 0 and w >= theta * np.sqrt(strongest[p] * strongest[q]):
                            old, new = root[p], root[q]
                            for r in range(size):
                                if root[r] == old:
                                    root[r] = new
                first = count
                for p in range(size):
                    k, j, i = cells[p, 0], cells[p, 1], cells[p, 2]
                    found = -1
                    for q in range(p):
                        if root[q] == root[p]:
                            found = aggregate[cells[q, 0], cells[q, 1], cells[q, 2]]
                            break
                    if found < 0:
                        found = count
                        count += 1
                    aggregate[k, j, i] = found
                filled[row] += 1 if count > first else 0
            parts[row + 1] = count
    offsets = np.cumsum(parts)
    for t in prange(blocks):
        for row in range(t * rows // blocks, (t + 1) * rows // blocks):
            big_k, big_j = row // cy, row % cy
            for k in range(big_k << hz, min((big_k + 1) << hz, nz)):
                for j in range(big_j << hy, min((big_j + 1) << hy, ny)):
                    for i in range(nx):
                        if aggregate[k, j, i] >= 0:
                            aggregate[k, j, i] += offsets[row]
    return offsets[rows], filled.sum()


@njit(cache=True)
def _excess_of(stencil, absorption, k, j, i, faces):
    """Coupling of a cell to boundary values: what its diagonal has beyond faces and absorption."""
    d = diagonal_of(stencil, k, j, i)
    value = d - faces.sum() - (absorption[k, j, i] if absorption.size > 0 else absorption.dtype.type(0))
    return value if value > 1e-10 * d else 0.0 * d


@kernel
def coarsen_grid(
    stencil, absorption, excess, halved, factors, boundary, scale,
    diagonal, wz, wy, wx, coarse_absorption, coarse_excess, threads,
):  # fmt: skip
    """Fill a coarse `FaceStencil` by rescaled aggregation over blocks of 2 along the ``halved`` axes.

    Couplings add up, times ``factors`` (0.5 along a halved axis, where the distance has doubled);
    couplings to boundary values count ``boundary``; absorption is kept, times ``scale``. ``excess`` may be
    empty on the finest level.
    """
    nz, ny, nx = shape_of(stencil)
    hz, hy, hx = halved[0], halved[1], halved[2]
    cz, cy, cx = diagonal.shape
    rows = cz * cy
    blocks = max(1, min(threads, rows))
    for t in prange(blocks):
        faces, sides = np.empty(6, np.float64), np.empty(6, np.float64)
        for row in range(t * rows // blocks, (t + 1) * rows // blocks):
            big_k, big_j = row // cy, row % cy
            for big_i in range(cx):
                e, a = 0.0, 0.0
                sides[:] = 0
                k0, j0, i0 = big_k << hz, big_j << hy, big_i << hx
                k1, j1, i1 = (big_k + 1) << hz, (big_j + 1) << hy, (big_i + 1) << hx
                for k in range(k0, min(k1, nz)):
                    for j in range(j0, min(j1, ny)):
                        for i in range(i0, min(i1, nx)):
                            if diagonal_of(stencil, k, j, i) == 0:
                                continue
                            faces_of(stencil, k, j, i, faces)
                            if excess.size > 0:
                                e += excess[k, j, i]
                            else:
                                e += _excess_of(stencil, absorption, k, j, i, faces)
                            if absorption.size > 0:
                                a += absorption[k, j, i]
                            sides[0] += faces[0] if k == k0 else 0.0
                            sides[1] += faces[1] if k == k1 - 1 else 0.0
                            sides[2] += faces[2] if j == j0 else 0.0
                            sides[3] += faces[3] if j == j1 - 1 else 0.0
                            sides[4] += faces[4] if i == i0 else 0.0
                            sides[5] += faces[5] if i == i1 - 1 else 0.0
                e *= boundary
                a *= scale
                for side in range(6):
                    sides[side] *= factors[side >> 1]
                if wz.size > 1:
                    wz[big_k, big_j, big_i] = sides[0]
                wy[big_k, big_j, big_i] = sides[2]
                wx[big_k, big_j, big_i] = sides[4]
                coarse_excess[big_k, big_j, big_i] = e
                coarse_absorption[big_k, big_j, big_i] = a
                diagonal[big_k, big_j, big_i] = sides.sum() + e + a


@njit(cache=True)
def _block_rows(stencil, aggregate, halved, big_k, big_j, factors, start, indptr, indices, weights, merged):
    """Edges of the graph unknowns in one row of blocks; counts them where ``indices`` is empty."""
    nz, ny, nx = shape_of(stencil)
    hz, hy, hx = halved[0], halved[1], halved[2]
    fill = indices.size > 0
    faces, many = np.empty(6, np.float64), np.empty(48, np.int64)
    ids, sums, owner = np.empty(48, np.int64), np.empty(48, np.float64), np.empty(48, np.int64)
    for big_i in range((nx + hx) >> hx):
        length = 0
        for k in range(big_k << hz, min((big_k + 1) << hz, nz)):
            for j in range(big_j << hy, min((big_j + 1) << hy, ny)):
                for i in range(big_i << hx, min((big_i + 1) << hx, nx)):
                    mine = aggregate[k, j, i]
                    if mine < 0:
                        continue
                    faces_of(stencil, k, j, i, faces)
                    for side in range(6):
                        if faces[side] == 0:
                            continue
                        step = 1 if side & 1 else -1
                        axis = side >> 1
                        kk = k + (step if axis == 0 else 0)
                        jj = j + (step if axis == 1 else 0)
                        ii = i + (step if axis == 2 else 0)
                        other = aggregate[kk, jj, ii]
                        if other == mine or other < 0:
                            continue
                        w = faces[side] * factors[axis]
                        for q in range(length):
                            if ids[q] == other and owner[q] == mine:
                                sums[q] += w
                                many[q] += 1
                                break
                        else:
                            ids[length], sums[length], owner[length], many[length] = other, w, mine, 1
                            length += 1
        for q in range(length):
            if fill:
                place = start[owner[q]]
                start[owner[q]] = place + 1
                indices[place] = ids[q]
                weights[place] = sums[q]
                merged[place] = many[q]
            else:
                indptr[owner[q] + 1] += 1


@kernel
def grid_to_graph(stencil, absorption, excess, aggregate, count, halved, factors, boundary, scale, threads):
    """The graph of the parts that `aggregate_blocks` found, scaled as in `coarsen_grid`.

    Returns a `CoarseGraph`.
    """
    nz, ny, nx = shape_of(stencil)
    hz, hy, hx = halved[0], halved[1], halved[2]
    cy = (ny + hy) >> hy
    rows = ((nz + hz) >> hz) * cy
    blocks = max(1, min(threads, rows))
    indptr = np.zeros(count + 1, np.int32)
    none_i, none_w = np.empty(0, np.int32), np.empty(0, np.float32)
    for t in prange(blocks):
        for row in range(t * rows // blocks, (t + 1) * rows // blocks):
            _block_rows(
                stencil,
                aggregate,
                halved,
                row // cy,
                row % cy,
                factors,
                indptr,
                indptr,
                none_i,
                none_w,
                none_w,
            )
    for i in range(count):
        indptr[i + 1] += indptr[i]
    indices = np.empty(indptr[count], np.int32)
    weights, merged = np.empty(indptr[count], np.float32), np.empty(indptr[count], np.float32)
    start = indptr[:-1].copy()
    mass, inner, centre = (
        np.zeros(count, np.float32),
        np.zeros(count, np.float32),
        np.zeros((count, 3), np.float32),
    )
    graph_excess, graph_absorption = np.zeros(count, np.float32), np.zeros(count, np.float32)
    position = np.zeros((count, 3), np.int32)
    for t in prange(blocks):
        faces = np.empty(6, np.float64)
        for row in range(t * rows // blocks, (t + 1) * rows // blocks):
            big_k, big_j = row // cy, row % cy
            _block_rows(
                stencil, aggregate, halved, big_k, big_j, factors, start, indptr, indices, weights, merged
            )
            for k in range(big_k << hz, min((big_k + 1) << hz, nz)):
                for j in range(big_j << hy, min((big_j + 1) << hy, ny)):
                    for i in range(nx):
                        mine = aggregate[k, j, i]
                        if mine < 0:
                            continue
                        if excess.size > 0:
                            e = excess[k, j, i] * 1.0
                        else:
                            faces_of(stencil, k, j, i, faces)
                            e = _excess_of(stencil, absorption, k, j, i, faces) * 1.0
                        graph_excess[mine] += e * boundary
                        if absorption.size > 0:
                            graph_absorption[mine] += absorption[k, j, i] * scale
                        position[mine, 0], position[mine, 1], position[mine, 2] = big_k, big_j, i >> hx
                        mass[mine] += 1
                        inner[mine] += diagonal_of(stencil, k, j, i) * scale
                        centre[mine, 0] += k + 0.5
                        centre[mine, 1] += j + 0.5
                        centre[mine, 2] += i + 0.5
    for i in range(count):
        for axis in range(3):
            centre[i, axis] /= mass[i]
    return CoarseGraph(
        indptr, indices, weights, weights, graph_excess, graph_absorption, position, merged, mass, centre,
        inner, mass,
    )  # fmt: skip
