"""The learned multigrid in operations that autograd can follow: for training, and as a reference."""

from dataclasses import dataclass

import numpy as np
import scipy.sparse
import torch
from torch import Tensor

from learnsolve.operators import GridPoisson
from learnsolve.preconditioners.coupling_network import CouplingNetwork, Tuned, Unknowns
from learnsolve.preconditioners.multigrid import MultigridCycle
from learnsolve.preconditioners.multigrid_levels import GraphLevel
from learnsolve.preconditioners.multigrid_setup import Coarsening


@dataclass
class Level:
    """What does not depend on the network, of one level of ``n`` unknowns.

    Attributes
    ----------
    i, j : (m,) int64 Tensor
        Ends of the edges, each once.
    colours : list of (rows, targets, sources, edges)
        For each colour its unknowns and, for each directed edge into one, the place of the unknown among
        them, the other end and the edge.
    parent : (n,) int64 Tensor or None
        The coarse unknown; -1 for none.
    cross, into, factor : Tensor
        Edges that become coarse ones, which ones, and by what they are scaled.
    mass, centre, merged, kids, place : Tensor
        As in `learnsolve.kernels.coarsen_graph_numba.CoarseGraph`, the third for undirected edges, the last
        its ``position``; of the finest level the cells.
    block, full, boundary : (3,) Tensor, int, float
        Of the step that made the level: size of its blocks in cells, children of a whole one, and what a
        coupling to a boundary value counts.
    tuned : bool
        Whether a network corrects the level.
    """

    n: int
    i: Tensor
    j: Tensor
    colours: list[tuple[Tensor, Tensor, Tensor, Tensor]]
    mass: Tensor
    centre: Tensor
    merged: Tensor
    kids: Tensor
    place: Tensor
    block: Tensor
    full: int = 1
    boundary: float = 1.0
    tuned: bool = False
    parent: Tensor | None = None
    cross: Tensor | None = None
    into: Tensor | None = None
    factor: Tensor | None = None


@dataclass
class Values:
    """What depends on network and coefficients: couplings, excess, absorption, diagonal, relaxation."""

    w: Tensor
    e: Tensor
    a: Tensor
    d: Tensor
    relaxation: Tensor
    inverse: Tensor | None = None


class UnrolledMultigrid:
    """The cycle of `LearnedMultigrid` on a domain, differentiable in the network and the coefficients.

    The coarsest level is always solved directly.

    Parameters
    ----------
    A : GridPoisson
        Real; its coefficients may require gradients.
    cycle : MultigridCycle
        The cycle whose aggregates are taken, made so that all its coarse levels are graphs.

    Raises
    ------
    ValueError
        The cycle has no coarse level, or one that is a grid.
    """

    def __init__(self, A: GridPoisson, cycle: MultigridCycle) -> None:
        if not cycle.coarsenings or len(cycle.coarsenings) + 1 != len(cycle.levels):
            raise ValueError("the cycle must have coarse levels, and all of them must be graphs")
        self.A, self.scale = A, cycle.scale
        self.active = A.active
        self.levels = [_finest(A)]
        for step, level in zip(cycle.coarsenings, cycle.levels[1:], strict=True):
            order = _colours(level) if isinstance(level, GraphLevel) else None
            self.levels.append(_below(self.levels[-1], step, order))

    def fine(self, dtype: torch.dtype = torch.float64) -> Values:
        """The finest level without relaxation."""
        level, A = self.levels[0], self.A
        dims = A.cells.ndim
        weights = []
        for axis in range(dims):
            count = A.cells.shape[axis] - 1
            both = A.active.narrow(axis, 1, count) & A.active.narrow(axis, 0, count)
            found = A.faces(axis).narrow(axis, 1, count)[both]
            weights.append(found[found > 0])
        w = torch.cat(weights).to(dtype) * self.scale
        d = A.diagonal()[A.active].to(dtype) * self.scale
        a = torch.zeros_like(d)
        if A.absorption is not None:
            a = A.absorption.expand(A.cells.shape)[A.active].to(dtype) * self.scale
        e = d - _ends(w, level) - a
        e = torch.where(e > 1e-10 * d, e, torch.zeros_like(e))
        return Values(w, e, a, d, torch.zeros(0))

    def set_up(self, network: CouplingNetwork, dtype: torch.dtype = torch.float64) -> list[Values]:
        """The levels as the network makes them."""
        found = [self.fine(dtype)]
        for place in range(1, len(self.levels)):
            level, above = self.levels[place], found[-1]
            w, e, a = self._summed(place, above)
            if level.tuned:
                tuned = self._tuned(place, above.d, w, e, a, network)
                w, e = w * tuned.multiplier.to(dtype), e * tuned.excess.to(dtype)
                if place == 1:
                    parent = self.levels[0].parent
                    assert parent is not None
                    cells = self._cells(above).to(network.node.dtype)
                    omega = network.cells(cells, tuned.embedding[parent]).to(dtype)
                    above.relaxation = self._relaxation(omega, above.d)
            found.append(self._values(place, w, e, a))
        return found

    def _tuned(
        self, place: int, above: Tensor, w: Tensor, e: Tensor, a: Tensor, network: CouplingNetwork
    ) -> Tuned:
        """What the network says of a level; ``above`` is the diagonal over it."""
        inside = network.node.dtype
        inner = _gathered(above, self.levels[place - 1], self.levels[place].n)
        told = self._told(self.levels[place], w, e, a, inner)
        told = told._replace(nodes=told.nodes.to(inside), edges=told.edges.to(inside))
        return network.unknowns(told, deep=place > 1)

    def _cells(self, top: Values) -> Tensor:
        level = self.levels[0]
        sides = 2 * sum(extent > 1 for extent in self.A.cells.shape)
        open_faces = _ends(torch.ones_like(top.w), level)
        high, low = _extremes(top.w, level)
        ratio = torch.where(open_faces > 0, (low / high.clamp(min=1e-30)).sqrt(), 1.0)
        d = top.d.clamp(min=1e-30)
        return torch.stack([(top.e + top.a) / d, open_faces / sides, high / d, low / d, ratio], 1)

    def _relaxation(self, omega: Tensor, d: Tensor) -> Tensor:
        """Of the finest level, ``(2, n)``."""
        later = torch.ones(d.numel(), dtype=torch.long)
        later[self.levels[0].colours[0][0]] = 0
        chosen = [omega.gather(1, (2 * sweep + later)[:, None])[:, 0] for sweep in range(2)]
        return _over_diagonal(torch.stack(chosen), d)

    def _summed(self, place: int, above: Values) -> tuple[Tensor, Tensor, Tensor]:
        """Couplings, excess and absorption of a coarse level as they are without a network."""
        upper, level = self.levels[place - 1], self.levels[place]
        assert upper.cross is not None and upper.into is not None and upper.factor is not None
        w = torch.zeros(level.i.numel(), dtype=above.w.dtype)
        w = w.index_add(0, upper.into, above.w[upper.cross] * upper.factor)
        e, a = (_gathered(field, upper, level.n) for field in (above.e, above.a))
        return w, e * level.boundary, a

    def _values(self, place: int, w: Tensor, e: Tensor, a: Tensor) -> Values:
        """A coarse level of such couplings."""
        level = self.levels[place]
        d = _ends(w, level) + e + a
        values = Values(w, e, a, d, torch.zeros(0))
        if level.parent is None:
            values.inverse = _inverse(level, values)
        else:
            values.relaxation = _over_diagonal(torch.ones(2, level.n, dtype=d.dtype), d)
        return values

    @staticmethod
    def _told(level: Level, w: Tensor, e: Tensor, a: Tensor, inner: Tensor) -> Unknowns:
        """The features, as `learnsolve.kernels.coupling_numba` has them."""
        block = level.block.to(w.dtype)
        sides = 2 * int((block > 1).sum())
        outside = e + a
        d = (_ends(w, level) + outside).clamp(min=1e-30)
        high = _extremes(w, level)[0].clamp(min=1e-30)
        degree = _ends(torch.ones_like(w), level)
        nodes = [
            level.mass / block.prod(),
            level.kids / level.full,
            outside / d,
            (d / torch.maximum(inner, 1e-3 * d)).sqrt(),
            degree / sides,
            (sides * high / (d + sides * high)).sqrt(),
        ]
        steps = (level.centre[level.i] - level.centre[level.j]).abs() / block
        far, axis = steps.max(1)
        strongest = torch.maximum(high[level.i], high[level.j])
        weakest = torch.minimum(high[level.i], high[level.j])
        edges = [
            (w / strongest).sqrt(),
            (w / weakest).sqrt(),
            level.merged / (block.prod() / block[axis]),
            far - 1,
            steps.square().sum(1).sqrt() - far,
        ]
        return Unknowns(torch.stack(nodes, 1), torch.stack(edges, 1), level.i, level.j, sides)

    def image(self, place: int, values: Values, x: Tensor) -> Tensor:
        """``A x`` on a level, for a batch ``(B, n)``."""
        level = self.levels[place]
        y = values.d * x
        y = y.index_add(1, level.i, -values.w * x[:, level.j])
        return y.index_add(1, level.j, -values.w * x[:, level.i])

    def cycle(self, found: list[Values], b: Tensor, place: int = 0, x: Tensor | None = None) -> Tensor:
        """A W-cycle on right-hand sides ``(B, n)``."""
        values, level = found[place], self.levels[place]
        if values.inverse is not None:
            return b @ values.inverse
        x = self._sweeps(place, values, b, torch.zeros_like(b) if x is None else x, False)
        assert level.parent is not None
        known = level.parent >= 0
        r = (b - self.image(place, values, x))[:, known]
        right = torch.zeros(b.shape[0], self.levels[place + 1].n, dtype=b.dtype)
        right = right.index_add(1, level.parent[known], r)
        correction = self.cycle(found, right, place + 1)
        if place + 2 < len(self.levels):
            correction = self.cycle(found, right, place + 1, correction)
        step = torch.zeros_like(b).index_copy(1, known.nonzero()[:, 0], correction[:, level.parent[known]])
        return self._sweeps(place, values, b, x + step, True)

    def _sweeps(self, place: int, values: Values, b: Tensor, x: Tensor, reverse: bool) -> Tensor:
        steps = [(s, colour) for s in range(2) for colour in self.levels[place].colours]
        for sweep, (rows, targets, sources, edges) in reversed(steps) if reverse else steps:
            total = b[:, rows].index_add(1, targets, values.w[edges] * x[:, sources])
            old = x[:, rows]
            new = old + values.relaxation[sweep, rows] * (total - values.d[rows] * old)
            x = x.index_copy(1, rows, new)
        return x

    def residuals(self, found: list[Values], b: Tensor, steps: int) -> Tensor:
        """Squared norms ``(steps + 1, B)`` of the residual of conjugate gradients from zero."""
        r = b
        norms = [r.square().sum(1)]
        p, before = torch.zeros_like(b), torch.ones(b.shape[0], 1, dtype=b.dtype)
        for _ in range(steps):
            z = self.cycle(found, r)
            along = (r * z).sum(1, keepdim=True)
            p = z + along / before * p
            Ap = self.image(0, found[0], p)
            r = r - along / (p * Ap).sum(1, keepdim=True) * Ap
            before = along
            norms.append(r.square().sum(1))
        return torch.stack(norms)


def _over_diagonal(omega: Tensor, d: Tensor) -> Tensor:
    return torch.where(d > 0, omega / d.clamp(min=1e-30), 0.0)


def _ends(w: Tensor, level: Level) -> Tensor:
    """The sum over each unknown's edges."""
    return torch.zeros(level.n, dtype=w.dtype).index_add(0, level.i, w).index_add(0, level.j, w)


def _extremes(w: Tensor, level: Level) -> tuple[Tensor, Tensor]:
    """Each unknown's largest and smallest coupling; zeros where it has none."""
    both, ends = torch.cat([w, w]), torch.cat([level.i, level.j])
    zero = torch.zeros(level.n, dtype=w.dtype)
    high = zero.scatter_reduce(0, ends, both, "amax", include_self=False)
    return high, zero.scatter_reduce(0, ends, both, "amin", include_self=False)


def _gathered(field: Tensor, upper: Level, n: int) -> Tensor:
    """The sum over each coarse unknown's children."""
    assert upper.parent is not None
    known = upper.parent >= 0
    return torch.zeros(n, dtype=field.dtype).index_add(0, upper.parent[known], field[known])


def _inverse(level: Level, values: Values) -> Tensor:
    """The pseudo-inverse, as `learnsolve.preconditioners.multigrid_levels.dense_inverse`."""
    M = torch.diag(torch.where(values.d > 0, values.d, 1.0))
    M = M.index_put((level.i, level.j), -values.w).index_put((level.j, level.i), -values.w)
    pattern = scipy.sparse.coo_array((np.ones(level.i.numel()), (level.i, level.j)), shape=(level.n,) * 2)
    count, label = scipy.sparse.csgraph.connected_components(pattern, directed=False)
    outside = np.bincount(label, (values.e + values.a).detach().numpy() > 0, minlength=count)
    closed = np.flatnonzero(outside == 0)
    if not closed.size:
        return torch.linalg.inv(M)
    null = torch.from_numpy((label[:, None] == closed[None]) / 1.0)
    null = null / null.norm(dim=0)
    largest = values.d.detach().max()
    return torch.linalg.inv(M + largest * null @ null.T) - null @ null.T / largest


def _directed(n: int, i: Tensor, j: Tensor, colour: Tensor) -> list[tuple[Tensor, Tensor, Tensor, Tensor]]:
    """The colours of a `Level`."""
    targets, sources = torch.cat([i, j]), torch.cat([j, i])
    edges = torch.arange(i.numel()).repeat(2)
    found = []
    for c in range(int(colour.max()) + 1):
        rows = (colour == c).nonzero()[:, 0]
        place = torch.full((n,), -1)
        place[rows] = torch.arange(rows.numel())
        chosen = (colour[targets] == c).nonzero()[:, 0]
        found.append((rows, place[targets[chosen]], sources[chosen], edges[chosen]))
    return found


def _finest(A: GridPoisson) -> Level:
    """The level of the grid's fluid cells in C order."""
    dims = A.cells.ndim
    active = A.active.cpu()
    number = torch.full(active.shape, -1)
    number[active] = torch.arange(int(active.sum()))
    i, j = [], []
    for axis in range(dims):
        count = active.shape[axis] - 1
        both = active.narrow(axis, 1, count) & active.narrow(axis, 0, count)
        coupled = A.faces(axis).detach().cpu().narrow(axis, 1, count)[both] > 0
        i.append(number.narrow(axis, 0, count)[both][coupled])
        j.append(number.narrow(axis, 1, count)[both][coupled])
    places = active.nonzero()
    n = len(places)
    place = torch.nn.functional.pad(places, (3 - dims, 0))
    centre = place + 0.5
    one = torch.ones(n, dtype=torch.float64)
    first, second = torch.cat(i), torch.cat(j)
    colours = _directed(n, first, second, places.sum(1) % 2)
    merged = torch.ones(first.numel(), dtype=torch.float64)
    return Level(n, first, second, colours, one, centre.double(), merged, one, place, torch.ones(3).double())


def _colours(level: GraphLevel) -> Tensor:
    """The colour of each unknown."""
    counts = torch.as_tensor(np.diff(level.graph.colours))
    return torch.repeat_interleave(torch.arange(counts.numel()), counts)


def _below(upper: Level, step: Coarsening, colour: Tensor | None) -> Level:
    """The level of a step, which is noted in the level above it."""
    graph = step.graph
    n = graph.excess.size
    parent = torch.from_numpy(step.aggregate).long()
    if parent.ndim == 3:
        parent = parent[tuple(upper.place.T)]
    first, second = parent[upper.i], parent[upper.j]
    cross = ((first != second) & (first >= 0) & (second >= 0)).nonzero()[:, 0]
    low = torch.minimum(first[cross], second[cross])
    high = torch.maximum(first[cross], second[cross])
    keys, into = torch.unique(low * n + high, return_inverse=True)
    i, j = keys // n, keys % n
    apart = upper.place[upper.i[cross]] != upper.place[upper.j[cross]]
    kept = (apart & ~torch.from_numpy(step.halved > 0)).any(1)
    upper.parent, upper.cross, upper.into = parent, cross, into
    upper.factor = torch.where(kept, 1.0, 0.5).double()
    merged = torch.zeros(i.numel(), dtype=torch.float64).index_add(0, into, upper.merged[cross])
    fields = [torch.from_numpy(f).double() for f in (graph.mass, graph.centre, graph.kids)]
    block = upper.block * torch.from_numpy(np.where(step.halved, 2.0, 1.0))
    colours = [] if colour is None else _directed(n, i, j, colour)
    return Level(
        n, i, j, colours, fields[0], fields[1], merged, fields[2], torch.from_numpy(graph.position),
        block, 2 ** int(step.halved.sum()), step.boundary, step.tuned,
    )  # fmt: skip
