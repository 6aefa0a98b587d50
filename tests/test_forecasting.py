"""Forecasts: windows, the closed-form line, training, anomalies, the command, and the benchmark on ETTh1."""

import csv
import os
from datetime import datetime, timedelta

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from benchmarks import forecasting as benchmark
from learnsolve.cli import app
from learnsolve.datasets.series import read_series
from learnsolve.forecasting import ChimeraOptions, Ridge, errors, fit_ridge, repeated, train, windows
from learnsolve.forecasting.anomaly import detection, scores, threshold
from learnsolve.forecasting.chimera import load
from learnsolve.forecasting.training import sure_gain
from learnsolve.problems.series import coupled_series
from learnsolve.training import FitOptions

PATH = os.environ.get("LEARNSOLVE_ETTH1")
TRAIN, VALID, TEST = (0, 240), (240, 320), (320, 400)


def walk(length=400, variates=2, seed=0):
    return torch.randn(length, variates, generator=torch.Generator().manual_seed(seed)).cumsum(0) / 4


@given(st.integers(1, 6), st.integers(1, 6), st.integers(0, 20), st.integers(1, 20))
@settings(max_examples=60, deadline=None)
def test_windows_have_all_targets_in_their_range(look_back, horizon, first, length):
    values, end = torch.arange(40.0)[:, None], first + length
    try:
        found = windows(values, look_back, horizon, (first, end))
    except ValueError:
        assert end - max(first - look_back, 0) < look_back + horizon
        return
    begins = [t for t in range(first, end - horizon + 1) if t >= look_back]
    assert [int(one[0, look_back]) for one in found] == begins
    for one in found:
        assert (one[0].diff() == 1).all()


@pytest.mark.parametrize(
    ("look_back", "horizon", "targets"), [(0, 1, (0, 9)), (1, 0, (0, 9)), (1, 1, (0, 401)), (1, 1, (5, 3))]
)
def test_bad_windows(look_back, horizon, targets):
    with pytest.raises(ValueError, match="are accepted"):
        windows(walk(), look_back, horizon, targets)


def test_errors_are_means_over_all():
    values = walk()
    part = windows(values, 5, 3, TEST).double()
    away = part[..., 4:5] - part[..., 5:]
    found = errors(lambda x: repeated(x, 3), values, 5, 3, TEST, chunk=7)
    assert found.mse == pytest.approx(float(away.square().mean()))
    assert found.mae == pytest.approx(float(away.abs().mean()))
    few = errors(lambda x: repeated(x, 3), values, 5, 3, TEST, stride=4)
    assert few.mse == pytest.approx(float(away[::4].square().mean()))


def test_the_line_is_the_least_of_its_sum():
    """Its gradient is zero where the penalty's and the errors' meet."""
    values = walk().double()
    line = fit_ridge(values, 6, 4, TRAIN, VALID, (3.0,))
    part = windows(values, 6, 4, TRAIN)
    moved = (part - part[..., 5:6]).reshape(-1, 10)
    weights = line.weights.clone().requires_grad_()
    away = moved[:, :6] @ weights - moved[:, 6:]
    (away.square().sum() + 3 * weights.square().sum()).backward()
    assert weights.grad.abs().max() < 1e-9
    assert line.error == pytest.approx(errors(line, values, 6, 4, VALID).mse)


def test_the_penalty_is_chosen_by_the_validation_part_alone():
    values, penalties = walk(), (1e-2, 1.0, 1e2, 1e4)
    tried = [fit_ridge(values, 12, 4, TRAIN, VALID, (one,)) for one in penalties]
    best = fit_ridge(values, 12, 4, TRAIN, VALID, penalties)
    assert best.error == min(one.error for one in tried)
    values[320:] = 1e6
    assert torch.equal(fit_ridge(values, 12, 4, TRAIN, VALID, penalties).weights, best.weights)
    with pytest.raises(ValueError, match="penalties are"):
        fit_ridge(values, 12, 4, TRAIN, VALID, (0.0,))


def small(line=None, **options):
    torch.manual_seed(0)
    found = ChimeraOptions(2, 12, 4, **{"patch": 4, "width": 4, "state": 2, **options}).build()
    if line is not None:
        found.begin(line)
    return found


def test_training_ends_no_worse_on_validation_windows_than_it_began():
    values = walk()
    line = fit_ridge(values, 12, 4, TRAIN, VALID)
    network = small(line)
    # Steps so large that all weights after the first step are bad.
    options = FitOptions(steps=6, learning_rate=3.0, clip=0, validate_every=2)
    result = train(network, values, 12, 4, TRAIN, VALID, options, batch=8, stride=1)
    found = errors(network.eval(), values, 12, 4, VALID).mse
    assert result.metrics["valid"] > line.error and result.metrics["gain"] < 0 == result.metrics["best"]
    assert found == pytest.approx(line.error)


def test_weights_are_kept_where_they_surely_gain():
    """From the last value repeated on, each evaluation of a season is better than the one before."""
    values = torch.sin(torch.arange(400.0) / 3)[:, None] + walk(variates=2) / 20
    network, begun = small(dropout=0.0), errors(lambda x: repeated(x, 4), values, 12, 4, VALID).mse
    options = FitOptions(steps=60, learning_rate=1e-2, validate_every=20)
    result = train(network, values, 12, 4, TRAIN, VALID, options, stride=1)
    gains = [line["metrics"]["gain"] for line in result.history]
    assert result.metrics["best"] == max(gains) > 0
    assert errors(network.eval(), values, 12, 4, VALID).mse < begun - result.metrics["best"]


@given(st.integers(2, 40), st.integers(1, 50), st.integers(0, 2**31))
@settings(max_examples=40, deadline=None)
def test_sure_gains_are_less_than_their_mean(count, length, seed):
    gains = torch.randn(count, generator=torch.Generator().manual_seed(seed)).double()
    assert sure_gain(gains, length) <= float(gains.mean()) + 1e-12
    assert sure_gain(torch.ones(count).double(), length) == pytest.approx(1)


def test_nothing_is_learned_from_the_test_part():
    found = []
    for last in (0.0, 1e3):
        values = walk()
        values[320:] += last
        network = small()
        train(network, values, 12, 4, TRAIN, VALID, FitOptions(steps=3), batch=8)
        found.append(torch.cat([one.flatten() for one in network.parameters()]))
    assert torch.equal(*found)


def test_a_run_goes_on_where_it_stopped(tmp_path):
    values, options = walk(), FitOptions(steps=8, learning_rate=1e-2, validate_every=2, seed=3)
    whole, broken, again = small(), small(), small()
    wanted = train(whole, values, 12, 4, TRAIN, VALID, options, batch=8)
    stopped = train(
        broken,
        values,
        12,
        4,
        TRAIN,
        VALID,
        options,
        batch=8,
        folder=tmp_path,
        callback=lambda now: now.step == 3,
    )
    assert stopped.status == "stopped"
    for _ in range(2):
        result = train(again, values, 12, 4, TRAIN, VALID, options, batch=8, folder=tmp_path)
        assert result.finished and result.metrics == wanted.metrics
        for one, two in zip(whole.parameters(), again.parameters(), strict=True):
            assert torch.equal(one, two)


def test_bad_training():
    with pytest.raises(ValueError, match="batch is 0"):
        train(small(), walk(), 12, 4, TRAIN, VALID, FitOptions(steps=1), batch=0)
    with pytest.raises(ValueError, match="no window has 12"):
        train(small(), walk(), 12, 4, (0, 10), VALID, FitOptions(steps=1))


@pytest.mark.slow
def test_what_one_variate_says_of_another_is_used():
    """A line has each variate's own past alone, and cannot bend."""
    values = torch.tensor(coupled_series(6000, 3, noise=0.1), dtype=torch.float32)
    values = (values - values[:4800].mean(0)) / values[:4800].std(0)
    parts = (0, 4800), (4800, 5200), (5200, 6000)
    line = fit_ridge(values, 48, 6, *parts[:2])
    torch.manual_seed(0)
    network = ChimeraOptions(3, 48, 6, patch=12, dropout=0.0).build()
    network.begin(line)
    options = FitOptions(steps=200, learning_rate=1e-2, warmup=15, schedule="cosine", validate_every=50)
    train(network, values, 48, 6, *parts[:2], options)
    ours, theirs = (errors(one, values, 48, 6, parts[2]).mse for one in (network.eval(), line))
    print(f"MSE {ours:.4f}, ridge {theirs:.4f}")
    assert ours < 0.95 * theirs


@given(st.integers(1, 5), st.integers(0, 30), st.integers(1, 30))
@settings(max_examples=60, deadline=None)
def test_every_time_is_scored_by_the_window_that_holds_it(horizon, first, length):
    values, look_back = walk(40), 3
    times = (first + look_back, first + look_back + length)
    try:
        found = scores(lambda x: repeated(x, horizon), values, look_back, horizon, times)
    except ValueError:
        assert times[1] > 40 or times[1] < look_back + horizon
        return
    assert found.shape == (length,)
    for number, one in enumerate(found):
        t = times[0] + number
        near = [(values[t] - values[b - 1]).square().mean() for b in range(max(t - horizon + 1, 3), t + 1)]
        assert min(abs(one - near_) for near_ in near) < 1e-6


def test_anomalies_are_found():
    """Times of which one variate is far off: further than nearly all that was learned from."""
    values = torch.tensor(coupled_series(1200, 3, noise=0.1), dtype=torch.float32)
    values = (values - values[:700].mean(0)) / values[:700].std(0)
    truth = torch.zeros(300, dtype=torch.bool)
    for begin in (930, 1000, 1111):
        values[begin : begin + 5, 1] += 4
        truth[begin - 900 : begin - 895] = True
    line = fit_ridge(values, 48, 12, (0, 700), (700, 900))
    most = threshold(scores(line, values, 48, 12, (48, 700)), 0.005)
    found = detection(scores(line, values, 48, 12, (900, 1200)) > most, truth)
    guessed = detection(torch.ones_like(truth), truth)
    assert found.precision > 0.3 and found.recall > 0.3 and found.f1 > 4 * guessed.f1


def test_shares_are_over_times_not_events():
    truth = torch.tensor([0, 1, 1, 1, 1, 0, 0, 0], dtype=torch.bool)
    flagged = torch.tensor([0, 0, 1, 0, 0, 1, 0, 0], dtype=torch.bool)
    assert detection(flagged, truth) == (0.5, 0.25, pytest.approx(1 / 3))
    none = torch.zeros(8, dtype=torch.bool)
    assert detection(none, none) == (0, 0, 0)


def test_bad_input_of_anomalies():
    line = Ridge(torch.zeros(3, 2), 1.0, 0.0)
    with pytest.raises(ValueError, match=r"times from 3 up to 400"):
        scores(line, walk(), 3, 2, (2, 9))
    with pytest.raises(ValueError, match="share is 1"):
        threshold(torch.zeros(3), 1)
    with pytest.raises(ValueError, match=r"\(T,\) twice"):
        detection(torch.zeros(3, dtype=torch.bool), torch.zeros(4, dtype=torch.bool))


def file_of(path, length=400, variates=2):
    values = coupled_series(length, variates)
    with open(path, "w", encoding="utf-8", newline="") as stream:
        rows = csv.writer(stream)
        rows.writerow(["date", *(f"v{n}" for n in range(variates))])
        for t, row in enumerate(values):
            rows.writerow([datetime(2020, 1, 1) + t * timedelta(hours=1), *row])
    return path


def run(*arguments):
    return CliRunner().invoke(app, [str(one) for one in arguments])


OPTIONS = ("--horizon", 4, "--look-back", 24, "--patch", 6, "--steps", 3)


def test_the_command_writes_what_follows(tmp_path):
    data = file_of(tmp_path / "a.csv")
    result = run("forecast", data, *OPTIONS, "--out", tmp_path / "run")
    assert result.exit_code == 0, result.output
    for name in ("last value repeated: MSE", "ridge: MSE", "chimera: MSE", "forecast.csv"):
        assert name in result.output
    written = read_series(tmp_path / "run" / "forecast.csv")
    assert len(written) == 4 and written.names == ("v0", "v1")
    assert written.start == datetime(2020, 1, 1) + 400 * timedelta(hours=1)
    network = load(tmp_path / "run" / "network.safetensors")
    given_ = read_series(data).values
    again = network.forecast(torch.tensor(given_.T))
    np.testing.assert_allclose(again.T, written.values, rtol=1e-4, atol=1e-4)
    report = (tmp_path / "run" / "report.md").read_text(encoding="utf-8")
    assert "| ridge |" in report and "| chimera |" in report and "| last value repeated |" in report
    assert (tmp_path / "run" / "forecast.png").read_bytes().startswith(b"\x89PNG")
    # Once finished, the same command says the same.
    assert (
        run("forecast", data, *OPTIONS, "--out", tmp_path / "run").output.splitlines()[-7:]
        == (result.output.splitlines()[-7:])
    )


def test_the_command_with_the_line_alone(tmp_path):
    data = file_of(tmp_path / "a.csv")
    result = run("forecast", data, *OPTIONS, "--model", "ridge", "--out", tmp_path / "run", "--quiet")
    assert result.exit_code == 0 and not result.output
    assert sorted(one.name for one in (tmp_path / "run").iterdir()) == [
        "forecast.csv", "forecast.png", "report.md",
    ]  # fmt: skip
    assert "chimera" not in (tmp_path / "run" / "report.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("options", "match"),
    [
        (("--look-back", 300), "no window has 300"),
        (("--patch", 25), "patch is 25"),
        (("--split", "months"), "12/4/4 months"),
        (("--date", "when"), "no column 'when'"),
        (("--timeout", -1), "timeout must be a positive number"),
    ],
)
def test_the_command_refuses_and_leaves_nothing(tmp_path, options, match):
    data = file_of(tmp_path / "a.csv")
    result = run("forecast", data, *OPTIONS, *options, "--out", tmp_path / "run")
    assert result.exit_code == 1 and match in result.output
    assert not (tmp_path / "run").exists()


def test_the_command_refuses_files(tmp_path):
    (tmp_path / "a.csv").write_text("date,a\n2020-01-01,x\n", encoding="utf-8")
    result = run("forecast", tmp_path / "a.csv", *OPTIONS, "--out", tmp_path / "run")
    assert result.exit_code == 1 and "line 2: expected a finite number for a" in result.output
    assert run("forecast", tmp_path / "no.csv", *OPTIONS, "--out", tmp_path / "run").exit_code == 1


def test_the_benchmark_has_the_line_in_its_table(tmp_path, capsys):
    data = file_of(tmp_path / "a.csv")
    arguments = [
        "--data",
        str(data),
        "--split",
        "shares",
        "--horizons",
        "4",
        "--look-back",
        "24",
        "--steps",
        "2",
    ]
    arguments += ["--patch", "6", "--lines", "12", "24", "--seeds", "0", "1", "--width", "4"]
    arguments += ["--json", str(tmp_path / "rows.json")]
    assert benchmark.main(arguments) == 0
    shown = capsys.readouterr().out
    for name in ("ridge, 12", "ridge, 24", "last value repeated", "chimera, 24", "lstm, 24"):
        assert name in shown


@pytest.mark.real_data
@pytest.mark.skipif(PATH is None, reason="LEARNSOLVE_ETTH1 names no file of ETTh1")
@pytest.mark.parametrize(("horizon", "wanted"), [(96, 0.370), (192, 0.403), (336, 0.425), (720, 0.422)])
def test_the_line_on_etth1(horizon, wanted):
    series = read_series(PATH)
    parts = series.months()
    values = torch.tensor(series.standardised(parts.train).values, dtype=torch.float32)
    line = fit_ridge(values, 336, horizon, parts.train, parts.valid)
    assert errors(line, values, 336, horizon, parts.test).mse == pytest.approx(wanted, abs=6e-4)


@pytest.mark.slow
@pytest.mark.real_data
@pytest.mark.skipif(PATH is None, reason="LEARNSOLVE_ETTH1 names no file of ETTh1")
def test_with_512_before_a_network_on_etth1_is_below_the_line_of_336():
    series = read_series(PATH)
    parts = series.months()
    values = torch.tensor(series.standardised(parts.train).values, dtype=torch.float32)
    line = fit_ridge(values, 512, 96, parts.train, parts.valid)
    torch.manual_seed(0)
    network = ChimeraOptions(7, 512, 96, dropout=0.3).build()
    network.begin(line)
    options = FitOptions(steps=50, learning_rate=1e-3, optimizer="adamw", ema=0.98, validate_every=25)
    train(network, values, 512, 96, parts.train, parts.valid, options)
    assert errors(network.eval(), values, 512, 96, parts.test).mse < 0.3696
