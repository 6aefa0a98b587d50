"""CPU kernels for shallow piecewise-linear maps: orbits that are drawn to data, and their gradients.

`LANES` sequences go side by side, and lie so in memory: (states, lanes). All is shaped as in
`learnsolve.kernels.shplrnn`, but ``first`` (B, 1, M). Lanes beyond the last sequence do the last one's work,
and add nothing to gradients. Within, both matrices are (H, M), the first of them transposed, and H is a
multiple of `GROUP`, for which there are units that do nothing.
"""

import numpy as np
from numba import njit, prange

from learnsolve.kernels.lanes import LANES, larger, load, spread, store, total, where_number, where_positive
from learnsolve.kernels.pointers import address, read, write
from learnsolve.kernels.threads import INLINE, kernel

GROUP = 4


@njit(**INLINE)
def by_units(w1, w2, h2):
    """Both matrices (H, M), and h2, with some hidden units that do nothing."""
    states, hidden = w1.shape
    padded = (hidden + GROUP - 1) // GROUP * GROUP
    leave, enter = np.zeros((padded, states), h2.dtype), np.zeros((padded, states), h2.dtype)
    bias = np.zeros(padded, h2.dtype)
    for h in range(hidden):
        bias[h] = h2[h]
        for m in range(states):
            leave[h, m], enter[h, m] = w1[m, h], w2[h, m]
    return leave, enter, bias


@njit(**INLINE)
def gather(x, low, t, out):
    """``out[m, lane] = x[low + lane, t, m]``, of a block's sequences."""
    batch, length, states = x.shape
    source, o = address(x), address(out)
    for lane in range(LANES):
        i = (min(low + lane, batch - 1) * length + t) * states
        for m in range(states):
            write(o, m * LANES + lane, read(source, i + m))


@njit(**INLINE)
def _scatter(x, low, t, out):
    """``out[low + lane, t, m] = x[m, lane]``."""
    batch, length, states = out.shape
    source, o = address(x), address(out)
    for lane in range(min(LANES, batch - low)):
        i = ((low + lane) * length + t) * states
        for m in range(states):
            write(o, i + m, read(source, m * LANES + lane))


@njit(**INLINE)
def drawn(targets, alpha, low, t, room, z):
    """States drawn to what was observed; where nothing was, they stay."""
    gather(targets, low, t, room)
    wanted, x = address(room), address(z)
    strength, rest = spread(alpha), spread(z.dtype.type(1) - alpha)
    for i in range(0, room.size, LANES):
        free, target = load(x, i), load(wanted, i)
        store(x, i, where_number(target, rest * free + strength * target, free))


@njit(**INLINE)
def sums_of(w, x, h, states, zero):
    """``sum over m of w[h, m] x[m]`` for four units."""
    s0, s1, s2, s3 = zero, zero, zero, zero
    i = h * states
    for m in range(states):
        one = load(x, m * LANES)
        s0 = s0 + spread(read(w, i + m)) * one
        s1 = s1 + spread(read(w, i + states + m)) * one
        s2 = s2 + spread(read(w, i + 2 * states + m)) * one
        s3 = s3 + spread(read(w, i + 3 * states + m)) * one
    return s0, s1, s2, s3


@njit(**INLINE)
def _active(s, b, zero, clipped):
    """What a hidden unit gives of its sum."""
    on = larger(s + b, zero)
    return on - larger(s, zero) if clipped else on


@njit(**INLINE)
def step(a, w1, w2, h1, h2, clipped, z, out):
    """One time: ``out = a z + w1 active + h1``; all are addresses but ``h2``."""
    states, hidden = len(a), len(h2)
    decay, enter, leave, shift, bias = address(a), address(w2), address(w1), address(h1), address(h2)
    x, y, zero = address(z), address(out), spread(a.dtype.type(0))
    for m in range(states):
        store(y, m * LANES, spread(read(decay, m)) * load(x, m * LANES) + spread(read(shift, m)))
    for h in range(0, hidden, GROUP):
        s0, s1, s2, s3 = sums_of(enter, x, h, states, zero)
        a0 = _active(s0, spread(read(bias, h)), zero, clipped)
        a1 = _active(s1, spread(read(bias, h + 1)), zero, clipped)
        a2 = _active(s2, spread(read(bias, h + 2)), zero, clipped)
        a3 = _active(s3, spread(read(bias, h + 3)), zero, clipped)
        i = h * states
        for m in range(states):
            one = spread(read(leave, i + m)) * a0 + spread(read(leave, i + states + m)) * a1
            two = spread(read(leave, i + 2 * states + m)) * a2 + spread(read(leave, i + 3 * states + m)) * a3
            store(y, m * LANES, load(y, m * LANES) + (one + two))


@njit(**INLINE)
def add(x, out):
    """``out`` gets ``x`` more."""
    source, o = address(x), address(out)
    for i in range(0, x.size, LANES):
        store(o, i, load(o, i) + load(source, i))


@kernel
def orbit(a, w1, w2, h1, h2, first, targets, drive, alpha, every, clipped, out, threads):
    """States (B, T, M) of all times, each before it is drawn to its target."""
    batch, length, states = out.shape
    for block in prange((batch + LANES - 1) // LANES):
        low = block * LANES
        leave, enter, bias = by_units(w1, w2, h2)
        z, room = np.empty((states, LANES), a.dtype), np.empty((states, LANES), a.dtype)
        after = np.empty((states, LANES), a.dtype)
        gather(first, low, 0, z)
        for t in range(length):
            step(a, leave, enter, h1, bias, clipped, z, after)
            if drive.shape[1] > 0:
                gather(drive, low, t, room)
                add(room, after)
            _scatter(after, low, t, out)
            z, after = after, z
            if targets.shape[1] > 0 and (t + 1) % every == 0:
                drawn(targets, alpha, low, t, room, z)


@njit(**INLINE)
def _passed(s, b, slope, zero, clipped):
    """What goes on through a unit's activations, and its share of the gradient by ``b``."""
    on = where_positive(s + b, slope, zero)
    return (on - where_positive(s, slope, zero) if clipped else on), on


@njit(**INLINE)
def more(out, place, x, y):
    """``out[place]`` gets ``x y`` more."""
    store(out, place, load(out, place) + x * y)


@njit(**INLINE)
def _back(a, w1, w2, h2, clipped, z, slope, dw1, dw2, dh2, before):
    """Shares of one time in the gradients of the weights, and ``before``, slopes of the state before."""
    states, hidden = len(a), len(h2)
    decay, enter, leave, bias = address(a), address(w2), address(w1), address(h2)
    x, dy, out, zero = address(z), address(slope), address(before), spread(a.dtype.type(0))
    left, entered, shifted = address(dw1), address(dw2), address(dh2)
    for m in range(states):
        store(out, m * LANES, spread(read(decay, m)) * load(dy, m * LANES))
    for h in range(0, hidden, GROUP):
        s0, s1, s2, s3 = sums_of(enter, x, h, states, zero)
        g0, g1, g2, g3 = sums_of(leave, dy, h, states, zero)
        b0, b1 = spread(read(bias, h)), spread(read(bias, h + 1))
        b2, b3 = spread(read(bias, h + 2)), spread(read(bias, h + 3))
        a0, a1 = _active(s0, b0, zero, clipped), _active(s1, b1, zero, clipped)
        a2, a3 = _active(s2, b2, zero, clipped), _active(s3, b3, zero, clipped)
        g0, o0 = _passed(s0, b0, g0, zero, clipped)
        g1, o1 = _passed(s1, b1, g1, zero, clipped)
        g2, o2 = _passed(s2, b2, g2, zero, clipped)
        g3, o3 = _passed(s3, b3, g3, zero, clipped)
        i = h * LANES
        store(shifted, i, load(shifted, i) + o0)
        store(shifted, i + LANES, load(shifted, i + LANES) + o1)
        store(shifted, i + 2 * LANES, load(shifted, i + 2 * LANES) + o2)
        store(shifted, i + 3 * LANES, load(shifted, i + 3 * LANES) + o3)
        for m in range(states):
            down, state = load(dy, m * LANES), load(x, m * LANES)
            i = h * states + m
            i1, i2, i3 = i + states, i + 2 * states, i + 3 * states
            one = spread(read(enter, i)) * g0 + spread(read(enter, i1)) * g1
            two = spread(read(enter, i2)) * g2 + spread(read(enter, i3)) * g3
            store(out, m * LANES, load(out, m * LANES) + (one + two))
            more(left, i * LANES, a0, down)
            more(left, i1 * LANES, a1, down)
            more(left, i2 * LANES, a2, down)
            more(left, i3 * LANES, a3, down)
            more(entered, i * LANES, g0, state)
            more(entered, i1 * LANES, g1, state)
            more(entered, i2 * LANES, g2, state)
            more(entered, i3 * LANES, g3, state)


@njit(**INLINE)
def _freed(target, alpha, slope):
    """Slopes of drawn states are those of free ones times what is left of these."""
    wanted, x, rest = address(target), address(slope), spread(slope.dtype.type(1) - alpha)
    for i in range(0, target.size, LANES):
        free = load(x, i)
        store(x, i, where_number(load(wanted, i), rest * free, free))


@njit(**INLINE)
def _times(x, y, out):
    """``out`` gets ``x y`` more."""
    one, two, o = address(x), address(y), address(out)
    for i in range(0, out.size, LANES):
        more(o, i, load(one, i), load(two, i))


@njit(**INLINE)
def _totals(x, count, out, at):
    """Sums over lanes of the first ``count`` of ``x``, from ``at`` on."""
    source, o = address(x), address(out)
    for i in range(count):
        write(o, at + i, total(load(source, i * LANES)))


@njit(**INLINE)
def _gathered(da, dw1, dw2, dh1, dh2, hidden, out):
    """Sums over lanes of all gradients, one after the other, in the shapes of the weights."""
    width = len(da)
    size = hidden * width
    _totals(da, width, out, 0)
    left = address(dw1)
    for h in range(hidden):
        for m in range(width):
            out[width + m * hidden + h] = total(load(left, (h * width + m) * LANES))
    _totals(dw2, size, out, width + size)
    _totals(dh1, width, out, width + 2 * size)
    _totals(dh2, hidden, out, 2 * width + 2 * size)


@kernel
def orbit_adjoint(
    a, w1, w2, h2, first, targets, alpha, every, clipped, states, dy, shares, dfirst, ddrive, threads
):
    """Gradients; of a, w1, w2, h1 and h2, one after the other, ``shares`` (blocks, ...) have each block's."""
    length, width, hidden, kind = states.shape[1], len(a), len(h2), a.dtype
    for block in prange(len(shares)):
        low = block * LANES
        leave, enter, bias = by_units(w1, w2, h2)
        z, slope = np.empty((width, LANES), kind), np.empty((width, LANES), kind)
        before, room = np.zeros((width, LANES), kind), np.empty((width, LANES), kind)
        da, dh1 = np.zeros((width, LANES), kind), np.zeros((width, LANES), kind)
        dw1, dw2 = np.zeros((len(bias), width, LANES), kind), np.zeros((len(bias), width, LANES), kind)
        dh2 = np.zeros((len(bias), LANES), kind)
        for t in range(length - 1, -1, -1):
            if targets.shape[1] > 0 and (t + 1) % every == 0:
                gather(targets, low, t, room)
                _freed(room, alpha, before)
            gather(dy, low, t, slope)
            for m in range(width):
                for lane in range(len(dy) - low, LANES):
                    slope[m, lane] = 0
            add(before, slope)
            if t > 0:
                gather(states, low, t - 1, z)
                if targets.shape[1] > 0 and t % every == 0:
                    drawn(targets, alpha, low, t - 1, room, z)
            else:
                gather(first, low, 0, z)
            _times(slope, z, da)
            add(slope, dh1)
            if ddrive.shape[1] > 0:
                _scatter(slope, low, t, ddrive)
            _back(a, leave, enter, bias, clipped, z, slope, dw1, dw2, dh2, before)
        _scatter(before, low, 0, dfirst)
        _gathered(da, dw1, dw2, dh1, dh2, hidden, shares[block])


@njit(**INLINE)
def _toward(target, alpha, forced, free, before, slope, more):
    """States go on from ``free``, drawn to their targets; ``slope`` is the error, and squares add up."""
    wanted, z, x, dy, sums = address(target), address(free), address(before), address(slope), address(more)
    strength, rest = spread(alpha), spread(free.dtype.type(1) - alpha)
    zero, one = spread(free.dtype.type(0)), spread(free.dtype.type(1))
    for i in range(0, free.size, LANES):
        state, aim = load(z, i), load(wanted, i)
        error = where_number(aim, state - aim, zero)
        store(dy, i, error)
        store(sums, 0, load(sums, 0) + error * error)
        store(sums, LANES, load(sums, LANES) + where_number(aim, one, zero))
        if forced:
            state = where_number(aim, rest * state + strength * aim, state)
        store(x, i, state)


@kernel
def error(a, w1, w2, h1, h2, first, targets, alpha, every, clipped, shares, threads):
    """Half the squared errors of states before they are drawn to their targets, and gradients by weights.

    ``shares`` (blocks, ...) have each block's gradients, as of `orbit_adjoint`, and then the sum of squares
    and the number of targets that are known.
    """
    batch, length, width = targets.shape
    hidden, kind = len(h2), a.dtype
    for block in prange(len(shares)):
        low = block * LANES
        leave, enter, bias = by_units(w1, w2, h2)
        aims, slopes = np.empty((length, width, LANES), kind), np.empty((length, width, LANES), kind)
        states, free = np.empty((length + 1, width, LANES), kind), np.empty((width, LANES), kind)
        more = np.zeros((2, LANES), kind)
        gather(first, low, 0, states[0])
        for t in range(length):
            gather(targets, low, t, aims[t])
            for m in range(width):
                for lane in range(batch - low, LANES):
                    aims[t, m, lane] = np.nan
            step(a, leave, enter, h1, bias, clipped, states[t], free)
            _toward(aims[t], alpha, (t + 1) % every == 0, free, states[t + 1], slopes[t], more)
        before, da, dh1 = (
            np.zeros((width, LANES), kind),
            np.zeros((width, LANES), kind),
            np.zeros((width, LANES), kind),
        )
        dw1, dw2 = np.zeros((len(bias), width, LANES), kind), np.zeros((len(bias), width, LANES), kind)
        dh2 = np.zeros((len(bias), LANES), kind)
        for t in range(length - 1, -1, -1):
            if (t + 1) % every == 0:
                _freed(aims[t], alpha, before)
            slope = slopes[t]
            add(before, slope)
            _times(slope, states[t], da)
            add(slope, dh1)
            _back(a, leave, enter, bias, clipped, states[t], slope, dw1, dw2, dh2, before)
        mine = shares[block]
        _gathered(da, dw1, dw2, dh1, dh2, hidden, mine)
        _totals(more, 2, mine, 2 * width * (hidden + 1) + hidden)
