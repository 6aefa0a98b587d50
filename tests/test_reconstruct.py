"""Reconstruction of systems from series: what is learned, judged, kept, and refused."""

import numpy as np
import pytest
import torch

import learnsolve
from learnsolve.dynamics import DynamicalModel, reconstruct_dynamics
from learnsolve.dynamics.model import Spectrum
from learnsolve.dynamics.teacher_forcing import Annealed
from learnsolve.problems.chaotic import henon, lorenz63, observed
from learnsolve.training import WeightsError

SERIES = lorenz63().orbit(1500, seed=0)
FEW = {"steps": 3, "hidden": 10, "length": 30, "batch": 4}


@pytest.fixture(scope="module")
def hénon():
    """A map of two variables, which a network of two states learns in a short time."""
    series = henon().orbit(6000, seed=1)
    return reconstruct_dynamics(
        series, hidden=50, steps=3000, length=20, learning_rate=1e-2, regularization=0.0, seed=0
    )


def test_a_map_is_reconstructed(hénon):
    assert hénon.success and bool(hénon), hénon
    assert hénon.free_run.state_space <= hénon.floor.state_space + 1
    assert hénon.fit.finished and hénon.fit.loss < 1e-2
    spectrum = hénon.model.lyapunov_spectrum(20_000)
    assert spectrum.exponents[0] == pytest.approx(0.419, abs=0.08)
    assert spectrum.exponents.sum() == pytest.approx(np.log(0.3), abs=0.2)
    assert "SUCCESS" in repr(hénon) and "floor" in repr(hénon)
    assert learnsolve.reconstruct_dynamics is reconstruct_dynamics


def test_what_follows_is_near(hénon):
    true = henon().orbit(300, seed=2)
    ahead = hénon.model.forecast(true[:-3], 3)
    assert ahead.shape == (297, 3, 2)
    wrong = np.abs(ahead[:, 0] - true[1:-2]).mean()
    assert wrong < 0.05 * true.std()
    np.testing.assert_allclose(hénon.model.forecast(true[5], 3), ahead[5], atol=1e-5)
    np.testing.assert_allclose(hénon.model.simulate(3, x0=true[5]), ahead[5], atol=1e-5)
    np.testing.assert_allclose(hénon.model.simulate(2, x0=true[5], transient=1), ahead[5, 1:], atol=1e-5)


def test_fixed_points_are_those_of_the_map(hénon):
    """One of two of them lies on the attractor: b - 1 +- sqrt((1 - b)^2 + 4 a) over 2 a."""
    wanted = (-0.7 + np.sqrt(0.49 + 5.6)) / 2.8
    found = [point for point in hénon.model.fixed_points() if not point.stable]
    x = [point.state.numpy() * hénon.model.scale + hénon.model.mean for point in found]
    assert min(abs(one[0] - wanted) for one in x) < 0.05
    assert min(np.abs(one - [wanted, 0.3 * wanted]).max() for one in x) < 0.05


def test_jacobians_are_in_the_states(hénon):
    x = np.array([0.3, 0.1])
    z = hénon.model.states(x)
    J = hénon.model.jacobian(z)
    small = 1e-3
    ahead = hénon.model.forecast(np.stack([x, x + small * hénon.model.scale * [1, 0]]), 1)[:, 0]
    moved = (ahead[1] - ahead[0]) / hénon.model.scale / small
    np.testing.assert_allclose(J[:, 0], moved, atol=1e-2)


def test_models_come_back_from_files(hénon, tmp_path):
    path = tmp_path / "model.safetensors"
    hénon.model.save(path)
    again = DynamicalModel.load(path)
    x = np.array([[0.1, 0.2], [0.4, -0.1]])
    assert np.array_equal(again.forecast(x, 5), hénon.model.forecast(x, 5))
    assert (again.dt, again.names, again.dim) == (1.0, (), 2)
    assert np.array_equal(again.simulate(10), hénon.model.simulate(10))
    content = path.read_bytes()
    for damaged in (content[:-9], content.replace(b"identity", b"identitx"), content[:50]):
        path.write_bytes(damaged)
        with pytest.raises(WeightsError):
            DynamicalModel.load(path)


@pytest.mark.parametrize("method", ["gtf", "stf", "bptt"])
@pytest.mark.parametrize(
    "options",
    [
        {"alpha": 0.2},
        {"alpha": "maximum", "clipped": False},
        {"alpha": Annealed("arithmetic-mean", kept=0.0)},
        {"observation": "affine", "dim": 4, "alpha": "exponential-mean"},
        {"dim": 5, "dtype": torch.float64, "alpha": "upper-bound"},
    ],
)
def test_options_train(method, options):
    res = reconstruct_dynamics(SERIES, method, **FEW, **options, dt=0.01)
    assert res.fit.step == 3 and np.isfinite(res.fit.loss) and not res.success
    assert 0 <= res.alpha <= 1 and (method == "gtf" or res.alpha in (0.0, 1.0))
    assert res.model.simulate(7).shape == (7, 3)
    assert res.model.dt == 0.01 and res.model.dim == options.get("dim", 3)
    assert "too short" in res.message


def test_what_cannot_be_judged_is_no_success():
    """A series that goes away from where it was."""
    res = reconstruct_dynamics(np.arange(200.0)[:, None] + [[0.0, 1.0]], **FEW)
    assert not res.success and "unlike" in res.message


def test_what_does_not_fit_is_no_success():
    res = reconstruct_dynamics(henon().orbit(2000), **FEW)
    assert not res.success and "elsewhere" in res.message and "FINISHED" in repr(res)


@pytest.mark.parametrize("more", [{}, {"dim": 4}, {"observation": "affine", "dim": 3}])
def test_gaps_are_passed_over(more):
    """In each window, none of which is left out for them."""
    series = SERIES.copy()
    series[5::20] = np.nan
    series[300:310, 1] = np.nan
    res = reconstruct_dynamics(series, **{**FEW, **more})
    assert np.isfinite(res.fit.loss) and np.isfinite(res.model.mean).all() and res.fit.skipped == 0
    np.testing.assert_allclose(res.model.mean, np.nanmean(series[:1200], 0))


def test_several_trajectories_and_inputs():
    runs = [lorenz63().orbit(400, seed=seed) for seed in range(3)]
    forces = [np.sin(np.arange(400) / 9)[:, None] for _ in runs]
    res = reconstruct_dynamics(runs, inputs=forces, **FEW)
    assert res.model.network.inputs == 1
    assert res.model.forecast(runs[0][0], 5, inputs=forces[0][1:6]).shape == (5, 3)
    for call in (res.model.lyapunov_spectrum, res.model.fixed_points):
        with pytest.raises(ValueError, match="inputs"):
            call()
    with pytest.raises(ValueError, match="inputs"):
        res.model.simulate(3)


def test_runs_are_the_same_and_go_on(tmp_path):
    whole = reconstruct_dynamics(SERIES, **FEW | {"steps": 12})
    again = reconstruct_dynamics(SERIES, **FEW | {"steps": 12})
    folder = tmp_path / "run"
    part = reconstruct_dynamics(
        SERIES, **FEW | {"steps": 12}, folder=folder, callback=lambda now: now.step == 7
    )
    assert part.fit.status == "stopped" and not part.success and "step 7" in part.message
    rest = reconstruct_dynamics(SERIES, **FEW | {"steps": 12}, folder=folder)
    assert rest.fit.finished and rest.alpha == whole.alpha
    for res in (again, rest):
        for one, other in zip(res.model.network.parameters(), whole.model.network.parameters(), strict=True):
            assert torch.equal(one, other)


@pytest.mark.parametrize(
    ("series", "options", "words"),
    [
        (SERIES[:1], {}, "at least 2"),
        (np.ones((100, 2)), {}, r"variable 0 is constant \(1\)"),
        (np.full((100, 1), np.nan), {}, "never measured"),
        (np.array([[1.0], [np.inf]]), {}, "infinite"),
        (SERIES[:, :, None], {}, "shape"),
        (np.array(["a", "b"]), {}, "real numbers"),
        ([SERIES, SERIES[:, :2]], {}, "one number"),
        (SERIES, {"times": np.arange(1500.0) ** 2}, "equal steps"),
        (SERIES, {"times": np.arange(3.0)}, "one for each"),
        (SERIES, {"dt": 0.0}, "dt is"),
        (SERIES, {"length": 1200}, "longest"),
        (SERIES, {"method": "forcing"}, "gtf"),
        (SERIES, {"alpha": 1.2}, "alpha is 1.2"),
        (SERIES, {"alpha": "mean"}, "geometric-mean"),
        (SERIES, {"dim": 2}, "at most"),
        (SERIES, {"dim": 0}, "positive|at most"),
        (SERIES, {"every": 0}, "every"),
        (SERIES, {"held_out": 1.0}, "held_out"),
        (SERIES, {"names": ["x"]}, "names"),
        (SERIES, {"inputs": SERIES[:7]}, "as many times"),
        (SERIES, {"inputs": np.full((1500, 1), np.nan)}, "gaps"),
        (SERIES, {"observation": "linear"}, "affine"),
        (SERIES, {"dtype": torch.float16}, "float32"),
        (SERIES, {"steps": 0}, "steps"),
        (SERIES, {"regularization": -1.0}, "at least 0"),
        (SERIES[:4], {"length": 1, "held_out": 0.2}, "judge"),
    ],
)
def test_what_is_refused(series, options, words):
    with pytest.raises(ValueError, match=words):
        reconstruct_dynamics(series, **FEW | options)


def test_what_a_model_refuses():
    model = reconstruct_dynamics(SERIES, **FEW).model
    for call, words in (
        (lambda: model.forecast([1.0], 3), "shape"),
        (lambda: model.forecast([1.0, np.nan, 2.0], 3), "finite"),
        (lambda: model.forecast([1.0, 1.0, 2.0], -1), "steps"),
        (lambda: model.lyapunov_spectrum(0), "accepted"),
        (lambda: model.lyapunov_spectrum(10, count=4), "accepted"),
    ):
        with pytest.raises(ValueError, match=words):
            call()


def test_dimension_of_an_attractor():
    assert Spectrum(np.array([0.906, 0.0, -14.57]), 1).kaplan_yorke == pytest.approx(2.062, abs=1e-3)
    assert Spectrum(np.array([-0.1, -0.2]), 1).kaplan_yorke == 0
    assert Spectrum(np.array([0.3, 0.1]), 1).kaplan_yorke == 2


@pytest.mark.slow
def test_lorenz_is_reconstructed_where_forcing_is_generalized():
    torch.set_num_threads(1)
    series = observed(lorenz63().orbit(100_000, seed=1), noise=0.05, seed=1)
    clean = lorenz63().orbit(100_000, seed=2)
    found = {}
    for name, alpha in (("gtf", "geometric-mean"), ("free", 0.0), ("forced", 1.0)):
        res = reconstruct_dynamics(series, alpha=alpha, dt=0.01, steps=25_000)
        run = res.model.simulate(100_000, x0=clean[0], transient=25_000)
        found[name] = learnsolve.dynamics.measures.state_space_divergence(clean, run)
        if name == "gtf":
            assert res.success
            assert res.model.lyapunov_spectrum().exponents[0] == pytest.approx(0.906, abs=0.15)
    assert found["gtf"] < 1 < min(found["free"], found["forced"])
