"""CPU kernels of the learned multigrid's set-up: what the network says of each edge, unknown and cell."""

from typing import Any, NamedTuple

import numpy as np
from numba import njit, prange

from learnsolve.kernels.coarsen_numba import diagonal_of, faces_of, shape_of
from learnsolve.kernels.pointers import address, read, write
from learnsolve.kernels.threads import INLINE, MATH, kernel

NODE_FEATURES, EDGE_FEATURES, CELL_FEATURES = 6, 5, 5
WIDTH = 16  # of all embeddings: a constant, so that the loops over them become vectors


class Weights(NamedTuple):
    """Parameters of a `CouplingNetwork`, float32; matrices take a row vector from the left.

    Attributes
    ----------
    node : (NODE_FEATURES + 1, WIDTH)
        Into the first embedding; the last row of a matrix of one more row than inputs is its bias.
    sender, edge, keep, take : (R, ...)
        Of the rounds of messages: ``(WIDTH, WIDTH)``, ``(EDGE_FEATURES + 1, WIDTH)``, ``(WIDTH + 1, WIDTH)``
        and ``(WIDTH, WIDTH)``.
    pair, joint, coupling : (WIDTH, WIDTH), (EDGE_FEATURES + 1, WIDTH), (WIDTH + 1,)
        From two embeddings and their edge to the edge's logarithm.
    own : (WIDTH + 1, 5)
        From an embedding to the logarithm of the excess and the logits of the over-relaxations.
    cell, relaxation : (CELL_FEATURES + 1, WIDTH), (WIDTH + 1, 4)
        From a cell of the finest grid to the logits of its over-relaxations.
    """

    node: Any
    sender: Any
    edge: Any
    keep: Any
    take: Any
    pair: Any
    joint: Any
    coupling: Any
    own: Any
    cell: Any
    relaxation: Any


@njit(**INLINE)
def _layer(x, place, matrix, start, bias, inputs, out, at):
    """``out[at + k] = bias[k] + sum_m x[place + m] W[m, k]`` for all ``k`` of an embedding."""
    for k in range(WIDTH):
        total = read(matrix, bias + k)
        for m in range(inputs):
            total += read(x, place + m) * read(matrix, start + m * WIDTH + k)
        write(out, at + k, total)


@njit(**INLINE)
def _bounded(value, bound):
    """The exponential of ``value``, which grows no larger than ``bound`` nor smaller than its negative."""
    return np.exp(bound * np.tanh(value / bound))


@njit(**INLINE)
def _over_relaxation(logit):
    """Between 0 and 2."""
    return np.float32(2) / (np.float32(1) + np.exp(-max(min(logit, np.float32(4)), np.float32(-4))))


@njit(fastmath=MATH, cache=True)
def _node_features(graph, volume, kids, sides, i, strongest, out):
    total, high = graph.excess[i] + graph.absorption[i], np.float32(0)
    outside = total
    for q in range(graph.indptr[i], graph.indptr[i + 1]):
        total += graph.weights[q]
        high = max(high, graph.weights[q])
    total, high = max(total, np.float32(1e-30)), max(high, np.float32(1e-30))
    strongest[i] = high
    out[0] = graph.mass[i] / volume
    out[1] = graph.kids[i] / kids
    out[2] = outside / total
    out[3] = np.sqrt(total / max(graph.inner[i], total * np.float32(1e-3)))
    out[4] = (graph.indptr[i + 1] - graph.indptr[i]) / sides
    out[5] = np.sqrt(sides * high / (total + sides * high))


@njit(fastmath=MATH, cache=True)
def _edge_features(graph, strongest, block, volume, i, q, out):
    j, w = graph.indices[q], graph.weights[q]
    high, low = max(strongest[i], strongest[j]), min(strongest[i], strongest[j])
    far, total, axis = np.float32(-1), np.float32(0), 0
    for a in range(3):
        step = abs(graph.centre[i, a] - graph.centre[j, a]) / block[a]
        total += step * step
        if step > far:
            far, axis = step, a
    out[q, 0] = np.sqrt(w / high)
    out[q, 1] = np.sqrt(w / low)
    out[q, 2] = graph.merged[q] * block[axis] / volume
    out[q, 3] = far - np.float32(1)
    out[q, 4] = np.sqrt(total) - far


@njit(fastmath=MATH, cache=True)
def _hear(indptr, indices, edges, sent, matrix, start, i, total):
    """``total = sum_j relu(sent_j + what the edge says)`` over the neighbours of ``i``."""
    indices, edges, sent = address(indices), address(edges), address(sent)
    matrix = address(matrix)
    bias = start + EDGE_FEATURES * WIDTH
    out = address(total)
    for k in range(WIDTH):
        write(out, k, np.float32(0))
    for q in range(indptr[i], indptr[i + 1]):
        at, j = q * EDGE_FEATURES, read(indices, q) * WIDTH
        out, before = address(total), address(total)
        for k in range(WIDTH):
            value = read(matrix, bias + k) + read(sent, j + k)
            for f in range(EDGE_FEATURES):
                value += read(edges, at + f) * read(matrix, start + f * WIDTH + k)
            write(out, k, read(before, k) + max(value, np.float32(0)))


@njit(fastmath=MATH, cache=True)
def _coupling(indices, edges, paired, matrix, out, i, q):
    """The logarithm of an edge's multiplier."""
    indices, edges, paired = address(indices), address(edges), address(paired)
    matrix, out = address(matrix), address(out)
    at, j, i, bias = q * EDGE_FEATURES, read(indices, q) * WIDTH, i * WIDTH, EDGE_FEATURES * WIDTH
    total = read(out, WIDTH)
    for k in range(WIDTH):
        value = read(matrix, bias + k) + (read(paired, i + k) + read(paired, j + k))
        for f in range(EDGE_FEATURES):
            value += read(edges, at + f) * read(matrix, f * WIDTH + k)
        total += max(value, np.float32(0)) * read(out, k)
    return total


@njit(fastmath=MATH, cache=True)
def _embed(nodes, weights, i, h):
    matrix = address(weights.node)
    out = address(h)
    bias = NODE_FEATURES * WIDTH
    _layer(address(nodes), i * NODE_FEATURES, matrix, 0, bias, NODE_FEATURES, out, i * WIDTH)
    for k in range(WIDTH):
        h[i, k] = max(h[i, k], np.float32(0))


@njit(fastmath=MATH, cache=True)
def _product(h, matrix, start, zero, i, out):
    """``out_i = h_i W``."""
    _layer(address(h), i * WIDTH, address(matrix), start, zero, WIDTH, address(out), i * WIDTH)


@njit(fastmath=MATH, cache=True)
def _update(h, weights, r, total, sides, i, new):
    """``h_i = relu(h_i W + b + total / sides V)``."""
    keep, take = r * (WIDTH + 1) * WIDTH, r * WIDTH * WIDTH
    bias = keep + WIDTH * WIDTH
    _layer(address(h), i * WIDTH, address(weights.keep), keep, bias, WIDTH, address(new), 0)
    matrix, heard = address(weights.take), address(total)
    before, out = address(new), address(h)
    for k in range(WIDTH):
        value = np.float32(0)
        for m in range(WIDTH):
            value += read(heard, m) * read(matrix, take + m * WIDTH + k)
        write(out, i * WIDTH + k, max(read(before, k) + value / sides, np.float32(0)))


@njit(fastmath=MATH, cache=True)
def _alike(features, i, pattern):
    """Whether row ``i`` is the pattern, to the last bit."""
    for f in range(pattern.size):
        if features[i, f] != pattern[f]:
            return False
    return True


@njit(cache=True)
def _usual(nodes, indptr):
    """An unknown that looks as most do, where most look the same, by Boyer and Moore's vote."""
    chosen, votes = 0, 0
    for i in range(nodes.shape[0]):
        if indptr[i] == indptr[i + 1]:
            continue
        if votes == 0:
            chosen = i
        votes += 1 if _alike(nodes, i, nodes[chosen]) else -1
    return chosen


@kernel
def predict(graph, block, kids, sides, bound, weights, couplings, excess, omega, threads):
    """What the network says of a coarse level.

    ``block`` is the size of a full block in cells, ``kids`` how many children it has, ``sides`` how many
    neighbours. Fills ``couplings`` and ``excess``, which take the places of the graph's weights and excess,
    and ``omega`` of shape ``(n, 4)``: over-relaxations for the first and the other colours of two sweeps.
    """
    n, m, rounds = graph.indptr.size - 1, graph.indices.size, weights.edge.shape[0]
    strongest, nodes = np.empty(n, np.float32), np.empty((n, NODE_FEATURES), np.float32)
    edges = np.empty((m, EDGE_FEATURES), np.float32)
    h, u = np.empty((n, WIDTH), np.float32), np.empty((n, WIDTH), np.float32)
    # A product without bias takes its bias from a row of zeros after the matrix.
    sender = np.zeros((rounds + 1, WIDTH, WIDTH), np.float32)
    sender[:rounds] = weights.sender
    pair = np.zeros((WIDTH + 1, WIDTH), np.float32)
    pair[:WIDTH] = weights.pair
    volume = block[0] * block[1] * block[2]
    for t in prange(threads):
        for i in range(t * n // threads, (t + 1) * n // threads):
            _node_features(graph, volume, kids, sides, i, strongest, nodes[i])
            _embed(nodes, weights, i, h)
    for t in prange(threads):
        for i in range(t * n // threads, (t + 1) * n // threads):
            for q in range(graph.indptr[i], graph.indptr[i + 1]):
                _edge_features(graph, strongest, block, volume, i, q, edges)
    # Most of a domain is alike, and what is alike is computed once.
    usual = _usual(nodes, graph.indptr)
    node, edge = nodes[usual].copy(), np.zeros(EDGE_FEATURES, np.float32)
    if m > 0:
        edge[:] = edges[graph.indptr[usual]]
    regular = np.zeros((rounds + 1, n), np.bool_)
    for t in prange(threads):
        for i in range(t * n // threads, (t + 1) * n // threads):
            regular[0, i] = _alike(nodes, i, node)
    for r in range(rounds):
        for t in prange(threads):
            for i in range(t * n // threads, (t + 1) * n // threads):
                same = regular[r, i]
                if same:
                    for q in range(graph.indptr[i], graph.indptr[i + 1]):
                        same = same and regular[r, graph.indices[q]] and (r > 0 or _alike(edges, q, edge))
                regular[r + 1, i] = same
    for r in range(rounds):
        for t in prange(threads):
            known = -1
            for i in range(t * n // threads, (t + 1) * n // threads):
                if regular[r, i] and known >= 0:
                    u[i] = u[known]
                    continue
                _product(h, sender, r * WIDTH * WIDTH, rounds * WIDTH * WIDTH, i, u)
                known = i if regular[r, i] else known
        for t in prange(threads):
            total, new = np.empty(WIDTH, np.float32), np.empty(WIDTH, np.float32)
            start, known = r * (EDGE_FEATURES + 1) * WIDTH, -1
            for i in range(t * n // threads, (t + 1) * n // threads):
                if regular[r + 1, i] and known >= 0:
                    h[i] = h[known]
                    continue
                _hear(graph.indptr, graph.indices, edges, u, weights.edge, start, i, total)
                _update(h, weights, r, total, sides, i, new)
                known = i if regular[r + 1, i] else known
    for t in prange(threads):
        for i in range(t * n // threads, (t + 1) * n // threads):
            _product(h, pair, 0, WIDTH * WIDTH, i, u)
    for t in prange(threads):
        own, known, factor, lifted = np.empty(5, np.float32), -1, np.float32(0), np.float32(1)
        for i in range(t * n // threads, (t + 1) * n // threads):
            for q in range(graph.indptr[i], graph.indptr[i + 1]):
                j = graph.indices[q]
                if j < i:
                    continue
                both = regular[rounds, i] and regular[rounds, j]
                if not both or factor == 0:
                    value = _coupling(graph.indices, edges, u, weights.joint, weights.coupling, i, q)
                    multiplier = _bounded(value, bound)
                    factor = multiplier if both else factor
                else:
                    multiplier = factor
                couplings[q] = graph.weights[q] * multiplier
                # Rounding differs from the other end, and the matrix is to be symmetric to the last bit.
                for p in range(graph.indptr[j], graph.indptr[j + 1]):
                    if graph.indices[p] == i:
                        couplings[p] = couplings[q]
            if regular[rounds, i] and known >= 0:
                excess[i] = graph.excess[i] * lifted
                omega[i] = omega[known]
                continue
            known = i if regular[rounds, i] else known
            for f in range(5):
                own[f] = weights.own[WIDTH, f]
                for k in range(WIDTH):
                    own[f] += h[i, k] * weights.own[k, f]
            raised = _bounded(own[0], bound)
            lifted = raised if regular[rounds, i] else lifted
            excess[i] = graph.excess[i] * raised
            for f in range(4):
                omega[i, f] = _over_relaxation(own[1 + f])


@kernel
def relax_cells(stencil, weights, scale, relaxation, threads):
    """Each cell's over-relaxation by diagonal in two sweeps, into ``relaxation``, ``(2, nz, ny, nx)``.

    It is zero on inactive cells; ``scale`` is that of the level's matrix over the stencil.
    """
    nz, ny, nx = shape_of(stencil)
    rows = nz * ny
    sides = 2 * (int(nz > 1) + int(ny > 1) + int(nx > 1))
    for t in prange(threads):
        faces, x, before = (
            np.empty(6, np.float64),
            np.empty(CELL_FEATURES, np.float32),
            np.empty(6, np.float64),
        )
        hidden, omega = np.empty(WIDTH, np.float32), np.empty(4, np.float32)
        before[:] = np.nan
        last = np.nan
        for row in range(t * rows // threads, (t + 1) * rows // threads):
            k, j = row // ny, row % ny
            for i in range(nx):
                d = diagonal_of(stencil, k, j, i) * 1.0
                if d == 0:
                    relaxation[0, k, j, i] = 0
                    relaxation[1, k, j, i] = 0
                    continue
                faces_of(stencil, k, j, i, faces)
                same = d == last
                for f in range(6):
                    same = same and faces[f] == before[f]
                if not same:
                    last, total, high, low, open_faces = d, 0.0, 0.0, np.inf, 0
                    for f in range(6):
                        before[f] = faces[f]
                        if faces[f] > 0:
                            open_faces += 1
                            total += faces[f]
                            high, low = max(high, faces[f]), min(low, faces[f])
                    x[0] = max(d - total, 0.0) / d
                    x[1] = open_faces / sides
                    x[2] = high / d
                    x[3] = low / d if open_faces > 0 else 0.0
                    x[4] = np.sqrt(low / high) if open_faces > 0 else 1.0
                    for h in range(WIDTH):
                        hidden[h] = weights.cell[CELL_FEATURES, h]
                        for f in range(CELL_FEATURES):
                            hidden[h] += x[f] * weights.cell[f, h]
                    for f in range(4):
                        logit = weights.relaxation[WIDTH, f]
                        for h in range(WIDTH):
                            logit += max(hidden[h], np.float32(0)) * weights.relaxation[h, f]
                        omega[f] = _over_relaxation(logit)
                colour = (k + j + i) & 1
                relaxation[0, k, j, i] = omega[colour] / (d * scale)
                relaxation[1, k, j, i] = omega[2 + colour] / (d * scale)
