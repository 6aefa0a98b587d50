"""CPU kernels that coarsen a graph of the multigrid, by aggregation along strong couplings."""

from typing import Any, NamedTuple

import numpy as np
from numba import njit


class CoarseGraph(NamedTuple):
    """A level of the multigrid below the grid: ``n`` unknowns and ``m`` directed edges.

    ``(A x)_i = (sum_j w_ij + e_i + a_i) x_i - sum_j w_ij x_j``

    Attributes
    ----------
    indptr, indices : (n + 1,) and (m,) int32
        A symmetric CSR pattern without diagonal.
    weights : (m,) float32
        Of the edges, positive.
    plain : (m,) float32
        The weights as they would be had no level been tuned; by them it is decided what is aggregated.
    excess, absorption : (n,) float32
        Coupling to boundary values, and what else stands on the diagonal.
    position : (n, 3) int32
        The block in which an unknown lies.
    merged : (m,) float32
        How many faces of the finest grid an edge stands for.
    mass : (n,) float32
        How many cells of the finest grid an unknown stands for.
    centre : (n, 3) float32
        The mean of their centres, in cells.
    inner : (n,) float32
        The sum of the diagonal over an unknown's children.
    kids : (n,) float32
        How many children it has.
    """

    indptr: Any
    indices: Any
    weights: Any
    plain: Any
    excess: Any
    absorption: Any
    position: Any
    merged: Any
    mass: Any
    centre: Any
    inner: Any
    kids: Any


@njit(cache=True)
def renumber(graph, order, aggregate):
    """The graph with unknown ``order[p]`` as number ``p``; ``aggregate``, which points into it, follows."""
    indptr, indices = graph.indptr, graph.indices
    before, straight, many = graph.weights, graph.plain, graph.merged
    n = order.size
    place, start = np.empty(n, np.int32), np.zeros(n + 1, np.int32)
    for p in range(n):
        place[order[p]] = p
        start[p + 1] = start[p] + indptr[order[p] + 1] - indptr[order[p]]
    to = np.empty_like(indices)
    weights, plain, merged = np.empty_like(before), np.empty_like(straight), np.empty_like(many)
    for p in range(n):
        end = start[p]
        for q in range(indptr[order[p]], indptr[order[p] + 1]):
            to[end] = place[indices[q]]
            weights[end], plain[end], merged[end] = before[q], straight[q], many[q]
            end += 1
    for i in range(aggregate.size):
        if aggregate[i] >= 0:
            aggregate[i] = place[aggregate[i]]
    return CoarseGraph(
        start, to, weights, plain, graph.excess[order], graph.absorption[order], graph.position[order],
        merged, graph.mass[order], graph.centre[order], graph.inner[order], graph.kids[order],
    )  # fmt: skip


@njit(cache=True)
def _find(root, i):
    while root[i] != i:
        root[i] = root[root[i]]
        i = root[i]
    return i


@njit(cache=True)
def _mirror(indptr, indices, values):
    """Give both directions of an edge one value: sums in another order round differently."""
    for i in range(indptr.size - 1):
        for q in range(indptr[i], indptr[i + 1]):
            j = indices[q]
            if j > i:
                for p in range(indptr[j], indptr[j + 1]):
                    if indices[p] == i:
                        values[p] = values[q]


@njit(cache=True)
def coarsen_graph(graph, keys, order, halved, boundary, theta):
    """Aggregate a graph within blocks (equal ``keys``; ``order`` sorts them) along strong couplings.

    Unknowns without a neighbour need no coarse grid and get -1. Returns the aggregates and the coarse graph.
    """
    indptr, indices, weights, plain = graph.indptr, graph.indices, graph.weights, graph.plain
    excess, absorption, position = graph.excess, graph.absorption, graph.position
    mass_of, centre_of, merged_of = graph.mass, graph.centre, graph.merged
    n = indptr.size - 1
    strongest, root = np.zeros(n, np.float32), np.arange(n)
    for i in range(n):
        for q in range(indptr[i], indptr[i + 1]):
            strongest[i] = max(strongest[i], plain[q])
    for i in range(n):
        for q in range(indptr[i], indptr[i + 1]):
            j = indices[q]
            if j < i and keys[i] == keys[j] and plain[q] >= theta * np.sqrt(strongest[i] * strongest[j]):
                root[_find(root, i)] = _find(root, j)
    aggregate = np.full(n, -1, np.int32)
    count = 0
    for q in range(n):
        i = order[q]
        if indptr[i] == indptr[i + 1]:
            continue
        r = _find(root, i)
        if aggregate[r] < 0:
            aggregate[r] = count
            count += 1
        aggregate[i] = aggregate[r]
    heads = np.zeros(count + 1, np.int32)
    for i in range(n):
        heads[aggregate[i] + 1] += 1
    heads[0] = 0
    heads = np.cumsum(heads)
    children, place = np.empty(n, np.int32), heads[:-1].copy()
    for i in range(n):
        if aggregate[i] >= 0:
            children[place[aggregate[i]]] = i
            place[aggregate[i]] += 1
    coarse_indptr = np.zeros(count + 1, np.int32)
    coarse_indices, coarse_weights = np.empty(indices.size, np.int32), np.empty(indices.size, np.float32)
    coarse_plain = np.empty(indices.size, np.float32)
    coarse_excess, coarse_absorption = np.zeros(count, np.float32), np.zeros(count, np.float32)
    coarse_position = np.zeros((count, 3), np.int32)
    merged, mass, kids = (
        np.empty(indices.size, np.float32),
        np.zeros(count, np.float32),
        np.zeros(count, np.float32),
    )
    centre, inner = np.zeros((count, 3), np.float32), np.zeros(count, np.float32)
    mark = np.full(count, -1, np.int64)
    end = 0
    for c in range(count):
        begin = end
        for h in range(heads[c], heads[c + 1]):
            i = children[h]
            coarse_excess[c] += excess[i] * boundary
            coarse_absorption[c] += absorption[i]
            inner[c] += excess[i] + absorption[i]
            mass[c] += mass_of[i]
            kids[c] += 1
            for a in range(3):
                coarse_position[c, a] = position[i, a] >> halved[a]
                centre[c, a] += mass_of[i] * centre_of[i, a]
            for q in range(indptr[i], indptr[i + 1]):
                j = indices[q]
                other = aggregate[j]
                inner[c] += weights[q]
                if other == c:
                    continue
                factor = 0.5
                for a in range(3):
                    if position[i, a] != position[j, a] and not halved[a]:
                        factor = 1.0
                if mark[other] < begin:
                    mark[other] = end
                    coarse_indices[end] = other
                    coarse_weights[end] = weights[q] * factor
                    coarse_plain[end] = plain[q] * factor
                    merged[end] = merged_of[q]
                    end += 1
                else:
                    coarse_weights[mark[other]] += weights[q] * factor
                    coarse_plain[mark[other]] += plain[q] * factor
                    merged[mark[other]] += merged_of[q]
        coarse_indptr[c + 1] = end
        for a in range(3):
            centre[c, a] /= mass[c]
    _mirror(coarse_indptr, coarse_indices, coarse_weights)
    _mirror(coarse_indptr, coarse_indices, coarse_plain)
    coarse = CoarseGraph(
        coarse_indptr, coarse_indices[:end].copy(), coarse_weights[:end].copy(), coarse_plain[:end].copy(),
        coarse_excess, coarse_absorption, coarse_position, merged[:end].copy(), mass, centre, inner, kids,
    )  # fmt: skip
    return aggregate, coarse
