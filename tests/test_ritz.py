"""Samples of a spectrum have the energy that they should, and their file is there whole or not at all."""

import subprocess
import sys

import h5py
import numpy as np
import pytest
import torch

from learnsolve.datasets.lanczos import ritz
from learnsolve.datasets.ritz import write_ritz
from learnsolve.datasets.samples import Samples
from tests.grid_cases import GRIDS, rows


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    return write_ritz(
        tmp_path_factory.mktemp("ritz") / "a.h5", GRIDS["obstacles-2d"], vectors=60, samples=500, chunk=64
    )


def test_samples_are_unit_vectors_of_the_span_zero_off_the_fluid(written):
    A = GRIDS["obstacles-2d"]
    _, _, Q = ritz(A, 60, seed=0)
    with Samples(written) as data:
        assert len(data) == 500 and data.shape == A.domain_shape
        found = data.batch(range(500))
    assert found.dtype == torch.float32 and found.shape == (500, *A.domain_shape)
    assert (found[:, ~A.active] == 0).all()
    flat = found.double().reshape(500, -1)
    torch.testing.assert_close(flat.norm(dim=1), torch.ones(500).double(), rtol=1e-6, atol=0)
    basis = torch.from_numpy(rows(Q))
    assert (flat - flat @ basis.T @ basis).abs().max() <= 1e-6


def test_energy_is_weighted_as_stated(written):
    values, W, Q = ritz(GRIDS["obstacles-2d"], 60, seed=0)
    with Samples(written) as data:
        np.testing.assert_array_equal(data.values, values)
        assert data.attributes == {"seed": 0, "vectors": 60, "low": 0.55, "weight": 9.0}
        flat = data.batch(range(500)).double().reshape(500, -1)
    sizes = (flat @ torch.from_numpy(rows(Q).T @ W)).square().mean(0).sqrt()
    count = round(0.55 * len(values))
    low, high = sizes[:count], sizes[count:]
    assert low.square().mean().sqrt() / high.square().mean().sqrt() == pytest.approx(9, rel=0.05)
    for part in (low, high):
        assert part.max() / part.min() < 1.4


def test_the_same_seed_gives_the_same_file(tmp_path):
    A, small = GRIDS["closed-3d"], {"vectors": 20, "samples": 10}
    first = write_ritz(tmp_path / "a.h5", A, **small).read_bytes()
    assert write_ritz(tmp_path / "b.h5", A, **small).read_bytes() == first
    assert write_ritz(tmp_path / "c.h5", A, **small, memory=1).read_bytes() == first
    assert write_ritz(tmp_path / "d.h5", A, **small, seed=1).read_bytes() != first
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.h5", "b.h5", "c.h5", "d.h5"]


def test_the_chunk_does_not_matter(tmp_path):
    A = GRIDS["box-2d"]
    found = []
    for chunk in (1, 7, 100):
        path = write_ritz(tmp_path / "a.h5", A, vectors=20, samples=20, chunk=chunk, dtype="float64")
        with h5py.File(path) as file:
            assert file["samples"].dtype == np.float64
            found.append(file["samples"][...])
    np.testing.assert_allclose(found[1], found[0], atol=1e-14)
    np.testing.assert_allclose(found[2], found[0], atol=1e-14)


def test_progress_ends_at_the_total(tmp_path):
    seen = []
    write_ritz(
        tmp_path / "a.h5",
        GRIDS["box-2d"],
        vectors=10,
        samples=20,
        chunk=6,
        progress=lambda *now: seen.append(now),
    )
    assert seen == [(k, 30) for k in [*range(1, 11), 16, 22, 28, 30]]


@pytest.mark.parametrize("options", [{"samples": 0}, {"chunk": 0}, {"low": 1.5}, {"weight": np.nan}])
def test_wrong_input_to_write_ritz(tmp_path, options):
    with pytest.raises(ValueError, match=f"{next(iter(options))} is"):
        write_ritz(tmp_path / "a.h5", GRIDS["box-2d"], **options)
    with pytest.raises(ValueError, match="dtype is"):
        write_ritz(tmp_path / "a.h5", GRIDS["box-2d"], dtype="float16")
    assert list(tmp_path.iterdir()) == []


def test_an_interrupted_write_leaves_nothing(tmp_path):
    def interrupt(done, total):
        if done > 15:
            raise KeyboardInterrupt

    path = tmp_path / "a.h5"
    for kept in (False, True):
        if kept:
            path.write_text("as it was")
        with pytest.raises(KeyboardInterrupt):
            write_ritz(path, GRIDS["box-2d"], vectors=10, samples=20, chunk=5, memory=1, progress=interrupt)
        assert [entry.read_text() for entry in tmp_path.iterdir()] == ["as it was"] * kept


def test_a_killed_write_leaves_no_file_of_that_name(tmp_path):
    code = """if True:
        import os, signal, sys
        from learnsolve.datasets.ritz import write_ritz
        from learnsolve.problems.poisson import box
        kill = lambda done, total: done > 15 and os.kill(os.getpid(), signal.SIGKILL)
        write_ritz(sys.argv[1], box((8, 8)).A, vectors=10, samples=20, chunk=5, memory=1, progress=kill)
    """
    path = tmp_path / "a.h5"
    ended = subprocess.run([sys.executable, "-c", code, str(path)], timeout=120, check=False)
    assert ended.returncode == -9
    assert not path.exists()
    assert all(entry.name.endswith(".part") for entry in tmp_path.iterdir())


@pytest.mark.gpu
def test_samples_are_made_where_the_operator_is(tmp_path):
    A = GRIDS["obstacles-2d"]
    with Samples(write_ritz(tmp_path / "a.h5", A.to("cuda"), vectors=20, samples=5, memory=1)) as data:
        assert data.batch(range(5)).shape == (5, *A.domain_shape)
