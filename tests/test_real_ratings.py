"""Ratings of people: a file of MovieLens by its path, and a simulated one in its format."""

import itertools
import os
import warnings

import numpy as np
import pytest

import learnsolve
from learnsolve.completion import error_of
from learnsolve.datasets.ratings import read_ratings, split

PATH = os.environ.get("LEARNSOLVE_RATINGS")
# As many settings for each: penalties for each entry, for each row, and both.
PENALTIES = (0.01, 0.02, 0.04, 0.08, 0.16)
SHRINKAGES = (2.0, 5.0, 10.0, 20.0, 40.0)
BOTH = ((0.02, 2.0), (0.04, 2.0), (0.04, 5.0), (0.08, 2.0), (0.08, 5.0))
RANKS = (5, 10, 20)


def simulated(path):
    """Ratings from 1 to 5 of people and films that differ, the popular ones more often rated."""
    rng = np.random.default_rng(0)
    m, n, count = 900, 1200, 60_000
    rows = rng.choice(m, 2 * count, p=(w := rng.permutation(1.0 / np.arange(10, m + 10))) / w.sum())
    cols = rng.choice(n, 2 * count, p=(w := rng.permutation(1.0 / np.arange(10, n + 10))) / w.sum())
    rows, cols = np.divmod(np.unique(rows * n + cols), n)
    taste = rng.standard_normal((m, 4)) @ rng.standard_normal((4, n)) / 3
    rating = 3.5 + 0.4 * rng.standard_normal(m)[rows] + 0.5 * rng.standard_normal(n)[cols]
    rating += taste[rows, cols] + 0.7 * rng.standard_normal(rows.size)
    stars = np.clip(np.rint(rating), 1, 5).astype(int)
    lines = [
        f"{i + 1}\t{j + 1}\t{s}\t{880000000 + p}"
        for p, (i, j, s) in enumerate(zip(rows, cols, stars, strict=True))
    ]
    path.write_text("\n".join(lines))
    return path


def parts(path):
    """Ratings to fit, to choose penalty and rank by, and to judge by."""
    rest, judged = split(read_ratings(path), 0.1, seed=1)
    fitted, chosen_by = split(rest, 0.1, seed=2)
    return rest, fitted, chosen_by, judged


def rmse(prediction, ratings):
    return float(np.sqrt(np.mean(np.square(prediction - ratings.values))))


def ours(path):
    """RMSE on ratings that nothing was chosen by."""
    rest, fitted, chosen_by, judged = parts(path)

    def fit(ratings, rank, penalty, shrinkage):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", learnsolve.ConvergenceWarning)
            return learnsolve.complete(
                (ratings.rows, ratings.cols, ratings.values),
                rank,
                shape=ratings.shape,
                bias=True,
                regularization=penalty,
                shrinkage=shrinkage,
                held_out=0.0,
                maxiter=60,
            )

    def score(setting):
        return error_of(fit(fitted, *setting), chosen_by.rows, chosen_by.cols, chosen_by.values)

    best = min(((rank, *pair) for rank in RANKS for pair in BOTH), key=score)
    return error_of(fit(rest, *best), judged.rows, judged.cols, judged.values)


def by_biases(path):
    """RMSE of a mean and a number for each person and film, shrunk."""
    rest, fitted, chosen_by, judged = parts(path)

    def predict(ratings, asked, shrink):
        m, n = ratings.shape
        mean, a, b = ratings.values.mean(), np.zeros(m), np.zeros(n)
        for _ in range(20):
            left = ratings.values - mean - b[ratings.cols]
            a = np.bincount(ratings.rows, left, m) / (np.bincount(ratings.rows, minlength=m) + shrink)
            left = ratings.values - mean - a[ratings.rows]
            b = np.bincount(ratings.cols, left, n) / (np.bincount(ratings.cols, minlength=n) + shrink)
        return mean + a[asked.rows] + b[asked.cols]

    best = min((1, 3, 10, 30), key=lambda shrink: rmse(predict(fitted, chosen_by, shrink), chosen_by))
    return rmse(predict(rest, judged, best), judged)


def by_surprise(path):
    """RMSE of Surprise's biased factors, chosen among as many settings."""
    import pandas as pd
    from surprise import SVD, Dataset, Reader

    rest, fitted, chosen_by, judged = parts(path)

    def predict(ratings, asked, rank, penalty):
        frame = pd.DataFrame({"user": ratings.rows, "item": ratings.cols, "rating": ratings.values})
        scale = ratings.values.min(), ratings.values.max()
        train = Dataset.load_from_df(frame, Reader(rating_scale=scale)).build_full_trainset()
        model = SVD(n_factors=rank, n_epochs=40, reg_all=penalty, random_state=0)
        model.fit(train)
        return np.array([model.predict(i, j).est for i, j in zip(asked.rows, asked.cols, strict=True)])

    settings = itertools.product(RANKS, PENALTIES)
    best = min(settings, key=lambda pair: rmse(predict(fitted, chosen_by, *pair), chosen_by))
    return rmse(predict(rest, judged, *best), judged)


def by_cmfrec(path):
    """RMSE of cmfrec's alternating least squares with biases, chosen among twice as many settings."""
    import scipy.sparse
    from cmfrec import CMF

    rest, fitted, chosen_by, judged = parts(path)

    def predict(ratings, asked, rank, penalty, by_entry):
        matrix = scipy.sparse.coo_matrix((ratings.values, (ratings.rows, ratings.cols)), shape=ratings.shape)
        options = {"niter": 30, "nthreads": 1, "verbose": False, "handle_interrupt": False}
        model = CMF(rank, lambda_=penalty, scale_lam=by_entry, **options)
        model.fit(matrix)
        found = model.predict(asked.rows, asked.cols)
        return np.where(np.isnan(found), ratings.values.mean(), found)

    penalties = [(penalty, True) for penalty in PENALTIES] + [(penalty, False) for penalty in SHRINKAGES]
    settings = [(rank, *penalty) for rank in RANKS for penalty in penalties]
    best = min(settings, key=lambda setting: rmse(predict(fitted, chosen_by, *setting), chosen_by))
    return rmse(predict(rest, judged, *best), judged)


PEERS = {"surprise": by_surprise, "cmfrec": by_cmfrec}


def test_simulated_ratings_are_predicted_better_than_by_biases(tmp_path):
    path = simulated(tmp_path / "u.data")
    found, simple = ours(path), by_biases(path)
    print(f"RMSE {found:.4f}, by biases {simple:.4f}")
    assert found < 0.97 * simple
    assert found > 0.7


@pytest.mark.slow
@pytest.mark.parametrize("peer", list(PEERS))
def test_simulated_ratings_are_predicted_as_by_the_peers(tmp_path, peer):
    pytest.importorskip(peer, reason="a peer to compare with, which no extra of ours installs")
    path = simulated(tmp_path / "u.data")
    found, theirs = ours(path), PEERS[peer](path)
    print(f"RMSE {found:.4f}, {peer} {theirs:.4f}")
    assert found <= theirs


@pytest.mark.real_data
@pytest.mark.skipif(PATH is None, reason="LEARNSOLVE_RATINGS names no file of ratings")
@pytest.mark.parametrize("peer", ["biases", *PEERS])
def test_ratings_of_people_are_predicted_as_by_the_peers(peer):
    if peer in PEERS:
        pytest.importorskip(peer, reason="a peer to compare with, which no extra of ours installs")
    found, theirs = ours(PATH), {"biases": by_biases, **PEERS}[peer](PATH)
    print(f"RMSE {found:.4f}, {peer} {theirs:.4f}")
    assert found <= theirs
