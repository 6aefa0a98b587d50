"""``learnsolve complete``."""

import json

import numpy as np
import pytest

from tests.test_cli import command, run


def ratings_file(path):
    rng = np.random.default_rng(0)
    M = 3 + rng.standard_normal((40, 2)) @ rng.standard_normal((2, 30))
    rows, cols = np.nonzero(rng.random(M.shape) < 0.6)
    lines = [f"user{i},{100 + j},{float(M[i, j])!r}" for i, j in zip(rows, cols, strict=True)]
    path.write_text("\n".join(["userId,movieId,rating", *lines]) + "\n")
    return M


def test_complete_writes_factors(tmp_path):
    M = ratings_file(tmp_path / "ratings.csv")
    out, plot = tmp_path / "factors.npz", tmp_path / "curve.png"
    result = run("complete", tmp_path / "ratings.csv", "--rank", 3, "--out", out, "--plot", plot)
    assert result.exit_code == 0, result.output
    assert "CONVERGED" in result.output
    assert plot.read_bytes()[:4] == b"\x89PNG"
    with np.load(out) as found:
        whole = found["U"] @ found["V"].T + found["mean"] + found["row_bias"][:, None] + found["col_bias"]
        order = [int(label[4:]) for label in found["row_labels"]]
        assert found["col_labels"].tolist() == list(range(100, 130))
    assert whole == pytest.approx(M[order], abs=1e-2)
    assert run("complete", tmp_path / "ratings.csv", "--rank", 3, "--maxiter", 1).exit_code == 2


def test_complete_refuses_and_leaves_nothing(tmp_path):
    (tmp_path / "bad.csv").write_text("a,b,1\na,c,x\n")
    ended = command("complete", tmp_path / "bad.csv", "--rank", 1, "--out", tmp_path / "f.npz")
    assert ended.returncode == 1
    assert "line 2" in ended.stderr
    ratings_file(tmp_path / "good.csv")
    ended = command("complete", tmp_path / "good.csv", "--rank", 31, "--out", tmp_path / "f.npz")
    assert ended.returncode == 1
    assert "rank is 31" in ended.stderr
    assert not (tmp_path / "f.npz").exists()


def test_complete_takes_counts_and_goes_on_from_checkpoints(tmp_path):
    rng = np.random.default_rng(0)
    counts = rng.poisson(np.outer(rng.random(40), rng.random(30)) * 4)
    lines = [f"{i},{j},{counts[i, j]}" for i, j in zip(*np.nonzero(counts), strict=True)]
    (tmp_path / "counts.csv").write_text("\n".join(lines))
    out, held = tmp_path / "f.npz", tmp_path / "run.npz"
    options = ("--rank", 2, "--implicit", 2.0, "--regularization", 1.0, "--out", out, "--checkpoint", held)
    result = run("complete", tmp_path / "counts.csv", *options, "--nonnegative")
    assert result.exit_code == 0, result.output
    assert held.exists()
    with np.load(out) as found:
        assert (found["U"] >= 0).all()
        assert 0.1 < (found["U"] @ found["V"].T).max() < 2
    assert run("complete", tmp_path / "counts.csv", *options, "--nonnegative").exit_code == 0
    refused = run("complete", tmp_path / "counts.csv", *options)
    assert refused.exit_code == 1
    assert run("complete", tmp_path / "counts.csv", "--rank", 2, "--implicit", -1).exit_code == 1


def test_complete_takes_only_factors_without_negative_numbers(tmp_path):
    rng = np.random.default_rng(0)
    M = rng.random((40, 2)) @ rng.random((2, 30))
    rows, cols = np.nonzero(rng.random(M.shape) < 0.6)
    lines = [f"{i},{j},{float(M[i, j])!r}" for i, j in zip(rows, cols, strict=True)]
    (tmp_path / "ratings.csv").write_text("\n".join(lines))
    options = ("complete", tmp_path / "ratings.csv", "--rank", 2, "--out", tmp_path / "f.npz")
    result = run(*options, "--nonnegative", "--rtol", 1e-4, "--maxiter", 5000)
    assert result.exit_code == 0, result.output
    with np.load(tmp_path / "f.npz") as found:
        U, V = found["U"], found["V"]
    assert min(U.min(), V.min()) >= 0
    assert pytest.approx(M, abs=0.05) == U @ V.T
    refused = run(*options, "--nonnegative", "--bias")
    assert refused.exit_code == 1
    assert "bias goes neither" in refused.output


def test_complete_tells_its_answer_as_json(tmp_path):
    ratings_file(tmp_path / "r.csv")
    told = json.loads(run("complete", tmp_path / "r.csv", "--rank", 3, "--json").stdout)
    assert told["status"] == "CONVERGED" and told["rank"] == 3 and told["held_out"] < 0.01
