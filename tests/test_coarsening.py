"""The first coarse level of the multigrid against sums over the matrix."""

import numpy as np
import pytest
import scipy.sparse
import torch

from learnsolve.kernels.coarsen_numba import graph_to_grid
from learnsolve.operators import GridPoisson
from learnsolve.preconditioners import Multigrid
from learnsolve.preconditioners import multigrid_setup as setup
from learnsolve.problems import poisson

DOMAINS = {
    "open-3d": lambda: poisson.box((10, 9, 8)).A,
    "obstacles-3d": lambda: poisson.obstacles((16, 18, 20), seed=1).A,
    "maze-3d": lambda: poisson.maze((17, 16, 18), period=9, seed=1).A,
    "jump-3d": lambda: poisson.jump((16, 14, 12), 1e4, seed=2).A,
    "absorbing-3d": lambda: GridPoisson(
        np.random.default_rng(0).choice(3, (9, 12, 10), p=[0.9, 0.05, 0.05]), absorption=0.3
    ),
    "free-surface-2d": lambda: poisson.free_surface((30, 33), seed=1).A,
    "anisotropic-3d": lambda: GridPoisson(np.zeros((7, 12, 12), int), spacing=(4, 1, 1)),
}


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("name", DOMAINS)
def test_the_graph_of_the_aggregates(name, threads, monkeypatch):
    monkeypatch.setattr(setup, "threads", lambda size: threads)
    A = DOMAINS[name]()
    _, steps, scale = setup.hierarchy(A, Multigrid(coarsest=20), torch.float64, graphs=True)
    step = steps[0]
    graph, active = step.graph, A.active.numpy()
    parent = step.aggregate.reshape(active.shape)[active]
    matrix, size = A.to_scipy() * scale, graph.excess.size
    R = scipy.sparse.coo_array((np.ones(parent.size), (parent, np.arange(parent.size)))).tocsr()
    entries = matrix.tocoo()
    places = np.zeros((parent.size, 3), int)
    places[:, 3 - active.ndim :] = np.argwhere(active)
    apart = (places[entries.row] != places[entries.col]) & ~step.halved.astype(bool)
    couplings = np.where(entries.row == entries.col, 0, -entries.data)
    shared = [
        scipy.sparse.coo_array((values, (entries.row, entries.col)), shape=matrix.shape).tocsr()
        for values in (couplings * np.where(apart.any(1), 1.0, 0.5), (couplings > 0) * 1.0)
    ]
    for wanted, found in zip(shared, (graph.weights, graph.merged), strict=True):
        between = (R @ wanted @ R.T).toarray()
        np.fill_diagonal(between, 0)
        made = scipy.sparse.csr_array((found, graph.indices, graph.indptr), shape=(size, size)).toarray()
        np.testing.assert_allclose(made, between, rtol=1e-6, atol=1e-12)
    absorption = np.zeros(A.domain_shape) if A.absorption is None else A.absorption.numpy()
    absorption = scale * np.broadcast_to(absorption, active.shape)[active]
    excess = matrix.sum(axis=1) - absorption
    excess[np.abs(excess) < 1e-9 * matrix.diagonal()] = 0
    np.testing.assert_allclose(graph.excess, R @ excess * step.boundary, rtol=1e-6, atol=1e-12)
    np.testing.assert_allclose(graph.absorption, R @ absorption, rtol=1e-6)
    np.testing.assert_allclose(graph.inner, R @ matrix.diagonal(), rtol=1e-6)
    mass = R @ np.ones(parent.size)
    assert (graph.mass == mass).all()
    assert (graph.kids == mass).all()
    # Axes of one cell keep their centre at one half, whatever the lifted shape.
    np.testing.assert_allclose(graph.centre, R @ (places + 0.5) / mass[:, None], rtol=1e-6)
    np.testing.assert_array_equal(graph.position[parent], places >> step.halved)


def test_a_graph_that_is_a_grid_becomes_one():
    A = GridPoisson(np.zeros((10, 8, 9), int), absorption=0.2, boundary="dirichlet")
    options = Multigrid(coarsest=20)
    levels, _, _ = setup.hierarchy(A, options, torch.float64)
    _, steps, _ = setup.hierarchy(A, options, torch.float64, graphs=True)
    expected = levels[1].stencil
    fields = [np.zeros(expected.diagonal.shape) for _ in range(6)]
    graph_to_grid(steps[0].graph, *fields)
    for found, wanted in zip(fields, expected, strict=False):
        np.testing.assert_allclose(found, wanted.numpy(), rtol=1e-6)
