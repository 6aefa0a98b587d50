"""CPU kernels of the learned multigrid's set-up: what the network says of each edge, unknown and cell.

Most of a domain looks alike, and what looks alike is computed once. Every unknown has a key, made of what
the network is told of it and, after each round of messages, of its neighbours' keys too; unknowns of one key
form a class, and the network runs on one of each class. Features are rounded to 1 / `STEPS` for their key.
"""

from typing import Any, NamedTuple

import numpy as np
from numba import njit, prange

from learnsolve.kernels.faces_numba import diagonal_of, faces_of, located, look_of, shape_of
from learnsolve.kernels.pointers import address, read, write
from learnsolve.kernels.threads import INLINE, MATH, kernel

NODE_FEATURES, EDGE_FEATURES, CELL_FEATURES = 6, 5, 5
STEPS = np.float32(4096)
CACHE = 1 << 14  # places of a table that forgets, a power of two
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
    pair, joint, coupling : (WIDTH, WIDTH), (EDGE_FEATURES + 1, WIDTH), (2, WIDTH + 1)
        From two embeddings and their edge to the edge's logarithm, on the first coarse level and below.
    own : (2, WIDTH + 1)
        From an embedding to the logarithm of the excess, on the first coarse level and below.
    cell, parent, relaxation : (CELL_FEATURES + 1, WIDTH), (WIDTH, WIDTH), (WIDTH + 1, 4)
        From a cell of the finest grid and the embedding of its coarse unknown to the logits of its
        over-relaxations.
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
    parent: Any
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


@njit(**INLINE)
def _mixed(key):
    """A key's bits, spread (the finalizer of splitmix64)."""
    key = (key ^ (key >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    key = (key ^ (key >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return key ^ (key >> np.uint64(31))


@njit(**INLINE)
def _key(features, count):
    """Of features, rounded: an odd number."""
    key = np.uint64(0)
    for f in range(count):
        key = key * np.uint64(0x9E3779B97F4A7C15) + np.uint64(np.int64(np.rint(features[f] * STEPS)))
    return _mixed(key) | np.uint64(1)


@njit(**INLINE)
def _node_features(told, i, out):
    """Fills ``out``; returns the largest coupling."""
    (indptr, _, weights, _), (excess, absorption, inner, mass, kids, _), (_, volume, full, sides) = told
    outside, high = read(excess, i) + read(absorption, i), np.float32(0)
    total, lo, hi = outside, read(indptr, i), read(indptr, i + 1)
    for q in range(lo, hi):
        total += read(weights, q)
        high = max(high, read(weights, q))
    total, high = max(total, np.float32(1e-30)), max(high, np.float32(1e-30))
    out[0] = read(mass, i) / volume
    out[1] = read(kids, i) / full
    out[2] = outside / total
    out[3] = np.sqrt(total / max(read(inner, i), total * np.float32(1e-3)))
    out[4] = (hi - lo) / sides
    out[5] = np.sqrt(sides * high / (total + sides * high))
    return high


@njit(**INLINE)
def _edge_features(told, strongest, i, q, out):
    (_, indices, weights, merged), (_, _, _, _, _, centre), (block, volume, _, _) = told
    j, w = read(indices, q), read(weights, q)
    high, low = max(strongest[i], strongest[j]), min(strongest[i], strongest[j])
    out[0] = np.sqrt(w / high)
    out[1] = np.sqrt(w / low)
    far, total, longest = np.float32(-1), np.float32(0), np.float32(1)
    for a in range(3):
        step = abs(read(centre, 3 * i + a) - read(centre, 3 * j + a)) / block[a]
        total += step * step
        if step > far:
            far, longest = step, block[a]
    out[2] = read(merged, q) * longest / volume
    out[3] = far - np.float32(1)
    out[4] = np.sqrt(total) - far


@njit(**INLINE)
def _told(graph, block, kids, sides):
    """Where a graph's arrays are, and the sizes of a full block, for the functions of features.

    An array inside a tuple costs two atomic counts of references whenever it is read.
    """
    edges = address(graph.indptr), address(graph.indices), address(graph.weights), address(graph.merged)
    nodes = (
        address(graph.excess), address(graph.absorption), address(graph.inner), address(graph.mass),
        address(graph.kids), address(graph.centre),
    )  # fmt: skip
    return edges, nodes, (block, block[0] * block[1] * block[2], kids, sides)


@njit(cache=True)
def _classes(keys, found):
    """Number each unknown's class into ``found``; returns one unknown of each class."""
    n = keys.size
    size = 1
    while size < 2 * n:
        size *= 2
    table, mask = np.full(size, -1, np.int32), np.uint64(size - 1)
    first, count = np.empty(n, np.int64), 0
    for i in range(n):
        slot = keys[i] & mask
        while table[slot] >= 0 and keys[first[table[slot]]] != keys[i]:
            slot = (slot + np.uint64(1)) & mask
        if table[slot] < 0:
            table[slot] = count
            first[count] = i
            count += 1
        found[i] = table[slot]
    return first[:count].copy()


@njit(fastmath=MATH, cache=True)
def _hear(features, sent, place, matrix, start, total):
    """``total += relu(sent + what the edge says)``."""
    features, sent, matrix = address(features), address(sent), address(matrix)
    before, out, bias = address(total), address(total), start + EDGE_FEATURES * WIDTH
    for k in range(WIDTH):
        value = read(matrix, bias + k) + read(sent, place * WIDTH + k)
        for f in range(EDGE_FEATURES):
            value += read(features, f) * read(matrix, start + f * WIDTH + k)
        write(out, k, read(before, k) + max(value, np.float32(0)))


@njit(fastmath=MATH, cache=True)
def _coupling(features, paired, i, j, matrix, out, deep):
    """The logarithm of an edge's multiplier; ``i`` and ``j`` are the classes of its ends."""
    features, paired, matrix, out = address(features), address(paired), address(matrix), address(out)
    row, bias = deep * (WIDTH + 1), EDGE_FEATURES * WIDTH
    total = read(out, row + WIDTH)
    for k in range(WIDTH):
        value = read(matrix, bias + k) + (read(paired, i * WIDTH + k) + read(paired, j * WIDTH + k))
        for f in range(EDGE_FEATURES):
            value += read(features, f) * read(matrix, f * WIDTH + k)
        total += max(value, np.float32(0)) * read(out, row + k)
    return total


@njit(fastmath=MATH, cache=True)
def _embeddings(told, first, matrix):
    """The first embeddings of unknowns."""
    h, features = np.empty((first.size, WIDTH), np.float32), np.empty(NODE_FEATURES, np.float32)
    for c in range(first.size):
        _node_features(told, first[c], features)
        rows, x, out = address(matrix), address(features), address(h)
        _layer(x, 0, rows, 0, NODE_FEATURES * WIDTH, NODE_FEATURES, out, c * WIDTH)
        for k in range(WIDTH):
            h[c, k] = max(h[c, k], np.float32(0))
    return h


@njit(fastmath=MATH, cache=True)
def _products(h, matrix):
    """``h W``."""
    out, zeros = np.empty_like(h), np.zeros((WIDTH + 1, WIDTH), np.float32)
    # A product without bias takes its bias from a row of zeros after the matrix.
    zeros[:WIDTH] = matrix
    for i in range(h.shape[0]):
        _layer(address(h), i * WIDTH, address(zeros), 0, WIDTH * WIDTH, WIDTH, address(out), i * WIDTH)
    return out


@njit(fastmath=MATH, cache=True)
def _update(h, i, keeping, taking, r, total, sides, new, at):
    """``new_at = relu(h_i W + b + total / sides V)``."""
    keep, take = r * (WIDTH + 1) * WIDTH, r * WIDTH * WIDTH
    bias = keep + WIDTH * WIDTH
    _layer(address(h), i * WIDTH, address(keeping), keep, bias, WIDTH, address(new), at * WIDTH)
    matrix, heard = address(taking), address(total)
    before, out = address(new), address(new)
    for k in range(WIDTH):
        value = np.float32(0)
        for m in range(WIDTH):
            value += read(heard, m) * read(matrix, take + m * WIDTH + k)
        write(out, at * WIDTH + k, max(read(before, at * WIDTH + k) + value / sides, np.float32(0)))


@kernel
def predict(graph, block, kids, sides, bound, deep, weights, couplings, excess, classes, threads):
    """What the network says of a coarse level.

    ``block`` is the size of a full block in cells, ``kids`` how many children it has, ``sides`` how many
    neighbours; ``deep`` is 0 for the first coarse level and 1 below, where no factor is less than one. Fills
    ``couplings`` and ``excess``, which take the places of the graph's weights and excess, and ``classes``
    (int32): each unknown's class. Returns the embeddings of the classes, ``(C, WIDTH)``.
    """
    indptr, indices, plain, boundary = graph.indptr, graph.indices, graph.weights, graph.excess
    n, m, rounds = indptr.size - 1, indices.size, weights.edge.shape[0]
    strongest, sizes = np.empty(n, np.float32), (block[0], block[1], block[2])
    keys, edge_keys = np.empty(n, np.uint64), np.empty(m, np.uint64)
    for t in prange(threads):
        told, features = _told(graph, sizes, kids, sides), np.empty(NODE_FEATURES, np.float32)
        for i in range(t * n // threads, (t + 1) * n // threads):
            strongest[i] = _node_features(told, i, features)
            keys[i] = _key(features, NODE_FEATURES)
    for t in prange(threads):
        told, features = _told(graph, sizes, kids, sides), np.empty(EDGE_FEATURES, np.float32)
        for i in range(t * n // threads, (t + 1) * n // threads):
            for q in range(indptr[i], indptr[i + 1]):
                _edge_features(told, strongest, i, q, features)
                edge_keys[q] = _key(features, EDGE_FEATURES)
    first = _classes(keys, classes)
    h = _embeddings(_told(graph, sizes, kids, sides), first, weights.node)
    for r in range(rounds):
        before, grown = classes.copy(), np.empty(n, np.uint64)
        for t in prange(threads):
            for i in range(t * n // threads, (t + 1) * n // threads):
                total = np.uint64(0)
                # In any order of the neighbours: keys are odd, so that products lose nothing.
                for q in range(indptr[i], indptr[i + 1]):
                    total += keys[indices[q]] * edge_keys[q]
                grown[i] = _mixed(keys[i] * np.uint64(0x9E3779B97F4A7C15) + total) | np.uint64(1)
        keys = grown
        first = _classes(keys, classes)
        sent, new = _products(h, weights.sender[r]), np.empty((first.size, WIDTH), np.float32)
        for t in prange(threads):
            told = _told(graph, sizes, kids, sides)
            heard, features = np.empty(WIDTH, np.float32), np.empty(EDGE_FEATURES, np.float32)
            start = r * (EDGE_FEATURES + 1) * WIDTH
            for c in range(t * first.size // threads, (t + 1) * first.size // threads):
                i = first[c]
                heard[:] = 0
                for q in range(indptr[i], indptr[i + 1]):
                    _edge_features(told, strongest, i, q, features)
                    _hear(features, sent, before[indices[q]], weights.edge, start, heard)
                _update(h, before[i], weights.keep, weights.take, r, heard, sides, new, c)
        h = new
    least = np.float32(0 if deep else -np.inf)
    paired, lifted = _products(h, weights.pair), np.empty(first.size, np.float32)
    for c in range(first.size):
        value = weights.own[deep, WIDTH]
        for k in range(WIDTH):
            value += h[c, k] * weights.own[deep, k]
        lifted[c] = _bounded(max(value, least), bound)
    for t in prange(threads):
        told = _told(graph, sizes, kids, sides)
        features, mask = np.empty(EDGE_FEATURES, np.float32), np.uint64(CACHE - 1)
        known, values = np.zeros(CACHE, np.uint64), np.empty(CACHE, np.float32)
        for i in range(t * n // threads, (t + 1) * n // threads):
            excess[i] = boundary[i] * lifted[classes[i]]
            for q in range(indptr[i], indptr[i + 1]):
                j = indices[q]
                if j < i:
                    continue
                key = (keys[i] + keys[j]) * edge_keys[q]
                slot = (key >> np.uint64(40)) & mask
                if known[slot] != key:
                    _edge_features(told, strongest, i, q, features)
                    value = _coupling(
                        features, paired, classes[i], classes[j], weights.joint, weights.coupling, deep
                    )
                    known[slot], values[slot] = key, _bounded(max(value, least), bound)
                couplings[q] = plain[q] * values[slot]
                # Rounding differs from the other end, and the matrix is to be symmetric to the last bit.
                for p in range(indptr[j], indptr[j + 1]):
                    if indices[p] == i:
                        couplings[p] = couplings[q]
    return h


@njit(fastmath=MATH, cache=True)
def _cell_features(faces, d, sides, out):
    total, high, low, open_faces = 0.0, 0.0, np.inf, 0
    for f in range(6):
        if faces[f] > 0:
            open_faces += 1
            total += faces[f]
            high, low = max(high, faces[f]), min(low, faces[f])
    out[0] = max(d - total, 0.0) / d
    out[1] = open_faces / sides
    out[2] = high / d
    out[3] = low / d if open_faces > 0 else 0.0
    out[4] = np.sqrt(low / high) if open_faces > 0 else 1.0


@njit(fastmath=MATH, cache=True)
def _relax_cell(features, told, place, cell, relaxation, logits, out, at):
    """The four over-relaxations of a cell whose coarse unknown's row of ``told`` begins at ``place``."""
    x, told, cell, relaxation = address(features), address(told), address(cell), address(relaxation)
    before, total = address(logits), address(logits)
    for f in range(4):
        write(total, f, read(relaxation, WIDTH * 4 + f))
    for h in range(WIDTH):
        hidden = read(cell, CELL_FEATURES * WIDTH + h) + read(told, place + h)
        for f in range(CELL_FEATURES):
            hidden += read(x, f) * read(cell, f * WIDTH + h)
        hidden = max(hidden, np.float32(0))
        before, total = address(logits), address(logits)
        for f in range(4):
            write(total, f, read(before, f) + hidden * read(relaxation, h * 4 + f))
    for f in range(4):
        out[at, f] = _over_relaxation(logits[f])


@kernel
def relax_cells(stencil, aggregate, classes, embeddings, weights, scale, relaxation, threads):
    """Each cell's over-relaxation by diagonal in two sweeps, into ``relaxation``, ``(2, nz, ny, nx)``.

    It is zero on inactive cells. ``classes`` and ``embeddings`` are those of `predict` for the unknowns in
    ``aggregate``; ``scale`` is that of the level's matrix over the stencil.
    """
    nz, ny, nx = shape_of(stencil)
    rows = nz * ny
    sides = 2 * (int(nz > 1) + int(ny > 1) + int(nx > 1))
    told = _products(embeddings, weights.parent)
    for t in prange(threads):
        cells, faces, before = located(stencil), np.empty(6, np.float64), np.full(6, np.nan)
        x, logits = np.empty(CELL_FEATURES, np.float32), np.empty(4, np.float32)
        omega, d = np.empty(4, np.float64), 0.0
        known, values = np.zeros(CACHE, np.uint64), np.empty((CACHE, 4), np.float32)
        mask, look, group = np.uint64(CACHE - 1), -1, -1
        for row in range(t * rows // threads, (t + 1) * rows // threads):
            k, j = row // ny, row % ny
            for i in range(nx):
                if aggregate[k, j, i] < 0:
                    relaxation[0, k, j, i] = 0
                    relaxation[1, k, j, i] = 0
                    continue
                mine, looks = classes[aggregate[k, j, i]], look_of(cells, k, j, i)
                same = mine == group and looks == look
                if looks < 0:
                    faces_of(cells, k, j, i, faces)
                    same = same and diagonal_of(cells, k, j, i) == d
                    for f in range(6):
                        same = same and faces[f] == before[f]
                        before[f] = faces[f]
                if not same:
                    group, look, d = mine, looks, diagonal_of(cells, k, j, i) * 1.0
                    if looks < 0:
                        _cell_features(faces, d, sides, x)
                        key = _mixed(_key(x, CELL_FEATURES) * np.uint64(2 * mine + 1))
                    else:
                        key = _mixed(np.uint64((np.int64(mine) << 14 | looks) + 1))
                    slot = key & mask
                    if known[slot] != key:
                        known[slot] = key
                        if looks >= 0:
                            faces_of(cells, k, j, i, faces)
                            _cell_features(faces, d, sides, x)
                        _relax_cell(
                            x, told, mine * WIDTH, weights.cell, weights.relaxation, logits, values, slot
                        )
                    for f in range(4):
                        omega[f] = values[slot, f] / (d * scale)
                colour = (k + j + i) & 1
                relaxation[0, k, j, i] = omega[colour]
                relaxation[1, k, j, i] = omega[2 + colour]
