"""The Chimera layer: streaming, causality, gradients, special cases; and the networks made of it."""

import pytest
import torch

from learnsolve.forecasting import ChimeraClassifier, ChimeraOptions, Ridge, train_classifier
from learnsolve.forecasting.chimera import ChimeraEncoder, load, save
from learnsolve.sequence import linear_recurrence
from learnsolve.sequence.layers.chimera import Chimera
from learnsolve.training import FitOptions, WeightsError

LAYERS = {
    "chimera": {},
    "one way": {"bidirectional": False},
    "mamba": {"coupled": False},
    "mamba-2": {"coupled": False, "groups": 2},
    "scalar": {"groups": 4},
    "bilinear": {"discretization": "bilinear", "expand": 2.0},
}


def draw(*shape, seed=0):
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def layer(name, width=4):
    torch.manual_seed(0)
    return Chimera(width, 3, **LAYERS[name]).double()


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("lengths", [(9,), (3, 0, 6), (1,) * 9])
def test_in_parallel_as_one_by_one(name, lengths):
    mixer, x = layer(name), draw(2, 3, 9, 4)
    whole, last = mixer(x)
    state, parts = None, []
    for part in x.split(lengths, 2):
        y, state = mixer(part, state)
        parts.append(y)
    torch.testing.assert_close(torch.cat(parts, 2), whole)
    for one, two in zip(state, last, strict=True):
        torch.testing.assert_close(one, two)


@pytest.mark.parametrize("name", LAYERS)
def test_nothing_comes_from_the_future_and_something_from_all_variates(name):
    mixer, x = layer(name), draw(1, 5, 7, 4).requires_grad_()
    mixer(x)[0][:, 2, 3].sum().backward()
    reach = x.grad[0].abs().amax(-1)
    assert reach[:, 4:].max() == 0
    assert reach[2, :4].min() > 1e-9
    both = LAYERS[name].get("bidirectional", True)
    assert (reach[3:, :4].max() > 1e-9) == both
    assert reach[:2, 3].min() > 1e-9
    # Earlier times of other variates are reached only by states that drive each other.
    assert (reach[:2, :3].min() > 1e-12) == LAYERS[name].get("coupled", True)


@pytest.mark.parametrize("name", LAYERS)
def test_gradients(name):
    mixer, x = layer(name, 4), draw(1, 2, 3, 4).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: mixer(x)[0], x, nondet_tol=1e-12)


def test_two_dimensional_mamba_is_a_scan_along_each_axis():
    """Of uncoupled states the one along time is the selective scan of one dimension."""
    mixer, x = layer("mamba"), draw(2, 3, 5, 4)
    _, last = mixer(x)
    head = mixer.heads[0]
    u = torch.nn.functional.silu(mixer.enter(x).chunk(2, -1)[0])
    dt = torch.nn.functional.softplus(head.steps(u))[..., :4]
    rate = -head.rate[0].exp()
    z = dt.unsqueeze(-1) * rate
    driven = torch.expm1(z) / rate * head.read(u)[..., None, :3] * u.unsqueeze(-1)
    wanted, end = linear_recurrence(z.exp().flatten(0, 1).flatten(2), driven.flatten(0, 1).flatten(2))
    torch.testing.assert_close(last.along[0].flatten(0, 1).flatten(1), end)
    assert wanted.shape == (6, 5, 12)


def test_groups_share_rates_and_steps():
    few, many = layer("mamba-2"), layer("mamba")
    assert few.heads[0].rate.shape == (2, 2, 1) and many.heads[0].rate.shape == (2, 4, 3)
    assert sum(p.numel() for p in few.parameters()) < sum(p.numel() for p in many.parameters())


def test_trends_have_shorter_steps_than_seasons():
    torch.manual_seed(0)
    mixer = Chimera(32, 2)
    steps = [torch.nn.functional.softplus(head.steps.bias[:32]) for head in mixer.heads]
    assert len(steps) == 4 and steps[0].max() <= 0.1001 and steps[1].max() <= 0.1001
    assert steps[2].min() >= 0.0999 and steps[3].min() >= 0.0999


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"width": 0}, "width is 0"),
        ({"width": 4, "state": 0}, "state 0"),
        ({"width": 4, "groups": 3}, "groups 3"),
        ({"width": 4, "trend": (0.1, 0.01)}, "trend is"),
        ({"width": 4, "seasonal": (0.0, 0.1)}, "seasonal is"),
    ],
)
def test_bad_options(options, match):
    with pytest.raises(ValueError, match=match):
        Chimera(**options)


def test_bad_shapes():
    with pytest.raises(ValueError, match=r"\(B, V, T, 4\) is accepted"):
        layer("chimera")(draw(2, 5, 4))


OPTIONS = ChimeraOptions(variates=3, look_back=26, horizon=5, patch=4, width=4, state=2)


def network(options=OPTIONS):
    torch.manual_seed(1)
    return options.build().eval()


def test_a_forecaster_begins_at_the_line():
    found, x = network(), draw(2, 3, 26).float()
    line = Ridge(draw(26, 5, seed=1).float(), 1.0, 0.0)
    found.begin(line)
    torch.testing.assert_close(found(x), line(x))
    with pytest.raises(ValueError, match=r"the line has shape \(25, 5\)"):
        found.begin(Ridge(torch.zeros(25, 5), 1.0, 0.0))


def test_only_what_is_chosen_is_learned():
    names = {name for name, one in network().named_parameters() if one.requires_grad}
    learned = ChimeraOptions(3, 26, 5, patch=4, width=4, state=2, linear="learned").build()
    assert "linear" not in names
    assert {name for name, one in learned.named_parameters() if one.requires_grad} == names | {"linear"}


def test_forecasts_move_and_grow_with_the_series():
    """But for the least deviation, which is added so that none is divided by zero."""
    found = network().double()
    torch.nn.init.normal_(found.out.weight)
    x = draw(2, 3, 26)
    torch.testing.assert_close(found(x + 5), found(x) + 5)
    torch.testing.assert_close(found(100 * x) / 100, found(x), rtol=0.1, atol=0.1)


def test_forecasts_in_units_of_the_series():
    found = network()
    torch.nn.init.normal_(found.out.weight)
    mean, scale = torch.tensor([1.0, -2.0, 0.5]), torch.tensor([2.0, 0.1, 5.0])
    found.standardise(mean, scale)
    values = draw(3, 40).float()
    wanted = (
        found(((values - mean[:, None]) / scale[:, None])[None, :, -26:])[0] * scale[:, None] + mean[:, None]
    )
    torch.testing.assert_close(found.forecast(values), wanted)


def test_networks_come_back_from_files(tmp_path):
    found = network()
    torch.nn.init.normal_(found.out.weight)
    found.standardise(torch.ones(3), 2 * torch.ones(3))
    save(tmp_path / "a.safetensors", found, names=["a", "b", "c"])
    again, values = load(tmp_path / "a.safetensors"), draw(3, 30).float()
    assert again.options == OPTIONS and torch.equal(again.forecast(values), found.forecast(values))
    (tmp_path / "b.safetensors").write_bytes(b"no")
    with pytest.raises(WeightsError):
        load(tmp_path / "b.safetensors")


def test_encoders_leave_out_what_makes_no_whole_patch():
    torch.manual_seed(0)
    encoder, x = ChimeraEncoder(2, 4, width=4), draw(1, 2, 11).float()
    assert torch.equal(encoder(x), encoder(x[..., 3:]))


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"variates": 0}, "must be positive"),
        ({"patch": 30}, "patch is 30; up to the look-back, 26"),
        ({"dropout": 1.0}, "dropout is 1.0"),
        ({"linear": "none"}, "linear 'none'"),
    ],
)
def test_bad_options_of_forecasters(options, match):
    with pytest.raises(ValueError, match=match):
        ChimeraOptions(**{"variates": 3, "look_back": 26, "horizon": 5, "patch": 4, **options})


def test_bad_windows():
    with pytest.raises(ValueError, match=r"\(B, 3, 26\) is accepted"):
        network()(torch.zeros(2, 3, 25))


def pulses(count, generator):
    """A pulse of each of two variates, and whether that of the first comes first."""
    times = torch.rand(count, 8, generator=generator).argsort(1)[:, :2]
    x = 0.1 * torch.randn(count, 2, 8, generator=generator)
    x.scatter_add_(2, times.unsqueeze(2), torch.full((count, 2, 1), 2.0))
    return x, (times[:, 0] < times[:, 1]).long()


@pytest.mark.slow
def test_which_variate_comes_first_is_learned():
    """By one of the variates alone no more than three of four are right."""
    generator = torch.Generator().manual_seed(0)
    x, y = pulses(1024, generator)
    judged, truth = pulses(512, generator)
    torch.manual_seed(0)
    found = ChimeraClassifier(2, 2, width=16, state=2)
    options = FitOptions(steps=200, learning_rate=1e-2, warmup=10, schedule="cosine")
    train_classifier(found, x, y, options)
    with torch.no_grad():
        right = float((found.eval()(judged).argmax(-1) == truth).float().mean())
    assert right > 0.95


def test_bad_input_of_classifiers():
    found = ChimeraClassifier(2, 2, patch=4, width=4)
    with pytest.raises(ValueError, match="T of 4 or more"):
        found(torch.zeros(1, 2, 3))
    with pytest.raises(ValueError, match="patch 0"):
        ChimeraClassifier(2, 2, patch=0)
    with pytest.raises(ValueError, match="classes"):
        train_classifier(found, torch.zeros(3, 2, 8), torch.zeros(2, dtype=torch.int64), FitOptions(steps=1))
