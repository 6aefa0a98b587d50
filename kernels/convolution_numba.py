"""CPU kernels for causal convolutions of each channel by few taps, channels side by side.

Arrays are (groups, time, channels), ``weight`` (taps, channels), ``first`` (pieces, span, channels) with span
one tap less times the dilation, or none where nothing stands before; ``pieces`` (n, 3) names the sequences:
group, first time, last time and one.
"""

from numba import njit, prange

from learnsolve.kernels.pointers import address, read, write
from learnsolve.kernels.threads import INLINE, kernel

# Channels that one thread takes at a time.
BLOCK = 128


@njit(**INLINE)
def _add(array, place, w, i, x, j, count):
    """So many of ``array``, from ``place`` on, get ``w[i] x[j]`` more, and so on."""
    # What is added to is read and written by two addresses.
    before, after = address(array), address(array)
    for d in range(count):
        write(after, place + d, read(before, place + d) + read(w, i + d) * read(x, j + d))


@njit(**INLINE)
def _add_four(array, place, w, i, next_i, x, j, next_j, count):
    """The same of four such products, whose rows stand ``next_i`` and ``next_j`` apart."""
    before, after = address(array), address(array)
    i1, i2, i3 = i + next_i, i + 2 * next_i, i + 3 * next_i
    j1, j2, j3 = j + next_j, j + 2 * next_j, j + 3 * next_j
    for d in range(count):
        one = read(w, i + d) * read(x, j + d) + read(w, i1 + d) * read(x, j1 + d)
        two = read(w, i2 + d) * read(x, j2 + d) + read(w, i3 + d) * read(x, j3 + d)
        write(after, place + d, read(before, place + d) + (one + two))


@kernel
def convolve(x, weight, first, pieces, dilation, out, threads):
    """``out[t] = sum of weight[j] x[t - j dilation]``; ``out`` comes as zeros."""
    length, channels, span, taps = x.shape[1], x.shape[2], first.shape[1], weight.shape[0]
    blocks = (channels + BLOCK - 1) // BLOCK
    for job in prange(pieces.shape[0] * blocks):
        piece, low = job // blocks, (job % blocks) * BLOCK
        count = min(BLOCK, channels - low)
        begin, end = pieces[piece, 1], pieces[piece, 2]
        # Where the rows of time zero would stand.
        start, back = pieces[piece, 0] * length, piece * span + span - begin
        px, pw, pf = address(x), address(weight), address(first)
        apart = dilation * channels
        for t in range(begin, end):
            o = (start + t) * channels + low
            j = 0
            while j < taps:
                s, i = t - j * dilation, j * channels + low
                p = (start + s) * channels + low
                if j + 4 <= taps and s - 3 * dilation >= begin:
                    _add_four(out, o, pw, i, channels, px, p, -apart, count)
                    j += 4
                    continue
                if s >= begin:
                    _add(out, o, pw, i, px, p, count)
                elif span + s >= begin:
                    _add(out, o, pw, i, pf, (back + s) * channels + low, count)
                j += 1


@kernel
def convolve_adjoint(x, weight, first, pieces, dilation, dy, dx, dweight, dfirst, threads):
    """Gradients; ``dweight`` (pieces, taps, channels) has each sequence's share, and all come as zeros."""
    length, channels, span, taps = x.shape[1], x.shape[2], first.shape[1], weight.shape[0]
    blocks = (channels + BLOCK - 1) // BLOCK
    for job in prange(pieces.shape[0] * blocks):
        piece, low = job // blocks, (job % blocks) * BLOCK
        count = min(BLOCK, channels - low)
        begin, end = pieces[piece, 1], pieces[piece, 2]
        start, back = pieces[piece, 0] * length, piece * span + span - begin
        px, pw, pf, py = address(x), address(weight), address(first), address(dy)
        apart, weights = dilation * channels, piece * taps * channels + low
        for s in range(begin, end):
            o = (start + s) * channels + low
            j = 0
            while j < taps:
                t, i = s + j * dilation, j * channels + low
                p = (start + t) * channels + low
                if j + 4 <= taps and t + 3 * dilation < end:
                    _add_four(dx, o, pw, i, channels, py, p, apart, count)
                    j += 4
                    continue
                if t < end:
                    _add(dx, o, pw, i, py, p, count)
                j += 1
        # Four times go together where all of a tap's are of the sequence itself.
        for t in range(begin, end, 4):
            for j in range(taps):
                k, s = weights + j * channels, t - j * dilation
                y, p = (start + t) * channels + low, (start + s) * channels + low
                if s >= begin and t + 4 <= end:
                    _add_four(dweight, k, py, y, channels, px, p, channels, count)
                    continue
                for u in range(min(4, end - t)):
                    y, p = (start + t + u) * channels + low, (start + s + u) * channels + low
                    if s + u >= begin:
                        _add(dweight, k, py, y, px, p, count)
                    elif span + s + u >= begin:
                        p = (back + s + u) * channels + low
                        _add(dweight, k, py, y, pf, p, count)
                        _add(dfirst, p, pw, j * channels + low, py, y, count)
