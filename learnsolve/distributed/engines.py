"""Preconditioners of which each process holds one tile of the finest level.

An application has two halves: `down` works on the residual around the process's own cells and says what its
part of the coarse problem is; `up` takes the coarse problem of all and gives the answer on its own cells.
Between the halves the parts are gathered by whoever drives an engine. What a tile holds beyond its own cells
is as wide as the computation reaches, so that the answer is that of one process, up to rounding. Levels below
the finest, a quarter or an eighth of the unknowns and less, are worked on by every process.
"""

from collections.abc import Callable
from math import isfinite, prod
from typing import Any, Protocol

import torch
from torch import Tensor

from learnsolve.distributed.tiles import Box, Partition, cut, cut_stencil, lifted
from learnsolve.kernels.vector import rescale
from learnsolve.methods.dcdm_network import DirectionNetwork
from learnsolve.preconditioners.multigrid import MultigridCycle
from learnsolve.preconditioners.multigrid_levels import GridLevel


class Engine(Protocol):
    """What drives a tile."""

    width: int
    """How far around its own cells a process has to see."""
    tile: Box
    """The cells that `down` and `up` are given."""
    parts: list[int]
    """How long what `down` returns is, by rank."""
    dtype: torch.dtype
    """Of what is gathered."""

    def down(self, r: Tensor, size: float) -> tuple[Tensor, Tensor | None]:
        """The process's part of the coarse problem, and what `up` needs to be seen around its own cells.

        ``r`` is the residual on the tile, ``size`` its norm over the whole grid.
        """

    def up(self, coarse: Tensor, around: Tensor | None) -> Tensor:
        """The answer on the process's own cells; ``coarse`` are the parts of all, ``around`` the tile."""


class WholeEngine:
    """For grids too small to be cut, or without a level below the finest: all of it is gathered."""

    width = 0
    dtype = torch.float64

    def __init__(self, apply: Callable[[Tensor], Tensor], partition: Partition) -> None:
        self.apply, self.partition = apply, partition
        self.tile = partition.owned
        self.parts = [prod(box.shape) for box in partition.boxes]

    def down(self, r: Tensor, size: float) -> tuple[Tensor, Tensor | None]:
        """The residual itself."""
        return r.reshape(-1), None

    def up(self, coarse: Tensor, around: Tensor | None) -> Tensor:
        """Its part of the answer."""
        whole = torch.empty(self.partition.sizes, dtype=coarse.dtype)
        for box, part in zip(self.partition.boxes, coarse.split(self.parts), strict=True):
            whole[box.slices] = part.reshape(box.shape)
        return cut(self.apply(whole), self.partition.owned)


class CycleEngine:
    """A multigrid cycle, learned or not."""

    def __init__(self, cycle: MultigridCycle, partition: Partition) -> None:
        fine = cycle.levels[0]
        assert isinstance(fine, GridLevel)
        self.cycle, self.partition = cycle, partition
        reach = _cycle_reach(cycle)
        self.width = reach + 1
        self.tile = partition.owned.grown(reach, partition.sizes)
        tile, sizes = lifted(self.tile), lifted(Box((0,) * len(partition.sizes), partition.sizes)).stop
        coarse = cycle.levels[1].b
        self.dtype = coarse.dtype
        relaxation = fine.relaxation
        if relaxation is not None:
            relaxation = torch.stack([cut(part, tile) for part in relaxation])
        aggregate = None if fine.aggregate is None else cut(fine.aggregate, tile)
        b, x = (torch.zeros(tile.shape, dtype=self.dtype) for _ in range(2))
        self.level = GridLevel(cut_stencil(fine.stencil, tile), b, x, aggregate, fine.smoother, relaxation)
        numbers = fine.aggregate
        if numbers is None:
            below = tuple(coarse.shape)
            self.halved = tuple(c < n for c, n in zip(below, sizes, strict=True))
            self.coarse_box = tile.coarse(self.halved)
            numbers = torch.arange(coarse.numel()).reshape(below)
            places = [numbers[lifted(box).coarse(self.halved).slices] for box in partition.boxes]
            self.coarse_b = torch.zeros(self.coarse_box.shape, dtype=self.dtype)
            own = lifted(partition.owned).coarse(self.halved)
            self.own_coarse: Any = own.inside(self.coarse_box)
        else:
            # Blocks are of two cells along every axis that is long enough; one that is not halved has whole
            # aggregates in every two cells too.
            halved = tuple(n > 1 for n in sizes)
            boxes = [lifted(box).coarse(halved).fine(halved, sizes) for box in partition.boxes]
            places = [torch.unique(numbers[box.slices]) for box in boxes]
            places = [ids[ids >= 0].long() for ids in places]
            self.coarse_b = torch.zeros_like(coarse)
            self.own_coarse = places[partition.rank]
        self.order = torch.cat([ids.reshape(-1) for ids in places])
        self.parts = [ids.numel() for ids in places]

    def down(self, r: Tensor, size: float) -> tuple[Tensor, Tensor | None]:
        """Smooth on the tile and restrict; what is left of the answer then has to be seen around it."""
        self.size = size / prod(self.partition.sizes) ** 0.5
        if self.size == 0 or not isfinite(self.size):
            self.level.x.zero_()
            return torch.zeros(self.parts[self.partition.rank], dtype=self.dtype), self._own(self.level.x)
        options, level = self.cycle.options, self.level
        rescale(1 / self.size, r.reshape(level.b.shape), level.b)
        level.down(self.coarse_b, options.sweeps, options.omega, True)
        return self.coarse_b[self.own_coarse].reshape(-1), self._own(level.x)

    def up(self, coarse: Tensor, around: Tensor | None) -> Tensor:
        """The levels below, as every process works on them; then the tile again."""
        assert around is not None
        options, level, below = self.cycle.options, self.level, self.cycle.levels[1]
        below.b.reshape(-1)[self.order] = coarse
        self.cycle.correct(0, options.cycle)
        level.x.copy_(around.reshape(level.x.shape))
        correction = below.x if level.aggregate is not None else cut(below.x, self.coarse_box)
        level.up(correction, options.sweeps, options.omega)
        own = self._own(level.x)
        return rescale(self.size * self.cycle.scale, own, torch.empty_like(own, dtype=torch.float64))

    def _own(self, x: Tensor) -> Tensor:
        return cut(x.reshape(self.tile.shape), Box(*_ends(self.partition.owned.inside(self.tile))))


def engine_for(cycle: MultigridCycle, partition: Partition) -> Engine:
    """That of a cycle, on tiles if no process owns fewer cells along an axis than its neighbours must see."""
    narrow = min(min(box.shape) for box in partition.boxes) <= _cycle_reach(cycle)
    if not isinstance(cycle.levels[0], GridLevel) or (narrow and len(partition.boxes) > 1):
        return WholeEngine(cycle._apply, partition)
    return CycleEngine(cycle, partition)


def _cycle_reach(cycle: MultigridCycle) -> int:
    """Half a sweep reaches one cell, and so does the residual; a block may end one cell further on."""
    return 2 * cycle.options.sweeps + 2


class NetworkEngine:
    """The network of the Deep Conjugate Direction Method; `up` gives its direction, not scaled yet."""

    dtype = torch.float32

    def __init__(self, network: DirectionNetwork, active: Tensor, partition: Partition) -> None:
        self.network, self.partition = network, partition
        self.width = network.reach + 1
        self.tile = partition.owned.grown(network.reach, partition.sizes)
        self.active = active[self.tile.slices]
        self.steps = network.pooled(partition.sizes)
        self.halved = tuple(step == 2 for step in self.steps)
        self.boxes = [box.coarse(self.halved) for box in partition.boxes]
        channels = network.options.channels if any(self.halved) else 0
        self.parts = [channels * prod(box.shape) for box in self.boxes]

    def down(self, r: Tensor, size: float) -> tuple[Tensor, Tensor | None]:
        """Features on the tile, pooled."""
        self.unit = (r / size).to(torch.float32)[None, None]
        with torch.no_grad():
            self.features = self.network.entered(self.unit)
            if not any(self.halved):
                return torch.zeros(0), None
            pooled = self.network.pool(self.features, self.steps)[0]
        own = self.boxes[self.partition.rank].inside(self.tile.coarse(self.halved))
        return pooled[(slice(None), *own)].reshape(-1), None

    def up(self, coarse: Tensor, around: Tensor | None) -> Tensor:
        """The coarser grids, as every process works on them; then the tile again."""
        with torch.no_grad():
            h = self.features
            if any(self.halved):
                channels = h.shape[1]
                below = Box((0,) * len(self.partition.sizes), self.partition.sizes).coarse(self.halved)
                whole = torch.empty(channels, *below.shape)
                for box, part in zip(self.boxes, coarse.split(self.parts), strict=True):
                    whole[(slice(None), *box.slices)] = part.reshape(channels, *box.shape)
                added = self.network.coarse(whole[None])
                near = added[(slice(None), slice(None), *self.tile.coarse(self.halved).slices)]
                h = self.network.joined(h, near, self.steps)
            d = self.network.left(self.unit, h)[0, 0].double()
        d = torch.where(self.active, d, torch.zeros((), dtype=d.dtype))
        return cut(d, Box(*_ends(self.partition.owned.inside(self.tile))))


def _ends(slices: tuple[slice, ...]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    return tuple(s.start for s in slices), tuple(s.stop for s in slices)
