"""CPU kernels of the learned multigrid's set-up: what the network says of each edge and coarse unknown.

Most of a domain looks alike, and what looks alike is computed once. Every unknown has a key, made of what
the network is told of it and, after each round of messages, of its neighbours' keys too; unknowns of one key
form a class, and the network runs on one of each class. Features are rounded to 1 / `STEPS` for their key.
"""

from typing import Any, NamedTuple

import numpy as np
from numba import njit, prange

from learnsolve.kernels.copies_numba import copy_matrix
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
def relu(value):
    """``max(value, 0)`` of a float32, as arithmetic, which becomes instructions on vectors."""
    return np.float32(0.5) * (value + abs(value))


@njit(**INLINE)
def _exp(x):
    """The exponential of a float32 between -16 and 16, as arithmetic; to 1e-6 of it where ``|x|`` is below 5.

    Pade's approximant of ``exp(x / 16)`` of degree 3 over 3, squared four times.
    """
    r = x * np.float32(1 / 16)
    even = np.float32(1) + r * r * np.float32(0.1)
    odd = r * (np.float32(0.5) + r * r * np.float32(1 / 120))
    root = (even + odd) / (even - odd)
    root *= root
    root *= root
    root *= root
    return root * root


@njit(**INLINE)
def _bounded(value, bound):
    """The exponential of ``bound tanh(value / bound)``."""
    twice = max(min(np.float32(2) * value / bound, np.float32(16)), np.float32(-16))
    return _exp(bound - np.float32(2) * bound / (np.float32(1) + _exp(twice)))


@njit(fastmath=MATH, cache=True)
def _multiplied(logarithms, plain, least, bound, begin, end):
    """Weights in place of the logarithms of their factors."""
    x, w, out = address(logarithms), address(plain), address(logarithms)
    for q in range(begin, end):
        write(out, q, read(w, q) * _bounded(max(read(x, q), least), bound))


@njit(**INLINE)
def mixed(key):
    """A key's bits, spread (the finalizer of splitmix64)."""
    key = (key ^ (key >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    key = (key ^ (key >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return key ^ (key >> np.uint64(31))


@njit(**INLINE)
def key_of(features, count):
    """Of features, rounded: an odd number."""
    key = np.uint64(0)
    for f in range(count):
        key = key * np.uint64(0x9E3779B97F4A7C15) + np.uint64(np.int64(np.rint(features[f] * STEPS)))
    return mixed(key) | np.uint64(1)


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
def _bits(value):
    """A float32 as a whole number, for keys."""
    return np.uint64(np.float32(value).view(np.uint32))


@njit(**INLINE)
def _edge_look(told, strongest, i, q):
    """A key of all from which an edge's features are made, the same from both ends."""
    (_, indices, weights, merged), (_, _, _, _, _, centre), _ = told
    j = read(indices, q)
    key = _bits(read(weights, q)) * np.uint64(0x9E3779B97F4A7C15) + _bits(read(merged, q))
    key = key * np.uint64(0xBF58476D1CE4E5B9) + _bits(max(strongest[i], strongest[j]))
    key = key * np.uint64(0x94D049BB133111EB) + _bits(min(strongest[i], strongest[j]))
    for a in range(3):
        step = abs(read(centre, 3 * i + a) - read(centre, 3 * j + a))
        key = key * np.uint64(0xD6E8FEB86659FD93) + _bits(step)
    return mixed(key) | np.uint64(1)


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
def _joint(features, matrix, out, at):
    """What an edge's features give its multiplier, into row ``at`` of ``out``."""
    _layer(
        address(features),
        0,
        address(matrix),
        0,
        EDGE_FEATURES * WIDTH,
        EDGE_FEATURES,
        address(out),
        at * WIDTH,
    )


@njit(**INLINE)
def _coupling(joint, at, paired, i, j, out, row):
    """The logarithm of an edge's multiplier; ``i`` and ``j`` are the classes of its ends."""
    total = np.float32(0)
    for k in range(WIDTH):
        value = read(joint, at + k) + read(paired, i * WIDTH + k) + read(paired, j * WIDTH + k)
        total += relu(value) * read(out, row + k)
    return total + read(out, row + WIDTH)


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
def products(h, matrix):
    """``h W``."""
    out, zeros = np.empty_like(h), np.zeros((WIDTH + 1, WIDTH), np.float32)
    # A product without bias takes its bias from a row of zeros after the matrix.
    copy_matrix(matrix, zeros)
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
            keys[i] = key_of(features, NODE_FEATURES)
    # Both directions of an edge are as one: a half finds the other, its twin, once.
    twins = np.empty(m, np.int32)
    for t in prange(threads):
        told, features = _told(graph, sizes, kids, sides), np.empty(EDGE_FEATURES, np.float32)
        known, found = np.zeros(CACHE, np.uint64), np.empty(CACHE, np.uint64)
        for i in range(t * n // threads, (t + 1) * n // threads):
            for q in range(indptr[i], indptr[i + 1]):
                j = indices[q]
                if j < i:
                    continue
                p = indptr[j]
                while indices[p] != i:
                    p += 1
                raw = _edge_look(told, strongest, i, q)
                slot = raw >> np.uint64(50)
                if known[slot] != raw:
                    known[slot] = raw
                    _edge_features(told, strongest, i, q, features)
                    found[slot] = key_of(features, EDGE_FEATURES)
                twins[q] = p
                edge_keys[q], edge_keys[p] = found[slot], found[slot]
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
                grown[i] = mixed(keys[i] * np.uint64(0x9E3779B97F4A7C15) + total) | np.uint64(1)
        keys = grown
        first = _classes(keys, classes)
        sent, new = products(h, weights.sender[r]), np.empty((first.size, WIDTH), np.float32)
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
    paired, lifted = products(h, weights.pair), np.empty(first.size, np.float32)
    for c in range(first.size):
        value = weights.own[deep, WIDTH]
        for k in range(WIDTH):
            value += h[c, k] * weights.own[deep, k]
        lifted[c] = _bounded(max(value, least), bound)
    for t in prange(threads):
        told = _told(graph, sizes, kids, sides)
        features, mask = np.empty(EDGE_FEATURES, np.float32), np.uint64(CACHE - 1)
        known, joints = np.zeros(CACHE, np.uint64), np.empty((CACHE, WIDTH), np.float32)
        sums, out, row = address(paired), address(weights.coupling), deep * (WIDTH + 1)
        for i in range(t * n // threads, (t + 1) * n // threads):
            excess[i] = boundary[i] * lifted[classes[i]]
            for q in range(indptr[i], indptr[i + 1]):
                j = indices[q]
                if j < i:
                    couplings[q] = 0
                    continue
                slot = (edge_keys[q] >> np.uint64(40)) & mask
                if known[slot] != edge_keys[q]:
                    known[slot] = edge_keys[q]
                    _edge_features(told, strongest, i, q, features)
                    _joint(features, weights.joint, joints, slot)
                couplings[q] = _coupling(
                    address(joints), slot * WIDTH, sums, classes[i], classes[j], out, row
                )
        begin, end = indptr[t * n // threads], indptr[(t + 1) * n // threads]
        _multiplied(couplings, plain, least, bound, begin, end)
    for t in prange(threads):
        for i in range(t * n // threads, (t + 1) * n // threads):
            for q in range(indptr[i], indptr[i + 1]):
                # From the other end it would be rounded otherwise, and the matrix is to be symmetric.
                if indices[q] > i:
                    couplings[twins[q]] = couplings[q]
    return h
