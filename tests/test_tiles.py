"""A preconditioner on tiles, all processes played by one: the answer of the whole grid."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from learnsolve.distributed.engines import CycleEngine, NetworkEngine, WholeEngine
from learnsolve.distributed.tiles import Box, Partition
from learnsolve.methods.dcdm_network import NetworkOptions
from learnsolve.operators import GridPoisson
from learnsolve.preconditioners import LearnedMultigrid, Multigrid
from learnsolve.preconditioners.multigrid_levels import GridLevel
from learnsolve.problems.poisson import obstacles

TOLERANCE = {"single": 1e-5, "double": 1e-12}


def played(make, counts, r):
    """What engines on all ranks answer; exchanges and gathering are done on whole arrays."""
    count = int(np.prod([len(row) for row in counts]))
    partitions = [Partition.of_ranges(counts, rank) for rank in range(count)]
    engines = [make(partition) for partition in partitions]
    size = float(r.norm())
    halves = [engine.down(r[engine.tile.slices].clone(), size) for engine in engines]
    parts = [part for part, _ in halves]
    assert [part.numel() for part in parts] == engines[0].parts
    seen = torch.full(r.shape, torch.nan, dtype=parts[0].dtype)
    for partition, (_, own) in zip(partitions, halves, strict=True):
        if own is not None:
            seen[partition.owned.slices] = own
    answer = torch.full(r.shape, torch.nan, dtype=r.dtype)
    for partition, engine in zip(partitions, engines, strict=True):
        around = None if halves[0][1] is None else seen[engine.tile.slices].clone()
        answer[partition.owned.slices] = engine.up(torch.cat(parts), around)
    return answer


def counts_of(generator, sizes):
    found = []
    for n in sizes:
        pieces = int(generator.integers(1, min(3, n) + 1))
        ends = np.sort(generator.choice(np.arange(1, n), pieces - 1, replace=False))
        found.append(np.diff([0, *ends, n]).tolist())
    return found


@settings(max_examples=25, deadline=None)
@given(
    st.integers(0, 10**6),
    st.sampled_from([2, 3]),
    st.sampled_from(["unit", "coefficients", "anisotropic", "walls"]),
    st.sampled_from(["V", "W", "F"]),
    st.sampled_from(["red_black", "chebyshev"]),
    st.booleans(),
    st.sampled_from(["single", "double"]),
)
def test_a_cycle_on_tiles_is_the_cycle(seed, dims, kind, cycle, smoother, learned, precision):
    generator = np.random.default_rng(seed)
    sizes = generator.integers(*((9, 40) if dims == 2 else (4, 16)), dims)
    cells = np.zeros(sizes, int)
    if kind == "walls":
        cells = generator.choice([0, 0, 0, 1], sizes)
        cells[(0,) * dims] = cells[(1,) + (0,) * (dims - 1)] = 0
    A = GridPoisson(
        cells,
        coefficients=generator.uniform(0.1, 10, sizes) if kind == "coefficients" else None,
        spacing=[1.0] * (dims - 1) + [8.0] if kind == "anisotropic" else 1.0,
        boundary=[("dirichlet", "solid")] * dims,
    )
    if learned:
        M = LearnedMultigrid(cycle="V" if cycle == "F" else cycle, coarsest=20, precision=precision).build(A)
    else:
        M = Multigrid(cycle=cycle, smoother=smoother, coarsest=20, precision=precision).build(A)
    r = A.enter(torch.from_numpy(generator.standard_normal(sizes)))
    expected = M._apply(r)
    make = CycleEngine if isinstance(M.levels[0], GridLevel) else WholeEngine
    found = played(lambda partition: make(M, partition), counts_of(generator, sizes), r)
    torch.testing.assert_close(
        found, expected, rtol=0, atol=TOLERANCE[precision] * float(expected.abs().max())
    )


@pytest.mark.parametrize("architecture", ["recursive", "paper"])
@pytest.mark.parametrize("sizes", [(37, 30), (12, 17, 9), (4, 24)])
def test_the_network_on_tiles_is_the_network(architecture, sizes):
    torch.manual_seed(0)
    network = NetworkOptions(dims=len(sizes), architecture=architecture, channels=4, full=2).build()
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    generator = np.random.default_rng(1)
    active = torch.from_numpy(generator.random(sizes) < 0.8)
    r = torch.from_numpy(generator.standard_normal(sizes)) * active
    with torch.no_grad():
        expected = network((r / r.norm()).float()[None, None])[0, 0].double() * active
    found = played(
        lambda partition: NetworkEngine(network, active, partition), counts_of(generator, sizes), r
    )
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6 * float(expected.abs().max()))


def test_obstacles_in_space():
    A = obstacles((32, 32, 32), seed=3).A
    M = LearnedMultigrid(precision="double").build(A)
    r = A.enter(torch.from_numpy(np.random.default_rng(0).standard_normal(A.cells.shape)))
    expected = M._apply(r)
    found = played(lambda partition: CycleEngine(M, partition), [[15, 17], [32], [16, 16]], r)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12 * float(expected.abs().max()))


def test_boxes():
    partition = Partition.of_ranges([[3, 4], [5, 1, 2]], 4)
    assert partition.sizes == (7, 8)
    assert partition.owned == Box((3, 5), (7, 6))
    covered = np.zeros(partition.sizes, int)
    for box in partition.boxes:
        covered[box.slices] += 1
    assert (covered == 1).all()
    blocks = np.zeros((4, 4), int)
    for box in partition.boxes:
        blocks[box.coarse((True, True)).slices] += 1
    assert (blocks == 1).all()
