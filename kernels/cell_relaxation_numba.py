"""CPU kernels of the learned multigrid's set-up: what the network says of each cell of the finest grid."""

import numpy as np
from numba import njit, prange

from learnsolve.kernels.coupling_numba import CACHE, CELL_FEATURES, WIDTH, key_of, products, relu
from learnsolve.kernels.faces_numba import diagonal_of, faces_of, located, looks_of, shape_of
from learnsolve.kernels.pointers import address, read, write
from learnsolve.kernels.stencil import RELAXATION_UNIT
from learnsolve.kernels.threads import INLINE, MATH, kernel


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
def _seen(features, matrix, out, at):
    """What a cell's features give its embedding, into row ``at`` of ``out``."""
    x, matrix, out = address(features), address(matrix), address(out)
    for k in range(WIDTH):
        total = read(matrix, CELL_FEATURES * WIDTH + k)
        for f in range(CELL_FEATURES):
            total += read(x, f) * read(matrix, f * WIDTH + k)
        write(out, at * WIDTH + k, total)


@njit(**INLINE)
def _logits(seen, at, told, place, heads, out, to):
    """Four numbers for a cell: ``seen`` has it from ``at`` on, and ``told`` its unknown from ``place`` on."""
    row = WIDTH + 1
    a, b, c, d = (
        read(heads, row - 1),
        read(heads, 2 * row - 1),
        read(heads, 3 * row - 1),
        read(heads, 4 * row - 1),
    )
    for k in range(WIDTH):
        hidden = relu(read(seen, at + k) + read(told, place + k))
        a += hidden * read(heads, k)
        b += hidden * read(heads, row + k)
        c += hidden * read(heads, 2 * row + k)
        d += hidden * read(heads, 3 * row + k)
    write(out, to, a)
    write(out, to + 1, b)
    write(out, to + 2, c)
    write(out, to + 3, d)


@njit(**INLINE)
def _over_relaxations(logits, out, count):
    """``2 / (1 + exp(-x))`` of ``count`` numbers over `RELAXATION_UNIT`, with ``x`` held between -4 and 4.

    It is ``1 + tanh(x / 2)`` by Lambert's continued fraction to seven terms, which is off by 1e-7 at most.
    """
    before, out = address(logits), address(out)
    one = np.float32(1 / RELAXATION_UNIT)
    for i in range(count):
        y = max(min(np.float32(0.5) * read(before, i), np.float32(2)), np.float32(-2))
        s = y * y
        high = np.float32(135135) + s * (np.float32(17325) + s * (np.float32(378) + s))
        low = np.float32(135135) + s * (np.float32(62370) + s * (np.float32(3150) + s * np.float32(28)))
        write(out, i, np.int16(one + one * y * high / low + np.float32(0.5)))


@kernel
def relax_cells(stencil, aggregate, classes, embeddings, weights, relaxation, threads):
    """Each cell's over-relaxation in two sweeps, as `learnsolve.kernels.grid.smooth` takes it.

    It goes into ``relaxation``, ``(2, nz, ny, nx)``, and is zero on inactive cells. ``classes`` and
    ``embeddings`` are those of `learnsolve.kernels.coupling_numba.predict` for the unknowns in ``aggregate``.
    """
    nz, ny, nx = shape_of(stencil)
    rows = nz * ny
    sides = 2 * (int(nz > 1) + int(ny > 1) + int(nx > 1))
    told, heads = products(embeddings, weights.parent), np.ascontiguousarray(weights.relaxation.T)
    for t in prange(threads):
        cells, faces, x = located(stencil), np.empty(6, np.float64), np.empty(CELL_FEATURES, np.float32)
        known, seen = np.zeros(CACHE, np.uint64), np.empty((CACHE, WIDTH), np.float32)
        mask, looks = np.uint64(CACHE - 1), np.empty(nx, np.int32)
        # A row's cells that are not as the one before them: the four numbers of each, and who takes them.
        logits, omega, fresh = (
            np.empty((nx, 4), np.float32),
            np.empty((nx, 4), np.int16),
            np.zeros(nx, np.int64),
        )
        for row in range(t * rows // threads, (t + 1) * rows // threads):
            k, j = row // ny, row % ny
            looks_of(cells, k, j, looks)
            count, group, look = 0, -1, 0
            for i in range(nx):
                if aggregate[k, j, i] < 0:
                    continue
                mine = classes[aggregate[k, j, i]]
                if mine != group or looks[i] != look:
                    group, look = mine, looks[i]
                    key = np.uint64(look + 1)
                    if look < 0:
                        faces_of(cells, k, j, i, faces)
                        _cell_features(faces, diagonal_of(cells, k, j, i) * 1.0, sides, x)
                        key = key_of(x, CELL_FEATURES)
                    slot = key & mask
                    if known[slot] != key:
                        known[slot] = key
                        if look >= 0:
                            faces_of(cells, k, j, i, faces)
                            _cell_features(faces, diagonal_of(cells, k, j, i) * 1.0, sides, x)
                        _seen(x, weights.cell, seen, slot)
                    _logits(
                        address(seen), slot * WIDTH, address(told), mine * WIDTH, address(heads),
                        address(logits), 4 * count,
                    )  # fmt: skip
                    count += 1
                fresh[i] = count - 1
            _over_relaxations(logits, omega, 4 * count)
            # A word holds the four numbers of a cell: two colours in the first sweep, two in the second.
            words, who, parents = address(omega.view(np.int64)), address(fresh), address(aggregate)
            first, second, place = address(relaxation), address(relaxation), row * nx
            for i in range(nx):
                word = read(words, read(who, i)) >> 16 * ((k + j + i) & 1)
                word = word if read(parents, place + i) >= 0 else 0
                write(first, place + i, np.int16(word))
                write(second, rows * nx + place + i, np.int16(word >> 32))
