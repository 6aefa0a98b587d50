"""CPU kernels that make the first coarse level of the multigrid from the aggregates of a grid."""

import numpy as np
from numba import njit, prange

from learnsolve.kernels.blocks_numba import EMPTY, edges_of, excess_of, regular, sums_of
from learnsolve.kernels.coarsen_graph_numba import CoarseGraph
from learnsolve.kernels.faces_numba import diagonal_of, faces_of, located, shape_of
from learnsolve.kernels.threads import INLINE, kernel


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
    shares = max(1, min(threads, rows))
    for t in prange(shares):
        cells, faces, sides = located(stencil), np.empty(6, np.float64), np.empty(6, np.float64)
        for row in range(t * rows // shares, (t + 1) * rows // shares):
            big_k, big_j = row // cy, row % cy
            for big_i in range(cx):
                e, a = 0.0, 0.0
                sides[:] = 0
                k0, j0, i0 = big_k << hz, big_j << hy, big_i << hx
                k1, j1, i1 = (big_k + 1) << hz, (big_j + 1) << hy, (big_i + 1) << hx
                for k in range(k0, min(k1, nz)):
                    for j in range(j0, min(j1, ny)):
                        for i in range(i0, min(i1, nx)):
                            if diagonal_of(cells, k, j, i) == 0:
                                continue
                            faces_of(cells, k, j, i, faces)
                            if excess.size > 0:
                                e += excess[k, j, i]
                            else:
                                e += excess_of(cells, absorption, k, j, i)
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


@njit(**INLINE)
def _scratch():
    """Room for a cell's faces, and for the edges of a block: ends, weights, owners and faces merged."""
    ids, sums, owner, many = (
        np.empty(48, np.int64),
        np.empty(48, np.float64),
        np.empty(48, np.int64),
        np.empty(48, np.int64),
    )
    return np.empty(6, np.float64), ids, sums, owner, many


@njit(cache=True)
def _parts(cells, aggregate, halved, big_k, big_j, big_i, factors, faces, ids, sums, owner, many):
    """Edges of the parts of a block; returns how many there are."""
    nz, ny, nx = cells[-1]
    hz, hy, hx = halved[0], halved[1], halved[2]
    length = 0
    for k in range(big_k << hz, min((big_k + 1) << hz, nz)):
        for j in range(big_j << hy, min((big_j + 1) << hy, ny)):
            for i in range(big_i << hx, min((big_i + 1) << hx, nx)):
                mine = aggregate[k, j, i]
                if mine < 0:
                    continue
                faces_of(cells, k, j, i, faces)
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
    return length


@njit(cache=True)
def _packed(bounds, lengths, indices, weights, merged):
    """Rows that were given more room than they took, moved together; returns where each begins."""
    n = lengths.size
    indptr = np.zeros(n + 1, np.int32)
    for i in range(n):
        indptr[i + 1] = indptr[i] + lengths[i]
        if indptr[i] != bounds[i]:
            for q in range(lengths[i]):
                to, place = indptr[i] + q, bounds[i] + q
                indices[to], weights[to], merged[to] = indices[place], weights[place], merged[place]
    return indptr


@kernel
def grid_to_graph(
    stencil, absorption, excess, aggregate, blocks, corners, count, halved, factors, boundary, scale, threads
):
    """The graph of the parts that `aggregate_blocks` found, scaled as in `coarsen_grid`.

    Returns a `CoarseGraph`.
    """
    nz, ny, nx = shape_of(stencil)
    hz, hy, hx = halved[0], halved[1], halved[2]
    cy, cx = blocks.shape[1], blocks.shape[2]
    rows, full = blocks.shape[0] * cy, 1 << (hz + hy + hx)
    around = 0
    for axis in range(3):
        if shape_of(stencil)[axis] > 1:
            around += 2 * (full >> halved[axis])
    shares = max(1, min(threads, rows))
    bounds = np.zeros(count + 1, np.int32)
    for t in prange(shares):
        cells, (faces, ids, sums, owner, many) = located(stencil), _scratch()
        for row in range(t * rows // shares, (t + 1) * rows // shares):
            k, j = row // cy, row % cy
            for i in range(cx):
                if blocks[k, j, i] == EMPTY:
                    continue
                beside = regular(blocks, k, j, i)
                if beside >= 0:
                    bounds[blocks[k, j, i] + 1] = beside
                    continue
                length = _parts(cells, aggregate, halved, k, j, i, factors, faces, ids, sums, owner, many)
                for q in range(length):
                    bounds[owner[q] + 1] += 1
    for i in range(count):
        bounds[i + 1] += bounds[i]
    indices = np.empty(bounds[count], np.int32)
    weights, merged = np.empty(bounds[count], np.float32), np.empty(bounds[count], np.float32)
    lengths = np.zeros(count, np.int32)
    mass, inner, centre = (
        np.zeros(count, np.float32),
        np.zeros(count, np.float32),
        np.zeros((count, 3), np.float32),
    )
    graph_excess, graph_absorption = np.zeros(count, np.float32), np.zeros(count, np.float32)
    position = np.zeros((count, 3), np.int32)
    for t in prange(shares):
        cells, (faces, ids, sums, owner, many), crossing = located(stencil), _scratch(), np.empty(3, np.int64)
        for row in range(t * rows // shares, (t + 1) * rows // shares):
            big_k, big_j = row // cy, row % cy
            for big_i in range(cx):
                if blocks[big_k, big_j, big_i] == EMPTY:
                    continue
                if regular(blocks, big_k, big_j, big_i) >= 0:
                    whole = blocks[big_k, big_j, big_i]
                    length = edges_of(
                        cells,
                        blocks,
                        corners,
                        halved,
                        big_k,
                        big_j,
                        big_i,
                        factors,
                        ids,
                        sums,
                        many,
                        crossing,
                    )
                    for q in range(length):
                        place = bounds[whole] + q
                        indices[place], weights[place], merged[place] = ids[q], sums[q], many[q]
                    lengths[whole] = length
                    d, e, a, unknowns, z, y, x = sums_of(
                        cells, absorption, excess, corners, halved, big_k, big_j, big_i, crossing, around
                    )
                    inner[whole], graph_excess[whole], graph_absorption[whole] = (
                        d * scale,
                        e * boundary,
                        a * scale,
                    )
                    mass[whole] = unknowns
                    centre[whole, 0], centre[whole, 1], centre[whole, 2] = z, y, x
                    position[whole, 0], position[whole, 1], position[whole, 2] = big_k, big_j, big_i
                    continue
                length = _parts(
                    cells, aggregate, halved, big_k, big_j, big_i, factors, faces, ids, sums, owner, many
                )
                for q in range(length):
                    place = bounds[owner[q]] + lengths[owner[q]]
                    lengths[owner[q]] += 1
                    indices[place], weights[place], merged[place] = ids[q], sums[q], many[q]
                for k in range(big_k << hz, min((big_k + 1) << hz, nz)):
                    for j in range(big_j << hy, min((big_j + 1) << hy, ny)):
                        for i in range(big_i << hx, min((big_i + 1) << hx, nx)):
                            mine = aggregate[k, j, i]
                            if mine < 0:
                                continue
                            if absorption.size > 0:
                                graph_absorption[mine] += absorption[k, j, i] * scale
                            if excess.size > 0:
                                graph_excess[mine] += excess[k, j, i] * boundary
                            else:
                                graph_excess[mine] += excess_of(cells, absorption, k, j, i) * boundary
                            inner[mine] += diagonal_of(cells, k, j, i) * scale
                            position[mine, 0], position[mine, 1], position[mine, 2] = big_k, big_j, big_i
                            mass[mine] += 1
                            centre[mine, 0] += k + 0.5
                            centre[mine, 1] += j + 0.5
                            centre[mine, 2] += i + 0.5
    for i in range(count):
        for axis in range(3):
            centre[i, axis] /= mass[i]
    indptr = _packed(bounds, lengths, indices, weights, merged)
    size = indptr[count]
    weights = weights[:size]
    return CoarseGraph(
        indptr, indices[:size], weights, weights, graph_excess, graph_absorption, position, merged[:size],
        mass, centre, inner, mass,
    )  # fmt: skip


@njit(cache=True)
def graph_to_grid(graph, diagonal, wz, wy, wx, absorption, excess):
    """Fill a `FaceStencil`, its absorption and its excess with a graph that has one unknown a block.

    All arrays are zero before.
    """
    indptr, indices, weights, position = graph.indptr, graph.indices, graph.weights, graph.position
    outside, absorbed = graph.excess, graph.absorption
    for i in range(indptr.size - 1):
        z, y, x = position[i, 0], position[i, 1], position[i, 2]
        total = np.float64(outside[i]) + absorbed[i]
        excess[z, y, x], absorption[z, y, x] = outside[i], absorbed[i]
        for q in range(indptr[i], indptr[i + 1]):
            j, w = indices[q], weights[q]
            total += w
            if position[j, 0] < z:
                wz[z, y, x] = w
            elif position[j, 1] < y:
                wy[z, y, x] = w
            elif position[j, 2] < x:
                wx[z, y, x] = w
        diagonal[z, y, x] = total
