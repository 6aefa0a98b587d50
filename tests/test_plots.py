"""Every plot draws on the axes it is given, or makes one, and can be saved without a display."""

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

import learnsolve
from learnsolve.plots import plot_convergence, plot_field, plot_smoke
from learnsolve.problems.smoke import SmokeSimulation, Sphere


def solved(right=None):
    matrix = np.diag(np.arange(1.0, 13.0))
    return learnsolve.solve(matrix, np.ones(12) if right is None else right, method="cg", rtol=1e-8)


def saved(ax, tmp_path):
    path = tmp_path / "plot.png"
    ax.figure.savefig(path)
    return path.stat().st_size > 1000


def test_convergence_ends_at_the_relative_residual(tmp_path):
    result = solved()
    ax = plot_convergence(result)
    line = ax.lines[0]
    assert len(line.get_xdata()) == result.iterations + 1
    assert line.get_ydata()[-1] == pytest.approx(result.relative_residual)
    assert saved(ax, tmp_path)


def test_convergence_of_two_methods_shares_axes():
    ax = Figure().add_subplot()
    assert plot_convergence(solved(), ax, label="one") is ax
    assert plot_convergence(solved(), ax, label="two") is ax
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["one", "two"]


def test_convergence_by_the_second():
    result = solved()
    times = np.linspace(0, 1, result.iterations + 1)
    ax = plot_convergence(result, seconds=times)
    assert ax.get_xlabel() == "seconds"
    np.testing.assert_array_equal(ax.lines[0].get_xdata(), times)
    with pytest.raises(ValueError, match="seconds have shape"):
        plot_convergence(result, seconds=times[1:])


def test_convergence_without_an_iteration_is_drawn(tmp_path):
    assert saved(plot_convergence(solved(np.zeros(12))), tmp_path)


@pytest.mark.parametrize("shape", [(9, 7), (5, 9, 7)], ids=["2d", "3d"])
@pytest.mark.parametrize("kind", [np.asarray, torch.as_tensor], ids=["numpy", "torch"])
def test_field_is_drawn_with_its_solids(shape, kind, tmp_path):
    field = kind(np.random.default_rng(0).random(shape))
    cells = np.zeros(shape, int)
    cells[..., 2:5] = 1
    ax = plot_field(field, cells=kind(cells), colorbar=True)
    assert len(ax.images) == 2
    assert ax.images[0].get_array().shape == (shape[0], shape[-1])
    assert saved(ax, tmp_path)


def test_slice_is_the_one_asked_for():
    field = np.arange(4.0 * 5 * 6).reshape(4, 5, 6)
    np.testing.assert_array_equal(plot_field(field, axis=2, index=1).images[0].get_array(), field[:, :, 1])
    np.testing.assert_array_equal(plot_field(field).images[0].get_array(), field[:, 2])


def test_tensor_that_needs_a_gradient_is_drawn():
    assert len(plot_field(torch.rand(4, 5, requires_grad=True)).images) == 1


@pytest.mark.parametrize(
    ("field", "cells", "word"),
    [(np.zeros(4), None, "2 or 3 axes"), (np.zeros((4, 4)), np.zeros((4, 5), int), "cells")],
)
def test_wrong_shapes_are_refused(field, cells, word):
    with pytest.raises(ValueError, match=word):
        plot_field(field, cells=cells)


@pytest.mark.parametrize("shape", [(16, 12), (12, 8, 8)], ids=["2d", "3d"])
def test_smoke_is_drawn(shape, tmp_path):
    centre = (0.8, *(0.5 * n / shape[-1] for n in shape[1:]))
    sim = SmokeSimulation(shape, obstacles=[Sphere(centre, 0.2)])
    sim.step()
    ax = Figure().add_subplot()
    assert plot_smoke(sim, ax) is ax
    assert ax.get_title() == f"time {sim.time:.2f}"
    assert saved(ax, tmp_path)
