"""The benchmark of dynamics: its peers, its table, and a run of each part."""

import json

import numpy as np
import pytest

from benchmarks import dynamics as benchmark
from benchmarks.dynamics_peers import PEERS, SETTINGS, EchoState, reservoir
from learnsolve.problems.chaotic import henon, lorenz63


def test_a_reservoir_follows_a_flow():
    learned, judged = (lorenz63().orbit(length, seed=length) / 10 for length in (6000, 1500))
    network = EchoState(3, SETTINGS[0], 0)
    network.fit(learned)
    assert np.abs(network.run(judged[:500], 30) - judged[500:530]).max() < 0.2
    assert reservoir(learned[:3000], judged, 0.01, 0).shape == judged.shape


def test_sparse_regression_finds_a_quadratic_flow():
    pytest.importorskip("pysindy")
    learned, judged = lorenz63().orbit(5000, seed=1) / 10, lorenz63().orbit(2000, seed=2) / 10
    run = PEERS["SINDy, quadratic"](learned, judged, 0.01, 0)
    assert run.shape == judged.shape and np.isfinite(run).all()


def test_every_part_runs(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(benchmark, "SIZES", ((2, 5, 3, 6),))
    path = tmp_path / "rows.json"
    options = ["--system", "henon", "--length", "400", "--steps", "3", "--hidden", "5", "--seeds", "0", "1"]
    assert benchmark.main([*options, "--peers", "--repeats", "1", "--json", str(path)]) == 0
    rows = json.loads(path.read_text())["rows"]
    assert rows[0]["times"] > 0
    floor, *others = rows[1:]
    assert floor["D_stsp"] < min(row["D_stsp"] for row in others)
    assert [row["model"] for row in others] == ["gtf", "gtf", "free", "free", "forced", "forced"]
    assert {row["strength"] for row in others[2:]} == {0.0, 1.0}
    assert "median" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("more", "shape"),
    [([], (400, 2)), (["--judge", "y.npy"], (500, 2)), (["--embed", "3", "--lag", "2"], (396, 3))],
)
def test_a_file_may_be_given(more, shape, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    series = henon().orbit(800)
    np.save("x.npy", series[:500, 0] if "--embed" in more else series[:500])
    np.save("y.npy", series[500:])
    options = ["--data", "x.npy", *more, "--what", "reconstruction", "--steps", "2", "--hidden", "4"]
    assert benchmark.series_of(benchmark.parser().parse_args(options))[0].shape == shape
    given = [*options, "--forcing", "sparse", "--peers", "--seeds", "0", "--json", "rows.json"]
    assert benchmark.main([*given, "--length", "50"]) == 0
    assert json.loads((tmp_path / "rows.json").read_text())["rows"][1]["model"] == "sparse"


def test_a_peer_that_flies_away(tmp_path, monkeypatch):
    monkeypatch.setitem(
        PEERS, "SINDy, cubic", lambda learned, judged, dt, seed: np.empty((0, learned.shape[1]))
    )
    options = ["--system", "henon", "--length", "400", "--what", "reconstruction", "--forcing"]
    path = tmp_path / "rows.json"
    assert (
        benchmark.main([*options, "--peers", "SINDy, cubic", "--seeds", "0", "1", "--json", str(path)]) == 0
    )
    rows = json.loads(path.read_text())["rows"]
    assert [(row["model"], row["D_stsp"]) for row in rows[1:]] == [("SINDy, cubic", None)]
