"""``learnsolve.reconstruct_mri``: a scan in a file or in memory, to its images."""

import h5py
import numpy as np
import pytest
import torch

import learnsolve
from learnsolve.datasets.kspace_writers import write_kspace
from learnsolve.mri import Sampling, reconstruct, zero_filled
from learnsolve.problems.scans import Volume

RULE = Sampling("random", 2, centre=12)


@pytest.fixture(scope="module")
def kspace():
    scan = Volume((32, 32), coils=4, slices=3, noise=0.01, seed=0)
    return np.stack([scan[i].kspace for i in range(3)])


@pytest.fixture(params=["fastmri", "calgary"])
def path(request, kspace, tmp_path):
    """Layouts with the origin of k-space in the middle, and at index zero."""
    write_kspace(tmp_path / "scan.h5", iter(kspace), kspace.shape, request.param)
    return tmp_path / "scan.h5"


def test_a_file_is_its_slices(path, kspace, tmp_path):
    seen = []
    res = learnsolve.reconstruct_mri(
        path, method="cg-sense", mask=RULE, out=tmp_path / "x.h5", progress=lambda *now: seen.append(now)
    )
    assert seen == [(1, 3), (2, 3), (3, 3)]
    for index, one in enumerate(kspace):
        wanted = reconstruct(one, "cg-sense", sampled=RULE.mask((32, 32)))
        np.testing.assert_allclose(abs(res.x[index]), abs(wanted.x), atol=1e-4 * abs(wanted.x).max())
        assert res.extras["slices"][index].method == "cg-sense"
    assert res.success and res.method == "cg-sense" and res.residuals.shape[1] == 3
    with h5py.File(tmp_path / "x.h5") as file:
        np.testing.assert_allclose(file["reconstruction"][:], abs(res.x), rtol=1e-6)


def test_an_array_stays_in_its_library(kspace):
    res = learnsolve.reconstruct_mri(torch.from_numpy(kspace[0]), method="total-variation", mask=RULE)
    assert isinstance(res.x, torch.Tensor) and res.x.shape == (32, 32)


def test_what_is_left_to_it(kspace):
    whole = learnsolve.reconstruct_mri(kspace[0])
    assert whole.method == "zero-filled"
    np.testing.assert_allclose(whole.x, zero_filled(torch.from_numpy(kspace[0])).numpy())
    some = reconstruct(kspace[0], "auto", sampled=RULE.mask((32, 32)))
    assert some.method in ("recurrentvarnet", "l1-wavelet") and "scores" in some.extras


def test_masks_of_files(path, kspace, tmp_path):
    np.save(tmp_path / "mask.npy", RULE.mask((32, 32)).numpy())
    by_rule = learnsolve.reconstruct_mri(path, method="zero-filled", mask=RULE)
    by_file = learnsolve.reconstruct_mri(path, method="zero-filled", mask=tmp_path / "mask.npy")
    np.testing.assert_array_equal(by_rule.x, by_file.x)


def test_what_does_not_converge_says_so_once(path):
    given = {"method": "cg-sense", "mask": RULE, "weight": 1e-3, "maxiter": 1}
    with pytest.warns(learnsolve.ConvergenceWarning) as told:
        res = learnsolve.reconstruct_mri(path, **given)
    assert len(told) == 1 and not res.success
    with pytest.raises(learnsolve.SolveError) as raised:
        learnsolve.reconstruct_mri(path, check=True, **given)
    assert raised.value.result.x.shape == (3, 32, 32)


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"method": "best"}, ValueError, "auto, l1-wavelet"),
        ({"method": "cg-sense", "wieght": 1}, TypeError, "wieght"),
        ({"mask": "none.npy"}, FileNotFoundError, "none.npy"),
        ({"out": "no/such/folder.h5"}, FileNotFoundError, "no folder"),
    ],
)
def test_what_is_refused(path, change, error, words):
    with pytest.raises(error, match=words):
        learnsolve.reconstruct_mri(path, **change)
